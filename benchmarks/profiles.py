"""Where a call's time goes: cProfile over the operations of chosen measures."""

from __future__ import annotations

import cProfile
import io
import itertools
import pstats
import time
from collections.abc import Sequence

from benchmarks.data import Plan
from benchmarks.measures import Measure, Operation, Subject, warm_up

CALL_COUNT_MAX = 20_000
PROFILE_SECONDS_MAX = 3.0
LINE_COUNT = 25


def run(subjects: Sequence[Subject], measures: Sequence[Measure], plan: Plan) -> None:
    """Print a profile of each backend in each measure that times single calls.

    A profile makes every Python call slower by a fixed amount, so it overstates small functions: it says where to look,
    and the measures say what was gained.
    """
    for subject in subjects:
        for measure in measures:
            if measure.make is None or measure.where != "plain" or (subject.raw and not measure.raw):
                continue
            subject.cache.clear()
            operation = measure.make(subject, plan)
            warm_up(operation, plan.batch_ns)
            print(f"{subject.name}, {measure.title}\n{profile(operation)}")


def profile(operation: Operation) -> str:
    """Profile an operation, without what it does before each call. Returns: a table, dearest function first."""
    profiler = cProfile.Profile()
    stop_at = time.monotonic() + PROFILE_SECONDS_MAX
    for arguments in itertools.islice(itertools.cycle(operation.arguments), CALL_COUNT_MAX):
        if operation.before is not None:
            operation.before(*arguments)
        profiler.runcall(operation.call, *arguments)
        if time.monotonic() >= stop_at:
            break
    output = io.StringIO()
    pstats.Stats(profiler, stream=output).strip_dirs().sort_stats("tottime").print_stats(LINE_COUNT)
    return output.getvalue()

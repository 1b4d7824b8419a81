"""Compare our clients of the ancestors' APIs with the figures of the ancestors themselves, in one interleaved run.

    python benchmarks/ancestors.py --quick
    python benchmarks/ancestors.py --only keyspace,lmdb,redis --measures get_10000,set_10000 --json out.json
    python benchmarks/ancestors.py --budgets

Beside them run py-lmdb, the limit of an LMDB store, and redis-py, the everyday peer. README.md says how to read the result.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # The folder above, not this one, has the packages: benchmarks, and the project where it is not installed.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import ancestor_subjects, command, report, rounds
from benchmarks.ancestor_subjects import SUBJECTS, Subject
from benchmarks.budgets import Budget
from benchmarks.data import Plan
from benchmarks.measures import Measure, NotMeasured
from benchmarks.measures import Subject as Turn
from benchmarks.peers import distribution_version
from benchmarks.servers import Workspace

SEARCHED = 1_000_000

MEASURES: tuple[Measure, ...] = tuple(
    Measure(name, title, group, unit="ops/s")
    for name, title, group in (
        ("get", "single gets", "calls"),
        ("set", "single sets", "calls"),
        ("incr", "single increments", "calls"),
        ("get_100", "gets of 100 keys", "bulk"),
        ("set_100", "sets of 100 keys", "bulk"),
        ("get_10000", "gets of 10,000 keys", "bulk"),
        ("set_10000", "sets of 10,000 keys", "bulk"),
        ("list", "a listing of 100,000 keys by their prefix", "search"),
        ("match_regex", "a regular expression over 1,000,000 keys", "search"),
        ("match_similar", "edit distance over 1,000,000 keys", "search"),
    )
)
MEASURES_BY_NAME = {measure.name: measure for measure in MEASURES}

#: What the ancestors did over TCP, a single node on the machine that the budgets were set on: (measure, lowest and highest
#: figure per second), by the subject that is compared with it.
FIGURES: dict[str, tuple[tuple[str, float, float], ...]] = {
    "keyspace": (
        ("get", 41_000, 41_000),
        ("set", 28_000, 28_000),
        ("get_10000", 276_000, 276_000),
        ("set_10000", 325_000, 325_000),
    ),
    "kyoto": (
        ("get", 18_000, 23_000),
        ("set", 21_000, 28_000),
        ("incr", 5_000, 7_000),
        ("get_100", 250_000, 270_000),
        ("set_100", 420_000, 440_000),
    ),
}
NODE_PART = 0.5
"""A node has to reach so much of an ancestor's figure; our aim is all of it. Held for many keys at once, not for single calls."""

BUDGETS: tuple[Budget, ...] = tuple(
    budget
    for backend, figures in FIGURES.items()
    for measure, lowest, highest in figures
    if MEASURES_BY_NAME[measure].group == "bulk"
    for budget in (
        Budget(backend, measure, lowest, highest, at_least=True),
        Budget(f"{backend}-node", measure, NODE_PART * lowest, lowest, at_least=True),
    )
)


class Goes:
    """One measure: how often a subject's method can be done in a moment, times what it answers."""

    def __init__(self, measure: str, plan: Plan, subjects: dict[str, Subject]) -> None:
        self._measure, self._plan, self._subjects = measure, plan, subjects

    def prepare(self, turn: Turn) -> None:
        """Store what this subject needs, and do it once."""
        self._method(turn)  # before anything is stored
        self._subjects[turn.name].prepare(self._measure)
        self._method(turn)()

    def batch(self, turn: Turn) -> list[float]:
        """Calls or keys per second."""
        method = self._method(turn)
        done, began_ns = 0, time.perf_counter_ns()
        while True:
            done += method()
            elapsed_ns = time.perf_counter_ns() - began_ns
            if elapsed_ns >= self._plan.batch_ns:
                return [done * 1e9 / elapsed_ns]

    def close(self) -> None:
        """Nothing is kept."""

    def _method(self, turn: Turn) -> Callable[[], int]:
        method: Callable[[], int] | None = getattr(self._subjects[turn.name], self._measure, None)
        if method is None:
            raise NotMeasured("it has no such call")
        return method


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for. Returns: 1 where a must is not kept or not shown, otherwise 0."""
    options = parse(arguments)
    with Workspace(options.folder) as workspace:
        subjects: dict[str, Subject] = {}
        try:
            found = run(workspace, options, subjects)
        finally:
            _close(subjects)
    return command.publish(found, options, BUDGETS)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; its ``plan`` is the Plan that the options make."""
    options = command.parse(
        arguments,
        __doc__,
        subjects=SUBJECTS,
        measures=MEASURES_BY_NAME,
        batch_ms=60.0,
        budgets_help="compare with the ancestors' figures; exit code 1 below",
    )
    return options


def run(workspace: Workspace, options: argparse.Namespace, subjects: dict[str, Subject]) -> report.Report:
    """Start the subjects, measure, and return the report.

    Arguments: the workspace; the command line; where to note the subjects that were started, for whoever closes them.
    """
    scale = 100 if options.quick else 1
    backends: dict[str, Any] = {}
    for name in options.only:
        title, cls = SUBJECTS[name]
        row = backends[name] = {"title": title, "state": "present", "versions": _versions(name)}
        try:
            subjects[name] = cls(workspace, ancestor_subjects.LISTED // scale, SEARCHED // scale)
        except Exception as error:
            row |= {"state": "absent", "reason": f"it did not start: {type(error).__name__}: {error}"[:400]}
            report.progress(f"{name}: {row['reason']}")
    found = report.start(options.plan, options.quick, backends, references=("lmdb", "redis"))
    for name in options.measures:
        measure = MEASURES_BY_NAME[name]
        report.progress(f"{name}: {measure.title}")
        turns = [Turn(subject, subject, None) for subject in subjects]
        # A search goes through a million keys in each turn.
        count = min(options.plan.rounds, 3) if measure.group == "search" else options.plan.rounds
        rows = rounds.run(Goes(name, options.plan, subjects), turns, count, report.progress)
        report.add_measure(found, measure, rows, {})
    return found


def _versions(name: str) -> dict[str, str]:
    distributions = {"redis": ("redis", "hiredis"), "lmdb": ("lmdb",)}.get(name, ("django-keyspace", "lmdb"))
    return {distribution: distribution_version(distribution) for distribution in distributions}


def _close(subjects: dict[str, Subject]) -> None:
    from django_keyspace.store import registry

    for subject in subjects.values():
        subject.close()
    registry.shutdown_all()


if __name__ == "__main__":
    sys.exit(main())

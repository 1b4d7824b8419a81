"""Runs of many seeds: outcomes that travel between processes, totals, and the kinds of faults that must have happened."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.connection import Connection, wait
from pathlib import Path
from time import monotonic, process_time
from traceback import format_exception

from tests.sim import clock, disk
from tests.sim.cluster import SimCluster
from tests.sim.profiles import PROFILES

FAULTS = tuple(sorted({name for _, profile in PROFILES for name in profile.faults}))
KINDS = (
    *(f"fault:{name}" for name in FAULTS),
    *(f"disk:{kind}" for kind in disk.KINDS),
    *(f"clock:{kind}" for kind in clock.KINDS),
    "loss", "duplicate", "reorder", "spike", "cut_frame", "lost_in_flight",
    "lost_request", "cut_request", "resend", "late_answer", "logged_twice", "session_expired",
    "cut_write", "power_cut", "gave_up", "unusable", "rejoin", "slow_apply",
    "install", "digest", "sweep", "evict", "expire_sessions", "script_barrier",
    "members:add", "members:promote", "members:remove",
)  # fmt: skip
"""What has to have happened in a run of many seeds; otherwise it shows less than it says."""


@dataclass
class Outcome:
    """What became of a seed."""

    seed: int
    profile: str
    counts: Counter[str]
    virtual_us: int
    operations: int
    digest: int
    cpu_s: float
    failure: str = ""


@dataclass
class Totals:
    """What became of many."""

    seeds: int = 0
    virtual_us: int = 0
    operations: int = 0
    cpu_s: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """One more."""
        self.seeds += 1
        self.virtual_us += outcome.virtual_us
        self.operations += outcome.operations
        self.cpu_s += outcome.cpu_s
        self.counts.update(outcome.counts)
        if outcome.failure:
            self.failures.append(outcome)

    @property
    def missing(self) -> list[str]:
        """Kinds that never happened."""
        return [kind for kind in KINDS if not self.counts[kind]]

    def lines(self) -> Iterator[str]:
        """The totals, for people."""
        yield (
            f"{self.seeds:,} seeds, {self.virtual_us / 3.6e9:,.1f} virtual hours, {self.operations:,} operations of clients, "
            f"{self.cpu_s / max(self.seeds, 1):.2f} s of CPU per seed, {len(self.failures)} failures"
        )
        shown = [*KINDS, *sorted(self.counts.keys() - set(KINDS))]
        width = max(map(len, shown))
        for begin in range(0, len(shown), 3):
            row = shown[begin : begin + 3]
            yield "   ".join(f"{kind:<{width}} {self.counts[kind]:>10,}" for kind in row)
        if self.missing:
            yield f"Never happened: {', '.join(self.missing)}"


@contextmanager
def quiet_logs() -> Iterator[None]:
    """What nodes log about simulated trouble is not interesting; and a run leaves little enough behind to collect it later."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        logging.disable(before)


def run_seed(seed: int, profile: str | None = None, say: Callable[[str], None] | None = None) -> Outcome:
    """Run one seed. What goes wrong is in the outcome's ``failure``."""
    began_s = process_time()
    cluster = SimCluster(seed, profile=profile, say=say)
    failure = ""
    with quiet_logs():
        try:
            cluster.run()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a violation, or anything that a correct cluster would not raise
            failure = "".join(format_exception(error))
    world = cluster.world
    return Outcome(
        seed,
        cluster.plan.profile.name,
        world.counts,
        world.now_us,
        len(cluster.history.events),
        world.digest,
        process_time() - began_s,
        failure,
    )


def run_many(
    seeds: Iterable[int],
    *,
    profile: str | None = None,
    jobs: int = 1,
    until_s: float | None = None,
    tell: Callable[[Outcome], None] = lambda outcome: None,
) -> Totals:
    """Run seeds.

    Arguments:
        seeds: which.
        profile: the mix of faults; None: what each seed draws.
        jobs: processes to use.
        until_s: begin no more after that, on the monotonic clock.
        tell: called with each outcome.
    """
    totals = Totals()
    source = iter(seeds)
    if jobs <= 1:
        for seed in source:
            outcome = run_seed(seed, profile)
            totals.add(outcome)
            tell(outcome)
            if until_s is not None and monotonic() > until_s:
                break
        return totals
    context = multiprocessing.get_context("fork")
    workers: dict[Connection, multiprocessing.process.BaseProcess] = {}
    for _ in range(jobs):
        here, there = context.Pipe()
        process = context.Process(target=_work, args=(there, profile))
        process.start()
        there.close()
        workers[here] = process
    for connection, seed in zip(list(workers), islice(source, jobs), strict=False):
        connection.send(seed)
    busy = set(workers)
    while busy:
        for ready in wait(list(busy)):
            assert isinstance(ready, Connection)
            outcome = ready.recv()
            totals.add(outcome)
            tell(outcome)
            seed = next(source, None) if until_s is None or monotonic() <= until_s else None
            if seed is None:
                busy.discard(ready)
            else:
                ready.send(seed)
    for connection, process in workers.items():
        connection.send(None)
        process.join()
        connection.close()
    return totals


def _work(connection: Connection, profile: str | None) -> None:
    while (seed := connection.recv()) is not None:
        connection.send(run_seed(seed, profile))


def commit() -> str:
    """The commit of the checkout, and whether it was changed."""
    root = Path(__file__).resolve().parents[2]

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False).stdout.strip()

    changed = " with changes" if git("status", "--porcelain", "--", "django_keyspace", "tests/sim") else ""
    return (git("rev-parse", "--short", "HEAD") or "no commit") + changed

"""Compare three nodes with a cluster of etcd and with Redis and its replicas, in one interleaved run.

    python benchmarks/cluster.py --quick
    python benchmarks/cluster.py --json out.json          # some ten minutes; twenty kills of the leader
    python benchmarks/cluster.py --only keyspace,etcd --measures set,get,gap --budgets

All members run on this machine and sync to the disk before they answer. README.md says how to read the result.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # The folder above, not this one, has the packages: benchmarks, and the project where it is not installed.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import command, report, rounds
from benchmarks.budgets import Budget
from benchmarks.cluster_subjects import SUBJECTS, Subject
from benchmarks.cluster_works import ASCENDING, Batches, Gaps, Single, Together
from benchmarks.data import Plan
from benchmarks.measures import Measure
from benchmarks.measures import Subject as Turn
from benchmarks.peers import distribution_version
from benchmarks.servers import Workspace

KILLS = 20

MEASURES: tuple[Measure, ...] = (
    Measure("set", "single sets", "operations"),
    Measure("get", "gets that see every write", "operations"),
    Measure("get_lease", "gets that trust in clocks", "operations"),
    Measure("get_session", "gets that see the client's own writes", "operations"),
    Measure("get_dirty", "gets of whatever a member has", "operations"),
    Measure("sets_4", "sets of four processes", "throughput", unit="ops/s"),
    Measure("gets_4", "gets of four processes", "throughput", unit="ops/s"),
    Measure("set_100", "sets of 100 keys", "bulk", unit="ops/s"),
    Measure("set_10000", "sets of 10,000 ascending keys", "bulk", unit="ops/s"),
    Measure("set_cpu", "processor time of the members for a set of four processes", "processor"),
    Measure("set_client_cpu", "processor time of the client for it", "processor"),
    Measure("gap", "the longest time without an acknowledged write after the leader was killed", "failover", unit="ms"),
)
MEASURES_BY_NAME = {measure.name: measure for measure in MEASURES}

BUDGETS: tuple[Budget, ...] = (
    Budget("keyspace", "set", 0.6, None, to_backend="etcd"),
    Budget("keyspace", "sets_4", 2.0, None, to_backend="etcd", at_least=True),
    Budget("keyspace", "set_100", 1.0, 2.0, to_backend="redis", at_least=True),
    Budget("keyspace", "set_10000", 100_000, 200_000, at_least=True),
    Budget("keyspace", "get", 0.4, 0.25, to_backend="etcd"),
    Budget("keyspace-lease", "get_lease", 1.2, 1.0, to_backend="redis", to_measure="get"),
    Budget("keyspace", "gap", 1_000, 500, absolute_unit="ms"),
)


WITHOUT = {"get_lease": "keyspace"}
"""Leases are switched off where nobody asked for them: who has them takes part in that measure alone."""


def work_of(name: str, plan: Plan, subjects: dict[str, Subject]) -> Any:
    """What carries a measure out."""
    if name == "gap":
        return Gaps(plan, subjects)
    if name in ("set_100", "set_10000"):
        size = 100 if name == "set_100" else ASCENDING
        return Batches(plan, subjects, size, ascending=size == ASCENDING)
    together = {
        "sets_4": ("set", "rate"),
        "gets_4": ("get", "rate"),
        "set_cpu": ("set", "servers"),
        "set_client_cpu": ("set", "clients"),
    }
    if name in together:
        return Together(plan, subjects, *together[name])
    return Single(plan, subjects, name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for. Returns: 1 where a must is not kept or not shown, otherwise 0."""
    options = command.parse(
        arguments,
        __doc__,
        subjects=SUBJECTS,
        measures=MEASURES_BY_NAME,
        batch_ms=200.0,
        budgets_help="compare with the budgets; exit code 1 where a must is not kept",
    )
    with Workspace(options.folder) as workspace:
        subjects: dict[str, Subject] = {}
        try:
            found = run(workspace, options, subjects)
        finally:
            for subject in subjects.values():
                subject.close()
    return command.publish(found, options, BUDGETS)


def run(workspace: Workspace, options: argparse.Namespace, subjects: dict[str, Subject]) -> report.Report:
    """Start the members, measure, and return the report.

    Arguments: the workspace; the command line; where to note the subjects that were started, for whoever closes them.
    """
    backends: dict[str, Any] = {}
    for name in options.only:
        title, start = SUBJECTS[name]
        row = backends[name] = {"title": title, "state": "present", "versions": _versions(name)}
        try:
            subjects[name] = start(workspace)
        except Exception as error:
            row |= {"state": "absent", "reason": f"it did not start: {type(error).__name__}: {error}"[:400]}
            report.progress(f"{name}: {row['reason']}")
    found = report.start(options.plan, options.quick, backends, references=("etcd", "redis"))
    for name in options.measures:
        measure = MEASURES_BY_NAME[name]
        report.progress(f"{name}: {measure.title}")
        turns = [Turn(subject, subject, None) for subject in subjects if subject != WITHOUT.get(name, "keyspace-lease")]
        count = max(options.plan.rounds, KILLS) if name == "gap" and not options.quick else options.plan.rounds
        rows = rounds.run(work_of(name, options.plan, subjects), turns, count, report.progress)
        report.add_measure(found, measure, rows, {})
        for subject, row in rows.items():
            if name == "gap" and row.measured:
                report.progress(
                    f"    {subject}: the longest of all {max(max(each) for each in row.rounds if each):,.0f} ms"
                )
    return found


def _versions(name: str) -> dict[str, str]:
    distributions = {"redis": ("redis", "hiredis"), "etcd": ("grpcio",)}.get(
        name, ("django-keyspace", "lmdb", "uvloop")
    )
    return {distribution: distribution_version(distribution) for distribution in distributions}


if __name__ == "__main__":
    sys.exit(main())

"""Compare the cache backends that a Django site could use, ours among them, in one interleaved run.

    python benchmarks/caches.py --quick
    python benchmarks/caches.py --only embedded,locmem,pylibmc --measures get,set --json out.json
    python benchmarks/caches.py --budgets

README.md beside this file says how to read the result.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

if __name__ == "__main__":
    # The folder above, not this one, has the packages: benchmarks, and the project where it is not installed.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import budgets, django_setup, profiles, report, rounds
from benchmarks.data import QUICK, Plan
from benchmarks.measures import MEASURES, MEASURES_BY_NAME, Measure, Subject
from benchmarks.peers import PEERS_BY_NAME, Instance, Peer
from benchmarks.processes import Crew
from benchmarks.servers import Workspace
from benchmarks.works import Calls, Processes, Requests, Stores, Tasks, Threads

STORE_MEASURES = ("set_small_store", "set_large_store")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for. Returns: 1 where a budget's must is not kept or not shown, otherwise 0."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, _leave)
    with Workspace(options.folder) as workspace:
        run = Run(workspace, options)
        try:
            found = run.run()
        finally:
            run.finish()
    if options.profile:
        return 0
    verdicts = budgets.judge_all(budgets.TABLES[options.budgets], found) if options.budgets else []
    found["budgets"] = [verdict.as_json() for verdict in verdicts]
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
        report.progress(f"written to {options.json}")
    print(report.tables(found, options.markdown))
    if verdicts:
        print("\n" + report.budget_table(verdicts, budgets.speed(found), options.markdown))
    return int(any(verdict.failed for verdict in verdicts))


def _leave(_number: int, _frame: FrameType | None) -> None:
    # As an exception the signal passes through the blocks that end the servers.
    raise SystemExit("ended by a signal")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; its ``plan`` is the Plan that the options make."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes, with rough figures")
    parser.add_argument("--only", type=_names(PEERS_BY_NAME), metavar="A,B", help=f"of {', '.join(PEERS_BY_NAME)}")
    parser.add_argument("--measures", type=_names(MEASURES_BY_NAME), metavar="A,B", help=", ".join(MEASURES_BY_NAME))
    parser.add_argument("--rounds", type=_positive, help="interleaved rounds per measure")
    parser.add_argument("--large-store-keys", type=_positive, help="keys in the large store of set_large_store")
    parser.add_argument("--uvloop", action="store_true", help="run the async measures on uvloop")
    parser.add_argument("--folder", type=Path, help="where the stores lie; the system's temporary folder otherwise")
    parser.add_argument("--json", type=Path, help="write the whole result to this file")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    parser.add_argument(
        "--budgets",
        nargs="?",
        const="embedded",
        choices=sorted(budgets.TABLES),
        help="compare with the speed budgets; exit code 1 where a must falls short or has no figure",
    )
    parser.add_argument("--profile", type=_names(PEERS_BY_NAME), metavar="A,B", help="profile these backends instead")
    options = parser.parse_args(arguments)
    changes: dict[str, Any] = {"uvloop": options.uvloop}
    if options.rounds:
        changes["rounds"] = options.rounds
    if options.large_store_keys:
        changes["large_store_keys"] = options.large_store_keys
    options.plan = dataclasses.replace(QUICK if options.quick else Plan(), **changes)
    return options


def _names(known: dict[str, Any]) -> Any:
    def split(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",") if name.strip()]
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown) or 'nothing'} is not one of {', '.join(known)}")
        return names

    return split


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


class Run:
    """One run: which peers are here, their instances, and every measure over them."""

    def __init__(self, workspace: Workspace, options: argparse.Namespace) -> None:
        self._workspace, self._options, self._plan = workspace, options, options.plan
        self._backends: dict[str, dict[str, Any]] = {}
        self._subjects: list[Subject] = []

    def run(self) -> report.Report:
        """Start everything, measure, and return the report."""
        django_setup.configure({}, self._workspace.path / "database.sqlite3")
        chosen = self._options.only or self._options.profile or list(PEERS_BY_NAME)
        for name in chosen:
            self._start_peer(PEERS_BY_NAME[name])
        found = report.start(self._plan, self._options.quick, self._backends)
        if self._options.profile:
            profiles.run(self._subjects, self._measures(), self._plan)
            return found
        for measure in self._measures():
            started = time.monotonic()
            report.progress(f"{measure.name}: {measure.title}")
            if measure.group == "stores":
                if measure.name not in found["measures"]:
                    self._measure_stores(found)
            else:
                self._measure(found, measure)
            report.progress(f"    {time.monotonic() - started:.1f} s")
        found["machine"]["load_average_at_end"] = report.machine()["load_average"]
        return found

    def finish(self) -> None:
        """Close what peers keep open in this process, before their folders are removed."""
        for finish in {PEERS_BY_NAME[subject.name].finish for subject in self._subjects}:
            if finish is not None:
                finish()

    def _measures(self) -> list[Measure]:
        names = self._options.measures
        return [measure for measure in MEASURES if names is None or measure.name in names]

    def _start_peer(self, peer: Peer) -> None:
        row = self._backends[peer.name] = {"title": peer.title, "state": "absent", "versions": {}}
        reason = peer.why_absent()
        if reason is None:
            row["versions"] = peer.versions()
            try:
                subject = self._subject(peer, peer.start(self._workspace, "main"))
                subject.cache.set("bench:first", "value")
                if subject.cache.get("bench:first") != "value":
                    raise LookupError("it does not return what was stored")
            except Exception as error:
                reason = f"it did not start: {type(error).__name__}: {error}"[:400]
            else:
                row["state"] = "present"
                self._subjects.append(subject)
        if reason is not None:
            row["reason"] = reason
        report.progress(f"{peer.name}: {reason or ', '.join(' '.join(item) for item in row['versions'].items())}")

    def _subject(self, peer: Peer, instance: Instance, name: str | None = None) -> Subject:
        from django.core.cache import caches

        django_setup.add_alias(instance.alias, instance.config)
        return Subject(name or peer.name, instance.alias, caches[instance.alias], raw=not peer.cache)

    def _measure(self, found: report.Report, measure: Measure) -> None:
        subjects = [subject for subject in self._subjects if measure.raw or not subject.raw]
        skipped = {subject.name: "it is no cache" for subject in self._subjects if subject not in subjects}
        try:
            work = self._work(measure)
        except Exception as error:
            skipped |= {subject.name: f"{type(error).__name__}: {error}" for subject in subjects}
            report.add_measure(found, measure, {}, skipped)
            return
        rows = rounds.run(work, subjects, self._plan.rounds, report.progress)
        report.add_measure(found, measure, rows, skipped)

    def _work(self, measure: Measure) -> rounds.Work:
        plan = self._plan
        if measure.name == "processes":
            from django.conf import settings

            crew = Crew(plan.process_count, dict(settings.CACHES), self._workspace.path / "database.sqlite3")
            return Processes(plan, crew)
        if measure.name == "threads":
            return Threads(plan)
        if measure.name in ("agets", "asets"):
            return Tasks(plan, writing=measure.name == "asets")
        return Requests(measure, plan) if measure.where == "request" else Calls(measure, plan)

    def _measure_stores(self, found: report.Report) -> None:
        """The two measures of stores in one go: the small and the large store of a backend take turns."""
        sizes = dict(zip(STORE_MEASURES, (self._plan.small_store_keys, self._plan.large_store_keys), strict=True))
        peers = [PEERS_BY_NAME[subject.name] for subject in self._subjects]
        skipped = {peer.name: "each set looks at every entry" for peer in peers if peer.lists_folder}
        subjects: list[Subject] = []
        instances: list[Instance] = []
        key_counts: dict[str, int] = {}
        for peer in peers:
            if peer.name in skipped:
                continue
            try:
                for measure, key_count in sizes.items():
                    instance = peer.start(self._workspace, measure)
                    instances.append(instance)
                    subject = self._subject(peer, instance, f"{peer.name} {measure}")
                    subjects.append(subject)
                    key_counts[subject.name] = key_count
            except Exception as error:
                skipped[peer.name] = f"{type(error).__name__}: {error}"[:300]
        rows = rounds.run(Stores(self._plan, key_counts, report.progress), subjects, self._plan.rounds, report.progress)
        for instance in instances:
            if instance.server is not None:
                self._workspace.stop(instance.server)
        for measure in STORE_MEASURES:
            mine = {name.partition(" ")[0]: row for name, row in rows.items() if name.endswith(measure)}
            report.add_measure(found, MEASURES_BY_NAME[measure], mine, skipped)


if __name__ == "__main__":
    sys.exit(main())

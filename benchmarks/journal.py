"""Measure the journal of a node beside py-lmdb's durable commit, in one interleaved run.

    python benchmarks/journal.py
    python benchmarks/journal.py --quick --folder /var/tmp --json out.json

Every row writes entries of 100 bytes and waits until they are on the disk; ``depth`` is how many are under way at a time.

===============  =====================================================================================================
journal          the journal through its disk thread, as a node uses it: one batch per entry, grouped as they come together
journal, bare    ``Journal.append`` of ``depth`` entries at a time in the calling thread
lmdb             a transaction of ``depth`` puts under ascending keys, with LMDB's fsync
fdatasync        a write of ``depth`` times 100 bytes into a preallocated file, and fdatasync: the limit
===============  =====================================================================================================

Rounds take turns, and medians of the rounds are shown. Read ratios: the time of one row depends on the machine and its load.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from statistics import median
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import lmdb

from benchmarks.servers import Workspace
from django_keyspace.node.disk import HostDisk
from django_keyspace.node.journal import Batch, Journal, JournalWriter
from django_keyspace.node.raft.membership import Membership
from django_keyspace.node.raft.messages import COMMANDS, Entry, SnapshotMeta
from django_keyspace.node.raft.storage import HardState

DEPTHS = (1, 64, 1024)
DATA = b"x" * 100
TERM = HardState(1, "n1", 0)


class Subject:
    """Something that makes entries durable.

    Attributes:
        name: its row.
        syncs: how many syncs it has done.
    """

    name = ""
    syncs = 0

    def write(self, count: int, depth: int) -> None:
        """Make ``count`` entries durable, ``depth`` at a time."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of its files."""


class BareJournal(Subject):
    """See above."""

    name = "journal, bare"

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._journal = Journal.open(HostDisk(str(folder)), bootstrap=SnapshotMeta(0, 0, Membership(("n1",))))
        self._journal.append([Batch(TERM)])
        self._next = 1

    @property
    def syncs(self) -> int:  # type: ignore[override]
        return self._journal.syncs

    def _entries(self, count: int) -> list[Entry]:
        first, self._next = self._next, self._next + count
        return [Entry(index, 1, COMMANDS, DATA) for index in range(first, first + count)]

    def write(self, count: int, depth: int) -> None:
        for _ in range(0, count, depth):
            self._journal.append([Batch(None, self._entries(depth))])

    def close(self) -> None:
        self._journal.close()


class ThreadedJournal(BareJournal):
    """See above."""

    name = "journal"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._writer = JournalWriter(self._journal)

    def write(self, count: int, depth: int) -> None:
        answers: SimpleQueue[Exception | None] = SimpleQueue()
        for _ in range(0, count, depth):
            for entry in self._entries(depth):
                self._writer.submit(Batch(None, (entry,)), answers.put)
            for _ in range(depth):
                if (error := answers.get()) is not None:
                    raise error

    def close(self) -> None:
        self._writer.stop()
        super().close()


class Lmdb(Subject):
    """See above."""

    name = "lmdb"

    def __init__(self, folder: Path) -> None:
        self._environment = lmdb.open(str(folder), map_size=2**32, lib_version=1)
        self._next = 0

    def write(self, count: int, depth: int) -> None:
        for _ in range(0, count, depth):
            with self._environment.begin(write=True) as transaction:
                for _ in range(depth):
                    self._next += 1
                    transaction.put(b"%020d" % self._next, DATA, append=True)
            self.syncs += 1

    def close(self) -> None:
        self._environment.close()


class RawFile(Subject):
    """See above."""

    name = "fdatasync"
    SIZE_BYTES = 16 * 2**20

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._file = HostDisk(str(folder)).create("file", self.SIZE_BYTES)
        self._end = 0

    def write(self, count: int, depth: int) -> None:
        data = DATA * depth
        for _ in range(0, count, depth):
            self._end = (self._end + len(data)) % (self.SIZE_BYTES - len(data))
            self._file.write_at(self._end, data)
            self._file.sync()
            self.syncs += 1

    def close(self) -> None:
        self._file.close()


SUBJECTS: tuple[Callable[[Path], Subject], ...] = (ThreadedJournal, BareJournal, Lmdb, RawFile)


def measure(
    folder: Path, rounds: int, writes: int, kinds: Sequence[Callable[[Path], Subject]] = SUBJECTS
) -> list[dict[str, Any]]:
    """Let all subjects take turns.

    Arguments:
        folder: where their files lie.
        rounds: how many turns each has.
        writes: how many times ``depth`` entries are written in a turn.
        kinds: what makes the subjects; ``lmdb`` is among them.
    Returns:
        A row for each subject and depth: medians of the rounds.
    """
    subjects = [kind(folder / f"subject{number}") for number, kind in enumerate(kinds)]
    samples: dict[tuple[int, str], list[tuple[float, float]]] = {}
    try:
        for number in range(rounds + 1):
            for depth in DEPTHS:
                for subject in subjects:
                    count = depth * max(writes // (1 + depth // 64), 5)
                    syncs, began_s = subject.syncs, time.perf_counter()
                    subject.write(count, depth)
                    passed_s = time.perf_counter() - began_s
                    if number:  # the first round warms up
                        sample = (passed_s / count, (subject.syncs - syncs) / count)
                        samples.setdefault((depth, subject.name), []).append(sample)
    finally:
        for subject in subjects:
            subject.close()
    rows = []
    for (depth, name), found in samples.items():
        entry_s, syncs_per_entry = (median(sample[at] for sample in found) for at in (0, 1))
        beside_lmdb = [ours[0] / lmdbs[0] for ours, lmdbs in zip(found, samples[depth, "lmdb"], strict=True)]
        rows.append(
            {
                "depth": depth,
                "name": name,
                "entries_per_s": 1 / entry_s,
                "us_per_entry": entry_s * 1e6,
                "fsyncs_per_s": syncs_per_entry / entry_s,
                "fsyncs_per_entry": syncs_per_entry,
                "time_beside_lmdb": median(beside_lmdb),
            }
        )
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table for a document."""
    lines = [
        "| depth | | entries/s | µs per entry | fsyncs/s | fsyncs per entry | time beside lmdb |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['depth']:,} | {row['name']} | {row['entries_per_s']:,.0f} | {row['us_per_entry']:,.1f} | "
            f"{row['fsyncs_per_s']:,.0f} | {row['fsyncs_per_entry']:.4f} | {row['time_beside_lmdb']:.2f}x |"
        )
    return "\n".join(lines)


def main(
    arguments: Sequence[str] | None = None,
    kinds: Sequence[Callable[[Path], Subject]] = SUBJECTS,
    description: str = "Measure the journal of a node beside py-lmdb's durable commit.",
) -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="two short rounds: does everything run?")
    parser.add_argument("--rounds", type=int, default=15, help="how often each row has its turn (15)")
    parser.add_argument("--folder", type=Path, help="where the files lie: choose the disk you want to know about")
    parser.add_argument("--json", type=Path, help="write the rows there, too")
    options = parser.parse_args(arguments)
    rounds, writes = (2, 20) if options.quick else (options.rounds, 150)
    with Workspace(options.folder) as workspace:
        rows = measure(workspace.folder("journal"), rounds, writes, kinds)
    if options.json:
        found = {"cpus": os.cpu_count(), "rounds": rounds, "rows": rows}
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()

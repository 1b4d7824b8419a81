"""Short words for the tests of the journal."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from django_keyspace.node.journal import Batch, Journal
from django_keyspace.node.raft.membership import Membership
from django_keyspace.node.raft.messages import COMMANDS, Entry, SnapshotMeta
from django_keyspace.node.raft.storage import HardState
from tests.sim.disk import SimDisk

MEMBERS = Membership(("n1", "n2", "n3"))
BOOTSTRAP = SnapshotMeta(0, 0, MEMBERS)
EVERYTHING = 2**40


def sim_disk(seed: int = 1, **options: Any) -> SimDisk:
    return SimDisk(Random(seed), **options)


def open_journal(disk: Any, *, segment_bytes: int = 8192, **options: Any) -> Journal:
    """Open a journal with small files."""
    return Journal.open(disk, **{"bootstrap": BOOTSTRAP, "segment_bytes": segment_bytes, **options})


def entry(index: int, term: int = 1, data: bytes = b"x", kind: int = COMMANDS) -> Entry:
    return Entry(index, term, kind, data)


def batch(first: int, count: int, term: int = 1, commit: int = 0, data: bytes = b"x") -> Batch:
    """Entries, with the term and commit index that they come with."""
    return Batch(HardState(term, "n2", commit), [entry(first + i, term, data) for i in range(count)])


def append(journal: Journal, first: int, count: int, term: int = 1, commit: int = 0, data: bytes = b"x") -> None:
    journal.append([batch(first, count, term, commit, data)])


def compact(journal: Journal, index: int) -> None:
    """Forget, for those who read and on the disk."""
    journal.forget(index)
    journal.compact()


def log_of(journal: Journal) -> list[Entry]:
    """All entries."""
    if journal.last_index() < journal.first_index():
        return []
    return journal.entries(journal.first_index(), journal.last_index(), EVERYTHING)


def pairs(entries: Sequence[Entry]) -> list[tuple[int, int]]:
    return [(e.index, e.term) for e in entries]


def segment_names(disk: Any) -> list[str]:
    return [f"journal/{name}" for name in disk.list("journal")]

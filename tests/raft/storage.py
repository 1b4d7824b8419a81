"""The durable log of a test node: what was written stays, what was only handed out is lost at a crash."""

from __future__ import annotations

from collections.abc import Sequence

from django_keyspace.node.raft import CHANGE, Entry, HardState, Membership, Ready, SnapshotMeta, bootstrap_snapshot


class MemoryStorage:
    """A `LogStorage` in a list; `write` is what a disk thread would do."""

    def __init__(self, membership: Membership) -> None:
        self.hard = HardState()
        self.meta = bootstrap_snapshot(membership)
        self.base_index = 0
        self.base_term = 0
        self.log: list[Entry] = []

    def hard_state(self) -> HardState:
        return self.hard

    def snapshot(self) -> SnapshotMeta:
        return self.meta

    def changes(self) -> Sequence[Entry]:
        return [entry for entry in self.log if entry.kind == CHANGE]

    def first_index(self) -> int:
        return self.base_index + 1

    def last_index(self) -> int:
        return self.base_index + len(self.log)

    def term(self, index: int) -> int:
        assert self.base_index <= index <= self.last_index(), f"term of {index} is not kept"
        return self.base_term if index == self.base_index else self.log[index - self.base_index - 1].term

    def entries(self, low: int, high: int, bytes_max: int) -> Sequence[Entry]:
        assert self.base_index < low <= high <= self.last_index(), f"entries {low} to {high} are not kept"
        found: list[Entry] = []
        for entry in self.log[low - self.base_index - 1 : high - self.base_index]:
            bytes_max -= entry.size_bytes
            if bytes_max < 0 and found:
                break
            found.append(entry)
        return found

    def write(self, ready: Ready) -> None:
        """Make durable what a `Ready` asks for."""
        if ready.snapshot is not None:
            self.meta = ready.snapshot
            self.base_index, self.base_term = ready.snapshot.index, ready.snapshot.term
            self.log = []
        if ready.entries:
            first = ready.entries[0].index
            assert self.base_index < first <= self.last_index() + 1, f"entry {first} leaves a gap"
            del self.log[first - self.base_index - 1 :]
            self.log.extend(ready.entries)
        if ready.hard_state is not None:
            self.hard = ready.hard_state

    def compact(self, snapshot: SnapshotMeta, kept: int = 0) -> None:
        """Keep the snapshot, and of the log before it so many entries."""
        self.meta = snapshot
        base = max(self.base_index, snapshot.index - kept)
        term = self.term(base)
        self.log = self.log[base - self.base_index :]
        self.base_index, self.base_term = base, term

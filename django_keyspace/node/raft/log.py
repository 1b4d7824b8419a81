"""The log: what the storage holds, and in memory the tail that is not known to be durable yet.

From left to right, each index at most the next one::

    applied <= handed <= min(commit, stable) <= last
                                     stable = durable here as it stands; behind it: the tail, in memory

The tail is handed out for writing by :meth:`Log.take_writes` and leaves memory when :meth:`Log.persisted` says that it is
durable. Writes may be under way when a new leader's entries replace theirs. They are told apart by the number of
their `Ready`, not by index and term: an entry can be written, replaced and come back, and then the first write's
completion must not stand for the third's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from .errors import require
from .messages import COMMANDS, Entry, SnapshotMeta
from .storage import LogStorage


class _Write:
    """What one `Ready` asked the driver to make durable."""

    __slots__ = ("last_index", "number", "snapshot")

    def __init__(self, number: int, last_index: int, snapshot: SnapshotMeta | None) -> None:
        self.number = number
        self.last_index = last_index
        self.snapshot = snapshot


class Log:
    """Entries, and how far they are durable, committed and applied.

    Arguments:
        storage: the durable part.
        commit: the commit index of the hard state.
        applied: how far the state machine has applied; not beyond what is durable.
    """

    def __init__(self, storage: LogStorage, commit: int, applied: int) -> None:
        self._storage = storage
        first, last = storage.first_index(), storage.last_index()
        require(
            first - 1 <= applied <= last, f"The store has applied {applied}, and the log holds {first} to {last} only."
        )
        require(
            commit <= last, f"The log was committed up to {commit} and ends at {last}: acknowledged entries are lost."
        )
        self._tail: list[Entry] = []
        self._tail_first = last + 1
        self.last_index = last
        """The newest index."""
        self._taken = last
        self._writes: deque[_Write] = deque()
        self._handed_sizes: deque[tuple[int, int]] = deque()
        self._handed_bytes = 0
        self.stable = last
        self.commit = max(commit, applied)
        self.handed = applied
        self.applied = applied
        self.pending_snapshot: SnapshotMeta | None = None

    # --- Looking ------------------------------------------------------------------------------------------------------

    @property
    def first_index(self) -> int:
        """The oldest index whose entry can be read."""
        return self.pending_snapshot.index + 1 if self.pending_snapshot else self._storage.first_index()

    @property
    def last_term(self) -> int:
        """The term of the newest index."""
        return self.term(self.last_index) or 0

    def term(self, index: int) -> int | None:
        """The term of an index; None if it is compacted away or not there yet."""
        if index >= self._tail_first:
            offset = index - self._tail_first
            return self._tail[offset].term if offset < len(self._tail) else None
        if self.pending_snapshot is not None:
            return self.pending_snapshot.term if index == self.pending_snapshot.index else None
        if index == 0:
            return 0
        if index < self._storage.first_index() - 1:
            return None
        return self._storage.term(index)

    def matches(self, index: int, term: int) -> bool:
        """Whether the entry at `index` is there and of that term; then all before it are equal too."""
        return self.term(index) == term

    def entries(self, low: int, bytes_max: int, count_max: int, high: int | None = None) -> tuple[Entry, ...]:
        """Entries from `low` on: at most so many and so many bytes, and the first one in any case."""
        last = self.last_index
        if low == last >= self._tail_first and (high is None or high >= low):
            return (self._tail[-1],)  # what a leader asks most of the time
        end = min(last if high is None else high, low + count_max - 1)
        found: list[Entry] = []
        if low > end:
            return ()
        if low < self._tail_first:
            stored_end = min(end, self._tail_first - 1)
            found.extend(self._storage.entries(low, stored_end, bytes_max))
            if not found or found[0].index != low:
                require(False, f"The storage did not give entry {low}, which it holds.")
            if found[-1].index < stored_end or stored_end == end:
                return tuple(found)
        room = bytes_max - sum(entry.size_bytes for entry in found)
        begin = max(low, self._tail_first) - self._tail_first
        for entry in self._tail[begin : end - self._tail_first + 1]:
            room -= entry.size_bytes
            if room < 0 and found:
                break
            found.append(entry)
        return tuple(found)

    def newest_commands(self) -> Entry | None:
        """The last of the driver's entries behind what is applied; None if there is none."""
        for index in range(self.last_index, self.applied, -1):
            (entry,) = self.entries(index, 0, 1)
            if entry.kind == COMMANDS:
                return entry
        return None

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a log that ends so has all that this one may have promised (rule 4)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def last_possible_match(self, index: int, term: int) -> tuple[int, int]:
        """The last place at or before `index` whose term is not above `term`, as (index, its term).

        Two logs can only be equal up to such a place, so whole terms are skipped at once (rule 18). Where this log is
        compacted it is committed and needs no search: the answer then has term 0.
        """
        index = min(index, self.last_index)
        while (found := self.term(index)) is not None and found > term:
            index -= 1
        return index, found or 0

    # --- Changing -----------------------------------------------------------------------------------------------------

    def append(self, entry: Entry) -> None:
        """Put an entry behind the last one."""
        if entry.index != self.last_index + 1:
            require(False, f"Entry {entry.index} does not follow {self.last_index}.")
        self._tail.append(entry)
        self.last_index = entry.index

    def first_conflict(self, entries: Sequence[Entry]) -> int | None:
        """Where in `entries` the first one stands that this log does not have; None if it has them all (rule 11)."""
        for position, entry in enumerate(entries):
            if not self.matches(entry.index, entry.term):
                return position
        return None

    def truncate_from(self, index: int) -> None:
        """Drop the entries from `index` on, which conflict with the leader's (rule 12: never committed ones)."""
        require(
            index > self.commit,
            f"The leader's entry {index} conflicts with one that is committed (up to {self.commit}).",
        )
        if index > self._tail_first:
            del self._tail[index - self._tail_first :]
        else:
            self._tail.clear()
            self._tail_first = index
            self.stable = min(self.stable, index - 1)
        self.last_index = index - 1
        self._taken = min(self._taken, index - 1)
        for write in self._writes:
            write.last_index = min(write.last_index, index - 1)

    def commit_to(self, index: int) -> bool:
        """Raise the commit index; True if it grew. What it was never goes back."""
        if index <= self.commit:
            return False
        if index > self.last_index:
            require(
                False,
                f"The leader has committed {index}, counting this node, and the log ends at {self.last_index}: "
                "acknowledged entries are lost.",
            )
        self.commit = index
        return True

    def restore(self, snapshot: SnapshotMeta) -> None:
        """Begin anew behind a snapshot, which the driver has aside and will install."""
        require(snapshot.index > self.commit, "A snapshot that is not newer than the log must not replace it.")
        self._tail.clear()
        self._tail_first = snapshot.index + 1
        self.last_index = snapshot.index
        self._taken = snapshot.index
        self._handed_sizes.clear()
        self._handed_bytes = 0
        for write in self._writes:
            write.last_index = 0
        self.stable = 0
        self.commit = self.handed = snapshot.index
        self.pending_snapshot = snapshot

    # --- To the disk and to the state machine -------------------------------------------------------------------------

    def take_writes(self, number: int, snapshot: SnapshotMeta | None) -> tuple[Entry, ...]:
        """The entries that the `Ready` of this number has to make durable.

        Arguments:
            number: of the `Ready`.
            snapshot: the snapshot that it installs, if it does.
        """
        if snapshot is None and not self.has_writes:
            return ()
        begin = max(self._taken + 1, self._tail_first)
        entries = tuple(self._tail[begin - self._tail_first :])
        if entries or snapshot is not None:
            self._taken = self.last_index
            self._writes.append(_Write(number, self.last_index, snapshot))
        return entries

    @property
    def has_writes(self) -> bool:
        """Whether there are entries that were not handed out for writing."""
        return self.last_index > self._taken

    def persisted(self, number: int) -> None:
        """All that was handed out up to the `Ready` of this number is durable."""
        while self._writes and self._writes[0].number <= number:
            write = self._writes.popleft()
            if write.snapshot is not None and write.snapshot is self.pending_snapshot:
                self.pending_snapshot = None
                self.stable = self.applied = write.snapshot.index
            if self.pending_snapshot is None and write.last_index > self.stable:
                del self._tail[: write.last_index - self._tail_first + 1]
                self.stable = write.last_index
                self._tail_first = self.stable + 1

    def take_committed(self, bytes_max: int) -> tuple[Entry, ...]:
        """The next entries for the state machine, while fewer than `bytes_max` bytes are on their way to it.

        Only durable entries are applied: the state machine must not be ahead of its own log after a crash.
        """
        room = bytes_max - self._handed_bytes
        if not self.has_committed or room <= 0:
            return ()
        high = min(self.commit, self.stable)
        entries = self.entries(self.handed + 1, room, high - self.handed, high)
        size = sum(entry.size_bytes for entry in entries)
        self.handed = entries[-1].index
        self._handed_sizes.append((self.handed, size))
        self._handed_bytes += size
        return entries

    @property
    def has_committed(self) -> bool:
        """Whether there are entries to apply that were not handed out."""
        return self.commit > self.handed < self.stable and self.pending_snapshot is None

    def applied_to(self, index: int) -> None:
        """The state machine has applied everything up to `index`."""
        if index > self.handed:
            require(False, f"Entry {index} was reported as applied, and {self.handed} was the last one handed out.")
        self.applied = max(self.applied, index)
        while self._handed_sizes and self._handed_sizes[0][0] <= index:
            self._handed_bytes -= self._handed_sizes.popleft()[1]

    def can_take_committed(self, bytes_max: int) -> bool:
        """Whether :meth:`take_committed` would return something."""
        return self.has_committed and self._handed_bytes < bytes_max

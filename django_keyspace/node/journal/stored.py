"""The part of the log that is durable, as the loop's thread reads it while the disk thread writes."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Final

from django_keyspace.exceptions import DamagedJournal
from django_keyspace.node.journal.index import LogIndex, Place
from django_keyspace.node.journal.records import ENTRY_HEAD, BrokenRecord, Kind, record_at, record_size
from django_keyspace.node.journal.segments import Segments
from django_keyspace.node.raft.errors import require
from django_keyspace.node.raft.messages import ENTRY_OVERHEAD_BYTES, Entry

CACHE_BYTES: Final = 16 * 1024 * 1024
"""The newest entries stay in memory up to so many bytes: they are about to be sent and applied."""


class StoredLog:
    """Durable entries: the newest from memory, others from their files.

    No method waits for a write or a sync: the lock is held for work in memory and for reading files.

    Arguments:
        segments: the files.
        index: what lies where.
        cache_bytes_max: how much of the newest entries to keep in memory.

    Attributes:
        index: the same; changed only by the methods of this class from now on.
    """

    def __init__(self, segments: Segments, index: LogIndex, cache_bytes_max: int = CACHE_BYTES) -> None:
        self.index = index
        self._segments = segments
        self._lock = Lock()
        self._cache: dict[int, Entry] = {}
        self._cache_bytes = 0
        self._cache_bytes_max = cache_bytes_max

    @property
    def first_index(self) -> int:
        """The oldest index that is kept. It needs no lock: only the thread that reads moves it, and a restored snapshot."""
        return self.index.base_index + 1

    def bounds(self) -> tuple[int, int, int]:
        """The base's index and term, and the last index."""
        with self._lock:
            return self.index.base_index, self.index.base_term, self.index.last

    def changes_behind(self, index: int) -> list[int]:
        """The indexes, behind that one, of entries that change the membership."""
        with self._lock:
            return [change for change in self.index.changes if change > index]

    def term(self, index: int) -> int:
        """The term of an entry, or of the base."""
        with self._lock:
            return self.index.term(index)

    def entries(self, low: int, high: int, bytes_max: int) -> list[Entry]:
        """See :meth:`Journal.entries`."""
        found: list[Entry] = []
        with self._lock:
            if not self.index.start <= low <= high <= self.index.last:
                here = f"{self.index.start} to {self.index.last}"
                require(False, f"Entries {low} to {high} were asked for; {here} are here.")
            at, room = low, bytes_max
            while at <= high:
                entry = self._cache.get(at)
                run = [entry] if entry is not None else self._read_run(at, high, room)
                for entry in run:
                    room -= entry.size_bytes
                    if room < 0 and found:
                        return found
                    found.append(entry)
                at += len(run)
        return found

    def show(self, entries: Sequence[Entry], segment: int, offsets: Sequence[int]) -> None:
        """Make consecutive entries visible that are durable now; they replace what was at their indexes, and behind.

        Arguments:
            entries: one at least.
            segment: the file in which they are.
            offsets: where each is in it.
        """
        index, cache, first = self.index, self._cache, entries[0].index
        with self._lock:
            for gone in range(first, index.last + 1):
                self._uncache(gone)
            index.put_run(entries, segment, offsets)
            cache.update(zip(range(first, first + len(entries)), entries, strict=True))
            self._cache_bytes += sum([entry.size_bytes for entry in entries])
            while self._cache_bytes > self._cache_bytes_max:
                self._uncache(next(iter(cache)))

    def forget(self, index: int) -> None:
        """Entries up to ``index`` are not needed any more."""
        with self._lock:
            if index > self.index.base_index:
                for gone in range(self.index.start, index + 1):
                    self._uncache(gone)
                self.index.forget(index, self.index.term(index))

    def reset(self, index: int, term: int) -> None:
        """No entry is needed any more: the log begins after (index, term)."""
        with self._lock:
            self._cache.clear()
            self._cache_bytes = 0
            self.index.reset(index, term)

    def _uncache(self, index: int) -> None:
        entry = self._cache.pop(index, None)
        if entry is not None:
            self._cache_bytes -= entry.size_bytes

    def _read_run(self, low: int, high: int, room: int) -> list[Entry]:
        """Read entries that lie in one file one after the other: at least one, about as many as there is room for."""
        first = place = self.index.place(low)
        at = low
        while True:
            room -= place.data_bytes + ENTRY_OVERHEAD_BYTES
            last = place
            if room <= 0 or at == high or at + 1 in self._cache:
                break
            place = self.index.place(at + 1)
            if place.segment != first.segment:
                break
            at += 1
        size = last.offset + record_size(last.body_bytes) - first.offset
        data = self._segments.file(first.segment).read_at(first.offset, size)
        return [self._decode(data, index, first) for index in range(low, at + 1)]

    def _decode(self, data: bytes, index: int, first: Place) -> Entry:
        place = self.index.place(index)
        try:
            body = record_at(data, place.offset - first.offset, Kind.ENTRY).body
            at, term, kind = ENTRY_HEAD.unpack_from(body)
            if (at, term) != (index, self.index.term(index)):
                raise BrokenRecord("another entry lies there", may_be_torn=False)
        except BrokenRecord as broken:
            raise DamagedJournal(
                f"Entry {index} at byte {place.offset:,} of {self._segments.name(place.segment)} cannot be read: "
                f"{broken.reason}. The disk has changed what was written. The node stops, and says at its next start how it "
                "can join again."
            ) from broken
        return Entry(at, term, kind, body[ENTRY_HEAD.size :])

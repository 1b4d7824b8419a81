"""Where each entry of the log lies: what the journal keeps in memory, twenty bytes per entry."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from django_keyspace.node.journal.records import ENTRY_HEAD
from django_keyspace.node.raft.errors import require
from django_keyspace.node.raft.messages import CHANGE, Entry

_OFFSET_BITS = 32


class Place(NamedTuple):
    """Where an entry's record lies: the segment's number, the record's offset in it, and bytes of its body."""

    segment: int
    offset: int
    body_bytes: int

    @property
    def data_bytes(self) -> int:
        """Bytes of the entry's data."""
        return self.body_bytes - ENTRY_HEAD.size


class LogIndex:
    """The log without its data.

    Attributes:
        base_index: entries up to here are forgotten; what they led to is in a snapshot.
        base_term: its term.
        start: index of the first entry. One more than ``base_index``, except while a journal is being read.
        changes: the indexes of entries that change the membership, in order.
    """

    def __init__(self, base_index: int = 0, base_term: int = 0, start: int | None = None) -> None:
        self.base_index = base_index
        self.base_term = base_term
        self.start = base_index + 1 if start is None else start
        self.changes: list[int] = []
        self._terms = array("Q")
        self._places = array("Q")
        self._body_bytes = array("I")

    @property
    def last(self) -> int:
        """Index of the last entry; one less than :attr:`start` if there is none."""
        return self.start + len(self._terms) - 1

    def term(self, index: int) -> int:
        """The term of an entry, or of the base."""
        if index == self.base_index:
            return self.base_term
        at = index - self.start
        if not 0 <= at < len(self._terms):
            require(False, f"Entry {index} was asked for; {self.start} to {self.last} are here.")
        return self._terms[at]

    def place(self, index: int) -> Place:
        """Where an entry lies."""
        at = index - self.start
        place = self._places[at]
        return Place(place >> _OFFSET_BITS, place & (1 << _OFFSET_BITS) - 1, self._body_bytes[at])

    def put(self, index: int, term: int, kind: int, place: Place) -> None:
        """Note an entry. What was there, and behind, is gone."""
        if index <= self.last:
            self._cut(index)
        self._terms.append(term)
        self._places.append(place.segment << _OFFSET_BITS | place.offset)
        self._body_bytes.append(place.body_bytes)
        if kind == CHANGE:
            self.changes.append(index)

    def put_run(self, entries: Sequence[Entry], segment: int, offsets: Sequence[int]) -> None:
        """The same for consecutive entries whose records lie in one file."""
        first = entries[0].index
        if first <= self.last:
            self._cut(first)
        self._terms.extend([entry.term for entry in entries])
        self._places.extend([segment << _OFFSET_BITS | offset for offset in offsets])
        self._body_bytes.extend([len(entry.data) + ENTRY_HEAD.size for entry in entries])
        self.changes += [entry.index for entry in entries if entry.kind == CHANGE]

    def forget(self, index: int, term: int) -> None:
        """Make (index, term) the base: entries up to there are forgotten."""
        gone = max(index + 1 - self.start, 0)
        for column in (self._terms, self._places, self._body_bytes):
            del column[:gone]
        del self.changes[: bisect_right(self.changes, index)]
        self.start += gone
        self.base_index, self.base_term = index, term

    def reset(self, index: int, term: int) -> None:
        """Forget everything: the log begins after (index, term)."""
        self._cut(self.start)
        self.start = index + 1
        self.base_index, self.base_term = index, term

    def _cut(self, index: int) -> None:
        """Forget the entries from ``index`` on."""
        at = max(index - self.start, 0)
        for column in (self._terms, self._places, self._body_bytes):
            del column[at:]
        del self.changes[bisect_left(self.changes, index) :]
        self.start = min(self.start, index)  # only while a journal is read whose first files are gone

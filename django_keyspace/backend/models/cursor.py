"""The way of a query through the store, page by page.

Between two pages nothing is held: no transaction, no snapshot. So an object that is changed while a query is under way is
found as it was or as it is, and one whose place in an index moves may be found twice or not at all. What is found is always
an object that is there: an index's entry counts only if the object's record, read after it, still belongs to it.
"""

from __future__ import annotations

import heapq
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from django_keyspace.backend.models.layout import ordered_of
from django_keyspace.backend.models.lookups import EVERYTHING, Group
from django_keyspace.backend.models.planner import Order, Plan, make_plan
from django_keyspace.exceptions import KeyTooLong
from django_keyspace.operations import AFTER, KEY_BYTES_MAX, PAGE_ROWS_MAX
from django_keyspace.store.record import HEADER_BYTES, revision_of

if TYPE_CHECKING:
    from django_keyspace.backend.models.storage import Storage
    from django_keyspace.backend.twins import Steps

_FIRST_ROWS: Final = 50
"""Rows of the first page; each further page has twice as many, up to the most that a listing answers."""
_INVERT: Final = bytes(255 - number for number in range(256))
_PACKAGE: Final = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep

Row = tuple[bytes, bytes]
"""``(key, record)``."""


class ScanWarning(RuntimeWarning):
    """A query looks at many objects that it does not want, because no key and no index leads to those that it does."""


class Walk:
    """The rows of a plan, in pages.

    Arguments:
        storage: where.
        plan: how.
        rows: how many rows may be enough, for the first page; None if that is not known.

    Attributes:
        examined: how many records were looked at.
    """

    __slots__ = ("_entry_of", "_position", "_rest", "_rest_of", "_rows", "_start", "examined", "plan", "storage")

    def __init__(self, storage: Storage, plan: Plan, rows: int | None) -> None:
        self.storage, self.plan = storage, plan
        self.examined = 0
        self._rows = min(max(rows or _FIRST_ROWS, 1), PAGE_ROWS_MAX)
        self._position = 0
        self._start: bytes | None = None
        """The key that the next page begins after; None at the beginning of a range."""
        self._rest_of = _passes(storage, plan.rest)
        self._entry_of = _entry_of(storage, plan)

    def next_page(self) -> Steps[list[bytes] | None]:
        """The next records that pass, perhaps none of this page; None at the end."""
        rows = yield from (self._walk() if self.plan.keys is None else self._look_up())
        if rows is None:
            return None
        self.examined += len(rows)
        if self.plan.source.index is None:
            records = [record for _, record in rows]
        else:
            records = yield from self._records(rows)
        return records if self._rest_of is None else list(filter(self._rest_of, records))

    def _page_rows(self) -> int:
        rows, self._rows = self._rows, min(2 * self._rows, PAGE_ROWS_MAX)
        return rows

    def _look_up(self) -> Steps[list[Row] | None]:
        keys = (self.plan.keys or ())[self._position : self._position + PAGE_ROWS_MAX]
        if not keys:
            return None
        self._position += len(keys)
        records = yield "get_many", self.storage.database, list(keys)
        return [(key, record) for key, record in zip(keys, records, strict=True) if record is not None]

    def _walk(self) -> Steps[list[Row] | None]:
        """One page of a range; the next range begins when one is at its end."""
        if self._position >= len(self.plan.ranges):
            return None
        wanted, forward = self.plan.ranges[self._position], self.plan.forward
        skip: bool | str = False
        if self._start is not None:
            start, skip = self._start, AFTER
        elif forward:
            start = wanted.low[:KEY_BYTES_MAX]
        else:
            start = (wanted.high or b"")[:KEY_BYTES_MAX]
            # A bound that had to be cut short is itself below the bound.
            skip = wanted.high is not None and len(wanted.high) <= KEY_BYTES_MAX and AFTER
        rows, more = yield "list", self.storage.database, wanted.prefix, start, skip, forward, self._page_rows(), True
        rows = [tuple(row) for row in rows]
        if rows:
            self._start = rows[-1][0]
            if forward and wanted.high is not None and self._start >= wanted.high:
                rows, more = [row for row in rows if row[0] < wanted.high], False
            elif not forward and self._start < wanted.low:
                rows, more = [row for row in rows if row[0] >= wanted.low], False
            if forward and len(wanted.low) > KEY_BYTES_MAX:
                rows = [row for row in rows if row[0] >= wanted.low]
        if not more:
            self._position, self._start = self._position + 1, None
        return rows

    def _records(self, rows: list[Row]) -> Steps[list[bytes]]:
        """The records that entries of an index lead to, without those that an entry does not belong to any more."""
        keys = [entry[HEADER_BYTES:] for _, entry in rows]
        records = yield from self.storage.read_many(keys)
        found = []
        for (entry_key, entry), key_bytes, record in zip(rows, keys, records, strict=True):
            # Written by the same commit, an entry and its record belong together. Others are compared.
            if record is not None and (
                (self._trusts and revision_of(entry) == revision_of(record))
                or self._entry_of(record, key_bytes) == entry_key
            ):
                found.append(record)
        return found

    @property
    def _trusts(self) -> bool:
        """Whether values in entries are those that records read as: they may not be if old data is upgraded."""
        return self.storage.meta.version == 1

    def count(self) -> Steps[int]:
        """The number of records that are still to come."""
        number = 0
        if self.plan.source.index is None and self._rest_of is None and self.plan.keys is None:
            if all(wanted.is_whole for wanted in self.plan.ranges):
                for wanted in self.plan.ranges:
                    number += yield from self._count_keys(wanted.prefix)
                return number
        while (page := (yield from self.next_page())) is not None:
            number += len(page)
        return number

    def _count_keys(self, prefix: bytes) -> Steps[int]:
        number, last = 0, b""
        skip: bool | str = False
        while True:
            more, last = yield "count", self.storage.database, prefix, last or b"", skip, True, 0
            number, skip = number + int(more), AFTER
            if last is None:
                return number


def _passes(storage: Storage, rest: Group) -> Callable[[bytes], bool] | None:
    """A test of records; None if all pass."""
    if rest == EVERYTHING:
        return None
    names = tuple(dict.fromkeys(rest.fields()))
    get = storage.value_getter(names)

    def passes(record: bytes) -> bool:
        return rest.passes(dict(zip(names, get(record), strict=True)))

    return passes


def _entry_of(storage: Storage, plan: Plan) -> Callable[[bytes, bytes], bytes | None]:
    """A function from a record and the key values in it to the key of its entry in the plan's index."""
    index = plan.source.index
    if index is None:
        return lambda record, key_bytes: None
    names = index.field_names
    get = storage.value_getter(names)

    def entry_of(record: bytes, key_bytes: bytes) -> bytes | None:
        try:
            return index.entry(dict(zip(names, get(record), strict=True)), key_bytes)
        except KeyTooLong:
            return None

    return entry_of


class Cursor:
    """The records that a query answers, in order and in pages.

    Arguments:
        storage: where.
        where: what they have to pass.
        order: what they are ordered by.
        low, high: the slice; ``high`` may be None.
    """

    __slots__ = ("_is_done", "_left", "_order", "_skip", "_walk", "_warned", "_where", "storage")

    def __init__(self, storage: Storage, where: Group, order: Order, low: int, high: int | None) -> None:
        self.storage = storage
        self._where, self._order = where, order
        self._skip = low
        self._left = None if high is None else max(high - low, 0)
        self._walk: Walk | None = None
        self._is_done = self._warned = False

    def plan(self) -> Steps[Plan]:
        """How the records will be found."""
        meta = self.storage.meta
        ready = (yield from self.storage.ready_indexes()) if meta.indexes else frozenset()
        return make_plan(meta, self._where, self._order, ready)

    def next_page(self) -> Steps[list[bytes] | None]:
        """The next records, perhaps none; None at the end."""
        if self._left == 0 or self._is_done:
            return None
        if self._walk is None:
            plan = yield from self.plan()
            self._walk = Walk(self.storage, plan, None if plan.rest.children or plan.sort else self._rows())
        page = yield from (self._sorted(self._walk) if self._walk.plan.sort else self._walk.next_page())
        if page is None:
            return None
        self._warn()
        if self._skip:
            self._skip, page = max(self._skip - len(page), 0), page[self._skip :]
        if self._left is not None:
            page = page[: self._left]
            self._left -= len(page)
        return page

    def count(self) -> Steps[int]:
        """How many records there are, slice included."""
        if self._left == 0:
            return 0
        self._order = ()
        walk = self._walk = Walk(self.storage, (yield from self.plan()), None)
        number = max((yield from walk.count()) - self._skip, 0)
        self._warn()
        return number if self._left is None else min(number, self._left)

    def _rows(self) -> int | None:
        return None if self._left is None else self._skip + self._left

    def _sorted(self, walk: Walk) -> Steps[list[bytes] | None]:
        """All records at once, sorted; only as many as the slice needs are kept of them."""
        key_of = _sort_key(self.storage, walk.plan.sort)
        records: list[tuple[bytes, bytes]] = []
        most = self._rows()
        while (page := (yield from walk.next_page())) is not None:
            records += [(key_of(record), record) for record in page]
            self._warn()
            if most is not None and len(records) > 2 * most + PAGE_ROWS_MAX:
                records = heapq.nsmallest(most, records, key=_first)
        self._is_done = True
        records.sort(key=_first)
        return [record for _, record in islice(records, most)]

    def _warn(self) -> None:
        """Warn once, when a scan has looked at more records than the alias's option ``scan_warning_keys`` says."""
        walk, most = self._walk, self.storage.runtime.config.scan_warning_keys
        if self._warned or walk is None or not most or walk.examined <= most or not walk.plan.is_scan:
            return
        self._warned = True
        warnings.warn(
            f"A query for {self.storage.meta.label} has looked at more than {most:,} objects: {walk.plan}. "
            "Give Meta.indexes the field that narrows it most, or raise the option scan_warning_keys.",
            ScanWarning,
            stacklevel=_stack_level(),
        )


def _first(row: tuple[bytes, bytes]) -> bytes:
    return row[0]


def _sort_key(storage: Storage, order: Order) -> Callable[[bytes], bytes]:
    """A function from a record to bytes that sort as the order says."""
    names = [name for name, _ in order]
    get = storage.value_getter(names)
    columns: Sequence[tuple[Any, bool]] = [(storage.meta.plans[name], descends) for name, descends in order]

    def key_of(record: bytes) -> bytes:
        parts = []
        for (plan, descends), value in zip(columns, get(record), strict=True):
            part = ordered_of(plan, value)
            parts.append(part.translate(_INVERT) if descends else part)
        return b"".join(parts)

    return key_of


def _stack_level() -> int:
    """How many frames up the code is that asked: the first one outside of this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    return level

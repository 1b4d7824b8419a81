"""A queue in a database, for any number of producers and consumers. After kt's ``Queue``.

The key itself holds the number of the item that came last; an item is a record under ``key TAB number``, with twelve
digits, so that the order of the keys is the order of the items. Each call changes the queue in one atomic block, whose
condition is what the call has seen; if somebody else was faster, it looks again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from django_keyspace.backend.kyoto.arguments import check_positive, encode_key
from django_keyspace.backend.kyoto.errors import in_kt_words
from django_keyspace.backend.kyoto.serializers import stored_form
from django_keyspace.exceptions import InvalidArgument, KeyTooLong, NotANumber
from django_keyspace.operations import AFTER, KEY_BYTES_MAX, PAGE_ROWS_MAX, Call
from django_keyspace.store.record import Tag, revision_of, unpack_header

if TYPE_CHECKING:
    from django_keyspace.backend.kyoto.tycoon import KyotoTycoon

_INTEGER: Final = int(Tag.INTEGER)
_SUFFIX_BYTES: Final = 13
_TAKEN_MAX: Final = 10_000
"""Items that one atomic block takes at most."""

Row = tuple[bytes, bytes]
"""An item's key and its record."""


class Queue:
    """A queue under a key.

    Arguments:
        client: its serializer makes the items.
        key: the queue's name.
        db: the number of the database; None for the client's default.
    """

    def __init__(self, client: KyotoTycoon, key: Any, db: int | None = None) -> None:
        self._client = client
        self._key = encode_key(key)
        if len(self._key) + _SUFFIX_BYTES > KEY_BYTES_MAX:
            raise KeyTooLong(
                f"The name of a queue may have {KEY_BYTES_MAX - _SUFFIX_BYTES:,} bytes, not {len(self._key):,}."
            )
        self._prefix = self._key + b"\t"
        self._database = client._database(db)

    def _do(self, conditions: Sequence[Sequence[Any]], calls: Sequence[Call]) -> bool:
        """Carry out calls if the conditions hold. Whether they did."""
        located = [(self._database, condition) for condition in conditions]
        return bool(self._client._tell("atomic", located, list(calls))[0])

    # ------------------------------------------------------------------------------------------- adding

    def add(self, item: Any) -> int:
        """Put an item at the end. Its number."""
        return self._add([item])

    def extend(self, items: Iterable[Any]) -> int:
        """Put several items at the end, all or none of them. The number of them."""
        added = list(items)
        if added:
            self._add(added)
        return len(added)

    def _add(self, items: list[Any]) -> int:
        """Put items at the end. The number of the last one."""
        encoded = self._client._serializer.encode_many(items)
        while True:
            record = self._client._ask("get", self._database, self._key)
            last, condition = self._counter(record)
            pairs = [(self._prefix + b"%012d" % number, value) for number, value in enumerate(encoded, last + 1)]
            new = last + len(pairs)
            counter = ("set", self._database, self._key, (_INTEGER, 0, b"%d" % new), None, "always")
            if self._do([condition], [counter, ("set_many", self._database, pairs, None)]):
                return new

    def _counter(self, record: bytes | None) -> tuple[int, tuple[Any, ...]]:
        """The number of the last item, and the condition that nobody adds one meanwhile."""
        if record is None:
            return 0, ("absent", self._key)
        payload = stored_form(record, self._client._serializer.limit_bytes)[1]
        if unpack_header(record)[0] != _INTEGER:
            raise in_kt_words(
                NotANumber(f"Key {self._key!r:.80} holds something else than a queue. Nothing was changed.")
            )
        return int(payload), ("value", self._key, _INTEGER, payload)

    # ------------------------------------------------------------------------------------------- taking

    def pop(self, n: int = 1) -> Any:
        """Take the first item, or None; for ``n`` above 1, a list of the first so many, of fewer if there are fewer."""
        return self._take(n, forward=True)

    def rpop(self, n: int = 1) -> Any:
        """Take the last item, or the last so many, the last one first. See :meth:`pop`."""
        return self._take(n, forward=False)

    def peek(self, n: int = 1) -> Any:
        """What :meth:`pop` would answer, without taking it."""
        rows = self._rows(check_positive("n", n), forward=True)
        return self._answer(n, self._items(rows))

    def rpeek(self, n: int = 1) -> Any:
        """What :meth:`rpop` would answer, without taking it."""
        rows = self._rows(check_positive("n", n), forward=False)
        return self._answer(n, self._items(rows))

    def _take(self, n: int, forward: bool) -> Any:
        left, taken = check_positive("n", n), list[Any]()
        while left:
            rows = self._rows(min(left, _TAKEN_MAX), forward)
            items = self._items(rows)  # before anything is deleted: an item that cannot be read stays
            if not rows:
                break
            if self._delete(rows):
                taken += items
                left -= len(rows)
        return self._answer(n, taken)

    def _delete(self, rows: list[Row]) -> bool:
        """Delete items, if all of them are still there."""
        conditions = [("revision", key, revision_of(record)[0]) for key, record in rows]
        return self._do(conditions, [("delete_many", self._database, [key for key, _ in rows])])

    def _answer(self, n: int, items: list[Any]) -> Any:
        if n > 1:
            return items
        return items[0] if items else None

    def _items(self, rows: list[Row]) -> list[Any]:
        return [self._client._decode(record) for _, record in rows]

    def _rows(self, limit: int | None, forward: bool) -> list[Row]:
        """The first items, or the last ones, with their keys; all if ``limit`` is None."""
        rows: list[Row] = []
        start, skip = b"", False
        more = True
        while more and (limit is None or len(rows) < limit):
            wanted = PAGE_ROWS_MAX if limit is None else min(limit - len(rows), PAGE_ROWS_MAX)
            page, more = self._client._ask(
                "list", self._database, self._prefix, start, AFTER if skip else False, forward, wanted, True
            )
            rows += page
            if page:
                start, skip = page[-1][0], True
        return rows

    # ------------------------------------------------------------------------------------------- the whole queue

    def count(self) -> int:
        """The number of items."""
        number, last = 0, b""
        while last is not None:
            skip = AFTER if last else False
            some, last = self._client._ask("count", self._database, self._prefix, last, skip, True, 0)
            number += some
        return number

    __len__ = count

    def __bool__(self) -> bool:
        """Whether there are items."""
        return bool(self._rows(1, forward=True))

    def remove(self, data: Any, n: int | None = None) -> int:
        """Delete items that are equal to ``data``, the first ones first, at most ``n`` (None: all). The number of them."""
        return self._remove(data, n, forward=True)

    def rremove(self, data: Any, n: int | None = None) -> int:
        """The same as :meth:`remove`, the last ones first."""
        return self._remove(data, n, forward=False)

    def _remove(self, data: Any, n: int | None, forward: bool) -> int:
        if n is not None and (type(n) is not int or n < -1):
            raise InvalidArgument(f"n must be a whole number or None for all, not {n!r:.40}. Nothing was changed.")
        left = None if n is None or n < 0 else n
        removed = 0
        for row in self._rows(None, forward):
            if left is not None and removed >= left:
                break
            if self._client._same_value(row[1], data):
                removed += self._delete([row])
        return removed

    def clear(self) -> int:
        """Delete all items; the next one has the number 1 again. The number of items that there were."""
        while True:
            record = self._client._ask("get", self._database, self._key)
            _, condition = self._counter(record)
            answers = self._client._tell(
                "atomic",
                [(self._database, condition)],
                [("prune", self._database, self._prefix), ("delete", self._database, self._key)],
            )
            if answers[0]:
                return int(answers[1][0])

"""A cursor of a KyotoTycoon client: stands on a key of a database and steps through them in their order.

It holds nothing open: it knows its key, and each call reads from the store as it is then. A row that somebody else has
deleted is read as None, and the steps from there go on to its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

from django_keyspace.backend.kyoto.arguments import encode_key, expire_of_call
from django_keyspace.operations import AFTER
from django_keyspace.store.record import revision_of

if TYPE_CHECKING:
    from django_keyspace.backend.kyoto.client import Client


class Cursor:
    """A place in a database. ``client.cursor()`` makes it.

    Arguments:
        client: whose serializer and keys it uses.
        database: the number of the database.
    """

    def __init__(self, client: Client, database: int) -> None:
        self._client = client
        self._database = database
        self._key: bytes | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """``(key, value)`` from where the cursor stands, or from the first row."""
        if self._key is None and not self.jump():
            return
        while True:
            row = self.get()
            if row is not None:
                yield row
            if not self.step():
                return

    def _move(self, start: bytes, skip: bool | str, forward: bool) -> bool:
        (page, _) = self._client._ask("list", self._database, b"", start, skip, forward, 1, False)
        self._key = page[0] if page else None
        return self._key is not None

    def jump(self, key: Any = None) -> bool:
        """Go to the first row, or to the first one that is not before ``key``. Whether there is one."""
        return self._move(b"" if key is None else encode_key(key), False, True)

    def jump_back(self, key: Any = None) -> bool:
        """Go to the last row, or to the last one that is not behind ``key``. Whether there is one."""
        return self._move(b"" if key is None else encode_key(key), False, False)

    def step(self) -> bool:
        """Go to the next row. Whether there is one; otherwise the cursor stands nowhere."""
        return self._key is not None and self._move(self._key, AFTER, True)

    def step_back(self) -> bool:
        """Go to the row before. Whether there is one; otherwise the cursor stands nowhere."""
        return self._key is not None and self._move(self._key, AFTER, False)

    def is_valid(self) -> bool:
        """Whether the cursor stands on a row that is there."""
        return self._record() is not None

    def _record(self) -> bytes | None:
        if self._key is None:
            return None
        record: bytes | None = self._client._ask("get", self._database, self._key)
        return record

    def key(self, step: bool = False) -> Any:
        """The row's key, or None. With ``step``, go to the next row afterwards."""
        row = self._key if self.is_valid() else None
        if step:
            self.step()
        return None if row is None else self._client._user_key(row)

    def value(self, step: bool = False) -> Any:
        """The row's value, or None. ``step``: see :meth:`key`."""
        record = self._record()
        value = None if record is None else self._client._decode(record)
        if step:
            self.step()
        return value

    def get(self, step: bool = False) -> tuple[Any, Any] | None:
        """The row as ``(key, value)``, or None. ``step``: see :meth:`key`."""
        record = self._record()
        if record is None or self._key is None:
            return None
        row = self._client._user_key(self._key), self._client._decode(record)
        if step:
            self.step()
        return row

    def set_value(self, value: Any, step: bool = False, expire_time: int | None = None) -> bool:
        """Store another value in the row. False if it is not there any more. ``step``: see :meth:`key`."""
        if self._key is None:
            return False
        encoded, expire = self._client._encode(value), expire_of_call(expire_time)
        stored = bool(self._client._tell("set", self._database, self._key, encoded, expire, "present"))
        if step:
            self.step()
        return stored

    def remove(self) -> bool:
        """Delete the row and go to the next one. False if it was not there."""
        if self._key is None:
            return False
        removed = bool(self._client._tell("delete", self._database, self._key))
        self.step()
        return removed

    def seize(self) -> tuple[Any, Any] | None:
        """Delete the row, answer it as ``(key, value)``, and go to the next one. None if it is not there."""
        while self._key is not None:
            record = self._record()
            if record is None:
                return None
            row = self._client._user_key(self._key), self._client._decode(record)
            condition = ("revision", self._key, revision_of(record)[0])
            if self._client._tell("cas", self._database, condition, None, None)[0]:
                self.step()
                return row
        return None

    def close(self) -> None:
        """Stand nowhere. There is nothing else to let go of."""
        self._key = None

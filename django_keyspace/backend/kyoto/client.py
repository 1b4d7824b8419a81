"""What KyotoTycoon and TokyoTyrant share: where the data is, keys, records, listings.

A method that reads or writes makes one operation and hands it to the engine; all state is in the store. So a client may be
used by any number of threads and forked children.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from django_keyspace.backend.kyoto.arguments import (
    check_database,
    check_limit,
    chunks,
    encode_key,
    encode_keys,
    encode_prefix,
)
from django_keyspace.backend.kyoto.errors import in_kt_words
from django_keyspace.backend.kyoto.places import find_place
from django_keyspace.backend.kyoto.serializers import TEXTUAL_TAGS, Secret, make_serializer, not_text, stored_form
from django_keyspace.backend.twins import Steppable, Steps
from django_keyspace.exceptions import InvalidArgument, KeyspaceError, ValueTooLarge, WrongType
from django_keyspace.operations import AFTER, PAGE_ROWS_MAX, Call, Expire, Value
from django_keyspace.store.record import Tag, revision_of, unpack_header

GET_KEYS_MAX = 10_000
"""Keys of one read: what is asked for beyond comes in further reads."""
_TEXT, _BYTES = int(Tag.TEXT), int(Tag.BYTES)
_PICKLE = int(Tag.PICKLE)


class Client(Steppable):
    """The common part of both clients.

    Arguments:
        host: a node's host, a URL or a folder; see ``places.find_place``.
        port: the node's port.
        serializer: one of the ``KT_`` constants.
        decode_keys: whether keys are answered as text; otherwise as bytes.
        timeout: seconds per call; None for 5.
        default_db: the database of calls that do not name one.
        pickle_secret: what KT_PICKLE signs with; None for Django's SECRET_KEY.
        options: how a folder's store is opened; a node's ``secret`` and ``tls``.
    Raises:
        ImproperlyConfigured: something of this makes no sense.
    """

    def __init__(
        self,
        host: Any,
        port: Any,
        serializer: Any,
        decode_keys: bool,
        timeout: Any,
        default_db: int,
        pickle_secret: Secret,
        options: dict[str, Any],
    ) -> None:
        self._place = find_place(host, port, timeout, options)
        self._engine = self._place.engine
        self._read, self._write = self._engine.read, self._engine.write
        self._databases = self._place.databases
        self._serializer = make_serializer(serializer, self._place.value_bytes_max, pickle_secret)
        self._encode, self._decode = self._serializer.encode, self._serializer.decode
        self._decode_keys = bool(decode_keys)
        self._default_db = check_database(default_db, self._databases)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._place.name} db={self._default_db} {self._serializer.name}>"

    # ------------------------------------------------------------------------------------------- connections

    def checkin(self) -> None:
        """Nothing: connections go back to the pool after each call, all by themselves."""

    def close(self) -> None:
        """Close the connections to the node that are idle. The next call opens new ones.

        The store of a folder stays open: it belongs to the process, and other clients and caches use it too.
        """
        if not self._place.is_local:
            self._engine.close()

    # ------------------------------------------------------------------------------------------- operations

    def _ask(self, *call: Any) -> Any:
        """Do an operation that reads. Errors are kt's and ours."""
        try:
            return self._read(*call)
        except KeyspaceError as error:
            raise in_kt_words(error) from error.__cause__

    def _tell(self, *call: Any) -> Any:
        """Do an operation that writes."""
        try:
            return self._write(*call)
        except KeyspaceError as error:
            raise in_kt_words(error) from error.__cause__

    def _execute(self, call: Call) -> Any:
        return self._engine.execute(*call)

    def _steps(self, steps: Steps[Any]) -> Any:
        """Carry out steps of several operations."""
        try:
            return self._run(steps)
        except KeyspaceError as error:
            raise in_kt_words(error) from error.__cause__

    def _database(self, db: int | None) -> int:
        """The number of a call's database."""
        if db is None:
            return self._default_db
        return check_database(db, self._databases)

    def _user_key(self, key: bytes) -> Any:
        """A key as it is answered."""
        if not self._decode_keys:
            return key
        try:
            return key.decode()
        except UnicodeDecodeError as error:
            raise not_text(f"key {key!r:.80}", error) from None

    def _user_keys(self, keys: list[bytes]) -> list[Any]:
        if self._decode_keys:
            try:
                return list(map(bytes.decode, keys))
            except UnicodeDecodeError:
                pass  # _user_key says which
        return list(map(self._user_key, keys))

    # ------------------------------------------------------------------------------------------- one record

    def _get_record(self, database: int, key: Any) -> bytes | None:
        record: bytes | None = self._ask("get", database, encode_key(key))
        return record

    def _get(self, database: int, key: Any) -> Any:
        record = self._ask("get", database, encode_key(key))
        return None if record is None else self._decode(record)

    def _get_bytes(self, database: int, key: Any) -> bytes | None:
        record = self._get_record(database, key)
        return None if record is None else stored_form(record, self._serializer.limit_bytes)[1]

    def _set(self, database: int, key: Any, value: Value, expire: Expire, presence: str = "always") -> bool:
        stored: bool = self._tell("set", database, encode_key(key), value, expire, presence)
        return stored

    def _seize(self, database: int, key: Any) -> Any:
        """Delete a record and answer its value. What cannot be read is not deleted."""
        full = encode_key(key)
        while True:
            record = self._ask("get", database, full)
            if record is None:
                return None
            value = self._decode(record)
            condition = ("revision", full, revision_of(record)[0])
            if self._tell("cas", database, condition, None, None)[0]:
                return value

    def _append(self, database: int, key: Any, encoded: Value, expire: Expire | tuple[str, Expire]) -> bool:
        """Append to the stored form, or make the record. ``expire`` as the operation ``append`` has it."""
        full = encode_key(key)
        try:
            self._write("append", database, full, encoded, expire)
            return True
        except WrongType:
            pass  # text and bytes, or a number: both have a plain form
        except KeyspaceError as error:
            raise in_kt_words(error) from error.__cause__
        while True:
            record = self._ask("get", database, full)
            if record is None:
                condition: tuple[Any, ...] = ("absent", full)
                joined = encoded
            else:
                condition = ("revision", full, revision_of(record)[0])
                joined = self._joined(record, encoded)
            if isinstance(expire, tuple) and expire[0] == "set":
                deadline: Any = expire[1]
            else:
                deadline = "keep" if record is not None else expire
            if self._tell("cas", database, condition, joined, deadline)[0]:
                return True

    def _joined(self, record: bytes, addition: Value) -> Value:
        tag, payload = stored_form(record, self._serializer.limit_bytes)
        if tag not in TEXTUAL_TAGS or addition[0] not in TEXTUAL_TAGS:
            raise in_kt_words(
                WrongType(
                    "Only text and bytes can be appended to: two serialized values in a row are not a value. "
                    "Nothing was changed."
                )
            )
        payload = self._serializer.checked(payload + addition[2])
        try:
            payload.decode()
        except UnicodeDecodeError:
            return _BYTES, addition[1], payload
        return (_BYTES if tag == addition[0] == _BYTES else _TEXT), addition[1], payload

    def _length(self, database: int, key: Any) -> int | None:
        length: int | None = self._ask("length", database, encode_key(key))
        return length

    # ------------------------------------------------------------------------------------------- many records

    def _get_records(self, database: int, keys: list[bytes]) -> list[bytes | None]:
        """The records under keys, in their order."""
        if len(keys) <= GET_KEYS_MAX:
            return self._get_some(database, keys) if keys else []
        return [record for some in chunks(keys, GET_KEYS_MAX) for record in self._get_some(database, some)]

    def _get_some(self, database: int, keys: list[bytes]) -> list[bytes | None]:
        """One read of records. An answer too large for a frame is asked for in halves."""
        try:
            records: list[bytes | None] = self._read("get_many", database, keys)
            return records
        except ValueTooLarge as error:
            if len(keys) == 1:
                raise in_kt_words(error) from error.__cause__
        except KeyspaceError as error:
            raise in_kt_words(error) from error.__cause__
        middle = len(keys) // 2
        return self._get_some(database, keys[:middle]) + self._get_some(database, keys[middle:])

    def _get_bulk(self, database: int, keys: Iterable[Any]) -> dict[Any, Any]:
        if not isinstance(keys, list):
            keys = list(keys)
        full = encode_keys(keys)
        records = self._get_records(database, full)
        decode = self._decode
        if self._decode_keys and set(map(type, keys)) == {str}:
            answered: list[Any] = keys  # the keys as they were given are the keys as they are answered
        else:
            answered = self._user_keys(full)
        return {key: decode(record) for key, record in zip(answered, records, strict=True) if record is not None}

    def _set_bulk(self, database: int, data: Mapping[Any, Any], expire: Expire) -> int:
        if not data:
            return 0
        pairs = list(zip(encode_keys(list(data)), self._serializer.encode_many(data.values()), strict=True))
        for some in chunks(pairs):
            self._tell("set_many", database, some, expire)
        return len(pairs)

    def _remove_bulk(self, database: int, keys: Iterable[Any]) -> int:
        full = encode_keys(keys)
        return sum(self._tell("delete_many", database, some) for some in chunks(full) if some)

    def _clear(self, database: int) -> bool:
        self._tell("clear", database, True)
        return True

    def _count(self, database: int) -> int:
        number, last = self._ask("count", database, b"", b"", False, True, 0)
        while last is not None:
            more, last = self._ask("count", database, b"", last, AFTER, True, 0)
            number += more
        return int(number)

    # ------------------------------------------------------------------------------------------- listing

    def _pages(
        self,
        database: int,
        prefix: bytes = b"",
        start: bytes = b"",
        limit: int | None = None,
        with_values: bool = False,
    ) -> Iterator[list[Any]]:
        """Pages of a listing in the order of the keys: keys, or (key, record)."""
        skip: bool | str = False
        left = limit
        while left is None or left > 0:
            rows = PAGE_ROWS_MAX if left is None else min(left, PAGE_ROWS_MAX)
            page, more = self._ask("list", database, prefix, start, skip, True, rows, with_values)
            if page:
                yield page
            if not more:
                return
            start, skip = page[-1][0] if with_values else page[-1], AFTER
            left = None if left is None else left - len(page)

    def _match_prefix(self, database: int, prefix: Any, max_keys: Any) -> list[Any]:
        limit = check_limit("max_keys", max_keys)
        pages = self._pages(database, encode_prefix("prefix", prefix), limit=limit)
        return self._user_keys([key for page in pages for key in page])

    def _match_regex(self, database: int, regex: Any, max_keys: Any) -> list[Any]:
        from django_keyspace.backend.search import regex_steps

        limit = check_limit("max_keys", max_keys)
        return self._user_keys(self._steps(regex_steps(database, b"", _pattern("regex", regex), limit)))

    def _match_similar(self, database: int, origin: Any, distance: Any, max_keys: Any) -> list[Any]:
        from django_keyspace.backend.search import similar_steps

        limit = check_limit("max_keys", max_keys)
        distance = 1 if distance is None else check_limit("distance", distance)
        steps = similar_steps(database, b"", _pattern("origin", origin), 1 if distance is None else distance, limit)
        return self._user_keys(self._steps(steps))

    def _keys(self, database: int) -> list[Any]:
        return self._user_keys([key for page in self._pages(database) for key in page])

    def _items(self, database: int, start: bytes = b"") -> Iterator[tuple[Any, Any]]:
        """Pairs of key and value in the order of the keys, a page at a time."""
        for page in self._pages(database, start=start, with_values=True):
            for key, record in page:
                yield self._user_key(key), self._decode(record)

    def _same_value(self, record: bytes, value: Any) -> bool:
        """Whether a record holds this value: by its serialized form, pickles by ``==``."""
        if unpack_header(record)[0] == _PICKLE:
            return bool(self._decode(record) == value)
        return stored_form(record, self._serializer.limit_bytes)[1] == self._encode(value)[2]


def _pattern(name: str, text: Any) -> bytes:
    """The bytes of a pattern."""
    try:
        if isinstance(text, str):
            return text.encode()
        if type(text) is bytes:
            return text
    except UnicodeEncodeError:
        pass
    raise in_kt_words(InvalidArgument(f"{name} must be text, not {text!r:.80}. Nothing was changed."))

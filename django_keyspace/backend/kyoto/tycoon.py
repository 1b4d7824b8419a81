"""KyotoTycoon: kt's client of that name. Source: the ancestor's API documentation, "Kyoto Tycoon client"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from django_keyspace.backend.kyoto import figures
from django_keyspace.backend.kyoto.arguments import (
    NEVER_S,
    SET,
    TRY,
    chunks,
    encode_key,
    expire_of_call,
    expire_of_set,
    integer,
    real,
)
from django_keyspace.backend.kyoto.client import Client
from django_keyspace.backend.kyoto.cursors import Cursor
from django_keyspace.backend.kyoto.places import HOST_DEFAULT, PORT_DEFAULT
from django_keyspace.backend.kyoto.scripts import Lua, run_kyoto
from django_keyspace.backend.kyoto.serializers import KT_BINARY, Secret
from django_keyspace.exceptions import InvalidArgument
from django_keyspace.operations import Call, Expire, Value
from django_keyspace.store.record import Tag, deadline_of, revision_of, unpack_header

_INTEGER, _FLOAT, _PICKLE = int(Tag.INTEGER), int(Tag.FLOAT), int(Tag.PICKLE)

KeyOrKeyDb = Any
"""A key, or ``(key, db)``."""


class KyotoTycoon(Client):
    """A client with the methods of kt's ``KyotoTycoon``, for a node of this package or a store in this process.

    Arguments:
        host: the node's host. Or ``keyspace://...``, ``keyspace+unix://...``; or a folder (a ``Path``, or text with a
            slash): an embedded store.
        port: the node's port.
        serializer: ``KT_BINARY``, ``KT_JSON``, ``KT_MSGPACK``, ``KT_NONE`` or ``KT_PICKLE``.
        decode_keys: whether keys are answered as text; otherwise as bytes.
        timeout: how long a call may take in all, in seconds; None for 5.
        default_db: the database of calls that do not name one.
        pickle_secret: what ``KT_PICKLE`` signs with: text or bytes, or a list of them of which the first signs and all are
            accepted. None for Django's SECRET_KEY and SECRET_KEY_FALLBACKS.
        **options: of a folder's store, such as ``durability="commit"``; of a node's client, ``secret`` and ``tls``.
    Raises:
        ImproperlyConfigured: something of this makes no sense.

    Every method may raise ``KyotoTycoonError``: ``ProtocolError`` if the call was refused and nothing was changed,
    ``ServerConnectionError`` if the node did not answer, ``ServerError`` if its store is in trouble.
    """

    def __init__(
        self,
        host: Any = HOST_DEFAULT,
        port: int = PORT_DEFAULT,
        serializer: str = KT_BINARY,
        decode_keys: bool = True,
        timeout: float | None = None,
        default_db: int = 0,
        *,
        pickle_secret: Secret = None,
        **options: Any,
    ) -> None:
        super().__init__(host, port, serializer, decode_keys, timeout, default_db, pickle_secret, options)
        self.lua = Lua(self)

    def set_database(self, db: int) -> KyotoTycoon:
        """Make a database the default of this client. The client itself."""
        self._default_db = self._database(db)
        return self

    # ------------------------------------------------------------------------------------------- one record

    def get(self, key: Any, db: int | None = None) -> Any:
        """The value under a key, or None."""
        return self._get(self._database(db), key)

    def get_bytes(self, key: Any, db: int | None = None) -> bytes | None:
        """The serialized form of the value under a key, or None."""
        return self._get_bytes(self._database(db), key)

    def set(
        self, key: Any, value: Any, db: int | None = None, expire_time: int | None = None, no_reply: bool = False
    ) -> int | None:
        """Store a value. 1.

        Arguments:
            expire_time: whole seconds from now; negative: seconds since the epoch; None or 0: never.
            no_reply: answer None. The write is done before that all the same.
        """
        self._set(self._database(db), key, self._encode(value), expire_of_set(expire_time))
        return None if no_reply else 1

    def set_bytes(self, key: Any, value: bytes, db: int | None = None, expire_time: int | None = None) -> int:
        """Store bytes that are the serialized form of a value already. 1."""
        self._set(self._database(db), key, self._serializer.encode_stored(value), expire_of_set(expire_time))
        return 1

    def add(self, key: Any, value: Any, db: int | None = None, expire_time: int | None = None) -> bool:
        """Store a value if there is none under the key. Whether it was stored."""
        return self._set(self._database(db), key, self._encode(value), expire_of_call(expire_time), "absent")

    def replace(self, key: Any, value: Any, db: int | None = None, expire_time: int | None = None) -> bool:
        """Store a value if there is one under the key. Whether it was stored."""
        return self._set(self._database(db), key, self._encode(value), expire_of_call(expire_time), "present")

    def append(self, key: Any, value: Any, db: int | None = None, expire_time: int | None = None) -> bool:
        """Append to the value under a key, or store it if there is none. True."""
        return self._append(self._database(db), key, self._encode(value), ("set", expire_of_call(expire_time)))

    def exists(self, key: Any, db: int | None = None) -> bool:
        """Whether there is a value under a key."""
        found: bool = self._ask("exists", self._database(db), encode_key(key))
        return found

    def length(self, key: Any, db: int | None = None) -> int | None:
        """Bytes of the stored form of a value, or None."""
        return self._length(self._database(db), key)

    def remove(self, key: Any, db: int | None = None, no_reply: bool = False) -> int | None:
        """Delete a key. The number of keys that were there: 1 or 0."""
        number = int(self._tell("delete", self._database(db), encode_key(key)))
        return None if no_reply else number

    def seize(self, key: Any, db: int | None = None) -> Any:
        """Delete a key and answer the value that it had, in one step; None if there is none."""
        return self._seize(self._database(db), key)

    pop = seize

    def cas(self, key: Any, old_val: Any, new_val: Any, db: int | None = None, expire_time: int | None = None) -> bool:
        """Store ``new_val`` if the value under the key is ``old_val``. Whether it was.

        Arguments:
            old_val: None: there must be nothing.
            new_val: None: delete the key.
        Raises:
            InvalidArgument: (a ValueError) both are None.
        """
        if old_val is None and new_val is None:
            raise InvalidArgument("old_val and new_val cannot both be None. Nothing was changed.")
        database, full, expire = self._database(db), encode_key(key), expire_of_call(expire_time)
        value = None if new_val is None else self._encode(new_val)
        if old_val is None:
            return bool(self._tell("cas", database, ("absent", full), value, expire)[0])
        tag, _, payload = self._encode(old_val)
        if tag != _PICKLE:
            return bool(self._tell("cas", database, ("value", full, None, payload), value, expire)[0])
        return self._cas_pickle(database, full, old_val, value, expire)

    def _cas_pickle(self, database: int, key: bytes, old_val: Any, value: Value | None, expire: Expire) -> bool:
        """Equal objects may have different pickles: compare them here, and swap by the revision that was compared."""
        while True:
            record = self._ask("get", database, key)
            if record is None or unpack_header(record)[0] != _PICKLE or self._decode(record) != old_val:
                return False
            condition = ("revision", key, revision_of(record)[0])
            if self._tell("cas", database, condition, value, expire)[0]:
                return True

    def incr(
        self, key: Any, n: Any = 1, orig: Any = None, db: int | None = None, expire_time: int | None = None
    ) -> int:
        """Add to an integer. The new one.

        Arguments:
            n: what to add; fractions are cut off.
            orig: where a missing key counts from, 0 if None. ``"try"``: the key must be there. ``"set"``: the number
                becomes ``n``, whatever there was.
        Raises:
            ProtocolError: there is something else than an integer, or the sum leaves 64 bits. Nothing was changed.
        """
        number, database, full, expire = (
            integer("n", n),
            self._database(db),
            encode_key(key),
            expire_of_call(expire_time),
        )
        if orig == SET:
            self._tell("set", database, full, (_INTEGER, 0, b"%d" % number), expire, "always")
            return number
        default = None if orig == TRY else 0 if orig is None else integer("orig", orig)
        total: int = self._tell("incr", database, full, number, default, ("set", expire), 0)
        return total

    def incr_double(
        self, key: Any, n: Any = 1.0, orig: Any = None, db: int | None = None, expire_time: int | None = None
    ) -> float:
        """Add to a number. The new one, a float. Arguments and errors as those of :meth:`incr`."""
        number, database, full, expire = real("n", n), self._database(db), encode_key(key), expire_of_call(expire_time)
        if orig == SET:
            self._tell("set", database, full, (_FLOAT, 0, repr(number).encode()), expire, "always")
            return number
        default = None if orig == TRY else 0.0 if orig is None else real("orig", orig)
        total: float = self._tell("incr_float", database, full, number, default, ("set", expire), 0)
        return total

    def touch(self, key: Any, expire_time: int | None = None, db: int | None = None) -> bool:
        """Give a record another deadline; None or 0: none. Whether the key was there."""
        found: bool = self._tell("touch", self._database(db), encode_key(key), expire_of_set(expire_time))
        return found

    def ttl(self, key: Any, db: int | None = None) -> float | None:
        """Seconds that a record has left; -1 if it has no deadline; None if there is none."""
        left_ms: int | None = self._ask("ttl", self._database(db), encode_key(key))
        return left_ms if left_ms in (None, -1) else left_ms / 1000

    # ------------------------------------------------------------------------------------------- many records

    def get_bulk(self, keys: Iterable[Any], db: int | None = None) -> dict[Any, Any]:
        """The values under many keys, as a dict of those that are there, in the order of the keys."""
        return self._get_bulk(self._database(db), keys)

    def set_bulk(
        self,
        data: Mapping[Any, Any] | None = None,
        /,
        db: int | None = None,
        expire_time: int | None = None,
        no_reply: bool = False,
        **kwargs: Any,
    ) -> int | None:
        """Store many values: all, or none of them (of more than 100,000, so many at a time). The number of them.

        Arguments:
            data: values by key.
            expire_time: as for :meth:`set`.
            **kwargs: further values by key.
        """
        values = {**(data or {}), **kwargs} if kwargs else data or {}
        number = self._set_bulk(self._database(db), values, expire_of_set(expire_time))
        return None if no_reply else number

    update = set_bulk

    def remove_bulk(self, keys: Iterable[Any], db: int | None = None, no_reply: bool = False) -> int | None:
        """Delete many keys. The number of those that were there."""
        number = self._remove_bulk(self._database(db), keys)
        return None if no_reply else number

    def get_bulk_details(self, keys: Iterable[Any], db: int | None = None) -> list[tuple[int, Any, Any, int]]:
        """``(db, key, value, expire_time)`` of each key that is there, in the order of the keys.

        ``expire_time`` is in seconds since the epoch; 1099511627775 for a record without a deadline.
        """
        database = self._database(db)
        return self.get_bulk_raw_details([(database, key) for key in keys])

    def get_bulk_raw(self, db_key_list: Iterable[tuple[int, Any]]) -> dict[Any, Any]:
        """The values under many ``(db, key)``, as a dict by key; of a key in two databases, the last one's."""
        return {key: value for _, key, value, _ in self.get_bulk_raw_details(db_key_list)}

    def get_bulk_raw_details(self, db_key_list: Iterable[tuple[int, Any]]) -> list[tuple[int, Any, Any, int]]:
        """``(db, key, value, expire_time)`` of each ``(db, key)`` that is there, in their order."""
        wanted = [(self._database(db), encode_key(key)) for db, key in _tuples(db_key_list, 2, "(db, key)")]
        by_database: dict[int, list[bytes]] = {}
        for database, key in wanted:
            by_database.setdefault(database, []).append(key)
        found: dict[tuple[int, bytes], bytes] = {}
        for database, keys in by_database.items():
            for key, record in zip(keys, self._get_records(database, keys), strict=True):
                if record is not None:
                    found[database, key] = record
        return [
            (database, self._user_key(key), self._decode(found[database, key]), _expire_time(found[database, key]))
            for database, key in wanted
            if (database, key) in found
        ]

    def set_bulk_raw(self, data: Iterable[tuple[int, Any, Any, int | None]], no_reply: bool = False) -> int | None:
        """Store ``(db, key, value, expire_time)``: all, or none of them. The number of them."""
        values: dict[tuple[int, bytes], tuple[Value, Expire]] = {}
        number = 0
        for db, key, value, expire_time in _tuples(data, 4, "(db, key, value, expire_time)"):
            values[self._database(db), encode_key(key)] = self._encode(value), expire_of_set(expire_time)
            number += 1
        groups: dict[tuple[int, Expire], list[tuple[bytes, Value]]] = {}
        for (database, key), (encoded, expire) in values.items():
            groups.setdefault((database, expire), []).append((key, encoded))
        self._together([("set_many", database, pairs, expire) for (database, expire), pairs in groups.items()])
        return None if no_reply else number

    def remove_bulk_raw(self, db_key_list: Iterable[tuple[int, Any]], no_reply: bool = False) -> int | None:
        """Delete many ``(db, key)``: all, or none of them. The number of those that were there."""
        by_database: dict[int, list[bytes]] = {}
        for db, key in _tuples(db_key_list, 2, "(db, key)"):
            by_database.setdefault(self._database(db), []).append(encode_key(key))
        number = sum(self._together([("delete_many", database, keys) for database, keys in by_database.items()]))
        return None if no_reply else number

    def _together(self, calls: list[Call]) -> list[Any]:
        """Carry out several operations, all or none of them. Their results."""
        results: list[Any] = []
        for some in chunks(calls):
            if len(some) == 1:
                results.append(self._tell(*some[0]))
            elif some:
                results += self._tell("atomic", [], some)[1]
        return results

    def clear(self, db: int | None = None) -> bool:
        """Delete everything in the database, what caches have stored there as well. True."""
        return self._clear(self._database(db))

    def count(self, db: int | None = None) -> int:
        """The number of keys in the database."""
        return self._count(self._database(db))

    # ------------------------------------------------------------------------------------------- as a mapping

    def __getitem__(self, key_or_keydb: KeyOrKeyDb) -> Any:
        """``db[key]`` and ``db[key, number]``: as :meth:`get`."""
        key, db = _key_and_db(key_or_keydb)
        return self.get(key, db)

    def __setitem__(self, key_or_keydb: KeyOrKeyDb, value_or_valueexpire: Any) -> None:
        """``db[key] = value`` and ``db[key] = (value, expire_time)``: as :meth:`set`."""
        key, db = _key_and_db(key_or_keydb)
        expire_time = None
        if isinstance(value_or_valueexpire, tuple):
            value, expire_time = _pair(value_or_valueexpire, "(value, expire_time)")
        else:
            value = value_or_valueexpire
        self.set(key, value, db, expire_time)

    def __delitem__(self, key_or_keydb: KeyOrKeyDb) -> None:
        """``del db[key]``: as :meth:`remove`. No error if there is none."""
        self.remove(*_key_and_db(key_or_keydb))

    def __contains__(self, key_or_keydb: KeyOrKeyDb) -> bool:
        """``key in db`` and ``(key, number) in db``: as :meth:`exists`."""
        return self.exists(*_key_and_db(key_or_keydb))

    def __len__(self) -> int:
        """The number of keys in the default database."""
        return self.count()

    def __bool__(self) -> bool:
        """True, also if the database is empty: a client is not nothing."""
        return True

    def __iter__(self) -> Iterator[Any]:
        """The keys of the default database, in their order."""
        for page in self._pages(self._default_db):
            yield from self._user_keys(page)

    # ------------------------------------------------------------------------------------------- listing and searching

    def match_prefix(self, prefix: Any, max_keys: int | None = None, db: int | None = None) -> list[Any]:
        """The keys that begin with a prefix, in their order; at most ``max_keys`` of them, all if None or negative."""
        return self._match_prefix(self._database(db), prefix, max_keys)

    def match_regex(self, regex: str, max_keys: int | None = None, db: int | None = None) -> list[Any]:
        """The keys in which a regular expression (RE2) is found, in their order. Needs the extra ``search``."""
        return self._match_regex(self._database(db), regex, max_keys)

    def match_similar(
        self, origin: str, distance: int | None = None, max_keys: int | None = None, db: int | None = None
    ) -> list[Any]:
        """The keys within an edit distance (1 if None) of a text, nearest first. Needs the extra ``search``."""
        return self._match_similar(self._database(db), origin, distance, max_keys)

    def keys(self, db: int | None = None) -> list[Any]:
        """All keys, in their order."""
        return self._keys(self._database(db))

    def values(self, db: int | None = None) -> Iterator[Any]:
        """All values, in the order of their keys; read a page at a time."""
        return (value for _, value in self._items(self._database(db)))

    def items(self, db: int | None = None) -> Iterator[tuple[Any, Any]]:
        """All ``(key, value)``, in the order of the keys; read a page at a time."""
        return self._items(self._database(db))

    def cursor(self, db: int | None = None) -> Cursor:
        """A cursor on the database, which stands nowhere yet."""
        return Cursor(self, self._database(db))

    # ------------------------------------------------------------------------------------------- scripts and figures

    def script(
        self, name: str, data: Mapping[str, Any] | None = None, /, encode_values: bool = True, **kwargs: Any
    ) -> dict[str, Any]:
        """Call a Lua function. Needs the extra ``lua``, here or where the node runs.

        Arguments:
            name: of the function: one of the shipped library, or of the node's scripts.
            data: what it gets, by name.
            encode_values: whether the values are serialized, and the results deserialized, as values are. Otherwise they
                are bytes.
            **kwargs: further arguments by name. ``db=n`` is the database that it works on.
        Returns:
            What it returned, by name.
        Raises:
            ProtocolError: there is no such function, or it failed. Nothing was changed.
        """
        return run_kyoto(self, name, {**(data or {}), **kwargs}, encode_values)

    def status(self, db: int | None = None) -> dict[str, bytes]:
        """Figures of a database, as bytes by name."""
        database = self._database(db)
        return figures.status(self._ask("status"), database, self._count(database))

    def report(self) -> dict[str, bytes]:
        """Figures of the whole store, as bytes by name."""
        return figures.report(self._ask("status"))

    @property
    def size(self) -> int:
        """Bytes of the store's data: of all its databases together."""
        return int(self._ask("status")["used_bytes"])

    @property
    def path(self) -> str:
        """The store's folder, where it lies."""
        return str(self._ask("status")["path"])


def _key_and_db(key: Any) -> tuple[Any, int | None]:
    """The key and the database of ``db[...]``."""
    return _pair(key, "(key, db)") if isinstance(key, tuple) else (key, None)


def _pair(found: tuple[Any, ...], wanted: str) -> tuple[Any, Any]:
    if len(found) != 2:
        raise InvalidArgument(f"A tuple here is {wanted}, and this one has {len(found)} elements. Nothing was changed.")
    return found[0], found[1]


def _tuples(items: Iterable[Any], elements: int, wanted: str) -> list[tuple[Any, ...]]:
    """The items, which have to be tuples of so many elements."""
    found = list(items)
    for item in found:
        if not isinstance(item, list | tuple) or len(item) != elements:
            raise InvalidArgument(f"Each item must be {wanted}, not {item!r:.80}. Nothing was changed.")
    return found


def _expire_time(record: bytes) -> int:
    """A record's deadline in seconds since the epoch, as kt reports it."""
    (deadline_ms,) = deadline_of(record)
    return deadline_ms // 1000 if deadline_ms else NEVER_S

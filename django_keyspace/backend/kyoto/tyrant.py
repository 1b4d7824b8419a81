"""TokyoTyrant: kt's client of that name. Source: the ancestor's API documentation, "Tokyo Tyrant client"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from django_keyspace.backend.kyoto import figures, misc
from django_keyspace.backend.kyoto.arguments import check_positive, encode_key, encode_prefix, integer, real
from django_keyspace.backend.kyoto.client import Client
from django_keyspace.backend.kyoto.places import HOST_DEFAULT, PORT_DEFAULT
from django_keyspace.backend.kyoto.scripts import as_integer, plain_argument, run_tokyo
from django_keyspace.backend.kyoto.serializers import KT_BINARY, Secret, stored_form
from django_keyspace.exceptions import InvalidArgument, KeyspaceError, NotANumber, NumberOverflow

MATCHES_DEFAULT: Final = 1024
"""``match_prefix`` and ``match_regex`` answer so many keys if they are not told otherwise."""
SUCCESS: Final = (0, "success")
NO_RECORD: Final = (22, "no record found")
EXISTS: Final = (21, "record exists")
REFUSED: Final = (9999, "miscellaneous error")


class TokyoTyrant(Client):
    """A client with the methods of kt's ``TokyoTyrant``, for a node of this package or a store in this process.

    Arguments and errors are those of ``KyotoTycoon``. Tokyo Tyrant knows one database and no deadlines: this client uses
    ``default_db``, its writes of whole values have no deadline, and counting and appending keep the one that is there.
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
        self._error: tuple[int, str] | None = None

    @property
    def error(self) -> tuple[int, str] | None:
        """What became of this client's last call for one record: a code and its text; None before the first."""
        return self._error

    def _noted(self, done: bool, otherwise: tuple[int, str] = NO_RECORD) -> bool:
        self._error = SUCCESS if done else otherwise
        return done

    # ------------------------------------------------------------------------------------------- one record

    def get(self, key: Any) -> Any:
        """The value under a key, or None."""
        record = self._get_record(self._default_db, key)
        return self._decode(record) if self._noted(record is not None) and record is not None else None

    def get_bytes(self, key: Any) -> bytes | None:
        """The serialized form of the value under a key, or None."""
        stored = self._get_bytes(self._default_db, key)
        self._noted(stored is not None)
        return stored

    def set(self, key: Any, value: Any, no_reply: bool = False) -> bool | None:
        """Store a value. True; with ``no_reply``, None."""
        self._noted(self._set(self._default_db, key, self._encode(value), None))
        return None if no_reply else True

    def set_bytes(self, key: Any, value: bytes) -> bool:
        """Store bytes that are the serialized form of a value already. True."""
        return self._noted(self._set(self._default_db, key, self._serializer.encode_stored(value), None))

    def add(self, key: Any, value: Any) -> bool:
        """Store a value if there is none under the key. Whether it was stored."""
        return self._noted(self._set(self._default_db, key, self._encode(value), None, "absent"), EXISTS)

    def append(self, key: Any, value: Any) -> bool:
        """Append to the value under a key, or store it if there is none. True."""
        return self._noted(self._append(self._default_db, key, self._encode(value), None))

    def remove(self, key: Any) -> int:
        """Delete a key. The number of keys that were there: 1 or 0."""
        return int(self._noted(self._tell("delete", self._default_db, encode_key(key))))

    def seize(self, key: Any) -> Any:
        """Delete a key and answer the value that it had, in one step; None if there is none."""
        value = self._seize(self._default_db, key)
        self._noted(value is not None)
        return value

    pop = seize

    def exists(self, key: Any) -> bool:
        """Whether there is a value under a key."""
        return self._noted(self._ask("exists", self._default_db, encode_key(key)))

    def length(self, key: Any) -> int | None:
        """Bytes of the stored form of a value, or None."""
        length = self._length(self._default_db, key)
        self._noted(length is not None)
        return length

    def get_part(self, key: Any, start: int | None = None, end: int | None = None) -> Any:
        """A part of a value; False if there is none, or it ends before ``start``.

        Arguments:
            start: where the part begins; None or a negative number: at the beginning.
            end: how long the part is at most; None or a negative number: to the end of the value.

        With ``KT_BINARY`` both count characters, and the part is text. Otherwise they count bytes of the stored form, and the
        part is bytes.
        """
        begin = 0 if start is None else max(check_positive("start", start, least=-(2**63)), 0)
        length = -1 if end is None else check_positive("end", end, least=-(2**63))
        record = self._get_record(self._default_db, key)
        if not self._noted(record is not None) or record is None:
            return False
        is_text = self._serializer.name == KT_BINARY
        whole = self._decode(record) if is_text else stored_form(record, self._serializer.limit_bytes)[1]
        if not self._noted(begin < len(whole), REFUSED):
            return False
        return whole[begin:] if length < 0 else whole[begin : begin + length]

    def incr(self, key: Any, n: int = 1) -> int | None:
        """Add to an integer; a missing key counts from 0. The new one.

        None if there is something else than an integer, or if the sum would leave 64 bits: nothing was changed.
        """
        if type(n) is not int:
            raise InvalidArgument(f"n must be an integer, not {n!r:.40}. Nothing was changed.")
        total: int | None = self._counted("incr", key, integer("n", n), 0)
        return total

    def incr_double(self, key: Any, n: float = 1.0) -> float | None:
        """Add to a number; a missing key counts from 0. The new one, a float. None as for :meth:`incr`."""
        total: float | None = self._counted("incr_float", key, real("n", n), 0.0)
        return total

    def _counted(self, name: str, key: Any, number: Any, default: Any) -> Any:
        try:
            total = self._tell(name, self._default_db, encode_key(key), number, default, None, 0)
        except (NotANumber, NumberOverflow):
            self._error = REFUSED
            return None
        self._error = SUCCESS
        return total

    # ------------------------------------------------------------------------------------------- many records

    def get_bulk(self, keys: Iterable[Any]) -> dict[Any, Any]:
        """The values under many keys, as a dict of those that are there, in the order of the keys."""
        return self._get_bulk(self._default_db, keys)

    def set_bulk(self, data: Mapping[Any, Any] | None = None, /, no_reply: bool = False, **kwargs: Any) -> bool | None:
        """Store many values: all, or none of them (of more than 100,000, so many at a time). True.

        Arguments:
            data: values by key.
            **kwargs: further values by key.
        """
        self._set_bulk(self._default_db, {**(data or {}), **kwargs} if kwargs else data or {}, None)
        return None if no_reply else True

    def update(
        self, data: Mapping[Any, Any] | None = None, /, db: None = None, expire_time: None = None, **kwargs: Any
    ) -> bool | None:
        """As :meth:`set_bulk`. Tokyo Tyrant has neither databases nor deadlines: ``db`` and ``expire_time`` are refused."""
        if db is not None or expire_time is not None:
            raise InvalidArgument(
                "TokyoTyrant has one database and no deadlines: db and expire_time are KyotoTycoon's. Nothing was changed."
            )
        return self.set_bulk(data, **kwargs)

    def remove_bulk(self, keys: Iterable[Any]) -> bool:
        """Delete many keys. True, whether or not they were there."""
        self._remove_bulk(self._default_db, keys)
        return True

    def clear(self) -> bool:
        """Delete everything in the database, what caches have stored there as well. True."""
        return self._clear(self._default_db)

    def count(self) -> int:
        """The number of keys."""
        return self._count(self._default_db)

    # ------------------------------------------------------------------------------------------- as a mapping

    def __getitem__(self, key: Any) -> Any:
        """``db[key]``: as :meth:`get`. ``db["a":"b"]``: the records from one key up to another, as a dict."""
        if isinstance(key, slice):
            if key.step is not None:
                raise InvalidArgument("A slice of keys has a start and a stop, and no step.")
            return self.get_range("" if key.start is None else key.start, key.stop)
        return self.get(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        """``db[key] = value``: as :meth:`set`."""
        self.set(key, value)

    def __delitem__(self, key: Any) -> None:
        """``del db[key]``: as :meth:`remove`. No error if there is none."""
        self.remove(key)

    def __contains__(self, key: Any) -> bool:
        """``key in db``: as :meth:`exists`."""
        return self.exists(key)

    def __len__(self) -> int:
        """The number of keys."""
        return self.count()

    def __bool__(self) -> bool:
        """True, also if the database is empty: a client is not nothing."""
        return True

    def __iter__(self) -> Iterator[Any]:
        """The keys, in their order."""
        for page in self._pages(self._default_db):
            yield from self._user_keys(page)

    # ------------------------------------------------------------------------------------------- listing and searching

    def match_prefix(self, prefix: Any, max_keys: int | None = MATCHES_DEFAULT) -> list[Any]:
        """The keys that begin with a prefix, in their order; at most ``max_keys`` of them, all if None or negative."""
        return self._match_prefix(self._default_db, prefix, max_keys)

    def match_regex(self, regex: str, max_keys: int | None = MATCHES_DEFAULT) -> list[Any]:
        """The keys in which a regular expression (RE2) is found, in their order. Needs the extra ``search``."""
        return self._match_regex(self._default_db, regex, max_keys)

    def match_similar(
        self, origin: str, distance: int | None = None, max_keys: int | None = MATCHES_DEFAULT
    ) -> list[Any]:
        """The keys within an edit distance (1 if None) of a text, nearest first. Needs the extra ``search``."""
        return self._match_similar(self._default_db, origin, distance, max_keys)

    def get_rangelist(self, start: Any = "", stop: Any = None, max_keys: int = 0) -> list[tuple[Any, Any]]:
        """``(key, value)`` of the range that :meth:`get_range` answers."""
        limit = check_positive("max_keys", max_keys, least=0) or None
        first = encode_prefix("start", start)
        end = None if stop is None else encode_prefix("stop", stop)
        rows: list[tuple[Any, Any]] = []
        for page in self._pages(self._default_db, start=first, limit=limit, with_values=True):
            for key, record in page:
                if end is not None and key >= end:
                    return rows
                rows.append((self._user_key(key), self._decode(record)))
        return rows

    def get_range(self, start: Any, stop: Any = None, max_keys: int = 0) -> dict[Any, Any]:
        """The records from ``start`` on, up to and without ``stop``, in the order of their keys.

        Arguments:
            start: the first key; it need not exist. ``""``: from the beginning.
            stop: the key before which the range ends; None: to the end.
            max_keys: how many at most; 0: all.
        """
        return dict(self.get_rangelist(start, stop, max_keys))

    def iter_from(self, start_key: Any) -> dict[Any, Any]:
        """The records from a key on, in the order of their keys."""
        return self.get_range(start_key)

    def keys(self) -> list[Any]:
        """All keys, in their order."""
        return self._keys(self._default_db)

    def values(self) -> Iterator[Any]:
        """All values, in the order of their keys; read a page at a time."""
        return (value for _, value in self._items(self._default_db))

    def items(self) -> Iterator[tuple[Any, Any]]:
        """All ``(key, value)``, in the order of the keys; read a page at a time."""
        return self._items(self._default_db)

    # ------------------------------------------------------------------------------------------- scripts and figures

    def script(
        self,
        name: str,
        key: Any = None,
        value: Any = None,
        encode_value: bool = True,
        decode_value: bool = False,
        as_list: bool = False,
        as_dict: bool = False,
        as_int: bool = False,
    ) -> Any:
        """Call a Lua function with a key and a value. Needs the extra ``lua``, here or where the node runs.

        Arguments:
            name: of the function: one of the shipped library, or of the node's scripts.
            key: as a key of a record; None: empty.
            value: serialized as a value, unless ``encode_value`` is false; None: empty.
            decode_value: deserialize what it returns.
            as_list: split it at line ends, into a list.
            as_dict: split it at line ends, and each line at its first tab, into a dict.
            as_int: make an int of it; None if it is empty.
        Returns:
            The bytes that it returned, or what the arguments ask for. True and False for ``true`` and ``false``.
        Raises:
            ScriptError: there is no such function, it failed, or it returned nothing. Nothing was changed.
        """
        full = b"" if key is None else encode_key(key)
        argument = plain_argument(self._serializer, value, encode_value)
        answer = run_tokyo(self, self._default_db, name, full, argument)
        if as_list:
            return [self._part(line, decode_value) for line in answer.split(b"\n")] if answer else []
        if as_dict:
            pairs = (line.partition(b"\t") for line in answer.split(b"\n") if line)
            return {self._user_key(word): self._part(rest, decode_value) for word, _, rest in pairs}
        if as_int:
            return as_integer(answer)
        if answer in (b"true", b"false"):
            return answer == b"true"
        return self._part(answer, decode_value)

    def _part(self, answer: bytes, decode_value: bool) -> Any:
        return self._serializer.loaded(answer) if decode_value else answer

    def misc(
        self,
        cmd: str,
        keys: Sequence[Any] | None = None,
        data: Mapping[Any, Any] | None = None,
        update_log: bool = True,
        decode_values: bool = False,
    ) -> list[Any] | None:
        """Run a command of Tokyo Tyrant's "misc" interface.

        Arguments:
            cmd: see docs/kyoto-api.md for the commands.
            keys: its arguments, in order.
            data: keys and values, which follow the arguments.
            update_log: nothing: there is one log.
            decode_values: deserialize values in the answer.
        Returns:
            A list of bytes; None if the command failed, or if there is none of this name.
        """
        arguments = [encode_prefix("keys", key) for key in keys or ()]
        for key, value in (data or {}).items():
            arguments += [encode_key(key), self._serializer.checked(self._serializer.dumped(value))]
        try:
            answer = misc.run(self, cmd, arguments)
        except KeyspaceError:
            self._error = REFUSED
            raise
        self._noted(answer is not None, REFUSED)
        return misc.decoded(self._serializer, cmd, answer) if decode_values and answer else answer

    def status(self) -> dict[str, Any]:
        """Figures of the database: numbers and text by name."""
        return figures.tyrant_status(self._ask("status"), self._default_db, self._count(self._default_db))

    @property
    def size(self) -> int:
        """Bytes of the store's data: of all its databases together."""
        return int(self._ask("status")["used_bytes"])

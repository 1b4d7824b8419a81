"""What a script's ``db`` does: each method, on the script's view of the store. ``lua/database.lua`` is its other half.

A write is an operation of the table, applied to the view by ``apply.py`` and kept for the commit. Values: Lua's integers,
floats and booleans are stored as such; a string as text if it is UTF-8 and as bytes otherwise, or as what the caller's
serializer or the argument ``kind`` says. Reading gives numbers and booleans for native ones, and the payload as a string for
everything else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from django_keyspace.exceptions import InvalidArgument, InvalidKey, KeyspaceError, MissingKey, ScriptLimit
from django_keyspace.operations import (
    AFTER,
    BATCH_OPERATIONS_MAX,
    DEADLINE_MS_MAX,
    INT64_MAX,
    INT64_MIN,
    KEEP,
    Call,
    Expire,
    Value,
    check_call,
)
from django_keyspace.store.apply import apply
from django_keyspace.store.context import WriteContext
from django_keyspace.store.environment import Environment
from django_keyspace.store.queries import READS
from django_keyspace.store.record import Flag, Tag, inflate, payload_of, unpack_header
from django_keyspace.store.scripting.values import decode, encode
from django_keyspace.store.scripting.view import Condition, ViewTransaction

WRITTEN_BYTES_MAX: Final = 64 * 2**20
QUESTIONS_MAX: Final = 200_000

_KINDS: Final[dict[str, int]] = {tag.name.lower(): int(tag) for tag in Tag}
_STRING_KINDS: Final = ("bytes", "text", "json", "msgpack", "raw", "pickle")
_BYTES, _TEXT, _INTEGER, _FLOAT, _BOOLEAN = (
    int(tag) for tag in (Tag.BYTES, Tag.TEXT, Tag.INTEGER, Tag.FLOAT, Tag.BOOLEAN)
)
_NATIVE: Final[dict[int, Callable[[bytes], Any]]] = {_INTEGER: int, _FLOAT: float, _BOOLEAN: b"1".__eq__}


class ScriptDatabase:
    """One script's database.

    Arguments:
        txn: the read transaction that is its snapshot.
        environment: handles and limits.
        now_ms: the time of the snapshot.
        number: number of the database.
        prefix: what stands before each key that the script names.
        tag: of strings that the script writes; 0: by what they are.
        flags: of records that the script makes.

    Attributes:
        calls: what the script has written, as operations in their order.
    """

    def __init__(
        self, txn: Any, environment: Environment, now_ms: int, number: int, prefix: bytes, tag: int, flags: int
    ) -> None:
        self.calls: list[Call] = []
        self._view = ViewTransaction(txn, environment.databases[number])
        self._environment = environment
        self._context = WriteContext(self._view, environment, now_ms, 0)
        self._now_ms = now_ms
        self._number = number
        self._prefix = prefix
        self._tag = tag
        self._flags = flags
        self._questions = 0

    def answer(self, question: bytes) -> bytes:
        """The answer to a question of Lua: a value, or ``E`` and why not.

        Raises:
            ScriptLimit: the script asks or writes too much; it must not go on.
        """
        self._questions += 1
        if self._questions > QUESTIONS_MAX:
            raise ScriptLimit(f"The script called db more than {QUESTIONS_MAX:,} times. Nothing was changed.")
        try:
            name, *arguments = decode(question)
            value = _METHODS[name.decode()](self, *arguments)
            answer = encode(value)
        except ScriptLimit:
            raise
        except KeyspaceError as error:
            return b"E" + str(error).encode(errors="replace")
        except TypeError:
            return b"E" + b"wrong arguments for db:" + bytes(name)
        if len(self.calls) > BATCH_OPERATIONS_MAX or self._context.written_bytes > WRITTEN_BYTES_MAX:
            raise ScriptLimit(
                f"The script writes more than {BATCH_OPERATIONS_MAX:,} times or {WRITTEN_BYTES_MAX:,} bytes. Nothing was "
                "changed. Do less at a time."
            )
        return answer

    def conditions(self) -> list[tuple[int, Condition]]:
        """That everything which the script has read is still the same."""
        conditions = self._view.conditions(self._environment, self._number, self._now_ms)
        if len(conditions) > BATCH_OPERATIONS_MAX:
            raise ScriptLimit(
                f"The script reads more than {BATCH_OPERATIONS_MAX:,} keys and writes. Nothing was changed. Do less at a time."
            )
        return conditions

    # ------------------------------------------------------------------------------------------- between Lua and records

    def _key(self, key: Any) -> bytes:
        if isinstance(key, int | float) and not isinstance(key, bool):
            key = repr(key).encode()
        if not isinstance(key, bytes):
            raise InvalidKey(f"a key is a string, not {_lua_name(key)}")
        if not key:
            raise InvalidKey("a key has at least one byte")
        return self._prefix + key

    def _prefixed(self, prefix: Any) -> bytes:
        if prefix is None or prefix == b"":
            return self._prefix
        return self._key(prefix)

    def _value(self, value: Any, kind: Any = None) -> Value:
        if value is True or value is False:
            return _BOOLEAN, self._flags, b"1" if value else b"0"
        if isinstance(value, int):
            return _INTEGER, self._flags, b"%d" % value
        if isinstance(value, float):
            return _FLOAT, self._flags, repr(value).encode()
        if not isinstance(value, bytes):
            raise InvalidArgument(f"a value is a string, a number or a boolean, not {_lua_name(value)}")
        return self._string_tag(value, kind), self._flags, value

    def _string_tag(self, value: bytes, kind: Any) -> int:
        if kind is not None:
            name = kind.decode(errors="replace") if isinstance(kind, bytes) else str(kind)
            if name not in _STRING_KINDS:
                raise InvalidArgument(f"a kind of string is one of {', '.join(_STRING_KINDS)}, not {name!r:.40}")
            return _KINDS[name]
        if self._tag:
            return self._tag
        try:
            value.decode()
        except UnicodeDecodeError:
            return _BYTES
        return _TEXT

    def _lua(self, record: bytes | None) -> Any:
        """What a record is in Lua."""
        if record is None:
            return None
        tag, flags, _, _, _, _ = unpack_header(record)
        payload = payload_of(record)
        if flags & Flag.COMPRESSED and not flags & Flag.SIGNED:
            payload = inflate(payload, self._environment.limits.value_bytes_max)
        return _NATIVE[tag](payload) if tag in _NATIVE else payload

    def _read(self, name: str, *arguments: Any) -> Any:
        check_call((name, self._number, *arguments), self._environment.limits)
        return READS[name](self._view, self._environment, self._now_ms, self._number, *arguments)

    def _write(self, name: str, *arguments: Any, is_blind: bool = False) -> Any:
        """Apply an operation to the view, and keep it if it changed anything.

        Arguments:
            is_blind: its result does not depend on what is there.
        """
        call = (name, self._number, *arguments)
        check_call(call, self._environment.limits)
        context = self._context
        context.changed, self._view.is_watching = False, not is_blind
        try:
            result = apply(context, call)
        finally:
            self._view.is_watching = True
        if context.changed:
            self.calls.append(call)
        return result

    # ------------------------------------------------------------------------------------------- the methods

    def get(self, key: Any) -> Any:
        """The value under a key, or nil."""
        return self._lua(self._read("get", self._key(key)))

    def set(self, key: Any, value: Any, expire: Any = None, kind: Any = None) -> bool:
        """Store a value. true"""
        wanted = _expire(expire)
        is_blind = wanted != KEEP
        return bool(self._write("set", self._key(key), self._value(value, kind), wanted, "always", is_blind=is_blind))

    def add(self, key: Any, value: Any, expire: Any = None, kind: Any = None) -> bool:
        """Store a value if there is none under the key. Whether it was stored."""
        return bool(self._write("set", self._key(key), self._value(value, kind), _expire(expire), "absent"))

    def replace(self, key: Any, value: Any, expire: Any = None, kind: Any = None) -> bool:
        """Store a value if there is one under the key. Whether it was stored."""
        return bool(self._write("set", self._key(key), self._value(value, kind), _expire(expire), "present"))

    def append(self, key: Any, text: Any, expire: Any = None) -> int:
        """Append to a string, or store it. The new length."""
        full = self._key(key)
        if not isinstance(text, bytes):
            raise InvalidArgument(f"only a string can be appended, not {_lua_name(text)}")
        record = self._read("get", full)
        # What is there decides between text and bytes, which Lua does not tell apart.
        tag = unpack_header(record)[0] if record is not None else self._string_tag(text, None)
        return int(self._write("append", full, (tag, self._flags, text), _kept_expire(expire)))

    def remove(self, key: Any) -> bool:
        """Delete. Whether the key was there."""
        return bool(self._write("delete", self._key(key)))

    def seize(self, key: Any) -> Any:
        """Delete and return the value, or nil."""
        return self._lua(self._write("remove", self._key(key)))

    def exists(self, key: Any) -> bool:
        """Whether the key is there."""
        return bool(self._read("exists", self._key(key)))

    def length(self, key: Any) -> int | None:
        """Bytes of the value as it is stored, or nil."""
        length: int | None = self._read("length", self._key(key))
        return length

    def kind(self, key: Any) -> str | None:
        """What the value is stored as: "text", "integer" ..., or nil."""
        record = self._read("get", self._key(key))
        return Tag(unpack_header(record)[0]).name.lower() if record is not None else None

    def ttl(self, key: Any) -> float | None:
        """Seconds until the key expires; -1: never; nil: it is not there."""
        left_ms = self._read("ttl", self._key(key))
        return None if left_ms is None else -1 if left_ms < 0 else left_ms / 1000

    def touch(self, key: Any, expire: Any = None) -> bool:
        """Give a key another expiry. Whether it was there."""
        return bool(self._write("touch", self._key(key), _expire(expire)))

    def rename(self, key: Any, new_key: Any) -> bool:
        """Move a value with its expiry to another key. Whether it was there."""
        return bool(self._write("rename", self._key(key), self._key(new_key)))

    def increment(self, key: Any, delta: Any = None, default: Any = None, expire: Any = None) -> int:
        """Add to an integer. The new one. A missing key counts from ``default``, 0; if that is false, it is an error."""
        by, base = _integer(delta, 1), None if default is False else _integer(default, 0)
        try:
            return int(self._write("incr", self._key(key), by, base, _kept_expire(expire), self._flags))
        except MissingKey:
            raise MissingKey("there is nothing to count under the key") from None

    def increment_double(self, key: Any, delta: Any = None, default: Any = None, expire: Any = None) -> float:
        """Add to a number. The new one, a float. See :meth:`increment`."""
        by, base = _float(delta, 1.0), None if default is False else _float(default, 0.0)
        try:
            return float(self._write("incr_float", self._key(key), by, base, _kept_expire(expire), self._flags))
        except MissingKey:
            raise MissingKey("there is nothing to count under the key") from None

    def cas(self, key: Any, old: Any, new: Any = None, expire: Any = None) -> bool:
        """Store ``new`` if the value is ``old``. nil for old: there must be none; nil for new: delete. Whether it was done."""
        full = self._key(key)
        present = self._lua(self._read("get", full))
        if type(present) is not type(old) or present != old:
            return False
        if new is None:
            self._write("delete", full)
        else:
            self._write("set", full, self._value(new), _expire(expire), "always")
        return True

    def get_bulk(self, keys: Any) -> dict[bytes, Any]:
        """The values under many keys, by key."""
        wanted = {self._key(key): key for key in _list("keys", keys)}
        records = self._read("get_many", list(wanted))
        return {
            key: self._lua(record) for key, record in zip(wanted.values(), records, strict=True) if record is not None
        }

    def set_bulk(self, values: Any, expire: Any = None, kind: Any = None) -> int:
        """Store many values, given by key. Their number."""
        items = values.items() if isinstance(values, dict) else enumerate(_list("values", values), 1)
        pairs = sorted((self._key(key), self._value(value, kind)) for key, value in items)
        wanted = _expire(expire)
        return int(self._write("set_many", pairs, wanted, is_blind=wanted != KEEP)) if pairs else 0

    def remove_bulk(self, keys: Any) -> int:
        """Delete many keys. How many were there."""
        wanted = [self._key(key) for key in _list("keys", keys)]
        return int(self._write("delete_many", wanted)) if wanted else 0

    def prune(self, prefix: Any) -> int:
        """Delete all keys with a prefix. Their number."""
        return int(self._write("prune", self._prefixed(prefix)))

    def clear(self) -> int:
        """Delete everything that the script can see. The number of keys."""
        return self.prune(None)

    def count(self, prefix: Any = None) -> int:
        """How many keys there are, or how many with a prefix."""
        full, number = self._prefixed(prefix), 0
        start: bytes | None = b""
        while start is not None:
            more, start = self._read("count", full, start, AFTER if start else False, True, 0)
            number += more
        return number

    def page(self, prefix: Any, start: Any, skip: Any, forward: Any, rows: Any, with_values: Any) -> dict[str, Any]:
        """One page of a listing: its rows, and whether there are more. For the methods that list, in Lua."""
        full = self._prefixed(prefix)
        begin = self._key(start) if start else b""
        skipped = AFTER if skip == b"after" else bool(skip)
        found, more = self._read("list", full, begin, skipped, bool(forward), rows, bool(with_values))
        cut = len(self._prefix)
        if with_values:
            return {"rows": [[key[cut:], self._lua(record)] for key, record in found], "more": more}
        return {"rows": [key[cut:] for key in found], "more": more}

    def size(self) -> int:
        """Bytes that the whole store's data takes."""
        return self._environment.used_bytes(self._view.base)

    def time(self) -> float:
        """The time by which keys expire, in seconds since the epoch. It stands still while a script runs."""
        return self._now_ms / 1000


_METHODS: Final[dict[str, Callable[..., Any]]] = {
    name: method for name, method in vars(ScriptDatabase).items() if not name.startswith("_") and callable(method)
}
for _own in ("answer", "conditions"):
    del _METHODS[_own]


def _lua_name(value: Any) -> str:
    """What Lua calls a value of this kind."""
    names = {type(None): "nil", bool: "a boolean", int: "a number", float: "a number", bytes: "a string"}
    return names.get(type(value), "a table")


def _expire(seconds: Any) -> Expire:
    """A script's ``expire``: nil never, "keep", seconds from now, or negative: seconds since the epoch."""
    if seconds is None:
        return None
    if seconds == b"keep":
        return KEEP
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds):
        raise InvalidArgument('an expiry is a number of seconds, "keep" or nil')
    milliseconds = round(abs(seconds) * 1000)
    if milliseconds > DEADLINE_MS_MAX:
        raise InvalidArgument("an expiry is too far away")
    return milliseconds if seconds >= 0 else ("at", milliseconds)


def _kept_expire(seconds: Any) -> Any:
    """The same for methods that keep the expiry of what is there."""
    expire = _expire(seconds)
    return None if expire is None or expire == KEEP else ("set", expire)


def _integer(number: Any, default: int) -> int:
    if number is None:
        return default
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int) or not INT64_MIN <= number <= INT64_MAX:
        raise InvalidArgument("an integer is wanted to count with")
    return number


def _float(number: Any, default: float) -> float:
    if number is None:
        return default
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise InvalidArgument("a finite number is wanted to count with")
    return float(number)


def _list(name: str, items: Any) -> list[Any]:
    if isinstance(items, dict) and not items:  # the empty table
        return []
    if not isinstance(items, list):
        raise InvalidArgument(f"{name} must be a list")
    if len(items) > BATCH_OPERATIONS_MAX:
        raise ScriptLimit(f"The script names more than {BATCH_OPERATIONS_MAX:,} {name} at once. Nothing was changed.")
    return items

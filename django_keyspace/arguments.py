"""What the arguments of operations are, and the check of each: types, limits, and the errors for what is not legal.

``operations.py`` has the vocabulary, and says which operation takes which of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from django_keyspace.exceptions import InvalidArgument, InvalidKey, KeyTooLong, ValueTooLarge

Expire = int | str | tuple[str, int] | None
"""See ``expire`` in ``operations.py``."""

Value = tuple[int, int, bytes]
"""``(tag, flags, payload)``."""

KEEP: Final = "keep"
AFTER: Final = "after"
"""A value of ``skip``: begin behind ``start_key``, whether or not that key is still there. The next page of a listing."""
KEY_BYTES_MAX: Final = 1024
VALUE_BYTES_MAX_DEFAULT: Final = 64 * 1024 * 1024
DATABASES_DEFAULT: Final = 16
MODELS_BASE: Final = 1024
"""Number of the sub-store with the models of database 0; also the most databases that a store may have."""
DEADLINE_MS_MAX: Final = 2**53
INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
PAGE_ROWS_MAX: Final = 1000
"""A listing answers at most so many rows per page; whoever wants more asks for the next page."""
BATCH_OPERATIONS_MAX: Final = 100_000
RANGE_DIGEST_BYTES: Final = 16
SCRIPT_LIBRARIES: Final = ("kyoto", "tokyo")
SCRIPT_TIME_MS_MAX: Final = 60_000
SCRIPT_SOURCE_CHARACTERS_MAX: Final = 1_000_000
SCRIPT_ARGUMENTS_BYTES_MAX: Final = 8 * 1024 * 1024
SESSION_ID_BYTES: Final = 24
"""A session's id: its birth by the log clock in milliseconds (8 bytes, big-endian), and 16 random bytes."""
SESSION_WINDOW: Final = 1_024
"""A session has at most so many sequences whose answers its client still waits for."""
LEVELS: Final = ("safe", "lease", "session", "dirty")
"""What a read promises, from the strictest to the loosest. See docs/consistency.md."""
MEMBER_CHANGES: Final = ("promote", "remove")
"""What operators may have done to a member. Members are added by joining."""
MEMBER_CHARACTERS_MAX: Final = 200
NESTING_MAX: Final = 2
"""A batch may hold an atomic block and the other way round, but no more than that."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The sizes that an operation's arguments are checked against.

    Attributes:
        databases: number of databases in the store.
        value_bytes_max: largest payload of a value, in bytes.
    """

    databases: int = DATABASES_DEFAULT
    value_bytes_max: int = VALUE_BYTES_MAX_DEFAULT


Check = Callable[[str, Any, Limits], None]

_DATABASE_END: Final = 2 * MODELS_BASE


def _fail(name: str, argument: Any, wanted: str) -> InvalidArgument:
    return InvalidArgument(f"Argument {name!r} must be {wanted}, not {argument!r:.80}. Nothing was changed.")


def check_key(name: str, key: Any, limits: Limits | None = None) -> None:
    """Raise :class:`InvalidKey` or :class:`KeyTooLong` unless ``key`` is a legal key."""
    if type(key) is not bytes:
        raise InvalidKey(f"Argument {name!r} must be bytes, not {type(key).__name__}. Nothing was changed.")
    if not key:
        raise InvalidKey(f"Argument {name!r} is empty: a key has at least one byte. Nothing was changed.")
    if len(key) > KEY_BYTES_MAX:
        raise key_too_long(len(key))


def key_too_long(key_bytes: int) -> KeyTooLong:
    """The error for a key of ``key_bytes`` bytes."""
    return KeyTooLong(
        f"The key has {key_bytes:,} bytes and the limit is {KEY_BYTES_MAX:,}, prefix and version included. "
        "Nothing was changed. Shorten the key, or hash its tail."
    )


def value_too_large(payload_bytes: int, limit_bytes: int) -> ValueTooLarge:
    """The error for a payload of ``payload_bytes`` bytes."""
    return ValueTooLarge(
        f"The value takes {payload_bytes:,} bytes and the limit is {limit_bytes:,}. Nothing was changed. "
        "Store less, compress it, or raise the option value_bytes_max."
    )


def check_prefix(name: str, prefix: Any, limits: Limits) -> None:
    if type(prefix) is not bytes:
        raise InvalidKey(f"Argument {name!r} must be bytes, not {type(prefix).__name__}. Nothing was changed.")
    if len(prefix) > KEY_BYTES_MAX:
        raise key_too_long(len(prefix))


def check_keys(name: str, keys: Any, limits: Limits) -> None:
    check_sequence(name, keys)
    for key in keys:
        check_key(name, key)


def check_sequence(name: str, items: Any) -> None:
    if not isinstance(items, list | tuple):
        raise _fail(name, items, "a list")
    if len(items) > BATCH_OPERATIONS_MAX:
        raise InvalidArgument(
            f"Argument {name!r} has {len(items):,} items and the limit is {BATCH_OPERATIONS_MAX:,}. Nothing was changed. "
            "Split the call."
        )


def check_integer(name: str, number: Any, lowest: int, highest: int) -> None:
    if type(number) is not int or not lowest <= number <= highest:
        raise _fail(name, number, f"an integer from {lowest} to {highest}")


def check_database(name: str, database: Any, limits: Limits) -> None:
    if (
        type(database) is not int
        or not 0 <= database % MODELS_BASE < limits.databases
        or not 0 <= database < _DATABASE_END
    ):
        raise InvalidArgument(
            f"There is no database {database!r}: this store has {limits.databases}, numbered from 0. Nothing was changed. "
            "Use another number, or raise the option databases."
        )


def check_value(name: str, value: Any, limits: Limits) -> None:
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise _fail(name, value, "(tag, flags, payload)")
    tag, flags, payload = value
    check_integer("tag", tag, 0, 255)
    check_integer("flags", flags, 0, 255)
    if type(payload) is not bytes:
        raise _fail("payload", payload, "bytes")
    if len(payload) > limits.value_bytes_max:
        raise value_too_large(len(payload), limits.value_bytes_max)


def check_optional_value(name: str, value: Any, limits: Limits) -> None:
    if value is not None:
        check_value(name, value, limits)


def check_pairs(name: str, pairs: Any, limits: Limits) -> None:
    check_sequence(name, pairs)
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise _fail(name, pair, "a list of (key, value)")
        check_key(name, pair[0])
        check_value(name, pair[1], limits)


def check_expire(name: str, expire: Any, limits: Limits) -> None:
    if expire is None or expire == KEEP:
        return
    if isinstance(expire, list | tuple) and len(expire) == 2 and expire[0] == "at":
        check_integer(name, expire[1], 0, DEADLINE_MS_MAX)
    else:
        check_integer(name, expire, 0, DEADLINE_MS_MAX)


def check_kept_expire(name: str, expire: Any, limits: Limits) -> None:
    """The ``expire`` of an operation that keeps a record's deadline unless it is told to set it."""
    if isinstance(expire, list | tuple) and len(expire) == 2 and expire[0] == "set":
        if expire[1] == KEEP:
            raise _fail(name, expire, "('set', a deadline)")
        expire = expire[1]
    check_expire(name, expire, limits)


def check_expiry(name: str, expiry: Any, limits: Limits) -> None:
    if expiry is None or expiry == KEEP:
        raise _fail(name, expiry, "a timeout in milliseconds or ('at', milliseconds since the epoch)")
    check_expire(name, expiry, limits)


def check_int64(name: str, number: Any, limits: Limits) -> None:
    check_integer(name, number, INT64_MIN, INT64_MAX)


def check_optional_int64(name: str, number: Any, limits: Limits) -> None:
    if number is not None:
        check_integer(name, number, INT64_MIN, INT64_MAX)


def check_float(name: str, number: Any, limits: Limits) -> None:
    if type(number) is not float or number != number or number in (float("inf"), float("-inf")):
        raise _fail(name, number, "a finite float")


def check_optional_float(name: str, number: Any, limits: Limits) -> None:
    if number is not None:
        check_float(name, number, limits)


def check_bool(name: str, flag: Any, limits: Limits) -> None:
    if type(flag) is not bool:
        raise _fail(name, flag, "true or false")


def check_skip(name: str, skip: Any, limits: Limits) -> None:
    if type(skip) is not bool and skip != AFTER:
        raise _fail(name, skip, "true, false or 'after'")


def check_rows(name: str, rows: Any, limits: Limits) -> None:
    check_integer(name, rows, 1, PAGE_ROWS_MAX)


def check_word(name: str, word: Any, limits: Limits) -> None:
    """A regular expression, or a word that keys are compared with."""
    if type(word) is not bytes:
        raise InvalidArgument(f"Argument {name!r} must be bytes, not {type(word).__name__}. Nothing was searched.")
    if len(word) > KEY_BYTES_MAX:
        raise InvalidArgument(
            f"Argument {name!r} has {len(word):,} bytes and the limit is {KEY_BYTES_MAX:,}, as for keys. Nothing was searched."
        )


def check_distance(name: str, distance: Any, limits: Limits) -> None:
    """A number of edits."""
    check_integer(name, distance, 0, KEY_BYTES_MAX)


def check_count(name: str, number: Any, limits: Limits) -> None:
    check_integer(name, number, 0, INT64_MAX)


def check_level(name: str, level: Any, limits: Limits) -> None:
    """What a read promises."""
    if type(level) is not str or level not in LEVELS:
        raise _fail(name, level, f"one of {', '.join(LEVELS)}")


def check_staleness(name: str, staleness_ms: Any, limits: Limits) -> None:
    """How long ago the node that answers may have heard from its leader, or None."""
    if staleness_ms is not None:
        check_integer(name, staleness_ms, 0, INT64_MAX)


def check_change(name: str, change: Any, limits: Limits) -> None:
    """What may be done to a member of a cluster."""
    if type(change) is not str or change not in MEMBER_CHANGES:
        raise _fail(name, change, f"one of {', '.join(MEMBER_CHANGES)}")


def check_member(name: str, member: Any, limits: Limits) -> None:
    """A node's name, or its id in the cluster."""
    if type(member) is not str or not 0 < len(member) <= MEMBER_CHARACTERS_MAX:
        raise _fail(name, member, f"a node's name, of 1 to {MEMBER_CHARACTERS_MAX} characters")


def check_optional_member(name: str, member: Any, limits: Limits) -> None:
    """The same, or None."""
    if member is not None:
        check_member(name, member, limits)


def check_flags(name: str, flags: Any, limits: Limits) -> None:
    check_integer(name, flags, 0, 255)


def check_presence(name: str, presence: Any, limits: Limits) -> None:
    if presence not in ("always", "absent", "present"):
        raise _fail(name, presence, "'always', 'absent' or 'present'")


_CONDITIONS: Final[dict[str, int]] = {"absent": 2, "present": 2, "revision": 3, "value": 4}
"""Kinds of condition, with the number of elements of each."""


def check_condition(name: str, condition: Any, limits: Limits) -> None:
    kind = condition[0] if isinstance(condition, list | tuple) and condition else None
    if not isinstance(kind, str) or len(condition) != _CONDITIONS.get(kind, -1):
        raise _fail(name, condition, "a condition: absent, present, revision or value, and its key")
    check_key(name, condition[1])
    if condition[0] == "revision":
        check_integer("revision", condition[2], 0, 2**64 - 1)
    elif condition[0] == "value":
        if condition[2] is not None:
            check_integer("tag", condition[2], 0, 255)
        if type(condition[3]) is not bytes:
            raise _fail("payload", condition[3], "bytes")


def check_conditions(name: str, conditions: Any, limits: Limits) -> None:
    """Conditions of an atomic block: each is preceded by its database."""
    check_sequence(name, conditions)
    for item in conditions:
        if not isinstance(item, list | tuple) or len(item) != 2:
            raise _fail(name, item, "a list of (database, condition)")
        check_database("database", item[0], limits)
        if isinstance(item[1], list | tuple) and len(item[1]) == 4 and item[1][0] == "range":
            _check_range(name, item[1])
        else:
            check_condition(name, item[1], limits)


def _check_range(name: str, condition: Any) -> None:
    _, low, high, digest = condition
    for key in (low, high):
        if type(key) is not bytes or len(key) > KEY_BYTES_MAX:
            raise _fail(name, condition, "('range', first key, last key, digest) with keys of bytes")
    if type(digest) is not bytes or len(digest) != RANGE_DIGEST_BYTES:
        raise _fail(name, condition, f"a range with a digest of {RANGE_DIGEST_BYTES} bytes")


def check_addresses(name: str, addresses: Any, limits: Limits) -> None:
    check_sequence(name, addresses)
    for item in addresses:
        if not isinstance(item, list | tuple) or len(item) != 2:
            raise _fail(name, item, "a list of (database, key)")
        check_database("database", item[0], limits)
        check_key(name, item[1])


def check_session(name: str, session: Any, limits: Limits) -> None:
    """The id of a client's session."""
    if type(session) is not bytes or len(session) != SESSION_ID_BYTES:
        raise _fail(name, session, f"{SESSION_ID_BYTES} bytes")


def check_sessions(name: str, sessions: Any, limits: Limits) -> None:
    """Ids of sessions."""
    check_sequence(name, sessions)
    for session in sessions:
        check_session(name, session, limits)


def check_place(name: str, number: Any, limits: Limits) -> None:
    """A place in a session's order."""
    check_integer(name, number, 1, INT64_MAX)


def check_answer(name: str, answer: Any, limits: Limits) -> None:
    """What a script has answered, or None."""
    if answer is not None and type(answer) is not bytes:
        raise _fail(name, answer, "bytes or None")


def check_sources(name: str, sources: Any, limits: Limits) -> None:
    """The Lua that comes with a call: (name, text) of each source."""
    check_sequence(name, sources)
    characters = 0
    for source in sources:
        if not isinstance(source, list | tuple) or len(source) != 2 or not all(type(part) is str for part in source):
            raise _fail(name, source, "a list of (name, text of Lua)")
        if not 0 < len(source[0]) <= 100 or not source[0].isprintable():
            raise _fail(name, source[0], "sources with names of 1 to 100 printable characters")
        characters += len(source[1])
    if characters > SCRIPT_SOURCE_CHARACTERS_MAX:
        raise InvalidArgument(
            f"The scripts have {characters:,} characters and the limit is {SCRIPT_SOURCE_CHARACTERS_MAX:,}. Nothing was "
            "changed. Load fewer of them."
        )


def check_library(name: str, library: Any, limits: Limits) -> None:
    if library not in SCRIPT_LIBRARIES:
        raise _fail(name, library, f"one of {', '.join(SCRIPT_LIBRARIES)}")


def check_function(name: str, function: Any, limits: Limits) -> None:
    if type(function) is not str or len(function) > 200:
        raise _fail(name, function, "the name of a Lua function")


def check_script_arguments(name: str, encoded: Any, limits: Limits) -> None:
    if type(encoded) is not bytes or encoded[:1] not in (b"A", b"M"):
        raise _fail(name, encoded, "a list or table as store/scripting/values.py encodes it")
    if len(encoded) > SCRIPT_ARGUMENTS_BYTES_MAX:
        raise value_too_large(len(encoded), SCRIPT_ARGUMENTS_BYTES_MAX)


def check_tag(name: str, tag: Any, limits: Limits) -> None:
    check_integer(name, tag, 0, 255)


def check_script_time(name: str, time_ms: Any, limits: Limits) -> None:
    check_integer(name, time_ms, 0, SCRIPT_TIME_MS_MAX)

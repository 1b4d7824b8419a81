"""THE table of operations: every operation of the store once, with its arguments and what it does to deadlines.

An operation in flight is a plain tuple ``(name, *arguments)``: cheap to make, the same inside one process, on the wire
(``[id, name, arguments...]``) and in a node's log. This module says which names exist, what their arguments are and which
values are legal. What an operation *does* is in ``store/apply.py`` (writes) and ``store/queries.py`` (reads), keyed by the
same names; a test holds the tables against each other.

Vocabulary of the arguments:

``database``
    number of the sub-store, 0 to N-1. The models of an alias that uses database n live in a sub-store of their own, number
    :data:`MODELS_BASE` + n, which no cache and no client of an ancestor's API can name.
``key``
    1 to 1,024 bytes. A ``prefix`` and a ``start_key`` may also be empty.
``value``
    ``(tag, flags, payload)``: the type tag and the flags of ``store/record.py`` and the encoded bytes.
``expire``
    what becomes of the record's deadline: ``None`` never expires, ``"keep"`` leaves it as it is, an ``int`` >= 0 is a
    timeout in milliseconds from the write's log time (0: expired at once), ``("at", n)`` an absolute deadline in
    milliseconds since the epoch.
``condition``
    ``("absent", key)``, ``("present", key)``, ``("revision", key, n)`` or ``("value", key, tag, payload)`` where the tag
    may be ``None``: only the bytes count.

Two columns say what an operation does to deadlines. ``record_deadline`` is about the deadline in the record: ``keep`` leaves
it, ``set`` replaces it by the ``expire`` argument, ``none`` means that the operation has nothing to do with one. A
``keep`` operation that creates a record uses its ``expire`` argument for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from django_keyspace.exceptions import InvalidArgument, InvalidKey, KeyTooLong, UnknownOperation, ValueTooLarge

Expire = int | str | tuple[str, int] | None
"""See ``expire`` in the module's docstring."""

Value = tuple[int, int, bytes]
"""``(tag, flags, payload)``."""

Call = tuple[Any, ...]
"""An operation in flight: ``(name, *arguments)``."""

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
NESTING_MAX: Final = 2
"""A batch may hold an atomic block and the other way round, but no more than that."""

RecordDeadline = Literal["keep", "set", "none"]


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


def _check_prefix(name: str, prefix: Any, limits: Limits) -> None:
    if type(prefix) is not bytes:
        raise InvalidKey(f"Argument {name!r} must be bytes, not {type(prefix).__name__}. Nothing was changed.")
    if len(prefix) > KEY_BYTES_MAX:
        raise key_too_long(len(prefix))


def _check_keys(name: str, keys: Any, limits: Limits) -> None:
    _check_sequence(name, keys)
    for key in keys:
        check_key(name, key)


def _check_sequence(name: str, items: Any) -> None:
    if not isinstance(items, list | tuple):
        raise _fail(name, items, "a list")
    if len(items) > BATCH_OPERATIONS_MAX:
        raise InvalidArgument(
            f"Argument {name!r} has {len(items):,} items and the limit is {BATCH_OPERATIONS_MAX:,}. Nothing was changed. "
            "Split the call."
        )


def _check_integer(name: str, number: Any, lowest: int, highest: int) -> None:
    if type(number) is not int or not lowest <= number <= highest:
        raise _fail(name, number, f"an integer from {lowest} to {highest}")


def _check_database(name: str, database: Any, limits: Limits) -> None:
    if (
        type(database) is not int
        or not 0 <= database % MODELS_BASE < limits.databases
        or not 0 <= database < _DATABASE_END
    ):
        raise InvalidArgument(
            f"There is no database {database!r}: this store has {limits.databases}, numbered from 0. Nothing was changed. "
            "Use another number, or raise the option databases."
        )


def _check_value(name: str, value: Any, limits: Limits) -> None:
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise _fail(name, value, "(tag, flags, payload)")
    tag, flags, payload = value
    _check_integer("tag", tag, 0, 255)
    _check_integer("flags", flags, 0, 255)
    if type(payload) is not bytes:
        raise _fail("payload", payload, "bytes")
    if len(payload) > limits.value_bytes_max:
        raise value_too_large(len(payload), limits.value_bytes_max)


def _check_optional_value(name: str, value: Any, limits: Limits) -> None:
    if value is not None:
        _check_value(name, value, limits)


def _check_pairs(name: str, pairs: Any, limits: Limits) -> None:
    _check_sequence(name, pairs)
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise _fail(name, pair, "a list of (key, value)")
        check_key(name, pair[0])
        _check_value(name, pair[1], limits)


def _check_expire(name: str, expire: Any, limits: Limits) -> None:
    if expire is None or expire == KEEP:
        return
    if isinstance(expire, list | tuple) and len(expire) == 2 and expire[0] == "at":
        _check_integer(name, expire[1], 0, DEADLINE_MS_MAX)
    else:
        _check_integer(name, expire, 0, DEADLINE_MS_MAX)


def _check_int64(name: str, number: Any, limits: Limits) -> None:
    _check_integer(name, number, INT64_MIN, INT64_MAX)


def _check_optional_int64(name: str, number: Any, limits: Limits) -> None:
    if number is not None:
        _check_integer(name, number, INT64_MIN, INT64_MAX)


def _check_float(name: str, number: Any, limits: Limits) -> None:
    if type(number) is not float or number != number or number in (float("inf"), float("-inf")):
        raise _fail(name, number, "a finite float")


def _check_optional_float(name: str, number: Any, limits: Limits) -> None:
    if number is not None:
        _check_float(name, number, limits)


def _check_bool(name: str, flag: Any, limits: Limits) -> None:
    if type(flag) is not bool:
        raise _fail(name, flag, "true or false")


def _check_skip(name: str, skip: Any, limits: Limits) -> None:
    if type(skip) is not bool and skip != AFTER:
        raise _fail(name, skip, "true, false or 'after'")


def _check_rows(name: str, rows: Any, limits: Limits) -> None:
    _check_integer(name, rows, 1, PAGE_ROWS_MAX)


def _check_count(name: str, number: Any, limits: Limits) -> None:
    _check_integer(name, number, 0, INT64_MAX)


def _check_flags(name: str, flags: Any, limits: Limits) -> None:
    _check_integer(name, flags, 0, 255)


def _check_presence(name: str, presence: Any, limits: Limits) -> None:
    if presence not in ("always", "absent", "present"):
        raise _fail(name, presence, "'always', 'absent' or 'present'")


_CONDITIONS: Final[dict[str, int]] = {"absent": 2, "present": 2, "revision": 3, "value": 4}
"""Kinds of condition, with the number of elements of each."""


def _check_condition(name: str, condition: Any, limits: Limits) -> None:
    kind = condition[0] if isinstance(condition, list | tuple) and condition else None
    if not isinstance(kind, str) or len(condition) != _CONDITIONS.get(kind, -1):
        raise _fail(name, condition, "a condition: absent, present, revision or value, and its key")
    check_key(name, condition[1])
    if condition[0] == "revision":
        _check_integer("revision", condition[2], 0, 2**64 - 1)
    elif condition[0] == "value":
        if condition[2] is not None:
            _check_integer("tag", condition[2], 0, 255)
        if type(condition[3]) is not bytes:
            raise _fail("payload", condition[3], "bytes")


def _check_conditions(name: str, conditions: Any, limits: Limits) -> None:
    """Conditions of an atomic block: each is preceded by its database."""
    _check_sequence(name, conditions)
    for item in conditions:
        if not isinstance(item, list | tuple) or len(item) != 2:
            raise _fail(name, item, "a list of (database, condition)")
        _check_database("database", item[0], limits)
        _check_condition(name, item[1], limits)


def _check_addresses(name: str, addresses: Any, limits: Limits) -> None:
    _check_sequence(name, addresses)
    for item in addresses:
        if not isinstance(item, list | tuple) or len(item) != 2:
            raise _fail(name, item, "a list of (database, key)")
        _check_database("database", item[0], limits)
        check_key(name, item[1])


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of the table.

    Attributes:
        name: the word on the wire and in the log.
        parameters: names of the arguments and the check of each, in order.
        writes: False for an operation that only reads.
        record_deadline: see the module's docstring.
        summary: one sentence: what it does and what it answers.
        grows: True for an operation that may need new space: a full store refuses it.
    """

    name: str
    parameters: tuple[tuple[str, Check | None], ...]
    writes: bool
    record_deadline: RecordDeadline
    summary: str
    grows: bool = False


_DATABASE = ("database", _check_database)
_KEY = ("key", check_key)
_KEYS = ("keys", _check_keys)
_PREFIX = ("prefix", _check_prefix)
_VALUE = ("value", _check_value)
_EXPIRE = ("expire", _check_expire)
_RANGE = (
    _PREFIX,
    ("start_key", _check_prefix),
    ("skip", _check_skip),
    ("forward", _check_bool),
)


def _read(name: str, parameters: Iterable[Any], summary: str) -> Operation:
    return Operation(name, tuple(parameters), writes=False, record_deadline="none", summary=summary)


def _write(name: str, parameters: Iterable[Any], record_deadline: RecordDeadline, summary: str) -> Operation:
    grows = name in _GROWS
    return Operation(
        name, tuple(parameters), writes=True, record_deadline=record_deadline, summary=summary, grows=grows
    )


_GROWS = frozenset({"set", "set_many", "incr", "incr_float", "append", "cas", "batch", "atomic"})

_OPERATIONS: Sequence[Operation] = (
    _read("get", [_DATABASE, _KEY], "The record's bytes, or None."),
    _read("get_many", [_DATABASE, _KEYS], "A list of records' bytes or None, in the order of the keys."),
    _read("exists", [_DATABASE, _KEY], "True if the key has a live record."),
    _read("length", [_DATABASE, _KEY], "Bytes of the record's payload, or None."),
    _read("ttl", [_DATABASE, _KEY], "Milliseconds left, -1 for a record without deadline, None for a missing key."),
    _read(
        "list",
        [_DATABASE, *_RANGE, ("rows", _check_rows), ("with_values", _check_bool)],
        "One page of an ordered listing: (rows, more). A row is a key, or (key, record). start_key is absolute, "
        "inclusive and clamped to the prefix; skip drops the first row, or for 'after' start_key alone.",
    ),
    _read(
        "count",
        [_DATABASE, *_RANGE, ("limit", _check_count)],
        "One slice of a count: (number, last key seen or None at the end). A limit of 0 is no limit.",
    ),
    _read("status", [], "Figures of the store, as a dict of words and numbers."),
    _write(
        "set",
        [_DATABASE, _KEY, _VALUE, _EXPIRE, ("presence", _check_presence)],
        "set",
        "Store a value always, only if the key is absent, or only if it is present. True if it was stored.",
    ),
    _write("set_many", [_DATABASE, ("pairs", _check_pairs), _EXPIRE], "set", "Store values. The number of them."),
    _write("touch", [_DATABASE, _KEY, _EXPIRE], "set", "Give a record another deadline. True if the key was there."),
    _write("delete", [_DATABASE, _KEY], "none", "Delete. True if the key was there."),
    _write("delete_many", [_DATABASE, _KEYS], "none", "Delete. The number of keys that were there."),
    _write(
        "incr",
        [
            _DATABASE,
            _KEY,
            ("delta", _check_int64),
            ("default", _check_optional_int64),
            _EXPIRE,
            ("flags", _check_flags),
        ],
        "keep",
        "Add to an integer and answer the new one. A missing key counts from the default; without one: MissingKey.",
    ),
    _write(
        "incr_float",
        [
            _DATABASE,
            _KEY,
            ("delta", _check_float),
            ("default", _check_optional_float),
            _EXPIRE,
            ("flags", _check_flags),
        ],
        "keep",
        "Add to a float or an integer and answer the new float. A missing key counts from the default.",
    ),
    _write(
        "append",
        [_DATABASE, _KEY, _VALUE, _EXPIRE],
        "keep",
        "Append to text or bytes of the same tag, or create the record. The new length in bytes.",
    ),
    _write(
        "cas",
        [_DATABASE, ("condition", _check_condition), ("value", _check_optional_value), _EXPIRE],
        "set",
        "If the condition holds, store the value under the condition's key, or delete it for None. "
        "(swapped, record): the record as it was before.",
    ),
    _write("remove", [_DATABASE, _KEY], "none", "Delete and answer the record's bytes, or None."),
    _write(
        "rename",
        [_DATABASE, _KEY, ("new_key", check_key)],
        "keep",
        "Move a record with its deadline to another key, over whatever is there. False if there is nothing to move.",
    ),
    _write("prune", [_DATABASE, _PREFIX], "none", "Delete every key with the prefix. The number of live ones."),
    _write(
        "clear",
        [_DATABASE, ("everything", _check_bool)],
        "none",
        "Delete the database's evictable records, or everything. The number of records deleted.",
    ),
    _write(
        "cull",
        [_DATABASE, _KEYS, ("records_max", _check_count), ("frequency", _check_count)],
        "none",
        "Before the keys are added: if the database would hold more than records_max records, delete one of each "
        "frequency evictable records (all for 0): expired ones first, then those written longest ago. Their number.",
    ),
    _write(
        "batch",
        [("calls", None)],
        "none",
        "Do operations in order, each on its own: a list of (status word, result or message). Not atomic for readers "
        "of other engines.",
    ),
    _write(
        "atomic",
        [("conditions", _check_conditions), ("calls", None)],
        "none",
        "All or nothing: if every (database, condition) holds, do the operations. (True, results), or "
        "(False, index of the first condition that failed).",
    ),
    _write(
        "sweep",
        [("records", _check_count)],
        "none",
        "Delete up to so many expired records. (deleted, True if more are due).",
    ),
    _write(
        "evict", [("addresses", _check_addresses)], "none", "Delete evictable records by (database, key). Their number."
    ),
)

OPERATIONS: Final[dict[str, Operation]] = {operation.name: operation for operation in _OPERATIONS}
"""The table."""

WRITES: Final = frozenset(name for name, operation in OPERATIONS.items() if operation.writes)
"""Names of the operations that write."""

_INTERNAL: Final = frozenset({"sweep", "evict"})
"""Operations that only the orderer of writes proposes; a client's request for one is refused."""


def check_call(call: Any, limits: Limits, *, nesting: int = 0, internal: bool = False) -> None:
    """Check an operation that comes from outside, before anything is done with it.

    Arguments:
        call: ``(name, *arguments)``.
        limits: sizes to check against.
        nesting: how many batches or atomic blocks this call is inside of.
        internal: whether operations of the orderer itself (sweep, evict) are legal here.
    Raises:
        UnknownOperation: there is no such operation.
        InvalidArgument: an argument is missing, superfluous or not legal. (Or one of its subclasses.)
    """
    if not isinstance(call, list | tuple) or not call or not isinstance(call[0], str):
        raise UnknownOperation(f"An operation is a list that begins with its name, not {call!r:.80}.")
    operation = OPERATIONS.get(call[0])
    if operation is None or (operation.name in _INTERNAL and not internal):
        raise UnknownOperation(f"There is no operation {call[0]!r:.80}. Is the other side a newer release?")
    if len(call) - 1 != len(operation.parameters):
        wanted = ", ".join(name for name, _ in operation.parameters) or "no arguments"
        raise InvalidArgument(f"Operation {operation.name} takes {wanted}; {len(call) - 1} arguments came.")
    for (name, check), argument in zip(operation.parameters, call[1:], strict=True):
        if check is not None:
            check(name, argument, limits)
        else:
            _check_calls(argument, limits, nesting)


def _check_calls(calls: Any, limits: Limits, nesting: int) -> None:
    _check_sequence("calls", calls)
    if nesting >= NESTING_MAX:
        raise InvalidArgument(f"Batches and atomic blocks may be nested {NESTING_MAX} deep, not deeper.")
    for call in calls:
        check_call(call, limits, nesting=nesting + 1)

"""Ordinary calls, told apart quickly: those of which ``operations.check_call`` would find nothing to say.

A node checks every call that comes to it. Nearly all of them are a few operations with a few types of arguments; for
these, one expression does what takes a function call per argument otherwise, and lists are looked at as a whole. The
answer is only ever "surely legal" or "look closer": what is legal, and every error, is ``check_call``'s alone. A test holds
the two against each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from django_keyspace.arguments import (
    BATCH_OPERATIONS_MAX,
    DEADLINE_MS_MAX,
    INT64_MAX,
    INT64_MIN,
    KEY_BYTES_MAX,
    LEVELS,
    SESSION_ID_BYTES,
    Limits,
)

_BYTES: Final = {bytes}
_INT: Final = {int}
_TUPLE: Final = {tuple}


def is_ordinary(call: Any, limits: Limits) -> bool:
    """Whether a call is surely legal.

    Arguments:
        call: ``(name, *arguments)`` as it came over the wire: a tuple, with tuples in it.
        limits: sizes to check against.
    Returns:
        False if it needs ``check_call``; it may be legal all the same.
    """
    name = call[0]
    if type(name) is not str:
        return False
    found = _ORDINARY.get(name)
    return found is not None and found(call, limits)


def _is_of_key(call: Any, limits: Limits) -> bool:
    """A call with a database and a key."""
    return (
        len(call) == 3
        and type(call[1]) is int
        and 0 <= call[1] < limits.databases
        and type(call[2]) is bytes
        and 0 < len(call[2]) <= KEY_BYTES_MAX
    )


def _is_of_keys(call: Any, limits: Limits) -> bool:
    """A call with a database and keys."""
    return len(call) == 3 and type(call[1]) is int and 0 <= call[1] < limits.databases and _are_keys(call[2])


def _are_keys(keys: Any) -> bool:
    if type(keys) is not tuple or not 0 < len(keys) <= BATCH_OPERATIONS_MAX or set(map(type, keys)) != _BYTES:
        return False
    lengths = set(map(len, keys))
    return min(lengths) > 0 and max(lengths) <= KEY_BYTES_MAX


def _is_set(call: Any, limits: Limits) -> bool:
    if len(call) != 6:
        return False
    _, database, key, value, expire, presence = call
    if type(value) is not tuple or len(value) != 3:
        return False
    tag, flags, payload = value
    return (
        type(database) is int
        and 0 <= database < limits.databases
        and type(key) is bytes
        and 0 < len(key) <= KEY_BYTES_MAX
        and type(tag) is type(flags) is int
        and 0 <= tag <= 255 >= flags >= 0
        and type(payload) is bytes
        and len(payload) <= limits.value_bytes_max
        and (expire is None or (type(expire) is int and 0 <= expire <= DEADLINE_MS_MAX))
        and type(presence) is str
        and presence in ("always", "absent", "present")
    )


def _is_set_many(call: Any, limits: Limits) -> bool:
    if len(call) != 4 or not (type(call[1]) is int and 0 <= call[1] < limits.databases):
        return False
    _, _, pairs, expire = call
    if expire is not None and not (type(expire) is int and 0 <= expire <= DEADLINE_MS_MAX):
        return False
    if type(pairs) is not tuple or not 0 < len(pairs) <= BATCH_OPERATIONS_MAX:
        return False
    if set(map(type, pairs)) != _TUPLE or set(map(len, pairs)) != {2}:
        return False
    keys, values = zip(*pairs, strict=True)
    if not _are_keys(keys) or set(map(type, values)) != _TUPLE or set(map(len, values)) != {3}:
        return False
    tags, flags, payloads = zip(*values, strict=True)
    return _are_octets(tags) and _are_octets(flags) and _are_payloads(payloads, limits)


def _are_octets(numbers: tuple[Any, ...]) -> bool:
    if set(map(type, numbers)) != _INT:
        return False
    different = set(numbers)
    return int(min(different)) >= 0 and int(max(different)) <= 255


def _are_payloads(payloads: tuple[Any, ...], limits: Limits) -> bool:
    return set(map(type, payloads)) == _BYTES and bool(max(map(len, payloads)) <= limits.value_bytes_max)


def _is_incr(call: Any, limits: Limits) -> bool:
    if len(call) != 7 or not _is_of_key(call[:3], limits):
        return False
    _, _, _, delta, default, expire, flags = call
    return (
        type(delta) is int
        and INT64_MIN <= delta <= INT64_MAX
        and (default is None or (type(default) is int and INT64_MIN <= default <= INT64_MAX))
        and (expire is None or (type(expire) is int and 0 <= expire <= DEADLINE_MS_MAX))
        and type(flags) is int
        and 0 <= flags <= 255
    )


def _is_once(call: Any, limits: Limits) -> bool:
    if len(call) != 7:
        return False
    _, session, sequence, lowest, again, inner, answer = call
    if type(inner) is not tuple or not inner or type(inner[0]) is not str:
        return False
    check = _ORDINARY_WRITES.get(inner[0])
    return (
        check is not None
        and type(session) is bytes
        and len(session) == SESSION_ID_BYTES
        and type(sequence) is type(lowest) is int
        and 1 <= sequence <= INT64_MAX
        and 1 <= lowest <= INT64_MAX
        and type(again) is bool
        and answer is None
        and check(inner, limits)
    )


def _is_at(call: Any, limits: Limits) -> bool:
    if len(call) != 5:
        return False
    _, level, min_index, max_staleness_ms, inner = call
    if type(inner) is not tuple or not inner or type(inner[0]) is not str:
        return False
    check = _ORDINARY_READS.get(inner[0])
    return (
        check is not None
        and type(level) is str
        and level in LEVELS
        and type(min_index) is int
        and 0 <= min_index <= INT64_MAX
        and (max_staleness_ms is None or (type(max_staleness_ms) is int and 0 <= max_staleness_ms <= INT64_MAX))
        and check(inner, limits)
    )


_Check = Callable[[Any, Limits], bool]

_ORDINARY_WRITES: Final[dict[str, _Check]] = {
    "set": _is_set,
    "set_many": _is_set_many,
    "delete": _is_of_key,
    "delete_many": _is_of_keys,
    "remove": _is_of_key,
    "incr": _is_incr,
}

_ORDINARY_READS: Final[dict[str, _Check]] = {
    "get": _is_of_key,
    "get_many": _is_of_keys,
    "exists": _is_of_key,
    "length": _is_of_key,
    "ttl": _is_of_key,
}

_ORDINARY: Final[dict[str, _Check]] = {**_ORDINARY_READS, **_ORDINARY_WRITES, "once": _is_once, "at": _is_at}

"""What can be said of a call without a state: which keys it may touch, and what its arguments and its answer tell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from tests.sim import model

_MANY: Final = {"get_many": 2, "delete_many": 2}
_WHOLE: Final = frozenset({"clear", "clear_expiries"})
_PREFIXES: Final = frozenset({"prune", "list", "count"})


def footprint(call: Sequence[Any]) -> tuple[set[model.Address], set[model.Address]]:
    """What a call may look at or change: ``(keys, prefixes)``."""
    name = call[0]
    if name not in model.OPERATIONS:
        raise model.NotModelled(f"no model of the operation {name}")
    if name == "once":
        return footprint(call[5])
    if name in ("batch", "atomic"):
        parts = [footprint(part) for part in call[-1]]
        # Of a condition on a range's digest nothing is modelled, so nothing is looked at.
        conditions = (
            [(database, kind[1]) for database, kind in call[1] if kind[0] != "range"] if name == "atomic" else []
        )
        return set().union(conditions, *(keys for keys, _ in parts)), set().union(*(prefixes for _, prefixes in parts))
    if name == "evict":
        return set(call[1]), set()
    database = call[1]
    if name in _WHOLE:
        return set(), {(database, b"")}
    if name in _PREFIXES:
        return set(), {(database, call[2])}
    if name in _MANY:
        return {(database, key) for key in call[2]}, set()
    if name == "set_many":
        return {(database, key) for key, _ in call[2]}, set()
    if name == "cas":
        return {(database, call[2][1])}, set()
    if name == "rename":
        return {(database, call[2]), (database, call[3])}, set()
    return {(database, call[2])}, set()


def blind_keys(call: Sequence[Any], *, is_unknown: bool = False) -> frozenset[model.Address]:
    """The keys that a call writes whatever was there, while its answer says nothing of that either. Mostly none.

    Arguments:
        call: the operation.
        is_unknown: it has no answer, so that it says nothing at all.
    """
    name = call[0]
    if name == "once":
        return blind_keys(call[5], is_unknown=is_unknown)
    if name == "set" and call[5] == "always" and call[4] != "keep":
        return frozenset({(call[1], call[2])})
    if name == "set_many" and call[3] != "keep":
        return frozenset((call[1], key) for key, _ in call[2])
    return frozenset(footprint(call)[0]) if is_unknown and name in ("delete", "remove", "delete_many") else frozenset()


_DERIVED: Final = {
    "append": (model.BYTES, model.TEXT, model.RAW),
    "incr": (model.INTEGER,),
    "incr_float": (model.FLOAT,),
}
_VALUE_AT: Final = {"set": 3, "append": 3, "cas": 3}


def written(call: Sequence[Any]) -> Iterable[tuple[model.Value | None, Sequence[int]]]:
    """The values that a call may write, each with the tags of other values that it may make from what is there."""
    name = call[0]
    if name == "once":
        yield from written(call[5])
    elif name in ("batch", "atomic"):
        for part in call[-1]:
            yield from written(part)
    elif name == "set_many":
        for _, (tag, flags, payload) in call[2]:
            yield (tag, flags & ~model.OVERLAID, payload), ()
    elif name in _VALUE_AT and call[_VALUE_AT[name]] is not None:
        tag, flags, payload = call[_VALUE_AT[name]]
        yield (tag, flags & ~model.OVERLAID, payload), _DERIVED.get(name, ())
    elif name in _DERIVED:
        yield None, _DERIVED[name]


def values_of(call: Sequence[Any], answer: Any) -> Iterable[model.Value]:
    """The values that the answer of a read shows; the answer is as :func:`model.seen` has it."""
    if call[0] == "get":
        found = (answer,)
    elif call[0] == "get_many":
        found = answer
    else:
        found = tuple(value for _, value in answer[0]) if call[0] == "list" and call[7] else ()
    return [value for value in found if value is not None]


def told(call: Sequence[Any], answer: Any, address: model.Address) -> tuple[bool, model.Value | None]:
    """What the answer of a read of several keys says of one of them.

    Arguments:
        call: the operation.
        answer: as :func:`model.seen` has it.
        address: the key.
    Returns:
        Whether it says which value was there, and that.
    """
    if call[0] == "get_many":
        return True, answer[call[2].index(address[1])]
    if call[0] == "list" and call[7] and not call[3] and not call[4] and not answer[1]:
        return True, dict(answer[0]).get(address[1])
    return False, None

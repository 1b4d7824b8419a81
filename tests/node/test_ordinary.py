"""The quick look at a call that comes over the wire: it lets nothing through that ``check_call`` would refuse."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_keyspace.arguments import DEADLINE_MS_MAX, INT64_MAX, INT64_MIN, KEY_BYTES_MAX, Limits
from django_keyspace.operations import OPERATIONS, check_call
from django_keyspace.ordinary import _ORDINARY, is_ordinary

LIMITS = Limits(databases=3, value_bytes_max=50)
VALUE = (2, 4, b"payload")
SESSION = b"s" * 24


def once(*call: Any) -> tuple[Any, ...]:
    return ("once", SESSION, 7, 5, False, call, None)


def inner_of(call: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """The call that a call carries, if it does."""
    return [call[{"once": 5, "at": 4}[call[0]]]] if call[0] in ("once", "at") else []


ORDINARY: list[tuple[Any, ...]] = [
    ("get", 0, b"key"),
    ("get", 2, b"k" * KEY_BYTES_MAX),
    ("get_many", 0, (b"a", b"b", b"a")),
    ("exists", 0, b"key"),
    ("length", 0, b"key"),
    ("ttl", 0, b"key"),
    ("set", 0, b"key", VALUE, None, "always"),
    ("set", 0, b"key", (255, 255, b"p" * 50), DEADLINE_MS_MAX, "absent"),
    ("set_many", 1, ((b"a", VALUE), (b"b", (0, 0, b""))), 1_000),
    ("delete", 0, b"key"),
    ("delete_many", 0, (b"a", b"b")),
    ("remove", 0, b"key"),
    ("incr", 0, b"key", INT64_MIN, INT64_MAX, None, 255),
    ("incr", 0, b"key", 1, None, 0, 0),
    once("set", 0, b"key", VALUE, 300_000, "present"),
    once("set_many", 0, ((b"a", VALUE),), None),
    once("incr", 0, b"key", 1, 0, None, 4),
    ("at", "safe", 0, None, ("get", 0, b"key")),
    ("at", "session", INT64_MAX, 0, ("get_many", 2, (b"a", b"b"))),
]

ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 3, 255, 256, 1_024, 2**53 + 1, 2**63, -(2**63) - 1, 0.5),
    *("", "always", "never", "keep", "get", "set", "once", "clear", "sweep", "nonsense", "é"),
    *(b"", b"key", b"k" * (KEY_BYTES_MAX + 1), b"p" * 51, SESSION),
    *((), (b"",), (b"a", "b"), (b"a", b"k" * 1_025), ("at", 5), {}, {"a": 1}, {b"a": b"b"}),
    *(VALUE, (2, 4), (2, True, b""), (256, 0, b""), (-1, 0, b""), (0, 0, "text"), (0, 0, b"p" * 51), (0, 0.0, b"")),
    *(
        ((b"a", VALUE),),
        ((b"a",),),
        ((b"a", VALUE, 1),),
        ((b"a", (1, 2)),),
        ((b"a", (True, 1, b"")), (b"b", (1, 1, b""))),
    ),
    *(((b"a", (1, 1, b"")), (b"b", (True, 1, b""))), ((b"", VALUE),), (VALUE,), ({},), (((), ()),)),
    *(("get", 0, b"key"), ("set", 0, b"key", VALUE, None, "always"), ("clear", 0, True), ("once",)),
]


@pytest.mark.parametrize("call", ORDINARY, ids=lambda call: " ".join((call[0], *[part[0] for part in inner_of(call)])))
def test_ordinary_calls_are_told(call: tuple[Any, ...]) -> None:
    assert is_ordinary(call, LIMITS)
    check_call(call, LIMITS)


@pytest.mark.parametrize("call", ORDINARY, ids=lambda call: " ".join((call[0], *[part[0] for part in inner_of(call)])))
def test_no_odd_part_gets_through(call: tuple[Any, ...]) -> None:
    """Each part of each call, also those of the call in a once, is replaced by each odd one."""
    inside = 0
    for position in range(len(call)):
        for odd in ODD:
            inside += is_as_check_call_says((*call[:position], odd, *call[position + 1 :]))
    for inner in inner_of(call):
        at = call.index(inner)
        for position in range(len(inner)):
            for odd in ODD:
                changed = (*inner[:position], odd, *inner[position + 1 :])
                inside += is_as_check_call_says((*call[:at], changed, *call[at + 1 :]))
    for length in range(1, len(call)):
        is_as_check_call_says(call[:length])
    is_as_check_call_says((*call, None))
    assert inside, "not one odd part was legal, so that nothing was compared"


@given(st.sampled_from(ORDINARY), st.data())
def test_nothing_random_gets_through(call: tuple[Any, ...], data: st.DataObject) -> None:
    parts = st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(-300, 300), st.text(max_size=3), st.binary(max_size=3)),
        lambda inner: st.lists(inner, max_size=3).map(tuple),
        max_leaves=6,
    )
    position = data.draw(st.integers(0, len(call) - 1))
    is_as_check_call_says((*call[:position], data.draw(parts), *call[position + 1 :]))


def is_as_check_call_says(call: tuple[Any, ...]) -> bool:
    """Whether the call is ordinary; then ``check_call`` must take it."""
    found = is_ordinary(call, LIMITS)
    if found:
        check_call(call, LIMITS)
    return found


def test_only_operations_of_the_table_are_ordinary() -> None:
    assert set(_ORDINARY) <= set(OPERATIONS)

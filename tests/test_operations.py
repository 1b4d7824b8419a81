"""The table of operations: what it accepts from outside, what it refuses, and the tables that hang on it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_keyspace import exceptions
from django_keyspace.exceptions import (
    ERRORS_BY_CODE,
    InvalidArgument,
    InvalidKey,
    KeyspaceError,
    KeyTooLong,
    UnknownOperation,
    ValueTooLarge,
    error_from_code,
)
from django_keyspace.operations import (
    AFTER,
    BATCH_OPERATIONS_MAX,
    CONTROLS,
    DEADLINE_MS_MAX,
    OPERATIONS,
    PAGE_ROWS_MAX,
    WRITES,
    Limits,
    check_call,
)

LIMITS = Limits(databases=4, value_bytes_max=100)
KEY = b"k"
VALUE = (1, 4, b"payload")

GOOD: dict[str, list[Any]] = {
    "database": [0, 3],
    "key": [b"k", b"k" * 1024, b"\0"],
    "new_key": [b"k"],
    "keys": [[], [b"a", b"b"], (b"a",)],
    "prefix": [b"", b"p" * 1024],
    "start_key": [b"", b"s"],
    "skip": [True, False, AFTER],
    "forward": [True, False],
    "rows": [1, PAGE_ROWS_MAX],
    "pattern": [b"", b"p" * 1024],
    "origin": [b"", b"o" * 1024],
    "distance": [0, 1024],
    "with_values": [True, False],
    "limit": [0, 5, 2**63 - 1],
    "value": [VALUE, [1, 4, b""], (255, 255, b"x" * 100)],
    "expire": [None, "keep", 0, DEADLINE_MS_MAX, ("at", 0), ["at", DEADLINE_MS_MAX]],
    "expiry": [0, DEADLINE_MS_MAX, ("at", 0), ["at", DEADLINE_MS_MAX]],
    "presence": ["always", "absent", "present"],
    "pairs": [[], [(KEY, VALUE)], [[KEY, list(VALUE)]]],
    "delta": [1],
    "default": [None],
    "flags": [0, 255],
    "condition": [
        ("absent", KEY), ["present", KEY], ("revision", KEY, 2**64 - 1), ("value", KEY, None, b""), ("value", KEY, 3, b"1"),
    ],
    "everything": [True, False],
    "records_max": [0, 10],
    "frequency": [0, 10],
    "records": [0, 10],
    "calls": [[], [("get", 0, KEY)], [["get", 0, KEY]]],
    "conditions": [[], [(0, ("absent", KEY))], [[3, ["present", KEY]]], [(0, ("range", b"", b"z", b"d" * 16))]],
    "addresses": [[], [(0, KEY)]],
    "sources": [[], [("a.lua", "x = 1")], [["a.lua", ""]]],
    "library": ["kyoto", "tokyo"],
    "function": ["", "f"],
    "arguments": [b"M\0\0\0\0", b"A\0\0\0\0"],
    "tag": [0, 255],
    "time_ms": [0, 60_000],
    "session": [b"s" * 24],
    "sessions": [[], [b"s" * 24]],
    "sequence": [1, 2**63 - 1],
    "lowest": [1, 2**63 - 1],
    "again": [True, False],
    "call": [("delete", 0, KEY), ["delete", 0, KEY], ("batch", [("delete", 0, KEY)])],
    "answer": [None, b""],
    "level": ["safe", "lease", "session", "dirty"],
    "min_index": [0, 2**63 - 1],
    "max_staleness_ms": [None, 0, 2**63 - 1],
}  # fmt: skip

READ_CALLS: list[Any] = [
    ("get", 0, KEY),
    ["count", 0, b"", b"", False, True, 0],
    ("batch", [("get", 0, KEY), ["ttl", 0, KEY]]),
]
"""What a read with a level may do."""

BAD: dict[str, list[Any]] = {
    "database": [-1, 4, "0", None, True, 1.0],
    "key": [b"", b"k" * 1025, "text", None, 5, bytearray(b"k")],
    "new_key": [b"", "text"],
    "keys": [None, b"k", [b""], ["text"], {b"k"}],
    "prefix": ["text", None, b"p" * 1025],
    "start_key": ["text", b"s" * 1025],
    "skip": [1, None, "before"],
    "forward": [1, None],
    "rows": [0, PAGE_ROWS_MAX + 1, True, None],
    "pattern": ["text", None, b"p" * 1025],
    "origin": ["text", None, b"o" * 1025],
    "distance": [-1, 1025, 1.5, True, None],
    "with_values": [0],
    "limit": [-1, 2**63, None],
    "value": [None, b"x", (1, 4), (1, 4, "text"), (-1, 4, b""), (256, 0, b""), (1, 256, b""), (1, 4, b"x" * 101)],
    "expire": [-1, 1.5, True, "kept", "", ("at",), ("at", -1), ("in", 5), ("at", 1.5), DEADLINE_MS_MAX + 1, b"keep"],
    "expiry": [None, "keep", -1, 1.5, True, ("at",), ("at", -1), ("set", 5), DEADLINE_MS_MAX + 1],
    "presence": ["", None, "nx", True, []],
    "pairs": [None, [KEY], [(KEY,)], [(b"", VALUE)], [(KEY, None)], {KEY: VALUE}],
    "delta": [None, "1", True],
    "default": ["1", True],
    "flags": [-1, 256, None],
    "condition": [
        None, (), ("absent",), ("absent", b""), ("unknown", KEY), ("revision", KEY), ("revision", KEY, -1),
        ("value", KEY, None, "text"), ("value", KEY, 256, b""), "absent", ([], KEY),
    ],
    "everything": [1, None],
    "records_max": [-1, None],
    "frequency": [-1, None],
    "records": [-1, None],
    "calls": [None, ["get"], [("get",)], [("nope", 0)], [5]],
    "conditions": [None, [()], [(4, ("absent", KEY))], [(0, ("absent", b""))], [("absent", KEY)],
                   [(0, ("range", KEY, KEY))], [(0, ("range", "a", KEY, b"d" * 16))], [(0, ("range", KEY, KEY, b"short"))]],
    "addresses": [None, [KEY], [(0, b"")], [(9, KEY)], [(0,)]],
    "sources": [
        None, "x", ["x"], [("a",)], [("", "x")], [("a\n", "x")], [("a" * 101, "x")], [("a", b"x")], [("a", "x" * 1_000_001)],
    ],
    "library": ["", "redis", None, b"kyoto"],
    "function": [None, b"f", "f" * 201],
    "arguments": [None, {}, b"", b"X", b"A" * (8 * 1024 * 1024 + 1)],
    "tag": [-1, 256, None],
    "time_ms": [-1, 60_001, 1.5, None],
    "session": [None, b"", b"s" * 23, "s" * 24],
    "sessions": [None, [b"s"], b"s" * 24],
    "sequence": [0, -1, 2**63, True, None],
    "lowest": [0, 1.5, None],
    "again": [0, None],
    "call": [
        None, (), ("nope",), ("get", 0, KEY), ("sweep", 5), ("delete", 0, b""), ("batch", [("sweep", 5)]),
        ("once", b"s" * 24, 1, 1, False, ("delete", 0, KEY), None),
    ],
    "answer": [0, "text"],
    "level": ["", "SAFE", None, b"safe", 1],
    "min_index": [-1, 2**63, None, True],
    "max_staleness_ms": [-1, 1.5, True, "1"],
}  # fmt: skip

NO_READ_CALLS: list[Any] = [
    None, (), ("nope",), ("delete", 0, KEY), ("get", 0, b""), ("members",), ("at", "safe", 0, None, ("get", 0, KEY)),
    ("batch", [("delete", 0, KEY)]), ("batch", [("batch", [("get", 0, KEY)])]),
    ("batch", [("at", "safe", 0, None, ("get", 0, KEY))]),
]  # fmt: skip


USUAL = {("incr_float", "delta"): 1.5, ("at", "call"): READ_CALLS[0]}
"""What stands for an argument, where that depends on the operation."""


def arguments(name: str, **changes: Any) -> list[Any]:
    values = []
    for parameter, _ in OPERATIONS[name].parameters:
        usual = USUAL.get((name, parameter), GOOD[parameter][0])
        values.append(changes.get(parameter, usual))
    return values


CASES = [(name, parameter) for name, row in OPERATIONS.items() for parameter, _ in row.parameters]


@pytest.mark.parametrize(("name", "parameter"), CASES)
def test_arguments_are_checked(name: str, parameter: str) -> None:
    goods, bads = GOOD[parameter], BAD[parameter]
    if name == "incr_float" and parameter in ("delta", "default"):
        goods, bads = [2.5, -0.0], [1, float("nan"), float("inf"), "1", True]
    elif (name, parameter) == ("at", "call"):
        goods, bads = READ_CALLS, NO_READ_CALLS
    for good in goods:
        check_call((name, *arguments(name, **{parameter: good})), LIMITS, internal=True)
    for bad in bads:
        if (name, parameter, bad) == ("cas", "value", None):
            continue  # no value: delete
        with pytest.raises((InvalidArgument, UnknownOperation)):
            check_call((name, *arguments(name, **{parameter: bad})), LIMITS, internal=True)


KEEPING = [name for name, row in OPERATIONS.items() if row.record_deadline == "keep" and name != "rename"]


@pytest.mark.parametrize("name", ["set", "touch", "cas", *KEEPING])
def test_only_what_keeps_a_deadline_can_be_told_to_set_it(name: str) -> None:
    good = [("set", None), ["set", 5], ("set", ("at", 5))]
    bad = [("set",), ("set", "keep"), ("set", -1), ("set", ("set", 5)), ("set", ("at", -1))]
    if name in KEEPING:
        for expire in good:
            check_call((name, *arguments(name, expire=expire)), LIMITS)
    for expire in bad if name in KEEPING else [*bad, *good]:
        with pytest.raises(InvalidArgument):
            check_call((name, *arguments(name, expire=expire)), LIMITS)


def test_a_script_is_no_part_of_a_batch() -> None:
    call = ("script", *arguments("script"))
    check_call(call, LIMITS)
    for block in (("batch", [call]), ("atomic", [], [call])):
        with pytest.raises(InvalidArgument, match="batch"):
            check_call(block, LIMITS)


def test_what_is_done_once_is_no_part_of_a_batch_and_brings_no_answer_of_its_own() -> None:
    call = ("once", *arguments("once"))
    check_call(call, LIMITS)
    for block in (("batch", [call]), ("atomic", [], [call])):
        with pytest.raises(InvalidArgument, match="batch"):
            check_call(block, LIMITS)
    with pytest.raises(InvalidArgument, match="for the node itself"):
        check_call(("once", *arguments("once", answer=b"made up")), LIMITS)


@pytest.mark.parametrize("name", ["at", "members"])
def test_what_is_about_the_cluster_is_no_part_of_a_batch(name: str) -> None:
    call = (name, *arguments(name))
    check_call(call, LIMITS)
    for block in (("batch", [call]), ("atomic", [], [call])):
        with pytest.raises(InvalidArgument, match="batch"):
            check_call(block, LIMITS)


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_number_of_arguments_is_checked(name: str) -> None:
    good = arguments(name)
    check_call([name, *good], LIMITS, internal=True)
    for bad in ([*good, None], good[:-1]):
        if len(bad) != len(good):
            with pytest.raises(InvalidArgument, match=f"{name} takes"):
                check_call((name, *bad), LIMITS, internal=True)


@pytest.mark.parametrize("call", [(), [], None, "get", ("nope",), (None,), (b"get", 0, b"k"), {"get": 1}, 5])
def test_what_is_no_operation_is_refused(call: Any) -> None:
    with pytest.raises(UnknownOperation):
        check_call(call, LIMITS)


CONTROL_CALLS = {
    "node_status": [()],
    "node_store": [()],
    "node_digest": [()],
    "change_member": [("promote", "n4"), ("remove", "n4.0a1b2c3d")],
    "transfer_leadership": [("n2",), (None,)],
}


@pytest.mark.parametrize("name", CONTROLS)
def test_what_operators_ask_is_no_operation_of_a_store(name: str) -> None:
    assert name not in OPERATIONS
    for arguments_ in CONTROL_CALLS[name]:
        call = (name, *arguments_)
        check_call(call, LIMITS)
        for block in (("batch", [call]), ("atomic", [], [call]), ("at", "dirty", 0, None, call)):
            with pytest.raises((UnknownOperation, InvalidArgument)):
                check_call(block, LIMITS)


@pytest.mark.parametrize(
    "call",
    [
        ("change_member", "add", "n4"),
        ("change_member", "promote", ""),
        ("change_member", "promote", "n" * 201),
        ("change_member", b"promote", "n4"),
        ("change_member", "promote", None),
        ("transfer_leadership", 1),
        ("transfer_leadership",),
        ("node_status", None),
    ],
)
def test_what_operators_ask_is_checked(call: Any) -> None:
    with pytest.raises(InvalidArgument):
        check_call(call, LIMITS)


@pytest.mark.parametrize("name", ["sweep", "evict", "expire_sessions"])
def test_only_the_orderer_sweeps_and_evicts(name: str) -> None:
    call = (name, *arguments(name))
    for outside in (call, ("batch", [call]), ("atomic", [], [call])):
        with pytest.raises(UnknownOperation):
            check_call(outside, LIMITS)
    check_call(call, LIMITS, internal=True)


def test_errors_say_what_is_wrong() -> None:
    for key, error in ((b"k" * 1025, KeyTooLong), (b"", InvalidKey), ("k", InvalidKey)):
        with pytest.raises(error, match="Nothing was changed"):
            check_call(("get", 0, key), LIMITS)
    with pytest.raises(ValueTooLarge, match="101 bytes and the limit is 100"):
        check_call(("set", 0, KEY, (1, 0, b"x" * 101), None, "always"), LIMITS)
    with pytest.raises(InvalidArgument, match="this store has 4"):
        check_call(("get", 4, KEY), LIMITS)
    with pytest.raises(InvalidArgument, match="Split the call"):
        check_call(("delete_many", 0, [KEY] * (BATCH_OPERATIONS_MAX + 1)), LIMITS)


def test_blocks_may_be_nested_two_deep() -> None:
    inner: Any = ("get", 0, KEY)
    check_call(("batch", [("atomic", [], [inner])]), LIMITS)
    with pytest.raises(InvalidArgument, match="nested"):
        check_call(("batch", [("atomic", [], [("batch", [inner])])]), LIMITS)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, database=None)
@given(st.sampled_from(list(OPERATIONS)), st.lists(anything, max_size=7))
def test_garbage_gets_an_error_of_ours_or_passes(name: str, garbage: list[Any]) -> None:
    try:
        check_call([name, *garbage], LIMITS)
    except KeyspaceError:
        pass


def test_the_table_is_complete() -> None:
    for name, row in OPERATIONS.items():
        assert row.name == name and row.summary.endswith(".") and row.writes is (name in WRITES)
        assert row.record_deadline == "none" or row.writes
        assert row.overlay == "keep" or row.writes
        assert (row.overlay == "set") == any(parameter == "expiry" for parameter, _ in row.parameters)
        has_expire = any(parameter == "expire" for parameter, _ in row.parameters)
        assert has_expire == (row.record_deadline != "none") or name == "rename"
        assert not row.grows or row.writes


def test_every_error_has_a_code_of_its_own() -> None:
    ours = [
        found for found in vars(exceptions).values() if isinstance(found, type) and issubclass(found, KeyspaceError)
    ]
    codes = [cls.__dict__.get("code") for cls in ours]
    assert None not in codes and len(set(codes)) == len(codes)
    for cls in ours:
        error = error_from_code(cls.code, "why")
        assert type(error) is cls is ERRORS_BY_CODE[cls.code] and str(error) == "why"
    assert type(error_from_code("of a later release", "why")) is KeyspaceError


@pytest.mark.parametrize("block", [("batch", [("status",)]), ("atomic", [], [("status",)])])
def test_a_block_holds_nothing_that_one_store_says_of_itself(block: Any) -> None:
    with pytest.raises(InvalidArgument, match="stands for itself"):
        check_call(block, Limits())

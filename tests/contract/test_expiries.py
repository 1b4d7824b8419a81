"""Contract of deadlines that hang on a key's name, and of what can set a deadline that is usually kept."""

from __future__ import annotations

from typing import Any

import pytest

from django_keyspace.exceptions import InvalidArgument, InvalidKey
from django_keyspace.operations import DEADLINE_MS_MAX
from django_keyspace.store.record import Tag
from tests.contract.engines import Place
from tests.contract.records import (
    ALWAYS,
    DB,
    EVICTABLE,
    OTHER,
    Do,
    about,
    await_condition,
    integer,
    left_ms,
    payload,
    put,
    revision_of,
    val,
    wall_ms,
)

pytestmark = pytest.mark.contract
covers = pytest.mark.covers

DAY_MS = 86_400_000


def hang(do: Do, key: bytes, expiry: Any = DAY_MS) -> None:
    assert do("set_expiry", DB, key, expiry) is True


@covers("set_expiry", "ttl")
def test_the_earlier_deadline_counts(do: Do) -> None:
    put(do, b"none of its own")
    put(do, b"later", expire=10 * DAY_MS)
    put(do, b"earlier", expire=60_000)
    for key in (b"none of its own", b"later", b"earlier"):
        hang(do, key)
    assert about(left_ms(do, b"none of its own"), DAY_MS)
    assert about(left_ms(do, b"later"), DAY_MS)
    assert about(left_ms(do, b"earlier"), 60_000)


@covers("set_expiry")
def test_a_name_without_a_record(do: Do) -> None:
    hang(do, b"k")
    assert do("exists", DB, b"k") is False
    put(do, b"k")
    assert about(left_ms(do, b"k"), DAY_MS)
    put(do, b"other")
    assert left_ms(do, b"other") == -1


@covers("set_expiry")
def test_it_is_replaced_and_belongs_to_its_database(do: Do) -> None:
    hang(do, b"k")
    hang(do, b"k", ("at", wall_ms() + 60_000))
    do("set", OTHER, b"k", val(b"v"), None, ALWAYS)
    put(do, b"k")
    assert about(left_ms(do, b"k"), 60_000)
    assert do("ttl", OTHER, b"k") == -1
    hang(do, b"k", 2 * DAY_MS)
    assert about(left_ms(do, b"k"), 2 * DAY_MS)


WRITES_THAT_KEEP_IT: dict[str, tuple[Any, ...]] = {
    "set": ("set", DB, b"k", val(b"2"), None, ALWAYS),
    "set, keeping": ("set", DB, b"k", val(b"2"), "keep", ALWAYS),
    "set_many": ("set_many", DB, [(b"k", val(b"2"))], None),
    "touch": ("touch", DB, b"k", None),
    "incr": ("incr", DB, b"k", 1, None, None, EVICTABLE),
    "incr, setting": ("incr", DB, b"k", 1, None, ("set", None), EVICTABLE),
    "incr_float": ("incr_float", DB, b"k", 1.0, None, None, EVICTABLE),
    "cas": ("cas", DB, ("present", b"k"), val(b"2"), None),
    "atomic": ("atomic", [], [("set", DB, b"k", val(b"2"), None, ALWAYS)]),
    "batch": ("batch", [("set", DB, b"k", val(b"2"), None, ALWAYS)]),
}


@covers("set_expiry")
@pytest.mark.parametrize("write", WRITES_THAT_KEEP_IT)
def test_writes_keep_it(do: Do, write: str) -> None:
    do("set", DB, b"k", integer(1), None, ALWAYS)
    hang(do, b"k")
    do(*WRITES_THAT_KEEP_IT[write])
    assert about(left_ms(do, b"k"), DAY_MS)
    assert do("remove_expiry", DB, b"k") == 1
    assert left_ms(do, b"k") == -1


REMOVALS: dict[str, tuple[Any, ...]] = {
    "delete": ("delete", DB, b"k"),
    "delete_many": ("delete_many", DB, [b"k"]),
    "remove": ("remove", DB, b"k"),
    "prune": ("prune", DB, b""),
    "cas": ("cas", DB, ("present", b"k"), None, None),
    "cull": ("cull", DB, [b"new"], 0, 0),
}


@covers("set_expiry")
@pytest.mark.parametrize("removal", REMOVALS)
def test_it_outlives_its_record(do: Do, removal: str) -> None:
    put(do, b"k")
    hang(do, b"k")
    do(*REMOVALS[removal])
    assert do("exists", DB, b"k") is False
    put(do, b"k")
    assert about(left_ms(do, b"k"), DAY_MS)


@covers("set_expiry", "append")
def test_append_keeps_it(do: Do) -> None:
    put(do, b"k", b"a", expire=2 * DAY_MS)
    hang(do, b"k")
    do("append", DB, b"k", val(b"b"), 5)
    assert about(left_ms(do, b"k"), DAY_MS)
    assert do("remove_expiry", DB, b"k") == 1
    assert payload(do("get", DB, b"k")) == b"ab"
    assert about(left_ms(do, b"k"), 2 * DAY_MS), "the record's own deadline"


@covers("set_expiry", "rename")
def test_rename_leaves_it_with_the_old_name(do: Do) -> None:
    put(do, b"a", expire=2 * DAY_MS)
    put(do, b"b", expire=60_000)
    hang(do, b"a")
    assert do("rename", DB, b"a", b"b") is True
    assert about(left_ms(do, b"b"), 2 * DAY_MS), "it moved with its own deadline"
    put(do, b"a")
    assert about(left_ms(do, b"a"), DAY_MS)
    assert do("rename", DB, b"b", b"a") is True
    assert about(left_ms(do, b"a"), DAY_MS), "the new name's deadline is the earlier one"
    assert do("rename", DB, b"a", b"a") is True
    assert about(left_ms(do, b"a"), DAY_MS)


@covers("remove_expiry")
def test_remove_expiry_brings_the_records_own_deadline_back(do: Do) -> None:
    put(do, b"own", expire=2 * DAY_MS)
    put(do, b"none")
    for key in (b"own", b"none", b"nobody"):
        hang(do, key)
        assert do("remove_expiry", DB, key) == 1
        assert do("remove_expiry", DB, key) == 0
    assert about(left_ms(do, b"own"), 2 * DAY_MS)
    assert left_ms(do, b"none") == -1
    put(do, b"nobody")
    assert left_ms(do, b"nobody") == -1


@covers("remove_expiry", "touch")
def test_what_is_set_meanwhile_is_the_records_own_deadline(do: Do) -> None:
    put(do, b"k", expire=2 * DAY_MS)
    hang(do, b"k", 60_000)
    assert do("touch", DB, b"k", 3 * DAY_MS) is True
    assert about(left_ms(do, b"k"), 60_000)
    assert do("touch", DB, b"k", "keep") is True
    do("remove_expiry", DB, b"k")
    assert about(left_ms(do, b"k"), 3 * DAY_MS)


@covers("clear_expiries")
def test_clear_expiries(do: Do) -> None:
    put(do, b"a", expire=2 * DAY_MS)
    put(do, b"b")
    for key in (b"a", b"b", b"nobody"):
        hang(do, key)
    do("set", OTHER, b"a", val(b"v"), None, ALWAYS)
    do("set_expiry", OTHER, b"a", DAY_MS)
    assert do("clear_expiries", DB) == 3
    assert do("clear_expiries", DB) == 0
    assert about(left_ms(do, b"a"), 2 * DAY_MS) and left_ms(do, b"b") == -1
    assert about(do("ttl", OTHER, b"a"), DAY_MS), "those of other databases stay"
    assert do("status")["expiries"] == 1


@covers("clear", "set_expiry")
def test_clear_drops_those_of_what_it_clears(do: Do) -> None:
    put(do, b"evictable")
    put(do, b"kept", flags=0)
    for key in (b"evictable", b"kept", b"nobody"):
        hang(do, key)
    assert do("clear", DB, False) == 1
    for key in (b"evictable", b"nobody"):
        put(do, key)
        assert left_ms(do, key) == -1
    assert about(left_ms(do, b"kept"), DAY_MS), "a record that stays keeps its name's deadline"
    assert do("clear", DB, True) == 3
    put(do, b"kept")
    assert left_ms(do, b"kept") == -1
    assert do("status")["expiries"] == 0


@covers("set_expiry")
@pytest.mark.parametrize("expiry", [0, ("at", 0), ("at", 1)])
def test_a_deadline_that_is_over_fires_at_once(do: Do, expiry: Any) -> None:
    put(do, b"k")
    hang(do, b"k")
    hang(do, b"k", expiry)
    hang(do, b"nobody", expiry)
    assert do("exists", DB, b"k") is False
    for key in (b"k", b"nobody"):
        put(do, key)
        assert left_ms(do, key) == -1, "it took its entry with it"
    assert do("status")["expiries"] == 0


@covers("set_expiry", "remove_expiry", "clear_expiries")
def test_what_has_fired_is_gone(do: Do) -> None:
    hang(do, b"nobody", 1)  # first: it has fired when the others have
    for key in (b"a", b"b", b"c", b"d"):
        put(do, key)
        hang(do, key, 1)
    await_condition(lambda: not any(do("exists", DB, key) for key in (b"a", b"b", b"c", b"d")))
    assert do("list", DB, b"", b"", False, True, 10, False)[0] == []
    put(do, b"a")
    put(do, b"nobody")
    assert left_ms(do, b"a") == left_ms(do, b"nobody") == -1, "a record that came afterwards lives"
    assert do("remove_expiry", DB, b"b") == 0
    assert do("clear_expiries", DB) == 0
    hang(do, b"d")
    assert do("exists", DB, b"d") is False
    put(do, b"d")
    assert about(left_ms(do, b"d"), DAY_MS)


@covers("set_expiry")
def test_it_changes_the_revision_of_its_record(do: Do) -> None:
    put(do, b"k")
    before = revision_of(do("get", DB, b"k"))
    hang(do, b"k")
    assert revision_of(do("get", DB, b"k")) > before, "whoever keeps a copy must see the new deadline"


@covers("atomic", "set_expiry")
def test_a_block_that_fails_leaves_the_names_as_they_were(do: Do) -> None:
    put(do, b"k", b"text")
    hang(do, b"k")
    failing = ("incr", DB, b"k", 1, None, None, 0)
    for calls in (
        [("remove_expiry", DB, b"k"), ("set_expiry", DB, b"new", DAY_MS), failing],
        [("clear", DB, True), ("set", DB, b"k", val(b"v"), None, ALWAYS), failing],
    ):
        with pytest.raises(ValueError):
            do("atomic", [], calls)
    assert do("status")["expiries"] == 1
    put(do, b"k")
    assert about(left_ms(do, b"k"), DAY_MS)


@pytest.mark.parametrize(
    "expiry", [None, "keep", -1, 1.5, True, float("nan"), "60", ("at", -1), ("set", 5), DEADLINE_MS_MAX + 1]
)
def test_bad_deadlines_are_refused(do: Do, place: Place, expiry: Any) -> None:
    if place.orders_writes:
        return  # what a cache in this process refuses is in test_cache_expiries.py
    put(do, b"k")
    with pytest.raises(InvalidArgument):
        do("set_expiry", DB, b"k", expiry)
    assert left_ms(do, b"k") == -1


def test_bad_names_are_refused(do: Do, place: Place) -> None:
    if place.orders_writes:
        return
    for call in [("set_expiry", DB, b"", 5), ("set_expiry", DB, "text", 5), ("remove_expiry", DB, b"k" * 1025)]:
        with pytest.raises(InvalidKey):
            do(*call)
    for call in [("set_expiry", 16, b"k", 5), ("remove_expiry", -1, b"k"), ("clear_expiries", None)]:
        with pytest.raises(InvalidArgument):
            do(*call)


COUNTS: dict[str, tuple[tuple[int, int, bytes], Any]] = {
    "incr": (integer(1), lambda expire: ("incr", DB, b"k", 1, 0, expire, EVICTABLE)),
    "incr_float": (integer(1), lambda expire: ("incr_float", DB, b"k", 1.0, 0.0, expire, EVICTABLE)),
    "append": (val(b"a", Tag.TEXT), lambda expire: ("append", DB, b"k", val(b"b", Tag.TEXT), expire)),
}


@covers("incr", "incr_float", "append")
def test_a_kept_deadline_can_be_set(do: Do) -> None:
    for value, call in COUNTS.values():
        do("set", DB, b"k", value, DAY_MS, ALWAYS)
        do(*call(60_000))
        assert about(left_ms(do, b"k"), DAY_MS), "kept"
        do(*call(("set", 60_000)))
        assert about(left_ms(do, b"k"), 60_000)
        do(*call(("set", ("at", wall_ms() + DAY_MS))))
        assert about(left_ms(do, b"k"), DAY_MS)
        do(*call(("set", None)))
        assert left_ms(do, b"k") == -1
        do("delete", DB, b"k")
        do(*call(("set", 60_000)))
        assert about(left_ms(do, b"k"), 60_000)
        do(*call(("set", 0)))
        assert do("exists", DB, b"k") is False

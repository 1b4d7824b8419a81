"""Contract of the operations on ranges and whole databases: list, count, prune, clear, cull."""

from __future__ import annotations

import pytest

from tests.contract.records import (
    DB,
    EVICTABLE,
    OTHER,
    Do,
    payload,
    put,
    put_expired,
    val,
)

pytestmark = pytest.mark.contract
covers = pytest.mark.covers

KEYS = [b"a", b"b", b"b1", b"b2", b"b3", b"c", b"\xfe\xff", b"\xff", b"\xff\x01", b"\xff\xff", b"\xff\xff\xff"]
F, T = False, True

# prefix, start_key, skip, forward -> keys
RANGES = [
    (b"", b"", F, T, KEYS),
    (b"", b"", F, F, KEYS[::-1]),
    (b"", b"", T, T, KEYS[1:]),
    (b"", b"", T, F, KEYS[-2::-1]),
    (b"b", b"", F, T, [b"b", b"b1", b"b2", b"b3"]),
    (b"b", b"", F, F, [b"b3", b"b2", b"b1", b"b"]),
    (b"b", b"", T, F, [b"b2", b"b1", b"b"]),
    (b"b", b"b2", F, T, [b"b2", b"b3"]),
    (b"b", b"b2", T, T, [b"b3"]),
    (b"b", b"b2", F, F, [b"b2", b"b1", b"b"]),
    (b"b", b"b2", T, F, [b"b1", b"b"]),
    (b"b", b"b25", F, T, [b"b3"]),  # a start key that is missing
    (b"b", b"b25", T, T, []),  # ... skip drops the first row all the same
    (b"b", b"b25", F, F, [b"b2", b"b1", b"b"]),
    (b"b", b"b25", T, F, [b"b1", b"b"]),
    (b"b", b"a", F, T, [b"b", b"b1", b"b2", b"b3"]),  # a start key before the prefix is clamped to it
    (b"b", b"a", F, F, []),
    (b"b", b"c", F, T, []),  # ... and behind it
    (b"b", b"c", F, F, [b"b3", b"b2", b"b1", b"b"]),
    (b"b", b"\xff\xff\xff\xff", F, F, [b"b3", b"b2", b"b1", b"b"]),
    (b"", b"\xff\xff\xff\xff", F, T, []),
    (b"", b"\xff\xff\xff\xff", F, F, KEYS[::-1]),
    (b"", b"b9", F, F, [b"b3", b"b2", b"b1", b"b", b"a"]),
    (b"", b"A", F, F, []),
    (b"\xff", b"", F, T, KEYS[7:]),
    (b"\xff", b"", F, F, KEYS[:6:-1]),
    (b"\xff\xff", b"", F, T, KEYS[9:]),
    (b"\xff\xff", b"", F, F, KEYS[:8:-1]),
    (b"\xff\xff\xff\xff", b"", F, T, []),
    (b"\xff\xff\xff\xff", b"", F, F, []),
    (b"\xfe", b"", F, F, [b"\xfe\xff"]),
    (b"\xfe\xff", b"", F, F, [b"\xfe\xff"]),
    (b"\xff", b"\xff\x02", F, F, [b"\xff\x01", b"\xff"]),
    (b"missing", b"", F, T, []),
    (b"missing", b"", F, F, []),
    (b"B", b"", F, F, []),
    (b"b1", b"b1", F, T, [b"b1"]),
    (b"b1", b"b1", T, T, []),
]


def _ids(value: object) -> str | None:
    return value.hex() or "empty" if isinstance(value, bytes) else None


@covers("list", "count")
@pytest.mark.parametrize(("prefix", "start", "skip", "forward", "wanted"), RANGES, ids=_ids)
def test_ranges(do: Do, prefix: bytes, start: bytes, skip: bool, forward: bool, wanted: list[bytes]) -> None:
    do("set_many", DB, [(key, val(b"=" + key)) for key in KEYS], None)
    do("set_many", OTHER, [(b"b2", val(b"x"))], None)
    assert do("list", DB, prefix, start, skip, forward, 100, False) == (wanted, False)
    rows, more = do("list", DB, prefix, start, skip, forward, 100, True)
    assert ([(key, payload(record)) for key, record in rows], more) == ([(key, b"=" + key) for key in wanted], False)
    assert do("count", DB, prefix, start, skip, forward, 0) == (len(wanted), None)
    for limit in (1, 2):
        page = wanted[:limit]
        assert do("list", DB, prefix, start, skip, forward, limit, False) == (page, len(wanted) > limit)
        assert do("count", DB, prefix, start, skip, forward, limit) == (len(page), None)


@covers("list", "count")
def test_listings_of_an_empty_database(do: Do) -> None:
    for forward in (True, False):
        for start in (b"", b"x"):
            assert do("list", DB, b"", start, False, forward, 1, True) == ([], False)
            assert do("count", DB, b"", start, False, forward, 0) == (0, None)


@covers("list", "count")
@pytest.mark.parametrize("forward", [True, False])
def test_expired_rows_are_not_listed_and_not_skipped(do: Do, forward: bool) -> None:
    put_expired(do, b"a1", b"a3", b"a5")
    do("set_many", DB, [(b"a2", val(b"")), (b"a4", val(b""))], None)
    wanted = [b"a2", b"a4"] if forward else [b"a4", b"a2"]
    assert do("list", DB, b"a", b"", False, forward, 10, False) == (wanted, False)
    assert do("list", DB, b"a", b"", False, forward, 2, False) == (wanted, False)
    assert do("list", DB, b"a", b"", True, forward, 10, False) == (wanted[1:], False)
    assert do("count", DB, b"a", b"", True, forward, 0) == (1, None)


@covers("list")
@pytest.mark.parametrize("forward", [True, False])
def test_pages_follow_each_other_although_their_last_key_is_deleted(do: Do, forward: bool) -> None:
    keys = [b"k%04d" % number for number in range(2500)]
    do("set_many", DB, [(key, val(key)) for key in keys], None)
    seen, start, more, skip = [], b"", True, False
    while more:
        page, more = do("list", DB, b"k", start, skip, forward, 1000, False)
        seen += page
        start, skip = page[-1], "after"
        assert do("delete_many", DB, page) == len(page)
    assert seen == (keys if forward else keys[::-1])
    assert do("status")["records_by_database"][DB] == 0


@covers("list")
def test_a_page_of_large_values_is_cut_short_but_never_empty(do: Do) -> None:
    keys = [b"k%d" % number for number in range(4)]
    do("set_many", DB, [(key, val(b"x" * 700_000)) for key in keys], None)
    seen, start, more, skip, pages = [], b"", True, False, 0
    while more:
        page, more = do("list", DB, b"", start, skip, True, 1000, True)
        seen += [key for key, _ in page]
        start, skip, pages = page[-1][0], "after", pages + 1
    assert (seen, pages) == (keys, 2)
    put(do, b"k0", b"x" * 2_000_000)
    page, more = do("list", DB, b"", b"", False, True, 1000, True)
    assert ([key for key, _ in page], more) == ([b"k0"], True)


@covers("count")
def test_a_long_count_comes_in_slices(do: Do) -> None:
    keys = [b"%05d" % number for number in range(1_250)]
    do("set_many", DB, [(key, val(b"")) for key in keys], None)
    assert do("count", DB, b"", b"", False, True, 0) == (1_000, keys[999])
    assert do("count", DB, b"", keys[999], "after", True, 0) == (250, None)
    assert do("count", DB, b"", b"", False, False, 0) == (1_000, keys[250])
    assert do("count", DB, b"", b"", False, True, 1_100) == (1_000, keys[999])
    assert do("count", DB, b"", keys[999], "after", True, 100) == (100, None)


@covers("prune")
def test_prune(do: Do) -> None:
    do("set_many", DB, [(key, val(key, flags=number % 2 * EVICTABLE)) for number, key in enumerate(KEYS)], None)
    put_expired(do, b"b7", b"b8")
    do("set_many", OTHER, [(b"b", val(b""))], None)
    assert do("prune", DB, b"missing") == 0
    assert do("prune", DB, b"b") == 4
    assert do("list", DB, b"", b"", False, True, 100, False) == ([KEYS[0], *KEYS[5:]], False)
    assert do("prune", DB, b"\xff\xff") == 2
    assert do("prune", DB, b"\xff") == 2
    assert do("list", DB, b"", b"", False, True, 100, False) == ([b"a", b"c", b"\xfe\xff"], False)
    assert do("prune", DB, b"") == 3
    assert do("prune", DB, b"") == 0
    figures = do("status")
    assert (figures["records_by_database"][DB], figures["kept_records_by_database"][DB]) == (0, 0)
    assert figures["records_by_database"][OTHER] == 1


@covers("clear")
def test_clear_leaves_what_is_not_evictable(do: Do) -> None:
    do("set_many", DB, [(b"e%d" % number, val(b"")) for number in range(5)], 60_000)
    do("set_many", DB, [(b"k%d" % number, val(b"", flags=0)) for number in range(3)], None)
    do("set_many", OTHER, [(b"e", val(b""))], None)
    assert do("clear", DB, False) == 5
    assert do("list", DB, b"", b"", False, True, 10, False) == ([b"k0", b"k1", b"k2"], False)
    assert do("clear", DB, False) == 0
    assert do("status")["kept_records_by_database"][DB] == 3
    assert do("clear", DB, True) == 3
    assert do("clear", DB, True) == 0
    figures = do("status")
    assert (figures["records_by_database"][DB], figures["kept_records_by_database"][DB]) == (0, 0)
    assert do("exists", OTHER, b"e") is True
    assert do("clear", OTHER, False) == 1


def _live(do: Do) -> list[bytes]:
    return do("list", DB, b"", b"", False, True, 1000, False)[0]


@covers("cull")
def test_cull_makes_room_for_new_keys_only(do: Do) -> None:
    for number in range(6):
        put(do, b"k%d" % number)
    assert do("cull", DB, [b"k0", b"k1"], 6, 3) == 0, "keys that are there take no new room"
    assert do("cull", DB, [b"new"], 7, 3) == 0
    assert do("cull", DB, [b"new"], 6, 3) == 2
    assert _live(do) == [b"k2", b"k3", b"k4", b"k5"], "those written longest ago go first"
    put(do, b"k2")
    assert do("cull", DB, [b"new"], 4, 4) == 1
    assert _live(do) == [b"k2", b"k4", b"k5"]
    assert do("cull", DB, [b"1", b"2", b"3"], 4, 3) == 2, "as many as the new keys need"
    assert _live(do) == [b"k2"]


@covers("cull")
def test_cull_takes_expired_ones_first_and_leaves_what_is_not_evictable(do: Do) -> None:
    for number in range(3):
        put(do, b"k%d" % number)
    put(do, b"kept", flags=0)
    put_expired(do, b"old1", b"old2")
    assert do("cull", DB, [b"new"], 6, 3) == 2
    assert _live(do) == [b"k0", b"k1", b"k2", b"kept"]
    assert do("cull", DB, [b"new"], 4, 0) == 3, "a frequency of 0 culls all that is evictable"
    assert _live(do) == [b"kept"]
    assert do("cull", DB, [b"new"], 1, 3) == 0

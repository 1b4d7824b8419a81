"""A full store: what is evicted and in which order, what is not, and that deletes always make room again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from django_keyspace.exceptions import NoSpace
from django_keyspace.store import Store, open_store
from tests.store.helpers import MIB, counted, got, put, small_options, val

MakeStore = Callable[..., Store]


@pytest.fixture
def make_store(store_folder: Path) -> MakeStore:
    def make(**options: Any) -> Store:
        return open_store(store_folder, small_options(**{"max_bytes": 4 * MIB, **options}))

    return make


def used(store: Store) -> int:
    return store.read("status")["used_bytes"]


def test_used_bytes_falls_on_deletion(make_store: MakeStore) -> None:
    store = make_store()
    empty = used(store)
    store.write("set_many", 0, [(b"k%03d" % number, val(b"x" * 3_000)) for number in range(500)], 60_000)
    full = used(store)
    assert full > empty + 500 * 3_000
    assert store.write("delete_many", 0, [b"k%03d" % number for number in range(250)]) == 250
    assert used(store) < full - 250 * 2_500
    store.write("clear", 0, False)
    assert used(store) == empty, "nothing is left, in the deadline index neither"


def test_a_full_cache_evicts_and_goes_on(make_store: MakeStore) -> None:
    store = make_store()
    for number in range(3_500):
        put(store, b"k%05d" % number, b"x" * 2_000)
        if not number % 500:
            assert used(store) <= 4 * MIB + 200_000
    assert used(store) <= 4 * MIB + 200_000
    assert got(store, b"k03499") is not None
    assert store.counters.evicted > 1_500 and store.counters.no_space == 0


def test_what_has_expired_goes_first_then_what_expires_soonest_then_old_ones(make_store: MakeStore) -> None:
    store = make_store()
    hour_ms = 3_600_000
    size = b"x" * 2_000
    for number in range(300):
        put(store, b"forever%03d" % number, size)
        put(store, b"late%03d" % number, size, hour_ms * (20 + number))
        put(store, b"soon%03d" % number, size, hour_ms)
        put(store, b"expired%03d" % number, size, 1)

    def left(prefix: bytes) -> int:
        return counted(store, prefix)

    def add(number: int) -> int:
        for index in range(number, number + 20):
            put(store, b"new%04d" % index, size, hour_ms * 10_000)
        return number + 20

    number = 0
    while left(b"soon") > 0:
        assert left(b"late") >= 280 and left(b"forever") == 300
        if left(b"soon") < 300:
            assert store.read("status")["records"] - left(b"") == 0, "expired ones are gone by now"
        number = add(number)
        assert number < 3_000
    while left(b"late") > 150:
        number = add(number)
    assert left(b"forever") == 300
    remaining = store.read("list", 0, b"late", b"", False, True, 1000, False)[0]
    assert remaining == [b"late%03d" % index for index in range(300 - len(remaining), 300)]


def test_long_timeouts_and_ever_new_keys_do_not_fill_the_store_with_its_own_index(make_store: MakeStore) -> None:
    """Each evicted record leaves nothing behind, so a cache of short values and long keys lives for ever."""
    store = make_store(max_bytes=2 * MIB)
    week_ms = 7 * 86_400_000
    for group in range(40):
        pairs = [(b"%06d" % (group * 500 + number) + b"k" * 200, val(b"v")) for number in range(500)]
        assert store.write("set_many", 0, pairs, week_ms + group) == 500
    figures = store.read("status")
    assert store.counters.no_space == 0
    assert figures["records"] > 2_000, "the index must not push the records out"
    with store._opened().begin() as txn:
        assert txn.stat(store._opened().deadlines)["entries"] == figures["records"]


@pytest.mark.parametrize("expire", [None, 7 * 86_400_000])
def test_kept_records_are_never_evicted_and_deletes_make_room_again(make_store: MakeStore, expire: int | None) -> None:
    store = make_store(max_bytes=2 * MIB)
    for _ in range(2):
        number = 0
        with pytest.raises(NoSpace, match="max_bytes"):
            while True:
                put(store, b"%06d" % number + b"k" * 400, b"x" * 200, expire, kept=True)
                number += 1
        assert number > 1_000
        assert counted(store) == number
        for call in [("append", 0, b"000000", val(b"x"), None), ("incr", 0, b"n", 1, 0, None, 0)]:
            with pytest.raises(NoSpace):
                store.write(*call)
        with pytest.raises(NoSpace):
            store.write("batch", [("delete", 0, b"x"), ("set", 0, b"y", val(b""), None, "always")])
        assert store.write("touch", 0, b"000000" + b"k" * 400, expire) is True
        for index in range(number):
            assert store.write("delete", 0, b"%06d" % index + b"k" * 400) is True
        put(store, b"again", b"x" * 1_000, kept=True)
        assert store.write("delete", 0, b"again") is True
    assert store.counters.no_space >= 6


def test_evictable_ones_make_room_for_kept_ones(make_store: MakeStore) -> None:
    store = make_store(max_bytes=2 * MIB)
    for number in range(600):
        put(store, b"cache%03d" % number, b"x" * 2_000)
    for number in range(300):
        put(store, b"kept%03d" % number, b"x" * 2_000, kept=True)
    assert counted(store, b"kept") == 300
    assert counted(store, b"cache") < 500


def test_a_value_that_can_never_fit_pushes_nothing_out(make_store: MakeStore) -> None:
    store = make_store(max_bytes=MIB)
    put(store, b"k", b"small")
    with pytest.raises(NoSpace):
        put(store, b"large", b"x" * 2 * MIB)
    assert got(store, b"k") == b"small"
    put(store, b"k2", b"small")


def test_the_map_grows_when_it_is_smaller_than_the_data(make_store: MakeStore) -> None:
    store = make_store(map_bytes=MIB, max_bytes=64 * MIB, value_bytes_max=4 * MIB)
    for number in range(20):
        put(store, b"k%d" % number, b"x" * MIB)
    assert store.read("status")["map_bytes"] >= 20 * MIB
    assert all(got(store, b"k%d" % number) == b"x" * MIB for number in range(20))


def test_a_map_that_the_soft_limit_does_not_ask_to_grow_is_full(make_store: MakeStore) -> None:
    store = make_store(map_bytes=4 * MIB, max_bytes=3 * MIB, value_bytes_max=64)
    for number in range(1_000):
        put(store, b"k%06d" % number, b"x" * 64, kept=True)
    with pytest.raises(NoSpace, match="filled its map"):
        # More than the soft limit in one transaction: the values are under the limit that is looked at before.
        store.write(
            "batch",
            [("append", 0, b"%06d" % number + b"y" * 900, val(b"x", kept=True), None) for number in range(9_000)],
        )
    assert got(store, b"000000" + b"y" * 900) is None
    assert store.write("delete", 0, b"k000000") is True
    put(store, b"again", b"x", kept=True)


def test_few_evictable_records_among_many_kept_ones_are_found(make_store: MakeStore) -> None:
    store = make_store(max_bytes=2 * MIB)
    for number in range(20):
        put(store, b"k%05d" % (number * 50), b"x" * 4_000)
    number = 0
    with pytest.raises(NoSpace):
        while True:
            put(store, b"k%05d-kept" % number, b"x" * 500, kept=True)
            number += 1
    assert store.counters.evicted == 20
    assert counted(store) == number


def test_groups_of_similar_keys_all_have_their_turn(make_store: MakeStore) -> None:
    """Eviction must not always hit the first keys of the largest group."""
    store = make_store(max_bytes=2 * MIB)
    groups = [b":1:views.decorators.cache.page.", b":1:session", b"zz:1:user:"]
    for number in range(1_500):
        for group in groups:
            put(store, group + b"%05d" % number, b"x" * 500)
    for group in groups:
        left = store.read("list", 0, group, b"", False, True, 1000, False)[0]
        assert 100 < len(left) < 1_500
    assert store.counters.no_space == 0

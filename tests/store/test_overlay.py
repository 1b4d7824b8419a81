"""The expiry overlay in its store: the flag that says whether to look, older stores, other processes, and the sweep."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest

from django_keyspace.store import Store, StoreOptions, clock, overlay
from django_keyspace.store.environment import META_CLEAN, META_OVERLAY

from .helpers import await_condition, put, small_options, val

DAY_MS = 86_400_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(str(tmp_path), small_options())
    yield store
    store.shutdown()


def flags(store: Store) -> int:
    environment = store._opened()
    with environment.begin() as txn:
        return environment.read_meta(txn).flags


def has_deadline(store: Store, key: bytes) -> bool:
    return store.read("ttl", 0, key) > 0


def test_who_has_no_expiries_never_looks_for_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Any] = []
    monkeypatch.setattr(overlay, "fold", lambda *args: looked.append(args))
    monkeypatch.setattr(overlay, "own_deadline", lambda *args: looked.append(args))
    put(store, b"k", expire=DAY_MS)
    store.write("set_many", 0, [(b"k", val(b"v"))], "keep")
    store.write("touch", 0, b"k", "keep")
    store.write("rename", 0, b"k", b"l")
    store.write("append", 0, b"l", val(b"w"), None)
    assert looked == [] and not flags(store) & META_OVERLAY
    monkeypatch.undo()
    store.write("set_expiry", 0, b"k", DAY_MS)
    assert flags(store) & META_OVERLAY
    store.write("remove_expiry", 0, b"k")
    assert not flags(store) & META_OVERLAY, "the last one has taken the flag with it"


def test_expiries_outlive_the_process(tmp_path: Path) -> None:
    first = Store(str(tmp_path), StoreOptions(durability="interval", databases=2))
    put(first, b"k", expire=2 * DAY_MS)
    first.write("set_expiry", 0, b"k", DAY_MS)
    first.mark_clean()
    assert flags(first) == META_CLEAN | META_OVERLAY
    put(first, b"other")
    assert flags(first) == META_OVERLAY, (
        "a write says that there is something unsynced, and leaves the other flag alone"
    )
    first.shutdown()
    again = Store(str(tmp_path), StoreOptions(durability="interval", databases=2))
    put(again, b"k")
    assert 0 < again.read("ttl", 0, b"k") <= DAY_MS
    assert again.read("status")["expiries"] == 1
    again.shutdown()


CHILD = """
import sys
from django_keyspace.store import Store, StoreOptions
store = Store(sys.argv[1], StoreOptions(durability="none", databases=2, map_bytes=64 * 2**20))
store.write("set_expiry", 0, b"k", 86_400_000)
store.shutdown()
"""


def test_expiries_of_other_processes_count_at_once(store: Store, tmp_path: Path) -> None:
    put(store, b"k")
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", CHILD, str(tmp_path)], check=True, timeout=60, cwd=root)
    assert has_deadline(store, b"k")
    put(store, b"k")
    assert has_deadline(store, b"k"), "what this process knew of the meta record is not what it is now"


def test_a_store_of_a_release_without_expiries_gets_them(tmp_path: Path) -> None:
    old = Store(str(tmp_path), small_options())
    put(old, b"k", expire=2 * DAY_MS)
    old.shutdown()
    with lmdb.open(str(tmp_path), max_dbs=8, map_size=2**26, lib_version=None) as raw:  # type: ignore[arg-type]
        handle = raw.open_db(b"overlay", create=False)
        with raw.begin(write=True) as txn:
            txn.drop(handle, delete=True)
    new = Store(str(tmp_path), small_options())
    assert new.read("exists", 0, b"k")
    new.write("set_expiry", 0, b"k", DAY_MS)
    assert 0 < new.read("ttl", 0, b"k") <= DAY_MS
    new.shutdown()


def test_upkeep_finds_and_deletes_what_has_fired(store: Store) -> None:
    put(store, b"k", kept=True)
    put(store, b"stays")
    for key, expiry in [(b"k", 1), (b"nobody", 1), (b"stays", DAY_MS)]:
        store.write("set_expiry", 0, key, expiry)

    def upkeep() -> bool:
        if store.sweep_is_due():
            store.write("sweep", 100)
        return store.read("status")["expiries"] == 1

    await_condition(upkeep)
    figures = store.read("status")
    assert (figures["records"], figures["kept_records_by_database"]) == (1, [0, 0])
    assert flags(store) & META_OVERLAY


def test_a_sweep_ends_in_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store._maintenance.start = lambda: None  # type: ignore[method-assign]
    put(store, b"k0")
    for number in range(8):
        store.write("set_expiry", 0, b"k%d" % number, DAY_MS)
    now_ms = clock.wall_ms() + 2 * DAY_MS
    monkeypatch.setattr(clock, "wall_ms", lambda: now_ms)
    assert store.sweep_is_due()
    assert [store.write("sweep", 3) for _ in range(4)] == [(1, True), (0, True), (0, False), (0, False)]
    assert not store.sweep_is_due()
    assert store.read("status")["expiries"] == 0 and not flags(store) & META_OVERLAY


def test_a_process_with_fewer_databases_leaves_the_expiries_of_the_others(tmp_path: Path) -> None:
    many = Store(str(tmp_path), StoreOptions(durability="none", databases=5))
    many.write("set", 4, b"k", val(b"v"), None, "always")
    many.write("set_expiry", 4, b"k", 1)
    many.shutdown()
    few = Store(str(tmp_path), StoreOptions(durability="none", databases=2))
    few._maintenance.start = lambda: None  # type: ignore[method-assign]
    few.write("set_expiry", 1, b"k", 1)

    def upkeep() -> bool:
        if few.sweep_is_due():
            few.write("sweep", 100)
        return few.read("status")["expiries"] == 1 and not few.sweep_is_due()

    await_condition(upkeep)
    few.shutdown()
    many = Store(str(tmp_path), StoreOptions(durability="none", databases=5))
    many._maintenance.start = lambda: None  # type: ignore[method-assign]
    assert many.write("sweep", 100) == (1, False)
    assert many.read("status")["expiries"] == 0
    many.shutdown()


def test_expiries_take_room_and_give_it_back(store: Store) -> None:
    before = store.read("status")["used_bytes"]
    for number in range(2000):
        store.write("set_expiry", 0, b"%0100d" % number, DAY_MS)
    assert store.read("status")["used_bytes"] > before + 2000 * 200, "they count for the soft limit"
    assert store.write("clear_expiries", 0) == 2000
    assert store.read("status")["used_bytes"] <= before

"""Counts of records that must not be dropped outlive a process that knows fewer databases; so does the word of their loss."""

from __future__ import annotations

from pathlib import Path

import pytest

from django_keyspace.exceptions import DamagedStore
from django_keyspace.store import Store, StoreOptions

KEPT = (2, 0, b"kept")
EVICTABLE = (2, 4, b"evictable")


def closed_after(path: Path, databases: int, *writes: tuple[object, ...]) -> None:
    store = Store(str(path), StoreOptions(databases=databases))
    for name, *arguments in writes:
        store.write(str(name), *arguments)
    store.shutdown()


def test_a_process_with_fewer_databases_keeps_the_counts_of_the_others(tmp_path: Path) -> None:
    closed_after(tmp_path, 5, ("set", 4, b"k", KEPT, None, "always"))
    closed_after(tmp_path, 2, ("set", 1, b"k", KEPT, None, "always"))
    store = Store(str(tmp_path), StoreOptions(databases=5))
    try:
        assert store.read("status")["kept_records_by_database"] == [0, 1, 0, 0, 1]
        store.write("set", 4, b"e", EVICTABLE, None, "always")
        assert store.write("clear", 4, False) == 1
        assert store.read("exists", 4, b"k")
    finally:
        store.shutdown()


def test_a_missing_data_file_of_a_store_with_kept_records_is_not_replaced(tmp_path: Path) -> None:
    closed_after(tmp_path, 2, ("set", 0, b"k", KEPT, None, "always"))
    (tmp_path / "data.mdb").unlink()
    store = Store(str(tmp_path), StoreOptions(databases=2))
    with pytest.raises(DamagedStore, match=r"data\.mdb of .* is missing"):
        store.read("get", 0, b"k")
    assert not (tmp_path / "data.mdb").exists()


def test_a_missing_data_file_of_a_cache_is_replaced(tmp_path: Path) -> None:
    closed_after(tmp_path, 2, ("set", 0, b"k", EVICTABLE, None, "always"))
    (tmp_path / "data.mdb").unlink()
    store = Store(str(tmp_path), StoreOptions(databases=2))
    try:
        assert store.read("get", 0, b"k") is None
    finally:
        store.shutdown()

"""The sub-stores that models live in: beside the numbered databases, untouched by what clears and evicts those."""

from __future__ import annotations

from pathlib import Path

import pytest

from django_keyspace.exceptions import InvalidArgument
from django_keyspace.operations import MODELS_BASE, Limits, check_call
from django_keyspace.store import Store, StoreOptions

from .helpers import small_options, val

KEPT = val(b"v", kept=True)


@pytest.fixture
def store(tmp_path: Path):
    store = Store(str(tmp_path), small_options())
    yield store
    store.shutdown()


def test_clearing_a_database_leaves_its_models(store: Store) -> None:
    store.write("set", 0, b"k", KEPT, None, "always")
    store.write("set", MODELS_BASE, b"k", KEPT, 60_000, "always")
    assert store.write("clear", 0, True) == 1
    assert store.read("exists", MODELS_BASE, b"k")
    figures = store.read("status")
    assert figures["records_by_database"] == [0, 0]
    assert figures["model_records_by_database"] == [1, 0]


def test_models_count_as_records_that_must_not_be_lost(tmp_path: Path) -> None:
    first = Store(str(tmp_path), small_options())
    first.write("set", MODELS_BASE + 1, b"k", KEPT, None, "always")
    first.shutdown()
    second = Store(str(tmp_path), small_options())
    assert second.write("clear", MODELS_BASE + 1, False) == 0
    assert second.write("clear", MODELS_BASE + 1, True) == 1
    second.shutdown()


def test_deadlines_of_models_are_swept(store: Store) -> None:
    store.write("set", MODELS_BASE, b"k", KEPT, 0 + 1, "always")
    store.write("set", MODELS_BASE, b"stays", KEPT, 60_000, "always")
    while store.write("sweep", 100)[0] == 0:
        pass
    assert store.read("status")["model_records_by_database"] == [1, 0]


def test_a_process_with_fewer_databases_leaves_the_deadlines_of_the_others(tmp_path: Path) -> None:
    many = Store(str(tmp_path), StoreOptions(databases=5))
    many.write("set", 4, b"k", KEPT, 1, "always")
    many.shutdown()
    few = Store(str(tmp_path), StoreOptions(databases=2))
    few.write("set", 1, b"k", val(b"v"), 1, "always")
    while few.write("sweep", 100)[0] == 0:
        pass
    few.shutdown()
    many = Store(str(tmp_path), StoreOptions(databases=5))
    assert many.write("sweep", 100) == (1, False)
    many.shutdown()


def test_a_store_of_a_release_without_models_gets_them(tmp_path: Path) -> None:
    old = Store(str(tmp_path), StoreOptions(databases=2))
    old.write("set", 0, b"k", KEPT, None, "always")
    old.shutdown()
    more = Store(str(tmp_path), StoreOptions(databases=3))
    assert more.read("get", MODELS_BASE + 2, b"k") is None
    assert more.read("exists", 0, b"k")
    more.shutdown()


@pytest.mark.parametrize("database", [-1, 2, MODELS_BASE - 1, MODELS_BASE + 2, 2 * MODELS_BASE, 3 * MODELS_BASE])
def test_numbers_beyond_are_refused(database: int) -> None:
    check_call(("exists", MODELS_BASE + 1, b"k"), Limits(databases=2))
    with pytest.raises(InvalidArgument, match="There is no database"):
        check_call(("exists", database, b"k"), Limits(databases=2))

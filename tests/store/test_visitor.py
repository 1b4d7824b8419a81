"""A lone node's store, read by another process: the time by which it hides what has expired."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from django_keyspace.store import clock, open_store
from django_keyspace.store.registry import forget_store
from django_keyspace.store.visitor import VisitedStore

from .helpers import await_condition, small_options

HOUR_MS = 3_600_000

WRITER = """
import sys
from django_keyspace.store import clock, open_store
from tests.store.helpers import put, small_options

real = clock.wall_ms
clock.wall_ms = lambda: real() + int(sys.argv[2])
store = open_store(sys.argv[1], small_options())
put(store, b"gone", expire=("at", clock.wall_ms() - 1))
put(store, b"there", expire=7_200_000)
store.shutdown()
"""


def write_ahead(folder: Path, ahead_ms: int) -> None:
    """Have another process write with a wall clock that is set back afterwards: two records, one of them over already."""
    subprocess.run([sys.executable, "-c", WRITER, str(folder), str(ahead_ms)], check=True)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "store"
    forget_store(open_store(tmp_path / "store"))


def visited(folder: Path) -> VisitedStore:
    store = open_store(folder, small_options(), VisitedStore)
    assert isinstance(store, VisitedStore)
    return store


def read(store: VisitedStore, name: str, key: bytes, later_ms: int = 0) -> Any:
    return store.visit(0, clock.wall_ms() + later_ms, name, (0, key))[0]


def test_the_wall_clock_counts(folder: Path) -> None:
    write_ahead(folder, 0)
    store = visited(folder)
    for _ in range(2):  # when it is opened, and after that
        assert read(store, "get", b"gone") is None and read(store, "get", b"there") is not None
        assert 0 < read(store, "ttl", b"there") <= 2 * HOUR_MS
    assert read(store, "get", b"there", later_ms=2 * HOUR_MS) is None


def test_what_has_expired_does_not_come_back_when_the_wall_clock_is_set_back(folder: Path) -> None:
    write_ahead(folder, HOUR_MS)
    store = visited(folder)
    for _ in range(2):
        assert read(store, "get", b"gone") is None, "by the wall clock it has an hour left"
    first = read(store, "ttl", b"there")
    assert 0 < first <= 2 * HOUR_MS, "by the wall clock it has three"
    await_condition(lambda: read(store, "ttl", b"there") < first)
    assert read(store, "get", b"there", later_ms=4 * HOUR_MS) is None


def test_the_nodes_time_counts_where_it_is_ahead(folder: Path) -> None:
    write_ahead(folder, 0)
    store = visited(folder)
    assert read(store, "get", b"there") is not None
    store.note_log_time(clock.wall_ms() - HOUR_MS)
    assert read(store, "get", b"there") is not None
    store.note_log_time(clock.wall_ms() + 2 * HOUR_MS)
    assert read(store, "get", b"there") is None
    store.note_log_time(clock.wall_ms())
    assert read(store, "get", b"there") is None, "it never goes back"

"""The short form of the soak, and that it would notice."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from django_keyspace.store import Store, StoreOptions

from .run import _check_growth, soak
from .workers import Broken, Worker, check_counters


@pytest.mark.timeout(240)
def test_a_node_that_is_killed_again_and_again_keeps_what_it_has_acknowledged(tmp_path: Path) -> None:
    report = soak(60, 20261122, tmp_path / "n1", say=lambda line: None)
    assert report.kills >= 3
    assert report.restarts >= 1
    assert report.done["set"] > 100
    assert report.done["count"] > 100
    assert report.reads_beside > 100
    # Calls are ended by kills alone here, and each waits for longer than a restart takes: every write was done once, and its
    # caller was told so. The counters are exact.
    assert report.done["unknown outcome"] == 0


@pytest.fixture
def worker(tmp_path: Path):
    store = Store(str(tmp_path / "store"), StoreOptions(durability="none"))
    lock = threading.Lock()

    def call(name, *arguments):
        with lock:
            return (store.read if name in ("get", "list") else store.write)(name, *arguments)

    yield Worker(0, call, 5)
    store.shutdown()


def test_a_lost_write_is_noticed(worker: Worker) -> None:
    for _ in range(300):
        worker.step()
    key = next(key for key, values in worker.possible.items() if values != {None})
    worker.call("delete", 0, key)
    with pytest.raises(Broken, match="holds None"):
        worker.do_list()


def test_a_count_too_many_is_noticed(worker: Worker) -> None:
    for _ in range(200):
        worker.step()
    check_counters([worker], worker.call)
    worker.call("incr", 0, b"shared:0", 1, 0, None, 0)
    with pytest.raises(Broken, match="counter 0 is"):
        check_counters([worker], worker.call)


def test_growth_is_noticed() -> None:
    _check_growth("The file", [100, 90, 100, 120])
    with pytest.raises(Broken, match="has grown"):
        _check_growth("The file", [100, 100, 100, 2**30])

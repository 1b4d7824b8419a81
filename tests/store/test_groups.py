"""Groups of the writer thread: bounded, so that what fits one by one also fits together."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from django_keyspace.store import Store, StoreOptions


def test_values_that_fit_one_by_one_are_not_refused_as_a_group(tmp_path: Path) -> None:
    store = Store(str(tmp_path), StoreOptions(max_bytes=2**20))
    done = threading.Event()
    answers: list[Any] = []

    def collect(results: list[Any]) -> None:
        answers.extend(results)
        if len(answers) == 40:
            done.set()

    lock_taken = threading.Event()
    release = threading.Event()

    def hold_up(results: list[Any]) -> None:
        lock_taken.set()
        release.wait(30)

    try:
        store.submit([("delete", 0, b"nothing")], hold_up)  # while the thread stands here, the others gather
        assert lock_taken.wait(30)
        for number in range(40):
            store.submit([("set", 0, b"k%d" % number, (1, 4, b"v" * 100_000), None, "always")], collect)
        release.set()
        assert done.wait(30)
        assert answers == [True] * 40
        assert store.counters.evicted > 0
    finally:
        release.set()
        store.shutdown()

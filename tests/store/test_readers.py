"""Who holds an old state of a store is noticed, once, and nobody else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from django_keyspace.store import StoreOptions, forget_store, open_store
from django_keyspace.store.maintenance import Maintenance
from django_keyspace.store.readers import OLD_S, ReaderWatch
from tests.store.helpers import put

HEAD = "    pid     thread     txnid\n"


def table(*rows: str) -> str:
    return HEAD + "".join(f"   {row}\n" for row in rows)


def test_an_old_state_that_is_held_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    watch = ReaderWatch("/store")
    held = table("11 a 5", "12 b -", "13 c 9")
    for now_s in (0.0, OLD_S - 1, OLD_S, 2 * OLD_S):
        watch.look(held, 9, now_s)
    assert caplog.text.count("Process 11") == 1 and len(caplog.records) == 1
    assert watch.oldest_s == 2 * OLD_S
    watch.look(table("11 a -"), 9, 3 * OLD_S)
    assert watch.oldest_s == 0
    for now_s in (4 * OLD_S, 5 * OLD_S):
        watch.look(held, 9, now_s)
    assert caplog.text.count("Process 11") == 2, "it did it again"


@pytest.mark.parametrize("text", ["", "(no active readers)\n", table(), table("11 a -", "12 b 9")])
def test_who_holds_nothing_old_is_left_alone(text: str, caplog: pytest.LogCaptureFixture) -> None:
    watch = ReaderWatch("/store")
    for now_s in (0.0, 10 * OLD_S):
        watch.look(text, 9, now_s)
    assert watch.oldest_s == 0 and not caplog.records


def test_one_who_reads_again_and_again_holds_nothing(caplog: pytest.LogCaptureFixture) -> None:
    watch = ReaderWatch("/store")
    for number in range(100):
        watch.look(table(f"11 a {number}"), number + 1, number * OLD_S / 2)
    assert watch.oldest_s == 0 and not caplog.records


def test_the_table_of_a_store(tmp_path: Path) -> None:
    store = open_store(tmp_path, StoreOptions(map_bytes=2**22))
    try:
        put(store, b"a")
        upkeep = Maintenance(store)
        with store.snapshot():
            put(store, b"b")
            for now_s in (0.0, 7.0):
                upkeep.readers.look(*store.reader_table(), now_s)
            assert upkeep.readers.oldest_s == 7
        upkeep.readers.look(*store.reader_table(), 8.0)
        assert upkeep.readers.oldest_s == 0 and store.oldest_reader_s == 0
    finally:
        forget_store(store)

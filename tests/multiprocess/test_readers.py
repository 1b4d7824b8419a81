"""The reader table: slots of the dead are found and freed, and LMDB's files are never opened by us."""

from __future__ import annotations

import pytest

from django_keyspace.backend import KeyspaceCache
from django_keyspace.exceptions import StorageError


def test_readers_table_full_of_dead_readers_is_cleared_and_the_read_done(fleet, folder):
    cache = KeyspaceCache(folder, {"TIMEOUT": None})
    cache.set("key", "value")
    reader = fleet.start("storing.take_all_reader_slots", folder=folder)
    assert reader.hear() == 2048
    with pytest.raises(StorageError, match=r"reader slots of .* are taken by living processes"):
        cache.get("key")

    reader.kill()
    assert cache.get("key") == "value"
    assert cache.set("key", "another")
    store = cache._runtime.engine.store
    assert store.check_readers() == 0
    cache.shutdown()


def test_neither_data_nor_lock_file_is_ever_opened_by_python(fleet, folder):
    opened = fleet.run("storing.watch_opened_files", folder=folder)

    assert "keyspace.lock" in opened
    assert not {"data.mdb", "lock.mdb"} & set(opened)

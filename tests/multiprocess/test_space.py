"""The file stays small beside idle readers; full stores and full disks answer clearly, and come back."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from django_keyspace.backend import KeyspaceCache
from django_keyspace.exceptions import NoSpace

MIB = 1 << 20


@pytest.fixture
def make_cache(folder):
    """A cache of this process on the test's folder."""
    made = []

    def make(**options):
        cache = KeyspaceCache(folder, {"TIMEOUT": None, "OPTIONS": options})
        made.append(cache)
        return cache

    yield make
    for cache in made:
        cache.shutdown()


def _file_bytes(folder: str) -> int:
    return os.path.getsize(Path(folder) / "data.mdb")


def test_idle_readers_do_not_grow_the_file(fleet, folder, make_cache):
    cache = make_cache()
    cache.set_many({f"key{number}": b"x" * 100 for number in range(1000)})
    for number in range(200):  # the pages that overwriting turns over are there
        cache.set(f"key{number}", b"y" * 100)
    before = _file_bytes(folder)
    readers = [fleet.start("storing.read_and_idle", folder=folder) for _ in range(2)]
    for reader in readers:
        assert reader.hear() == "idle"
    own = cache.iter_keys("key*")
    next(own)

    for number in range(2000):
        cache.set(f"key{number % 1000}", b"z" * 100)

    assert _file_bytes(folder) <= 2 * before
    assert len(list(own)) == 999
    for reader in readers:
        reader.tell("go on")
        assert reader.result() == 1000


@pytest.mark.stress
def test_full_cache_evicts_and_never_fails(fleet, folder, make_cache):
    options = {"max_bytes": 2 * MIB, "timeout_ms": 30_000}
    actors = [fleet.start("storing.fill", folder=folder, name=name, seconds=4, options=options) for name in "abcd"]
    told = [actor.result() for actor in actors]

    assert [each["errors"] for each in told] == [{}] * 4
    assert sum(each["written"] for each in told) * 3000 > 3 * options["max_bytes"]  # it was full several times over
    cache = make_cache(**options)
    status = cache.status()
    assert status["used_bytes"] <= options["max_bytes"] * 1.25
    assert status["records"] > 100
    assert _file_bytes(folder) < 4 * options["max_bytes"]


@pytest.mark.stress
@pytest.mark.parametrize("map_bytes", [MIB, 64 * MIB])
def test_full_key_value_store_answers_no_space_and_comes_back_after_deletes(fleet, folder, make_cache, map_bytes):
    options = {"max_bytes": 2 * MIB, "map_bytes": map_bytes, "value_bytes_max": 64 << 10, "evictable": False}
    options["timeout_ms"] = 30_000
    actors = [fleet.start("storing.fill", folder=folder, name=name, seconds=3, options=options) for name in "abc"]
    told = [actor.result() for actor in actors]
    assert {word for each in told for word in each["errors"]} == {"NoSpace"}

    cache = make_cache(**options)
    keys = cache.list_keys()
    assert all(cache.get(key) is not None for key in keys[:50])
    for _ in range(3):  # full, emptied, full again: it never wedges
        with pytest.raises(NoSpace, match="max_bytes"):
            for number in range(2000):
                cache.set(f"more{number}", b"x" * 6000)
        keys = cache.list_keys()
        for key in keys[: len(keys) // 2]:
            assert cache.delete(key)
        assert cache.set("after", "room")
        assert cache.get("after") == "room"


def _assert_survived(told: dict) -> None:
    error, first, stored, after, reopened = told["told"]
    assert error.split(":")[0] in ("NoSpace", "StorageError"), told
    assert "Nothing was" in error, told
    assert told["written"] > 20 and told["missing"] == 0, told
    assert (first, stored, after, reopened) == ("here", "True", "room", "room"), told


def test_file_that_may_not_grow_answers_clearly_and_comes_back(fleet, folder):
    _assert_survived(fleet.run("storing.fill_limited_file", folder=folder))


@pytest.fixture
def small_disk(tmp_path):
    """A disk of four megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk is not allowed here")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_full_disk_answers_clearly_reads_go_on_and_it_comes_back(fleet, small_disk):
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 2 * MIB)
    told = fleet.run("storing.fill_disk", folder=str(small_disk / "store"), ballast=str(ballast))

    _assert_survived(told)
    assert told["told"][0].startswith("NoSpace: The disk of "), told

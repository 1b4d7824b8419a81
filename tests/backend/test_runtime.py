"""What backend objects share: engines, descriptors, status per task; unreadable records as counted misses."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import caches
from django.db import close_old_connections

from django_keyspace.backend import KeyspaceCache, runtime
from django_keyspace.exceptions import ConfigurationError, KeyspaceError
from django_keyspace.status import Status, status_of_error


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0


def make(folder: Path, **options: Any) -> KeyspaceCache:
    return KeyspaceCache(str(folder), {"OPTIONS": options})


def test_ten_thousand_objects_cost_no_descriptor_and_no_thread(store_folder: Path) -> None:
    make(store_folder).set("k", 1)
    before, threads = descriptors(), set(threading.enumerate())
    objects = [make(store_folder) for _ in range(10_000)]
    assert all(cache.get("k") == 1 for cache in objects[::100])
    # Fewer is no fault of theirs: what an earlier test began may end now.
    assert descriptors() <= before and set(threading.enumerate()) <= threads
    assert len({id(cache._runtime) for cache in objects}) == 1
    assert len(runtime._by_identity) <= 256


def test_making_an_object_opens_nothing(store_folder: Path) -> None:
    cache = make(store_folder)
    with cache.batch(), cache.atomic():
        pass
    cache.close()
    cache.shutdown()
    assert cache.get_many([]) == {} and cache.last_status is None
    assert not store_folder.exists()


def test_django_hands_out_objects_that_share(settings: Any, store_folder: Path) -> None:
    settings.CACHES = {
        "default": {"BACKEND": "django_keyspace.backend.KeyspaceCache", "LOCATION": str(store_folder)},
        "other": {
            "BACKEND": "django_keyspace.backend.KeyspaceCache",
            "LOCATION": f"embedded:{store_folder}",
            "OPTIONS": {"database": 1, "serializer": "json"},
        },
    }
    caches["default"].set("k", 1)
    assert caches["other"].get("k") is None
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend([caches["default"], caches["default"].get("k")]))
    thread.start()
    thread.join()
    assert found[0] is not caches["default"] and found[1] == 1
    assert found[0]._runtime is caches["default"]._runtime
    assert caches["other"]._runtime.engine.store is caches["default"]._runtime.engine.store
    close_old_connections()


def test_aliases_with_other_options_of_the_store_are_refused(store_folder: Path) -> None:
    make(store_folder)
    with pytest.raises(ConfigurationError, match="different options"):
        make(store_folder, max_bytes=2**24)
    make(store_folder, serializer="json")
    with pytest.raises(ConfigurationError, match="Did you mean"):
        make(store_folder, serialiser="json")


def test_status_is_told_to_the_thread_that_called(store_folder: Path) -> None:
    cache = make(store_folder)
    cache.set("k", 1)
    seen: list[Any] = []

    def elsewhere() -> None:
        seen.append(cache.last_status)
        cache.get("missing")
        seen.append(cache.last_status)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [None, Status.FAILED]
    assert cache.last_status is Status.SUCCESS


async def test_gathered_tasks_keep_their_own_status(store_folder: Path) -> None:
    cache = make(store_folder)
    await cache.aset("k0", 0)

    async def one(number: int) -> tuple[int, Status | None]:
        await cache.aget("k0" if number % 2 else "missing")
        await asyncio.sleep(0)
        return number, cache.last_status

    for number, status in await asyncio.gather(*(one(number) for number in range(100))):
        assert status is (Status.SUCCESS if number % 2 else Status.FAILED)


async def test_gathered_writes_are_committed_together_and_each_gets_its_answer(store_folder: Path) -> None:
    cache = make(store_folder)
    await cache.aset("text", "x")
    commits = (await cache.astatus())["counters"]["commits"]
    answers = await asyncio.gather(
        *(cache.aincr("n", default=0) for _ in range(100)), cache.aincr("text"), return_exceptions=True
    )
    assert answers[:100] == list(range(1, 101))
    assert type(answers[100]).__name__ == "NotANumber"
    assert (await cache.astatus())["counters"]["commits"] - commits < 20


async def test_a_cancelled_task_disturbs_nobody(store_folder: Path) -> None:
    cache = make(store_folder)
    tasks = [asyncio.create_task(cache.aset(f"k{number}", number)) for number in range(10)]
    await asyncio.sleep(0)
    tasks[3].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[3], asyncio.CancelledError)
    assert [result for number, result in enumerate(results) if number != 3] == [True] * 9
    assert await cache.aget("k9") == 9


def test_many_event_loops_leave_nothing_behind(store_folder: Path) -> None:
    cache = make(store_folder)
    cache.set("k", 1)
    async_to_sync(cache.aset)("k", 1)
    before = descriptors()
    for number in range(200):
        assert async_to_sync(cache.aget)("k") == 1
        async_to_sync(cache.aset)(f"k{number % 5}", number)
    gc.collect()
    assert descriptors() <= before + 2
    assert len(cache._runtime.engine._pending) <= 2


async def test_long_reads_of_coroutines(store_folder: Path) -> None:
    cache = make(store_folder)
    data = {f"k{number:04}": number for number in range(1_000)}
    assert await cache.aset_many(data) == []
    assert await cache.aget_many(data) == data
    assert await cache.alist_keys("k") == list(data)
    assert await cache.acount() == 1_000


def test_an_unreadable_record_is_a_counted_miss(store_folder: Path) -> None:
    ours, theirs = make(store_folder), make(store_folder, serializer="json")
    ours.set_many({"a": (1,), "b": "native"})
    before = dict(ours._runtime.counters.as_dict())
    assert theirs.get("a", "default") == "default"
    assert theirs.get_many(["a", "b"]) == {"b": "native"}
    assert theirs.list_key_values() == {"b": "native"}
    assert theirs.cas("a", [1], 5) is False
    assert theirs.get_with_revision("a")[0] is None
    after = ours._runtime.counters.as_dict()
    assert after["misses"] - before["misses"] == 3 and after["hits"] - before["hits"] == 1
    assert theirs.remove("a", "default") == "default"
    assert theirs.has_key("a") is False


def test_every_error_has_a_status() -> None:
    def subclasses(cls: type) -> list[type]:
        return [cls, *(found for child in cls.__subclasses__() for found in subclasses(child))]

    for cls in subclasses(KeyspaceError):
        assert isinstance(status_of_error(cls("why")), Status)

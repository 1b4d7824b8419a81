"""Locks among threads, tasks and processes: who holds them, what the tokens say, and what is left when somebody goes."""

from __future__ import annotations

import asyncio
import doctest
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from django_keyspace.backend import KeyspaceCache
from django_keyspace.backend.waiting import pauses_s
from django_keyspace.exceptions import LockLost, LockNotAcquired, StorageError, UnknownOutcome
from django_keyspace.testing import running_node
from tests.multiprocess.fleet import Fleet

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["embedded", pytest.param("node", marks=pytest.mark.node)])
def location(request: pytest.FixtureRequest, store_folder: Path) -> Iterator[str]:
    """Where the cache lies: a folder, or a node of its own."""
    if request.param == "embedded":
        yield str(store_folder)
    else:
        with running_node() as node:
            yield node.location


@pytest.fixture
def cache(location: str) -> Iterator[KeyspaceCache]:
    """A cache at that place."""
    cache = KeyspaceCache(location, {})
    yield cache
    cache.shutdown()


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """Starts processes."""
    fleet = Fleet()
    try:
        yield fleet
    finally:
        strays = fleet.dismiss()
    assert not strays


def test_pauses_grow_differ_and_are_bounded() -> None:
    lengths_s = pauses_s()
    taken = [next(lengths_s) for _ in range(40)]
    assert 0 < taken[0] <= 0.001 and taken[0] < taken[5] < taken[10]
    assert all(0.05 <= length_s <= 0.1 for length_s in taken[20:]) and len(set(taken)) == 40


def test_threads_and_tasks_exclude_each_other_and_lose_no_count(cache: KeyspaceCache) -> None:
    inside, most, tokens = [0], [0], []

    def enter(token: int) -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        tokens.append(token)

    def threads() -> None:
        for _ in range(15):
            with cache.lock("job", wait=60) as lease:
                enter(lease.token)
                number = cache.get("n", 0)
                cache.set("n", number + 1)
                inside[0] -= 1

    async def task() -> None:
        for _ in range(15):
            async with cache.lock("job", wait=60) as lease:
                enter(lease.token)
                number = await cache.aget("n", 0)
                await cache.aset("n", number + 1)
                inside[0] -= 1

    async def tasks() -> None:
        await asyncio.gather(task(), task())

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(threads) for _ in range(3)] + [pool.submit(asyncio.run, tasks())]
        for future in futures:
            future.result(60)
    assert most == [1] and cache.get("n") == 75
    assert tokens == sorted(set(tokens)) and len(tokens) == 75


@pytest.mark.stress
def test_tokens_of_4_processes_are_unique_and_grow(fleet: Fleet, location: str) -> None:
    actors = [fleet.start("locking.acquire", location=location, times=50) for _ in range(4)]
    for actor in actors:
        assert actor.hear() == "ready"
    for actor in actors:
        actor.tell("go")
    told = [actor.result() for actor in actors]
    by_turn = sorted(
        (number, token) for each in told for number, token in zip(each["found"], each["tokens"], strict=True)
    )
    assert [number for number, _ in by_turn] == list(range(200)), "two were inside at once"
    tokens = [token for _, token in by_turn]
    assert tokens == sorted(set(tokens)), "a later acquisition has a greater token"


@pytest.mark.stress
@pytest.mark.skipif(sys.platform == "win32", reason="kills a process")
def test_the_lock_of_a_killed_process_is_free_when_its_lease_is_over(
    fleet: Fleet, location: str, cache: KeyspaceCache
) -> None:
    actor = fleet.start("locking.die", location=location, how="lock")
    assert actor.hear() == "holding"
    actor.kill()
    lock = cache.lock("job", wait=20)
    assert lock.acquire(0) is False
    assert lock.acquire() is True


def test_a_cancelled_waiter_leaves_the_lock_alone(cache: KeyspaceCache) -> None:
    async def main() -> None:
        holder, waiter = cache.lock("job"), cache.lock("job", wait=60)
        assert await holder.aacquire()
        task = asyncio.create_task(waiter.aacquire())
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await holder.aowned()
        await holder.arelease()
        assert not await waiter.alocked()

    asyncio.run(main())


def test_an_acquisition_that_is_cancelled_under_way_leaves_no_lease(cache: KeyspaceCache) -> None:
    """The operation was sent, and nobody waits for its answer: whether it was done is not known, so it is undone."""

    async def main() -> None:
        for turns in range(12):
            task = asyncio.create_task(cache.lock("job", timeout=600).aacquire())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            try:
                assert await task is True
            except asyncio.CancelledError:
                assert await cache.lock("job").alocked() is False
            else:
                await cache.adelete("lock:job")

    asyncio.run(main())


def test_a_block_that_is_cancelled_releases_its_lock(cache: KeyspaceCache) -> None:
    async def main() -> None:
        entered = asyncio.Event()

        async def work() -> None:
            async with cache.lock("job", timeout=600):
                entered.set()
                await asyncio.sleep(600)

        task = asyncio.create_task(work())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not await cache.lock("job").alocked()

    asyncio.run(main())


def test_waiting_tasks_do_not_hold_up_their_loop(cache: KeyspaceCache) -> None:
    async def main() -> None:
        await cache.lock("job").aacquire()
        waiters = asyncio.gather(*(cache.lock("job", wait=0.3).aacquire() for _ in range(20)))
        longest_s, last_s = 0.0, monotonic()
        while not waiters.done():
            await asyncio.sleep(0.005)
            longest_s, last_s = max(longest_s, monotonic() - last_s), monotonic()
        assert waiters.result() == [False] * 20
        assert longest_s < 0.25

    asyncio.run(main())


@pytest.mark.parametrize("on_error", ["raise", "miss"])
@pytest.mark.parametrize("error", [StorageError("disk"), UnknownOutcome("lost")], ids=["storage", "unknown"])
def test_nobody_wins_or_holds_a_lock_while_the_store_is_out_of_reach(
    store_folder: Path, monkeypatch: pytest.MonkeyPatch, on_error: str, error: Exception
) -> None:
    cache = KeyspaceCache(str(store_folder), {"OPTIONS": {"on_error": on_error}})
    held = cache.lock("held")
    assert held.acquire()

    def fail(name: str, *arguments: Any) -> Any:
        raise error

    async def afail(name: str, *arguments: Any) -> Any:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(cache, "_do", fail)
        patch.setattr(cache, "_ado", afail)
        lock = cache.lock("job")
        for method in (lock.acquire, lock.locked, held.release, held.extend, held.owned):
            with pytest.raises(type(error)):
                method()
            with pytest.raises(type(error)):
                asyncio.run(getattr(held if method.__self__ is held else lock, f"a{method.__name__}")())
        with pytest.raises(type(error)), lock:
            pytest.fail("entered")
    assert held.owned(), "what failed can be tried again"
    held.release()


def test_a_failing_block_is_reported_and_not_what_became_of_its_lease(
    store_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = KeyspaceCache(str(store_folder), {})

    def fail(name: str, *arguments: Any) -> Any:
        raise StorageError("disk")

    with pytest.raises(ZeroDivisionError), cache.lock("job"):
        monkeypatch.setattr(cache, "_do", fail)
        raise ZeroDivisionError


def test_ctrl_c_while_waiting_and_while_holding_leaves_nothing(
    store_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = KeyspaceCache(str(store_folder), {})

    def interrupt(length_s: float) -> None:
        raise KeyboardInterrupt

    with cache.lock("job"):
        monkeypatch.setattr("django_keyspace.backend.waiting.time.sleep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            cache.lock("job").acquire()
    with pytest.raises(KeyboardInterrupt), cache.lock("job"):
        raise KeyboardInterrupt
    # The operation was carried out, and its answer was never seen:
    do: Callable[..., Any] = cache._do

    def interrupted(name: str, *arguments: Any) -> Any:
        answer = do(name, *arguments)
        if name == "atomic":
            raise KeyboardInterrupt
        return answer

    monkeypatch.setattr(cache, "_do", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.lock("job").acquire()
    assert cache.keys() == []


def test_a_clear_takes_the_lock_and_the_token_still_grows(cache: KeyspaceCache) -> None:
    first, second = cache.lock("job"), cache.lock("job")
    assert first.acquire()
    cache.clear()
    assert second.acquire() and second.token > first.token
    with pytest.raises(LockLost):
        first.release()
    assert second.owned()
    with pytest.raises(LockNotAcquired), cache.lock("job", wait=0):
        pytest.fail("entered")


def test_locks_of_an_alias_that_keeps_its_records_are_not_cleared(store_folder: Path) -> None:
    cache = KeyspaceCache(str(store_folder), {"OPTIONS": {"evictable": False}})
    with cache.lock("job") as lease:
        cache.clear()
        assert lease.owned()


def test_one_thread_waits_for_another(cache: KeyspaceCache) -> None:
    waited: list[bool] = []
    lock = cache.lock("job")
    assert lock.acquire()
    thread = threading.Thread(target=lambda: waited.append(cache.lock("job", wait=30).acquire()))
    thread.start()
    lock.release()
    thread.join(30)
    assert waited == [True]


def test_the_examples_of_the_documentation_run(store_folder: Path) -> None:
    names = {"cache": KeyspaceCache(str(store_folder), {}), "__name__": "reports"}
    failed, tried = doctest.testfile(
        str(ROOT / "docs" / "locks.md"), module_relative=False, globs=names, optionflags=doctest.ELLIPSIS
    )
    assert tried > 10 and failed == 0

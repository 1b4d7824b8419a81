"""Event loops, threads and forks in one process."""

from __future__ import annotations

import asyncio
import os
import threading
import time

from asgiref.sync import async_to_sync

from tests.multiprocess.actors import make_cache, say


def gathered_tasks(folder: str) -> None:
    """A hundred tasks after the parent has touched the cache: each looks at its own last status."""
    cache = make_cache(folder)

    async def task(number: int) -> str:
        if number % 2:
            await cache.aset(f"key{number}", number)
        await asyncio.sleep(0)
        found = await cache.aget(f"key{number}")
        await asyncio.sleep(0.01 if number % 3 else 0)
        status = cache.last_status
        return f"{found} {status.name if status is not None else None}"

    async def tasks() -> list[str]:
        await cache.aset("touched", 1)
        await cache.adelete("missing")
        before = cache.last_status
        told = await asyncio.gather(*(task(number) for number in range(100)))
        assert cache.last_status is before
        return told

    say(asyncio.run(tasks()))


def bridge(folder: str, times: int) -> None:
    """Call async methods from sync code, many times; count descriptors and threads."""
    cache = make_cache(folder)
    aset, aget = async_to_sync(cache.aset), async_to_sync(cache.aget)

    def figures() -> list[int]:
        return [len(os.listdir("/proc/self/fd")), threading.active_count()]

    for number in range(20):
        aset("key", number)
    before = figures()
    for number in range(times):
        aset("key", number)
        assert aget("key") == number
    after, until_s = figures(), time.monotonic() + 10
    while time.monotonic() < until_s and any(now > then + 1 for now, then in zip(after, before, strict=True)):
        time.sleep(0.02)  # threads of the last calls may still be on their way out, on a busy machine several
        after = figures()
    say({"before": before, "after": after, "pending": len(cache._runtime.engine._pending)})


def mix(folder: str, threads: int, tasks: int, times: int) -> None:
    """Threads that write, and threads with an event loop of their own whose tasks write, on one counter."""
    cache = make_cache(folder, timeout_ms=30_000)
    cache.set("counted", 0)
    troubles: list[str] = []

    def work() -> None:
        for _ in range(times):
            cache.incr("counted")

    async def task() -> None:
        for _ in range(times):
            number = await cache.aincr("counted")
            assert await cache.aget("counted") >= number

    async def loop() -> None:
        await asyncio.gather(*(task() for _ in range(tasks)))

    def guarded(function: object) -> None:
        try:
            function()  # type: ignore[operator]
        except BaseException as error:
            troubles.append(repr(error))

    started = [threading.Thread(target=guarded, args=(work,)) for _ in range(threads)]
    started += [threading.Thread(target=guarded, args=(lambda: asyncio.run(loop()),)) for _ in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    say({"counted": cache.get("counted"), "expected": threads * times * (1 + tasks), "troubles": troubles})

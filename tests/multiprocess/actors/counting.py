"""Processes that count."""

from __future__ import annotations

import asyncio
import os

from tests.multiprocess.actors import hear, make_cache, say


def count(folder: str, name: str, times: int, keys: int) -> None:
    """Increment shared counters and append to shared texts, when told to."""
    cache = make_cache(folder, timeout_ms=60_000)
    say("ready")
    hear()
    for number in range(times):
        cache.incr(f"counter{number % keys}")
        cache.append(f"text{number % keys}", f"{name}{number};")
    say("done")


def acount(folder: str, name: str, times: int, keys: int) -> None:
    """The same from an event loop, some tasks at a time."""
    cache = make_cache(folder, timeout_ms=60_000)

    async def task(first: int, step: int) -> None:
        for number in range(first, times, step):
            await cache.aincr(f"counter{number % keys}")
            await cache.aappend(f"text{number % keys}", f"{name}{number};")

    async def tasks() -> None:
        # A text gets a process's numbers in order: each task keeps to its own key.
        await asyncio.gather(*(task(first, keys) for first in range(keys)))

    say("ready")
    hear()
    asyncio.run(tasks())
    say("done")


def open_new(folder: str, times: int) -> None:
    """Fork processes that all open one new store when told to, write, and tell whether they made it."""
    from django_keyspace.store import open_store
    from django_keyspace.store import opening as store_module

    environment_class = store_module.Environment
    made: list[bool] = []

    def observed(folder: object, options: object, is_new: bool) -> object:
        made.append(is_new)
        return environment_class(folder, options, is_new)  # type: ignore[arg-type]

    store_module.Environment = observed  # type: ignore[assignment,misc]
    store = open_store(folder)
    gate, starter = os.pipe()
    answers, teller = os.pipe()
    for _ in range(times):
        if os.fork() == 0:
            os.close(starter)
            os.read(gate, 1)  # until the last writing end is closed
            code = 1
            try:
                store.write("incr", 0, b"opened", 1, 0, None, 0)
                store.write("set", 0, b"pid%d" % os.getpid(), (1, 0, b"here"), None, "always")
                os.write(teller, f"{int(made[0])} {store.folder.state.store_id}\n".encode())
                code = 0
            finally:
                os._exit(code)
    os.close(teller)
    say("ready")
    hear()
    os.close(starter)
    codes = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(times)]
    with open(answers) as lines:
        told = [line.split() for line in lines]
    say({"codes": codes, "made": sum(int(made) for made, _ in told), "store_ids": [store_id for _, store_id in told]})

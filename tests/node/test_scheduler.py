"""The scheduler of a real node: turns of the loop, and one thread per name."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from django_keyspace.node.scheduler import LoopScheduler


def on_loop(play: Callable[[LoopScheduler, asyncio.Future[Any]], None]) -> Any:
    """Run something with a scheduler until its future is done."""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        scheduler, done = LoopScheduler(loop), loop.create_future()
        play(scheduler, done)
        try:
            async with asyncio.timeout(30):
                return await done
        finally:
            scheduler.stop()

    return asyncio.run(main())


def test_results_and_errors_come_back_to_the_loop_in_order() -> None:
    seen: list[Any] = []

    def play(scheduler: LoopScheduler, done: asyncio.Future[Any]) -> None:
        def work(number: int) -> Any:
            if number == 3:
                raise ValueError("three")
            return number, threading.current_thread().name

        def take(result: Any) -> None:
            seen.append((result, threading.current_thread() is threading.main_thread()))
            if len(seen) == 5:
                done.set_result(None)

        for number in range(5):
            scheduler.in_thread("applier", lambda number=number: work(number), take)

    on_loop(play)
    assert all(on_main for _, on_main in seen)
    results = [result for result, _ in seen]
    assert isinstance(results.pop(3), ValueError)
    assert results == [(number, "keyspace-applier") for number in (0, 1, 2, 4)]


def test_each_name_has_a_thread_of_its_own() -> None:
    """Work of one name may wait for work of another one."""
    first_may_end = threading.Event()

    def play(scheduler: LoopScheduler, done: asyncio.Future[Any]) -> None:
        scheduler.in_thread("first", lambda: first_may_end.wait(30), done.set_result)
        scheduler.in_thread("second", first_may_end.set, lambda _: None)

    assert on_loop(play) is True


def test_timers_turns_and_calls_of_other_threads() -> None:
    order: list[str] = []

    def play(scheduler: LoopScheduler, done: asyncio.Future[Any]) -> None:
        scheduler.call_later(10, order.append, "later")
        scheduler.call_later(5, order.append, "never").cancel()
        scheduler.call_later(20, done.set_result, None)
        scheduler.call_soon(order.append, "soon")
        thread = threading.Thread(target=scheduler.call_threadsafe, args=(order.append, "thread"))
        thread.start()
        thread.join()

    on_loop(play)
    assert order == ["soon", "thread", "later"]


def test_what_comes_after_the_end_of_the_loop_is_dropped() -> None:
    loop = asyncio.new_event_loop()
    scheduler = LoopScheduler(loop)
    loop.close()
    scheduler.in_thread("late", lambda: None, lambda _: None)
    scheduler.call_threadsafe(print)
    scheduler.stop()

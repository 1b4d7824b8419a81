"""The turns of a node's loop and the threads beside it, in a real process: an asyncio event loop and daemon threads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from django_keyspace.node.interfaces import Handle

logger = logging.getLogger("django_keyspace.node")

T = TypeVar("T")
Job = tuple[Callable[[], Any], Callable[[Any], None]]


class LoopScheduler:
    """See :class:`~django_keyspace.node.interfaces.Scheduler`.

    Arguments:
        loop: the event loop; its thread calls everything but :meth:`call_threadsafe`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._threads: dict[str, tuple[SimpleQueue[Job | None], Thread]] = {}

    def call_soon(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call it in the next turn of the loop."""
        self._loop.call_soon(function, *arguments)

    def call_later(self, delay_ms: int, function: Callable[..., None], *arguments: Any) -> Handle:
        """Call it after so many milliseconds."""
        return self._loop.call_later(delay_ms / 1000, function, *arguments)

    def call_threadsafe(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call it on the loop's thread, soon; for other threads. After the loop's end nothing is called any more."""
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            logger.debug("The loop had ended before %r could be called", function)

    def in_thread(self, name: str, work: Callable[[], T], done: Callable[[T | Exception], None]) -> None:
        """Do something on a thread of its own: one per name, in order."""
        known = self._threads.get(name)
        if known is None:
            jobs: SimpleQueue[Job | None] = SimpleQueue()
            known = jobs, Thread(target=self._run, args=(jobs,), name=f"keyspace-{name}", daemon=True)
            self._threads[name] = known
            known[1].start()
        known[0].put((work, done))

    def stop(self) -> None:
        """Return when all threads have done what they were given, and have ended."""
        for jobs, _ in self._threads.values():
            jobs.put(None)
        for _, thread in self._threads.values():
            thread.join()
        self._threads.clear()

    def _run(self, jobs: SimpleQueue[Job | None]) -> None:
        while (job := jobs.get()) is not None:
            work, done = job
            try:
                result = work()
            except Exception as error:
                result = error
            self.call_threadsafe(done, result)
            # What was done must not be kept alive while this thread waits for more.
            del job, work, done, result

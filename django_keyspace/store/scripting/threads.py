"""The threads that wait for scripts on behalf of event loops: a few, and a bounded number of scripts before them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from django_keyspace.exceptions import Overloaded
from django_keyspace.store.scripting.pool import WORKERS_MAX

WAITING_MAX: Final = 256
"""Scripts that may run or wait for a thread; more are refused."""

R = TypeVar("R")


class ScriptThreads:
    """Threads for scripts, started by their first use.

    Arguments:
        threads_max: how many there may be.
        waiting_max: how many scripts may run or wait.
    """

    def __init__(self, threads_max: int = WORKERS_MAX, waiting_max: int = WAITING_MAX) -> None:
        self._threads_max = threads_max
        self._waiting_max = waiting_max
        self.after_fork()

    def after_fork(self) -> None:
        """In a forked child: the threads are the parent's."""
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None
        self._waiting = 0

    def submit(self, work: Callable[[], R]) -> Future[R]:
        """Have something done in one of the threads.

        Raises:
            Overloaded: too much is waiting already.
        """
        with self._lock:
            if self._waiting >= self._waiting_max:
                raise Overloaded(f"{self._waiting:,} scripts are waiting already. Nothing was done. Try again later.")
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self._threads_max, thread_name_prefix="keyspace-script")
            self._waiting += 1
            future = self._executor.submit(work)
        future.add_done_callback(self._one_less)
        return future

    def _one_less(self, future: Future[R]) -> None:
        with self._lock:
            self._waiting -= 1


threads: Final = ScriptThreads()
"""Those of this process."""

os.register_at_fork(after_in_child=threads.after_fork)

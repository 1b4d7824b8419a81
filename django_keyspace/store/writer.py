"""The writer thread of a store: commits for callers who must not wait themselves, in groups.

An event loop hands its operations over and goes on. Whatever has come together while the last commit ran goes into the
next transaction: a hundred tasks that set a key cost one commit.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from django_keyspace.exceptions import KeyspaceError, StorageError
from django_keyspace.operations import Call
from django_keyspace.store.admission import incoming_bytes

if TYPE_CHECKING:
    from django_keyspace.store.store import Store

logger = logging.getLogger("django_keyspace.store")

Done = Callable[[list[Any]], None]
"""Takes the result of each operation, or the error of those that failed. Called from the writer thread."""

GROUP_CALLS_MAX: Final = 1000
"""A transaction ends after the submission that brings it to so many operations."""

GROUP_BYTES_MAX: Final = 8 * 2**20
"""The same for bytes."""

_Submission = tuple[Sequence[Call], Done]


class WriterThread:
    """The writer thread of one store in one process; started by its first use.

    Arguments:
        store: whose ``write_many`` it calls.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queue: SimpleQueue[_Submission | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def submit(self, calls: Sequence[Call], done: Done) -> None:
        """Queue operations."""
        self._queue.put((calls, done))
        if self._thread is None:
            self._start()

    def stop(self) -> None:
        """Finish what is queued and end the thread."""
        with self._starting:
            thread, self._thread = self._thread, None
            if thread is not None and thread is not threading.current_thread():
                self._queue.put(None)
                thread.join()  # before another one may start, which could take the end that is meant for this one

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="keyspace-writer", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            group, ended = self._gather(first)
            self._commit(group)
            if ended:
                return

    def _gather(self, first: _Submission) -> tuple[list[_Submission], bool]:
        """What is queued, up to the limits of a group; and whether :meth:`stop` was among it."""
        group, calls, size_bytes = [first], len(first[0]), sum(map(incoming_bytes, first[0]))
        # A group that is larger than the store could never find room, although each of its operations does.
        group_bytes_max = min(GROUP_BYTES_MAX, self._store.options.max_bytes >> 5)
        while calls < GROUP_CALLS_MAX and size_bytes < group_bytes_max and not self._queue.empty():
            submission = self._queue.get()
            if submission is None:
                return group, True
            group.append(submission)
            calls += len(submission[0])
            size_bytes += sum(map(incoming_bytes, submission[0]))
        return group, False

    def _commit(self, group: list[_Submission]) -> None:
        results: list[Any]
        calls = [call for submission, _ in group for call in submission]
        try:
            results = self._store.write_many(calls)
        except KeyspaceError as error:
            results = [error] * len(calls)
        except Exception as error:
            logger.exception("A group of %d writes failed unexpectedly; nothing of it was written.", len(calls))
            failure = StorageError(f"The write failed unexpectedly and was not done: {error!r}. Please report this.")
            results = [failure] * len(calls)
        position = 0
        for submission, done in group:
            done(results[position : position + len(submission)])
            position += len(submission)

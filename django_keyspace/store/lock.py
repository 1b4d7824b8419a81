"""The writer lock: one writer at a time among all threads and processes, with a deadline.

LMDB has a writer lock of its own, which cannot time out: one frozen process (a debugger, a paused container) would hang
every writer of the host. So writers pass this lock first: a mutex among the threads of a process, then ``flock`` on a file
of ours. A killed holder's lock is released by the kernel.

``flock`` cannot time out either. It is tried, a few times if another process holds it, since most commits are over at
once; then a helper thread waits for it without polling, and the caller waits for the helper as long as its deadline
allows. A helper that gets the lock after its caller gave up releases it at once.
"""

from __future__ import annotations

import contextlib
import os
import threading
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from time import monotonic

from django_keyspace.exceptions import LockTimeout, StorageError
from django_keyspace.store.errors import advice

_EXCLUSIVE_NOW = LOCK_EX | LOCK_NB
_CLOSE_WAIT_S = 5.0
_YIELDS = 30
"""How often the processor is offered to others, the holder perhaps, before the helper is woken. A commit takes some ten
microseconds and the helper's two thread switches take more; docs/design.md has what this was measured to change."""


class LockClosed(Exception):
    """The store was closed in this process while the caller waited: open it again, and take its new lock."""


class WriterLock:
    """The writer lock of one store in this process. Never shared across a fork: the child makes a new one.

    Arguments:
        path: the lock file; made if it is missing.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._mutex = threading.Lock()
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(
                f"The lock file {path} cannot be opened by this user (uid {os.geteuid()}): {error.strerror}. "
                f"{advice(error.errno)}"
            ) from error
        self._helper: _Helper | None = None
        self._closed = False

    def acquire(self, wait_s: float) -> None:
        """Take the lock.

        Arguments:
            wait_s: how long to wait for it at most, in seconds.
        Raises:
            LockTimeout: somebody else held it all that time.
            LockClosed: :meth:`close` came first.
        """
        if not self._mutex.acquire(False):
            started = monotonic()
            if not self._mutex.acquire(timeout=max(wait_s, 0)):
                raise self._timeout(wait_s, "another thread of this process")
            wait_s -= monotonic() - started
        if self._closed:
            self._mutex.release()
            raise LockClosed
        try:
            if self._helper is None or not self._helper.is_waiting:
                flock(self._file, _EXCLUSIVE_NOW)
                return
        except BlockingIOError:
            pass
        except BaseException:
            self._mutex.release()
            raise
        self._wait_for_file(wait_s)

    def release(self) -> None:
        """Give the lock back."""
        flock(self._file, LOCK_UN)
        self._mutex.release()

    def close(self) -> None:
        """Close the file, as soon as no thread holds the lock; those that wait for it get :class:`LockClosed`.

        A thread that does not give it back for long keeps the file open: closed under it, the number could be another file's.
        """
        if not self._mutex.acquire(timeout=_CLOSE_WAIT_S):
            return
        try:
            if not self._closed:
                self._closed = True
                if self._helper is None or self._helper.stop():
                    os.close(self._file)
        finally:
            self._mutex.release()

    def close_inherited(self) -> None:
        """In a forked child: close its descriptor. The lock stays the parent's, and no inherited lock object is touched."""
        self._closed = True
        os.close(self._file)

    def _wait_for_file(self, wait_s: float) -> None:
        started = monotonic()
        try:
            for _ in range(0 if self._is_helper_waiting() else _YIELDS):
                os.sched_yield()
                with contextlib.suppress(BlockingIOError):
                    flock(self._file, _EXCLUSIVE_NOW)
                    return
            wait_s -= monotonic() - started
            if self._helper is None:
                self._helper = _Helper(self._file)
            acquired = self._helper.wait_for_lock(wait_s)
        except BaseException:
            self._mutex.release()
            raise
        if not acquired:
            self._mutex.release()
            raise self._timeout(wait_s, "another process")

    def _is_helper_waiting(self) -> bool:
        """Whether the helper of a caller that gave up still waits.

        It does so on the same open file: were the lock taken beside it, the helper would get it as well, and give it up.
        """
        return self._helper is not None and self._helper.is_waiting

    def _timeout(self, wait_s: float, holder: str) -> LockTimeout:
        return LockTimeout(
            f"The writer lock {self._path} was held by {holder} for all of the {max(wait_s, 0):.3g} s that this call may "
            "wait. Nothing was written. Is a process paused in mid-write, or a very long write running?"
        )


class _Helper:
    """A thread that waits in ``flock`` on behalf of a caller who has a deadline.

    The mutex of :class:`WriterLock` lets one caller at a time in. A caller that gives up leaves the helper waiting; the
    next caller joins that wait.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self._condition = threading.Condition()
        self.is_waiting = False  # the thread is in flock; set under the mutex of the lock, and reset when it is out
        self._wanted = False  # a caller waits for its outcome
        self._acquired = False
        self._stopped = False
        threading.Thread(target=self._run, name="keyspace-writer-lock", daemon=True).start()

    def wait_for_lock(self, wait_s: float) -> bool:
        """Wait for the file lock; True if the caller now holds it."""
        with self._condition:
            self._wanted = self.is_waiting = True
            self._condition.notify_all()
            try:
                self._condition.wait_for(lambda: self._acquired, timeout=max(wait_s, 0))
            except BaseException:  # a signal handler's: nobody will come for the lock
                if self._acquired:
                    flock(self._file, LOCK_UN)
                self._acquired = self._wanted = False
                raise
            acquired, self._acquired, self._wanted = self._acquired, False, False
            return acquired

    def stop(self) -> bool:
        """End the thread. False if it is in ``flock``: then it closes the file when it comes out."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()
            return not self.is_waiting

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self.is_waiting or self._stopped)
                if not self.is_waiting:
                    return
            flock(self._file, LOCK_EX)
            with self._condition:
                if self._stopped:
                    os.close(self._file)
                    return
                if self._wanted:
                    self._acquired = True
                    self._condition.notify_all()
                else:
                    flock(self._file, LOCK_UN)
                self.is_waiting = False

"""The gate that every LMDB transaction of a process passes, so that the process can be forked and the map can grow.

LMDB demands that no transaction lives in the process while its map is resized, and an environment must not be used on both
sides of a fork. Whoever needs that quiet *shuts* the gate: new transactions wait in front of it, running ones end.

The hot path pays two dictionary operations and one look at a flag. A transaction first announces itself and then looks at
the flag; the one who shuts first sets the flag and then looks for announcements. One of the two always sees the other.
"""

from __future__ import annotations

import threading
from threading import get_ident
from time import monotonic, sleep


class TransactionGate:
    """Attributes:
    active: what each thread that is inside is doing, by thread id. Fast paths add and remove their own entry.
    is_shut: whether new transactions must wait in :meth:`enter`.
    """

    def __init__(self) -> None:
        self.active: dict[int, str] = {}
        self.is_shut = False
        self._shutter = threading.Lock()
        self._opened = threading.Event()

    def enter(self, what: str) -> None:
        """Announce this thread's transaction; waits while the gate is shut."""
        ident = get_ident()
        while True:
            self.active[ident] = what
            if not self.is_shut:
                return
            del self.active[ident]
            self._opened.wait()

    def leave(self) -> None:
        """End what :meth:`enter` began."""
        self.active.pop(get_ident(), None)

    def shut(self, wait_s: float) -> dict[int, str]:
        """Stop new transactions and wait for the running ones of other threads.

        Arguments:
            wait_s: how long to wait, in seconds.
        Returns:
            What is still running after that time, by thread id; empty means quiet. The gate is shut in either case, and
            :meth:`open` must follow.
        """
        self._shutter.acquire()
        self._opened.clear()
        self.is_shut = True
        ident, deadline = get_ident(), monotonic() + wait_s
        while True:
            running = {thread: what for thread, what in list(self.active.items()) if thread != ident}
            if not running or monotonic() >= deadline:
                return running
            # Transactions last microseconds. Signalling their end would put a condition variable into each of them.
            sleep(0.0005)

    def open(self) -> None:
        """Let transactions pass again."""
        self.is_shut = False
        self._opened.set()
        self._shutter.release()

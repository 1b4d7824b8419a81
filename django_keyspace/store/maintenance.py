"""The upkeep of a store: a thread that syncs once a second, sweeps what has expired, and clears dead readers.

It starts with the first write of a process and sleeps while there is nothing to do. Each process that writes runs one;
their work is cheap to find done already: the sweep first looks, in a read transaction, whether anything is due.
"""

from __future__ import annotations

import logging
import threading
from time import monotonic
from typing import TYPE_CHECKING, Final

from django_keyspace.exceptions import KeyspaceError
from django_keyspace.store.readers import ReaderWatch

if TYPE_CHECKING:
    from django_keyspace.store.store import Store

logger = logging.getLogger("django_keyspace.store")

TICK_S: Final = 1.0
SWEEP_RECORDS: Final = 500
_SWEEPS_PER_TICK_MAX: Final = 20
_READER_CHECK_S: Final = 60.0
_READER_LOOK_TICKS: Final = 5
_IDLE_TICKS_UNTIL_CLEAN: Final = 3
_SESSIONS_CHECK_S: Final = 30.0
SESSIONS_AT_A_TIME: Final = 500


class Maintenance:
    """The upkeep of one store in one process.

    Arguments:
        store: whose ``sync``, ``sweep`` and so on it calls.

    Attributes:
        is_running: whether the thread runs; each write looks at it.
        readers: who holds old states of the store.
    """

    def __init__(self, store: Store) -> None:
        self.is_running = False
        self._store = store
        self._starting = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._seen_commits = 0
        self._unsynced = False
        self._is_clean = True
        self._idle_ticks = self._ticks = 0
        self.readers = ReaderWatch(store.path)
        self._next_reader_check = monotonic() + _READER_CHECK_S
        self._next_sessions_check = monotonic() + _SESSIONS_CHECK_S

    def start(self) -> None:
        """Start the thread, unless it runs."""
        with self._starting:
            if self._thread is None:
                self._stopped = threading.Event()
                self._thread = threading.Thread(target=self._run, name="keyspace-maintenance", daemon=True)
                self._thread.start()
                self.is_running = True

    def stop(self) -> None:
        """End the thread."""
        with self._starting:
            thread, self._thread = self._thread, None
            self.is_running = False
        self._stopped.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        stopped = self._stopped
        while not stopped.wait(TICK_S):
            try:
                self.tick()
            except KeyspaceError as error:
                logger.warning("Upkeep of %s: %s", self._store.path, error)
            except Exception:
                logger.exception("Upkeep of %s failed.", self._store.path)

    def tick(self) -> None:
        """One second's upkeep. What would change a replicated store is its log's business."""
        store = self._store
        if not store.options.replicated:
            if store.reopen_if_replaced():
                return
            self._keep_durable()
            self._sweep()
            if monotonic() >= self._next_sessions_check:
                self._next_sessions_check = monotonic() + _SESSIONS_CHECK_S
                self.expire_sessions()
        if monotonic() >= self._next_reader_check:
            self._next_reader_check = monotonic() + _READER_CHECK_S
            store.check_readers()
        self._ticks += 1
        if self._ticks % _READER_LOOK_TICKS == 0:
            self.readers.look(*store.reader_table(), monotonic())

    def _keep_durable(self) -> None:
        """Sync, if the option says so, and note a while without writes."""
        store = self._store
        commits = store.counters.commits
        written, self._seen_commits = commits != self._seen_commits, commits
        self._unsynced |= written
        self._idle_ticks = 0 if written else self._idle_ticks + 1
        if store.options.durability == "interval" and self._unsynced:
            self._unsynced = False  # a write that lands from here on is counted
            store.sync()
            self._is_clean = False
        if not self._is_clean and self._idle_ticks >= _IDLE_TICKS_UNTIL_CLEAN:
            self._is_clean = True
            store.mark_clean()

    def expire_sessions(self) -> None:
        """Delete clients' sessions that have ended, in transactions of a bounded size."""
        for _ in range(_SWEEPS_PER_TICK_MAX):
            ended = self._store.due_sessions(SESSIONS_AT_A_TIME)
            if self._stopped.is_set() or not ended or not self._store.write("expire_sessions", ended):
                return

    def _sweep(self) -> None:
        for _ in range(_SWEEPS_PER_TICK_MAX):
            if self._stopped.is_set() or not self._store.sweep_is_due():
                return
            deleted, more = self._store.write("sweep", SWEEP_RECORDS)
            self._store.counters.expired += deleted
            if not more:
                return

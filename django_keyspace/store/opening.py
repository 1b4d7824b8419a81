"""A store's environment in one process: how it is opened, reopened, left in trouble, forked and closed.

:class:`OpenableStore` is the lower half of ``store/store.py``. It knows when there is an environment and when there must be
none; what is done with it is the upper half's business.

LMDB's rules that it keeps: one environment per file and process, opened at first use; no transaction in the process while
the map is resized, and none across a fork; a file that another process has set aside is left, not used on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from threading import get_ident
from typing import Any, Final, TypeVar

import lmdb

from django_keyspace.exceptions import StorageError, UnsafeFork
from django_keyspace.store.copying import StoreCopy
from django_keyspace.store.environment import Environment, file_identity
from django_keyspace.store.errors import DAMAGE, explain
from django_keyspace.store.folder import LOCK_FILE, Folder
from django_keyspace.store.gate import TransactionGate
from django_keyspace.store.lock import LockClosed, WriterLock
from django_keyspace.store.options import Counters, StoreOptions

logger = logging.getLogger("django_keyspace.store")

_QUIET_WAIT_S: Final = 5.0
ATTEMPTS_MAX: Final = 40
"""How often something is done again after trouble that passes, before it is given up."""
T = TypeVar("T")


class OpenableStore:
    """The environment of one store in this process.

    Arguments:
        path: the folder, absolute.
        options: how to open it.

    Nothing is opened until :meth:`_opened` is called.
    """

    boot: str | None = None
    """This boot of the machine, where the host is not to be asked."""

    def __init__(self, path: str, options: StoreOptions) -> None:
        self.path = path
        self.options = options
        self.limits = options.limits
        self.counters = Counters()
        self._refusal: str | None = None  # why this process can never open the store
        self._reset()

    def _reset(self) -> None:
        """The state of a process that has not opened the store: a new one, or a forked child."""
        self.folder = Folder(self.path, self.boot)
        self.gate = TransactionGate()
        self._active = self.gate.active
        self._opening = threading.RLock()
        self._environment: Environment | None = None
        self._begin: Any = None
        self._pid = 0  # the process that has it open; 0: none
        self._lock: WriterLock | None = None
        self.copies: set[StoreCopy] = set()  # those under way
        self._floor_ms = 0  # the log clock as far as this process has seen it

    def _resize(self, map_bytes: int) -> None:
        """Change the size of the map; 0 adopts what another process has made it."""
        self._cancel_copies()
        running = self.gate.shut(_QUIET_WAIT_S)
        try:
            if running:
                raise StorageError(f"The map of {self.path} has grown, but transactions here do not end: {running}.")
            if self._environment is not None:
                self._environment.lmdb.set_mapsize(map_bytes)
        finally:
            self.gate.open()

    def _opened(self) -> Environment:
        """The open environment; opens it, or opens it anew in a forked child."""
        if self._pid and self._pid != os.getpid():
            # Every lock that this process inherited may be held by a thread that it did not inherit: a lock of its own.
            with _child_locks.setdefault(os.getpid(), threading.Lock()):
                if self._pid and self._pid != os.getpid():
                    self.after_fork(announced=False)
        if self._refusal is not None:
            raise UnsafeFork(self._refusal)
        with self._opening:
            if self._environment is None:
                self._open()
            environment = self._environment
        if environment is None:
            raise StorageError(f"The store {self.path} was closed while it was opened. Try again.")
        return environment

    def _open(self) -> None:
        self.gate.enter("open")  # a fork waits until the environment is either there or not
        try:
            self._open_inside_gate()
        finally:
            self.gate.leave()

    def _open_inside_gate(self) -> None:
        self.folder.create()
        lock = WriterLock(self.folder.file(LOCK_FILE))
        try:
            lock.acquire(self.options.lock_wait_ms / 1000)
            try:
                self._environment = self._open_environment()
            finally:
                lock.release()
        except BaseException:
            lock.close()
            raise
        self._lock = lock
        self._begin = self._environment.begin
        self._pid = os.getpid()

    def _open_environment(self) -> Environment:
        """Open the environment under the writer lock; a damaged cache begins anew."""
        is_new = self.folder.prepare()
        try:
            environment = Environment(self.folder, self.options, is_new)
        except DAMAGE as error:
            self.counters.damaged += 1
            self.folder.set_aside(str(error))
            environment = self._open_new()
        except lmdb.Error as error:
            raise explain(error, self.path) from error
        try:
            if not self.folder.state.made:
                self.folder.mark_made(keeps_records=self.options.replicated)
            with environment.begin() as txn:
                self._floor_ms = environment.read_meta(txn).log_ms
        except BaseException:
            environment.close()
            raise
        return environment

    def _open_new(self) -> Environment:
        try:
            return Environment(self.folder, self.options, is_new=True)
        except lmdb.Error as error:
            raise explain(error, self.path) from error

    # ------------------------------------------------------------------------------------------------ trouble

    def _recover(self, error: lmdb.Error, lock: WriterLock | None = None) -> None:
        """After an error of LMDB: make the next attempt possible, or raise what the error means.

        Arguments:
            error: what LMDB raised; the transaction has ended.
            lock: the writer lock, if this thread holds it.
        """
        environment = self._environment
        if isinstance(error, lmdb.MapFullError) and lock is not None and environment is not None:
            self._resize(environment.grown_map_bytes())
        elif isinstance(error, lmdb.MapResizedError):
            self._resize(0)
        elif isinstance(error, DAMAGE):
            self._leave_damaged_file(error, lock)
        elif isinstance(error, lmdb.BadTxnError) and lock is None:
            # A reader that was held up between choosing its snapshot and copying the snapshot's roots found those of a
            # later one, and LMDB 1.0 refuses to mix them. Nothing was read; the next transaction is a new one.
            pass
        elif not (isinstance(error, lmdb.ReadersFullError) and self.check_readers()):
            raise explain(error, self.path) from error

    def _leave_damaged_file(self, error: lmdb.Error, lock: WriterLock | None) -> None:
        """Damage found while the store is in use: set the file aside under the writer lock, close, let the next one open."""
        held = lock if lock is not None else self._lock
        if held is None:
            return
        if lock is None:
            try:
                held.acquire(self.options.lock_wait_ms / 1000)
            except LockClosed:
                return
        try:
            environment = self._environment
            if environment is not None and file_identity(self.folder) == environment.identity:
                self.counters.damaged += 1
                self.folder.set_aside(str(error))
        finally:
            if lock is None:
                held.release()
        self._close(close_lock=lock is None)

    def reopen_if_replaced(self) -> bool:
        """Leave a data file that another process has set aside, or somebody has deleted. True if that was so."""
        environment = self._environment
        if environment is None or file_identity(self.folder) == environment.identity:
            return False
        logger.warning("The data file of %s was replaced or deleted: opening what is there now.", self.path)
        self._close()
        return True

    @contextlib.contextmanager
    def _inside(self, what: str) -> Any:
        """Stand inside the gate, with the environment, or None if the store is not open."""
        self.gate.enter(what)
        try:
            yield self._environment if self._pid == os.getpid() else None
        except lmdb.Error as error:
            raise explain(error, self.path) from error
        finally:
            self.gate.leave()

    def look(self, what: str, do: Callable[[Any, Environment], T]) -> T:
        """Do something in a read transaction, and again after trouble that passes.

        Arguments:
            what: its name, for those who wait for its end.
            do: takes the transaction and its environment; short, and without effects.
        Raises:
            StorageError: the store cannot be opened or read.
        """
        for _ in range(ATTEMPTS_MAX):
            environment = self._opened()
            self.gate.enter(what)
            try:
                if environment is not self._environment:
                    continue
                with environment.begin() as txn:
                    return do(txn, environment)
            except lmdb.Error as error:
                self.gate.leave()
                self._recover(error)
            finally:
                self.gate.leave()
        raise StorageError(f"The store {self.path} could not be read in {ATTEMPTS_MAX} attempts. See the log for why.")

    def file_number(self) -> int:
        """What tells the data file that this process has open from any other of its filesystem; 0: it has none open."""
        environment = self._environment
        return 0 if environment is None else environment.identity[1]

    def check_readers(self) -> int:
        """Free the reader slots of processes that have died. The number of them."""
        with self._inside("reader check") as environment:
            return int(environment.lmdb.reader_check()) if environment is not None else 0

    def reader_table(self) -> tuple[str, int]:
        """The table of readers as LMDB prints it, and the number of the last commit."""
        with self._inside("look at readers") as environment:
            if environment is None:
                return "", 0
            return str(environment.lmdb.readers()), int(environment.lmdb.info()["last_txnid"])

    # ------------------------------------------------------------------------------------------------ fork and end

    def before_fork(self) -> dict[int, str]:
        """Hold transactions back until :meth:`after_fork_in_parent`. What still runs after the wait, by thread id."""
        self._cancel_copies()
        return self.gate.shut(_QUIET_WAIT_S)

    def after_fork_in_parent(self) -> None:
        """Let transactions pass again."""
        self.gate.open()

    def after_fork(self, *, announced: bool) -> None:
        """In a forked child: let go of everything inherited; the next operation opens the store again.

        Arguments:
            announced: whether :meth:`before_fork` ran in the parent, and found quiet.
        Raises:
            UnsafeFork: the parent was forked in mid-transaction.
        """
        running = [] if announced else [what for thread, what in self._active.items() if thread != get_ident()]
        environment, lock = self._environment, self._lock
        if lock is not None:
            lock.close_inherited()
        if environment is not None and running:
            # Not closed: closing could wait for a thread that does not exist in this process.
            _abandoned.append(environment)
            self._refusal = (
                f"This process was forked while {', '.join(running)} ran on {self.path} in another thread. Use the cache in "
                "the child processes only after they were forked (uwsgi: lazy-apps), or fork through Python's os.fork()."
            )
        elif environment is not None:
            environment.close()
        self._reset()  # last: until then other threads wait where they see that the store is not open in this process
        if self._refusal is not None:
            raise UnsafeFork(self._refusal)

    def _cancel_copies(self) -> None:
        """A copy would hold up everybody for as long as it takes; whoever wanted it makes another one."""
        for copy in list(self.copies):
            copy.cancel()

    def _close(self, *, close_lock: bool = True) -> None:
        self._cancel_copies()
        self.gate.shut(_QUIET_WAIT_S)
        try:
            environment, self._environment = self._environment, None
            lock, self._lock = self._lock, None
            self._begin, self._pid = None, 0
            if environment is not None:
                environment.close()
        finally:
            self.gate.open()
        if lock is not None and close_lock:
            lock.close()  # not within the gate: its holder may stand in front of it


_child_locks: dict[int, threading.Lock] = {}
"""By process id: who lets go of what a child inherited without a before-hook."""

_abandoned: list[Environment] = []
"""Environments that a forked child must neither use nor close."""

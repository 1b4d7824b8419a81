"""One store as a process sees it: the two ways through it, and the order of writes.

:meth:`Store.read` runs a reading operation in a short read transaction of the calling thread. :meth:`Store.write_many` is
the orderer of an embedded store: it takes the writer lock, decides the log time and what must be evicted, applies the
operations in one transaction and commits. A node calls the same methods behind its log.

No user code and no decoding of values runs inside a transaction, and none is handed out: a page of a listing is a list.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Sequence
from threading import get_ident
from time import time
from typing import Any, Final

import lmdb

from django_keyspace.exceptions import KeyspaceError, StorageError, UnsafeFork
from django_keyspace.operations import Call
from django_keyspace.store import clock, deadlines
from django_keyspace.store.admission import Admission, grows
from django_keyspace.store.apply import WriteContext, apply
from django_keyspace.store.environment import META_CLEAN, META_KEY, Environment, file_identity, pack_meta, unpack_meta
from django_keyspace.store.errors import DAMAGE, explain
from django_keyspace.store.folder import LOCK_FILE, Folder
from django_keyspace.store.gate import TransactionGate
from django_keyspace.store.lock import LockClosed, WriterLock
from django_keyspace.store.maintenance import Maintenance
from django_keyspace.store.options import Counters, StoreOptions
from django_keyspace.store.queries import READS
from django_keyspace.store.writer import Done, WriterThread

logger = logging.getLogger("django_keyspace.store")

_QUIET_WAIT_S: Final = 5.0
_LOOK_INTERVAL_MS: Final = 2000
_ATTEMPTS_MAX: Final = 40


class Store:
    """A store in this process. Get one from ``registry.open_store``, which makes one per folder.

    Arguments:
        path: the folder, absolute.
        options: how to open it.

    Nothing is opened until the first operation.
    """

    def __init__(self, path: str, options: StoreOptions) -> None:
        self.path = path
        self.options = options
        self.limits = options.limits
        self._lock_wait_s = options.lock_wait_ms / 1000
        self._syncs_commits = options.durability == "commit"
        self.counters = Counters()
        self._refusal: str | None = None  # why this process can never open the store
        self._reset()

    def _reset(self) -> None:
        """The state of a process that has not opened the store: a new one, or a forked child."""
        self.folder = Folder(self.path)
        self.gate = TransactionGate()
        self._active = self.gate.active
        self._opening = threading.RLock()
        self._environment: Environment | None = None
        self._begin: Any = None
        self._pid = 0  # the process that has it open; 0: none
        self._lock: WriterLock | None = None
        self._writer = WriterThread(self)
        self._maintenance = Maintenance(self)
        self._look_at_ms = 0  # when a read next looks whether the data file is still the one that lies there
        self._floor_ms = 0  # the log clock as far as this process has seen it
        self._admission = Admission(self.path, self.options, self.counters)

    # ------------------------------------------------------------------------------------------------ reading

    def read(self, name: str, *arguments: Any) -> Any:
        """Do one reading operation.

        Arguments:
            name: a name of ``queries.READS``.
            *arguments: its arguments, already checked.
        Returns:
            The operation's result.
        Raises:
            StorageError: the store cannot be opened or read.
        """
        # The hot path: a flag, a process id, one transaction. Every call here was measured.
        now_ms = int(time() * 1000)
        if now_ms >= self._look_at_ms:
            self._look_at_file(now_ms)
        ident = get_ident()
        active = self._active
        active[ident] = name
        if self.gate.is_shut or self._pid != os.getpid():
            active.pop(ident, None)
            return self._read_slowly(name, arguments)
        try:
            txn = self._begin()
            try:
                if now_ms < self._floor_ms:
                    now_ms = self._log_now(txn)
                return READS[name](txn, self._environment, now_ms, *arguments)
            finally:
                txn.abort()
        except lmdb.Error as error:
            active.pop(ident, None)
            self._recover(error)
            return self._read_slowly(name, arguments)
        finally:
            active.pop(ident, None)

    def _read_slowly(self, name: str, arguments: Sequence[Any]) -> Any:
        """Read when the store is not open yet, the gate was shut, or the first attempt failed."""
        for _ in range(_ATTEMPTS_MAX):
            environment = self._opened()
            self.gate.enter(name)
            try:
                if environment is not self._environment:
                    continue
                with environment.begin() as txn:
                    return READS[name](txn, environment, max(clock.wall_ms(), self._log_now(txn)), *arguments)
            except lmdb.Error as error:
                self.gate.leave()
                self._recover(error)
            finally:
                self.gate.leave()
        raise StorageError(f"The store {self.path} could not be read in {_ATTEMPTS_MAX} attempts. See the log for why.")

    def _look_at_file(self, now_ms: int) -> None:
        self._look_at_ms = now_ms + _LOOK_INTERVAL_MS
        if self._pid == os.getpid():
            self.reopen_if_replaced()

    def _log_now(self, txn: Any) -> int:
        """The log clock, when the wall clock is behind what this process has seen of it."""
        environment = self._environment
        meta = environment.read_meta(txn) if environment is not None else None
        if meta is None:
            return clock.wall_ms()
        now_ms = max(clock.next_log_time(meta.log_ms, meta.boot_ms)[0], self._floor_ms)
        if now_ms > clock.wall_ms():
            self._floor_ms = now_ms  # or else time would go back when the wall clock is past the last write's
        return now_ms

    # ------------------------------------------------------------------------------------------------ writing

    def write(self, name: str, *arguments: Any, wait_s: float | None = None) -> Any:
        """Do one writing operation in a transaction of its own.

        Arguments:
            name: a name of ``apply.WRITES``.
            *arguments: its arguments, already checked.
            wait_s: how long to wait for the writer lock; default: the option ``lock_wait_ms``.
        Returns:
            The operation's result.
        Raises:
            LocalError: the state does not allow it.
            LockTimeout, NoSpace, StorageError: it could not be done. Nothing was changed.
        """
        result = self.write_many(((name, *arguments),), wait_s=wait_s)[0]
        if isinstance(result, KeyspaceError):
            raise result
        return result

    def write_many(self, calls: Sequence[Call], *, wait_s: float | None = None) -> list[Any]:
        """Do several operations, in order and each on its own, in one transaction.

        Arguments:
            calls: operations, already checked.
            wait_s: as in :meth:`write`.
        Returns:
            The result of each, or the :class:`KeyspaceError` of those that failed.
        Raises:
            LockTimeout, StorageError: nothing of it was done.
        """
        if wait_s is None:
            wait_s = self._lock_wait_s
        for _ in range(_ATTEMPTS_MAX):
            environment = self._environment if self._pid == os.getpid() else self._opened()
            lock = self._lock
            if lock is None or environment is None:
                continue
            try:
                lock.acquire(wait_s)
            except LockClosed:
                continue
            ident, active = get_ident(), self._active
            try:
                active[ident] = "write"
                if self.gate.is_shut:
                    active.pop(ident, None)
                    self.gate.enter("write")
                if environment is self._environment:
                    return self._transact(environment, calls)
            except lmdb.Error as error:
                active.pop(ident, None)
                self._recover(error, lock)
            finally:
                active.pop(ident, None)
                lock.release()
        raise StorageError(
            f"The store {self.path} could not be written in {_ATTEMPTS_MAX} attempts. See the log for why."
        )

    def submit(self, calls: Sequence[Call], done: Done) -> None:
        """Hand operations to the writer thread, which commits whatever has come together in one transaction.

        Arguments:
            calls: operations, already checked.
            done: called from that thread with a list as :meth:`write_many` returns it.
        """
        if self._pid != os.getpid():
            self._opened()
        self._writer.submit(calls, done)

    def _transact(self, environment: Environment, calls: Sequence[Call]) -> list[Any]:
        txn = environment.begin(None, None, True)
        try:
            version, flags, revision, log_ms, boot_ms = unpack_meta(txn.get(META_KEY))
            log_ms, boot_ms = clock.next_log_time(log_ms, boot_ms)
            log_ms = max(log_ms, self._floor_ms)  # what a reader here saw expire must not come back
            context = WriteContext(txn, environment, log_ms, revision + 1)
            refusal = self._admission.admit(context, calls)
            results: list[Any] = []
            for call in calls:
                if refusal is not None and grows(call):
                    results.append(refusal)
                    continue
                try:
                    results.append(apply(context, call[0], call[1:]))
                except KeyspaceError as error:
                    results.append(error)
            if context.changed:
                if context.kept:
                    self._note_kept_records(context)
                if flags and not self._syncs_commits:
                    self.folder.mark_dirty()
                    flags = 0
                txn.put(META_KEY, pack_meta(version, flags, revision + 1, log_ms, boot_ms))
                txn.commit()
            else:
                txn.abort()
        except BaseException:
            txn.abort()
            raise
        if context.changed:
            self._after_commit(context, len(calls))
        return results

    def _note_kept_records(self, context: WriteContext) -> None:
        """Before a commit: the state file must know that the store holds records which must not be dropped."""
        if any(context.kept.values()):
            keeps = context.store.change_kept_records(context.txn, context.kept)
            if keeps and not self.folder.state.keeps_records:
                self.folder.mark_keeps_records()

    def _after_commit(self, context: WriteContext, calls: int) -> None:
        self._floor_ms = context.log_time_ms
        self._admission.unchecked_bytes += context.written_bytes
        counters = self.counters
        counters.writes += calls
        counters.commits += 1
        self._maintenance.note_write()

    # ------------------------------------------------------------------------------------------------ opening

    def _resize(self, map_bytes: int) -> None:
        """Change the size of the map; 0 adopts what another process has made it."""
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
        with environment.begin() as txn:
            self._floor_ms = environment.read_meta(txn).log_ms
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

    # ------------------------------------------------------------------------------------------------ upkeep

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

    def sync(self) -> None:
        """Bring every commit so far to the disk."""
        with self._inside("sync") as environment:
            if environment is not None:
                environment.lmdb.sync(True)

    def mark_clean(self) -> None:
        """Sync, and say in the state file that nothing is unsynced."""
        lock = self._lock
        if lock is None or self.options.durability == "commit":
            return
        try:
            lock.acquire(self.options.lock_wait_ms / 1000)
        except LockClosed:
            return
        try:
            with self._inside("mark clean") as environment:
                if environment is None:
                    return
                with environment.begin(write=True) as txn:
                    meta = environment.read_meta(txn)
                    environment.write_meta(txn, meta._replace(flags=META_CLEAN))
                environment.lmdb.sync(True)
                self.folder.mark_clean()
        finally:
            lock.release()

    def check_readers(self) -> int:
        """Free the reader slots of processes that have died. The number of them."""
        with self._inside("reader check") as environment:
            return int(environment.lmdb.reader_check()) if environment is not None else 0

    def sweep_is_due(self) -> bool:
        """Whether the deadline index begins with an entry whose whole bucket is over. Writes nothing."""
        with self._inside("look for due records") as environment:
            if environment is None:
                return False
            with (
                contextlib.suppress(lmdb.BadTxnError),
                environment.begin() as txn,
            ):  # see _recover; there is a next tick
                context = WriteContext(txn, environment, max(clock.wall_ms(), self._log_now(txn)), 0)
                due = deadlines.bucket_of(context.log_time_ms) - 1
                return next(deadlines.due_entries(context, due), None) is not None
            return False

    # ------------------------------------------------------------------------------------------------ fork and end

    def before_fork(self) -> dict[int, str]:
        """Hold transactions back until :meth:`after_fork_in_parent`. What still runs after the wait, by thread id."""
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

    def shutdown(self) -> None:
        """Finish what is queued, sync, and close the store in this process. The next operation opens it again."""
        if self._pid != os.getpid():
            return
        self._writer.stop()
        self._maintenance.stop()
        if self.counters.commits:
            with contextlib.suppress(KeyspaceError):
                self.mark_clean()
        self._close()

    def _close(self, *, close_lock: bool = True) -> None:
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

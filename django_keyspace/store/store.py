"""One store as a process sees it: the two ways through it, and the order of writes.

:meth:`Store.read` runs a reading operation in a short read transaction of the calling thread. :meth:`Store.write_many` is
the orderer of an embedded store: it takes the writer lock, decides the log time and what must be evicted, applies the
operations in one transaction and commits. A node calls the same methods behind its log.

No user code and no decoding of values runs inside a transaction, and none is handed out: a page of a listing is a list.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import get_ident
from time import time_ns
from typing import Any, Final

import lmdb

from django_keyspace.exceptions import KeyspaceError, StorageError
from django_keyspace.operations import Call
from django_keyspace.store import clock, deadlines, sessions
from django_keyspace.store.admission import Admission, grows
from django_keyspace.store.apply import apply
from django_keyspace.store.context import WriteContext
from django_keyspace.store.copying import StoreCopy
from django_keyspace.store.environment import (
    META_CLEAN,
    META_KEY,
    META_OVERLAY,
    META_RETIRED,
    Environment,
    pack_meta,
    unpack_meta,
)
from django_keyspace.store.gate import TransactionGate
from django_keyspace.store.lock import LockClosed, WriterLock
from django_keyspace.store.maintenance import Maintenance
from django_keyspace.store.opening import ATTEMPTS_MAX, OpenableStore
from django_keyspace.store.options import StoreOptions
from django_keyspace.store.queries import READS
from django_keyspace.store.writer import Done, WriterThread

logger = logging.getLogger("django_keyspace.store")

_LOOK_INTERVAL_MS: Final = 2000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state of the store that does not change while others write.

    No user's code may run where it could hold one up: the map cannot grow and the process cannot be forked while a
    transaction lives. Whoever has one for longer than a moment must look at :meth:`is_wanted_back`, and let go of it.

    Attributes:
        txn: LMDB's read transaction.
        environment: handles and limits.
        now_ms: the log time by which records are expired.
    """

    txn: Any
    environment: Environment
    now_ms: int
    gate: TransactionGate

    def is_wanted_back(self) -> bool:
        """Whether somebody waits for this transaction to end."""
        return self.gate.is_shut


class Store(OpenableStore):
    """A store in this process. Get one from ``registry.open_store``, which makes one per folder.

    Arguments:
        path: the folder, absolute.
        options: how to open it.

    Nothing is opened until the first operation.
    """

    def __init__(self, path: str, options: StoreOptions) -> None:
        self._lock_wait_s = options.lock_wait_ms / 1000
        self._syncs_commits = options.durability == "commit"
        super().__init__(path, options)

    def _reset(self) -> None:
        super()._reset()
        self._writer = WriterThread(self)
        self._maintenance = Maintenance(self)
        self._admission = Admission(self.path, self.options, self.counters)
        self._last_commit: tuple[int, tuple[int, ...]] = (
            0,
            (),
        )  # LMDB's number of the next transaction; the meta record
        self._sessions: sessions.Sessions = {}  # as of that commit
        self._look_at_ms = 0  # when a read next looks whether the data file is still the one that lies there

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
        now_ms = time_ns() // 1_000_000
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
        return self.look(name, lambda txn, environment: READS[name](txn, environment, self._now(txn), *arguments))

    def _look_at_file(self, now_ms: int) -> None:
        self._look_at_ms = now_ms + _LOOK_INTERVAL_MS
        if self._pid == os.getpid():
            self.reopen_if_replaced()

    def _now(self, txn: Any) -> int:
        """The time by which a reading transaction hides what has expired."""
        return max(clock.wall_ms(), self._log_now(txn))

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
        for _ in range(ATTEMPTS_MAX):
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
            f"The store {self.path} could not be written in {ATTEMPTS_MAX} attempts. See the log for why."
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
            txn_id = txn.id()
            # What this process wrote last is still there if no other process has committed since.
            expected_id, meta = self._last_commit
            if expected_id != txn_id:
                meta = unpack_meta(txn.get(META_KEY))
            version, flags, revision, log_ms, boot_ms = meta
            log_ms, boot_ms = clock.next_log_time(log_ms, boot_ms)
            if log_ms < self._floor_ms:
                log_ms = self._floor_ms  # what a reader here saw expire must not come back
            context = WriteContext(txn, environment, log_ms, revision + 1, bool(flags & META_OVERLAY))
            if expected_id == txn_id:
                context.sessions = self._sessions
            refusal = self._admission.admit(context, calls)
            results: list[Any] = []
            for call in calls:
                if refusal is not None and grows(call) and not sessions.is_kept(context, call):
                    results.append(refusal)
                    continue
                try:
                    results.append(apply(context, call))
                except KeyspaceError as error:
                    results.append(error)
            if not context.changed:
                txn.abort()
                return results
            self._commit(context, txn_id, version, flags, boot_ms)
        except BaseException:
            txn.abort()
            self._sessions = {}
            raise
        self.counters.writes += len(calls)
        if not self._maintenance.is_running:
            self._maintenance.start()
        return results

    def _commit(self, context: WriteContext, txn_id: int, version: int, flags: int, boot_ms: int) -> None:
        """Put what stands for a transaction as a whole, commit it, and remember it.

        Arguments:
            context: the transaction, at the revision and the log time that the store has after it.
            txn_id: its number.
            version, flags, boot_ms: of the meta record: format, flags before it, and the host's monotonic clock.
        """
        if context.used_sessions:
            sessions.flush(context)
        if context.kept:
            self._note_kept_records(context)
        if flags & META_CLEAN and not self._syncs_commits:
            self.folder.mark_dirty()
            flags ^= META_CLEAN
        if context.has_overlay is not bool(flags & META_OVERLAY):
            flags ^= META_OVERLAY
        meta = (version, flags, context.revision, context.log_time_ms, boot_ms)
        context.txn.put(META_KEY, pack_meta(*meta))
        context.txn.commit()
        self._last_commit = txn_id + 1, meta
        self._sessions = sessions.remembered(context)
        self._floor_ms = context.log_time_ms
        self._admission.unchecked_bytes += context.written_bytes
        self.counters.commits += 1

    def _note_kept_records(self, context: WriteContext) -> None:
        """Before a commit: the state file must know that the store holds records which must not be dropped."""
        if any(context.kept.values()):
            keeps = context.store.change_kept_records(context.txn, context.kept)
            if keeps and not self.folder.state.keeps_records:
                self.folder.mark_keeps_records()

    # ------------------------------------------------------------------------------------------------ scripts

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """A read transaction for as long as the block runs. For the package's own code only: see :class:`Snapshot`.

        Raises:
            StorageError: the store cannot be opened or read.
        """
        for _ in range(ATTEMPTS_MAX):
            environment = self._opened()
            self.gate.enter("script")
            try:
                if environment is not self._environment:
                    continue
                try:
                    txn = environment.begin()
                except lmdb.Error as error:
                    self._recover(error)
                    continue
                try:
                    yield Snapshot(txn, environment, self._now(txn), self.gate)
                    return
                finally:
                    txn.abort()
            finally:
                self.gate.leave()
        raise StorageError(f"The store {self.path} could not be read in {ATTEMPTS_MAX} attempts. See the log for why.")

    @contextlib.contextmanager
    def exclusive(self, wait_s: float) -> Iterator[Callable[[Sequence[Call]], list[Any]]]:
        """Hold the writer lock for as long as the block runs: nobody else writes. Gives what takes the place of
        :meth:`write_many` meanwhile.

        Arguments:
            wait_s: how long to wait for the lock.
        Raises:
            LockTimeout, StorageError: it could not be had.
        """
        for _ in range(ATTEMPTS_MAX):
            self._opened()
            lock = self._lock
            if lock is None:
                continue
            try:
                lock.acquire(wait_s)
            except LockClosed:
                continue
            try:
                yield functools.partial(self._write_held, lock)
                return
            finally:
                lock.release()
        raise StorageError(
            f"The store {self.path} could not be locked in {ATTEMPTS_MAX} attempts. See the log for why."
        )

    def _write_held(self, lock: WriterLock, calls: Sequence[Call]) -> list[Any]:
        """Do operations in one transaction, while this thread holds the writer lock."""
        for _ in range(ATTEMPTS_MAX):
            environment = self._environment
            if environment is None or lock is not self._lock:
                raise StorageError(
                    f"The store {self.path} was closed while it was locked. Nothing was changed. Try again."
                )
            self.gate.enter("write")
            try:
                if environment is self._environment:
                    return self._transact(environment, calls)
            except lmdb.Error as error:
                self._recover(error, lock)
            finally:
                self.gate.leave()
        raise StorageError(
            f"The store {self.path} could not be written in {ATTEMPTS_MAX} attempts. See the log for why."
        )

    # ------------------------------------------------------------------------------------------------ upkeep

    def sync(self) -> None:
        """Bring every commit so far to the disk."""
        with self._inside("sync") as environment:
            if environment is not None:
                environment.lmdb.sync(True)

    def mark_clean(self) -> None:
        """Sync, and say in the state file that nothing is unsynced."""
        if self.options.durability != "commit":
            self._set_flag(META_CLEAN, self.folder.mark_clean)

    def retire(self) -> None:
        """Say in the store, durably, that another one has taken its place. Those who read it beside this process look there."""
        self._opened()
        self._set_flag(META_RETIRED)

    def _set_flag(self, flag: int, then: Callable[[], None] = lambda: None) -> None:
        """Set a flag of the meta record, sync, and do one thing more before the next write."""
        lock = self._lock
        if lock is None:
            return
        try:
            lock.acquire(self.options.lock_wait_ms / 1000)
        except LockClosed:
            return
        try:
            with self._inside("set a flag") as environment:
                if environment is None:
                    return
                with environment.begin(write=True) as txn:
                    meta = environment.read_meta(txn)
                    environment.write_meta(txn, meta._replace(flags=meta.flags | flag))
                environment.lmdb.sync(True)
                then()
        finally:
            lock.release()

    @property
    def oldest_reader_s(self) -> float:
        """For how long somebody has held an old state of the store, in seconds; 0: nobody does."""
        return self._maintenance.readers.oldest_s

    def copy(self, read: Callable[[Any], Any] = lambda transaction: None) -> StoreCopy:
        """A copy of the store as it is now, while others go on using it. See :class:`StoreCopy`."""
        return StoreCopy(self, read)

    def sweep_is_due(self) -> bool:
        """Whether the deadline index begins with an entry whose whole bucket is over, or a name's deadline is. Writes nothing."""
        with self._inside("look for due records") as environment:
            if environment is None:
                return False
            with (
                contextlib.suppress(lmdb.BadTxnError),
                environment.begin() as txn,
            ):  # see _recover; there is a next tick
                return deadlines.is_sweep_due(WriteContext(txn, environment, self._now(txn), 0))
            return False

    def log_time_ms(self) -> int:
        """The log clock now, as a reader sees it, in milliseconds. Raises StorageError."""
        return self.look("clock", lambda txn, _: self._now(txn))

    def due_sessions(self, most: int) -> list[bytes]:
        """Ids of clients' sessions that have ended, at most so many. Writes nothing."""
        with self._inside("look for sessions") as environment:
            if environment is None:
                return []
            with (
                contextlib.suppress(lmdb.BadTxnError),
                environment.begin() as txn,
            ):  # see _recover; there is a next time
                return sessions.due(txn, environment, self._now(txn), most)
            return []

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
        super()._close(close_lock=close_lock)
        self._last_commit = (0, ())
        self._sessions = {}

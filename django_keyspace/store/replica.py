"""A store that the log of a cluster writes: the same entries make the same store, on each node and however they come together.

Nothing is decided here. Which operations are done, in which order, at what log time, what is swept and what is evicted stands
in the log; this module does it and remembers how far it came. The revision of the meta record *is* the index of the last
entry applied, so the state and its place in the log are one transaction.

The leader decides beforehand, by looking only: :meth:`ReplicaStore.plan` says what to evict, :meth:`ReplicaStore.due` what
upkeep to log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final, NoReturn, Protocol

import lmdb

from django_keyspace.exceptions import KeyspaceError, NoSpace, StorageError
from django_keyspace.operations import Call
from django_keyspace.store import clock, deadlines, sessions
from django_keyspace.store.admission import grows
from django_keyspace.store.apply import apply
from django_keyspace.store.context import WriteContext
from django_keyspace.store.digest import digest
from django_keyspace.store.environment import META_OVERLAY, Environment
from django_keyspace.store.errors import DAMAGE, explain
from django_keyspace.store.eviction import Address
from django_keyspace.store.lock import LockClosed, WriterLock
from django_keyspace.store.maintenance import SESSIONS_AT_A_TIME, SWEEP_RECORDS
from django_keyspace.store.opening import ATTEMPTS_MAX
from django_keyspace.store.options import StoreOptions
from django_keyspace.store.queries import READS
from django_keyspace.store.store import Store

logger = logging.getLogger("django_keyspace.store")

_SESSIONS_CHECK_MS: Final = 30_000
"""Looking for ended sessions goes through all of them, so it is done this seldom, by the log clock."""


class LogEntry(Protocol):
    """An entry as :meth:`ReplicaStore.apply_entries` takes it."""

    @property
    def index(self) -> Any:
        """Its place in the log."""

    @property
    def log_ms(self) -> int:
        """Its log time; 0 for one without operations."""

    @property
    def calls(self) -> Sequence[Call]:
        """Its operations, already checked."""


class ReplicaStore(Store):
    """The store of a replicated node. Get one from ``registry.open_store`` with this class as ``make``.

    Arguments:
        path: the folder, absolute.
        options: how to open it; made ``replicated``, with durability ``none``.
        boot: this boot of the machine; default: the host's.
        upkeep: whether a thread may look for dead readers.
        boot_ms: the host's monotonic clock, for processes that read the store beside the node.

    Attributes:
        now_ms: the log time by which those read who name none (scripts, operators). Never less than that of the last entry.
    """

    def __init__(
        self,
        path: str,
        options: StoreOptions,
        *,
        boot: str | None = None,
        upkeep: bool = True,
        boot_ms: Callable[[], int] = clock.boot_ms,
    ) -> None:
        if not options.replicated or options.durability != "none":
            raise StorageError("The store of a replicated node is opened with replicated=True and durability='none'.")
        self.boot = boot
        self.now_ms: Callable[[], int] = lambda: 0
        self._upkeep = upkeep
        self._boot_ms = boot_ms
        self._ended = ""  # why it is not to be opened again
        super().__init__(path, options)

    def _reset(self) -> None:
        super()._reset()
        self._applied_index = 0
        self._sessions_due_ms = 0

    @property
    def applied_index(self) -> int:
        """Index of the last entry that was applied."""
        if self._environment is None:
            self._opened()
        return self._applied_index

    @property
    def log_ms(self) -> int:
        """The log clock at that entry, in milliseconds."""
        if self._environment is None:
            self._opened()
        return self._floor_ms

    # ------------------------------------------------------------------------------------------------ applying

    def apply_entries(self, entries: Sequence[LogEntry]) -> list[list[Any]]:
        """Apply entries of the log, in one transaction.

        Arguments:
            entries: those that follow the last one applied, without a gap. One whose log time is below the store's is
                applied at the store's: time never goes back.
        Returns:
            For each entry a list as ``write_many`` returns it: what an operation refuses is its result.
        Raises:
            StorageError: nothing of it was applied. As for any other error: this node's store is behind its log, and it
                has to stop rather than to skip something.
        """
        if not entries:
            return []
        for _ in range(ATTEMPTS_MAX):
            self._opened()
            lock = self._lock
            if lock is None:
                continue
            try:
                lock.acquire(self._lock_wait_s)
            except LockClosed:
                continue
            try:
                return self._apply_held(lock, entries)
            except lmdb.Error as error:
                self._recover(error, lock)
            finally:
                lock.release()
        raise StorageError(
            f"Entries could not be applied to {self.path} in {ATTEMPTS_MAX} attempts. See the log for why."
        )

    def _apply_held(self, lock: WriterLock, entries: Sequence[LogEntry]) -> list[list[Any]]:
        self.gate.enter("apply")
        try:
            environment = self._environment
            if environment is None or lock is not self._lock:
                raise StorageError(f"The store {self.path} was closed while entries were applied. Nothing was changed.")
            return self._apply_inside_gate(environment, entries)
        finally:
            self.gate.leave()

    def _apply_inside_gate(self, environment: Environment, entries: Sequence[LogEntry]) -> list[list[Any]]:
        txn = environment.begin(None, None, True)
        try:
            txn_id = txn.id()
            meta = environment.read_meta(txn)
            context = WriteContext(txn, environment, meta.log_ms, meta.revision, bool(meta.flags & META_OVERLAY))
            if self._last_commit[0] == txn_id:
                context.sessions = self._sessions
            results = [self._apply_entry(context, entry) for entry in entries]
            self._commit(context, txn_id, meta.format, meta.flags, self._boot_ms())
        except BaseException:
            txn.abort()
            self._sessions = {}
            raise
        self._applied_index = context.revision
        self.counters.writes += sum(map(len, results))
        if self._upkeep and not self._maintenance.is_running:
            self._maintenance.start()
        return results

    def _apply_entry(self, context: WriteContext, entry: LogEntry) -> list[Any]:
        if entry.index != context.revision + 1:
            raise StorageError(
                f"Entry {entry.index} was to be applied to {self.path}, which has applied {context.revision}. Nothing was "
                "changed. The node's journal and its store do not fit together: start the node again."
            )
        context.revision = entry.index
        context.log_time_ms = max(context.log_time_ms, entry.log_ms)
        results: list[Any] = []
        for call in entry.calls:
            try:
                results.append(apply(context, call))
            except StorageError:
                raise
            except KeyspaceError as error:
                results.append(error)
        if context.used_sessions:
            # With each entry, so that what an entry finds does not depend on the others of its transaction.
            sessions.flush(context)
            context.used_sessions.clear()
        return results

    # ------------------------------------------------------------------------------------------------ looking

    def read_at(self, now_ms: int, name: str, *arguments: Any) -> Any:
        """Do one reading operation at a log time.

        Arguments:
            now_ms: the log time; at least that of the last entry counts.
            name: a name of ``queries.READS``.
            *arguments: its arguments, already checked.
        Raises:
            StorageError: the store cannot be opened or read.
        """
        operation = READS[name]
        return self.look(
            name, lambda txn, environment: operation(txn, environment, max(now_ms, self._floor_ms), *arguments)
        )

    def read(self, name: str, *arguments: Any) -> Any:
        """As :meth:`read_at`, at the time of :attr:`now_ms`."""
        return self.read_at(self.now_ms(), name, *arguments)

    def plan(self, calls: Sequence[Call], log_ms: int, generator: Random) -> tuple[list[Address], StorageError | None]:
        """Whether there is room for operations, and what has to be evicted for it. Changes nothing.

        Arguments:
            calls: operations that are about to be logged.
            log_ms: their log time.
            generator: draws samples of what may be evicted.
        Returns:
            Addresses for an ``evict`` before them, and None, or the error for those that :meth:`growing` names.
        """
        if not self._admission.needs_plan(calls):
            return [], None
        return self.look(
            "plan",
            lambda txn, environment: self._admission.plan(self._seen(txn, environment, log_ms), calls, generator),
        )

    def growing(self, calls: Sequence[Call]) -> list[bool]:
        """Which operations may need new space, and so are not logged when there is none.

        One that is sent again may have been done already, and its answer be in the log or here: it passes.
        """
        growing = [grows(call) and not (call[0] == "once" and call[4]) for call in calls]
        if not any(growing):
            return growing
        return self.look(
            "plan",
            lambda txn, environment: [
                grown and not sessions.is_kept(self._seen(txn, environment, 0), call)
                for grown, call in zip(growing, calls, strict=True)
            ],
        )

    def due(self, log_ms: int) -> list[Call]:
        """The upkeep that is to be logged at a log time. Changes nothing.

        Arguments:
            log_ms: the log time.
        """
        return self.look("look for upkeep", lambda txn, environment: self._due(txn, environment, log_ms))

    def _due(self, txn: Any, environment: Environment, log_ms: int) -> list[Call]:
        context = self._seen(txn, environment, log_ms)
        calls: list[Call] = []
        if deadlines.is_sweep_due(context):
            calls.append(("sweep", SWEEP_RECORDS))
        if not self._sessions_due_ms - _SESSIONS_CHECK_MS <= log_ms < self._sessions_due_ms:
            ended = sessions.due(txn, environment, context.log_time_ms, SESSIONS_AT_A_TIME)
            if ended:
                calls.append(("expire_sessions", ended))
            else:
                self._sessions_due_ms = log_ms + _SESSIONS_CHECK_MS
        return calls

    def digest(self) -> bytes:
        """A digest of all content: see ``store/digest.py``."""
        return self.digest_at()[1]

    def digest_at(self) -> tuple[int, bytes]:
        """The same behind the index that it is of. From any thread."""
        return self.look(
            "digest", lambda txn, environment: (environment.read_meta(txn).revision, digest(txn, environment))
        )

    def _seen(self, txn: Any, environment: Environment, log_ms: int) -> WriteContext:
        """A context for those who only look."""
        return WriteContext(txn, environment, max(log_ms, self._floor_ms), 0)

    def _now(self, txn: Any) -> int:
        return max(self.now_ms(), self._floor_ms)

    # ------------------------------------------------------------------------------------------------ its life

    def end(self, why: str, *, clean: bool = True) -> None:
        """Close it for good.

        Arguments:
            why: what those are told who come later.
            clean: whether to sync it, so that it is trusted after the next boot.
        """
        self._ended = why
        self._writer.stop()
        self._maintenance.stop()
        if clean and self._environment is not None:
            self.mark_clean()
        self._close()

    def shutdown(self) -> None:
        """As the registry does it at the end of the process."""
        if not self._ended:
            super().shutdown()

    def _opened(self) -> Environment:
        if self._ended and self._environment is None:
            raise StorageError(self._ended)
        return super()._opened()

    def _open_environment(self) -> Environment:
        environment = super()._open_environment()
        try:
            with environment.begin() as txn:
                self._applied_index = environment.read_meta(txn).revision
        except BaseException:
            environment.close()
            raise
        return environment

    def reopen_if_replaced(self) -> bool:
        """Never: no other file can take the place of a store that is at some point of a log."""
        return False

    def _recover(self, error: lmdb.Error, lock: WriterLock | None = None) -> None:
        if isinstance(error, DAMAGE):
            raise explain(error, self.path) from error
        try:
            super()._recover(error, lock)
        except NoSpace:
            raise
        except StorageError as trouble:
            if not isinstance(error, lmdb.MapFullError | lmdb.MapResizedError):
                raise
            logger.warning(
                "%s The next attempt follows.", trouble
            )  # a reader that is long about it stops nobody's node

    def _transact(self, environment: Environment, calls: Sequence[Call]) -> NoReturn:
        raise StorageError(f"The store {self.path} is written by the log alone. Nothing was changed.")

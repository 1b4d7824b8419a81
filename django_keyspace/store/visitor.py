"""A node's store, read beside the node by another process of its host.

Nothing is written but the slots of LMDB's table of readers. Each read looks at the meta record in its own transaction: it says
how much of the log the store holds, and whether another store has taken its place.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from threading import get_ident
from typing import Any, Final, NoReturn

import lmdb

from django_keyspace.exceptions import StorageError, TooStale
from django_keyspace.operations import Call
from django_keyspace.store.environment import META_KEY, META_RETIRED, Environment, unpack_meta
from django_keyspace.store.errors import DAMAGE, explain
from django_keyspace.store.lock import WriterLock
from django_keyspace.store.queries import READS, carry_out
from django_keyspace.store.store import Store


def _batch(txn: Any, store: Environment, now_ms: int, calls: Sequence[Call]) -> Any:
    return carry_out(lambda name, *rest: READS[name](txn, store, now_ms, *rest), 0, 0, ("batch", calls))


_READS: Final[dict[str, Callable[..., Any]]] = READS | {"batch": _batch}
READABLE_HERE: Final = frozenset(_READS) - {"at", "members", "status"}
"""Operations whose answer is the same whoever gives it."""


class VisitedStore(Store):
    """Somebody else's store. Get one from ``registry.open_store`` with this class as ``make``."""

    _ended = ""  # why it is not to be opened again

    def _reset(self) -> None:
        super()._reset()
        self._seen = (-1, 0, 0)  # LMDB's number of a transaction; index and log clock of the store then

    def visit(self, min_index: int, now_ms: int, name: str, arguments: Sequence[Any]) -> tuple[Any, int]:
        """Do a reading operation.

        Arguments:
            min_index: how much of the log the store has to hold.
            now_ms: the log time, or for the store of a node that runs alone the wall clock; at least the store's own counts.
            name: an operation of :data:`READABLE_HERE`.
            arguments: its arguments.
        Returns:
            Its result, and the index of the last entry that it takes into account.
        Raises:
            TooStale: the store does not hold so much.
            StorageError: it cannot be read, or another one has taken its place.
        """
        # As short as Store.read, for the same reason.
        ident = get_ident()
        active = self._active
        active[ident] = name
        if self.gate.is_shut or self._pid != os.getpid():
            active.pop(ident, None)
            return self._visit_slowly(min_index, now_ms, name, arguments)
        try:
            txn = self._begin()
            try:
                seen_id, index, log_ms = self._seen
                if seen_id != txn.id():
                    index, log_ms = self._look_at_meta(txn)
                if index < min_index:
                    raise TooStale(f"The store {self.path} holds {index:,} entries of the log, not {min_index:,}.")
                if now_ms < log_ms:
                    now_ms = self._store_time(txn, log_ms)
                return _READS[name](txn, self._environment, now_ms, *arguments), index
            finally:
                txn.abort()
        except lmdb.Error as error:
            active.pop(ident, None)
            self._recover(error)
            return self._visit_slowly(min_index, now_ms, name, arguments)
        finally:
            active.pop(ident, None)

    def _look_at_meta(self, txn: Any) -> tuple[int, int]:
        """Index and log clock of the store in a transaction."""
        _, flags, index, log_ms, _ = unpack_meta(txn.get(META_KEY))
        if flags & META_RETIRED:
            raise StorageError(f"Another store has taken the place of {self.path}.")
        if log_ms < self._floor_ms:
            log_ms = self._floor_ms
        self._seen = txn.id(), index, log_ms
        return index, log_ms

    def note_log_time(self, log_ms: int) -> None:
        """The node's log clock was here already: nothing that had expired by then comes back."""
        if log_ms > self._floor_ms:
            self._floor_ms = log_ms
            self._seen = (-1, 0, 0)

    def _store_time(self, txn: Any, log_ms: int) -> int:
        """The log clock of a store that is ahead of its reader's clock, at its last known moment `log_ms`."""
        if self.options.replicated:
            return log_ms  # the time of a cluster is its leader's
        return self._log_now(txn)  # the wall clock was set back: as the node itself goes on from there

    def _visit_slowly(self, min_index: int, now_ms: int, name: str, arguments: Sequence[Any]) -> tuple[Any, int]:
        """Read when the store is not open yet, the gate was shut, or the first attempt failed."""

        def do(txn: Any, environment: Environment) -> tuple[Any, int]:
            index, log_ms = self._look_at_meta(txn)
            if index < min_index:
                raise TooStale(f"The store {self.path} holds {index:,} entries of the log, not {min_index:,}.")
            log_time_ms = now_ms if now_ms >= log_ms else self._store_time(txn, log_ms)
            return _READS[name](txn, environment, log_time_ms, *arguments), index

        return self.look(name, do)

    # ------------------------------------------------------------------------------------------------ its life

    def end(self, why: str) -> None:
        """Close it for good.

        Arguments:
            why: what those are told who come later.
        """
        self._ended = why
        self._close()

    def _opened(self) -> Environment:
        if self._ended:
            raise StorageError(self._ended)
        return super()._opened()

    def _open_inside_gate(self) -> None:
        try:
            environment = Environment(self.folder, self.options, is_new=False, read_only=True)
        except lmdb.Error as error:
            raise explain(error, self.path) from error
        self._environment = environment
        self._begin = environment.begin
        self._pid = os.getpid()

    def reopen_if_replaced(self) -> bool:
        """Never: the node says which store counts."""
        return False

    def _recover(self, error: lmdb.Error, lock: WriterLock | None = None) -> None:
        if isinstance(error, DAMAGE):
            raise explain(error, self.path) from error  # what becomes of the file is its node's business
        if isinstance(error, lmdb.BadValsizeError):
            raise ValueError(f"That is no key: {error}") from error
        super()._recover(error, lock)

    def write_many(self, calls: Sequence[Call], *, wait_s: float | None = None) -> NoReturn:
        """Nobody writes to a store that is somebody else's."""
        raise StorageError(f"The store {self.path} is written by its node alone. Nothing was changed.")

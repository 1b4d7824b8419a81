"""A copy of a store while it is used: LMDB writes it into a socket on a thread of its own, the caller reads pieces.

The copy is compact, and it is the state of one read transaction: what the caller reads in that transaction, such as the applied
index, is true of the copy. The transaction keeps old pages alive for as long as the copy takes.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

import lmdb

from django_keyspace.exceptions import KeyspaceError, StorageError
from django_keyspace.store.errors import explain

if TYPE_CHECKING:
    from django_keyspace.store.opening import OpenableStore

logger = logging.getLogger("django_keyspace.store")

PIECE_BYTES: Final = 256 * 1024


class StoreCopy:
    """One copy, in a ``with``; iterating gives its bytes, which are those of a ``data.mdb``.

    Arguments:
        store: an open store.
        read: called with the copy's transaction, before the first byte is read.

    Attributes:
        facts: what ``read`` returned; there once the ``with`` was entered.

    Raises:
        StorageError: on entering or while iterating: the copy failed, or was cancelled because the map had to grow. What was
            read of it is worth nothing.
    """

    def __init__(self, store: OpenableStore, read: Callable[[Any], Any] = lambda transaction: None) -> None:
        self.facts: Any = None
        self._store = store
        self._read = read
        self._begun: SimpleQueue[Any] = SimpleQueue()
        self._error: KeyspaceError | None = None
        self._receiving, self._sending = socket.socketpair()  # unlike a pipe, it can be shut by a third thread
        self._cancelled = False
        self._thread = Thread(target=self._run, name="keyspace-copy", daemon=True)

    def __enter__(self) -> StoreCopy:
        self._store.copies.add(self)
        self._thread.start()
        self.facts = self._begun.get()
        if self._error is not None and not self._cancelled:
            self._end()
            raise self._error
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def __iter__(self) -> Iterator[bytes]:
        while piece := self._receiving.recv(PIECE_BYTES):
            yield piece
        self._thread.join()
        if self._cancelled:
            raise StorageError(
                f"The copy of {self._store.path} was given up, because the store needed its quiet. Copy it again."
            )
        if self._error is not None:
            raise self._error

    def cancel(self) -> None:
        """End it early; may be called from another thread. Returns when its transaction has ended."""
        self._cancelled = True
        with contextlib.suppress(OSError):
            self._receiving.shutdown(socket.SHUT_RDWR)  # LMDB's next write fails, and the reader finds the end
        self._thread.join()

    def _end(self) -> None:
        self._store.copies.discard(self)
        self.cancel()
        self._receiving.close()

    def _run(self) -> None:
        store = self._store
        try:
            environment = store._opened()
            store.gate.enter("copy")
            try:
                with environment.begin() as transaction:
                    self._begun.put(self._read(transaction))
                    environment.lmdb.copyfd(self._sending.fileno(), compact=True, txn=transaction)
            finally:
                store.gate.leave()
        except lmdb.Error as error:
            self._error = explain(error, store.path)
        except KeyspaceError as error:
            self._error = error
        except Exception as error:
            logger.exception("A copy of %s failed.", store.path)
            self._error = StorageError(f"The store {store.path} could not be copied: {error}.")
        finally:
            self._sending.close()
            self._begun.put(None)

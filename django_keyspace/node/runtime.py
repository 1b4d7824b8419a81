"""The replicated log as a node sees it, and the trivial log of a single node.

This is the seam between serving and replicating: the server proposes writes and waits for read barriers, and does not
know whether one machine or a cluster makes them true. All methods are called on the event loop's thread, and all
callbacks come back there.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from django_keyspace.exceptions import KeyspaceError, Overloaded, StorageError
from django_keyspace.operations import Call

logger = logging.getLogger("django_keyspace.node")

CALLS_MAX: Final = 100_000
"""Writes that may wait or be under way; more are refused as :class:`Overloaded`."""
BYTES_MAX: Final = 256 * 1024 * 1024
"""The same, in bytes of their frames."""
GROUP_CALLS_MAX: Final = 1_000
GROUP_BYTES_MAX: Final = 8 * 1024 * 1024
GROUPS_MAX: Final = 2
"""Groups handed to the store at a time: one that is being written, and one that is ready when it is done."""

Done = Callable[[list[Any]], None]
"""Takes one result, or one :class:`KeyspaceError`, for each call."""


class ReplicatedLog(Protocol):
    """Puts writes in one order and makes them durable; tells when a read is current."""

    def propose(self, calls: Sequence[Call], size_bytes: int, done: Done) -> None:
        """Have checked writes done, in order.

        Arguments:
            calls: the operations; each stands for itself, whatever becomes of the others.
            size_bytes: about how much memory they take.
            done: gets the results when they are as durable as the node promises.
        Raises:
            KeyspaceError: not accepted; nothing was done, and ``done`` will not be called.
        """

    def read_barrier(self) -> asyncio.Future[None] | None:
        """When a read that arrives now may be answered from the local store.

        Returns:
            None: at once. Otherwise a future; its error, if it has one, is the read's.
        """

    def on_commit(self, callback: Callable[[int], None]) -> None:
        """Have ``callback`` called after each commit and its results, with the number of calls in it."""

    async def drain(self) -> None:
        """Return when nothing is waiting or under way."""


class WriterStore(Protocol):
    """What a log needs of a store."""

    def submit(self, calls: Sequence[Call], done: Done) -> None:
        """Do operations in one transaction on the store's own thread; ``done`` is called from there."""


class LocalLog:
    """The log of a single node: what arrives in one turn of the loop becomes one transaction of the store.

    While a group is being written, the next one gathers: the slower the disk, the larger the groups.

    Arguments:
        store: where the writes go.
        loop: the event loop whose thread calls this object.
        calls_max: writes that may be pending before more are refused.
        bytes_max: the same in bytes.
    """

    def __init__(
        self,
        store: WriterStore,
        loop: asyncio.AbstractEventLoop,
        *,
        calls_max: int = CALLS_MAX,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        self._store = store
        self._loop = loop
        self._calls_max = calls_max
        self._bytes_max = bytes_max
        self._waiting: deque[tuple[Sequence[Call], int, Done]] = deque()
        self._flush_scheduled = False
        self._groups = 0
        self._callbacks: list[Callable[[int], None]] = []
        self._idle: asyncio.Event | None = None
        self.pending_calls = 0
        self.pending_bytes = 0

    def propose(self, calls: Sequence[Call], size_bytes: int, done: Done) -> None:
        """See :meth:`ReplicatedLog.propose`. Raises :class:`Overloaded`."""
        # One proposal larger than the limit is taken when nothing else is pending: otherwise it never could be.
        if self.pending_calls and (
            self.pending_calls + len(calls) > self._calls_max or self.pending_bytes + size_bytes > self._bytes_max
        ):
            raise Overloaded(
                f"The node has {self.pending_calls:,} writes of {self.pending_bytes:,} bytes waiting. "
                "Nothing was done. Try again later."
            )
        self.pending_calls += len(calls)
        self.pending_bytes += size_bytes
        self._waiting.append((calls, size_bytes, done))
        if not self._flush_scheduled and self._groups < GROUPS_MAX:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def read_barrier(self) -> asyncio.Future[None] | None:
        """None: whatever was answered is in the store, and there is no other copy that could be newer."""
        return None

    def on_commit(self, callback: Callable[[int], None]) -> None:
        """See :meth:`ReplicatedLog.on_commit`."""
        self._callbacks.append(callback)

    async def drain(self) -> None:
        """See :meth:`ReplicatedLog.drain`."""
        while self.pending_calls:
            self._idle = asyncio.Event()
            await self._idle.wait()

    def _flush(self) -> None:
        """Hand the store as many groups as it may have."""
        self._flush_scheduled = False
        while self._waiting and self._groups < GROUPS_MAX:
            group: list[tuple[int, int, Done]] = []
            calls: list[Call] = []
            size_bytes = 0
            while self._waiting and len(calls) < GROUP_CALLS_MAX and size_bytes < GROUP_BYTES_MAX:
                some_calls, some_bytes, done = self._waiting.popleft()
                calls.extend(some_calls)
                size_bytes += some_bytes
                group.append((len(some_calls), some_bytes, done))
            self._groups += 1
            try:
                self._store.submit(calls, self._handover(group, len(calls)))
            except KeyspaceError as error:
                # Not from here: finishing would come back to this very loop.
                self._loop.call_soon(self._finish, group, [error] * len(calls))

    def _handover(self, group: list[tuple[int, int, Done]], size: int) -> Done:
        """What the store's thread calls: it brings the results over to the loop."""

        def hand_over(results: list[Any]) -> None:
            if len(results) != size:
                results = [StorageError("The store did not answer each write of a group.")] * size
            try:
                self._loop.call_soon_threadsafe(self._finish, group, results)
            except RuntimeError:
                logger.warning("%d writes were committed after the node had stopped to wait for them", size)

        return hand_over

    def _finish(self, group: list[tuple[int, int, Done]], results: list[Any]) -> None:
        self._groups -= 1
        begin = 0
        for count, size_bytes, done in group:
            self.pending_calls -= count
            self.pending_bytes -= size_bytes
            done(results[begin : begin + count])
            begin += count
        for callback in self._callbacks:
            callback(begin)
        if self._waiting:
            self._flush()
        elif self._idle is not None and not self.pending_calls:
            self._idle.set()

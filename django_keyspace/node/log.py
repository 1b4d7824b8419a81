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
from time import monotonic
from typing import Any, Final, Protocol

from django_keyspace.exceptions import KeyspaceError, LockTimeout, Overloaded, StorageError
from django_keyspace.node.barrier import Granted, Hold, ScriptBarrier
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

HERE_CALLS_MAX: Final = 128
"""A group of at most so many quick writes may be written on the loop's thread, if its durability needs no disk."""
HERE_BYTES_MAX: Final = 64 * 1024
HERE_MS_MAX: Final = 5
"""A group that took longer sends those of the next moment to the store's thread."""
AWAY_S_MIN: Final = 0.05
AWAY_S_MAX: Final = 1.0
"""That moment's length: it doubles with each slow group, as long as the first one after it is slow again."""
QUICK_WRITES: Final = frozenset(
    {"set", "set_many", "touch", "delete", "delete_many", "incr", "incr_float", "append", "cas", "remove", "rename"}
)
"""Writes whose work is in proportion to their frame."""

Done = Callable[[list[Any]], None]
"""Takes one result, or one :class:`KeyspaceError`, for each call."""


Proposal = tuple[Sequence[Call], int, Done]
"""Operations, their bytes, and who gets the results."""


class View(Protocol):
    """A state of the store to read from, at once.

    Attributes:
        index: the last entry of the log that it holds.
        age_ms: 0 if it holds all that was acknowledged when the read came; otherwise how long ago, at most, the copy was current.
        node: the name of the node that it is on.
    """

    index: int
    age_ms: int
    node: str

    def read(self, name: str, *arguments: Any) -> Any:
        """Do a read operation."""

    def answer(self, call: Call) -> tuple[Any, int, int, str]:
        """Do a read, or a batch of reads, and say what its result is as of: what the operation ``at`` answers."""


Ready = Callable[[View | KeyspaceError], None]


class Reads(Protocol):
    """Tells when a read may be answered from the local store."""

    @property
    def applied_index(self) -> int:
        """The last entry of the log that the local store holds."""

    def members(self) -> dict[str, Any]:
        """What the operation ``members`` answers, as far as this node knows."""

    def at_once(self, level: str, min_index: int = 0, max_staleness_ms: int | None = None) -> View | None:
        """The view of a read that need not wait for anything; None if :meth:`read` has to see to it. Arguments as there."""

    def read(self, level: str, ready: Ready, min_index: int = 0, max_staleness_ms: int | None = None) -> None:
        """Have a read told when and from what it may be answered.

        Arguments:
            level: a word of ``operations.LEVELS``.
            ready: takes the view to read from, or why there is none; perhaps before this method returns.
            min_index: for a session read: the view holds everything up to this index of the log.
            max_staleness_ms: for session and dirty reads: how long ago, at most, the node's copy was current.
        """


class ReplicatedLog(Protocol):
    """Puts writes in one order and makes them durable.

    Attributes:
        reads: whom to ask before a read; None if there is no other copy, so that whatever is in the store is current.
        pending_calls: writes that are accepted and not answered.
        pending_bytes: the same, in bytes of their frames.
    """

    @property
    def reads(self) -> Reads | None:
        """See above."""

    @property
    def pending_calls(self) -> int:
        """See above."""

    @property
    def pending_bytes(self) -> int:
        """See above."""

    def propose(self, calls: Sequence[Call], size_bytes: int, done: Done) -> None:
        """Have checked writes done, in order.

        Arguments:
            calls: the operations; each stands for itself, whatever becomes of the others.
            size_bytes: about how much memory they take.
            done: gets the results when they are as durable as the node promises.
        Raises:
            KeyspaceError: not accepted; nothing was done, and ``done`` will not be called.
        """

    def on_commit(self, callback: Callable[[int], None]) -> None:
        """Have ``callback`` called after each commit and its results, with the number of calls in it."""

    def hold(self, granted: Granted) -> Hold:
        """Keep everybody's writes waiting until :meth:`let_go`. For a script that was overtaken again and again: what it
        reads from now on nobody changes.

        Arguments:
            granted: called when no write is under way, or with the reason why that will not be.
        """

    def propose_held(self, calls: Sequence[Call], size_bytes: int, done: Done) -> None:
        """As :meth:`propose`, for the one who holds the others: these writes are the very next ones."""

    def let_go(self, turn: Hold) -> None:
        """End what :meth:`hold` began."""


class WriterStore(Protocol):
    """What a log needs of a store."""

    def write_many(self, calls: Sequence[Call], *, wait_s: float | None = None) -> list[Any]:
        """Do operations in one transaction on this thread; :class:`LockTimeout` if that has to wait for longer."""

    def submit(self, calls: Sequence[Call], done: Done) -> None:
        """Do operations in one transaction on the store's own thread; ``done`` is called from there."""


class LocalLog:
    """The log of a single node: what arrives in one turn of the loop becomes one transaction of the store.

    While a group is being written, the next one gathers: the slower the disk, the larger the groups.

    Handing a group to another thread and back costs as much as a small transaction. So where durability needs no disk (a
    commit is then a copy into the system's page cache, as a read is a copy out of it), a small group is written at once on
    the loop's own thread, unless the store's lock is taken or the last such group was slow.

    Arguments:
        store: where the writes go.
        loop: the event loop whose thread calls this object.
        calls_max: writes that may be pending before more are refused.
        bytes_max: the same in bytes.
        may_write_here: whether a commit needs no disk.
        on_group: told of each group of writes: how many, and the seconds that they took.
    """

    def __init__(
        self,
        store: WriterStore,
        loop: asyncio.AbstractEventLoop,
        *,
        calls_max: int = CALLS_MAX,
        bytes_max: int = BYTES_MAX,
        may_write_here: bool = False,
        on_group: Callable[[int, float], None] | None = None,
    ) -> None:
        self._store = store
        self._loop = loop
        self._calls_max = calls_max
        self._bytes_max = bytes_max
        self._waiting: deque[Proposal] = deque()
        self.reads: Reads | None = None
        self._flush_scheduled = False
        self._groups = 0
        self._callbacks: list[Callable[[int], None]] = []
        self._on_group = on_group
        self._barrier = ScriptBarrier(lambda: not self._groups, self._flush)
        self._write_here_from_s = 0.0 if may_write_here else float("inf")
        self._away_s = AWAY_S_MIN
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

    def on_commit(self, callback: Callable[[int], None]) -> None:
        """See :meth:`ReplicatedLog.on_commit`."""
        self._callbacks.append(callback)

    def hold(self, granted: Granted) -> Hold:
        """See :meth:`ReplicatedLog.hold`."""
        return self._barrier.hold(granted)

    def propose_held(self, calls: Sequence[Call], size_bytes: int, done: Done) -> None:
        """See :meth:`ReplicatedLog.propose_held`."""
        self.pending_calls += len(calls)
        self.pending_bytes += size_bytes
        self._submit([(calls, size_bytes, done)], calls, monotonic())

    def let_go(self, turn: Hold) -> None:
        """See :meth:`ReplicatedLog.let_go`."""
        self._barrier.let_go(turn)

    def _flush(self) -> None:
        """Write what is waiting, or hand the store as many groups as it may have."""
        self._flush_scheduled = False
        waiting = self._waiting
        while waiting and self._groups < GROUPS_MAX and not self._barrier.is_held:
            began_s = monotonic()
            group = [waiting.popleft()]
            calls, size_bytes, _ = group[0]
            if waiting:
                calls = list(calls)
                while waiting and len(calls) < GROUP_CALLS_MAX and size_bytes < GROUP_BYTES_MAX:
                    proposal = waiting.popleft()
                    calls.extend(proposal[0])
                    size_bytes += proposal[1]
                    group.append(proposal)
            if (
                self._groups
                or size_bytes > HERE_BYTES_MAX
                or began_s < self._write_here_from_s
                or not self._write_here(group, calls, began_s)
            ):
                self._submit(group, calls, began_s)

    def _submit(self, group: list[Proposal], calls: Sequence[Call], began_s: float) -> None:
        """Have a group written on the store's own thread."""
        self._groups += 1
        try:
            self._store.submit(calls, self._handover(group, len(calls), began_s))
        except KeyspaceError as error:
            self._groups -= 1
            self._deliver(group, [error] * len(calls), monotonic() - began_s)

    def _write_here(self, group: list[Proposal], calls: Sequence[Call], began_s: float) -> bool:
        """Write a group on this thread; False if it is better done on the store's own."""
        if len(calls) > HERE_CALLS_MAX:
            return False
        for call in calls:
            if (call[5][0] if call[0] == "once" else call[0]) not in QUICK_WRITES:
                return False
        try:
            results = self._store.write_many(calls, wait_s=0)
        except LockTimeout:
            return False
        except KeyspaceError as error:
            results = [error] * len(calls)
        ended_s = monotonic()
        if ended_s - began_s > HERE_MS_MAX / 1000:
            self._write_here_from_s = ended_s + self._away_s
            self._away_s = min(2 * self._away_s, AWAY_S_MAX)
        elif self._away_s > AWAY_S_MIN:
            self._away_s = AWAY_S_MIN
        self._deliver(group, results, ended_s - began_s)
        return True

    def _handover(self, group: list[Proposal], size: int, began_s: float) -> Done:
        """What the store's thread calls: it brings the results over to the loop."""

        def hand_over(results: list[Any]) -> None:
            if len(results) != size:
                results = [StorageError("The store did not answer each write of a group.")] * size
            try:
                self._loop.call_soon_threadsafe(self._finish, group, results, began_s)
            except RuntimeError:
                logger.warning("%d writes were committed after the node had stopped to wait for them", size)

        return hand_over

    def _finish(self, group: list[Proposal], results: list[Any], began_s: float) -> None:
        """The store has done a group."""
        self._groups -= 1
        self._deliver(group, results, monotonic() - began_s)
        self._barrier.look()
        if self._waiting:
            self._flush()

    def _deliver(self, group: list[Proposal], results: list[Any], seconds: float) -> None:
        if self._on_group is not None:
            self._on_group(len(results), seconds)
        begin = 0
        for calls, size_bytes, done in group:
            end = begin + len(calls)
            self.pending_calls -= end - begin
            self.pending_bytes -= size_bytes
            done(results[begin:end])
            begin = end
        for callback in self._callbacks:
            callback(begin)

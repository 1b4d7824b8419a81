"""Reads that wait: for a majority to confirm that this node leads, and for the store to have applied what they must see."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any, NamedTuple, Protocol

from django_keyspace.exceptions import KeyspaceError
from django_keyspace.node.log import Ready
from django_keyspace.operations import Call
from django_keyspace.store.queries import carry_out


class Readable(Protocol):
    """What a view needs of the state machine."""

    @property
    def applied_index(self) -> int:
        """The last entry applied."""

    @property
    def log_ms(self) -> int:
        """The log clock at that entry."""

    def read(self, now_ms: int, name: str, *arguments: Any) -> Any:
        """Do a read operation at a log time."""


class StoreView:
    """A node's store at one log time: see :class:`~django_keyspace.node.log.View`.

    Arguments:
        machine: the state machine.
        now_ms: the log time by which records are expired.
        age_ms: see :attr:`View.age_ms`.
        node: the node's name.
    """

    __slots__ = ("_machine", "age_ms", "index", "node", "now_ms")

    def __init__(self, machine: Readable, now_ms: int, age_ms: int, node: str) -> None:
        self._machine = machine
        self.now_ms = now_ms
        self.index = machine.applied_index
        self.age_ms = age_ms
        self.node = node

    def read(self, name: str, *arguments: Any) -> Any:
        """See :meth:`View.read`."""
        return self._machine.read(self.now_ms, name, *arguments)

    def answer(self, call: Call) -> tuple[Any, int, int, str]:
        """See :meth:`View.answer`."""
        return carry_out(self.read, 0, self.index, call), self.index, self.age_ms, self.node


class Batch(NamedTuple):
    """Reads that came together.

    Attributes:
        came_ms: the log time when they did.
        ready: what takes their views.
        is_confirmed: whether a majority confirms what they see; otherwise they are of this node's copy, as old as it may be.
    """

    came_ms: int
    ready: list[Ready]
    is_confirmed: bool = True


class WaitingReads:
    """The reads of a node that cannot be answered yet.

    Arguments:
        answer: answers reads from the store as it is now.
        refuse: tells reads why they get no view.
    """

    def __init__(self, answer: Callable[[Batch], None], refuse: Callable[[Batch, KeyspaceError], None]) -> None:
        self._answer = answer
        self._refuse = refuse
        self._unconfirmed: dict[int, Batch] = {}
        self._unapplied: list[tuple[int, int, Batch]] = []
        self._count = 0
        self._given_up = 0

    def __bool__(self) -> bool:
        return bool(self._unapplied or self._unconfirmed)

    def ask(self, read_id: int, batch: Batch) -> None:
        """A majority was asked, under that id."""
        self._unconfirmed[read_id] = batch

    def confirmed(self, read_id: int, index: int) -> None:
        """A majority has confirmed: the reads must see everything up to that index."""
        batch = self._unconfirmed.pop(read_id, None)
        if batch is not None:
            self.wait_for(index, batch)

    def wait_for(self, index: int, batch: Batch) -> None:
        """Have reads wait until that index is applied."""
        self._count += 1
        heappush(self._unapplied, (index, self._count, batch))

    def applied(self, index: int) -> None:
        """Everything up to that index is applied: answer the reads that wait for no more."""
        while self._unapplied and self._unapplied[0][0] <= index:
            self._answer(heappop(self._unapplied)[2])

    def give_up(self, batch: Batch) -> None:
        """The reads of a batch wait no longer. What is left of them goes when it is most of what is here."""
        batch.ready.clear()
        self._given_up += 1
        if 2 * self._given_up > len(self._unapplied):
            self._unapplied = [waiting for waiting in self._unapplied if waiting[2].ready]
            heapify(self._unapplied)
            self._given_up = 0

    def refuse(self, read_id: int, error: KeyspaceError) -> None:
        """A majority could not be asked."""
        batch = self._unconfirmed.pop(read_id, None)
        if batch is not None:
            self._refuse(batch, error)

    def refuse_unconfirmed(self, error: KeyspaceError) -> None:
        """No majority will confirm any of them."""
        waiting, self._unconfirmed = self._unconfirmed, {}
        for batch in waiting.values():
            self._refuse(batch, error)

    def refuse_all(self, error: KeyspaceError) -> None:
        """The store will not get there: it is being replaced, or the node stops."""
        self.refuse_unconfirmed(error)
        waiting, self._unapplied = self._unapplied, []
        for _, _, batch in waiting:
            self._refuse(batch, error)

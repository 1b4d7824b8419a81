"""What operators ask of a cluster's log: to change its members, and to have another node lead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from django_keyspace.exceptions import ChangeRefused, DeadlineExceeded, KeyspaceError
from django_keyspace.node import raft as consensus
from django_keyspace.node.interfaces import Scheduler

Told = Callable[[KeyspaceError | None], None]
"""Takes None when it is done, or why it was refused, or that nobody knows."""


class Leading(Protocol):
    """What changes need of the runtime."""

    raft: consensus.Raft

    def require_leader(self) -> None:
        """Raises :class:`KeyspaceError` if this node does not lead."""

    def public(self, error: Exception) -> KeyspaceError:
        """What the core refused, in the words of the package."""


class Changes:
    """Changes of membership and of leadership that are under way.

    Arguments:
        core: the runtime.
        scheduler: the node's loop.
        patience_ms: how long another node may take to take over.
    """

    def __init__(self, core: Leading, scheduler: Scheduler, patience_ms: int) -> None:
        self._core = core
        self._scheduler = scheduler
        self._patience_ms = patience_ms
        self._under_way: dict[int, tuple[int, Told]] = {}
        self._handing_over: list[Told] = []

    def change(self, change: consensus.Change, told: Told) -> None:
        """Begin to add, promote or remove a member; ``told`` is called once that is committed."""
        try:
            self._core.require_leader()
            entry = self._core.raft.propose_change(change)
        except (consensus.Refused, KeyspaceError) as error:
            told(self._core.public(error))
        else:
            self._under_way[entry.index] = (entry.term, told)

    def transfer(self, target: str | None, told: Told) -> None:
        """Begin to hand leadership over: to a member, or to whoever has most of the log."""
        try:
            self._core.require_leader()
            self._core.raft.transfer(target)
        except (consensus.Refused, KeyspaceError) as error:
            told(self._core.public(error))
        else:
            self._handing_over.append(told)
            self._scheduler.call_later(self._patience_ms, self._not_handed_over, told)

    def applied(self, entry: consensus.Entry) -> None:
        """An entry is committed and applied."""
        if entry.index in self._under_way:
            term, told = self._under_way.pop(entry.index)
            told(None if term == entry.term else _overtaken())

    def leadership_ended(self) -> None:
        """This node leads no more."""
        under_way, self._under_way = self._under_way, {}
        handing_over, self._handing_over = self._handing_over, []
        for _, told in under_way.values():
            told(_overtaken())
        for told in handing_over:
            told(None)

    def _not_handed_over(self, told: Told) -> None:
        if told in self._handing_over:
            self._handing_over.remove(told)
            told(DeadlineExceeded("No other node took over in time. This node leads on."))


def _overtaken() -> ChangeRefused:
    return ChangeRefused(
        "The node ceased to lead before it knew whether the change is committed. Look at the members, and try again if need be."
    )

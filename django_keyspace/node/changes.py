"""What operators ask of a cluster's log: to change its members, and to have another node lead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from django_keyspace.exceptions import ChangeRefused, DeadlineExceeded, KeyspaceError
from django_keyspace.node import raft as consensus
from django_keyspace.node.interfaces import Links, Scheduler

Told = Callable[[KeyspaceError | None], None]
"""Takes None when it is done, or why it was refused, or that nobody knows."""


class Leading(Protocol):
    """What changes need of the runtime."""

    raft: consensus.Raft

    def require_leader(self) -> None:
        """Raises :class:`KeyspaceError` if this node does not lead."""

    def public(self, error: Exception) -> KeyspaceError:
        """What the core refused, in the words of the package."""


AGAIN_MS: Final = 50
"""Time between two looks whether a node that has just started may take over."""


class Changes:
    """Changes of membership and of leadership that are under way.

    A node that started within an election timeout neither stands nor votes: it may have forgotten what it had promised. To hand
    over to such a node would be to keep everybody waiting. So the leader leads on until there is another one.

    Arguments:
        core: the runtime.
        scheduler: the node's loop.
        links: tell for how long the other nodes have run.
        election_timeout_ms: twice that is how long another node may take to take over.
    """

    def __init__(self, core: Leading, scheduler: Scheduler, links: Links, election_timeout_ms: int) -> None:
        self._core = core
        self._scheduler = scheduler
        self._links = links
        self._election_timeout_ms = election_timeout_ms
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
        """Begin to hand leadership over: to a member, or to whoever has most of the log. Nobody notices how long it waits
        for a node that has just started."""
        self._transfer(target, told, self._election_timeout_ms)

    def _transfer(self, target: str | None, told: Told, patience_ms: int) -> None:
        raft = self._core.raft
        try:
            self._core.require_leader()
            new = {voter for voter in raft.membership.voters if self._is_new(voter)} - {raft.status().node}
            successor = raft.successor(new) if target is None else target
            if successor not in new or patience_ms <= 0:
                raft.transfer(successor)
        except (consensus.Refused, KeyspaceError) as error:
            told(self._core.public(error))
            return
        if raft.is_handing_over:
            self._handing_over.append(told)
            self._scheduler.call_later(2 * self._election_timeout_ms, self._not_handed_over, told)
        else:
            self._scheduler.call_later(AGAIN_MS, self._transfer, target, told, patience_ms - AGAIN_MS)

    def _is_new(self, member: str) -> bool:
        return self._links.connected_ms(member) < self._election_timeout_ms

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

"""Who the members are and where, and the errors that send a client to the right one."""

from __future__ import annotations

import logging
from typing import Any, Final, Protocol

from django_keyspace.exceptions import (
    ChangeRefused,
    KeyspaceError,
    NoSpace,
    NotLeader,
    Overloaded,
    ValueTooLarge,
)
from django_keyspace.node import raft as consensus
from django_keyspace.node.clock import NodeClock
from django_keyspace.node.identity import address_of, name_of

logger = logging.getLogger("django_keyspace.node")


class HasCore(Protocol):
    """Whoever has the consensus core, which may be another one tomorrow."""

    node: str
    name: str
    cluster: str
    raft: consensus.Raft
    is_full: bool


class Directory:
    """The members of a node's cluster, by what its log says.

    Arguments:
        core: the runtime.
        clock: the node's.
        patience_ms: how long an election may take.
    """

    def __init__(self, core: HasCore, clock: NodeClock, patience_ms: int) -> None:
        self._core = core
        self._clock = clock
        self._patience_ms = patience_ms
        self._full_since_ms = 0

    def members(self) -> dict[str, Any]:
        """The members, as the operation ``members`` answers it."""
        membership, nodes = self._core.raft.membership, []
        for role, ids in (("voter", membership.voters), ("learner", membership.learners)):
            nodes += [{"name": name_of(node), "address": self.address_of(node), "role": role} for node in ids]
        leader = self._core.raft.leader
        return {"cluster": self._core.cluster, "leader": name_of(leader) if leader else None, "nodes": nodes}

    def membership_at(self, index: int) -> consensus.Membership:
        """The members as of an applied entry: see :meth:`Raft.membership_at`."""
        return self._core.raft.membership_at(index)

    def address_of(self, node: str | None) -> str | None:
        """The address of a member, as the cluster knows it."""
        return address_of(self._core.raft.membership, node) if node else None

    def not_leader(self) -> NotLeader:
        """The error that says who leads."""
        leader = self._core.raft.leader if self._core.raft.leader != self._core.node else None
        address = self.address_of(leader)
        where = "no node is known to"
        if leader:
            where = f"node {name_of(leader)} at {address or 'an unknown address'} does"
        return NotLeader(
            f"Node {self._core.name} does not lead the cluster; {where}. Nothing was done.", leader, address
        )

    def set_full(self, is_full: bool) -> None:
        """Note whether the node's disk is full."""
        if is_full and not self._core.is_full:
            self._full_since_ms = self._clock.monotonic_ms()
        self._core.is_full = is_full

    def waits_for_room(self, error: NoSpace) -> None:
        """Something has to be written before this node can go on, and there is no room for it."""
        if not self._core.is_full:
            logger.error("%s Node %s waits until there is room.", error, self._core.node)
        self.set_full(True)

    def no_room(self) -> KeyspaceError:
        """The error of a node whose disk is full: who else leads, or may soon; otherwise that there is no room."""
        raft, name = self._core.raft, self._core.name
        is_new = self._clock.monotonic_ms() - self._full_since_ms < self._patience_ms
        is_led = raft.leader not in (None, self._core.node)
        others = len(raft.membership.voters) > 1 and (is_new or is_led)
        if not others:
            return NoSpace(f"The disk of node {name} is full. Nothing was done. Make room on it.")
        refusal = self.not_leader()
        return NotLeader(f"{refusal} Its disk is full.", refusal.leader, refusal.address)

    def public(self, error: Exception) -> KeyspaceError:
        """What the core refused, in the words of the package."""
        if isinstance(error, KeyspaceError):
            return error
        if isinstance(error, consensus.NotLeader):
            return self.not_leader()
        for kind, public in _PUBLIC:
            if isinstance(error, kind):
                return public(str(error))
        raise error


_PUBLIC: Final[tuple[tuple[type[Exception], type[KeyspaceError]], ...]] = (
    (consensus.Overloaded, Overloaded),
    (consensus.EntryTooLarge, ValueTooLarge),
    (consensus.ChangeRefused, ChangeRefused),
    (consensus.TransferRefused, ChangeRefused),
)

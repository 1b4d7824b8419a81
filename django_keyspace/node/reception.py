"""What a member of a cluster tells nodes that look for theirs, and how it takes in those that want to join."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from django_keyspace.exceptions import ChangeRefused, KeyspaceError, NodeRemoved, PeerRefused, ProtocolError
from django_keyspace.node.bootstrap import JOIN, STATE, State
from django_keyspace.node.greeting import PeerHello
from django_keyspace.node.identity import Identity, member_info, name_of
from django_keyspace.node.peers import Answer, Peers
from django_keyspace.node.raft import ADD, REMOVE, Change, Membership

logger = logging.getLogger("django_keyspace.node")


class Changes(Protocol):
    """What is needed of the runtime."""

    def membership(self) -> Membership:
        """The members."""

    def change(self, change: Change, done: Callable[[KeyspaceError | None], None]) -> None:
        """Change them, if this node leads."""

    def require_leader(self) -> None:
        """Raise :class:`NotLeader` if another node leads."""


class Reception:
    """Answers nodes that are in no cluster.

    Arguments:
        identity: who this node is.
        address: where it is.
        members: the runtime.
        peers: the links; they know who is there.
    """

    def __init__(self, identity: Identity, address: str, members: Changes, peers: Peers) -> None:
        self._identity = identity
        self._address = address
        self._members = members
        self._peers = peers

    def answer(self, peer: PeerHello, frame: tuple[Any, ...], take: Answer) -> None:
        """See ``answer`` of :class:`Peers`."""
        if frame == (STATE,):
            identity = self._identity
            now = self._members.membership()
            take(State(identity.member_id, self._address, identity.cluster, identity.members, now).fields())
        elif frame == (JOIN,):
            try:
                self._take_in(peer, take)
            except KeyspaceError as error:
                take(error)
        else:
            take(ProtocolError(f"Node {self._identity.node} does not know the question {frame[0]!r:.40}."))

    def _take_in(self, peer: PeerHello, take: Answer) -> None:
        """Add a node as a learner. One that comes back under the name of a member that is not there takes its place."""
        members = self._members
        members.require_leader()
        self._peers.require_same_store(peer)
        membership = members.membership()
        if peer.node in membership.members:
            take({"cluster": self._identity.cluster})  # it asks again: the answer was lost
            return
        if peer.node in membership.retired:
            raise NodeRemoved(
                f"{peer.node} was removed from the cluster, and its id is never used again. Start it with an empty data folder."
            )

        def added(error: KeyspaceError | None) -> None:
            if error is None:
                logger.info("Node %s at %s has joined as a learner", peer.node, peer.address)
            take(error or {"cluster": self._identity.cluster})

        def add(error: KeyspaceError | None) -> None:
            if error is not None:
                take(error)
            else:
                members.change(Change(ADD, peer.node, member_info(peer.name, peer.address)), added)

        namesakes = [node for node in membership.members if name_of(node) == peer.name]
        if not namesakes:
            add(None)
            return
        running = f"A node {peer.name} is a member ({namesakes[0]}), and it is running. Nothing was changed. "
        if namesakes[0] == self._identity.member_id:
            raise PeerRefused(f"{running}Give the new one another name.")
        if namesakes[0] in self._peers.connected():
            # Perhaps nobody has noticed yet that its host went down: the new one asks again.
            raise ChangeRefused(
                f"{running}Give the new one another name; or stop that one, if this is to take its place."
            )
        logger.warning("Node %s takes the place of %s, which lost its data", peer.node, namesakes[0])
        members.change(Change(REMOVE, namesakes[0]), add)

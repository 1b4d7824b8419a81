"""What operators ask of a node over the clients' connection: its state, changes of the members, another leader.

The requests are in ``operations.CONTROLS``; the commands ``keyspace_status`` and ``keyspace_members`` are made of them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from django_keyspace import __version__
from django_keyspace.exceptions import ChangeRefused, KeyspaceError, NotSupported
from django_keyspace.node.beside import Beside
from django_keyspace.node.config import NodeConfig
from django_keyspace.node.entries import ENTRY_VERSION
from django_keyspace.node.identity import name_of
from django_keyspace.node.log import Done, ReplicatedLog
from django_keyspace.node.metrics import Metrics
from django_keyspace.node.parts import RuntimeStatus
from django_keyspace.node.raft import PROMOTE, Change, Membership
from django_keyspace.node.runtime import Runtime
from django_keyspace.node.service import ReadStore
from django_keyspace.operations import CONTROLS, WRITES, Call
from django_keyspace.store.errors import free_disk_bytes
from django_keyspace.wire import PROTOCOL_VERSION

ALONE: Final = "alone"
LEARNER: Final = "learner"
REMOVED: Final = "removed"


class NodeLinks(Protocol):
    """What is asked of the links to the other nodes.

    Attributes:
        entry_versions: the newest version of entries that each member reads.
        removed: what a member said when it did not take this node because it was removed; None if none has.
    """

    entry_versions: dict[str, int]
    removed: str | None

    def connected(self) -> list[str]:
        """The members that frames can be sent to."""


class Served(Protocol):
    """What is asked of the server."""

    config: NodeConfig
    store: ReadStore
    log: ReplicatedLog
    metrics: Metrics
    address: str
    draining: bool
    connections: set[Any]


class Control:
    """Answers operators.

    Arguments:
        served: the node's server.

    Attributes:
        links: the links to the other nodes; None for a node that runs alone.
        beside: tells processes of this host about the store.
    """

    def __init__(self, served: Served) -> None:
        self._served = served
        self.links: NodeLinks | None = None
        self.beside: Beside | None = None

    @property
    def runtime(self) -> Runtime | None:
        """The node's part in a cluster; None if it runs alone."""
        log = self._served.log
        return log if isinstance(log, Runtime) else None

    def answer(self, call: Call, take: Done) -> None:
        """Carry a request out.

        Arguments:
            call: a checked call of ``operations.CONTROLS``.
            take: gets the result, or the error, in a later turn of the loop.
        """
        loop = asyncio.get_running_loop()

        def done(result: Any) -> None:
            loop.call_soon(take, [result])

        try:
            if call[0] == "node_status":
                done(self.status())
            elif call[0] == "node_store":
                if self.beside is None:
                    raise NotSupported(f"Node {self._served.config.node_id} does not tell where its store is.")
                done(self.beside.answer())
            elif call[0] == "node_digest":
                self._digest(done)
            elif call[0] == "change_member":
                self._change(call[1], call[2], done)
            else:
                self._transfer(call[1], done)
        except KeyspaceError as error:
            done(error)

    # --- Changes ------------------------------------------------------------------------------------------------------

    def _change(self, kind: str, member: str, done: Callable[[KeyspaceError | None], None]) -> None:
        runtime = self._cluster()
        core = runtime.status().core
        if core.role == "leader":
            among = core.membership.learners if kind == PROMOTE else core.membership.members
            member = find_member(core.membership, member, among)
        runtime.change(Change(kind, member), done)  # who does not lead says so

    def _transfer(self, member: str | None, done: Callable[[KeyspaceError | None], None]) -> None:
        runtime = self._cluster()
        core = runtime.status().core
        if member is not None and core.role == "leader":
            member = find_member(core.membership, member, core.membership.voters)
        if member == core.node:
            done(None)  # it leads already
        else:
            runtime.transfer(member, done)

    def _digest(self, done: Callable[[tuple[int, bytes] | Exception], None]) -> None:
        """Beside the loop, because all that is stored is read."""
        parts = self._cluster().parts
        parts.scheduler.in_thread("digest", parts.machine.digest_at, done)

    def _cluster(self) -> Runtime:
        if self.runtime is None:
            raise NotSupported(
                f"Node {self._served.config.node_id} runs alone: it has no members to change and nobody to hand over to. "
                "Nothing was changed. A cluster is made of nodes that are started with --peer, each with an empty folder."
            )
        return self.runtime

    # --- State --------------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """The node at this moment, as plain data. See :func:`describe_cluster` for what a node of a cluster adds."""
        served = self._served
        config, requests = served.config, served.metrics.requests
        writes = sum(number for name, number in requests.items() if name in WRITES)
        asked = sum(number for name, number in requests.items() if name in CONTROLS)
        found: dict[str, Any] = {
            "node": config.node_id,
            "role": ALONE,
            "cluster": None,
            "address": served.address,
            "release": __version__,
            "protocol": PROTOCOL_VERSION,
            "entry_version": ENTRY_VERSION,
            "process": os.getpid(),
            "uptime_ms": round(served.metrics.uptime_s * 1000),
            "is_draining": served.draining,
            "connections": len(served.connections),
            "requests": {"reads": sum(requests.values()) - writes - asked, "writes": writes},
            "disk_free_bytes": free_disk_bytes(config.data),
            "store": self._store_figures(),
            "no_leader": None,
        }
        runtime = self.runtime
        if runtime is not None:
            connected = self.links.connected() if self.links is not None else []
            versions = self.links.entry_versions if self.links is not None else {}
            found |= describe_cluster(runtime, connected, versions)
            if self.links is not None and self.links.removed is not None:
                # Who is removed does not get the entry that says so.
                found |= {"role": REMOVED, "leader": None, "leader_address": None, "no_leader": self.links.removed}
        return found

    def _store_figures(self) -> dict[str, Any] | None:
        """None while the store is being replaced."""
        try:
            figures = self._served.store.read("status")
        except KeyspaceError:
            return None
        return {name: figures[name] for name in ("records", "used_bytes", "max_bytes", "file_bytes", "readers")}


def find_member(membership: Membership, member: str, among: tuple[str, ...]) -> str:
    """The id of a member.

    Arguments:
        membership: the members.
        member: its name or its id.
        among: the ids from which one is wanted if several members have the name.
    Raises:
        ChangeRefused: there is none, or nobody can tell which is meant.
    """
    if member in membership.members:
        return member
    namesakes = [one for one in membership.members if name_of(one) == member]
    wanted = [one for one in namesakes if one in among] or namesakes
    if len(wanted) > 1:
        raise ChangeRefused(
            f"{len(wanted)} members have the name {member!r:.80}: {', '.join(wanted)}. Nothing was changed. Name one by its id."
        )
    if not wanted:
        names = ", ".join(sorted({name_of(one) for one in membership.members})) or "none"
        raise ChangeRefused(
            f"There is no member {member!r:.80}; there are {names}. Nothing was changed. A node becomes a member, as a learner, "
            "when it is started with an empty folder and --join."
        )
    return wanted[0]


def describe_cluster(runtime: Runtime, connected: list[str], entry_versions: Mapping[str, int]) -> dict[str, Any]:
    """What a node of a cluster says of itself beyond what every node does.

    Arguments:
        runtime: its part in the cluster.
        connected: the ids of the members that it has links to.
        entry_versions: the newest version of entries that each member reads, as far as they have met.
    Returns:
        Plain data. ``heard_ms_ago`` is how long ago it heard from its leader. A member's ``match``, ``lag`` (entries), ``flow``
        and ``heard_ms_ago`` are what the leader knows of it, and None on other nodes.
    """
    status = runtime.status()
    core = status.core
    tick_ms = runtime.settings.tick_ms
    leader = core.leader
    members = []
    for member in core.membership.members:
        peer = core.peers.get(member)
        is_self = member == core.node
        members.append(
            {
                "name": name_of(member),
                "id": member,
                "role": "voter" if member in core.membership.voters else LEARNER,
                "address": runtime.address_of(member),
                "is_connected": is_self or member in connected,
                "entry_version": ENTRY_VERSION if is_self else entry_versions.get(member),
                "match": core.stable if is_self else peer.match if peer else None,
                "lag": 0 if is_self else core.last_index - peer.match if peer else None,
                "flow": peer.flow if peer else None,
                "heard_ms_ago": 0 if is_self else peer.heard_ticks_ago * tick_ms if peer else None,
            }
        )
    return {
        "role": _role(core.node, core.role, core.membership),
        "cluster": runtime.cluster,
        "member_id": core.node,
        "term": core.term,
        "vote": name_of(core.vote) if core.vote else None,
        "leader": name_of(leader) if leader else None,
        "leader_address": runtime.address_of(leader),
        "commit": core.commit,
        "applied": core.applied,
        "stable": core.stable,
        "first_index": core.first_index,
        "last_index": core.last_index,
        "last_term": core.last_term,
        "heard_ms_ago": status.heard_ms_ago,
        "log_ms": status.log_ms,
        "pending_writes": status.pending_calls,
        "is_full": status.is_full,
        "snapshots": list(status.snapshots),
        "handing_over_to": name_of(core.transferee) if core.transferee else None,
        "election_timeout_ms": runtime.settings.election_timeout_ms,
        "promote_lag_max": runtime.settings.raft.promote_lag_max,
        "members": members,
        "no_leader": None if leader else why_no_leader(status, connected),
    }


def _role(node: str, role: str, membership: Membership) -> str:
    if node in membership.retired:
        return REMOVED
    return LEARNER if node in membership.learners else role


def why_no_leader(status: RuntimeStatus, connected: list[str]) -> str:
    """Why a node knows of no leader, as far as it can tell. What the others say may be the better part of the answer."""
    core = status.core
    voters = core.membership.voters
    if not voters:
        return "It has joined, and waits for the leader to send it the log."
    if core.node in core.membership.retired:
        return "It was removed from the cluster."
    unreachable = [name_of(voter) for voter in voters if voter != core.node and voter not in connected]
    needed = len(voters) // 2 + 1
    if len(voters) - len(unreachable) < needed:
        return (
            f"It has no link to {', '.join(unreachable)}: {len(voters) - len(unreachable)} of {len(voters)} voters are not "
            f"a majority of {needed}."
        )
    if core.node not in voters:
        return "It is a learner, and no leader talks to it."
    if status.is_full:
        return "Its own disk is full, so that it does not stand for election, and no other node leads."
    vote = f"it voted for {name_of(core.vote)}" if core.vote else "it has not voted"
    return f"An election is under way: in term {core.term}, {vote}."

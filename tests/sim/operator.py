"""The operator: adds, promotes, removes and replaces nodes, one at a time, and tries again until it is done."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from django_keyspace.exceptions import KeyspaceError
from django_keyspace.node.raft import ADD, PROMOTE, REMOVE, Change

if TYPE_CHECKING:
    from django_keyspace.node.raft import Membership
    from tests.sim.cluster import SimCluster
    from tests.sim.node import SimNode

LOOK_US = 200_000
PATIENCE_US = 3_000_000
HOSTS_MAX = 7
DONE = {
    ADD: lambda members, node: node in members.members,
    PROMOTE: lambda members, node: node in members.voters,
    REMOVE: lambda members, node: node not in members.members,
}
"""By kind of change: whether the members are as if it was made."""


class Operator:
    """Looks at the cluster from time to time, and does the next step of its task.

    Arguments:
        cluster: whose.

    Attributes:
        task: the changes that it is about; empty when there is nothing to do.
    """

    def __init__(self, cluster: SimCluster) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.random = cluster.world.random("operator")
        self.task: list[Change] = []
        self.asked_us: int | None = None
        self.world.at(LOOK_US, None, self.look)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way, and no node waits to be replaced."""
        return not self.task and not any(node.trouble for node in self.cluster.nodes.values())

    def look(self) -> None:
        """Do the next step, if there is one."""
        self.world.at(LOOK_US, None, self.look)
        if not self.task:
            self.replace_one()
        leader = self.cluster.newest_leader()
        if leader is None or not self.task:
            return
        if self.asked_us is not None and self.world.now_us - self.asked_us < PATIENCE_US:
            return
        members = leader.raft.membership
        for change in self.task:
            if not DONE[change.kind](members, change.node):
                self.ask(leader, change)
                return
        if self.cluster.is_settled(leader):
            self.finish()

    def ask(self, leader: SimNode, change: Change) -> None:
        asked_us = self.asked_us = self.world.now_us

        def answered(error: KeyspaceError | None) -> None:
            if self.asked_us == asked_us:
                self.asked_us = None
            if error is None:
                self.world.counts[f"members:{change.kind}"] += 1
            if self.world.is_traced:
                self.world.tell("operator", f"{change.kind} {change.node}: {error or 'done'}")

        leader.runtime.change(change, answered)

    def finish(self) -> None:
        """The task is done: who was removed rests after a while."""
        for change in self.task:
            if change.kind == REMOVE:
                host = self.cluster.hosts_by_id[change.node]
                node = self.cluster.nodes[host]
                if node.id == change.node:
                    self.world.at(self.random.randrange(3_000_000), None, self.lay_to_rest, node, node.id)
        self.world.note("operator", "has finished its task")
        self.task = []

    def lay_to_rest(self, node: SimNode, node_id: str) -> None:
        """A removed node ends, for good."""
        if node.id == node_id:
            node.is_removed = True
            if node.is_up:
                node.kill()

    # --- Tasks --------------------------------------------------------------------------------------------------------

    def replace_one(self) -> None:
        """A node that cannot start any more joins again, with new disks and under another id."""
        for node in self.cluster.nodes.values():
            if not node.trouble:
                continue
            old = node.id
            self.cluster.suspects.pop(old, None)
            node.wipe()
            self.world.counts["rejoin"] += 1
            self.world.note("operator", f"{node.host} joins again as {node.id}: {node.trouble}")
            join = [self.add(node), Change(PROMOTE, node.id)]
            remove = [Change(REMOVE, old)]
            self.task = [*remove, *join] if self.random.random() < 0.5 else [*join, *remove]
            self.cluster.start_later(node)
            return

    def add(self, node: SimNode) -> Change:
        info = json.dumps({"name": node.host, "address": f"{node.host}:7080"})
        return Change(ADD, node.id, info)

    def grow(self) -> bool:
        """A host more."""
        if self.task or len(self.cluster.nodes) >= HOSTS_MAX:
            return False
        resting = [node for node in self.cluster.nodes.values() if node.is_removed and not node.is_up]
        if resting:
            node = resting[0]
            node.wipe()
        else:
            node = self.cluster.new_host()
        self.task = [self.add(node), Change(PROMOTE, node.id)]
        if self.random.random() < 0.2:
            self.task = self.task[:1]  # it stays a learner
        self.cluster.start_later(node)
        return True

    def shrink(self) -> bool:
        """A voter less, perhaps the leader."""
        leader = self.cluster.newest_leader()
        if self.task or leader is None:
            return False
        members: Membership = leader.raft.membership
        if len(members.voters) <= 3:
            return False
        self.task = [Change(REMOVE, self.random.choice(members.members))]
        return True

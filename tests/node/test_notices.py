"""When followers hear what is committed."""

from __future__ import annotations

from typing import Any

from django_keyspace.node.notices import NOTICE_MS
from django_keyspace.node.raft import Heartbeat, from_wire
from tests.node.replicas import Cluster, Node, incr


def heartbeats(node: Node) -> list[Any]:
    """Those that a node has sent apart from its rounds."""
    found = [from_wire(frame[1:]) for _, frame in node.sent if frame[0] == "raft"]
    return [message for message in found if isinstance(message, Heartbeat) and message.round == 0]


def test_an_entry_tells_what_was_committed_before_it(cluster: Cluster) -> None:
    leader = cluster.leader()
    cluster.settle()
    leader.sent.clear()
    for _ in range(5):
        leader.write(incr())
    told = len(heartbeats(leader))
    follower = cluster.followers()[0]
    assert follower.runtime.applied_index >= leader.runtime.applied_index - 1
    assert told < 5


def test_the_last_commit_is_told_soon_by_itself(cluster: Cluster) -> None:
    leader = cluster.leader()
    cluster.settle()
    leader.write(incr())
    followers = cluster.followers()
    cluster.run(NOTICE_MS + 5)
    assert {node.runtime.applied_index for node in followers} == {leader.runtime.applied_index}

"""A leader whose process has ended is not waited for, as long as it has nobody's promise to wait."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from django_keyspace.node.raft import Role
from tests.node.replicas import ELECTION_MS, Cluster, incr

Make = Callable[..., Cluster]


def report(cluster: Cluster, gone: str) -> None:
    for node in cluster:
        if node.is_up and node.id != gone:
            node.runtime.peer_lost(gone, is_gone=True)


def test_a_leader_that_is_gone_is_replaced_before_its_time_is_over(cluster: Cluster) -> None:
    leader = cluster.leader()
    leader.write(incr())
    leader.end()
    report(cluster, leader.id)
    report(cluster, leader.id)  # as often as somebody is refused a connection
    began_ms = cluster.now_ms
    successor = cluster.leader(leader)
    assert cluster.now_ms - began_ms < ELECTION_MS
    assert successor.write(incr()) == [2]


def test_a_leader_that_was_thought_to_be_gone_leads_on(cluster: Cluster) -> None:
    leader = cluster.leader()
    term = leader.runtime.raft.term
    for _ in range(5):
        cluster.followers()[0].runtime.peer_lost(leader.id, is_gone=True)  # the other one hears it
        cluster.run(ELECTION_MS)
        assert leader.leads
        assert leader.runtime.raft.term == term


def test_a_leader_with_a_lease_is_waited_for(make_cluster: Make) -> None:
    cluster = make_cluster(raft_lease_drift_max=0.1)
    leader = cluster.start()
    leader.write(incr())
    leader.end()
    report(cluster, leader.id)
    cluster.run(ELECTION_MS * 0.8)
    assert {node.runtime.raft.role for node in cluster if node.is_up} == {Role.FOLLOWER}
    cluster.leader(leader)


@pytest.mark.parametrize("who", ["nobody.1", "follower"])
def test_others_that_are_gone_change_nothing(cluster: Cluster, who: str) -> None:
    leader = cluster.leader()
    one, other = cluster.followers()
    term = leader.runtime.raft.term
    leader.runtime.peer_lost(one.id if who == "follower" else who, is_gone=True)
    other.runtime.peer_lost(one.id if who == "follower" else who, is_gone=True)
    cluster.run(3 * ELECTION_MS)
    assert leader.leads
    assert leader.runtime.raft.term == term

"""A node whose disk is full, slow or broken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from django_keyspace.exceptions import KeyspaceError, NoSpace, NotLeader, StorageError
from tests.node.replicas import ELECTION_MS, Cluster, Node, delete, incr, payload_of, put

Make = Callable[..., Cluster]


def fill(node: Node) -> None:
    """From now on the node's disk has no room for another file, and its journal's file is full."""
    node.disk.capacity_bytes = node.disk.used_bytes


def make_room(node: Node) -> None:
    node.disk.capacity_bytes = 2**40


def write_until_full(cluster: Cluster, node: Node) -> None:
    """Write until a node's disk is full."""
    for number in range(100):
        if node.runtime.is_full:
            return
        leader = cluster.leader()
        if leader is node or not node.leads:
            results = leader.propose(put(b"k%d" % number, bytes(4_000)))
            cluster.until(lambda results=results: bool(results))
    raise AssertionError("it never filled")


@pytest.mark.parametrize("kind", ["eio_write", "eio_sync"])
def test_rule_42_a_failed_disk_ends_the_process_and_the_next_one_finds_out(cluster: Cluster, kind: str) -> None:
    leader = cluster.leader()
    leader.write(incr())
    leader.disk.fail(kind)
    results = leader.propose(incr())
    cluster.until(lambda: not leader.is_up)
    assert "simulated" in leader.reason and results == []
    new = cluster.leader(leader)
    value = new.write(incr())
    leader.start()
    cluster.settle()
    assert leader.here(b"n") == b"%d" % value[0]


def test_rule_42_a_journal_that_cannot_be_read_ends_the_process(cluster: Cluster) -> None:
    """A leader reads what a follower lacks. Its core has stopped then, and a process without a core must not live on."""
    leader, behind = cluster.leader(), cluster.followers()[0]
    cluster.cut(behind.name)
    for _ in range(5):
        leader.write(incr())
    leader.runtime.parts.journal._log._cache.clear()  # as if it were long ago
    leader.disk.fail("eio_read")
    cluster.cut()
    cluster.until(lambda: not leader.is_up)
    assert "eio_read" in leader.reason
    assert cluster.leader(leader).write(incr()) == [6]


def test_rule_42_nothing_that_depends_on_a_failed_write_leaves(cluster: Cluster) -> None:
    leader, follower = cluster.leader(), cluster.followers()[0]
    leader.write(incr())
    cluster.settle()
    cluster.drops = lambda sender, to, frame: False
    follower.disk.fail("eio_sync")
    follower.sent.clear()
    index = leader.runtime.raft.status().last_index
    leader.write(incr())
    cluster.until(lambda: not follower.is_up)
    from django_keyspace.node.raft import AppendResponse, from_wire

    answers = [from_wire(frame[1:]) for _, frame in follower.sent if frame[0] == "raft"]
    assert not [one for one in answers if isinstance(one, AppendResponse) and one.accepted and one.index > index]


def test_rule_43_a_leader_whose_disk_is_full_refuses_writes_steps_down_and_recovers_without_a_restart(
    cluster: Cluster,
) -> None:
    leader = cluster.leader()
    leader.write(put(b"k", b"1"))
    runtime = leader.runtime
    told: list[int] = []
    runtime.on_commit(told.append)
    fill(leader)
    write_until_full(cluster, leader)
    with pytest.raises(NotLeader, match=r"Nothing was done. Its disk is full"):
        leader.propose(delete(b"k"))
    cluster.until(lambda: not leader.leads and leader.runtime.is_running)
    (view,) = leader.ask("dirty")
    assert payload_of(view, b"k") == b"1", "it keeps reading"
    new = cluster.leader(leader)
    assert new.write(put(b"k", b"2")) == [True]
    cluster.run(5 * ELECTION_MS)
    assert not leader.leads and leader.is_up and leader.runtime is runtime
    make_room(leader)
    cluster.until(lambda: not runtime.is_full)
    cluster.settle()
    assert leader.here(b"k") == b"2"
    assert cluster.elect(leader).write(put(b"k", b"3")) == [True]
    assert runtime.pending_calls == 0 and sum(told) > 0


def test_rule_43_what_was_under_way_is_unknown_and_what_waited_was_not_done(make_cluster: Make) -> None:
    cluster = make_cluster(entries_max=1, group_calls_max=1)
    leader = cluster.start()
    leader.disk.fail("enospc")
    under_way = leader.propose(incr())
    cluster.run(0.1)
    waits, read = leader.propose(incr()), leader.ask()
    cluster.until(lambda: bool(under_way and waits and read))
    assert [type(one).__name__ for one in (*under_way, *waits)] == ["LeadershipLost", "NotLeader"]
    assert isinstance(read[0], KeyspaceError) or read[0].index >= 1
    cluster.until(lambda: not leader.runtime.is_full)
    new = cluster.leader()
    cluster.settle()
    assert new.get(b"n") in (None, b"1")


def test_rule_43_a_follower_whose_disk_is_full_holds_nobody_up(cluster: Cluster) -> None:
    leader, follower = cluster.leader(), cluster.followers()[0]
    leader.write(put(b"k", b"1"))
    cluster.settle()
    fill(follower)
    write_until_full(cluster, follower)
    assert leader.leads and leader.write(put(b"k", b"2")) == [True]
    assert payload_of(follower.ask("dirty")[0], b"k") == b"1"
    cluster.run(3 * ELECTION_MS)
    (view,) = follower.ask("dirty")
    assert view.age_ms >= 2 * ELECTION_MS, "it hears its leader, and says how old its copy is"
    make_room(follower)
    cluster.until(lambda: not follower.runtime.is_full)
    cluster.settle()
    assert follower.here(b"k") == b"2"


def test_rule_43_a_vote_still_finds_room(cluster: Cluster) -> None:
    """Two of three disks are full: the cluster elects, and waits for room."""
    leader = cluster.leader()
    others = cluster.followers()
    leader.write(put(b"k", b"1"))
    cluster.settle()
    for node in others:
        fill(node)
    for node in others:
        for number in range(100):
            if node.runtime.is_full:
                break
            leader.propose(put(b"x%d" % number, bytes(4_000)))
            cluster.run(50)
        assert node.runtime.is_full
    term = leader.runtime.raft.term
    leader.runtime.raft.set_may_lead(False)
    leader.runtime.raft.set_may_lead(True)
    cluster.until(lambda: leader.leads and leader.runtime.raft.term > term)
    for node in others:
        make_room(node)
    cluster.leader()
    assert leader.write(put(b"k", b"2")) == [True]
    cluster.settle()


def test_rule_43_if_nobody_else_takes_the_lead_a_full_disk_is_told(cluster: Cluster) -> None:
    leader = cluster.leader()
    fill(leader)
    write_until_full(cluster, leader)
    cluster.cut(leader.name)
    cluster.run(5 * ELECTION_MS)
    with pytest.raises(NoSpace, match=r"is full.*Nothing was done.*Make room on it"):
        leader.propose(incr())


def test_rule_43_a_store_without_room_holds_its_node_up_and_goes_on(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = cluster.leader()
    leader.write(put(b"k", b"1"))
    cluster.settle()

    def full(entries: Any) -> Any:
        raise NoSpace("The disk has no room.")

    with monkeypatch.context() as trouble:
        trouble.setattr(leader.machine, "apply", full)
        leader.propose(put(b"k", b"2"))
        cluster.until(lambda: leader.runtime.is_full)
        new = cluster.leader(leader)
        assert new.get(b"k") == b"2"
        assert payload_of(leader.ask("dirty")[0], b"k") == b"1"
        with pytest.raises(NotLeader) as refused:
            leader.propose(incr())
        assert refused.value.leader == new.id
        cluster.run(5 * ELECTION_MS)
        assert leader.is_up and not leader.leads
    cluster.until(lambda: not leader.runtime.is_full)
    cluster.settle()
    assert leader.here(b"k") == b"2"


@pytest.mark.parametrize("size_bytes", [10, 200_000])
def test_rule_43_journal_and_store_may_be_full_at_once(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, size_bytes: int
) -> None:
    leader, follower = cluster.leader(), cluster.followers()[0]
    leader.write(put(b"k", b"1"))
    cluster.settle()

    def full(entries: Any) -> Any:
        raise NoSpace("The disk has no room.")

    follower.thread_us["applier"] = 40_000
    with monkeypatch.context() as trouble:
        trouble.setattr(follower.machine, "apply", full)
        leader.write(put(b"k", bytes(size_bytes)))
        follower.disk.fail("enospc", after=0)
        for _ in range(5):
            leader.write(incr())
            cluster.run(30)
        cluster.until(lambda: follower.runtime.is_full)
        cluster.run(2 * ELECTION_MS)
        assert follower.is_up
    cluster.until(lambda: not follower.runtime.is_full)
    cluster.settle()
    assert follower.here(b"n") == b"5"


def test_rule_47_a_leader_whose_disk_hangs_steps_down(cluster: Cluster) -> None:
    leader = cluster.leader()
    leader.write(incr())
    leader.write_us = 20_000_000
    results = leader.propose(incr())
    cluster.until(lambda: not leader.leads)
    new = cluster.leader(leader)
    assert results and not isinstance(results[0], int)
    assert new.write(incr()) in ([2], [3])
    leader.write_us = 1_000
    cluster.settle()


def test_a_store_that_cannot_be_read_tells_who_asks(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    leader = cluster.leader()

    def broken(now_ms: int, name: str, *arguments: Any) -> Any:
        raise StorageError("The store cannot be read.")

    monkeypatch.setattr(leader.machine, "read", broken)
    (view,) = leader.ask("dirty")
    with pytest.raises(StorageError):
        view.read("get", 0, b"k")
    assert leader.is_up
    assert not isinstance(leader.view(), NotLeader)

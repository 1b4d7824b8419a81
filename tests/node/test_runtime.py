"""The runtime of a replicated node: leadership, members, frames of other nodes, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from django_keyspace.exceptions import (
    ChangeRefused,
    DeadlineExceeded,
    KeyspaceError,
    LeadershipLost,
    NoConnection,
    NotLeader,
)
from django_keyspace.node import raft as consensus
from django_keyspace.node.directory import Directory
from django_keyspace.node.raft import (
    ADD,
    REMOVE,
    AppendRequest,
    BadMessage,
    BrokenInvariant,
    Change,
    Role,
    TimeoutNow,
    to_wire,
)
from django_keyspace.node.raft.messages import code_of
from tests.node.replicas import ELECTION_MS, Cluster, Node, entries_of, incr, once, put, session_of

Make = Callable[..., Cluster]


def told_of(begin: Callable[[Callable[[Any], None]], None]) -> list[Any]:
    told: list[Any] = []
    begin(told.append)
    return told


# --- One node, and three ----------------------------------------------------------------------------------------------


def test_a_node_alone_leads_and_writes(make_cluster: Make) -> None:
    cluster = make_cluster(1)
    leader = cluster.start()
    assert leader.write(incr(), incr()) == [1, 2]
    assert leader.get(b"n") == b"2"
    assert leader.runtime.status().heard_ms_ago == 0
    assert not leader.sent


def test_the_same_seed_makes_the_same_log(make_cluster: Make) -> None:
    logs = []
    for _ in range(2):
        cluster = make_cluster(seed=5)
        leader = cluster.start()
        for number in range(5):
            leader.write(incr(), put(b"k%d" % number, expire=1_000))
        cluster.run(20_000)
        cluster.settle()
        logs.append((leader.name, entries_of(leader), leader.machine.digest(), cluster.world.digest))
    assert logs[0] == logs[1]


def test_who_serves_is_told_how_many_were_answered_and_how_long_entries_took(cluster: Cluster) -> None:
    leader = cluster.leader()
    answered: list[int] = []
    groups: list[tuple[int, float]] = []
    leader.runtime.on_commit(answered.append)
    leader.runtime.on_group = lambda count, passed_s: groups.append((count, passed_s))
    answers = [leader.propose(incr(), incr()), leader.propose(incr())]
    cluster.until(lambda: all(answers))
    assert answered == [3] and [count for count, _ in groups] == [3]
    assert 0 < groups[0][1] < 1
    found = leader.ask()
    cluster.until(lambda: bool(found))
    assert answered == [3, 1]


def test_a_node_says_what_it_is(cluster: Cluster) -> None:
    leader, follower = cluster.leader(), cluster.followers()[0]
    leader.write(incr())
    cluster.settle()
    status = follower.runtime.status()
    assert (status.core.role, status.core.leader) == (Role.FOLLOWER, leader.id) or status.core.leader == leader.id
    assert status.pending_calls == 0 and not status.is_full and status.snapshots == ()
    assert status.heard_ms_ago is not None and status.heard_ms_ago <= 200
    assert abs(status.log_ms - leader.runtime.log_time_ms()) < 1_000
    members = follower.runtime.members()
    assert members["leader"] == leader.name and members["cluster"] == "c0ffee"
    assert members["nodes"] == [
        {"name": name, "address": f"{name}:1", "role": "voter"} for name in sorted(cluster.nodes)
    ]
    assert follower.runtime.name == follower.name
    assert follower.runtime.applied_index == follower.machine.applied_index


def test_a_member_of_which_nothing_is_known_has_no_address(make_cluster: Make) -> None:
    cluster = make_cluster(1)
    leader = cluster.start()
    for name, info in (("odd", "not json"), ("bare", ""), ("other", '{"name": "other"}')):
        cluster.change(Change(ADD, f"{name}.1", info))
    nodes = {node["name"]: node["address"] for node in leader.runtime.members()["nodes"]}
    assert nodes == {"n1": "n1:1", "odd": None, "bare": None, "other": None}


# --- Leadership -------------------------------------------------------------------------------------------------------


def test_rule_53_leadership_is_handed_over_before_a_node_goes(cluster: Cluster) -> None:
    """Nothing that was accepted is lost, and nobody waits for an election."""
    leader = cluster.leader()
    results = leader.propose(incr())
    cluster.run(0.1)
    told = told_of(leader.runtime.stop_leading)
    began = cluster.now_ms
    cluster.until(lambda: told == [None])
    assert cluster.now_ms - began < ELECTION_MS // 2
    assert results == [1] or isinstance(results[0], LeadershipLost)
    leader.shut_down()
    new = cluster.leader()
    assert new.write(incr()) == [2]
    leader.start()
    cluster.settle()
    assert told_of(leader.runtime.stop_leading) == [None], "who does not lead has nothing to hand over"


@pytest.mark.parametrize("is_named", [True, False])
def test_rule_53_a_leader_leads_on_until_somebody_can_take_over(cluster: Cluster, is_named: bool) -> None:
    """Nodes that have just started neither stand nor vote. Until one of them does, everything goes on."""
    leader = cluster.leader()
    first, second = cluster.followers()
    for node in (first, second):
        node.end()
        node.start()
        cluster.run(ELECTION_MS / 4)
    cluster.settle()
    told = told_of(lambda told: leader.runtime.transfer(second.id if is_named else None, told))
    for count in range(1, 4):
        assert leader.write(incr()) == [count] and not told
    began = cluster.now_ms
    cluster.until(lambda: bool(told))
    assert told == [None] and cluster.now_ms - began < ELECTION_MS
    assert cluster.leader() is (second if is_named else first), "the one that has run for longer"


def test_rule_53_a_node_that_has_run_for_long_takes_over_at_once(cluster: Cluster) -> None:
    leader = cluster.leader()
    for node in cluster.followers():
        began = cluster.now_ms
        node.end()
        node.start()
        cluster.settle()
        told = told_of(leader.runtime.stop_leading)
        cluster.until(lambda told=told: bool(told))
        assert told == [None] and cluster.now_ms - began < ELECTION_MS / 2
        leader = cluster.leader()
        assert leader is not node
        cluster.run(2 * ELECTION_MS)
        cluster.elect(node)
        leader = node
        cluster.run(2 * ELECTION_MS)


def test_waiting_for_a_successor_ends_with_the_leadership(cluster: Cluster) -> None:
    leader = cluster.leader()
    for node in cluster.followers():
        node.end()
        node.start()
    cluster.run(0.1)
    told = told_of(lambda told: leader.runtime.transfer(None, told))
    assert not told
    leader.runtime.stop()
    cluster.until(lambda: bool(told))
    assert isinstance(told[0], NoConnection)


def test_handing_over_is_refused_or_given_up_with_a_reason(cluster: Cluster) -> None:
    leader = cluster.leader()
    (refused,) = told_of(lambda told: leader.runtime.transfer("nobody.1", told))
    assert isinstance(refused, ChangeRefused)
    follower = cluster.followers()[0]
    (refused,) = told_of(lambda told: follower.runtime.transfer(None, told))
    assert isinstance(refused, NotLeader)
    cluster.drops = lambda sender, to, frame: frame[1] == code_of(TimeoutNow)
    told = told_of(lambda told: leader.runtime.transfer(follower.id, told))
    meanwhile = leader.propose(incr())
    cluster.run(10)
    assert not meanwhile
    cluster.until(lambda: bool(told and meanwhile))
    assert isinstance(told[0], DeadlineExceeded) and "leads on" in str(told[0])
    cluster.cut()
    assert leader.leads and meanwhile == [1] and leader.write(incr()) == [2]


def test_rule_49_after_a_long_pause_a_leader_finds_out_before_it_says_anything(cluster: Cluster) -> None:
    old = cluster.leader()
    old.write(incr())
    cluster.pause(old)
    cluster.run(4 * ELECTION_MS)
    new = next(node for node in cluster if node.leads and node is not old)
    cluster.until(lambda: new.runtime.raft.has_applied_all)
    new.write(incr())
    cluster.resume(old)
    answered = old.propose(incr()) if old.leads else []
    cluster.until(lambda: not old.leads)
    assert all(isinstance(result, KeyspaceError) for result in answered)
    cluster.settle()
    assert old.here(b"n") == b"2"


def test_a_slow_loop_gets_the_ticks_that_it_missed_and_not_more(cluster: Cluster) -> None:
    follower = cluster.followers()[0]
    raft = follower.runtime.raft
    ticks = raft._state.ticks
    cluster.pause(follower)
    cluster.run(500)
    cluster.resume(follower)
    cluster.run(1)
    assert 4 <= raft._state.ticks - ticks <= 6
    cluster.pause(follower)
    cluster.run(30_000)
    cluster.resume(follower, frames_first=False)
    cluster.run(1)
    assert raft._state.ticks - ticks <= 6 + 2 * 10 + 1


# --- Members ----------------------------------------------------------------------------------------------------------


def test_changes_are_answered_when_they_are_committed(cluster: Cluster) -> None:
    leader = cluster.leader()
    cluster.drops = lambda sender, to, frame: frame[0] == "raft" and frame[1] == code_of(AppendRequest)
    told = told_of(lambda told: leader.runtime.change(Change(ADD, "n4.1"), told))
    (refused,) = told_of(lambda told: leader.runtime.change(Change(ADD, "n5.1"), told))
    assert isinstance(refused, ChangeRefused) and "not committed yet" in str(refused)
    cluster.run(300)
    assert told == []
    cluster.cut()
    cluster.until(lambda: told == [None])
    follower = cluster.followers()[0]
    (refused,) = told_of(lambda told: follower.runtime.change(Change(ADD, "n6.1"), told))
    assert isinstance(refused, NotLeader)
    cluster.settle()
    assert follower.runtime.raft.membership.learners == ("n4.1",)


def test_of_a_change_that_was_cut_off_nobody_knows(cluster: Cluster) -> None:
    leader = cluster.leader()
    cluster.cut(leader.name)
    told = told_of(lambda told: leader.runtime.change(Change(ADD, "n4.1"), told))
    cluster.until(lambda: bool(told))
    assert isinstance(told[0], ChangeRefused) and "Look at the members" in str(told[0])
    cluster.cut()
    cluster.leader()
    cluster.settle()
    assert leader.runtime.raft.membership.learners == ()


def test_a_leader_that_is_removed_leaves_and_the_others_go_on(cluster: Cluster) -> None:
    leader = cluster.leader()
    told = told_of(lambda told: leader.runtime.change(Change(REMOVE, leader.id), told))
    cluster.until(lambda: bool(told))
    assert told == [None]
    new = cluster.leader(leader)
    assert new.write(incr()) == [1]
    assert leader.id not in new.runtime.raft.membership.members
    cluster.run(5 * ELECTION_MS)
    assert not leader.leads and new.leads, "it disturbs nobody"


# --- What other nodes send --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", [(), ("raft",), ("raft", 99), ("gossip", 1), (7, 8), ("raft", 0, "x")])
def test_rule_51_frames_that_make_no_sense_are_the_senders_fault(cluster: Cluster, frame: tuple[Any, ...]) -> None:
    leader, follower = cluster.leader(), cluster.followers()[0]
    with pytest.raises(BadMessage):
        follower.runtime.receive(leader.id, [frame])
    assert follower.is_up
    cluster.settle()


def test_rule_51_nobody_speaks_for_another(cluster: Cluster) -> None:
    leader, (one, other) = cluster.leader(), cluster.followers()
    leader.write(incr())
    beat = next(frame for to, frame in leader.sent if to == one.id)
    with pytest.raises(BadMessage, match="sent a message of"):
        one.runtime.receive(other.id, [beat])
    with pytest.raises(BadMessage):
        other.runtime.receive(leader.id, [beat])  # not for this one


def test_what_came_before_a_bad_frame_counts(cluster: Cluster) -> None:
    leader, follower = cluster.leader(), cluster.followers()[0]
    term = leader.runtime.raft.term
    request = AppendRequest(follower.id, leader.id, term, 1, term, (), 1)
    follower.sent.clear()
    with pytest.raises(BadMessage):
        follower.runtime.receive(leader.id, [("raft", *to_wire(request)), ("nonsense",)])
    assert follower.sent, "the first one was answered"


def test_a_broken_link_is_found_out_at_once(make_cluster: Make) -> None:
    cluster = make_cluster(raft_inflight_messages_max=2, group_calls_max=1)
    leader, follower = cluster.start(), cluster.followers()[0]
    leader.write(incr())
    cluster.settle()
    cluster.cut(follower.name)
    for _ in range(3):
        leader.write(incr())
    leader.runtime.peer_lost(follower.id)
    assert leader.runtime.raft.status().peers[follower.id].flow == "probe"
    leader.runtime.peer_lost("somebody.else")
    cluster.cut()
    cluster.settle()


def test_rule_52_a_broken_invariant_ends_the_node_with_its_state(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    leader, (follower, other) = cluster.leader(), cluster.followers()
    leader.write(incr())
    cluster.settle()
    claim = AppendRequest(follower.id, other.id, leader.runtime.raft.term, 0, 0, (), 0)
    follower.runtime.receive(other.id, [("raft", *to_wire(claim))])
    cluster.until(lambda: not follower.is_up)
    assert "leads in term" in follower.reason
    assert any("At that moment" in record.getMessage() for record in caplog.records if record.levelname == "CRITICAL")
    follower.start()
    cluster.settle()


def test_something_unforeseen_ends_the_node_and_nothing_more_comes_of_it(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = cluster.followers()[0]
    runtime = follower.runtime
    monkeypatch.setattr(runtime.raft, "tick", lambda: 1 // 0)
    cluster.until(lambda: not follower.is_up)
    assert "division" in follower.reason and runtime.is_over
    runtime.fail(BrokenInvariant("again"))
    assert "division" in follower.reason, "it ends once"
    runtime.receive("n9.1", [("nonsense",)])  # nobody listens any more
    runtime.peer_lost("n9.1")
    runtime.stop()


# --- The end ----------------------------------------------------------------------------------------------------------


def test_who_waits_for_a_node_that_stops_is_told(make_cluster: Make) -> None:
    cluster = make_cluster(entries_max=1)
    leader = cluster.start()
    cluster.cut(leader.name)
    under_way = leader.propose(incr())
    cluster.run(1)
    waits, read, session = leader.propose(incr()), leader.ask(), leader.ask("session", 10**6)
    change = told_of(lambda told: leader.runtime.change(Change(ADD, "n4.1"), told))
    cluster.run(0.1)
    gathering = leader.ask()
    hold = told_of(leader.runtime.hold)
    leader.runtime.stop()
    leader.runtime.stop()
    assert [type(one[0]) for one in (waits, read, session, gathering, hold)] == [NoConnection] * 5
    assert isinstance(under_way[0], LeadershipLost) and isinstance(change[0], ChangeRefused)
    with pytest.raises(NoConnection, match="has stopped"):
        leader.propose(incr())
    (refused,) = leader.ask("dirty")
    assert isinstance(refused, KeyspaceError)
    index = leader.machine.applied_index
    cluster.cut()
    cluster.run(3 * ELECTION_MS)
    assert leader.machine.applied_index == index, "nothing happens in it any more"


def test_a_killed_node_tells_nobody(cluster: Cluster) -> None:
    leader = cluster.leader()
    results, read = leader.propose(incr()), leader.ask()
    leader.end()
    cluster.run(5 * ELECTION_MS)
    assert results == [] and read == []
    leader.start()
    cluster.settle()


def test_rule_53_a_rolling_restart_loses_nothing(cluster: Cluster) -> None:
    """With a write that is sent again under its session wherever the leader is."""
    session = session_of(cluster.leader().runtime.log_time_ms())
    for done, name in enumerate(list(cluster.nodes), 1):
        node: Node = cluster[name]
        told = told_of(node.runtime.stop_leading)
        cluster.until(lambda told=told: told == [None])
        node.shut_down()
        assert cluster.leader().write(once(session, done, incr())) == [done]
        node.start()
        cluster.run(ELECTION_MS)  # who has just started grants no vote
        cluster.settle()
    assert cluster.leader().get(b"n") == b"3"


def test_what_the_core_refuses_is_said_in_the_words_of_the_package(cluster: Cluster) -> None:
    runtime = cluster.followers()[0].runtime
    directory = Directory(runtime, runtime.parts.clock, 1_000)
    kept = ChangeRefused("as it is")
    assert directory.public(kept) is kept
    assert isinstance(directory.public(consensus.NotLeader(None)), NotLeader)
    assert isinstance(directory.public(consensus.TransferRefused("no")), ChangeRefused)
    with pytest.raises(ZeroDivisionError):
        directory.public(ZeroDivisionError("nothing that the core says"))
    follower = cluster.followers()[0]
    assert follower.runtime.reads.applied_index == follower.machine.applied_index
    assert follower.runtime.reads.members() == follower.runtime.members()

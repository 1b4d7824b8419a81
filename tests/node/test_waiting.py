"""Reads of a replicated node: whom each level waits for, and what it then sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django_keyspace.exceptions import NotLeader, Overloaded, TooStale
from django_keyspace.node.raft import Heartbeat, HeartbeatResponse, from_wire
from django_keyspace.node.waiting import Batch, WaitingReads
from tests.node.replicas import ELECTION_MS, TICK_MS, Cluster, Node, incr, payload_of, put

Make = Callable[..., Cluster]


def messages(node: Node, kind: type) -> list[Any]:
    """The messages of that kind that a node has sent, and forget what it sent."""
    sent, node.sent = node.sent, []
    found = [from_wire(frame[1:]) for _, frame in sent if frame[0] == "raft"]
    return [message for message in found if type(message) is kind]


# --- Alone ------------------------------------------------------------------------------------------------------------


class Answers:
    """Takes what waiting reads are told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []
        self.reads = WaitingReads(
            lambda batch: self.told.append(("view", batch.ready[0])),
            lambda batch, error: self.told.append(("refused", batch.ready[0])),
        )

    def ask(self, number: int, name: Any) -> None:
        self.reads.ask(number, Batch(0, [name]))


def test_reads_wait_for_both_the_majority_and_the_store() -> None:
    answers = Answers()
    answers.ask(1, "one")
    answers.ask(2, "two")
    answers.reads.applied(9)
    assert answers.told == []
    answers.reads.confirmed(2, 11)
    answers.reads.confirmed(1, 10)
    answers.reads.confirmed(7, 1)  # of somebody else's
    answers.reads.applied(10)
    assert answers.told == [("view", "one")]
    answers.reads.applied(12)
    assert answers.told == [("view", "one"), ("view", "two")]


def test_reads_are_refused_one_by_one_or_all() -> None:
    answers, error = Answers(), Overloaded("no")
    for number in range(1, 5):
        answers.ask(number, number)
    answers.reads.confirmed(3, 10)
    answers.reads.refuse(1, error)
    answers.reads.refuse(1, error)
    assert answers.told == [("refused", 1)]
    answers.reads.refuse_unconfirmed(error)
    assert answers.told[1:] == [("refused", 2), ("refused", 4)]
    answers.reads.refuse_all(error)
    answers.reads.applied(10)
    assert answers.told[3:] == [("refused", 3)]


# --- Safe -------------------------------------------------------------------------------------------------------------


def test_rule_19_a_safe_read_waits_for_a_majority_that_answered_after_it_came(cluster: Cluster) -> None:
    leader = cluster.leader()
    leader.write(put(b"k", b"1"))
    cluster.run(3 * TICK_MS)
    # Answers to earlier rounds arrive, and none to a later one.
    rounds = [message.round for message in messages(leader, Heartbeat)]
    cluster.drops = lambda sender, to, frame: (
        to == leader.name
        and isinstance(message := from_wire(frame[1:]), HeartbeatResponse)
        and message.round > max(rounds)
    )
    found = leader.ask()
    cluster.run(3 * TICK_MS)
    assert found == []
    cluster.cut()
    cluster.until(lambda: bool(found))
    assert payload_of(found[0], b"k") == b"1" and found[0].age_ms == 0 and found[0].node == leader.name


def test_rule_19_reads_of_one_turn_share_a_round_and_later_ones_do_not(cluster: Cluster) -> None:
    leader = cluster.leader()
    leader.write(incr())
    cluster.run(TICK_MS // 2)
    messages(leader, Heartbeat)
    found = [leader.ask() for _ in range(5)]
    cluster.run(0.5)
    assert len({message.round for message in messages(leader, Heartbeat) if message.round}) == 1
    late = leader.ask()
    cluster.until(lambda: all(found) and bool(late))
    assert len({message.round for message in messages(leader, Heartbeat) if message.round}) >= 1


def test_rule_19_a_leader_that_was_replaced_answers_no_safe_read(cluster: Cluster) -> None:
    old = cluster.leader()
    old.write(put(b"k", b"old"))
    cluster.cut(old.name)
    found = old.ask()
    cluster.until(lambda: any(node.leads for node in cluster if node is not old))
    new = next(node for node in cluster if node.leads and node is not old)
    cluster.until(lambda: new.runtime.raft.has_applied_all)
    new.write(put(b"k", b"new"))
    cluster.until(lambda: bool(found))
    assert isinstance(found[0], NotLeader)
    cluster.cut()
    cluster.settle()
    (refused,) = old.ask()
    assert isinstance(refused, NotLeader) and refused.leader == new.id


def test_rule_19_a_read_waits_until_its_index_is_applied(cluster: Cluster) -> None:
    leader = cluster.leader()
    leader.thread_us["applier"] = 500_000
    big = bytes(200_000)  # larger than what is applied on the loop's thread
    written = leader.propose(put(b"k", big))
    cluster.until(lambda: leader.runtime.raft.status().commit > leader.machine.applied_index)
    found = leader.ask()
    cluster.run(20)
    assert found == [] and written == []
    cluster.until(lambda: bool(found))
    assert payload_of(found[0], b"k") == big


def test_rule_23_nothing_is_read_before_what_was_known_to_be_committed_is_applied(cluster: Cluster) -> None:
    leader = cluster.leader()
    follower = cluster.followers()[0]
    leader.write(put(b"k", b"1"))
    leader.write(incr())  # a commit index goes to the disk with the next entry
    cluster.settle()
    follower.end(power_cut=True)  # its store has to be made again from the journal
    leader.write(put(b"k", b"2"))
    follower.write_us = 10**9
    follower.thread_us["applier"] = 3_000_000
    follower.settings = cluster.settings.__class__(
        tick_ms=TICK_MS, raft=cluster.settings.raft, apply_here_bytes_max=1, session_wait_ms=200
    )
    follower.start()
    for level in ("dirty", "session", "safe"):
        (refused,) = follower.ask(level)
        assert isinstance(refused, TooStale) and "catching up" in str(refused)
    cluster.until(lambda: follower.runtime.raft.replayed)
    assert follower.get(b"k", "dirty") == b"1"


def test_rule_20_a_read_during_a_pause_is_not_confirmed_by_what_was_under_way(cluster: Cluster) -> None:
    """The leader stands still while another one is elected and writes; the answers to its last rounds wait in its sockets."""
    old = cluster.leader()
    old.write(put(b"k", b"old"))
    found = old.ask()
    cluster.run(0.1)  # its round is under way
    cluster.pause(old)
    cluster.run(4 * ELECTION_MS)
    new = next(node for node in cluster if node.leads and node is not old)
    cluster.until(lambda: new.runtime.raft.has_applied_all)
    new.write(put(b"k", b"new"))
    cluster.resume(old)
    late = old.ask()
    cluster.until(lambda: bool(found and late))
    for one in (found[0], late[0]):
        assert isinstance(one, NotLeader), "the round of before the pause must not confirm a read of after it"


def test_too_many_reads_are_refused(make_cluster: Make) -> None:
    cluster = make_cluster(raft_reads_max=1)
    leader = cluster.start()
    cluster.cut(leader.name)
    one = leader.ask()
    cluster.run(1)
    two = leader.ask()
    cluster.run(1)
    assert one == [] and isinstance(two[0], Overloaded)


# --- Lease ------------------------------------------------------------------------------------------------------------


def test_rule_21_without_leases_a_lease_read_waits_for_a_majority(cluster: Cluster) -> None:
    leader = cluster.leader()
    leader.write(incr())
    cluster.cut(leader.name)
    found = leader.ask("lease")
    cluster.run(TICK_MS)
    assert found == []
    cluster.until(lambda: bool(found))
    assert isinstance(found[0], NotLeader)


def test_rule_21_with_leases_a_majority_need_not_be_asked_until_the_lease_is_over(make_cluster: Make) -> None:
    cluster = make_cluster(raft_lease_drift_max=0.1)
    leader = cluster.start()
    leader.write(put(b"k", b"1"))
    cluster.run(2 * TICK_MS)
    cluster.cut(leader.name)
    found = leader.ask("lease")
    cluster.run(0.5)
    assert payload_of(found[0], b"k") == b"1"
    cluster.run(ELECTION_MS * 9 // 10)
    late = leader.ask("lease")
    cluster.run(0.5)
    assert late == []
    cluster.until(lambda: bool(late))
    assert isinstance(late[0], NotLeader)


def test_rule_30_a_lease_read_hides_by_a_time_that_a_majority_knows(make_cluster: Make) -> None:
    """What it saw expire must not come back under the next leader, which begins from what a majority has heard."""
    cluster = make_cluster(raft_lease_drift_max=0.1)
    leader = cluster.start()
    leader.write(put(b"k", b"1"))
    cluster.run(2 * TICK_MS)
    cluster.cut(leader.name)
    until_ms = leader.runtime.raft.confirmed_log_time_ms
    cluster.run(2 * TICK_MS)
    found = leader.ask("lease")
    cluster.run(0.5)
    assert leader.runtime.log_time_ms() > until_ms + TICK_MS
    assert found[0].now_ms == max(until_ms, leader.machine.log_ms, leader.runtime.raft.confirmed_log_time_ms)


def test_rule_30_the_time_since_a_start_counts_for_who_leads_then(cluster: Cluster) -> None:
    """Wall clocks that were set back say nothing, and what heartbeats had told is forgotten. What a read has seen expire shortly
    before the power went off must not come back."""
    leader = cluster.leader()
    leader.write(put(b"k", b"1"))
    cluster.settle()
    logged_ms = leader.machine.log_ms
    for node in cluster:
        node.clock.jump(-3_600_000)
        node.end(power_cut=True)
    started_ms = cluster.now_ms
    for node in cluster:
        node.start()
    leader = cluster.leader()
    passed_ms = cluster.now_ms - started_ms
    assert passed_ms >= ELECTION_MS
    assert leader.runtime.log_time_ms() >= logged_ms + passed_ms * 8 // 10


def test_rule_49_after_a_pause_a_lease_counts_for_nothing(make_cluster: Make) -> None:
    cluster = make_cluster(raft_lease_drift_max=0.1)
    old = cluster.start()
    old.write(put(b"k", b"old"))
    cluster.pause(old)
    cluster.run(4 * ELECTION_MS)
    new = next(node for node in cluster if node.leads and node is not old)
    cluster.until(lambda: new.runtime.raft.has_applied_all)
    new.write(put(b"k", b"new"))
    cluster.resume(old)
    found = old.ask("lease")  # before its timer has said anything
    cluster.until(lambda: bool(found))
    assert isinstance(found[0], NotLeader)


# --- Session and dirty ------------------------------------------------------------------------------------------------


def test_a_session_read_waits_until_this_node_has_what_the_session_saw(cluster: Cluster) -> None:
    leader, follower = cluster.leader(), cluster.followers()[0]
    leader.write(put(b"k", b"1"))
    index = leader.runtime.applied_index
    assert follower.runtime.applied_index < index
    found = follower.ask("session", index)
    assert found == []
    cluster.until(lambda: bool(found))
    assert payload_of(found[0], b"k") == b"1" and found[0].index >= index
    assert 0 <= found[0].age_ms <= 2 * TICK_MS, "a copy's age is not that of a safe read"
    (at_once,) = follower.ask("session", index)
    assert payload_of(at_once, b"k") == b"1"


def test_a_session_read_goes_to_the_leader_if_this_node_does_not_catch_up(cluster: Cluster) -> None:
    leader, follower = cluster.leader(), cluster.followers()[0]
    told: list[int] = []
    follower.runtime.on_commit(told.append)
    cluster.cut(follower.name)
    leader.write(put(b"k", b"1"))
    found = follower.ask("session", leader.runtime.applied_index)
    cluster.run(cluster.settings.session_wait_ms - 10)
    assert found == []
    cluster.run(30)
    assert isinstance(found[0], TooStale) and "Ask the leader" in str(found[0])
    assert sum(told) >= 1, "who waits for answers is told of this one"
    cluster.cut()
    cluster.settle()
    assert len(found) == 1


def test_reads_that_were_given_up_are_forgotten(cluster: Cluster) -> None:
    follower = cluster.followers()[0]
    for _ in range(200):
        follower.ask("session", 10**12)
        cluster.run(20)
    cluster.run(cluster.settings.session_wait_ms + 50)
    assert len(follower.runtime.reads._waiting._unapplied) < 50


def test_a_read_of_a_follower_sees_what_it_knows_to_be_committed(cluster: Cluster) -> None:
    """While entries come in, a follower applies later what is committed; but not later than somebody looks."""
    leader, follower = cluster.leader(), cluster.followers()[0]
    applied = follower.runtime.applied_index
    for number in range(200):
        leader.write(put(b"k", b"%d" % number))
        if follower.runtime.raft.status().commit > follower.runtime.applied_index:
            break
    commit = follower.runtime.raft.status().commit
    assert commit > follower.runtime.applied_index >= applied, "nothing waited, so that nothing is shown"
    (view,) = follower.ask("dirty")
    assert view.index == commit


def test_rule_22_a_dirty_read_says_where_it_comes_from_and_how_old_it_may_be(cluster: Cluster) -> None:
    leader, follower = cluster.leader(), cluster.followers()[0]
    leader.write(put(b"k", b"1"))
    cluster.settle()
    cluster.cut(follower.name)
    cluster.run(700)
    leader.write(put(b"k", b"2"))
    (view,) = follower.ask("dirty")
    assert (view.node, view.index) == (follower.name, follower.machine.applied_index)
    assert 700 <= view.age_ms <= 700 + 3 * TICK_MS
    assert payload_of(view, b"k") == b"1"
    assert follower.ask("dirty", max_staleness_ms=view.age_ms)[0].index == view.index
    (refused,) = follower.ask("dirty", max_staleness_ms=view.age_ms - 1)
    assert isinstance(refused, TooStale) and "was last known to be current" in str(refused)
    (fresh,) = leader.ask("dirty", max_staleness_ms=3 * TICK_MS)
    assert payload_of(fresh, b"k") == b"2"


def test_rule_22_a_leader_without_a_majority_grows_old(cluster: Cluster) -> None:
    leader = cluster.leader()
    cluster.cut(leader.name)
    cluster.run(5 * TICK_MS)
    (view,) = leader.ask("dirty")
    assert view.age_ms >= 3 * TICK_MS


def test_rule_22_who_has_heard_no_leader_does_not_know_its_age(make_cluster: Make) -> None:
    cluster = make_cluster()
    node = cluster["n1"]
    node.start(cluster.membership)
    (view,) = node.ask("dirty")
    assert view.age_ms > 10**15
    (refused,) = node.ask("dirty", max_staleness_ms=10**12)
    assert isinstance(refused, TooStale) and "is of unknown age" in str(refused)
    assert node.runtime.status().heard_ms_ago is None


def test_an_old_leaders_words_make_no_copy_younger(cluster: Cluster) -> None:
    """Its heartbeats are of a lower term: what it says of itself is not what counts."""
    old, (new, other) = cluster.leader(), cluster.followers()
    beats = [frame for to, frame in old.sent if to == other.id and isinstance(from_wire(frame[1:]), Heartbeat)]
    cluster.elect(new)
    cluster.cut(other.name)
    cluster.run(500)
    before = other.runtime.status().heard_ms_ago
    other.runtime.receive(old.id, beats[-1:])
    assert before is not None and other.runtime.status().heard_ms_ago == before >= 490

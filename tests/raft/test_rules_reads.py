"""Rules 19 to 23, and 49: what a read may rest on, also after a pause."""

from __future__ import annotations

import pytest

from django_keyspace.node.raft import (
    AppendRequest,
    Config,
    Entry,
    Heartbeat,
    InvalidConfig,
    NotLeader,
    Role,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)

from .bench import Bench
from .cluster import Cluster


def test_rule_19_a_read_waits_for_a_majority_after_it_came() -> None:
    bench = Bench(voters=["n1", "n2", "n3", "n4", "n5"])
    bench.lead_settled(["n2", "n3", "n4", "n5"])
    read = bench.raft.read_index()
    bench.work()
    bench.beat("n2")
    bench.work()
    assert bench.reads == {}
    bench.beat("n3")
    bench.work()
    assert bench.reads == {read: 1}


def test_rule_19_a_new_leader_first_commits_an_entry_of_its_term() -> None:
    bench = Bench(terms=[1, 1, 1], commit=1)
    bench.lead()
    read = bench.raft.read_index()
    bench.work()
    bench.tick()
    bench.work()
    bench.beat("n2", "n3")
    bench.work()
    assert bench.reads == {}
    bench.accept("n2")
    bench.work()
    bench.beat("n2")
    bench.work()
    assert bench.reads == {read: 4}


def test_rule_19_a_read_ends_with_leadership() -> None:
    bench = Bench()
    bench.lead_settled()
    first = bench.raft.read_index()
    bench.take()
    second = bench.raft.read_index()
    bench.heartbeat(term=9)
    bench.work()
    assert (bench.reads, bench.refused) == ({}, [first, second])
    with pytest.raises(NotLeader) as caught:
        bench.raft.read_index()
    assert caught.value.leader == "n2"


def test_rule_20_a_read_joins_only_a_round_that_begins_after_it() -> None:
    bench = Bench()
    bench.lead_settled()
    first = bench.raft.read_index()
    bench.work()
    second = bench.raft.read_index()
    bench.work()
    bench.beat("n2")  # Its answer to the round of the first read.
    assert bench.of(VoteRequest) == []
    assert bench.reads == {first: 1}
    bench.beat("n2")
    bench.work()
    assert bench.reads == {first: 1, second: 1}


def test_rule_20_an_answer_from_before_a_pause_confirms_nothing_new() -> None:
    cluster = Cluster()
    cluster.elect("n1")
    cluster.read("n1")
    cluster.work("n1")
    letters, cluster.wire = cluster.wire, []
    for letter in letters:
        cluster.deliver(letter)
    for name in ("n2", "n3"):
        cluster.work(name)
    # n1 sleeps. n2 is elected and writes.
    old, cluster.wire = cluster.wire, []
    cluster.nodes["n1"].paused = True
    cluster.elect("n2")
    cluster["n2"].propose(b"b")
    cluster.settle()
    cluster.wire = []
    # It wakes without noticing: its socket still holds the answers.
    cluster.nodes["n1"].paused = False
    late = cluster.read("n1")
    for letter in old:
        cluster.deliver(letter)
    while cluster.work("n1") is not None:
        pass
    assert late not in cluster.nodes["n1"].confirmed
    cluster.settle()
    assert late in cluster.nodes["n1"].refused


def test_rule_20_ids_are_never_used_again() -> None:
    bench = Bench()
    bench.lead_settled()
    ids = [bench.raft.read_index() for _ in range(3)]
    bench.work()
    bench.tick()
    rounds = {message.round for message in bench.of(Heartbeat)}
    bench.heartbeat(term=9)
    bench.tick(10)
    bench.lead()
    bench.tick()
    assert bench.raft.read_index() > max(ids)
    assert {message.round for message in bench.of(Heartbeat)}.isdisjoint(rounds)


def leased(drift: float = 0.1) -> Bench:
    """A leader with a lease from the present tick."""
    bench = Bench(lease_drift_max=drift)
    bench.lead_settled()
    bench.tick()
    bench.work()
    bench.beat("n2")
    bench.work()
    return bench


def leases(bench: Bench) -> bool:
    """Whether a read is answered by the lease."""
    has_lease = bench.raft.lease is not None
    read = bench.raft.read_index(lease=True)
    bench.take()
    assert (read in bench.reads) is has_lease is (bench.raft.lease is not None)
    return has_lease


def test_rule_21_leases_are_off_unless_asked_for() -> None:
    bench = Bench()
    bench.lead_settled()
    bench.tick()
    bench.work()
    bench.beat("n2", "n3")
    assert not leases(bench)
    bench = leased()
    assert leases(bench)
    read = bench.raft.read_index()
    bench.take()
    assert read not in bench.reads


@pytest.mark.parametrize(("drift", "ticks"), [(0.1, 8), (0.5, 4), (0.01, 8)])
def test_rule_21_a_lease_ends_in_time(drift: float, ticks: int) -> None:
    check_rule_21_a_lease_ends_in_time(drift, ticks)


def check_rule_21_a_lease_ends_in_time(drift: float = 0.1, ticks: int = 8) -> None:
    """A follower that answered may vote after 10 of its ticks, of which the first may come at once: after 9 ticks' time, or
    less if its clock is the faster one. The leader does not know when in its tick it sent the round and is asked."""
    bench = leased(drift)
    bench.tick(ticks - 1)
    assert leases(bench)
    bench.tick(1)
    assert not leases(bench)
    assert (ticks + 1) > (10 - 1) * (1 - drift) >= ticks


def test_rule_21_a_lease_counts_from_the_sending_not_from_the_answer() -> None:
    bench = leased()
    bench.tick(3)
    sent = bench.raft._state.round
    bench.work()
    bench.tick(4)
    bench.beat("n2", round_number=sent)
    bench.work()
    bench.tick(3)
    assert leases(bench)
    bench.tick(1)
    assert not leases(bench)


def test_rule_21_a_lease_needs_a_majority_and_an_entry_of_the_term() -> None:
    bench = Bench(voters=["n1", "n2", "n3", "n4", "n5"], lease_drift_max=0.1)
    bench.lead()
    bench.work()
    bench.tick()
    bench.work()
    bench.beat("n2", "n3")
    assert not leases(bench)
    bench.accept("n2", "n3")
    bench.work()
    assert leases(bench)
    bench.tick(9)
    bench.work()
    bench.beat("n2")
    assert not leases(bench)


def test_rule_21_no_lease_after_timeout_now_in_that_term() -> None:
    bench = leased()
    bench.raft.transfer("n2")
    assert len(bench.of(TimeoutNow)) == 1
    assert not leases(bench)
    for _ in range(15):  # The transfer is given up; its votes may still come.
        bench.tick()
        bench.work()
        bench.beat("n2", "n3")
    assert bench.role is Role.LEADER
    assert bench.raft.status().transferee is None
    assert not leases(bench)


def test_rule_21_unsafe_settings_are_refused() -> None:
    with pytest.raises(InvalidConfig, match="check_quorum"):
        Config(lease_drift_max=0.1, check_quorum=False)
    for drift in (0.0, -0.1, 0.6):
        with pytest.raises(InvalidConfig, match="clocks"):
            Config(lease_drift_max=drift)


def test_rule_21_a_node_that_has_just_started_grants_no_vote() -> None:
    """It may have answered a leader's heartbeat a moment ago, and forgotten it."""
    bench = Bench(new=True)
    bench.raft.step(VoteRequest("n1", "n2", 1, 0, 0, False))
    bench.raft.step(VoteRequest("n1", "n2", 1, 0, 0, True))
    assert bench.of(VoteResponse) == []
    assert bench.raft.term == 0
    bench.tick(9)
    bench.raft.step(VoteRequest("n1", "n2", 1, 0, 0, False))
    bench.heartbeat(term=1)
    bench.raft.step(TimeoutNow("n1", "n2", 1))
    assert bench.role is Role.FOLLOWER
    bench.tick(1)
    bench.raft.step(VoteRequest("n1", "n3", 2, 0, 0, True))
    assert [message.granted for message in bench.of(VoteResponse)] == [True]


def test_rule_21_a_lone_voter_waits_for_a_leader_with_a_lease() -> None:
    """n1 is told that it is the only voter, by a leader that is on its way out and still answers by its lease."""
    bench = Bench(voters=["n1", "n2"], terms=[1], term=1)
    bench.heartbeat()
    alone = bench.raft.membership._replace(voters=("n1",), retired=("n2",))
    bench.raft.step(AppendRequest("n1", "n2", 1, 1, 1, (Entry(2, 1, 2, alone.to_bytes()),), 0))
    bench.work()
    bench.tick(9)
    assert bench.role is Role.FOLLOWER
    bench.tick(11)
    assert bench.role is not Role.FOLLOWER


def test_rule_22_everybody_knows_how_old_the_news_is() -> None:
    """What a dirty read says of itself: node, applied index, and how long ago the leader was heard."""
    bench = Bench(terms=[1], commit=1)
    assert bench.raft.status().leader_contact_ticks is None
    bench.heartbeat()
    bench.tick(7)
    bench.work()
    bench.raft.applied(1)
    status = bench.raft.status()
    assert (status.node, status.applied, status.leader, status.leader_contact_ticks) == ("n1", 1, "n2", 7)
    bench = Bench(voters=["n1"])
    bench.lead()
    assert bench.raft.status().leader_contact_ticks == 0


def test_rule_23_nothing_is_read_before_the_known_commits_are_applied() -> None:
    bench = Bench(terms=[1, 1, 1], commit=2, applied=1)
    bench.work()
    assert [entry.index for entry in bench.committed] == [2]
    assert not bench.raft.replayed
    bench.raft.applied(2)
    assert bench.raft.replayed


def test_rule_49_a_leader_that_slept_is_none_until_proven() -> None:
    """The driver delivers the missed ticks first; then neither a lease nor leadership is left."""
    bench = leased()
    bench.raft.read_index()
    bench.work()
    bench.tick(10)
    bench.beat("n2", "n3")
    assert bench.role is Role.FOLLOWER
    with pytest.raises(NotLeader):
        bench.raft.read_index(lease=True)
    bench.work()
    assert len(bench.refused) == 1

"""Rules 39 to 41 (membership), and 29, 34, 42, 43, 47, 50 to 53 as far as the core shows them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from django_keyspace.node.raft import (
    ADD,
    PROMOTE,
    REMOVE,
    AppendRequest,
    AppendResponse,
    BadMessage,
    BrokenInvariant,
    Change,
    ChangeRefused,
    Entry,
    Heartbeat,
    NotLeader,
    Overloaded,
    Role,
    Stopped,
    TimeoutNow,
    TransferRefused,
    VoteRequest,
    VoteResponse,
    from_wire,
    to_wire,
)

from .bench import Bench
from .cluster import Cluster, Violated
from .schedules import Schedule


def leads_alone(cluster: Cluster, name: str, voters: list[str]) -> None:
    """Have a node elected by these voters, and stop right there: nothing of its term has left it."""
    for voter in voters:
        state = cluster[voter]._state
        state.elapsed_ticks = state.ticks = 100
        state.timeout_ticks = 1_000
    cluster[name]._state.timeout_ticks = 1
    cluster.tick(name)
    for _ in range(10):
        for voter in voters:
            while cluster[name].role is not Role.LEADER and cluster.work(voter) is not None:
                pass
        letters, cluster.wire = cluster.wire, []
        for letter in letters:
            if cluster[name].role is not Role.LEADER:
                cluster.deliver(letter)
        if cluster[name].role is Role.LEADER:
            return
    raise Violated(f"{name} was not elected")


def two_leaders(first: Change, second: Change, learners: list[str]) -> None:
    """A leader of four puts one change into its own log, is cut off, and the next one tries another change.

    The next leader may not, before an entry of its own term is committed. If it did, both changes would be decided: by the
    second leader's majority of its three or five, and then by the first one's majority of its own.
    """
    cluster = Cluster(("n1", "n2", "n3", "n4"))
    cluster.elect("n1")
    for learner in learners:
        cluster.add(learner)
        cluster["n1"].propose_change(Change(ADD, learner))
        cluster.run(2)
    mine = ["n1", *(name for name in learners if name == first.node)]
    theirs = ["n2", "n3", "n4", *(name for name in learners if name != first.node)]
    cluster.partition(mine, theirs)
    cluster["n1"].propose_change(first)
    cluster.settle()
    leads_alone(cluster, "n2", ["n2", "n3", "n4"])
    with pytest.raises(ChangeRefused, match="not committed anything"):
        cluster["n2"].propose_change(second)
    cluster.settle()
    cluster["n2"].propose_change(second)
    cluster.settle()
    cluster.heal()
    cluster.run(60)
    cluster[cluster.leader()].propose(b"after")
    cluster.run(5)
    assert cluster[cluster.leader()].membership.voters == cluster.nodes["n2"].raft.membership.voters


def test_rule_39_add_and_remove() -> None:
    two_leaders(Change(PROMOTE, "n5"), Change(REMOVE, "n1"), ["n5"])


def test_rule_39_two_adds() -> None:
    two_leaders(Change(PROMOTE, "n5"), Change(PROMOTE, "n6"), ["n5", "n6"])


def test_rule_39_two_removes() -> None:
    two_leaders(Change(REMOVE, "n4"), Change(REMOVE, "n3"), [])


def test_rule_39_one_change_at_a_time() -> None:
    bench = Bench()
    bench.lead_settled()
    bench.raft.propose_change(Change(ADD, "n4"))
    with pytest.raises(ChangeRefused, match="not committed yet"):
        bench.raft.propose_change(Change(ADD, "n5"))
    bench.work()
    bench.accept("n2", "n3")
    bench.raft.propose_change(Change(ADD, "n5"))


def test_rule_39_a_change_holds_from_the_log_on_and_goes_with_it() -> None:
    bench = Bench(terms=[1])
    after = bench.raft.membership.after(Change(ADD, "n4"))
    bench.raft.step(AppendRequest("n1", "n2", 1, 1, 1, (Entry(2, 1, 2, after.to_bytes()),), 0))
    assert bench.raft.membership.learners == ("n4",)
    bench.work()
    bench.restart()
    assert bench.raft.membership.learners == ("n4",)
    bench.append((1, 1), [2], term=2)
    assert bench.raft.membership.learners == ()


def test_rule_40_members_join_as_learners_and_are_promoted_when_caught_up() -> None:
    bench = Bench(promote_lag_max=1)
    bench.lead_settled()
    bench.raft.propose_change(Change(ADD, "n4"))
    bench.work()
    bench.accept("n2")
    # A learner counts for nothing: its acknowledgement alone commits nothing.
    entry = bench.raft.propose(b"a")
    bench.work()
    bench.accept("n4", index=1)
    assert bench.raft.status().commit == entry.index - 1
    with pytest.raises(ChangeRefused, match="behind"):
        bench.raft.propose_change(Change(PROMOTE, "n4"))
    bench.accept("n2", "n4")
    bench.raft.propose_change(Change(PROMOTE, "n4"))
    assert bench.raft.membership.voters == ("n1", "n2", "n3", "n4")


def test_rule_40_learners_do_not_campaign_and_do_vote() -> None:
    """A learner may have been promoted without knowing it, so it has to answer."""
    bench = Bench(voters=["n2", "n3"], learners=["n1"])
    bench.tick(100)
    assert bench.role is Role.FOLLOWER
    bench.raft.step(VoteRequest("n1", "n2", 1, 0, 0, False))
    assert [message.granted for message in bench.of(VoteResponse)] == [True]


def test_rule_40_a_removed_leader_leads_until_its_removal_is_committed() -> None:
    bench = Bench()
    bench.lead_settled()
    bench.raft.propose_change(Change(REMOVE, "n1"))
    bench.work()
    bench.accept("n2")
    assert bench.role is Role.LEADER
    bench.accept("n3")
    assert bench.role is Role.FOLLOWER
    messages = bench.work()
    assert [message.commit for message in bench.of(Heartbeat, messages)] == [2, 2]
    assert len(bench.of(TimeoutNow, messages)) == 1
    bench.tick(100)
    assert bench.role is Role.FOLLOWER


def test_rule_40_removed_nodes_disturb_nobody() -> None:
    cluster = Cluster(("n1", "n2", "n3", "n4"), pre_vote=False)
    cluster.elect("n1")
    cluster.cut.add(("n1", "n4"))  # It never learns that it was removed.
    cluster["n1"].propose_change(Change(REMOVE, "n4"))
    cluster.run(100)
    assert cluster["n4"].term > 1
    assert (cluster.leader(), cluster["n2"].term, cluster["n3"].term) == ("n1", 1, 1)


def test_rule_41_the_quorum_cannot_be_removed() -> None:
    cluster = Cluster()
    cluster.elect("n1")
    cluster.crash("n3")
    cluster.run(12)
    with pytest.raises(ChangeRefused, match="too few answer"):
        cluster["n1"].propose_change(Change(REMOVE, "n2"))
    assert cluster["n1"].membership.voters == ("n1", "n2", "n3")
    cluster["n1"].propose_change(Change(REMOVE, "n3"))
    bench = Bench(voters=["n1"])
    bench.lead_settled([])
    with pytest.raises(ChangeRefused, match="last voter"):
        bench.raft.propose_change(Change(REMOVE, "n1"))


def trace(seed: int) -> str:
    """Everything that happens in one random schedule, as a digest."""
    schedule = Schedule(seed, 300)
    digest = hashlib.sha256()
    deliver = schedule.cluster.deliver

    def noted(letter: object) -> bool:
        digest.update(repr(letter).encode())
        return deliver(letter)  # type: ignore[arg-type]

    schedule.cluster.deliver = noted  # type: ignore[method-assign,assignment]
    schedule.run()
    for node in schedule.cluster.nodes.values():
        digest.update(f"{node.raft.describe()} {node.store}".encode())
    return digest.hexdigest()


def test_rule_29_the_same_seed_gives_the_same_trace() -> None:
    code = "from tests.raft.test_rules_members import trace; print([trace(seed) for seed in (1, 2, 3)])"
    root = Path(__file__).resolve().parents[2]
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert printed == {f"{[trace(seed) for seed in (1, 2, 3)]}\n"}


def test_rule_34_an_entry_of_an_unknown_kind_never_gets_in() -> None:
    message = AppendRequest("n1", "n2", 1, 0, 0, (Entry(1, 1, 1, b"a"),), 0)
    assert from_wire(to_wire(message)) == message
    with pytest.raises(BadMessage, match="Upgrade"):
        from_wire(to_wire(message._replace(entries=(Entry(1, 1, 9, b"a"),))))


def test_rule_42_nothing_is_done_after_a_failed_write() -> None:
    bench = Bench()
    bench.append((0, 0), [1])
    bench.take()
    bench.raft.fail("The disk answered EIO.")
    for call in (
        bench.raft.ready,
        bench.raft.tick,
        lambda: bench.raft.persisted(1),
        lambda: bench.raft.propose(b"a"),
        lambda: bench.raft.step(VoteRequest("n1", "n3", 2, 9, 1, True)),
    ):
        with pytest.raises(Stopped, match="EIO"):
            call()


def test_rule_43_a_node_without_room_leads_nobody_and_still_follows() -> None:
    bench = Bench()
    bench.lead_settled()
    bench.raft.set_may_lead(False)
    assert bench.role is Role.FOLLOWER
    bench.tick(100)
    assert bench.role is Role.FOLLOWER
    bench.heartbeat(term=5)
    bench.raft.step(TimeoutNow("n1", "n2", 5))
    assert (bench.role, bench.raft.term) == (Role.FOLLOWER, 5)
    bench.append((1, 1), [5])
    assert len(bench.of(AppendResponse)) == 1
    bench.raft.set_may_lead(True)
    bench.lead()


def test_rule_47_a_leader_whose_disk_is_stuck_steps_down() -> None:
    bench = Bench()
    bench.lead_settled()
    bench.raft.propose(b"a")
    bench.take()
    for _ in range(9):
        bench.tick()
        bench.beat("n2", "n3")
        bench.take()
    assert bench.role is Role.LEADER
    bench.tick()
    assert bench.role is Role.FOLLOWER
    bench.tick(50)
    assert bench.role is Role.FOLLOWER
    bench.write()
    bench.tick(20)
    assert bench.role is Role.PRE_CANDIDATE


def test_rule_51_messages_for_others_are_not_used() -> None:
    bench = Bench()
    for message in (VoteRequest("n9", "n2", 5, 9, 1, False), VoteRequest("n1", "n1", 5, 9, 1, False)):
        with pytest.raises(BadMessage):
            bench.raft.step(message)
    with pytest.raises(BadMessage, match="tuple"):
        bench.raft.step((9, "n1", "n2", 5))  # type: ignore[arg-type]
    assert (bench.raft.term, bench.raft.stopped) == (0, "")
    bench.lead_settled()
    with pytest.raises(BadMessage, match="has not made"):
        bench.accept("n2", index=99)
    assert bench.role is Role.LEADER


def test_rule_52_a_broken_invariant_stops_the_core_and_says_where() -> None:
    bench = Bench()
    bench.lead_settled()
    with pytest.raises(BrokenInvariant, match="leads in term 1"):
        bench.heartbeat(term=1, leader="n2")
    with pytest.raises(Stopped, match=r"n1 leader term=1 vote=n1 .* last=1"):
        bench.raft.ready()
    # Whatever goes wrong inside counts, since half of something may have happened.
    bench = Bench()
    bench.lead_settled(["n2"])
    bench.storage.entries = None  # type: ignore[method-assign,assignment]
    bench.raft.step(AppendResponse("n1", "n3", 1, False, 0, 0, 0))
    with pytest.raises(TypeError):
        bench.raft.ready()
    assert "TypeError" in bench.raft.stopped


def test_rule_53_leadership_is_handed_over() -> None:
    bench = Bench()
    bench.lead_settled(["n3"])
    bench.raft.transfer("n2")
    with pytest.raises(Overloaded, match="n2"):
        bench.raft.propose(b"a")
    with pytest.raises(ChangeRefused):
        bench.raft.propose_change(Change(REMOVE, "n3"))
    with pytest.raises(TransferRefused):
        bench.raft.transfer("n3")
    assert bench.of(TimeoutNow) == []  # First it gets what it lacks.
    bench.accept("n2")
    assert bench.of(TimeoutNow) == [TimeoutNow("n2", "n1", 1)]


def test_rule_53_whoever_is_to_take_over_is_asked_again_until_that_is_given_up() -> None:
    bench = Bench()
    bench.lead_settled()
    bench.raft.transfer("n2")
    asked = [len(bench.of(TimeoutNow, bench.work()))]
    while bench.raft.is_handing_over:
        bench.tick()
        bench.beat("n2", "n3")
        asked.append(len(bench.of(TimeoutNow, bench.work())))
    assert asked[0] == 1 and 2 <= sum(asked) <= 11 and max(asked) == 1
    bench.tick(3)
    bench.beat("n2", "n3")
    assert bench.of(TimeoutNow, bench.work()) == []


def test_rule_53_a_node_that_has_just_started_takes_over_as_soon_as_it_may() -> None:
    """It may have forgotten what it had promised to another leader, and whatever it knew of the log time."""
    cluster = Cluster()
    cluster.elect("n1")
    cluster.crash("n2")
    cluster.restart("n2")
    cluster.run(3)
    cluster["n1"].transfer("n2")
    cluster.settle()
    assert cluster.leader() == "n1"
    cluster.run(8)
    assert cluster.leader() == "n2", "within the same attempt"


def test_rule_53_who_has_to_be_avoided_comes_last() -> None:
    bench = Bench()
    bench.lead_settled(["n3"])
    bench.beat("n2")
    assert bench.raft.successor() == bench.raft.successor({"n2"}) == "n3"
    assert bench.raft.successor({"n3"}) == "n2"
    assert bench.raft.successor({"n2", "n3"}) == "n3"
    assert Bench().raft.successor() is None, "who does not lead knows nobody"


def test_rule_53_the_best_successor_is_found_and_wins() -> None:
    cluster = Cluster()
    cluster.elect("n1")
    cluster.partition(["n1", "n3"], ["n2"])
    cluster["n1"].propose(b"a")
    cluster.settle()
    cluster.heal()
    assert cluster["n1"].transfer() == "n3"
    cluster.settle()
    assert cluster.leader() == "n3"
    with pytest.raises(NotLeader):
        cluster["n1"].transfer()
    bench = Bench(voters=["n1"], learners=["n2"])
    bench.lead_settled([])
    with pytest.raises(TransferRefused, match="nobody"):
        bench.raft.transfer()
    with pytest.raises(TransferRefused, match="not another voter"):
        bench.raft.transfer("n2")

"""Rules 1 to 10: elections and terms. Each test fails under a mutation of `tests/mutate`, which names it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import django_keyspace.node.raft as package
from django_keyspace.node.raft import (
    ADD,
    REMOVE,
    AppendResponse,
    BrokenInvariant,
    Change,
    ChangeRefused,
    Config,
    Heartbeat,
    HeartbeatResponse,
    InvalidConfig,
    Membership,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    Role,
    SnapshotMeta,
    SnapshotRequest,
    Stopped,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
    from_wire,
    to_wire,
)

from .bench import Bench
from .cluster import Cluster


def test_rule_01_a_vote_leaves_when_it_is_durable() -> None:
    bench = Bench()
    bench.raft.step(VoteRequest("n1", "n2", 1, 0, 0, False))
    assert bench.of(VoteResponse, bench.take()) == []
    bench.write()
    assert bench.of(VoteResponse, bench.take()) == [VoteResponse("n2", "n1", 1, True, 0)]
    # A crash between writing and sending: the vote is known, and nobody else gets it.
    bench.restart()
    bench.raft._state.ticks = 10
    bench.raft.step(VoteRequest("n1", "n3", 1, 9, 1, False))
    assert [message.granted for message in bench.of(VoteResponse)] == [False]


def test_rule_01_a_candidate_asks_when_its_vote_is_durable() -> None:
    bench = Bench(voters=["n1", "n2"], pre_vote=False)
    bench.tick(20)
    assert bench.role is Role.CANDIDATE
    assert bench.take() == []
    bench.write()
    assert len(bench.of(VoteRequest, bench.take())) == 1


def test_rule_01_a_leaders_own_log_counts_when_it_is_durable() -> None:
    bench = Bench()
    bench.lead_settled()
    entry = bench.raft.propose(b"a")
    bench.take()
    bench.accept("n2")
    assert bench.raft.status().commit == entry.index - 1
    bench.write()
    assert bench.raft.status().commit == entry.index


def test_rule_01_all_nodes_restart_at_once() -> None:
    """Nobody forgets a vote or a term, whatever was written when the power went."""
    cluster = Cluster(seed=3)
    for turn in range(12):
        cluster.run(7 + turn % 3)
        for name in cluster.nodes:
            cluster.nodes[name].slow_disk = turn % 2 == 0
        cluster.run(3)
        for name in cluster.nodes:
            cluster.crash(name)
            cluster.restart(name)
    cluster.run(40)
    entry = cluster[cluster.leader()].propose(b"a")
    cluster.run(3)
    assert cluster.committed[entry.index] == entry


def old_messages(to: str, sender: str) -> list[Message]:
    """One message of each kind, of term 1, from a time when the world was different."""
    meta = SnapshotMeta(9, 1, Membership(("n1", "n2", "n3")))
    return [
        PreVoteResponse(to, sender, 1, 1, True),
        VoteRequest(to, sender, 1, 9, 1, True),
        VoteResponse(to, sender, 1, True, 0),
        AppendResponse(to, sender, 1, True, 1, 0, 0),
        Heartbeat(to, sender, 1, 1, 1, 0, 1),
        HeartbeatResponse(to, sender, 1, 1, 0),
        SnapshotRequest(to, sender, 1, meta),
        TimeoutNow(to, sender, 1),
    ]


@pytest.mark.parametrize("leads", [True, False])
def test_rule_02_old_messages_change_nothing(leads: bool) -> None:
    check_rule_02_old_messages_change_nothing(leads)


def check_rule_02_old_messages_change_nothing(leads: bool = True) -> None:
    bench = Bench(terms=[1, 2], term=5)
    if leads:
        bench.lead()
        bench.work()
    else:
        bench.heartbeat(leader="n3")
        bench.work()
    before = bench.raft.status()
    for message in old_messages("n1", "n2"):
        bench.raft.step(message)
        answers = bench.take()
        # Requests are answered with the term, so that their sender can catch up.
        assert all(answer.term == bench.raft.term for answer in answers)
        assert bench.raft.status() == before, message


def test_rule_02_a_higher_term_ends_everything() -> None:
    for message in [AppendResponse("n1", "n2", 9, False, 0, 0, 0), HeartbeatResponse("n1", "n2", 9, 1, 0)]:
        bench = Bench()
        bench.lead()
        bench.raft.step(message)
        assert (bench.role, bench.raft.term) == (Role.FOLLOWER, 9)
        bench.work()
        assert bench.storage.hard.term == 9


def test_rule_03_answers_to_earlier_questions_do_not_count() -> None:
    bench = Bench()
    bench.tick(20)
    first = bench.of(PreVoteRequest)[0].attempt
    while bench.raft._state.attempt == first:
        bench.tick()
    bench.raft.step(PreVoteResponse("n1", "n2", 0, first, True))
    assert bench.role is Role.PRE_CANDIDATE
    bench.raft.step(PreVoteResponse("n1", "n2", 0, bench.raft._state.attempt, True))
    assert bench.role is Role.CANDIDATE


def test_rule_03_votes_of_an_earlier_term_do_not_count() -> None:
    bench = Bench(pre_vote=False)
    bench.tick(20)
    bench.work()
    while bench.raft.term == 1:
        bench.tick()
    bench.work()
    bench.raft.step(VoteResponse("n1", "n2", 1, True, 0))
    assert bench.role is Role.CANDIDATE
    # Nor do votes for somebody who is no candidate any more.
    bench.heartbeat()
    bench.raft.step(VoteResponse("n1", "n2", 2, True, 0))
    assert bench.role is Role.FOLLOWER


@pytest.mark.parametrize(
    ("last_index", "last_term", "granted"),
    [(3, 2, True), (2, 2, False), (4, 2, True), (1, 3, True), (9, 1, False), (3, 1, False)],
)
def test_rule_04_votes_go_to_logs_that_have_everything(last_index: int, last_term: int, granted: bool) -> None:
    check_rule_04_votes_go_to_logs_that_have_everything(last_index, last_term, granted)


def check_rule_04_votes_go_to_logs_that_have_everything(
    last_index: int = 9, last_term: int = 1, granted: bool = False
) -> None:
    bench = Bench(terms=[1, 1, 2])
    bench.raft.step(VoteRequest("n1", "n2", 3, last_index, last_term, False))
    assert [message.granted for message in bench.of(VoteResponse)] == [granted]
    bench = Bench(terms=[1, 1, 2])
    bench.raft.step(PreVoteRequest("n1", "n2", 2, 3, last_index, last_term, 1))
    assert [message.granted for message in bench.of(PreVoteResponse)] == [granted]


def test_rule_05_an_isolated_node_does_not_raise_its_term() -> None:
    cluster = Cluster()
    cluster.elect("n1")
    cluster.partition(["n1", "n2"], ["n3"])
    cluster.run(100)
    assert cluster["n3"].term == cluster["n1"].term == 1
    cluster.heal()
    cluster.run(3)
    assert (cluster["n3"].leader, cluster["n1"].term) == ("n1", 1)


def test_rule_05_a_pre_vote_changes_nothing() -> None:
    bench = Bench(terms=[1])
    before = bench.raft.status()
    bench.raft.step(PreVoteRequest("n1", "n2", 7, 8, 1, 1, 1))
    assert bench.raft.status() == before
    assert [message.granted for message in bench.of(PreVoteResponse)] == [True]
    assert bench.storage.hard.term == 1


def test_rule_06_a_leader_that_hears_no_majority_steps_down() -> None:
    bench = Bench()
    bench.lead_settled()
    bench.tick(5)
    bench.beat("n2")
    bench.tick(9)
    assert bench.role is Role.LEADER
    bench.tick(1)
    assert bench.role is Role.FOLLOWER


def test_rule_06_who_hears_a_leader_ignores_candidates() -> None:
    bench = Bench(terms=[1], term=1)
    bench.heartbeat()
    bench.tick(9)
    bench.raft.step(VoteRequest("n1", "n3", 5, 9, 1, False))
    bench.raft.step(PreVoteRequest("n1", "n3", 4, 5, 9, 1, 1))
    assert bench.raft.term == 1
    assert bench.of(VoteResponse) == bench.of(PreVoteResponse) == []
    bench.tick(1)
    bench.raft.step(VoteRequest("n1", "n3", 5, 9, 1, False))
    assert [message.granted for message in bench.of(VoteResponse)] == [True]


def test_rule_06_partial_partition_settles() -> None:
    """Five nodes of which only n5 reaches all: it leads in the end, and then the term stays."""
    cluster = Cluster(("n1", "n2", "n3", "n4", "n5"))
    cluster.elect("n1")
    cluster.partition(["n1"], ["n2"], ["n3"], ["n4"])
    cluster.run(150)
    assert cluster.leader() == "n5"
    term = cluster["n5"].term
    assert term <= 4
    cluster.run(200)
    assert cluster.leader() == "n5"
    assert cluster["n5"].term == term


def test_rule_07_a_longer_log_with_a_lower_term_catches_up() -> None:
    bench = Bench(terms=[1], term=3)
    bench.raft.step(PreVoteRequest("n1", "n2", 1, 2, 5, 1, 77))
    assert bench.of(PreVoteResponse) == [PreVoteResponse("n2", "n1", 3, 77, False)]
    bench.raft.step(VoteRequest("n1", "n2", 2, 5, 1, False))
    assert bench.of(VoteResponse) == [VoteResponse("n2", "n1", 3, False, 0)]
    bench.heartbeat(term=1)
    assert [message.term for message in bench.of(AppendResponse)] == [3]
    # Even when it hears a leader itself: the asker has to hear of that leader's term.
    bench.heartbeat(term=3)
    bench.raft.step(PreVoteRequest("n1", "n2", 1, 2, 5, 1, 78))
    assert bench.of(PreVoteResponse) == [PreVoteResponse("n2", "n1", 3, 78, False)]


def test_rule_08_timeouts_are_random_for_each_attempt() -> None:
    drawn = set()
    for seed in range(40):
        bench = Bench(seed=seed)
        timeouts = []
        for _ in range(3):
            bench.raft._state.reset_timer()
            timeouts.append(bench.raft._state.timeout_ticks)
        assert all(10 <= ticks < 20 for ticks in timeouts)
        drawn.add(tuple(timeouts))
    assert len({first for first, *_ in drawn}) == 10
    assert any(first != second for first, second, _ in drawn)


def test_rule_08_an_election_outlasts_ten_heartbeats() -> None:
    Config(election_ticks=20, heartbeat_ticks=2)
    with pytest.raises(InvalidConfig, match="10 heartbeats"):
        Config(election_ticks=19, heartbeat_ticks=2)


def waits_after_split_votes(pre_vote: bool) -> list[int]:
    """Two of three stand in the same tick, and the third is gone. Returns how long each waits after that, in ticks."""
    cluster = Cluster(pre_vote=pre_vote)
    cluster.elect("n1")
    cluster.crash("n1")
    for name in ("n2", "n3"):
        state = cluster[name]._state
        state.elapsed_ticks = state.timeout_ticks = 20
    term = cluster["n2"].term
    for name in ("n2", "n3"):
        cluster.tick(name)
    cluster.settle()
    states = [cluster[name]._state for name in ("n2", "n3")]
    assert [state.vote for state in states] == ["n2", "n3"], "the votes are split"
    assert [state.term for state in states] == [term + 1] * 2
    waits = [state.timeout_ticks - state.elapsed_ticks for state in states]
    for _ in range(60):
        cluster.run(1)
        if any(state.is_leader for state in states):
            break
    assert cluster.leader() in ("n2", "n3")
    return waits


def test_rule_08_split_votes_are_tried_again_soon() -> None:
    """After a moment: half an election timeout at most. Only where a pre-vote has told that the log is long enough: otherwise a
    node whose log is too short would stand again before anybody else does, for ever."""
    assert all(1 <= ticks <= 5 for ticks in waits_after_split_votes(pre_vote=True))
    assert all(10 <= ticks < 20 for ticks in waits_after_split_votes(pre_vote=False))


def test_rule_08_no_clock_and_no_randomness_of_its_own() -> None:
    """What is not imported cannot be asked: the only source of time is `tick`, the only luck is what is passed in."""
    for path in Path(package.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = {alias.name for alias in getattr(node, "names", ())} if isinstance(node, ast.Import) else set()
            if isinstance(node, ast.ImportFrom):
                assert node.module != "random" or [alias.name for alias in node.names] == ["Random"]
                names = {node.module or ""}
            assert not names & {"time", "datetime", "random", "secrets", "os", "uuid", "asyncio", "threading"} or (
                isinstance(node, ast.ImportFrom) and node.module == "random"
            ), path


def test_rule_09_an_id_is_used_once() -> None:
    bench = Bench()
    bench.lead_settled()
    for change in (Change(ADD, "n4"), Change(REMOVE, "n4")):
        bench.raft.propose_change(change)
        bench.work()
        bench.accept("n2", "n3")
        bench.work()
    with pytest.raises(ChangeRefused, match="n4"):
        bench.raft.propose_change(Change(ADD, "n4"))
    # Also after the log was compacted and sent as a snapshot: the id is in the membership.
    assert bench.raft.membership.retired == ("n4",)
    meta = SnapshotMeta(3, 1, bench.raft.membership)
    message = from_wire(to_wire(SnapshotRequest("n2", "n1", 1, meta)))
    assert isinstance(message, SnapshotRequest)
    assert message.snapshot.membership.retired == ("n4",)


def test_rule_10_a_node_that_lost_entries_stops() -> None:
    bench = Bench(terms=[1, 1], term=1, vote="n2")
    with pytest.raises(BrokenInvariant, match="lost"):
        bench.heartbeat(commit=3)
    with pytest.raises(Stopped, match="lost"):
        bench.raft.step(VoteRequest("n1", "n3", 2, 9, 1, False))


def test_rule_10_a_log_that_ends_before_its_commit_does_not_start() -> None:
    with pytest.raises(BrokenInvariant, match="lost"):
        Bench(terms=[1, 1], commit=3)
    with pytest.raises(BrokenInvariant, match="applied"):
        Bench(terms=[1, 1], applied=3)


def test_rule_01_a_crash_between_entries_and_term() -> None:
    """Entries of a term are durable and the term itself is not: the node takes the term from them."""
    bench = Bench(terms=[1, 3], term=1, vote="n2")
    assert (bench.raft.term, bench.raft._state.vote) == (3, "")
    assert bench.of(VoteResponse) == []
    assert bench.storage.hard.term == 3

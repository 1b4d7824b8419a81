"""Writes on their way through the log: what is packed together, whose result is whose, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from django_keyspace.exceptions import (
    DeadlineExceeded,
    KeyspaceError,
    LeadershipLost,
    MissingKey,
    NoSpace,
    NotANumber,
    NotLeader,
    Overloaded,
    StorageError,
    ValueTooLarge,
)
from django_keyspace.node.entries import logged_calls
from django_keyspace.node.proposals import Group, Proposal, Proposals
from django_keyspace.node.raft import COMMANDS
from django_keyspace.node.settings import RuntimeSettings
from tests.node.replicas import Cluster, Node, delete, entries_of, incr, once, put, session_of, val

Make = Callable[..., Cluster]


def operations(node: Node) -> list[list[Any]]:
    """The operations of each entry in a node's journal that has some."""
    return [list(logged_calls(entry).calls) for entry in entries_of(node) if entry.kind == COMMANDS]


def waiting(proposals: Proposals, *sizes: tuple[int, int]) -> list[list[Any]]:
    """Put proposals of so many calls and bytes; returns where their results come."""
    found: list[list[Any]] = []
    for calls, size_bytes in sizes:
        results: list[Any] = []
        found.append(results)
        proposals.put(Proposal([incr()] * calls, size_bytes, results.extend))
    return found


# --- Alone ------------------------------------------------------------------------------------------------------------


def test_a_group_is_bounded_in_calls_and_bytes() -> None:
    proposals = Proposals(RuntimeSettings(group_calls_max=3, group_bytes_max=100))
    waiting(proposals, (2, 10), (2, 10), (1, 95), (1, 10), (5, 500), (1, 1))
    sizes = []
    while proposals.is_waiting:
        sizes.append([(len(one.calls), one.size_bytes) for one in proposals.take()])
    # A proposal is never split, and one that is larger than the bound goes alone.
    assert sizes == [[(2, 10), (2, 10)], [(1, 95)], [(1, 10)], [(5, 500)], [(1, 1)]]


@pytest.mark.parametrize("limits", [{"calls_max": 3}, {"bytes_max": 300}])
def test_more_than_the_limit_is_refused(limits: dict[str, int]) -> None:
    proposals = Proposals(RuntimeSettings(**limits))
    waiting(proposals, (1, 100), (1, 100), (1, 100))
    with pytest.raises(Overloaded, match=r"3 writes of 300 bytes waiting\. Nothing was done"):
        waiting(proposals, (1, 100))
    group = Group(proposals.take())
    proposals.fail(group, Overloaded("no"))
    assert (proposals.calls, proposals.bytes) == (0, 0)
    waiting(proposals, (9, 900))  # alone, it may be larger
    with pytest.raises(Overloaded):
        waiting(proposals, (1, 1))


def test_results_go_to_those_who_asked_and_refusals_too() -> None:
    proposals = Proposals(RuntimeSettings())
    one, other = waiting(proposals, (2, 1), (1, 1))
    full = NoSpace("full")
    group = Group(proposals.take(), refused=[None, full, None], upkeep=1)
    proposals.under_way(5, 2, group)
    assert proposals.applied(4, 2, ["somebody else's"]) is None
    assert proposals.applied(5, 2, ["evicted", "first", "third"]) is group
    assert (one, other) == (["first", full], ["third"])
    assert (proposals.calls, proposals.bytes, proposals.entries) == (0, 0, 0)


def test_an_entry_of_another_term_at_that_index_is_not_ours() -> None:
    proposals = Proposals(RuntimeSettings())
    (results,) = waiting(proposals, (1, 1))
    proposals.under_way(5, 2, Group(proposals.take()))
    proposals.applied(5, 3, ["another one's result"])
    assert [type(result) for result in results] == [LeadershipLost]


# --- In a cluster -----------------------------------------------------------------------------------------------------


def test_what_comes_in_one_turn_is_one_entry(cluster: Cluster) -> None:
    leader = cluster.leader()
    results = [leader.propose(incr(b"a")), leader.propose(incr(b"a"), incr(b"b")), leader.propose(incr(b"a"))]
    cluster.until(lambda: results == [[1], [2, 1], [3]])
    later = leader.write(incr(b"a"))
    assert later == [4]
    assert operations(leader) == [[incr(b"a"), incr(b"a"), incr(b"b"), incr(b"a")], [incr(b"a")]]
    assert leader.runtime.pending_calls == 0
    cluster.settle()


def test_so_many_entries_are_under_way_and_the_rest_gathers(make_cluster: Make) -> None:
    cluster = make_cluster(entries_max=2, group_calls_max=1)
    leader = cluster.start()
    answers = [leader.propose(incr()) for _ in range(2)]
    cluster.run(0.1)
    answers += [leader.propose(incr()) for _ in range(3)]
    assert leader.runtime.pending_calls == 5
    cluster.run(0.1)
    assert leader.runtime._proposals.entries == 2
    cluster.until(lambda: answers == [[1], [2], [3], [4], [5]])


def test_a_write_that_fails_is_in_the_log_and_answered_with_its_error(cluster: Cluster) -> None:
    """Rule 33 is shown in test_applier.py; this is about whose error it is."""
    leader = cluster.leader()
    leader.write(put(b"text", b"no number"))
    text, missing, fine = leader.write(incr(b"text"), ("incr", 0, b"gone", 1, None, None, 0), incr(b"n"))
    assert isinstance(text, NotANumber) and isinstance(missing, MissingKey) and fine == 1
    cluster.settle()


def test_followers_refuse_with_the_leaders_address(cluster: Cluster) -> None:
    leader = cluster.leader()
    for follower in cluster.followers():
        with pytest.raises(NotLeader, match=f"node {leader.name} at {leader.name}:1 does. Nothing was done") as caught:
            follower.propose(incr())
        assert (caught.value.leader, caught.value.address) == (leader.id, f"{leader.name}:1")
        with pytest.raises(NotLeader):
            follower.runtime.hold(lambda error: None)
        with pytest.raises(NotLeader):
            follower.runtime.propose_held([incr()], 1, lambda results: None)


def test_without_a_leader_nobody_is_named(make_cluster: Make) -> None:
    cluster = make_cluster()
    node = cluster["n1"]
    node.start(cluster.membership)
    with pytest.raises(NotLeader, match="no node is known to") as caught:
        node.propose(incr())
    assert (caught.value.leader, caught.value.address) == (None, None)


def test_too_many_writes_are_refused_until_some_are_answered(make_cluster: Make) -> None:
    cluster = make_cluster(calls_max=2)
    leader = cluster.start()
    answers = [leader.propose(incr()), leader.propose(incr())]
    with pytest.raises(Overloaded):
        leader.propose(incr())
    cluster.until(lambda: answers == [[1], [2]])
    assert leader.write(incr()) == [3]


def test_too_much_without_a_majority_is_refused(make_cluster: Make) -> None:
    cluster = make_cluster(group_calls_max=1, raft_uncommitted_entries_max=2)
    leader = cluster.start()
    cluster.cut(leader.name)
    answers = [leader.propose(incr()) for _ in range(3)]
    cluster.run(10)
    assert answers[:2] == [[], []]
    (refused,) = answers[2]
    assert isinstance(refused, Overloaded) and "wait for a majority" in str(refused)
    assert leader.runtime.pending_calls == 2


def test_an_entry_that_is_too_large_is_refused(make_cluster: Make) -> None:
    cluster = make_cluster(raft_entry_bytes_max=10_000)
    leader = cluster.start()
    (refused,) = leader.write(put(b"k", bytes(20_000)))
    assert isinstance(refused, ValueTooLarge) and "the limit is 10,000" in str(refused)
    assert leader.write(put(b"k", bytes(5_000))) == [True]
    assert leader.runtime.pending_calls == 0


def test_a_full_store_refuses_what_grows_and_lets_deletes_pass(cluster: Cluster) -> None:
    """The bound is the cluster's, not a disk's: the leader refuses before anything is logged."""
    leader = cluster.leader()
    number, refused = 0, None
    while refused is None:
        number += 1
        assert number < 200, "it never fills"
        (result,) = leader.write(put(b"big-%d" % number, bytes(60_000)))
        refused = result if isinstance(result, NoSpace) else None
    before = len(operations(leader))
    session = session_of(leader.runtime.log_time_ms())
    answers = leader.write(
        put(b"more", bytes(60_000)),
        delete(b"big-1"),
        once(session, 1, put(b"again", bytes(9)), again=True),
        put(b"more", bytes(60_000)),
    )
    assert isinstance(answers[0], NoSpace) and isinstance(answers[3], NoSpace)
    assert answers[1] is True
    assert not isinstance(answers[2], KeyspaceError), "it may have been done: it passes"
    assert [call[0] for call in operations(leader)[before]] == ["delete", "once"], "what is refused is not logged"
    (alone,) = leader.write(put(b"more", bytes(300_000)))
    assert isinstance(alone, NoSpace) and len(operations(leader)) == before + 1
    for victim in range(2, number):
        leader.write(delete(b"big-%d" % victim))
    assert leader.write(put(b"more", bytes(60_000))) == [True]
    cluster.settle()


def test_when_leadership_ends_nobody_knows_of_what_is_under_way_and_what_waits_was_not_done(make_cluster: Make) -> None:
    cluster = make_cluster(entries_max=1)
    leader = cluster.start()
    cluster.cut(leader.name)
    under_way, waits = leader.propose(incr(), incr()), []
    cluster.run(1)
    waits = leader.propose(incr(), delete(b"x"))
    cluster.until(lambda: bool(under_way and waits))
    assert [type(result) for result in under_way] == [LeadershipLost, LeadershipLost]
    assert "Sent again under the same session and sequence, it happens once" in str(under_way[0])
    assert [type(result) for result in waits] == [NotLeader, NotLeader]
    assert leader.runtime.pending_calls == 0
    with pytest.raises(NotLeader):
        leader.propose(incr())
    cluster.cut()
    cluster.leader()
    cluster.settle()


def test_writes_wait_while_leadership_is_handed_over(cluster: Cluster) -> None:
    leader = cluster.leader()
    told: list[Any] = []
    leader.runtime.transfer(None, told.append)
    waits = leader.propose(incr())
    cluster.until(lambda: bool(told and waits))
    assert told == [None]
    assert [type(result) for result in waits] == [NotLeader]
    assert cluster.leader() is not leader


def test_writes_that_waited_are_done_if_nobody_takes_over(cluster: Cluster) -> None:
    leader = cluster.leader()
    target = cluster.followers()[0]
    cluster.cut(target.name)
    told: list[Any] = []
    leader.runtime.transfer(target.id, told.append)
    answer = leader.propose(incr())
    cluster.until(lambda: bool(told and answer))
    assert answer == [1]
    assert isinstance(told[0], DeadlineExceeded)


def test_a_lost_write_may_have_happened(cluster: Cluster) -> None:
    """Rule 26: the leader got it to a majority, and heard no answer."""
    leader = cluster.leader()
    cluster.drops = lambda sender, to, frame: to == leader.name
    results = leader.propose(incr())
    cluster.until(lambda: bool(results))
    assert isinstance(results[0], LeadershipLost)
    cluster.cut()
    assert cluster.leader().get(b"n") == b"1"


def test_a_plan_that_fails_is_everybodys_answer(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store cannot be read for a moment: nothing was done, everybody is told, and nothing stays counted."""
    leader = cluster.leader()

    def plan(calls: Any, log_ms: int) -> Any:
        raise StorageError("The store cannot be read.")

    with monkeypatch.context() as broken:
        broken.setattr(leader.machine, "plan", plan)
        results = leader.propose(incr())
        cluster.until(lambda: bool(results))
        held: list[Any] = []
        leader.runtime.propose_held([incr()], 1, held.extend)
        cluster.until(lambda: bool(held))
    assert [str(result) for result in results + held] == ["The store cannot be read."] * 2
    assert leader.runtime.pending_calls == 0
    assert leader.write(incr()) == [1]


def test_values_stay_apart(cluster: Cluster) -> None:
    """Two proposals of one turn do not share what they are."""
    leader = cluster.leader()
    answers = [
        leader.propose(put(b"a", b"1")),
        leader.propose(put(b"a", b"2"), ("set", 0, b"a", val(b"3"), None, "absent")),
    ]
    cluster.until(lambda: all(answers))
    assert leader.get(b"a") == b"2"

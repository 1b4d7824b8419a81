"""Who writes alone: scripts that were overtaken again and again."""

from __future__ import annotations

from typing import Any

import pytest

from django_keyspace.exceptions import KeyspaceError, NotLeader
from django_keyspace.node.barrier import Hold, ScriptBarrier
from django_keyspace.node.raft import AppendRequest
from django_keyspace.node.raft.messages import code_of
from tests.node.replicas import Cluster, Node, incr, put


class Turns:
    """A barrier, and what it tells."""

    def __init__(self) -> None:
        self.quiet = True
        self.resumed = 0
        self.told: list[tuple[str, KeyspaceError | None]] = []
        self.barrier = ScriptBarrier(lambda: self.quiet, self.resume)

    def resume(self) -> None:
        self.resumed += 1

    def hold(self, name: str) -> Hold:
        return self.barrier.hold(lambda error: self.told.append((name, error)))


def test_turns_come_one_after_the_other_when_it_is_quiet() -> None:
    turns = Turns()
    turns.quiet = False
    one, two = turns.hold("one"), turns.hold("two")
    assert turns.told == [] and turns.barrier.is_held
    turns.quiet = True
    turns.barrier.look()
    turns.barrier.look()
    assert turns.told == [("one", None)]
    turns.barrier.let_go(one)
    assert turns.told == [("one", None), ("two", None)] and turns.resumed == 0
    turns.barrier.let_go(two)
    turns.barrier.let_go(two)
    assert turns.resumed == 1 and not turns.barrier.is_held


def test_who_waits_no_longer_gives_way() -> None:
    turns = Turns()
    one, two, three = turns.hold("one"), turns.hold("two"), turns.hold("three")
    turns.barrier.let_go(two)
    turns.barrier.let_go(one)
    assert turns.told == [("one", None), ("three", None)]
    turns.barrier.let_go(three)
    assert turns.resumed == 1


def test_when_leadership_ends_those_who_wait_are_told() -> None:
    turns = Turns()
    one = turns.hold("one")
    turns.hold("two")
    error = NotLeader("no")
    turns.barrier.refuse_all(error)
    assert turns.told == [("one", None), ("two", error)] and not turns.barrier.is_held
    turns.barrier.let_go(one)
    assert turns.resumed == 0


# --- In a cluster -----------------------------------------------------------------------------------------------------


def hold(node: Node) -> tuple[Hold, list[KeyspaceError | None]]:
    told: list[KeyspaceError | None] = []
    return node.runtime.hold(told.append), told


def held_write(node: Node, *calls: Any) -> list[Any]:
    results: list[Any] = []
    node.runtime.propose_held(calls, 10, results.extend)
    node.cluster.until(lambda: bool(results))
    return results


def test_nothing_comes_between_what_a_script_read_and_what_it_writes(cluster: Cluster) -> None:
    leader = cluster.leader()
    before = [leader.propose(incr()) for _ in range(3)]
    cluster.run(0.1)
    turn, told = hold(leader)
    assert told == [], "others' writes are under way"
    cluster.until(lambda: told == [None])
    assert before == [[1], [2], [3]] and leader.here(b"n") == b"3", "what they wrote is in the store that it reads"
    others = [leader.propose(incr()) for _ in range(3)]
    cluster.run(2_000)
    assert others == [[], [], []] and leader.here(b"n") == b"3"
    assert held_write(leader, incr(delta=10)) == [13]
    assert held_write(leader, incr(delta=10)) == [23], "as often as it likes"
    leader.runtime.let_go(turn)
    cluster.until(lambda: others == [[24], [25], [26]])
    cluster.settle()


def test_the_nodes_own_upkeep_waits_for_the_script_too(cluster: Cluster) -> None:
    leader = cluster.leader()
    leader.write(put(b"k", expire=1_000))
    turn, told = hold(leader)
    cluster.until(lambda: told == [None])
    index = leader.runtime.applied_index
    cluster.run(60_000)
    assert leader.runtime.applied_index == index and leader.here(b"k") == b"v"
    leader.runtime.let_go(turn)
    cluster.until(lambda: leader.machine.read(0, "exists", 0, b"k") is False)
    cluster.settle()


def test_a_new_leader_grants_no_turn_before_it_has_committed(cluster: Cluster) -> None:
    old = cluster.leader()
    new = cluster.followers()[0]
    old.write(incr())
    cluster.settle()
    cluster.drops = lambda sender, to, frame: sender == new.name and frame[1] == code_of(AppendRequest)
    old.runtime.transfer(new.id, lambda error: None)
    cluster.until(lambda: new.leads)
    turn, told = hold(new)
    cluster.run(200)
    assert told == [], "another leader's writes may be in the log that it does not know to be committed"
    cluster.cut()
    cluster.until(lambda: told == [None])
    assert new.runtime.raft.has_applied_all
    new.runtime.let_go(turn)


def test_a_turn_is_refused_and_its_writes_too_when_leadership_ends(cluster: Cluster) -> None:
    leader = cluster.leader()
    turn, told = hold(leader)
    second, second_told = hold(leader)
    cluster.until(lambda: told == [None])
    results: list[Any] = []
    cluster.cut(leader.name)
    cluster.until(lambda: not leader.leads)
    assert told == [None] and [type(error) for error in second_told] == [NotLeader]
    with pytest.raises(NotLeader):
        leader.runtime.propose_held([incr()], 10, results.extend)
    leader.runtime.let_go(turn)
    leader.runtime.let_go(second)
    assert results == []
    cluster.cut()
    new = cluster.leader()
    assert new.write(incr()) == [1]


def test_a_turn_comes_when_handing_over_has_come_to_nothing(cluster: Cluster) -> None:
    """Nothing is logged then that could say so. A script that waited for it kept everybody's writes waiting, too."""
    leader = cluster.leader()
    target, other = cluster.followers()
    cluster.settle()
    granted: list[KeyspaceError | None] = []
    handed: list[KeyspaceError | None] = []
    cluster.pause(target)
    leader.runtime.transfer(target.id, handed.append)
    turn = leader.runtime.hold(granted.append)
    assert not granted, "leadership may be gone in a moment"
    cluster.until(lambda: bool(granted))
    assert granted == [None] and leader.leads and other.is_up
    leader.runtime.let_go(turn)
    assert leader.write(incr()) == [1]

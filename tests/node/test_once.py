"""Exactly once in a cluster: a write that is sent again, to whichever node leads, happens once."""

from __future__ import annotations

from typing import Any

import pytest

from django_keyspace.exceptions import LeadershipLost, NotLeader, SessionExpired, StaleSequence
from django_keyspace.node.entries import logged_calls
from django_keyspace.store.sessions import EXPIRY_MS
from tests.node.replicas import Cluster, Node, delete, entries_of, incr, once, put, session_of


def lose_the_answer(cluster: Cluster, leader: Node, *calls: Any) -> None:
    """Have writes committed whose leader hears nothing of it and loses its leadership."""
    cluster.drops = lambda sender, to, frame: to == leader.name
    results = leader.propose(*calls)
    cluster.until(lambda: bool(results))
    assert {type(result) for result in results} == {LeadershipLost}
    cluster.until(lambda: any(node.leads for node in cluster if node is not leader))
    cluster.cut()
    cluster.leader()


def test_rule_24_a_write_that_is_sent_again_to_the_next_leader_gets_the_kept_answer(cluster: Cluster) -> None:
    old = cluster.leader()
    session = session_of(old.runtime.log_time_ms())
    assert old.write(once(session, 1, incr())) == [1]
    lose_the_answer(cluster, old, once(session, 2, incr(delta=10)))
    new = cluster.leader()
    assert new is not old
    for _ in range(2):
        assert new.write(once(session, 2, incr(delta=10), again=True)) == [11]
    assert new.write(once(session, 3, incr())) == [12]
    cluster.settle()
    assert new.get(b"n") == b"12"


def test_rule_24_a_resent_set_does_not_undo_somebody_elses_newer_write(cluster: Cluster) -> None:
    old = cluster.leader()
    session = session_of(old.runtime.log_time_ms())
    lose_the_answer(cluster, old, once(session, 1, put(b"k", b"mine")))
    new = cluster.leader()
    new.write(put(b"k", b"newer"))
    assert new.write(once(session, 1, put(b"k", b"mine"), again=True)) == [True]
    assert new.get(b"k") == b"newer"
    lose_the_answer(cluster, new, once(session, 2, delete(b"k"), lowest=2))
    third = cluster.leader()
    third.write(put(b"k", b"again"))
    assert third.write(once(session, 2, delete(b"k"), again=True, lowest=2)) == [True]
    assert third.get(b"k") == b"again"


def test_rule_24_two_copies_of_a_write_in_one_entry_happen_once(cluster: Cluster) -> None:
    leader = cluster.leader()
    session = session_of(leader.runtime.log_time_ms())
    answers = [leader.propose(once(session, 1, incr())), leader.propose(once(session, 1, incr(), again=True))]
    cluster.until(lambda: all(answers))
    assert answers == [[1], [1]] and leader.get(b"n") == b"1"


def test_rule_24_a_node_that_got_a_snapshot_knows_what_was_done(cluster: Cluster) -> None:
    """The kept answers are in the store, so they are in its snapshots and outlive a restart of everybody."""
    leader = cluster.leader()
    session = session_of(leader.runtime.log_time_ms())
    assert leader.write(once(session, 1, incr())) == [1]
    cluster.settle()
    for node in cluster:
        node.end()
    for node in cluster:
        node.start()
    assert cluster.leader().write(once(session, 1, incr(), again=True)) == [1]


def test_rule_25_an_expired_session_is_refused_everywhere(cluster: Cluster) -> None:
    leader = cluster.leader()
    old = session_of(leader.runtime.log_time_ms() - EXPIRY_MS - 1)
    (refused,) = leader.write(once(old, 1, incr()))
    assert isinstance(refused, SessionExpired)
    cluster.settle()
    assert leader.get(b"n") is None


def test_a_sequence_that_is_over_is_refused(cluster: Cluster) -> None:
    leader = cluster.leader()
    session = session_of(leader.runtime.log_time_ms())
    assert leader.write(once(session, 1, incr()), once(session, 2, incr(), lowest=2)) == [1, 2]
    (refused,) = leader.write(once(session, 1, incr(), again=True))
    assert isinstance(refused, StaleSequence)


def test_rule_26_what_became_of_a_write_is_unknown_and_says_so(cluster: Cluster) -> None:
    """Both outcomes exist: the one that reached a majority happened, the one that reached nobody did not."""
    leader = cluster.leader()
    cluster.cut(leader.name)
    nowhere = leader.propose(incr(b"nowhere"))
    cluster.until(lambda: bool(nowhere))
    assert type(nowhere[0]) is LeadershipLost and "It may happen" in str(nowhere[0])
    cluster.cut()
    leader = cluster.leader()
    lose_the_answer(cluster, leader, incr(b"somewhere"))
    leader = cluster.leader()
    assert (leader.get(b"nowhere"), leader.get(b"somewhere")) == (None, b"1")
    cluster.settle()


def test_rule_28_a_hint_names_another_node_or_nobody(cluster: Cluster) -> None:
    """Who follows hints never comes back to the node that gave them for that node's own name."""
    old = cluster.leader()
    cluster.cut(old.name)
    cluster.until(lambda: not old.leads)
    for node in cluster:
        if not node.leads:
            with pytest.raises(NotLeader) as caught:
                node.propose(incr())
            assert caught.value.leader != node.id
            assert (caught.value.leader is None) == (caught.value.address is None)


def test_rule_31_what_a_script_wrote_is_logged_with_its_answer_and_the_script_is_not(cluster: Cluster) -> None:
    """It ran on the leader. The others, and whoever asks again, have its writes and its answer, and nothing to run."""
    leader = cluster.leader()
    leader.write(put(b"k", b"1"))
    session = session_of(leader.runtime.log_time_ms())
    wrote = ("atomic", [(0, ("value", b"k", None, b"1"))], [put(b"k", b"2"), incr()])
    lose_the_answer(cluster, leader, once(session, 1, wrote, answer=b"it said 7"))
    new = cluster.leader()
    logged = [call for entry in entries_of(new) for call in logged_calls(entry).calls]
    assert [call[0] for call in logged] == ["set", "once"] and logged[-1][5][0] == "atomic"
    # Its conditions do not hold any more, and nobody looks at them again.
    assert new.write(once(session, 1, wrote, again=True, answer=b"another run")) == [b"it said 7"]
    assert new.write(once(session, 2, wrote, answer=b"a later one")) == [None], "it was overtaken, and runs again"
    cluster.settle()
    assert (new.get(b"k"), new.get(b"n")) == (b"2", b"1")

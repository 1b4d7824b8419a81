"""The log clock of a cluster, and what is decided by it: expiry, sweeps, sessions, evictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from django_keyspace.exceptions import SessionExpired
from django_keyspace.node.clock import CATCH_UP_PACE
from django_keyspace.node.entries import logged_calls
from django_keyspace.node.raft import COMMANDS, AppendRequest
from django_keyspace.node.raft.messages import code_of
from django_keyspace.store import sessions
from tests.node.replicas import Cluster, Node, entries_of, incr, once, payload_of, put, session_of

Make = Callable[..., Cluster]
HOUR_MS = 3_600_000


def log_times(node: Node) -> list[int]:
    return [logged_calls(entry).log_ms for entry in entries_of(node) if entry.kind == COMMANDS]


def names(node: Node) -> Counter[str]:
    """The operations in a node's journal, by name."""
    return Counter(call[0] for entry in entries_of(node) for call in logged_calls(entry).calls)


def jump(cluster: Cluster, milliseconds: int, *but: Node) -> None:
    for node in cluster:
        if node not in but:
            node.clock.jump(milliseconds)


# --- The log clock ----------------------------------------------------------------------------------------------------


def test_rule_29_the_leader_stamps_entries_and_followers_use_its_time(cluster: Cluster) -> None:
    leader = cluster.leader()
    jump(cluster, HOUR_MS, leader)  # the followers' wall clocks are an hour ahead
    leader.write(put(b"k", expire=1_000))
    cluster.settle()
    deadlines = {node.machine.read(0, "get", 0, b"k") for node in cluster}
    assert len(deadlines) == 1
    stamped = log_times(leader)[-1]
    assert abs(stamped - leader.clock.wall_ms()) < 1_000
    assert {node.machine.log_ms for node in cluster} == {stamped}


def test_rule_29_log_time_never_goes_back_over_a_change_of_leader(cluster: Cluster) -> None:
    """Each leader's wall clock is further behind than the one's before."""
    for node in list(cluster):
        leader = cluster.elect(node)
        leader.write(incr())
        cluster.run(500)
        leader.write(incr())
        jump(cluster, -HOUR_MS)
    cluster.settle()
    stamped = log_times(cluster.leader())
    assert len(stamped) == 6 and stamped == sorted(stamped)
    assert stamped[1] > stamped[0], "it goes on while it waits for the wall clock"


def test_rule_29_a_leader_whose_clock_is_far_ahead_does_not_let_everything_expire(cluster: Cluster) -> None:
    leader, other = cluster.leader(), cluster.followers()[0]
    leader.write(put(b"k", expire=HOUR_MS))
    before = log_times(leader)[-1]
    other.clock.jump(365 * 24 * HOUR_MS)
    cluster.elect(other)
    began = cluster.now_ms
    cluster.run(5_000)
    assert other.get(b"k") == b"v"
    other.write(incr())
    passed = log_times(other)[-1] - before
    assert passed <= CATCH_UP_PACE * (cluster.now_ms - began + 5_000)


def test_a_restarted_cluster_goes_on_from_its_own_time(make_cluster: Make) -> None:
    cluster = make_cluster()
    leader = cluster.start()
    leader.write(incr())
    cluster.settle()
    for node in cluster:
        node.shut_down()
    jump(cluster, -24 * HOUR_MS)
    for node in cluster:
        node.start()
    cluster.leader().write(incr())
    assert log_times(cluster.leader()) == sorted(log_times(cluster.leader()))


# --- Expiry -----------------------------------------------------------------------------------------------------------


def test_rule_30_reads_hide_what_is_over_and_only_a_logged_sweep_deletes(cluster: Cluster) -> None:
    leader = cluster.leader()
    leader.write(put(b"k", expire=2_000), put(b"stays"))
    cluster.settle()
    index = leader.runtime.applied_index
    cluster.run(2_100)
    assert leader.get(b"k") is None and leader.get(b"stays") == b"v"
    if leader.runtime.applied_index == index:
        assert {node.here(b"k") for node in cluster} == {b"v"}, "nobody deletes by himself"
    cluster.until(lambda: leader.here(b"k") is None)
    cluster.settle()
    assert {node.here(b"k") for node in cluster} == {None}
    assert names(leader)["sweep"] >= 1, "it was logged"


def test_rule_30_without_a_leader_nothing_is_deleted(cluster: Cluster) -> None:
    leader = cluster.leader()
    leader.write(put(b"k", expire=1_000))
    cluster.settle()
    cluster.drops = lambda sender, to, frame: True
    cluster.run(60_000)
    assert [node.here(b"k") for node in cluster] == [b"v"] * 3
    assert all(payload_of(node.ask("dirty")[0], b"k") is None for node in cluster), "by its own log clock it is over"
    cluster.cut()
    cluster.until(lambda: all(node.here(b"k") is None for node in cluster))
    cluster.settle()


@pytest.mark.parametrize("seed", range(4))
def test_rule_30_what_one_safe_read_saw_expire_does_not_come_back_under_the_next_leader(
    make_cluster: Make, seed: int
) -> None:
    """The next leader's wall clock is an hour behind. All that it knows of the time are the former leader's rounds."""
    cluster = make_cluster(seed=seed, upkeep_ms=10**6)
    old = cluster.start()
    new = cluster.followers()[seed % 2]
    old.write(put(b"k", expire=10_000))
    cluster.settle()
    jump(cluster, -HOUR_MS, old)
    while old.get(b"k") is not None:
        cluster.run(7)
    told: list[Any] = []
    old.runtime.transfer(new.id, told.append)
    cluster.until(lambda: new.leads)
    assert new.get(b"k") is None, "it had expired"
    assert new.write(("set", 0, b"k", (1, 0, b"new"), None, "absent")) == [True]
    cluster.settle()


def test_rule_30_what_one_safe_read_saw_expire_does_not_come_back_after_a_crash(make_cluster: Make) -> None:
    cluster = make_cluster(upkeep_ms=10**6)
    old = cluster.start()
    old.write(put(b"k", expire=3_000))
    cluster.settle()
    jump(cluster, -HOUR_MS, old)
    while old.get(b"k") is not None:
        cluster.run(7)
    old.end(power_cut=True)
    assert cluster.leader(old).get(b"k") is None


# --- Sessions and evictions -------------------------------------------------------------------------------------------


def test_rule_25_sessions_end_by_a_logged_decision_everywhere(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "EXPIRY_MS", 5_000)
    leader = cluster.leader()
    session = session_of(leader.runtime.log_time_ms())
    assert leader.write(once(session, 1, incr())) == [1]
    jump(cluster, HOUR_MS, leader)  # the followers would have ended it long ago
    cluster.settle()
    assert leader.write(once(session, 1, incr(), again=True)) == [1]
    cluster.until(lambda: names(leader)["expire_sessions"] > 0, wait_ms=120_000)
    cluster.settle()
    (refused,) = leader.write(once(session, 1, incr(), again=True))
    assert isinstance(refused, SessionExpired), "never done again in silence"
    assert leader.get(b"n") == b"1"
    cluster.settle()


def test_evictions_are_logged_with_the_write_that_needs_room(cluster: Cluster) -> None:
    leader = cluster.leader()
    for number in range(120):
        assert leader.write(put(b"e%d" % number, bytes(60_000), kept=False)) == [True]
    assert names(leader)["evict"] > 0
    assert not any(names(leader)[name] for name in ("cull", "clear"))
    cluster.settle()
    assert sum(leader.here(b"e%d" % number) is None for number in range(120)) > 20
    assert leader.here(b"e119") is not None


def test_a_new_leader_looks_after_things_even_if_the_old_ones_upkeep_was_lost(cluster: Cluster) -> None:
    leader = cluster.leader()
    leader.write(put(b"k", expire=1_000))
    cluster.settle()
    cluster.drops = lambda sender, to, frame: frame[0] == "raft" and frame[1] == code_of(AppendRequest)
    last = leader.runtime.raft.status().last_index
    cluster.until(lambda: leader.runtime.raft.status().last_index > last)
    cluster.run(5_000)
    assert leader.leads and names(leader)["sweep"] == 1, "one at a time"
    assert leader.here(b"k") == b"v", "its sweep is not committed"
    cluster.cut(leader.name)
    cluster.until(lambda: not leader.leads)
    cluster.cut()
    cluster.until(lambda: all(node.here(b"k") is None for node in cluster))
    again = cluster.elect(leader)
    again.write(put(b"k", expire=1_000))
    cluster.until(lambda: all(node.here(b"k") is None for node in cluster))

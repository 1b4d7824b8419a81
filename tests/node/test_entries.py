"""What an entry of the log holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_keyspace.exceptions import InvalidArgument, NotSupported
from django_keyspace.node import entries, packing
from django_keyspace.node.entries import ENTRY_VERSION, LoggedCalls, logged_calls, pack_calls
from django_keyspace.node.raft import CHANGE, COMMANDS, NOOP, BrokenInvariant, Entry
from django_keyspace.operations import OPERATIONS
from tests.node.replicas import Cluster, incr, once, put, session_of, val

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.binary(max_size=20)
    | st.text(max_size=20)
    | st.floats(),
    lambda inner: st.lists(inner, max_size=4).map(tuple),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**63), st.lists(st.tuples(st.text(max_size=9), VALUES), max_size=5).map(tuple))
def test_operations_come_back_as_they_were(log_ms: int, calls: Any) -> None:
    entry = Entry(7, 3, COMMANDS, pack_calls(log_ms, calls))
    found = logged_calls(entry)
    assert repr(found) == repr(LoggedCalls(7, log_ms, calls))  # also nan, and True is not 1


def test_a_lone_surrogate_survives() -> None:
    assert logged_calls(Entry(1, 1, COMMANDS, pack_calls(5, [("set", "\ud800")]))).calls == (("set", "\ud800"),)


@pytest.mark.parametrize("kind", [NOOP, CHANGE])
def test_other_entries_hold_no_operations(kind: int) -> None:
    assert logged_calls(Entry(4, 2, kind, b"whatever it is")) == LoggedCalls(4, 0, ())


@pytest.mark.parametrize("value", [2**64, object(), {1, 2}])
def test_what_cannot_be_written_down_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"cannot be written to the log.*Nothing was changed"):
        pack_calls(1, [("set", value)])


@pytest.mark.parametrize("data", [b"", b"\x00", bytes((ENTRY_VERSION + 1,)) + pack_calls(1, [])[1:]])
def test_rule_34_an_entry_of_an_unknown_version_is_not_guessed(data: bytes) -> None:
    with pytest.raises(BrokenInvariant, match=r"Entry 9 is of version .* Upgrade this node"):
        logged_calls(Entry(9, 1, COMMANDS, data))


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x93\x01\x02\x03", b"\x05", pack_calls(1, [put(b"k")])[1:-1]])
def test_rule_34_an_entry_that_cannot_be_read_stops_the_node(body: bytes) -> None:
    with pytest.raises(BrokenInvariant, match="Entry 9 cannot be read"):
        logged_calls(Entry(9, 1, COMMANDS, bytes((ENTRY_VERSION,)) + body))


def test_rule_34_a_node_that_does_not_know_an_entry_stops_before_it_and_goes_on_after_an_upgrade(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are of a newer release, and have turned its version on."""
    leader = cluster.leader()
    old, other = cluster.followers()
    leader.write(incr())
    cluster.settle()
    cluster.cut(old.name)
    with monkeypatch.context() as newer:
        newer.setattr(entries, "_VERSIONS", {1, 2})
        leader.runtime.raft.propose(b"\x02" + pack_calls(1, [incr()])[1:])
        cluster.until(lambda: leader.here(b"n") == other.here(b"n") == b"2")
    cluster.cut()
    cluster.until(lambda: not old.is_up)
    assert "Upgrade this node" in old.reason
    assert leader.write(incr()) == [3], "the others go on"
    old.start()
    assert not old.is_up and "Upgrade this node" in old.reason, "it skips nothing, however often it is started"
    with monkeypatch.context() as newer:
        newer.setattr(entries, "_VERSIONS", {1, 2})
        old.start()
        cluster.settle()
    assert old.here(b"n") == b"3"


def test_rule_34_a_leader_writes_what_all_members_read(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "_VERSIONS", {1, 2})
    monkeypatch.setattr(packing, "ENTRY_VERSION", 2)
    leader = cluster.leader()
    one, other = (follower.id for follower in cluster.followers())

    def version_of_next() -> int:
        leader.write(incr())
        (entry,) = leader.runtime.parts.journal.entries(leader.machine.applied_index, leader.machine.applied_index, 0)
        return entry.data[0]

    assert version_of_next() == 1, "nobody has said what he reads"
    leader.entry_versions |= {one: 2, other: 1}
    assert version_of_next() == 1
    leader.entry_versions[other] = 3
    assert version_of_next() == 2


def test_rule_34_a_version_that_is_in_the_log_stays_when_a_member_is_not_met_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "_VERSIONS", {1, 2})
    monkeypatch.setattr(packing, "ENTRY_VERSION", 2)
    leader = cluster.leader()
    leader.entry_versions |= {follower.id: 2 for follower in cluster.followers()}
    leader.write(incr())
    cluster.settle()
    leader.end()
    successor = cluster.leader()
    assert not successor.entry_versions, "it has not met the others, one of which is down"
    for _ in range(2):
        successor.write(incr())
        index = successor.machine.applied_index
        assert successor.runtime.parts.journal.entries(index, index, 0)[0].data[0] == 2


def test_rule_34_an_operation_that_some_member_does_not_know_is_refused_alone(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "_VERSIONS", {1, 2})
    monkeypatch.setattr(packing, "ENTRY_VERSION", 2)
    monkeypatch.setitem(OPERATIONS, "append", replace(OPERATIONS["append"], since=2))
    leader = cluster.leader()
    one, other = (follower.id for follower in cluster.followers())
    leader.entry_versions |= {one: 2}
    newer = ("append", 0, b"t", val(b"x"), None)
    inside = ("atomic", (), (incr(), ("batch", (newer,))))
    wrapped = once(session_of(leader.runtime.log_time_ms()), 1, newer)
    refused = leader.write(incr(), newer, inside, wrapped, incr())
    assert refused[::4] == [1, 2]
    for error in refused[1:4]:
        assert isinstance(error, NotSupported)
        assert f"{other.partition('.')[0]} did not say" in str(error) and "Nothing was changed" in str(error)
    leader.entry_versions |= {other: 2}
    assert leader.write(newer, wrapped, inside) == [1, 2, (True, [3, [("ok", 3)]])]
    cluster.settle()
    assert {node.here(b"t") for node in cluster.nodes.values()} == {b"xxx"}

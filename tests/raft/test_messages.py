"""Wire form: whatever is sent arrives as it was, and what is not a message is refused and changes nothing (rule 51)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_keyspace.node.raft import (
    CHANGE,
    AppendRequest,
    AppendResponse,
    BadMessage,
    Entry,
    Heartbeat,
    HeartbeatResponse,
    Membership,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    SnapshotMeta,
    SnapshotRequest,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
    entry_from_wire,
    from_wire,
    make_membership,
    membership_from_bytes,
    to_wire,
)

STEADY = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
NUMBERS = st.integers(0, 2**63 - 1)
NODES = st.text(min_size=1, max_size=8)
ADDRESS = (NODES, NODES, NUMBERS)


@st.composite
def memberships(draw: Any) -> Membership:
    names = draw(st.lists(NODES, unique=True, max_size=6))
    one, two = sorted(draw(st.tuples(st.integers(0, len(names)), st.integers(0, len(names)))))
    info = {name: draw(st.text(max_size=5)) for name in names[:one]}
    return make_membership(names[:one], names[one:two], names[two:], info)


@st.composite
def appends(draw: Any) -> AppendRequest:
    index, terms = draw(st.integers(0, 100)), sorted(draw(st.lists(st.integers(1, 50), min_size=2, max_size=5)))
    entries = []
    for number, term in enumerate(terms[1:-1], 1):
        data = draw(st.one_of(st.binary(max_size=20), memberships().map(Membership.to_bytes)))
        entries.append(Entry(index + number, term, draw(st.integers(0, 1)), data))
    return AppendRequest(draw(NODES), draw(NODES), terms[-1], index, terms[0], tuple(entries), draw(NUMBERS))


MESSAGES = st.one_of(
    st.builds(PreVoteRequest, *ADDRESS, NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    st.builds(PreVoteResponse, *ADDRESS, NUMBERS, st.booleans()),
    st.builds(VoteRequest, *ADDRESS, NUMBERS, NUMBERS, st.booleans()),
    st.builds(VoteResponse, *ADDRESS, st.booleans(), NUMBERS),
    appends(),
    st.builds(AppendResponse, *ADDRESS, st.booleans(), NUMBERS, NUMBERS, NUMBERS),
    st.builds(Heartbeat, *ADDRESS, NUMBERS, NUMBERS, NUMBERS),
    st.builds(HeartbeatResponse, *ADDRESS, NUMBERS, NUMBERS),
    st.builds(SnapshotRequest, *ADDRESS, st.builds(SnapshotMeta, NUMBERS, NUMBERS, memberships())),
    st.builds(TimeoutNow, *ADDRESS),
)


def is_plain(value: object) -> bool:
    """Whether a value is made of exact tuples, numbers, text and bytes only."""
    if type(value) is tuple:
        return all(is_plain(item) for item in value)
    return type(value) in (int, bool, str, bytes)


def as_lists(value: Any) -> Any:
    """As a decoder that knows no tuples would give it."""
    return [as_lists(item) for item in value] if isinstance(value, tuple) else value


@STEADY
@given(message=MESSAGES)
def test_rule_51_messages_arrive_as_they_were_sent(message: Message) -> None:
    wire = to_wire(message)
    assert is_plain(wire)
    for received in (from_wire(wire), from_wire(as_lists(wire))):
        assert received == message
        assert type(received) is type(message)


GARBAGE = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-2, 2**64), st.text(max_size=3), st.binary(max_size=3), st.floats()
    ),
    lambda inner: st.lists(inner, max_size=8).map(tuple),
    max_leaves=12,
)


@STEADY
@given(message=MESSAGES, position=st.integers(0, 7), value=GARBAGE)
def test_rule_51_a_wrong_field_is_refused_or_harmless(message: Message, position: int, value: Any) -> None:
    wire = to_wire(message)
    position %= len(wire)
    try:
        received = from_wire((*wire[:position], value, *wire[position + 1 :]))
    except BadMessage:
        return
    assert is_plain(to_wire(received))


@STEADY
@given(value=GARBAGE)
def test_rule_51_garbage_is_refused(value: Any) -> None:
    try:
        received = from_wire(value)
    except BadMessage:
        return
    assert to_wire(received) == value  # By luck it is a message.


@pytest.mark.parametrize(
    "entries",
    [
        ((3, 1, 1, b""),),  # a gap
        ((2, 4, 1, b""),),  # of a term that has not begun
        ((2, 2, 1, b""), (3, 1, 1, b"")),  # terms go back
        ((2, 1, 7, b""),),  # a kind that this version does not know
        ((2, 1, 1, "text"),),
        ((2, 1, 1),),
        (2, 1, 1, b""),
        5,
    ],
)
def test_rule_51_entries_follow_each_other(entries: Any) -> None:
    with pytest.raises(BadMessage):
        from_wire((4, "n1", "n2", 3, 1, 1, entries, 0))
    assert from_wire((4, "n1", "n2", 3, 1, 1, ((2, 1, 1, b""), (3, 3, 0, b"")), 0))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"{}",
        b"[[],[],[]]",
        b'[["n1"],["n1"],[],[]]',
        b'[["n1"],[],["n1"],[]]',
        b"[[1],[],[],[]]",
        b'[["n1"],[],[],["ab"]]',
        b'[["n1"],[],[],[["a",1]]]',
        b'[["n1"],[],[],5]',
    ],
)
def test_rule_51_a_membership_is_checked_where_it_arrives(data: bytes) -> None:
    with pytest.raises(BadMessage):
        membership_from_bytes(data)
    with pytest.raises(BadMessage):
        entry_from_wire((1, 1, CHANGE, data))


@STEADY
@given(membership=memberships())
def test_a_membership_survives_its_entry(membership: Membership) -> None:
    assert membership_from_bytes(membership.to_bytes()) == membership
    assert membership.to_bytes() == membership_from_bytes(membership.to_bytes()).to_bytes()

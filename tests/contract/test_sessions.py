"""Contract of once and expire_sessions: a write that comes again is not done again."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from django_keyspace.exceptions import InvalidArgument, MissingKey, SessionExpired, StaleSequence, UnknownOperation
from tests.contract.engines import Place
from tests.contract.records import DB, Do, val

pytestmark = pytest.mark.contract
covers = pytest.mark.covers

COUNT = ("incr", DB, b"n", 1, 0, None, 0)


def new_session(do: Do, age_ms: int = 0) -> bytes:
    return int(do("status")["log_time_ms"] - age_ms).to_bytes(8, "big") + secrets.token_bytes(16)


def once(do: Do, session: bytes, sequence: int, lowest: int, call: Any, again: bool = False) -> Any:
    return do("once", session, sequence, lowest, again, call, None)


@covers("once")
def test_a_sequence_that_comes_again_gets_its_first_answer(do: Do) -> None:
    session = new_session(do)
    assert once(do, session, 1, 1, COUNT) == 1
    assert once(do, session, 3, 1, COUNT) == 2
    assert once(do, session, 2, 1, COUNT) == 3  # in any order
    for sequence, answer in ((1, 1), (2, 3), (3, 2)):
        assert once(do, session, sequence, 1, COUNT, again=True) == answer
    assert once(do, session, 4, 3, COUNT) == 4  # 1 and 2 are acknowledged
    for sequence in (1, 2):
        with pytest.raises(StaleSequence):
            once(do, session, sequence, 1, COUNT, again=True)
    assert once(do, session, 3, 3, COUNT, again=True) == 2
    assert once(do, new_session(do), 1, 1, COUNT) == 5  # another client's first write


@covers("once")
def test_refusals_of_a_write_under_a_session(do: Do) -> None:
    session = new_session(do)
    with pytest.raises(MissingKey):
        once(do, session, 1, 1, ("incr", DB, b"none", 1, None, None, 0), again=True)
    assert do("set", DB, b"none", val(b"5"), None, "always") is True
    with pytest.raises(MissingKey):  # a late copy must not do what the caller was told had failed
        once(do, session, 1, 1, ("incr", DB, b"none", 1, None, None, 0))
    for old in (new_session(do, 2 * 3_600_000), new_session(do, -2 * 3_600_000)):
        with pytest.raises(SessionExpired):
            once(do, old, 1, 1, COUNT)
    for sequence, lowest in ((1, 2), (1025, 1)):
        with pytest.raises(InvalidArgument):
            once(do, session, sequence, lowest, COUNT)
    assert do("exists", DB, b"n") is False


@covers("expire_sessions")
def test_only_the_orderer_ends_sessions_and_only_those_that_have_ended(do: Do, place: Place) -> None:
    session = new_session(do)
    once(do, session, 1, 1, COUNT)
    if not place.orders_writes:
        with pytest.raises(UnknownOperation):
            do("expire_sessions", [session])
        return
    assert do("expire_sessions", [session, new_session(do)]) == 0
    assert once(do, session, 1, 1, COUNT, again=True) == 1

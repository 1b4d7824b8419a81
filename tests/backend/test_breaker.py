"""The circuit breaker: when it opens, what passes, and that a node which refuses is a node which answers."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from django_keyspace.addresses import Endpoint, parse_location
from django_keyspace.backend.breaker import FAILURES_MAX, OPEN_S_LEAST, OPEN_S_MOST, Breaker
from django_keyspace.backend.transport import RemoteEngine
from django_keyspace.exceptions import (
    DeadlineExceeded,
    KeyspaceError,
    MissingKey,
    NoConnection,
    Overloaded,
    UnknownOutcome,
)
from django_keyspace.testing import running_node

GONE = NoConnection("No node answers.")


def opened() -> Breaker:
    breaker = Breaker(jitter=lambda: 0.5)
    for _ in range(FAILURES_MAX):
        breaker.check(0.0)
        breaker.failed(GONE, 0.0)
    return breaker


def is_open(breaker: Breaker, now_s: float) -> bool:
    try:
        breaker.check(now_s)
    except NoConnection:
        return True
    return False


def test_it_opens_after_some_failures_in_a_row() -> None:
    breaker = opened()
    with pytest.raises(
        NoConnection, match=r"last 5 calls got no answer, .* in 0.5 s\. Nothing was changed\. .*No node answers"
    ):
        breaker.check(OPEN_S_LEAST / 2)


def test_a_success_in_between_begins_anew() -> None:
    breaker = Breaker()
    for _ in range(3):
        for _ in range(FAILURES_MAX - 1):
            breaker.failed(GONE, 0.0)
        breaker.succeeded()
    assert not is_open(breaker, 0.0)


@pytest.mark.parametrize("answer", [Overloaded("full"), MissingKey("nothing there")])
def test_a_node_that_refuses_is_there(answer: KeyspaceError) -> None:
    breaker = Breaker()
    for _ in range(2 * FAILURES_MAX):
        breaker.failed(answer, 0.0)
    assert not breaker.failures


@pytest.mark.parametrize("error", [DeadlineExceeded("late"), UnknownOutcome("lost")])
def test_no_answer_counts(error: KeyspaceError) -> None:
    breaker = Breaker()
    for _ in range(FAILURES_MAX):
        breaker.failed(error, 0.0)
    assert is_open(breaker, 0.1)


def test_one_call_looks_and_closes_it() -> None:
    breaker = opened()
    assert not is_open(breaker, OPEN_S_LEAST)
    assert is_open(breaker, OPEN_S_LEAST)
    breaker.succeeded()
    assert not is_open(breaker, OPEN_S_LEAST)


def test_it_waits_longer_after_each_look_in_vain() -> None:
    breaker, now_s, waits = opened(), 0.0, []
    for _ in range(6):
        began_s = now_s
        while is_open(breaker, now_s):
            now_s += 0.25
        waits.append(now_s - began_s)
        breaker.failed(GONE, now_s)
    assert waits == [OPEN_S_LEAST, 2.0, 4.0, OPEN_S_MOST, OPEN_S_MOST, OPEN_S_MOST]


def test_calls_that_were_under_way_do_not_keep_it_open_longer() -> None:
    breaker = opened()
    for _ in range(100):
        breaker.failed(GONE, 0.5)
    assert not is_open(breaker, OPEN_S_LEAST)


def call(engine: RemoteEngine, asynchronous: bool) -> Any:
    try:
        if asynchronous:
            return asyncio.run(engine.aexecute("exists", 0, b"k"))
        return engine.execute("exists", 0, b"k")
    except KeyspaceError as error:
        return error


@pytest.mark.parametrize("asynchronous", [False, True])
def test_calls_to_a_frozen_node_fail_at_once_after_a_while_and_go_on_when_it_is_back(
    asynchronous: bool, tmp_path: Path
) -> None:
    with running_node(data=tmp_path / "n1") as node:
        engine = RemoteEngine(parse_location(node.location).endpoints, timeout_ms=300)
        assert call(engine, asynchronous) is False
        node.send_signal(signal.SIGSTOP)
        try:
            errors = [call(engine, asynchronous) for _ in range(FAILURES_MAX + 2)]
        finally:
            node.send_signal(signal.SIGCONT)
        assert all(isinstance(error, DeadlineExceeded) for error in errors[:FAILURES_MAX])
        assert "was not tried" in str(errors[-1])
        while isinstance(call(engine, asynchronous), KeyspaceError):
            pass  # pytest's time limit ends this if it never comes back
        engine.close()


def test_one_engine_does_not_close_the_way_to_another(tmp_path: Path) -> None:
    lost = RemoteEngine([Endpoint(path=str(tmp_path / "none.sock"))])
    assert ["was not tried" in str(call(lost, False)) for _ in range(FAILURES_MAX + 1)] == [False] * FAILURES_MAX + [
        True
    ]
    with running_node(data=tmp_path / "n1") as node:
        found = RemoteEngine(parse_location(node.location).endpoints)
        assert call(found, False) is False
        found.close()

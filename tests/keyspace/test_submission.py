"""How batches are cut into pieces, and what becomes of commands when a piece fails in one of the ways there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from django_keyspace.backend.keyspace.submission import PIECE_BYTES, PIECE_CALLS, submit
from django_keyspace.exceptions import (
    InvalidArgument,
    KeyspaceError,
    MissingKey,
    NoConnection,
    NoSpace,
    UnknownOutcome,
    ValueTooLarge,
)
from django_keyspace.keyspace import Client
from tests.contract.engines import VALUE_BYTES_MAX


def a_set(number: int, size_bytes: int = 1) -> tuple[Any, ...]:
    return ("set", 0, b"k%d" % number, (2, 0, b"x" * size_bytes), None, "always")


def a_get(number: int) -> tuple[Any, ...]:
    return ("get", 0, b"k%d" % number)


def a_remove(number: int) -> tuple[Any, ...]:
    return ("remove", 0, b"k%d" % number)


class Store:
    """Notes what it is asked to do, answers it, or raises what ``fails`` says."""

    def __init__(
        self, fails: Callable[[str, Any], KeyspaceError | None] = lambda name, arguments: None, length: int = 1
    ) -> None:
        self.asked: list[tuple[str, int]] = []
        self._fails = fails
        self._length = length

    def __call__(self, name: str, *arguments: Any) -> Any:
        many = arguments[1] if name in ("get_many", "set_many") else arguments[0] if name == "batch" else [None]
        self.asked.append((name, len(many)))
        if name == "batch" and many[0][0] == "length":
            return [("ok", self._length) for _ in many]
        error = self._fails(name, arguments)
        if error is not None:
            raise error
        if name == "get_many":
            return [b"record of " + key for key in many]
        return [("ok", True) for _ in many] if name == "batch" else len(many)


def test_nothing_is_sent_for_nothing() -> None:
    store = Store()
    assert submit(store, [], False) == ([], None)
    assert store.asked == []


def test_sets_travel_together_and_gets_too() -> None:
    store = Store()
    answers, error = submit(store, [a_set(number) for number in range(PIECE_CALLS + 5)], False)
    assert (len(answers), error) == (PIECE_CALLS + 5, None)
    assert store.asked == [("set_many", PIECE_CALLS), ("set_many", 5)]
    store = Store()
    answers, error = submit(store, [a_get(number) for number in range(3)], True)
    assert (answers, error) == ([b"record of k0", b"record of k1", b"record of k2"], None)
    assert store.asked == [("get_many", 3)]


def test_runs_of_sets_within_other_writes_are_folded() -> None:
    store = Store()
    calls = [a_set(1), a_set(2), ("delete", 0, b"k1"), a_set(3), a_set(4), a_set(5), ("delete", 0, b"k3")]
    answers, _ = submit(store, calls, False)
    assert len(answers) == len(calls)
    assert store.asked == [("batch", 4)]


def test_pieces_are_bounded_in_bytes_and_in_values_that_come_back() -> None:
    store = Store()
    submit(store, [a_set(number, PIECE_BYTES // 3) for number in range(8)], False)
    assert sum(length for _, length in store.asked) == 8
    assert max(length for _, length in store.asked) == 2
    store = Store(length=PIECE_BYTES // 3)
    submit(store, [a_remove(number) for number in range(8)], False)
    assert store.asked == [("batch", 8), *[("batch", 2)] * 4]  # the first one asks how long the values are


def test_after_an_outage_nothing_more_is_sent() -> None:
    outage = NoConnection("gone")
    store = Store(lambda name, arguments: outage if len(arguments[1]) == 5 else None)
    answers, error = submit(store, [a_set(number) for number in range(PIECE_CALLS + 5)], False)
    assert error is outage
    assert answers[PIECE_CALLS:] == [outage] * 5
    assert outage not in answers[:PIECE_CALLS]


def test_an_outage_in_the_half_of_a_piece_ends_the_batch() -> None:
    outage = NoConnection("gone")

    def fails(name: str, arguments: Any) -> KeyspaceError | None:
        if len(arguments[1]) > 2:
            return ValueTooLarge("the answer is too large")
        return outage if b"k2" in arguments[1] else None

    answers, error = submit(Store(fails), [a_get(number) for number in range(PIECE_CALLS + 4)], True)
    assert error is outage
    assert answers[0] == b"record of k0"
    assert set(answers[1:]) == {outage}


def test_an_answer_that_is_too_large_is_asked_for_in_parts() -> None:
    store = Store(lambda name, arguments: ValueTooLarge("too large") if len(arguments[1]) > 2 else None)
    answers, error = submit(store, [a_get(number) for number in range(5)], True)
    assert (len(answers), error) == (5, None)
    assert b"record of k4" in answers


def test_one_bad_command_spoils_no_other() -> None:
    def fails(name: str, arguments: Any) -> KeyspaceError | None:
        keys = [key for key, _ in arguments[1]] if name == "set_many" else [arguments[1]]
        return InvalidArgument("a value is too large for the node") if b"k3" in keys else None

    answers, error = submit(Store(fails), [a_set(number) for number in range(8)], False)
    assert error is None
    assert [isinstance(answer, InvalidArgument) for answer in answers] == [number == 3 for number in range(8)]


def test_writes_whose_answers_got_lost_for_their_size_are_not_done_again() -> None:
    store = Store(lambda name, arguments: ValueTooLarge("the answer is too large"))
    answers, error = submit(store, [a_remove(1), a_remove(2)], False)
    assert isinstance(error, UnknownOutcome)
    assert answers == [error, error]
    assert store.asked == [("batch", 2), ("batch", 2)]  # the lengths, and then once


def test_single_refusals_are_answers() -> None:
    answers, error = submit(
        Store(lambda name, arguments: MissingKey("none")), [("incr", 0, b"k", 1, None, None, 0)], False
    )
    assert error is None
    assert isinstance(answers[0], MissingKey)
    full = NoSpace("full")
    answers, error = submit(Store(lambda name, arguments: full), [a_set(1), a_set(2)], False)
    assert (answers, error) == ([full, full], None)


@pytest.mark.contract
def test_large_values_in_one_batch(client: Client) -> None:
    size = VALUE_BYTES_MAX
    client.begin()
    for number in range(6):
        client.set(f"k{number}", str(number) * size)
    assert client.submit() == 0
    client.begin()
    for number in range(6):
        client.get(f"k{number}")
    assert client.submit() == 0
    assert client.result is not None
    assert client.result.key_values() == {f"k{number}": str(number) * size for number in range(6)}
    client.begin()
    for number in range(6):
        client.remove(f"k{number}")
    assert client.submit() == 0
    assert client.result.key_values() == {f"k{number}": str(number) * size for number in range(6)}
    assert client.count() == 0

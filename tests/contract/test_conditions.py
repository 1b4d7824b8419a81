"""Contract of cas, batch and atomic."""

from __future__ import annotations

import pytest

from django_keyspace.exceptions import MissingKey, NumberOverflow
from django_keyspace.store.record import Tag
from tests.contract.records import (
    ABSENT_KEY,
    ALWAYS,
    DB,
    EVICTABLE,
    OTHER,
    Do,
    about,
    integer,
    left_ms,
    payload,
    put,
    put_expired,
    revision_of,
    val,
)

pytestmark = pytest.mark.contract
covers = pytest.mark.covers


@covers("cas")
def test_cas_by_value(do: Do) -> None:
    put(do, b"k", b"old", expire=60_000)
    before = do("get", DB, b"k")
    for condition in [("value", b"k", None, b"other"), ("value", b"k", int(Tag.TEXT), b"old")]:
        assert do("cas", DB, condition, val(b"new"), None) == (False, before)
    assert do("cas", DB, ("value", b"k", int(Tag.BYTES), b"old"), val(b"new"), "keep") == (True, before)
    assert payload(do("get", DB, b"k")) == b"new"
    assert about(left_ms(do, b"k"), 60_000)
    assert do("cas", DB, ("value", b"k", None, b"new"), val(b"newer"), None)[0] is True
    assert left_ms(do, b"k") == -1
    assert do("cas", DB, ("value", ABSENT_KEY, None, b""), val(b"x"), None) == (False, None)
    assert do("exists", DB, ABSENT_KEY) is False


@covers("cas")
def test_cas_by_revision(do: Do) -> None:
    put(do, b"k", b"1")
    before = do("get", DB, b"k")
    revision = revision_of(before)
    assert do("cas", DB, ("revision", b"k", revision + 1), val(b"2"), None) == (False, before)
    assert do("cas", DB, ("revision", b"k", revision), val(b"2"), 60_000) == (True, before)
    assert about(left_ms(do, b"k"), 60_000)
    assert do("cas", DB, ("revision", b"k", revision), val(b"3"), None)[0] is False
    assert do("cas", DB, ("revision", ABSENT_KEY, revision), val(b"3"), None) == (False, None)


@covers("cas")
def test_cas_by_presence_and_deletion(do: Do) -> None:
    assert do("cas", DB, ("present", b"k"), val(b"1"), None) == (False, None)
    assert do("cas", DB, ("absent", b"k"), val(b"1"), None) == (True, None)
    record = do("get", DB, b"k")
    assert do("cas", DB, ("absent", b"k"), val(b"2"), None) == (False, record)
    assert do("cas", DB, ("value", b"k", None, b"other"), None, None) == (False, record)
    assert do("cas", DB, ("present", b"k"), None, None) == (True, record)
    assert do("exists", DB, b"k") is False
    assert do("cas", DB, ("absent", b"k"), None, None) == (True, None)
    assert do("cas", DB, ("absent", b"k"), val(b"x"), 0) == (True, None)
    assert do("exists", DB, b"k") is False


@covers("batch")
def test_batch_answers_one_status_word_per_operation(do: Do) -> None:
    put(do, b"text", b"abc", tag=Tag.TEXT)
    put(do, b"big", b"%d" % (2**63 - 1), tag=Tag.INTEGER)
    answer = do(
        "batch",
        [
            ("set", DB, b"n", integer(1), None, ALWAYS),
            ("incr", DB, b"n", 4, None, None, EVICTABLE),
            ("incr", DB, ABSENT_KEY, 1, None, None, EVICTABLE),
            ("incr", DB, b"text", 1, None, None, EVICTABLE),
            ("incr", DB, b"big", 1, None, None, EVICTABLE),
            ("append", DB, b"n", val(b"x"), None),
            ("get", DB, ABSENT_KEY),
            ("exists", OTHER, b"n"),
            ("delete", DB, b"text"),
            ("count", DB, b"", b"", False, True, 0),
        ],
    )
    words = [word for word, _ in answer]
    assert words == [
        "ok", "ok", "missing-key", "not-a-number", "number-overflow", "wrong-type", "ok", "ok", "ok", "ok",
    ]  # fmt: skip
    assert [result for word, result in answer if word == "ok"] == [True, 5, None, False, True, (2, None)]
    assert all(isinstance(result, str) and result for word, result in answer if word != "ok")
    assert payload(do("get", DB, b"n")) == b"5"
    assert do("batch", []) == []


@covers("batch")
def test_reads_in_a_batch_see_the_writes_before_them(do: Do) -> None:
    answer = do("batch", [("set", DB, b"a", val(b"1"), None, ALWAYS), ("list", DB, b"", b"", False, True, 9, False)])
    assert answer == [("ok", True), ("ok", ([b"a"], False))]


@covers("atomic")
def test_atomic_does_all(do: Do) -> None:
    put(do, b"n", b"1", tag=Tag.INTEGER)
    revision = revision_of(do("get", DB, b"n"))
    conditions = [
        (DB, ("present", b"n")),
        (OTHER, ("absent", b"n")),
        (DB, ("revision", b"n", revision)),
        (DB, ("value", b"n", int(Tag.INTEGER), b"1")),
    ]
    calls = [
        ("incr", DB, b"n", 1, None, None, EVICTABLE),
        ("get", DB, b"n"),
        ("set", OTHER, b"x", val(b"y"), None, ALWAYS),
    ]
    done, (number, record, stored) = do("atomic", conditions, calls)
    assert (done, number, payload(record), stored) == (True, 2, b"2", True)
    assert revision_of(do("get", DB, b"n")) == revision_of(do("get", OTHER, b"x")) > revision
    assert do("atomic", [], []) == (True, [])


@covers("atomic")
@pytest.mark.parametrize("position", [0, 1, 2])
def test_atomic_tells_which_condition_failed_and_changes_nothing(do: Do, position: int) -> None:
    put(do, b"k", b"1")
    conditions = [(DB, ("present", b"k"))] * 3
    conditions[position] = (OTHER, ("present", b"k"))
    answer = do("atomic", conditions, [("set", DB, b"k", val(b"2"), None, ALWAYS), ("prune", DB, b"")])
    assert answer == (False, position)
    assert payload(do("get", DB, b"k")) == b"1"


@covers("atomic")
def test_an_expired_record_is_absent_for_a_condition(do: Do) -> None:
    put_expired(do, b"k")
    assert do("atomic", [(DB, ("absent", b"k"))], []) == (True, [])
    assert do("atomic", [(DB, ("present", b"k"))], []) == (False, 0)


@covers("atomic")
@pytest.mark.parametrize("error", [MissingKey, NumberOverflow])
def test_atomic_rolls_back_when_an_operation_fails(do: Do, error: type[Exception]) -> None:
    put(do, b"kept", b"1", flags=0)
    put(do, b"big", b"%d" % (2**63 - 1), tag=Tag.INTEGER, expire=60_000)
    before = do("get_many", DB, [b"kept", b"big"])
    figures = do("status")
    calls = [
        ("set", DB, b"new", val(b"x", flags=0), 5_000, ALWAYS),
        ("delete", DB, b"kept"),
        ("clear", OTHER, True),
        ("touch", DB, b"big", 1_000),
        ("incr", DB, ABSENT_KEY if error is MissingKey else b"big", 1, None, None, EVICTABLE),
    ]
    with pytest.raises(error):
        do("atomic", [], calls)
    assert do("get_many", DB, [b"kept", b"big"]) == before
    assert do("exists", DB, b"new") is False
    after = do("status")
    for name in ("records_by_database", "kept_records_by_database"):
        assert after[name] == figures[name]


@covers("atomic", "batch")
def test_blocks_may_be_nested(do: Do) -> None:
    one = ("set", DB, b"a", val(b"1"), None, ALWAYS)
    bad = ("incr", DB, b"a", 1, None, None, EVICTABLE)
    done, (answers,) = do("atomic", [], [("batch", [one, bad])])
    assert done is True and [word for word, _ in answers] == ["ok", "not-a-number"]
    two = ("set", DB, b"b", val(b"2"), None, ALWAYS)
    answers = do("batch", [("atomic", [], [two, bad]), ("atomic", [(DB, ("absent", b"a"))], [two]), one])
    assert [word for word, _ in answers] == ["not-a-number", "ok", "ok"]
    assert answers[1][1] == (False, 0)
    assert do("exists", DB, b"b") is False

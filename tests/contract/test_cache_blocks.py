"""Contract of batch() and atomic(), by both faces."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from django_keyspace.backend.batch import METHODS
from django_keyspace.exceptions import (
    ConditionFailed,
    InvalidArgument,
    InvalidKey,
    MissingKey,
    NotANumber,
    NotSupported,
)
from django_keyspace.status import Status
from tests.contract.faces import Face
from tests.contract.records import about

pytestmark = pytest.mark.contract
covers = pytest.mark.covers


@covers("batch")
def test_a_batch_has_a_reply_per_call(face: Face) -> None:
    face.set("text", "x")
    with face.block("batch") as b:
        stored = b.set("n", 1, 60)
        number = b.incr("n", 4)
        missing = b.incr("missing")
        wrong = b.incr("text")
        value = b.get("n")
        default = b.get("missing", "default")
        added = b.add("n", 9)
        nothing = b.get_many([])
        many = b.get_many(["n", "text", "missing"])
        with pytest.raises(InvalidArgument):
            value.result  # noqa: B018
    assert (stored.result, number.result, value.result, default.result, added.result) == (True, 5, 5, "default", False)
    assert (nothing.result, many.result) == ({}, {"n": 5, "text": "x"})
    for reply, error in ((missing, MissingKey), (wrong, NotANumber)):
        with pytest.raises(error):
            reply.result  # noqa: B018
    assert b.replies == [stored, number, missing, wrong, value, default, added, nothing, many]
    assert [reply.status for reply in b.replies] == [
        Status.SUCCESS, Status.SUCCESS, Status.FAILED, Status.FAILED, Status.SUCCESS,
        Status.SUCCESS, Status.FAILED, Status.SUCCESS, Status.SUCCESS,
    ]  # fmt: skip
    assert about(face.pttl("n"), 60_000)
    with pytest.raises(InvalidArgument):
        b.set("late", 1)


ARGUMENTS: dict[str, tuple[object, ...]] = {
    "get_many": (["k"],),
    "set_many": ({"k": 1},),
    "delete_many": (["k"],),
    "set": ("k", 1),
    "add": ("k", 1),
    "append": ("s", "x"),
    "cas": ("k", 1, 2),
    "test_and_set": ("k", 1, 2),
    "rename": ("k", "l"),
    "expire": ("k", 5),
    "expire_at": ("k", 9e9),
    "prune": ("x",),
    "count": (),
    "clear": (),
    "clear_expiries": (),
    "set_expiry": ("k", 5),
    "replace": ("k", 1),
    "get_bulk": (["k"],),
    "set_bulk": ({"k": 1},),
    "remove_bulk": (["k"],),
    "dirty_count": (),
}


@covers("batch")
@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_batch_answers_what_the_cache_answers(face: Face, method: str) -> None:
    args = ARGUMENTS.get(method, ("k",))

    def prepare() -> None:
        face.clear()
        face.set_many({"k": 1, "s": "text"}, None)

    prepare()
    wanted = getattr(face, method)(*args)
    prepare()
    with face.block("batch") as b:
        reply = getattr(b, method)(*args)
    if method == "get_with_revision":
        assert reply.result[0] == wanted[0] and reply.result[1] > wanted[1]
    else:
        assert reply.result == wanted


@pytest.mark.parametrize("kind", ["batch", "atomic"])
def test_nothing_is_sent_when_the_block_fails(face: Face, kind: str) -> None:
    with pytest.raises(ZeroDivisionError), face.block(kind) as b:
        b.set("k", 1)
        1 / 0  # noqa: B018
    with pytest.raises(InvalidKey), face.block(kind) as b:
        b.set("k", 1)
        b.set("", 1)
    with pytest.raises(AttributeError, match="no method 'keys'"), face.block(kind) as b:
        b.set("k", 1)
        b.keys("*")
    assert face.get("k") is None
    with face.block(kind) as b:
        pass
    assert b.replies == []


@covers("atomic")
def test_atomic_does_all_or_nothing(face: Face) -> None:
    face.set_many({"a": 10, "b": 0, "text": "x"})
    with face.block("atomic") as a:
        a.decr("a", 3)
        b = a.incr("b", 3)
        value = a.get("a")
    assert (b.result, value.result, face.get_many(["a", "b"])) == (3, 7, {"a": 7, "b": 3})
    for bad in ("missing", "text"):
        with pytest.raises((MissingKey, NotANumber)), face.block("atomic") as a:
            a.incr("a", 100)
            a.delete("b")
            a.incr(bad)
        assert face.get_many(["a", "b"]) == {"a": 7, "b": 3}


@covers("atomic")
def test_conditions_of_atomic(face: Face) -> None:
    face.set("k", 5)
    revision = face.get_with_revision("k")[1]
    with face.block("atomic") as a:
        a.require_present("k")
        a.require_absent("new")
        a.require_value("k", 5)
        a.require_revision("k", revision)
        a.require_revision("other", 0)
        a.set("new", 1)
    assert face.get("new") == 1
    for require, args in [
        ("require_present", ("missing",)),
        ("require_absent", ("k",)),
        ("require_value", ("k", 6)),
        ("require_value", ("k", "5")),
        ("require_revision", ("k", revision + 1)),
        ("require_revision", ("k", 0)),
    ]:
        with pytest.raises(ConditionFailed, match=args[0]), face.block("atomic") as a:
            a.require_present("k")
            getattr(a, require)(*args)
            a.set("new", 2)
        assert face.get("new") == 1
    with pytest.raises(NotSupported), face.block("atomic") as a:
        a.require_value("k", [5])


@covers("atomic")
def test_conditions_are_looked_at_even_when_there_is_nothing_to_do(face: Face) -> None:
    with pytest.raises(ConditionFailed), face.block("atomic") as a:
        a.require_present("missing")
    with face.block("atomic") as a:
        a.require_absent("missing")


@pytest.mark.parametrize("kind", ["batch", "atomic"])
def test_what_needs_several_operations_is_refused_at_once(face: Face, kind: str) -> None:
    face.set_many({"k": [1], "n": 1})
    for method in ("cas", "test_and_set"):
        with pytest.raises(NotSupported), face.block(kind) as b:
            b.incr("n")
            getattr(b, method)("k", [1], [2])
    assert face.get_many(["k", "n"]) == {"k": [1], "n": 1}


@covers("batch")
def test_a_batch_on_a_cache_that_culls(make_face: Callable[..., Face]) -> None:
    face = make_face(MAX_ENTRIES=3)
    with face.block("batch") as b:
        replies = [b.set(f"k{number}", number) for number in range(5)]
    assert [reply.result for reply in replies] == [True] * 5
    assert face.count() <= 3 and face.get("k4") == 4
    with face.block("atomic") as a:
        reply = a.set("x", 1)
    assert reply.result is True and face.get("x") == 1

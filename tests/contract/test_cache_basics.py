"""Contract of the cache, by both faces: Django's own methods."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.core.cache.backends.base import DEFAULT_TIMEOUT

from django_keyspace.exceptions import (
    CannotSerialize,
    InvalidArgument,
    MissingKey,
    NotANumber,
    NumberOverflow,
    ValueTooLarge,
)
from django_keyspace.status import Status
from tests.contract.engines import VALUE_BYTES_MAX
from tests.contract.faces import Face
from tests.contract.records import about, await_condition

pytestmark = pytest.mark.contract
covers = pytest.mark.covers
MakeFace = Callable[..., Face]

VALUES = [
    "",
    "text",
    "ümlaut",
    b"",
    b"\x00\xff",
    0,
    -5,
    2**63 - 1,
    1.5,
    float("inf"),
    True,
    False,
    None,
    [1, {"a": (2,)}],
]


@covers("set", "get", "has_key", "delete", "add")
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_come_back_as_they_were(face: Face, value: object) -> None:
    assert face.get("k") is None and face.get("k", "default") == "default"
    assert face.has_key("k") is False
    assert face.set("k", value) is True
    found = face.get("k", "default")
    assert found == value and type(found) is type(value)
    assert face.has_key("k") is True
    assert face.add("k", "other") is False
    assert face.get("k", "default") == value
    assert [face.delete("k"), face.delete("k")] == [True, False]
    assert face.add("k", value) is True
    assert face.get("k", "default") == value


@covers("set")
def test_set_only_if_absent_or_present(face: Face) -> None:
    assert face.set("k", 1, xx=True) is False
    assert face.set("k", 2, nx=True) is True
    assert face.set("k", 3, nx=True) is False
    assert face.get("k") == 2
    assert face.set("k", 4, xx=True) is True
    with pytest.raises(InvalidArgument):
        face.set("k", 5, nx=True, xx=True)
    assert face.get("k") == 4


@covers("get_many", "set_many", "delete_many")
def test_many(face: Face) -> None:
    data = {f"k{number}": number for number in range(300)}
    assert face.set_many(data) == []
    assert face.set_many({}) == []
    assert face.get_many(f"k{number}" for number in range(0, 600, 2)) == {f"k{n}": n for n in range(0, 300, 2)}
    assert face.get_many([]) == {} and face.get_many(key for key in ()) == {}
    assert list(face.get_many(["k7", "missing", "k3", "k7"])) == ["k7", "k3"]
    face.delete_many(f"k{number}" for number in range(299))
    face.delete_many([])
    assert face.get_many(data) == {"k299": 299}


def _words(value: object) -> str:
    return type(value).__name__ if type(value) is object else repr(value)[:40]


def _timeouts() -> list[tuple[object, int | None]]:
    return [
        (5, 5_000),
        (0.25, 250),
        (7.5, 7_500),
        (timedelta(milliseconds=4_321), 4_321),
        (timedelta(days=40), 40 * 86_400_000),
        (None, None),
        (DEFAULT_TIMEOUT, 300_000),
        (0, 0),
        (-1, 0),
        (-0.001, 0),
        (0.0, 0),
        (timedelta(seconds=-1), 0),
    ]


@covers("set", "add", "set_many", "touch", "expire", "pttl", "get_or_set")
@pytest.mark.parametrize(("timeout", "wanted_ms"), _timeouts(), ids=_words)
def test_timeouts_of_every_kind(face: Face, timeout: object, wanted_ms: int | None) -> None:
    face.set_many({"touched": 1, "expired": 1}, timeout=1_000)
    face.set("set", 1, timeout)
    assert face.add("added", 1, timeout) is True
    assert face.set_many({"many": 1}, timeout) == []
    assert face.touch("touched", timeout) is True
    assert face.expire("expired", timeout) is True
    assert face.get_or_set("made", 1, timeout) == 1
    for key in ("set", "added", "many", "touched", "expired", "made"):
        left_ms = face.pttl(key)
        if wanted_ms is None:
            assert left_ms is None
        elif wanted_ms == 0:
            assert left_ms == 0 and face.get(key) is None
        else:
            assert about(left_ms, wanted_ms) or (wanted_ms < 5_000 and left_ms == 0)


@covers("set", "touch", "ttl")
def test_timeouts_have_milliseconds(face: Face) -> None:
    face.set("k", 1, 0.004)
    await_condition(lambda: face.get("k") is None, wait_s=2)
    face.set("k", 1, 100)
    assert face.touch("k", 0.003) is True
    await_condition(lambda: face.get("k") is None, wait_s=2)
    assert face.touch("k", 10) is False
    face.set("k", 1, 77.5)
    assert 70 < face.ttl("k") <= 77.5
    face.set("k", 1, None)
    assert face.ttl("k") is None and face.ttl("missing") == 0


@covers("pttl")
@pytest.mark.parametrize(("setting", "wanted_ms"), [(60, 60_000), (None, None), (0, 0)])
def test_the_default_timeout_comes_from_the_settings(make_face: MakeFace, setting: object, wanted_ms: object) -> None:
    face = make_face(params={"TIMEOUT": setting})
    face.set("k", 1)
    left_ms = face.pttl("k")
    assert left_ms == wanted_ms or (wanted_ms == 60_000 and about(left_ms, 60_000))


BAD_TIMEOUTS = [float("nan"), float("inf"), float("-inf"), "5", b"5", [], object(), 1e300, 2**60, timedelta.max]


@covers("set", "add", "set_many", "touch", "expire", "incr", "append", "cas", "get_or_set")
@pytest.mark.parametrize("timeout", BAD_TIMEOUTS, ids=_words)
def test_bad_timeouts_change_nothing(face: Face, timeout: object) -> None:
    face.set_many({"n": 1, "text": "x"}, None)
    for method, *args in [
        ("set", "n", 2),
        ("add", "new", 2),
        ("set_many", {"n": 2, "new": 3}),
        ("touch", "n"),
        ("expire", "n"),
        ("append", "text", "y"),
        ("cas", "n", 1, 2),
        ("get_or_set", "new", 2),
    ]:
        with pytest.raises(InvalidArgument):
            getattr(face, method)(*args, timeout)
    with pytest.raises(InvalidArgument):
        face.incr("new", default=0, timeout=timeout)
    assert face.get_many(["n", "new", "text"]) == {"n": 1, "text": "x"}
    assert face.pttl("n") is None


@covers("incr", "decr")
def test_incr_and_decr(face: Face) -> None:
    face.set("n", 10, 60)
    assert [face.incr("n"), face.incr("n", 5), face.decr("n"), face.decr("n", 20), face.incr("n", -1)] == [
        11, 16, 15, -5, -6,
    ]  # fmt: skip
    assert about(face.pttl("n"), 60_000)
    for method in (face.incr, face.decr):
        with pytest.raises(ValueError, match="missing"):
            method("missing")
        with pytest.raises(MissingKey):
            method("missing", 5)
    assert face.incr("new", 5, default=100, timeout=30) == 105
    assert face.decr("new2", 5, default=100) == 95
    assert about(face.pttl("new"), 30_000) and about(face.pttl("new2"), 300_000)


@covers("incr", "decr")
def test_counting_refuses_what_is_no_number(face: Face) -> None:
    for value in ["1", b"1", 1.5, True, [1], 2**70, None]:
        face.set("k", value)
        with pytest.raises(NotANumber):
            face.incr("k")
        assert face.get("k") == value
    face.set("n", 2**63 - 1)
    with pytest.raises(NumberOverflow):
        face.incr("n")
    with pytest.raises(ValueError):
        face.decr("n", 2**63)
    for delta in (1.5, "1", None, True, 2**63):
        with pytest.raises(InvalidArgument):
            face.incr("n", delta)
        with pytest.raises(InvalidArgument):
            face.incr("new", default=delta if delta is not None else "0")
    assert face.get("n") == 2**63 - 1


@covers("incr_version", "decr_version")
def test_versions(make_face: MakeFace) -> None:
    face = make_face(params={"VERSION": 2})
    face.set("k", "two", 60)
    face.set("k", "five", version=5)
    assert [face.get("k"), face.get("k", version=2), face.get("k", version=1)] == ["two", "two", None]
    assert face.get_many(["k"], version=5) == {"k": "five"}
    assert face.incr_version("k") == 3
    assert [face.get("k"), face.get("k", version=3)] == [None, "two"]
    assert about(face.pttl("k", version=3), 60_000)
    assert face.decr_version("k", version=3) == 2
    assert face.incr_version("k", 3) == 5
    assert face.get("k", version=5) == "two"
    assert face.decr_version("k", 4, version=5) == 1
    for method in (face.incr_version, face.decr_version):
        with pytest.raises(ValueError):
            method("missing")
    for call in (face.delete, face.has_key, face.touch):
        assert call("k") is False and call("k", version=1) is True
        face.set("k", 1, version=1)


@covers("clear", "shutdown", "close")
def test_clear_takes_all_of_the_database(make_face: MakeFace) -> None:
    face, other, kept = make_face(), make_face(1), make_face(evictable=False)
    face.set_many({"a": 1, "b": 2}, version=7)
    other.set("a", 3)
    kept.set("kept", 4)
    assert face.clear() == 2
    face.close()
    face.shutdown()
    assert (face.get("a", version=7), other.get("a"), face.get("kept")) == (None, 3, 4)
    assert face.clear() == 0
    assert face.clear(everything=True) == 1
    assert face.get("kept") is None


@covers("get_or_set")
def test_get_or_set(face: Face) -> None:
    calls = []

    def make() -> str:
        calls.append(1)
        return "made"

    assert [face.get_or_set("k", make), face.get_or_set("k", make), len(calls)] == ["made", "made", 1]
    assert face.get_or_set("plain", 5, 60) == 5
    assert about(face.pttl("plain"), 60_000)
    assert face.get_or_set("none", None) is None
    assert face.has_key("none") is True
    assert face.get_or_set("none", 1) is None, "None is a value"
    with pytest.raises(ZeroDivisionError):
        face.get_or_set("bad", lambda: 1 / 0)
    assert face.has_key("bad") is False


async def test_get_or_set_awaits_coroutine_functions(store_folder: object) -> None:
    from django_keyspace.backend import KeyspaceCache

    async def make() -> str:
        return "awaited"

    cache = KeyspaceCache(str(store_folder), {})
    assert await cache.aget_or_set("k", make) == "awaited"
    assert await cache.aget("k") == "awaited"
    await cache.aclose()


@covers("set", "add", "set_many")
def test_values_that_cannot_be_stored_change_nothing(face: Face) -> None:
    face.set("k", "old")
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    for value, error in [
        (lambda: 1, CannotSerialize),
        (deep, CannotSerialize),
        ("x" * (VALUE_BYTES_MAX + 1), ValueTooLarge),
        (b"x" * (VALUE_BYTES_MAX + 1), ValueTooLarge),
        (["x" * VALUE_BYTES_MAX], ValueTooLarge),
    ]:
        with pytest.raises(error):
            face.set("k", value)
        with pytest.raises(error):
            face.add("new", value)
        with pytest.raises(error):
            face.set_many({"new": 1, "k": value})
    assert face.get_many(["k", "new"]) == {"k": "old"}
    assert face.set("k", "x" * (VALUE_BYTES_MAX - 100)) is True


@covers("set", "add", "set_many")
@pytest.mark.parametrize("where", ["options", "params"])
def test_max_entries_culls(make_face: MakeFace, where: str) -> None:
    if where == "options":
        face = make_face(MAX_ENTRIES=30, CULL_FREQUENCY=3)
    else:
        face = make_face(params={"max_entries": "30", "cull_frequency": "3"})
    for number in range(30):
        assert face.set(f"k{number:02}", number) is True
    assert face.count() == 30
    assert face.set("k00", "again") is True
    assert face.count() == 30, "an overwrite culls nothing"
    assert face.set("new", 1) is True
    assert face.count() == 21
    assert face.get("k01") is None and face.get("k00") == "again" and face.get("new") == 1
    assert face.add("new", 2) is False
    assert face.add("newer", 2) is True
    assert face.set_many({f"m{number}": number for number in range(10)}) == []
    assert face.count() == 25 and face.get_many(["m0", "m9"]) == {"m0": 0, "m9": 9}


@covers("last_status")
def test_last_status(face: Face) -> None:
    def status_after(call: Callable[[], object]) -> Status:
        try:
            call()
        except Exception:
            pass
        return face.status_of_last_call

    face.set("k", 1)
    face.set("text", "x")
    assert status_after(lambda: face.get("k")) is Status.SUCCESS
    assert status_after(lambda: face.get("missing")) is Status.FAILED
    assert status_after(lambda: face.set("k", 2)) is Status.SUCCESS
    assert status_after(lambda: face.add("k", 2)) is Status.FAILED
    assert status_after(lambda: face.delete("missing")) is Status.FAILED
    assert status_after(lambda: face.incr("missing")) is Status.FAILED
    assert status_after(lambda: face.incr("text")) is Status.FAILED
    assert status_after(lambda: face.cas("k", 7, 8)) is Status.FAILED
    assert status_after(lambda: face.cas("k", 2, 8)) is Status.SUCCESS
    assert status_after(lambda: face.get_many(["missing"])) is Status.SUCCESS
    for method, *args in [("touch", "missing"), ("rename", "missing", "x"), ("has_key", "missing"), ("remove", "nope")]:
        assert status_after(lambda: getattr(face, method)(*args)) is Status.FAILED, method  # noqa: B023


@covers("set", "get")
def test_keys_of_other_types_have_their_text(face: Face) -> None:
    name = uuid.uuid4()
    for key in (5, 0, 1.5, name):
        face.set(key, f"={key}")
        assert face.get(str(key)) == face.get(key) == f"={key}"

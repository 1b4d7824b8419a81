"""Contract of the cache, by both faces: the methods beyond Django's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from django_keyspace.exceptions import (
    InvalidArgument,
    InvalidKey,
    MissingKey,
    NotANumber,
    NotSupported,
    NumberOverflow,
    WrongType,
)
from tests.contract.faces import Face
from tests.contract.records import about, wall_ms

pytestmark = pytest.mark.contract
covers = pytest.mark.covers
MakeFace = Callable[..., Face]


@covers("ttl", "pttl", "expire", "expire_at", "persist")
def test_deadlines(face: Face) -> None:
    face.set("k", "v", None)
    assert (face.ttl("k"), face.pttl("k"), face.ttl("missing"), face.pttl("missing")) == (None, None, 0, 0)
    assert face.expire("k", 90) is True
    assert about(face.pttl("k"), 90_000) and 80 < face.ttl("k") <= 90
    assert face.persist("k") is True
    assert face.pttl("k") is None
    for when in (
        datetime.now(UTC) + timedelta(seconds=50),
        datetime.now() + timedelta(seconds=50),
        wall_ms() / 1000 + 50,
    ):
        face.persist("k")
        assert face.expire_at("k", when) is True
        left_ms = face.pttl("k")
        # A naive datetime is in Django's time zone, which need not be the machine's.
        assert about(left_ms, 50_001) or (isinstance(when, datetime) and when.tzinfo is None)
    for bad in ("tomorrow", None, float("nan"), True, 1e300):
        with pytest.raises(InvalidArgument):
            face.expire_at("k", bad)
    face.set("k", "v")
    assert face.get("k") == "v"
    assert face.expire_at("k", datetime(2001, 1, 1, tzinfo=UTC)) is True
    assert face.get("k") is None
    assert [face.expire("k", 5), face.expire_at("k", 9e9), face.persist("k")] == [False, False, False]


@covers("incr_float", "incr_double")
def test_incr_float(face: Face) -> None:
    face.set("f", 1.5, 60)
    assert [face.incr_float("f"), face.incr_double("f", -0.25)] == [2.5, 2.25]
    assert about(face.pttl("f"), 60_000)
    assert face.incr_float("new", 1, default=0.5, timeout=30) == 1.5
    assert about(face.pttl("new"), 30_000)
    face.set("i", 3)
    assert (face.incr_float("i", 1), type(face.get("i"))) == (4.0, float)
    with pytest.raises(MissingKey):
        face.incr_float("missing")
    face.set("text", "1")
    with pytest.raises(NotANumber):
        face.incr_float("text")
    face.set("big", 1.7e308)
    with pytest.raises(NumberOverflow):
        face.incr_float("big", 1.7e308)
    for delta in (float("nan"), float("inf"), "1", None, True):
        with pytest.raises(InvalidArgument):
            face.incr_float("f", delta)
    assert (face.get("f"), face.get("text"), face.get("big")) == (2.25, "1", 1.7e308)
    with pytest.raises(InvalidArgument):
        face.incr_float("f", 10**400)
    assert face.get("f") == 2.25


@covers("append")
def test_append(face: Face) -> None:
    assert face.append("t", "ab", 60) == 2
    assert face.append("t", "ü", None) == 4
    assert (face.get("t"), about(face.pttl("t"), 60_000)) == ("abü", True)
    assert [face.append("b", b"\x00"), face.append("b", b"\xff")] == [1, 2]
    assert face.get("b") == b"\x00\xff"
    for key, value in [("t", b"x"), ("b", "x"), ("t", 1), ("new", ["x"]), ("new", None)]:
        with pytest.raises(WrongType):
            face.append(key, value)
    face.set("n", 1)
    with pytest.raises(WrongType):
        face.append("n", "1")
    assert face.get_many(["t", "b", "n", "new"]) == {"t": "abü", "b": b"\x00\xff", "n": 1}


@covers("append")
def test_append_to_compressed_text(make_face: MakeFace) -> None:
    face = make_face(compressor="zlib", compress_min_bytes=100)
    face.set("k", "x" * 1000)
    assert face.length("k") < 1000
    assert face.append("k", "y") == 1001
    assert face.get("k") == "x" * 1000 + "y"


@covers("cas", "get_with_revision")
def test_cas(face: Face) -> None:
    assert face.cas("k", None, "new", 60) is True
    assert about(face.pttl("k"), 60_000)
    assert face.cas("k", None, "newer") is False
    assert face.cas("k", "other", "newer") is False
    assert face.cas("k", b"new", "newer") is False, "bytes are not text"
    assert face.cas("k", "new", 5) is True
    assert (face.cas("k", 5.0, 6), face.cas("k", True, 6), face.cas("k", 5, 6)) == (False, False, True)
    value, revision = face.get_with_revision("k")
    assert value == 6 and revision > 0
    assert face.get_with_revision("missing", "default") == ("default", 0)
    assert face.cas("k", None, 7, revision=revision + 1) is False
    assert face.cas("k", None, 7, revision=revision) is True
    assert face.cas("k", None, 8, revision=revision) is False
    assert face.cas("k", None, 8, revision=0) is False
    assert face.cas("absent", None, 8, revision=0) is True
    assert face.cas("k", 7, None) is True
    assert face.has_key("k") is False


@covers("cas")
def test_cas_of_serialized_values_compares_objects(face: Face) -> None:
    face.set("k", {"a": 1, "b": 2})
    assert face.cas("k", {"b": 2}, "x") is False
    assert face.cas("missing", {"b": 2}, "x") is False
    assert face.cas("k", {"b": 2, "a": 1}, ["new"]) is True
    assert face.get("k") == ["new"]
    assert face.cas("k", ["new"], None) is True
    assert face.has_key("k") is False


@covers("test_and_set")
def test_test_and_set(face: Face) -> None:
    face.set("k", "a")
    assert face.test_and_set("k", "x", "b") is None
    assert face.test_and_set("k", "a", "b") == "b"
    assert face.test_and_set("new", None, "c", 60) == "c"
    assert about(face.pttl("new"), 60_000)
    assert face.get_many(["k", "new"]) == {"k": "b", "new": "c"}


@covers("rename", "remove", "pop", "length")
def test_moving_and_taking(face: Face) -> None:
    face.set("k", "value", 60)
    face.set("to", "gone")
    assert face.rename("missing", "to") is False
    assert face.rename("k", "to") is True
    assert (face.get("k"), face.get("to"), about(face.pttl("to"), 60_000)) == (None, "value", True)
    assert [face.length("to"), face.length("k")] == [5, None]
    assert face.rename("to", "to") is True
    assert [face.pop("to"), face.pop("to"), face.remove("to", "default")] == ["value", None, "default"]
    face.set("k", [1])
    assert face.remove("k", "default") == [1]


@covers("prune", "list_keys", "list_key_values", "count")
def test_listings(face: Face) -> None:
    data = {f"a{number}": number for number in range(5)} | {"b": "x", "ü": [1]}
    face.set_many(data)
    face.set("a9", 1, version=2)
    keys = list(data)
    assert face.list_keys() == keys and face.list_keys(forward=False) == keys[::-1]
    assert face.list_keys("a") == keys[:5] and face.list_keys("a", version=2) == ["a9"]
    assert face.list_keys("a", "a2") == ["a2", "a3", "a4"]
    assert face.list_keys("a", "a2", 2) == ["a2", "a3"]
    assert face.list_keys("a", "a2", 2, True) == ["a3", "a4"]
    assert face.list_keys("a", "a25", 0, True) == ["a4"], "skip drops the first row, whatever it is"
    assert face.list_keys("a", "a2", 0, False, False) == ["a2", "a1", "a0"]
    assert face.list_keys("a", "", 2, False, False) == ["a4", "a3"]
    assert face.list_key_values("a", count=2) == {"a0": 0, "a1": 1}
    assert list(face.list_key_values(forward=False).items()) == list(data.items())[::-1]
    assert [face.count(), face.count("a"), face.count("a", "a2", 0, True), face.count(count=3)] == [7, 5, 2, 3]
    for call in (face.list_keys, face.list_key_values, face.count):
        for bad in (-1, "5", None):
            with pytest.raises(InvalidArgument):
                call("a", count=bad)
        with pytest.raises(InvalidKey):
            call(b"a")
    assert face.prune("a") == 5
    assert face.prune("missing") == 0
    assert face.list_keys() == ["b", "ü"] and face.list_keys(version=2) == ["a9"]
    assert face.prune("") == 2


@covers("list_keys", "list_key_values", "count")
def test_long_listings_are_paged(face: Face) -> None:
    data = {f"k{number:05}": number for number in range(2_345)}
    face.set_many(data)
    assert face.list_keys("k") == list(data)
    assert face.list_keys("k", count=1_500, skip=True) == list(data)[1:1_501]
    assert face.list_keys("k", forward=False, count=1_001) == list(data)[::-1][:1_001]
    assert face.list_key_values("k", "k00100") == dict(list(data.items())[100:])
    assert (face.count("k"), face.count("k", count=1_100)) == (2_345, 1_100)


GLOBS = [
    ("*", ["a1", "a[b", "b1", "b12", "c*"]),
    ("b*", ["b1", "b12"]),
    ("b?", ["b1"]),
    ("[ab]1", ["a1", "b1"]),
    ("*1*", ["a1", "b1", "b12"]),
    ("b1", ["b1"]),
    ("c[*]", ["c*"]),
    ("x*", []),
    ("", []),
]


@covers("keys", "iter_keys", "delete_pattern")
@pytest.mark.parametrize(("pattern", "wanted"), GLOBS)
def test_patterns(face: Face, pattern: str, wanted: list[str]) -> None:
    everything = GLOBS[0][1]
    face.set_many(dict.fromkeys(everything, 1))
    face.set("b1", 1, version=2)
    assert face.keys(pattern) == wanted
    assert face.iter_keys(pattern) == wanted
    assert face.delete_pattern(pattern) == len(wanted)
    assert face.keys() == [key for key in everything if key not in wanted]
    assert face.keys(version=2) == ["b1"]
    with pytest.raises(InvalidArgument):
        face.keys(None)


@covers("delete_pattern", "keys")
def test_delete_pattern_over_many_pages(face: Face) -> None:
    face.set_many({f"k{number:04}{'x' if number % 3 else 'y'}": 1 for number in range(2_100)})
    assert face.delete_pattern("k*x") == 1_400
    assert face.keys("*x") == []
    assert face.count() == 700


@covers("set_many")
def test_iterating_while_keys_are_deleted(face: Face) -> None:
    """A page ends at a key; that the key is gone when the next page is asked for must not cost another one."""
    cache = face.cache
    data = {f"k{number:04}": 1 for number in range(2_500)}
    face.set_many(data)
    seen = []
    for key in cache.iter_keys("k*"):
        seen.append(key)
        if key.endswith("99"):
            cache.delete(key)
    assert seen == list(data)


@covers("set_many")
def test_iterating_while_keys_come_and_go(face: Face) -> None:
    cache = face.cache
    face.set_many({f"k{number:04}": 1 for number in range(1_500)})
    seen = []
    for position, key in enumerate(cache.iter_keys("k*")):
        if position == 0:
            cache.delete_many(f"k{number:04}" for number in range(500, 1_500, 2))
            cache.set("k1600", 1)
        seen.append(key)
    assert seen[-1] == "k1600" and len(seen) == len(set(seen)) and seen == sorted(seen)
    assert {f"k{number:04}" for number in range(501, 1_500, 2)} <= set(seen)


@covers("status", "size")
def test_figures(face: Face) -> None:
    before = face.status()
    face.set("k", "x" * 50_000)
    face.get("k")
    face.get("missing")
    after = face.status()
    assert after["records"] == 1 and after["database"] == 0
    assert after["counters"]["hits"] == before["counters"]["hits"] + 1
    assert after["counters"]["misses"] == before["counters"]["misses"] + 1
    assert after["outages"] == {}
    assert face.size() == after["used_bytes"] > 50_000


def upper_key(key: str, prefix: str, version: int) -> str:
    return f"{prefix}|{version}|{key.upper()}"


def lower_key(full: str) -> str:
    return full.rsplit("|", 1)[1].lower()


@covers("keys", "prune", "list_keys")
@pytest.mark.parametrize("reverse", [lower_key, f"{__name__}.lower_key"])
def test_key_function_with_its_reverse(make_face: MakeFace, reverse: object) -> None:
    face = make_face(params={"KEY_FUNCTION": upper_key, "KEY_PREFIX": "site"}, reverse_key_function=reverse)
    face.set_many({"ab": 1, "ac": 2, "b": 3})
    assert face.get("AB") == 1
    assert face.get_many(["ab", "zz"]) == {"ab": 1}
    assert face.keys("a*") == ["ab", "ac"]
    assert face.list_keys("a", "ac") == ["ac"]
    assert face.list_key_values("b") == {"b": 3}
    assert face.prune("a") == 2
    assert face.keys() == ["b"]


@covers("keys", "list_keys", "list_key_values", "count", "prune", "delete_pattern", "iter_keys")
def test_key_function_without_its_reverse(make_face: MakeFace) -> None:
    face = make_face(params={"KEY_FUNCTION": upper_key})
    face.set("a", 1)
    for method in ("keys", "list_keys", "list_key_values", "count", "delete_pattern", "iter_keys"):
        with pytest.raises(NotSupported, match="reverse_key_function"):
            getattr(face, method)() if method != "delete_pattern" else face.delete_pattern("*")
    with pytest.raises(NotSupported):
        face.prune("a")
    assert face.get("a") == 1


@covers("keys")
def test_prefixes_keep_caches_apart(make_face: MakeFace) -> None:
    one, two = make_face(params={"KEY_PREFIX": "one"}), make_face(params={"KEY_PREFIX": "two"})
    one.set("k", 1)
    two.set_many({"k": 2, "l": 3})
    assert (one.keys(), two.keys(), one.get("k"), two.get("k")) == (["k"], ["k", "l"], 1, 2)
    assert two.delete_pattern("*") == 2
    assert one.get("k") == 1

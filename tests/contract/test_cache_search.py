"""Contract of the cache's methods that find keys."""

from __future__ import annotations

from typing import Any

import pytest

from django_keyspace.exceptions import InvalidArgument, InvalidKey, NotSupported
from tests.contract.faces import Face

pytestmark = pytest.mark.contract
covers = pytest.mark.covers

NAMES = ["kitten", "kittens", "mitten", "müll", "mull", "news:1", "news:10", "news:2", "sport:1"]


@pytest.fixture
def filled(face: Face) -> Face:
    face.set_many(dict.fromkeys(NAMES, 1))
    face.set("news:1", 1, version=2)
    face.set("other", 1, version=2)
    return face


@covers("match_prefix")
def test_match_prefix(filled: Face) -> None:
    assert filled.match_prefix("news:") == ["news:1", "news:10", "news:2"]
    assert filled.match_prefix("news:", 2) == ["news:1", "news:10"]
    assert filled.match_prefix("news:", 0) == [] == filled.match_prefix("nothing")
    assert filled.match_prefix("news:", -1) == filled.match_prefix("news:", None)
    assert filled.match_prefix("") == sorted(NAMES, key=str.encode)
    assert filled.match_prefix("", version=2) == ["news:1", "other"]


@covers("match_regex")
def test_match_regex(filled: Face) -> None:
    assert filled.match_regex("1") == ["news:1", "news:10", "sport:1"]
    assert filled.match_regex("^news:.$") == ["news:1", "news:2"]
    assert filled.match_regex("^n.ws") == ["news:1", "news:10", "news:2"]
    assert filled.match_regex("1", 2) == ["news:1", "news:10"]
    assert filled.match_regex("1", 0) == []
    assert filled.match_regex("1", -1) == ["news:1", "news:10", "sport:1"]
    assert filled.match_regex("^m.ll$") == ["mull", "müll"]
    assert filled.match_regex("^[a-z]+$", version=2) == ["other"]
    assert filled.match_regex("^:1:|:1:news") == [], "prefix and version are no part of a user's key"


@covers("match_similar")
def test_match_similar(filled: Face) -> None:
    assert filled.match_similar("kitten") == ["kitten", "kittens", "mitten"]
    assert filled.match_similar("mull", distance=0) == ["mull"]
    assert filled.match_similar("mull", 1) == ["mull", "müll"]
    assert filled.match_similar("kitten", max_keys=2) == ["kitten", "kittens"]
    assert filled.match_similar("kittens", 2) == ["kittens", "kitten", "mitten"], "the nearest first"
    assert filled.match_similar("kitten", 2, 0) == []
    assert filled.match_similar("kitten", None, -1) == ["kitten", "kittens", "mitten"]
    assert filled.match_similar("othe", version=2) == ["other"]


@covers("match_regex", "match_similar", "set_bulk")
def test_over_many_slices(face: Face) -> None:
    names = [f"k{number:05}" for number in range(9000)]
    assert face.set_bulk(dict.fromkeys(names, 1)) == 9000
    assert face.match_regex("77$") == [name for name in names if name.endswith("77")]
    assert face.match_regex("", 8500) == names[:8500]
    assert face.match_similar("k08999", 1, 3) == ["k08999", "k00999", "k01999"]
    assert len(face.match_similar("k08999", 2)) > 300
    assert face.match_similar("k00000", 6, 1) == ["k00000"]


@covers("match_regex", "match_similar")
def test_bad_arguments_are_refused(filled: Face) -> None:
    for pattern in ["(", "(?=a)", "((a{100}){100}){100}", "\ud800", "x" * 1025, b"bytes", None, 5]:
        with pytest.raises(InvalidArgument):
            filled.match_regex(pattern)
    for origin in ["\ud800", "x" * 1025, b"bytes", None]:
        with pytest.raises(InvalidArgument):
            filled.match_similar(origin)
    for distance in [-1, 1.5, float("nan"), "1", True, 1025]:
        with pytest.raises(InvalidArgument):
            filled.match_similar("kitten", distance)
    for max_keys in ["1", 1.5, float("nan"), True]:
        for method in (filled.match_regex, filled.match_similar, filled.match_prefix):
            with pytest.raises(InvalidArgument, match="max_keys"):
                method("a", max_keys=max_keys)
    for prefix in [None, b"a", 5]:
        with pytest.raises(InvalidKey):
            filled.match_prefix(prefix, 0)


def _key(key: Any, prefix: str, version: Any) -> str:
    return f"{prefix}/{version}/{key}"


def _reverse(full: str) -> str:
    return full.split("/", 2)[2]


@covers("match_regex", "match_similar", "match_prefix")
def test_with_a_key_function(make_face: Any) -> None:
    face = make_face(params={"KEY_PREFIX": "p", "KEY_FUNCTION": _key}, reverse_key_function=_reverse)
    face.set_many({"a/b": 1, "b": 1})
    assert face.match_regex("^b") == ["b"]
    assert face.match_regex("b$") == ["a/b", "b"]
    assert face.match_similar("c") == ["b"]
    assert face.match_prefix("a") == ["a/b"]
    one_way = make_face(params={"KEY_FUNCTION": _key})
    for call in (one_way.match_regex, one_way.match_similar, one_way.match_prefix):
        with pytest.raises(NotSupported, match="reverse_key_function"):
            call("b")

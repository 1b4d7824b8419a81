"""Contract of the methods that Keyspace's and Kyoto Tycoon's users know by other names than Django's."""

from __future__ import annotations

from typing import Any

import pytest

from django_keyspace.backend import KeyspaceCache
from django_keyspace.exceptions import InvalidArgument, InvalidKey, WrongType
from django_keyspace.status import Status
from tests.contract.faces import Face

pytestmark = pytest.mark.contract
covers = pytest.mark.covers


@covers("dirty_get", "dirty_list_keys", "dirty_list_key_values", "dirty_count", "dirty_list_keyvalues")
def test_dirty_reads(face: Face) -> None:
    face.set_many({"a:1": 1, "a:2": {"two": 2}, "b": 3})
    assert face.dirty_get("a:2") == {"two": 2}
    assert face.dirty_get("missing", "default") == "default"
    assert face.status_of_last_call is Status.FAILED
    assert face.dirty_list_keys("a:") == ["a:1", "a:2"]
    assert face.dirty_list_keys("a:", "a:1", 1, True) == ["a:2"]
    assert face.dirty_list_keys("", "b", forward=False) == ["b", "a:2", "a:1"]
    assert face.dirty_list_key_values("a:", count=1) == {"a:1": 1} == face.dirty_list_keyvalues("a:", count=1)
    assert face.dirty_count("a:") == 2 == face.dirty_count(count=2)
    for count in (-1, 1.5, "1", None):
        with pytest.raises(InvalidArgument):
            face.dirty_list_keys("a:", count=count)
        with pytest.raises(InvalidArgument):
            face.dirty_count("a:", count=count)


@covers("list_keyvalues", "list_key_values")
def test_both_spellings(face: Face) -> None:
    face.set_many({"a": 1, "b": 2})
    assert face.list_keyvalues("a") == face.list_key_values("a") == {"a": 1}


@covers("replace")
def test_replace(face: Face) -> None:
    assert face.replace("k", 1) is False
    assert face.get("k") is None
    face.set("k", 1, 60)
    assert face.replace("k", 2, None) is True
    assert (face.get("k"), face.ttl("k")) == (2, None)
    with pytest.raises(InvalidKey):
        face.replace("", 1)


@covers("seize", "pop", "remove")
def test_seize(face: Face) -> None:
    for name in ("seize", "pop", "remove"):
        face.set("k", {"a": 1})
        assert getattr(face, name)("k") == {"a": 1}
        assert getattr(face, name)("k") is None
        assert getattr(face, name)("k", "default") == "default"


@covers("exists", "has_key")
def test_exists(face: Face) -> None:
    face.set("k", None)
    assert face.exists("k") is face.has_key("k") is True
    assert face.exists("missing") is False


@covers("set_bulk", "get_bulk", "remove_bulk")
def test_bulk(face: Face) -> None:
    assert face.set_bulk({}) == 0 == face.remove_bulk([])
    assert face.set_bulk({"a": 1, "b": "two", "c": [3]}, 60) == 3
    assert 55 < face.ttl("b") <= 60
    assert face.get_bulk(["c", "missing", "a"]) == {"c": [3], "a": 1}
    assert face.get_bulk([]) == {}
    assert face.remove_bulk(["a", "a", "c", "missing"]) == 2
    assert face.remove_bulk(key for key in ("b", "c")) == 1
    face.set_bulk({"v": 1}, version=2)
    assert face.get_bulk(["v"]) == {} and face.get_bulk(["v"], 2) == {"v": 1}
    assert face.remove_bulk(["v"], version=2) == 1


@covers("set_bulk", "remove_bulk")
def test_bulk_is_all_or_nothing(face: Face) -> None:
    face.set("a", "old")
    with pytest.raises(InvalidKey):
        face.set_bulk({"a": 1, "": 2})
    with pytest.raises(InvalidArgument):
        face.set_bulk({"a": 1}, float("nan"))
    with pytest.raises(InvalidKey):
        face.remove_bulk(["a", None])
    assert face.get("a") == "old"


@covers("incr_double", "incr_float")
def test_incr_double(face: Face) -> None:
    assert face.incr_double("n", 1.5, default=1) == 2.5
    assert face.incr_float("n", -0.5) == 2.0
    for delta in (float("nan"), float("inf"), "1", None, True, 10**400):
        with pytest.raises(InvalidArgument):
            face.incr_double("n", delta)
    face.set("text", "1.5")
    with pytest.raises((WrongType, ValueError)):
        face.incr_double("text")
    assert (face.get("n"), face.get("text")) == (2.0, "1.5")


@covers("report", "status")
def test_report(make_face: Any) -> None:
    face = make_face(2)
    face.set_many({"a": 1, "b": 2})
    report, status = face.report(), face.status()
    assert report["db_2"]["records"] == 2 and report["db_0"]["records"] == 0
    assert report["records"] == status["records"] == 2
    assert report["counters_hits"] == status["counters"]["hits"]
    assert report["version"] and report["pid"] and report["location"]
    assert set(report) >= {"used_bytes", "max_bytes", "revision", "expiries", "database"}
    assert not [name for name, figure in report.items() if isinstance(figure, list)]


@covers("batch")
def test_other_names_in_a_batch(face: Face) -> None:
    face.set("k", "v")
    with face.block("batch") as batch:
        replies = [
            batch.dirty_get("k"),
            batch.exists("k"),
            batch.replace("k", "w"),
            batch.seize("k"),
            batch.set_bulk({"a": 1, "b": 2}),
            batch.get_bulk(["a", "b"]),
            batch.dirty_count(),
            batch.remove_bulk(["a", "c"]),
            batch.incr_double("b", 0.5),
            batch.expire("b", 60),
        ]
    assert [reply.result for reply in replies] == ["v", True, True, "w", 2, {"a": 1, "b": 2}, 2, 1, 2.5, True]


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("exists", "has_key"),
        ("get_bulk", "get_many"),
        ("incr_double", "incr_float"),
        ("list_keyvalues", "list_key_values"),
        ("dirty_list_keyvalues", "dirty_list_key_values"),
        ("pop", "remove"),
        ("seize", "remove"),
    ],
)
def test_an_alias_is_the_method_itself(alias: str, name: str) -> None:
    for letter in ("", "a"):
        assert getattr(KeyspaceCache, letter + alias) is getattr(KeyspaceCache, letter + name)

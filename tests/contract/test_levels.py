"""Contract of reads with a level, and of what a store says about its cluster."""

from __future__ import annotations

from typing import Any

import pytest

from django_keyspace.backend.levels import LastRead
from django_keyspace.exceptions import TooStale
from django_keyspace.operations import INT64_MAX, LEVELS
from django_keyspace.status import Status
from tests.contract.engines import Place
from tests.contract.faces import Face
from tests.contract.records import DB, Do, await_condition, payload, put

pytestmark = pytest.mark.contract
covers = pytest.mark.covers


@covers("at")
@pytest.mark.parametrize("level", LEVELS)
def test_reads_with_a_level_answer_what_plain_reads_answer(do: Do, level: str) -> None:
    put(do, b"a", b"1")
    put(do, b"b", b"2")
    reads: list[tuple[Any, ...]] = [
        ("get", DB, b"a"),
        ("get", DB, b"missing"),
        ("get_many", DB, [b"b", b"missing", b"a"]),
        ("exists", DB, b"a"),
        ("length", DB, b"a"),
        ("ttl", DB, b"a"),
        ("list", DB, b"", b"", False, True, 10, True),
        ("count", DB, b"", b"", False, True, 0),
    ]
    for read in reads:
        latest = do("at", "safe", 0, None, read)
        answer, index, age_ms, node = do("at", level, latest[1] if level == "session" else 0, 60_000, read)
        if level != "dirty":
            assert answer == do(*read) == latest[0]
        assert index > 0 and 0 <= age_ms <= 60_000 and type(node) is str


@covers("at")
def test_a_batch_of_reads_has_one_level(do: Do) -> None:
    put(do, b"a", b"1")
    calls = [("get", DB, b"a"), ("get", DB, b"missing"), ("get_many", DB, [b"a"]), ("ttl", DB, b"a")]
    (first, second, third, fourth), _, _, _ = do("at", "safe", 0, None, ("batch", calls))
    assert first[0] == "ok" and payload(first[1]) == b"1"
    assert second == ("ok", None) and third == ("ok", [first[1]]) and fourth == ("ok", -1)


@covers("at")
def test_the_index_grows_with_each_write(do: Do) -> None:
    indexes = []
    for number in range(3):
        put(do, b"a", b"%d" % number)
        indexes.append(do("at", "safe", 0, None, ("get", DB, b"a"))[1])
    assert indexes == sorted(set(indexes))


@covers("at")
def test_a_session_that_has_seen_more_than_there_is_gets_no_older_answer(do: Do) -> None:
    put(do, b"a", b"1")
    with pytest.raises(TooStale):
        do("at", "session", INT64_MAX, None, ("get", DB, b"a"))


@covers("members")
def test_members(do: Do, place: Place) -> None:
    found = do("members")
    assert set(found) == {"cluster", "leader", "nodes"}
    assert [set(node) for node in found["nodes"]] == [{"name", "address", "role"}] * len(found["nodes"])
    names = [node["name"] for node in found["nodes"]]
    assert len(names) == place.nodes and len(set(names)) == len(names)
    assert {node["role"] for node in found["nodes"]} <= {"voter", "learner"}
    assert (found["leader"] in names) if names else found["leader"] is None
    assert (found["cluster"] is None) is (place.nodes < 2)


@covers("members")
def test_members_as_the_cache_tells_them(face: Face, place: Place) -> None:
    assert len(face.members()["nodes"]) == place.nodes


@covers("last_read", "dirty_get", "dirty_list_keys")
def test_dirty_reads_say_what_they_are_as_of(face: Face) -> None:
    assert face.last_read_of_last_call is None or isinstance(face.last_read_of_last_call, LastRead)
    face.set("a", "1")
    assert face.dirty_get("a", max_staleness_ms=60_000) in ("1", None)
    first = face.last_read_of_last_call
    assert first.index > 0 and 0 <= first.age_ms <= 60_000
    assert face.dirty_list_keys(max_staleness_ms=60_000) in (["a"], [])
    assert face.last_read_of_last_call.index >= 0


@covers("dirty_get")
def test_a_dirty_miss_is_a_failed_command(face: Face) -> None:
    assert face.dirty_get("missing", "default") == "default"
    assert face.status_of_last_call is Status.FAILED
    face.set("a", "1")


@pytest.mark.parametrize("consistency", LEVELS)
@covers("get", "get_many", "list_keys", "has_key")
def test_reads_beside_a_node_are_answered_there(make_face: Any, place: Place, consistency: str) -> None:
    face = make_face(consistency=consistency)

    def is_there() -> bool:
        before = place.reads_beside(consistency)
        face.set("a", "1")
        face.set("b", "2")
        face.delete("b")
        place.settle()
        assert face.get("a") == "1" and face.get("b") is None and face.get_many(["a", "b"]) == {"a": "1"}
        assert face.list_keys() == ["a"] and face.has_key("a") is True and face.has_key("b") is False
        after = place.reads_beside(consistency)
        return before is None or after is None or after >= before + 6

    await_condition(is_there, wait_s=30)  # a node that is held up for two seconds is left for a moment


@pytest.mark.parametrize("consistency", LEVELS)
@covers("set", "incr", "cas")
def test_an_alias_of_each_consistency_reads_what_it_wrote(make_face: Any, consistency: str) -> None:
    face = make_face(consistency=consistency)
    face.set("a", "1")
    face.set("n", 1)
    assert face.incr("n") == 2
    face.set("object", {"a": 1})
    assert face.cas("object", {"a": 1}, {"a": 2}) is True, "what decides about a write is never an old answer"
    if consistency == "dirty":
        return  # promises nothing about when it sees that
    assert face.get("a") == "1" and face.get_many(["a", "n"]) == {"a": "1", "n": 2}
    assert face.get("object") == {"a": 2} and face.list_keys() == ["a", "n", "object"]
    assert face.ttl("missing") == 0 and face.get("missing", "default") == "default"
    assert face.delete("a") is True and face.get("a") is None


@covers("dirty_get", "batch")
def test_dirty_reads_in_a_batch(face: Face) -> None:
    face.set("a", "1")
    with face.block("batch") as batch:
        reply, missing = batch.dirty_get("a"), batch.dirty_get("missing", "default")
        batch.set("b", "2")
    assert (reply.result, missing.result) == ("1", "default")
    assert face.dirty_get("b") in ("2", None)

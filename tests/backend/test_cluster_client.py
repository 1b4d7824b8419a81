"""The client of a cluster on real sockets, blocking and on event loops, with nodes that do what a test says."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from django_keyspace.addresses import Endpoint, parse_location
from django_keyspace.backend import KeyspaceCache, levels
from django_keyspace.backend.transport import RemoteEngine
from django_keyspace.exceptions import (
    ConfigurationError,
    MissingKey,
    NoConnection,
    NoLeader,
    UnknownOutcome,
)
from tests.backend.fakes import LOG_MS, FakeCluster, FakeNode

SET = ("set", 0, b"k", (1, 0, b"v"), None, "always")
GET = ("get", 0, b"k")
DIRTY = ("at", "dirty", 0, None, GET)

Do = Callable[..., Any]


def blocking(engine: RemoteEngine, *call: Any) -> Any:
    return engine.execute(*call)


def on_a_loop(engine: RemoteEngine, *call: Any) -> Any:
    return asyncio.run(engine.aexecute(*call))


both_ways = pytest.mark.parametrize("do", [blocking, on_a_loop])


@pytest.fixture
def make() -> Iterator[Callable[..., FakeCluster]]:
    made: list[FakeCluster] = []

    def make(leader: str | None = "a", **scripts: Any) -> FakeCluster:
        made.append(FakeCluster(leader, **{"a": "ok", "b": "->a", "c": "->a", **scripts}))
        return made[-1]

    yield make
    for cluster in made:
        cluster.close()


@pytest.fixture
def engine_of() -> Iterator[Callable[..., RemoteEngine]]:
    made: list[RemoteEngine] = []

    def engine_of(addresses: list[str], timeout_ms: int = 20_000, **options: Any) -> RemoteEngine:
        endpoints = parse_location(f"keyspace://{','.join(addresses)}/0").endpoints
        made.append(RemoteEngine(endpoints, timeout_ms=timeout_ms, **options))
        return made[-1]

    yield engine_of
    for engine in made:
        engine.close()


@both_ways
def test_hints_are_followed(make: Any, engine_of: Any, do: Do) -> None:
    cluster = make(leader=None, a="->b", b="->c", c="ok")
    engine = engine_of(cluster.addresses)
    assert do(engine, *SET) is True
    assert do(engine, *GET) == b"record of c"
    assert len(cluster["c"].calls) == 2


@both_ways
def test_one_address_of_a_cluster_becomes_the_cluster(make: Any, engine_of: Any, do: Do) -> None:
    cluster = make()
    engine = engine_of([cluster["b"].address])
    assert engine.cluster is None
    assert do(engine, *SET) is True
    assert engine.cluster is not None and engine.cluster.id == "c1"
    assert cluster.asked() == {"a": 1, "b": 0, "c": 0}
    assert cluster["a"].hellos[-1]["wants_index"] is True


@both_ways
@pytest.mark.parametrize("script", ["break", "leadership-lost", "silent"])
def test_a_write_is_sent_again_to_the_next_leader_under_its_number(
    make: Any, engine_of: Any, do: Do, script: str
) -> None:
    cluster = make(a=f"{script} ->b", b="->a ok" if script == "silent" else "ok", c="->b")
    engine = engine_of(cluster.addresses, timeout_ms=8_000)
    assert do(engine, *SET) is True
    (first, *_), last = cluster["a"].calls, cluster["b"].calls[-1]
    assert first[0] == last[0] == "once"
    assert first[1:3] == last[1:3], "the same session and sequence"
    assert (first[4], last[4]) == (False, True)


@both_ways
def test_a_session_that_a_node_does_not_know_begins_anew_with_a_hello(make: Any, engine_of: Any, do: Do) -> None:
    cluster = make(a="session-expired ok")
    engine = engine_of(cluster.addresses)
    assert do(engine, *SET) is True
    first, second = (call[1] for call in cluster["a"].calls)
    assert first != second and int.from_bytes(second[:8], "big") >= LOG_MS
    assert len(cluster["a"].hellos) == 2


@both_ways
def test_nodes_that_are_not_there_or_say_nothing_cost_no_error(make: Any, engine_of: Any, do: Do) -> None:
    mute = FakeNode("a", greets=False)
    cluster = make(leader="c", a=mute, b="->c", c="ok")
    cluster["b"].close()
    engine = engine_of(cluster.addresses, timeout_ms=6_000)
    for _ in range(3):
        assert do(engine, *SET) is True
        assert do(engine, *DIRTY)[3] == "c"


@both_ways
def test_a_lost_write_that_nobody_answers_for_has_an_unknown_outcome(make: Any, engine_of: Any, do: Do) -> None:
    cluster = make(a="silent")
    engine = engine_of(cluster.addresses, timeout_ms=2_500)
    with pytest.raises(UnknownOutcome, match="may have happened or not"):
        do(engine, *SET)
    places = {call[1:3] for call in cluster["a"].calls}
    assert len(places) == 1 and len(cluster["a"].calls) >= 1


@both_ways
def test_no_leader(make: Any, engine_of: Any, do: Do) -> None:
    cluster = make(leader=None, a="->", b="->", c="no-leader")
    engine = engine_of(cluster.addresses, leader_timeout_ms=1_500)
    for call in (GET, SET):
        with pytest.raises(NoLeader, match="not me"):
            do(engine, *call)
    assert sum(cluster.asked().values()) < 300, "no storm"
    cluster["b"].script = ["ok"]
    assert do(engine, *DIRTY)[3] == "b"


@both_ways
def test_what_the_leader_refuses_is_refused(make: Any, engine_of: Any, do: Do) -> None:
    engine = engine_of(make(a="missing-key").addresses)
    with pytest.raises(MissingKey):
        do(engine, "incr", 0, b"k", 1, None, None, 0)


@both_ways
def test_nobody_there_fails_soon_and_then_at_once(make: Any, engine_of: Any, do: Do) -> None:
    cluster = make()
    engine = engine_of(cluster.addresses)
    cluster.close()
    for _ in range(8):
        with pytest.raises(NoConnection):
            do(engine, *GET)


@both_ways
def test_a_single_node_among_several_addresses(engine_of: Any, make: Any, do: Do) -> None:
    single = FakeNode("a", cluster=None)
    cluster = make(a=single)
    for name in "bc":
        cluster[name].close()
    with pytest.raises(ConfigurationError, match="list one address only"):
        do(engine_of(cluster.addresses), *GET)


@both_ways
def test_a_node_of_another_cluster_is_left_out(make: Any, engine_of: Any, do: Do) -> None:
    cluster = make(leader="b", a=FakeNode("z", cluster="c2"), b="ok", c="ok")
    engine = engine_of([cluster["b"].address])
    do(engine, *SET)
    for _ in range(6):
        assert do(engine, *DIRTY)[3] in ("b", "c")
    assert cluster["a"].hellos and not cluster["a"].calls, "it was met, and nothing was sent to it"


@both_ways
def test_writes_and_reads_tell_the_session_their_index(make: Any, engine_of: Any, do: Do) -> None:
    cluster = make(b="ok", c="ok")
    engine = engine_of(cluster.addresses)
    with levels.session() as seen:
        cluster["a"].index = 500
        do(engine, *SET)
        assert seen.as_dict() == {"c1": 500}
        do(engine, "at", "session", 0, None, GET)
        asked = [call for node in cluster.nodes.values() for call in node.calls if call[:2] == ("at", "session")]
        assert [call[2] for call in asked] == [500]


def test_threads_and_tasks_share_what_is_known(make: Any, engine_of: Any) -> None:
    cluster = make(a="->c", b="->c", c="ok", leader=None)
    engine = engine_of(cluster.addresses)
    engine.execute(*SET)
    before = cluster.asked()
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(engine.execute(*GET))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    async def many() -> list[Any]:
        return await asyncio.gather(*[engine.aexecute(*GET) for _ in range(20)])

    assert results + asyncio.run(many()) == [b"record of c"] * 28
    after = cluster.asked()
    assert (after["a"], after["b"]) == (before["a"], before["b"]), "nobody had to look for the leader again"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
def test_event_loops_leave_no_connections_behind(make: Any, engine_of: Any) -> None:
    cluster = make(b="ok", c="ok")
    engine = engine_of(cluster.addresses)
    counts = []
    for _ in range(3):
        for _ in range(10):
            for _ in range(3):
                on_a_loop(engine, *DIRTY)
        gc.collect()
        deadline_at_s = time.monotonic() + 30
        while any(node.connections for node in cluster.nodes.values()):
            assert time.monotonic() < deadline_at_s, "connections of loops that have ended"
            time.sleep(0.01)
        counts.append(len(os.listdir("/proc/self/fd")))
    assert counts[0] == counts[1] == counts[2]


def test_a_forked_child_begins_anew(make: Any, engine_of: Any) -> None:
    cluster = make()
    engine = engine_of(cluster.addresses)
    engine.execute(*SET)
    engine.after_fork()
    assert engine.execute(*SET) is True
    first, second = (call[1] for call in cluster["a"].calls)
    assert first != second, "a session of its own"


@pytest.mark.parametrize("consistency", ["safe", "lease", "session", "dirty"])
def test_an_alias_asks_at_its_level(make: Any, consistency: str) -> None:
    cluster = make(b="ok", c="ok")
    location = f"keyspace://{','.join(cluster.addresses)}/0"
    options = {"consistency": consistency, "max_staleness_ms": 900}
    cache = KeyspaceCache(location, {"OPTIONS": options})
    assert cache.get("k", "default") == "default", "what the fakes answer is no record"
    (call,) = [call for node in cluster.nodes.values() for call in node.calls]
    assert call[0] == "at" and call[1] == consistency
    assert call[3] == (None if consistency == "safe" else 900)
    if consistency == "safe":
        assert cache.last_read is None
    else:
        assert cache.last_read is not None and cache.last_read.index == 100
    cache.has_key("k")
    asyncio.run(cache.ahas_key("k"))
    levels_asked = {call[1] for node in cluster.nodes.values() for call in node.calls}
    assert levels_asked == {consistency}
    cache.shutdown()


def test_endpoints_that_are_given_are_used(make: Any) -> None:
    cluster = make()
    host, _, port = cluster["a"].address.rpartition(":")
    engine = RemoteEngine([Endpoint(host, int(port))], timeout_ms=5_000)
    assert engine.execute(*GET) == b"record of a"
    engine.close()

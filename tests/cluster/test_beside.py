"""Reads beside real nodes: killed, started again, wiped, joined; and a fleet of learners on one machine."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from django_keyspace.backend import KeyspaceCache
from django_keyspace.backend.levels import session
from django_keyspace.backend.replica import Replica
from django_keyspace.backend.runtime import forget_runtimes
from django_keyspace.testing import RunningCluster, running_cluster, running_node

from .conftest import SECRET
from .helpers import await_true

pytestmark = pytest.mark.node


@pytest.fixture(scope="module")
def four() -> Iterator[RunningCluster]:
    """Three nodes and a learner, which this module's tests share with nobody: they wipe it."""
    with running_cluster(3, secret=SECRET) as cluster:
        cluster.join("web1")
        yield cluster


@pytest.fixture
def site(four: RunningCluster) -> Iterator[Any]:
    """Makes caches beside a node."""
    four.start()
    four.leader()
    caches: list[KeyspaceCache] = []

    def make(name: str, **options: Any) -> KeyspaceCache:
        place = name if name == "auto" else str(four.nodes[name].data)
        options = {"secret": SECRET, "replica": place, "timeout_ms": 30_000, **options}
        cache = KeyspaceCache(four.location, {"OPTIONS": options})
        caches.append(cache)
        return cache

    yield make
    for cache in caches:
        cache._runtime.engine.close()
    forget_runtimes()


def replica(cache: KeyspaceCache) -> Replica:
    found = cache._runtime.replica
    assert found is not None
    return found


def is_read_at(cache: KeyspaceCache, node: str) -> bool:
    cache.get("a")
    return cache.last_read is not None and cache.last_read.node == node


def await_beside(cache: KeyspaceCache, node: str | None = None) -> None:
    """Read until reads are answered beside the node."""

    def look() -> bool:
        before = replica(cache).reads
        cache.dirty_get("anything")
        copy = replica(cache).copy
        return replica(cache).reads > before and copy is not None and node in (None, copy.node)

    await_true(look, f"never beside {node}: {replica(cache).figures()}")


def test_dirty_and_session_reads_are_what_the_cluster_has(site: Any) -> None:
    beside, far = site("web1", consistency="session"), site("web1")
    await_beside(beside, "web1")
    for number in range(100):
        beside.set("a", number)
        assert beside.get("a") == number, "its own write"
    assert far.get("a") == 99
    beside.set_many({f"key_{number}": number for number in range(20)})
    assert beside.get_many([f"key_{number}" for number in range(20)]) == far.get_many([f"key_{n}" for n in range(20)])
    assert beside.list_keys("key_") == far.list_keys("key_")
    assert beside.count("key_") == 20 and beside.has_key("key_1") and beside.get("missing", "default") == "default"

    def is_here() -> bool:
        before = replica(beside).reads
        assert beside.get("key_7") == 7
        return replica(beside).reads > before

    await_true(is_here, "the learner never caught up")
    assert beside.last_read.node == "web1" and beside.last_read.age_ms > 0
    assert beside.status()["replica"]["node"] == "web1" and beside.report()["replica_reads"] > 0


def test_coroutines_and_fresh_sessions(site: Any) -> None:
    beside = site("n1", consistency="session")
    await_beside(beside, "n1")

    async def main() -> None:
        for number in range(20):
            await beside.aset("b", number)
            assert await beside.aget("b") == number
        assert await beside.adirty_get("b") is not None

    asyncio.run(main())
    with session() as seen:
        assert beside.get("b") is not None
        assert seen.as_dict(), "what it has read"


def test_a_node_that_is_killed_and_started_again(four: RunningCluster, site: Any) -> None:
    beside = site("web1", consistency="session")
    beside.set("a", "before")
    await_beside(beside, "web1")
    four.nodes["web1"].kill()
    await_true(
        lambda: beside.get("a") == "before" and replica(beside).copy is None, "a dead node's store is read for ever"
    )
    assert beside.get("a") == "before", "over the network"
    beside.set("a", "after")
    four.nodes["web1"].start()
    await_beside(beside, "web1")
    await_true(lambda: beside.get("a") == "after", "it never caught up")


def test_a_node_that_is_stopped_is_left_at_once(four: RunningCluster, site: Any) -> None:
    beside = site("web1", consistency="session")
    beside.set("a", "1")
    await_beside(beside, "web1")
    four.nodes["web1"].stop()
    await_true(lambda: beside.get("a") == "1" and replica(beside).copy is None, "it said that it ended")
    four.nodes["web1"].start()
    await_beside(beside, "web1")


def test_a_node_that_is_wiped_and_joins_again(four: RunningCluster, site: Any) -> None:
    beside = site("web1", consistency="session")
    beside.set("a", "1")
    await_beside(beside, "web1")
    four.nodes["web1"].kill()
    shutil.rmtree(four.nodes["web1"].data)
    assert beside.get("a") == "1"
    beside.set("a", "2")
    four.rejoin("web1")
    await_beside(beside, "web1")
    assert beside.get("a") == "2"


def test_auto_finds_a_node_and_a_node_that_runs_alone_is_none(four: RunningCluster, site: Any) -> None:
    await_beside(site("auto", consistency="dirty"))
    with running_node(secret=SECRET) as alone:
        stranger = site("web1", consistency="session", replica=str(alone.data))
        stranger.set("a", "ours")
        for _ in range(20):
            assert stranger.get("a") == "ours"
        await_true(lambda: replica(stranger).last_error is not None, "it never looked")
        assert replica(stranger).reads == 0


def test_a_fleet_of_learners_on_one_machine(four: RunningCluster, site: Any) -> None:
    four.join("web2")
    four.join("web3")
    fleet = {name: site(name, consistency="session") for name in ("web1", "web2", "web3")}
    for name, beside in fleet.items():
        await_beside(beside, name)
    for number in range(20):
        fleet["web1"].set("a", number)
        assert [beside.get("a") for beside in fleet.values()] == [number] * 3
    for name, beside in fleet.items():
        await_true(partial(is_read_at, beside, name), f"{name} is behind")

"""Reads beside a node that runs alone: its store has whatever was answered, so safe reads come from there, too."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from django_keyspace.addresses import SOCKET_FILE, Endpoint
from django_keyspace.backend import KeyspaceCache
from django_keyspace.backend import replica as module
from django_keyspace.backend.replica import LocalCopy, Replica
from django_keyspace.backend.runtime import forget_runtimes
from django_keyspace.backend.transport import ask_node
from django_keyspace.exceptions import InvalidArgument, KeyspaceError, StorageError
from django_keyspace.security import NO_SECURITY
from django_keyspace.store.folder import DATA_FILE, READERS_FILE
from django_keyspace.testing import RunningNode, running_cluster, running_node
from django_keyspace.testing.cluster import await_found

pytestmark = pytest.mark.node

Site = Callable[..., KeyspaceCache]


@pytest.fixture(scope="module")
def alone() -> Iterator[RunningNode]:
    """A node that no test ends."""
    with running_node() as node:
        yield node


@pytest.fixture
def site() -> Iterator[Site]:
    """Makes caches on a node, over its Unix socket unless the location says something else."""
    caches: list[KeyspaceCache] = []

    def make(node: RunningNode, location: str | None = None, **options: Any) -> KeyspaceCache:
        location = location or f"keyspace+unix://{node.data}/{SOCKET_FILE}"
        cache = KeyspaceCache(location, {"OPTIONS": {"timeout_ms": 30_000, **options}})
        caches.append(cache)
        return cache

    yield make
    for cache in caches:
        cache._runtime.engine.close()
    forget_runtimes()
    module._replicas.clear()


def replica(cache: KeyspaceCache) -> Replica:
    found = cache._runtime.replica
    assert found is not None
    return found


def await_true(look: Callable[[], Any], cache: KeyspaceCache) -> None:
    assert await_found(lambda: look() or None), replica(cache).figures()


def is_beside(cache: KeyspaceCache) -> bool:
    """Read. True if that was answered from the store."""
    before = replica(cache).reads
    with contextlib.suppress(KeyspaceError):
        cache.get("anything")
    return replica(cache).reads > before


def await_beside(cache: KeyspaceCache) -> LocalCopy:
    await_true(lambda: is_beside(cache), cache)
    copy = replica(cache).copy
    assert copy is not None and copy.alone
    return copy


# --- What is read


def test_whatever_was_answered_is_read_at_once(alone: RunningNode, site: Site) -> None:
    cache, far = site(alone), site(alone, alone.location)
    await_beside(cache)
    reads, fallbacks = replica(cache).reads, replica(cache).fallbacks
    for number in range(200):
        (cache if number % 2 else far).set("a", number)
        assert cache.get("a") == number
    cache.set_many({"b": 1, "c": [2]})
    assert cache.get_many(["b", "c", "d"]) == {"b": 1, "c": [2]} and cache.list_keys("b") == ["b"]
    assert cache.has_key("c") and cache.count() >= 3 and cache.ttl("b") > 0
    assert far._runtime.replica is None
    if replica(cache).fallbacks == fallbacks:  # unless the machine held the node up for seconds
        assert replica(cache).reads == reads + 205
    assert cache.status()["replica"]["is_safe"] is True


def test_each_level_is_answered_there_and_is_current(alone: RunningNode, site: Site) -> None:
    for level in ("safe", "lease", "session", "dirty"):
        cache = site(alone, consistency=level, max_staleness_ms=0)
        await_beside(cache)

        def is_answered(cache: KeyspaceCache = cache, level: str = level) -> bool:
            before = replica(cache).reads
            cache.set("a", level)
            assert cache.get("a") == cache.dirty_get("a", max_staleness_ms=0) == level
            return replica(cache).reads >= before + 2

        await_true(is_answered, cache)
        assert cache.last_read is not None
        assert (cache.last_read.node, cache.last_read.age_ms) == ("n1", 0) and cache.last_read.index > 0


def test_coroutines_and_long_reads(alone: RunningNode, site: Site) -> None:
    cache = site(alone)
    await_beside(cache)

    async def main() -> bool:
        before = replica(cache).reads
        for number in range(20):
            await cache.aset("b", number)
            assert await cache.aget("b") == number
        assert await cache.alist_keys("b") == ["b"]
        async with cache.batch() as batch:
            found, missing = batch.get("b"), batch.get("missing", "default")
        assert (found.result, missing.result) == (19, "default")
        async with cache.batch() as batch:
            written, read = batch.incr("b"), batch.get("b")
        assert (written.result, read.result) == (20, 20), "with a write in it, all of it is the node's"
        return replica(cache).reads >= before + 22

    await_true(lambda: asyncio.run(main()), cache)


def test_threads_and_forked_processes_see_what_was_acknowledged(alone: RunningNode, site: Site) -> None:
    cache = site(alone)
    cache.set("count", 0)
    await_beside(cache)
    acknowledged = [0]
    errors: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        last = 0
        try:
            while not done.is_set():
                least = acknowledged[0]
                last, before = cache.get("count"), last
                assert last >= max(least, before), "an older state than what was answered"
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=read, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(300):
            acknowledged[0] = cache.incr("count")
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert errors == []
    children = []
    for _ in range(3):
        child = os.fork()
        if not child:
            code = 1
            with contextlib.suppress(BaseException):
                before = replica(cache).reads
                grown = all(cache.incr("count") <= cache.get("count") for _ in range(50))
                code = 0 if grown and cache.get("count") >= 350 and replica(cache).reads > before else 2
            os._exit(code)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 3
    assert cache.get("count") == 450


def test_what_has_expired_for_one_has_expired_for_the_other(alone: RunningNode, site: Site) -> None:
    cache, far = site(alone), site(alone, alone.location)
    await_beside(cache)
    for turn in range(20):
        watching, asked = (cache, far) if turn % 2 else (far, cache)
        far.set("brief", turn, timeout=0.01)
        await_true(lambda watching=watching: watching.get("brief") is None, cache)
        assert asked.get("brief") is None
        assert asked.add("brief", "new") is True, "the node does not keep what a reader saw expire"
        assert cache.get("brief") == far.get("brief") == "new"


def test_databases_and_calls_that_are_not_legal(alone: RunningNode, site: Site) -> None:
    address = f"keyspace+unix://{alone.data}/{SOCKET_FILE}"
    first, last, none = (site(alone, f"{address}?database={number}") for number in (0, 15, 16))
    await_beside(first)
    await_beside(last)
    first.set("a", "of the first")
    last.set("a", "of the last")
    assert (first.get("a"), last.get("a")) == ("of the first", "of the last")
    with pytest.raises(InvalidArgument):
        none.get("a")
    engine = first._runtime.engine
    for call in (("get", 0, b""), ("get", 0), ("get", 0, "text"), ("match_regex", 0, b"", b"(", b"", 5), ("nothing",)):
        with pytest.raises(KeyspaceError):
            engine.execute(*call)
    assert first.get("a") == "of the first" and replica(first).copy is not None


# --- Which node it is


def test_a_location_without_a_socket_has_it_if_it_is_asked_for(alone: RunningNode, site: Site) -> None:
    for place in (True, "auto", str(alone.data), str(alone.data / SOCKET_FILE)):
        cache = site(alone, alone.location, replica=place)
        await_beside(cache)
        cache.set("a", str(place))
        assert cache.get("a") == str(place)
    assert site(alone, replica=False)._runtime.replica is None
    assert "replica" not in site(alone, replica=False).status()


def test_another_node_than_that_of_the_location_is_never_read(alone: RunningNode, site: Site) -> None:
    with running_node() as other:
        cache = site(other, other.location, replica=str(alone.data))
        site(alone).set("a", "of another")
        for _ in range(20):
            assert cache.get("a") is None
        await_true(lambda: cache.get("a") is None and replica(cache).last_error is not None, cache)
        assert "not the one that LOCATION names" in str(replica(cache).last_error) and replica(cache).reads == 0


def test_a_member_of_a_cluster_never_says_that_it_is_alone(site: Site) -> None:
    with running_cluster(2) as cluster:
        node = cluster.leader()
        (other,) = cluster.followers()
        cluster.ask(node.node_id, "change_member", "remove", other.node_id)
        facts = ask_node(Endpoint(path=str(node.data / SOCKET_FILE)), NO_SECURITY, "node_store")
        assert facts["alone"] is False and facts["cluster"], "it is the only one, and may get others"
        cache = site(node)
        cache.set("a", "1")
        await_true(lambda: cache.dirty_get("a") == "1" and replica(cache).copy is not None, cache)
        before = replica(cache).reads
        for number in range(20):
            cache.set("a", number)
            assert cache.get("a") == number
        assert replica(cache).reads == before, "safe reads are the leader's"
        assert cache.status()["replica"]["is_safe"] is False


def test_one_that_cannot_be_read_is_passed_over_in_silence(
    alone: RunningNode, site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = module.ask_node
    monkeypatch.setattr(module, "ask_node", lambda *given, **named: ask(*given, **named) | {"process_space": "another"})
    with caplog.at_level(logging.INFO, "django_keyspace.replica"):
        cache = site(alone)
        cache.set("a", "1")
        await_true(lambda: cache.get("a") == "1" and replica(cache).last_error is not None, cache)
        assert "another container" in str(replica(cache).last_error) and caplog.records == []
        wanted = site(alone, replica=True)
        await_true(lambda: wanted.get("a") == "1" and caplog.records, wanted)
        assert caplog.records[0].levelno == logging.WARNING
    assert replica(cache).reads == replica(wanted).reads == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_somebody_else_goes_over_the_network_and_the_group_reads() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o711)
        group = max(grp.getgrall(), key=lambda row: row.gr_gid)
        with running_node(data=Path(folder) / "n1", replica_group=group.gr_name) as node:

            def read_as(own_group: int) -> int:
                child = os.fork()
                if not child:
                    code = 1
                    with contextlib.suppress(BaseException):
                        os.setgroups([])
                        os.setgid(own_group)
                        os.setuid(54_321)
                        cache = KeyspaceCache(node.location, {"OPTIONS": {"replica": str(node.data)}})
                        cache.set("a", own_group)
                        found = replica(cache)
                        await_found(lambda: (cache.get("a"), found.reads or found.last_error)[1] or None)
                        code = 2 if cache.get("a") != own_group else 0 if found.reads else 3
                    os._exit(code)
                return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

            def is_shared() -> bool:
                return (node.data / SOCKET_FILE).stat().st_mode & 0o060 == 0o060

            assert await_found(lambda: is_shared() or None)
            assert (read_as(group.gr_gid), read_as(54_321)) == (0, 3)


# --- When it ends


def test_a_node_that_is_killed_and_started_again(site: Site) -> None:
    with running_node(databases=3) as node:
        cache = site(node)
        cache.set("a", "before")
        copy = await_beside(cache)
        node.kill()
        assert cache.get("a") == "before", "what it has answered is still there"
        node._flags = ["--databases=4"]
        node.start()
        cache.set("a", "after")
        assert cache.get("a") == "after"
        await_true(lambda: is_beside(cache) and replica(cache).copy is not copy, cache)
        assert cache.get("a") == "after"
        other = site(node, f"keyspace+unix://{node.data}/{SOCKET_FILE}?database=3")
        other.set("a", "of the new one")
        assert other.get("a") == "of the new one"


def test_an_alias_that_reads_nothing_keeps_no_other_from_the_next_life(site: Site) -> None:
    with running_node(databases=3) as node:
        idle = site(node, timeout_ms=20_000)
        idle.set("a", "before")
        await_beside(idle)
        node.kill()
        node._flags = ["--databases=4"]
        node.start()
        cache = site(node)
        await_beside(cache)
        cache.set("a", "after")
        assert cache.get("a") == idle.get("a") == "after"
        await_beside(idle)
        assert cache.get("a") == idle.get("a") == "after"


def test_a_node_that_is_stopped_is_left_at_once(site: Site) -> None:
    with running_node() as node:
        cache = site(node)
        cache.set("a", "1")
        copy = await_beside(cache)
        node.stop()
        with pytest.raises(StorageError, match="has ended"):
            copy._checked(module.clock.boot_ms())
        with pytest.raises(KeyspaceError):
            cache.get("a")
        assert replica(cache).copy is None
        node.start()
        await_true(lambda: is_beside(cache) and cache.get("a") == "1", cache)


def test_a_node_that_hangs_is_left_after_a_while(site: Site) -> None:
    with running_node() as node:
        cache, impatient = site(node), site(node, timeout_ms=300)
        cache.set("a", "1")
        copy = await_beside(cache)
        node.send_signal(signal.SIGSTOP)
        try:

            def is_left() -> bool:
                try:
                    copy.read_now(0, "get", (0, b":1:a"))
                except StorageError as error:
                    return "has said nothing" in str(error)
                return False

            await_true(is_left, cache)
            with pytest.raises(KeyspaceError):
                impatient.get("a")
        finally:
            node.send_signal(signal.SIGCONT)
        await_true(lambda: is_beside(cache) and cache.get("a") == "1", cache)


def test_nothing_of_a_wiped_store_is_read_once_the_next_node_serves(site: Site) -> None:
    with running_node() as node:
        cache = site(node)
        serving, done = threading.Event(), threading.Event()
        errors: list[BaseException] = []

        def look() -> bool:
            """Read. True if that was answered."""
            is_serving = serving.is_set()
            try:
                found = cache.get("a")
            except KeyspaceError:  # no node serves, or none did just now
                return False
            assert not (is_serving and found == "old"), "of the life before"
            return True

        def read() -> None:
            try:
                while not done.is_set():
                    look()
            except BaseException as error:
                errors.append(error)

        cache.set("a", "old")
        await_beside(cache)
        threads = [threading.Thread(target=read, daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(2):
                node.kill()
                shutil.rmtree(node.data)
                node.start()
                serving.set()
                await_true(look, cache)
                await_beside(cache)
                assert look()
                serving.clear()
                await_true(lambda: is_set(cache, "a", "old"), cache)
                await_beside(cache)
        finally:
            done.set()
            for thread in threads:
                thread.join()
        assert errors == []


def is_set(cache: KeyspaceCache, key: str, value: str) -> bool:
    with contextlib.suppress(KeyspaceError):
        return cache.set(key, value)
    return False


def test_a_data_file_that_is_deleted_beneath_its_node(site: Site) -> None:
    with running_node() as node:
        cache = site(node)
        cache.set("a", "old")
        copy = await_beside(cache)
        for name in (DATA_FILE, READERS_FILE):
            (node.data / "store" / name).unlink()
        await_true(lambda: cache.set("a", "new") and is_beside(cache) and replica(cache).copy is not copy, cache)
        cache.set("a", "newer")
        assert cache.get("a") == "newer"

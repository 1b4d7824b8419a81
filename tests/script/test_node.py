"""Scripts on a node: its own, those that come with a call, and everybody else's calls meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from django_keyspace.backend import KeyspaceCache
from django_keyspace.backend.transport import remote_engine
from django_keyspace.exceptions import KeyspaceError, Overloaded, ScriptFailed, ScriptTimeout
from django_keyspace.node.barrier import Hold
from django_keyspace.node.log import LocalLog
from django_keyspace.node.scripts import ScriptService
from django_keyspace.store import Store
from django_keyspace.store.scripting import runner as runner_module
from django_keyspace.store.scripting import script_call, script_result
from django_keyspace.store.scripting.threads import ScriptThreads
from django_keyspace.testing import NodeDidNotStart, RunningNode, running_node
from tests.script.conftest import LONG_MS

pytestmark = pytest.mark.node

OWN = """
function visit(a)
  return db:increment("visits-" .. a.page)
end
function shared() return "the node's" end
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node with scripts of its own."""
    folder = tmp_path_factory.mktemp("scripts")
    (folder / "visits.lua").write_text(OWN)
    with running_node(scripts=folder) as running:
        yield running


def cache_of(node: RunningNode, **options: Any) -> KeyspaceCache:
    return KeyspaceCache(node.location, {"OPTIONS": {"timeout_ms": 60_000, **options}})


def test_a_nodes_own_scripts_are_there_for_every_client(node: RunningNode) -> None:
    cache = cache_of(node)
    assert cache.script("visit", {"page": "a"}, time_ms=LONG_MS) == 1
    engine = remote_engine(node.location)
    try:
        call = script_call(0, "visit", {"page": "a"}, prefix=b":1:", time_ms=LONG_MS)
        assert script_result(engine.execute(*call)) == 2
    finally:
        engine.close()
    assert cache.script("shared", time_ms=LONG_MS) == "the node's"
    cache.load_script("function shared() return 'mine' end")
    assert cache.script("shared", time_ms=LONG_MS) == "mine"


def test_a_node_does_not_start_with_scripts_that_are_not_right(tmp_path: Path) -> None:
    (tmp_path / "bad.lua").write_text("function f(")
    for path, message in ((tmp_path / "bad.lua", r"bad\.lua:1"), (tmp_path / "none.lua", "cannot be read")):
        with pytest.raises(NodeDidNotStart, match=message), running_node(scripts=path):
            pass


async def test_others_go_on_while_a_script_does_not_end(node: RunningNode) -> None:
    """On the same connection: answers come in any order."""
    cache = cache_of(node)
    await cache.aload_script("function endless() while true do end end")
    endless = asyncio.create_task(cache.ascript("endless", time_ms=2500))
    meanwhile = 0
    while not endless.done():
        await cache.aset("other", meanwhile)
        assert await cache.aget("other") == meanwhile
        assert await cache.ascript("shared", time_ms=LONG_MS) == "the node's"
        meanwhile += not endless.done()
    assert meanwhile
    with pytest.raises(ScriptTimeout):
        await endless


def test_nothing_is_counted_twice_or_lost(node: RunningNode) -> None:
    threads_count, times = 4, 20
    caches = [cache_of(node) for _ in range(threads_count)]
    caches[0].load_script("function count() local n = (db:get('n') or 0) + 1 db:set('n', n) return n end", "count.lua")
    numbers: list[Any] = []

    def work(cache: KeyspaceCache) -> None:
        for _ in range(times):
            numbers.append(cache.script("count", time_ms=LONG_MS))
            cache.incr("plain", default=0)

    threads = [threading.Thread(target=work, args=(cache,)) for cache in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(110)
    assert sorted(numbers) == list(range(1, threads_count * times + 1))
    assert caches[0].get("n") == caches[0].get("plain") == threads_count * times


# --- The service beside the log ---------------------------------------------------------------------------------------


@pytest.fixture
async def log(store: Store) -> AsyncIterator[LocalLog]:
    """The log of a node on the store."""
    made = LocalLog(store, asyncio.get_running_loop(), may_write_here=True)
    yield made
    async with asyncio.timeout(60):
        while made.pending_calls:
            await asyncio.sleep(0.001)


async def ran(service: ScriptService, call: Any) -> Any:
    """What a script answers."""
    answered: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
    service.submit(call, answered.set_result)
    (result,) = await answered
    return result if isinstance(result, Exception) else script_result(result)


async def proposed(log: LocalLog, call: Any) -> Any:
    answered: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
    log.propose([call], 100, answered.set_result)
    return (await answered)[0]


COUNT = script_call(
    0,
    "f",
    sources=[("c.lua", "function f() local n = (db:get('n') or 0) + 1 db:set('n', n) return n end")],
    time_ms=LONG_MS,
)


async def test_a_script_that_holds_the_log_lets_go_of_it(
    store: Store, log: LocalLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All scripts run while nobody else may write; everybody else's writes are done all the same, before and after."""
    monkeypatch.setattr(runner_module, "FREE_ATTEMPTS", 0)
    service = ScriptService(store, log, asyncio.get_running_loop())
    scripts = [asyncio.create_task(ran(service, COUNT)) for _ in range(12)]
    others = []
    while not all(script.done() for script in scripts):
        others.append(await proposed(log, ("incr", 0, b"other", 1, 0, None, 0)))
    assert sorted(script.result() for script in scripts) == list(range(1, 13))
    assert others == list(range(1, len(others) + 1))
    assert await proposed(log, ("incr", 0, b"n", 0, None, None, 0)) == 12


async def held(log: LocalLog) -> Hold:
    """Hold the log; returns when nobody's write is under way."""
    granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    turn = log.hold(granted.set_result)
    await granted
    return turn


async def test_writes_wait_for_who_holds_the_log(store: Store, log: LocalLog) -> None:
    done: list[Any] = []
    log.propose([("clear", 0, True)], 100, done.append)
    while not log._groups:
        await asyncio.sleep(0)
    first = await held(log)
    assert done  # holding begins when nothing is under way
    waiting = asyncio.create_task(proposed(log, ("incr", 0, b"k", 1, 0, None, 0)))
    granted: list[Any] = []
    second = log.hold(granted.append)
    answered: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
    log.propose_held([("incr", 0, b"k", 10, 0, None, 0)], 100, answered.set_result)
    assert await answered == [10]
    assert not waiting.done() and not granted
    log.let_go(first)
    assert granted == [None]
    log.let_go(second)
    assert await waiting == 11


async def test_who_gives_up_waiting_holds_nothing(store: Store, log: LocalLog) -> None:
    granted: list[Any] = []
    first, second = await held(log), log.hold(granted.append)
    log.let_go(second)
    log.let_go(first)
    log.let_go(first)  # it is over: nothing happens
    assert not granted
    assert await proposed(log, ("incr", 0, b"k", 1, 0, None, 0)) == 1


async def test_errors_come_back_as_errors(store: Store, log: LocalLog, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    service = ScriptService(store, log, loop)
    failing = script_call(0, "f", sources=[("c.lua", "function f() error('no') end")], time_ms=LONG_MS)
    assert isinstance(await ran(service, failing), ScriptFailed)

    def refuse(calls: Any, size_bytes: int, done: Any) -> None:
        raise Overloaded("Too much is waiting. Nothing was done.")

    monkeypatch.setattr(log, "propose", refuse)
    assert isinstance(await ran(service, COUNT), Overloaded)
    assert not isinstance(await ran(ScriptService(store, log, loop), ("script", 1, 2)), bytes)
    full = ScriptService(store, log, loop, pool=ScriptThreads(waiting_max=0))
    with pytest.raises(Overloaded):
        full.submit(COUNT, lambda results: None)
    assert issubclass(Overloaded, KeyspaceError)


async def test_a_script_that_comes_again_is_not_run_again(store: Store, log: LocalLog) -> None:
    """While it runs, and afterwards; also when its copy would find nothing to do."""
    service = ScriptService(store, log, asyncio.get_running_loop())
    session = store.log_time_ms().to_bytes(8, "big") + b"s" * 16
    first = [asyncio.create_task(ran(service, ("once", session, 1, 1, again, COUNT, None))) for again in (False, True)]
    assert [await one for one in first] == [1, 1]
    take = script_call(
        0,
        "f",
        sources=[("t.lua", "function f() local n = db:get('n') if n then db:remove('n') end return n end")],
        time_ms=LONG_MS,
    )
    assert await ran(service, ("once", session, 2, 1, False, take, None)) == 1
    assert await ran(service, ("once", session, 2, 1, True, take, None)) == 1
    assert await ran(service, ("once", session, 3, 1, True, take, None)) is None
    assert await ran(service, COUNT) == 1
    # A late first copy of what was answered as a second one.
    assert await ran(service, ("once", session, 3, 1, False, take, None)) is None
    assert await ran(service, ("once", session, 1, 1, True, COUNT, None)) == 1
    assert await ran(service, COUNT) == 2

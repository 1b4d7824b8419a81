"""Single flight, stale values and memoize among threads, tasks and processes, and in trouble."""

from __future__ import annotations

import asyncio
import datetime
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.utils.asyncio import async_unsafe

from django_keyspace.backend import KeyspaceCache
from django_keyspace.backend.memoize import argument_text, legible_key
from django_keyspace.exceptions import InvalidArgument, NoConnection, NoSpace
from django_keyspace.testing import running_node
from tests.multiprocess.fleet import Fleet


@pytest.fixture(params=["embedded", pytest.param("node", marks=pytest.mark.node)])
def location(request: pytest.FixtureRequest, store_folder: Path) -> Iterator[str]:
    """Where the cache lies: a folder, or a node of its own."""
    if request.param == "embedded":
        yield str(store_folder)
    else:
        with running_node() as node:
            yield node.location


@pytest.fixture
def cache(location: str) -> Iterator[KeyspaceCache]:
    """A cache at that place."""
    cache = KeyspaceCache(location, {})
    yield cache
    cache.shutdown()


@pytest.fixture
def local(store_folder: Path) -> KeyspaceCache:
    """A cache on a folder, for what does not depend on the place."""
    return KeyspaceCache(str(store_folder), {})


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """Starts processes."""
    fleet = Fleet()
    try:
        yield fleet
    finally:
        strays = fleet.dismiss()
    assert not strays


# ------------------------------------------------------------------------------------------------- single flight


@pytest.mark.stress
@pytest.mark.parametrize("options", [{"lock": True}, {"stale_timeout": 60}], ids=str)
def test_8_processes_make_a_slow_value_once(fleet: Fleet, location: str, options: dict[str, Any]) -> None:
    actors = [
        fleet.start("locking.get_or_set", location=location, name=f"p{n}", options=options, slow_s=0.5)
        for n in range(8)
    ]
    for actor in actors:
        assert actor.hear() == "ready"
    for actor in actors:
        actor.tell("go")
    told = [actor.result() for actor in actors]
    made = [name for each in told for name in each["made"]]
    assert len(made) == 1
    assert {each["value"] for each in told} == {f"made by {made[0]}"}


@pytest.mark.stress
@pytest.mark.skipif(sys.platform == "win32", reason="kills a process")
def test_a_maker_that_is_killed_is_replaced(fleet: Fleet, location: str, cache: KeyspaceCache) -> None:
    actor = fleet.start("locking.die", location=location, how="value")
    assert actor.hear() == "holding"
    actor.kill()
    assert cache.get_or_set("value", "made by us", lock=60) == "made by us" == cache.get("value")


def test_threads_and_tasks_make_a_value_once(cache: KeyspaceCache) -> None:
    made: list[str] = []

    def slow() -> str:
        sleep(0.2)
        made.append("thread")
        return "value"

    async def aslow() -> str:
        await asyncio.sleep(0.2)
        made.append("task")
        return "value"

    async def tasks() -> list[str]:
        return await asyncio.gather(*(cache.aget_or_set("k", aslow, lock=30) for _ in range(30)))

    with ThreadPoolExecutor(9) as pool:
        loops = [pool.submit(asyncio.run, tasks())]
        threads = [pool.submit(cache.get_or_set, "k", slow, lock=30) for _ in range(8)]
        assert [future.result(60) for future in threads] == ["value"] * 8
        assert loops[0].result(60) == ["value"] * 30
    assert len(made) == 1


def test_while_one_makes_the_new_value_the_others_get_the_stale_one_at_once(cache: KeyspaceCache) -> None:
    started, finish, made = threading.Event(), threading.Event(), []

    def slow() -> str:
        started.set()
        assert finish.wait(30)
        made.append(1)
        return "new"

    cache.get_or_set("k", "old", 0.001, stale_timeout=60)
    while cache.pttl("k") > 60_000:
        sleep(0.001)
    with ThreadPoolExecutor(1) as pool:
        maker = pool.submit(cache.get_or_set, "k", slow, 30, stale_timeout=60)
        assert started.wait(30)
        before_s = monotonic()
        assert [cache.get_or_set("k", slow, 30, stale_timeout=60) for _ in range(20)] == ["old"] * 20
        assert asyncio.run(cache.aget_or_set("k", slow, 30, stale_timeout=60)) == "old"
        assert monotonic() - before_s < 10
        finish.set()
        assert maker.result(30) == "new"
    assert cache.get_or_set("k", slow, 30, stale_timeout=60) == "new" and made == [1]


def test_when_a_maker_fails_it_is_the_next_ones_turn(cache: KeyspaceCache) -> None:
    turns = iter(range(100))

    def fail_twice() -> str:
        sleep(0.05)
        turn = next(turns)
        if turn < 2:
            raise ZeroDivisionError
        return f"turn {turn}"

    with ThreadPoolExecutor(6) as pool:
        futures = [pool.submit(cache.get_or_set, "k", fail_twice, lock=30) for _ in range(6)]
        failed = [future for future in futures if future.exception(60)]
        values = {future.result() for future in futures if future not in failed}
    assert len(failed) == 2 and values == {"turn 2"} and next(turns) == 3


def test_a_cancelled_waiter_goes_and_a_cancelled_maker_is_replaced(cache: KeyspaceCache) -> None:
    async def main() -> None:
        making = asyncio.Event()

        async def never() -> None:
            making.set()
            await asyncio.sleep(600)

        maker = asyncio.create_task(cache.aget_or_set("k", never, lock=600))
        await making.wait()
        waiter = asyncio.create_task(cache.aget_or_set("k", "waiter", lock=600))
        await asyncio.sleep(0.02)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert await cache.ahas_key("flight:k"), "the maker is still at it"
        next_one = asyncio.create_task(cache.aget_or_set("k", "next", lock=600))
        await asyncio.sleep(0.02)
        maker.cancel()
        with pytest.raises(asyncio.CancelledError):
            await maker
        assert await next_one == "next" == await cache.aget("k")
        assert await cache.akeys() == ["k"]

    asyncio.run(main())


class Lazy:
    """Asks the database while it is pickled, as an unevaluated queryset does."""

    @async_unsafe
    def __reduce__(self) -> Any:
        return (dict, ())


def test_values_that_ask_the_database_are_stored_from_a_loop(local: KeyspaceCache) -> None:
    asyncio.run(local.aget_or_set("k", Lazy, lock=True))
    assert local.get("k") == {} and local.keys() == ["k"]


def break_engine(cache: KeyspaceCache, error: Exception, operations: tuple[str, ...]) -> None:
    """Let some operations of a cache fail."""
    do, ado, read = cache._do, cache._ado, cache._read

    def fail(name: str, *arguments: Any) -> Any:
        if name in operations:
            raise error
        return do(name, *arguments)

    async def afail(name: str, *arguments: Any) -> Any:
        if name in operations:
            raise error
        return await ado(name, *arguments)

    cache._do, cache._ado = fail, afail
    cache._read = lambda name, *arguments: fail(name, *arguments) if name in operations else read(name, *arguments)


@pytest.mark.parametrize("options", [{"lock": True}, {"stale_timeout": 60}], ids=str)
@pytest.mark.parametrize("operations", [("get", "ttl", "exists", "atomic", "cas", "set"), ("atomic",)], ids=len)
@pytest.mark.parametrize("on_error", ["raise", "miss"])
def test_outages(store_folder: Path, options: dict[str, Any], operations: tuple[str, ...], on_error: str) -> None:
    cache = KeyspaceCache(str(store_folder), {"OPTIONS": {"on_error": on_error}})
    break_engine(cache, NoConnection("gone"), operations)
    calls: list[Callable[[], Any]] = [
        lambda: cache.get_or_set("k", lambda: "made", 30, **options),
        lambda: asyncio.run(cache.aget_or_set("k", lambda: "made", 30, **options)),
    ]
    for call in calls:
        if on_error == "miss":
            assert call() == "made"
        else:
            with pytest.raises(NoConnection):
                call()
    assert bool(cache._runtime.outages.counts) is (on_error == "miss")


@pytest.mark.parametrize("on_error", ["raise", "miss"])
def test_a_store_that_fails_when_the_value_is_made_gets_its_lease_back(store_folder: Path, on_error: str) -> None:
    cache = KeyspaceCache(str(store_folder), {"OPTIONS": {"on_error": on_error}})

    def make() -> str:
        break_engine(cache, NoSpace("full"), ("atomic",))
        return "made"

    if on_error == "miss":
        assert cache.get_or_set("k", make, lock=True) == "made"
    else:
        with pytest.raises(NoSpace):
            cache.get_or_set("k", make, lock=True)
    assert cache.keys() == []


def test_hits_and_misses_are_counted_once_per_call(local: KeyspaceCache) -> None:
    counters = local._runtime.counters
    for options in ({"lock": True}, {"stale_timeout": 60}):
        before = (counters.hits, counters.misses)
        for _ in range(3):
            local.get_or_set("-".join(options), "v", 30, **options)
        assert (counters.hits - before[0], counters.misses - before[1]) == (2, 1)


def test_a_record_that_cannot_be_read_is_replaced(store_folder: Path, local: KeyspaceCache) -> None:
    KeyspaceCache(str(store_folder), {"OPTIONS": {"serializer": "json"}}).set("k", [1])
    assert local.get_or_set("k", [2], lock=True) == [2] == local.get("k")


# ------------------------------------------------------------------------------------------------- memoize


def test_texts_of_arguments_are_stable() -> None:
    aware = datetime.datetime(2024, 5, 1, tzinfo=ZoneInfo("Europe/Berlin"))
    for value, text in [
        (None, "None"),
        (True, "True"),
        (1, "1"),
        (1.0, "1.0"),
        ("a'b", '"a\'b"'),
        (b"x", "b'x'"),
        ((), "()"),
        ((1,), "(1,)"),
        ((1, "a"), "(1,'a',)"),
        ([1, (2,)], "[1,(2,)]"),
        ({"b": 1, "a": [2]}, "{'a':[2],'b':1}"),
        ({3, 1, 2}, "set(1,2,3)"),
        (frozenset("a"), "frozenset('a')"),
        (Decimal("1.50"), "Decimal('1.50')"),
        (uuid.UUID(int=1), "UUID('00000000-0000-0000-0000-000000000001')"),
        (datetime.date(2024, 5, 1), "datetime.date(2024, 5, 1)"),
        (aware, "datetime.datetime(2024, 5, 1, 0, 0, tzinfo=zoneinfo.ZoneInfo(key='Europe/Berlin'))"),
    ]:
        assert argument_text(value, "f") == text


class Text(str):
    """A subclass may say anything in its repr."""


class Zone(datetime.tzinfo):
    """A time zone of the site's own."""


@pytest.mark.parametrize("value", [object(), Text("x"), print, int, bytearray(b"x"), [object()], {"a": Text("x")}])
def test_other_arguments_need_a_key(local: KeyspaceCache, value: Any) -> None:
    function = local.memoize(prefix="f")(lambda argument: 1)
    with pytest.raises(InvalidArgument, match="key="):
        function(value)
    with pytest.raises(InvalidArgument, match="key="):
        function(datetime.datetime(2024, 5, 1, tzinfo=Zone()))
    assert local.keys() == []


def test_keys_are_legible_or_digests() -> None:
    assert legible_key("f", "(a=1)") == "f(a=1)"
    digests = {
        legible_key("f", text) for text in ("(a='x y')", "(a='x\ty')", "(a='" + "x" * 150 + "')", "(a='\ud800')")
    }
    assert len(digests) == 4 and all(key.startswith("f#") and len(key) == 34 for key in digests)
    assert legible_key("f", "(a='x y')") == "f#81546d0ea85d9412cbb4f1a5c12f5f16", (
        "the same in every process and release"
    )


def work(number: int, factor: int = 2) -> int:
    """A function of a module."""
    return number * factor


def test_the_name_of_a_function_is_in_its_keys(local: KeyspaceCache) -> None:
    function = local.memoize()(work)
    assert (function(3), function(3, factor=2)) == (6, 6)
    assert local.keys() == [f"{__name__}.work(number=3,factor=2)"] == [function.cache_key(3)]
    assert (function.__name__, function.__doc__, function.uncached) == ("work", "A function of a module.", work)
    with pytest.raises(TypeError):
        function()


class Report:
    """Has methods that are remembered."""

    cache: KeyspaceCache
    calls = 0

    def __init__(self, pk: int) -> None:
        self.pk = pk

    @classmethod
    def remember(cls, cache: KeyspaceCache) -> None:
        """Decorate the method as ``@cache.memoize(...)`` would."""
        cls.total = cache.memoize(prefix="total", key=lambda self, year: (self.pk, year))(cls.plain_total)  # type: ignore[attr-defined]

    def plain_total(self, year: int) -> int:
        type(self).calls += 1
        return self.pk * year


def test_methods(local: KeyspaceCache) -> None:
    Report.remember(local)
    one, same, other = Report(1), Report(1), Report(2)
    assert [one.total(5), same.total(year=5), other.total(5)] == [5, 5, 10]  # type: ignore[attr-defined]
    assert Report.calls == 2 and local.keys() == ["total((1,5,))", "total((2,5,))"]
    assert Report.total.invalidate(one, 5) is True  # type: ignore[attr-defined]
    assert local.keys() == ["total((2,5,))"]


def generate() -> Iterator[int]:
    """A generator."""
    yield 1


def test_what_cannot_be_memoized_is_refused_when_it_is_written(local: KeyspaceCache) -> None:
    for function in (lambda: 1, generate, classmethod(work), 5, Report):
        with pytest.raises(InvalidArgument):
            local.memoize()(function)  # type: ignore[arg-type,type-var]
    with pytest.raises(InvalidArgument, match="brackets"):
        local.memoize(work)
    for options in ({"timeout": "x"}, {"lock": "x"}, {"stale_timeout": -1}, {"lock": False, "stale_timeout": 1}):
        with pytest.raises(InvalidArgument):
            local.memoize(**options)


def test_memoize_with_a_lock_is_single_flight(local: KeyspaceCache) -> None:
    calls: list[int] = []

    @local.memoize(30, prefix="slow", lock=30)
    def slow(number: int) -> None:
        sleep(0.1)
        calls.append(number)

    @local.memoize(30, prefix="aslow", lock=30)
    async def aslow(number: int) -> None:
        await asyncio.sleep(0.05)
        calls.append(number)

    async def tasks() -> None:
        await asyncio.gather(*(aslow(2) for _ in range(10)))

    with ThreadPoolExecutor(5) as pool:
        assert [future.result(30) for future in [pool.submit(slow, 1) for _ in range(5)]] == [None] * 5
    asyncio.run(tasks())
    assert calls == [1, 2]
    assert asyncio.run(aslow.ainvalidate(2)) is True and aslow.invalidate(2) is False

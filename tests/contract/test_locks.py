"""Contract of locks, single flight and memoize, by both faces: what one caller after the other sees."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from time import monotonic
from typing import Any

import pytest

from django_keyspace.backend.locks import Lock
from django_keyspace.exceptions import CannotSerialize, InvalidArgument, InvalidKey, LockLost, LockNotAcquired
from django_keyspace.status import Status
from tests.contract.faces import AsyncFace, Face
from tests.contract.records import about

pytestmark = pytest.mark.contract
covers = pytest.mark.covers
MakeFace = Callable[..., Face]


def call(face: Face, something: Any, name: str, *args: Any) -> Any:
    """Call a method of a lock by the face: ``release`` or ``arelease``."""
    if isinstance(face, AsyncFace):
        return face._runner.run(getattr(something, f"a{name}")(*args))
    return getattr(something, name)(*args)


@contextlib.contextmanager
def entered(face: Face, lock: Lock) -> Iterator[Lock]:
    """``with lock`` or ``async with lock``."""
    if not isinstance(face, AsyncFace):
        with lock as lease:
            yield lease
        return
    lease = face._runner.run(lock.__aenter__())
    try:
        yield lease
    except BaseException as error:
        face._runner.run(lock.__aexit__(type(error), error, error.__traceback__))
        raise
    face._runner.run(lock.__aexit__(None, None, None))


def wait_until(condition: Callable[[], bool]) -> None:
    until_s = monotonic() + 20
    while not condition():
        assert monotonic() < until_s


@covers("lock")
def test_a_lock_is_held_by_one_and_its_tokens_grow(face: Face) -> None:
    tokens = []
    for _ in range(5):
        lock = face.lock("job", timeout=30)
        with entered(face, lock) as lease:
            assert lease is lock
            tokens.append(lease.token)
            assert call(face, lease, "owned") is True
            other = face.lock("job", wait=0)
            assert call(face, other, "acquire") is False
            assert (call(face, other, "owned"), call(face, other, "locked")) == (False, True)
            assert about(face.pttl("lock:job"), 30_000)
        assert call(face, lock, "locked") is False
        with pytest.raises(LockLost):
            lock.token  # noqa: B018
    assert tokens == sorted(set(tokens)) and all(type(token) is int and token > 0 for token in tokens)


@covers("lock")
def test_others_get_an_error_or_false_within_their_time(face: Face) -> None:
    holder, other = face.lock("job"), face.lock("job", wait=0.05)
    assert call(face, holder, "acquire", 0) is True
    started_s = monotonic()
    with pytest.raises(LockNotAcquired, match="'job'"), entered(face, other):
        pytest.fail("two hold one lock")
    assert call(face, other, "acquire", timedelta(milliseconds=20)) is False
    assert 0.07 <= monotonic() - started_s < 5
    assert call(face, holder, "acquire", 0) is False  # not reentrant, and nothing of the lease changes
    assert call(face, holder, "owned") is True
    with pytest.raises(LockLost):
        call(face, other, "release")
    assert call(face, holder, "owned") is True
    call(face, holder, "release")
    assert call(face, other, "acquire", 0) is True


@covers("lock")
def test_a_lease_that_is_over_is_lost(face: Face) -> None:
    lock = face.lock("job", timeout=0.02)
    with pytest.raises(LockLost, match="over before"):
        with entered(face, lock) as lease:
            first = lease.token
            wait_until(lambda: not call(face, lock, "owned"))
            with pytest.raises(LockLost, match="not extended"):
                call(face, lock, "extend", 30)
            other = face.lock("job")
            assert call(face, other, "acquire") is True
            assert other.token > first
    assert call(face, other, "owned") is True, "the loser must not take the lock from its new holder"
    with pytest.raises(ZeroDivisionError), entered(face, face.lock("second", timeout=0.001)) as lease:
        wait_until(lambda: not call(face, lease, "owned"))
        raise ZeroDivisionError


@covers("lock")
def test_extend_gives_a_lease_more_time_and_keeps_its_token(face: Face) -> None:
    with entered(face, face.lock("job", timeout=5)) as lease:
        token = lease.token
        call(face, lease, "extend", 60)
        assert about(face.pttl("lock:job"), 60_000) and call(face, lease, "owned")
        call(face, lease, "extend")
        assert about(face.pttl("lock:job"), 5_000) and lease.token == token
        call(face, lease, "release")  # leaving the block has nothing left to do
    with pytest.raises(LockLost):
        call(face, lease, "extend")
    assert face.list_keys() == []


@covers("lock")
def test_waiting_ends_when_the_lease_does(face: Face) -> None:
    assert call(face, face.lock("job", timeout=0.1), "acquire") is True
    with entered(face, face.lock("job", wait=20)) as lease:
        assert lease.token
    assert face.list_keys() == []


@covers("lock")
def test_locks_keep_to_their_names_versions_and_caches(make_face: MakeFace) -> None:
    face, other_database, other_prefix = make_face(), make_face(1), make_face(params={"KEY_PREFIX": "p"})
    locks = [
        face.lock("a"),
        face.lock("b"),
        face.lock("a", version=2),
        other_database.lock("a"),
        other_prefix.lock("a"),
    ]
    assert [call(face, lock, "acquire", 0) for lock in locks] == [True] * 5
    for lock in locks:
        call(face, lock, "release")


@covers("lock", "get_or_set")
def test_locks_and_single_flight_tell_their_status(face: Face) -> None:
    lock = face.lock("job", timeout=0.5)

    def status(method: Callable[..., Any], *args: Any) -> Status:
        try:
            if isinstance(face, AsyncFace):
                face._runner.run(face._noting(method(*args)))
            else:
                method(*args)
        except LockLost:
            pass
        return face.status_of_last_call

    prefix = "a" if isinstance(face, AsyncFace) else ""
    assert status(getattr(lock, f"{prefix}acquire")) is Status.SUCCESS
    assert status(getattr(face.lock("job"), f"{prefix}acquire"), 0) is Status.FAILED
    assert status(getattr(lock, f"{prefix}extend")) is Status.SUCCESS
    face.delete("lock:job")
    assert status(getattr(lock, f"{prefix}release")) is Status.FAILED
    face.get("missing")
    face.get_or_set("k", "v", stale_timeout=5)
    assert face.status_of_last_call is Status.SUCCESS


@covers("lock")
def test_bad_arguments_of_locks_are_refused(face: Face) -> None:
    for bad in (None, 0, -1, float("inf"), float("nan"), True, "5", 0.0001):
        with pytest.raises(InvalidArgument):
            face.lock("job", timeout=bad)
    for bad in (-1, float("inf"), True, "5", None):
        with pytest.raises(InvalidArgument):
            face.lock("job", wait=bad)
    for bad in (None, "", b"job", "j" * 1020):
        with pytest.raises(InvalidKey), pytest.warns() if bad and len(bad) > 250 else contextlib.nullcontext():
            face.lock(bad)
    lock = face.lock("job")
    with pytest.raises(InvalidArgument):
        call(face, lock, "acquire", -1)
    with pytest.raises(LockLost):
        call(face, lock, "extend")
    assert face.list_keys() == []


# ------------------------------------------------------------------------------------------------- single flight


@covers("get_or_set")
@pytest.mark.parametrize("options", [{"lock": True}, {"lock": 5}, {"stale_timeout": 60}], ids=str)
def test_get_or_set_with_a_lock_answers_as_without(face: Face, options: dict[str, Any]) -> None:
    made: list[int] = []

    def make() -> int:
        made.append(1)
        return len(made)

    assert [face.get_or_set("k", make, 30, **options) for _ in range(3)] == [1, 1, 1]
    assert face.get("k") == 1
    assert about(face.pttl("k"), 30_000 + 1000 * options.get("stale_timeout", 0))
    assert face.get_or_set("plain", "value", None, **options) == "value" and face.ttl("plain") is None
    assert face.get_or_set("none", lambda: None, **options) is None
    assert face.get_or_set("none", "other", **options) is None, "a stored None is there"
    assert [face.get_or_set("gone", make, 0, **options) for _ in range(2)] == [2, 3], "timeout 0 stores nothing"
    assert face.get_or_set("k", make, 30, 2, **options) == 4
    assert face.list_keys() == ["k", "none", "plain"], "no lease is left"


@covers("get_or_set")
def test_a_maker_that_fails_gives_the_lease_back(face: Face) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        face.get_or_set("k", fail, lock=True)
    assert face.list_keys() == []
    with pytest.raises(CannotSerialize):
        face.get_or_set("k", lambda: fail, lock=True)
    assert face.list_keys() == []
    assert face.get_or_set("k", "fine", lock=True) == "fine"


@covers("get_or_set", "pttl")
def test_a_stale_value_is_made_anew_by_one_and_given_to_the_others(face: Face) -> None:
    assert face.get_or_set("k", "old", 0.001, stale_timeout=60) == "old"
    wait_until(lambda: face.pttl("k") <= 60_000)
    # Somebody makes the new value:
    face.set("flight:k", "somebody", 30)
    assert face.get_or_set("k", "new", 30, stale_timeout=60) == "old"
    face.delete("flight:k")
    # Nobody does:
    assert face.get_or_set("k", "new", 30, stale_timeout=60) == "new"
    assert face.get_or_set("k", "newer", 30, stale_timeout=60) == "new"
    assert about(face.pttl("k"), 90_000)


@covers("get_or_set")
def test_a_maker_that_died_is_replaced_and_patience_ends(face: Face) -> None:
    face.set("flight:k", "died", 0.1)
    assert face.get_or_set("k", "made", lock=30) == "made" and face.get("k") == "made"
    face.set("flight:l", "works too long", 30)
    started_s = monotonic()
    assert face.get_or_set("l", "made", lock=0.05) == "made"
    assert 0.1 <= monotonic() - started_s < 10
    assert face.get("l") is None, "it had no lease, so it stored nothing"


@covers("get_or_set")
def test_a_maker_that_outlives_its_lease_stores_only_over_what_it_saw(face: Face) -> None:
    def slow() -> str:
        wait_until(lambda: not face.cache.has_key("flight:k"))
        return "slow"

    assert face.get_or_set("k", slow, 60, lock=0.01) == "slow"
    assert face.get("k") == "slow"
    face.delete("k")

    def overtaken() -> str:
        wait_until(lambda: not face.cache.has_key("flight:k"))
        face.cache.set("k", "newer")
        return "overtaken"

    assert face.get_or_set("k", overtaken, 60, lock=0.01) == "overtaken"
    assert face.get("k") == "newer"


@covers("get_or_set")
@pytest.mark.parametrize(("meanwhile", "kept"), [(None, "slow"), ("newer", "newer")])
def test_the_same_goes_for_a_maker_of_a_new_value_over_a_stale_one(
    face: Face, meanwhile: str | None, kept: str
) -> None:
    face.set("k", "stale", 30)

    def slow() -> str:
        wait_until(lambda: not face.cache.has_key("flight:k"))
        if meanwhile:
            face.cache.set("k", meanwhile, 90)
        return "slow"

    assert face.get_or_set("k", slow, 60, lock=0.01, stale_timeout=60) == "slow"
    assert face.get("k") == kept


@covers("get_or_set")
@pytest.mark.filterwarnings("ignore::django.core.cache.backends.base.CacheKeyWarning")
def test_keys_of_every_length_and_kind_have_a_lease(face: Face) -> None:
    for key in ("k" * 1000, "with spaces", "ü" * 400, 17):
        assert face.get_or_set(key, "v", lock=True) == "v" == face.get(key)
    for bad in (None, "", b"k", "k" * 1022):
        with pytest.raises(InvalidKey):
            face.get_or_set(bad, "v", stale_timeout=5)


@covers("get_or_set")
def test_bad_arguments_of_single_flight_are_refused(face: Face) -> None:
    for bad in ({"lock": 0}, {"lock": "x"}, {"lock": float("inf")}, {"stale_timeout": -1}, {"stale_timeout": True}):
        with pytest.raises(InvalidArgument):
            face.get_or_set("k", "v", **bad)
    with pytest.raises(InvalidArgument, match="lock"):
        face.get_or_set("k", "v", lock=False, stale_timeout=5)
    assert face.list_keys() == []


@covers("get_or_set")
def test_culling_goes_on_with_single_flight(make_face: MakeFace) -> None:
    face = make_face(MAX_ENTRIES=10)
    for number in range(40):
        assert face.get_or_set(f"k{number}", number, lock=True) == number
        assert face.count() <= 10


def test_an_awaitable_default_is_awaited(face: Face) -> None:
    if not isinstance(face, AsyncFace):
        return

    async def make() -> str:
        await asyncio.sleep(0)
        return "made"

    assert face.get_or_set("k", make, lock=True) == "made" == face.get("k")


# ------------------------------------------------------------------------------------------------- memoize


@covers("memoize")
def test_memoize_calls_a_function_once_per_arguments(face: Face) -> None:
    calls: list[Any] = []

    def work(a: int, b: str = "x", *more: int, **named: int) -> Any:
        calls.append((a, b, more, named))
        return None if a == 0 else a

    async def awork(a: int, b: str = "x", *more: int, **named: int) -> Any:
        return work(a, b, *more, **named)

    is_async = isinstance(face, AsyncFace)
    function = face.memoize(60, prefix="work")(awork if is_async else work)
    run = face._runner.run if is_async else lambda result: result
    assert asyncio.iscoroutinefunction(function) is is_async

    assert [run(function(1)), run(function(1, "x")), run(function(b="x", a=1))] == [1, 1, 1]
    assert [run(function(0)), run(function(0))] == [None, None], "a cached None is one"
    assert len(calls) == 2
    run(function(1, "x", 2, z=3, y=4))
    run(function(1, "x", 2, y=4, z=3))
    assert len(calls) == 3
    assert function.cache_key(1) == "work(a=1,b='x',more=(),named={})" and face.get(function.cache_key(1)) == 1
    assert about(face.pttl(function.cache_key(1)), 60_000)
    assert run(function.uncached(1)) == 1 and len(calls) == 4
    assert [call(face, function, "invalidate", 1), call(face, function, "invalidate", 1)] == [True, False]
    assert run(function(1)) == 1 and len(calls) == 5


@covers("memoize")
def test_memoize_passes_its_options_on(face: Face) -> None:
    def work() -> str:
        return "made"

    async def awork() -> str:
        return "made"

    is_async = isinstance(face, AsyncFace)
    function = face.memoize(30, prefix="w", version=3, lock=5, stale_timeout=60)(awork if is_async else work)
    assert (face._runner.run(function()) if is_async else function()) == "made"
    assert face.get("w()") is None and about(face.pttl("w()", version=3), 90_000)
    assert call(face, function, "invalidate") is True
    assert face.list_keys(version=3) == []

"""``on_error``: what every public method does while the store cannot be reached."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from django_keyspace.backend import KeyspaceCache, degrade
from django_keyspace.exceptions import MissingKey, NoConnection, NoSpace, StorageError, UnknownOutcome
from django_keyspace.operations import OPERATIONS
from django_keyspace.status import Status
from tests.contract.faces import AsyncFace, Face
from tests.contract.test_coverage import NOT_OPERATIONS, public_names

pytestmark = pytest.mark.contract

RAISES = "raises the outage"
MISSING = "raises MissingKey"

ANSWERS: dict[str, tuple[tuple[Any, ...], Any]] = {
    "get": (("k", "default"), "default"),
    "set": (("k", 1), False),
    "add": (("k", 1), False),
    "get_many": ((["k", "l"],), {}),
    "set_many": (({"k": 1, "l": 2},), ["k", "l"]),
    "touch": (("k",), False),
    "delete": (("k",), False),
    "delete_many": ((["k"],), None),
    "has_key": (("k",), False),
    "incr": (("k",), MISSING),
    "decr": (("k",), MISSING),
    "incr_version": (("k",), MISSING),
    "decr_version": (("k",), MISSING),
    "clear": ((), 0),
    "get_or_set": (("k", "made"), "made"),
    "close": ((), None),
    "ttl": (("k",), 0),
    "pttl": (("k",), 0),
    "expire": (("k", 5), False),
    "expire_at": (("k", 9e9), False),
    "persist": (("k",), False),
    "incr_float": (("k",), MISSING),
    "incr_double": (("k",), MISSING),
    "append": (("k", "x"), 0),
    "get_with_revision": (("k", "default"), ("default", 0)),
    "cas": (("k", None, 1), False),
    "test_and_set": (("k", None, 1), None),
    "rename": (("k", "l"), False),
    "remove": (("k", "default"), "default"),
    "pop": (("k", "default"), "default"),
    "length": (("k",), None),
    "prune": (("k",), 0),
    "list_keys": (("k",), []),
    "list_key_values": (("k",), {}),
    "count": (("k",), 0),
    "keys": (("k*",), []),
    "iter_keys": (("k*",), []),
    "delete_pattern": (("*k",), 0),
    "set_expiry": (("k", 5), False),
    "remove_expiry": (("k",), 0),
    "clear_expiries": ((), 0),
    "replace": (("k", 1), False),
    "exists": (("k",), False),
    "seize": (("k", "default"), "default"),
    "get_bulk": ((["k", "l"],), {}),
    "set_bulk": (({"k": 1, "l": 2},), 0),
    "remove_bulk": ((["k"],), 0),
    "list_keyvalues": (("k",), {}),
    "dirty_get": (("k", "default"), "default"),
    "dirty_list_keys": (("k",), []),
    "dirty_list_key_values": (("k",), {}),
    "dirty_list_keyvalues": (("k",), {}),
    "dirty_count": (("k",), 0),
    "match_prefix": (("k",), []),
    "match_regex": (("k",), []),
    "match_similar": (("k",), []),
    "script": (("f",), RAISES),
    "load_script": (("x = 1",), RAISES),
    "status": ((), RAISES),
    "report": ((), RAISES),
    "size": ((), RAISES),
    "members": ((), RAISES),
}
"""Arguments, and the answer with ``on_error="miss"``."""

NOT_CALLS = {"batch", "atomic", "last_status", "last_read", "shutdown"}


def nothing_to_wait_for() -> None:
    """There is no place."""


class BrokenEngine:
    """An engine that is out of reach."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def execute(self, name: str, *arguments: Any) -> Any:
        raise self._error

    read = execute

    async def aexecute(self, name: str, *arguments: Any) -> Any:
        raise self._error

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture(params=["sync", "async"])
def broken(request: pytest.FixtureRequest, store_folder: Path) -> Iterator[Callable[..., Face]]:
    """Makes a cache whose engine raises, by one of its faces."""
    with asyncio.Runner() as runner:

        def make(error: Exception, **options: Any) -> Face:
            cache = KeyspaceCache(str(store_folder), {"OPTIONS": options})
            cache._runtime.engine = engine = BrokenEngine(error)
            cache._do, cache._ado, cache._read, cache._write = (
                engine.execute,
                engine.aexecute,
                engine.read,
                engine.execute,
            )
            if request.param == "sync":
                return Face(cache, set(), nothing_to_wait_for)
            return AsyncFace(cache, set(), nothing_to_wait_for, runner)

        yield make


def test_every_public_method_and_every_operation_is_in_the_tables() -> None:
    methods = {name for name in public_names(KeyspaceCache) - NOT_OPERATIONS if f"a{name}" in dir(KeyspaceCache)}
    assert methods - NOT_CALLS == set(ANSWERS)
    assert set(degrade.MISS_ANSWERS) == set(OPERATIONS) - {
        "status", "members", "atomic", "script", "sweep", "evict", "once", "expire_sessions",
    }  # fmt: skip


@pytest.mark.parametrize("method", ANSWERS)
@pytest.mark.parametrize("error", [StorageError("disk"), UnknownOutcome("lost")], ids=["storage", "unknown"])
def test_errors_are_raised_by_default(broken: Callable[..., Face], method: str, error: Exception) -> None:
    face = broken(error)
    if method == "close":
        assert face.close() is None
        return
    with pytest.raises(type(error)):
        getattr(face, method)(*ANSWERS[method][0])
    if method not in ("iter_keys",):
        assert face.status_of_last_call is Status.NOSERVICE


@pytest.mark.parametrize("culling", [False, True], ids=["plain", "culling"])
@pytest.mark.parametrize("method", ANSWERS)
def test_an_outage_is_a_miss_if_so_configured(broken: Callable[..., Face], method: str, culling: bool) -> None:
    error = NoConnection("gone")
    face = broken(error, on_error="miss", **({"MAX_ENTRIES": 10} if culling else {}))
    args, wanted = ANSWERS[method]
    if wanted in (RAISES, MISSING):
        with pytest.raises(MissingKey if wanted == MISSING else NoConnection):
            getattr(face, method)(*args)
    else:
        assert getattr(face, method)(*args) == wanted
    if method not in ("close", "iter_keys"):
        assert face.status_of_last_call is Status.NOSERVICE


def test_the_callers_own_errors_are_raised_in_any_case(broken: Callable[..., Face]) -> None:
    face = broken(MissingKey("nothing"), on_error="miss")
    with pytest.raises(MissingKey):
        face.incr("k")
    assert face.cache._runtime.outages.counts == {}


@pytest.mark.parametrize("on_error", ["miss", "raise"])
def test_nobody_wins_a_block(broken: Callable[..., Face], on_error: str) -> None:
    face = broken(NoSpace("full"), on_error=on_error)
    with pytest.raises(NoSpace), face.block("atomic") as a:
        a.set("k", 1)
    if on_error == "raise":
        with pytest.raises(NoSpace), face.block("batch") as b:
            b.set("k", 1)
        return
    with face.block("batch") as b:
        reply = b.set("k", 1)
    with pytest.raises(NoSpace):
        reply.result  # noqa: B018
    assert reply.status is Status.NOSERVICE


def test_outages_are_counted_and_logged_once_in_a_while(
    broken: Callable[..., Face], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 1000.0
    monkeypatch.setattr(degrade, "monotonic", lambda: now_s)
    face = broken(StorageError("disk gone"), on_error="miss")
    with caplog.at_level(logging.ERROR, "django_keyspace.backend"):
        for _ in range(5):
            face.get("k")
        assert len(caplog.records) == 1 and "disk gone" in caplog.text
        now_s += degrade.LOG_INTERVAL_S
        face.get("k")
    assert len(caplog.records) == 2
    assert face.cache._runtime.outages.counts == {"storage": 6}

"""Hostile scripts: none takes the process, a write or another caller with it, and each says why it was stopped."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_keyspace.exceptions import (
    ScriptError,
    ScriptFailed,
    ScriptLimit,
    ScriptSyntaxError,
    ScriptTimeout,
)
from django_keyspace.store import Store
from django_keyspace.store.record import Tag
from django_keyspace.store.scripting import database, pool
from tests.script.hostile import ENDLESS, GREEDY, NOT_LUA, REFUSED, TAMPERING

SHORT_MS = 150
AT_A_TIME = 6
"""Hostile scripts of a test: a test for each would spend its time on its store."""

SANE = """
function f()
  local names = {}
  for name, value in pairs(_G) do
    names[#names + 1] = name .. ":" .. type(value)
  end
  for _, library in ipairs({"string", "table", "math", "utf8", "coroutine", "os"}) do
    for name, value in pairs(_G[library]) do
      names[#names + 1] = library .. "." .. name .. ":" .. type(value)
    end
  end
  table.sort(names)
  return {names, string.rep("x", 3), math.type(1), db:get("kept"), hget({table_key = "h", key = "a"}), #table.concat(names)}
end
"""


def batches(table: dict[str, str]) -> list[Any]:
    """The scripts of a table, some at a time."""
    names = list(table)
    groups = [names[start : start + AT_A_TIME] for start in range(0, len(names), AT_A_TIME)]
    return [pytest.param({name: table[name] for name in group}, id=f"{group[0]} ...") for group in groups]


@pytest.fixture
def kept(store: Store) -> Iterator[Callable[[], dict[bytes, bytes]]]:
    """Puts a record into the store, and answers all records; they must be the same in the end."""
    store.write("set", 0, b"kept", (int(Tag.TEXT), 0, b"value"), None, "always")

    def everything() -> dict[bytes, bytes]:
        rows, _ = store.read("list", 0, b"", b"", False, True, 1000, True)
        return dict(rows)

    before = everything()
    assert list(before) == [b"kept"]
    yield everything
    assert everything() == before


def wrapped(body: str) -> str:
    return f"function f() db:set('kept', 'spoiled') db:set('new', 1); {body} end"


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that are reached soon: how large they are is not what is tried here."""
    monkeypatch.setattr(pool, "MEMORY_BYTES", 24 * 2**20)
    monkeypatch.setattr(database, "QUESTIONS_MAX", 2000)
    monkeypatch.setattr(database, "BATCH_OPERATIONS_MAX", 500)
    monkeypatch.setattr(database, "WRITTEN_BYTES_MAX", 8 * 2**20)


def test_there_are_enough_of_them() -> None:
    assert sum(map(len, (ENDLESS, GREEDY, REFUSED, NOT_LUA, TAMPERING))) >= 150


@pytest.mark.parametrize("scripts", batches(ENDLESS))
def test_endless(run: Callable[..., Any], kept: Callable[[], Any], scripts: dict[str, str]) -> None:
    for name, body in scripts.items():
        with pytest.raises((ScriptTimeout, ScriptLimit)) as caught:
            run(wrapped(body), time_ms=SHORT_MS)
        assert "Nothing was changed" in str(caught.value), name


@pytest.mark.parametrize("scripts", batches(GREEDY))
def test_greedy(run: Callable[..., Any], kept: Callable[[], Any], small_limits: None, scripts: dict[str, str]) -> None:
    for name, body in scripts.items():
        with pytest.raises((ScriptLimit, ScriptFailed)) as caught:
            run(wrapped(body))
        assert "Nothing was changed" in str(caught.value), name


@pytest.mark.parametrize("scripts", batches(REFUSED))
def test_refused(run: Callable[..., Any], kept: Callable[[], Any], scripts: dict[str, str]) -> None:
    for name, body in scripts.items():
        with pytest.raises(ScriptError) as caught:
            run(wrapped(body))
        assert isinstance(caught.value, ScriptFailed | ScriptLimit), name
        assert "Nothing was changed" in str(caught.value), name
        assert len(str(caught.value)) < 10_000, name


@pytest.mark.parametrize("scripts", batches(NOT_LUA))
def test_not_lua(run: Callable[..., Any], kept: Callable[[], Any], scripts: dict[str, str]) -> None:
    for name, text in scripts.items():
        with pytest.raises(ScriptSyntaxError) as caught:
            run(f"db:set('kept', 'spoiled') {text}" if name != "bytecode" else text)
        assert "Nothing was changed" in str(caught.value), name


@pytest.mark.parametrize("name", TAMPERING)
def test_nothing_leaks_into_the_next_script(run: Callable[..., Any], store: Store, name: str) -> None:
    store.write("set", 0, b"kept", (int(Tag.TEXT), 0, b"value"), None, "always")
    before = run(SANE)
    assert before[3] == "value"
    run(f"function f() {TAMPERING[name]} end")
    assert run(SANE) == before


def test_others_go_on_while_a_script_does_not_end(run: Callable[..., Any], store: Store) -> None:
    """Reads, writes and other scripts, while one holds a worker until it is stopped."""
    ended: list[Exception] = []

    def hostile() -> None:
        try:
            run(wrapped("while true do end"))
        except ScriptLimit as error:
            ended.append(error)

    run("function f() end")  # a worker is there
    thread = threading.Thread(target=hostile)
    thread.start()
    try:
        for number in range(200):
            store.write("set", 0, b"other", (int(Tag.INTEGER), 0, b"%d" % number), None, "always")
            assert store.read("exists", 0, b"other")
        for number in range(20):
            assert run("function f() return db:increment('mine') end") == number + 1
        assert thread.is_alive() and not ended  # all of that while the other one ran
    finally:
        for (
            pid
        ) in pool.pool.pids():  # an end to it before its time: the process goes, as it would in a shortage of memory
            os.kill(pid, signal.SIGKILL)
        thread.join(60)
    assert len(ended) == 1
    assert store.read("get", 0, b"new") is None

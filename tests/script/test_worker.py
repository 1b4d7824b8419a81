"""The worker's own code, in this process: what it answers, and what it gives up before it runs anything."""

from __future__ import annotations

import os
import types
from pathlib import Path
from typing import Any

import pytest
from lupa import lua54

from django_keyspace.store.scripting import worker
from django_keyspace.store.scripting.values import decode, encode

MIB = 2**20
HERE = Path(worker.__file__).parent


@pytest.fixture
def frames(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, bytes]]:
    """What the worker sends. Its limit of processor time would be this process's."""
    sent: list[tuple[bytes, bytes]] = []
    monkeypatch.setattr(worker, "write_frame", lambda letter, data: sent.append((letter, data)))
    monkeypatch.setattr(worker, "_limit_cpu", lambda cpu_s: None)
    return sent


@pytest.fixture(scope="module")
def prelude() -> bytes:
    return worker.compiled(b"".join(worker._source(str(HERE), name) for name in worker._PRELUDE), lua54.LuaRuntime)


@pytest.fixture(scope="module")
def libraries() -> worker.Libraries:
    return worker.Libraries(str(HERE / "library"), lua54.LuaRuntime)


def order(source: str, *arguments: Any, memory_bytes: int = 16 * MIB, function: str = "f") -> bytes:
    request = encode([[("test.lua", source)], "kyoto", function]) + encode(list(arguments))
    return worker._ORDER.pack(memory_bytes, 5) + request


def test_orders_are_carried_out_until_the_input_ends(
    frames: list[Any], prelude: bytes, libraries: worker.Libraries, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [encode(41), b"Eno"]
    monkeypatch.setattr(worker, "read_frame", lambda: answers.pop(0))
    orders = [
        order("function f(a) return db:get('k') + a end", 1),
        order("function f() return db:get('k') end"),
        order("function f() local t = {} while true do t[#t + 1] = ('x'):rep(1e5) .. #t end end"),
        order("function f("),
        order("", function="no_such"),
    ]

    def read() -> bytes:
        if not orders:
            raise EOFError
        return orders.pop(0)

    with pytest.raises(EOFError):
        worker.serve(read, lambda each: worker.run(each, prelude, libraries, lua54))
    assert [letter for letter, _ in frames] == [b"K", b"C", b"R", b"C", b"X", b"X", b"X", b"X"]
    assert decode(frames[2][1]) == 42
    assert [content.partition(b"\0")[0] for letter, content in frames if letter == b"X"] == [
        b"failed",
        b"limit",
        b"syntax",
        b"unknown",
    ]


def test_no_memory_at_all_is_a_limit(frames: list[Any], prelude: bytes, libraries: worker.Libraries) -> None:
    assert worker.run(order("function f() end", memory_bytes=1000), prelude, libraries, lua54)[0] == b"X"


def test_libraries(libraries: worker.Libraries) -> None:
    assert b"\nkyoto.hset kyoto/hashes.lua\n" in libraries.index
    assert b"\ntokyo.seize tokyo/records.lua\n" in libraries.index
    assert libraries.fetch(b"kyoto/hashes.lua").startswith(b"-- Hashes")
    assert libraries.fetch(b"../values.py") == libraries.fetch(7) == b""


def test_python_has_no_attributes_for_lua() -> None:
    runtime = lua54.LuaRuntime(encoding=None, attribute_filter=worker.refuse_attribute)
    with pytest.raises(AttributeError):
        runtime.execute(b"local f = ... return f.__globals__", worker.run)


def test_what_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    given: dict[Any, tuple[int, int]] = {}

    def setrlimit(number: int, limits: tuple[int, int]) -> None:
        if number == resource.RLIMIT_CORE:
            raise ValueError("not here")
        given[number] = limits

    fake = types.SimpleNamespace(
        **{
            name: getattr(resource, name)
            for name in dir(resource)
            if name.startswith("RLIMIT_") or name == "RLIM_INFINITY"
        },
        RUSAGE_SELF=resource.RUSAGE_SELF,
        getpagesize=resource.getpagesize,
        getrusage=resource.getrusage,
        getrlimit=lambda number: (
            resource.RLIM_INFINITY,
            7 if number == resource.RLIMIT_NPROC else resource.RLIM_INFINITY,
        ),
        setrlimit=setrlimit,
    )
    monkeypatch.setitem(__import__("sys").modules, "resource", fake)
    worker.close_in(64 * MIB)
    assert given[resource.RLIMIT_NOFILE] == given[resource.RLIMIT_FSIZE] == given[resource.RLIMIT_NPROC] == (0, 0)
    if os.path.exists("/proc/self/statm"):
        assert given[resource.RLIMIT_AS][0] > 4 * 64 * MIB
    worker._limit_cpu(3)
    soft, hard = given[resource.RLIMIT_CPU]
    assert soft >= 4 and hard == resource.RLIM_INFINITY
    worker._limit(fake, "RLIMIT_NONE", 0, 0)


def test_a_worker_says_why_it_is_not_ready(frames: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "close_in", lambda memory_bytes_max: (_ for _ in ()).throw(OSError("no limits here")))
    monkeypatch.setattr(worker.sys, "path", list(worker.sys.path))
    worker.main(["/no/such/folder", str(64 * MIB)])
    assert frames == [(b"E", b"OSError('no limits here')")]

"""Scripts over every engine: the operation, the cache's methods, and what is stored when something goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from django_keyspace.exceptions import (
    InvalidArgument,
    KeyTooLong,
    NotSupported,
    ScriptFailed,
    ScriptLimit,
    ScriptSyntaxError,
    ScriptTimeout,
    UnknownScript,
)
from django_keyspace.store.record import Tag, unpack_header
from django_keyspace.store.scripting import script_call, script_result
from tests.contract.faces import Face

pytestmark = pytest.mark.contract

LONG_MS = 60_000


def source(text: str) -> list[tuple[str, str]]:
    return [("test.lua", text)]


@pytest.mark.covers("script")
def test_a_function_is_called_and_what_it_writes_is_stored(do: Callable[..., Any]) -> None:
    text = "function f(a) db:set('made', a.value) return {db:get('made'), db:count()} end"
    call = script_call(2, "f", {"value": b"\xff"}, sources=source(text), time_ms=LONG_MS)
    assert script_result(do(*call), text=False) == [b"\xff", 1]
    assert unpack_header(do("get", 2, b"made"))[:2] == (Tag.BYTES, 0)
    assert do("get", 0, b"made") is None


@pytest.mark.covers("script")
def test_arguments_come_as_a_table_or_one_by_one(do: Callable[..., Any]) -> None:
    text = "function f(...) return {select('#', ...), (...)} end"
    for arguments, wanted in (([1, None, None], [3, 1]), ([], [0]), ({"a": 1}, [1, {"a": 1}]), (None, [1, {}])):
        call = script_call(0, "f", arguments, sources=source(text), time_ms=LONG_MS)
        assert script_result(do(*call)) == wanted


@pytest.mark.covers("script")
@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("function f() db:set('k', 'new') error('no') end", ScriptFailed),
        ("function f() db:set('k', 'new') while true do end end", ScriptTimeout),
        (
            "function f() db:set('k', 'new') local t = {} while true do t[#t + 1] = ('x'):rep(1e6) .. #t end end",
            ScriptLimit,
        ),
        ("function f() db:set('k', 'new') return f end", ScriptFailed),
        ("function f() db:set('k', 'new') return ('x'):rep(9e6) end", ScriptLimit),
        ("function f(", ScriptSyntaxError),
        ("db:set('k', 'new')", UnknownScript),
    ],
)
def test_what_fails_changes_nothing(do: Callable[..., Any], text: str, error: type[Exception]) -> None:
    do("set", 0, b"k", (int(Tag.TEXT), 0, b"old"), None, "always")
    before = do("get", 0, b"k")
    time_ms = 300 if error is ScriptTimeout else LONG_MS
    with pytest.raises(error, match=r"[Nn]othing was changed"):
        do(*script_call(0, "f", sources=source(text), time_ms=time_ms))
    assert do("get", 0, b"k") == before


@pytest.mark.covers("script")
def test_the_operation_is_checked(do: Callable[..., Any]) -> None:
    good = script_call(0, "f", sources=source("function f() end"))
    for position, bad in ((1, 99), (3, [("", "")]), (4, "redis"), (6, b"?"), (9, 60_001)):
        with pytest.raises(InvalidArgument):
            do(*good[:position], bad, *good[position + 1 :])


@pytest.mark.covers("script", "load_script")
def test_a_script_sees_the_users_keys(face: Face) -> None:
    assert face.load_script(
        "function f() for k, v in db:each() do db:set(k, v + 1, 'keep') end return db:match_prefix('') end"
    ) == ["f"]
    face.set("one", 1, version=1)
    face.set("two", 2, 1000, version=2)
    assert face.script("f", time_ms=LONG_MS) == ["one"]
    assert face.script("f", version=2, time_ms=LONG_MS) == ["two"]
    assert (face.get("one"), face.get("two", version=2)) == (2, 3)
    assert face.ttl("two", version=2) > 900


@pytest.mark.covers("script")
def test_records_of_a_script_are_the_caches(face: Face) -> None:
    face.script("hset", {"table_key": "h", "key": "a", "value": "1"}, time_ms=LONG_MS)
    assert face.script("hgetall", {"table_key": "h"}, time_ms=LONG_MS) == {"a": "1"}
    assert face.clear() == 1  # what caches write may be evicted and cleared


@pytest.mark.covers("load_script")
def test_a_source_that_is_not_right_is_not_loaded(face: Face) -> None:
    assert face.load_script("function f() return 1 end") == ["f"]
    for bad, error in (("function f(", ScriptSyntaxError), ("error('top')", ScriptFailed), (b"x", InvalidArgument)):
        with pytest.raises(error):
            face.load_script(bad)
    assert face.script("f", time_ms=LONG_MS) == 1
    assert face.load_script("function g() return f() + 1 end", "other.lua") == ["g"]
    assert face.script("g", time_ms=LONG_MS) == 2
    assert face.load_script("function f() return 5 end") == ["f"]
    assert face.script("g", time_ms=LONG_MS) == 6


@pytest.mark.covers("script")
def test_wrong_calls(face: Face, make_face: Callable[..., Face]) -> None:
    for function, arguments in (
        ("", {}),
        (None, {}),
        ("f", "text"),
        ("f", {"a": object()}),
        ("f", {"a": 2**63}),
        ("f", {1.5: 1}),
    ):
        with pytest.raises(InvalidArgument):
            face.script(function, arguments)
    with pytest.raises(UnknownScript):
        face.script("no_such_function", time_ms=LONG_MS)
    with pytest.raises(NotSupported):
        make_face(params={"KEY_FUNCTION": lambda key, prefix, version: key}).script("hlen", {"table_key": "h"})


@pytest.mark.covers("script")
def test_errors_of_the_database_are_the_scripts(face: Face) -> None:
    face.load_script("function f(a) return db:set(a.key, 1) end function g(a) return pcall(f, a) end")
    with pytest.raises(ScriptFailed, match="limit is 1,024"):
        face.script("f", {"key": "k" * 1025}, time_ms=LONG_MS)
    assert face.script("g", {"key": "k" * 1025}, time_ms=LONG_MS) is False
    assert issubclass(KeyTooLong, InvalidArgument)

"""Lua functions as kt's clients call them. What scripts may and may not do is tried in tests/scripting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from django_keyspace.exceptions import CannotSerialize, UnknownScript
from django_keyspace.kyoto import (
    KT_JSON,
    KT_MSGPACK,
    KT_NONE,
    KT_PICKLE,
    EmbeddedServer,
    EmbeddedTokyoTyrantServer,
    KyotoTycoon,
    KyotoTycoonError,
    ProtocolError,
    Queue,
    ScriptError,
    TokyoTyrant,
)

Make = Callable[..., Any]


def test_values_in_and_out(db: KyotoTycoon) -> None:
    assert db.script("hmset", {"table_key": "h", "a": "1"}, b="2") == {"num": "2"}
    assert db.lua.hgetall(table_key="h") == {"a": "1", "b": "2"}
    assert db.lua.hget({"table_key": "h"}, key="a") == {"value": "1"}
    assert db.lua.hget(table_key="h", key="x") == {}
    assert db.script("hgetall", {"table_key": "h"}, encode_values=False) == {"a": b"1", "b": b"2"}
    assert db.script("hset", {"table_key": b"raw", "key": 7, "value": b"\xff"}, encode_values=False) == {"num": b"1"}


def test_a_script_has_the_database_that_is_named(db: KyotoTycoon) -> None:
    db.lua.hset(table_key="h", key="a", value="1", db=3)
    assert ("h", 3) in db and "h" not in db
    assert db.lua.hget(table_key="h", key="a", db=3) == {"value": "1"}
    assert db.set_database(3).lua.hlen(table_key="h") == {"num": "1"}
    with pytest.raises(ProtocolError):
        db.lua.hlen(table_key="h", db=99)


@pytest.mark.parametrize(
    ("serializer", "value"),
    [(KT_JSON, {"x": [1, None]}), (KT_MSGPACK, {"x": b"y"}), (KT_NONE, b"\xff"), (KT_PICKLE, "text")],
)
def test_values_go_through_the_serializer(serializer: str, value: Any, tycoon: Make) -> None:
    db = tycoon(serializer=serializer)
    db.script("hset", {"table_key": "h", "key": "a", "value": value})
    assert db.script("hget", {"table_key": "h", "key": "a"}) == {"value": value}


def test_pickles_do_not_go_into_scripts(tycoon: Make) -> None:
    with pytest.raises(CannotSerialize, match="pickled"):
        tycoon(serializer=KT_PICKLE).script("hset", {"table_key": "h", "key": "a", "value": {1}})


def test_functions_that_fail(db: KyotoTycoon, tt: TokyoTyrant) -> None:
    db["k"] = "v"
    with pytest.raises(ProtocolError) as raised:
        db.script("no such function")
    assert isinstance(raised.value, UnknownScript)
    with pytest.raises(ProtocolError):
        db.lua.move(src="missing", dest="k")
    with pytest.raises(ScriptError) as raised:
        tt.script("no such function", "k", "v")
    assert isinstance(raised.value, UnknownScript)
    assert db["k"] == "v" and len(db) == 1


def test_a_queue_is_the_same_from_lua(db: KyotoTycoon) -> None:
    queue = Queue(db, "jobs")
    queue.extend(["a", "b"])
    assert db.lua.queue_add(queue="jobs", data="c") == {"num": "3"}
    assert db.lua.queue_size(queue="jobs") == {"num": "3"}
    assert db.lua.queue_pop(queue="jobs") == {"0": "a"}
    assert queue.pop(5) == ["b", "c"]


def test_tokyos_functions(tt: TokyoTyrant) -> None:
    tt["x"] = "y"
    assert tt.script("seize", "x") == b"y" and "x" not in tt
    assert tt.script("queue_add", "q", "one") == b"ok"
    tt.script("queue_add", "q", "two")
    assert tt.script("queue_size", "q", as_int=True) == 2
    assert tt.script("queue_pop", "q", "2", as_list=True) == [b"one", b"two"]
    assert tt.script("queue_pop", "q", "2", as_list=True) == []


SOURCE = """
function echo(key, value) return key .. "\\t" .. value end
function yes() return "true" end
function no() return false end
function number() return 12 end
function empty() return "" end
function nothing() end
function nested() return {{}} end
function lines() return "a\\t1\\nb\\t2" end
function incr(parameters) return {n = db:increment(parameters.key), text = parameters.key} end
function list() return {"a", "b"} end
function deep() return {a = {1}} end
"""


@pytest.mark.node
def test_scripts_of_a_server(tmp_path: Path) -> None:
    """``server_args=["-scr", path]``, and every form of an answer."""
    file = tmp_path / "functions.lua"
    file.write_text(SOURCE)
    with EmbeddedTokyoTyrantServer(server_args=["-ext", str(file)]) as server:
        tt = server.client
        assert tt.script("echo", "k", "v") == b"k\tv"
        assert tt.script("echo", "k", 5) == b"k\t5"
        assert tt.script("echo", "k", decode_value=True) == "k\t"
        assert tt.script("yes") is True and tt.script("no") is False
        assert tt.script("number") == b"12" and tt.script("number", as_int=True) == 12
        assert (
            tt.script("empty", as_int=True),
            tt.script("empty", as_list=True),
            tt.script("empty", as_dict=True),
        ) == (None, [], {})
        assert tt.script("lines", as_dict=True) == {"a": b"1", "b": b"2"}
        assert tt.script("lines", as_list=True, decode_value=True) == ["a\t1", "b\t2"]
        for name in ("nothing", "nested"):
            with pytest.raises(ScriptError):
                tt.script(name)
        with pytest.raises(KyotoTycoonError):
            tt.script("yes", as_int=True)
    with EmbeddedServer(server_args=["-scr", str(file)]) as server:
        db = server.client
        assert [db.script("incr", key="n") for _ in range(2)] == [{"n": "1", "text": "n"}, {"n": "2", "text": "n"}]
        assert db["n"] == "2"
        assert db.script("list") == {"1": "a", "2": "b"}
        assert db.script("nothing") == {}
        for name in ("deep", "number"):
            with pytest.raises(ProtocolError):
                db.script(name)

"""The functions that come with the package, by one table of calls and results. Source: kt's documentation of its scripts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from zlib import crc32

import pytest

from django_keyspace.exceptions import ScriptFailed
from django_keyspace.store import Store

FAILS = object()

STORIES: dict[str, list[tuple[str, dict[str, Any], Any]]] = {
    "hashes": [
        ("hset", {"table_key": "h", "key": "a", "value": "1"}, {"num": 1}),
        ("hset", {"table_key": "h", "key": "a", "value": b"\xff\x00"}, {"num": 1}),
        ("hget", {"table_key": "h", "key": "a"}, {"value": b"\xff\x00"}),
        ("hget", {"table_key": "h", "key": "none"}, {}),
        ("hget", {"table_key": "none", "key": "a"}, {}),
        ("hsetnx", {"table_key": "h", "key": "a", "value": "2"}, {"num": 0}),
        ("hsetnx", {"table_key": "h", "key": "b", "value": ""}, {"num": 1}),
        ("hmset", {"table_key": "h", "c": "3", "d": "4"}, {"num": 2}),
        ("hlen", {"table_key": "h"}, {"num": 4}),
        ("hlen", {"table_key": "none"}, {"num": 0}),
        ("hmget", {"table_key": "h", "b": 1, "c": 1, "none": 1}, {"b": "", "c": "3"}),
        ("hcontains", {"table_key": "h", "key": "b"}, {"num": 1}),
        ("hcontains", {"table_key": "h", "key": "none"}, {"num": 0}),
        ("hdel", {"table_key": "h", "key": "a"}, {"num": 1}),
        ("hdel", {"table_key": "h", "key": "a"}, {"num": 0}),
        ("hmdel", {"table_key": "h", "b": "", "none": ""}, {"num": 1}),
        ("hgetall", {"table_key": "h"}, {"c": "3", "d": "4"}),
        ("hgetall", {"table_key": "none"}, {}),
        ("hset", {"table_key": "h", "key": "long", "value": "x" * 20_000}, {"num": 1}),
        ("hget", {"table_key": "h", "key": "long"}, {"value": "x" * 20_000}),
        ("hget", {"key": "a"}, FAILS),
        ("hset", {"table_key": "h", "key": "a"}, FAILS),
    ],
    "sets": [
        ("sadd", {"key": "s", "value": "a"}, {"num": 1}),
        ("sadd", {"key": "s", "value": "a\x01b\x01c"}, {"num": 2}),
        ("scard", {"key": "s"}, {"num": 3}),
        ("scard", {"key": "none"}, {"num": 0}),
        ("sismember", {"key": "s", "value": "b"}, {"num": 1}),
        ("sismember", {"key": "s", "value": "z"}, {"num": 0}),
        ("srem", {"key": "s", "value": "b\x01z"}, {"num": 1}),
        ("smembers", {"key": "s"}, {"a": "1", "c": "1"}),
        ("smembers", {"key": "none"}, {}),
        ("sadd", {"key": "t", "value": "c\x01d"}, {"num": 2}),
        ("sinter", {"key1": "s", "key2": "t"}, {"c": "1"}),
        ("sunion", {"key1": "s", "key2": "t"}, {"a": "1", "c": "1", "d": "1"}),
        ("sdiff", {"key1": "s", "key2": "t", "dest": "u"}, {"a": "1"}),
        ("smembers", {"key": "u"}, {"a": "1"}),
        ("spop", {"key": "u"}, {"num": 1, "value": "a"}),
        ("spop", {"key": "u"}, {"num": 0}),
        ("spop", {"key": "none"}, {"num": 0}),
    ],
    "lists": [
        ("lrpush", {"key": "l", "value": "b"}, {}),
        ("lrpush", {"key": "l", "value": "c"}, {}),
        ("llpush", {"key": "l", "value": "a"}, {}),
        ("llen", {"key": "l"}, {"num": 3}),
        ("llen", {"key": "none"}, {"num": 0}),
        ("lrange", {"key": "l"}, {"0": "a", "1": "b", "2": "c"}),
        ("lrange", {"key": "l", "start": 1, "stop": 2}, {"0": "b"}),
        ("lrange", {"key": "l", "start": "-2"}, {"0": "b", "1": "c"}),
        ("lrange", {"key": "l", "start": 0, "stop": -1}, {"0": "a", "1": "b"}),
        ("lrange", {"key": "l", "start": 9}, {}),
        ("lindex", {"key": "l", "index": 1}, {"value": "b"}),
        ("lindex", {"key": "l", "index": -1}, {"value": "c"}),
        ("lindex", {"key": "l", "index": 3}, {}),
        ("lindex", {"key": "l", "index": "x"}, FAILS),
        ("lset", {"key": "l", "index": 1, "value": "B"}, {}),
        ("linsert", {"key": "l", "index": 1, "value": "ab"}, {}),
        ("lset", {"key": "l", "index": 9, "value": "x"}, FAILS),
        ("linsert", {"key": "none", "index": 0, "value": "x"}, FAILS),
        ("lrange", {"key": "l"}, {"0": "a", "1": "ab", "2": "B", "3": "c"}),
        ("llpop", {"key": "l"}, {"value": "a"}),
        ("lrpop", {"key": "l"}, {"value": "c"}),
        ("lrpop", {"key": "none"}, {}),
        ("llpop", {"key": "none"}, {}),
        ("get_range", {}, {"l": "\x02ab\x01B"}),
    ],
    "queues": [
        ("queue_add", {"queue": "q", "data": "a"}, {"num": 1}),
        ("queue_madd", {"queue": "q", "0": "b", "1": "c", "2": "a"}, {"num": 3}),
        ("queue_size", {"queue": "q"}, {"num": 4}),
        ("queue_peek", {"queue": "q"}, {"0": "a"}),
        ("queue_rpeek", {"queue": "q", "n": 2}, {"0": "a", "1": "c"}),
        ("queue_pop", {"queue": "q", "n": "2"}, {"0": "a", "1": "b"}),
        ("queue_rpop", {"queue": "q"}, {"0": "a"}),
        ("queue_pop", {"queue": "q", "n": 0}, {}),
        ("queue_add", {"queue": "q", "data": "d"}, {"num": 5}),
        ("queue_madd", {"queue": "q", "0": "c", "1": "c"}, {"num": 2}),
        ("queue_remove", {"queue": "q", "data": "c", "n": 1}, {"num": 1}),
        ("queue_rremove", {"queue": "q", "data": "c", "n": 1}, {"num": 1}),
        ("queue_peek", {"queue": "q", "n": 9}, {"0": "d", "1": "c"}),
        ("queue_remove", {"queue": "q", "data": "c"}, {"num": 1}),
        ("queue_clear", {"queue": "q"}, {"num": 1}),
        ("queue_pop", {"queue": "q"}, {}),
        ("queue_add", {"queue": "q", "data": "a"}, {"num": 1}),
        ("queue_add", {"data": "a"}, FAILS),
    ],
    "graphs": [
        ("hx_add", {"s": "tim", "p": "likes", "o": "tea"}, {}),
        ("hx_add", {"s": "tim", "p": "likes", "o": "cake"}, {}),
        ("hx_add", {"s": "ada", "p": "likes", "o": "tea"}, {}),
        ("hx_query", {"s": "tim", "p": "likes"}, {"o0": "cake", "o1": "tea"}),
        ("hx_query", {"p": "likes", "o": "tea"}, {"s0": "ada", "s1": "tim"}),
        ("hx_query", {"s": "ada"}, {"p0": "likes", "o0": "tea"}),
        ("hx_query", {"s": "ada", "p": "likes", "o": "tea"}, {"0": ""}),
        ("hx_query", {"s": "ada", "p": "likes", "o": "cake"}, {}),
        ("hx_remove", {"s": "ada", "p": "likes", "o": "tea"}, {}),
        ("hx_query", {"o": "tea"}, {"s0": "tim", "p0": "likes"}),
        ("hx_add", {"s": "a::b", "p": "x", "o": "y"}, FAILS),
        ("hx_add", {"s": "a", "p": "x"}, FAILS),
    ],
    "whole records": [
        ("hset", {"table_key": "m", "key": "a", "value": "b"}, {"num": 1}),
        ("move", {"src": "m", "dest": "n"}, {}),
        ("move", {"src": "m", "dest": "n"}, FAILS),
        ("list", {}, {"n": "\x01\x01ab"}),
        ("get_range", {"start": "m", "stop": "n"}, {"n": "\x01\x01ab"}),
        ("get_range", {"start": "o"}, {}),
        ("get_range", {"stop": "m"}, {}),
        ("get_part", {"key": "n", "start": 2}, {"value": "ab"}),
        ("get_part", {"key": "n", "start": -1}, {"value": "b"}),
        ("get_part", {"key": "n", "start": 2, "stop": -1}, {"value": "a"}),
        ("get_part", {"key": "none"}, {}),
        ("hash", {"key": ""}, {"num": str(0xCBF29CE484222325)}),
        ("hash", {"key": "a", "method": "fnv"}, {"num": str(0xAF63DC4C8601EC8C)}),
        ("hash", {"key": "", "method": "murmur"}, {"num": "0"}),
        ("hash", {"key": "a", "method": "sha"}, FAILS),
    ],
}


@pytest.mark.parametrize("story", STORIES)
def test_stories(library: Callable[..., Any], story: str) -> None:
    for function, arguments, wanted in STORIES[story]:
        if wanted is FAILS:
            with pytest.raises(ScriptFailed):
                library(function, **arguments)
        else:
            assert library(function, **arguments) == wanted, (function, arguments)


def test_expiries_stay(library: Callable[..., Any], run: Callable[..., Any], store: Store) -> None:
    library("hset", table_key="h", key="a", value="1")
    library("lrpush", key="l", value="1")
    run("function f() db:touch('h', 1000) db:touch('l', 1000) end")
    library("hset", table_key="h", key="b", value="1")
    library("llpop", key="l")
    assert all(store.read("ttl", 0, key) > 900_000 for key in (b"h", b"l"))


def test_a_record_of_another_kind_is_refused_and_left(library: Callable[..., Any], store: Store) -> None:
    for payload, tag in ((b"7", 3), (b"\xff\xff\xff", 1), (b"\x05ab", 2)):
        store.write("set", 0, b"k", (tag, 0, payload), None, "always")
        before = store.read("get", 0, b"k")
        for function, arguments in (
            ("hset", {"table_key": "k", "key": "a", "value": "b"}),
            ("lrpush", {"key": "k", "value": "x"}),
        ):
            with pytest.raises(ScriptFailed):
                library(function, **arguments)
        assert store.read("get", 0, b"k") == before


def test_murmur_is_murmur(library: Callable[..., Any]) -> None:
    def murmur(data: bytes) -> int:
        mask, multiplier = 2**64 - 1, 0xC6A4A7935BD1E995
        total = len(data) * multiplier & mask
        whole = len(data) // 8 * 8
        for start in range(0, whole, 8):
            part = int.from_bytes(data[start : start + 8], "little") * multiplier & mask
            part = (part ^ part >> 47) * multiplier & mask
            total = (total ^ part) * multiplier & mask
        if data[whole:]:
            total = (total ^ int.from_bytes(data[whole:], "little")) * multiplier & mask
        total = (total ^ total >> 47) * multiplier & mask
        return total ^ total >> 47

    for text in ("a", "abcdefgh", "abcdefghi", "the quick brown fox"):
        assert library("hash", key=text, method="murmur") == {"num": str(murmur(text.encode()))}


TOKYO = [
    ("queue_add", ["q", "a"], "ok"),
    ("queue_add", ["q", "b"], "ok"),
    ("queue_size", ["q", ""], "2"),
    ("queue_pop", ["q", "5"], "a\nb"),
    ("queue_pop", ["q", ""], ""),
    ("queue_add", ["q", "c"], "ok"),
    ("queue_clear", ["q", ""], "1"),
    ("seize", ["none", ""], ""),
    ("split", ["a,b;,c", ",;"], "a\nb\n\nc"),
    ("split", ["a,b", ""], "a\nb"),
    ("hash", ["abc", "crc32"], f"{crc32(b'abc'):08x}"),
    ("hash", ["abc", ""], f"{crc32(b'abc'):08x}"),
    ("hash", ["abc", "md4"], FAILS),
    ("hash_key", ["none", ""], ""),
    ("match_similar", ["kitte", "1"], "kitten"),
    ("match_similar", ["kitten", ""], "kitten"),
    ("match_similar_value", ["smal", "1"], "kitten"),
    ("match_similar_value", ["x", "1"], ""),
    ("match_pattern", ["^k.t+", ""], "kitten"),
    ("match_pattern", ["k", "0"], ""),
    ("hash_key", ["kitten", ""], f"{crc32(b'small'):08x}"),
    ("seize", ["kitten", ""], "small"),
    ("hset", ["x", "y"], FAILS),
]


def test_tokyos(run: Callable[..., Any], store: Store) -> None:
    store.write("set", 0, b"kitten", (2, 0, b"small"), None, "always")
    for function, arguments, wanted in TOKYO:
        if wanted is FAILS:
            with pytest.raises(Exception, match="Nothing was changed"):
                run("", arguments, function, library="tokyo")
        else:
            assert run("", arguments, function, library="tokyo") == wanted, (function, arguments)
    assert float(run("", ["", ""], "time", library="tokyo")) > 1e9
    assert run("", ["", ""], "getdate", library="tokyo")[:2] == "20"


def test_a_script_may_use_and_replace_the_library(run: Callable[..., Any]) -> None:
    assert run("function f() hset({table_key = 'h', key = 'a', value = 1}) return hgetall({table_key = 'h'}) end") == {
        "a": "1"
    }
    assert run("function hlen() return 'mine' end function f() return hlen() end") == "mine"
    assert run("function hlen() return 'mine' end", function="hlen") == "mine"

"""Each method of ``db``, beside what it leaves in the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from django_keyspace.exceptions import ScriptFailed
from django_keyspace.store import Store
from django_keyspace.store.record import HEADER_BYTES, Tag, unpack_header

Run = Callable[..., Any]

METHODS = [
    ("db:get('none')", None),
    ("db:set('a', 'x')", True),
    ("{db:set('a', 1), db:get('a')}", [True, 1]),
    ("{db:add('a', 1), db:add('a', 2), db:get('a')}", [True, False, 1]),
    ("{db:replace('a', 1), db:set('a', 1), db:replace('a', 2), db:get('a')}", [False, True, True, 2]),
    ("{db:append('a', 'x'), db:append('a', 'yz'), db:get('a')}", [1, 3, "xyz"]),
    ("{db:set('a', '\\xff'), db:append('a', 'x'), db:length('a')}", [True, 2, 2]),
    ("{db:remove('a'), db:set('a', 1), db:remove('a'), db:exists('a')}", [False, True, True, False]),
    ("{db:set('a', 1), db:seize('a'), db:exists('a')}", [True, 1, False]),
    ("{db:set('a', 'text'), db:length('a')}", [True, 4]),
    ("{db:increment('n'), db:increment('n', 5), db:increment('n', -7), db:get('n')}", [1, 6, -1, -1]),
    ("{db:increment('n', 1, 10), db:increment('n', 2.0)}", [11, 13]),
    ("{pcall(db.increment, db, 'n', 1, false)}", None),
    ("{db:increment_double('n', 0.5), db:increment_double('n', 2), db:get('n')}", [0.5, 2.5, 2.5]),
    ("{db:cas('a', nil, 1), db:cas('a', nil, 2), db:cas('a', 1, 3), db:get('a')}", [True, False, True, 3]),
    ("{db:set('a', 1), db:cas('a', 2), db:cas('a', 1), db:exists('a')}", [True, False, True, False]),
    ("{db:set('a', 1), db:cas('a', '1', 2), db:cas('a', true, 2)}", [True, False, False]),
    ("{db:rename('a', 'b'), db:set('a', 1), db:rename('a', 'b'), db:get('b')}", [False, True, True, 1]),
    ("{db:touch('a', 5), db:set('a', 1), db:touch('a', 5), db:ttl('a')}", [False, True, True, 5.0]),
    ("{db:set('a', 1, 5), db:set('a', 2, 'keep'), db:ttl('a')}", [True, True, 5.0]),
    ("{db:set('a', 1, 5), db:increment('a'), db:ttl('a'), db:set('a', 2), db:ttl('a')}", [True, 2, 5.0, True, -1]),
    ("{db:increment('a', 1, 0, 5), db:increment('a', 1, 0, 9), db:ttl('a')}", [1, 2, 9.0]),
    ("{db:set('a', 1, 0), db:exists('a'), db:set('b', 1, -5), db:exists('b')}", [True, False, True, False]),
    ("{db:set('a', 1, -(db:time() + 100)), db:ttl('a')}", [True, 100.0]),
    ("{db:set_bulk({x = 1, y = 'two'}), db:get_bulk({'x', 'y', 'z'})}", [2, {"x": 1, "y": "two"}]),
    ("{db:set_bulk({'first', 'second'}), db:get_bulk({1, 2})}", [2, ["first", "second"]]),
    ("{db:set_bulk({}), db:get_bulk({}), db:remove_bulk({})}", [0, {}, 0]),
    ("{db:set_bulk({x = 1, y = 2}), db:remove_bulk({'x', 'z', 'x'}), db:count()}", [2, 1, 1]),
    ("{db:set_bulk({ab = 1, ac = 2, b = 3}), db:match_prefix('a'), db:match_prefix('', 2)}", [3, ["ab", "ac"], ["ab", "ac"]]),
    ("{db:set('a', 1), db:match_prefix('a', 0), #db:match_prefix('a', -1)}", [True, {}, 1]),
    ("{db:set_bulk({ab = 1, ac = 2, b = 3}), db:count('a'), db:prune('a'), db:count()}", [3, 2, 2, 1]),
    ("{db:set_bulk({a = 1, b = 2}), db:clear(), db:count()}", [2, 2, 0]),
    ("{db:set('a', 1), db:kind('a'), db:set('a', 'x'), db:kind('a')}", [True, "integer", True, "text"]),
    ("{db:set('a', '\\xff'), db:kind('a'), db:set('a', 1.5), db:kind('a')}", [True, "bytes", True, "float"]),
    ("{db:set('a', '{}', nil, 'json'), db:kind('a'), db:get('a'), db:kind('none')}", [True, "json", "{}"]),
    ("{db:set('a', false), db:get('a'), db:kind('a')}", [True, False, "boolean"]),
    ("{db:set(7, 1), db:get('7'), db:set(1.5, 2), db:get('1.5')}", [True, 1, True, 2]),
    ("{db:size() > 0, db:time() > 1e9, db:time() == db:time()}", [True, True, True]),
]  # fmt: skip


@pytest.mark.parametrize(("expression", "wanted"), METHODS, ids=[expression for expression, _ in METHODS])
def test_methods(run: Run, expression: str, wanted: Any) -> None:
    result = run(f"function f() return {expression} end")
    if "pcall" in expression:
        assert result[0] is False and "nothing to count" in result[1]
    else:
        assert result == wanted


def test_what_is_stored(run: Run, store: Store) -> None:
    stored = {"'x'": Tag.TEXT, "'\\xff'": Tag.BYTES, "5": Tag.INTEGER, "5.0": Tag.FLOAT, "true": Tag.BOOLEAN}
    for source, tag in stored.items():
        run(f"function f() db:set('k', {source}) end", flags=4)
        assert unpack_header(store.read("get", 0, b"k"))[:2] == (tag, 4), source
    run("function f(a) db:set('k', a.v) end", {"v": "{}"}, tag=int(Tag.JSON))
    assert unpack_header(store.read("get", 0, b"k"))[0] == Tag.JSON
    assert store.read("get", 0, b"k")[HEADER_BYTES:] == b"{}"


def test_compressed_payloads_are_read_and_pickles_are_opaque(run: Run, store: Store) -> None:
    import zlib

    store.write("set", 0, b"k", (int(Tag.TEXT), 1, zlib.compress(b"long" * 100)), None, "always")
    assert run("function f() return db:get('k') end") == "long" * 100
    store.write("set", 0, b"k", (int(Tag.PICKLE), 3, b"signature and pickle"), None, "always")
    assert run("function f() return {db:get('k'), db:kind('k'), db:rename('k', 'l')} end") == [
        "signature and pickle",
        "pickle",
        True,
    ]
    assert unpack_header(store.read("get", 0, b"l"))[:2] == (Tag.PICKLE, 3)


def test_a_prefix_is_all_that_a_script_sees(run: Run, store: Store) -> None:
    store.write("set", 0, b"other", (2, 0, b"x"), None, "always")
    source = "function f() db:set('a', 1) db:set('b', 2) local c = db:cursor() c:jump_back() local k = {} for key in db:each() do k[#k + 1] = key end return {k, c:key(), db:count(), db:clear()} end"  # noqa: E501
    assert run(source, prefix=b"mine:") == [["a", "b"], "b", 2, 2]
    assert run("function f() return db:match_prefix('') end") == ["other"]


def test_cursors(run: Run) -> None:
    source = """
    function f()
      db:set_bulk({a = 1, c = 3, e = 5})
      local c, seen = db:cursor(), {}
      seen[1] = {c:key() == nil, c:value() == nil, c:step(), c:remove(), c:set_value(1)}
      seen[2] = {c:jump(), c:get()}
      seen[3] = {c:jump("b"), c:key(), c:set_value("three"), c:value()}
      seen[4] = {c:jump_back("d"), c:key(), c:step(), c:key(), c:step(), c:key() == nil}
      seen[5] = {c:jump_back(), c:key(), c:step_back(), c:key()}
      seen[6] = {c:seize()}
      seen[7] = {c:key(), c:remove(), c:key() == nil, c:jump("zzz")}
      seen[8] = db:match_prefix("")
      c:jump() c:close()
      seen[9] = c:key() == nil
      return seen
    end
    """
    assert run(source) == [
        [True, True, False, False, False],
        [True, "a", 1],
        [True, "c", True, "three"],
        [True, "c", True, "e", False, True],
        [True, "e", True, "c"],
        ["c", "three"],
        ["e", True, True, False],
        ["a"],
        True,
    ]


def test_listings_go_on_from_page_to_page(run: Run) -> None:
    source = """
    function f()
      for i = 1, 450 do db:set(string.format("k%03d", i), i) end
      local sum, n = 0, 0
      for key, value in db:each("k") do sum = sum + value n = n + 1 end
      local from = 0
      for _ in db:each("k", "k401") do from = from + 1 end
      return {n, sum, #db:match_prefix("k"), #db:match_prefix("k", 300), db:count(), from}
    end
    """
    assert run(source) == [450, 450 * 451 // 2, 450, 300, 450, 50]


def test_large_pages_are_cut_by_their_bytes_and_go_on(run: Run) -> None:
    source = "function f() for i = 1, 5 do db:set('k' .. i, ('x'):rep(700000)) end local n = 0 for _, v in db:each() do n = n + #v end return n end"  # noqa: E501
    assert run(source) == 3_500_000


def test_an_error_of_a_method_names_the_line(run: Run) -> None:
    with pytest.raises(ScriptFailed, match=r"test\.lua:2: a key has at least one byte"):
        run("function f()\n  local x = db:get('')\n  return x\nend")


def test_db_may_be_called_from_everywhere(run: Run) -> None:
    source = """
    function f()
      db:set_bulk({a = 3, b = 1, c = 2})
      local keys = {"a", "b", "c"}
      table.sort(keys, function(one, other) return db:get(one) < db:get(other) end)
      local text = ("abc"):gsub(".", function(key) return db:get(key) end)
      local inside = coroutine.wrap(function() coroutine.yield(db:get("a")) end)()
      return {keys, text, inside, select(2, pcall(db.get, db, "b"))}
    end
    """
    assert run(source) == [["b", "c", "a"], "312", 3, 1]

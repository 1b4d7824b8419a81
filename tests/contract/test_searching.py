"""Contract of the searching operations: slices of keys that match an expression or are like a word."""

from __future__ import annotations

from typing import Any

import pytest

from django_keyspace.exceptions import InvalidArgument
from django_keyspace.store.search import SLICE_ROWS
from tests.contract.engines import Place
from tests.contract.records import DB, OTHER, Do, put, put_expired, val

pytestmark = pytest.mark.contract
covers = pytest.mark.covers

ROWS = 1000


def fill(do: Do, *keys: str) -> None:
    do("set_many", DB, [(key.encode(), val(b"v")) for key in keys], None)


def regex(do: Do, pattern: str, prefix: bytes = b"", start: bytes = b"", rows: int = ROWS) -> list[str]:
    keys, last = do("match_regex", DB, prefix, pattern.encode(), start, rows)
    assert last is None
    return [key.decode() for key in keys]


def similar(do: Do, origin: str, distance: int, prefix: bytes = b"", start: bytes = b"") -> list[tuple[str, int]]:
    pairs, last = do("match_similar", DB, prefix, origin.encode(), distance, start)
    assert last is None
    return [(key.decode(), edits) for key, edits in pairs]


@covers("match_regex")
def test_an_expression_is_found_anywhere_and_case_counts(do: Do) -> None:
    fill(do, "abc", "b", "Bc", "xbx", "z", "b\nc")
    assert regex(do, "b") == ["abc", "b", "b\nc", "xbx"]
    assert regex(do, "^b") == ["b", "b\nc"]
    assert regex(do, "b$") == ["b"]
    assert regex(do, "^b$|z") == ["b", "z"]
    assert regex(do, "(?i)^b") == ["Bc", "b", "b\nc"]
    assert regex(do, "") == ["Bc", "abc", "b", "b\nc", "xbx", "z"]
    assert regex(do, "nothing") == []
    assert regex(do, r"^\w{3}$") == ["abc", "xbx"]
    assert regex(do, r"^b\sc") == ["b\nc"]


@covers("match_regex")
def test_an_expression_is_about_characters(do: Do) -> None:
    fill(do, "ü", "üü", "u", "日本")
    assert regex(do, "^.$") == ["u", "ü"]
    assert regex(do, "^[ü]+$") == ["ü", "üü"]
    assert regex(do, "^..$") == ["üü", "日本"]
    put(do, b"\xff\xfe")
    assert do("match_regex", DB, b"", b"^u", b"", ROWS)[0] == [b"u"], "keys that are not UTF-8 harm nobody"
    assert b"\xff\xfe" in do("match_regex", DB, b"", b"^", b"", ROWS)[0]


@covers("match_regex")
def test_an_expression_is_about_what_follows_the_prefix(do: Do) -> None:
    fill(do, "p:", "p:p:a", "p:b", "q:a", "p", "p;")
    assert regex(do, "^p", b"p:") == ["p:p:a"]
    assert regex(do, "^.$", b"p:") == ["p:b"]
    assert regex(do, "^$", b"p:") == ["p:"]
    assert regex(do, "", b"p:") == ["p:", "p:b", "p:p:a"]
    assert regex(do, "a", b"q") == ["q:a"]
    assert regex(do, "a", b"zz") == []


@covers("match_regex")
def test_only_live_keys_of_the_database(do: Do) -> None:
    put_expired(do, b"dead")
    do("set_many", OTHER, [(b"deaf", val(b"v"))], None)
    fill(do, "deal")
    assert regex(do, "^dea") == ["deal"]


@covers("match_regex")
def test_slices_of_an_expression_follow_each_other(do: Do) -> None:
    names = [f"k{number:05}" for number in range(2 * SLICE_ROWS + 1000)]
    fill(do, *names)
    found, last, slices = [], b"", 0
    while last is not None:
        keys, last = do("match_regex", DB, b"k", b"7$", last, ROWS)
        found += keys
        slices += 1
    assert found == [name.encode() for name in names if name.endswith("7")]
    assert slices == 3, "a slice looks at a bounded number of keys"
    assert do("match_regex", DB, b"", b"nowhere", b"", ROWS)[1] is not None
    keys, last = do("match_regex", DB, b"", b"", b"k00003", 2)
    assert (keys, last) == ([b"k00004", b"k00005"], b"k00005")
    assert do("match_regex", DB, b"", b"^k091", b"", ROWS) == ([], None)
    assert regex(do, "^k0899", b"") == names[8990:9000], "a literal beginning: only those keys are looked at"
    assert do("match_regex", DB, b"k", b"^0899", b"k08995", ROWS)[0] == [n.encode() for n in names[8996:9000]]
    assert regex(do, "", b"", b"k99999") == []


@covers("match_similar")
def test_words_that_are_near(do: Do) -> None:
    fill(do, "kitten", "mitten", "kittens", "sitting", "ten", "kitte", "KITTEN")
    assert similar(do, "kitten", 0) == [("kitten", 0)]
    assert similar(do, "kitten", 1) == [("kitte", 1), ("kitten", 0), ("kittens", 1), ("mitten", 1)]
    assert ("sitting", 3) in similar(do, "kitten", 3)
    assert similar(do, "", 3) == [("ten", 3)]
    assert len(similar(do, "kitten", 1024)) == 7


@covers("match_similar")
def test_distances_are_about_characters_after_the_prefix(do: Do) -> None:
    fill(do, "p:müll", "p:mull", "p:mühle", "mull", "p:mu\nl")
    assert similar(do, "mull", 1, b"p:") == [("p:mu\nl", 1), ("p:mull", 0), ("p:müll", 1)]
    assert similar(do, "日本", 1) == []
    fill(do, "日本語")
    assert similar(do, "日本", 1) == [("日本語", 1)]
    put(do, b"\xff")
    assert do("match_similar", DB, b"", b"\xff", 0, b"") == ([(b"\xff", 0)], None)


@covers("match_similar")
def test_only_live_words_of_the_database(do: Do) -> None:
    put_expired(do, b"dead")
    do("set_many", OTHER, [(b"deaf", val(b"v"))], None)
    fill(do, "deal")
    assert similar(do, "dead", 1) == [("deal", 1)]


@covers("match_similar")
def test_slices_of_words_follow_each_other(do: Do) -> None:
    names = [f"k{number:05}" for number in range(2 * SLICE_ROWS + 1000)]
    fill(do, *names)
    found, last, slices = [], b"", 0
    while last is not None:
        pairs, last = do("match_similar", DB, b"", b"k04321", 1, last)
        found += pairs
        slices += 1
    assert [key for key, edits in found if edits == 0] == [b"k04321"]
    assert len(found) == 1 + 3 * 9 + 8 and slices == 3
    assert similar(do, "k08999", 0, b"", b"k08999") == []


BAD_PATTERNS = ["(", "[a", "a{1001}", "*", "(?=a)", r"\1", "a**", r"\8", "(?<name", "x{2,1}"]
EXPLOSIVE = ["((a{100}){100}){100}", "(((((a?){10}){10}){10}){10})", "(x+x+){900}y", "[^a]{1000}", "(?i)(äöü){900}"]


@covers("match_regex")
@pytest.mark.parametrize("pattern", BAD_PATTERNS + EXPLOSIVE)
def test_bad_patterns_are_refused(do: Do, pattern: str) -> None:
    fill(do, "a")
    with pytest.raises(InvalidArgument, match="regular expression"):
        do("match_regex", DB, b"", pattern.encode(), b"", ROWS)
    assert regex(do, "a") == ["a"]


@covers("match_regex")
@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(.*)*b", "(a*)*(a*)*c", "^(([a-z])+.)+[A-Z]([a-z])+$"])
def test_patterns_that_kill_backtracking_engines_are_quick_here(do: Do, pattern: str) -> None:
    fill(do, *["a" * length for length in range(1000, 1020)])
    assert len(regex(do, pattern)) in (0, 20)


@covers("match_regex")
def test_a_pattern_that_is_not_utf8_is_refused(do: Do) -> None:
    with pytest.raises(InvalidArgument):
        do("match_regex", DB, b"", b"\xff", b"", ROWS)


@pytest.mark.parametrize(
    "call",
    [
        ("match_regex", DB, b"", "text", b"", ROWS),
        ("match_regex", DB, b"", b"p" * 1025, b"", ROWS),
        ("match_regex", DB, b"", b"", b"", 0),
        ("match_regex", DB, b"", b"", b"", -1),
        ("match_regex", DB, b"", b"", b"", 1001),
        ("match_regex", 16, b"", b"", b"", ROWS),
        ("match_regex", DB, None, b"", b"", ROWS),
        ("match_similar", DB, b"", "text", 1, b""),
        ("match_similar", DB, b"", b"o" * 1025, 1, b""),
        ("match_similar", DB, b"", b"o", -1, b""),
        ("match_similar", DB, b"", b"o", 1.5, b""),
        ("match_similar", DB, b"", b"o", 1025, b""),
        ("match_similar", -1, b"", b"o", 1, b""),
    ],
)
def test_bad_arguments_are_refused(do: Do, place: Place, call: Any) -> None:
    if place.orders_writes:
        return  # what a cache in this process refuses is in test_cache_search.py
    with pytest.raises(InvalidArgument):
        do(*call)

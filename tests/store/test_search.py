"""Searching: many keys at once find what single keys would, literal beginnings, and what happens without the extra."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from django_keyspace.exceptions import InvalidArgument, NotSupported
from django_keyspace.store import Store, search
from django_keyspace.store.search import compile_pattern

from .helpers import small_options, val

PATTERNS = [
    "", "a", "^", "$", "^$", "a$", "^a", "a|b$", "^(a|b)", "a?", "a*?", "(?i)A", "(?i:a)b", "(?P<name>a)", "[^a]", ".", "^..$",
    r"\s", r"[^\S]", r"\b", r"\Bb", r"a\n", "\n", r"\Aa", r"b\z", r"\C", "(?s)a.", "(?-m:^)b", "(?m)^b", "ü", "^ü?a", "^a|",
    r"\Qa\E", "a{2}", "^.*$", "(a|b)*b", r"[[:space:]]", r"\x0a", r"(?U)a+", "a+?b",
]  # fmt: skip
names = st.lists(st.text("ab\nüA \x7f", max_size=5).map(str.encode) | st.binary(max_size=3), unique=True, max_size=12)


@settings(max_examples=150, deadline=None, database=None)
@given(st.sampled_from(PATTERNS), names, st.sampled_from([b"", b"p:", b"\n"]))
@example("$", [b"", b"a"], b"")
@example("", [b""], b"p:")
@example(".", [b"\xff", b"a\xffa"], b"")
def test_a_chunk_finds_what_its_keys_would(pattern: str, keys: list[bytes], prefix: bytes) -> None:
    compiled = compile_pattern(pattern.encode())
    chunk = sorted(prefix + key for key in keys)
    wanted = [key for key in chunk if compiled.key.search(key[len(prefix) :])]
    if chunk:
        assert list(search._matching(compiled, chunk, prefix)) == wanted


def test_most_patterns_are_tried_on_many_keys_at_once() -> None:
    alone = [pattern for pattern in PATTERNS if compile_pattern(pattern.encode()).lines is None]
    assert alone == [r"\Aa", r"b\z", r"\C", "(?s)a.", "(?-m:^)b", "(?m)^b", r"\Qa\E", "(?U)a+"]


@pytest.mark.parametrize(
    ("pattern", "head"),
    [
        ("^news:", "news:"), ("news", ""), ("^", ""), ("^a", "a"), ("^ab*", "a"), ("^ab?c", "a"), ("^ab{2}", "a"),
        ("^ab+c", "ab"), ("^a|b", ""), ("^ab(c|d)", ""), ("^ab(c)", "ab"), (r"^a\.b", "a.b"), (r"^a\d", "a"), (r"^a\.*", "a"),
        ("^a.b", "a"), ("^(?i)a", ""), ("^ü+", "ü"), ("^aü?", "a"), ("^a$", "a"), ("^a[b]", "a"), ("^日本x", "日本x"),
        (r"^a\ ", "a "),
        (r"^\^", "^"), ("^a b-c_d/e", "a b-c_d/e"), ("^^a", ""), ("^a\n", "a"), (r"^\n", ""),
    ],
)  # fmt: skip
def test_literal_beginnings(pattern: str, head: str) -> None:
    assert compile_pattern(pattern.encode()).head == head.encode()


@settings(max_examples=150, deadline=None, database=None)
@given(st.text("^ab|?+*(){2}.\\ü-", max_size=7), names)
def test_what_matches_begins_with_the_literal_beginning(pattern: str, keys: list[bytes]) -> None:
    try:
        compiled = compile_pattern(pattern.encode())
    except InvalidArgument:
        return
    for key in keys:
        assert key.startswith(compiled.head) or compiled.key.search(key) is None


@pytest.fixture
def store(tmp_path: Path) -> Any:
    store = Store(str(tmp_path), small_options())
    yield store
    store.shutdown()


@pytest.mark.parametrize(
    ("module", "call"),
    [("re2", ("match_regex", 0, b"", b"a", b"", 5)), ("rapidfuzz.distance", ("match_similar", 0, b"", b"a", 1, b""))],
)
def test_a_missing_extra_is_named(store: Store, monkeypatch: pytest.MonkeyPatch, module: str, call: Any) -> None:
    compile_pattern.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(NotSupported, match=r"django-keyspace\[search\]"):
        store.read(*call)


def test_a_slice_ends_with_its_work(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write("set_many", 0, [(b"%03d" % number, val(b"v" * 100)) for number in range(100)], None)

    def slices(*call: Any) -> list[int]:
        sizes, last = [], b""
        while last is not None:
            rows, last = store.read(*call, last, *([1000] if call[0] == "match_regex" else []))
            sizes.append(len(rows))
        return sizes

    regex, similar = ("match_regex", 0, b"", b"[0-9]"), ("match_similar", 0, b"", b"000", 3)
    assert slices(*regex) == slices(*similar) == [100]
    with monkeypatch.context() as patched:
        patched.setattr(search, "SLICE_ROWS", 40)
        patched.setattr(search, "_CHUNK_ROWS", 20)
        assert slices(*regex) == slices(*similar) == [40, 40, 20]
    with monkeypatch.context() as patched:
        patched.setattr(search, "SLICE_WORK", 30 * 3 * compile_pattern(b"[0-9]").instructions)
        assert slices(*regex) == [30, 30, 30, 10], "a chunk is as small as keys may be long"
    with monkeypatch.context() as patched:
        patched.setattr(search, "SLICE_VALUE_BYTES", 1)
        assert slices(*regex) == slices(*similar) == [*[1] * 100, 0], (
            "values are read for their deadlines: not too many"
        )

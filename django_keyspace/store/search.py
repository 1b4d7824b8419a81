"""Keys that match a regular expression, or are like a word: slices of a walk over the keys with a prefix.

One call looks at some thousand keys and answers where the next one goes on, so that no transaction is held for long and a node
serves others in between. A slice ends after a number of keys, or after an amount of work that is counted, not timed: key
bytes times the size of the compiled expression. So the answer depends on nothing but the store.

Expressions are RE2's, which match in linear time; distances are Levenshtein's over characters. Both come with the extra
``search``. Keys are looked at by the hundred: an expression runs once over all of them, a line each, and Python sees only
those that match.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from django_keyspace.exceptions import InvalidArgument, NotSupported
from django_keyspace.operations import KEY_BYTES_MAX
from django_keyspace.store.record import deadline_of

if TYPE_CHECKING:
    from django_keyspace.store.environment import Environment

T = TypeVar("T")

SLICE_ROWS: Final = 4000
"""A slice looks at no more keys than that, or some more to fill its last chunk."""
SLICE_WORK: Final = 2 * 2**20
"""Bytes of keys, times instructions of the expression (or words of the origin), after which a slice ends."""
SLICE_VALUE_BYTES: Final = 8 * 2**20
"""A slice ends after matching records of so many bytes, which have to be read for their deadlines."""
_CHUNK_ROWS: Final = 500
_INSTRUCTIONS_MAX: Final = 2000
_COMPILED_BYTES_MAX: Final = 4 * 2**20
_WORD_BITS: Final = 64
_LITERAL: Final = frozenset("_-:/ ,=@#%&~!<>;'\"`")
_ESCAPABLE: Final = frozenset(".+*?()|[]{}^$\\") | _LITERAL

Slice = tuple[list[T], bytes | None]
"""What was found, and the key that was looked at last: the next slice begins behind it. None at the end."""


class Pattern(NamedTuple):
    """A compiled expression.

    Attributes:
        key: for one key; RE2's.
        lines: for a text of lines; None if it would not find the same there as in single keys.
        instructions: its size.
        head: what every key that it matches begins with.
    """

    key: Any
    lines: Any
    instructions: int
    head: bytes


def match_regex(
    txn: Any,
    store: Environment,
    now_ms: int,
    database: int,
    prefix: bytes,
    pattern: bytes,
    start_key: bytes,
    rows: int,
) -> Slice[bytes]:
    """One slice of the keys in which a pattern is found, in byte order. Source: Kyoto Tycoon's match_regex.

    Returns:
        ``(keys, last)``: at most ``rows`` whole keys; see :data:`Slice`.
    Raises:
        InvalidArgument: the pattern is not one, or too large.
        NotSupported: the extra ``search`` is not installed.
    """
    compiled = compile_pattern(pattern)
    keys: list[bytes] = []
    walk = _Walk(txn, store.databases[database], prefix, compiled.head, start_key, compiled.instructions)
    value_bytes = 0
    for chunk in walk.chunks():
        for key in _matching(compiled, chunk, prefix):
            record = walk.txn.get(key, None, walk.handle)
            if record is None or _is_expired(record, now_ms):
                continue
            keys.append(key)
            value_bytes += len(record)
            if len(keys) >= rows or value_bytes >= SLICE_VALUE_BYTES:
                return keys, key
    return keys, walk.last


def match_similar(
    txn: Any,
    store: Environment,
    now_ms: int,
    database: int,
    prefix: bytes,
    origin: bytes,
    distance: int,
    start_key: bytes,
) -> Slice[tuple[bytes, int]]:
    """One slice of the keys that are no further from a word than some insertions, deletions and substitutions of characters.

    Source: Kyoto Tycoon's match_similar.
    Returns:
        ``(pairs, last)``: whole keys with their distance, in byte order; see :data:`Slice`.
    Raises:
        NotSupported: the extra ``search`` is not installed.
    """
    extract = _extractor()
    word = _text(origin)
    pairs: list[tuple[bytes, int]] = []
    walk = _Walk(txn, store.databases[database], prefix, b"", start_key, len(origin) // _WORD_BITS + 1)
    value_bytes = 0
    for chunk in walk.chunks():
        for index, found in extract(word, _texts(chunk, prefix), distance):
            record = walk.txn.get(chunk[index], None, walk.handle)
            if record is None or _is_expired(record, now_ms):
                continue
            pairs.append((chunk[index], found))
            value_bytes += len(record)
            if value_bytes >= SLICE_VALUE_BYTES:
                return pairs, chunk[index]
    return pairs, walk.last


def _is_expired(record: bytes, now_ms: int) -> bool:
    (deadline_ms,) = deadline_of(record)
    return bool(deadline_ms) and deadline_ms <= now_ms


class _Walk:
    """The keys of a slice, in chunks.

    Attributes:
        last: the key that was looked at last if the slice ended before the range did.
    """

    def __init__(self, txn: Any, handle: Any, prefix: bytes, head: bytes, start_key: bytes, factor: int) -> None:
        self.txn = txn
        self.handle = handle
        self.last: bytes | None = None
        self._range = prefix + head
        self._start_key = start_key
        self._factor = factor
        # As if all keys were as long as a key may be: a chunk can't be ended in its middle.
        self._chunk_rows = max(1, min(_CHUNK_ROWS, SLICE_WORK // (factor * KEY_BYTES_MAX)))

    def chunks(self) -> Iterator[list[bytes]]:
        """Lists of keys; :attr:`last` is right when they have come to their end."""
        cursor = self.txn.cursor(db=self.handle)
        start = max(self._start_key, self._range)
        if not (cursor.set_range(start) if start else cursor.first()):
            return
        if cursor.key() == self._start_key and not cursor.next():
            return
        keys = cursor.iternext(keys=True, values=False)
        looked_at = work = 0
        while chunk := list(islice(keys, self._chunk_rows)):
            at_end = len(chunk) < self._chunk_rows
            if not chunk[-1].startswith(self._range):
                chunk = [key for key in chunk if key.startswith(self._range)]
                at_end = True
            if chunk:
                yield chunk
            looked_at += len(chunk)
            work += self._factor * sum(map(len, chunk))
            if at_end:
                return
            if looked_at >= SLICE_ROWS or work >= SLICE_WORK:
                self.last = chunk[-1]
                return


# --------------------------------------------------------------------------------------------------- text of keys


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _lines(chunk: list[bytes], prefix: bytes) -> bytes | None:
    """The keys of a chunk without their prefix, a line each; None if one of them has a newline in it."""
    text = b"\n" + b"\n".join(chunk)
    if text.count(b"\n") != len(chunk):
        return None
    return text.replace(b"\n" + prefix, b"\n")[1:]


def _texts(chunk: list[bytes], prefix: bytes) -> list[str]:
    """The same, decoded and as a list."""
    lines = _lines(chunk, prefix)
    if lines is None:
        return [_text(key[len(prefix) :]) for key in chunk]
    return _text(lines).split("\n")


# --------------------------------------------------------------------------------------------------- expressions


def _matching(pattern: Pattern, chunk: list[bytes], prefix: bytes) -> Iterator[bytes]:
    """The keys of a chunk that match."""
    lines = _lines(chunk, prefix) if pattern.lines is not None else None
    if lines is None:
        search = pattern.key.search
        yield from (key for key in chunk if search(key[len(prefix) :]) is not None)
        return
    position = 0
    for found in pattern.lines.finditer(lines):
        start = found.start()
        if start < position:
            continue  # the same line once more
        end = lines.find(b"\n", start)
        if end < 0:
            end = len(lines)
        yield prefix + lines[lines.rfind(b"\n", 0, start) + 1 : end]
        position = end + 1


@lru_cache(maxsize=128)
def compile_pattern(pattern: bytes) -> Pattern:
    """Compile an expression.

    Arguments:
        pattern: UTF-8; RE2's syntax. Case counts, and it may be found anywhere in a key.
    Raises:
        InvalidArgument: it is not legal, or would grow too large.
        NotSupported: the extra ``search`` is not installed.
    """
    try:
        import re2
    except ImportError as error:
        raise _missing("match_regex", "google-re2") from error
    for_key = _compile(re2, pattern, never_nl=False)
    for_lines = None
    if _finds_the_same_in_lines(pattern):
        # The rest of the line belongs to the match, so that a line is found once however often the pattern is in it.
        for_lines = _compile(re2, b"(?m:(?:" + pattern + b").*)", never_nl=True)
    return Pattern(for_key, for_lines, for_key.programsize, _head(pattern.decode()))


def _compile(re2: Any, pattern: bytes, *, never_nl: bool) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    options.never_nl = never_nl
    options.max_mem = _COMPILED_BYTES_MAX
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        reason = (
            error.args[0].decode(errors="replace") if error.args and isinstance(error.args[0], bytes) else str(error)
        )
        raise InvalidArgument(
            f"The regular expression cannot be used: {reason}. Nothing was searched. It takes RE2's syntax, which has no "
            "look-around and no references back, and repeats at most 1,000 times."
        ) from error
    if compiled.programsize > _INSTRUCTIONS_MAX:
        raise InvalidArgument(
            f"The regular expression compiles to {compiled.programsize:,} instructions and the limit is "
            f"{_INSTRUCTIONS_MAX:,}. Nothing was searched. Repeat less in it, or search in several steps."
        )
    return compiled


_GROUPS_THAT_ARE_THE_SAME_IN_LINES: Final = re.compile(rb"\(\?(?!:|i\)|i:|P<)")
_ESCAPES_OF_THE_WHOLE_TEXT: Final = re.compile(rb"\\[AzZCQ]")


def _finds_the_same_in_lines(pattern: bytes) -> bool:
    """Whether ``^`` and ``$`` may be taken for the ends of a line: nothing in the pattern asks for more than them."""
    return not _GROUPS_THAT_ARE_THE_SAME_IN_LINES.search(pattern) and not _ESCAPES_OF_THE_WHOLE_TEXT.search(pattern)


def _head(pattern: str) -> bytes:
    """What every match of an anchored pattern begins with: its literal characters up to the first that are none."""
    if not pattern.startswith("^") or "|" in pattern:
        return b""
    head, position = "", 1
    while position < len(pattern):
        character, width = pattern[position], 1
        if character == "\\" and pattern[position + 1 : position + 2] in _ESCAPABLE:
            character, width = pattern[position + 1], 2
        elif not (character.isalnum() or character in _LITERAL):
            break
        position += width
        follower = pattern[position : position + 1]
        if follower and follower in "*?{":
            break
        head += character
        if follower == "+":
            break
    return head.encode()


# --------------------------------------------------------------------------------------------------- distances


def _extractor() -> Callable[[str, list[str], int], Iterable[tuple[int, int]]]:
    """A function that finds the words of a list which are near to one: their indexes and distances."""
    try:
        from rapidfuzz.distance import Levenshtein
        from rapidfuzz.process import extract_iter
    except ImportError as error:
        raise _missing("match_similar", "rapidfuzz") from error

    def extract(word: str, choices: list[str], distance: int) -> Iterable[tuple[int, int]]:
        found = extract_iter(word, choices, scorer=Levenshtein.distance, score_cutoff=distance, processor=None)
        return ((index, int(score)) for _, score, index in found)

    return extract


def _missing(operation: str, package: str) -> NotSupported:
    return NotSupported(
        f"{operation} needs the package {package}, which is not installed where the store is. Nothing was searched. Install "
        "django-keyspace[search] there."
    )

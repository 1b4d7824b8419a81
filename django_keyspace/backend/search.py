"""Finding keys by a prefix, a regular expression or their likeness to a word.

The store answers in slices (``store/search.py``). What puts the slices together is here, as steps: for the cache's methods and
for the clients of Kyoto Tycoon's API.
"""

from __future__ import annotations

from typing import Any, Final

from django_keyspace.backend.listing import ListingMethods
from django_keyspace.backend.twins import Steps, twins
from django_keyspace.exceptions import InvalidArgument
from django_keyspace.operations import KEY_BYTES_MAX, PAGE_ROWS_MAX

DISTANCE_DEFAULT: Final = 1


def regex_steps(database: int, prefix: bytes, pattern: bytes, max_keys: int | None) -> Steps[list[bytes]]:
    """The keys in which a regular expression is found, in byte order.

    Arguments:
        database: number of the database.
        prefix: what the keys begin with; the expression is about what follows.
        pattern: RE2's syntax, UTF-8.
        max_keys: at most so many; None or less than 0: all.
    """
    limit = _limit(max_keys)
    keys: list[bytes] = []
    last: bytes | None = b""
    while last is not None and len(keys) != limit:
        rows = PAGE_ROWS_MAX if limit is None else min(limit - len(keys), PAGE_ROWS_MAX)
        found, last = yield "match_regex", database, prefix, pattern, last, rows
        keys += found
    return keys


def similar_steps(
    database: int, prefix: bytes, origin: bytes, distance: int, max_keys: int | None
) -> Steps[list[bytes]]:
    """The keys that are at most so many edits of characters from a word, the nearest first, then in byte order.

    Arguments:
        database: number of the database.
        prefix: what the keys begin with; the word is compared with what follows.
        origin: the word, UTF-8.
        distance: insertions, deletions and substitutions of a character.
        max_keys: at most so many; None or less than 0: all.
    """
    limit = _limit(max_keys)
    nearest: list[tuple[int, bytes]] = []
    last: bytes | None = b""
    while last is not None and distance >= 0 and limit != 0:
        found, last = yield "match_similar", database, prefix, origin, distance, last
        if not found:
            continue
        nearest = sorted([*nearest, *((edits, key) for key, edits in found)])
        if limit is not None and len(nearest) >= limit:
            del nearest[limit:]
            distance = nearest[-1][0] - 1  # what comes later in the order of keys must be nearer to get in
    return [key for _, key in nearest]


class SearchMethods(ListingMethods):
    """The cache's methods that find keys. Names and results are Kyoto Tycoon's."""

    def _match_prefix(self, prefix: str, max_keys: int | None = None, version: Any = None) -> Steps[list[str]]:
        """Keys that begin with a prefix, in byte order: at most ``max_keys``, all for None."""
        limit = _limit(_checked_limit(max_keys))
        if limit == 0:
            self._prefix_key(prefix, version)
            return []
        return (yield from self._list_keys(prefix, count=limit or 0, version=version))

    match_prefix, amatch_prefix = twins(_match_prefix)

    def _match_regex(self, pattern: str, max_keys: int | None = None, version: Any = None) -> Steps[list[str]]:
        """Keys in which a regular expression is found, in byte order.

        Arguments:
            pattern: RE2's syntax, which matches in linear time; case counts. It may be found anywhere in a key: ``^`` and ``$``
                stand for its ends. If the pattern begins with ``^`` and a literal, only keys that begin so are looked at.
            max_keys: at most so many; None: all.
        Raises:
            InvalidArgument: the pattern is not legal, or would grow too large.
            NotSupported: the extra ``search`` is not installed where the store is.
        """
        prefix = self._prefix_key("", version)
        keys = yield from regex_steps(self._database, prefix, _word("pattern", pattern), _checked_limit(max_keys))
        return [self._user_key(key, version) for key in keys]

    match_regex, amatch_regex = twins(_match_regex)

    def _match_similar(
        self, origin: str, distance: int | None = None, max_keys: int | None = None, version: Any = None
    ) -> Steps[list[str]]:
        """Keys that are like a word, the nearest first, then in byte order.

        Arguments:
            distance: how many insertions, deletions and substitutions of a character there may be; None: one.
            max_keys: at most so many; None: all.
        Raises:
            NotSupported: the extra ``search`` is not installed where the store is.
        """
        prefix, word = self._prefix_key("", version), _word("origin", origin)
        edits, limit = _checked_distance(distance), _checked_limit(max_keys)
        keys = yield from similar_steps(self._database, prefix, word, edits, limit)
        return [self._user_key(key, version) for key in keys]

    match_similar, amatch_similar = twins(_match_similar)


def _limit(max_keys: int | None) -> int | None:
    return None if max_keys is None or max_keys < 0 else max_keys


def _checked_limit(max_keys: Any) -> int | None:
    if max_keys is not None and (isinstance(max_keys, bool) or not isinstance(max_keys, int)):
        raise InvalidArgument(
            f"max_keys must be an integer, or None for all keys, not {max_keys!r}. Nothing was searched."
        )
    return max_keys


def _checked_distance(distance: Any) -> int:
    if distance is None:
        return DISTANCE_DEFAULT
    if isinstance(distance, bool) or not isinstance(distance, int) or not 0 <= distance <= KEY_BYTES_MAX:
        raise InvalidArgument(
            f"distance must be an integer from 0 to {KEY_BYTES_MAX}, not {distance!r}. Nothing was searched."
        )
    return distance


def _word(name: str, word: Any) -> bytes:
    if not isinstance(word, str):
        raise InvalidArgument(f"{name} must be a str, not {word!r:.80}. Nothing was searched.")
    try:
        encoded = word.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"{name} {word!r:.80} has no UTF-8 form: {error}. Nothing was searched.") from error
    if len(encoded) > KEY_BYTES_MAX:
        raise InvalidArgument(
            f"{name} has {len(encoded):,} bytes and the limit is {KEY_BYTES_MAX:,}, as for keys. Nothing was searched."
        )
    return encoded

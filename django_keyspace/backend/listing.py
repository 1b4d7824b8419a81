"""The cache's methods that go through keys in order: listings, counts, patterns. Keys are the user's."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

from django_keyspace.backend.codec import Unreadable
from django_keyspace.backend.methods import Methods
from django_keyspace.backend.twins import Steps, twins
from django_keyspace.exceptions import InvalidArgument
from django_keyspace.operations import AFTER, PAGE_ROWS_MAX

_GLOB: Final = re.compile(r"[*?\[]")
_DELETE_BATCH: Final = 500


class ListingMethods(Methods):
    """Mixed into :class:`~django_keyspace.backend.cache.KeyspaceCache`."""

    def _prune(self, prefix: str, version: Any = None) -> Steps[int]:
        """Delete every key that begins with a prefix, in one step. The number of them."""
        return (yield "prune", self._database, self._prefix_key(prefix, version))

    prune, aprune = twins(_prune)

    def _page(
        self,
        prefix: str,
        start_key: str,
        skip: bool | str,
        forward: bool,
        with_values: bool,
        version: Any,
        rows: int = PAGE_ROWS_MAX,
    ) -> Steps[tuple[list[Any], str | None]]:
        """One page of a listing, and the key after which the next one begins, or None."""
        full = self._prefix_key(prefix, version)
        start = self._prefix_key(start_key, version) if start_key else b""
        page, more = yield "list", self._database, full, start, skip, forward, rows, with_values
        user_key = self._user_key
        if with_values:
            keyed = [(user_key(key, version), record) for key, record in page]
            return keyed, keyed[-1][0] if more else None
        keys = [user_key(key, version) for key in page]
        return keys, keys[-1] if more else None

    def _rows(
        self, prefix: str, start_key: str, count: int, skip: bool | str, forward: bool, with_values: bool, version: Any
    ) -> Steps[list[Any]]:
        _check_count(count)
        rows: list[Any] = []
        next_key: str | None = start_key
        while next_key is not None and (not count or len(rows) < count):
            wanted = min(count - len(rows), PAGE_ROWS_MAX) if count else PAGE_ROWS_MAX
            page, next_key = yield from self._page(prefix, next_key, skip, forward, with_values, version, wanted)
            rows += page
            skip = AFTER
        return rows

    def _list_keys(
        self,
        prefix: str = "",
        start_key: str = "",
        count: int = 0,
        skip: bool = False,
        forward: bool = True,
        version: Any = None,
    ) -> Steps[list[str]]:
        """Keys with a prefix, in byte order.

        Arguments:
            start_key: a whole key to start at, inclusive; it need not exist.
            count: at most so many; 0 for all.
            skip: leave out the first one: with ``start_key`` the last key of a page, this is the next page.
            forward: False lists downwards, from the end of the prefix or from ``start_key``.
        """
        return (yield from self._rows(prefix, start_key, count, skip, forward, False, version))

    list_keys, alist_keys = twins(_list_keys)

    def _list_key_values(
        self,
        prefix: str = "",
        start_key: str = "",
        count: int = 0,
        skip: bool = False,
        forward: bool = True,
        version: Any = None,
    ) -> Steps[dict[str, Any]]:
        """Keys with a prefix and their values, as a dict in byte order. See :meth:`list_keys`."""
        values: dict[str, Any] = {}
        for key, record in (yield from self._rows(prefix, start_key, count, skip, forward, True, version)):
            try:
                values[key] = self._decode(record)
            except Unreadable:
                continue
        return values

    list_key_values, alist_key_values = twins(_list_key_values)

    def _count(
        self,
        prefix: str = "",
        start_key: str = "",
        count: int = 0,
        skip: bool = False,
        forward: bool = True,
        version: Any = None,
    ) -> Steps[int]:
        """How many keys :meth:`list_keys` would list."""
        _check_count(count)
        full = self._prefix_key(prefix, version)
        start: bytes | None = self._prefix_key(start_key, version) if start_key else b""
        number = 0
        skipped: bool | str = skip
        while start is not None:
            left = count - number if count else 0
            more, start = yield "count", self._database, full, start, skipped, forward, left
            number += more
            skipped = AFTER
        return number

    count, acount = twins(_count)

    def iter_keys(self, pattern: str = "*", version: Any = None) -> Iterator[str]:
        """Keys that match a glob pattern, in byte order, page by page; ``news:*`` looks at ``news:`` keys only.

        Keys that come or go meanwhile may or may not be seen. No transaction is held while the caller works.
        """
        prefix, matches = _glob(pattern)
        start: str | None = ""
        while start is not None:
            page, start = self._run(self._page(prefix, start, AFTER if start else False, True, False, version))
            yield from filter(matches, page)

    async def aiter_keys(self, pattern: str = "*", version: Any = None) -> AsyncIterator[str]:
        """As :meth:`iter_keys`."""
        prefix, matches = _glob(pattern)
        start: str | None = ""
        while start is not None:
            page, start = await self._arun(self._page(prefix, start, AFTER if start else False, True, False, version))
            for key in filter(matches, page):
                yield key

    def keys(self, pattern: str = "*", version: Any = None) -> list[str]:
        """Keys that match a glob pattern, in byte order. See :meth:`iter_keys`."""
        return list(self.iter_keys(pattern, version))

    async def akeys(self, pattern: str = "*", version: Any = None) -> list[str]:
        """As :meth:`keys`."""
        return [key async for key in self.aiter_keys(pattern, version)]

    def _delete_pattern(self, pattern: str, version: Any = None) -> Steps[int]:
        """Delete keys that match a glob pattern, some hundred at a time. The number of them.

        A pattern that is a literal and one ``*`` at its end is a :meth:`prune`: one step.
        """
        prefix, matches = _glob(pattern)
        if pattern == f"{prefix}*":
            return (yield from self._prune(prefix, version))
        deleted = 0
        start: str | None = ""
        while start is not None:
            page, start = yield from self._page(
                prefix, start, AFTER if start else False, True, False, version, _DELETE_BATCH
            )
            doomed = [self._key(key, version) for key in page if matches(key)]
            if doomed:
                deleted += yield "delete_many", self._database, doomed
        return deleted

    delete_pattern, adelete_pattern = twins(_delete_pattern)


def _check_count(count: Any) -> None:
    if not isinstance(count, int) or count < 0:
        raise InvalidArgument(f"count must be 0 (no limit) or more, not {count!r}.")


def _glob(pattern: str) -> tuple[str, Callable[[str], bool]]:
    """The literal beginning of a glob pattern, and a test for whole keys."""
    if not isinstance(pattern, str):
        raise InvalidArgument(f"A pattern is a str such as 'news:*', not {pattern!r}.")
    special = _GLOB.search(pattern)
    prefix = pattern[: special.start()] if special else pattern
    compiled = re.compile(fnmatch.translate(pattern))
    return prefix, lambda key: compiled.match(key) is not None

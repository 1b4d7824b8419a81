"""Where ``manage.py keyspace_import`` reads from: the live servers whose place a store takes.

A source hands out pages of records with a mark behind each; given a mark, it goes on behind that page. What a server counts as a
deadline becomes milliseconds since the epoch. The servers are read through their well-known Python libraries, which are only
imported when a source is used.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final, Protocol
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

from django_keyspace.exceptions import ConfigurationError, KeyspaceError, TransportError
from django_keyspace.store.clock import wall_ms

PAGE_KEYS: Final = 500
_CONNECT_TIMEOUT_S: Final = 10
_READ_TIMEOUT_S: Final = 60
_KYOTO_NEVER_S: Final = 2**40 - 1


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a source. ``deadline_ms`` is None if it never expires."""

    key: bytes
    value: bytes
    deadline_ms: int | None = None


@dataclass(slots=True)
class Page:
    """Some records, what was left out, and where to go on.

    Attributes:
        rows: records to import.
        mark: hand it to :meth:`Source.pages` to go on behind this page; None behind the last one.
        skipped: how many were left out, by reason.
        looked_at: how many keys of the server this page stands for.
    """

    rows: list[Row]
    mark: str | None
    looked_at: int
    skipped: dict[str, int] = field(default_factory=dict)


class Source(Protocol):
    """What a server is to the command."""

    def total(self) -> int | None:
        """How many keys there are about, or None."""

    def pages(self, mark: str | None) -> Iterator[Page]:
        """Every record, in pages; behind ``mark`` if there is one."""

    def close(self) -> None:
        """End the connection."""


def open_source(url: str) -> Source:
    """Connect to a server.

    Arguments:
        url: ``redis://``, ``rediss://``, ``memcached://``, ``kyoto://`` or ``tokyo://``, with host, port and database.
    Raises:
        ConfigurationError: the URL makes no sense, or the library for it is not installed.
        TransportError: the server can't be reached.
    """
    parts = urlsplit(url)
    source = SOURCES.get(parts.scheme)
    if source is None:
        known = ", ".join(f"{scheme}://" for scheme in SOURCES)
        raise ConfigurationError(
            f"{url!r} is no source to import from. Known are {known}, with host, port and database."
        )
    with said_plainly(parts):
        return source(url, parts)


@contextlib.contextmanager
def said_plainly(parts: SplitResult) -> Iterator[None]:
    """Turn whatever a library raises into :class:`TransportError`."""
    try:
        yield
    except KeyspaceError:
        raise
    except Exception as error:  # each library has a tree of its own, and lets the system's errors through
        address = parts.netloc.rpartition("@")[2] or parts.path
        raise TransportError(
            f"{parts.scheme}://{address} could not be read: {type(error).__name__}: {error}. What was imported so far stays. "
            "Look after the server and run the command again: with --mark it goes on where it stopped."
        ) from error


def _library(name: str, distribution: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise ConfigurationError(
            f"This source is read with the Python library {distribution}, which is not installed. Nothing was imported. "
            f"Install it: pip install {distribution}"
        ) from None


def _address(parts: SplitResult, port: int) -> tuple[str, int]:
    try:
        return parts.hostname or "127.0.0.1", parts.port or port
    except ValueError as error:
        raise ConfigurationError(f"{parts.geturl()!r} has no usable port: {error}.") from error


def _database(parts: SplitResult) -> int:
    text = parts.path.strip("/") or "0"
    if not text.isascii() or not text.isdigit():
        raise ConfigurationError(f"{parts.geturl()!r} names the database {text!r}: a number is wanted, as in .../0.")
    return int(text)


class RedisSource:
    """Strings of one Redis (or Valkey) database, by SCAN. Its other types have no counterpart here and are counted as skipped."""

    def __init__(self, url: str, parts: SplitResult) -> None:
        library = _library("redis", "redis")
        self._parts = parts
        self._refusal = library.exceptions.ResponseError
        # The older protocol: servers before Redis 6 know no other.
        self._client = library.Redis.from_url(
            url, protocol=2, socket_timeout=_READ_TIMEOUT_S, socket_connect_timeout=_CONNECT_TIMEOUT_S
        )
        self._client.ping()

    def total(self) -> int | None:
        """Redis counts its keys."""
        with said_plainly(self._parts):
            return int(self._client.dbsize())

    def pages(self, mark: str | None) -> Iterator[Page]:
        """A page per step of SCAN; the mark is its cursor, which Redis lets anybody go on from."""
        cursor = int(mark or 0)
        while True:
            with said_plainly(self._parts):
                cursor, keys = self._client.scan(cursor, count=PAGE_KEYS)
                page = self._page(keys, str(cursor) if cursor else None)
            yield page
            if not cursor:
                return

    def _page(self, keys: Sequence[bytes], mark: str | None) -> Page:
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.get(key)
            pipeline.pttl(key)
        answers = pipeline.execute(raise_on_error=False)
        now_ms = wall_ms()
        page = Page([], mark, len(keys))
        for key, value, left_ms in zip(keys, answers[::2], answers[1::2], strict=True):
            if isinstance(value, self._refusal):
                page.skipped["not a string"] = page.skipped.get("not a string", 0) + 1
            elif isinstance(value, Exception):
                raise value
            elif value is not None:  # or else it has expired since the scan
                page.rows.append(Row(key, value, now_ms + left_ms if left_ms >= 0 else None))
        return page

    def close(self) -> None:
        """End the connection."""
        self._client.close()


class _KeysFirst:
    """A source that lists all keys at once: they are sorted, and the mark is the last key of a page."""

    _parts: SplitResult
    _sorted: list[bytes] | None = None

    def _all_keys(self) -> list[bytes]:
        raise NotImplementedError

    def _rows(self, keys: list[bytes]) -> list[Row]:
        raise NotImplementedError

    def _keys(self) -> list[bytes]:
        if self._sorted is None:
            with said_plainly(self._parts):
                self._sorted = sorted(self._all_keys())
        return self._sorted

    def total(self) -> int | None:
        """All keys are known."""
        return len(self._keys())

    def pages(self, mark: str | None) -> Iterator[Page]:
        """Some hundred keys at a time, in order."""
        keys = self._keys()
        if mark is not None:
            last = bytes.fromhex(mark)
            keys = [key for key in keys if key > last]
        for begin in range(0, len(keys), PAGE_KEYS):
            some = keys[begin : begin + PAGE_KEYS]
            with said_plainly(self._parts):
                rows = self._rows(some)
            more = begin + PAGE_KEYS < len(keys)
            yield Page(rows, some[-1].hex() if more else None, len(some))


class MemcachedSource(_KeysFirst):
    """Whatever ``lru_crawler metadump`` lists of a memcached (1.4.31 or newer)."""

    def __init__(self, url: str, parts: SplitResult) -> None:
        library = _library("pymemcache.client.base", "pymemcache")
        self._parts = parts
        self._address = _address(parts, 11211)
        self._client = library.Client(
            self._address, connect_timeout=_CONNECT_TIMEOUT_S, timeout=_READ_TIMEOUT_S, allow_unicode_keys=True
        )
        self._client.version()
        self._deadlines_ms: dict[bytes, int | None] = {}

    def _all_keys(self) -> list[bytes]:
        """Over a connection of our own: pymemcache 4.0 keeps only the last part of a long answer to a raw command."""
        with socket.create_connection(self._address, _CONNECT_TIMEOUT_S) as connection:
            connection.settimeout(_READ_TIMEOUT_S)
            connection.sendall(b"lru_crawler metadump all\r\n")
            for line in connection.makefile("rb"):
                if line.strip() == b"END":
                    return list(self._deadlines_ms)
                fields = dict(part.partition(b"=")[::2] for part in line.split(b" "))
                if b"key" not in fields:
                    raise TransportError(
                        f"memcached does not list its keys: {line.decode('ascii', 'replace').strip()}. Nothing was imported. "
                        "It takes release 1.4.31 or newer, and lists them to one client at a time."
                    )
                expires_s = int(fields[b"exp"])
                self._deadlines_ms[unquote_to_bytes(fields[b"key"])] = expires_s * 1000 if expires_s > 0 else None
        raise TransportError(
            "memcached ended the connection in the middle of the list of its keys. Nothing was imported."
        )

    def _rows(self, keys: list[bytes]) -> list[Row]:
        found = self._client.get_many(keys)
        return [Row(key, value, self._deadlines_ms[key]) for key, value in found.items()]

    def close(self) -> None:
        """End the connection."""
        self._client.close()


class KyotoSource(_KeysFirst):
    """One database of a Kyoto Tycoon, through kt."""

    def __init__(self, url: str, parts: SplitResult) -> None:
        library = _library("kt", "kt")
        self._parts, self._number = parts, _database(parts)
        host, port = _address(parts, 1978)
        self._client = library.KyotoTycoon(host, port, serializer=library.KT_NONE, decode_keys=False)
        self._client.count(self._number)

    def _all_keys(self) -> list[bytes]:
        return list(self._client.match_prefix("", db=self._number))

    def _rows(self, keys: list[bytes]) -> list[Row]:
        details = self._client.get_bulk_details(keys, self._number)
        # Its key is dead once the clock's second is greater than the one that it was given.
        return [
            Row(key, value, (expires_s + 1) * 1000 if expires_s < _KYOTO_NEVER_S else None)
            for _, key, value, expires_s in details
        ]

    def close(self) -> None:
        """End the connection."""
        self._client.close()


class TokyoSource(_KeysFirst):
    """A Tokyo Tyrant, through kt. It knows no expiry."""

    def __init__(self, url: str, parts: SplitResult) -> None:
        library = _library("kt", "kt")
        self._parts = parts
        host, port = _address(parts, 1978)
        self._client = library.TokyoTyrant(host, port, serializer=library.KT_NONE, decode_keys=False)
        self._client.count()

    def _all_keys(self) -> list[bytes]:
        return list(self._client.keys_fast())

    def _rows(self, keys: list[bytes]) -> list[Row]:
        return [Row(key, value) for key, value in self._client.get_bulk(keys).items()]

    def close(self) -> None:
        """End the connection."""
        self._client.close()


SOURCES: Final[dict[str, Callable[[str, SplitResult], Source]]] = {
    "redis": RedisSource,
    "rediss": RedisSource,
    "memcached": MemcachedSource,
    "kyoto": KyotoSource,
    "tokyo": TokyoSource,
}
"""The kinds of server, by the scheme of their URL."""

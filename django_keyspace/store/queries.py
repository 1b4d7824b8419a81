"""What each reading operation answers, inside a transaction of its caller.

``READS[name](txn, store, now_ms, *arguments)``: ``txn`` is an LMDB transaction (a read-only one, or the write transaction
of a batch), ``store`` has the handles and limits, ``now_ms`` is the log time that decides what is expired. The functions
change nothing and look at nothing else, so that embedded stores, nodes and simulations answer alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from django_keyspace.exceptions import KeyspaceError, TooStale
from django_keyspace.operations import AFTER, PAGE_ROWS_MAX, RANGE_DIGEST_BYTES
from django_keyspace.store import search
from django_keyspace.store.record import HEADER_BYTES, deadline_of, revision_of

if TYPE_CHECKING:
    from django_keyspace.store.environment import Environment

PAGE_BYTES_MAX: Final = 1024 * 1024
"""A page of a listing ends after the row that brings it to so many bytes, however few rows it has."""


def get(txn: Any, store: Environment, now_ms: int, database: int, key: bytes) -> bytes | None:
    """The record under a key, or None."""
    record: bytes | None = txn.get(key, None, store.databases[database])
    if record is not None:
        (deadline_ms,) = deadline_of(record)
        if deadline_ms and deadline_ms <= now_ms:
            return None
    return record


def get_many(txn: Any, store: Environment, now_ms: int, database: int, keys: Iterable[bytes]) -> list[bytes | None]:
    """The records under many keys, in their order."""
    read, handle = txn.get, store.databases[database]
    records = []
    for key in keys:
        record = read(key, None, handle)
        if record is not None:
            (deadline_ms,) = deadline_of(record)
            if deadline_ms and deadline_ms <= now_ms:
                record = None
        records.append(record)
    return records


def exists(txn: Any, store: Environment, now_ms: int, database: int, key: bytes) -> bool:
    """Whether a key has a live record."""
    return get(txn, store, now_ms, database, key) is not None


def length(txn: Any, store: Environment, now_ms: int, database: int, key: bytes) -> int | None:
    """Bytes of the payload as it is stored, or None."""
    record = get(txn, store, now_ms, database, key)
    return None if record is None else len(record) - HEADER_BYTES


def ttl(txn: Any, store: Environment, now_ms: int, database: int, key: bytes) -> int | None:
    """Milliseconds left; -1 without deadline; None for a missing key."""
    record = get(txn, store, now_ms, database, key)
    if record is None:
        return None
    (deadline_ms,) = deadline_of(record)
    return deadline_ms - now_ms if deadline_ms else -1


def end_of_prefix(prefix: bytes) -> bytes | None:
    """The smallest key above every key with this prefix, or None if there is no such key."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else None


def _walk(cursor: Any, prefix: bytes, start_key: bytes, forward: bool) -> Iterator[bytes]:
    """Keys of the prefix range from ``start_key`` on, in either direction. An empty start key is the range's beginning."""
    if forward:
        found = cursor.set_range(max(start_key, prefix)) if start_key or prefix else cursor.first()
        step = cursor.next
    else:
        found = _seek_backward(cursor, prefix, start_key)
        step = cursor.prev
    while found:
        key = cursor.key()
        if not key.startswith(prefix):
            return
        yield key
        found = step()


def _seek_backward(cursor: Any, prefix: bytes, start_key: bytes) -> bool:
    """Stand on the largest key of the prefix range that is not above ``start_key``."""
    end = end_of_prefix(prefix)
    if start_key and (end is None or start_key < end):
        if cursor.set_range(start_key):
            return bool(cursor.key() == start_key or cursor.prev())
        return bool(cursor.last())
    if end is not None and cursor.set_range(end):
        return bool(cursor.prev())
    return bool(cursor.last())


def _live_rows(
    txn: Any,
    store: Environment,
    now_ms: int,
    database: int,
    prefix: bytes,
    start_key: bytes,
    skip: bool | str,
    forward: bool,
) -> Iterator[tuple[bytes, bytes]]:
    cursor = txn.cursor(db=store.databases[database])
    for key in _walk(cursor, prefix, start_key, forward):
        record = cursor.value()
        (deadline_ms,) = deadline_of(record)
        if deadline_ms and deadline_ms <= now_ms:
            continue
        if skip and (skip != AFTER or key == start_key):
            skip = False
            continue
        yield key, record


def list_page(
    txn: Any,
    store: Environment,
    now_ms: int,
    database: int,
    prefix: bytes,
    start_key: bytes,
    skip: bool | str,
    forward: bool,
    rows: int,
    with_values: bool,
) -> tuple[list[Any], bool]:
    """One page of an ordered listing. Source: Keyspace's Python API, "List commands"; rulings in docs/design.md.

    Returns:
        ``(rows, more)``. The next page starts at the last row's key with ``skip`` "after".
    """
    page: list[Any] = []
    page_bytes = 0
    for key, record in _live_rows(txn, store, now_ms, database, prefix, start_key, skip, forward):
        if len(page) >= rows or page_bytes >= PAGE_BYTES_MAX:
            return page, True
        page.append((key, record) if with_values else key)
        page_bytes += len(key) + (len(record) if with_values else 0)
    return page, False


def count(
    txn: Any,
    store: Environment,
    now_ms: int,
    database: int,
    prefix: bytes,
    start_key: bytes,
    skip: bool | str,
    forward: bool,
    limit: int,
) -> tuple[int, bytes | None]:
    """One slice of a count, so that counting millions of keys holds no transaction for long.

    Returns:
        ``(number, last)``: the next slice starts at ``last`` with ``skip`` "after"; None at the end.
    """
    slice_rows = min(limit or COUNT_SLICE_ROWS, COUNT_SLICE_ROWS)
    number = 0
    for key, _ in _live_rows(txn, store, now_ms, database, prefix, start_key, skip, forward):
        number += 1
        if number >= slice_rows:
            return number, (None if limit and number >= limit else key)
    return number, None


def range_digest(txn: Any, store: Environment, now_ms: int, database: int, low: bytes, high: bytes) -> bytes:
    """What stands for the live keys of a range and their revisions: two equal digests, the same records.

    Arguments:
        low: the first key that may be in it; it need not exist.
        high: the last one; empty: the range has no end.
    """
    hasher = blake2b(digest_size=RANGE_DIGEST_BYTES)
    cursor = txn.cursor(db=store.databases[database])
    found = cursor.set_range(low) if low else cursor.first()
    while found:
        key = cursor.key()
        if high and key > high:
            break
        record = cursor.value()
        (deadline_ms,) = deadline_of(record)
        if not deadline_ms or deadline_ms > now_ms:
            hasher.update(b"%d %d " % (revision_of(record)[0], len(key)) + key)
        found = cursor.next()
    return hasher.digest()


COUNT_SLICE_ROWS: Final = PAGE_ROWS_MAX


def status(txn: Any, store: Environment, now_ms: int) -> dict[str, Any]:
    """Figures of the store."""
    return store.figures(txn, now_ms)


def at(
    txn: Any,
    store: Environment,
    now_ms: int,
    level: str,
    min_index: int,
    max_staleness_ms: int | None,
    call: Sequence[Any],
) -> tuple[Any, int, int, str]:
    """A read where there is no other copy: whatever its level, it sees the latest state. (result, revision, 0, "")."""
    index = store.read_meta(txn).revision
    return carry_out(lambda name, *rest: READS[name](txn, store, now_ms, *rest), min_index, index, call), index, 0, ""


def carry_out(read: Callable[..., Any], min_index: int, index: int, call: Sequence[Any]) -> Any:
    """The result of a read with a level, or of a batch of reads.

    Arguments:
        read: does a read on the state of that index.
        min_index: which index the caller wants at least.
        index: the state's.
        call: the read.
    Raises:
        TooStale: the caller has seen a later state than this one.
    """
    if min_index > index:
        raise TooStale(
            f"The store is at {index:,}, and this session has seen {min_index:,}: what it saw is gone from here, or has not "
            "come yet. Nothing was read."
        )
    if call[0] != "batch":
        return read(*call)
    results: list[tuple[str, Any]] = []
    for inner in call[1]:
        try:
            results.append(("ok", read(*inner)))
        except KeyspaceError as error:
            results.append((error.code, str(error)))
    return results


def members(txn: Any, store: Environment, now_ms: int) -> dict[str, Any]:
    """No cluster, no leader, no nodes: a store by itself."""
    return {"cluster": None, "leader": None, "nodes": []}


READS: Final[dict[str, Callable[..., Any]]] = {
    "get": get,
    "get_many": get_many,
    "exists": exists,
    "length": length,
    "ttl": ttl,
    "list": list_page,
    "count": count,
    "match_regex": search.match_regex,
    "match_similar": search.match_similar,
    "status": status,
    "at": at,
    "members": members,
}
"""The function of each reading operation."""

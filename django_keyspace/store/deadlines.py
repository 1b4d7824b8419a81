"""The deadline index: which records are due next, without an index write on each overwrite.

One sub-database of empty values whose keys are ``bucket (4 bytes, big-endian), database (2 bytes), key``. A bucket is some
eight seconds. A record's header says in which bucket its entry stands, and the entry may stand too early, never too late:

- an overwrite with a later deadline leaves the entry where it is (the usual case: no index write at all),
- an earlier deadline moves it, and it goes with its record or with the record's deadline. So the index is never larger
  than what it leads to: a full cache of long timeouts would otherwise fill with entries of what it has evicted.

:func:`due_entries` walks the index in order. Whoever visits an entry settles it: it deletes the expired record, or moves an
entry that stands too early to the bucket of the record's deadline.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from django_keyspace.store import overlay
from django_keyspace.store.record import unpack_header, with_deadline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django_keyspace.store.context import WriteContext

BUCKET_SHIFT: Final = 13
"""A bucket is 2**13 ms."""

_ENTRY = struct.Struct(">IH")
ENTRY_BYTES: Final = _ENTRY.size


def bucket_of(deadline_ms: int) -> int:
    """The bucket of a deadline, from 1; 0 stands for no deadline."""
    return min((deadline_ms >> BUCKET_SHIFT) + 1, 2**32 - 1) if deadline_ms else 0


def index_deadline(context: WriteContext, database: int, key: bytes, deadline_ms: int) -> int:
    """Make an entry that leads to a record in time.

    Arguments:
        context: the write transaction.
        database: number of the record's database.
        key: the record's key.
        deadline_ms: the record's new deadline, 0 for none.
    Returns:
        The bucket for the new record's header.
    """
    bucket = bucket_of(deadline_ms)
    if not bucket:
        return 0
    context.txn.put(_ENTRY.pack(bucket, database) + key, b"", db=context.store.deadlines)
    return bucket


def forget(context: WriteContext, database: int, key: bytes, bucket: int) -> None:
    """Delete a record's entry; ``bucket`` is that of its header."""
    context.txn.delete(_ENTRY.pack(bucket, database) + key, db=context.store.deadlines)


def forget_database(context: WriteContext, database: int) -> None:
    """Delete the entries of a database that was emptied."""
    cursor = context.txn.cursor(db=context.store.deadlines)
    found = cursor.first()
    while found:
        is_its = _ENTRY.unpack_from(cursor.key())[1] == database
        found = cursor.delete() and cursor.key() != b"" if is_its else cursor.next()


def due_entries(context: WriteContext, before_bucket: int) -> Iterator[tuple[bytes, int, int, bytes]]:
    """Entries in order of their bucket: ``(entry, bucket, database, key)``, up to and including ``before_bucket``.

    The entry that was yielded last may be deleted meanwhile; entries may be added behind it. Those of databases that this
    process was not told of are left to processes that were.
    """
    known = context.store.databases
    cursor = context.txn.cursor(db=context.store.deadlines)
    found = cursor.first()
    while found:
        entry = bytes(cursor.key())
        bucket, database = _ENTRY.unpack_from(entry)
        if bucket > before_bucket:
            return
        if database in known:
            yield entry, bucket, database, entry[ENTRY_BYTES:]
        found = cursor.set_range(entry) and (cursor.key() != entry or cursor.next())


def settle(context: WriteContext, entry: bytes, bucket: int, database: int, key: bytes) -> bytes | None:
    """Settle one entry: drop it if it is stale, move it if it stands too early.

    Returns:
        The record, if the entry is where the record's deadline is (its entry then still stands); otherwise None.
    """
    txn, handle = context.txn, context.store.databases[database]
    record: bytes | None = txn.get(key, db=handle)
    if record is not None:
        _, _, _, revision, deadline_ms, record_bucket = unpack_header(record)
        if record_bucket == bucket:
            if bucket_of(deadline_ms) == bucket:
                return record
            # An early entry of a record that now lives longer, or for ever. The value did not change: same revision.
            moved = index_deadline(context, database, key, deadline_ms)
            txn.put(key, with_deadline(record, revision, deadline_ms, moved), db=handle)
    context.changed = True
    txn.delete(entry, db=context.store.deadlines)
    return None


def is_sweep_due(context: WriteContext) -> bool:
    """Whether the index begins with an entry whose whole bucket is over, or a name's deadline is. Only looks."""
    if next(overlay.fired(context), None) is not None:
        return True
    return next(due_entries(context, bucket_of(context.log_time_ms) - 1), None) is not None


def sweep(context: WriteContext, records: int) -> tuple[int, bool]:
    """Delete expired records and names' deadlines that are over, at most ``records`` entries' worth.

    Returns:
        ``(deleted, more)``: how many records went, and whether others are due.
    """
    now_bucket = bucket_of(max(context.log_time_ms, 1))
    visited, deleted, more = overlay.sweep(context, records)
    if more:
        return deleted, True
    for entry, bucket, database, key in due_entries(context, now_bucket):
        if visited >= records:
            return deleted, True
        visited += 1
        record = settle(context, entry, bucket, database, key)
        if record is None:
            continue
        if unpack_header(record)[4] > context.log_time_ms:
            continue  # due within this bucket, but not yet: its entry stays
        context.txn.delete(entry, db=context.store.deadlines)
        context.drop(database, key, record)
        deleted += 1
    return deleted, False

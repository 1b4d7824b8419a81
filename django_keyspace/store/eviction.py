"""Which records go when a store is at its soft limit. Decided by the orderer of writes, outside of ``apply``.

In this order: records that have expired, records that expire soonest, then a sample of the others, of which those written
longest ago go; if samples find only others, whatever is evictable. Never a record that is not evictable. The choice is
handed to the ``evict`` operation as a list of keys.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, Final, cast

from django_keyspace.store.deadlines import due_entries
from django_keyspace.store.record import Flag, unpack_header

if TYPE_CHECKING:
    from django_keyspace.store.context import WriteContext

Address = tuple[int, bytes]
ROUND_ADDRESSES_MAX: Final = 250
_ENTRIES_LOOKED_AT_MAX: Final = 4000
_SAMPLE_ROWS: Final = 32
_SAMPLES_MAX: Final = 64
_NARROWINGS_MAX: Final = 12
_NO_BUCKET: Final = 2**32
_EVICTABLE = int(Flag.EVICTABLE)
HOST_RANDOM: Final = cast(random.Random, random)
"""The module's own generator, for those who need not be repeatable."""


def choose(
    context: WriteContext,
    bytes_to_free: int,
    generator: random.Random = HOST_RANDOM,
    besides: Collection[Address] = (),
) -> dict[Address, int]:
    """Choose evictable records worth about ``bytes_to_free`` bytes.

    Arguments:
        context: the write transaction; it is only read.
        bytes_to_free: how much to free; the list is bounded, so one round may choose less.
        generator: draws the samples.
        besides: chosen before, and still there: not chosen again.
    Returns:
        Addresses ``(database, key)``, with the bytes of pages that each takes, about; empty if there is nothing to evict.
    """
    chosen: dict[Address, int] = {}
    freed = 0
    for source in (_soonest, _sampled, _scanned):
        if chosen and source is _scanned:
            break
        for address, size in source(context, generator):
            if address not in chosen and address not in besides:
                chosen[address] = size
                freed += size
            if freed >= bytes_to_free or len(chosen) >= ROUND_ADDRESSES_MAX:
                return chosen
    return chosen


def _soonest(context: WriteContext, generator: random.Random) -> Iterator[tuple[Address, int]]:
    """Evictable records in the order of the deadline index. Entries that stand too early or are stale are passed over."""
    for looked_at, (_, bucket, database, key) in enumerate(due_entries(context, _NO_BUCKET)):
        if looked_at >= _ENTRIES_LOOKED_AT_MAX:
            return
        record = context.txn.get(key, None, context.store.databases[database])
        if record is None:
            continue
        _, flags, _, _, _, record_bucket = unpack_header(record)
        if record_bucket == bucket and flags & _EVICTABLE:
            yield (database, key), context.store.footprint(len(key) + len(record))


def _sampled(context: WriteContext, generator: random.Random) -> Iterator[tuple[Address, int]]:
    """The older half of the evictable records of random places."""
    databases = [
        (number, handle) for number, handle in context.store.databases.items() if context.txn.stat(handle)["entries"]
    ]
    for _ in range(_SAMPLES_MAX if databases else 0):
        number, handle = generator.choice(databases)
        rows = _rows_at_random(context.txn.cursor(db=handle), generator)
        rows.sort()
        for _, key, size in rows[: (len(rows) + 1) // 2]:
            yield (number, key), context.store.footprint(size)


def _scanned(context: WriteContext, generator: random.Random) -> Iterator[tuple[Address, int]]:
    """Evictable records in order, from databases that have some: slow, and sure to find them among many others."""
    for number, handle in context.store.databases.items():
        if context.txn.stat(handle)["entries"] <= context.store.kept_records(context.txn, number):
            continue
        for key, record in context.txn.cursor(db=handle):
            if unpack_header(record)[1] & _EVICTABLE:
                yield (number, key), context.store.footprint(len(key) + len(record))


def _rows_at_random(cursor: Any, generator: random.Random) -> list[tuple[int, bytes, int]]:
    """``(revision, key, size)`` of evictable records from a random place on, round the end if need be."""
    rows = []
    found = _seek_at_random(cursor, generator)
    for _ in range(_SAMPLE_ROWS):
        if not found:
            break
        record = cursor.value()
        _, flags, _, revision, _, _ = unpack_header(record)
        if flags & _EVICTABLE:
            rows.append((revision, cursor.key(), len(cursor.key()) + len(record)))
        found = cursor.next()
    return rows


def _seek_at_random(cursor: Any, generator: random.Random) -> bool:
    """Stand somewhere, so that keys which begin alike and lie close together have their chance, too.

    A key drawn between the first and the last one mostly lands at the beginning of some large group of similar keys. So the
    draw is repeated some times within what lies before or behind it, each as likely.
    """
    if not cursor.first():
        return False
    low = cursor.key()
    cursor.last()
    high = cursor.key()
    for _ in range(generator.randint(1, _NARROWINGS_MAX)):
        if not cursor.set_range(_key_between(low, high, generator)):
            break
        if generator.random() < 0.5:
            low = cursor.key()
        elif cursor.prev() and cursor.key() > low:
            high = cursor.key()
        if low >= high:
            break
    return bool(cursor.set_range(low))


def _key_between(low: bytes, high: bytes, generator: random.Random) -> bytes:
    """A key between two keys: their common beginning, and eight bytes between what follows."""
    common = 0
    while common < len(low) and common < len(high) and low[common] == high[common]:
        common += 1
    least = int.from_bytes(low[common : common + 8].ljust(8, b"\0"), "big")
    most = int.from_bytes(high[common : common + 8].ljust(8, b"\xff"), "big")
    return bytes(high[:common]) + generator.randint(least, max(least, most)).to_bytes(8, "big")

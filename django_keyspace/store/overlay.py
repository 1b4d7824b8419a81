"""The expiry overlay: deadlines that hang on a key's name, whether or not there is a record under it.

Source: Keyspace's ``set_expiry``, ``remove_expiry`` and ``clear_expiries``; rulings in docs/design.md. A name's deadline outlives
writes, deletes and evictions of its record, stays behind when the record is renamed, and goes with what it has made expire.

Reads know nothing of it: a write puts the earlier one of both deadlines into the record's header, sets
:attr:`~django_keyspace.store.record.Flag.OVERLAID`, and keeps the record's own deadline in the name's entry. Writes look
here only while the meta record says that the overlay may have entries: who has none pays nothing.

One sub-database with two entries for each name::

    "n", database (2 bytes), key                           ->  the name's deadline, its record's own one (8 bytes each)
    "t", deadline (8 bytes, big-endian), database, key     ->  nothing: the order in which they fire

An entry whose deadline is over has fired: it counts as gone, and whoever comes across it deletes it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from django_keyspace.store.record import HEADER_BYTES, Flag, unpack_header

if TYPE_CHECKING:
    from django_keyspace.operations import Expire
    from django_keyspace.store.context import WriteContext

_OVERLAID = int(Flag.OVERLAID)
_NAME = struct.Struct(">cH")
_TIME = struct.Struct(">cQH")
_ENTRY = struct.Struct("<QQ")
_NAMES: Final = b"n"
_TIMES: Final = b"t"


def fold(context: WriteContext, database: int, key: bytes, flags: int, own_ms: int) -> tuple[int, int]:
    """What a record that is about to be written gets of its name's deadline.

    Arguments:
        context: the write transaction.
        database: number of the record's database.
        key: the record's key.
        flags: the record's flags.
        own_ms: its own deadline, 0 for none.
    Returns:
        ``(flags, deadline_ms)`` for its header.
    """
    entry = _read(context, database, key)
    if entry is None:
        return flags & ~_OVERLAID, own_ms
    deadline_ms, old_own_ms = entry
    if deadline_ms <= context.log_time_ms:
        _delete(context, database, key, deadline_ms)
        return flags & ~_OVERLAID, own_ms
    if own_ms != old_own_ms:
        context.txn.put(_NAME.pack(_NAMES, database) + key, _ENTRY.pack(deadline_ms, own_ms), db=context.store.overlay)
    return flags | _OVERLAID, min(own_ms, deadline_ms) if own_ms else deadline_ms


def own_deadline(context: WriteContext, database: int, key: bytes, record: bytes) -> int:
    """The deadline that a live record has of its own, 0 for none."""
    _, flags, _, _, deadline_ms, _ = unpack_header(record)
    entry = _read(context, database, key) if flags & _OVERLAID else None
    return entry[1] if entry is not None else deadline_ms


def set_expiry(context: WriteContext, database: int, key: bytes, expiry: Expire) -> bool:
    """Hang a deadline on a name. One that is over already fires at once."""
    stored, live = context.find(database, key)
    own_ms = own_deadline(context, database, key, live) if live is not None else 0
    deadline_ms = context.deadline(expiry)
    remove_entry(context, database, key)
    if stored is not None and (live is None or deadline_ms <= context.log_time_ms):
        context.drop(database, key, stored)
    if deadline_ms > context.log_time_ms:
        context.has_overlay = context.changed = True
        context.written_bytes += 2 * len(key) + _TIME.size + _NAME.size + _ENTRY.size
        txn, handle = context.txn, context.store.overlay
        txn.put(_NAME.pack(_NAMES, database) + key, _ENTRY.pack(deadline_ms, own_ms), db=handle)
        txn.put(_TIME.pack(_TIMES, deadline_ms, database) + key, b"", db=handle)
        _rewrite(context, database, key, live, own_ms)
    return True


def remove_expiry(context: WriteContext, database: int, key: bytes) -> int:
    """Take the deadline off a name, unless it has fired; the record's own deadline counts again."""
    stored, live = context.find(database, key)
    own_ms = own_deadline(context, database, key, live) if live is not None else 0
    deadline_ms = remove_entry(context, database, key)
    if deadline_ms is None:
        return 0
    if deadline_ms > context.log_time_ms:
        _rewrite(context, database, key, live, own_ms)
        return 1
    if stored is not None and live is None:
        context.drop(database, key, stored)  # it fired; what it made expire goes with it
    return 0


def clear_expiries(context: WriteContext, database: int) -> int:
    """Take the deadlines off all names of a database."""
    return sum(remove_expiry(context, database, key) for key in _names(context, database))


def forget_cleared(context: WriteContext, database: int) -> None:
    """After a database was cleared: the names of records that are still there keep their deadlines, the others lose them."""
    handle = context.databases[database]
    for key in _names(context, database):
        if context.txn.get(key, None, handle) is None:
            remove_entry(context, database, key)


def remove_entry(context: WriteContext, database: int, key: bytes) -> int | None:
    """Delete a name's deadline, and answer it; None if it had none. Its record is left as it is."""
    entry = _read(context, database, key)
    if entry is None:
        return None
    _delete(context, database, key, entry[0])
    return entry[0]


def fired(context: WriteContext) -> Iterator[tuple[int, int, bytes]]:
    """Names' deadlines that are over, in their order: ``(deadline_ms, database, key)``.

    The name that was yielded last may lose its entries meanwhile. Those of databases that this process was not told of are
    left to processes that were.
    """
    known = context.store.databases
    cursor = context.txn.cursor(db=context.store.overlay)
    found = cursor.set_range(_TIMES)
    while found:
        entry = bytes(cursor.key())
        _, deadline_ms, database = _TIME.unpack_from(entry)
        if deadline_ms > context.log_time_ms:
            return
        if database in known:
            yield deadline_ms, database, entry[_TIME.size :]
        found = cursor.set_range(entry) and (cursor.key() != entry or cursor.next())


def sweep(context: WriteContext, names: int) -> tuple[int, int, bool]:
    """Delete names' deadlines that are over, and the records that they made expire.

    Arguments:
        context: the write transaction.
        names: at most so many.
    Returns:
        ``(visited, deleted, more)``: names, records, and whether others are due.
    """
    visited = deleted = 0
    for deadline_ms, database, key in fired(context):
        if visited >= names:
            return visited, deleted, True
        visited += 1
        stored, live = context.find(database, key)
        if stored is not None and live is None:
            context.drop(database, key, stored)
            deleted += 1
        _delete(context, database, key, deadline_ms)
    return visited, deleted, False


def _read(context: WriteContext, database: int, key: bytes) -> tuple[int, int] | None:
    """``(deadline_ms, own_ms)`` of a name, or None."""
    if not context.has_overlay:
        return None
    entry: Any = context.txn.get(_NAME.pack(_NAMES, database) + key, None, context.store.overlay)
    return None if entry is None else _ENTRY.unpack(entry)


def _delete(context: WriteContext, database: int, key: bytes, deadline_ms: int) -> None:
    txn, handle = context.txn, context.store.overlay
    txn.delete(_NAME.pack(_NAMES, database) + key, db=handle)
    txn.delete(_TIME.pack(_TIMES, deadline_ms, database) + key, db=handle)
    context.changed = True
    context.has_overlay = bool(txn.stat(handle)["entries"])


def _rewrite(context: WriteContext, database: int, key: bytes, live: bytes | None, own_ms: int) -> None:
    """Write a record anew, with what it has of its name's deadline now."""
    if live is not None:
        tag, flags, _, _, _, _ = unpack_header(live)
        context.put(database, key, tag, flags & ~_OVERLAID, live[HEADER_BYTES:], own_ms, live)


def _names(context: WriteContext, database: int) -> list[bytes]:
    """The names of a database that have a deadline."""
    if not context.has_overlay:
        return []
    start = _NAME.pack(_NAMES, database)
    names = []
    cursor = context.txn.cursor(db=context.store.overlay)
    found = cursor.set_range(start)
    while found and cursor.key().startswith(start):
        names.append(bytes(cursor.key()[len(start) :]))
        found = cursor.next()
    return names

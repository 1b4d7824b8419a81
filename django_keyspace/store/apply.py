"""What each writing operation does, inside a write transaction.

``apply(context, call)`` is a pure function of the stored state and the operation: no clock, no randomness, no
look at page counts or free space. Time is ``context.log_time_ms``, decided by whoever orders the writes; eviction arrives
here as an explicit list of keys. The same code runs in an embedded store, in a node and in a simulation.

An operation that fails raises before it has changed anything, so that others in the same transaction go on.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from django_keyspace.exceptions import KeyspaceError, MissingKey, NotANumber, NumberOverflow, WrongType
from django_keyspace.operations import INT64_MAX, INT64_MIN, Call, Expire, Value, value_too_large
from django_keyspace.store import deadlines, overlay, sessions
from django_keyspace.store.deadlines import BUCKET_SHIFT
from django_keyspace.store.queries import READS, end_of_prefix, range_digest
from django_keyspace.store.record import (
    HEADER_BYTES,
    Flag,
    Tag,
    deadline_of,
    flags_and_bucket,
    inflate,
    pack_header,
    payload_of,
    unpack_header,
)

if TYPE_CHECKING:
    from django_keyspace.store.context import WriteContext

_EVICTABLE = int(Flag.EVICTABLE)
_COMPRESSED = int(Flag.COMPRESSED)
_DECIMAL = int(Flag.DECIMAL)


def apply(context: WriteContext, call: Call) -> Any:
    """Do one operation of the table.

    Arguments:
        context: the write transaction.
        call: ``(name, *arguments)``, already checked.
    Returns:
        The operation's result; see ``operations.OPERATIONS``.
    Raises:
        LocalError: the state does not allow it; nothing was changed.
    """
    write = WRITES.get(call[0])
    if write is not None:
        return write(context, *call[1:])
    return READS[call[0]](context.txn, context.store, context.log_time_ms, *call[1:])


def set_value(context: WriteContext, database: int, key: bytes, value: Value, expire: Expire, presence: str) -> bool:
    if presence == "always" and not isinstance(expire, str):  # the hot path: nothing depends on what is there
        stored = context.txn.get(key, None, context.databases[database])
        deadline_ms = context.log_time_ms + expire if type(expire) is int else context.deadline(expire)
    else:
        stored, live = context.find(database, key)
        if presence != "always" and (presence == "absent") == (live is not None):
            return False
        deadline_ms = context.new_deadline(expire, database, key, live)
    tag, flags, payload = value
    context.put(database, key, tag, flags, payload, deadline_ms, stored)
    return True


def set_many(context: WriteContext, database: int, pairs: Sequence[tuple[bytes, Value]], expire: Expire) -> int:
    if isinstance(expire, str) or context.has_overlay:
        for key, value in pairs:
            set_value(context, database, key, value, expire, "always")
        return len(pairs)
    deadline_ms, revision = context.deadline(expire), context.revision
    if deadline_ms and deadline_ms <= context.log_time_ms:
        delete_many(context, database, [key for key, _ in pairs])
        return len(pairs)
    read, replace, handle = context.txn.get, context.replace, context.databases[database]
    latest = (deadline_ms >> BUCKET_SHIFT) + 1 if deadline_ms else 0
    values = dict(pairs)  # of a key that comes twice, the later value
    records: list[bytes] = []
    append, unpack, pack, checksum = records.append, flags_and_bucket, pack_header, crc32
    new_kept = 0
    for key, (tag, flags, payload) in values.items():
        stored = read(key, None, handle)
        # Most records change neither the deadline index nor, by themselves, the number of kept ones: no call for these.
        if stored is not None:
            old_flags, bucket = unpack(stored)
            if (old_flags ^ flags) & _EVICTABLE or (bucket != latest and not 0 < bucket < latest):
                bucket = replace(database, key, flags, deadline_ms, stored)
        elif deadline_ms:
            bucket = replace(database, key, flags, deadline_ms, None)
        else:
            bucket = 0
            new_kept += not flags & _EVICTABLE
        append(pack(tag, flags, checksum(payload), revision, deadline_ms, bucket) + payload)
    context.changed = True
    if new_kept:
        context.count_kept(database, new_kept)
    context.written_bytes += sum(map(len, records)) + sum(map(len, values))
    cursor = context.txn.cursor(handle)
    cursor.putmulti(zip(values, records, strict=True))
    cursor.close()
    return len(pairs)


def touch(context: WriteContext, database: int, key: bytes, expire: Expire) -> bool:
    stored, live = context.find(database, key)
    if live is None:
        return False
    tag, flags, _, _, _, _ = unpack_header(live)
    deadline_ms = context.new_deadline(expire, database, key, live)
    context.put(database, key, tag, flags, live[HEADER_BYTES:], deadline_ms, stored)
    return True


def remove(context: WriteContext, database: int, key: bytes) -> bytes | None:
    stored, live = context.find(database, key)
    if stored is not None:
        context.drop(database, key, stored)
    return live


def delete(context: WriteContext, database: int, key: bytes) -> bool:
    return remove(context, database, key) is not None


def delete_many(context: WriteContext, database: int, keys: Sequence[bytes]) -> int:
    return sum(remove(context, database, key) is not None for key in keys)


def _number_at(
    context: WriteContext,
    database: int,
    key: bytes,
    default: Any,
    expire: Expire,
    flags: int,
    accepted: dict[int, Callable[[bytes], Any]],
) -> tuple[Any, int, int, bytes | None]:
    """``(number, flags, deadline, stored)``: what to count from, and what the record with the sum keeps of the old one."""
    stored, live = context.find(database, key)
    if live is None:
        if default is None:
            raise MissingKey(
                "There is nothing to count under the key. Nothing was changed. Set it first, or give a default."
            )
        return default, flags, context.kept_deadline(expire, database, key, None), stored
    tag, flags, _, _, _, _ = unpack_header(live)
    deadline_ms = context.kept_deadline(expire, database, key, live)
    read = _decimal if flags & _DECIMAL and tag in (Tag.TEXT, Tag.BYTES) else accepted.get(tag)
    if read is not None:
        with contextlib.suppress(ValueError):
            return read(payload_of(live)), flags, deadline_ms, stored
    wanted = "an integer" if len(accepted) == 1 else "a number"
    raise NotANumber(f"The value under the key is not {wanted}. Nothing was changed. Store a number there first.")


def _decimal(payload: bytes) -> int:
    """The number in Keyspace's text: digits, perhaps after a minus sign; no text at all is 0."""
    if not _DECIMAL_TEXT(payload):
        raise ValueError
    return int(payload or b"0")


_DECIMAL_TEXT: Final = re.compile(rb"-?[0-9]*").fullmatch
_INTEGERS: Final[dict[int, Callable[[bytes], Any]]] = {Tag.INTEGER: int}
_NUMBERS: Final[dict[int, Callable[[bytes], Any]]] = {Tag.INTEGER: float, Tag.FLOAT: float}


def incr(
    context: WriteContext, database: int, key: bytes, delta: int, default: int | None, expire: Expire, flags: int
) -> int:
    base, flags, deadline_ms, stored = _number_at(context, database, key, default, expire, flags, _INTEGERS)
    number: int = base + delta
    if not INT64_MIN <= number <= INT64_MAX:
        raise NumberOverflow("The sum leaves the signed 64-bit range. Nothing was changed.")
    context.put(database, key, Tag.INTEGER, flags, b"%d" % number, deadline_ms, stored)
    return number


def incr_float(
    context: WriteContext, database: int, key: bytes, delta: float, default: float | None, expire: Expire, flags: int
) -> float:
    base, flags, deadline_ms, stored = _number_at(context, database, key, default, expire, flags, _NUMBERS)
    number: float = base + delta
    if number - number != 0:  # infinite or NaN
        raise NumberOverflow("The sum is not a finite float. Nothing was changed.")
    context.put(database, key, Tag.FLOAT, flags, repr(number).encode(), deadline_ms, stored)
    return number


def append(context: WriteContext, database: int, key: bytes, value: Value, expire: Expire) -> int:
    tag, flags, payload = value
    stored, live = context.find(database, key)
    deadline_ms = context.kept_deadline(expire, database, key, live)
    if live is not None:
        old_tag, flags, _, _, _, _ = unpack_header(live)
        if old_tag != tag or tag not in (Tag.TEXT, Tag.BYTES, Tag.RAW):
            raise WrongType("Only text can be appended to text, and bytes to bytes. Nothing was changed.")
        old_payload = payload_of(live)
        limit_bytes = context.store.limits.value_bytes_max
        if flags & _COMPRESSED:
            old_payload, flags = inflate(old_payload, limit_bytes), flags & ~_COMPRESSED
        payload = old_payload + payload
        if len(payload) > limit_bytes:
            raise value_too_large(len(payload), limit_bytes)
    context.put(database, key, tag, flags, payload, deadline_ms, stored)
    return len(payload)


def _holds(context: WriteContext, database: int, condition: Sequence[Any]) -> tuple[bool, bytes | None, bytes | None]:
    """Whether a condition holds, with what :meth:`WriteContext.find` says of its key."""
    kind, key = condition[0], condition[1]
    if kind == "range":
        found = range_digest(context.txn, context.store, context.log_time_ms, database, key, condition[2])
        return found == condition[3], None, None
    stored, live = context.find(database, key)
    if kind == "absent":
        holds = live is None
    elif live is None:
        holds = False
    elif kind == "present":
        holds = True
    elif kind == "revision":
        holds = unpack_header(live)[3] == condition[2]
    else:
        holds = condition[2] in (None, unpack_header(live)[0]) and live[HEADER_BYTES:] == condition[3]
    return holds, stored, live


def cas(
    context: WriteContext, database: int, condition: Sequence[Any], value: Value | None, expire: Expire
) -> tuple[bool, bytes | None]:
    holds, stored, live = _holds(context, database, condition)
    if not holds:
        return False, live
    if value is not None:
        tag, flags, payload = value
        deadline_ms = context.new_deadline(expire, database, condition[1], live)
        context.put(database, condition[1], tag, flags, payload, deadline_ms, stored)
    elif stored is not None:
        context.drop(database, condition[1], stored)
    return True, live


def rename(context: WriteContext, database: int, key: bytes, new_key: bytes) -> bool:
    stored, live = context.find(database, key)
    if live is None or stored is None:
        return False
    if key != new_key:
        target, _ = context.find(database, new_key)
        tag, flags, _, _, _, _ = unpack_header(live)
        deadline_ms = context.own_deadline(database, key, live)
        context.drop(database, key, stored)
        context.put(database, new_key, tag, flags, live[HEADER_BYTES:], deadline_ms, target)
    return True


def prune(context: WriteContext, database: int, prefix: bytes) -> int:
    cursor = context.txn.cursor(db=context.databases[database])
    end = end_of_prefix(prefix)
    live = 0
    found = cursor.set_range(prefix) if prefix else cursor.first()
    while found and (end is None or cursor.key() < end):
        record = cursor.value()
        (deadline_ms,) = deadline_of(record)
        live += not deadline_ms or deadline_ms > context.log_time_ms
        context.account_drop(database, cursor.key(), record)
        found = cursor.delete() and cursor.key() != b""
    return live


def clear(context: WriteContext, database: int, everything: bool) -> int:
    store, txn = context.store, context.txn
    handle = store.databases[database]
    records: int = txn.stat(handle)["entries"]
    kept = store.kept_records(txn, database) + context.kept.get(database, 0)
    context.changed = True
    if everything or not kept:
        txn.drop(handle, delete=False)
        if kept:
            context.count_kept(database, -kept)
    else:
        records = _clear_evictable(context, database)
    if context.has_overlay:
        overlay.forget_cleared(context, database)
    if not any(txn.stat(other)["entries"] for other in store.databases.values()):
        txn.drop(store.deadlines, delete=False)
    elif not txn.stat(handle)["entries"]:
        deadlines.forget_database(context, database)
    return records


def _clear_evictable(context: WriteContext, database: int) -> int:
    cursor = context.txn.cursor(db=context.databases[database])
    records = 0
    found = cursor.first()
    while found:
        record = cursor.value()
        if unpack_header(record)[1] & _EVICTABLE:
            records += 1
            context.account_drop(database, cursor.key(), record)
            found = cursor.delete() and cursor.key() != b""
        else:
            found = cursor.next()
    return records


def cull(context: WriteContext, database: int, keys: Sequence[bytes], records_max: int, frequency: int) -> int:
    handle = context.databases[database]
    records: int = context.txn.stat(handle)["entries"]
    new = sum(context.txn.get(key, None, handle) is None for key in keys)
    if not new or records + new <= records_max:
        return 0
    rows = []
    for key, record in context.txn.cursor(db=handle):
        _, flags, _, revision, deadline_ms, _ = unpack_header(record)
        if flags & _EVICTABLE:
            expired = bool(deadline_ms) and deadline_ms <= context.log_time_ms
            rows.append((not expired, revision, key))
    rows.sort()  # expired ones first, then those written longest ago
    wanted = records // frequency if frequency else records
    addresses = [(database, key) for _, _, key in rows[: max(wanted, records + new - records_max)]]
    return evict(context, addresses)


def evict(context: WriteContext, addresses: Sequence[tuple[int, bytes]]) -> int:
    evicted = 0
    for database, key in addresses:
        stored, _ = context.find(database, key)
        if stored is not None and unpack_header(stored)[1] & _EVICTABLE:
            context.drop(database, key, stored)
            evicted += 1
    return evicted


def batch(context: WriteContext, calls: Sequence[Call]) -> list[tuple[str, Any]]:
    answers: list[tuple[str, Any]] = []
    for call in calls:
        try:
            answers.append(("ok", apply(context, call)))
        except KeyspaceError as error:
            answers.append((error.code, str(error)))
    return answers


def atomic(
    context: WriteContext, conditions: Sequence[tuple[int, Sequence[Any]]], calls: Sequence[Call]
) -> tuple[bool, Any]:
    for index, (database, condition) in enumerate(conditions):
        if not _holds(context, database, condition)[0]:
            return False, index
    outer, kept, written_bytes = context.txn, dict(context.kept), context.written_bytes
    has_overlay = context.has_overlay
    context.txn = context.store.child_transaction(outer)
    try:
        results = [apply(context, call) for call in calls]
        context.txn.commit()
    except BaseException:
        context.txn.abort()
        context.kept, context.written_bytes, context.has_overlay = kept, written_bytes, has_overlay
        raise
    finally:
        context.txn = outer
    return True, results


def once(context: WriteContext, session: bytes, *arguments: Any) -> Any:
    return sessions.once(context, apply, session, *arguments)


WRITES: Final[dict[str, Callable[..., Any]]] = {
    "set": set_value,
    "set_many": set_many,
    "touch": touch,
    "delete": delete,
    "delete_many": delete_many,
    "incr": incr,
    "incr_float": incr_float,
    "append": append,
    "cas": cas,
    "remove": remove,
    "rename": rename,
    "prune": prune,
    "clear": clear,
    "set_expiry": overlay.set_expiry,
    "remove_expiry": overlay.remove_expiry,
    "clear_expiries": overlay.clear_expiries,
    "cull": cull,
    "batch": batch,
    "atomic": atomic,
    "once": once,
    "expire_sessions": sessions.expire,
    "sweep": deadlines.sweep,
    "evict": evict,
}
"""The function of each writing operation."""

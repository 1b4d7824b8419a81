"""One number for all that a store holds: nodes whose stores have the same digest at the same index hold the same.

What counts is content: records with their headers, the deadline index, names' deadlines, clients' sessions, the counts of
records that must not be evicted and of the bytes of results, and of the meta record the format, the revision, the log clock
and whether there is an overlay. How pages lie, which boot it was, and whether the store was closed well do not count, and
neither do databases without entries: a store that was opened with more of them holds no more.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from django_keyspace.store.environment import META_OVERLAY

if TYPE_CHECKING:
    from django_keyspace.store.environment import Environment

DIGEST_BYTES: Final = 32
_LENGTHS = struct.Struct("<II")
_TABLE = struct.Struct("<cIQ")
_META = struct.Struct("<HBQQQ")
_KEPT = struct.Struct("<cIQ")
_INDEXES_BASE: Final = 2**31
"""The deadline index, the overlay and the sessions come after all databases."""


def digest(txn: Any, environment: Environment) -> bytes:
    """The digest of what a transaction sees.

    Arguments:
        txn: the transaction.
        environment: its environment.
    """
    meta = environment.read_meta(txn)
    has_overlay = bool(meta.flags & META_OVERLAY)
    facts = _META.pack(meta.format, has_overlay, meta.revision, meta.log_ms, environment.answers_bytes(txn))
    whole = blake2b(facts, digest_size=DIGEST_BYTES)
    for number in sorted(environment.databases):
        kept = environment.kept_records(txn, number)
        if kept:
            whole.update(_KEPT.pack(b"k", number, kept))
        _add_table(whole, txn, number, environment.databases[number])
    for place, handle in enumerate((environment.deadlines, environment.overlay, environment.sessions)):
        _add_table(whole, txn, _INDEXES_BASE + place, handle)
    return whole.digest()


def _add_table(whole: Any, txn: Any, number: int, handle: Any) -> None:
    entries = txn.stat(handle)["entries"]
    if entries:
        whole.update(_TABLE.pack(b"t", number, entries))
        for key, value in txn.cursor(db=handle):
            whole.update(_LENGTHS.pack(len(key), len(value)) + key + value)

"""A write transaction as operations see it: its time, its revision, and how records are put and dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zlib import crc32

from django_keyspace.operations import KEEP, Expire
from django_keyspace.store import deadlines, overlay
from django_keyspace.store.deadlines import BUCKET_SHIFT
from django_keyspace.store.record import Flag, deadline_of, flags_and_bucket, pack_header

if TYPE_CHECKING:
    from django_keyspace.store.environment import Environment
    from django_keyspace.store.sessions import Sessions

_EVICTABLE = int(Flag.EVICTABLE)


class WriteContext:
    """One write transaction: where operations are applied, and what they have in common.

    Attributes:
        txn: the LMDB transaction.
        store: handles and limits; ``databases`` are its handles.
        log_time_ms: the time of this transaction for all deadlines in it.
        revision: the number of this transaction; each record that it writes carries it.
        changed: whether anything was written; otherwise there is nothing to commit.
        written_bytes: payload bytes written so far, for the soft limit.
        kept: change of the number of records that are not evictable, by database.
        has_overlay: whether names may have deadlines of their own; otherwise nothing looks for them.
        sessions: clients' sessions as they are now, those that were looked at.
        used_sessions: those of them whose record is to be put before the commit.
    """

    __slots__ = (
        "changed",
        "databases",
        "has_overlay",
        "kept",
        "log_time_ms",
        "revision",
        "sessions",
        "store",
        "txn",
        "used_sessions",
        "written_bytes",
    )

    def __init__(self, txn: Any, store: Environment, log_time_ms: int, revision: int, has_overlay: bool = True) -> None:
        self.txn = txn
        self.store = store
        self.databases = store.databases
        self.log_time_ms = log_time_ms
        self.revision = revision
        self.changed = False
        self.written_bytes = 0
        self.kept: dict[int, int] = {}
        self.has_overlay = has_overlay
        self.sessions: Sessions = {}
        self.used_sessions: set[bytes] = set()

    def find(self, database: int, key: bytes) -> tuple[bytes | None, bytes | None]:
        """``(stored, live)``: the record as it lies there, and the same unless it is expired."""
        stored = self.txn.get(key, None, self.databases[database])
        if stored is None:
            return None, None
        (deadline_ms,) = deadline_of(stored)
        return stored, None if deadline_ms and deadline_ms <= self.log_time_ms else stored

    def deadline(self, expire: Expire) -> int:
        """The deadline that an ``expire`` argument stands for, 0 for none. ``KEEP`` is the caller's business."""
        if expire is None:
            return 0
        if isinstance(expire, int):
            return self.log_time_ms + expire
        return max(int(expire[1]), 1)

    def own_deadline(self, database: int, key: bytes, live: bytes | None) -> int:
        """The deadline that the live record under a key has of its own, 0 for none or without a record."""
        if live is None:
            return 0
        if self.has_overlay:
            return overlay.own_deadline(self, database, key, live)
        return int(deadline_of(live)[0])

    def new_deadline(self, expire: Expire, database: int, key: bytes, live: bytes | None) -> int:
        """The deadline for what a ``set`` operation writes over ``live``: that of its argument, or the old one for ``KEEP``."""
        return self.own_deadline(database, key, live) if isinstance(expire, str) else self.deadline(expire)

    def kept_deadline(self, expire: Any, database: int, key: bytes, live: bytes | None) -> int:
        """The deadline for what a ``keep`` operation writes over ``live``: the old one, unless the argument sets another."""
        if isinstance(expire, list | tuple) and expire[0] == "set":
            return self.deadline(expire[1])
        if live is not None or expire == KEEP:
            return self.own_deadline(database, key, live)
        return self.deadline(expire)

    def put(
        self, database: int, key: bytes, tag: int, flags: int, payload: bytes, deadline_ms: int, stored: bytes | None
    ) -> None:
        """Write a record over ``stored``, what lies there now. With a deadline in the past: only delete that."""
        if deadline_ms and deadline_ms <= self.log_time_ms:
            if stored is not None:
                self.drop(database, key, stored)
            return
        if self.has_overlay:
            flags, deadline_ms = overlay.fold(self, database, key, flags, deadline_ms)
        # What replace() does for most overwrites, without the call: the same kind of record, an early entry in the index.
        old_flags, bucket = flags_and_bucket(stored) if stored is not None else (0, 0)
        if old_flags & flags & _EVICTABLE and deadline_ms and 0 < bucket <= (deadline_ms >> BUCKET_SHIFT) + 1:
            self.changed = True
        else:
            bucket = self.replace(database, key, flags, deadline_ms, stored)
        record = pack_header(tag, flags, crc32(payload), self.revision, deadline_ms, bucket) + payload
        self.txn.put(key, record, True, True, False, self.databases[database])
        self.written_bytes += len(record) + len(key)

    def replace(self, database: int, key: bytes, flags: int, deadline_ms: int, stored: bytes | None) -> int:
        """Account for a record that is about to be written over ``stored``. The bucket for its header."""
        self.changed = True
        bucket = 0
        if stored is not None:
            old_flags, bucket = flags_and_bucket(stored)
            if (old_flags ^ flags) & _EVICTABLE:
                self.count_kept(database, 1 if old_flags & _EVICTABLE else -1)
        elif not flags & _EVICTABLE:
            self.count_kept(database, 1)
        if deadline_ms and 0 < bucket <= (deadline_ms >> BUCKET_SHIFT) + 1:
            return bucket  # the usual overwrite: the index leads here early enough
        if bucket:
            deadlines.forget(self, database, key, bucket)
        return deadlines.index_deadline(self, database, key, deadline_ms) if deadline_ms else 0

    def drop(self, database: int, key: bytes, stored: bytes) -> None:
        """Delete a record."""
        self.account_drop(database, key, stored)
        self.txn.delete(key, db=self.databases[database])

    def account_drop(self, database: int, key: bytes, stored: bytes) -> None:
        """Account for a record that is being deleted: its entry in the deadline index goes with it."""
        flags, bucket = flags_and_bucket(stored)
        if not flags & _EVICTABLE:
            self.count_kept(database, -1)
        if bucket:
            deadlines.forget(self, database, key, bucket)
        self.changed = True

    def count_kept(self, database: int, change: int) -> None:
        """Note that records which must not be evicted came or went."""
        self.kept[database] = self.kept.get(database, 0) + change

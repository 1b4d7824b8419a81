"""The LMDB environment of one store in one process: files, handles, meta record, sizes.

What LMDB asks for is kept here and in ``store/store.py`` (reasons and measurements in docs/design.md): never writemap; a
large sparse map that grows rarely; files of our own making only; a file that was cut short is noticed before it is mapped;
many reader slots, cleared when the store is opened.

The unnamed database of the environment holds the meta record (format, revision, log clock) and the count of records that
are not evictable, next to LMDB's own entries for the named ones: its page is written by every commit anyway.
"""

from __future__ import annotations

import logging
import os
import struct
from typing import Any, Final, NamedTuple

import lmdb

from django_keyspace.exceptions import ForeignStore, NoSpace
from django_keyspace.operations import MODELS_BASE, Limits
from django_keyspace.store import clock
from django_keyspace.store.errors import free_disk_bytes
from django_keyspace.store.folder import DATA_FILE, Folder
from django_keyspace.store.options import MAP_BYTES_LEAST, StoreOptions

logger = logging.getLogger("django_keyspace.store")

READERS_MAX: Final = 2048
READERS_BYTES: Final = 64 * READERS_MAX + 128
"""The size that LMDB gives the table of so many readers; it takes a file of that size as it is."""
SOFT_LIMIT_SHARE: Final = 0.85
"""Deletes need fresh pages too. Below this share of the map they always found some; see docs/design.md."""
_FILE_FORMAT_LMDB_1: Final = 1
_AS_THE_FILE_IS: Any = None  # lmdb documents None; its stub says int

META_KEY: Final = b"\0keyspace"
_KEPT_KEYS: Final = (b"\0kept", b"\0kept-models")
"""Counts of the numbered databases, and of those with models."""
_ANSWERS_KEY: Final = b"\0answers"
"""Bytes of clients' kept results that have records of their own."""
_COUNT = struct.Struct("<Q")
_META = struct.Struct("<HHQQQ")
pack_meta, unpack_meta = _META.pack, _META.unpack
"""For each write: the fields of :class:`Meta` as a plain tuple."""
_META_FORMAT: Final = 1
META_CLEAN: Final = 1
"""Flag of the meta record: the state file says clean, so the next unsynced write must first make it say dirty."""
META_OVERLAY: Final = 2
"""Flag of the meta record: the expiry overlay may have entries. Without it no write looks there."""
_INDEXES: Final = (b"deadlines", b"overlay", b"sessions")
"""LMDB's names of the databases that are not numbered."""


META_RETIRED: Final = 4
"""Flag of the meta record: another store has taken this one's place. Whoever has it open must leave it."""


class Meta(NamedTuple):
    """The meta record.

    Attributes:
        format: version of the records' layout.
        flags: bits of :data:`META_CLEAN`, :data:`META_OVERLAY` and :data:`META_RETIRED`.
        revision: number of the last write transaction.
        log_ms: the log clock at that transaction.
        boot_ms: the host's monotonic clock at that moment.
    """

    format: int
    flags: int
    revision: int
    log_ms: int
    boot_ms: int


class Environment:
    """An open environment.

    Arguments:
        folder: its folder, prepared, whose lock file this process holds.
        options: how to open it.
        is_new: there is no data file yet.
        read_only: write nothing but this process's slots in the table of readers.
    Raises:
        lmdb.Error: it cannot be opened. Errors that say damage are ``errors.DAMAGE``.
        ForeignStore: it is not ours.

    Attributes:
        databases: handles of the numbered databases and of those with their models, by number.
        deadlines: handle of the deadline index.
        overlay: handle of the expiry overlay.
        sessions: handle of the table of clients' sessions.
        limits: what arguments are checked against.
        begin: LMDB's ``begin``.
        page_bytes: size of a page of the file.
    """

    def __init__(self, folder: Folder, options: StoreOptions, is_new: bool, read_only: bool = False) -> None:
        self.folder = folder
        self.options = options
        self._read_only = read_only
        self.limits: Limits = options.limits
        self.lmdb = self._open(is_new)
        try:
            self._check_file_size()
            self._main = self.lmdb.open_db(None)
            if is_new:
                self._make_databases()
            self._check_format()
            self.databases = {
                number: self.lmdb.open_db(name, create=False) for number, name in self._database_names().items()
            }
            self.deadlines, self.overlay, self.sessions = (self.lmdb.open_db(name, create=False) for name in _INDEXES)
            self.lmdb.reader_check()
        except BaseException:
            self.lmdb.close()
            raise
        self.begin: Any = self.lmdb.begin
        self.identity = file_identity(folder)
        self.page_bytes = int(self.lmdb.stat()["psize"])

    def _open(self, is_new: bool) -> lmdb.Environment:
        map_bytes = self.options.map_bytes
        while True:
            try:
                return lmdb.open(
                    self.folder.path,
                    map_size=map_bytes,
                    max_dbs=2 * self.options.databases + 16,
                    max_readers=READERS_MAX,
                    sync=self.options.durability == "commit",
                    mode=0o600,
                    readahead=False,
                    readonly=self._read_only,
                    create=not self._read_only,
                    lib_version=_FILE_FORMAT_LMDB_1 if is_new else _AS_THE_FILE_IS,
                )
            except lmdb.MemoryError:
                if map_bytes <= MAP_BYTES_LEAST * 256:
                    raise
                map_bytes //= 2
                logger.warning(
                    "Address space is limited here: %s is mapped with %d bytes.", self.folder.path, map_bytes
                )

    def _check_file_size(self) -> None:
        """A file that was cut short would kill the process at the first look behind its end."""
        needed = (self.lmdb.info()["last_pgno"] + 1) * self.lmdb.stat()["psize"]
        size = os.path.getsize(self.folder.file(DATA_FILE))
        if size < needed:
            raise lmdb.CorruptedError(f"the file has {size:,} bytes of {needed:,}")

    def _make_databases(self) -> None:
        with self.lmdb.begin(write=True) as txn:
            for name in (*_INDEXES, *self._database_names().values()):
                self.lmdb.open_db(name, txn=txn)
            # The clock of a replicated store is its log's, which begins before the first entry.
            log_ms, boot_ms = (0, 0) if self.options.replicated else clock.next_log_time(0, 0)
            self.write_meta(txn, Meta(_META_FORMAT, META_CLEAN, 0, log_ms, boot_ms))
        self.lmdb.sync(True)

    def _check_format(self) -> None:
        with self.lmdb.begin() as txn:
            record = txn.get(META_KEY)
            names = [*_INDEXES, *self._database_names().values()]
            # LMDB 1.0 keeps a name with the zero at its end, and 0.9 without.
            has_all = all(txn.get(name + b"\0") is not None or txn.get(name) is not None for name in names)
        if record is None and not self.lmdb.stat()["entries"]:
            # The state file says that this is our store: whoever made it was killed just then, or the file was emptied.
            raise lmdb.CorruptedError("the file holds nothing")
        if record is None or len(record) != _META.size:
            raise ForeignStore(
                f"{self.folder.path} holds an LMDB database without this package's meta record. It was not touched. Choose "
                "another LOCATION."
            )
        version = _META.unpack(record)[0]
        if version != _META_FORMAT:
            raise ForeignStore(
                f"The data of {self.folder.path} has format {version}; this release knows {_META_FORMAT}. It was not "
                "touched. Use the release that made it."
            )
        if not has_all and self._read_only:
            raise ForeignStore(
                f"{self.folder.path} has fewer than {self.options.databases} databases. It was not touched."
            )
        if not has_all:  # the option databases was raised, or an older release made the store
            with self.lmdb.begin(write=True) as txn:
                for name in names:
                    self.lmdb.open_db(name, txn=txn)

    def _database_names(self) -> dict[int, bytes]:
        """LMDB's name of each database, by number."""
        numbers = range(self.options.databases)
        names = {number: b"database%d" % number for number in numbers}
        return names | {MODELS_BASE + number: b"models%d" % number for number in numbers}

    def close(self) -> None:
        """Close it. No transaction of this process may be running."""
        self.lmdb.close()

    # ------------------------------------------------------------------------------------- inside a transaction

    def read_meta(self, txn: Any) -> Meta:
        """The meta record."""
        return Meta(*_META.unpack(txn.get(META_KEY)))

    def write_meta(self, txn: Any, meta: Meta) -> None:
        """Replace the meta record."""
        txn.put(META_KEY, _META.pack(*meta))

    def child_transaction(self, parent: Any) -> Any:
        """A transaction within a write transaction, for ``atomic``."""
        return self.lmdb.begin(write=True, parent=parent)

    def kept_records(self, txn: Any, database: int) -> int:
        """How many records of a database are not evictable, before the running transaction's changes."""
        group, index = divmod(database, MODELS_BASE)
        counts = txn.get(_KEPT_KEYS[group])
        if counts is None or len(counts) < 8 * (index + 1):
            return 0
        return int(struct.unpack_from("<Q", counts, 8 * index)[0])

    def change_kept_records(self, txn: Any, changes: dict[int, int]) -> bool:
        """Add to the counts of records that are not evictable. True if there are any now."""
        keeps = False
        for group, key in enumerate(_KEPT_KEYS):
            stored = txn.get(key) or b""
            # A process with more databases may have counted further than this one knows: its counts stay.
            numbers = max(len(stored) // 8, self.options.databases)
            counts = list(struct.unpack(f"<{numbers}Q", stored.ljust(8 * numbers, b"\0")))
            changed = [
                (database % MODELS_BASE, n) for database, n in changes.items() if database // MODELS_BASE == group
            ]
            for index, change in changed:
                counts[index] = max(counts[index] + change, 0)
            if changed:
                txn.put(key, struct.pack(f"<{numbers}Q", *counts))
            keeps = keeps or any(counts)
        return keeps

    def answers_bytes(self, txn: Any) -> int:
        """Bytes of clients' results that are kept in records of their own."""
        stored = txn.get(_ANSWERS_KEY)
        return int(_COUNT.unpack(stored)[0]) if stored is not None else 0

    def change_answers_bytes(self, txn: Any, change: int) -> None:
        """Add to :meth:`answers_bytes`."""
        txn.put(_ANSWERS_KEY, _COUNT.pack(max(self.answers_bytes(txn) + change, 0)))

    def used_bytes(self, txn: Any) -> int:
        """Bytes of the pages that hold data now. (The file's size only says how many there once were.)"""
        pages = 0
        for handle in (self._main, self.deadlines, self.overlay, self.sessions, *self.databases.values()):
            stat = txn.stat(handle)
            pages += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return pages * self.page_bytes

    def footprint(self, size_bytes: int) -> int:
        """About how many bytes of pages a record takes, with its key."""
        whole, head = self.page_bytes, 16
        if size_bytes > whole // 2 - 24:  # LMDB gives it pages of its own
            return -(-(size_bytes + head) // whole) * whole
        return whole // ((whole - head) // (size_bytes + 10))

    def figures(self, txn: Any, now_ms: int) -> dict[str, Any]:
        """What the operation ``status`` answers."""
        meta = self.read_meta(txn)
        info = self.lmdb.info()
        entries = {number: int(txn.stat(handle)["entries"]) for number, handle in self.databases.items()}
        numbers = range(self.options.databases)
        records = [entries[number] for number in numbers]
        return {
            "path": self.folder.path,
            "durability": self.options.durability,
            "revision": meta.revision,
            "log_time_ms": max(meta.log_ms, now_ms),
            "records": sum(records),
            "records_by_database": records,
            "kept_records_by_database": [self.kept_records(txn, number) for number in numbers],
            "model_records_by_database": [entries[MODELS_BASE + number] for number in numbers],
            "expiries": int(txn.stat(self.overlay)["entries"]) // 2,
            "used_bytes": self.used_bytes(txn),
            "max_bytes": self.options.max_bytes,
            "file_bytes": os.path.getsize(self.folder.file(DATA_FILE)),
            "map_bytes": info["map_size"],
            "readers": info["num_readers"],
        }

    # ------------------------------------------------------------------------------------- outside of transactions

    def grown_map_bytes(self) -> int:
        """The size that a full map should grow to.

        Raises:
            NoSpace: the soft limit does not ask for more, or the disk has no room. What the log of a cluster holds has to be
                done, so there only the disk limits it.
        """
        current = self.lmdb.info()["map_size"]
        enough = current * SOFT_LIMIT_SHARE >= self.options.max_bytes + 2 * self.options.value_bytes_max
        if enough and not self.options.replicated:
            raise NoSpace(
                f"The store {self.folder.path} has filled its map of {current:,} bytes. Nothing was written. Delete records, "
                "or raise max_bytes."
            )
        free_bytes = free_disk_bytes(self.folder.path)
        if free_bytes < MAP_BYTES_LEAST:
            raise NoSpace(
                f"The disk of {self.folder.path} has {free_bytes:,} bytes left. Nothing was written. Make room there."
            )
        return current * 2


def file_identity(folder: Folder) -> tuple[int, int]:
    """Device and inode of the data file that lies in a folder now; zeros if there is none."""
    try:
        stat = os.stat(folder.file(DATA_FILE))
    except OSError:
        return (0, 0)
    return (stat.st_dev, stat.st_ino)

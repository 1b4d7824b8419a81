"""Snapshots of a node's store, as files: written aside, read back by checksum, durable before anybody relies on them.

A snapshot stands for the log up to an index: the bytes of the store at that index (data, sessions, applied index, log clock) and,
in its head, what the consensus core has to know. The file is a head and then chunks, each with a digest that covers the one
before, and an end that says how long it is. So it can be checked without opening the store in it, on either side of a link.

**What is kept.** The last two snapshots, and the journal since the older one: if the newer one cannot be read when it is needed,
the older one and the journal lead to the same state. :attr:`SnapshotStore.compactable_index` is that rule.
"""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Final, NamedTuple

import msgpack

from django_keyspace.exceptions import DamagedSnapshot
from django_keyspace.node.disk import NEW_SUFFIX, Disk, DiskFile
from django_keyspace.node.raft.errors import BadMessage
from django_keyspace.node.raft.membership import Membership, membership_from_bytes
from django_keyspace.node.raft.messages import SnapshotMeta

logger = logging.getLogger("django_keyspace.node")

FOLDER: Final = "snapshots"
KEPT: Final = 2
CHUNK_BYTES: Final = 256 * 1024
DAMAGED_SUFFIX: Final = ".damaged"

_MAGIC: Final = b"keyspace snapshot 1\n"
_LENGTH = struct.Struct("<I")
_TOTAL = struct.Struct("<Q")
_DIGEST_BYTES: Final = 16
_HEAD_BYTES_MAX: Final = 1024 * 1024
_NAME = re.compile(r"(\d{20})-(\d{20})\.snapshot")


class Snapshot(NamedTuple):
    """What a snapshot's head says.

    Attributes:
        place: the index of the last entry that it covers.
        term: that entry's term.
        membership: the members at that index.
        log_ms: the log clock there.
        cluster: the cluster's id.
    """

    place: int
    term: int
    membership: Membership
    log_ms: int = 0
    cluster: str = ""

    @property
    def meta(self) -> SnapshotMeta:
        """The same, as the consensus core has it."""
        return SnapshotMeta(self.place, self.term, self.membership)

    @property
    def file_name(self) -> str:
        """The name of its file."""
        return f"{self.place:020d}-{self.term:020d}.snapshot"

    def pack(self) -> bytes:
        """The head's bytes."""
        fields = (self.place, self.term, self.membership.to_bytes(), self.log_ms, self.cluster)
        packed: bytes = msgpack.packb(fields)
        return packed


def _unpack(data: bytes) -> Snapshot:
    try:
        place, term, membership, log_ms, cluster = msgpack.unpackb(data)
        return Snapshot(place, term, membership_from_bytes(membership), log_ms, cluster)
    except (ValueError, TypeError, BadMessage) as error:
        raise DamagedSnapshot(f"The head of a snapshot cannot be read: {error}.") from error


class SnapshotWriter:
    """Writes one snapshot, chunk by chunk; nobody sees it before :meth:`finish`.

    Arguments:
        disk: where.
        name: the file's final name.
        snapshot: its head.
    Raises:
        NoSpace, DiskFailed: here and in all methods; call :meth:`abort` then.
    """

    def __init__(self, disk: Disk, name: str, snapshot: Snapshot) -> None:
        self._disk = disk
        self._temporary = name + NEW_SUFFIX
        disk.remove(self._temporary)
        self._file = disk.create(self._temporary)
        self._end = 0
        self._digest = b""
        self._total = 0
        try:
            self._put(_MAGIC)
            self._put_chunk(snapshot.pack())
        except BaseException:
            self.abort()
            raise
        self._total = 0  # of the store's bytes

    def write(self, data: bytes) -> None:
        """Add a piece of the store, of any size."""
        for begin in range(0, len(data), CHUNK_BYTES):
            self._put_chunk(data[begin : begin + CHUNK_BYTES])

    def finish(self) -> str:
        """Write the end, make it durable, and read everything back.

        Returns:
            The name of the file, which still has to be renamed.
        Raises:
            DamagedSnapshot: what is on the disk is not what was written.
        """
        self._put(_LENGTH.pack(0) + _digest(self._digest, _TOTAL.pack(self._total)) + _TOTAL.pack(self._total))
        self._file.sync()
        self._file.close()
        with SnapshotReader(self._disk, self._temporary) as reader:
            for _ in reader:
                pass
        return self._temporary

    def abort(self) -> None:
        """Give it up, and leave nothing behind."""
        self._file.close()
        self._disk.remove(self._temporary)

    def _put_chunk(self, data: bytes) -> None:
        if data:
            self._digest = _digest(self._digest, data)
            self._put(_LENGTH.pack(len(data)) + self._digest + data)
            self._total += len(data)

    def _put(self, data: bytes) -> None:
        self._file.write_at(self._end, data)
        self._end += len(data)


class SnapshotReader:
    """Reads a snapshot and checks it on the way: an iterator over the pieces of the store.

    Arguments:
        disk: where.
        name: the file.
    Raises:
        DamagedSnapshot: here and while it is read, at the first byte that is not what was written.
        DiskFailed: it cannot be read.

    Attributes:
        snapshot: what the head says.
    """

    def __init__(self, disk: Disk, name: str) -> None:
        self._name = name
        self._file: DiskFile = disk.open(name)
        self._at = len(_MAGIC)
        self._digest = b""
        try:
            if self._file.read_at(0, len(_MAGIC)) != _MAGIC:
                raise self._damaged("it does not begin as one")
            head = self._chunk()
            if head is None:
                raise self._damaged("it has no head")
            self.snapshot = _unpack(head)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> SnapshotReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[bytes]:
        total = 0
        while (data := self._chunk()) is not None:
            total += len(data)
            yield data
        begin = self._at - _DIGEST_BYTES
        tail = self._file.read_at(begin, _DIGEST_BYTES + _TOTAL.size + 1)
        expected = _TOTAL.pack(total)
        if tail != _digest(self._digest, expected) + expected:
            raise self._damaged("its end is missing or was changed")

    def _chunk(self) -> bytes | None:
        """The next chunk; None at the end."""
        front_bytes = _LENGTH.size + _DIGEST_BYTES
        front = self._file.read_at(self._at, front_bytes)
        if len(front) < front_bytes:
            raise self._damaged("it is cut off")
        (length,) = _LENGTH.unpack_from(front)
        self._at += front_bytes
        if not length:
            return None
        if length > max(CHUNK_BYTES, _HEAD_BYTES_MAX):
            raise self._damaged(f"a chunk cannot have {length:,} bytes")
        data = self._file.read_at(self._at, length)
        digest = _digest(self._digest, data)
        if digest != front[_LENGTH.size :]:
            raise self._damaged(f"the chunk at byte {self._at:,} was changed")
        self._digest = digest
        self._at += length
        return data

    def _damaged(self, reason: str) -> DamagedSnapshot:
        return DamagedSnapshot(f"The snapshot {self._name} is damaged: {reason}. It is not used.")


def _digest(previous: bytes, data: bytes) -> bytes:
    return blake2b(data, digest_size=_DIGEST_BYTES, key=previous).digest()


class SnapshotStore:
    """The snapshots of a node.

    Arguments:
        disk: the node's disk.
        folder: their folder on it.

    Attributes:
        kept: those that are there, the newest last.
    """

    def __init__(self, disk: Disk, folder: str = FOLDER) -> None:
        self.disk = disk
        self.folder = folder
        self.kept: list[Snapshot] = []
        disk.make_folder(folder)
        disk.sync_folder()
        for name in disk.list(folder):
            if name.endswith(NEW_SUFFIX):
                disk.remove(self.path(name))
            elif _NAME.fullmatch(name):
                self._look_at(name)
        disk.sync_folder(folder)

    def _look_at(self, name: str) -> None:
        try:
            with SnapshotReader(self.disk, self.path(name)) as reader:
                if reader.snapshot.file_name != name:
                    raise DamagedSnapshot(f"The snapshot {name} says that it is {reader.snapshot.file_name}.")
                self.kept.append(reader.snapshot)
        except DamagedSnapshot as error:
            self._set_aside(name, error)

    def path(self, name: str) -> str:
        """The name on the disk of a file of the folder."""
        return f"{self.folder}/{name}"

    @property
    def latest(self) -> Snapshot | None:
        """The newest one."""
        return self.kept[-1] if self.kept else None

    @property
    def compactable_index(self) -> int:
        """Up to where the journal may forget: the older of two snapshots. 0 while there are not two."""
        return self.kept[-KEPT].place if len(self.kept) >= KEPT else 0

    def build(self, snapshot: Snapshot, pieces: Iterable[bytes]) -> None:
        """Make a snapshot. May run on a thread of its own, while the store is used.

        Arguments:
            snapshot: what it stands for.
            pieces: the bytes of the store at that index.
        Raises:
            NoSpace, DiskFailed, DamagedSnapshot: there is none; those before it are still there.
        """
        writer = self.writer(snapshot)
        try:
            for piece in pieces:
                writer.write(piece)
            temporary = writer.finish()
        except BaseException:
            writer.abort()
            raise
        self.adopt(temporary, snapshot)

    def writer(self, snapshot: Snapshot) -> SnapshotWriter:
        """The same in steps: ``write``, ``finish``, and then :meth:`adopt` with its result."""
        return SnapshotWriter(self.disk, self.path(snapshot.file_name), snapshot)

    def adopt(self, temporary: str, snapshot: Snapshot) -> None:
        """Take in a file that is complete, checked and synced, and drop what is not kept any more."""
        if self.kept and snapshot.place <= self.kept[-1].place:
            self.disk.remove(temporary)
            return
        self.disk.rename(temporary, self.path(snapshot.file_name))
        self.disk.sync_folder(self.folder)
        self.kept.append(snapshot)
        while len(self.kept) > KEPT:
            self.disk.remove(self.path(self.kept.pop(0).file_name))
        self.disk.sync_folder(self.folder)

    def reader(self, snapshot: Snapshot) -> SnapshotReader:
        """Read one; use it in a ``with``."""
        return SnapshotReader(self.disk, self.path(snapshot.file_name))

    def open_file(self, snapshot: Snapshot) -> DiskFile:
        """Its file, for sending it as it is. Stays readable when the snapshot is dropped meanwhile."""
        return self.disk.open(self.path(snapshot.file_name))

    def newest_sound(self) -> Snapshot | None:
        """Read the newest one to its end; if it is damaged, set it aside and try the one before.

        Returns:
            The newest one that is whole; None if there is none.
        """
        while self.kept:
            snapshot = self.kept[-1]
            try:
                with self.reader(snapshot) as reader:
                    for _ in reader:
                        pass
                return snapshot
            except DamagedSnapshot as error:
                self.kept.pop()
                self._set_aside(snapshot.file_name, error)
        return None

    def _set_aside(self, name: str, error: DamagedSnapshot) -> None:
        logger.error("%s The file is kept as %s%s.", error, name, DAMAGED_SUFFIX)
        self.disk.rename(self.path(name), self.path(name + DAMAGED_SUFFIX))
        self.disk.sync_folder(self.folder)

"""Sending a snapshot to a peer that is behind the beginning of the log: in chunks, with a window, without sockets.

The bytes of the file travel as they are. The receiver asks for the offset that it wants next, which acknowledges everything
before it; the sender keeps so many bytes under way, and begins again at the wanted offset when it has heard nothing for a while.
When all bytes are there, the receiver makes them durable and checks the whole file before it says that it is done.

Messages are named tuples of plain values; the links between nodes carry them.
"""

from __future__ import annotations

from typing import Final, NamedTuple
from zlib import crc32

from django_keyspace.exceptions import DamagedSnapshot, NoSpace
from django_keyspace.node.disk import NEW_SUFFIX, DiskFile
from django_keyspace.node.snapshot import Snapshot, SnapshotReader, SnapshotStore

CHUNK_BYTES: Final = 256 * 1024
WINDOW_BYTES: Final = 2 * 1024 * 1024
RETRIES_MAX: Final = 20
"""A transfer fails when it was retried so often without progress."""
SIZE_BYTES_MAX: Final = 2**50

MORE: Final = "more"
DONE: Final = "done"
REFUSED: Final = "refused"


class SnapshotBegin(NamedTuple):
    """Leader to follower, before the first chunk: which snapshot, and how large its file is."""

    transfer: int
    place: int
    term: int
    cluster: str
    size_bytes: int


class SnapshotChunk(NamedTuple):
    """Leader to follower: bytes of the file, and their CRC-32."""

    transfer: int
    offset: int
    data: bytes
    crc: int


class SnapshotAck(NamedTuple):
    """Follower to leader.

    Attributes:
        transfer: which one.
        offset: the byte that is wanted next; everything before it is there.
        state: :data:`MORE`; :data:`DONE`: it is durable and whole; :data:`REFUSED`: it is not wanted, or cannot be taken.
        reason: why it was refused.
    """

    transfer: int
    offset: int
    state: str
    reason: str = ""


class SnapshotSender:
    """One transfer, on the leader's side.

    Arguments:
        snapshots: the leader's snapshots.
        snapshot: the one to be sent.
        transfer: a number that grows with each transfer to this peer, also of other leaders: its upper half is the term.
        chunk_bytes: bytes in one message.
        window_bytes: bytes that may be under way.
        retries_max: how often :meth:`retry` may be called without progress.
    Raises:
        DiskFailed: here and in :meth:`messages`: it cannot be read.

    Attributes:
        state: :data:`MORE` while it goes on, then :data:`DONE` or :data:`REFUSED`.
        reason: why it ended so.
        acknowledged: bytes that the peer has.
    """

    def __init__(
        self,
        snapshots: SnapshotStore,
        snapshot: Snapshot,
        transfer: int,
        *,
        chunk_bytes: int = CHUNK_BYTES,
        window_bytes: int = WINDOW_BYTES,
        retries_max: int = RETRIES_MAX,
    ) -> None:
        self.snapshot = snapshot
        self.transfer = transfer
        self.state = MORE
        self.reason = ""
        self.acknowledged = 0
        self._file: DiskFile = snapshots.open_file(snapshot)
        self._size = self._file.size
        self._chunk_bytes = chunk_bytes
        self._window_bytes = max(window_bytes, chunk_bytes)
        self._retries_max = retries_max
        self._retries = 0
        self._sent = -1  # bytes that were sent; -1: not even the beginning

    def messages(self) -> list[SnapshotBegin | SnapshotChunk]:
        """What may be sent now. Reads the file: up to a window of it."""
        found: list[SnapshotBegin | SnapshotChunk] = []
        if self.state != MORE:
            return found
        if self._sent < 0:
            place, term = self.snapshot.place, self.snapshot.term
            found.append(SnapshotBegin(self.transfer, place, term, self.snapshot.cluster, self._size))
            self._sent = self.acknowledged
        while self._sent < self._size and self._sent + self._chunk_bytes <= self.acknowledged + self._window_bytes:
            data = self._file.read_at(self._sent, min(self._chunk_bytes, self._size - self._sent))
            found.append(SnapshotChunk(self.transfer, self._sent, data, crc32(data)))
            self._sent += len(data)
        return found

    def step(self, ack: SnapshotAck) -> None:
        """Take an answer of the peer; those of other transfers are ignored."""
        if ack.transfer != self.transfer or self.state != MORE:
            return
        if ack.state == MORE:
            if self.acknowledged < ack.offset <= self._size:
                self.acknowledged = ack.offset
                self._sent = max(self._sent, ack.offset)
                self._retries = 0
            return
        self._end(DONE if ack.state == DONE else REFUSED, ack.reason)

    def retry(self) -> None:
        """Nothing was heard for a while: what is not acknowledged is sent again."""
        self._retries += 1
        if self._retries > self._retries_max:
            self._end(REFUSED, f"the peer took no byte in {self._retries_max} attempts")
        self._sent = -1

    def cancel(self) -> None:
        """Give it up: the peer is gone, or this node leads no more."""
        self._end(REFUSED, "it was given up")

    def _end(self, state: str, reason: str) -> None:
        if self.state == MORE:
            self.state, self.reason = state, reason
            self._file.close()


class SnapshotReceiver:
    """The follower's side: at most one transfer at a time.

    Arguments:
        snapshots: the follower's snapshots; a transfer that is done is the newest of them.
        cluster: this node's cluster.

    What is done stands for the newest snapshot that is kept: perhaps a later one than was announced.

    Attributes:
        short_at: what this node had applied when a snapshot found no room; None if the last one did not.
    """

    def __init__(self, snapshots: SnapshotStore, cluster: str = "") -> None:
        self._snapshots = snapshots
        self._cluster = cluster
        self._begin: SnapshotBegin | None = None
        self._name = ""
        self._file: DiskFile | None = None
        self._offset = 0
        self._newest = 0
        self._last: SnapshotAck | None = None
        self.short_at: int | None = None

    def step(self, message: SnapshotBegin | SnapshotChunk, applied_index: int) -> SnapshotAck | None:
        """Take a message.

        Arguments:
            message: what came.
            applied_index: what this node has applied: an older snapshot is refused.
        Returns:
            The answer; None if there is nothing to say.
        Raises:
            DiskFailed: the process has to end.
        """
        if self._last is not None and message.transfer == self._last.transfer:
            return self._last  # it has ended, and the answer was lost
        try:
            if isinstance(message, SnapshotBegin):
                return self._take_beginning(message, applied_index)
            return self._take_chunk(message)
        except NoSpace as error:
            self.short_at = applied_index
            return self._refuse(message.transfer, str(error))

    def cancel(self) -> None:
        """Give up what is under way, and leave nothing of it behind."""
        if self._file is not None:
            self._file.close()
            self._snapshots.disk.remove(self._name)
        self._begin = self._file = None

    def _take_beginning(self, begin: SnapshotBegin, applied_index: int) -> SnapshotAck | None:
        if begin == self._begin:
            return self._more()
        if begin.transfer < self._newest:
            return None  # it was on its way for long; another one has begun since
        self._newest = begin.transfer
        if begin.place <= applied_index:
            return self._refuse(begin.transfer, f"this node has applied {applied_index} already")
        if self._cluster and begin.cluster != self._cluster:
            return self._refuse(
                begin.transfer, f"it is of cluster {begin.cluster!r:.80}, and this node of {self._cluster!r:.80}"
            )
        kept = self._snapshots.latest
        if kept is not None and kept.place >= begin.place:
            # It came for an earlier leader, and was not installed. A later one holds all that this one does, if it is sound.
            kept = self._snapshots.newest_sound()
            if kept is not None and kept.place >= begin.place:
                self.cancel()
                self._require_room(begin.size_bytes)
                self._last = SnapshotAck(begin.transfer, begin.size_bytes, DONE)
                return self._last
        if not 0 < begin.size_bytes <= SIZE_BYTES_MAX:
            return self._refuse(begin.transfer, f"it cannot have {begin.size_bytes} bytes")
        disk = self._snapshots.disk
        self.cancel()
        self._require_room(2 * begin.size_bytes)
        self._name = self._snapshots.path(f"received{NEW_SUFFIX}")
        disk.remove(self._name)
        self._file = disk.create(self._name)
        self._begin, self._offset = begin, 0
        return self._more()

    def _require_room(self, size_bytes: int) -> None:
        """Room for what has to be written until a snapshot is installed: its file, and the store that is made from it."""
        if size_bytes > self._snapshots.disk.free_bytes():
            raise NoSpace(f"There is no room for {size_bytes:,} bytes: a snapshot, and the store that is made from it.")
        self.short_at = None

    def _take_chunk(self, chunk: SnapshotChunk) -> SnapshotAck | None:
        begin, file = self._begin, self._file
        if begin is None or file is None or chunk.transfer != begin.transfer:
            return None
        fits = chunk.offset == self._offset and 0 < len(chunk.data) <= begin.size_bytes - self._offset
        if not fits or crc32(chunk.data) != chunk.crc:
            return self._more()
        file.write_at(self._offset, chunk.data)
        self._offset += len(chunk.data)
        return self._more() if self._offset < begin.size_bytes else self._finish(begin, file)

    def _finish(self, begin: SnapshotBegin, file: DiskFile) -> SnapshotAck:
        """Make it durable and read it back, all of it."""
        file.sync()
        try:
            with SnapshotReader(self._snapshots.disk, self._name) as reader:
                for _ in reader:
                    pass
                snapshot = reader.snapshot
            if (snapshot.place, snapshot.term, snapshot.cluster) != (begin.place, begin.term, begin.cluster):
                raise DamagedSnapshot(
                    f"The snapshot is of ({snapshot.place}, {snapshot.term}), not what was announced."
                )
        except DamagedSnapshot as error:
            return self._refuse(begin.transfer, str(error))
        file.close()
        self._begin = self._file = None
        self._snapshots.adopt(self._name, snapshot)
        self._last = SnapshotAck(begin.transfer, self._offset, DONE)
        return self._last

    def _more(self) -> SnapshotAck:
        transfer = self._begin.transfer if self._begin is not None else 0
        return SnapshotAck(transfer, self._offset, MORE)

    def _refuse(self, transfer: int, reason: str) -> SnapshotAck:
        if self._begin is not None and self._begin.transfer == transfer:
            self.cancel()
        self._last = SnapshotAck(transfer, 0, REFUSED, reason)
        return self._last

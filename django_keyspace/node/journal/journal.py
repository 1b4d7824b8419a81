"""The durable log of a node: term and vote, the commit index, and the entries.

:class:`Journal` is what the consensus core reads (:class:`~django_keyspace.node.raft.storage.LogStorage`), on the loop's thread,
and what the disk thread writes. It shows what is durable: :meth:`Journal.append` makes a batch visible after its sync. All
that it knows about its files' bytes is in ``records.py``, how they are read back in ``recovery.py``.

Errors: :class:`NoSpace` means that nothing of the call was written and the journal goes on. After :class:`DiskFailed` it
takes no further call: whether a failed write reached the disk can only be found out by a new process that reads it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Final, NamedTuple

from django_keyspace.exceptions import DamagedJournal, DiskFailed, NoSpace
from django_keyspace.node.disk import Disk
from django_keyspace.node.journal.records import (
    BATCH_BYTES_MAX,
    ENTRY_HEAD,
    INDEX,
    PAIR,
    Kind,
    SegmentHead,
    encode,
    pack_state,
    record_size,
)
from django_keyspace.node.journal.recovery import REMEDY, Recovery
from django_keyspace.node.journal.segments import Segments
from django_keyspace.node.journal.stored import StoredLog
from django_keyspace.node.raft.errors import require
from django_keyspace.node.raft.membership import membership_from_bytes
from django_keyspace.node.raft.messages import Entry, SnapshotMeta
from django_keyspace.node.raft.storage import HardState

logger = logging.getLogger("django_keyspace.node")

FOLDER: Final = "journal"
SEGMENT_BYTES: Final = 16 * 1024 * 1024
RESERVE_BYTES: Final = 64 * 1024
"""The end of each segment file is for votes, deletes and the like: they still find room there when the disk is full."""


class Batch(NamedTuple):
    """What one step of the core wants to be durable.

    Attributes:
        hard_state: the new one, or None if it is as before.
        entries: consecutive; those that the log has at their indexes, and behind, are replaced.
        may_use_reserve: write it even if the disk is full, as long as the reserve lasts.
    """

    hard_state: HardState | None = None
    entries: Sequence[Entry] = ()
    may_use_reserve: bool = False


class Journal:
    """The journal in a folder of a disk. Made by :meth:`open`.

    One thread may write (:meth:`append`, :meth:`compact`, :meth:`restore`, :meth:`note_snapshot`, :meth:`close`) while
    another one reads, and says what to :meth:`forget`; reading never waits for a write or a sync.

    Attributes:
        syncs: how many writes were synced so far.
        closed_well: whether the last process closed the journal; otherwise it was killed, or the machine went down.
    """

    def __init__(self, disk: Disk, folder: str, segment_bytes: int, remedy: str) -> None:
        self._segments = Segments(disk, folder)
        self._segment_bytes = segment_bytes
        self._reserve_bytes = min(RESERVE_BYTES, segment_bytes // 8)
        self._recovery = Recovery(self._segments, remedy)
        self._garbage_until = 0  # bytes behind the end that a refused write has left
        self._stopped: str | None = None
        self._is_refusing = False
        self.syncs = 0

    @classmethod
    def open(
        cls,
        disk: Disk,
        *,
        folder: str = FOLDER,
        bootstrap: SnapshotMeta | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        remedy: str = REMEDY,
    ) -> Journal:
        """Open a journal; read it, cut what a crash has left unfinished, and check the rest.

        Arguments:
            disk: the node's disk.
            folder: the journal's folder on it.
            bootstrap: for a node that has never run: what its log begins after. Without it the journal must exist.
            segment_bytes: size of a file; a larger batch gets a larger one.
            remedy: the command that lets the node join again, for the message of :class:`DamagedJournal`.
        Raises:
            DamagedJournal: something is missing that this node had promised to keep.
            DiskFailed, NoSpace: the disk failed, or has no room for a new journal.
        """
        journal = cls(disk, folder, segment_bytes, remedy)
        journal._segments.prepare()
        found = journal._segments.found()
        if not found:
            if bootstrap is None:
                raise journal._recovery.damaged("it is not there")
            journal._begin(bootstrap)
        journal._recover()
        return journal

    def _begin(self, bootstrap: SnapshotMeta) -> None:
        head = SegmentHead(
            self._segment_bytes,
            bootstrap.index + 1,
            bootstrap.index,
            bootstrap.term,
            bootstrap.index,
            bootstrap.term,
            "",
            _pack_snapshot(bootstrap),
        )
        self._segments.make(1, self._segment_bytes, encode([(Kind.SEGMENT, head.pack())], 1, 1, 0).data)
        self._segments.close()

    def _recover(self) -> None:
        found = self._recovery.run()
        self._log = StoredLog(self._segments, found.index)
        self._durable_base = found.index.base_index
        self._term, self._vote, self._commit = found.term, found.vote, found.commit
        self._snapshot = _unpack_snapshot(found.snapshot)
        self._begins = found.begins
        self._number = max(found.begins)
        self._end, self._previous, self._batch = found.tail.end, found.tail.previous, found.tail.batch
        self._size = self._segments.file(self._number).size
        self.closed_well = found.closed
        if found.tail.torn:
            logger.warning(
                "The journal ended within a write that nobody was told of; it was cut at %s, byte %d.",
                self._segments.name(self._number),
                self._end,
            )
        self._segments.remove([number for number in self._segments.found() if number not in self._begins])
        self._remove_forgotten()

    def require_reaches(self, applied_index: int) -> None:
        """At a start, after an unfinished :meth:`restore` was done again: the log reaches to what the store has applied.

        Raises:
            DamagedJournal: it does not. Its end is missing, and with it perhaps a vote.
        """
        last = self.last_index()
        if applied_index > last:
            raise self._recovery.damaged(f"entry {applied_index} was applied, and the last one here is {last}")

    # ------------------------------------------------------------------------------------------------ reading

    def hard_state(self) -> HardState:
        """Term, vote and commit index; the commit index may be newer than what is on the disk."""
        return HardState(self._term, self._vote, self._commit)

    def snapshot(self) -> SnapshotMeta:
        """The newest snapshot of which the journal was told."""
        return self._snapshot

    def changes(self) -> Sequence[Entry]:
        """The entries behind the snapshot that change the membership."""
        return [self.entries(index, index, 0)[0] for index in self._log.changes_behind(self._snapshot.index)]

    def first_index(self) -> int:
        """Index of the oldest entry that is kept; one more than the last if there is none."""
        return self._log.first_index

    def last_index(self) -> int:
        """Index of the newest durable entry."""
        return self._log.bounds()[2]

    def term(self, index: int) -> int:
        """The term of an index from ``first_index() - 1`` to ``last_index()``."""
        return self._log.term(index)

    def entries(self, low: int, high: int, bytes_max: int) -> list[Entry]:
        """The entries from ``low`` to ``high``, both included.

        Arguments:
            low, high: indexes that are kept.
            bytes_max: a beginning of at most so many bytes (``Entry.size_bytes``) is returned, and at least one entry.
        Raises:
            DamagedJournal: an entry was changed on the disk since it was written. The journal takes no further call.
            DiskFailed: it cannot be read.
        """
        try:
            return self._log.entries(low, high, bytes_max)
        except DamagedJournal as error:
            self._stopped = str(error)
            raise

    # ------------------------------------------------------------------------------------------------ writing

    def append(self, batches: Sequence[Batch]) -> None:
        """Write batches, in order, with one sync for all of them; they are durable at return.

        A commit index that has moved needs no sync: if there is nothing else, it waits for the next write.

        Raises:
            NoSpace: nothing of them was written. What follows refused entries is refused too, until others stand in
                their place: its writer may not know yet that there is a gap before it.
            DiskFailed: what was written is unknown. The process must end.
        """
        self._require_running()
        if self._is_refusing:
            batches = [self._after_refusal(batch) for batch in batches]
        records: list[tuple[int, bytes]] = []
        runs: list[tuple[list[Entry], list[int]]] = []  # consecutive entries, and which record is whose
        term, vote, commit, last = self._term, self._vote, self._commit, self.last_index()
        for batch in batches:
            state = batch.hard_state
            if state is not None:
                self._require_successor((term, vote, commit), state)
                if (state.term, state.vote) != (term, vote):
                    term, vote = state.term, state.vote
                    records.append((Kind.STATE, pack_state(term, vote)))
            if batch.entries:
                begin = len(records)
                records += self._entry_records(batch.entries, term, commit, last)
                if not runs or batch.entries[0].index != last + 1:
                    runs.append(([], []))
                entries, numbers = runs[-1]
                entries += batch.entries
                numbers += range(begin, len(records))
                last = batch.entries[-1].index
            if state is not None:
                commit = state.commit
            if commit > last:
                require(False, f"Entry {commit} cannot be committed: the last one is {last}.")
        if records:
            may_use_reserve = all(batch.may_use_reserve or not batch.entries for batch in batches)
            try:
                offsets = self._write(records, commit, may_use_reserve=may_use_reserve)
            except NoSpace:
                self._is_refusing = self._is_refusing or bool(runs)
                raise
            for entries, numbers in runs:
                self._log.show(entries, self._number, [offsets[number] for number in numbers])
        self._term, self._vote, self._commit = term, vote, commit

    def _after_refusal(self, batch: Batch) -> Batch:
        """A batch that may have been made before its writer knew of a refusal. Raises :class:`NoSpace` for what follows a gap."""
        if batch.entries and batch.entries[0].index > self.last_index() + 1:
            raise NoSpace("The journal has refused the entries before these. Nothing was written.")
        state = batch.hard_state
        if state is None:
            return batch
        last = batch.entries[-1].index if batch.entries else self.last_index()
        commit = max(self._commit, min(state.commit, last))  # it may say that what was refused is committed
        return batch._replace(hard_state=state._replace(commit=commit))

    def accept_again(self) -> None:
        """After :class:`NoSpace`: whoever writes knows of it, and goes on from what is durable; a gap is an error again."""
        self._is_refusing = False

    def has_room(self) -> bool:
        """Whether a new file would find room on the disk."""
        return self._segments.free_bytes() >= 2 * self._segment_bytes

    @staticmethod
    def _entry_records(entries: Sequence[Entry], term: int, commit: int, last: int) -> list[tuple[int, bytes]]:
        """The records of a batch's entries, after a check that they may follow what there is."""
        first = expected = entries[0].index
        if not commit < first <= last + 1:
            require(False, f"Entry {first} cannot be written: {commit} is committed, {last} the last.")
        records: list[tuple[int, bytes]] = []
        pack, record_kind = ENTRY_HEAD.pack, Kind.ENTRY
        for index, entry_term, kind, data in entries:
            if index != expected or entry_term > term:
                require(False, f"Entry {index} of term {entry_term} cannot stand at {expected} in term {term}.")
            records.append((record_kind, pack(index, entry_term, kind) + data))
            expected += 1
        return records

    def note_snapshot(self, meta: SnapshotMeta) -> None:
        """Take note of a snapshot that is durable in a file of its own. Errors as for :meth:`append`."""
        self._require_running()
        base_index, _, last = self._log.bounds()
        require(
            base_index <= meta.index <= last,
            f"A snapshot of {meta.index} does not fit a log from {base_index + 1} to {last}.",
        )
        self._write([(Kind.SNAPSHOT, _pack_snapshot(meta))], self._commit, may_use_reserve=True)
        self._snapshot = meta

    def forget(self, index: int) -> None:
        """Have the log begin after ``index``. Called on the thread that reads, so that it never looks for what has gone.

        Arguments:
            index: an index that a snapshot covers; with two snapshots kept, the older one.
        """
        require(
            index <= min(self._commit, self._snapshot.index), f"Entry {index} is not in a snapshot: it has to be kept."
        )
        self._log.forget(index)

    def compact(self) -> None:
        """After :meth:`forget`: make it durable, and remove the files that are not needed any more.

        Raises:
            NoSpace, DiskFailed: as for :meth:`append`.
        """
        self._require_running()
        base_index, base_term, _ = self._log.bounds()
        if base_index > self._durable_base:
            self._write([(Kind.BASE, PAIR.pack(base_index, base_term))], self._commit, may_use_reserve=True)
            self._durable_base = base_index
        self._remove_forgotten()

    def restore(self, meta: SnapshotMeta) -> None:
        """After a snapshot was installed: go on from it.

        If the log has the snapshot's last entry, what follows it stays. Otherwise the log is empty, and begins there.

        Raises:
            NoSpace, DiskFailed: as for :meth:`append`.
        """
        self._require_running()
        require(meta.index >= self._commit, f"A snapshot of {meta.index} was installed over commit {self._commit}.")
        commit = max(self._commit, meta.index)
        base_index, _, last = self._log.bounds()
        if base_index <= meta.index <= last and self._log.term(meta.index) == meta.term:
            self._write([(Kind.SNAPSHOT, _pack_snapshot(meta))], commit, may_use_reserve=True)
            self._commit, self._snapshot = commit, meta
            return
        self._write([(Kind.RESET, _pack_snapshot(meta))], commit, may_use_reserve=True)
        self._log.reset(meta.index, meta.term)
        self._durable_base = meta.index
        self._commit, self._snapshot = commit, meta
        for number in self._begins:
            self._begins[number] = 0  # nothing in an earlier file is needed any more
        self._remove_forgotten()

    def close(self) -> None:
        """Say that the journal was closed in good order, and close its files."""
        if self._stopped is None:
            try:
                self._write([(Kind.CLOSED, b"")], self._commit, may_use_reserve=True)
            except NoSpace:
                logger.warning("The journal was closed on a full disk; its next start reads it as after a crash.")
        self.abandon()

    def abandon(self) -> None:
        """Close the files without a word, as if the process had been killed."""
        self._stopped = self._stopped or "The journal is closed"
        self._segments.close()

    # ------------------------------------------------------------------------------------------------ inside

    def _require_running(self) -> None:
        if self._stopped is not None:
            raise DiskFailed(f"{self._stopped}: it takes no further calls. Nothing was written. Start the node again.")

    def _require_successor(self, now: tuple[int, str, int], state: HardState) -> None:
        term, vote, commit = now
        if state.term < term:
            require(False, f"The term falls from {term} to {state.term}.")
        if state.term == term and vote not in ("", state.vote):
            require(False, f"In term {term} the vote for {vote!r} is taken back.")
        if state.commit < commit:
            require(False, f"The commit index falls from {commit} to {state.commit}.")

    @contextmanager
    def _stopping_if_disk_fails(self) -> Iterator[None]:
        try:
            yield
        except DiskFailed as error:
            self._stopped = f"The journal has failed ({error})"
            raise

    def _write(self, records: list[tuple[int, bytes]], commit: int, *, may_use_reserve: bool) -> list[int]:
        """Write records as one batch and sync it. Returns: the offset of each in the current file."""
        records.append((Kind.COMMIT, INDEX.pack(commit)))
        encoded = encode(records, self._number, self._batch + 1, self._previous)
        size_bytes = len(encoded.data)
        if size_bytes > BATCH_BYTES_MAX:
            require(False, f"A batch of {size_bytes:,} bytes is too large for the journal.")
        with self._stopping_if_disk_fails():
            self._clear_garbage()
            if self._make_room(size_bytes, may_use_reserve=may_use_reserve):  # in a new file, the records are others
                encoded = encode(records, self._number, self._batch + 1, self._previous)
            self._write_durably(self._end, encoded.data)
        begin = self._end
        self._end += size_bytes
        self._previous = encoded.previous
        self._batch += 1
        return [begin + offset for offset in encoded.offsets]

    def _write_durably(self, offset: int, data: bytes) -> None:
        file = self._segments.file(self._number)
        try:
            file.write_at(offset, data)
            file.sync()
        except NoSpace:
            # On some file systems also room that was set aside can be refused. What was written must not look like a batch.
            self._garbage_until = max(self._garbage_until, offset + len(data))
            raise
        self.syncs += 1

    def _clear_garbage(self) -> None:
        if self._garbage_until > self._end:
            until, self._garbage_until = self._garbage_until, 0
            self._write_durably(self._end, bytes(until - self._end))

    def _make_room(self, size_bytes: int, *, may_use_reserve: bool) -> bool:
        """See that the current file has room for so many bytes. Returns: whether a new one was begun."""
        left_bytes = self._size - self._end
        if size_bytes + self._reserve_bytes <= left_bytes:
            return False
        try:
            self._begin_segment(size_bytes)
            return True
        except NoSpace as error:
            if may_use_reserve and size_bytes <= left_bytes:
                return False
            raise NoSpace(
                f"The journal has no room for {size_bytes:,} bytes: {error} Nothing was written. Make room on the disk; the "
                "node goes on by itself."
            ) from error

    def _begin_segment(self, size_bytes: int) -> None:
        number = self._number + 1
        base_index, base_term, last = self._log.bounds()
        vote, snapshot = self._vote, _pack_snapshot(self._snapshot)
        room = size_bytes + self._reserve_bytes + record_size(SegmentHead.size_for(vote, snapshot))
        size = max(self._segment_bytes, room)
        head = SegmentHead(size, last + 1, base_index, base_term, self._commit, self._term, vote, snapshot)
        encoded = encode([(Kind.SEGMENT, head.pack())], number, self._batch + 1, self._previous)
        self._segments.make(number, size, encoded.data)
        self._begins[number] = head.next_index
        self._number, self._size = number, size
        self._end, self._previous = len(encoded.data), encoded.previous
        self._batch += 1

    def _remove_forgotten(self) -> None:
        """Remove files before the current one whose entries are all forgotten."""
        numbers = sorted(self._begins)
        forgotten = []
        for number, follower in pairwise(numbers):
            if self._begins[follower] > self._durable_base + 1:
                break
            forgotten.append(number)
        for number in forgotten:
            del self._begins[number]
        with self._stopping_if_disk_fails():
            self._segments.remove(forgotten)


def _pack_snapshot(meta: SnapshotMeta) -> bytes:
    return PAIR.pack(meta.index, meta.term) + meta.membership.to_bytes()


def _unpack_snapshot(body: bytes) -> SnapshotMeta:
    index, term = PAIR.unpack_from(body)
    return SnapshotMeta(index, term, membership_from_bytes(body[PAIR.size :]))

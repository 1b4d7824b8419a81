"""The bytes of the journal's records, and what a broken one means.

A segment file is a run of records, each beginning at a multiple of 32 bytes::

    bytes of the body   u32     CRC-32 of the body      u32     CRC of the record before    u32     kind     u8
    flags               u8      format                  u16     number of the batch         u64     segment  u32
    CRC-32 of the header u32    body                            padding up to the next multiple of 32

A *batch* is what was written and synced together; its last record is marked. Records are 32 bytes apart so that a header never
lies in two sectors: it is there as a whole, or not at all.

**Torn or damaged.** The next batch is written only after the last one was synced. So a batch that is not whole may
have been cut off by a crash only if nothing of a later batch exists; and then each piece that a record lacks is a sector that
was never written, which reads as zeros in a file made of zeros. A header that is neither zeros nor valid, a record of which
every sector was written and whose CRC is still wrong, a gap before a later batch: none of that comes from a crash. What was
promised to others was changed or is missing. (That a written sector is not all zeros is seen to: bodies with long runs of
zeros are masked, and padding is not zero.)
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple
from zlib import crc32

ALIGNMENT: Final = 32
SECTOR_BYTES: Final = 512
FORMAT: Final = 1
BATCH_BYTES_MAX: Final = 2**31

LAST_OF_BATCH: Final = 1
MASKED: Final = 2

_HEADER = struct.Struct("<IIIBBHQII")
_FRONT = struct.Struct("<IIIBBHQI")
_CRC = struct.Struct("<I")
_ZERO_HEADER: Final = bytes(_HEADER.size)
_BLOCK_BYTES: Final = 64 * 1024
_ZERO_BLOCK: Final = bytes(_BLOCK_BYTES)
_LONG_ZEROS: Final = bytes(ALIGNMENT)
_MASK: Final = bytes(byte ^ 0xA5 for byte in range(256))
_PADDING: Final = b"\xff" * ALIGNMENT

HEADER_BYTES: Final = _HEADER.size
ENTRY_HEAD = struct.Struct("<QQB")
"""An entry's body begins with index, term and kind."""


class Kind(IntEnum):
    """What a record says."""

    SEGMENT = 1
    """First in each file: :class:`SegmentHead`."""
    STATE = 2
    """Term and vote."""
    COMMIT = 3
    """The commit index, as it was known some time before."""
    ENTRY = 4
    """An entry. What the log had at its index, and after it, is gone."""
    BASE = 5
    """Entries up to this (index, term) are in a snapshot, and forgotten here."""
    SNAPSHOT = 6
    """The newest snapshot: index, term, membership."""
    RESET = 7
    """The same, and the log is empty and begins after it."""
    CLOSED = 8
    """The journal was closed in good order."""


class Record(NamedTuple):
    """One record, read and verified."""

    kind: int
    flags: int
    batch: int
    segment: int
    previous: int
    crc: int
    body: bytes
    size: int


PAIR = struct.Struct("<QQ")
"""The body of BASE, and the beginning of SNAPSHOT and RESET: index and term."""
INDEX = struct.Struct("<Q")
"""The body of COMMIT."""
_TERM = struct.Struct("<Q")
_SEGMENT_HEAD = struct.Struct("<QQQQQQH")


class SegmentHead(NamedTuple):
    """What a segment file says about the time before it: enough to forget every file before.

    Attributes:
        size_bytes: the file's size.
        next_index: the index that an entry would have had then.
        base_index: entries up to here were forgotten.
        base_term: its term.
        commit: the commit index.
        term: the current term.
        vote: who had this node's vote in it, or an empty text.
        snapshot: the newest snapshot: :data:`PAIR`, and the membership.
    """

    size_bytes: int
    next_index: int
    base_index: int
    base_term: int
    commit: int
    term: int
    vote: str
    snapshot: bytes

    @staticmethod
    def size_for(vote: str, snapshot: bytes) -> int:
        """How many bytes it takes with such a vote and snapshot."""
        return _SEGMENT_HEAD.size + len(vote.encode()) + len(snapshot)

    def pack(self) -> bytes:
        """Its bytes."""
        vote = self.vote.encode()
        return _SEGMENT_HEAD.pack(*self[:6], len(vote)) + vote + self.snapshot

    @classmethod
    def unpack(cls, body: bytes) -> SegmentHead:
        """Read it back."""
        size_bytes, next_index, base_index, base_term, commit, term, vote_bytes = _SEGMENT_HEAD.unpack_from(body)
        begin, end = _SEGMENT_HEAD.size, _SEGMENT_HEAD.size + vote_bytes
        vote = body[begin:end].decode()
        return cls(size_bytes, next_index, base_index, base_term, commit, term, vote, body[end:])


def pack_state(term: int, vote: str) -> bytes:
    """The body of a STATE record."""
    return _TERM.pack(term) + vote.encode()


def unpack_state(body: bytes) -> tuple[int, str]:
    """Read it back: (term, vote)."""
    return _TERM.unpack_from(body)[0], body[_TERM.size :].decode()


def padded(size: int) -> int:
    """Bytes that a record of that many takes in the file."""
    return -(-size // ALIGNMENT) * ALIGNMENT


class Encoded(NamedTuple):
    """The records of a batch, as they stand in a file.

    Attributes:
        data: their bytes.
        offsets: where each begins, from the batch's beginning.
        previous: CRC of the last one.
    """

    data: bytes
    offsets: list[int]
    previous: int


def encode(records: Iterable[tuple[int, bytes]], segment: int, batch: int, previous: int) -> Encoded:
    """Make the records of one batch, each chained to the one before; the last one is marked.

    Arguments:
        records: kind and body of each.
        segment: the number of the file that they are for.
        batch: the number of the batch.
        previous: CRC of the record before the first.
    """
    parts: list[bytes] = []
    offsets: list[int] = []
    end = 0
    records = list(records)
    left = len(records)
    for kind, body in records:
        left -= 1
        flags = 0 if left else LAST_OF_BATCH
        if _LONG_ZEROS in body:
            body = body.translate(_MASK)
            flags |= MASKED
        front = _FRONT.pack(len(body), crc32(body), previous, kind, flags, FORMAT, batch, segment)
        previous = crc32(front)
        used = HEADER_BYTES + len(body)
        gap = -used % ALIGNMENT
        parts += (front, _CRC.pack(previous), body, _PADDING[:gap])
        offsets.append(end)
        end += used + gap
    return Encoded(b"".join(parts), offsets, previous)


def record_size(body_bytes: int) -> int:
    """What a record with such a body takes in the file."""
    return padded(HEADER_BYTES + body_bytes)


class BrokenRecord(Exception):
    """Here is no whole record. Never leaves the journal.

    Attributes:
        reason: why, as part of a sentence.
        may_be_torn: whether a crash while it was being written can have left it so.
    """

    def __init__(self, reason: str, may_be_torn: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.may_be_torn = may_be_torn


def header_at(data: bytes, at: int) -> tuple[int, ...] | None:
    """The fields of a valid header; None if the 32 bytes there are none."""
    if at + HEADER_BYTES > len(data):
        return None
    fields = _HEADER.unpack_from(data, at)
    return fields if crc32(data[at : at + HEADER_BYTES - 4]) == fields[8] else None


def record_at(data: bytes, at: int, wanted: int | None = None) -> Record:
    """Read one record.

    Arguments:
        data: bytes of a segment file, beginning at a multiple of a sector, or at a record when nothing may be torn.
        at: where the record begins.
        wanted: the kind that it has to be of; None for any.
    Raises:
        BrokenRecord: there is none, or not a whole one.
    """
    fields = header_at(data, at)
    if fields is None:
        header = data[at : at + HEADER_BYTES]
        if header == _ZERO_HEADER[: len(header)]:
            raise BrokenRecord("nothing is written there", may_be_torn=True)
        raise BrokenRecord("the header of a record is damaged", may_be_torn=False)
    body_bytes, body_crc, previous, kind, flags, version, batch, segment, crc = fields
    if version != FORMAT:
        raise BrokenRecord(f"a record has format {version}, and this release knows {FORMAT}", may_be_torn=False)
    if wanted is not None and kind != wanted:
        raise BrokenRecord("a record of another kind lies there", may_be_torn=False)
    begin = at + HEADER_BYTES
    body = data[begin : begin + body_bytes]
    if len(body) < body_bytes:
        raise BrokenRecord("the file ends within a record", may_be_torn=False)
    if crc32(body) != body_crc:
        raise BrokenRecord(
            "a record was changed after it was written",
            may_be_torn=_lacks_a_sector(data, at, padded(HEADER_BYTES + body_bytes)),
        )
    if flags & MASKED:
        body = body.translate(_MASK)
    return Record(kind, flags, batch, segment, previous, crc, body, padded(HEADER_BYTES + body_bytes))


def _lacks_a_sector(data: bytes, at: int, size: int) -> bool:
    """Whether one of the sectors that a record lies in was not written."""
    end = min(at + size, len(data))
    while at < end:
        until = min(end, (at // SECTOR_BYTES + 1) * SECTOR_BYTES)
        if not any(data[at:until]):
            return True
        at = until
    return False


def first_used(data: bytes, at: int) -> int:
    """Where the first byte is, at or after ``at``, that is not zero; the end if there is none.

    In blocks, since most of a file is zeros, and comparing is some fifty times as fast as stripping.
    """
    for begin in range(at, len(data), _BLOCK_BYTES):
        block = data[begin : begin + _BLOCK_BYTES]
        if block != _ZERO_BLOCK[: len(block)]:
            return begin + len(block) - len(block.lstrip(b"\0"))
    return len(data)


def used_bytes(data: bytes) -> int:
    """How long the data is without the zeros at its end."""
    end = len(data)
    while end > 0:
        begin = max(end - _BLOCK_BYTES, 0)
        block = data[begin:end]
        if block != _ZERO_BLOCK[: len(block)]:
            return begin + len(block.rstrip(b"\0"))
        end = begin
    return 0


def later_batch(data: bytes, at: int, batch: int) -> int | None:
    """Where a record of a batch later than ``batch`` begins, at or after ``at``; None if there is none."""
    while at < len(data):
        at = first_used(data, at) // ALIGNMENT * ALIGNMENT
        # Look through what follows until the next long gap, without stripping again for each step.
        while at < len(data) and data[at : at + ALIGNMENT] != _LONG_ZEROS:
            fields = header_at(data, at)
            if fields is not None and fields[6] > batch:
                return at
            at += ALIGNMENT
    return None


@dataclass(slots=True)
class Scan:
    """What a segment file holds.

    Attributes:
        batches: the whole batches, each a list of (offset, record).
        end: where the last whole batch ends.
        previous: CRC of its last record.
        batch: its number.
        damage: why the rest cannot come from a crash; None if it can, or if there is no rest.
        torn: there is a rest, and a crash can have left it.
    """

    batches: list[list[tuple[int, Record]]]
    end: int = 0
    previous: int = 0
    batch: int = 0
    damage: str | None = None
    torn: bool = False


def scan(data: bytes, segment: int, previous: int | None, batch: int | None) -> Scan:
    """Read a segment file.

    Arguments:
        data: all of it.
        segment: the file's number.
        previous: CRC of the last record of the file before; None if that file is not there.
        batch: the number of the last batch of the file before; None the same.
    """
    found = Scan([], previous=previous or 0, batch=batch or 0)
    open_batch: list[tuple[int, Record]] = []
    at, expected_previous = 0, previous
    expected_batch = None if batch is None else batch + 1
    while at < len(data):
        try:
            record = record_at(data, at)
            if record.segment != segment:
                raise BrokenRecord(f"a record of segment {record.segment} lies here", may_be_torn=False)
            if expected_previous is not None and record.previous != expected_previous:
                raise BrokenRecord("a record does not follow the one before it", may_be_torn=False)
            if expected_batch is not None and record.batch != expected_batch:
                raise BrokenRecord("a batch is missing", may_be_torn=False)
        except BrokenRecord as broken:
            _judge(found, data, at, broken)
            return found
        open_batch.append((at, record))
        at += record.size
        expected_previous, expected_batch = record.crc, record.batch
        if record.flags & LAST_OF_BATCH:
            found.batches.append(open_batch)
            found.end, found.previous, found.batch = at, record.crc, record.batch
            open_batch = []
            expected_batch = record.batch + 1
    if open_batch:
        found.damage = f"the file ends within a batch, at byte {at:,}"
    return found


def _judge(found: Scan, data: bytes, at: int, broken: BrokenRecord) -> None:
    """Decide what a record that is not whole means: the end, a torn tail, or damage."""
    if not broken.may_be_torn:
        found.damage = f"{broken.reason}, at byte {at:,}"
        return
    later = later_batch(data, at, found.batch + 1)
    if later is not None:
        found.damage = f"{broken.reason}, at byte {at:,}, though a later batch at byte {later:,} was written"
    elif first_used(data, found.end) < len(data):
        found.torn = True

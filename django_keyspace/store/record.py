"""A record's bytes: a fixed header and the payload.

==========  =====  ==============================================================================================
field       bytes  meaning
==========  =====  ==============================================================================================
tag         1      type of the payload, see :class:`Tag`
flags       1      bits of :class:`Flag`
checksum    4      CRC-32 of the payload
revision    8      number of the write that made this record: the log index, or the store's own write counter
deadline    8      milliseconds since the epoch by the log clock; 0 for none
bucket      4      where the deadline index has its entry for this key (see ``store/deadlines.py``); 0 for none
==========  =====  ==============================================================================================

Little-endian, no padding. The store looks at the header and, to count and to append, at payloads of the native tags; it
never decodes, decompresses or unpickles anything else. ``backend/codec.py`` does.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import Final
from zlib import crc32, decompressobj
from zlib import error as ZlibError

from django_keyspace.exceptions import DamagedStore


class Tag(IntEnum):
    """What the payload is. The first five are native: the same from every API, and never pickled."""

    BYTES = 1
    TEXT = 2
    """UTF-8."""
    INTEGER = 3
    """Decimal text within the signed 64-bit range."""
    FLOAT = 4
    """The shortest decimal text that reads back as the same float."""
    BOOLEAN = 5
    """``1`` or ``0``."""
    PICKLE = 16
    JSON = 17
    MSGPACK = 18
    RAW = 19


NATIVE_TAGS: Final = frozenset({Tag.BYTES, Tag.TEXT, Tag.INTEGER, Tag.FLOAT, Tag.BOOLEAN})


class Flag(IntFlag):
    """Bits of a record's flags."""

    COMPRESSED = 1
    """The payload is compressed with zlib."""
    SIGNED = 2
    """The payload begins with a keyed signature."""
    EVICTABLE = 4
    """The record was written through the cache API and may be dropped when the store is full."""
    DECIMAL = 16
    """Text or bytes that may be counted if they are a decimal integer: Keyspace's API, which wrote them, has no numbers."""
    OVERLAID = 8
    """A deadline hangs on the key's name: the header has the earlier one of both, the overlay's entry the record's own."""


_HEADER = struct.Struct("<BBIQQI")
HEADER_BYTES: Final = _HEADER.size
pack_header = _HEADER.pack
"""``pack_header(tag, flags, checksum, revision, deadline_ms, bucket)``: a record is this and its payload."""
unpack_header = _HEADER.unpack_from
"""``unpack_header(record) -> (tag, flags, checksum, revision, deadline_ms, bucket)``."""
content_of = struct.Struct("<BBI").unpack_from
"""``content_of(record) -> (tag, flags, checksum)``: what decoding needs."""
deadline_of = struct.Struct("<14xQ").unpack_from
"""``deadline_of(record) -> (deadline_ms,)``: the one field that every read needs."""
flags_and_bucket = struct.Struct("<xB20xI").unpack_from
"""``flags_and_bucket(record) -> (flags, bucket)``: what an overwrite needs of the record that it replaces."""
revision_of = struct.Struct("<6xQ").unpack_from
"""``revision_of(record) -> (revision,)``."""


def with_deadline(record: bytes, revision: int, deadline_ms: int, bucket: int) -> bytes:
    """The same value with another revision, deadline and bucket."""
    tag, flags, checksum, _, _, _ = unpack_header(record)
    return pack_header(tag, flags, checksum, revision, deadline_ms, bucket) + record[HEADER_BYTES:]


def payload_of(record: bytes) -> bytes:
    """The payload, after its checksum was compared.

    Raises:
        DamagedStore: the payload is not what was written.
    """
    payload = record[HEADER_BYTES:]
    if crc32(payload) != unpack_header(record)[2]:
        raise DamagedStore(
            "A record's checksum does not match its payload: the file was changed by something else or the disk is "
            "failing. The record was not used. Check the disk and restore the store from a backup."
        )
    return payload


def inflate(payload: bytes, limit_bytes: int) -> bytes:
    """Decompress a payload with :attr:`Flag.COMPRESSED`.

    Arguments:
        payload: zlib data.
        limit_bytes: more than so many bytes are refused, before they are made.
    Raises:
        DamagedStore: the payload is not zlib data, or it is larger than any value may be.
    """
    inflater = decompressobj()
    try:
        data = inflater.decompress(payload, limit_bytes)
    except ZlibError as error:
        raise DamagedStore("A record's payload cannot be decompressed. The record was not used.") from error
    if not inflater.eof:
        raise DamagedStore(
            f"A record decompresses to more than {limit_bytes:,} bytes, or is cut short. It was not used."
        )
    return data

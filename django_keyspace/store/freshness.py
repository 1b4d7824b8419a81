"""How fresh the store of a node is, as the node tells it to processes of its host that read the store beside it.

The node writes one short record into a file several times a second; readers map the file and look. A record carries its own
checksum, so that whoever looks while it is being written sees that, and looks again. The store itself says how much of the log
it holds, in each reader's own transaction; what is here is what only the node knows: when it heard from its leader, and what
the log clock says.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple
from zlib import crc32

FRESHNESS_FILE: Final = "node.fresh"
LIFE_BYTES: Final = 16
READABLE: Final = 1
"""The store is at a place in the log that the node may show."""
ENDED: Final = 2
"""The node has ended, and will not write again."""
LOOK_MS: Final = 10
"""How long readers take what the node has said as it was, before they look at the file again."""

_MAGIC: Final = b"kfr1"
_RECORD = struct.Struct(f"<4sIQQQQQQ{LIFE_BYTES}s")
_SUM = struct.Struct("<I")
RECORD_BYTES: Final = _RECORD.size + _SUM.size


class Freshness(NamedTuple):
    """What a node says of its store.

    Attributes:
        flags: bits of :data:`READABLE` and :data:`ENDED`.
        process: its process id.
        generation: which of its store folders counts.
        applied: the last entry that it has applied.
        log_ms: its log clock.
        age_ms: how long ago, at most, the store was known to be current.
        boot_ms: the host's monotonic clock at the moment for which all this holds.
        life: drawn when the process began.
    """

    flags: int
    process: int
    generation: int
    applied: int
    log_ms: int
    age_ms: int
    boot_ms: int
    life: bytes

    def pack(self) -> bytes:
        """The record."""
        record = _RECORD.pack(_MAGIC, *self)
        return record + _SUM.pack(crc32(record))


def unpack(data: bytes) -> Freshness | None:
    """What a record says; None if it is not whole, or is none."""
    if len(data) != RECORD_BYTES or _SUM.unpack_from(data, _RECORD.size)[0] != crc32(data[: _RECORD.size]):
        return None
    magic, *fields = _RECORD.unpack_from(data)
    return Freshness(*fields) if magic == _MAGIC else None

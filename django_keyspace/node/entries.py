"""What an entry of the log holds: the operations that came together, and the time by which they count.

::

    version (one byte)   msgpack of [log time in ms, [call, call, ...]]

All nodes apply what they decode from these bytes, the leader too, so that none sees a value that another one does not. A
node that meets a version that it does not know has to stop: skipping an entry would make its store another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgpack

from django_keyspace.exceptions import InvalidArgument
from django_keyspace.node.raft import COMMANDS, BrokenInvariant, Entry
from django_keyspace.operations import OPERATIONS, Call

ENTRY_VERSION: Final = 1
"""The newest version that this release writes and reads. A leader writes it once all members know it."""
ENTRY_VERSION_OLDEST: Final = 1
"""The oldest version that a member of the cluster may read, as long as it has not said more."""
_VERSIONS: Final = frozenset(range(ENTRY_VERSION_OLDEST, ENTRY_VERSION + 1))
_PARTS_MAX: Final = 2**24


class LoggedCalls(NamedTuple):
    """An entry as the state machine takes it.

    Attributes:
        index: its place in the log: the revision of what it writes.
        log_ms: the log time of its leader when it was proposed; 0 for an entry without operations.
        calls: the operations, already checked.
    """

    index: int  # type: ignore[assignment]  # tuple.index is not needed here
    log_ms: int
    calls: Sequence[Call]


def pack_calls(log_ms: int, calls: Sequence[Call], version: int = ENTRY_VERSION) -> bytes:
    """The data of an entry.

    Arguments:
        log_ms: the log time.
        calls: operations, already checked.
        version: one that all members read, and that knows these operations.
    Raises:
        InvalidArgument: an operation holds something that cannot be written down.
    """
    try:
        packed: bytes = msgpack.packb((log_ms, calls), use_bin_type=True, unicode_errors="surrogatepass")
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidArgument(f"This cannot be written to the log: {error}. Nothing was changed.") from None
    return bytes((version,)) + packed


def logged_calls(entry: Entry) -> LoggedCalls:
    """An entry, decoded.

    Raises:
        BrokenInvariant: it is of a version that this release does not know, or damaged. The node has to stop.
    """
    if entry.kind != COMMANDS:
        return LoggedCalls(entry.index, 0, ())
    data = entry.data
    if not data or data[0] not in _VERSIONS:
        raise BrokenInvariant(
            f"Entry {entry.index} is of version {data[0] if data else 'none'}, and this release knows "
            f"{', '.join(map(str, sorted(_VERSIONS)))}: a newer release leads the cluster. Upgrade this node."
        )
    try:
        log_ms, calls = _unpack(data)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise BrokenInvariant(f"Entry {entry.index} cannot be read: {error}.") from error
    return LoggedCalls(entry.index, log_ms, calls)


def version_needed(call: Call) -> int:
    """The version of the log's entries that a call needs, which was checked: its own, or that of a call inside of it."""
    newest = 1
    waiting: list[Call] = [call]
    while waiting:
        name, *values = waiting.pop()
        operation = OPERATIONS[name]
        newest = max(newest, operation.since)
        for (parameter, _), value in zip(operation.parameters, values, strict=True):
            if parameter == "calls":
                waiting.extend(value)
            elif parameter == "call":
                waiting.append(value)
    return newest


def version_of_entry(entry: Entry) -> int:
    """The version of an entry with operations, known here or not; 0 for one that is empty."""
    return entry.data[0] if entry.data else 0


def log_time_of(entry: Entry | None) -> int:
    """The log time of an entry, in milliseconds; 0 for none, and for one without operations. Raises as :func:`logged_calls`."""
    return 0 if entry is None else logged_calls(entry).log_ms


def readable_log_time_of(entry: Entry | None) -> int:
    """The same; 0 also for an entry of a newer release, of which whoever has to apply it says so."""
    try:
        return log_time_of(entry)
    except BrokenInvariant:
        return 0


def _unpack(data: bytes) -> Any:
    limit = len(data)
    return msgpack.unpackb(
        memoryview(data)[1:],
        use_list=False,
        raw=False,
        strict_map_key=False,
        unicode_errors="surrogatepass",
        max_array_len=min(limit, _PARTS_MAX),
        max_map_len=min(limit, _PARTS_MAX),
        max_str_len=limit,
        max_bin_len=limit,
        max_ext_len=0,
    )

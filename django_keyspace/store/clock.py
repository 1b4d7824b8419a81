"""The host's clocks, and the log clock that is made from them.

Deadlines are compared with the **log clock**: milliseconds since the epoch that never go back. It follows the wall clock;
when the wall clock was set back it goes on from its last known value at nine tenths of the speed of the host's monotonic
clock, until the wall clock has caught up. So nothing that had expired comes back, and nothing stays for ever.

The last value and the monotonic clock's reading at that moment stand in the store, for all processes of the host. Tests
replace :func:`wall_ms` and :func:`boot_ms`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", None)

_SAME_PACE_MS = 1000
"""Over so short a time the two clocks are taken to have run alike, which saves busy writers a system call."""


def wall_ms() -> int:
    """The wall clock: milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


boot_ns: Callable[[], int] = time.monotonic_ns if _BOOT_CLOCK is None else partial(time.clock_gettime_ns, _BOOT_CLOCK)
"""The clock of :func:`boot_ms`, in nanoseconds."""


def boot_ms() -> int:
    """A clock that never goes back and is the same for all processes of the host, in milliseconds.

    Linux counts time in suspend too; elsewhere the monotonic clock has to do.
    """
    return boot_ns() // 1_000_000


def next_log_time(
    last_ms: int, last_boot_ms: int, given_wall_ms: int | None = None, given_boot_ms: int | None = None
) -> tuple[int, int]:
    """The log clock now.

    Arguments:
        last_ms: the log clock at its last known moment.
        last_boot_ms: :func:`boot_ms` at that moment.
        given_wall_ms: the wall clock, for those who bring clocks of their own; default: :func:`wall_ms`.
        given_boot_ms: the same for :func:`boot_ms`.
    Returns:
        ``(log_time_ms, boot_ms)`` to be remembered for the next call.
    """
    now_ms = wall_ms() if given_wall_ms is None else given_wall_ms
    if 0 <= now_ms - last_ms < _SAME_PACE_MS:
        return now_ms, last_boot_ms + now_ms - last_ms
    now_boot_ms = boot_ms() if given_boot_ms is None else given_boot_ms
    # A reading below the last one is another boot's: nothing is known about the time in between.
    advance_ms = max(now_boot_ms - last_boot_ms, 0) * 9 // 10
    if now_ms >= last_ms + advance_ms:
        return now_ms, now_boot_ms
    if advance_ms or now_boot_ms < last_boot_ms:
        return last_ms + advance_ms, now_boot_ms
    return last_ms, last_boot_ms

"""The clocks of a node, behind an interface that a simulator replaces.

Two kinds of time, never mixed: :meth:`NodeClock.monotonic_ms` for everything that has to pass (elections, heartbeats,
leases), and :meth:`NodeClock.wall_ms` for nothing but the log clock, by which deadlines are compared.
"""

from __future__ import annotations

from threading import Lock
from typing import Final, Protocol

from django_keyspace.store import clock as host

CATCH_UP_PACE: Final = 10
"""How many times as fast as a monotonic clock the log clock may run when it is behind the wall clock."""


class NodeClock(Protocol):
    """The time as one node sees it."""

    def monotonic_ms(self) -> int:
        """Milliseconds that never go back and also count while the machine sleeps."""

    def wall_ms(self) -> int:
        """Milliseconds since the epoch, right or wrong."""


class HostClock:
    """This machine's clocks: those of ``store/clock.py``."""

    monotonic_ms = staticmethod(host.boot_ms)
    wall_ms = staticmethod(host.wall_ms)


class LogClock:
    """The log clock of whoever orders writes: the rules of ``store/clock.py`` on a given clock, with bounded jumps.

    It never goes back. Several threads may ask it. A wall clock that is behind slows it down, as there. A wall clock that is
    ahead pulls it along at no more than :data:`CATCH_UP_PACE` times the speed of the monotonic clock, so that a leader whose
    clock is a year ahead does not let everything expire at once.

    Arguments:
        clock: where the time comes from.
        last_ms: the log clock as the node last knew it, from its store or its peers; 0 for a new cluster, which starts
            from the wall clock.
    """

    def __init__(self, clock: NodeClock, last_ms: int = 0) -> None:
        self._clock = clock
        self._lock = Lock()
        self._last_monotonic_ms = clock.monotonic_ms()
        self._last_ms = last_ms or clock.wall_ms()

    @property
    def last_ms(self) -> int:
        """What it said last."""
        return self._last_ms

    def observe(self, log_ms: int) -> None:
        """Take note of a log clock elsewhere: this one will not say less from now on."""
        with self._lock:
            if log_ms > self._now_ms():  # first: what has passed since it was asked last must not be forgotten
                self._last_ms = log_ms
                self._last_monotonic_ms = self._clock.monotonic_ms()

    def now_ms(self) -> int:
        """The log clock now."""
        with self._lock:
            return self._now_ms()

    def _now_ms(self) -> int:
        monotonic_ms = self._clock.monotonic_ms()
        passed_ms = max(monotonic_ms - self._last_monotonic_ms, 0)
        wall_ms = min(self._clock.wall_ms(), self._last_ms + CATCH_UP_PACE * passed_ms)
        log_ms, _ = host.next_log_time(self._last_ms, self._last_monotonic_ms, wall_ms, monotonic_ms)
        if log_ms > self._last_ms:  # otherwise the time that passed was too short to show, and must not be forgotten
            self._last_ms, self._last_monotonic_ms = log_ms, monotonic_ms
        return log_ms

"""How old a follower's copy is: what leaders have said of their logs, and when, beside what is applied here."""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from django_keyspace.node.clock import NodeClock

NOTES_MAX: Final = 64
CREEP: Final = 6
"""The log clock may lose one part in so many against a monotonic clock elsewhere: it runs at nine tenths of one at least, and no
two clocks run alike."""


class _Note(NamedTuple):
    """Nothing behind `commit` was acknowledged at that moment of this node's monotonic clock, if a leader had it right."""

    commit: int
    moment_ms: int


class Freshness:
    """The age of a copy that follows.

    That a leader was heard says nothing about a copy that is far behind it: what counts is the last moment at which a leader had
    committed no more than is applied here. And a heartbeat that was on its way for long, or waited here while the process was
    stopped, tells of an earlier moment. How much earlier shows in the log time that it carries: it is further behind this node's
    monotonic clock than that of others was.

    Arguments:
        clock: when something was heard.
    """

    def __init__(self, clock: NodeClock) -> None:
        self._clock = clock
        self._notes: deque[_Note] = deque()
        self._reached_ms: int | None = None
        self._least_behind_ms: int | None = None
        self._heard_ms = 0

    def heard(self, leader_commit: int, log_ms: int) -> None:
        """A leader has said how much may have been acknowledged, at that log time."""
        now_ms = self._clock.monotonic_ms()
        behind_ms = now_ms - log_ms
        if self._least_behind_ms is None:
            self._least_behind_ms = behind_ms
        crept_ms = (now_ms - self._heard_ms) // CREEP
        self._least_behind_ms = min(behind_ms, self._least_behind_ms + crept_ms)
        self._heard_ms = now_ms
        notes = self._notes
        while notes and notes[-1].commit >= leader_commit:
            notes.pop()  # the new one is as easily reached, and says more
        notes.append(_Note(leader_commit, now_ms - (behind_ms - self._least_behind_ms)))
        if len(notes) > NOTES_MAX:  # a copy that is far behind looks a little older for it
            self._notes = deque(list(notes)[1::2])

    def age_ms(self, applied_index: int) -> int | None:
        """How old a copy is, at most, that has applied so much; None if that is unknown."""
        notes = self._notes
        while notes and notes[0].commit <= applied_index:
            moment_ms = notes.popleft().moment_ms
            self._reached_ms = max(moment_ms, self._reached_ms or moment_ms)
        return None if self._reached_ms is None else max(self._clock.monotonic_ms() - self._reached_ms, 0)

"""A circuit breaker: after some failed calls in a row, the next ones fail at once and do not wait for a node that is not well.

Sans-IO, as ``routing.py``: its callers tell it the time. It is closed while calls succeed. When :data:`FAILURES_MAX` calls in a
row have ended without an answer, it is open for about a second: calls fail at once. Then one call is let through to look; if
that one gets an answer the breaker is closed, and otherwise it stays open for twice as long, up to :data:`OPEN_S_MOST`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from django_keyspace.exceptions import (
    KeyspaceError,
    NoConnection,
    Overloaded,
    ProtocolError,
    TransportError,
    UnknownOutcome,
)

FAILURES_MAX: Final = 5
OPEN_S_LEAST: Final = 1.0
OPEN_S_MOST: Final = 8.0


class Breaker:
    """The breaker of one engine in one process. Threads may share it: at worst, a call more is let through.

    Arguments:
        jitter: gives a random number from 0 to 1, so that processes do not all look at the same moment.
        failures_max: how many calls in a row open it.
        open_s_least: for how long it opens first.
        open_s_most: for how long at most.

    Attributes:
        failures: calls in a row that got no answer; 0 while all is well.
    """

    __slots__ = (
        "_failures_max",
        "_is_looking",
        "_jitter",
        "_last",
        "_open_s",
        "_open_s_least",
        "_open_s_most",
        "_open_until_s",
        "failures",
    )

    def __init__(
        self,
        jitter: Callable[[], float] = random.random,
        *,
        failures_max: int = FAILURES_MAX,
        open_s_least: float = OPEN_S_LEAST,
        open_s_most: float = OPEN_S_MOST,
    ) -> None:
        self.failures = 0
        self._jitter = jitter
        self._failures_max = failures_max
        self._open_s = self._open_s_least = open_s_least
        self._open_s_most = open_s_most
        self._open_until_s = 0.0
        self._is_looking = False
        self._last: KeyspaceError | None = None

    def check(self, now_s: float) -> None:
        """Let a call through, or raise :class:`NoConnection` at once.

        Arguments:
            now_s: the caller's monotonic clock.
        """
        if not self.lets_through(now_s):
            raise NoConnection(
                f"The last {self.failures} calls got no answer, so this one was not tried; one will be in "
                f"{self._open_until_s - now_s:.1f} s. Nothing was changed. The last error: {self._last}"
            )

    def lets_through(self, now_s: float) -> bool:
        """Whether a call may be made. One that is let through although the breaker was open has to be made: it looks."""
        if self.failures < self._failures_max:
            return True
        if now_s < self._open_until_s:
            return False
        # This call looks; others go on failing at once until it is back, or until this time is over again.
        self._is_looking = True
        self._open_until_s = now_s + self._open_s
        return True

    def failed(self, error: KeyspaceError, now_s: float) -> None:
        """Note how a call ended. Only the lack of an answer counts: a node that refuses is there."""
        if not isinstance(error, TransportError | UnknownOutcome) or isinstance(error, Overloaded | ProtocolError):
            self.succeeded()
            return
        self.failures += 1
        self._last = error
        if self._is_looking:
            self._open_s = min(self._open_s * 2, self._open_s_most)
        elif self.failures < self._failures_max or now_s < self._open_until_s:
            return  # not yet open, or one of the calls that were under way when it opened
        self._is_looking = False
        self._open_until_s = now_s + self._open_s * (0.75 + self._jitter() / 2)

    def succeeded(self) -> None:
        """Note that a node has answered."""
        self.failures = 0
        self._open_s, self._open_until_s = self._open_s_least, 0.0
        self._is_looking = False
        self._last = None

"""A clock that drifts and jumps, over the simulator's own time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

KINDS = ("drift", "wall_jump")


class SimClock:
    """The clock of one simulated node: see :class:`django_keyspace.node.clock.NodeClock`.

    Arguments:
        random: decides drift and offsets.
        now_us: the simulator's true time, in microseconds.
        drift_max: the monotonic clock runs faster or slower than true time by at most this share.
        wall_offset_ms: the wall clock's error at the beginning.

    Attributes:
        counts: how often each kind of fault was fired.
    """

    def __init__(
        self, random: Random, now_us: Callable[[], int], drift_max: float = 0.0, wall_offset_ms: int = 0
    ) -> None:
        self._random = random
        self._now_us = now_us
        self._drift_max = drift_max
        self._wall_base_ms = 1_700_000_000_000 + wall_offset_ms
        self._monotonic_base_us = random.randint(0, 10**12)
        self._since_us = now_us()
        self._speed = 1.0
        self.counts: Counter[str] = Counter()

    def monotonic_ms(self) -> int:
        return int(self._monotonic_base_us + (self._now_us() - self._since_us) * self._speed) // 1000

    def wall_ms(self) -> int:
        return self._wall_base_ms + self._now_us() // 1000

    def true_us(self, milliseconds: int) -> int:
        """How long it takes in true time until so many milliseconds have passed on the monotonic clock."""
        return int(milliseconds * 1000 / self._speed) + 1

    def drift(self) -> None:
        """Take another speed from now on."""
        now_us = self._now_us()
        self._monotonic_base_us += int((now_us - self._since_us) * self._speed)
        self._since_us = now_us
        self._speed = 1.0 + self._random.uniform(-self._drift_max, self._drift_max)
        self.counts["drift"] += 1

    def jump(self, milliseconds: int) -> None:
        """Set the wall clock forward, or back."""
        self._wall_base_ms += milliseconds
        self.counts["wall_jump"] += 1

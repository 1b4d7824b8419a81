"""The world of a simulation: one heap of events in virtual time, and one integer from which all chance comes.

Nothing else decides what happens. Sources of randomness are made from the seed by name, so that one more draw in one place
does not change all others; there is no other clock, no thread, and nothing depends on the order of a hash.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any
from zlib import crc32

from tests.sim.disk import PowerCut

EVENTS_MAX = 400_000


class Violated(BaseException):
    """Something that the cluster promises does not hold. Not an Exception: nothing that is tested handles it."""


class Event:
    """Something that will happen.

    Attributes:
        life: the process that it happens in; None for the world outside of all nodes.
        function, arguments: what is called; None once it is cancelled.
    """

    __slots__ = ("arguments", "function", "life")

    def __init__(self, life: Life | None, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.life = life
        self.function: Callable[..., Any] | None = function
        self.arguments = arguments

    def cancel(self) -> None:
        """Have it not happen."""
        self.function = None


class Life:
    """One process of a node, from its start to its end. Its events end with it, and wait while it is stopped.

    Arguments:
        name: of the node.
        on_power_cut: called when the power goes out in the middle of one of its operations on a disk.
    """

    __slots__ = ("dead", "deferred", "name", "on_power_cut", "paused")

    def __init__(self, name: str, on_power_cut: Callable[[], None]) -> None:
        self.name = name
        self.on_power_cut = on_power_cut
        self.dead = False
        self.paused = False
        self.deferred: list[Event] = []


class World:
    """Time, chance, and what was seen.

    Arguments:
        seed: decides everything.
        say: takes lines of a readable trace; None for none.

    Attributes:
        now_us: the true time, in microseconds since the beginning.
        counts: how often which fault, and which other thing worth counting, happened.
        digest: stands for everything that has happened so far.
        events: how many things have happened.
    """

    def __init__(self, seed: int, say: Callable[[str], None] | None = None) -> None:
        self.seed = seed
        self.now_us = 0
        self.counts: Counter[str] = Counter()
        self.digest = 0
        self.events = 0
        self._say = say
        self._heap: list[tuple[int, int, Event]] = []
        self._serial = 0

    def random(self, name: str) -> Random:
        """A source of chance of its own."""
        return Random(f"{self.seed}/{name}")

    @property
    def is_traced(self) -> bool:
        """Whether anybody reads the trace; what is costly to put into words need not be, otherwise."""
        return self._say is not None

    def note(self, who: str, what: str) -> None:
        """Something happened that a reader wants to know. It becomes a part of the digest."""
        self.digest = crc32(f"{self.now_us} {who} {what}".encode(), self.digest)
        if self._say is not None:
            self._say(f"{self.now_us / 1e6:11.6f}  {who:<14} {what}")

    def tell(self, who: str, what: str) -> None:
        """As :meth:`note`, for what follows from other things and is told only if somebody reads it."""
        if self._say is not None:
            self._say(f"{self.now_us / 1e6:11.6f}  {who:<14} {what}")

    def taste(self, data: bytes) -> None:
        """Have bytes be a part of the digest."""
        self.digest = crc32(data, self.digest)

    def at(self, delay_us: int, life: Life | None, function: Callable[..., Any], *arguments: Any) -> Event:
        """Have something happen after so many microseconds; things of the same moment happen in the order of the calls."""
        event = Event(life, function, arguments)
        self._serial += 1
        heappush(self._heap, (self.now_us + max(delay_us, 0), self._serial, event))
        return event

    def run_until(self, end_us: int) -> None:
        """Let things happen until that time."""
        heap = self._heap
        while heap and heap[0][0] <= end_us:
            moment, _, event = heappop(heap)
            self.now_us = moment
            self._happen(event)
        self.now_us = max(self.now_us, end_us)

    def wake(self, life: Life, sort: Callable[[list[Event]], list[Event]]) -> None:
        """A stopped process goes on: what waited for it happens now.

        Arguments:
            sort: takes what waited, and gives what happens of it, in order.
        """
        life.paused = False
        events, life.deferred = life.deferred, []
        for event in sort(events):
            self._serial += 1
            heappush(self._heap, (self.now_us, self._serial, event))

    def _happen(self, event: Event) -> None:
        function, life = event.function, event.life
        if function is None:
            return
        if life is not None:
            if life.dead:
                return
            if life.paused:
                life.deferred.append(event)
                return
        self.events += 1
        if self.events > EVENTS_MAX:
            raise Violated(f"More than {EVENTS_MAX:,} events: something goes round and round.")
        self.digest = crc32(b"%d" % self.now_us, self.digest)
        try:
            function(*event.arguments)
        except PowerCut:
            if life is None:
                raise
            life.on_power_cut()

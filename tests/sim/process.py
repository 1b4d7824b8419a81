"""What the runtime is given in place of an event loop, threads and a disk thread: events of the world's heap."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from django_keyspace.exceptions import KeyspaceError
from django_keyspace.node.journal import Batch, Journal, JournalWriter
from tests.sim.clock import SimClock
from tests.sim.disk import PowerCut, SimDisk
from tests.sim.world import Event, Life, World

TURN_US = 1
"""From a call_soon to the call. Always the same, so that calls come in order, as those of an event loop do."""
HANDOVER_US = 5


class SimScheduler:
    """The turns of a node's loop, and its threads: see ``interfaces.Scheduler``. Its timers run by the node's own clock.

    Arguments:
        world: time and chance.
        life: the process.
        clock: the node's.
        delay_us: called for each work in a thread with the thread's name: how long it takes.
    """

    def __init__(self, world: World, life: Life, clock: SimClock, delay_us: Callable[[str], int]) -> None:
        self._world = world
        self._life = life
        self._clock = clock
        self._delay_us = delay_us
        self._free_at_us: dict[str, int] = {}
        self._random = world.random(f"scheduler/{life.name}")

    def call_soon(self, function: Callable[..., None], *arguments: Any) -> None:
        self._world.at(TURN_US, self._life, function, *arguments)

    def call_later(self, delay_ms: int, function: Callable[..., None], *arguments: Any) -> Event:
        late_us = int(self._random.random() ** 4 * 2_000)
        return self._world.at(self._clock.true_us(delay_ms) + late_us, self._life, function, *arguments)

    def call_threadsafe(self, function: Callable[..., None], *arguments: Any) -> None:
        self._world.at(HANDOVER_US, self._life, function, *arguments)

    def in_thread(self, name: str, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        begin_us = max(self._world.now_us, self._free_at_us.get(name, 0))
        end_us = begin_us + self._delay_us(name)
        self._free_at_us[name] = end_us
        self._world.at(end_us - self._world.now_us, self._life, self._work, work, done)

    def _work(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        try:
            result = work()
        except Exception as error:
            result = error
        self._world.at(HANDOVER_US, self._life, done, result)


class SimWriter(JournalWriter):
    """The disk thread, as events: its groups and its ways with trouble are those of :class:`JournalWriter`.

    Arguments:
        journal, give_up: as there.
        world: time.
        life: the process.
        clock: for ``busy_since_s``.
        disk: where the journal lies.
        delay_us: how long the next write takes.
    """

    def __init__(
        self,
        journal: Journal,
        give_up: Callable[[KeyspaceError], None],
        *,
        world: World,
        life: Life,
        clock: SimClock,
        disk: SimDisk,
        delay_us: Callable[[], int],
    ) -> None:
        # Not the parent's: that one starts the thread.
        self._journal = journal
        self._give_up = give_up
        self._jobs = SimpleQueue()
        self._failure: KeyspaceError | None = None
        self.busy_since_s: float | None = None
        self._world = world
        self._life = life
        self._clock = clock
        self._disk = disk
        self._delay_us = delay_us
        self._next: Any = None
        self._group: list[Any] = []

    def submit(self, batch: Batch, done: Callable[[KeyspaceError | None], None]) -> None:
        super().submit(batch, done)
        self._begin()

    def call(self, work: Callable[[], None], done: Callable[[KeyspaceError | None], None]) -> None:
        super().call(work, done)
        self._begin()

    def stop(self) -> None:
        while self.busy_since_s is not None:
            self._do()

    def cut_short(self, operations: int) -> None:
        """The process ends now: of the write that is under way, only so many more operations reach the system."""
        group, self._group = self._group, []
        batches = [job.batch for job in group if job.batch is not None]
        self._disk.cut_power_after(operations)
        try:
            if batches:
                self._journal.append(batches)
            elif group:
                group[0].work()
        except (PowerCut, KeyspaceError):
            pass

    @property
    def is_writing(self) -> bool:
        """Whether a write is under way."""
        return bool(self._group)

    def _begin(self) -> None:
        """Take up what is waiting, if nothing is under way."""
        if self.busy_since_s is None and (self._next is not None or not self._jobs.empty()):
            self.busy_since_s = self._clock.monotonic_ms() / 1000
            self._world.at(HANDOVER_US, self._life, self._take)

    def _take(self) -> None:
        job, self._next = self._next or self._jobs.get_nowait(), None
        if job.batch is None:
            self._group = [job]
        else:
            self._group, self._next, _ = self._gather(job)
        self._world.at(self._delay_us(), self._life, self._finish, self._group)

    def _finish(self, group: list[Any]) -> None:
        if group is self._group:
            self._do()

    def _do(self) -> None:
        if not self._group:
            self._take()
        group = self._group
        if group[0].batch is None:
            self._work(group[0])
        else:
            self._write(group)
        self._group = []
        self.busy_since_s = None
        self._begin()

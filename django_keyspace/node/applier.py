"""From committed entries to results: in order, small groups on the loop's thread, large ones beside it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from django_keyspace.exceptions import NoSpace
from django_keyspace.node.entries import LoggedCalls, logged_calls
from django_keyspace.node.interfaces import Scheduler
from django_keyspace.node.raft import Entry
from django_keyspace.node.settings import RuntimeSettings

THREAD = "applier"
RETRY_MS = 500
LATER_MS = 5
"""How long entries wait at most that nobody waits for. Those of that time are applied in one transaction."""
GROUP_ENTRIES_MAX = 256
GROUP_BYTES_MAX = 4 * 1024 * 1024

Applied = Callable[[Sequence[Entry], list[list[Any]]], None]


class Applies(Protocol):
    """What the applier needs of the state machine."""

    def apply(self, entries: Sequence[LoggedCalls]) -> list[list[Any]]:
        """Apply consecutive entries in one transaction. Returns: for each, the results of its operations."""


class Applier:
    """The queue of entries before the state machine.

    Arguments:
        machine: the state machine.
        scheduler: the node's loop and threads.
        settings: what may be applied on the loop's thread.
        applied: told of each group of entries that was applied, with their results, on the loop's thread.
        failed: told of what must not happen; the node stops.
        full: told when the disk has no room for what has to be applied (True), and when it has again (False).
    """

    def __init__(
        self,
        machine: Applies,
        scheduler: Scheduler,
        settings: RuntimeSettings,
        applied: Applied,
        failed: Callable[[BaseException], None],
        full: Callable[[bool], None],
    ) -> None:
        self._machine = machine
        self._scheduler = scheduler
        self._here_bytes_max = settings.apply_here_bytes_max
        self._applied = applied
        self._failed = failed
        self._full = full
        self._queue: deque[Entry] = deque()
        self._is_busy = False
        self._was_full = False
        self._is_later = False
        self._life = 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being applied or waits for it."""
        return not self._is_busy and not self._queue

    @property
    def is_busy(self) -> bool:
        """Whether another thread is applying something."""
        return self._is_busy

    def put(self, entries: Sequence[Entry], *, at_once: bool = True) -> None:
        """Queue committed entries, and apply what can be applied.

        Arguments:
            entries: those that follow the last ones.
            at_once: False if there is something more urgent than these: they are applied soon, with what comes until then.
        """
        self._queue.extend(entries)
        if at_once or len(self._queue) >= GROUP_ENTRIES_MAX:
            self.hurry()
        elif not self._is_later:
            self._is_later = True
            self._scheduler.call_later(LATER_MS, self._later)

    def hurry(self) -> None:
        """Apply what can be applied now."""
        if not self._is_busy:
            self._go_on()

    def _later(self) -> None:
        self._is_later = False
        self.hurry()

    def drop(self) -> None:
        """Forget what waits: a snapshot takes its place. What another thread is applying is finished."""
        self._queue.clear()
        self._life += 1

    def _go_on(self) -> None:
        while self._queue and not self._is_busy:
            group, size_bytes = self._take()
            try:
                logged = [logged_calls(entry) for entry in group]
            except Exception as error:
                self._failed(error)
                return
            if size_bytes <= self._here_bytes_max:
                try:
                    results = self._machine.apply(logged)
                except Exception as error:
                    self._not_applied(group, error)
                    return
                self._done(group, results)
            else:
                self._apply_beside(group, logged)

    def _take(self) -> tuple[list[Entry], int]:
        """The next entries to apply in one transaction, and their bytes: small ones together, so that a large one waits alone."""
        queue = self._queue
        group = [queue.popleft()]
        size_bytes = group[0].size_bytes
        most = self._here_bytes_max if size_bytes <= self._here_bytes_max else GROUP_BYTES_MAX
        while queue and len(group) < GROUP_ENTRIES_MAX and size_bytes + queue[0].size_bytes <= most:
            group.append(queue.popleft())
            size_bytes += group[-1].size_bytes
        return group, size_bytes

    def _apply_beside(self, group: list[Entry], logged: list[LoggedCalls]) -> None:
        self._is_busy = True
        life = self._life

        def done(results: list[list[Any]] | Exception) -> None:
            self._is_busy = False
            if isinstance(results, Exception):
                self._not_applied(group if life == self._life else [], results)
                return
            if life == self._life:
                self._done(group, results)
            self._go_on()

        self._scheduler.in_thread(THREAD, lambda: self._machine.apply(logged), done)

    def _done(self, group: Sequence[Entry], results: list[list[Any]]) -> None:
        if self._was_full:
            self._was_full = False
            self._full(False)
        self._applied(group, results)

    def _not_applied(self, group: list[Entry], error: Exception) -> None:
        """A full disk holds everything up until there is room. Nothing is ever skipped: anything else ends the node."""
        if not isinstance(error, NoSpace):
            self._failed(error)
            return
        self._queue.extendleft(reversed(group))
        self._is_busy = True
        if not self._was_full:
            self._was_full = True
            self._full(True)
        self._scheduler.call_later(RETRY_MS, self._retry)

    def _retry(self) -> None:
        self._is_busy = False
        self._go_on()

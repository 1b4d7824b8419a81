"""What a replicated node looks after once in a while: what is due by the log clock, snapshots, room on the disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from django_keyspace.node.clock import LogClock, NodeClock
from django_keyspace.node.log import Done
from django_keyspace.node.machine import Machine
from django_keyspace.node.snapshot_keeper import SnapshotKeeper
from django_keyspace.operations import Call


class Core(Protocol):
    """What upkeep needs of the runtime."""

    is_full: bool

    @property
    def may_log(self) -> bool:
        """Whether this node leads and takes writes, and no script writes alone."""

    def has_room_again(self) -> None:
        """Look whether the disk has room again, if it had none."""

    def propose_held(self, calls: Sequence[Call], size_bytes: int, done: Done) -> None:
        """Log operations of the node's own."""


class Upkeep:
    """The looking after of one node.

    Arguments:
        core: the runtime.
        machine, keeper, clock, log_clock: parts of the node.
        every_ms: the time between two looks.
    """

    def __init__(
        self,
        core: Core,
        machine: Machine,
        keeper: SnapshotKeeper,
        clock: NodeClock,
        log_clock: LogClock,
        every_ms: int,
    ) -> None:
        self._core = core
        self._machine = machine
        self._keeper = keeper
        self._clock = clock
        self._log_clock = log_clock
        self._every_ms = every_ms
        self._next_ms = clock.monotonic_ms() + every_ms
        self._is_logging = False

    def look(self) -> None:
        """Look, if it is time again. What the leader finds due, it logs: nobody deletes by his own clock (rules 25, 30)."""
        now_ms = self._clock.monotonic_ms()
        if now_ms < self._next_ms:
            return
        self._next_ms = now_ms + self._every_ms
        if self._core.is_full:
            self._core.has_room_again()
        self._keeper.look()
        if self._core.may_log and not self._is_logging:
            calls = self._machine.due(self._log_clock.now_ms())
            if calls:
                self._is_logging = True
                self._core.propose_held(calls, 0, self._logged)

    def _logged(self, results: list[Any]) -> None:
        self._is_logging = False

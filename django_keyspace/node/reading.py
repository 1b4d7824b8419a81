"""The reads of a replicated node: what each level promises, and from what it is answered.

=========  ===========================================================================================================
safe       the leader, after a majority has confirmed that it still leads; everything that was acknowledged is seen
lease      the same without asking, as long as the promise of a majority lasts that elects nobody else
session    any node that has applied what the session has seen
dirty      any node, as old as its copy may be
=========  ===========================================================================================================
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from django_keyspace.exceptions import KeyspaceError, NotLeader, TooStale
from django_keyspace.node import raft as consensus
from django_keyspace.node.clock import LogClock, NodeClock
from django_keyspace.node.freshness import Freshness
from django_keyspace.node.interfaces import Scheduler
from django_keyspace.node.log import Ready, View
from django_keyspace.node.settings import RuntimeSettings
from django_keyspace.node.waiting import Batch, Readable, StoreView, WaitingReads

SAFE: Final = "safe"
LEASE: Final = "lease"
UNKNOWN_AGE_MS: Final = 2**53
"""The age of a copy of which nobody knows it: larger than any that somebody would allow."""


class Leading(Protocol):
    """What reads need of the runtime."""

    name: str
    raft: consensus.Raft

    @property
    def can_read(self) -> bool:
        """Whether the store is at a place in the log that this node may show."""

    def not_leader(self) -> NotLeader:
        """The error that says who leads."""

    def public(self, error: Exception) -> KeyspaceError:
        """What the core refused, in the words of the package."""

    def members(self) -> dict[str, Any]:
        """The members, as the operation ``members`` answers it."""

    def pass_time(self) -> None:
        """Tell the core the time that has passed."""

    def hurry(self) -> None:
        """Apply what is known to be committed."""

    def flush_soon(self) -> None:
        """Call :meth:`NodeReads.ask` in the next turn of the loop."""

    def answered(self, count: int, *, now: bool = False) -> None:
        """So many calls were answered; with ``now``, outside of anything that tells others so."""


class NodeReads:
    """One node's reads: see :class:`~django_keyspace.node.log.Reads`.

    Arguments:
        core: the runtime.
        machine, clock, log_clock, scheduler, settings: parts of the node.
    """

    def __init__(
        self,
        core: Leading,
        machine: Readable,
        clock: NodeClock,
        log_clock: LogClock,
        scheduler: Scheduler,
        settings: RuntimeSettings,
    ) -> None:
        self._core = core
        self._machine = machine
        self._log_clock = log_clock
        self._scheduler = scheduler
        self._settings = settings
        self._waiting = WaitingReads(self._answer, self._refuse)
        self._gathering: dict[bool, Batch] = {}
        self._floor_ms = 0
        self._freshness = Freshness(clock)

    # --- Asked by those who serve -------------------------------------------------------------------------------------

    @property
    def applied_index(self) -> int:
        """The last entry that this node has applied."""
        return self._machine.applied_index

    def members(self) -> dict[str, Any]:
        """The members, as the operation ``members`` answers it."""
        return self._core.members()

    def at_once(self, level: str, min_index: int = 0, max_staleness_ms: int | None = None) -> View | None:
        """See :meth:`Reads.at_once`."""
        if level == SAFE or not self._core.can_read:
            return None
        if level == LEASE:
            return self._leased_view()
        self._core.hurry()
        age_ms = self.age_ms
        if min_index > self._machine.applied_index or _is_older(age_ms, max_staleness_ms):
            return None
        return self._view(self._log_clock.now_ms(), age_ms)

    def _leased_view(self) -> StoreView | None:
        """The view of a read by lease, if the lease holds now and the store has all that is committed."""
        self._core.pass_time()  # first: this process may have slept through the end of its lease
        lease = self._core.raft.lease
        if lease is None or lease.index > self._machine.applied_index:
            return None
        if lease.log_time_ms > self._floor_ms:  # otherwise the clock would change nothing
            return self._confirmed_view(self._log_clock.now_ms(), lease.log_time_ms)
        return self._view(self._floor_ms, 0)

    def read(self, level: str, ready: Ready, min_index: int = 0, max_staleness_ms: int | None = None) -> None:
        """See :meth:`Reads.read`. Errors go to ``ready``, too."""
        core = self._core
        if not core.can_read:
            ready(self._catching_up())
        elif (view := self.at_once(level, min_index, max_staleness_ms)) is not None:
            ready(view)
        elif level in (SAFE, LEASE):
            self._gather(level == LEASE, ready)
        elif _is_older(age_ms := self.age_ms, max_staleness_ms):
            age = "is of unknown age" if age_ms is None else f"was last known to be current {age_ms:,} ms ago"
            ready(
                TooStale(
                    f"The copy of node {core.name} {age}, and the read allows {max_staleness_ms:,} ms. Ask another node."
                )
            )
        else:
            self._wait_for(min_index, ready)

    def _gather(self, is_lease: bool, ready: Ready) -> None:
        """Let a read wait for a majority, together with those that come in this turn of the loop."""
        if self._core.raft.role is not consensus.Role.LEADER:
            ready(self._core.not_leader())
            return
        batch = self._gathering.get(is_lease)
        if batch is None:
            batch = self._gathering[is_lease] = Batch(self._log_clock.now_ms(), [])
            self._core.flush_soon()
        batch.ready.append(ready)

    def _wait_for(self, min_index: int, ready: Ready) -> None:
        """A session has seen more than this node has: it waits a moment for that."""
        waiting = [ready]

        def answer(view: View | KeyspaceError) -> None:
            waiting.pop()(view)

        def give_up() -> None:
            if waiting:
                answer(TooStale(f"Node {self._core.name} has not applied entry {min_index} yet. Ask the leader."))
                self._waiting.give_up(batch)
                self._core.answered(1, now=True)

        batch = Batch(0, [answer], is_confirmed=False)
        self._waiting.wait_for(min_index, batch)
        self._scheduler.call_later(self._settings.session_wait_ms, give_up)

    @property
    def age_ms(self) -> int | None:
        """How long ago, at most, this node's copy was known to be current; None if that is unknown."""
        raft = self._core.raft
        if raft.role is consensus.Role.LEADER:
            return raft.quorum_contact_ticks * self._settings.tick_ms
        return self._freshness.age_ms(self._machine.applied_index)

    @property
    def is_awaited(self) -> bool:
        """Whether reads wait for something to be applied."""
        return bool(self._waiting)

    # --- Told by the runtime ------------------------------------------------------------------------------------------

    def heard_leader(self, leader_commit: int, log_time_ms: int) -> None:
        """A leader has said that it leads, and how much may have been acknowledged by then."""
        self._freshness.heard(leader_commit, log_time_ms)

    def ask(self) -> None:
        """Have a majority confirm that this node leads, once for all reads that have come together."""
        if not self._gathering:
            return
        raft = self._core.raft
        gathering, self._gathering = self._gathering, {}
        for is_lease, batch in gathering.items():
            if not is_lease:
                raft.raise_log_time(batch.came_ms)  # the round that confirms the reads carries it
            try:
                self._waiting.ask(raft.read_index(lease=is_lease), batch)
            except consensus.Refused as error:
                self._refuse(batch, self._core.public(error))

    def take(self, ready: consensus.Ready) -> None:
        """Take what the core says about reads."""
        for read in ready.reads:
            self._waiting.confirmed(read.read_id, read.index)
        for read_id in ready.refused_reads:
            self._waiting.refuse(read_id, self._core.not_leader())
        self._waiting.applied(self._machine.applied_index)

    def applied(self, index: int) -> None:
        """The store has applied everything up to that index."""
        self._waiting.applied(index)

    def leadership_ended(self, error: KeyspaceError) -> None:
        """No majority will confirm what waits for it."""
        gathering, self._gathering = self._gathering, {}
        for batch in gathering.values():
            self._refuse(batch, error)
        self._waiting.refuse_unconfirmed(error)

    def refuse_all(self, error: KeyspaceError | None = None) -> None:
        """The store is being replaced, or the node stops."""
        error = error or self._catching_up()
        self.leadership_ended(error)
        self._waiting.refuse_all(error)

    # --- Inside -------------------------------------------------------------------------------------------------------

    def _answer(self, batch: Batch) -> None:
        """Answer reads from the store as it is now."""
        if batch.is_confirmed:
            view = self._confirmed_view(batch.came_ms, self._core.raft.confirmed_log_time_ms)
        else:
            view = self._view(self._log_clock.now_ms(), self.age_ms)
        self._core.answered(len(batch.ready))
        for ready in batch.ready:
            ready(view)

    def _confirmed_view(self, came_ms: int, majority_ms: int) -> StoreView:
        """The store for reads that came at a log time and see everything that was acknowledged before.

        By which time? What one safe read saw expire must not come back, under the next leader either, which begins from the
        latest time that a majority has heard of. So a safe read takes the time when it came, which its own round has told a
        majority; a lease read, which has no round, the latest time that some round has.
        """
        self._floor_ms = max(self._floor_ms, min(came_ms, majority_ms))
        return self._view(self._floor_ms, 0)

    def _refuse(self, batch: Batch, error: KeyspaceError) -> None:
        self._core.answered(len(batch.ready))
        for ready in batch.ready:
            ready(error)

    def _view(self, now_ms: int, age_ms: int | None) -> StoreView:
        now_ms = max(now_ms, self._machine.log_ms)
        return StoreView(self._machine, now_ms, UNKNOWN_AGE_MS if age_ms is None else age_ms, self._core.name)

    def _catching_up(self) -> TooStale:
        return TooStale(f"Node {self._core.name} is catching up with its cluster. Ask another node.")


def _is_older(age_ms: int | None, max_staleness_ms: int | None) -> bool:
    """Whether a copy of that age is older than a read allows."""
    return max_staleness_ms is not None and (age_ms is None or age_ms > max_staleness_ms)

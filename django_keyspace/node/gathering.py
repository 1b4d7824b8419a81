"""When to make an entry of what waits: at once, or in a moment, together with more.

An entry costs a node, and every follower, about as much as ten writes in it: a message to each, a sync on each. Callers who wait
for their answers come back together, a moment after they were answered together; an entry for whoever is first would leave the
others to the next one, and so on. So as many are waited for as came the last time, or a millisecond. Who is alone never waits.
(PostgreSQL's ``commit_siblings`` and ``commit_delay`` are of the same kind, with numbers that somebody has to set.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from django_keyspace.node.interfaces import Handle, Scheduler
from django_keyspace.node.proposals import Proposals

COME_BACK_MS: Final = 1
"""How long those are waited for who were answered together."""
UNDER_WAY_MS: Final = 2
"""How long an entry that is under way is waited for, whose end says more."""
ENOUGH_BYTES: Final = 64 * 1024
"""So much waits for nothing: its bytes cost more than the entry around them."""


class Gathering:
    """Tells when it is time.

    Arguments:
        proposals: what waits, and what is under way.
        scheduler: the node's loop.
        flush: have the runtime look again.
    """

    def __init__(self, proposals: Proposals, scheduler: Scheduler, flush: Callable[[], None]) -> None:
        self._proposals = proposals
        self._scheduler = scheduler
        self._flush = flush
        self._timer: Handle | None = None
        self._is_over = False

    def is_due(self) -> bool:
        """Whether to make an entry of what waits now. If not, the runtime is told when to look again."""
        proposals = self._proposals
        if (
            self._is_over
            or (not proposals.entries and proposals.waiting >= proposals.came_together)
            or proposals.waiting_bytes >= ENOUGH_BYTES
        ):
            self._is_over = False
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return True
        if self._timer is None:
            wait_ms = UNDER_WAY_MS if proposals.entries else COME_BACK_MS
            self._timer = self._scheduler.call_later(wait_ms, self._end)
        return False

    def _end(self) -> None:
        self._timer = None
        if self._proposals.waiting:
            self._is_over = True
            self._flush()

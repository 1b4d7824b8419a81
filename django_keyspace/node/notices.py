"""When followers hear what is committed: with the next entry if there is one soon, else by a message of its own.

A message per commit to each follower would cost about as much as the entry itself, on both sides. Under load the next entry says
the same a moment later; when nothing follows, it is said after a few milliseconds, so that reads of followers stay fresh.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from django_keyspace.node.interfaces import Scheduler

NOTICE_MS: Final = 5


class CommitNotices:
    """Tells commits once nothing else does.

    Arguments:
        scheduler: the node's loop.
        is_busy: whether an entry is under way, so that others are likely to follow.
        flush: have the runtime look at what there is to do.
    """

    def __init__(self, scheduler: Scheduler, is_busy: Callable[[], bool], flush: Callable[[], None]) -> None:
        self._scheduler = scheduler
        self._is_busy = is_busy
        self._flush = flush
        self._is_waiting = False
        self._is_due = False

    def committed(self) -> None:
        """Something is committed."""
        if not self._is_waiting:
            self._is_waiting = True
            self._scheduler.call_later(NOTICE_MS, self._look)

    def _look(self) -> None:
        if self._is_busy():
            self._scheduler.call_later(NOTICE_MS, self._look)
        else:
            self._is_waiting = False
            self._is_due = True
            self._flush()

    def take(self) -> bool:
        """Whether it is time to tell."""
        is_due, self._is_due = self._is_due, False
        return is_due

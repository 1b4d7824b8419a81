"""What a read promises: the levels, what an answer is as of, and what a session has seen.

A ``safe`` read sees every write that was answered before it began. A ``lease`` read does so as long as clocks run at about the
same speed. A ``session`` read sees at least what this session has written and read. A ``dirty`` read sees what the node that
answers happens to have. An embedded store and a single node have one state, and every read of theirs is a safe one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from django_keyspace.backend.embedded import Engine
from django_keyspace.operations import CHANGES, OPERATIONS

_PLAIN: Final = frozenset({"at", "members", "status"})
_READS: Final = frozenset(OPERATIONS) - CHANGES - _PLAIN
"""Operations that have a level."""

CLUSTERS_MAX: Final = 16
"""A session remembers what it has seen of so many clusters."""


@dataclass(frozen=True, slots=True)
class LastRead:
    """Where the answer of a read came from, and what it is as of.

    Attributes:
        node: name of the node that answered; empty for a store in this process.
        index: how much of the log the answer takes into account: the revision of the latest write that it can show.
        age_ms: 0 if nothing newer was acknowledged when the read began; otherwise, how long ago, at most, the copy that
            answered was current.
    """

    node: str
    index: int
    age_ms: int


ReadNote = tuple[str, int, int]
"""The fields of a :class:`LastRead`, which is made of them when somebody asks."""


class Seen:
    """What a session has seen: the highest index of each cluster. Threads and tasks may share it."""

    __slots__ = ("_indexes", "_lock")

    def __init__(self, indexes: Mapping[str, int] | None = None) -> None:
        self._indexes = dict(indexes or {})
        self._lock = threading.Lock()

    def note(self, cluster: str, index: int) -> None:
        """The session has written, or has read, what stands at this index."""
        if index > self._indexes.get(cluster, 0):
            with self._lock:
                if index > self._indexes.get(cluster, 0):
                    if cluster not in self._indexes and len(self._indexes) >= CLUSTERS_MAX:
                        del self._indexes[next(iter(self._indexes))]
                    self._indexes[cluster] = index

    def index(self, cluster: str) -> int:
        """What a session read has to see of a cluster; 0: nothing yet."""
        return self._indexes.get(cluster, 0)

    def as_dict(self) -> dict[str, int]:
        """The index of each cluster."""
        with self._lock:
            return dict(self._indexes)

    def after_fork(self) -> None:
        """In a forked child: a thread of the parent may hold the lock."""
        self._lock = threading.Lock()


process = Seen()
"""What this process has seen."""
_current: ContextVar[Seen | None] = ContextVar("django_keyspace_session", default=None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=process.after_fork)


def note_seen(cluster: str, index: int) -> None:
    """A write or a read of this context has an index."""
    process.note(cluster, index)
    current = _current.get()
    if current is not None:
        current.note(cluster, index)


def seen_index(cluster: str) -> int:
    """What a session read of this context has to see: what its session has, or else what the whole process has."""
    current = _current.get()
    return (process if current is None else current).index(cluster)


def current_session() -> Seen | None:
    """The session of this context; None: the process is it."""
    return _current.get()


@contextmanager
def session(indexes: Mapping[str, int] | None = None) -> Iterator[Seen]:
    """Let the block, and whatever tasks and threads it starts, be a session of its own.

    Arguments:
        indexes: what the session has seen before, by cluster.
    Returns:
        What it has seen, as it grows.
    """
    seen = Seen(indexes)
    token = _current.set(seen)
    try:
        yield seen
    finally:
        _current.reset(token)


class LeveledEngine:
    """An engine whose reads have another level than ``safe``.

    Arguments:
        engine: carries everything out.
        level: a word of ``operations.LEVELS``.
        max_staleness_ms: for session and dirty reads: how old an answer may be; None: of any age.
        note: takes the :data:`ReadNote` of each read.
    """

    reads_inline = False

    def __init__(
        self, engine: Engine, level: str, max_staleness_ms: int | None, note: Callable[[ReadNote], Any]
    ) -> None:
        self.engine = engine
        self._level = level
        self._max_staleness_ms = max_staleness_ms
        self._note = note
        self.read: Callable[..., Any] = self.execute
        self.write = self.execute
        self.close = engine.close

    def execute(self, name: str, *arguments: Any) -> Any:
        """Do an operation: a read at this engine's level, anything else as it is."""
        if name not in _READS:
            return self.engine.execute(name, *arguments)
        call = (name, *arguments)
        answer, index, age_ms, node = self.engine.execute("at", self._level, 0, self._max_staleness_ms, call)
        self._note((node, index, age_ms))
        return answer

    async def aexecute(self, name: str, *arguments: Any) -> Any:
        """The same as :meth:`execute`, without blocking the event loop."""
        if name not in _READS:
            return await self.engine.aexecute(name, *arguments)
        call = (name, *arguments)
        answer, index, age_ms, node = await self.engine.aexecute("at", self._level, 0, self._max_staleness_ms, call)
        self._note((node, index, age_ms))
        return answer

"""The engines of an alias with the option ``replica``: what may be read beside a node of this host is, all else goes as ever.

Dirty and session reads may, beside whichever node; safe and lease reads beside a node that runs alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import time_ns
from typing import Any, Final

from django_keyspace.backend.embedded import takes_long
from django_keyspace.backend.levels import LeveledEngine, ReadNote, current_session, note_seen, process, seen_index
from django_keyspace.backend.replica import Replica
from django_keyspace.backend.transport import RemoteEngine
from django_keyspace.exceptions import KeyspaceError, LocalError
from django_keyspace.operations import Call, check_call
from django_keyspace.store import clock
from django_keyspace.store.visitor import READABLE_HERE

SESSION: Final = "session"
LOCAL_LEVELS: Final = ("dirty", SESSION)
"""What may be read beside a member of a cluster."""
_SEARCHES: Final = frozenset({"match_regex", "match_similar"})
"""Reads with arguments of which a wrong one could do other harm than to find nothing."""
_Answer = tuple[Any, int, int, str]
_ELSEWHERE: Final = object()


class BesideEngine:
    """An engine that answers reads beside a node of this host where it can.

    Arguments:
        engine: the way to the node or the cluster, for everything else.
        replica: the node of this host.
    """

    reads_inline = False

    def __init__(self, engine: RemoteEngine, replica: Replica) -> None:
        self.engine = engine
        self.replica = replica
        self.write = engine.execute
        self.read = _safe_way(engine, replica, engine.execute)
        self._read_here = _safe_way(engine, replica, _leave)

    def execute(self, name: str, *arguments: Any) -> Any:
        """Do an operation. Raises :class:`KeyspaceError` only."""
        if name == "at":
            answer = self.answer(*arguments)
            if answer is not None:
                return answer
        elif self._is_read(name, arguments):
            return self.read(name, *arguments)
        return self.engine.execute(name, *arguments)

    async def aexecute(self, name: str, *arguments: Any) -> Any:
        """The same, for a coroutine: short reads are answered at once, longer ones in a thread."""
        if name == "at" or self._is_read(name, arguments):
            if takes_long(name, arguments) and self.replica.copy is not None:
                answer = await asyncio.to_thread(self._answer_here, name, arguments)
            else:
                answer = self._answer_here(name, arguments)
            if answer is not _ELSEWHERE:
                return answer
        return await self.engine.aexecute(name, *arguments)

    def _is_read(self, name: str, arguments: Sequence[Any]) -> bool:
        """Whether a plain operation, or each of a batch, is a read that means the same wherever it is done."""
        if name == "batch":
            return all(call[0] in READABLE_HERE for call in arguments[0])
        copy = self.replica.copy
        if name in _SEARCHES and copy is not None:
            try:
                check_call((name, *arguments), copy.store.limits)
            except KeyspaceError:
                return False  # the node says what is wrong with it
        return name in READABLE_HERE

    def _answer_here(self, name: str, arguments: Sequence[Any]) -> Any:
        if name != "at":
            return self._read_here(name, *arguments)
        answer = self.answer(*arguments)
        return _ELSEWHERE if answer is None else answer

    def answer(self, level: str, min_index: int, max_staleness_ms: int | None, call: Call) -> _Answer | None:
        """Do a read here, with the arguments of the operation ``at``. None: it has to go over the network."""
        replica = self.replica
        copy = replica.copy
        if call[0] not in READABLE_HERE or not _may_be_here(level, self.engine, replica):
            return None
        if copy is None:
            replica.missed()
            return None
        try:
            if level == SESSION and not copy.alone:
                min_index = max(min_index, seen_index(copy.cluster))
            found = copy.read(min_index, max_staleness_ms, call[0], call[1:])
        except LocalError:
            raise
        except Exception as error:
            replica.trouble(copy, error)
            return None
        if not copy.alone:
            note_seen(copy.cluster, found[1])
        replica.reads += 1
        return found

    def close(self) -> None:
        """Close connections that are not in use, and the store. The next call opens them again."""
        self.replica.close()
        self.engine.close()


class BesideLeveledEngine(LeveledEngine):
    """An engine whose reads with a level take a short way to a local copy.

    Arguments:
        engine: carries everything out.
        level, max_staleness_ms, note: see :class:`LeveledEngine`.
    """

    def __init__(
        self, engine: BesideEngine, level: str, max_staleness_ms: int | None, note: Callable[[ReadNote], Any]
    ) -> None:
        super().__init__(engine, level, max_staleness_ms, note)
        self._network = LeveledEngine(engine.engine, level, max_staleness_ms, note)
        self.read = _short_way(engine, level, max_staleness_ms, note, self._network.execute)
        self._read_here = _short_way(engine, level, max_staleness_ms, note, _leave)

    async def aexecute(self, name: str, *arguments: Any) -> Any:
        """See :meth:`LeveledEngine.aexecute`. A short read is answered in the loop."""
        if name not in READABLE_HERE or takes_long(name, arguments):
            return await super().aexecute(name, *arguments)
        result = self._read_here(name, *arguments)
        return await self._network.aexecute(name, *arguments) if result is _ELSEWHERE else result


def _leave(name: str, *arguments: Any) -> Any:
    return _ELSEWHERE


def _may_be_here(level: str, engine: RemoteEngine, replica: Replica) -> bool:
    """Whether the copy of this moment, or one that is still to be found, may answer a read of this level."""
    if level in LOCAL_LEVELS:
        return True
    copy = replica.copy
    return engine.cluster is None if copy is None else copy.alone


def _safe_way(engine: RemoteEngine, replica: Replica, elsewhere: Callable[..., Any]) -> Callable[..., Any]:
    """``LocalCopy.read_now`` with all that is around it, written out as ``KeyspaceCache.get`` is: a page calls it often.

    Arguments:
        elsewhere: does the call where there is no copy for it.
    """

    def read(name: str, *arguments: Any) -> Any:
        copy = replica.copy
        if copy is None or not copy.alone or name not in READABLE_HERE:
            if copy is None and engine.cluster is None:
                replica.missed()
            return elsewhere(name, *arguments)
        try:
            now_ms = time_ns() // 1_000_000
            if not copy.from_ms <= now_ms < copy.until_ms:
                copy.look_now(now_ms)
            result = copy.store.visit(0, now_ms, name, arguments)[0]
        except LocalError:
            raise
        except Exception as error:
            replica.trouble(copy, error)
            return elsewhere(name, *arguments)
        replica.reads += 1
        return result

    return read


def _short_way(
    engine: BesideEngine,
    level: str,
    max_staleness_ms: int | None,
    note: Callable[[ReadNote], Any],
    elsewhere: Callable[..., Any],
) -> Callable[..., Any]:
    """The same for ``LocalCopy.read``.

    Arguments:
        elsewhere: does the call where there is no copy for it.
    """
    boot_ns, is_session, replica = clock.boot_ns, level == SESSION, engine.replica

    def read(name: str, *arguments: Any) -> Any:
        copy = replica.copy
        if copy is None or name not in READABLE_HERE or not (copy.alone or level in LOCAL_LEVELS):
            if copy is None and _may_be_here(level, engine.engine, replica):
                replica.missed()
            return elsewhere(name, *arguments)
        current = current_session()
        try:
            if copy.alone:
                age_ms = 0
                result, index = copy.read_now(0, name, arguments)
            else:
                boot_ms = boot_ns() // 1_000_000
                until_ms, age_ms, log_ms = copy.fresh
                if boot_ms >= until_ms:
                    until_ms, age_ms, log_ms = copy.look(boot_ms)
                age_ms += boot_ms
                if max_staleness_ms is not None and age_ms > max_staleness_ms:
                    raise copy.too_old(age_ms)
                age_ms = age_ms if age_ms > 0 else 1
                min_index = (process if current is None else current).index(copy.cluster) if is_session else 0
                result, index = copy.store.visit(min_index, boot_ms + log_ms, name, arguments)
        except LocalError:
            raise
        except Exception as error:
            replica.trouble(copy, error)
            return elsewhere(name, *arguments)
        if (index != copy.noted or current is not None) and not copy.alone:
            note_seen(copy.cluster, index)
            copy.noted = index
        replica.reads += 1
        note((copy.node, index, age_ms))
        return result

    return read


def leveled(
    engine: BesideEngine, level: str, max_staleness_ms: int | None, note: Callable[[ReadNote], Any]
) -> LeveledEngine:
    """An engine whose reads have a level, and the short way to a local copy. Arguments as those of :class:`LeveledEngine`."""
    return BesideLeveledEngine(engine, level, max_staleness_ms, note)

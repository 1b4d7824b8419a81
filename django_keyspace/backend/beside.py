"""The engines of an alias with the option ``replica``: dirty and session reads beside a node of this host, all else as ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from django_keyspace.backend.embedded import takes_long
from django_keyspace.backend.levels import LeveledEngine, ReadNote, current_session, note_seen, process, seen_index
from django_keyspace.backend.replica import Replica
from django_keyspace.backend.transport import RemoteEngine
from django_keyspace.exceptions import LocalError
from django_keyspace.operations import Call
from django_keyspace.store import clock
from django_keyspace.store.visitor import READABLE_HERE

SESSION: Final = "session"
LOCAL_LEVELS: Final = ("dirty", SESSION)
_Answer = tuple[Any, int, int, str]


class BesideEngine:
    """An engine that answers reads beside a node of this host where it can.

    Arguments:
        engine: the way to the cluster, for everything else.
        replica: the node of this host.
    """

    reads_inline = False

    def __init__(self, engine: RemoteEngine, replica: Replica) -> None:
        self.engine = engine
        self.replica = replica
        self.read = self.write = engine.execute  # a plain operation is a safe one

    def execute(self, name: str, *arguments: Any) -> Any:
        """Do an operation. Raises :class:`KeyspaceError` only."""
        if name == "at":
            answer = self.answer(*arguments)
            if answer is not None:
                return answer
        return self.engine.execute(name, *arguments)

    async def aexecute(self, name: str, *arguments: Any) -> Any:
        """The same, for a coroutine: short reads are answered at once, longer ones in a thread."""
        if name == "at":
            if takes_long(name, arguments) and self.replica.copy is not None:
                answer = await asyncio.to_thread(self.answer, *arguments)
            else:
                answer = self.answer(*arguments)
            if answer is not None:
                return answer
        return await self.engine.aexecute(name, *arguments)

    def answer(self, level: str, min_index: int, max_staleness_ms: int | None, call: Call) -> _Answer | None:
        """Do a read here, with the arguments of the operation ``at``. None: it has to go over the network."""
        if level not in LOCAL_LEVELS or call[0] not in READABLE_HERE:
            return None
        replica = self.replica
        copy = replica.copy
        if copy is None:
            replica.missed()
            return None
        try:
            if level == SESSION:
                min_index = max(min_index, seen_index(copy.cluster))
            found = copy.read(min_index, max_staleness_ms, call[0], call[1:])
        except LocalError:
            raise
        except Exception as error:
            replica.trouble(copy, error)
            return None
        note_seen(copy.cluster, found[1])
        replica.reads += 1
        return found

    def close(self) -> None:
        """Close connections that are not in use, and the store. The next call opens them again."""
        self.replica.close()
        self.engine.close()


class BesideLeveledEngine(LeveledEngine):
    """An engine whose session or dirty reads take a short way to a local copy.

    Arguments:
        engine: carries everything out.
        level, max_staleness_ms, note: see :class:`LeveledEngine`.
    """

    def __init__(
        self, engine: BesideEngine, level: str, max_staleness_ms: int | None, note: Callable[[ReadNote], Any]
    ) -> None:
        super().__init__(engine, level, max_staleness_ms, note)
        self._network = LeveledEngine(engine.engine, level, max_staleness_ms, note)
        self.read = _short_way(engine.replica, level, max_staleness_ms, note, self._network.execute)
        self._read_here = _short_way(engine.replica, level, max_staleness_ms, note, _leave)

    async def aexecute(self, name: str, *arguments: Any) -> Any:
        """See :meth:`LeveledEngine.aexecute`. A short read is answered in the loop."""
        if name not in READABLE_HERE or takes_long(name, arguments):
            return await super().aexecute(name, *arguments)
        result = self._read_here(name, *arguments)
        return await self._network.aexecute(name, *arguments) if result is _ELSEWHERE else result


_ELSEWHERE: Final = object()


def _leave(name: str, *arguments: Any) -> Any:
    return _ELSEWHERE


def _short_way(
    replica: Replica,
    level: str,
    max_staleness_ms: int | None,
    note: Callable[[ReadNote], Any],
    elsewhere: Callable[..., Any],
) -> Callable[..., Any]:
    """``LocalCopy.read`` with all that is around it, written out as ``KeyspaceCache.get`` is: a page calls it often.

    Arguments:
        elsewhere: does the call where there is no copy for it.
    """
    boot_ns, is_session = clock.boot_ns, level == SESSION

    def read(name: str, *arguments: Any) -> Any:
        copy = replica.copy
        if copy is None or name not in READABLE_HERE:
            if copy is None:
                replica.missed()
            return elsewhere(name, *arguments)
        current = current_session()
        try:
            boot_ms = boot_ns() // 1_000_000
            until_ms, age_ms, log_ms = copy.fresh
            if boot_ms >= until_ms:
                until_ms, age_ms, log_ms = copy.look(boot_ms)
            age_ms += boot_ms
            if max_staleness_ms is not None and age_ms > max_staleness_ms:
                raise copy.too_old(age_ms)
            min_index = (process if current is None else current).index(copy.cluster) if is_session else 0
            result, index = copy.store.visit(min_index, boot_ms + log_ms, name, arguments)
        except LocalError:
            raise
        except Exception as error:
            replica.trouble(copy, error)
            return elsewhere(name, *arguments)
        if index != copy.noted or current is not None:
            note_seen(copy.cluster, index)
            copy.noted = index
        replica.reads += 1
        note((copy.node, index, age_ms if age_ms > 0 else 1))
        return result

    return read


def leveled(
    engine: BesideEngine, level: str, max_staleness_ms: int | None, note: Callable[[ReadNote], Any]
) -> LeveledEngine:
    """An engine whose reads have a level, and the short way to a local copy if it may answer them. Arguments as those of
    :class:`LeveledEngine`."""
    kind = BesideLeveledEngine if level in LOCAL_LEVELS else LeveledEngine
    return kind(engine, level, max_staleness_ms, note)

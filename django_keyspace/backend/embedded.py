"""Operations on a store in this process: the engine behind a ``LOCATION`` that is a folder."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from django_keyspace.exceptions import ConfigurationError, KeyspaceError
from django_keyspace.operations import RUNS, WRITES, Call
from django_keyspace.store import Store, StoreOptions, open_store
from django_keyspace.store.scripting import ScriptRunner
from django_keyspace.store.scripting.threads import threads


class Engine(Protocol):
    """What the cache needs of whatever carries its operations out. The calls are operations of the table."""

    reads_inline: bool
    """Whether a coroutine may call :attr:`read` for one key: it takes microseconds and never waits."""

    @property
    def read(self) -> Callable[..., Any]:
        """As :meth:`execute`, for operations that only read: the shortest way to them."""

    @property
    def write(self) -> Callable[..., Any]:
        """As :meth:`execute`, for operations that write."""

    def execute(self, name: str, *arguments: Any) -> Any:
        """Do an operation and wait for its result. Raises :class:`KeyspaceError` only."""

    async def aexecute(self, name: str, *arguments: Any) -> Any:
        """The same, for a coroutine."""

    def close(self) -> None:
        """Give up what the process holds for this engine; the next operation gets it again."""


_IN_A_THREAD = frozenset({"list", "count", "get_many", "match_regex", "match_similar", "batch"})
"""Reads, and batches of reads, that may take long."""
_SHORT_GET_MANY = 200

_Pending = list[tuple[Call, "asyncio.Future[Any]"]]


def open_for_records(folder: str, options: Mapping[str, Any]) -> Store:
    """The process's store of a folder, for a client whose records are not evictable.

    Arguments:
        folder: its path.
        options: fields of :class:`StoreOptions`. If there are none, the store is taken as the process has it open, and is
            otherwise opened with ``durability="commit"``: there is nowhere that its records could come from again.
    Raises:
        ConfigurationError: an option is not legal, or the process has opened the store with others.
    """
    unknown = options.keys() - ({row.name for row in fields(StoreOptions)} - {"lock_wait_ms"})
    if unknown:
        raise ConfigurationError(
            f"A store has no option {', '.join(sorted(unknown))}. It has durability, databases, max_bytes, map_bytes and "
            "value_bytes_max."
        )
    try:
        return open_store(folder, StoreOptions(**{"durability": "commit", **options}))
    except ConfigurationError:
        if options:
            raise
        return open_store(folder)


class EmbeddedEngine:
    """The engine of one store.

    Arguments:
        store: the process's store of the folder.
        timeout_ms: how long a write may wait for the writer lock; as the store's options say if None.
    """

    reads_inline = True

    def __init__(self, store: Store, timeout_ms: int | None = None) -> None:
        self.store = store
        self.read = store.read
        self.write = store.write
        if timeout_ms not in (None, store.options.lock_wait_ms):  # another alias opened the store with another timeout
            self.write = functools.partial(store.write, wait_s=(timeout_ms or 0) / 1000)
        self._scripts = ScriptRunner(store)
        self._pending: WeakKeyDictionary[asyncio.AbstractEventLoop, _Pending] = WeakKeyDictionary()

    def execute(self, name: str, *arguments: Any) -> Any:
        """Do an operation in the calling thread."""
        if name in WRITES:
            return self.write(name, *arguments)
        if name in RUNS:
            return self._scripts.run((name, *arguments))
        return self.store.read(name, *arguments)

    async def aexecute(self, name: str, *arguments: Any) -> Any:
        """Do an operation for a coroutine: short reads at once, longer ones in a thread, writes in the next group commit."""
        if name in WRITES:
            return await self._write(name, arguments)
        if name in RUNS:
            return await asyncio.wrap_future(threads.submit(lambda: self._scripts.run((name, *arguments))))
        if takes_long(name, arguments):
            return await asyncio.to_thread(self.store.read, name, *arguments)
        return self.store.read(name, *arguments)

    def close(self) -> None:
        """Sync and close the store in this process."""
        self.store.shutdown()

    async def _write(self, name: str, arguments: Sequence[Any]) -> Any:
        loop = asyncio.get_running_loop()
        pending = self._pending.get(loop)
        if pending is None:
            pending = self._pending[loop] = []
        if not pending:
            loop.call_soon(self._flush, loop, pending)
        future = loop.create_future()
        pending.append(((name, *arguments), future))
        result = await future
        if isinstance(result, KeyspaceError):
            raise result
        return result

    def _flush(self, loop: asyncio.AbstractEventLoop, pending: _Pending) -> None:
        """Hand everything that came together in this turn of the loop to the writer thread."""
        group, pending[:] = list(pending), []

        def done(results: list[Any]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                loop.call_soon_threadsafe(_resolve, group, results)

        try:
            self.store.submit([call for call, _ in group], done)
        except KeyspaceError as error:
            _resolve(group, [error] * len(group))


def takes_long(name: str, arguments: Sequence[Any]) -> bool:
    """Whether a read may take longer than a coroutine should hold up its loop."""
    if name == "at":
        name, *arguments = arguments[3]
    return name in _IN_A_THREAD and not (name == "get_many" and len(arguments[1]) <= _SHORT_GET_MANY)


def _resolve(group: _Pending, results: list[Any]) -> None:
    for (_, future), result in zip(group, results, strict=True):
        if not future.done():
            future.set_result(result)

"""The two faces of a cache for tests that are written once: sync methods, and their a-twins on an event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from django_keyspace.backend import KeyspaceCache
from django_keyspace.backend.batch import Batch

NO_TWIN = frozenset({"batch", "atomic", "lock", "memoize", "last_status", "last_read", "shutdown"})
"""Public names that have no a-twin: the first four make objects with both faces, the others wait for nothing."""


class Face:
    """The sync face: ``face.get("key")``. Notes which methods were used.

    Arguments:
        cache: the cache.
        used: where to note names.
        settle: waits until dirty reads see what was written; called before them and before blocks.
    """

    def __init__(self, cache: KeyspaceCache, used: set[str], settle: Callable[[], None]) -> None:
        self.cache = cache
        self._used = used
        self._settle = settle

    def _note(self, name: str) -> None:
        self._used.add(name)
        if name.startswith("dirty_"):
            self._settle()

    def __getattr__(self, name: str) -> Any:
        self._note(name)
        if name == "iter_keys":
            return lambda *args, **kwargs: list(self.cache.iter_keys(*args, **kwargs))
        return getattr(self.cache, name)

    @property
    def status_of_last_call(self) -> Any:
        """``last_status`` as the code that made the last call sees it."""
        self._used.add("last_status")
        return self.cache.last_status

    @property
    def last_read_of_last_call(self) -> Any:
        """``last_read`` as the code that made the last call sees it."""
        self._used.add("last_read")
        return self.cache.last_read

    @contextlib.contextmanager
    def block(self, kind: str) -> Iterator[Any]:
        """``with face.block("batch") as b``: a batch or an atomic block, entered and left by this face."""
        self._used.add(kind)
        self._settle()
        block = getattr(self.cache, kind)()
        with block:
            yield block


class AsyncFace(Face):
    """The async face: ``face.get("key")`` runs ``cache.aget("key")`` to its end."""

    def __init__(
        self, cache: KeyspaceCache, used: set[str], settle: Callable[[], None], runner: asyncio.Runner
    ) -> None:
        super().__init__(cache, used, settle)
        self._runner = runner
        self._status: Any = None
        self._last_read: Any = None

    @property
    def status_of_last_call(self) -> Any:
        self._used.add("last_status")
        return self._status

    @property
    def last_read_of_last_call(self) -> Any:
        self._used.add("last_read")
        return self._last_read

    async def _noting(self, call: Any) -> Any:
        """A task has a context of its own, so its status must be looked at inside of it."""
        try:
            return await call
        finally:
            self._status = self.cache.last_status
            self._last_read = self.cache.last_read

    def __getattr__(self, name: str) -> Any:
        self._note(name)
        if name in NO_TWIN:
            return getattr(self.cache, name)
        if name == "iter_keys":
            return self._iter_keys
        method: Callable[..., Any] = getattr(self.cache, f"a{name}")
        return lambda *args, **kwargs: self._runner.run(self._noting(method(*args, **kwargs)))

    def _iter_keys(self, *args: Any, **kwargs: Any) -> list[str]:
        async def collect() -> list[str]:
            return [key async for key in self.cache.aiter_keys(*args, **kwargs)]

        return self._runner.run(collect())

    @contextlib.contextmanager
    def block(self, kind: str) -> Iterator[Any]:
        self._used.add(kind)
        self._settle()
        block: Batch = getattr(self.cache, kind)()
        self._runner.run(block.__aenter__())
        try:
            yield block
        except BaseException as error:
            self._runner.run(block.__aexit__(type(error), error, error.__traceback__))
            raise
        self._runner.run(block.__aexit__(None, None, None))

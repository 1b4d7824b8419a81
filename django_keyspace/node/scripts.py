"""Scripts on a node: beside its store, in threads of their own, while the loop goes on serving others.

A script reads the node's store directly; what it writes goes through the log, as everybody's writes do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeout
from functools import partial
from typing import Any, Final

from django_keyspace.exceptions import KeyspaceError, LockTimeout, NoConnection
from django_keyspace.node.barrier import Hold
from django_keyspace.node.log import Done, ReplicatedLog, View
from django_keyspace.operations import Call
from django_keyspace.store import Store
from django_keyspace.store.admission import incoming_bytes
from django_keyspace.store.scripting import ScriptRunner, Source, read_sources, script_call
from django_keyspace.store.scripting.threads import ScriptThreads, threads

logger = logging.getLogger("django_keyspace.node")

COMMIT_TIMEOUT_S: Final = 120.0
"""How long a script's thread waits for the log: much longer than any commit takes, so that it ends in any case."""
START_TIME_MS: Final = 30_000
_CALL_BYTES: Final = 100


class ScriptService:
    """Runs the scripts of a node's clients.

    Arguments:
        store: where they read.
        log: where they write.
        loop: the event loop of the log and of the connections.
        sources: Lua of the node itself, which every call finds loaded.
        pool: the threads that wait for them.
        current: gives the store that counts now, where a snapshot can take a store's place.
    """

    def __init__(
        self,
        store: Store,
        log: ReplicatedLog,
        loop: asyncio.AbstractEventLoop,
        sources: Sequence[Source] = (),
        pool: ScriptThreads = threads,
        current: Callable[[], Store] | None = None,
    ) -> None:
        self._loop = loop
        self._log = log
        self._threads = pool
        self._store = store
        self._current = current or (lambda: store)
        self._sources = sources
        self._runner = ScriptRunner(store, _LogOrderer(log, loop), sources)
        self._under_way: dict[tuple[bytes, int], list[Done]] = {}  # who waits for each script that has a sequence

    def submit(self, call: Call, done: Done) -> None:
        """Run a script. One that comes again while it runs is not run twice.

        Arguments:
            call: the operation ``script``, or ``once`` with it, already checked.
            done: gets a list of one result or :class:`KeyspaceError`, on the loop's thread.
        Raises:
            Overloaded: too many are waiting. Nothing was done.
        """
        if call[0] == "once":
            place = (call[1], call[2])
            waiting = self._under_way.get(place)
            if waiting is not None:
                waiting.append(done)
                return
            self._under_way[place] = [done]
            done = partial(self._answer_all, place)
            try:
                self._start(call, done)
            except BaseException:
                del self._under_way[place]
                raise
        else:
            self._start(call, done)

    def _start(self, call: Call, done: Done) -> None:
        if self._log.reads is None:
            self._begin(call, done)
        else:
            # What it reads must hold everything that was acknowledged before it came; and only the leader runs it.
            self._log.reads.read("safe", partial(self._begin_with, call, done))

    def _begin_with(self, call: Call, done: Done, view: View | KeyspaceError) -> None:
        if isinstance(view, KeyspaceError):
            # Not at once: who asks has not counted the script as being under way yet.
            self._loop.call_soon(done, [view])
            return
        try:
            self._begin(call, done)
        except KeyspaceError as error:
            self._loop.call_soon(done, [error])

    def _begin(self, call: Call, done: Done) -> None:
        self._threads.submit(partial(self._run, call)).add_done_callback(partial(self._hand_over, done))

    def _answer_all(self, place: tuple[bytes, int], results: list[Any]) -> None:
        for done in self._under_way.pop(place):
            done(results)

    def _run(self, call: Call) -> Any:
        try:
            store = self._current()
            if store is not self._store:
                self._store, self._runner = (
                    store,
                    ScriptRunner(store, _LogOrderer(self._log, self._loop), self._sources),
                )
            return self._runner.run(call)
        except KeyspaceError as error:
            return error
        except Exception as error:
            logger.exception("A script failed in a way that it should not")
            return error

    def _hand_over(self, done: Done, future: Future[Any]) -> None:
        with contextlib.suppress(RuntimeError, CancelledError):  # the node has stopped: nobody waits any more
            self._loop.call_soon_threadsafe(done, [future.result()])


def load_sources(store: Store, paths: Sequence[str]) -> list[Source]:
    """The node's own scripts, run once to see whether they are right.

    Arguments:
        store: the node's store; nothing is written.
        paths: Lua files, or folders of them.
    Raises:
        ConfigurationError: one cannot be read.
        ScriptError, NotSupported: they are not right, or there is no Lua here.
    """
    sources = read_sources(paths)
    if sources:
        ScriptRunner(store, sources=sources).run(script_call(0, "", time_ms=START_TIME_MS))
    return sources


class _LogOrderer:
    """The log, for the thread of a script."""

    def __init__(self, log: ReplicatedLog, loop: asyncio.AbstractEventLoop) -> None:
        self._log = log
        self._loop = loop

    def write_many(self, calls: Sequence[Call]) -> list[Any]:
        """Propose operations, and wait for their results."""
        return self._propose(self._log.propose, calls)

    @contextlib.contextmanager
    def exclusive(self, wait_s: float) -> Iterator[Callable[[Sequence[Call]], list[Any]]]:
        """Hold the log while the block runs."""
        granted: Future[None] = Future()
        begun: Future[Hold] = Future()

        def begin() -> None:
            begun.set_result(self._log.hold(lambda error: _grant(granted, error)))

        self._call(begin)
        try:
            try:
                granted.result(wait_s)
            except FutureTimeout:
                if granted.cancel():
                    raise LockTimeout(
                        f"Other scripts and writes kept the node's log busy for all of the {wait_s:.3g} s that this script "
                        "had left. Nothing was changed. Try again."
                    ) from None
                granted.result()  # it was granted, or refused, at the last moment
            yield partial(self._propose, self._log.propose_held)
        finally:
            with contextlib.suppress(NoConnection):
                self._call(lambda: self._log.let_go(begun.result()))

    def _call(self, function: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            raise _stopped() from None

    def _propose(self, propose: Callable[[Sequence[Call], int, Done], None], calls: Sequence[Call]) -> list[Any]:
        answered: Future[list[Any]] = Future()
        size_bytes = sum(map(incoming_bytes, calls)) + sum(_CALL_BYTES * (1 + len(call[-1])) for call in calls)

        def on_loop() -> None:
            try:
                propose(calls, size_bytes, answered.set_result)
            except KeyspaceError as error:
                answered.set_exception(error)

        self._call(on_loop)
        try:
            return answered.result(COMMIT_TIMEOUT_S)
        except FutureTimeout:
            raise _stopped() from None


def _grant(granted: Future[None], error: KeyspaceError | None) -> None:
    if not granted.set_running_or_notify_cancel():
        return  # the script has not waited so long
    if error is None:
        granted.set_result(None)
    else:
        granted.set_exception(error)


def _stopped() -> NoConnection:
    return NoConnection("The node is shutting down. Whether what the script wrote was stored is not known.")

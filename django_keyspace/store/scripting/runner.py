"""How a script is carried out, from the call to the commit.

A script runs without any lock, on a snapshot. What it wrote is then proposed as one ``atomic``, on the condition that what it
read is still the same; if not, it runs again on a new snapshot. A few times of that, and it runs while nobody else may
write. So a script that never ends, or never succeeds, holds up nobody; one that was overtaken again and again is done in
the end; and in any case what is applied, logged and replicated is what it wrote, never the script.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Final, Protocol

import lmdb

from django_keyspace.exceptions import (
    KeyspaceError,
    ScriptConflict,
    ScriptError,
    ScriptFailed,
    ScriptLimit,
    ScriptSyntaxError,
    ScriptTimeout,
    UnknownScript,
)
from django_keyspace.operations import Call, check_call
from django_keyspace.store.errors import explain
from django_keyspace.store.scripting.database import ScriptDatabase
from django_keyspace.store.scripting.pool import Worker, WorkerEnded, WorkerPool, pool
from django_keyspace.store.scripting.sources import Source
from django_keyspace.store.scripting.values import encode
from django_keyspace.store.sessions import kept_answer
from django_keyspace.store.store import Snapshot, Store

TIME_MS_DEFAULT: Final = 2000
RESULT_BYTES_MAX: Final = 8 * 2**20
FREE_ATTEMPTS: Final = 4
"""How often a script runs without keeping others from writing."""
HELD_ATTEMPTS: Final = 4
"""And how often while it does: even then records may expire, or be evicted."""
_LOST_SNAPSHOTS_MAX: Final = 20

Place = tuple[bytes, int, int, bool]
"""Session, sequence, lowest sequence, and whether it comes again."""
WriteMany = Callable[[Sequence[Call]], list[Any]]


class Orderer(Protocol):
    """Who puts the writes of a store in order."""

    def write_many(self, calls: Sequence[Call]) -> list[Any]:
        """Do operations in one transaction: the result, or the :class:`KeyspaceError`, of each."""

    def exclusive(self, wait_s: float) -> contextlib.AbstractContextManager[WriteMany]:
        """Keep everybody else from writing while a block runs; gives what takes the place of :meth:`write_many`."""


class _SnapshotLost(Exception):
    """The snapshot had to be given back: run again on another one."""


class ScriptRunner:
    """Runs the scripts of one store.

    Arguments:
        store: where they read.
        orderer: where they write; the store itself if it is embedded.
        sources: Lua that every call finds loaded, before its own.
        workers: the processes that run Lua.
    """

    def __init__(
        self, store: Store, orderer: Orderer | None = None, sources: Sequence[Source] = (), workers: WorkerPool = pool
    ) -> None:
        self._store = store
        self._orderer: Orderer = orderer or store
        self._sources = list(sources)
        self._workers = workers

    def run(self, call: Call) -> bytes:
        """Carry out the operation ``script``, in the calling thread.

        Arguments:
            call: the operation, or ``once`` with it: then what it wrote is kept under its session and sequence, with its
                result, and a script that was done before is not run.
        Returns:
            The function's result, as ``values.py`` encodes it.
        Raises:
            ScriptError: it was not carried out. Nothing was changed.
            NotSupported: lupa is not installed.
            KeyspaceError: the operation is not legal, or what it wrote could not be stored. Nothing was changed.
        """
        check_call(call, self._store.limits)
        place: Place | None = None
        if call[0] == "once":
            place, call = call[1:5], call[5]
            with self._store.snapshot() as snapshot:
                kept = kept_answer(snapshot.txn, snapshot.environment, place[0], place[1])
            if kept is not None:
                return bytes(kept)
        script = _Script(call, self._sources)
        for _ in range(FREE_ATTEMPTS):
            result = self._attempt(script, self._orderer.write_many, place)
            if result is not None:
                return result
        with self._orderer.exclusive(script.left_s()) as write_many:
            for _ in range(HELD_ATTEMPTS):
                result = self._attempt(script, write_many, place)
                if result is not None:
                    return result
        raise ScriptConflict(
            f"Function {script.function} was run {FREE_ATTEMPTS + HELD_ATTEMPTS} times, and each time what it had read was "
            "changed before its writes could be stored. Nothing was changed. Call it again."
        )

    def _attempt(self, script: _Script, write_many: WriteMany, place: Place | None) -> bytes | None:
        """Run the script once and store what it wrote. None if something came between."""
        result, conditions, calls = self._read_and_run(script)
        if not calls and not (place and place[3]):
            return result  # nothing was written: what it read was true at one moment
        block = ("atomic", conditions, calls)
        (answer,) = write_many([block if place is None else ("once", *place, block, result)])
        if isinstance(answer, KeyspaceError):
            raise answer
        if place is not None:
            return answer  # type: ignore[no-any-return]
        return result if answer[0] else None

    def _read_and_run(self, script: _Script) -> tuple[bytes, list[Any], list[Call]]:
        """Run the script on a snapshot: its result, the conditions, and what it wrote."""
        for _ in range(_LOST_SNAPSHOTS_MAX):
            worker = self._workers.take(script.wait_until_s())
            is_idle = False
            try:
                with self._store.snapshot() as snapshot:
                    database = script.database(snapshot)
                    result = _converse(worker, snapshot, database, script)
                    is_idle = True
                    return result, database.conditions() if database.calls else [], database.calls
            except _SnapshotLost:
                continue
            except (ScriptFailed, ScriptSyntaxError, UnknownScript):
                is_idle = True
                raise
            except lmdb.BadTxnError:  # see Store._recover: the next transaction is a new one
                continue
            except lmdb.Error as error:
                raise explain(error, self._store.path) from error
            finally:
                if is_idle:
                    self._workers.give_back(worker)
                else:
                    self._workers.discard(worker)
        raise ScriptConflict(
            f"Function {script.function} could not read in peace: the process is being forked, or its store grows, all the "
            "time. Nothing was changed. Call it again."
        )


class _Script:
    """One call, taken apart."""

    def __init__(self, call: Call, sources: Sequence[Source]) -> None:
        (
            _,
            self._number,
            self._prefix,
            own_sources,
            library,
            self.function,
            arguments,
            self._tag,
            self._flags,
            time_ms,
        ) = call
        self.time_ms = time_ms or TIME_MS_DEFAULT
        self._ends_s: float | None = None
        all_sources = [*sources, *(tuple(source) for source in own_sources)]
        self.order = encode([all_sources, library, self.function]) + arguments

    def wait_until_s(self) -> float:
        """How long to wait for a worker. The script's own time begins when it has one."""
        return self._ends_s or monotonic() + self.time_ms / 1000

    def begin(self) -> float:
        """When the script's time is over, from its first run on."""
        if self._ends_s is None:
            self._ends_s = monotonic() + self.time_ms / 1000
        return self._ends_s

    def left_s(self) -> float:
        """Seconds left."""
        return max(self.wait_until_s() - monotonic(), 0)

    def database(self, snapshot: Snapshot) -> ScriptDatabase:
        """The script's ``db`` on a snapshot."""
        return ScriptDatabase(
            snapshot.txn,
            snapshot.environment,
            snapshot.now_ms,
            self._number,
            self._prefix,
            self._tag,
            self._flags,
        )


def _converse(worker: Worker, snapshot: Snapshot, database: ScriptDatabase, script: _Script) -> bytes:
    """Let a worker run the script, and answer its questions until it has a result."""

    def interrupted() -> None:
        if snapshot.is_wanted_back():
            raise _SnapshotLost

    ends_s = script.begin()
    try:
        worker.order(script.order, script.time_ms // 1000 + 1, ends_s)
        while True:
            frame = worker.receive(ends_s, interrupted)
            letter, content = frame[:1], frame[1:]
            if letter == b"C":
                interrupted()
                worker.send(database.answer(content), ends_s)
            elif letter == b"R":
                if len(content) > RESULT_BYTES_MAX:
                    raise ScriptLimit(
                        f"The result of function {script.function} takes {len(content):,} bytes; {RESULT_BYTES_MAX:,} are "
                        "the most. Nothing was changed. Return less."
                    )
                return content
            else:
                raise _failure(script, content)
    except ScriptTimeout:
        raise ScriptTimeout(
            f"Function {script.function} was stopped: its {script.time_ms:,} ms were over. Nothing was changed. Give it more "
            "time, or less to do."
        ) from None
    except WorkerEnded as error:
        raise ScriptLimit(
            f"The process that ran function {script.function} has ended: it wanted more memory or time than scripts may have. "
            "Nothing was changed."
        ) from error


def _failure(script: _Script, content: bytes) -> ScriptError:
    """The error for what a worker says about a script that failed."""
    kind, message, trace = (content.decode(errors="replace").split("\0", 2) + ["", ""])[:3]
    name = f"Function {script.function}" if script.function else "The source"
    if kind == "syntax":
        return ScriptSyntaxError(f"{message}. Nothing was changed.")
    if kind == "unknown":
        return UnknownScript(
            f"There is no function {message!r:.200} in the scripts that are loaded. Nothing was changed."
        )
    if kind == "limit" or "not enough memory" in message:
        return ScriptLimit(f"{name} used more memory than scripts may have: {message}. Nothing was changed.")
    message = message.removesuffix("Nothing was changed.").rstrip(" .")
    sentence = f"{name} failed: {message}. Nothing was changed."
    return ScriptFailed(f"{sentence}\n{trace}" if trace else sentence)

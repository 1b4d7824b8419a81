"""The client's side of exactly once: a session per process, and each write's place in it.

Sans-IO, as ``routing.py``. A write takes a sequence number before it is sent and gives it back when its caller has stopped to
wait for it; the lowest number that is out travels with every write, so that the node can forget what lies below. Any
number of threads and event loops share the sessions of an engine. When a thousand writes are out, or one has been out
for as long as a thousand others took, the next ones use another session.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Sequence
from time import monotonic
from typing import Any, Final

from django_keyspace.backend.routing import Failure
from django_keyspace.exceptions import (
    KeyspaceError,
    LeadershipLost,
    LocalError,
    NoLeader,
    NotLeader,
    Overloaded,
    SessionExpired,
    TooStale,
    UnknownOutcome,
    error_from_code,
)
from django_keyspace.operations import CHANGES, SESSION_WINDOW

_ASK_AGAIN: Final = (Overloaded, SessionExpired, NotLeader, NoLeader, LeadershipLost, TooStale)
"""Refusals that do not end a call: the same node later, or another one, may do it."""
FRESH_S: Final = 600.0
"""A session that is refused although it is younger than this was born by a clock that the node's has left behind."""


IDLE_S_MAX: Final = 1_800.0
"""A session that was idle for longer is not used again: the node forgets it after an hour."""


class ClientSession:
    """One session of this process.

    Arguments:
        birth_ms: the node's log clock now.

    Attributes:
        id: what the node knows it by.
        next: the next sequence.
        out: sequences whose writes are under way, the lowest one first.
        used_s: when a sequence was last taken, on this process's clock.
    """

    __slots__ = ("began_s", "id", "next", "out", "used_s")

    def __init__(self, birth_ms: int) -> None:
        self.id = birth_ms.to_bytes(8, "big") + secrets.token_bytes(16)
        self.next = 1
        self.out: dict[int, None] = {}
        self.began_s = self.used_s = monotonic()

    def can_go_on(self, now_s: float) -> bool:
        """Whether there is a sequence left, in a session that the node still knows."""
        if self.out:
            return self.next - next(iter(self.out)) < SESSION_WINDOW
        return now_s - self.used_s < IDLE_S_MAX


class Sessions:
    """The sessions of one engine in one process. Threads may share it."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew: in a forked child, the parent goes on with its own."""
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._log_ms: int | None = None
        self._met_s = 0.0
        self._current: ClientSession | None = None

    def met(self, log_ms: int | None) -> None:
        """Note the log clock that a node has told in its hello, None if it keeps no sessions."""
        if self._pid != os.getpid():
            self.forget()
        self._log_ms, self._met_s = log_ms, monotonic()
        if log_ms is None:
            self._current = None

    def take(self) -> tuple[ClientSession, int, int] | None:
        """A session, a sequence in it, and the lowest that is out. None before a node was met that keeps sessions."""
        if self._pid != os.getpid():
            self.forget()
        with self._lock:
            session, now_s = self._current, monotonic()
            if session is None or not session.can_go_on(now_s):
                if self._log_ms is None:
                    return None
                session = self._current = ClientSession(self._log_ms + int((now_s - self._met_s) * 1000))
            session.used_s = now_s
            sequence = session.next
            session.next = sequence + 1
            out = session.out
            out[sequence] = None
            return session, sequence, next(iter(out))

    def give_back(self, session: ClientSession, sequence: int) -> None:
        """Say that nobody waits for a sequence any more."""
        with self._lock:
            session.out.pop(sequence, None)

    def ended(self, session: ClientSession) -> bool:
        """Note that a node refused a session: the next write begins another one.

        Returns:
            Whether that takes a new hello: what this process knows of the node's clock is wrong.
        """
        with self._lock:
            if self._current is session:
                self._current = None
                if monotonic() - session.began_s < FRESH_S:
                    self._log_ms = None
                    return True
        return False


class Request:
    """One call, over all of its attempts.

    Arguments:
        sessions: those of the engine.
        name: the operation.
        arguments: its arguments.

    Attributes:
        name: the operation.
        arguments: its arguments.
        again: whether it may have been sent before.
    """

    __slots__ = ("_lowest", "_sequence", "_session", "_sessions", "_wants_session", "again", "arguments", "name")

    def __init__(self, sessions: Sessions, name: str, arguments: Sequence[Any]) -> None:
        self._sessions = sessions
        self.name = name
        self.arguments = arguments
        self._wants_session = name in CHANGES and name != "once"
        self._session: ClientSession | None = None
        self._sequence = self._lowest = 0
        self.again = False

    @property
    def has_session(self) -> bool:
        """Whether it was sent with a sequence, so that it may be sent again."""
        return self._session is not None

    def parts(self) -> tuple[str, Sequence[Any]]:
        """Name and arguments to send. A write takes its sequence here, when there is a session to be had."""
        if not self._wants_session:
            return self.name, self.arguments
        session = self._session
        if session is None:
            # A first copy without a session cannot be told from a second one with it.
            taken = None if self.again else self._sessions.take()
            if taken is None:
                return self.name, self.arguments
            session, self._sequence, self._lowest = taken
            self._session = session
        call = (self.name, *self.arguments)
        return "once", (session.id, self._sequence, self._lowest, self.again, call, None)

    def refused(self, status: str, result: Any) -> Failure:
        """A node's refusal, if that does not end the call. Raises it otherwise."""
        error = error_of_answer(status, result)
        if isinstance(error, _ASK_AGAIN):
            return Failure(error, sent=isinstance(error, LeadershipLost), reached=True)
        if self.again and not isinstance(error, LocalError | UnknownOutcome):
            # The node could not do this copy, and has not said what became of the one before.
            raise UnknownOutcome(
                f"The write {self.name!r} was sent, its answer was lost, and the node could not do it again: {error} It may "
                "have happened or not. Read the key before you do it again."
            ) from error
        raise error

    def prepare(self, failure: Failure) -> bool:
        """Before the next attempt: note what the last one leaves behind.

        Returns:
            Whether the next one needs a new connection, whose hello tells the node's clock.
        """
        self.again = self.again or failure.sent
        session = self._session
        if session is None or not isinstance(failure.error, SessionExpired):
            return False
        self._session = None
        self._sessions.give_back(session, self._sequence)
        return self._sessions.ended(session)

    def end(self) -> None:
        """Say that nobody waits for this call any more."""
        if self._session is not None:
            self._sessions.give_back(self._session, self._sequence)


def error_of_answer(status: str, result: Any) -> KeyspaceError:
    """The error in a node's answer; of a node that does not lead, with the address of the one that does."""
    if status == NotLeader.code and type(result) is tuple and len(result) == 2:
        sentence, address = result
        return NotLeader(str(sentence), address=address if type(address) is str else None)
    return error_from_code(status, str(result))

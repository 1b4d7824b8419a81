"""What clients did and what they were told: the record of one run, in memory and as lines of JSON.

An event is one call of one client: the operation as ``operations.py`` has it, when it was begun, when its answer came and what
that was. Four things can become of a call:

``ok``
    the answer is in ``result``, as the operation gives it (records are bytes with their header).
``error``
    the state did not allow it, ``result`` is the error's code. That says something about the state, so it is checked.
``refused``
    nothing was done, for certain: no leader here, no room.
``unknown``
    it may have happened, may still happen at any time, or never. So does everything that has no answer at the run's end.

A write that is resent under its session and sequence is one event, from its first sending to the answer that came at last: that
is what exactly-once promises. Times are whole microseconds of one clock that never goes back; processes of one machine share it
(:func:`now_us`), so each client process writes a file of its own and :meth:`History.merge` puts them together.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from django_keyspace.exceptions import KeyspaceError, LocalError

OUTCOMES: Final = ("ok", "error", "refused", "unknown")
LEVELS: Final = ("safe", "lease", "session", "dirty")
NEVER: Final = 1 << 62
"""When the answer of a call comes whose outcome is unknown."""

REFUSED_CODES: Final = frozenset({"not-leader", "no-leader", "overloaded", "no-space", "too-stale", "read-only"})
"""Codes of errors, other than those of the state, that say for certain that nothing was done."""


def now_us() -> int:
    """Microseconds of the clock that all processes of a machine share."""
    return time.monotonic_ns() // 1000


def outcome_of(error: BaseException) -> str:
    """What an error says about the call that it ended."""
    code = error.code if isinstance(error, KeyspaceError) else ""
    if code in REFUSED_CODES:
        return "refused"
    return "error" if isinstance(error, LocalError) else "unknown"


@dataclass(frozen=True, slots=True)
class Event:
    """One call of one client.

    Attributes:
        client: who called. One client's session reads see what this client has seen.
        call_id: unique within its client.
        call: ``(name, *arguments)``, nested tuples.
        invoked_us: when it was begun.
        returned_us: when its answer came; :data:`NEVER` for an unknown outcome.
        outcome: one of :data:`OUTCOMES`.
        result: the answer, or the code of the error.
        level: of a read: one of :data:`LEVELS`. Writes are ``safe``.
        index: the applied index that the answer named, if it did.
        age_us: how long ago the answering node had heard from its leader, if the answer said so.
        max_staleness_us: the bound that a dirty read asked for.
        min_index: the index that a session read asked for.
        began_turn: orders what one recorder noted within a microsecond.
        ended_turn: the same for the answer. By default, and in merged histories, calls that touch in time overlap.
    """

    client: str
    call_id: int
    call: tuple[Any, ...]
    invoked_us: int
    returned_us: int = NEVER
    outcome: str = "unknown"
    result: Any = None
    level: str = "safe"
    index: int | None = None
    age_us: int | None = None
    max_staleness_us: int | None = None
    min_index: int | None = None
    began_turn: int = 0
    ended_turn: int = 1

    def line(self) -> str:
        """The event as a person reads it."""
        answer = {"ok": show(self.result), "error": f"error {self.result}"}.get(self.outcome, self.outcome)
        until = "..." if self.returned_us == NEVER else str(self.returned_us)
        level = "" if self.level == "safe" else f" [{self.level}]"
        index = "" if self.index is None else f" @{self.index}"
        age = "" if self.age_us is None else f" age {self.age_us}"
        who = f"{self.client:>6}#{self.call_id:<5}{level}"
        return f"{self.invoked_us:>12} - {until:<12} {who} {show(self.call)} -> {answer}{index}{age}"


class History:
    """The events of a run. One thread writes to it.

    Attributes:
        events: in the order in which they were begun, as far as this history knows.
    """

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.events: list[Event] = list(events)
        self._open: dict[tuple[str, int], int] = {}
        self._turn = 0

    def begin(
        self,
        client: str,
        call: Iterable[Any],
        at_us: int,
        *,
        level: str = "safe",
        max_staleness_us: int | None = None,
        min_index: int | None = None,
    ) -> tuple[str, int]:
        """Note that a call begins.

        Returns:
            What :meth:`finish` and :meth:`fail` are to be given.
        """
        if level not in LEVELS:
            raise ValueError(f"there is no level {level!r}")
        ticket = (client, len(self.events))
        self._open[ticket] = len(self.events)
        self._turn += 1
        event = Event(client, ticket[1], freeze(call), at_us, level=level, began_turn=self._turn)
        self.events.append(replace(event, max_staleness_us=max_staleness_us, min_index=min_index))
        return ticket

    def finish(
        self, ticket: tuple[str, int], at_us: int, result: Any, *, index: int | None = None, age_us: int | None = None
    ) -> None:
        """Note the answer of a call."""
        self._close(ticket, returned_us=at_us, outcome="ok", result=freeze(result), index=index, age_us=age_us)

    def fail(self, ticket: tuple[str, int], at_us: int, error: BaseException) -> None:
        """Note that a call ended with an error; what that says about it is in :func:`outcome_of`."""
        outcome = outcome_of(error)
        code = getattr(error, "code", type(error).__name__)
        self._close(ticket, returned_us=NEVER if outcome == "unknown" else at_us, outcome=outcome, result=code)

    def _close(self, ticket: tuple[str, int], **changes: Any) -> None:
        place = self._open.pop(ticket)
        self._turn += 1
        self.events[place] = replace(self.events[place], ended_turn=self._turn, **changes)

    def dump(self) -> str:
        """All events as lines of JSON."""
        return "".join(f"{json.dumps(_to_json(event))}\n" for event in self.events)

    def write(self, path: Path) -> None:
        """Write all events to a file."""
        path.write_text(self.dump(), encoding="ascii")

    @classmethod
    def load(cls, lines: Iterable[str]) -> History:
        """The history of lines of JSON. A last line that is cut short, of a process that was killed, is left out."""
        rows = [line for line in lines if line.strip()]
        events = []
        for place, line in enumerate(rows):
            try:
                fields = json.loads(line)
            except ValueError:
                if place == len(rows) - 1:
                    break
                raise
            events.append(Event(**{name: _from_json(value) for name, value in fields.items()}))
        return cls(events)

    @classmethod
    def read(cls, path: Path) -> History:
        """The history of a file."""
        return cls.load(path.read_text(encoding="ascii").splitlines())

    @classmethod
    def merge(cls, histories: Iterable[History]) -> History:
        """One history of those of several processes, by the time at which calls were begun."""
        events = [event for history in histories for event in history.events]
        if len({(event.client, event.call_id) for event in events}) < len(events):
            raise ValueError("two histories have a call of the same client and number: name clients apart")
        events = [replace(event, began_turn=0, ended_turn=1) for event in events]
        return cls(sorted(events, key=lambda event: event.invoked_us))


def freeze(value: Any) -> Any:
    """The same with tuples for lists, so that it can be hashed and compared."""
    if isinstance(value, list | tuple):
        return tuple(freeze(item) for item in value)
    if isinstance(value, Mapping):
        return tuple(sorted((freeze(key), freeze(item)) for key, item in value.items()))
    return bytes(value) if isinstance(value, bytearray | memoryview) else value


def show(value: Any) -> str:
    """A call or an answer in short. A record is shown by its payload and revision."""
    if isinstance(value, tuple):
        return f"({', '.join(show(item) for item in value)})"
    if isinstance(value, bytes) and len(value) > 60:
        return f"{value[:40]!r}...{len(value)} bytes"
    return repr(value)


def _to_json(event: Event) -> dict[str, Any]:
    fields = {name: getattr(event, name) for name in Event.__slots__}
    return {name: _encode(value) for name, value in fields.items()}


def _encode(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"bytes": value.decode("latin-1")}
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    return value


def _from_json(value: Any) -> Any:
    if isinstance(value, dict):
        return value["bytes"].encode("latin-1")
    if isinstance(value, list):
        return tuple(_from_json(item) for item in value)
    return value

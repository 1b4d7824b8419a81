"""Between Django's cache backend and the engine of a cluster: it writes down what is called and what is answered."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from django_keyspace.backend.transport import RemoteEngine
from tests.sim.history import History, now_us

current: ContextVar[tuple[str, History]] = ContextVar("client and history of this thread or task")


class RecordingEngine(RemoteEngine):
    """An engine whose calls are noted in the history of the thread or task that makes them."""

    def execute(self, name: str, *arguments: Any) -> Any:
        """See :meth:`RemoteEngine.execute`."""
        note = _Note(name, arguments)
        try:
            answer = super().execute(name, *arguments)
        except BaseException as error:
            note.failed(error)
            raise
        note.answered(answer)
        return answer

    async def aexecute(self, name: str, *arguments: Any) -> Any:
        """See :meth:`RemoteEngine.aexecute`."""
        note = _Note(name, arguments)
        try:
            answer = await super().aexecute(name, *arguments)
        except BaseException as error:
            note.failed(error)
            raise
        note.answered(answer)
        return answer


class _Note:
    """One call."""

    def __init__(self, name: str, arguments: tuple[Any, ...]) -> None:
        client, self._history = current.get()
        self._is_leveled = name == "at"
        level, call = (arguments[0], arguments[3]) if self._is_leveled else ("safe", (name, *arguments))
        self._ticket = self._history.begin(client, call, now_us(), level=level)

    def answered(self, answer: Any) -> None:
        if self._is_leveled:
            result, index, _, _ = answer
            self._history.finish(self._ticket, now_us(), result, index=index)
        else:
            self._history.finish(self._ticket, now_us(), answer)

    def failed(self, error: BaseException) -> None:
        self._history.fail(self._ticket, now_us(), error)

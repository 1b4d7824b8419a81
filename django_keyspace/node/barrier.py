"""Who may write alone: scripts that were overtaken again and again wait here for a log without anybody else's writes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from django_keyspace.exceptions import KeyspaceError

Granted = Callable[[KeyspaceError | None], None]
"""Takes None when everybody else waits, or why that will not be."""


class Hold:
    """One script's turn, from the moment when it asked."""

    __slots__ = ("granted", "is_granted")

    def __init__(self, granted: Granted) -> None:
        self.granted = granted
        self.is_granted = False


class ScriptBarrier:
    """Turns, one after the other.

    Arguments:
        is_quiet: whether nobody's write is under way.
        resume: goes on with the writes that had to wait.
    """

    def __init__(self, is_quiet: Callable[[], bool], resume: Callable[[], None]) -> None:
        self._is_quiet = is_quiet
        self._resume = resume
        self._turns: deque[Hold] = deque()

    @property
    def is_held(self) -> bool:
        """Whether everybody's writes have to wait."""
        return bool(self._turns)

    def hold(self, granted: Granted) -> Hold:
        """Ask for a turn. Returns: what :meth:`let_go` takes, before or after the turn has come."""
        turn = Hold(granted)
        self._turns.append(turn)
        self.look()
        return turn

    def let_go(self, turn: Hold) -> None:
        """End a turn, or wait for it no longer. Does nothing if it is over."""
        if turn in self._turns:
            self._turns.remove(turn)
            self.look()
            if not self._turns:
                self._resume()

    def look(self) -> None:
        """Something has ended: the next turn may have come."""
        if self._turns and not self._turns[0].is_granted and self._is_quiet():
            self._turns[0].is_granted = True
            self._turns[0].granted(None)

    def refuse_all(self, error: KeyspaceError) -> None:
        """No turn will come any more: this node does not lead."""
        turns, self._turns = self._turns, deque()
        for turn in turns:
            if not turn.is_granted:
                turn.granted(error)

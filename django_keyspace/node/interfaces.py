"""What the runtime is given: the parts of a node that the simulator replaces by its own.

Together with ``disk.py`` and ``clock.py`` these are all the ways in which a node touches the world. Everything that is behind
them in a real process (an event loop, threads, sockets) the simulator has as events of one heap, so that one integer decides
what happens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from django_keyspace.exceptions import KeyspaceError
from django_keyspace.node.journal import Batch

T = TypeVar("T")


class Handle(Protocol):
    """Something that will happen, and need not."""

    def cancel(self) -> None:
        """Have it not happen."""


class Scheduler(Protocol):
    """The turns of a node's loop, and the threads beside it."""

    def call_soon(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call it in the next turn of the loop."""

    def call_later(self, delay_ms: int, function: Callable[..., None], *arguments: Any) -> Handle:
        """Call it after so many milliseconds."""

    def call_threadsafe(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call it on the loop's thread, soon; for other threads."""

    def in_thread(self, name: str, work: Callable[[], T], done: Callable[[T | Exception], None]) -> None:
        """Do something on a thread of its own, and go on with its result on the loop's.

        Arguments:
            name: which thread; what is given to one thread is done in order.
            work: what to do there.
            done: takes what it returned, or the exception that it raised.
        """


class Writer(Protocol):
    """The disk thread of the journal: :class:`~django_keyspace.node.journal.JournalWriter`."""

    busy_since_s: float | None

    def submit(self, batch: Batch, done: Callable[[KeyspaceError | None], None]) -> None:
        """Have a batch written. ``done`` is called in the order of the calls, perhaps on another thread."""

    def call(self, work: Callable[[], None], done: Callable[[KeyspaceError | None], None]) -> None:
        """Have something else done after all batches so far."""

    def stop(self) -> None:
        """Return when everything so far is done."""


class Links(Protocol):
    """The ways to the other nodes."""

    @property
    def entry_versions(self) -> Mapping[str, int]:
        """By member, the newest version of entries that it has said to read; those that were met."""

    def connected_ms(self, member: str) -> int:
        """For how long at least the member's process has run, as its links show: they end with it. 0 if there is none."""

    def send(self, to: str, frame: tuple[Any, ...]) -> None:
        """Send a frame to a member, without waiting. It may get lost, come twice, late, and out of order.

        Arguments:
            to: the member's id.
            frame: nested tuples of text, numbers, bytes, booleans and None.
        """

"""``client.result``: what became of the last call of a Keyspace client. Source: the ancestor's Python API documentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django_keyspace.backend.keyspace.commands import Text
from django_keyspace.exceptions import KeyspaceError
from django_keyspace.status import Status, Statuses

Row = tuple[Status, Text, Text | None]
"""Status, key and value of a command, or of a row of a listing."""


class Result:
    """The result of one call, or of a batch.

    Arguments:
        statuses: of the call as a whole.
        connectivity: code to show where ``statuses`` has none.
        timeout: the same.
        rows: what there is to go through.
        read: makes a row of one of ``rows``.
        error: what went wrong, if something did.
        of_batch: whether each row has a status of its own.

    Attributes:
        error: the error with its sentence, None if there was none. (The ancestor has only the codes.)

    A result stands on its first row. It is made anew by each call, and keeps its rows until :meth:`close`.
    """

    __slots__ = ("_at", "_connectivity", "_of_batch", "_read", "_rows", "_statuses", "_timeout", "error")

    def __init__(
        self,
        statuses: Statuses,
        connectivity: Status,
        timeout: Status,
        rows: Sequence[Any] = (),
        read: Callable[[Any], Row] | None = None,
        *,
        error: KeyspaceError | None = None,
        of_batch: bool = False,
    ) -> None:
        self._statuses = statuses
        self._connectivity = connectivity
        self._timeout = timeout
        self._rows = rows
        self._read = read
        self._of_batch = of_batch
        self._at = 0
        self.error = error

    def _row(self) -> Row | None:
        if self._read is None or self._at >= len(self._rows):
            return None
        return self._read(self._rows[self._at])

    def begin(self) -> None:
        """Stand on the first row."""
        self._at = 0

    def is_end(self) -> bool:
        """Whether there are no more rows."""
        return self._at >= len(self._rows)

    def next(self) -> None:
        """Go to the next row."""
        self._at += 1

    def key(self) -> Text | None:
        """The key of this row; None at the end."""
        row = self._row()
        return None if row is None else row[1]

    def value(self) -> Text | None:
        """The value of this row; None at the end and for a command that failed.

        It is a number's text for ``add``, the old value for ``remove``, the new one for ``test_and_set``, and empty for
        other writes.
        """
        row = self._row()
        return None if row is None else row[2]

    def key_values(self) -> dict[Text, Text | None]:
        """Keys and values of all rows whose command succeeded, in order; of a key that comes twice, the later value.

        The result stands at its end then.
        """
        read = self._read
        self._at = len(self._rows)
        if read is None:
            return {}
        return {key: value for status, key, value in map(read, self._rows) if not status}

    def command_status(self) -> int:
        """What became of the command; in a batch, of this row's one, and ``KEYSPACE_API_ERROR`` at the end."""
        if not self._of_batch:
            return int(self._statuses.command)
        row = self._row()
        return int(Status.API_ERROR if row is None else row[0])

    def transport_status(self) -> int:
        """``KEYSPACE_SUCCESS``: all commands were answered. ``PARTIAL``: some. ``FAILURE``: none."""
        return int(self._statuses.transport)

    def connectivity_status(self) -> int:
        """``KEYSPACE_SUCCESS``: there was a master. ``NOMASTER``: it went away. ``NOCONNECTION``: no node answered."""
        return int(self._connectivity)

    def timeout_status(self) -> int:
        """``KEYSPACE_SUCCESS``: none. ``MASTER_TIMEOUT``, ``GLOBAL_TIMEOUT``: that one was over."""
        return int(self._timeout)

    def close(self) -> None:
        """Let go of the rows. The statuses stay."""
        self._rows = ()
        self._read = None

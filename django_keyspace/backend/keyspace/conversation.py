"""What all calls of a Keyspace client have in common: batches, listings in pages, results and their statuses.

``django_keyspace/keyspace.py`` has the commands themselves. Source: the ancestor's Python API documentation.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from django_keyspace.backend.keyspace.commands import OUTCOMES, Text, key_of, plain_payload, to_bytes, to_text
from django_keyspace.backend.keyspace.masters import Master
from django_keyspace.backend.keyspace.results import Result, Row
from django_keyspace.backend.keyspace.submission import is_pair, submit
from django_keyspace.exceptions import ConfigurationError, InvalidArgument, KeyspaceError
from django_keyspace.operations import AFTER, PAGE_ROWS_MAX, Call, check_call
from django_keyspace.status import Status, Statuses, status_of_error, statuses_of_error

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound="Conversation")

WRITE: Final = "writes"
SAFE: Final = "safe reads"
DIRTY: Final = "dirty reads"

_OK: Final = int(Status.SUCCESS)
_API_ERROR: Final = int(Status.API_ERROR)
_SUCCESS: Final = Statuses(Status.SUCCESS)


class _Batch:
    """The commands between begin() and submit()."""

    __slots__ = ("calls", "kind")

    def __init__(self) -> None:
        self.kind = ""
        self.calls: list[Call] = []
        """As operations; a ``set`` also as its pair of key and value."""


def command(
    kind: str, convert: Callable[[Any, bytes], R]
) -> Callable[[Callable[Concatenate[C, P], Call]], Callable[Concatenate[C, P], R | None]]:
    """Make a method from one that says which operation stands for the command.

    Arguments:
        kind: commands of different kinds cannot be in one batch.
        convert: the method's return value, from the bytes of the command's value.
    """

    def decorate(
        build: Callable[Concatenate[C, P], Call],
    ) -> Callable[Concatenate[C, P], R | None]:
        @functools.wraps(build)
        def method(self: C, /, *args: P.args, **kwargs: P.kwargs) -> R | None:
            try:
                call = build(self, *args, **kwargs)
                batch = self._batch
                if batch is not None:
                    if batch.kind != kind:
                        self._begin_kind(batch, kind)
                    batch.calls.append(call)
                    self.result = self._queued
                    return None
                answer = self._executes[kind](*call)
                payload = OUTCOMES[call[0]](call, answer, self._limit_bytes)
            except KeyspaceError as error:
                self._fail(error)
                return None
            self._succeed((call, answer), self._read_command, kind)
            return convert(self, payload)

        signature = inspect.signature(build)
        shown: Any = method
        shown.__signature__ = signature.replace(return_annotation=_SHOWN[convert])
        return method

    return decorate


def zero(client: Conversation, payload: bytes) -> int:
    return _OK


def text(client: Conversation, payload: bytes) -> Text:
    return client._text(payload)


def integer(client: Conversation, payload: bytes) -> int:
    return int(payload)


_SHOWN: Final[dict[Any, str]] = {zero: "int | None", text: "str | bytes | None", integer: "int | None"}


class Conversation:
    """The part of a client that knows no command.

    Arguments:
        nodes, database, decode, raise_errors, options: see ``keyspace.Client``.
    Raises:
        ConfigurationError: an argument is not right.

    Attributes:
        result: the :class:`Result` of the last call; None before the first.
    """

    def __init__(
        self,
        nodes: Sequence[str] | str | os.PathLike[str],
        database: int,
        decode: bool,
        raise_errors: bool,
        options: dict[str, Any],
    ) -> None:
        self._master = Master(nodes, options)
        databases = self._master.limits.databases
        if type(database) is not int or not 0 <= database < databases:
            raise ConfigurationError(f"There is no database {database!r}: there are {databases}, numbered from 0.")
        self.result: Result | None = None
        self._executes = {
            WRITE: self._master.execute,
            SAFE: self._master.execute,
            DIRTY: self._master.execute_dirty,
        }
        self._limits = self._master.limits
        self._limit_bytes = self._limits.value_bytes_max
        self._database = database
        self._text: Callable[[bytes], Text] = to_text if decode else bytes
        self._raises = bool(raise_errors)
        self._batch: _Batch | None = None
        self._connectivity = self._timeout = Status.SUCCESS
        self._queued = Result(_SUCCESS, Status.SUCCESS, Status.SUCCESS)

    def _read_command(self, row: tuple[Call, Any]) -> Row:
        """Status, key and value of a command and its answer."""
        call, answer = row
        if is_pair(call):
            call = ("set", self._database, *call, None, "always")
        key = self._text(key_of(call))
        try:
            if isinstance(answer, KeyspaceError):
                raise answer
            return Status.SUCCESS, key, self._text(OUTCOMES[call[0]](call, answer, self._limit_bytes))
        except KeyspaceError as error:
            return status_of_error(error), key, None

    def _read_row(self, row: bytes | tuple[bytes, bytes]) -> Row:
        """Status, key and value of a row of a listing."""
        if isinstance(row, bytes):
            return Status.SUCCESS, self._text(row), self._text(b"")
        return Status.SUCCESS, self._text(row[0]), self._text(row[1])

    def _succeed(self, row: Any, read: Callable[[Any], Row], kind: str) -> None:
        self._answered(kind)
        self.result = Result(_SUCCESS, self._connectivity, self._timeout, (row,), read)

    def _answered(self, kind: str) -> None:
        """The statuses after an answer. Only a dirty read can have one while no node leads."""
        self._timeout = Status.SUCCESS
        has_leader = kind != DIRTY or self._master.has_leader
        self._connectivity = Status.SUCCESS if has_leader else Status.NOMASTER

    def _fail(self, error: KeyspaceError) -> None:
        """Let the result say what went wrong; raise it, if this client raises."""
        statuses = statuses_of_error(error)
        if statuses.connectivity is not None and statuses.timeout is not None:
            self._connectivity, self._timeout = statuses.connectivity, statuses.timeout
        self.result = Result(statuses, self._connectivity, self._timeout, error=error)
        if self._raises:
            raise error

    def _checked(self, *call: Any) -> Call:
        check_call(call, self._limits)
        return call

    def _begin_kind(self, batch: _Batch, kind: str) -> None:
        """The first command of a batch decides which kind all others must be of."""
        if batch.calls:
            raise InvalidArgument(
                f"This batch has {batch.kind}, and {kind} cannot be part of it. Nothing was changed, the batch is as it "
                "was. Submit or cancel it first."
            )
        batch.kind = kind

    # ------------------------------------------------------------------------------------------- listings

    def _range(
        self, prefix: Text, start_key: Text, count: int, skip: bool, forward: bool
    ) -> tuple[int, bytes, bytes, bool, bool]:
        """The arguments of a listing that come first in its operation, checked. Raises KeyspaceError."""
        if self._batch is not None:
            raise InvalidArgument(
                "Listings and counts cannot be part of a batch. The batch is as it was. Submit or cancel it first."
            )
        found = (
            self._database,
            to_bytes("prefix", prefix),
            to_bytes("start_key", start_key),
            bool(skip),
            bool(forward),
        )
        check_call(("count", *found, count), self._limits)
        return found

    def _list(
        self, kind: str, prefix: Text, start_key: Text, count: int, skip: bool, forward: bool, with_values: bool
    ) -> list[Any] | None:
        """The rows of a listing: keys, or pairs of key and value. None on failure."""
        found: list[Any] = []
        execute = self._executes[kind]
        try:
            leave_out: bool | str
            database, stem, start, leave_out, onward = self._range(prefix, start_key, count, skip, forward)
            more = True
            while more and (not count or len(found) < count):
                rows = min(count - len(found), PAGE_ROWS_MAX) if count else PAGE_ROWS_MAX
                page, more = execute("list", database, stem, start, leave_out, onward, rows, with_values)
                if page:
                    start, leave_out = (page[-1][0] if with_values else page[-1]), AFTER
                if with_values:
                    page = [(key, plain_payload(record, self._limit_bytes)) for key, record in page]
                found += page
        except KeyspaceError as error:
            self._fail(error)
            return None
        self._answered(kind)
        self.result = Result(_SUCCESS, self._connectivity, self._timeout, found, self._read_row)
        return found

    def _count(self, kind: str, prefix: Text, start_key: Text, count: int, skip: bool, forward: bool) -> int | None:
        """How many rows a listing has. None on failure."""
        try:
            number = self._count_rows(kind, *self._range(prefix, start_key, count, skip, forward), count)
        except KeyspaceError as error:
            self._fail(error)
            return None
        self._succeed(number, lambda found: (Status.SUCCESS, self._text(b""), self._text(b"%d" % found)), kind)
        return number

    def _count_rows(
        self, kind: str, database: int, prefix: bytes, start: bytes, skip: bool | str, forward: bool, limit: int
    ) -> int:
        number = 0
        execute = self._executes[kind]
        while True:
            slice_: int
            slice_, last = execute("count", database, prefix, start, skip, forward, limit - number if limit else 0)
            number += slice_
            if last is None:
                return number
            start, skip = last, AFTER

    # ------------------------------------------------------------------------------------------- batches

    def begin(self) -> int:
        """Begin a batch: commands are kept until :meth:`submit` sends them together, and return None meanwhile.

        While a batch is open, ``result.command_status()`` says whether the last command was taken (``KEYSPACE_SUCCESS``) or
        refused (``KEYSPACE_API_ERROR``). A refused one leaves the batch as it was. The first command decides whether
        it is a batch of writes, of safe reads or of dirty ones.

        Returns:
            0, or ``KEYSPACE_API_ERROR`` inside a batch, which goes on.
        """
        if self._batch is not None:
            return self._misused("A batch is open already; it goes on. Submit or cancel it first.")
        self._batch = _Batch()
        self.result = self._queued
        return _OK

    def submit(self) -> int:
        """Send the batch and wait for the answers. It is not atomic, and no command is done twice.

        Returns:
            The transport status: ``KEYSPACE_SUCCESS`` if all commands were answered, whatever the answers,
            ``KEYSPACE_PARTIAL`` if some were, ``KEYSPACE_FAILURE`` if none was, ``KEYSPACE_API_ERROR`` without a batch.
            :attr:`result` has each command's status and value.
        """
        batch, self._batch = self._batch, None
        if batch is None:
            return self._misused("There is no batch to submit. Call begin() first.")
        answers, error = submit(self._executes[batch.kind or SAFE], batch.calls, batch.kind != WRITE, self._database)
        if error is None:
            self._answered(batch.kind)
            statuses = Statuses(Status.SUCCESS, Status.SUCCESS, self._connectivity, self._timeout)
        else:
            statuses = statuses_of_error(error)
            partial = any(answer is not error for answer in answers)
            statuses = statuses._replace(transport=Status.PARTIAL if partial else Status.FAILURE)
        self._connectivity = self._connectivity if statuses.connectivity is None else statuses.connectivity
        self._timeout = self._timeout if statuses.timeout is None else statuses.timeout
        calls = batch.calls
        self.result = Result(
            statuses,
            self._connectivity,
            self._timeout,
            range(len(calls)),
            lambda row: self._read_command((calls[row], answers[row])),
            error=error,
            of_batch=True,
        )
        if error is not None and self._raises:
            raise error
        return int(statuses.transport)

    def cancel(self) -> int:
        """Forget the batch; nothing is sent. Returns 0, or ``KEYSPACE_API_ERROR`` without a batch."""
        if self._batch is None:
            return self._misused("There is no batch to cancel. Call begin() first.")
        self._batch = None
        return _OK

    def _misused(self, sentence: str) -> int:
        self._fail(InvalidArgument(sentence))
        return _API_ERROR

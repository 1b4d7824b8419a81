"""The status codes of Scalien Keyspace, as one table, and how our errors map to them.

Source: the ancestor's Python API documentation, "Status codes". ``cache.last_status`` and the Keyspace client show them.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from django_keyspace import exceptions


class Status(IntEnum):
    """What became of a command. The numbers are the ancestor's."""

    SUCCESS = 0
    """The command was carried out."""
    API_ERROR = -1
    """The call itself was wrong: a key too long, a bad argument. Nothing was sent."""
    PARTIAL = -101
    """Some commands of a batch were answered, some were not."""
    FAILURE = -102
    """No command of a batch was answered."""
    NOMASTER = -201
    """Nodes answer, but none of them leads."""
    NOCONNECTION = -202
    """No node answers."""
    MASTER_TIMEOUT = -301
    """No leader was found within the leader timeout."""
    GLOBAL_TIMEOUT = -302
    """The call's whole time was over."""
    NOSERVICE = -401
    """The command could not be served."""
    FAILED = -402
    """The command was served and said no: a missing key, a failed comparison."""


_BY_ERROR: tuple[tuple[type[exceptions.KeyspaceError], Status], ...] = (
    (exceptions.MissingKey, Status.FAILED),
    (exceptions.NotANumber, Status.FAILED),
    (exceptions.NumberOverflow, Status.FAILED),
    (exceptions.WrongType, Status.FAILED),
    (exceptions.ConditionFailed, Status.FAILED),
    (exceptions.LocalError, Status.API_ERROR),
    (exceptions.ConfigurationError, Status.API_ERROR),
    (exceptions.KeyspaceError, Status.NOSERVICE),
)


def status_of_error(error: exceptions.KeyspaceError) -> Status:
    """The command status that stands for an error of this package."""
    return next(status for cls, status in _BY_ERROR if isinstance(error, cls))


def status_of_answer(answer: object) -> Status:
    """The command status that stands for an operation's answer: whether there was something to answer with."""
    if answer is None or answer is False:
        return Status.FAILED
    if isinstance(answer, list | tuple) and len(answer) == 2 and answer[0] is False:
        return Status.FAILED
    return Status.SUCCESS


class Statuses(NamedTuple):
    """The four statuses of a call, as Keyspace has them.

    Attributes:
        command: what became of the command.
        transport: whether it was sent and answered.
        connectivity: whether a node that leads was found; None: nobody looked, it is as it was.
        timeout: which time was over, if any; None: as it was.
    """

    command: Status
    transport: Status = Status.SUCCESS
    connectivity: Status | None = Status.SUCCESS
    timeout: Status | None = Status.SUCCESS


_OUTAGES: Final[tuple[tuple[type[exceptions.KeyspaceError], bool, Status, Status, Status], ...]] = (
    (exceptions.NoSpace, False, Status.SUCCESS, Status.SUCCESS, Status.SUCCESS),
    (exceptions.LockTimeout, False, Status.FAILURE, Status.SUCCESS, Status.GLOBAL_TIMEOUT),
    (exceptions.NoLeader, True, Status.FAILURE, Status.NOMASTER, Status.MASTER_TIMEOUT),
    (exceptions.NoLeader, False, Status.FAILURE, Status.NOCONNECTION, Status.MASTER_TIMEOUT),
    (exceptions.DeadlineExceeded, True, Status.FAILURE, Status.SUCCESS, Status.GLOBAL_TIMEOUT),
    (exceptions.DeadlineExceeded, False, Status.FAILURE, Status.NOCONNECTION, Status.GLOBAL_TIMEOUT),
    (exceptions.TooStale, False, Status.FAILURE, Status.SUCCESS, Status.SUCCESS),
    (exceptions.Overloaded, False, Status.FAILURE, Status.SUCCESS, Status.SUCCESS),
    (exceptions.NoConnection, True, Status.FAILURE, Status.NOMASTER, Status.SUCCESS),
    (exceptions.TransportError, False, Status.FAILURE, Status.NOCONNECTION, Status.SUCCESS),
    (exceptions.KeyspaceError, False, Status.FAILURE, Status.SUCCESS, Status.SUCCESS),
)
"""Class, whether a node must have been met for the row to count, then transport, connectivity and timeout."""


def statuses_of_error(error: exceptions.KeyspaceError) -> Statuses:
    """The four statuses of a call that ended with an error of this package."""
    command = status_of_error(error)
    if command is Status.FAILED:
        return Statuses(command)
    if command is Status.API_ERROR:
        return Statuses(command, Status.FAILURE, None, None)
    # What is unknown is the outcome; why it is, its cause says.
    cause = error.__cause__ if isinstance(error, exceptions.UnknownOutcome) else error
    reached = getattr(cause, "reached", False)
    transport, connectivity, timeout = next(
        row[2:] for row in _OUTAGES if isinstance(cause or error, row[0]) and row[1] <= reached
    )
    if timeout is Status.MASTER_TIMEOUT and getattr(cause, "took_all", False):
        timeout = Status.GLOBAL_TIMEOUT
    return Statuses(command, transport, connectivity, timeout)


def str_status(status: int) -> str | None:
    """The ancestor's name of a status code, such as ``KEYSPACE_SUCCESS``; None for a number that is none."""
    try:
        return f"KEYSPACE_{Status(status).name}"
    except ValueError:
        return None

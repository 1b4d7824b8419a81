"""The status codes of Scalien Keyspace, as one table, and how our errors map to them.

Source: the ancestor's Python API documentation, "Status codes". ``cache.last_status`` and the Keyspace client show them.
"""

from __future__ import annotations

from enum import IntEnum

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

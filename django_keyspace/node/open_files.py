"""How many files a node's process may have open: each connection is one, and so is each file of its store and its journal.

A node that runs out of them can't write: it could neither begin a segment of its journal nor say that its store has unsynced
writes. So it takes no more connections than leave it what it needs.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import Final

from django_keyspace.exceptions import ConfigurationError
from django_keyspace.node.service import SPARE_CONNECTIONS

logger = logging.getLogger("django_keyspace.node")

OWN_FILES: Final = 192
"""For everything but clients: store, journal, snapshots, links to other nodes, scripts, 64 connections of operators."""
_MACOS_FILES_MAX: Final = 10_240
"""More are refused there, whatever the hard limit says."""


def limit_connections(wanted: int) -> int:
    """Let this process open as many files as so many connections need, or as many as it may.

    Arguments:
        wanted: connections of clients.
    Returns:
        How many there may be: ``wanted``, or less.
    Raises:
        ConfigurationError: there would be none.
    """
    if sys.platform == "win32":
        return wanted
    import resource

    reserved = OWN_FILES + SPARE_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + reserved
    if hard != resource.RLIM_INFINITY:
        needed = min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < needed:
        for limit in (needed, min(needed, _MACOS_FILES_MAX)):
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
                break
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted + reserved:
        return wanted
    allowed = soft - reserved
    how = "Raise the limit of open files: ulimit -n, or LimitNOFILE of a systemd unit."
    if allowed < 1:
        raise ConfigurationError(
            f"This process may have {soft:,} files open, and a node needs {reserved:,} besides its clients. {how}"
        )
    logger.warning(
        "This process may have %s files open: the node takes %s connections instead of %s. %s",
        f"{soft:,}", f"{allowed:,}", f"{wanted:,}", how,
    )  # fmt: skip
    return allowed

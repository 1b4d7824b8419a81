"""Says in the log that the disk does not answer, and that it does again. Elections do not depend on it."""

from __future__ import annotations

import logging
from time import monotonic
from typing import Final

from django_keyspace.node.interfaces import Writer

logger = logging.getLogger("django_keyspace.node")

LOOKS: Final = 10
"""One write under way for so many looks in a row is worth a line: the process itself may have been stopped between two."""


class DiskWatch:
    """Looks at a writer now and then.

    Arguments:
        name: of the node.
        writer: of its journal.
    """

    def __init__(self, name: str, writer: Writer) -> None:
        self._name = name
        self._writer = writer
        self._since_s: float | None = None
        self._looks = 0

    def look(self) -> None:
        """Look, and say what is new."""
        since_s = self._writer.busy_since_s
        if since_s is not None and since_s == self._since_s:
            self._looks += 1
            if self._looks == LOOKS:
                logger.warning(
                    "The disk of node %s has not finished a write for %.1f seconds. Until it does, the node takes no entries and "
                    "does not lead; the others go on. Look at the disk.",
                    self._name,
                    monotonic() - since_s,
                )
            return
        if self._since_s is not None and self._looks >= LOOKS:
            logger.warning("The disk of node %s goes on, after %.1f seconds.", self._name, monotonic() - self._since_s)
        self._since_s, self._looks = since_s, 0

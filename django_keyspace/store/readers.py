"""Who holds an old state of a store for long: its pages cannot be used again, and the file grows with each write.

Reads of this package last microseconds. A process that was stopped in the middle of one (a debugger, SIGSTOP, a paused
container) holds the state that it was reading for as long as it sleeps.
"""

from __future__ import annotations

import logging
from typing import Final

logger = logging.getLogger("django_keyspace.store")

OLD_S: Final = 60.0
"""A state that is held for longer is worth a line in the log."""


class ReaderWatch:
    """Looks at LMDB's table of readers now and then.

    Arguments:
        path: the store's folder, for the log.

    Attributes:
        oldest_s: for how long the state that is held the longest has been held, as far as was seen; 0: none is.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._since: dict[tuple[str, str, str], float] = {}
        self._told: set[tuple[str, str, str]] = set()
        self.oldest_s = 0.0

    def look(self, table: str, last_transaction: int, now_s: float) -> None:
        """Look at the table.

        Arguments:
            table: as LMDB prints it: process, thread and transaction of each slot.
            last_transaction: number of the last commit. Who reads that state holds nothing that anybody wants back.
            now_s: the monotonic clock.
        """
        held = {}
        for line in table.splitlines()[1:]:
            process, thread, transaction = line.split()
            if transaction.isdigit() and int(transaction) < last_transaction:
                reader = process, thread, transaction
                held[reader] = self._since.get(reader, now_s)
        self._since = held
        self._told &= held.keys()
        self.oldest_s = now_s - min(held.values(), default=now_s)
        for reader, since_s in held.items():
            if now_s - since_s >= OLD_S and reader not in self._told:
                self._told.add(reader)
                logger.warning(
                    "Process %s has been reading an old state of %s for %d s: its file grows with each write until that ends. Is "
                    "the process stopped?",
                    reader[0],
                    self._path,
                    now_s - since_s,
                )

"""``on_error="miss"``: what operations answer while the store cannot be reached.

A read is a miss, a write reports that it was not done. Never does a caller win something because the store is down:
``add``, ``cas`` and their like answer no, and ``atomic``, ``script`` and ``status`` always raise. The table is by operation,
so every method of the cache, sync or async, degrades by the same rule.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from django_keyspace.exceptions import KeyspaceError, MissingKey, StorageError, TransportError, UnknownOutcome

logger = logging.getLogger("django_keyspace.backend")

OUTAGES: Final = (StorageError, TransportError, UnknownOutcome)
"""Errors that mean that the store, not the caller, is at fault."""
LOG_INTERVAL_S: Final = 30.0


def _missing(arguments: tuple[Any, ...], error: KeyspaceError) -> Any:
    raise MissingKey(f"The store cannot be reached, so the key counts as missing: {error}") from error


def _at(arguments: tuple[Any, ...], error: KeyspaceError) -> Any:
    call = arguments[3]
    if call[0] not in MISS_ANSWERS:
        raise error
    return MISS_ANSWERS[call[0]](call[1:], error), 0, None, ""


def _answer(value: Any) -> Callable[[tuple[Any, ...], KeyspaceError], Any]:
    return lambda arguments, error: value


MISS_ANSWERS: Final[dict[str, Callable[[tuple[Any, ...], KeyspaceError], Any]]] = {
    "get": _answer(None),
    "get_many": lambda arguments, error: [None] * len(arguments[1]),
    "exists": _answer(False),
    "length": _answer(None),
    "ttl": _answer(None),
    "list": lambda arguments, error: ([], False),
    "count": _answer((0, None)),
    "match_regex": _answer(([], None)),
    "match_similar": _answer(([], None)),
    "at": _at,
    "set": _answer(False),
    "set_many": _answer(0),
    "touch": _answer(False),
    "delete": _answer(False),
    "delete_many": _answer(0),
    "incr": _missing,
    "incr_float": _missing,
    "append": _answer(0),
    "cas": _answer((False, None)),
    "remove": _answer(None),
    "rename": _answer(False),
    "prune": _answer(0),
    "clear": _answer(0),
    "set_expiry": _answer(False),
    "remove_expiry": _answer(0),
    "clear_expiries": _answer(0),
    "cull": _answer(0),
    "batch": lambda arguments, error: [(error.code, str(error))] * len(arguments[0]),
}
"""The answer of each operation while the store is out of reach. An operation that is not here raises."""


class OutageLog:
    """Counts the errors that were turned into misses, and logs each kind at most every thirty seconds."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._logged_at: dict[str, float] = {}
        self._lock = threading.Lock()

    def after_fork(self) -> None:
        """In a forked child: the lock may be held by a thread of the parent."""
        self._lock = threading.Lock()

    def note(self, name: str, error: KeyspaceError) -> None:
        """Count an error, and perhaps log it."""
        with self._lock:
            count = self.counts[error.code] = self.counts.get(error.code, 0) + 1
            now = monotonic()
            if now - self._logged_at.get(error.code, -LOG_INTERVAL_S) < LOG_INTERVAL_S:
                return
            self._logged_at[error.code] = now
        logger.error("%s answers as if the store were empty (%s, %d so far): %s", name, error.code, count, error)

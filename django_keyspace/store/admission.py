"""Room for what is to be written: looked at before operations are applied, by whoever orders the writes.

The real fill of a store (the pages that hold data) costs a look at every database, so it is taken only after so many bytes
have been written: a 64th of the limit. Over the limit, records are evicted; if none may be, growing operations are refused,
and those that delete still pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from django_keyspace.exceptions import NoSpace
from django_keyspace.operations import OPERATIONS, Call
from django_keyspace.store import eviction
from django_keyspace.store.apply import apply

if TYPE_CHECKING:
    from django_keyspace.store.apply import WriteContext
    from django_keyspace.store.options import Counters, StoreOptions

_EVICTION_ROUNDS_MAX: Final = 64


class Admission:
    """The soft limit of one store, as one process keeps it.

    Arguments:
        path: the store's folder, for messages.
        options: with ``max_bytes``, the limit.
        counters: counts what was evicted and refused.

    Attributes:
        unchecked_bytes: written by this process since the fill was last looked at.
    """

    def __init__(self, path: str, options: StoreOptions, counters: Counters) -> None:
        self.unchecked_bytes = 0
        self._unchecked_bytes_max = options.max_bytes >> 6
        self._limit = options.max_bytes
        self._is_full = False
        self._path = path
        self._counters = counters

    def admit(self, context: WriteContext, calls: Sequence[Call]) -> NoSpace | None:
        """Make room for growing operations, by eviction if need be.

        Arguments:
            context: the write transaction that the operations are about to be applied in.
            calls: the operations.
        Returns:
            None, or the error for each growing operation: there is no room, and nothing may be evicted.
        """
        incoming = 0
        for call in calls:
            incoming += len(call[3][2]) if call[0] == "set" else _incoming_bytes(call)
        if not self._is_full and self.unchecked_bytes + incoming < self._unchecked_bytes_max:
            return None
        self.unchecked_bytes = 0
        limit = self._limit
        used = context.store.used_bytes(context.txn)
        self._is_full = used + incoming > limit
        if self._is_full and any(grows(call) for call in calls):
            if incoming < limit:  # what can never fit must not push anything out
                used = self._evict(context, used, incoming)
            self._is_full = used + incoming > limit
            if self._is_full:
                self._counters.no_space += 1
                return NoSpace(
                    f"The store {self._path} is full: its data takes {used:,} bytes, {incoming:,} are to be added, and "
                    f"the limit max_bytes is {limit:,}. Nothing more may be evicted. Nothing was written. Delete records, "
                    "or raise max_bytes."
                )
        return None

    def _evict(self, context: WriteContext, used: int, incoming: int) -> int:
        """Evict until a little below the limit. The fill after it, in bytes."""
        target = self._limit - (self._limit >> 5)
        for _ in range(_EVICTION_ROUNDS_MAX):
            addresses = eviction.choose(context, used + incoming - target)
            if not addresses:
                break
            self._counters.evicted += int(apply(context, "evict", [addresses]))
            used = context.store.used_bytes(context.txn)
            if used + incoming <= target:
                break
        return used


def grows(call: Call) -> bool:
    """Whether an operation, or one inside of it, may need new space."""
    if call[0] in ("batch", "atomic"):
        return any(grows(inner) for inner in call[-1])
    return OPERATIONS[call[0]].grows


def _incoming_bytes(call: Call) -> int:
    """About how many bytes an operation will add."""
    name = call[0]
    if name == "set":
        return len(call[3][2])
    if name == "set_many":
        return sum(len(value[2]) for _, value in call[2])
    if name in ("batch", "atomic"):
        return sum(_incoming_bytes(inner) for inner in call[-1])
    return 0

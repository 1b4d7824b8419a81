"""Room for what is to be written: looked at before operations are applied, by whoever orders the writes.

The real fill of a store (the pages that hold data) costs a look at every database, so it is taken only after so many bytes
have been written: a 64th of the limit. Over the limit, records are evicted; if none may be, growing operations are refused,
and those that delete still pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from django_keyspace.exceptions import NoSpace
from django_keyspace.operations import OPERATIONS, Call
from django_keyspace.store import eviction
from django_keyspace.store.apply import apply
from django_keyspace.store.record import unpack_header

if TYPE_CHECKING:
    from random import Random

    from django_keyspace.store.context import WriteContext
    from django_keyspace.store.options import Counters, StoreOptions

_VALUE, _PAYLOAD = itemgetter(1), itemgetter(2)
PLAN_HOLDS_MS: Final = 5_000
"""An eviction that a leader has planned and that did not come back from the log for so long is forgotten."""
_ROUNDS_MAX: Final = 256
_ROUNDS_AT_A_TIME: Final = 1
"""A write evicts so many rounds of some hundred records, a few milliseconds' work, unless it is far above the limit."""


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
        self._tolerance = options.max_bytes >> 5
        self._is_full = False
        self._planned: dict[eviction.Address, int] = {}
        self._planned_ms = self._planned_revision = 0
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
            incoming += len(call[3][2]) if call[0] == "set" else incoming_bytes(call)
        if self._is_roomy(incoming):
            return None  # nearly every write ends here
        used = self._look(context, incoming)
        if not self._is_full or not any(map(grows, calls)):
            return None
        has_more = False
        if incoming < self._limit:  # what can never fit must not push anything out
            used, has_more = self._evict(context, used, incoming)
        return self._judge(used, incoming, has_more)

    def needs_plan(self, calls: Sequence[Call]) -> bool:
        """Whether :meth:`plan` has to look at the store. Nearly always it need not."""
        return not self._is_roomy(sum(map(incoming_bytes, calls)))

    def plan(
        self, context: WriteContext, calls: Sequence[Call], generator: Random
    ) -> tuple[list[eviction.Address], NoSpace | None]:
        """What :meth:`admit` would do, by a transaction that only reads: for the leader of a log, who has it logged.

        How much an eviction frees is estimated from the records' sizes. What was planned counts as done for
        :data:`PLAN_HOLDS_MS` by the log clock, since it takes its time until the log has brought it here, if it ever does.

        Arguments:
            context: a transaction that sees what was applied so far, at the log time of the operations.
            calls: the operations.
            generator: draws the samples.
        Returns:
            The addresses for an ``evict`` before the operations, and as :meth:`admit`.
        """
        incoming = sum(map(incoming_bytes, calls))
        used = self._look(context, incoming)
        if not self._is_full or not any(map(grows, calls)):
            return [], None
        now_ms = context.log_time_ms
        if not self._planned_ms <= now_ms < self._planned_ms + PLAN_HOLDS_MS:
            self._planned = {}
        # Those that have gone, or gone and come again, are in the fill already.
        self._planned = {
            address: size for address, size in self._planned.items() if self._is_on_its_way(context, address)
        }
        used -= sum(self._planned.values())
        chosen: dict[eviction.Address, int] = {}
        has_more = False
        if self._limit < used + incoming and incoming < self._limit:
            chosen, has_more = self._choose(context, used, incoming, generator)
            self._planned_ms = now_ms
            self._planned_revision = context.store.read_meta(context.txn).revision
        return list(chosen), self._judge(used - sum(chosen.values()), incoming, has_more)

    def _is_on_its_way(self, context: WriteContext, address: eviction.Address) -> bool:
        """Whether what was planned to be evicted is still the record that it was."""
        stored, _ = context.find(*address)
        return stored is not None and unpack_header(stored)[3] <= self._planned_revision

    def _is_roomy(self, incoming: int) -> bool:
        """Whether there is room for so many bytes in any case, so that the fill need not be looked at."""
        return not self._is_full and self.unchecked_bytes + incoming < self._unchecked_bytes_max

    def _look(self, context: WriteContext, incoming: int) -> int:
        """The fill of the store in bytes; notes whether it leaves too little room."""
        self.unchecked_bytes = 0
        used = context.store.used_bytes(context.txn)
        self._is_full = used + incoming > self._limit
        return used

    def _judge(self, used: int, incoming: int, has_more: bool) -> NoSpace | None:
        """The answer to growing operations, after what was evicted; if there is more of that, the next write goes on with it."""
        self._is_full = used + incoming > self._limit
        if used + incoming <= self._limit + (self._tolerance if has_more else 0):
            return None
        self._counters.no_space += 1
        return NoSpace(
            f"The store {self._path} is full: its data takes {used:,} bytes, {incoming:,} are to be added, and the limit "
            f"max_bytes is {self._limit:,}. Nothing more may be evicted. Nothing was written. Delete records, or raise "
            "max_bytes."
        )

    def _choose(
        self, context: WriteContext, used: int, incoming: int, generator: Random
    ) -> tuple[dict[eviction.Address, int], bool]:
        """Choose what to evict, in rounds as :meth:`_evict` does them; and whether there is more."""
        target = self._limit - self._tolerance
        chosen: dict[eviction.Address, int] = {}
        for round_number in range(1, _ROUNDS_MAX + 1):
            more = eviction.choose(context, used + incoming - target, generator, self._planned)
            if not more:
                return chosen, False
            chosen |= more
            self._planned |= more
            used -= sum(more.values())
            if used + incoming <= self._enough(round_number):
                break
        return chosen, True

    def _enough(self, round_number: int) -> int:
        """The fill at which so many rounds of eviction may end."""
        return self._limit + (-self._tolerance if round_number < _ROUNDS_AT_A_TIME else self._tolerance)

    def _evict(self, context: WriteContext, used: int, incoming: int) -> tuple[int, bool]:
        """Evict until a little below the limit; or only for some rounds, if the next writes can go on with it.

        Returns:
            The fill after it, and whether there is more to evict.
        """
        target = self._limit - self._tolerance
        for round_number in range(1, _ROUNDS_MAX + 1):
            addresses = list(eviction.choose(context, used + incoming - target))
            if not addresses:
                return used, False
            self._counters.evicted += int(apply(context, ("evict", addresses)))
            used = context.store.used_bytes(context.txn)
            if used + incoming <= self._enough(round_number):
                break
        return used, True


def grows(call: Call) -> bool:
    """Whether an operation, or one inside of it, may need new space."""
    if call[0] in ("batch", "atomic"):
        return any(grows(inner) for inner in call[-1])
    if call[0] == "once":
        return grows(call[5])
    return OPERATIONS[call[0]].grows


def incoming_bytes(call: Call) -> int:
    """About how many bytes an operation will add."""
    name = call[0]
    if name == "set":
        return len(call[3][2])
    if name == "set_many":
        return sum(map(len, map(_PAYLOAD, map(_VALUE, call[2]))))
    if name in ("batch", "atomic"):
        return sum(incoming_bytes(inner) for inner in call[-1])
    if name == "once":
        return incoming_bytes(call[5])
    return 0

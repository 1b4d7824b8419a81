"""Is a history right? Each level of consistency against its own promise.

- *Safe* and *lease* reads, and all writes, have to be linearizable: there is one order in which each takes effect between its
  beginning and its answer, and which explains all answers. Keys that no call joins are checked apart (linearizability is local).
- A *session* read may see an older state, but none older than what its client has written or read before with a level other
  than dirty.
- A *dirty* read may see any state from the beginning on, or none older than its bound or its reported age, whichever is smaller,
  and ``slack_us``: what a message's way and the drift of clocks may add.

Both are put into the same order as the rest, with an earlier beginning: what they saw must have been true at some time. Besides,
what answers say of the log's index has to fit, and some promises are checked once more without any search (`direct.py`).

Where a store's deadlines and evictions make records vanish, reads may be either; see `model.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.sim import calls, direct, model
from tests.sim.history import NEVER, Event, History
from tests.sim.narrow import SEARCHES
from tests.sim.search import STEPS_MAX, Dead, Op, Search, Undecided

SHOWN_MAX = 25
"""A violation shows at most so many events."""


class BadHistory(AssertionError):
    """A history that no correct store has."""


@dataclass(frozen=True)
class Violation:
    """One promise that was broken.

    Attributes:
        kind: a word for it: ``order``, or the name of a direct check.
        text: for people, with the events that show it.
        event: the call that fits nowhere.
    """

    kind: str
    text: str
    event: Event | None = None


@dataclass
class Report:
    """What a check found.

    Attributes:
        violations: what is wrong.
        undecided: keys for which the search took too many steps, with the number of their calls.
        events: how many events were looked at.
        parts: how many groups of keys were searched.
        largest: the number of calls of the largest one.
        steps: steps of all searches.
    """

    violations: list[Violation] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)
    events: int = 0
    parts: int = 0
    largest: int = 0
    steps: int = 0

    @property
    def verdict(self) -> str:
        """``wrong``, ``undecided`` or ``right``."""
        return "wrong" if self.violations else "undecided" if self.undecided else "right"

    def require(self, *, allow_undecided: bool = False) -> None:
        """Raise :class:`BadHistory` unless the history is right. No answer is a failure, too, unless that is allowed."""
        if self.violations or (self.undecided and not allow_undecided):
            raise BadHistory("\n\n".join([*(violation.text for violation in self.violations), *self.undecided]))


def check(
    history: History | Iterable[Event],
    *,
    evicting: bool = False,
    slack_us: int = 0,
    steps_max: int = STEPS_MAX,
    searches: Sequence[type[Search]] = SEARCHES,
) -> Report:
    """Check a history.

    Arguments:
        history: what the clients noted. The keys are empty at its beginning.
        evicting: the store may evict records with the flag for that.
        slack_us: how much older than its bound or reported age a dirty read may be, in microseconds.
        steps_max: give up the search over a group of keys after so many steps.
        searches: one after the other, until one finds an order; a test may put broken ones in their place.
    """
    events = list(history.events if isinstance(history, History) else history)
    report = Report(events=len(events))
    for kind, text, event in direct.complaints(events):
        report.violations.append(Violation(kind, text, event))
    begins = _beginnings(events, slack_us)
    counted = [
        event
        for event in events
        if event.outcome in ("ok", "error") or (event.outcome == "unknown" and event.call[0] not in model.READS)
    ]
    for keys, part in partition(counted):
        ops = _ops(part, begins)
        report.parts += 1
        report.largest = max(report.largest, len(ops))
        try:
            dead = _search(ops, keys, report, searches, evicting=evicting, steps_max=steps_max)
        except Undecided as reason:
            report.undecided.append(f"UNDECIDED, {reason}: {len(ops)} calls on {len(keys)} keys, {_names(keys)}")
        else:
            if dead is not None:
                report.violations.append(Violation("order", _explain(dead, keys), dead.op.event))
    return report


def _search(
    ops: Sequence[Op], keys: Sequence[model.Address], report: Report, searches: Sequence[type[Search]], **settings: Any
) -> Dead | None:
    """Where the last search ended; None as soon as one has found an order."""
    dead: Dead | None = None
    for number, search in enumerate(searches, 1):
        running = search(ops, keys, **settings)
        try:
            dead = running.run()
        except Undecided:
            if number == len(searches):
                raise
            continue
        finally:
            report.steps += running.steps
        if dead is None:
            return None
    return dead


def partition(events: Sequence[Event]) -> list[tuple[list[model.Address], list[Event]]]:
    """Groups of keys that calls join, each with its events in the order in which they were given."""
    footprints = [calls.footprint(event.call) for event in events]
    known: set[model.Address] = set().union(*(keys for keys, _ in footprints))
    for event in events:
        known.update(_listed(event))
    parent: dict[model.Address, model.Address] = {address: address for address in known}

    def root(address: model.Address) -> model.Address:
        while parent[address] != address:
            parent[address] = address = parent[parent[address]]
        return address

    all_of: dict[model.Address, list[model.Address]] = {}
    homes: list[model.Address | None] = []
    for keys, prefixes in footprints:
        joined = set(keys)
        for database, prefix in prefixes:
            if (database, prefix) not in all_of:
                all_of[database, prefix] = [key for key in known if key[0] == database and key[1].startswith(prefix)]
            joined.update(all_of[database, prefix])
        homes.append(min(joined, default=None))
        for address in joined:
            parent[root(address)] = root(min(joined))
    groups: dict[model.Address, list[Event]] = {}
    for event, home in zip(events, homes, strict=True):
        # A listing of keys that nobody ever names touches none: it is checked on a key that is always empty.
        groups.setdefault((0, b"") if home is None else root(home), []).append(event)
    members: dict[model.Address, list[model.Address]] = {}
    for address in sorted(known):
        members.setdefault(root(address), []).append(address)
    return [(members.get(home, []), part) for home, part in sorted(groups.items())]


def _listed(event: Event) -> Iterable[model.Address]:
    """Keys that a listing named. One that nobody wrote is a phantom, and has to be in the state to be missed there."""
    if event.call[0] == "list" and event.outcome == "ok":
        for row in event.result[0]:
            yield event.call[1], row[0] if isinstance(row, tuple) else row


def _moment(event: Event) -> tuple[int, int]:
    return event.invoked_us, event.began_turn


def _ended(event: Event) -> tuple[int, int]:
    return (NEVER, 0) if event.outcome == "unknown" else (event.returned_us, event.ended_turn)


def _beginnings(events: Iterable[Event], slack_us: int) -> dict[tuple[str, int], tuple[int, int]]:
    """The earliest moment at which each call may take effect."""
    begins: dict[tuple[str, int], tuple[int, int]] = {}
    earlier: dict[str, list[Event]] = {}
    for event in sorted(events, key=_moment):
        moment = _moment(event)
        if event.level == "dirty":
            bounds = [bound for bound in (event.max_staleness_us, event.age_us) if bound is not None]
            moment = (event.invoked_us - min(bounds) - slack_us, 0) if bounds else (-NEVER, 0)
        elif event.level == "session":
            seen = [begins[e.client, e.call_id] for e in earlier.get(event.client, ()) if _ended(e) < _moment(event)]
            moment = max(seen, default=(-NEVER, 0))
        begins[event.client, event.call_id] = moment
        if event.level != "dirty" and event.outcome in ("ok", "error"):
            earlier.setdefault(event.client, []).append(event)
    return begins


def _written(events: Iterable[Event]) -> dict[model.Value, tuple[int, int]]:
    """When somebody first began to write each value, without those that may have been made from others."""
    first: dict[model.Value, tuple[int, int]] = {}
    made: set[int] = set()
    for event in events:
        for value, tags in calls.written(event.call):
            made.update(tags)
            if value is not None:
                first.setdefault(value, _moment(event))
    return {value: moment for value, moment in first.items() if value[0] not in made}


def _ops(events: Iterable[Event], begins: dict[tuple[str, int], tuple[int, int]]) -> list[Op]:
    events = sorted(events, key=_moment)
    ops: list[Op] = []
    earlier: dict[str, list[Op]] = {}
    written = _written(events)
    for event in events:
        op = Op(event, begins[event.client, event.call_id], _ended(event))
        if event.level in ("session", "dirty") and event.outcome == "ok":
            # It cannot have seen a value before somebody began to write it: the search is shorter for it.
            values = calls.values_of(event.call, model.seen(event.call, event.result))
            op.begins = max([op.begins, *(written.get(value, op.begins) for value in values)])
        if event.level == "session":
            op.after = [e for e in earlier.get(event.client, ()) if op.begins <= e.ends < _moment(event)]
            op.begins = max([op.begins, *(leader.begins for leader in op.after)])
        if event.level != "dirty" and event.outcome != "unknown":
            earlier.setdefault(event.client, []).append(op)
        ops.append(op)
    return ops


def _names(keys: Sequence[model.Address]) -> str:
    shown = ", ".join(f"{database}:{key.decode('ascii', 'backslashreplace')}" for database, key in keys[:6])
    return shown + (", ..." if len(keys) > 6 else "")


def _explain(dead: Dead, keys: Sequence[model.Address]) -> str:
    """The call that fits nowhere, what overlaps it, what came just before, and what the keys might have been."""
    op = dead.op
    own = calls.footprint(op.event.call)[0]
    near = [other for other in dead.under_way if not own or not own.isdisjoint(calls.footprint(other.event.call)[0])]
    lines = [f"NO ORDER explains this history of {_names(keys)}. Fits nowhere:", f"  {op.event.line()}", "Before it:"]
    for cells in dead.states:
        shown = {key: cell for key, cell in cells.items() if key in own} or cells
        lines.append("  " + "; ".join(f"{key[1]!r}: {_cell(cell)}" for key, cell in list(shown.items())[:8]))
    lines.append(f"Overlapping calls ({len(near)}; unknown outcomes may take effect until the end):")
    lines += [f"  {other.event.line()}" for other in near[:SHOWN_MAX]]
    lines.append("The last answers on the same keys before:")
    earlier = [other for other in dead.before if not own or not own.isdisjoint(calls.footprint(other.event.call)[0])]
    lines += [f"  {other.event.line()}" for other in earlier[-12:]]
    return "\n".join(lines)


def _cell(cell: model.Cell) -> str:
    marks = "".join([" (may be gone)" if cell.mortal else "", " (deadline on its name)" if cell.fused else ""])
    return f"{'nothing' if cell.value is None else cell.value!r}{marks}"

"""All orders of a small history, tried one after the other: what the search is compared with."""

from __future__ import annotations

from collections.abc import Sequence

from tests.sim import calls, model
from tests.sim.history import Event


def must_come_first(one: Event, other: Event) -> bool:
    """Whether no order may have ``other`` before ``one``, said a second time and for two calls alone."""
    ended = one.returned_us < other.invoked_us
    if other.level == "session":
        # What the client has seen itself, by calls that see the newest state or by session reads.
        return ended and one.client == other.client and one.level != "dirty"
    if other.level == "dirty":
        bounds = [bound for bound in (other.max_staleness_us, other.age_us) if bound is not None]
        return bool(bounds) and one.returned_us < other.invoked_us - min(bounds)
    return ended


def is_right(events: Sequence[Event]) -> bool:
    """Whether there is an order that explains the answers of a small history."""
    events = [
        event
        for event in events
        if event.outcome != "refused" and not (event.outcome == "unknown" and event.call[0] in model.READS)
    ]
    keys: set[model.Address] = set()
    for event in events:
        keys |= calls.footprint(event.call)[0]
    dead: set[tuple[frozenset[int], frozenset[tuple[model.Address, model.Cell]]]] = set()

    def explain(left: frozenset[int], cells: dict[model.Address, model.Cell]) -> bool:
        if all(events[number].outcome == "unknown" for number in left):
            return True
        situation = (left, frozenset((key, cell) for key, cell in cells.items() if cell != model.EMPTY))
        if situation in dead:
            return False
        for number in left:
            event = events[number]
            if any(must_come_first(events[other], event) for other in left if other != number):
                continue
            wanted = model.seen(event.call, event.result) if event.outcome == "ok" else event.result
            ways = model.outcomes(lambda address: cells.get(address, model.EMPTY), sorted(keys), event.call)
            for changes, word, result in ways:
                if event.outcome == "unknown" or (word == event.outcome and result == wanted):
                    if explain(left - {number}, {**cells, **changes}):
                        return True
        dead.add(situation)
        return False

    return explain(frozenset(range(len(events))), {})

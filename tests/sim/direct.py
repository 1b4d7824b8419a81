"""Promises that can be checked without a search: a second opinion, on what matters most.

Each check is a function from a history's events to complaints ``(kind, text, event)``. None of them alone is complete; each says
only what is certainly wrong, whatever the order was.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from tests.sim import calls, model
from tests.sim.history import Event

Complaint = tuple[str, str, Event]


def complaints(events: Sequence[Event]) -> Iterator[Complaint]:
    """Everything that the direct checks find."""
    for name, check in CHECKS.items():
        for text, event in check(events):
            yield name, f"{text}\n  {event.line()}", event


def _answered(events: Iterable[Event], *names: str) -> list[Event]:
    return [event for event in events if event.outcome == "ok" and event.call[0] in names]


def bounds(events: Sequence[Event]) -> Iterator[tuple[str, Event]]:
    """Answers keep what was asked for with the call: the index, the greatest age, the condition's own words."""
    for event in events:
        if event.outcome != "ok":
            continue
        if event.min_index is not None and event.index is not None and event.index < event.min_index:
            yield f"A read asked for index {event.min_index} and got an older state:", event
        if None not in (event.age_us, event.max_staleness_us) and event.age_us > event.max_staleness_us:
            yield f"A dirty read asked for at most {event.max_staleness_us} us and got an older state:", event
        if event.call[0] == "cas" and event.call[2][0] == "revision":
            swapped, record = event.result
            if swapped != (record is not None and model.record_revision(record) == event.call[2][2]):
                yield "A swap on a revision does not agree with the record that it answered:", event


def indexes(events: Sequence[Event]) -> Iterator[tuple[str, Event]]:
    """The applied index of answers: a session's never goes back, and what is safe is behind nothing that anybody saw before."""
    answered = sorted((e for e in events if e.outcome == "ok" and e.index is not None), key=lambda e: e.returned_us)
    times: list[int] = []
    highest: list[int] = []
    for event in answered:
        times.append(event.returned_us)
        highest.append(max(event.index, highest[-1] if highest else 0))
    for event in answered:
        if event.level in ("safe", "lease"):
            place = bisect.bisect_left(times, event.invoked_us)
            if place and event.index < highest[place - 1]:
                yield f"Somebody had seen index {highest[place - 1]} before this call began:", event
    seen: dict[str, list[tuple[int, int]]] = {}
    for event in answered:
        if event.level == "session":
            before = max((i for at, i in seen.get(event.client, ()) if at <= event.invoked_us), default=0)
            if event.index < before:
                yield f"This session had seen index {before} before:", event
        if event.level != "dirty":
            seen.setdefault(event.client, []).append((event.returned_us, event.index))


def equal_indexes(events: Sequence[Event]) -> Iterator[tuple[str, Event]]:
    """Two reads of a key at the same index see the same value, wherever they were answered; only a deadline hides it."""
    values: dict[Any, tuple[model.Value, Event]] = {}
    for event in _answered(events, "get"):
        if event.index is not None and event.result is not None:
            value = model.record_value(event.result)
            first, other = values.setdefault((event.index, event.call), (value, event))
            if first != value:
                yield f"Another read at index {event.index} saw something else, {first!r}:\n  {other.line()}", event


def _single(call: Sequence[Any]) -> model.Address | None:
    """The key of a call with one key, None for any other."""
    keys, prefixes = calls.footprint(call)
    return next(iter(keys)) if len(keys) == 1 and not prefixes and call[0] not in ("batch", "atomic") else None


def counters(events: Sequence[Event]) -> Iterator[tuple[str, Event]]:
    """A counter that is only ever incremented holds what was acknowledged before, and at most what was begun, too."""
    added: dict[model.Address, list[tuple[int, int, int]]] = {}
    other: set[model.Address] = set()
    prefixes: set[model.Address] = set()
    for event in events:
        if event.outcome == "refused" or event.call[0] in model.READS:
            continue
        key = _single(event.call)
        if event.call[0] == "incr" and key and event.call[3] >= 0 and event.call[4] == 0 and event.call[5] is None:
            if event.outcome != "error":
                times = (event.invoked_us, event.returned_us, event.call[3])
                added.setdefault(key, []).append(times)
        else:
            keys, ranges = calls.footprint(event.call)
            other |= keys
            prefixes |= ranges
    for event in events:
        if event.outcome != "ok" or event.call[0] not in ("get", "incr") or event.level not in ("safe", "lease"):
            continue
        key = (event.call[1], event.call[2])
        if key not in added or key in other or any(d == key[0] and key[1].startswith(p) for d, p in prefixes):
            continue
        number = event.result
        if event.call[0] == "get":
            number = model.number(number)
        low = sum(delta for _, returned_us, delta in added[key] if returned_us < event.invoked_us)
        high = sum(delta for invoked_us, _, delta in added[key] if invoked_us <= event.returned_us)
        if number is None or not low <= number <= high:
            yield f"The counter is {number}; {low} were acknowledged before, {high} begun by then:", event


def lost_writes(events: Sequence[Event]) -> Iterator[tuple[str, Event]]:
    """A safe read sees a value that was written, and not one that an acknowledged write had replaced before it began.

    Only for keys that are only set and read, and values that were written once.
    """
    writes: dict[model.Address, list[Event]] = {}
    reads: dict[model.Address, list[Event]] = {}
    other: set[model.Address] = set()
    prefixes: set[model.Address] = set()
    for event in events:
        call = event.call
        if event.outcome == "refused":
            continue
        if call[0] == "get" and event.outcome == "ok":
            reads.setdefault((call[1], call[2]), []).append(event)
        elif call[0] == "set" and call[4] is None and call[5] == "always" and event.outcome != "error":
            writes.setdefault((call[1], call[2]), []).append(event)
        elif call[0] not in model.READS:
            keys, ranges = calls.footprint(call)
            other |= keys
            prefixes |= ranges
    for key, asked in reads.items():
        if key not in other and not any(d == key[0] and key[1].startswith(p) for d, p in prefixes):
            yield from _lost(writes.get(key, []), asked)


def _lost(writes: Sequence[Event], reads: Sequence[Event]) -> Iterator[tuple[str, Event]]:
    writers: dict[Any, list[Event]] = {}
    for write in writes:
        writers.setdefault(write.call[3], []).append(write)
    by_return = sorted(writes, key=lambda write: write.returned_us)
    returns = [write.returned_us for write in by_return]
    latest: list[Event] = []  # of the writes that had returned by then, the one that was begun last
    for write in by_return:
        latest.append(max(write, latest[-1], key=lambda w: w.invoked_us) if latest else write)
    for read in reads:
        place = bisect.bisect_left(returns, read.invoked_us)
        newest = latest[place - 1] if place else None
        if read.result is None:
            if newest is not None and read.level in ("safe", "lease"):
                yield f"Nothing is there, though this was acknowledged before:\n  {newest.line()}", read
            continue
        wrote = writers.get(model.record_value(read.result), [])
        if not any(write.invoked_us <= read.returned_us for write in wrote):
            yield "Nobody had written this value:", read
        elif read.level in ("safe", "lease") and newest is not None:
            if all(write.returned_us < newest.invoked_us for write in wrote):
                yield f"This had replaced it before:\n  {newest.line()}", read


CHECKS: Final[dict[str, Callable[[Sequence[Event]], Iterator[tuple[str, Event]]]]] = {
    "bounds": bounds,
    "indexes": indexes,
    "equal-indexes": equal_indexes,
    "counters": counters,
    "lost-writes": lost_writes,
}
"""The direct checks by the kind of violation that they report."""

"""What has to hold when the trouble is over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from django_keyspace.addresses import parse_location
from django_keyspace.backend.transport import RemoteEngine
from django_keyspace.testing.cluster import await_found
from tests.sim.checker import Report, check
from tests.sim.history import Event, History, now_us
from tests.sim.model import number, record_value

from .place import Place

KEYS_AT_ONCE = 500
SETTLED_TIMEOUT_S = 60.0


class Broken(AssertionError):
    """The cluster has not kept what it has promised."""


def outcomes(events: Iterable[Event]) -> Counter[str]:
    """How often a call ended in which way."""
    return Counter(event.outcome for event in events)


def check_all(place: Place, history: History) -> Report:
    """Check everything.

    Arguments:
        place: the cluster, whole again.
        history: of all clients.
    Raises:
        Broken, BadHistory: something does not hold.
    """
    engine = RemoteEngine(parse_location(place.location).endpoints, timeout_ms=60_000, security=place.security)
    try:
        check_once(engine, history.events)
        check_totals(engine, history.events)
        read_all(engine, history)
    finally:
        engine.close()
    check_equal(place)
    report = check(history)
    report.require()
    return report


def check_once(engine: Any, events: Iterable[Event]) -> None:
    """No acknowledged write is missing: each of these keys was written once, with its own name as the value."""
    acknowledged = [event.call[2] for event in events if event.outcome == "ok" and _is_once(event)]
    for first in range(0, len(acknowledged), KEYS_AT_ONCE):
        keys = acknowledged[first : first + KEYS_AT_ONCE]
        for key, record in zip(keys, engine.execute("get_many", 0, keys), strict=True):
            if record is None:
                raise Broken(f"The write of {key!r} was acknowledged, and is missing.")
            if record_value(record)[2] != key.removeprefix(b"once:"):
                raise Broken(f"{key!r} holds {record!r:.200}.")


def _is_once(event: Event) -> bool:
    return event.call[0] == "set" and event.call[2].startswith(b"once:")


def check_totals(engine: Any, events: Iterable[Event]) -> None:
    """Every increment that was acknowledged was done once; one of an unknown outcome at most once."""
    sure: Counter[bytes] = Counter()
    unsure: Counter[bytes] = Counter()
    for event in events:
        if event.call[0] == "incr" and event.call[2].startswith(b"total:") and event.outcome in ("ok", "unknown"):
            (sure if event.outcome == "ok" else unsure)[event.call[2]] += event.call[3]
    for key in {*sure, *unsure}:
        found = number(engine.execute("get", 0, key)) or 0
        if not sure[key] <= found <= sure[key] + unsure[key]:
            raise Broken(f"{key!r} is {found}, and must be from {sure[key]} to {sure[key] + unsure[key]}.")


def read_all(engine: Any, history: History) -> None:
    """Read every key of the workload once more, as the last events of the history."""
    keys = sorted({key for event in history.events for key in _keys(event.call)})
    for key in keys:
        if not key.startswith(b"once:"):
            ticket = history.begin("verify", ("get", 0, key), now_us())
            history.finish(ticket, now_us(), engine.execute("get", 0, key))


def _keys(call: tuple[Any, ...]) -> Iterable[bytes]:
    from tests.sim.calls import footprint

    return [key for _, key in footprint(call)[0]]


def check_equal(place: Place) -> None:
    """All nodes come to the same index, and hold the same there."""
    seen: dict[str, tuple[int, bytes]] = {}

    def look() -> bool | None:
        for name in place.nodes:
            seen[name] = tuple(place.ask(name, "node_digest", timeout_s=30))
        return len({index for index, _ in seen.values()}) == 1 or None

    if await_found(look, SETTLED_TIMEOUT_S) is None:
        raise Broken(f"The nodes do not come to the same index: { {name: index for name, (index, _) in seen.items()} }")
    if len({digest for _, digest in seen.values()}) > 1:
        raise Broken(f"At entry {next(iter(seen.values()))[0]} the nodes do not hold the same: {seen}")

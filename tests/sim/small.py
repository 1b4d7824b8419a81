"""Small random histories, right ones and wrong ones, on keys that belong together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

from tests.sim import model, toy
from tests.sim.history import NEVER, Event

VALUES = ((1, 0, b"x"), (1, 0, b"y"), (3, 0, b"1"))
KEYS = (b"a", b"b")


def small_call(random: Random, keys: tuple[bytes, ...]) -> tuple[Any, ...]:
    """A call with few possible values, so that much is ambiguous."""
    key, value = random.choice(keys), random.choice(VALUES)
    expire = random.choice((None, None, None, None, "keep", 1000))
    calls: list[Callable[[], tuple[Any, ...]]] = [
        lambda: ("get", 0, key),
        lambda: ("get", 0, key),
        lambda: ("get", 0, key),
        lambda: ("set", 0, key, value, expire, "always"),
        lambda: ("set", 0, key, value, None, "always"),
        lambda: ("set", 0, key, value, expire, random.choice(("absent", "present"))),
        lambda: ("delete", 0, key),
        lambda: ("remove", 0, key),
        lambda: ("exists", 0, key),
        lambda: ("incr", 0, key, 1, random.choice((None, 0)), None, 0),
        lambda: ("append", 0, key, (1, 0, b"z"), None),
        lambda: ("cas", 0, random.choice((("absent", key), ("value", key, None, b"x"))), value, expire),
    ]
    if len(keys) > 1:
        calls += [
            lambda: ("get_many", 0, keys),
            lambda: ("set_many", 0, ((keys[0], value), (keys[1], value)), expire),
            lambda: ("delete_many", 0, keys),
            lambda: ("rename", 0, keys[0], keys[1]),
            lambda: ("prune", 0, b""),
            lambda: ("list", 0, b"", b"", False, True, 10, random.random() < 0.5),
            lambda: ("atomic", ((0, ("absent", keys[1])),), (("set", 0, keys[0], value, None, "always"),)),
        ]
    return random.choice(calls)()


def small_history(random: Random) -> list[Event]:
    """At most seven calls; in most histories something was changed afterwards, which may or may not show.

    Their keys belong together: a history of two keys begins with a read of both.
    """
    keys = KEYS[: random.choice((1, 1, 2))]
    store = toy.Toy(random)
    number = random.randint(3, 7)
    calls = [small_call(random, keys) for _ in range(number)]
    if len(keys) > 1:
        calls[0] = ("get_many", 0, keys)
    free_at = dict.fromkeys(("c0", "c1", "c2", "c3"), 0)
    planned = []
    for call in calls:
        client = random.choice(list(free_at))
        begin = free_at[client] + random.choice((1, 2, 10))
        end = begin + random.choice((2, 5, 20, 40))
        free_at[client] = end
        planned.append([random.randint(begin, end), client, call, begin, end])
    planned.sort(key=lambda plan: plan[0])
    states = [store.cells]
    for effect, client, call, begin, end in planned:
        is_read = call[0] in model.READS
        if not is_read and random.random() < 0.25:
            if random.random() < 0.5:
                store.do(call, effect)
            store.note(client, call, begin, NEVER, "unknown", None)
        elif is_read and random.random() < 0.3:
            level = random.choice(("session", "dirty"))
            result = toy.packed(call, store.answer(call, random.choice(states[-3:])).result)
            bound = random.choice((None, 5, 20)) if level == "dirty" else None
            store.note(client, call, begin, end, "ok", result, level=level, max_staleness_us=bound)
        else:
            word, result, _ = store.do(call, effect)
            store.note(client, call, begin, end, word, result)
        states.append(store.cells)
    events = store.events
    for _ in range(random.choice((0, 1, 2, 3))):
        spoil(random, events)
    return events


def answer_of(random: Random, event: Event) -> Any:
    """Some answer that a call might have given."""
    name, record = event.call[0], model.pack_record(random.choice((*VALUES, (3, 0, b"2"), (1, 0, b"xz"))))
    some = random.choice((None, record, record))
    return {
        "get": some, "remove": some, "get_many": (some, random.choice((None, record))),
        "cas": (random.random() < 0.5, some), "incr": random.randint(1, 3), "append": random.randint(1, 3),
        "prune": random.randint(0, 2), "delete_many": random.randint(0, 2),
        "list": ((KEYS[:1], KEYS, ())[random.randint(0, 2)], False),
    }.get(name, random.random() < 0.5)  # fmt: skip


def spoil(random: Random, events: list[Event]) -> None:
    """Change one event: its answer for that of another call, its time, or whether its outcome is known."""
    place = random.randrange(len(events))
    event = events[place]
    kind = (event.call[0], event.call[-1] is True)
    same = [other for other in events if (other.call[0], other.call[-1] is True) == kind and other.outcome != "unknown"]
    way = random.random()
    if way < 0.3 and same:
        other = random.choice(same)
        events[place] = replace(event, outcome=other.outcome, result=other.result, returned_us=event.invoked_us + 20)
    elif way < 0.5 and event.outcome != "unknown":
        moved = random.choice((-40, -20, 20, 40))
        events[place] = replace(event, invoked_us=event.invoked_us + moved, returned_us=event.returned_us + moved)
    elif event.outcome != "unknown" and event.call[0] not in ("atomic", "set_many") and event.call[-1] is not True:
        events[place] = replace(event, outcome="ok", result=answer_of(random, event))
    elif event.outcome == "unknown":
        events[place] = replace(event, outcome="refused", returned_us=event.invoked_us + 20)

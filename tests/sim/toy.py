"""A toy store with one log, whose histories are right by construction: what the checker is checked with.

Each call takes effect at one moment between its beginning and its answer; a write that changes something is one more place in the
log. Replicas are the states of the past. Calls are made by clients that wait for one answer after the other.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from tests.sim import model
from tests.sim.history import NEVER, Event

Draw = Callable[[Random, Callable[[], model.Value]], tuple[Any, ...]]

DRAW_KEYS = (b"a", b"b", b"c", b"p1", b"p2", b"p3")


class Toy:
    """The store: its log of states, and the history of what was done to it.

    Arguments:
        random: decides times and what is asked.

    Attributes:
        events: the history so far.
        cells: the state now.
        past: ``(since when, state)`` at each index of the log.
        sees: the index that each client has seen.
    """

    def __init__(self, random: Random) -> None:
        self.random = random
        self.events: list[Event] = []
        self.cells: dict[model.Address, model.Cell] = {}
        self.past: list[tuple[int, dict[model.Address, model.Cell]]] = [(0, {})]
        self.sees: dict[str, int] = {}
        self._values = 0

    def value(self) -> model.Value:
        """A value that no other call writes."""
        self._values += 1
        return (1, 0, b"v%d" % self._values)

    def answer(self, call: tuple[Any, ...], cells: dict[model.Address, model.Cell]) -> model.Outcome:
        """What a call answers in a state, and what it changes there."""
        ways = model.outcomes(lambda address: cells.get(address, model.EMPTY), sorted(cells), call)
        return next(iter(ways))

    def do(self, call: tuple[Any, ...], at_us: int) -> tuple[str, Any, int]:
        """Let a call take effect now: ``ok`` or ``error``, its answer with records as bytes, and the index."""
        changes, word, result = self.answer(call, self.cells)
        if changes:
            self.cells = {**self.cells, **changes}
            self.past.append((at_us, self.cells))
        return word, packed(call, result) if word == "ok" else result, len(self.past) - 1

    def note(self, client: str, call: tuple[Any, ...], begin_us: int, end_us: int, word: str, result: Any,
             **more: Any) -> Event:  # fmt: skip
        """Add an event to the history."""
        ends = NEVER if word == "unknown" else end_us
        self.events.append(Event(client, len(self.events), call, begin_us, ends, word, result, **more))
        return self.events[-1]

    def call(self, client: str, call: tuple[Any, ...], at_us: int, **more: Any) -> Any:
        """A call that nothing overlaps: it begins just before a moment and ends just after it."""
        word, result, index = self.do(call, at_us)
        return self.note(client, call, at_us - 1, at_us + 1, word, result, index=index, **more).result


def packed(call: tuple[Any, ...], result: Any) -> Any:
    """An answer with records as bytes, as a store gives it."""
    name = call[0]
    if name in ("get", "remove"):
        return None if result is None else model.pack_record(result)
    if name == "get_many":
        return tuple(None if value is None else model.pack_record(value) for value in result)
    if name == "cas":
        return result[0], None if result[1] is None else model.pack_record(result[1])
    if name == "list" and call[7]:
        return tuple((key, model.pack_record(value)) for key, value in result[0]), result[1]
    if name == "atomic" and result[0]:
        return True, tuple(packed(part, answer) for part, answer in zip(call[2], result[1], strict=True))
    if name == "batch":
        return tuple((w, packed(p, a) if w == "ok" else a) for p, (w, a) in zip(call[1], result, strict=True))
    return number(result)


def number(result: Any) -> Any:
    """One of the right answers, where there are several."""
    return result.low if isinstance(result, model.Between) else result


def draw_key_call(random: Random, key: bytes, value: Callable[[], model.Value]) -> tuple[Any, ...]:
    """A call on one key."""
    kind = random.choice(
        ("get", "get", "get", "set", "set", "add", "delete", "remove", "cas", "append", "exists", "keep")
    )
    return {
        "get": lambda: ("get", 0, key),
        "exists": lambda: ("exists", 0, key),
        "set": lambda: ("set", 0, key, value(), None, "always"),
        "keep": lambda: ("set", 0, key, value(), "keep", "present"),
        "add": lambda: ("set", 0, key, value(), None, "absent"),
        "delete": lambda: ("delete", 0, key),
        "remove": lambda: ("remove", 0, key),
        "append": lambda: ("append", 0, key, value(), None),
        "cas": lambda: ("cas", 0, ("value", key, None, b"v%d" % random.randint(1, 9)), value(), None),
    }[kind]()


def draw_counter_call(random: Random, value: Callable[[], model.Value]) -> tuple[Any, ...]:
    """A call on a counter."""
    key = random.choice((b"n1", b"n2"))
    return ("get", 0, key) if random.random() < 0.4 else ("incr", 0, key, random.choice((1, 1, 1, 5)), 0, None, 0)


def draw_register_call(random: Random, value: Callable[[], model.Value]) -> tuple[Any, ...]:
    """A read or a write of one of a few keys."""
    key = random.choice((b"a", b"b"))
    return ("get", 0, key) if random.random() < 0.5 else ("set", 0, key, value(), None, "always")


def draw_any_call(random: Random, value: Callable[[], model.Value]) -> tuple[Any, ...]:
    """Any call, most of them on one key."""
    if random.random() < 0.2:
        return draw_counter_call(random, value)
    key, other = random.sample(DRAW_KEYS, 2)
    if random.random() < 0.75:
        return draw_key_call(random, key, value)
    kind = random.choice(("rename", "get_many", "set_many", "delete_many", "prune", "list", "count", "atomic", "batch"))
    return {
        "rename": lambda: ("rename", 0, key, other),
        "get_many": lambda: ("get_many", 0, (key, other)),
        "set_many": lambda: ("set_many", 0, ((key, value()), (other, value())), None),
        "delete_many": lambda: ("delete_many", 0, (key, other)),
        "prune": lambda: ("prune", 0, b"p"),
        "list": lambda: ("list", 0, b"p", b"", False, random.random() < 0.5, 10, random.random() < 0.5),
        "count": lambda: ("count", 0, b"p", b"", False, True, 0),
        "atomic": lambda: (
            "atomic",
            ((0, (random.choice(("absent", "present")), key)),),
            (("set", 0, key, value(), None, "always"), ("delete", 0, other)),
        ),
        "batch": lambda: ("batch", (("incr", 0, b"n1", 1, 0, None, 0), draw_key_call(random, key, value))),
    }[kind]()


def run_clients(
    toy: Toy,
    draw: Draw,
    *,
    clients: int,
    calls: int,
    start_us: int = 100,
    unknown: float = 0.05,
    weak: float = 0.0,
    duration_us: int = 100,
) -> int:
    """Let clients work side by side.

    Arguments:
        toy: the store.
        draw: makes a call.
        clients: how many.
        calls: how many calls all of them make together.
        start_us: when they begin.
        unknown: the share of writes whose answer is lost; half of these take effect, at any later time.
        weak: the share of reads that are session or dirty reads.
        duration_us: how long a call takes at most.
    Returns:
        When the last one is done.
    """
    random = toy.random
    queue: list[tuple[int, int, Callable[[int], None]]] = []
    turn = 0
    left = calls
    sees = toy.sees
    names = [f"c{number}" for number in range(clients)]
    end_us = start_us

    def at(time_us: int, what: Callable[[int], None]) -> None:
        nonlocal turn
        turn += 1
        heapq.heappush(queue, (time_us, turn, what))

    def begin(client: str, now_us: int) -> None:
        nonlocal left
        if not left:
            return
        left -= 1
        call = draw(random, toy.value)
        is_read = call[0] in model.READS
        if is_read and random.random() < weak:
            weak_read(toy, client, call, now_us)
            at(now_us + 2, lambda later_us: begin(client, later_us))
            return
        effect_us = now_us + random.randint(1, duration_us)
        lost = random.random() < unknown and not is_read
        if lost:
            effect_us += random.choice((0, 5 * duration_us, 50 * duration_us))
            ends = NEVER
            at(now_us + duration_us, lambda later_us: begin(client, later_us))
            if random.random() < 0.5:
                toy.note(client, call, now_us, ends, "unknown", None)
                return
        at(effect_us, lambda later_us: take(client, call, now_us, later_us, lost))

    def take(client: str, call: tuple[Any, ...], began_us: int, now_us: int, lost: bool) -> None:
        nonlocal end_us
        word, result, index = toy.do(call, now_us)
        ends = now_us + random.randint(1, duration_us)
        if lost:
            toy.note(client, call, began_us, NEVER, "unknown", None)
            return
        toy.note(client, call, began_us, ends, word, result, index=index)
        sees[client] = max(sees.get(client, 0), index)
        end_us = max(end_us, ends)
        at(ends + random.choice((0, 1, duration_us)), lambda later_us: begin(client, later_us))

    for client in names:
        at(start_us + random.randint(0, duration_us), lambda now_us, client=client: begin(client, now_us))
    while queue:
        now_us, _, what = heapq.heappop(queue)
        end_us = max(end_us, now_us)
        what(now_us)
    return end_us + 1


def weak_read(toy: Toy, client: str, call: tuple[Any, ...], now_us: int) -> None:
    """A session or dirty read, from a state of the past that it may see."""
    random, latest = toy.random, len(toy.past) - 1
    level = random.choice(("session", "dirty"))
    lowest = toy.sees.get(client, 0) if level == "session" else random.randint(0, latest)
    index = random.randint(max(lowest, latest - 20), latest) if level == "session" else lowest
    _, _, result = toy.answer(call, toy.past[index][1])
    event = toy.note(client, call, now_us, now_us + 1, "ok", packed(call, result), index=index, level=level)
    if level == "session":
        toy.sees[client] = index
    elif random.random() < 0.5:
        # How long ago that state was replaced by the next one.
        age_us = now_us - toy.past[index + 1][0] if index < latest else 0
        toy.events[-1] = replace(event, age_us=age_us, max_staleness_us=age_us + random.choice((0, 1000)))


def read_all(toy: Toy, at_us: int, keys: Sequence[bytes]) -> None:
    """A safe read of each key when all is over."""
    for number_of, key in enumerate(keys):
        toy.call("last", ("get", 0, key), at_us + 4 * number_of)

"""The checker of histories is checked itself: against all orders of small histories, with bad stores, and by breaking it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from django_keyspace.exceptions import DeadlineExceeded, LeadershipLost, MissingKey, NotLeader
from tests.sim import direct, model, toy
from tests.sim.brute import is_right
from tests.sim.checker import BadHistory, check, partition
from tests.sim.history import NEVER, Event, History
from tests.sim.incidents import INCIDENTS
from tests.sim.search import STEPS_MAX, Op, Search, Situations
from tests.sim.small import small_history

SMALL_HISTORIES = 1800
KEYS = (*toy.DRAW_KEYS, b"n1", b"n2")


def is_accepted(events: Sequence[Event], search: Any = Search) -> bool:
    """What the search alone says; a broken one may find no end."""
    report = check(events, searches=[search], steps_max=STEPS_MAX if search is Search else 1000)
    assert not report.undecided or search is not Search
    return not any(violation.kind == "order" for violation in report.violations)


def busy_store(seed: int, draw: toy.Draw = toy.draw_any_call, **settings: Any) -> tuple[toy.Toy, int]:
    store = toy.Toy(Random(seed))
    settings = {"clients": 5, "calls": 60, "unknown": 0.1, "weak": 0.2, **settings}
    return store, toy.run_clients(store, draw, **settings)


# --- Against all orders of small histories ------------------------------------------------------------------------------


def test_small_histories_as_all_orders_say() -> None:
    right = 0
    for seed in range(SMALL_HISTORIES):
        events = small_history(Random(seed))
        wanted = is_right(events)
        report = check(events)
        found = not any(violation.kind == "order" for violation in report.violations)
        assert is_accepted(events) == found, f"seed {seed}: the narrow search has found an order, the other one has not"
        shown = "\n".join(event.line() for event in events)
        assert found == wanted, f"seed {seed}: all orders say {wanted}, the search says {found}\n{shown}"
        assert not (wanted and report.violations), f"seed {seed}: {report.violations[0].text}"
        right += wanted
    assert SMALL_HISTORIES // 4 < right < SMALL_HISTORIES * 3 // 4  # enough of both kinds


class NoTime(Search):
    """Every call overlaps every other."""

    def __init__(self, ops: Sequence[Op], keys: Any, **settings: Any) -> None:
        for op in ops:
            op.begins = (-NEVER, 0)
        super().__init__(ops, keys, **settings)


class NoSecondThoughts(Search):
    """A call of unknown outcome has not happened."""

    def __init__(self, ops: Sequence[Op], keys: Any, **settings: Any) -> None:
        super().__init__([op for op in ops if not op.is_unknown], keys, **settings)


class SoonOrNever(Search):
    """A call of unknown outcome takes effect within a while, or never."""

    def _begin(self, op: Op, situations: Situations) -> Situations:
        for other in self._unknown[:]:
            if op.begins > (other.begins[0] + 10, 0):
                self._unknown.remove(other)
        return super()._begin(op, situations)


class Forgetful(Search):
    """Of several situations with the same state, the first is kept."""

    @staticmethod
    def _add(situations: Situations, state: Any, settled: int, used: int) -> bool:
        return situations.setdefault(state, [(settled, used)]) == [(settled, used)]


class Careless(Search):
    """What might have taken effect without a trace, did; and nothing more comes of it."""

    def _settle(self, op: Op, state: Any, settled: int, used: int) -> int:
        return settled | op.bit


class TwiceUnknown(Search):
    """A call of unknown outcome may take effect again and again."""

    def _after(self, op: Op, state: Any, cells: Any, settled: int, used: int) -> tuple[Any, int, int]:
        state, settled, used = super()._after(op, state, cells, settled, used)
        return state, settled, used & ~op.bit if op.is_unknown else used


class NoLateEffect(Search):
    """A call that need not take effect any more does not."""

    @staticmethod
    def _may_move(op: Op, settled: int, used: int) -> bool:
        return not settled & op.bit


class CoversAll(Search):
    """Whatever is under way was written over by the next call, whether that says something of it or not."""

    def _after(self, op: Op, state: Any, cells: Any, settled: int, used: int) -> tuple[Any, int, int]:
        state, settled, used = super()._after(op, state, cells, settled, used)
        return state, settled | sum(other.bit for other in self._pending if not other.only_reads), used


class LastOnly(Search):
    """Nothing but the call itself is put in order at its answer."""

    def _others(self, op: Op, reached: Situations) -> Any:
        return [], lambda state, settled, used: False


class NobodyListens(Search):
    """No call on one key is needed by the next."""

    def _listeners(self, op: Op, others: Sequence[Op]) -> Any:
        return lambda first, cells, settled, used: len(cells) != 1


class NoOrderOfSessions(Search):
    """A session read comes after nothing."""

    def __init__(self, ops: Sequence[Op], keys: Any, **settings: Any) -> None:
        for op in ops:
            op.after = []
        super().__init__(ops, keys, **settings)


class EnoughAtOnce(Search):
    """Once there is one way, others are in vain."""

    def _others(self, op: Op, reached: Situations) -> Any:
        near, _ = super()._others(op, reached)
        return near, lambda state, settled, used: bool(reached)


@pytest.mark.parametrize(
    "broken",
    [
        NoTime, NoSecondThoughts, SoonOrNever, Forgetful, Careless, TwiceUnknown, NoLateEffect, CoversAll, LastOnly,
        NobodyListens, NoOrderOfSessions, EnoughAtOnce,
    ],
)  # fmt: skip
def test_a_broken_search_is_noticed(broken: type[Search]) -> None:
    """The comparison above can fail: it does for each way to break the search."""
    for seed in range(SMALL_HISTORIES):
        events = small_history(Random(seed))
        if is_right(events) != is_accepted(events, broken):
            return
    pytest.fail(f"{broken.__name__} answers like the real search on {SMALL_HISTORIES} histories")


# --- Larger histories ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", [toy.draw_any_call, toy.draw_counter_call, toy.draw_register_call])
def test_right_histories_are_accepted(draw: toy.Draw) -> None:
    for seed in range(12):
        store, end_us = busy_store(seed, draw, clients=8, calls=80)
        toy.read_all(store, end_us + 10, KEYS)
        report = check(store.events)
        assert report.verdict == "right", (seed, report.violations, report.undecided)


def bad_history(name: str, seed: int, draw: toy.Draw = toy.draw_any_call) -> list[Event]:
    """Calls of several clients, an incident, and more calls."""
    store, end_us = busy_store(seed, draw)
    if name:
        INCIDENTS[name](store, end_us + 100)
    end_us = toy.run_clients(store, draw, clients=4, calls=20, weak=0.2, start_us=end_us + 20_000)
    toy.read_all(store, end_us + 10, KEYS)
    return store.events


@pytest.mark.parametrize("name", ["", *INCIDENTS])
def test_incidents_are_found(name: str) -> None:
    """What is found comes from the incident: without it the same histories are right."""
    for seed in range(3):
        report = check(bad_history(name, seed))
        assert report.verdict == ("wrong" if name else "right"), (seed, report.violations, report.undecided)
        if name:
            with pytest.raises(BadHistory):
                report.require(allow_undecided=True)


def test_every_answer_that_is_wrong_alone_is_found() -> None:
    """In histories without overlapping calls each answer is certain: changing any of them is found."""
    changed = 0
    for seed in range(4):
        store, _ = busy_store(seed, clients=1, calls=40, unknown=0.0, weak=0.0)
        assert check(store.events).verdict == "right"
        for place, event in enumerate(store.events):
            if event.call[0] in ("get", "exists", "incr", "count") and event.outcome == "ok":
                other = {
                    "get": model.pack_record((1, 0, b"else")),
                    "exists": not event.result,
                    "incr": -5,
                    "count": (7, None),
                }
                events = list(store.events)
                events[place] = replace(event, result=other[event.call[0]])
                assert not is_accepted(events), (seed, event.line())
                changed += 1
    assert changed > 60


@pytest.mark.parametrize(
    ("kind", "name"),
    [("lost-writes", "stale read"), ("lost-writes", "lost write"), ("lost-writes", "phantom value"),
     ("lost-writes", "resent set"), ("lost-writes", "dirty read of nothing"), ("counters", "double increment"),
     ("counters", "lost increment"), ("indexes", "session index goes back"),
     ("equal-indexes", "stores differ at an index")],
)  # fmt: skip
def test_the_checks_without_a_search(kind: str, name: str) -> None:
    for seed in range(3):
        assert not list(direct.complaints(bad_history("", seed, toy.draw_register_call)))
        kinds = {found for found, _, _ in direct.complaints(bad_history(name, seed, toy.draw_register_call))}
        assert kind in kinds


def test_answers_that_do_not_keep_their_bounds() -> None:
    base = Event("c", 0, ("get", 0, b"a"), 10, 11, "ok", None, level="dirty")
    assert not list(direct.bounds([base]))
    assert list(direct.bounds([replace(base, age_us=11, max_staleness_us=10)]))
    assert list(direct.bounds([replace(base, index=3, min_index=4)]))
    swap = ("cas", 0, ("revision", b"a", 7), None, None)
    wrong = (False, model.pack_record((1, 0, b"x"), revision=7))
    assert list(direct.bounds([replace(base, call=swap, result=wrong)]))


# --- Bounds of the search, parts, and what is printed ---------------------------------------------------------------------


def test_a_search_without_end_is_no_success() -> None:
    store, _ = busy_store(1, toy.draw_counter_call)
    report = check(store.events, steps_max=10)
    assert report.verdict == "undecided"
    with pytest.raises(BadHistory, match="UNDECIDED"):
        report.require()
    report.require(allow_undecided=True)


def test_keys_are_joined_by_the_calls_that_touch_several() -> None:
    calls = [("get", 0, b"a"), ("get", 0, b"b"), ("get", 1, b"b"), ("rename", 0, b"b", b"c"), ("get", 0, b"p1"),
             ("get", 0, b"p2"), ("prune", 0, b"p"), ("list", 0, b"q", b"", False, True, 5, False)]  # fmt: skip
    events = [Event("c", number, call, number, number, "ok") for number, call in enumerate(calls)]
    events[-1] = replace(events[-1], result=((), False))
    groups = [keys for keys, _ in partition(events)]
    assert sorted(map(sorted, groups)) == [
        [],
        [(0, b"a")],
        [(0, b"b"), (0, b"c")],
        [(0, b"p1"), (0, b"p2")],
        [(1, b"b")],
    ]


def test_a_listing_of_what_nobody_wrote() -> None:
    call = ("list", 0, b"q", b"", False, True, 5, False)
    for rows in ((), (b"q1",)):
        assert is_accepted([Event("c", 0, call, 1, 2, "ok", (rows, False))]) == (not rows)


def test_a_violation_is_shown_with_what_is_around_it() -> None:
    events = bad_history("stale read", 0)
    (violation,) = check(events).violations
    assert violation.event in events
    assert violation.event.line() in violation.text
    assert len(violation.text.splitlines()) < 60


def test_files_of_several_processes(tmp_path: Path) -> None:
    paths = []
    for client in ("one", "two"):
        history = History()
        for number, error in enumerate(
            (None, MissingKey("x"), NotLeader("x"), DeadlineExceeded("x"), LeadershipLost("x"))
        ):
            ticket = history.begin(client, ["set", 0, client.encode(), [1, 0, b"\xff"], None, "always"], 10 * number)
            if error is None:
                history.finish(ticket, 10 * number + 5, True, index=3)
            else:
                history.fail(ticket, 10 * number + 5, error)
        history.begin(client, ("get", 0, b"a"), 100, level="session", min_index=3)
        paths.append(tmp_path / client)
        history.write(paths[-1])
    read = [History.read(path) for path in paths]
    assert [event.outcome for event in read[0].events] == ["ok", "error", "refused", "unknown", "unknown", "unknown"]
    assert History.load(read[0].dump().splitlines()).events == read[0].events
    merged = History.merge(read)
    assert [event.client for event in merged.events[:4]] == ["one", "two", "one", "two"]
    with pytest.raises(ValueError, match="same client"):
        History.merge([read[0], read[0]])
    torn = read[0].dump()[:-20].splitlines()
    assert History.load(torn).events == read[0].events[:-1]


def test_calls_of_one_recorder_are_ordered_within_a_microsecond() -> None:
    """The answer that came before the next call was begun, came before it, though the clock says the same."""
    history = History()
    first = history.begin("c", ("set", 0, b"a", (1, 0, b"x"), None, "always"), 5)
    history.finish(first, 5, True)
    second = history.begin("d", ("get", 0, b"a"), 5)
    history.finish(second, 5, None)
    assert not is_accepted(history.events)
    assert is_accepted(History.merge([history]).events)

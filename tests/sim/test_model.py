"""The model of operations that histories are checked with: beside a store, call by call, and where it leaves things open."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from django_keyspace.exceptions import KeyspaceError
from django_keyspace.operations import OPERATIONS
from django_keyspace.store import Store, open_store
from tests.sim import calls, model, toy
from tests.sim.history import freeze
from tests.store.helpers import small_options

KEYS = (b"a", b"b", b"ca", b"cb", b"n")
VALUES = ((1, 0, b"x"), (1, 4, b"y"), (2, 0, b"text"), (2, 16, b"12"), (2, 16, b"-"), (3, 0, b"5"), (4, 0, b"2.5"),
          (3, 4, str(2**63 - 1).encode()), (19, 0, b"raw"))  # fmt: skip
NOT_IN_HISTORIES = {"cull", "expire_sessions", "sweep"}


@pytest.fixture
def store(store_folder: Path) -> Store:
    return open_store(store_folder, small_options())


def draw(random: Random, nesting: int = 0) -> tuple[Any, ...]:
    """Any call that the model knows; deadlines are far off."""
    key, other, value = random.choice(KEYS), random.choice(KEYS), random.choice(VALUES)
    expire = random.choice((None, None, None, "keep", 0, 10_000_000, ("at", 2**52)))
    kept = random.choice((None, "keep", ("set", None), 10_000_000))
    prefix, flag = random.choice((b"", b"c", b"zz")), random.random() < 0.5
    page = (prefix, random.choice((b"", b"b", b"ca", b"cab")), random.choice((False, True, "after")), flag)
    condition = random.choice(
        (("absent", key), ("present", key), ("value", key, random.choice((None, 1, 2)), value[2]))
    )
    choices = [
        ("get", 0, key), ("get_many", 0, (key, other)), ("exists", 0, key), ("length", 0, key), ("ttl", 0, key),
        ("list", 0, *page, random.choice((1, 2, 9)), random.random() < 0.5),
        ("count", 0, *page, random.choice((0, 1, 3))),
        ("set", 0, key, value, expire, random.choice(("always", "absent", "present"))),
        ("set_many", 0, ((key, value), (other, random.choice(VALUES))), expire), ("touch", 0, key, expire),
        ("delete", 0, key), ("remove", 0, key), ("delete_many", 0, (key, other)),
        ("incr", 0, key, random.choice((1, -7, 2**62)), random.choice((None, 0, 3)), kept, 16),
        ("incr_float", 0, key, random.choice((0.5, -1e308)), random.choice((None, 0.25)), kept, 0),
        ("append", 0, key, value, kept), ("cas", 0, condition, random.choice((None, value)), expire),
        ("rename", 0, key, other), ("prune", 0, random.choice((b"c", b"ca", b"n"))),
        ("set_expiry", 0, key, random.choice((0, 10_000_000, ("at", 2**52)))), ("remove_expiry", 0, key),
    ]  # fmt: skip
    if random.random() < 0.02:
        choices = [("clear", 0, flag), ("clear_expiries", 0)]
    if nesting < 2 and random.random() < 0.15:
        parts = tuple(draw(random, nesting + 1) for _ in range(random.randint(1, 3)))
        return ("batch", parts) if flag else ("atomic", ((0, condition),) if random.random() < 0.5 else (), parts)
    return random.choice(choices)


def done(store: Store, call: tuple[Any, ...]) -> tuple[str, Any]:
    """What the store answers, as a history would have it."""
    try:
        result = store.write(*call) if OPERATIONS[call[0]].writes else store.read(*call)
    except KeyspaceError as error:
        return "error", error.code
    return "ok", model.seen(call, freeze(result))


@pytest.mark.parametrize("seed", range(4))
def test_the_model_answers_like_a_store(store: Store, seed: int) -> None:
    """Of the answers that the model allows one is the store's; without deadlines there is but one."""
    random = Random(seed)
    for _ in range(400 // 4):
        store.write("clear", 0, True)
        cells: dict[model.Address, model.Cell] = {}
        for _ in range(20):
            call = draw(random)
            keys = sorted((0, key) for key in KEYS)
            before = dict(cells)
            ways = list(model.outcomes(lambda key, cells=before: cells.get(key, model.EMPTY), keys, call))
            word, answer = done(store, call)
            fitting = [way for way in ways if way.word == word and way.result == answer]
            assert fitting, f"{call}: the store says {word} {answer!r}, the model {ways!r}; before: {before}"
            if call[0] not in ("batch", "atomic") and not any(cell.mortal or cell.fused for cell in before.values()):
                assert len(ways) == 1, call
            # Deadlines are far off: of the ways that fit, the store went the first, in which nothing vanishes.
            cells = {**before, **fitting[0].changes}
            touched, prefixes = calls.footprint(call)
            assert all(key in touched or any(key[1].startswith(p) for _, p in prefixes) for key in fitting[0].changes)
            blind = calls.blind_keys(call)
            assert not blind or (len(ways) == 1 and set(fitting[0].changes) == blind), call
        for key in KEYS:
            stored = store.read("get", 0, key)
            value = None if stored is None else model.record_value(stored)
            assert cells.get((0, key), model.EMPTY).value == value


def test_every_write_is_modelled_or_named_here() -> None:
    writes = {name for name, operation in OPERATIONS.items() if operation.writes}
    assert set(model.OPERATIONS) - model.READS == writes - NOT_IN_HISTORIES
    assert all(not OPERATIONS[name].writes for name in model.READS)
    for name in (*NOT_IN_HISTORIES, "status"):
        with pytest.raises(model.NotModelled):
            calls.footprint((name, 0))
        with pytest.raises(model.NotModelled):
            list(model.outcomes(lambda key: model.EMPTY, [], (name, 0)))


def ways_of(cell: model.Cell, call: tuple[Any, ...], *, evicting: bool = False) -> set[tuple[Any, model.Cell]]:
    """Every answer on one key, with its cell afterwards."""
    address = (0, b"a")
    ways = model.outcomes(lambda key: cell, [address], call, evicting=evicting)
    return {(toy.number(way.result), way.changes.get(address, cell)) for way in ways}


def test_a_record_with_a_deadline_may_be_gone_and_stays_gone() -> None:
    value = (1, 0, b"x")
    mortal, fused = model.Cell(value, mortal=True), model.Cell(value, fused=True)
    assert ways_of(mortal, ("get", 0, b"a")) == {(value, mortal), (None, model.EMPTY)}
    assert ways_of(fused, ("get", 0, b"a")) == {(value, fused), (None, model.Cell(fused=True))}
    assert ways_of(model.Cell(value), ("get", 0, b"a")) == {(value, model.Cell(value))}
    assert ways_of(mortal, ("set", 0, b"a", value, None, "absent")) == {(False, mortal), (True, model.Cell(value))}
    # A refusal, too, may have come from what is gone for good.
    counter = model.Cell((3, 0, b"1"), mortal=True)
    gone = {(2, model.Cell((3, 0, b"2"), mortal=True)), ("missing-key", model.EMPTY)}
    assert ways_of(counter, ("incr", 0, b"a", 1, None, None, 0)) == gone


def test_evictable_records_may_be_gone_where_a_store_evicts() -> None:
    cell = model.Cell((1, 4, b"x"))
    assert ways_of(cell, ("exists", 0, b"a")) == {(True, cell)}
    assert ways_of(cell, ("exists", 0, b"a"), evicting=True) == {(True, cell), (False, model.EMPTY)}
    kept = model.Cell((1, 0, b"x"))
    assert ways_of(kept, ("exists", 0, b"a"), evicting=True) == {(True, kept)}


def test_deletions_of_many_count_what_was_still_there() -> None:
    cells = {(0, b"a"): model.Cell((1, 0, b"x"), mortal=True), (0, b"b"): model.Cell((1, 0, b"x"))}
    (way,) = model.outcomes(cells.__getitem__, sorted(cells), ("prune", 0, b""))
    assert [number for number in range(5) if way.result == number] == [1, 2]
    assert set(way.changes.values()) == {model.EMPTY}


def test_a_condition_on_a_revision_is_left_open() -> None:
    value, call = (1, 0, b"x"), ("cas", 0, ("revision", b"a", 7), None, None)
    cell = model.Cell(value)
    assert ways_of(cell, call) == {((False, value), cell), ((True, value), model.EMPTY)}
    assert ways_of(model.EMPTY, call) == {((False, None), model.EMPTY)}
    digest = ("atomic", ((0, ("range", b"a", b"b", b"d" * 16)),), (("delete", 0, b"a"),))
    assert ways_of(cell, digest) == {((False, 0), cell), ((True, (True,)), model.EMPTY)}


def test_calls_with_too_many_answers_are_refused() -> None:
    with pytest.raises(model.NotModelled, match="right answers"):
        many = tuple(b"%d" % number for number in range(20))
        cell = model.Cell((1, 0, b"x"), mortal=True)
        list(model.outcomes(lambda key: cell, [(0, key) for key in many], ("get_many", 0, many)))

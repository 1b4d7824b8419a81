"""Eight processes race for the objects of a model: no duplicate, no lost update, no orphaned index entry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from django_keyspace.backend.transport import remote_engine
from django_keyspace.store import forget_store, open_store
from django_keyspace.testing import running_node
from tests.contract.engines import EmbeddedPlace
from tests.models.drift import drift
from tests.multiprocess.actors.modelling import NAMES, SEATS, define

pytestmark = pytest.mark.stress

PROCESSES = 8
ROUNDS = 20
OPTIONS = {"timeout_ms": 60_000}


def settings_for(location: str, options: dict[str, Any]) -> Any:
    alias = {"BACKEND": "django_keyspace.backend.KeyspaceCache", "LOCATION": location, "OPTIONS": options}
    return override_settings(CACHES={"default": alias})


@pytest.fixture(scope="module")
def guest() -> Any:
    """The model, as the processes have it."""
    return define("", {})


def raced(fleet: Any, location: str, options: dict[str, Any]) -> Iterator[Any]:
    """Run the processes; yields twice while they are under way, and then what they tell."""
    actors = [
        fleet.start("modelling.race", location=location, options=options, number=number, rounds=ROUNDS)
        for number in range(PROCESSES)
    ]
    for actor in actors:
        assert actor.hear() == "ready"
    for actor in actors:
        actor.tell("go")
    for _ in range(2):
        assert actors[0].hear() == "under way"
        yield None
    yield [actor.result(90) for actor in actors]


def assert_nothing_is_lost(guest: Any, told: list[Any]) -> None:
    """What the processes were told is what is stored, and everything is there once."""
    won = Counter(seat for each in told for seat in each["won"])
    created = Counter(name for each in told for name in each["created"])
    assert set(won.values()) == {1} and max(created.values()) == 1
    done = {name: sum(each["done"][name] for each in told) for name in ("visits", "log")}
    maybe = {name: sum(each["maybe"][name] for each in told) for name in ("visits", "log")}
    outages = sum(maybe.values())
    guests = {each.name: each for each in guest.objects.all()}
    names = {f"g{number}" for number in range(NAMES)}
    seated = {name: each.seat for name, each in guests.items() if name.startswith("seat")}
    assert guests.keys() - seated.keys() <= names and len(created) <= NAMES
    assert len(set(seated.values())) == len(seated) and set(won) <= set(seated.values()) <= set(range(SEATS))
    if not outages:
        assert set(won) == set(seated.values()) and set(created) == guests.keys() - seated.keys()
    visits = sum(each.visits for each in guests.values())
    marks = [mark for each in guests.values() for mark in each.log]
    assert done["visits"] <= visits <= done["visits"] + maybe["visits"]
    assert done["log"] <= len(marks) <= done["log"] + maybe["log"] and len(set(marks)) == len(marks)
    assert done["visits"] > PROCESSES * ROUNDS // 2  # the race took place
    found = [each for name in names for each in guest.objects.filter(visits=guests[name].visits) if each.name == name]
    assert len(found) == len(names)


def test_8_processes_on_one_folder(fleet: Any, folder: str, guest: Any) -> None:
    *_, told = raced(fleet, folder, OPTIONS)
    place = EmbeddedPlace(Path(folder))
    try:
        with settings_for(folder, place.options):
            assert_nothing_is_lost(guest, told)
            assert sum(each["conflicts"] for each in told) > 0
            assert drift(place.engine, guest) == []
    finally:
        forget_store(open_store(folder))


def test_8_processes_on_a_node_that_is_killed(fleet: Any, folder: str, guest: Any) -> None:
    with running_node(data=folder) as node:
        for told in raced(fleet, node.location, OPTIONS):
            if told is None:
                node.kill()
                node.start()
                continue
            engine = remote_engine(node.location)
            try:
                with settings_for(node.location, OPTIONS):
                    assert_nothing_is_lost(guest, told)
                    assert drift(engine, guest) == []
            finally:
                engine.close()

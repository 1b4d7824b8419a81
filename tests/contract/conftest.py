"""Fixtures of the contract: a place per engine, operations and cache methods by both faces, and proof that they ran.

``@covers("get", ...)`` names what a test is the contract test of. The fixtures check that the test really used it, and
``test_coverage.py`` that nothing of the tables is without one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from tests.contract.engines import ENGINES, GUARDED, LONG_LIVED, ON_REQUEST, Place
from tests.contract.faces import AsyncFace, Face


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "covers(*names): operations or methods that a contract test is about")


@pytest.fixture(scope="session")
def long_lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Place]]:
    """Places that are made once, at their first use."""
    places: dict[str, Place] = {}
    with contextlib.ExitStack() as stack:

        def get(name: str) -> Place:
            if name not in places:
                places[name] = stack.enter_context((ENGINES | GUARDED)[name](tmp_path_factory.mktemp(name)))
            return places[name]

        yield get


CHOICE = "KEYSPACE_ENGINES"
"""Environment variable with the engines to hold the tests against, separated by commas; without it, all but ``ON_REQUEST``."""


def _params(names: Iterable[str]) -> list[Any]:
    wanted = os.environ.get(CHOICE, "").split(",")
    return [
        pytest.param(name, marks=pytest.mark.node if name in LONG_LIVED else ())
        for name in names
        if name in wanted or (wanted == [""] and name not in ON_REQUEST)
    ]


_PARAMS = _params(ENGINES)


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The tests of this folder are held against more engines than those elsewhere that use the same places."""
    if "place" in metafunc.fixturenames:
        wider = pytest.mark.parametrize("place", _params([*ENGINES, *GUARDED]), indirect=True)
        metafunc.definition.add_marker(wider)  # a marker takes the place of the fixture's own parameters


@pytest.fixture(params=_PARAMS)
def place(request: pytest.FixtureRequest, store_folder: Any, long_lived: Callable[[str], Place]) -> Iterator[Place]:
    """An empty place of each engine."""
    if request.param in LONG_LIVED:
        found = long_lived(request.param)
        found.empty()
        yield found
    else:
        with ENGINES[request.param](store_folder) as found:
            yield found


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """An event loop for the async face of a sync test."""
    with asyncio.Runner() as made:
        yield made


def _prove(request: pytest.FixtureRequest, used: set[str]) -> None:
    marker = request.node.get_closest_marker("covers")
    unused = set(marker.args) - used if marker else set()
    assert not unused, f"This test says that it covers {sorted(unused)}, but it never used that."


@pytest.fixture(params=["sync", "async"])
def do(request: pytest.FixtureRequest, place: Place, runner: asyncio.Runner) -> Iterator[Callable[..., Any]]:
    """Carries an operation out: ``do("get", 0, b"key")``."""
    used: set[str] = set()

    def carry_out(name: str, *arguments: Any) -> Any:
        used.add(name)
        if request.param == "sync":
            return place.engine.execute(name, *arguments)
        return runner.run(place.engine.aexecute(name, *arguments))

    yield carry_out
    _prove(request, used)


@pytest.fixture(params=["sync", "async"])
def make_face(request: pytest.FixtureRequest, place: Place, runner: asyncio.Runner) -> Iterator[Callable[..., Face]]:
    """Makes a cache with some settings and answers one of its faces. Arguments as those of ``Place.cache``."""
    used: set[str] = set()

    def make(database: int = 0, params: dict[str, Any] | None = None, **options: Any) -> Face:
        cache = place.cache(database, params, **options)
        if request.param == "sync":
            return Face(cache, used, place.settle)
        return AsyncFace(cache, used, place.settle, runner)

    yield make
    _prove(request, used)


@pytest.fixture
def face(make_face: Callable[..., Face]) -> Face:
    """A cache with default settings, by one of its faces."""
    return make_face()

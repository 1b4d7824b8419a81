"""Fixtures: clients of both kinds on an empty place of each engine of the contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_keyspace.kyoto import KyotoTycoon, TokyoTyrant
from django_keyspace.store import forget_store, open_store
from tests.contract.conftest import _PARAMS, _params, long_lived, place  # noqa: F401 - fixtures
from tests.contract.engines import ENGINES, LONG_LIVED, EmbeddedPlace, Place

Make = Callable[..., Any]
DATABASES_USED = 4
"""The tables use the databases 0 to 3."""


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The table of expectations is held against three nodes as well."""
    if metafunc.module.__name__.endswith(".test_expectations") and "kept_place" in metafunc.fixturenames:
        wider = pytest.mark.parametrize("kept_place", _params([*ENGINES, "cluster"]), indirect=True, scope="module")
        metafunc.definition.add_marker(wider)


@pytest.fixture(scope="module", params=_PARAMS)
def kept_place(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    long_lived: Callable[[str], Place],  # noqa: F811
) -> Iterator[Place]:
    """A place of each engine for all tests of a module: making one costs more than a row of a table."""
    if request.param in LONG_LIVED:
        yield long_lived(request.param)
        return
    with ENGINES[request.param](tmp_path_factory.mktemp("kyoto") / "store") as found:
        yield found
    if isinstance(found, EmbeddedPlace):
        forget_store(open_store(found.folder))


@pytest.fixture
def emptied_place(kept_place: Place) -> Place:
    """That place, with nothing in the databases that the tables use."""
    for database in range(DATABASES_USED):
        kept_place.engine.execute("clear", database, True)
    return kept_place


@pytest.fixture
def tycoon(place: Place) -> Make:  # noqa: F811
    """Makes KyotoTycoon clients of one place: ``tycoon(serializer=KT_JSON)``."""

    def make(**arguments: Any) -> KyotoTycoon:
        return KyotoTycoon(place.location(), **arguments)

    return make


@pytest.fixture
def tyrant(place: Place) -> Make:  # noqa: F811
    """Makes TokyoTyrant clients of one place."""

    def make(**arguments: Any) -> TokyoTyrant:
        return TokyoTyrant(place.location(), **arguments)

    return make


@pytest.fixture
def db(tycoon: Make) -> KyotoTycoon:
    """A KyotoTycoon client with default arguments."""
    client: KyotoTycoon = tycoon()
    return client


@pytest.fixture
def tt(tyrant: Make) -> TokyoTyrant:
    """A TokyoTyrant client with default arguments."""
    client: TokyoTyrant = tyrant()
    return client

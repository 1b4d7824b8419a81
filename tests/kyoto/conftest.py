"""Fixtures: clients of both kinds on an empty place of each engine of the contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from django_keyspace.kyoto import KyotoTycoon, TokyoTyrant
from tests.contract.conftest import long_lived, place  # noqa: F401 - fixtures
from tests.contract.engines import Place

Make = Callable[..., Any]


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

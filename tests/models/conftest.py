"""Fixtures for models: an alias on each engine, and queries by both faces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from django_keyspace.operations import MODELS_BASE
from tests.contract.conftest import long_lived as long_lived
from tests.contract.conftest import place as place
from tests.contract.engines import Place


def settings_of(place: Place) -> dict[str, Any]:
    """``CACHES`` with the aliases "default" and "other", on two databases of a place."""
    return {
        alias: {
            "BACKEND": "django_keyspace.backend.KeyspaceCache",
            "LOCATION": place.location(database),
            "OPTIONS": place.options_of(database),
        }
        for alias, database in (("default", 0), ("other", 1))
    }


@pytest.fixture
def alias(place: Place) -> Iterator[Place]:
    """The aliases "default" and "other" are on the engine, and no model has an object there."""
    for database in (0, 1):
        place.engine.execute("clear", MODELS_BASE + database, True)
    with override_settings(CACHES=settings_of(place)):
        yield place


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Calls a method of a query set or manager, or its async twin: ``ask(Visitor.objects, "get", pk=1)``."""
    if request.param == "sync":
        yield lambda query, method, *args, **kwargs: getattr(query, method)(*args, **kwargs)
        return
    with asyncio.Runner() as runner:
        yield lambda query, method, *args, **kwargs: runner.run(getattr(query, f"a{method}")(*args, **kwargs))


@pytest.fixture
def embedded_alias(store_folder: Path, settings: Any) -> None:
    """The aliases "default" and "other" are on a new store in this process: for what does not depend on the engine."""
    settings.CACHES = {
        alias: {
            "BACKEND": "django_keyspace.backend.KeyspaceCache",
            "LOCATION": str(store_folder),
            "OPTIONS": {"database": database},
        }
        for alias, database in (("default", 0), ("other", 1))
    }

"""Fixtures for all tests: a folder for stores that are shut down in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from django_keyspace.backend import runtime
from django_keyspace.backend.models import registry as models
from django_keyspace.store import forget_store, registry


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of single suites stand here, since pytest reads them before it knows of deeper folders."""
    parser.addoption(
        "--rewrite-interaction",
        action="store_true",
        help="write what tests/interaction/*.txt answer now into these files",
    )


# The same examples in every run, however slow the machine: a run that fails can be run again. New examples are looked for with
# --hypothesis-profile=explore.
settings.register_profile(
    "steady", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")


@pytest.fixture
def only_models(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """``only_models("samples")``: for this test there are no models but those of an app. Other test files define some, too."""

    def keep(app_label: str) -> None:
        kept = {label: model for label, model in models._models.items() if model._meta.app_label == app_label}
        monkeypatch.setattr(models, "_models", kept)

    return keep


@pytest.fixture
def store_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that does not exist yet. Stores that a test opens in or beside it are shut down after the test."""
    yield tmp_path / "store"
    runtime.forget_runtimes()
    for path, store in list(registry._stores.items()):
        if Path(path).is_relative_to(tmp_path.resolve()):
            forget_store(store)

"""Fixtures for pytest, with pytest-django: they are there as soon as this package is installed.

``keyspace_caches``
    For the whole run of a process (of each worker of pytest-xdist): every alias of this package has a folder, or a node,
    of its own. Each test begins with empty ones. Let an autouse fixture of your ``conftest.py`` ask for it.
``keyspace_node``
    A node for one test, such as ``keyspace_node.location``; :class:`~django_keyspace.testing.RunningNode` can stop and kill it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from django_keyspace.testing import RunningNode


@pytest.fixture(scope="session")
def _keyspace_places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    from django_keyspace.testing.isolation import isolated_caches

    with isolated_caches(tmp_path_factory.mktemp("keyspace")) as aliases:
        yield aliases


@pytest.fixture
def keyspace_caches(_keyspace_places: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Places of their own for all aliases, empty."""
    from django_keyspace.testing.isolation import clear_caches

    clear_caches()
    return _keyspace_places


@pytest.fixture
def keyspace_node(tmp_path: Path) -> Iterator[RunningNode]:
    """A node for one test."""
    from django_keyspace.testing import running_node

    with running_node(data=tmp_path / "keyspace-node", durability="none") as node:
        yield node

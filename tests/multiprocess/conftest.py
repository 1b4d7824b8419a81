"""A folder for a store, and processes that use it."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.multiprocess.fleet import Fleet

if sys.platform == "win32":
    pytest.skip("these tests kill, stop and fork processes", allow_module_level=True)


@pytest.fixture
def folder(tmp_path) -> str:
    """Where a store may be made."""
    return str(tmp_path / "store")


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """Starts processes. When the test is over none of them, and nothing that they started, may be left."""
    fleet = Fleet()
    try:
        yield fleet
    finally:
        strays = fleet.dismiss()
    assert not strays, f"These processes were left behind: {strays}"

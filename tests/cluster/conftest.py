"""Fixtures for the tests with a cluster of real processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from django_keyspace.testing import RunningCluster, running_cluster

SECRET = "correct horse battery staple"


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[RunningCluster]:
    """Three nodes; each test leaves them running, with one of them leading."""
    with running_cluster(3, secret=SECRET, http="127.0.0.1:0") as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: RunningCluster) -> RunningCluster:
    """The shared one, with all its first nodes running."""
    shared_cluster.start()
    shared_cluster.leader()
    return shared_cluster

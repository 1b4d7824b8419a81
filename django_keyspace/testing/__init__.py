"""Helpers for the tests of sites that use this package, and for our own.

:func:`running_node` runs a real node process for as long as a block runs::

    from django_keyspace.testing import running_node

    with running_node() as node, override_settings(CACHES={"default": {
        "BACKEND": "django_keyspace.backend.KeyspaceCache", "LOCATION": node.location,
    }}):
        ...

:func:`running_cluster` does the same with several nodes that form a cluster.

:func:`isolated_caches` gives each test process stores and nodes of its own. Django's test runner does that with
``TEST_RUNNER = "django_keyspace.testing.runner.KeyspaceTestRunner"``, pytest with the fixture ``keyspace_caches``.
"""

from __future__ import annotations

from django_keyspace.testing.cluster import RunningCluster, running_cluster
from django_keyspace.testing.node import NodeDidNotStart, RunningNode, running_node

__all__ = ["NodeDidNotStart", "RunningCluster", "RunningNode", "isolated_caches", "running_cluster", "running_node"]


def __getattr__(name: str) -> object:
    # It needs Django, and a node's helper is also for programs without.
    if name == "isolated_caches":
        from django_keyspace.testing.isolation import isolated_caches

        return isolated_caches
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

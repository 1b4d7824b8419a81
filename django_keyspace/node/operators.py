"""What operators see of a running node: puts together what ``http.py`` shows."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any, Final

from django_keyspace import __version__
from django_keyspace.exceptions import KeyspaceError
from django_keyspace.node.clustered import ClusterNode
from django_keyspace.node.control import describe_cluster
from django_keyspace.node.http import Pages
from django_keyspace.node.metrics import Metrics, process_figures
from django_keyspace.node.server import Server
from django_keyspace.store import Store

_LAG_INTERVAL_S: Final = 0.5


def pages_of(server: Server, current: Callable[[], Store], cluster: ClusterNode | None = None) -> Pages:
    """The pages of a node.

    Arguments:
        server: the node's server.
        current: gives the store that counts now.
        cluster: the node's part in a cluster, None if it runs alone.
    """

    def not_ready() -> str | None:
        if server.draining:
            return "The node is shutting down."
        try:
            server.store.read("status")
        except KeyspaceError as error:
            return f"The store cannot be read: {error}"
        return cluster.not_ready() if cluster is not None else None

    def gauges() -> dict[str, float]:
        return {
            "connections": len(server.connections),
            "pending_writes": server.log.pending_calls,
            "pending_write_bytes": server.log.pending_bytes,
            "oldest_reader_seconds": round(current().oldest_reader_s, 3),
            "ready": 0 if not_ready() else 1,
            **process_figures(),
        }

    def figures() -> dict[str, Any] | None:
        """Of its part in the cluster."""
        if cluster is None:
            return None
        return describe_cluster(cluster.runtime, cluster.peers.connected(), cluster.peers.entry_versions)

    def metrics() -> str:
        return server.metrics.text(gauges(), server.store.read("status"), current().counters.as_dict(), figures())

    def status() -> dict[str, Any]:
        config, counted = server.config, server.metrics
        return {
            "node": config.node_id,
            "release": __version__,
            "process": os.getpid(),
            "uptime_s": round(counted.uptime_s, 3),
            "durability": config.durability if cluster is None else "majority",
            "secret": config.secret is not None,
            "tls": config.tls_cert is not None,
            **gauges(),
            **({"cluster": figures()} if cluster is not None else {}),
            "requests": dict(counted.requests),
            "errors": dict(counted.errors),
            "connections_refused": dict(counted.refused),
            "store": server.store.read("status"),
            "store_counters": current().counters.as_dict(),
        }

    return Pages(not_ready, metrics, status)


async def watch_lag(metrics: Metrics) -> None:
    """Measure for ever how late the event loop is: whatever holds it up holds up every client."""
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + _LAG_INTERVAL_S
        await asyncio.sleep(_LAG_INTERVAL_S)
        metrics.loop_lag.observe(max(loop.time() - due_s, 0.0))

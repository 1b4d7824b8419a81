"""What operators see of a running node: puts together what ``http.py`` shows."""

from __future__ import annotations

import asyncio
import os
from typing import Any, Final

from django_keyspace import __version__
from django_keyspace.exceptions import KeyspaceError
from django_keyspace.node.http import Pages
from django_keyspace.node.metrics import Metrics, process_figures
from django_keyspace.node.log import LocalLog
from django_keyspace.node.server import Server
from django_keyspace.store import Store

_LAG_INTERVAL_S: Final = 0.5


def pages_of(server: Server, store: Store, log: LocalLog) -> Pages:
    """The pages of a node."""

    def not_ready() -> str | None:
        if server.draining:
            return "The node is shutting down."
        try:
            store.read("status")
        except KeyspaceError as error:
            return f"The store cannot be read: {error}"
        return None

    def gauges() -> dict[str, float]:
        return {
            "connections": len(server.connections),
            "pending_writes": log.pending_calls,
            "pending_write_bytes": log.pending_bytes,
            "ready": 0 if not_ready() else 1,
            **process_figures(),
        }

    def metrics() -> str:
        return server.metrics.text(gauges(), store.read("status"), store.counters.as_dict())

    def status() -> dict[str, Any]:
        config, counted = server.config, server.metrics
        return {
            "node": config.node_id,
            "release": __version__,
            "process": os.getpid(),
            "uptime_s": round(counted.uptime_s, 3),
            "durability": config.durability,
            "secret": config.secret is not None,
            "tls": config.tls_cert is not None,
            **gauges(),
            "requests": dict(counted.requests),
            "errors": dict(counted.errors),
            "connections_refused": dict(counted.refused),
            "store": store.read("status"),
            "store_counters": store.counters.as_dict(),
        }

    return Pages(not_ready, metrics, status)


async def watch_lag(metrics: Metrics) -> None:
    """Measure for ever how late the event loop is: whatever holds it up holds up every client."""
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + _LAG_INTERVAL_S
        await asyncio.sleep(_LAG_INTERVAL_S)
        metrics.loop_lag.observe(max(loop.time() - due_s, 0.0))

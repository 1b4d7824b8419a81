"""What a client of a cluster does, at its plainest: ask one node after the other until one does it."""

from __future__ import annotations

import contextlib
from typing import Any

from django_keyspace.exceptions import KeyspaceError, TransportError
from django_keyspace.testing import RunningCluster
from django_keyspace.testing.cluster import await_found


def value(text: str) -> tuple[Any, ...]:
    return (1, 0, text.encode())


def do(cluster: RunningCluster, *call: Any) -> Any:
    """Do an operation at whichever node does it. Only for operations that may be done twice."""
    last: list[Exception] = []

    def attempt() -> list[Any] | None:
        for name, node in cluster.nodes.items():
            if node.is_running():
                try:
                    return [cluster.ask(name, *call)]
                except TransportError as error:
                    last[:] = [error]
        return None

    found = await_found(attempt)
    assert found is not None, last
    return found[0]


def put(cluster: RunningCluster, key: str, text: str) -> None:
    assert do(cluster, "set", 0, key.encode(), value(text), None, "always") is True


def has(cluster: RunningCluster, name: str, key: str) -> bool:
    """Whether one node has a key in its own copy."""
    with contextlib.suppress(KeyspaceError):
        return bool(cluster.ask(name, "at", "dirty", 0, None, ("exists", 0, key.encode()))[0])
    return False


def await_true(look: Any, what: str) -> None:
    assert await_found(lambda: look() or None), what


def await_copy(cluster: RunningCluster, name: str, key: str) -> None:
    found = await_found(lambda: has(cluster, name, key) or None)
    assert found, f"{name} never got {key}: {cluster.nodes[name].errors()[-2000:]}"


def await_log(cluster: RunningCluster, name: str, words: str) -> None:
    node = cluster.nodes[name]
    found = await_found(lambda: words in node.errors() or None)
    assert found, f"{name} never said {words!r}: {node.errors()[-2000:]}"

"""What the contract is held against: one entry of ``ENGINES`` each. Another engine is one class and one line.

A place is where data lies: it can make an engine and settings for a cache, and it can be emptied. Places that are costly
to make (a process) live as long as the test session of a worker.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from django_keyspace.addresses import SOCKET_FILE
from django_keyspace.backend import KeyspaceCache
from django_keyspace.backend.embedded import EmbeddedEngine, Engine
from django_keyspace.backend.runtime import Runtime
from django_keyspace.backend.transport import remote_engine
from django_keyspace.keyspace import Client
from django_keyspace.security import make_security
from django_keyspace.store import StoreOptions, open_store
from django_keyspace.testing import running_node
from django_keyspace.testing.cluster import RunningCluster, await_found, running_cluster
from tests.certificates import Certificates

DATABASES = 16
VALUE_BYTES_MAX = 2**22
"""Small enough that a test can go beyond it."""
SECRET = "the secret of the contract's node"


NOTHING = ("exists", 0, b"nothing")
"""A read whose answer nobody wants."""


class Place:
    """Where an engine's data lies.

    Attributes:
        engine: carries operations out there.
        orders_writes: whether this process is the orderer of writes, who may also sweep and evict.
        nodes: how many there are; 0 for a store in this process.
        options: OPTIONS that every cache here has.
    """

    engine: Engine
    orders_writes = False
    nodes = 0
    options: dict[str, Any] = {"value_bytes_max": VALUE_BYTES_MAX}

    def location(self, database: int = 0) -> str:
        """The LOCATION of a database."""
        raise NotImplementedError

    def options_of(self, database: int) -> dict[str, Any]:
        """The OPTIONS that caches on a database have in any case."""
        return self.options

    def cache(self, database: int = 0, params: dict[str, Any] | None = None, **options: Any) -> KeyspaceCache:
        """A cache on a database.

        Arguments:
            database: its number.
            params: settings beside OPTIONS.
            **options: OPTIONS.
        """
        return KeyspaceCache(
            self.location(database), {**(params or {}), "OPTIONS": {**self.options_of(database), **options}}
        )

    def keyspace_client(self, **options: Any) -> Client:
        """A client of Keyspace's API on this place, with these arguments."""
        raise NotImplementedError

    def settle(self) -> None:
        """Wait until a dirty read sees what was written, on whichever copy."""

    def reads_beside(self, consistency: str) -> int | None:
        """How many reads were answered beside a node so far; None: those of caches of this consistency never are."""
        return None

    def empty(self) -> None:
        """Delete everything."""
        self.engine.execute("batch", [("clear", database, True) for database in range(DATABASES)])


class EmbeddedPlace(Place):
    """A store in this process, in a folder of its own."""

    orders_writes = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.engine = EmbeddedEngine(open_store(folder, StoreOptions(value_bytes_max=VALUE_BYTES_MAX)))

    def location(self, database: int = 0) -> str:
        return str(self.folder)

    def options_of(self, database: int) -> dict[str, Any]:
        return {**self.options, "database": database}

    def keyspace_client(self, **options: Any) -> Client:
        return Client(self.folder, **{"durability": "interval", **self.options, **options})


class NodePlace(Place):
    """A node process on this machine."""

    nodes = 1

    def __init__(self, location: str, **options: Any) -> None:
        self._stem = location.rpartition("/")[0]
        self.options = {**self.options, **options}
        uses_tls = location.startswith("keyspaces:")
        security = make_security(uses_tls=uses_tls, secret=options.get("secret"), tls=options.get("tls"))
        self.engine = remote_engine(self.location(), security=security)

    def location(self, database: int = 0) -> str:
        return f"{self._stem}/{database}"

    def keyspace_client(self, **options: Any) -> Client:
        return Client([self._stem.removeprefix("keyspace://")], **{**self.options, **options})


class Beside:
    """Mixed into a place beside a node whose store is read in this process. That is where reads come from, or tests fail."""

    _runtime: Runtime

    def reads_beside(self, consistency: str) -> int | None:
        """See :class:`Place`."""
        assert self._runtime.replica is not None
        return self._runtime.replica.reads

    def await_copy(self) -> None:
        """Wait until reads are answered in this process."""
        runtime, replica = self._runtime, self._runtime.replica
        assert replica is not None

        def is_found() -> bool | None:
            runtime.engine.execute(*NOTHING)
            return replica.copy is not None or None

        assert await_found(is_found), replica.figures()


class NodeBesidePlace(Beside, Place):
    """A node process over its Unix socket, and its store."""

    nodes = 1

    def __init__(self, data: Path, **options: Any) -> None:
        self._socket = data / SOCKET_FILE
        self.options = {**self.options, **options}
        self._runtime = self.cache()._runtime
        self.engine = self._runtime.engine
        self.await_copy()

    def location(self, database: int = 0) -> str:
        return f"keyspace+unix://{self._socket}?database={database}"

    def empty(self) -> None:
        super().empty()
        self.await_copy()  # a test may have closed it


class ClusterPlace(NodePlace):
    """Three node processes on this machine."""

    nodes = 3

    def __init__(self, running: RunningCluster) -> None:
        super().__init__(running.location)
        self._running = running

    def settle(self) -> None:
        """Every node has applied what a safe read sees now."""
        _, written, _, _ = self.engine.execute("at", "safe", 0, None, NOTHING)

        def applied(name: str) -> bool:
            return bool(self._running.ask(name, "at", "dirty", 0, None, NOTHING)[1] >= written)

        for name in self._running.nodes:
            assert await_found(lambda name=name: applied(name) or None), f"{name} has not applied {written} in time"

    def keyspace_client(self, **options: Any) -> Client:
        return Client(self._stem.removeprefix("keyspace://").split(","), **{**self.options, **options})


class ClusterBesidePlace(Beside, ClusterPlace):
    """Three node processes, and the store of one of them: caches have session reads."""

    def __init__(self, running: RunningCluster) -> None:
        super().__init__(running)
        self.options = {**self.options, "consistency": "session", "replica": str(running.nodes["n1"].data)}
        self._runtime = self.cache()._runtime
        self.await_copy()

    def reads_beside(self, consistency: str) -> int | None:
        return super().reads_beside(consistency) if consistency in ("session", "dirty") else None

    def empty(self) -> None:
        super().empty()
        self.await_copy()


@contextlib.contextmanager
def embedded(folder: Path) -> Iterator[Place]:
    """A store in this process."""
    yield EmbeddedPlace(folder)


@contextlib.contextmanager
def node(folder: Path) -> Iterator[Place]:
    """One node."""
    with running_node(data=folder, value_bytes_max=VALUE_BYTES_MAX) as running:
        place = NodePlace(running.location)
        yield place
        place.engine.close()


@contextlib.contextmanager
def node_tls(folder: Path) -> Iterator[Place]:
    """One node that wants a secret and speaks TLS."""
    certificates = Certificates(folder)
    tls = certificates.node_options()
    with running_node(data=folder / "n1", value_bytes_max=VALUE_BYTES_MAX, secret=SECRET, **tls) as running:
        place = NodePlace(running.location, **running.options, tls={"ca": certificates.ca})
        yield place
        place.engine.close()


@contextlib.contextmanager
def node_beside(folder: Path) -> Iterator[Place]:
    """One node over its Unix socket, and its store."""
    with running_node(data=folder, value_bytes_max=VALUE_BYTES_MAX) as running:
        place = NodeBesidePlace(running.data)
        yield place
        place.engine.close()


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Place]:
    """Three nodes."""
    with running_cluster(3, data=folder, value_bytes_max=VALUE_BYTES_MAX) as running:
        place = ClusterPlace(running)
        yield place
        place.engine.close()


@contextlib.contextmanager
def cluster_beside(folder: Path) -> Iterator[Place]:
    """Three nodes, and the store of one of them."""
    with running_cluster(3, data=folder, value_bytes_max=VALUE_BYTES_MAX) as running:
        place = ClusterBesidePlace(running)
        yield place
        place._runtime.engine.close()


Factory = Callable[[Path], contextlib.AbstractContextManager[Place]]

ENGINES: dict[str, Factory] = {"embedded": embedded, "node": node}
"""By name: makes a place in a folder for as long as a block runs."""

GUARDED: dict[str, Factory] = {
    "node-tls": node_tls,
    "node-beside": node_beside,
    "cluster": cluster,
    "cluster-beside": cluster_beside,
}
"""The same, for the tests of the contract itself only: what is built on the contract cannot tell them from a node."""

ON_REQUEST = frozenset({"cluster-beside"})
"""Engines that are left out unless somebody names them: much of what they do others do as well."""

LONG_LIVED = frozenset({"node", *GUARDED})
"""Engines whose place is made once per session and emptied for each test."""

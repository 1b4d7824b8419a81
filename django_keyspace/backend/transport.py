"""The way to nodes: :class:`RemoteEngine`, which does operations on them, and one engine per location and process.

The sockets are in ``blocking.py`` and ``multiplexed.py``; what is said on them, and what is done when that fails, is in
``routing.py``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from time import monotonic
from typing import Any

from django_keyspace.addresses import Endpoint, check_endpoints, parse_location
from django_keyspace.backend.blocking import BlockingConnection, BlockingPool
from django_keyspace.backend.cluster.drivers import BlockingCluster, LoopCluster
from django_keyspace.backend.cluster.knowledge import Cluster
from django_keyspace.backend.cluster.route import attempt_s
from django_keyspace.backend.multiplexed import LoopConnections
from django_keyspace.backend.routing import TIMEOUT_MS_DEFAULT, ClusterMet, Link
from django_keyspace.backend.sessions import Sessions, error_of_answer
from django_keyspace.exceptions import ConfigurationError, KeyspaceError, ProtocolError
from django_keyspace.security import NO_SECURITY, Security, make_security
from django_keyspace.wire import OK, NodeHello

TIMEOUT_MS_MOST = 24 * 3600 * 1000


class RemoteEngine:
    """Does operations on a node. Opens nothing before the first one; safe to use from any thread, task and forked
    child.

    Arguments:
        endpoints: the addresses of the node, or of all nodes of one cluster.
        timeout_ms: the time that one call may take in all, retries included.
        leader_timeout_ms: how long of it a call may look for a node; None: a few tries, however long they take.
        security: what to show to nodes, and to want of them.
    Raises:
        ConfigurationError: there is no endpoint, or a time is not legal.
    """

    reads_inline = False

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        *,
        timeout_ms: int = TIMEOUT_MS_DEFAULT,
        leader_timeout_ms: int | None = None,
        security: Security = NO_SECURITY,
    ) -> None:
        self.endpoints = check_endpoints(endpoints)
        check_timeout_ms("timeout of a call", timeout_ms)
        if leader_timeout_ms is not None:
            check_timeout_ms("leader timeout", leader_timeout_ms)
        self.timeout_ms = timeout_ms
        self._leader_timeout_ms = leader_timeout_ms
        self._security = security
        self._become_lock = threading.Lock()
        self._sessions = Sessions()
        self._cluster: Cluster | None = None
        self._blocking: BlockingPool | BlockingCluster
        self._loops: LoopConnections | LoopCluster
        if len(self.endpoints) > 1:
            self._become_cluster()
        else:
            settings = (self.endpoints[0], timeout_ms, leader_timeout_ms, security, self._sessions)
            self._blocking, self._loops = BlockingPool(*settings), LoopConnections(*settings)
        self.read = self.write = self.execute

    def _become_cluster(self) -> None:
        """Let calls go by the way of a cluster from now on: there are several addresses, or the only node said so."""
        with self._become_lock:
            if self._cluster is not None:
                return
            cluster = self._cluster = Cluster(self.endpoints)
            security, sessions, timeout_ms = self._security, self._sessions, self.timeout_ms
            attempt_ms = int(attempt_s(timeout_ms) * 1000)

            def make_link(endpoint: Endpoint) -> Link:
                return Link(
                    endpoint,
                    meet=lambda endpoint, node: cluster.met(endpoint, node, monotonic()),
                    secret=security.secret,
                    wants_index=True,
                )

            def make_pool(endpoint: Endpoint) -> BlockingPool:
                return BlockingPool(endpoint, attempt_ms, None, security, sessions, make_link)

            def make_loops(endpoint: Endpoint) -> LoopConnections:
                return LoopConnections(endpoint, attempt_ms, None, security, sessions, make_link)

            self._blocking = BlockingCluster(cluster, make_pool, sessions, timeout_ms, self._leader_timeout_ms)
            self._loops = LoopCluster(cluster, make_loops, sessions, timeout_ms, self._leader_timeout_ms)

    def execute(self, name: str, *arguments: Any) -> Any:
        """Do an operation and wait for its result.

        Arguments:
            name: a word of ``operations.OPERATIONS``.
            *arguments: its arguments.
        Returns:
            What the store answers, with the same types.
        Raises:
            UnknownOutcome: a write was sent and its answer did not come.
            TransportError: the node could not be asked; nothing was changed.
            KeyspaceError: the node's own answer.
        """
        try:
            return self._blocking.execute(name, arguments)
        except ClusterMet:
            self._become_cluster()
            return self._blocking.execute(name, arguments)

    def read_near_leader(self, name: str, *arguments: Any) -> Any:
        """Do a dirty read: the leader's if one is known, otherwise any node's. Raises :class:`KeyspaceError`."""
        call = ("dirty", 0, None, (name, *arguments))
        if not isinstance(self._blocking, BlockingCluster):
            try:
                return self._blocking.execute("at", call)[0]
            except ClusterMet:
                self._become_cluster()
            return self.read_near_leader(name, *arguments)
        return self._blocking.execute("at", call, prefers_leader=True)[0]

    async def aexecute(self, name: str, *arguments: Any) -> Any:
        """The same as :meth:`execute`, without blocking the event loop."""
        try:
            return await self._loops.execute(name, arguments)
        except ClusterMet:
            self._become_cluster()
            return await self._loops.execute(name, arguments)

    @property
    def cluster(self) -> Cluster | None:
        """What is known of the cluster; None while this is a single node, or nothing was met at its only address."""
        return self._cluster

    def close(self) -> None:
        """Close connections that are not in use. The next call opens new ones."""
        self._blocking.close()
        self._loops.close()

    def after_fork(self) -> None:
        """In a forked child: let go of the parent's connections."""
        self._become_lock = threading.Lock()
        self._sessions.forget()
        self._blocking.after_fork()
        self._loops.after_fork()


def check_timeout_ms(name: str, timeout_ms: Any) -> None:
    """Raise :class:`ConfigurationError` unless this is a time that a call may have."""
    if type(timeout_ms) is not int or not 1 <= timeout_ms <= TIMEOUT_MS_MOST:
        raise ConfigurationError(
            f"The {name} must be an integer from 1 to {TIMEOUT_MS_MOST:,} milliseconds, not {timeout_ms!r:.40}."
        )


def meet_node(endpoint: Endpoint, *, timeout_ms: int, security: Security | None = None) -> NodeHello:
    """Connect to a node, let it say who it is, and let go of it.

    Arguments:
        endpoint: its address.
        timeout_ms: how long that may take.
        security: what to show to it, and to want of it; None: the environment's secret, no TLS.
    Raises:
        KeyspaceError: there is no node, or it does not take connections.
    """
    security = security or make_security(uses_tls=False)
    connection = BlockingConnection(
        Link(endpoint, secret=security.secret),
        security=security,
        deadline_at_s=monotonic() + timeout_ms / 1000,
        timeout_ms=timeout_ms,
    )
    connection.close()
    if connection.link.node is None:
        raise ProtocolError(f"The node at {endpoint} did not say who it is.")
    return connection.link.node


def ask_node(endpoint: Endpoint, security: Security, name: str, *arguments: Any, timeout_ms: int = 2_000) -> Any:
    """Ask one node something, and no other.

    Arguments:
        endpoint: its address.
        security: what to show to it, and to want of it.
        name: a request of ``operations.CONTROLS``, or a read.
        *arguments: its arguments.
        timeout_ms: how long that may take, connecting included.
    Returns:
        Its answer.
    Raises:
        KeyspaceError: it could not be asked, or its answer is this error.
    """
    deadline_at_s = monotonic() + timeout_ms / 1000
    # Whichever node answers is the one that was asked: of a cluster or alone.
    link = Link(endpoint, secret=security.secret)
    connection = BlockingConnection(link, security=security, deadline_at_s=deadline_at_s, timeout_ms=timeout_ms)
    try:
        _, status, result = connection.exchange_within(name, arguments, deadline_at_s)
    except (KeyspaceError, OSError) as error:
        raise connection.failure(error).error from error
    finally:
        connection.close()
    if status == OK:
        return result
    raise error_of_answer(status, result)


_engines: dict[tuple[tuple[Endpoint, ...], int, int | None, Security], RemoteEngine] = {}
_engines_lock = threading.Lock()


def remote_engine(
    location: str,
    *,
    timeout_ms: int = TIMEOUT_MS_DEFAULT,
    leader_timeout_ms: int | None = None,
    security: Security | None = None,
) -> RemoteEngine:
    """The engine of this process for a location: aliases with the same addresses and timeout share its connections.

    Arguments:
        location: ``keyspace://host:port/db`` or what else ``routing.parse_location`` takes. The database is not looked
            at.
        timeout_ms: the time that one call may take in all.
        leader_timeout_ms: how long of it a call may look for a node; None: a few tries.
        security: what to show to nodes, and to want of them. None: the environment's secret, and TLS as the location says.
    Returns:
        An engine; always the same one for the same addresses and time.
    Raises:
        ConfigurationError: the location or the time is not legal.
    """
    found = parse_location(location)
    if security is None:
        security = make_security(uses_tls=found.uses_tls)
    key = (found.endpoints, timeout_ms, leader_timeout_ms, security)
    engine = _engines.get(key)
    if engine is None:
        with _engines_lock:
            engine = _engines.get(key)
            if engine is None:
                engine = _engines[key] = RemoteEngine(
                    key[0], timeout_ms=timeout_ms, leader_timeout_ms=leader_timeout_ms, security=security
                )
    return engine


def _after_fork_in_child() -> None:
    global _engines_lock
    _engines_lock = threading.Lock()
    for engine in list(_engines.values()):
        engine.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

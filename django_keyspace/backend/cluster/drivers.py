"""What carries out the way of a call: connections to each node, for threads and for event loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic, sleep
from typing import Any, Generic, Protocol, TypeVar

from django_keyspace.addresses import Endpoint
from django_keyspace.backend.blocking import BlockingPool
from django_keyspace.backend.cluster.knowledge import Cluster
from django_keyspace.backend.cluster.route import Answer, Ask, Pause, Route
from django_keyspace.backend.multiplexed import LoopConnections
from django_keyspace.backend.routing import Failure
from django_keyspace.backend.sessions import Request, Sessions


class _Connections(Protocol):
    """The connections to one node."""

    def close(self) -> None: ...

    def after_fork(self) -> None: ...


C = TypeVar("C", bound=_Connections)


class _Driver(Generic[C]):
    """The connections to each node of a cluster, made when they are needed.

    Arguments:
        cluster: what is known of it.
        make: makes the connections to a node.
        sessions: those of the engine.
        timeout_ms: how long a call may take in all.
        leader_timeout_ms: how long of it may pass without a leader.
    """

    def __init__(
        self,
        cluster: Cluster,
        make: Callable[[Endpoint], C],
        sessions: Sessions,
        timeout_ms: int,
        leader_timeout_ms: int | None,
    ) -> None:
        self._cluster = cluster
        self._make = make
        self._sessions = sessions
        self._timeout_ms = timeout_ms
        self._leader_timeout_ms = leader_timeout_ms
        self._nodes: dict[Endpoint, C] = {}

    def _node(self, endpoint: Endpoint) -> C:
        found = self._nodes.get(endpoint)
        if found is None:
            found = self._nodes.setdefault(endpoint, self._make(endpoint))
        return found

    def _route(self, request: Request, prefers_leader: bool) -> Route:
        return Route(
            self._cluster,
            request,
            monotonic(),
            self._timeout_ms,
            self._leader_timeout_ms,
            prefers_leader=prefers_leader,
        )

    def close(self) -> None:
        """Close connections that are not in use."""
        for node in list(self._nodes.values()):
            node.close()

    def after_fork(self) -> None:
        """In a forked child: let go of the parent's connections."""
        self._cluster.forget()
        nodes, self._nodes = list(self._nodes.values()), {}
        for node in nodes:
            node.after_fork()


class BlockingCluster(_Driver[BlockingPool]):
    """Calls of threads."""

    def execute(self, name: str, arguments: Sequence[Any], *, prefers_leader: bool = False) -> Any:
        """Do an operation. Raises KeyspaceError. See :class:`Route` for the arguments."""
        request = Request(self._sessions, name, arguments)
        route = self._route(request, prefers_leader)
        try:
            ask = route.first()
            if ask is not None and (done := route.took(ask, self._ask(ask), monotonic())):
                return done[0]
            steps = route.steps()
            intent = next(steps)
            while True:
                if isinstance(intent, Pause):
                    sleep(intent.seconds)
                    outcome = None
                else:
                    outcome = self._ask(intent)
                intent = steps.send((outcome, monotonic()))
        except StopIteration as stop:
            return stop.value
        finally:
            request.end()

    def _ask(self, ask: Ask) -> Answer | Failure:
        endpoint, name, arguments, until_s, connect_by_s, is_new = ask
        return self._node(endpoint).ask(name, arguments, until_s, connect_by_s, is_new=is_new)


class LoopCluster(_Driver[LoopConnections]):
    """Calls of coroutines."""

    async def execute(self, name: str, arguments: Sequence[Any], *, prefers_leader: bool = False) -> Any:
        """Do an operation. Raises KeyspaceError. See :class:`Route` for the arguments."""
        request = Request(self._sessions, name, arguments)
        route = self._route(request, prefers_leader)
        try:
            ask = route.first()
            if ask is not None and (done := route.took(ask, await self._ask(ask), monotonic())):
                return done[0]
            steps = route.steps()
            intent = next(steps)
            while True:
                if isinstance(intent, Pause):
                    await asyncio.sleep(intent.seconds)
                    outcome = None
                else:
                    outcome = await self._ask(intent)
                intent = steps.send((outcome, monotonic()))
        except StopIteration as stop:
            return stop.value
        finally:
            request.end()

    async def _ask(self, ask: Ask) -> Answer | Failure:
        endpoint, name, arguments, until_s, connect_by_s, is_new = ask
        now_s = monotonic()
        return await self._node(endpoint).ask(name, arguments, until_s - now_s, connect_by_s - now_s, is_new=is_new)

"""What a client's connection needs of its server, and of its store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from django_keyspace.exceptions import Overloaded
from django_keyspace.node.links import PeerLink
from django_keyspace.node.log import Done, ReplicatedLog
from django_keyspace.node.metrics import Metrics
from django_keyspace.node.scripts import ScriptService
from django_keyspace.operations import Call, Limits
from django_keyspace.wire import NodeHello

if TYPE_CHECKING:
    from django_keyspace.node.connection import ClientConnection


SPARE_CONNECTIONS: Final = 64
"""Beyond the clients' limit, for those that have not said yet whether they are clients or nodes."""


class Operators(Protocol):
    """Answers what operators ask: ``control.py``."""

    def answer(self, call: Call, take: Done) -> None:
        """Carry out a checked call of ``operations.CONTROLS``; ``take`` gets a list of its result or error, later."""


class ReadStore(Protocol):
    """What a connection needs of a store."""

    def read(self, name: str, *arguments: Any) -> Any:
        """Do a read operation, in the calling thread."""

    def log_time_ms(self) -> int:
        """The log clock now."""


class Service(Protocol):
    """What a connection needs of its server."""

    store: ReadStore
    log: ReplicatedLog
    scripts: ScriptService | None
    limits: Limits
    hello: NodeHello
    secret: bytes | None
    metrics: Metrics
    connections: set[ClientConnection]
    connections_max: int
    draining: bool
    unflushed: set[ClientConnection]

    @property
    def control(self) -> Operators:
        """Who answers operators."""

    def members(self) -> dict[str, Any]:
        """What the operation ``members`` answers."""

    def peer_link(self) -> PeerLink:
        """What takes over a connection on which a node has greeted. Raises :class:`ProtocolError` if this one runs alone."""


def too_many(service: Service) -> Overloaded:
    """What is said to clients beyond the limit."""
    return Overloaded(f"Node {service.hello.node} has {service.connections_max:,} connections already.")

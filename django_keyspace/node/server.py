"""A node's server: listeners for clients, and the orderly end.

Holds the store, the log and the connections together; what is said on a connection is in ``connection.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections.abc import Callable
from typing import Any, Final

from django_keyspace import __version__
from django_keyspace.exceptions import ConfigurationError, KeyspaceError, NoConnection, ProtocolError
from django_keyspace.node.auth import ServerTls
from django_keyspace.node.config import NodeConfig, format_address
from django_keyspace.node.connection import HELLO_TIMEOUT_S, ClientConnection, connection_factory
from django_keyspace.node.control import Control
from django_keyspace.node.links import PeerLink
from django_keyspace.node.log import ReplicatedLog
from django_keyspace.node.metrics import Metrics
from django_keyspace.node.scripts import ScriptService
from django_keyspace.node.service import ReadStore
from django_keyspace.operations import Limits
from django_keyspace.wire import PROTOCOL_VERSION, NodeHello, frame_bytes_max_for

logger = logging.getLogger("django_keyspace.node")

DRAIN_TIMEOUT_S: Final = 10.0
BACKLOG: Final = 1024
UNIX_PATH_BYTES_MAX: Final = 100
"""A little less than what every system takes as the path of a Unix socket."""


class Server:
    """Serves a store to clients.

    Arguments:
        config: what the node was told.
        store: for reads.
        log: for writes and for the question whether reads are current.
        limits: sizes that requests are checked against.
        metrics: where requests are counted.
        scripts: runs scripts; without it they are refused.
        cluster: the cluster's id, None for a node that runs alone.
        links: makes what takes over connections of other nodes; without it they are refused.
        tls: its certificate, if it was read already.
    Raises:
        ConfigurationError: the certificate cannot be used.
    """

    def __init__(
        self,
        config: NodeConfig,
        store: ReadStore,
        log: ReplicatedLog,
        limits: Limits,
        metrics: Metrics | None = None,
        scripts: ScriptService | None = None,
        *,
        cluster: str | None = None,
        links: Callable[[], PeerLink] | None = None,
        tls: ServerTls | None = None,
    ) -> None:
        self.config = config
        self.secret = config.secret
        self.metrics = metrics or Metrics()
        self.tls = tls or tls_of(config)
        self._links = links
        self.store = store
        self.log = log
        self.scripts = scripts
        self.limits = limits
        self.hello = NodeHello(
            PROTOCOL_VERSION,
            node=config.node_id,
            cluster=cluster,
            databases=limits.databases,
            value_bytes_max=limits.value_bytes_max,
            frame_bytes_max=frame_bytes_max_for(limits.value_bytes_max),
            release=__version__,
        )
        self.connections: set[ClientConnection] = set()
        self.connections_max = config.connections_max
        self.draining = False
        self.address = ""
        self.unflushed: set[ClientConnection] = set()
        """Connections with answers to writes of the group that is being answered."""
        self.control = Control(self)
        self._listeners: list[asyncio.AbstractServer] = []
        self._socket_path: str | None = None
        log.on_commit(self._group_done)

    async def listen(self, listening: socket.socket | None = None) -> str:
        """Open the TCP listener.

        Arguments:
            listening: its socket, if it is open already.
        Returns:
            The address, with the port that was chosen if the configured one is 0.
        Raises:
            ConfigurationError: the address cannot be listened on.
        """
        loop = asyncio.get_running_loop()
        if listening is None:
            listening = listening_socket(self.config)
        try:
            server = await loop.create_server(
                connection_factory(self, loop),
                sock=listening,
                backlog=BACKLOG,
                ssl=self.tls.context if self.tls is not None else None,
                ssl_handshake_timeout=HELLO_TIMEOUT_S if self.tls is not None else None,
            )
        except OSError as error:
            raise ConfigurationError(_cannot_listen(self.config, error)) from error
        self._listeners.append(server)
        name: Any = listening.getsockname()
        self.address = format_address(name[0], name[1])
        return self.address

    def members(self) -> dict[str, Any]:
        """What the operation ``members`` answers: the nodes of the cluster, or this one alone."""
        if self.log.reads is not None:
            return self.log.reads.members()
        node = self.config.node_id
        return {"cluster": None, "leader": node, "nodes": [{"name": node, "address": self.address, "role": "voter"}]}

    def peer_link(self) -> PeerLink:
        """What takes over a connection on which another node has greeted. Raises :class:`ProtocolError` if there can be none."""
        if self._links is None:
            raise ProtocolError(f"Node {self.config.node_id} runs alone: it is in no cluster.")
        if self.draining:
            raise NoConnection(f"Node {self.config.node_id} is shutting down.")
        return self._links()

    async def listen_unix(self, path: str) -> bool:
        """Open the listener on a Unix socket as well. It has no TLS, since nothing leaves the machine.

        Arguments:
            path: the socket's path; what lies there from an earlier run is replaced.
        Returns:
            False if this system or this path does not allow it; the node then serves TCP alone.
        """
        if not hasattr(socket, "AF_UNIX") or len(os.fsencode(path)) > UNIX_PATH_BYTES_MAX:
            logger.warning("No Unix socket: the path %s is too long, or the system has none", path)
            return False
        loop = asyncio.get_running_loop()
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            factory = connection_factory(self, loop)
            # The data folder's mode keeps other users out; the socket's own mode does so too.
            mask = os.umask(0o177)
            try:
                server = await loop.create_unix_server(factory, path, backlog=BACKLOG)
            finally:
                os.umask(mask)
        except OSError as error:
            logger.warning("No Unix socket at %s: %s", path, error)
            return False
        self._listeners.append(server)
        self._socket_path = path
        return True

    def reload(self) -> None:
        """Read the certificate again, for connections from now on: what SIGHUP is for."""
        if self.tls is None:
            logger.info("There is no certificate to read again")
        else:
            self.tls.reload()

    async def stop(self) -> None:
        """Take no more requests, answer those under way, say goodbye, and return when all connections are closed."""
        self.draining = True
        for listener in self._listeners:
            listener.close()
        if self._socket_path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._socket_path)
        goodbye = NoConnection(f"Node {self.config.node_id} is shutting down. What it has not answered was not done.")
        for connection in list(self.connections):
            connection.leave(goodbye)
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                while self.log.pending_calls or self.connections:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            logger.warning("%d connections did not end in time and are cut", len(self.connections))
        for connection in list(self.connections):
            connection.abort()

    def _group_done(self, calls: int) -> None:
        """The log has answered a group of writes: send the answers."""
        if not self.unflushed:
            return
        ready = list(self.unflushed)
        self.unflushed.clear()
        for connection in ready:
            try:
                connection.group_done()
            except KeyspaceError as error:
                connection.leave(error)


def tls_of(config: NodeConfig) -> ServerTls | None:
    """A node's certificate, None if it has none. Raises :class:`ConfigurationError` if it cannot be used."""
    return ServerTls(config.tls_cert, config.tls_key, config.tls_ca) if config.tls_cert and config.tls_key else None


def listening_socket(config: NodeConfig) -> socket.socket:
    """A socket at the node's address, for :meth:`Server.listen`.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """
    try:
        return _bound(config.host, config.port)
    except OSError as error:
        raise ConfigurationError(_cannot_listen(config, error)) from error


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listening.bind(address)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening


def _cannot_listen(config: NodeConfig, error: OSError) -> str:
    address = format_address(config.host, config.port)
    if error.errno == errno.EADDRINUSE:
        return (
            f"Another program listens on {address}. Choose another port with --listen (port 0 takes a free one), "
            "or stop that program."
        )
    if error.errno == errno.EACCES:
        return f"This user may not listen on {address}: choose a port above 1023."
    return f"The node cannot listen on {address}: {error.strerror or error}."

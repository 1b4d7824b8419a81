"""EmbeddedServer: a node as a sub-process of this one. Source: the ancestor's API documentation, "Embedded Servers".

The process is started by ``django_keyspace.testing.RunningNode``. A thread waits for its end: if nobody has asked for it, it
is started again on the same port and the same data, a few times per minute at most. The thread belongs to one run, and
``stop()`` waits for it, so that a ``run()`` right afterwards has nothing to do with it.
"""

from __future__ import annotations

import atexit
import logging
import os
import random
import shutil
import socket
import tempfile
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any, ClassVar, Final, Generic, TypeVar

from django_keyspace.backend.kyoto.client import Client
from django_keyspace.backend.kyoto.errors import ImproperlyConfigured, KyotoTycoonError
from django_keyspace.backend.kyoto.serializers import KT_BINARY, Secret, make_serializer
from django_keyspace.backend.kyoto.tycoon import KyotoTycoon
from django_keyspace.backend.kyoto.tyrant import TokyoTyrant
from django_keyspace.exceptions import KeyspaceError
from django_keyspace.operations import DATABASES_DEFAULT, VALUE_BYTES_MAX_DEFAULT
from django_keyspace.testing import NodeDidNotStart, RunningNode

logger = logging.getLogger("django_keyspace.kyoto")

MEMORY: Final = ("*", "%", ":", "+", "-")
"""Names of the ancestors' databases in memory."""
PORTS: Final = (16_000, 32_000)
_RESTARTS_MAX: Final = 5
_RESTARTS_WITHIN_S: Final = 60.0
_NODE_ID: Final = "embedded"

_Client = TypeVar("_Client", bound=Client)

_FLAGS: Final = frozenset({"-dmn", "-ls", "-le", "-lz", "-ld", "-asi", "-uasi", "-sup", "-tout-off", "-kl"})
"""Flags of the ancestors' servers that have a meaning for their own processes only: they are left out."""
_FLAGS_WITH_VALUE: Final = frozenset(
    {"-log", "-tout", "-th", "-thnum", "-timeout", "-pid", "-ulog", "-ulim", "-bgs", "-bgsi"}
)
"""The same, for flags that are followed by a value."""


def free_port(host: str) -> int:
    """A random port from 16,000 to 32,000 on which nobody listens."""
    for _ in range(1000):
        port = random.randint(*PORTS)
        if is_free(host, port):
            return port
    raise KyotoTycoonError(f"No port from {PORTS[0]} to {PORTS[1]} is free on {host}.")


def is_free(host: str, port: int) -> bool:
    """Whether nobody listens on a port."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def node_flags(server_args: Sequence[str]) -> tuple[list[str], list[str]]:
    """The node's flags for the arguments of the ancestors' servers, and the databases among these.

    Arguments:
        server_args: flags of ``ktserver`` or ``ttserver``, of our node (they begin with ``--``), and databases.
    Raises:
        ImproperlyConfigured: a flag is not known.
    """
    flags: list[str] = []
    scripts: list[str] = []
    databases: list[str] = []
    arguments = iter(map(str, server_args))
    for argument in arguments:
        if argument.startswith("--"):
            flags.append(argument)
        elif argument in ("-scr", "-ext"):
            scripts.append(next(arguments, ""))
        elif argument in _FLAGS_WITH_VALUE:
            next(arguments, None)
        elif argument in MEMORY or not argument.startswith("-"):
            databases.append(argument)
        elif argument not in _FLAGS:
            raise ImproperlyConfigured(
                f"server_args: the node does not know {argument!r:.40}. It takes -scr FILE, its own flags (they begin with "
                "--, see docs/node.md) and databases."
            )
    if scripts:  # the node takes all of them in one flag
        flags.append(f"--scripts={os.pathsep.join(scripts)}")
    return flags, databases


class _Monitor(threading.Thread):
    """Waits for the end of one run's process, and starts it again as long as nobody has asked for the end.

    Arguments:
        node: the process.
        lock: held while a process is started or stopped.
    """

    def __init__(self, node: RunningNode, lock: threading.Lock) -> None:
        super().__init__(name="keyspace-embedded-server", daemon=True)
        self._node = node
        self._lock = lock
        self.stopping = False
        self._started_at_s: list[float] = []

    def run(self) -> None:
        while True:
            self._node.wait(None)
            with self._lock:
                if self.stopping or not self._start_again():
                    return

    def _start_again(self) -> bool:
        now_s = monotonic()
        self._started_at_s = [at_s for at_s in self._started_at_s if now_s - at_s < _RESTARTS_WITHIN_S]
        if len(self._started_at_s) >= _RESTARTS_MAX:
            logger.error("The embedded server ended %d times within a minute: it stays down", _RESTARTS_MAX)
            return False
        self._started_at_s.append(now_s)
        logger.warning("The embedded server has ended by itself and is started again: %s", self._node.errors()[-2000:])
        try:
            self._node.start()
        except KeyspaceError as error:
            logger.error("The embedded server could not be started again: %s", error)
            return False
        return True


_servers: weakref.WeakSet[_Server[Any]] = weakref.WeakSet()


class _Server(Generic[_Client]):
    """The common part of both servers. See :class:`EmbeddedServer` for the arguments."""

    _client_class: ClassVar[type[Client]]

    def __init__(
        self,
        server: str,
        host: str,
        port: int | None,
        database: str | os.PathLike[str] | Sequence[str],
        server_args: Sequence[str] | None,
        serializer: str,
        client_options: dict[str, Any],
    ) -> None:
        self._server = server
        self._host = host
        self._port = port
        flags, more = node_flags(server_args or ())
        names = [database] if isinstance(database, str | os.PathLike) else list(database)
        self._databases = [os.fspath(name) for name in names] + more
        self._data = _data_folder(self._databases)
        self._flags = self._default_flags(flags)
        self._client_options = {"serializer": serializer, **client_options}
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._node: RunningNode | None = None
        self._monitor: _Monitor | None = None
        self._client: _Client | None = None
        self._temporary: str | None = None
        make_serializer(
            serializer, VALUE_BYTES_MAX_DEFAULT, client_options.get("pickle_secret")
        )  # if it is wrong, say so now

    def _default_flags(self, flags: list[str]) -> list[str]:
        given = {flag.partition("=")[0] for flag in flags}
        defaults = {"--databases": str(max(DATABASES_DEFAULT, len(self._databases)))}
        if self._data is None:
            defaults["--durability"] = "none"
        return [f"{name}={value}" for name, value in defaults.items() if name not in given] + flags

    def _make_client(self, port: int) -> _Client:
        made: Any = self._client_class(self._host, port, **self._client_options)
        return made  # type: ignore[no-any-return]

    # ------------------------------------------------------------------------------------------- public

    @property
    def port(self) -> int | None:
        """The port that the server listens on; None before the first run, if it was not given."""
        return self._port

    @property
    def pid(self) -> int | None:
        """The server's process; None while it is not running."""
        node = self._node
        return node.pid if node is not None and self._is_ours() and node.is_running() else None

    @property
    def client(self) -> _Client:
        """A client of the running server: always the same one.

        Raises:
            KyotoTycoonError: the server is not running.
        """
        if self._node is None or self._client is None or not self._is_ours():
            raise KyotoTycoonError("The server is not running. Call run() first.")
        return self._client

    def run(self) -> bool:
        """Start the server. True when it can be reached; False, and a warning in the log, if it runs already.

        Raises:
            KyotoTycoonError: it did not start; the message has what it said.
        """
        self._forget_if_forked()
        with self._lock:
            if self._node is not None:
                logger.warning("run(): the embedded server is running already")
                return False
            self._temporary = tempfile.mkdtemp(prefix="keyspace-embedded-") if self._data is None else None
            try:
                self._start()
            except KeyspaceError as error:
                self._remove_temporary()
                raise KyotoTycoonError(f"The server did not start. {error}") from error
            except BaseException:
                self._remove_temporary()
                raise
        return True

    def _start(self) -> None:
        port = self._port or free_port(self._host)
        node = self._make_node(port)
        try:
            node.start()
        except NodeDidNotStart:
            node.close()
            if self._port is not None or is_free(self._host, port):
                raise
            port = free_port(self._host)  # somebody was faster at the random one
            node = self._make_node(port)
            node.start()
        except BaseException:
            node.close()
            raise
        self._node, self._port = node, port
        self._client = self._make_client(port)
        self._monitor = _Monitor(node, self._lock)
        self._monitor.start()
        _servers.add(self)

    def _make_node(self, port: int) -> RunningNode:
        address = f"[{self._host}]:{port}" if ":" in self._host else f"{self._host}:{port}"
        return RunningNode(Path(self._data or self._temporary or "."), self._flags, _NODE_ID, address)

    def stop(self) -> bool:
        """Stop the server in good order. True; False, and a warning in the log, if it is not running."""
        self._forget_if_forked()
        with self._lock:
            node, monitor = self._node, self._monitor
            if node is None or monitor is None:
                logger.warning("stop(): the embedded server is not running")
                return False
            monitor.stopping = True
            self._node = self._monitor = None
            if self._client is not None:
                self._client.close()
                self._client = None
            node.close()
        monitor.join()
        self._remove_temporary()
        _servers.discard(self)
        return True

    def __enter__(self) -> Any:
        self.run()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    # ------------------------------------------------------------------------------------------- after forks, at exit

    def _is_ours(self) -> bool:
        return self._pid == os.getpid()

    def _forget_if_forked(self) -> None:
        """In a forked child, the server is the parent's."""
        if not self._is_ours():
            self._pid, self._lock = os.getpid(), threading.Lock()  # the old one may be held by a thread of the parent
            self._node = self._monitor = self._client = self._temporary = None

    def _remove_temporary(self) -> None:
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None


def _data_folder(databases: Sequence[str]) -> str | None:
    """The folder of a server with these databases, None for one in memory."""
    # The ancestors write options behind the name: casket.kct#bnum=1000
    paths = sorted({name.partition("#")[0] for name in databases} - set(MEMORY))
    if not databases or not all(databases):
        raise ImproperlyConfigured("database must be '*' or '%' for one in memory, or a folder.")
    if not paths:
        return None
    if len(paths) > 1 or len(paths) < len({name.partition("#")[0] for name in databases}):
        raise ImproperlyConfigured(
            f"The databases of a server lie in one folder, and these are several places: {', '.join(databases)}. Give one "
            "folder, and use its databases by number: client.set(key, value, db=1)."
        )
    path = os.path.abspath(paths[0])
    if os.path.isfile(path):
        raise ImproperlyConfigured(
            f"{path} is a file, and a server of this package keeps its data in a folder. If it is a database of the "
            "ancestor, start the ancestor's server on it and use manage.py keyspace_import."
        )
    return path


class EmbeddedServer(_Server[KyotoTycoon]):
    """A node as a sub-process, with a KyotoTycoon client.

    Arguments:
        server: nothing: in kt, the path of its server's program.
        host: address to listen on: loopback.
        port: port to listen on; None: a random one from 16,000 to 32,000, kept for later runs.
        database: ``"*"`` or ``"%"``: in a temporary folder that goes when the server stops. Otherwise the data folder. A list
            means several databases in one place. They are used by number.
        server_args: flags of the node; of the ancestor's flags, ``-scr FILE`` is taken and those about processes and logs
            are left out.
        serializer: of the client.
        pickle_secret: of the client, for ``KT_PICKLE``.
        quiet: nothing: the node says what it has to say to the log of this process.
        **client_options: further arguments of the client.
    Raises:
        ImproperlyConfigured: something of this makes no sense.

    >>> from django_keyspace.kyoto import EmbeddedServer
    >>> server = EmbeddedServer()
    >>> server.run()
    True
    >>> client = server.client
    >>> client.set('k1', 'v1')
    1
    >>> client.get('k1')
    'v1'
    >>> server.stop()
    True
    """

    _client_class = KyotoTycoon

    def __init__(
        self,
        server: str = "ktserver",
        host: str = "127.0.0.1",
        port: int | None = None,
        database: str | os.PathLike[str] | Sequence[str] = "*",
        server_args: Sequence[str] | None = None,
        serializer: str = KT_BINARY,
        quiet: bool = False,
        *,
        pickle_secret: Secret = None,
        **client_options: Any,
    ) -> None:
        super().__init__(
            server, host, port, database, server_args, serializer, {"pickle_secret": pickle_secret, **client_options}
        )


class EmbeddedTokyoTyrantServer(_Server[TokyoTyrant]):
    """A node as a sub-process, with a TokyoTyrant client. Arguments and errors are those of :class:`EmbeddedServer`.

    >>> from django_keyspace.kyoto import EmbeddedTokyoTyrantServer
    >>> server = EmbeddedTokyoTyrantServer()
    >>> server.run()
    True
    >>> client = server.client
    >>> client.set('k1', 'v1')
    True
    >>> client.get('k1')
    'v1'
    >>> server.stop()
    True
    """

    _client_class = TokyoTyrant

    def __init__(
        self,
        server: str = "ttserver",
        host: str = "127.0.0.1",
        port: int | None = None,
        database: str | os.PathLike[str] | Sequence[str] = "*",
        server_args: Sequence[str] | None = None,
        serializer: str = KT_BINARY,
        quiet: bool = False,
        *,
        pickle_secret: Secret = None,
        **client_options: Any,
    ) -> None:
        super().__init__(
            server, host, port, database, server_args, serializer, {"pickle_secret": pickle_secret, **client_options}
        )


def stop_all() -> None:
    """Stop every server that this process has started. Runs by itself when the interpreter ends."""
    for server in list(_servers):
        if server._is_ours() and server._node is not None:
            server.stop()


atexit.register(stop_all)

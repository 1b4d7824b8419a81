"""Where a Keyspace client's commands go: a store in a folder, or the node among some addresses that serves."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from time import monotonic, sleep
from typing import Any, Final
from urllib.parse import quote

from django_keyspace.addresses import Endpoint, parse_location
from django_keyspace.backend.embedded import EmbeddedEngine, Engine, open_for_records
from django_keyspace.backend.routing import time_is_over
from django_keyspace.backend.transport import RemoteEngine, check_timeout_ms, meet_node, remote_engine
from django_keyspace.exceptions import ConfigurationError, NoLeader, TransportError
from django_keyspace.security import Security, make_security
from django_keyspace.store import Store, StoreOptions
from django_keyspace.wire import NodeHello

GLOBAL_TIMEOUT_MS_DEFAULT: Final = 120_000
MASTER_TIMEOUT_MS_DEFAULT: Final = 21_000
_OF_FOLDERS: Final = frozenset({"durability", "max_bytes", "map_bytes", "databases", "value_bytes_max"})
_OF_NODES: Final = frozenset({"databases", "value_bytes_max", "secret", "tls"})
_MEETING_MS_MAX: Final = 2_000
"""How long one address of several may take before the next is asked."""
_PAUSE_S: Final = 0.1
_ADDRESS: Final = re.compile(r"[A-Za-z0-9_.-]+:\d{1,5}")


class Master:
    """What takes a client's commands.

    Arguments:
        nodes: addresses of nodes, ``host:port`` each, or one folder.
        options: how to open a folder's store; nodes take none.
    Raises:
        ConfigurationError: one of both is not right.

    Attributes:
        limits: what arguments are checked against before they are sent.
        global_timeout_ms: the time of one call in all.
        master_timeout_ms: how long of it may be spent without a node that serves.
        distributes_dirty: whether dirty reads go to all nodes in turn.
    """

    def __init__(self, nodes: Sequence[str] | str | os.PathLike[str], options: dict[str, Any]) -> None:
        self.global_timeout_ms = GLOBAL_TIMEOUT_MS_DEFAULT
        self.master_timeout_ms = MASTER_TIMEOUT_MS_DEFAULT
        self.distributes_dirty = False
        self._engine: Engine | None = None
        self._folder: str | None = None
        self._endpoints: tuple[Endpoint, ...] = ()
        self._chosen: int | None = None
        self._security: Security | None = None
        is_folder = isinstance(nodes, str | os.PathLike)
        known = _OF_FOLDERS if is_folder else _OF_NODES
        if unknown := set(options) - known:
            raise ConfigurationError(
                f"There is no option {min(unknown)!r} for {'a folder' if is_folder else 'nodes'}. "
                f"Known are: {', '.join(sorted(known))}."
            )
        if isinstance(nodes, str | os.PathLike):
            self._folder = _folder(os.fspath(nodes))
            self.limits = self._store(options).options.limits
        else:
            self._endpoints = _endpoints(nodes)
            secret, tls = options.pop("secret", None), options.pop("tls", None)
            self._security = make_security(uses_tls=tls is not None, secret=secret, tls=tls)
            self.limits = StoreOptions(**options).limits
        self._options = options

    def execute(self, name: str, *arguments: Any) -> Any:
        """Do an operation. Raises KeyspaceError only."""
        engine = self._engine
        if engine is None:
            engine = self._engine = self._make_engine()
        return engine.execute(name, *arguments)

    def execute_dirty(self, name: str, *arguments: Any) -> Any:
        """Do a read at any node: at all in turn, or at the leader if there is one. Raises KeyspaceError only."""
        if self.distributes_dirty:
            return self.execute("at", "dirty", 0, None, (name, *arguments))[0]
        engine = self._engine = self._engine or self._make_engine()
        if isinstance(engine, RemoteEngine):
            return engine.read_near_leader(name, *arguments)
        return engine.execute(name, *arguments)

    @property
    def has_leader(self) -> bool:
        """Whether a node leads, as far as this client knows."""
        cluster = self._engine.cluster if isinstance(self._engine, RemoteEngine) else None
        return cluster is None or cluster.leader is not None

    def set_timeouts(self, *, global_ms: int | None = None, master_ms: int | None = None) -> None:
        """Change the times that the next calls have, in milliseconds. Raises ConfigurationError."""
        for name, timeout_ms in (("global timeout", global_ms), ("master timeout", master_ms)):
            if timeout_ms is not None:
                check_timeout_ms(name, timeout_ms)
        self.global_timeout_ms = global_ms or self.global_timeout_ms
        self.master_timeout_ms = master_ms or self.master_timeout_ms
        self._engine = None

    def find(self) -> int:
        """Which of the addresses serves, counted from 0; 0 for a folder. Raises KeyspaceError if none does."""
        if self._folder is not None:
            return 0
        place, node = self._meet()
        if node.cluster is None:
            return place
        # A node may believe in a leader that is gone: the one that answers a safe read leads.
        leader = self.execute("at", "safe", 0, None, ("exists", 0, b"master"))[3]
        for endpoint, index in zip(self._endpoints, range(len(self._endpoints)), strict=True):
            with contextlib.suppress(TransportError):
                if self._name_at(endpoint) == leader:
                    return index
        error = NoLeader(f"Node {leader} leads, and its address is none of this client's.")
        error.reached = True
        raise error

    def _name_at(self, endpoint: Endpoint) -> str:
        """Who listens at an address."""
        cluster = self._engine.cluster if isinstance(self._engine, RemoteEngine) else None
        known = cluster.name_of(endpoint) if cluster is not None else None
        if known is not None:
            return known
        timeout_ms = min(self.global_timeout_ms, _MEETING_MS_MAX)
        return meet_node(endpoint, timeout_ms=timeout_ms, security=self._security).node

    def is_there(self, index: int) -> bool:
        """Whether the node at one of the addresses answers, now."""
        if self._folder is not None:
            return True
        try:
            timeout_ms = min(self.global_timeout_ms, _MEETING_MS_MAX)
            meet_node(self._endpoints[index], timeout_ms=timeout_ms, security=self._security)
        except TransportError:
            return False
        return True

    def __len__(self) -> int:
        return max(len(self._endpoints), 1)

    def _store(self, options: dict[str, Any]) -> Store:
        """The folder's store, which this opens no file of. Without options it may be as somebody else has opened it."""
        return open_for_records(self._folder or "", options)

    def _make_engine(self) -> Engine:
        if self._folder is not None:
            return EmbeddedEngine(self._store(self._options), self.global_timeout_ms)
        endpoints = self._endpoints
        if len(endpoints) > 1:
            if self._chosen is None:
                self._chosen, node = self._meet()
                if node.cluster is not None:
                    self._chosen = None
            if self._chosen is not None:
                # Single nodes hold data of their own each: this client stays with the one that it has found.
                endpoints = (endpoints[self._chosen],)
        return remote_engine(
            _location(endpoints),
            timeout_ms=self.global_timeout_ms,
            leader_timeout_ms=self.master_timeout_ms,
            security=self._security,
        )

    def _meet(self) -> tuple[int, NodeHello]:
        """Look for a node until the master timeout, or the global one, is over."""
        indexes = range(len(self._endpoints)) if self._chosen is None else (self._chosen,)
        limit_ms = min(self.master_timeout_ms, self.global_timeout_ms)
        end_s = monotonic() + limit_ms / 1000
        while True:
            for index in indexes:
                left_ms = max(int((end_s - monotonic()) * 1000), 1)
                try:
                    return index, meet_node(
                        self._endpoints[index],
                        timeout_ms=left_ms if len(indexes) == 1 else min(left_ms, _MEETING_MS_MAX),
                        security=self._security,
                    )
                except TransportError as error:
                    last = error
            left_s = end_s - monotonic()
            if left_s <= 0:
                break
            sleep(min(left_s, _PAUSE_S))
        if self.global_timeout_ms <= self.master_timeout_ms:
            raise time_is_over(self._endpoints[index], limit_ms, last)
        raise NoLeader(f"No node was found within {limit_ms:,} ms. The last thing that happened: {last}")


def _folder(path: str) -> str:
    if _ADDRESS.fullmatch(path):
        raise ConfigurationError(f"{path!r} looks like the address of a node. Give a list of addresses: [{path!r}].")
    path = path.removeprefix("embedded:")
    if not path or "://" in path:
        raise ConfigurationError(f"{path!r:.200} is not a folder. Give a folder, or a list of addresses of nodes.")
    return os.path.abspath(path)


def _endpoints(nodes: Any) -> tuple[Endpoint, ...]:
    """The addresses in a list: ``host:port``, or the path of a node's Unix socket."""
    if not isinstance(nodes, list | tuple) or not nodes or not all(isinstance(node, str) and node for node in nodes):
        raise ConfigurationError(
            f"nodes must be a list of addresses such as ['127.0.0.1:7080'], or one folder, not {nodes!r:.200}."
        )
    found = []
    for node in nodes:
        if node.startswith("/"):
            found.append(Endpoint(path=node))
        elif "/" in node or "," in node:
            raise ConfigurationError(f"{node!r:.200} is not the address of a node. It looks like 127.0.0.1:7080.")
        else:
            found += parse_location(f"keyspace://{node}").endpoints
    if len(set(found)) != len(found):
        raise ConfigurationError(f"An address stands twice in {nodes!r:.200}.")
    return tuple(found)


def _location(endpoints: Sequence[Endpoint]) -> str:
    if endpoints[0].path:
        return f"keyspace+unix://{quote(endpoints[0].path)}"
    return f"keyspace://{','.join(map(str, endpoints))}/0"

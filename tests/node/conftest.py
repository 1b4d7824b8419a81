"""Fixtures for the tests with a real node process."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from django_keyspace.addresses import parse_location
from django_keyspace.backend.transport import RemoteEngine
from django_keyspace.testing import RunningNode, running_node
from django_keyspace.wire import ClientHello, Decoder, Encoder, FrameReader
from tests.node.replicas import Cluster


class RawClient:
    """A client that says exactly what a test wants it to say."""

    def __init__(self, address: str, *, hello: bool = True) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self.reader = FrameReader(2**31)
        self.decoder = Decoder()
        self.encoder = Encoder(2**31)
        self.messages: list[Any] = []
        if hello:
            self.send(ClientHello().message())
            assert self.receive()[0] == "keyspace"

    def send(self, *messages: Any) -> None:
        self.socket.sendall(b"".join(map(self.encoder.encode, messages)))

    def receive(self) -> Any:
        """The next message; None at the end of the stream."""
        while not self.messages:
            data = self.socket.recv(65_536)
            if not data:
                return None
            self.messages += map(self.decoder.decode, self.reader.feed(data))
        return self.messages.pop(0)

    def close(self) -> None:
        self.socket.close()


@pytest.fixture(scope="module")
def shared_node() -> Iterator[RunningNode]:
    """A node for tests that leave it as it is, but for the data."""
    with running_node() as node:
        yield node


@pytest.fixture
def node() -> Iterator[RunningNode]:
    """A node for one test."""
    with running_node() as node:
        yield node


def engine_for(node: RunningNode, **options: Any) -> RemoteEngine:
    return RemoteEngine(parse_location(node.location).endpoints, **options)


@pytest.fixture
def engine(shared_node: RunningNode) -> Iterator[RemoteEngine]:
    """An engine of its own, with an empty database 0."""
    engine = engine_for(shared_node)
    engine.execute("clear", 0, True)
    yield engine
    engine.close()


@pytest.fixture
def raw(shared_node: RunningNode) -> Iterator[Any]:
    """Makes raw clients of the shared node."""
    with contextlib.ExitStack() as stack:

        def make(**options: Any) -> RawClient:
            client = RawClient(shared_node.address, **options)
            stack.callback(client.close)
            return client

        yield make


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Makes clusters of replicated nodes in virtual time; none of them runs yet."""
    with contextlib.ExitStack() as stack:

        def make(count: int = 3, **settings: Any) -> Cluster:
            folder = tmp_path / f"cluster-{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            cluster = Cluster(folder, count, **settings)
            stack.callback(cluster.close)
            return cluster

        yield make


@pytest.fixture
def cluster(make_cluster: Callable[..., Cluster]) -> Cluster:
    """Three nodes, of which one leads."""
    made = make_cluster()
    made.start()
    return made


@contextlib.contextmanager
def crowd(address: str, number: int) -> Iterator[list[RawClient]]:
    """Clients that have all said hello."""
    clients: list[RawClient] = []
    try:
        for _ in range(number):
            clients.append(RawClient(address))
        yield clients
    finally:
        for client in clients:
            client.close()


def write_with_each(clients: list[RawClient]) -> None:
    """Let each client count, all at once: each write is done once."""
    for client in clients:
        client.send((1, "incr", 0, b"n", 1, 0, None, 0))
    assert sorted(client.receive()[1:] for client in clients) == [("ok", n) for n in range(1, len(clients) + 1)]

"""Trouble from outside: crowds, clients that dawdle or vanish, full disks. Each has its row in ``docs/node.md``."""

from __future__ import annotations

import contextlib
import resource
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from django_keyspace.addresses import parse_location
from django_keyspace.backend.transport import RemoteEngine
from django_keyspace.exceptions import (
    DeadlineExceeded,
    NoSpace,
    Overloaded,
    ProtocolError,
    StorageError,
    UnknownOutcome,
)
from django_keyspace.security import make_security
from django_keyspace.testing import RunningNode, running_node
from django_keyspace.wire import PROTOCOL_VERSION, ClientHello, Encoder

from ..certificates import Certificates
from ..store.helpers import await_condition
from .conftest import RawClient, crowd, engine_for, write_with_each

pytestmark = pytest.mark.node

VALUE = (1, 0, b"v")


def full_house(number: int) -> None:
    """As many connections as the node takes: all are served, the next one is refused, and room is made by who goes."""
    with running_node(connections_max=number) as node, crowd(node.address, number) as clients:
        write_with_each(clients)
        engine = engine_for(node)
        with pytest.raises(Overloaded, match=f"has {number:,} connections already"):
            engine.execute("exists", 0, b"n")
        clients.pop().close()
        again = engine_for(node, leader_timeout_ms=None, timeout_ms=20_000)
        await_condition(lambda: _is_served(again), 30)
        again.close()
        engine.close()


def _is_served(engine: RemoteEngine) -> bool:
    try:
        return bool(engine.execute("exists", 0, b"n"))
    except Overloaded:
        return False


def test_a_full_house() -> None:
    full_house(500)


@contextlib.contextmanager
def many_files(wanted: int) -> Iterator[int]:
    """Let this process, and those that it starts meanwhile, have so many files open, or as many as they may; gives that."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = before[1]
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield limit
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.timeout(600)
def test_a_crowd() -> None:
    """Ten thousand, or as many as this machine lets one process have."""
    with many_files(10_500) as limit:
        full_house(limit - 500)


# --- Clients that dawdle or vanish


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningNode, Certificates]]:
    certificates = Certificates(tmp_path_factory.mktemp("certificates"))
    with running_node(**certificates.node_options()) as node:
        yield node, certificates


def await_end(stream: socket.socket) -> None:
    """Until the node has closed the connection."""
    stream.settimeout(40)
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while stream.recv(4096):
            pass


@pytest.mark.parametrize("kind", ["plain", "tls", "within tls"])
def test_a_handshake_byte_by_byte_is_ended_and_holds_up_nobody(
    encrypted: tuple[RunningNode, Certificates], shared_node: RunningNode, kind: str
) -> None:
    node, certificates = encrypted if kind != "plain" else (shared_node, None)
    host, _, port = node.address.rpartition(":")
    stream: socket.socket = socket.create_connection((host, int(port)), 30)
    hello = Encoder(2**14).encode(ClientHello(release="slow" * 100).message())
    if certificates is not None and kind == "within tls":
        context = ssl.create_default_context(cafile=certificates.ca)
        stream = context.wrap_socket(stream, server_hostname=host)
    elif kind == "tls":
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(400)  # how the hello of TLS begins
    ended = threading.Event()

    def dawdle() -> None:
        with contextlib.suppress(OSError):
            for byte in hello:
                stream.sendall(bytes([byte]))
                if ended.wait(0.2):
                    return

    thread = threading.Thread(target=dawdle)
    thread.start()
    try:
        tls = {"ca": certificates.ca} if certificates is not None else None
        security = make_security(uses_tls=tls is not None, tls=tls, environment={})
        neighbour = RemoteEngine(parse_location(node.location).endpoints, security=security)
        for _ in range(20):
            assert neighbour.execute("set", 0, b"k", VALUE, None, "always") is True
        neighbour.close()
        await_end(stream)  # 10 seconds after it came, although it never stopped sending
    finally:
        ended.set()
        thread.join()
        stream.close()


class Valve:
    """Passes bytes between clients and a node until it is shut: then it drops them, and nobody hears of it."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._target = (host, int(port))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self.is_shut = False
        self._sockets: list[socket.socket] = [self._listening]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                node = socket.create_connection(self._target, 30)
                self._sockets += [client, node]
                for ends in ((client, node), (node, client)):
                    self._threads.append(threading.Thread(target=self._pass, args=ends))
                    self._threads[-1].start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        source.settimeout(None)
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if not self.is_shut:
                    sink.sendall(data)

    def close(self) -> None:
        for each in list(self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(30)


def test_a_connection_that_is_half_open(node: RunningNode) -> None:
    """Nothing gets through any more, and neither side is told: a cable, a firewall, a host that has lost its power."""
    valve = Valve(node.address)
    try:
        engine = RemoteEngine(parse_location(f"keyspace://{valve.address}/0").endpoints, timeout_ms=2000)
        assert engine.execute("set", 0, b"k", VALUE, None, "always") is True
        valve.is_shut = True
        with pytest.raises(UnknownOutcome):
            engine.execute("delete", 0, b"k")
        with pytest.raises(DeadlineExceeded):
            engine.execute("exists", 0, b"k")
        # The node serves others, keeps what it answered, and lets go of everything in good order.
        neighbour = engine_for(node)
        assert neighbour.execute("exists", 0, b"k") is True
        valve.is_shut = False
        assert engine.execute("exists", 0, b"k") is True
        engine.close()
        valve.is_shut = True
        neighbour.close()
        node.send_signal(signal.SIGTERM)
        assert node.wait() == 0
    finally:
        valve.close()


# --- Versions


def test_a_client_of_a_version_that_is_no_more(shared_node: RunningNode) -> None:
    client = RawClient(shared_node.address, hello=False)
    client.send(("keyspace", 0, {"role": "client", "release": "0"}))
    request_id, code, sentence = client.receive()
    assert (request_id, code) == (0, "protocol")
    assert "version 0" in sentence and "Update the client" in sentence
    assert client.receive() is None
    client.close()


def test_a_node_of_a_version_that_this_client_does_not_know() -> None:
    fields = {"node": "n1", "cluster": None, "databases": 1, "value_bytes_max": 1, "frame_bytes_max": 1, "release": "9"}
    answer = Encoder(2**14).encode(("keyspace", PROTOCOL_VERSION + 1, fields))
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            client, _ = listening.accept()
            with client:
                client.recv(4096)
                client.sendall(answer)
                await_end(client)

        thread = threading.Thread(target=serve)
        thread.start()
        engine = RemoteEngine(parse_location(f"keyspace://127.0.0.1:{listening.getsockname()[1]}/0").endpoints)
        with pytest.raises(ProtocolError, match=f"speaks protocol version {PROTOCOL_VERSION + 1}.*Update the older"):
            engine.execute("exists", 0, b"k")
        engine.close()
        thread.join(30)


# --- The disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of six megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small disk is not allowed here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("durability", ["commit", "interval"])
def test_a_full_disk_refuses_writes_serves_reads_and_comes_back(small_disk: Path, durability: str) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 3 * 2**20)
    with running_node(data=small_disk / "n1", durability=durability) as node:
        engine = engine_for(node)
        stored: list[bytes] = []
        error: Any = None
        for number in range(3000):
            key = b"k%d" % number
            try:
                engine.execute("set", 0, key, (1, 0, b"x" * 5000), None, "always")
            except (NoSpace, StorageError) as caught:
                error = caught
                break
            stored.append(key)
        assert error is not None and "Nothing was" in str(error)
        assert len(stored) > 20
        assert None not in engine.execute("get_many", 0, stored)
        assert node.is_running()
        ballast.unlink()
        assert engine.execute("set", 0, b"after", VALUE, None, "always") is True
        node.kill()
        node.start()
        assert engine.execute("exists", 0, b"after") is True
        assert None not in engine.execute("get_many", 0, stored)
        engine.close()

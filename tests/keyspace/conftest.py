"""Fixtures for the tests of Keyspace's API: a client on an empty place of each engine, and a node that can be tampered with."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_keyspace.keyspace import Client
from tests.contract.conftest import _params, long_lived, place
from tests.contract.engines import ENGINES, Place

__all__ = ["long_lived", "place"]


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The table of expectations is held against three nodes as well."""
    if metafunc.module.__name__.endswith(".test_expectations") and "place" in metafunc.fixturenames:
        wider = pytest.mark.parametrize("place", _params([*ENGINES, "cluster"]), indirect=True)
        metafunc.definition.add_marker(wider)


@pytest.fixture
def make_client(place: Place) -> Callable[..., Client]:
    """Makes clients on the place; arguments as those of ``Client``, without the nodes."""
    return place.keyspace_client


@pytest.fixture
def client(make_client: Callable[..., Client]) -> Client:
    return make_client()


class Proxy:
    """Stands between clients and a node, and goes wrong when a test says so.

    Arguments:
        address: host and port of the node.

    Attributes:
        address: host and port to connect to.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._node = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._mode = ""
        self._passes = 0
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def arm(self, mode: str, passes: int = 0) -> None:
        """From now on let so many requests through, and then ``cut`` all connections for good or ``swallow`` the rest."""
        with self._lock:
            self._mode, self._passes = mode, passes

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                node = socket.create_connection(self._node, timeout=30)
                self._sockets += [client, node]
                self._start(self._pump_requests, client, node)
                self._start(self._pump_answers, node, client)

    def _pump_requests(self, client: socket.socket, node: socket.socket) -> None:
        """Pass whole frames on, one by one."""
        pending = b""
        with contextlib.suppress(OSError):
            while data := client.recv(65_536):
                pending += data
                while len(pending) >= 4 and len(pending) >= (end := 4 + int.from_bytes(pending[:4], "big")):
                    if self._lets_through():
                        node.sendall(pending[:end])
                    pending = pending[end:]

    def _lets_through(self) -> bool:
        with self._lock:
            if not self._mode or self._passes:
                self._passes -= bool(self._mode)
                return True
        if self._mode == "cut":
            self._cut()
        return False

    def _pump_answers(self, node: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := node.recv(65_536):
                client.sendall(data)

    def _cut(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._cut()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(30)
        for each in self._sockets:
            each.close()


@pytest.fixture
def proxied(place: Place) -> Iterator[Callable[..., tuple[Client, Proxy]]]:
    """Makes a client with a proxy between it and the node, already connected. Only on places that are reached by TCP."""
    with contextlib.ExitStack() as stack:

        def make(**options: Any) -> tuple[Client, Proxy]:
            proxy = Proxy(place.location().removeprefix("keyspace://").partition("/")[0])
            stack.callback(proxy.close)
            client = Client([proxy.address], **options)
            client.get("connect")
            return client, proxy

        yield make

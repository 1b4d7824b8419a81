"""Nodes that do what a test says, on real sockets: a cluster's wire without a cluster."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import replace
from typing import Any

from django_keyspace.wire import Decoder, Encoder, FrameReader, NodeHello

LOG_MS = 1_700_000_000_000
HELLO = NodeHello(1, "?", "c1", 16, 1_000_000, 2_000_000, log_ms=LOG_MS)
FRAME_BYTES = 2_000_000


class FakeNode:
    """One node.

    Arguments:
        name: its name.
        script: what it does with one call after the other; the last word goes on for ever. ``ok``; ``silent`` (takes the call
            and says nothing), ``break`` (takes it and closes the connection), ``->name``, ``->``, or an error's code.
        cluster: the cluster it says it belongs to.
        greets: whether it says hello.

    Attributes:
        calls: what came, but for ``members``.
        hellos: fields of the clients' hellos.
    """

    def __init__(self, name: str, script: str = "ok", *, cluster: str | None = "c1", greets: bool = True) -> None:
        self.name = name
        self.script = script.split()
        self.calls: list[tuple[Any, ...]] = []
        self.hellos: list[dict[str, Any]] = []
        self.peers: dict[str, FakeNode] = {name: self}
        self.leader: str | None = None
        self.index = 100
        self._hello = replace(HELLO, node=name, cluster=cluster)
        self._greets = greets
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(client)
                thread = threading.Thread(target=self._serve, args=(client,))
                self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        encode, decode, reader = Encoder(FRAME_BYTES).encode, Decoder().decode, FrameReader(FRAME_BYTES)
        is_greeted = False
        with contextlib.suppress(OSError):
            while data := client.recv(65_536):
                for message in map(decode, reader.feed(data)):
                    if not is_greeted:
                        self.hellos.append(message[2])
                        is_greeted = self._greets
                        if is_greeted:
                            client.sendall(encode(self._hello.message()))
                        continue
                    answer = self._answer(message[0], message[1:])
                    if answer == "break":
                        self._forget(client)
                        return
                    if answer is not None:
                        client.sendall(encode(answer))
        self._forget(client)

    def _answer(self, number: int, call: tuple[Any, ...]) -> Any:
        if call[0] == "members":
            return number, "ok", self._members()
        with self._lock:
            self.calls.append(call)
            word = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if word == "silent":
            return None
        if word == "break":
            return word
        if word.startswith("->"):
            return number, "not-leader", ("not me", self.peers[word[2:]].address if word[2:] else None)
        if word != "ok":
            return number, word, "so it says"
        if call[0] == "at":
            return number, "ok", (f"record of {self.name}".encode(), self.index, 0, self.name)
        return number, "ok", True, self.index

    def _members(self) -> dict[str, Any]:
        nodes = [{"name": name, "address": peer.address, "role": "voter"} for name, peer in self.peers.items()]
        return {"cluster": self._hello.cluster, "leader": self.leader, "nodes": nodes}

    def _forget(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
        client.close()
        with self._lock:
            self._open.discard(client)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._open)

    def close(self) -> None:
        """End it, with all of its connections, and wait for its threads."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            clients, threads = list(self._open), list(self._threads)
        for client in clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


class FakeCluster:
    """Nodes that know each other. Arguments: as those of :class:`FakeNode`, by name."""

    def __init__(self, leader: str | None, **scripts: str | FakeNode) -> None:
        self.nodes = {
            name: script if isinstance(script, FakeNode) else FakeNode(name, script) for name, script in scripts.items()
        }
        for node in self.nodes.values():
            node.peers, node.leader = self.nodes, leader

    def __getitem__(self, name: str) -> FakeNode:
        return self.nodes[name]

    @property
    def addresses(self) -> list[str]:
        return [node.address for node in self.nodes.values()]

    def asked(self) -> dict[str, int]:
        """How many calls each node got."""
        return {name: len(node.calls) for name, node in self.nodes.items()}

    def close(self) -> None:
        for node in self.nodes.values():
            node.close()

"""A cluster of real node processes for as long as a test runs."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Final, TypeVar

from django_keyspace.exceptions import KeyspaceError, NoConnection, NoLeader, error_from_code
from django_keyspace.handshake import PROOF, client_proof, new_nonce
from django_keyspace.testing.node import NodeDidNotStart, RunningNode
from django_keyspace.wire import OK, ClientHello, Decoder, Encoder, FrameReader, NodeHello, connection_error

T = TypeVar("T")

WAIT_TIMEOUT_S: Final = 30.0
ASK_TIMEOUT_S: Final = 10.0
_LOOK_AGAIN_S: Final = 0.02
_PORTS: Final = range(10_240, 32_000)
"""Below those that the system gives to outgoing connections, one of which could take a port that a stopped node needs again."""
_ATTEMPTS: Final = 5


class RunningCluster:
    """Node processes that this process has started. :func:`running_cluster` makes it.

    Attributes:
        nodes: the processes, by name.
        options: ``OPTIONS`` that a client needs: the secret, if there is one.
    """

    def __init__(self, folder: Path, size: int, secret: str | None, flags: list[str]) -> None:
        names = [f"n{number}" for number in range(1, size + 1)]
        self._folder = folder
        self._secret = secret
        self._flags = flags
        self.options: dict[str, Any] = {"secret": secret} if secret else {}
        self.addresses = dict(zip(names, self._find_addresses(names), strict=True))
        self.nodes: dict[str, RunningNode] = {}
        for name in names:
            peers = [f"--peer={other}={address}" for other, address in self.addresses.items() if other != name]
            self.nodes[name] = self._node(name, peers)

    def _find_addresses(self, names: list[str]) -> list[str]:
        """Where the nodes will be reached."""
        return [f"127.0.0.1:{port}" for port in _free_ports(len(names))]

    def _node(self, name: str, flags: list[str]) -> RunningNode:
        return RunningNode(self._folder / name, [*self._flags, *flags], name, self.addresses[name], self._secret)

    @property
    def location(self) -> str:
        """``LOCATION`` of the first database, with the addresses of all nodes."""
        node = next(iter(self.nodes.values()))
        scheme = node.location.partition("://")[0] or "keyspace"
        return f"{scheme}://{','.join(self.addresses.values())}/0"

    def start(self) -> None:
        """Start the nodes that do not run, all at once, and return when they serve. Raises :class:`NodeDidNotStart`."""
        launched = [node for node in self.nodes.values() if node.launch()]
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            waits = [pool.submit(node.await_ready) for node in launched]
            wait(waits, return_when=FIRST_EXCEPTION)
            failed = next((error for one in waits if one.done() and (error := one.exception()) is not None), None)
            if failed is not None:
                # The others may wait for it for ever.
                for node in launched:
                    node.send_signal(signal.SIGKILL)
                raise failed

    def join(self, name: str) -> RunningNode:
        """Start another node, which joins as a learner, and return when it serves."""
        members = ",".join(self.addresses.values())
        if name not in self.addresses:
            self.addresses[name] = self._find_addresses([name])[0]
        node = self.nodes[name] = self._node(name, [f"--join={members}"])
        node.start()
        return node

    def rejoin(self, name: str) -> RunningNode:
        """Start a node whose folder is gone once more, as a learner that takes its own place."""
        self.nodes[name].close()
        others = ",".join(address for other, address in self.addresses.items() if other != name)
        node = self.nodes[name] = self._node(name, [f"--join={others}"])
        node.start()
        return node

    def ask(self, name: str, *call: Any, timeout_s: float = ASK_TIMEOUT_S) -> Any:
        """Do an operation at one node, whatever it is in the cluster. Raises :class:`KeyspaceError`."""
        return ask_node(self.nodes[name], *call, timeout_s=timeout_s)

    def leader(self, *, other_than: str = "", timeout_s: float = WAIT_TIMEOUT_S) -> RunningNode:
        """The node that leads and answers safe reads. Waits until there is one. Raises :class:`NoLeader`."""

        def look() -> RunningNode | None:
            for name, node in self.nodes.items():
                if name != other_than and node.is_running():
                    with contextlib.suppress(KeyspaceError, OSError):
                        if self.ask(name, "members", timeout_s=2)["leader"] == name:
                            self.ask(name, "exists", 0, b"is there a leader", timeout_s=2)
                            return node
            return None

        found = await_found(look, timeout_s)
        if found is None:
            logs = "\n\n".join(f"{name}:\n{node.errors()[-2000:]}" for name, node in self.nodes.items())
            raise NoLeader(f"No node leads after {timeout_s:.0f} s. The nodes' logs:\n{logs}")
        return found

    def followers(self) -> list[RunningNode]:
        """The nodes that run and do not lead."""
        leader = self.leader()
        return [node for node in self.nodes.values() if node is not leader and node.is_running()]

    def close(self) -> None:
        """End all processes at once."""
        for node in self.nodes.values():
            node.kill()
        for node in self.nodes.values():
            node.close()


def ask_node(node: RunningNode, *call: Any, timeout_s: float = ASK_TIMEOUT_S) -> Any:
    """Do an operation at a node, over a connection of its own to its Unix socket.

    Arguments:
        node: a node that runs.
        call: the operation and its arguments.
        timeout_s: how long each answer may take.
    Raises:
        KeyspaceError: what the node answered, or that it did not.
    """
    encode, decode, reader = Encoder(2**31).encode, Decoder().decode, FrameReader(2**31)
    messages: list[Any] = []
    nonce = new_nonce() if node.options else None
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(node.data / "node.sock"))

            def receive() -> Any:
                while not messages:
                    data = connection.recv(65_536)
                    if not data:
                        raise NoConnection(f"Node {node.node_id} has closed the connection.")
                    messages.extend(map(decode, reader.feed(data)))
                return messages.pop(0)

            connection.sendall(encode(ClientHello(nonce=nonce).message()))
            hello = NodeHello.parse(receive())
            if nonce is not None and hello.nonce is not None:
                secret = str(node.options["secret"]).encode()
                proof = client_proof(secret, nonce, hello.nonce, hello.node, hello.cluster)
                connection.sendall(encode((PROOF, proof)))
            connection.sendall(encode((1, *call)))
            answer = receive()
    except OSError as error:
        raise NoConnection(f"Node {node.node_id} does not answer: {error}.") from error
    refusal = connection_error(answer)
    if refusal is not None:
        raise refusal
    if answer[1] != OK:
        sentence = answer[2]
        raise error_from_code(answer[1], sentence if isinstance(sentence, str) else sentence[0])
    return answer[2]


def await_found(look: Callable[[], T | None], timeout_s: float = WAIT_TIMEOUT_S) -> T | None:
    """What ``look`` finds, as soon as it finds something; None if it does not in time."""
    deadline_at_s = time.monotonic() + timeout_s
    while (found := look()) is None and time.monotonic() < deadline_at_s:
        time.sleep(_LOOK_AGAIN_S)
    return found


@contextlib.contextmanager
def running_cluster(
    size: int = 3, *, data: str | os.PathLike[str] | None = None, secret: str | None = None, **options: Any
) -> Iterator[RunningCluster]:
    """Run a cluster for as long as the block runs. No process is left behind, however the block ends.

    Arguments:
        size: the number of nodes; they are called n1, n2 and so on.
        data: a folder for their data folders; without it, a temporary one that goes with them.
        secret: what nodes and clients must know.
        **options: other flags of all nodes, such as ``election_timeout_ms=1000``.
    Returns:
        A context manager that gives the :class:`RunningCluster`: all nodes serve, and one of them leads.
    Raises:
        NodeDidNotStart: one does not serve.
        NoLeader: none leads.
    """
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    with contextlib.ExitStack() as stack:
        folder = Path(data or stack.enter_context(tempfile.TemporaryDirectory(prefix="keyspace-cluster-")))
        for attempt in range(_ATTEMPTS):
            cluster = RunningCluster(folder / (f"attempt-{attempt}" if attempt else "."), size, secret, flags)
            stack.callback(cluster.close)
            try:
                cluster.start()
                break
            except NodeDidNotStart as error:
                if "Another program listens" not in str(error) or attempt == _ATTEMPTS - 1:
                    raise
        cluster.leader()
        yield cluster


def _free_ports(number: int) -> list[int]:
    """Ports on which nobody listens. Somebody may before they are used: see :func:`running_cluster`."""
    found: list[int] = []
    for port in random.SystemRandom().sample(_PORTS, 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == number:
            return found
    raise NodeDidNotStart(f"There are no {number} free ports on this machine.")

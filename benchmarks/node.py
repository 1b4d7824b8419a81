"""Load one node: so many connections, with so many requests under way on each.

``python benchmarks/node.py`` starts a node on a free port, loads it from processes of their own and prints throughput, the
times of the requests, and how much processor time each operation took of the clients and of the node. The clients send and
read frames and nothing else: no Django, no cache backend, no retries.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import selectors
import socket
import ssl
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from django_keyspace.testing import RunningNode, running_node
from django_keyspace.wire import OK, ClientHello, Decoder, Encoder, FrameReader

FRAME_BYTES_MAX = 2**27
KEYS = 10_000
LONGEST_WAIT_S = 30


class LoadFailed(Exception):
    """The node did not answer as it should; the figures would be of something else."""


@dataclass(frozen=True)
class Plan:
    """What one client process does."""

    kind: str
    address: str
    ca: str | None
    connections: int
    depth: int
    reads: float
    value_bytes: int
    seconds: float
    seed: int


@dataclass(frozen=True)
class Figures:
    """What came of a run: requests per second, milliseconds, and microseconds of processor time per operation."""

    kind: str
    connections: int
    depth: int
    operations: int
    per_second: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    client_cpu_us: float
    node_cpu_us: float | None


class Connection:
    """One connection with its requests under way."""

    def __init__(self, plan: Plan, rng: random.Random) -> None:
        self.plan, self.rng = plan, rng
        self.socket = self._connect()
        self.reader, self.decode = FrameReader(FRAME_BYTES_MAX), Decoder().decode
        self.encode = Encoder(FRAME_BYTES_MAX).encode
        self.value = (1, 0, rng.randbytes(plan.value_bytes))
        self.sent_at_s: dict[int, float] = {}
        self.last_id = 0
        self.socket.sendall(self.encode(ClientHello().message()))
        bodies: list[bytes] = []
        while not bodies:
            bodies = self.receive()
        if self.decode(bodies[0])[0] != "keyspace":
            raise LoadFailed(f"The node did not greet: {self.decode(bodies[0])!r:.200}")

    def _connect(self) -> socket.socket:
        plan = self.plan
        if plan.kind == "unix":
            found = socket.socket(socket.AF_UNIX)
            found.settimeout(LONGEST_WAIT_S)
            found.connect(plan.address)
            return found
        host, _, port = plan.address.rpartition(":")
        found = socket.create_connection((host, int(port)), LONGEST_WAIT_S)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if plan.kind == "tls":
            return ssl.create_default_context(cafile=plan.ca).wrap_socket(found, server_hostname=host)
        return found

    def receive(self) -> list[bytes]:
        """The bodies that have come. With TLS, all that is decrypted already: no selector knows of that."""
        data = self.socket.recv(65_536)
        while isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
            data += self.socket.recv(65_536)
        if not data:
            raise LoadFailed("The node has closed a connection.")
        return self.reader.feed(data)

    def ask(self, number: int) -> None:
        """Send requests."""
        frames = []
        for _ in range(number):
            self.last_id += 1
            key = b"key%d" % self.rng.randrange(KEYS)
            if self.rng.random() < self.plan.reads:
                frames.append(self.encode((self.last_id, "get", 0, key)))
            else:
                frames.append(self.encode((self.last_id, "set", 0, key, self.value, None, "always")))
        now_s = time.perf_counter()
        self.sent_at_s.update((self.last_id - back, now_s) for back in range(number))
        self.socket.sendall(b"".join(frames))

    def take(self, times_s: list[float]) -> int:
        """Receive answers, and note how long each took. Returns how many there were."""
        bodies = self.receive()
        now_s = time.perf_counter()
        for body in bodies:
            request_id, status, result = self.decode(body)
            if status != OK:
                raise LoadFailed(f"The node refused a request: {status}: {result}")
            times_s.append(now_s - self.sent_at_s.pop(request_id))
        return len(bodies)


def client(plan: Plan, pipe: Any) -> None:
    """A client process: connect, say so, wait for the word, load the node, tell what came of it."""
    try:
        rng = random.Random(plan.seed)
        connections = [Connection(plan, rng) for _ in range(plan.connections)]
        selector = selectors.DefaultSelector()
        for connection in connections:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        pipe.send("ready")
        pipe.recv()
        times_s: list[float] = []
        cpu_s, began_s = time.process_time(), time.perf_counter()
        for connection in connections:
            connection.ask(plan.depth)
        while time.perf_counter() - began_s < plan.seconds:
            for key, _ in selector.select(LONGEST_WAIT_S):
                answered = key.data.take(times_s)
                if answered:
                    key.data.ask(answered)
        pipe.send((times_s, time.perf_counter() - began_s, time.process_time() - cpu_s))
        for connection in connections:
            connection.socket.close()
    except (LoadFailed, OSError) as error:
        pipe.send(f"{type(error).__name__}: {error}")


def processor_s(pid: int) -> float | None:
    """Processor time that a process has taken; None where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(node: RunningNode, plans: list[Plan]) -> Figures:
    """Carry plans out side by side, one process each, on a node that has the keys."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    try:
        for plan in plans:
            own, theirs = context.Pipe()
            process = context.Process(target=client, args=(plan, theirs), daemon=True)
            process.start()
            theirs.close()
            pipes.append(own)
            processes.append(process)
        for pipe in pipes:
            _require(pipe.recv() == "ready", "A client could not connect.")
        before_s = processor_s(node.pid)
        for pipe in pipes:
            pipe.send("go")
        told = [pipe.recv() for pipe in pipes]
        after_s = processor_s(node.pid)
        for outcome in told:
            _require(not isinstance(outcome, str), outcome)
    finally:
        for process in processes:
            process.join(LONGEST_WAIT_S)
            if process.is_alive():
                process.terminate()
    times_s = sorted(each for outcome in told for each in outcome[0])
    _require(times_s, "Nothing was answered in that time.")
    first = plans[0]
    count = len(times_s)
    return Figures(
        first.kind,
        sum(plan.connections for plan in plans),
        first.depth,
        count,
        sum(len(outcome[0]) / outcome[1] for outcome in told),
        *(times_s[min(int(count * part), count - 1)] * 1000 for part in (0.5, 0.99, 0.999)),
        sum(outcome[2] for outcome in told) / count * 1e6,
        None if before_s is None or after_s is None else (after_s - before_s) / count * 1e6,
    )


def _require(holds: object, sentence: object) -> None:
    if not holds:
        raise LoadFailed(str(sentence))


def _certificate(folder: Path) -> tuple[str, dict[str, str]]:
    """A certificate for 127.0.0.1: the file of its authority, and the node's flags."""
    import trustme

    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    ca, cert, key = (str(folder / name) for name in ("ca.pem", "cert.pem", "key.pem"))
    authority.cert_pem.write_to_path(ca)
    issued.private_key_pem.write_to_path(key)
    Path(cert).write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    return ca, {"tls_cert": cert, "tls_key": key}


def measure(options: argparse.Namespace) -> Figures:
    """Start a node, fill it, load it."""
    with tempfile.TemporaryDirectory(prefix="keyspace-load-") as scratch:
        ca, flags = _certificate(Path(scratch)) if options.kind == "tls" else (None, {})
        with running_node(data=Path(scratch) / "n1", durability=options.durability, **flags) as node:
            address = str(node.data / "node.sock") if options.kind == "unix" else node.address
            plans = []
            for number in range(options.processes):
                share = len(range(number, options.connections, options.processes))
                figures = (share, options.depth, options.reads, options.value_bytes, options.seconds, number)
                plans.append(Plan(options.kind, address, ca, *figures))
            filler = Connection(plans[0], random.Random(0))
            filler.socket.sendall(
                filler.encode((1, "set_many", 0, [(b"key%d" % number, filler.value) for number in range(KEYS)], None))
            )
            filler.sent_at_s[1] = 0.0
            while not filler.take([]):
                pass
            filler.socket.close()
            return load(node, plans)


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Load one node and print what it does.")
    parser.add_argument("--kind", choices=("tcp", "unix", "tls"), default="tcp", help="the way to the node")
    parser.add_argument("--connections", type=int, default=8, help="in all (default: 8)")
    parser.add_argument("--depth", type=int, default=1, help="requests under way on each (default: 1)")
    parser.add_argument("--processes", type=int, default=1, help="of clients (default: 1)")
    parser.add_argument("--reads", type=float, default=0.9, help="part of the requests that are gets (default: 0.9)")
    parser.add_argument("--value-bytes", type=int, default=100, help="of each value (default: 100)")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long (default: 5)")
    parser.add_argument("--durability", choices=("commit", "interval", "none"), default="interval")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args(given)
    if not 1 <= options.processes <= options.connections or options.depth < 1 or not 0 <= options.reads <= 1:
        parser.error(
            "There must be 1 process or more, a connection for each, a depth of 1 or more, and reads from 0 to 1."
        )
    if options.depth * options.value_bytes > 2**18:
        parser.error(
            "depth times value-bytes must be 262,144 or less: more does not fit into the buffers of a connection."
        )
    return options


def main(given: list[str] | None = None) -> int:
    options = arguments(given)
    try:
        figures = measure(options)
    except LoadFailed as error:
        print(error, file=sys.stderr)
        return 1
    print("| way | connections | depth | per second | p50 ms | p99 ms | p99.9 ms | client µs/op | node µs/op |")
    print("|---|---|---|---|---|---|---|---|---|")
    node_us = "?" if figures.node_cpu_us is None else f"{figures.node_cpu_us:.1f}"
    print(
        f"| {figures.kind} | {figures.connections} | {figures.depth} | {figures.per_second:,.0f} | {figures.p50_ms:.2f} | "
        f"{figures.p99_ms:.2f} | {figures.p999_ms:.2f} | {figures.client_cpu_us:.1f} | {node_us} |"
    )
    if options.json:
        options.json.write_text(json.dumps(asdict(figures)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

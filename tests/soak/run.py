"""One soak: a node, its workers, and somebody who kills it now and then."""

from __future__ import annotations

import http.client
import json
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from django_keyspace.addresses import SOCKET_FILE, Endpoint, parse_location
from django_keyspace.backend.beside import BesideEngine
from django_keyspace.backend.replica import AUTO, Replica
from django_keyspace.backend.transport import RemoteEngine
from django_keyspace.exceptions import KeyspaceError
from django_keyspace.security import NO_SECURITY
from django_keyspace.testing import RunningNode, running_node

from .workers import Broken, Worker, asyncio_thread, blocking_thread, check_counters

GROWTH_MOST = 1.5
"""What file and memory may grow from the first third of a run to its end, as a factor."""
GROWTH_SLACK_BYTES = 24 * 2**20
QUIET_S = (2.0, 6.0)
"""From one kill to the next."""


@dataclass
class Report:
    """What a soak has seen."""

    seconds: float = 0.0
    done: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    restarts: int = 0
    reads_beside: int = 0
    file_bytes: list[int] = field(default_factory=list)
    memory_bytes: list[int] = field(default_factory=list)

    def lines(self) -> list[str]:
        """For people."""
        operations = sum(number for name, number in self.done.items() if name not in ("unknown outcome", "no answer"))
        mib = 2**20
        return [
            f"{operations:,} operations in {self.seconds:.0f} s ({operations / max(self.seconds, 1):,.0f}/s)",
            f"{self.reads_beside:,} reads from the node's store",
            f"{self.kills} kills, {self.restarts} orderly restarts, {self.done['unknown outcome']:,} unknown outcomes, "
            f"{self.done['no answer']:,} calls without a node",
            f"file {self.file_bytes[0] / mib:.1f} to {self.file_bytes[-1] / mib:.1f} MiB, "
            f"memory of the node {self.memory_bytes[0] / mib:.1f} to {self.memory_bytes[-1] / mib:.1f} MiB",
        ]


def soak(
    seconds: float, seed: int, folder: Path, *, blocking: int = 3, asynchronous: int = 3, say: Callable[[str], None]
) -> Report:
    """Run one.

    Arguments:
        seconds: how long.
        seed: of all choices. (What comes of them depends on the machine's timing as well.)
        folder: the node's data folder.
        blocking: workers with blocking calls, each in a thread, who read the node's store where they can.
        asynchronous: workers that share one connection of an event loop.
        say: takes lines about how it goes.
    Raises:
        Broken: an acknowledged write is missing or was done twice, or something grows.
    """
    choices, report, began_s = random.Random(seed), Report(), monotonic()
    stop, failures = threading.Event(), []
    with running_node(data=folder, http="127.0.0.1:0") as node:
        # So long that no call is given up while the node lives: a write may happen after its caller has stopped to wait for it,
        # and the models know nothing of that.
        engine = RemoteEngine(parse_location(node.location).endpoints, timeout_ms=60_000)
        beside = _beside(node)
        workers = [
            Worker(number, beside.execute, choices.getrandbits(32), lambda: stop.wait(0.01))
            for number in range(blocking + asynchronous)
        ]
        threads = [blocking_thread(worker, stop, failures) for worker in workers[:blocking]]
        threads.append(asyncio_thread(engine, workers[blocking:], stop, failures))
        for thread in threads:
            thread.start()
        try:
            while monotonic() - began_s < seconds and not stop.wait(choices.uniform(*QUIET_S)):
                _note_sizes(node, report)
                _end_and_start(node, choices, report)
                say(
                    f"{monotonic() - began_s:6.0f} s  {sum(sum(worker.done.values()) for worker in workers):,} operations"
                )
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        report.seconds = monotonic() - began_s
        report.reads_beside = beside.replica.reads
        report.done = sum((worker.done for worker in workers), Counter())
        if failures:
            raise failures[0]
        _check_all(node, workers)
        _note_sizes(node, report)
        engine.close()
        beside.close()
    _check_growth("The file", report.file_bytes)
    _check_growth("The node's memory", report.memory_bytes)
    return report


def _beside(node: RunningNode) -> BesideEngine:
    """The way over the node's Unix socket, with reads from its store."""
    remote = RemoteEngine([Endpoint(path=str(node.data / SOCKET_FILE))], timeout_ms=60_000)
    return BesideEngine(remote, Replica(remote, AUTO, NO_SECURITY, quiet=True))


def _end_and_start(node: RunningNode, choices: random.Random, report: Report) -> None:
    if choices.random() < 0.75:
        node.kill()
        report.kills += 1
    else:
        node.stop()
        report.restarts += 1
    node.start()


def _check_all(node: RunningNode, workers: list[Worker]) -> None:
    """Everything once more, by a client that has seen no outage."""
    engine = RemoteEngine(parse_location(node.location).endpoints, timeout_ms=30_000)
    try:
        for worker in workers:
            worker.call = engine.execute
            for key in list(worker.possible):
                worker.do_get_of(key)
            worker.do_list()
        check_counters(workers, engine.execute)
    except KeyspaceError as error:
        raise Broken(f"The node does not answer in the end: {error}") from error
    finally:
        engine.close()


def _note_sizes(node: RunningNode, report: Report) -> None:
    host, _, port = node.facts["http"].removeprefix("http://").removesuffix("/status").rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        connection.request("GET", "/status")
        status: dict[str, Any] = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    report.file_bytes.append(status["store"]["file_bytes"])
    report.memory_bytes.append(int(status["resident_bytes"]))


def _check_growth(what: str, sizes: list[int]) -> None:
    early = max(sizes[: max(len(sizes) // 3, 1)])
    if sizes[-1] > early * GROWTH_MOST + GROWTH_SLACK_BYTES:
        raise Broken(
            f"{what} has grown from {early:,} to {sizes[-1]:,} bytes while the number of keys stayed the same."
        )

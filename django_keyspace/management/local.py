"""The nodes of a cluster on this machine, as processes of this one: for development."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

from django.core.management.base import CommandError

from django_keyspace.exceptions import ConfigurationError
from django_keyspace.management.diagnosis import Answers, why_no_leader
from django_keyspace.management.nodes import Place, ask_all, endpoint_of
from django_keyspace.security import make_security

PLAN_FILE: Final = "cluster.json"
PLAN_FORMAT: Final = 1
HOST: Final = "127.0.0.1"
PORTS: Final = range(10_240, 32_000)
"""Below those that systems give to outgoing connections: a node that was stopped needs its port again."""
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 20.0
ASK_TIMEOUT_MS: Final = 1_000
LOOK_AGAIN_S: Final = 0.1
LOG_LINES_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Plan:
    """Which nodes there are, and where. It stays with the data, so that the next start finds the same ones.

    Attributes:
        folder: where the data is: a folder for each node, and its log.
        addresses: by name.
        is_new: whether it was made just now.
    """

    folder: Path
    addresses: Mapping[str, str]
    is_new: bool


def make_plan(folder: Path, nodes: int | None, port: int | None) -> Plan:
    """The plan that lies in a folder, or a new one.

    Arguments:
        folder: made if it does not exist.
        nodes: how many; None: as many as there are, or three.
        port: of the first node, the others follow; 0: free ones; None: those of the plan, or 7080.
    Raises:
        ConfigurationError: the folder's plan is another one, or none of ours. Nothing was changed.
    """
    file = folder / PLAN_FILE
    if file.exists():
        addresses = _read_plan(file)
        first = int(next(iter(addresses.values())).rpartition(":")[2])
        if nodes not in (None, len(addresses)) or (port and port != first):
            raise ConfigurationError(
                f"{folder} holds a cluster of {len(addresses)} nodes from port {first} on. Nothing was changed. Start it without "
                "--nodes and --port, or take another folder with --data. To add nodes, use --join and keyspace_members."
            )
        return Plan(folder, addresses, is_new=False)
    count = 3 if nodes is None else nodes
    if not 1 <= count <= 9:
        raise ConfigurationError(f"A cluster for development has 1 to 9 nodes, not {count}.")
    ports = _free_ports(count) if port == 0 else [(port or 7080) + number for number in range(count)]
    if ports[-1] > 65_535:
        raise ConfigurationError(f"There is no port {ports[-1]}. Give a lower one with --port.")
    return Plan(folder, {f"n{number}": f"{HOST}:{one}" for number, one in enumerate(ports, 1)}, is_new=True)


def _read_plan(file: Path) -> dict[str, str]:
    try:
        plan = json.loads(file.read_text(encoding="utf-8"))
        if plan["format"] != PLAN_FORMAT:
            raise ConfigurationError(
                f"{file} is of another release (format {plan['format']!r:.20}). It was not touched."
            )
        return {str(name): str(address) for name, address in plan["nodes"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}. It was not touched. Take another folder.") from error


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    found: list[int] = []
    for port in random.SystemRandom().sample(PORTS, 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            found.append(port)
        if len(found) == count:
            return sorted(found)
    raise ConfigurationError(f"There are no {count} free ports on this machine. Nothing was changed.")


class LocalNode:
    """One node.

    Attributes:
        name: its name.
        address: where it listens.
        log_file: where it logs.
    """

    def __init__(self, plan: Plan, name: str, flags: Sequence[str]) -> None:
        self.name = name
        self.address = plan.addresses[name]
        self.data = plan.folder / name
        self.log_file = plan.folder / f"{name}.log"
        peers = [f"--peer={other}={address}" for other, address in plan.addresses.items() if other != name]
        self._command = [sys.executable, "-m", "django_keyspace.node", "--id", name, "--listen", self.address]
        # However this process ends, its nodes do not outlive it.
        self._command += ["--data", str(self.data), "--attended", *peers, *flags]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process; it may take a while until it serves."""
        root = str(Path(__file__).resolve().parents[2])
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH", "")]))
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C is for this process, which ends the nodes in good order
            )

    @property
    def pid(self) -> int | None:
        """Its process id."""
        return self._process.pid if self._process is not None else None

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll() if self._process is not None else None

    def ask_to_stop(self) -> None:
        """Have it end in good order."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        """End it at once, as a crash would; :meth:`start` starts it again, with its data."""
        if self._process is not None:
            self._process.kill()
            self.end(monotonic() + STOP_TIMEOUT_S)

    def end(self, by_s: float) -> None:
        """Wait until it has ended, and kill it if it takes too long."""
        if self._process is None:
            return
        try:
            self._process.wait(max(by_s - monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def last_words(self) -> str:
        """The end of its log."""
        with contextlib.suppress(OSError):
            lines = self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()
            return "\n".join(f"    {line}" for line in lines[-LOG_LINES_SHOWN:])
        return ""


class LocalCluster:
    """All nodes of a plan.

    Arguments:
        plan: which.
        flags: more flags of the nodes.

    Attributes:
        nodes: its nodes.
        place: where they are asked.
    """

    def __init__(self, plan: Plan, flags: Sequence[str] = ()) -> None:
        self.plan = plan
        self.nodes = [LocalNode(plan, name, flags) for name in plan.addresses]
        endpoints = tuple(endpoint_of(address) for address in plan.addresses.values())
        self.place = Place(endpoints, make_security(uses_tls=False), self.location)

    @property
    def location(self) -> str:
        """``LOCATION`` of its first database."""
        return f"keyspace://{','.join(self.plan.addresses.values())}/0"

    def start(self) -> None:
        """Write the plan down, and start all nodes."""
        folder = self.plan.folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            plan: dict[str, Any] = {"format": PLAN_FORMAT, "nodes": dict(self.plan.addresses)}
            (folder / PLAN_FILE).write_text(json.dumps(plan, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"The folder {folder} cannot be used: {error.strerror or error}.") from error
        for node in self.nodes:
            node.start()

    def await_leader(self, timeout_s: float = START_TIMEOUT_S) -> Answers:
        """Return what the nodes say as soon as all of its own answer and one leads.

        Raises:
            CommandError: a node has ended, or it took too long.
        """
        give_up_s = monotonic() + timeout_s
        while True:
            answers = ask_all(self.place, ASK_TIMEOUT_MS)
            self.require_running()
            # Not those of another cluster of the same folder, which has the same addresses; ours will end by themselves then.
            answering = {status["process"] for status in answers.statuses}
            all_answer = all(node.pid in answering for node in self.nodes)
            # A node alone has nobody to elect.
            if all_answer and (answers.leader is not None or answers.freshest is None):
                return answers
            if monotonic() >= give_up_s:
                reasons = why_no_leader(answers) or ["Some nodes do not answer."]
                raise CommandError(f"The cluster was not ready within {timeout_s:.0f} s. {' '.join(reasons)}")
            sleep(LOOK_AGAIN_S)

    def require_running(self) -> None:
        """Raise :class:`CommandError` if a node has ended."""
        for node in self.nodes:
            if node.exit_code is not None:
                words = f"Its log, {node.log_file}, ends so:\n{node.last_words()}"
                raise CommandError(f"Node {node.name} ended with {node.exit_code}. {words}")

    def stop(self) -> None:
        """End all nodes in good order, and return when they are gone."""
        for node in self.nodes:
            node.ask_to_stop()
        by_s = monotonic() + STOP_TIMEOUT_S
        for node in self.nodes:
            node.end(by_s)

"""The replicated stores that `cluster.py` compares: three members each on loopback, synced to disk before they answer."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from benchmarks.cluster_clients import EtcdClient, Spec, make_client
from benchmarks.servers import Server, ServerFailed, Workspace, child_environment, free_port

MEMBERS = 3
READY_S = 60.0


class Subject(Protocol):
    """Three members.

    Attributes:
        spec: for its clients.
    """

    spec: Spec

    def pids(self) -> list[int]:
        """The processes."""

    def kill_leader(self) -> None:
        """Kill whoever leads, with SIGKILL."""

    def mend(self) -> None:
        """Start whoever was killed again, and return when it is a member as before."""

    def close(self) -> None:
        """End all of it."""


class Keyspace:
    """Ours, with the settings that it has by itself."""

    flags: ClassVar[dict[str, Any]] = {}

    def __init__(self, workspace: Workspace) -> None:
        from django_keyspace.testing import running_cluster

        self._stack = contextlib.ExitStack()
        folder = workspace.folder(type(self).__name__)
        self._cluster = self._stack.enter_context(running_cluster(MEMBERS, data=folder, **self.flags))
        self.spec = Spec("keyspace", tuple(self._cluster.addresses.values()))

    def pids(self) -> list[int]:
        return [node.pid for node in self._cluster.nodes.values()]

    def kill_leader(self) -> None:
        self._cluster.leader().send_signal(signal.SIGKILL)

    def mend(self) -> None:
        for node in self._cluster.nodes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.wait(0.5 if node.is_running() else None)
        self._cluster.start()
        leader = self._cluster.leader()

        def is_whole() -> bool:
            status = self._cluster.ask(leader.node_id, "node_status")
            return all(member["lag"] is not None and member["lag"] < 100 for member in status["members"])

        await_(is_whole)

    def close(self) -> None:
        self._stack.close()


class KeyspaceLease(Keyspace):
    """The same with leases."""

    flags: ClassVar[dict[str, Any]] = {"lease_drift_max": 0.1}


class Redis:
    """A primary and two replicas, each with an appended file that is synced at each write. Nobody takes over by itself."""

    def __init__(self, workspace: Workspace) -> None:
        primary = _redis_server(workspace, "redis-1", [])
        of_it = ["--replicaof", f"127.0.0.1 {primary.port}"]
        self._servers = [primary, *(_redis_server(workspace, f"redis-{number}", of_it) for number in (2, 3))]
        self.spec = Spec("redis", (f"127.0.0.1:{primary.port}",))
        client = make_client(self.spec)
        try:
            await_(lambda: client._redis.execute_command("WAIT", 2, 500) == 2)
        finally:
            client.close()

    def pids(self) -> list[int]:
        return [server.process.pid for server in self._servers]

    def close(self) -> None:
        """The workspace ends its servers."""


def _redis_server(workspace: Workspace, name: str, flags: Sequence[str]) -> Server:
    folder = workspace.folder(name)

    def command(port: int) -> list[str]:
        durable = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        return ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), *durable, *flags]

    return workspace.start_server(name, command)


class Etcd:
    """Three members; they sync their log before they answer."""

    def __init__(self, workspace: Workspace) -> None:
        names = [f"etcd-{number}" for number in range(1, MEMBERS + 1)]
        self._folders = [workspace.folder(name) for name in names]
        self._ports = [(free_port(), free_port()) for _ in names]
        members = ",".join(
            f"{name}=http://127.0.0.1:{peer}" for name, (_, peer) in zip(names, self._ports, strict=True)
        )
        self._commands = [
            self._command(name, folder, client, peer, members)
            for name, folder, (client, peer) in zip(names, self._folders, self._ports, strict=True)
        ]  # fmt: skip
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * MEMBERS
        self.addresses = tuple(f"127.0.0.1:{client}" for client, _ in self._ports)
        try:
            self.mend()
        except BaseException:
            self.close()
            raise
        self._put_leader_first()

    @staticmethod
    def _command(name: str, folder: Path, client: int, peer: int, members: str) -> list[str]:
        here, there = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
        return [
            "etcd", "--name", name, "--data-dir", str(folder / "data"), "--initial-cluster", members,
            "--listen-client-urls", here, "--advertise-client-urls", here,
            "--listen-peer-urls", there, "--initial-advertise-peer-urls", there, "--initial-cluster-state", "new",
            "--max-txn-ops", "20000", "--max-request-bytes", str(32 * 2**20), "--logger", "zap", "--log-level", "error",
        ]  # fmt: skip

    def pids(self) -> list[int]:
        return [process.pid for process in self._processes if process is not None]

    def _put_leader_first(self) -> int:
        """Find the leader. Clients that are made later go to it first."""
        client, found = EtcdClient(self.addresses), []
        try:
            await_(lambda: found.append(client.leader()) or found[-1] is not None)
        finally:
            client.close()
        leader = found[-1]
        self.spec = Spec("etcd", (*self.addresses[leader:], *self.addresses[:leader]))
        return leader

    def kill_leader(self) -> None:
        process = self._processes[self._put_leader_first()]
        if process is not None:
            process.kill()

    def mend(self) -> None:
        for number, process in enumerate(self._processes):
            if process is None or process.poll() is not None:
                with (self._folders[number] / "log").open("ab") as log:
                    self._processes[number] = subprocess.Popen(
                        self._commands[number],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        env=child_environment(),
                    )
        for address in self.addresses:
            client = EtcdClient((address,))
            try:
                await_(lambda client=client: _answers(client))
            finally:
                client.close()
        self._put_leader_first()

    def close(self) -> None:
        for process in self._processes:
            if process is not None:
                process.kill()
                process.wait()


def _answers(client: EtcdClient) -> bool:
    """Whether a member knows of a leader."""
    with contextlib.suppress(client._error):
        client._calls[0]["KV/Range"](b"\x0a\x01x", timeout=1.0)
        return True
    return False


def await_(holds: Callable[[], Any]) -> None:
    """Wait until something holds. Raises ServerFailed if it never does."""
    give_up_at_s = time.monotonic() + READY_S
    while not holds():
        if time.monotonic() > give_up_at_s:
            raise ServerFailed(f"the members were not ready within {READY_S:.0f} s")
        time.sleep(0.02)


SUBJECTS: dict[str, tuple[str, Callable[[Workspace], Any]]] = {
    "keyspace": ("django-keyspace, three nodes", Keyspace),
    "keyspace-lease": ("django-keyspace, three nodes with --lease-drift-max=0.1, for reads by lease", KeyspaceLease),
    "etcd": ("etcd, three members, over gRPC", Etcd),
    "redis": ("Redis with two replicas, appendfsync always, WAIT 1", Redis),
}

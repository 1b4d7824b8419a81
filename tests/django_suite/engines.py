"""What a cache under Django's tests is stored in: one entry of ``ENGINES`` each.

An engine is started once per run, hands out cache settings for named stores (Django's tests give different
``LOCATION`` values to caches that must not see each other), and is stopped in the end. A new engine is one class and
one line in ``ENGINES``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django_keyspace.testing import RunningCluster, running_cluster
from tests.certificates import Certificates

KEYSPACE_BACKEND = "django_keyspace.backend.KeyspaceCache"
START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 15


class EngineFailed(Exception):
    """The engine didn't start, or didn't live through the run."""


class Engine:
    """Base of all engines: a scratch folder and stable numbers for store names."""

    backend = KEYSPACE_BACKEND

    def __init__(self) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="django-suite-", ignore_cleanup_errors=True)
        self.folder = Path(self._scratch.name)
        self._numbers: dict[str, int] = {}

    def start(self) -> None:
        """Make the engine ready for calls."""

    def stop(self) -> None:
        """End what `start` began and remove the data.

        Raises:
            EngineFailed: a part of the engine had died, or ended with an error.
        """
        self._scratch.cleanup()

    def location(self, store: str) -> str:
        """Return the LOCATION of the store with this name; the same name always gives the same store."""
        raise NotImplementedError

    def number(self, store: str) -> int:
        """Return a small number for a store name, the same one each time."""
        return self._numbers.setdefault(store, len(self._numbers))

    def settings(self, store: str = "default") -> dict[str, Any]:
        """Return BACKEND and LOCATION for an entry of ``CACHES``."""
        return {"BACKEND": self.backend, "LOCATION": self.location(store)}


class LocMemEngine(Engine):
    """Django's own in-memory cache: shows that the runner itself asks nothing but what Django's tests ask."""

    backend = "django.core.cache.backends.locmem.LocMemCache"

    def location(self, store: str) -> str:
        return f"django-suite-{self.number(store)}"


class EmbeddedEngine(Engine):
    """Our store inside the process, one folder per store."""

    def location(self, store: str) -> str:
        return str(self.folder / f"store-{self.number(store)}")


class NodeEngine(Engine):
    """One node process on the loopback interface, one numbered database per store."""

    def __init__(self) -> None:
        super().__init__()
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._log = self.folder / "node.log"

    def location(self, store: str) -> str:
        return f"keyspace://127.0.0.1:{self.port}/{self.number(store)}"

    def start(self) -> None:
        self.port = _free_port()
        command = [sys.executable, "-m", "django_keyspace.node", "--id", "n1"]
        command += ["--listen", f"127.0.0.1:{self.port}", "--data", str(self.folder / "n1")]
        command += self.flags()
        # The node needs no settings, and must not pick up those of the project around this run.
        environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)
        try:
            self._wait_until_it_listens(self._process)
        except EngineFailed:
            self._end()
            raise

    def flags(self) -> list[str]:
        """More flags of the node."""
        return []

    def _wait_until_it_listens(self, process: subprocess.Popen[bytes]) -> None:
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < give_up_at:
            if process.poll() is not None:
                raise EngineFailed(f"The node ended with code {process.returncode} at its start:\n{self._log_tail()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise EngineFailed(f"The node didn't listen within {START_TIMEOUT_S} seconds:\n{self._log_tail()}")

    def stop(self) -> None:
        died = self._process is not None and self._process.poll() is not None
        code = self._end()
        tail = self._log_tail()
        super().stop()
        if died:
            raise EngineFailed(f"The node died during the run with code {code}:\n{tail}")
        if code != 0:
            raise EngineFailed(f"The node ended with code {code} on SIGTERM, 0 was expected:\n{tail}")

    def _end(self) -> int:
        process = self._process
        if process is None:
            return 0
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
        return process.wait()

    def _log_tail(self) -> str:
        try:
            return "\n".join(self._log.read_text(errors="replace").splitlines()[-30:])
        except FileNotFoundError:
            return "(no output)"


class NodeTlsEngine(NodeEngine):
    """The same with TLS and a secret. Both sides find them in the environment: Django's tests set OPTIONS of their own."""

    def __init__(self) -> None:
        super().__init__()
        self._certificates = Certificates(self.folder)
        os.environ["KEYSPACE_SECRET"] = "the secret of this run's node"
        os.environ["SSL_CERT_FILE"] = self._certificates.ca

    def flags(self) -> list[str]:
        return [f"--{name.replace('_', '-')}={value}" for name, value in self._certificates.node_options().items()]

    def location(self, store: str) -> str:
        return super().location(store).replace("keyspace://", "keyspaces://")


class ClusterEngine(Engine):
    """Three node processes on the loopback interface, one numbered database per store."""

    def __init__(self) -> None:
        super().__init__()
        self._running = contextlib.ExitStack()
        self._cluster: RunningCluster | None = None

    def start(self) -> None:
        self._cluster = self._running.enter_context(running_cluster(3, data=self.folder / "nodes"))

    def location(self, store: str) -> str:
        if self._cluster is None:
            raise EngineFailed("The cluster was not started.")
        return f"{self._cluster.location.rpartition('/')[0]}/{self.number(store)}"

    def stop(self) -> None:
        died = [name for name, node in self._cluster.nodes.items() if not node.is_running()] if self._cluster else []
        self._running.close()
        super().stop()
        if died:
            raise EngineFailed(f"Nodes died during the run: {', '.join(died)}.")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


ENGINES: dict[str, Callable[[], Engine]] = {
    "locmem": LocMemEngine,
    "embedded": EmbeddedEngine,
    "node": NodeEngine,
    "node-tls": NodeTlsEngine,
    "cluster": ClusterEngine,
}

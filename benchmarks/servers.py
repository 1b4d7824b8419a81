"""A folder for one run of the benchmarks, and the server processes that it starts, waits for and ends.

Every server listens on a free loopback port. What was started here is ended here, by its process object and so by its
id; nothing else is touched.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

START_TIMEOUT_SECONDS = 15.0
STOP_TIMEOUT_SECONDS = 10.0
PORT_ATTEMPTS = 3
LOG_TAIL_CHARACTERS = 600


class ServerFailed(Exception):
    """A server did not come up; the message has the end of its output."""


@dataclass(frozen=True)
class Server:
    """One running server process."""

    name: str
    port: int
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """Ask the process to end, and kill it when it does not."""
        if self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Workspace:
    """The temporary folder of a run and everything started in it. A context manager: leaving it removes both."""

    def __init__(self, parent: Path | None = None) -> None:
        """Arguments: the folder to work in, on the kind of disk to be measured; None takes the system's default."""
        self.path = Path(tempfile.mkdtemp(prefix="keyspace-benchmark-", dir=parent))
        self._servers: list[Server] = []

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def folder(self, name: str) -> Path:
        """A new empty folder with this name."""
        folder = self.path / name
        folder.mkdir(parents=True)
        return folder

    def start_server(self, name: str, command: Callable[[int], Sequence[str]]) -> Server:
        """Start a server and wait until it accepts connections.

        Arguments: its name, for the log file; a function that makes its command line from a port.
        Returns: the running server.
        Errors: ServerFailed when it ends early or accepts nothing in time.
        """
        failure = ServerFailed(f"{name} was never started")
        for attempt in range(PORT_ATTEMPTS):
            # Between finding a free port and listening on it another process may take it: hence more than one try.
            port = free_port()
            log = self.path / f"{name}-{attempt}.log"
            with log.open("wb") as output:
                process = subprocess.Popen(
                    list(command(port)),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=self.path,
                    env=child_environment(),
                )
            server = Server(name, port, process)
            try:
                _wait_until_listening(server, log)
            except ServerFailed as error:
                server.stop()
                failure = error
            else:
                self._servers.append(server)
                return server
        raise failure

    def stop(self, server: Server) -> None:
        """End one server before the end of the run."""
        server.stop()
        self._servers.remove(server)

    def close(self) -> None:
        """End all servers and remove the folder."""
        while self._servers:
            self._servers.pop().stop()
        shutil.rmtree(self.path, ignore_errors=True)


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def child_environment() -> dict[str, str]:
    """This process's environment, with the project importable whether or not it is installed."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def _wait_until_listening(server: Server, log: Path) -> None:
    give_up_at = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < give_up_at:
        try:
            socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
            return
        except OSError:
            pass
        try:
            # Waiting for its end is also the pause between two tries to connect.
            code = server.process.wait(0.02)
        except subprocess.TimeoutExpired:
            continue
        raise ServerFailed(f"{server.name} ended at once with code {code}: {_tail(log)}")
    raise ServerFailed(f"{server.name} accepted no connection within {START_TIMEOUT_SECONDS:.0f} s: {_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:].strip() or "it printed nothing"

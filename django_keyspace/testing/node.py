"""A real node process for as long as a test runs."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final

from django_keyspace.exceptions import KeyspaceError
from django_keyspace.handshake import SECRET_VARIABLE

START_TIMEOUT_S: Final = 90.0
"""A start takes half a second of a processor. Where twenty others want the time of two processors, three nodes that start at once
were seen to need 25 seconds for it, of which 13 had passed before their first line. A node that ends is noticed at once."""
STOP_TIMEOUT_S: Final = 20.0


class NodeDidNotStart(KeyspaceError):
    """The node process ended, or did not get ready in time; the message has what it printed."""

    code = "node-did-not-start"


class RunningNode:
    """A node process that this process has started. :func:`running_node` makes it.

    Attributes:
        data: the data folder.
        location: ``LOCATION`` of its first database, such as ``keyspace://127.0.0.1:40123/0``.
        address: its host and port.
        options: ``OPTIONS`` that a client of it needs: its secret, if it has one.
        facts: what it printed when it was ready, by word: ``tls``, ``http`` and so on.
        pid: its process id.
        root: the folder of the package that it runs, this one's; a test of upgrades starts it again with another release.
        within: words before its command, such as those that start it in a network of its own.
    """

    def __init__(self, data: Path, flags: Sequence[str], node_id: str, listen: str, secret: str | None = None) -> None:
        self.data = data
        self.options: dict[str, Any] = {"secret": secret} if secret else {}
        self.node_id = node_id
        self.location = ""
        self.facts: dict[str, str] = {}
        self.address = ""
        self.pid = 0
        self.root = Path(__file__).resolve().parents[2]
        self.within: list[str] = []
        self._flags = list(flags)
        self._listen = listen
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this object

    def start(self) -> None:
        """Start the process, again after :meth:`kill` or :meth:`stop`, and return when it serves.

        A second start takes the port of the first.

        Raises:
            NodeDidNotStart: it does not serve.
        """
        if self.launch():
            self.await_ready()

    def launch(self) -> bool:
        """Start the process, and do not wait for it; :meth:`await_ready` does. False if it runs already."""
        if self._process is not None and self._process.poll() is None:
            return False
        command = [*self.within, sys.executable, "-P", "-m", "django_keyspace.node"]
        command += ["--id", self.node_id, "--data", str(self.data)]
        command += ["--attended"]  # however this process ends, the node does not outlive it
        command += ["--listen", self.address or self._listen, *self._flags]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(SECRET_VARIABLE)}
        if self.options:
            environment[SECRET_VARIABLE] = self.options["secret"]
        # The package may be on sys.path in this process only.
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(self.root), environment.get("PYTHONPATH", "")]))
        environment["PYTHONFAULTHANDLER"] = "1"
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=environment
        )
        self.pid = self._process.pid
        return True

    def await_ready(self) -> None:
        """Return when the process serves. Raises :class:`NodeDidNotStart` if it does not."""
        if self._process is None:
            raise NodeDidNotStart("The node was not started.")
        try:
            self.location = self._await_location(self._process)
        except BaseException:
            self.kill()
            raise
        self.address = self.location.partition("://")[2].partition("/")[0]

    def _await_location(self, process: subprocess.Popen[bytes]) -> str:
        """Read what the node prints until its address has come, which is its last word before it serves."""
        if process.stdout is None:
            raise NodeDidNotStart("The node's output cannot be read.")
        deadline_at_s = time.monotonic() + START_TIMEOUT_S
        descriptor = process.stdout.fileno()
        printed = b""
        while True:
            remaining_s = deadline_at_s - time.monotonic()
            if remaining_s <= 0 or not _readable(descriptor, remaining_s):
                self._have_stacks_printed(process)
                raise NodeDidNotStart(f"The node was not ready within {START_TIMEOUT_S:.0f} s. {self.errors()}")
            data = os.read(descriptor, 4096)
            if not data:
                code = process.wait(STOP_TIMEOUT_S)
                raise NodeDidNotStart(f"The node ended with exit code {code}. {self.errors()}")
            printed += data
            lines = [line for line in printed.decode(errors="replace").splitlines(keepends=True) if line.endswith("\n")]
            # The first line is a sentence; then there are two spaces, a name that may have several words, and its value.
            self.facts = {line[2:14].strip(): line[14:].strip() for line in lines[1:]}
            if "address" in self.facts:
                return self.facts["address"]

    def _have_stacks_printed(self, process: subprocess.Popen[bytes]) -> None:
        """Let a process that hangs say where: its fault handler prints what each thread is doing."""
        process.send_signal(signal.SIGABRT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)

    def errors(self) -> str:
        """What the node has written to its standard error: its log."""
        # Not by reading: the process writes at this very file's place, and reading would move that.
        descriptor = self._errors.fileno()
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace").strip()

    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def send_signal(self, number: int) -> None:
        """Send the process a signal, such as ``signal.SIGSTOP``."""
        if self._process is not None:
            self._process.send_signal(number)

    def wait(self, timeout_s: float | None = STOP_TIMEOUT_S) -> int:
        """Wait for the process to end, and return its exit code. None waits as long as it takes.

        Raises:
            subprocess.TimeoutExpired: it did not end in time.
        """
        if self._process is None:
            return 0
        code = self._process.wait(timeout_s)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        return code

    def kill(self) -> None:
        """Kill the process, as a crash would, and wait until it is gone. Its data folder stays."""
        if self._process is not None:
            self._process.kill()
            self.wait()

    def stop(self) -> int:
        """Ask the process to end in good order, wait until it has, and return its exit code."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.terminate()
            if hasattr(signal, "SIGCONT"):
                # A stopped process does not hear the first signal.
                self._process.send_signal(signal.SIGCONT)
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def close(self) -> None:
        """End the process in whatever way, and let go of its output."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.stop()
        self._errors.close()


@contextlib.contextmanager
def running_node(
    *,
    data: str | os.PathLike[str] | None = None,
    node_id: str = "n1",
    listen: str = "127.0.0.1:0",
    secret: str | None = None,
    **options: Any,
) -> Iterator[RunningNode]:
    """Run a node for as long as the block runs. No process is left behind, however the block ends.

    Arguments:
        data: its data folder; without it, a temporary one that goes with the node.
        node_id: its id.
        listen: its address; the default takes a free port.
        secret: what its clients must know; they take :attr:`RunningNode.options` as their ``OPTIONS``.
        **options: other flags of the node, such as ``durability="commit"`` or ``max_bytes=2**24``.
    Returns:
        A context manager that gives the :class:`RunningNode`, which serves already.
    Raises:
        NodeDidNotStart: it does not serve.
    """
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    with contextlib.ExitStack() as stack:
        if data is None:
            data = stack.enter_context(tempfile.TemporaryDirectory(prefix="keyspace-node-"))
        node = RunningNode(Path(data), flags, node_id, listen, secret)
        stack.callback(node.close)
        node.start()
        yield node


def _readable(descriptor: int, timeout_s: float) -> bool:
    if sys.platform == "win32":  # select() takes sockets only there; reading blocks instead
        return True
    with selectors.DefaultSelector() as waiting:  # select() takes no descriptor above 1,023
        waiting.register(descriptor, selectors.EVENT_READ)
        return bool(waiting.select(timeout_s))

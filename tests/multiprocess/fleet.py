"""Processes for the tests: started with an interpreter of their own, talked to in lines, and never left behind."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from time import monotonic, sleep
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ANSWER_S = 60.0
"""How long a test waits for a process at most. Far more than it takes on a loaded machine."""
_MARK = "KEYSPACE_TEST_FLEET"


class Actor:
    """A process that runs one function of ``tests/multiprocess/actors``. It says JSON lines, and hears lines."""

    def __init__(
        self, part: str, arguments: dict[str, Any], environment: dict[str, str], prefix: tuple[str, ...]
    ) -> None:
        command = [*prefix, sys.executable, "-m", "tests.multiprocess.actors", part, json.dumps(arguments)]
        self.part = part
        self._mark = environment[_MARK]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.errors: list[str] = []
        self._said: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._listeners = [
            threading.Thread(target=self._listen, daemon=True),
            threading.Thread(target=self._listen_to_errors, daemon=True),
        ]
        for listener in self._listeners:
            listener.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._said.put(json.loads(line))
        self._said.put(EOFError)

    def _listen_to_errors(self) -> None:
        assert self.process.stderr is not None
        self.errors.extend(self.process.stderr)

    def hear(self, timeout_s: float = ANSWER_S) -> Any:
        """What the process says next."""
        try:
            said = self._said.get(timeout=timeout_s)
        except queue.Empty:
            raise AssertionError(f"{self.part} said nothing for {timeout_s} s. {self._trouble()}") from None
        if said is EOFError:
            self.process.wait(ANSWER_S)
            raise AssertionError(f"{self.part} ended with exit code {self.process.returncode}. {self._trouble()}")
        return said

    def tell(self, *words: str) -> None:
        """Say one line to the process."""
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()

    def result(self, timeout_s: float = ANSWER_S) -> Any:
        """What the process says next, after which it must end well."""
        said = self.hear(timeout_s)
        self.end(timeout_s)
        return said

    def end(self, timeout_s: float = ANSWER_S) -> None:
        """Let the process end by closing its input, and see that it ended well."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.part} did not end within {timeout_s} s. {self._trouble()}") from None
        assert code == 0, f"{self.part} ended with exit code {code}. {self._trouble()}"

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """End the process the hard way."""
        if self.process.poll() is None:
            self.process.kill()  # also ends one that is stopped
        self.process.wait(ANSWER_S)

    def close(self) -> None:
        """Close the pipes, once nobody writes to them any more."""
        for listener in self._listeners:
            listener.join(5)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def _trouble(self) -> str:
        """What helps to see why the process, or one that it has forked, is silent: their tracebacks, too."""
        for pid in _marked(self._mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR1)
        sleep(1)
        return f"Living: {sorted(_marked(self._mark))}. Its standard error:\n" + "".join(self.errors[-200:])


class Fleet:
    """The processes of one test. Whatever they start carries the fleet's mark, so that nothing escapes notice."""

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex
        self.environment = {**os.environ, _MARK: self.mark, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"}
        self.environment.pop("DJANGO_SETTINGS_MODULE", None)
        self.actors: list[Actor] = []

    def start(self, part: str, *, prefix: tuple[str, ...] = (), measured: bool = True, **arguments: Any) -> Actor:
        """Start ``module.function`` of ``tests/multiprocess/actors`` with keyword arguments.

        Arguments:
            prefix: a command that starts the interpreter, such as ``unshare``.
            measured: whether coverage may look on. Not where busy threads and forks meet: a child that inherits coverage's
                own lock from a thread that held it hangs in coverage when it ends.
        """
        environment = self.environment
        if not measured:
            environment = {name: value for name, value in environment.items() if not name.startswith("COVERAGE_")}
        actor = Actor(part, arguments, environment, prefix)
        self.actors.append(actor)
        return actor

    def run(self, part: str, *, timeout_s: float = ANSWER_S, **arguments: Any) -> Any:
        """Start a process, and answer the one thing that it says."""
        return self.start(part, **arguments).result(timeout_s)

    def dismiss(self) -> list[str]:
        """End what still runs. Answers the command lines of processes that nobody here knew of."""
        for actor in self.actors:
            actor.kill()
        deadline = monotonic() + 5
        while (strays := self._strays()) and monotonic() < deadline:
            sleep(0.02)
        for pid in strays:
            os.kill(pid, signal.SIGKILL)
        for actor in self.actors:
            actor.close()
        return [f"{pid}: {command}" for pid, command in strays.items()]

    def _strays(self) -> dict[int, str]:
        return _marked(self.mark)


def _marked(mark: str) -> dict[int, str]:
    """Command lines of the living processes that carry a fleet's mark, by process id."""
    word = f"{_MARK}={mark}".encode()
    found = {}
    for entry in Path("/proc").glob("[0-9]*") if os.path.isdir("/proc") else ():
        try:
            if word in (entry / "environ").read_bytes():
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found

"""Processes that the demo starts, and sees to the end of."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings

Echo = Callable[[str], None]
END_TIMEOUT_S = 10.0
OUTPUT_KEPT_LINES = 200


class ChildFailed(Exception):
    """A process that the demo needs did not start, or ended by itself."""


class Child:
    """A management command of this project running in a process of its own, with its output read line by line."""

    def __init__(
        self,
        title: str,
        arguments: list[str],
        environment: dict[str, str],
        echo: Echo | None,
        descriptors: tuple[int, ...] = (),
    ) -> None:
        """Start ``manage.py`` with these arguments. ``echo`` is called with each line of output, if given.

        The child gets these open descriptors, under the same numbers.

        The child leads a session of its own: a Ctrl-C in the terminal then reaches the demo alone, which ends its
        children in the right order.
        """
        self.title = title
        self.lines: list[str] = []
        self._fresh_lines: queue.Queue[str | None] = queue.Queue()
        self._echo = echo
        self._process = subprocess.Popen(
            [sys.executable, str(Path(settings.BASE_DIR) / "manage.py"), *arguments],
            env={**os.environ, **environment, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            pass_fds=descriptors,
        )
        threading.Thread(target=self._read, name=f"output of {title}", daemon=True).start()

    def wait_for_line(self, sign: str, timeout_s: float) -> str:
        """Return the first line of output that holds ``sign``; raises ChildFailed if it is late or never comes."""
        deadline_at_s = time.monotonic() + timeout_s
        while True:
            try:
                line = self._fresh_lines.get(timeout=max(0.0, deadline_at_s - time.monotonic()))
            except queue.Empty:
                raise ChildFailed(f"{self.title} did not say {sign!r} within {timeout_s:.0f} s.{self.tail()}") from None
            if line is None:
                raise ChildFailed(f"{self.title} ended by itself, exit code {self.wait()}.{self.tail()}")
            if sign in line:
                return line

    def is_running(self) -> bool:
        """Say whether the process still runs."""
        return self._process.poll() is None

    def wait(self) -> int:
        """Wait for the process to end by itself and return its exit code."""
        return self._process.wait()

    def ends_within(self, timeout_s: float) -> bool:
        """Wait for the process, but no longer than this; say whether it has ended."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self) -> None:
        """End the process: politely, and after END_TIMEOUT_S for certain."""
        if not self.is_running():
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def tail(self) -> str:
        """Return the last lines of output, for an error message; an empty text if there were none."""
        return "".join(f"\n    {line}" for line in self.lines[-15:])

    def _read(self) -> None:
        for line in self._process.stdout or ():
            text = line.rstrip("\n")
            self.lines = [*self.lines[-OUTPUT_KEPT_LINES:], text]
            self._fresh_lines.put(text)
            if self._echo is not None:
                self._echo(text)
        self._fresh_lines.put(None)


@contextmanager
def child(
    title: str,
    arguments: list[str],
    environment: dict[str, str],
    echo: Echo | None = None,
    descriptors: tuple[int, ...] = (),
) -> Iterator[Child]:
    """Run a child for as long as the block runs."""
    process = Child(title, arguments, environment, echo, descriptors)
    try:
        yield process
    finally:
        process.end()


def stop_on_signals() -> None:
    """Treat SIGTERM, and the closing of the terminal, like Ctrl-C, so that every ``finally`` runs."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP"):
        numbers.append(signal.SIGHUP)

    def stop(number: int, frame: object) -> None:
        # A second Ctrl-C must not interrupt the ending of the children, which has its own time limit.
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, stop)

"""The processes that run Lua: started when they are needed, kept for the next script, killed when one does not end.

A worker is nobody's child for long: it ends when the pipe from its process does. A forked child lets go of those it
inherited; they stay the parent's.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import select
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Final

from django_keyspace.exceptions import NotSupported, ScriptError, ScriptLimit, ScriptTimeout

WORKERS_MAX: Final = 4
"""Scripts that one process runs at a time; further ones wait for a worker."""
RUNS_MAX: Final = 1000
"""A worker is replaced after so many scripts, whatever lupa or Lua may have leaked by then."""
MEMORY_BYTES: Final = 64 * 2**20
"""What a script may use of memory within Lua."""
FRAME_BYTES_MAX: Final = 32 * 2**20
START_TIMEOUT_S: Final = 30.0
SLICE_S: Final = 0.05
"""How often somebody who waits for a worker looks whether there is a reason not to."""
_LENGTH: Final = struct.Struct("<I")
_ORDER: Final = struct.Struct("<II")
_PIPE_BYTES: Final = 65536

NO_LUA: Final = (
    "Scripts need Lua, which is not installed here: pip install 'django-keyspace[lua]' (on a node: where the node runs). "
    "Nothing was changed."
)

Interrupted = Callable[[], None]
"""Called now and then while a worker is waited for; raises what is to end the wait."""


class WorkerEnded(ScriptError):
    """The worker process is gone, or does not keep to its part; stays inside this package."""

    code = "script-worker-ended"


class Worker:
    """One process.

    Raises:
        NotSupported: lupa is not installed.
        ScriptError: the process does not start.
    """

    def __init__(self) -> None:
        found = importlib.util.find_spec("lupa")
        if found is None or found.origin is None:
            raise NotSupported(NO_LUA)
        lupa_folder = str(Path(found.origin).resolve().parent.parent)
        program = str(Path(__file__).resolve().parent / "worker.py")
        command = [_python(), "-I", "-S", "-B", program, lupa_folder, str(MEMORY_BYTES)]
        # What finds the interpreter's own libraries, and nothing else of this process.
        environment = {name: value for name in ("LD_LIBRARY_PATH", "SYSTEMROOT") if (value := os.environ.get(name))}
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                env=environment,
                cwd="/",
                close_fds=True,
                start_new_session=True,
            )
        except OSError as error:
            raise ScriptError(f"The process that runs Lua does not start: {error}. Nothing was changed.") from error
        self.pid = self._process.pid
        self.runs = 0
        self._in, self._out = _descriptor(self._process.stdin), _descriptor(self._process.stdout)
        os.set_blocking(self._in, False)
        self._buffer = bytearray()
        self._await_ready()

    def _await_ready(self) -> None:
        try:
            frame = self.receive(monotonic() + START_TIMEOUT_S)
        except (WorkerEnded, ScriptTimeout) as error:
            self.kill()
            raise ScriptError(f"The process that runs Lua does not start: {error} Nothing was changed.") from error
        if frame[:1] != b"K":
            self.kill()
            raise ScriptError(f"The process that runs Lua does not start: {frame[1:]!r:.300}. Nothing was changed.")

    def order(self, request: bytes, cpu_s: int, deadline_s: float) -> None:
        """Let the worker begin with a script; its frames follow."""
        self.runs += 1
        self.send(_ORDER.pack(MEMORY_BYTES, cpu_s) + request, deadline_s)

    def send(self, frame: bytes, deadline_s: float) -> None:
        """Send a frame.

        Raises:
            ScriptTimeout: the worker does not take it in time.
            WorkerEnded: it is gone.
        """
        rest = memoryview(_LENGTH.pack(len(frame)) + frame)
        while rest:
            try:
                rest = rest[os.write(self._in, rest[:_PIPE_BYTES]) :]
            except BlockingIOError:
                self._wait(self._in, select.POLLOUT, deadline_s, None)
            except OSError as error:
                raise WorkerEnded("The process that ran the script ended.") from error

    def receive(self, deadline_s: float, interrupted: Interrupted | None = None) -> bytes:
        """The next frame of the worker.

        Arguments:
            deadline_s: when to give up, by the monotonic clock.
            interrupted: called now and then meanwhile.
        Raises:
            ScriptTimeout: none came in time.
            ScriptLimit: it is too large.
            WorkerEnded: the worker is gone.
        """
        wanted = _LENGTH.size
        length = -1
        while True:
            if len(self._buffer) >= wanted:
                if length >= 0:
                    frame = bytes(self._buffer[_LENGTH.size : wanted])
                    del self._buffer[:wanted]
                    return frame
                (length,) = _LENGTH.unpack_from(self._buffer)
                if length > FRAME_BYTES_MAX:
                    raise ScriptLimit(
                        f"The script hands over {length:,} bytes at once; {FRAME_BYTES_MAX:,} are the most. Nothing was "
                        "changed."
                    )
                wanted += length
                continue
            self._wait(self._out, select.POLLIN, deadline_s, interrupted)
            try:
                data = os.read(self._out, _PIPE_BYTES)
            except OSError:
                data = b""
            if not data:
                raise WorkerEnded("The process that ran the script ended.")
            self._buffer += data

    def _wait(self, descriptor: int, event: int, deadline_s: float, interrupted: Interrupted | None) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        while True:
            left_s = deadline_s - monotonic()
            if left_s <= 0:
                raise ScriptTimeout("The script's time was over. Nothing was changed.")
            # Rounded up: a wait of no milliseconds would be a busy one.
            if poll.poll(int(min(left_s, SLICE_S if interrupted else left_s) * 1000) + 1):
                return
            if interrupted is not None:
                interrupted()

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End the process, whatever it does, and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        self._close()

    def forget(self) -> None:
        """In a forked child: let go of the parent's worker, without ending it."""
        self._process.returncode = 0  # it is not this process's child, so it must not be waited for
        self._close()

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


class WorkerPool:
    """The workers of this process.

    Arguments:
        workers_max: how many there may be.
    """

    def __init__(self, workers_max: int = WORKERS_MAX) -> None:
        self._workers_max = workers_max
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._all: set[Worker] = set()
        self._idle: list[Worker] = []
        self._starting = 0

    def take(self, deadline_s: float) -> Worker:
        """A worker that has nothing to do; :meth:`give_back` or :meth:`discard` must follow.

        Arguments:
            deadline_s: how long to wait for one, by the monotonic clock.
        Raises:
            ScriptTimeout: all were busy for all that time.
            NotSupported, ScriptError: there can be none.
        """
        with self._changed:
            while True:
                while self._idle:
                    worker = self._idle.pop()
                    if worker.is_alive():
                        return worker
                    self._all.discard(worker)
                    worker.kill()
                if len(self._all) + self._starting < self._workers_max:
                    self._starting += 1
                    break
                if not self._changed.wait(max(deadline_s - monotonic(), 0)) and monotonic() >= deadline_s:
                    raise ScriptTimeout(
                        f"All {self._workers_max} workers were busy with other scripts for all of the time that this one "
                        "had. Nothing was changed."
                    )
        worker_or_none: Worker | None = None
        try:
            worker_or_none = Worker()  # it takes some time, and is not counted as the script's
            return worker_or_none
        finally:
            with self._changed:
                self._starting -= 1
                if worker_or_none is not None:
                    self._all.add(worker_or_none)
                self._changed.notify()

    def give_back(self, worker: Worker) -> None:
        """Keep a worker for the next script."""
        if worker.runs >= RUNS_MAX:
            self.discard(worker)
            return
        with self._changed:
            self._idle.append(worker)
            self._changed.notify()

    def discard(self, worker: Worker) -> None:
        """End a worker that may still be busy."""
        worker.kill()
        with self._changed:
            self._all.discard(worker)
            self._changed.notify()

    def pids(self) -> list[int]:
        """Process ids of all workers."""
        with self._changed:
            return [worker.pid for worker in self._all]

    def shutdown(self) -> None:
        """End all workers that have nothing to do. The next script starts one again."""
        with self._changed:
            idle, self._idle = self._idle, []
            self._all.difference_update(idle)
        for worker in idle:
            worker.kill()

    def after_fork(self) -> None:
        """In a forked child: the workers are the parent's, and a thread that is not here may hold the lock."""
        workers = list(self._all)
        self._reset()
        for worker in workers:
            worker.forget()


def _descriptor(pipe: object) -> int:
    number: int = pipe.fileno()  # type: ignore[attr-defined]
    return number


def _python() -> str:
    """A Python interpreter of this environment. Where Python is embedded, ``sys.executable`` is something else."""
    candidates = [sys.executable or "", os.path.join(sys.exec_prefix, "bin", "python3"), shutil.which("python3") or ""]
    for candidate in candidates:
        if os.path.basename(candidate).lower().startswith("python") and os.access(candidate, os.X_OK):
            return candidate
    return sys.executable


pool: Final = WorkerPool()
"""The workers of this process, for all its stores."""

os.register_at_fork(after_in_child=pool.after_fork)
atexit.register(pool.shutdown)

"""Worker processes that hammer one cache together, and the crew that starts them and tells them when.

Run as a program this file is a worker: lines of JSON come in on its standard input, one answer each goes out on its
standard output. Workers live for a whole measure, so no round pays for starting Python.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import data
from benchmarks.django_setup import configure
from benchmarks.servers import child_environment

ANSWER_TIMEOUT_SECONDS = 60.0
OPERATIONS_PER_CLOCK_READING = 20
MISS_SHARE_MAX = 0.05


class WorkerFailed(Exception):
    """A worker reported an error, ended, or gave no answer in time."""


def run_mix(cache: Any, pattern: list[tuple[bool, str]], value: str, seconds: float) -> float:
    """Read and write by a pattern for some time.

    Returns: operations per second.
    Errors: WorkerFailed when too many reads found nothing: a cache that loses its keys is not fast.
    """
    get, set_ = cache.get, cache.set
    steps = [pattern[start : start + OPERATIONS_PER_CLOCK_READING] for start in range(0, len(pattern), 20)]
    done = misses = 0
    clock = time.perf_counter
    started = clock()
    stop_at = started + seconds
    while True:
        for step in steps:
            for writes, key in step:
                if writes:
                    set_(key, value)
                elif get(key) is None:
                    misses += 1
            done += len(step)
            now = clock()
            if now >= stop_at:
                if misses > done * MISS_SHARE_MAX:
                    raise WorkerFailed(f"{misses} of {done} operations were reads that found nothing")
                return done / (now - started)


class Crew:
    """Some worker processes with the same Django settings."""

    def __init__(self, count: int, caches: dict[str, dict[str, Any]], database_file: Path) -> None:
        """Start the workers. Arguments: how many; ``settings.CACHES``; the database of DatabaseCache."""
        self._setup = {"caches": caches, "database_file": str(database_file)}
        self._workers = [self._start(number) for number in range(count)]
        for worker in self._workers:
            _hear(worker)

    def _start(self, number: int) -> subprocess.Popen[str]:
        worker = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=child_environment(),
            text=True,
            bufsize=1,
        )
        _tell(worker, {**self._setup, "number": number})
        return worker

    def _revive(self) -> None:
        # A worker that hung on one backend was ended; the other backends get a whole crew again.
        for number, worker in enumerate(self._workers):
            if worker.poll() is not None:
                _end(worker)
                self._workers[number] = self._start(number)
                _hear(self._workers[number])

    def prepare(self, alias: str, key_count: int) -> None:
        """Let every worker connect, and store what it doesn't find: once in a shared store, everywhere in LocMem."""
        self._revive()
        for worker in self._workers:
            _tell(worker, {"prepare": alias, "key_count": key_count})
            _hear(worker)

    def run(self, alias: str, key_count: int, seconds: float) -> float:
        """All workers at once. Returns: operations per second of all together."""
        self._revive()
        for worker in self._workers:
            _tell(worker, {"run": alias, "key_count": key_count, "seconds": seconds})
        answers: list[float] = []
        failures: list[WorkerFailed] = []
        # All answers are read, also after a failure: what stays in a pipe would answer the next question.
        for worker in self._workers:
            try:
                answers.append(_hear(worker)["operations_per_second"])
            except WorkerFailed as error:
                failures.append(error)
        if failures:
            raise failures[0]
        return sum(answers)

    def close(self) -> None:
        """End the workers: they leave at the end of their input."""
        for worker in self._workers:
            _end(worker)
        self._workers = []


def _end(worker: subprocess.Popen[str]) -> None:
    for pipe in (worker.stdin, worker.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:
                pass  # what was still to be written to a worker that is gone
    try:
        worker.wait(10)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()


def _tell(worker: subprocess.Popen[str], message: dict[str, Any]) -> None:
    if worker.stdin is None:
        raise WorkerFailed("a worker has no input")
    try:
        worker.stdin.write(json.dumps(message) + "\n")
        worker.stdin.flush()
    except OSError as error:
        raise WorkerFailed(f"a worker is gone: {error}") from error


def _hear(worker: subprocess.Popen[str]) -> dict[str, Any]:
    if worker.stdout is None:
        raise WorkerFailed("a worker has no output")
    # Every message is one line and is waited for before the next is asked for, so nothing sits in the text buffer.
    ready, _, _ = select.select([worker.stdout], [], [], ANSWER_TIMEOUT_SECONDS)
    if not ready:
        worker.kill()
        raise WorkerFailed(f"a worker gave no answer within {ANSWER_TIMEOUT_SECONDS:.0f} s and was ended")
    line = worker.stdout.readline()
    if not line:
        raise WorkerFailed("a worker ended")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise WorkerFailed(answer["error"])
    return answer


def _prepare(cache: Any, key_count: int) -> dict[str, Any]:
    missing = [key for key in data.keys(key_count, "mixed") if cache.get(key) is None]
    for chunk in data.chunks(missing, 100):
        cache.set_many(dict.fromkeys(chunk, data.text(100)), timeout=None)
    return {"stored": len(missing)}


def _work() -> None:
    """A worker's life: settings first, then one answer to each line until the input ends."""
    # Whatever a backend prints must not get between the answers.
    answers, sys.stdout = sys.stdout, sys.stderr

    def answer(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    setup = json.loads(sys.stdin.readline())
    configure(setup["caches"], setup["database_file"])
    from django.core.cache import caches

    answer({"ready": True})
    value = data.text(100)
    for line in sys.stdin:
        message = json.loads(line)
        key_count = message["key_count"]
        try:
            if "prepare" in message:
                answer(_prepare(caches[message["prepare"]], key_count))
            else:
                pattern = data.mix(data.SEED + setup["number"], key_count)
                rate = run_mix(caches[message["run"]], pattern, value, message["seconds"])
                answer({"operations_per_second": rate})
        except Exception as error:
            answer({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    _work()

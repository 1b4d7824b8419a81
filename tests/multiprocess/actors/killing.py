"""A process that has never opened the store forks writers and kills them in mid-write, many times, and looks at what remains."""

from __future__ import annotations

import json
import os
import random
import signal
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import lmdb.verify

from django_keyspace.store import StoreOptions, open_store
from django_keyspace.store.record import payload_of
from tests.multiprocess.actors import say

WRITERS = 4
_KEYS_PER_WRITER = 50
_LARGE = b"x" * 20_000


class Writer:
    """One forked writer and what it has acknowledged.

    It counts up. For each number it commits, in one transaction: a counter, the number itself under one of fifty keys, and
    every ninth time a large value. A second transaction counts for all writers together.
    """

    def __init__(self, folder: str, durability: str, number: int, next_count: int) -> None:
        self.number = number
        self.acknowledged = next_count
        self.shared = 0
        self._rest = b""
        self._pipe, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._pipe)
            try:
                _write_for_ever(folder, durability, number, next_count, writing)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        os.close(writing)
        os.set_blocking(self._pipe, False)

    def listen(self) -> None:
        """Take in what has been acknowledged."""
        while True:
            try:
                data = os.read(self._pipe, 65536)
            except BlockingIOError:
                return
            if not data:
                return
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                if line == b"s":
                    self.shared += 1
                else:
                    self.acknowledged = int(line)

    def kill(self) -> None:
        """End it at once, and take in its last words."""
        os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        assert os.WIFSIGNALED(status), f"writer {self.number} had ended by itself: {status}"
        self.listen()
        os.close(self._pipe)


def _write_for_ever(folder: str, durability: str, number: int, count: int, pipe: int) -> None:
    store = open_store(folder, StoreOptions(durability=durability, lock_wait_ms=30_000))
    while True:
        count += 1
        text = b"%d" % count
        calls: list[tuple[Any, ...]] = [
            ("incr", 0, b"counter%d" % number, 1, 0, None, 0),
            ("set", 0, b"%d:%d" % (number, count % _KEYS_PER_WRITER), (3, 0, text), None, "always"),
        ]
        if count % 9 == 0:
            calls.append(("set", 0, b"large%d" % number, (1, 0, text + _LARGE[: count % 7 * 3000]), 60_000, "always"))
        results = store.write_many(calls)
        assert results[0] == count, results
        os.write(pipe, text + b"\n")
        store.write("incr", 1, b"shared", 1, 0, None, 0)
        os.write(pipe, b"s\n")
        store.read("get", 0, b"counter%d" % (number ^ 1))


def _in_fork(function: Callable[[], Any]) -> Any:
    """What a function answers in a forked process."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reading)
            os.write(writing, json.dumps(function()).encode())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"the check failed: {status}"
    return json.loads(answer)


def _look(folder: str, durability: str, number: int) -> dict[str, Any]:
    """What a fresh process finds of one writer's work."""
    store = open_store(folder, StoreOptions(durability=durability, lock_wait_ms=30_000))
    keys = [b"counter%d" % number, b"large%d" % number, *(b"%d:%d" % (number, key) for key in range(_KEYS_PER_WRITER))]
    counter, large, *numbers = [record and payload_of(record) for record in store.read("get_many", 0, keys)]
    store.write("incr", 2, b"checks", 1, 0, None, 0)  # it can be written, too
    return {
        "counter": int(counter or 0),
        "large": (large or b"0").split(b"x")[0].decode(),
        "numbers": [int(payload or 0) for payload in numbers],
    }


def _check(folder: str, durability: str, writer: Writer) -> tuple[int, list[str]]:
    """The count of a killed writer, and what is wrong with its work."""
    found = _in_fork(lambda: _look(folder, durability, writer.number))
    count = found["counter"]
    wrong = []
    if count not in (writer.acknowledged, writer.acknowledged + 1):
        wrong.append(f"writer {writer.number}: {writer.acknowledged} acknowledged, {count} found")
    for key, number in enumerate(found["numbers"]):
        expected = count - (count - key) % _KEYS_PER_WRITER  # the last number up to the count that fell on this key
        if number != max(expected, 0):
            wrong.append(f"writer {writer.number}, key {key}: {number} instead of {expected}")
    if int(found["large"]) != count - count % 9:
        wrong.append(f"writer {writer.number}: large value of {found['large']} at count {count}")
    return count, wrong


def _verify(folder: str, durability: str) -> dict[str, Any]:
    """Let LMDB's verifier look at a copy, and count reader slots that nobody living uses."""
    store = open_store(folder, StoreOptions(durability=durability, lock_wait_ms=30_000))
    store.write("incr", 2, b"checks", 1, 0, None, 0)
    store.check_readers()
    environment = store._environment
    assert environment is not None
    with tempfile.TemporaryDirectory() as copy:
        environment.lmdb.copy(copy)
        problems = lmdb.verify.verify(copy)
    slots = [int(line.split()[0]) for line in environment.lmdb.readers().splitlines()[1:] if line.split()]
    return {"problems": problems, "slots": slots}


def kill_writers(folder: str, durability: str, kills: int, verify_every: int, seed: int) -> None:
    """Kill writers until there were so many kills; tell what was found after each."""
    chance = random.Random(seed)
    counts = dict.fromkeys(range(WRITERS), 0)
    shared = [0, 0]  # acknowledged, and perhaps done besides
    wrong: list[str] = []
    verified = 0
    began = monotonic()
    writers = {number: Writer(folder, durability, number, 0) for number in counts}
    for kill in range(kills):
        number = kill % WRITERS
        # Some die while they open the store, most in the middle of their writing.
        sleep(chance.choice((0, 0.001, 0.003, 0.01, 0.02)))
        writer = writers.pop(number)
        writer.kill()
        shared[0] += writer.shared
        shared[1] += 1
        counts[number], found = _check(folder, durability, writer)
        wrong += found
        writers[number] = Writer(folder, durability, number, counts[number])
        for other in writers.values():
            other.listen()
        if kill % verify_every == 0:
            verified += 1
            wrong += _in_fork(lambda: _verify(folder, durability))["problems"]
    for writer in writers.values():
        writer.kill()
        shared[0] += writer.shared
        shared[1] += 1
        counts[writer.number], found = _check(folder, durability, writer)
        wrong += found
    last = _in_fork(lambda: _verify(folder, durability))
    total = _in_fork(lambda: _shared(folder, durability))
    if not shared[0] <= total <= shared[0] + shared[1]:
        wrong.append(f"all writers together: {shared[0]} acknowledged, at most {shared[1]} in flight, {total} found")
    say(
        {
            "wrong": wrong + last["problems"],
            "slots": last["slots"],
            "kills": kills + len(writers),
            "verified": verified + 1,
            "writes": sum(counts.values()),
            "seconds": monotonic() - began,
            "left": sorted(path.name for path in Path(folder).iterdir()),
        }
    )


def _shared(folder: str, durability: str) -> int:
    store = open_store(folder, StoreOptions(durability=durability, lock_wait_ms=30_000))
    return int(payload_of(store.read("get", 1, b"shared")))

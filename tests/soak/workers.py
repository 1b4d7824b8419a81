"""The workers of a soak, and what each knows about its keys."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from django_keyspace.backend.transport import RemoteEngine
from django_keyspace.exceptions import KeyspaceError, TransportError, UnknownOutcome
from django_keyspace.store.record import Tag, payload_of

KEYS_PER_WORKER = 300
SHARED_COUNTERS = 5
PAYLOAD_BYTES_MAX = 2_000

Possible = frozenset[bytes | None]
"""What a key may hold: one payload, or None for nothing; several after an unknown outcome."""


class Broken(AssertionError):
    """The node has not kept what it has acknowledged."""


class Worker:
    """Does random operations on keys of its own until it is told to stop.

    Arguments:
        number: which worker it is; its keys begin with it.
        call: does an operation and returns its answer.
        seed: of its choices.
        rest: waits a little, when there is no node.
    """

    def __init__(
        self, number: int, call: Callable[..., Any], seed: int, rest: Callable[[], object] = lambda: None
    ) -> None:
        self.rest = rest
        self.number = number
        self.call = call
        self.random = random.Random(seed)
        self.possible: dict[bytes, Possible] = {}
        self.counted: Counter[int] = Counter()
        self.maybe_counted: Counter[int] = Counter()
        self.done: Counter[str] = Counter()

    def key(self) -> bytes:
        return b"w%d:%04d" % (self.number, self.random.randrange(KEYS_PER_WORKER))

    def payload(self) -> bytes:
        return self.random.randbytes(self.random.randrange(PAYLOAD_BYTES_MAX))

    def step(self) -> None:
        """One operation, and what it tells."""
        name = self.random.choices(
            ["get", "set", "delete", "append", "set_many", "cas", "remove", "list", "count"],
            [30, 25, 5, 5, 5, 5, 5, 2, 18],
        )[0]
        try:
            getattr(self, f"do_{name}")()
            self.done[name] += 1
        except UnknownOutcome:
            self.done["unknown outcome"] += 1
        except TransportError:
            self.done["no answer"] += 1  # nothing was changed
            self.rest()

    # Operations

    def write(self, key: bytes, after: bytes | None, *call: Any) -> Any:
        """A write that leaves ``after`` under the key if it happens."""
        before = self.possible.get(key, frozenset([None]))
        try:
            answer = self.call(*call)
        except UnknownOutcome:
            self.possible[key] = before | {after}
            raise
        self.possible[key] = frozenset([after])
        return answer

    def check(self, key: bytes, found: bytes | None) -> None:
        """What was read must be possible; from now on it is what is there."""
        allowed = self.possible.get(key, frozenset([None]))
        if found not in allowed:
            raise Broken(f"{key!r} holds {found!r:.80}, and may hold only {[f'{value!r:.80}' for value in allowed]}")
        self.possible[key] = frozenset([found])

    def do_get(self) -> None:
        key = self.key()
        record = self.call("get", 0, key)
        self.check(key, None if record is None else payload_of(record))

    def do_set(self) -> None:
        key, payload = self.key(), self.payload()
        self.write(key, payload, "set", 0, key, (int(Tag.BYTES), 0, payload), None, "always")

    def do_delete(self) -> None:
        key = self.key()
        self.write(key, None, "delete", 0, key)

    def do_remove(self) -> None:
        key = self.key()
        before = self.possible.get(key, frozenset([None]))
        record = self.write(key, None, "remove", 0, key)
        found = None if record is None else payload_of(record)
        if found not in before:
            raise Broken(f"remove of {key!r} brought {found!r:.80}")

    def do_append(self) -> None:
        key = self.key()
        self.do_get_of(key)
        (before,) = self.possible[key]
        if before is not None and len(before) > PAYLOAD_BYTES_MAX:
            return
        more = self.payload()
        self.write(key, (before or b"") + more, "append", 0, key, (int(Tag.BYTES), 0, more), None)

    def do_get_of(self, key: bytes) -> None:
        record = self.call("get", 0, key)
        self.check(key, None if record is None else payload_of(record))

    def do_set_many(self) -> None:
        pairs = {self.key(): self.payload() for _ in range(10)}
        before = {key: self.possible.get(key, frozenset([None])) for key in pairs}
        call = ("set_many", 0, [(key, (int(Tag.BYTES), 0, payload)) for key, payload in pairs.items()], None)
        try:
            self.call(*call)
        except UnknownOutcome:
            self.possible.update({key: before[key] | {pairs[key]} for key in pairs})
            raise
        self.possible.update({key: frozenset([payload]) for key, payload in pairs.items()})

    def do_cas(self) -> None:
        key = self.key()
        self.do_get_of(key)
        (before,) = self.possible[key]
        condition = ("absent", key) if before is None else ("value", key, int(Tag.BYTES), before)
        payload = self.payload()
        swapped, _ = self.write(key, payload, "cas", 0, condition, (int(Tag.BYTES), 0, payload), None)
        if not swapped:
            raise Broken(f"nobody else writes {key!r}, and its cas failed")

    def do_list(self) -> None:
        rows, _ = self.call("list", 0, b"w%d:" % self.number, b"", False, True, KEYS_PER_WORKER, True)
        there = {key: payload_of(record) for key, record in rows}
        for key in {*there, *self.possible}:
            self.check(key, there.get(key))

    def do_count(self) -> None:
        counter = self.random.randrange(SHARED_COUNTERS)
        try:
            self.call("incr", 0, b"shared:%d" % counter, 1, 0, None, 0)
        except UnknownOutcome:
            self.maybe_counted[counter] += 1
            raise
        self.counted[counter] += 1


def blocking_thread(worker: Worker, stop: threading.Event, failures: list[BaseException]) -> threading.Thread:
    """A thread in which a worker works with blocking calls."""

    def work() -> None:
        try:
            while not stop.is_set():
                worker.step()
        except BaseException as error:
            failures.append(error)
            stop.set()

    return threading.Thread(target=work)


def asyncio_thread(
    engine: RemoteEngine, workers: list[Worker], stop: threading.Event, failures: list[BaseException]
) -> threading.Thread:
    """A thread with an event loop in which workers share one connection. Each step runs in a task of its own."""

    async def work(worker: Worker, loop: asyncio.AbstractEventLoop) -> None:
        # The worker's code is written for answers that come at once: it runs beside the loop, its calls run on it.
        worker.call = lambda *call: asyncio.run_coroutine_threadsafe(engine.aexecute(*call), loop).result()
        while not stop.is_set():
            await asyncio.to_thread(worker.step)

    async def work_all() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(work(worker, loop) for worker in workers))

    def run() -> None:
        try:
            asyncio.run(work_all())
        except BaseException as error:
            failures.append(error)
            stop.set()

    return threading.Thread(target=run)


def check_counters(workers: list[Worker], call: Callable[..., Any]) -> None:
    """The shared counters, when everybody has stopped."""
    for counter in range(SHARED_COUNTERS):
        record = call("get", 0, b"shared:%d" % counter)
        number = 0 if record is None else int(payload_of(record))
        least = sum(worker.counted[counter] for worker in workers)
        most = least + sum(worker.maybe_counted[counter] for worker in workers)  # exact where no outcome was unknown
        if not least <= number <= most:
            raise Broken(f"counter {counter} is {number}, and must be from {least} to {most}")


def is_trouble(error: BaseException) -> bool:
    """Whether an error says that something is broken, and not only that there was no node."""
    return not isinstance(error, KeyspaceError) or not isinstance(error, TransportError | UnknownOutcome)

"""A client process: some threads, or some tasks of one event loop, that use Django's cache and the engine below it.

``python -m tests.cluster.nemesis.client '{...}'`` says ``ready``, works until its standard input ends, writes down everything
that its threads or tasks were told, and says ``done``.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import threading
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tests.sim.history import History, now_us

LEVELS = ("safe", "lease", "session", "dirty")
EPOCH_US = 1_500_000
"""So long the workers use the same keys: the search for an order takes longer the more calls there are on a key."""
PAUSE_S = 0.02


@dataclass(frozen=True)
class Orders:
    """What a client process is told.

    Attributes:
        name: of the client.
        location: of the cluster.
        seed: of its choices.
        file: where its history goes.
        kind: ``threads`` or ``tasks``.
        workers: how many of them.
        timeout_ms: of each call.
        began_us: when the run has begun.
        secret: of the cluster, None without one.
    """

    name: str
    location: str
    seed: int
    file: str
    kind: str
    workers: int
    timeout_ms: int
    began_us: int
    secret: str | None = None

    def dump(self) -> str:
        """As one argument of a command."""
        return json.dumps(asdict(self))


class Wish(NamedTuple):
    """What a worker does next: a method of the cache with reads of a level, or an operation of the engine (level None)."""

    level: str | None
    name: str
    arguments: tuple[Any, ...]


class Workload:
    """Chooses what one worker does. Every value is written once.

    Keys: ``k`` and ``p`` anything, ``c`` counters, which are only counted up, ``a`` only appended to; these change with time.
    ``once`` keys are written once by one worker, ``total`` is counted by all through the whole run.
    """

    def __init__(self, worker: str, seed: int, began_us: int) -> None:
        self._worker = worker
        self._random = random.Random(seed)
        self._began_us = began_us
        self._number = 0
        self._makers: dict[Callable[[], Wish], float] = {
            self._once: 4, self._set: 4, self._add: 1, self._count: 3, self._total: 3, self._append: 2, self._cas: 2,
            self._delete: 1, self._remove: 1, self._rename: 1, self._set_many: 1, self._batch: 0.7, self._prune: 0.3,
            self._get: 8, self._get_counter: 2, self._get_many: 2,
        }  # fmt: skip

    def next(self) -> Wish:
        """What comes next."""
        return self._random.choices(list(self._makers), list(self._makers.values()))[0]()

    def pause_s(self) -> float:
        """How long to wait before that."""
        return self._random.random() * PAUSE_S

    def _key(self, letters: str = "") -> str:
        epoch = (now_us() - self._began_us) // EPOCH_US
        return f"{epoch}:{letters or self._random.choice(('k0', 'k1', 'k2', 'p0', 'p1'))}"

    def _value(self) -> str:
        self._number += 1
        return f"{self._worker}.{self._number};"

    def _record(self) -> tuple[int, int, bytes]:
        return (1, 0, self._value().encode())

    def _level(self) -> str:
        return self._random.choice(LEVELS)

    def _once(self) -> Wish:
        value = self._value()
        return Wish("safe", "set", (f"once:{value}", value, None))

    def _set(self) -> Wish:
        return Wish("safe", "set", (self._key(), self._value(), None))

    def _add(self) -> Wish:
        return Wish("safe", "add", (self._key(), self._value(), None))

    def _count(self) -> Wish:
        delta = self._random.choice((1, 10, 100, -1))
        return Wish(None, "incr", (0, self._key("c").encode(), delta, 0, None, 0))

    def _total(self) -> Wish:
        return Wish(None, "incr", (0, b"total:%d" % self._random.randrange(2), self._random.choice((1, 5)), 0, None, 0))

    def _append(self) -> Wish:
        return Wish(None, "append", (0, self._key("a").encode(), self._record(), None))

    def _cas(self) -> Wish:
        key = self._key().encode()
        condition = (self._random.choice(("absent", "present")), key)
        return Wish(None, "cas", (0, condition, None if self._random.random() < 0.1 else self._record(), None))

    def _delete(self) -> Wish:
        return Wish("safe", "delete", (self._key(),))

    def _remove(self) -> Wish:
        return Wish(None, "remove", (0, self._key().encode()))

    def _rename(self) -> Wish:
        return Wish(None, "rename", (0, self._key().encode(), self._key().encode()))

    def _set_many(self) -> Wish:
        return Wish("safe", "set_many", ({self._key(): self._value() for _ in range(2)}, None))

    def _batch(self) -> Wish:
        key, counter = self._key().encode(), self._key("c").encode()
        calls = (("set", 0, key, self._record(), None, "always"), ("incr", 0, counter, 1, 0, None, 0))
        return Wish(None, "batch", (calls,))

    def _prune(self) -> Wish:
        return Wish(None, "prune", (0, self._key("p").encode()))

    def _get(self) -> Wish:
        return Wish(self._level(), "get", (self._key(),))

    def _get_counter(self) -> Wish:
        return Wish(self._level(), "get", (self._key(self._random.choice("ca")),))

    def _get_many(self) -> Wish:
        return Wish(self._level(), "get_many", ([self._key(), self._key()],))


def configure(orders: Orders) -> Any:
    """Set Django up, with one cache per level, and return the engine that they share."""
    from django.conf import settings

    import django_keyspace.backend.transport as transport
    from django_keyspace.security import make_security

    from .recorder import RecordingEngine

    # Whoever asks for the engine of a location from now on gets one that writes down what it does.
    transport.RemoteEngine = RecordingEngine  # type: ignore[misc]
    backend = {
        "BACKEND": "django_keyspace.backend.KeyspaceCache",
        "LOCATION": orders.location,
        "KEY_FUNCTION": "tests.cluster.nemesis.client.plain_key",
    }
    # Without a time for the leader, a call to a cluster none of whose processes is there is given up after a few tries.
    times = {"timeout_ms": orders.timeout_ms, "leader_timeout_ms": orders.timeout_ms}
    secret = {"secret": orders.secret} if orders.secret else {}
    caches = {
        "default" if level == "safe" else level: {
            **backend,
            "OPTIONS": {**times, **secret, "consistency": level},
        }
        for level in LEVELS
    }
    settings.configure(SECRET_KEY="only for this test", CACHES=caches, USE_TZ=True)
    return transport.remote_engine(orders.location, **times, security=make_security(uses_tls=False, **secret))


def plain_key(key: str, prefix: str, version: int) -> str:
    """Keys as they are."""
    return key


def alias(level: str) -> str:
    """The cache of a level."""
    return "default" if level == "safe" else level


def work(worker: str, seed: int, engine: Any, orders: Orders, stop: threading.Event) -> History:
    """What a thread does."""
    from django.core.cache import caches

    from django_keyspace.exceptions import KeyspaceError

    from .recorder import current

    history, workload = History(), Workload(worker, seed, orders.began_us)
    current.set((worker, history))
    while not stop.is_set():
        level, name, arguments = workload.next()
        try:
            if level is None:
                engine.execute(name, *arguments)
            else:
                getattr(caches[alias(level)], name)(*arguments)
        except KeyspaceError:
            pass  # the history has it
        stop.wait(workload.pause_s())
    return history


async def work_async(worker: str, seed: int, engine: Any, orders: Orders, stop: threading.Event) -> History:
    """What a task does."""
    from django.core.cache import caches

    from django_keyspace.exceptions import KeyspaceError

    from .recorder import current

    history, workload = History(), Workload(worker, seed, orders.began_us)
    current.set((worker, history))
    while not stop.is_set():
        level, name, arguments = workload.next()
        try:
            if level is None:
                await engine.aexecute(name, *arguments)
            else:
                await getattr(caches[alias(level)], f"a{name}")(*arguments)
        except KeyspaceError:
            pass
        await asyncio.sleep(workload.pause_s())
    return history


def main() -> int:
    orders = Orders(**json.loads(sys.argv[1]))
    engine, stop = configure(orders), threading.Event()
    seeds = random.Random(orders.seed)
    workers = [(f"{orders.name}.{number}", seeds.getrandbits(32)) for number in range(orders.workers)]
    histories: list[History] = []
    failures: list[BaseException] = []

    def note(make: Callable[[], list[History]]) -> None:
        try:
            histories.extend(make())
        except BaseException as error:
            failures.append(error)

    async def all_tasks() -> list[History]:
        return list(await asyncio.gather(*(work_async(*worker, engine, orders, stop) for worker in workers)))

    if orders.kind == "tasks":
        makes: list[Callable[[], list[History]]] = [lambda: asyncio.run(all_tasks())]
    else:
        makes = [lambda worker=worker: [work(*worker, engine, orders, stop)] for worker in workers]
    threads = [threading.Thread(target=copy_context().run, args=(note, make)) for make in makes]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    engine.close()
    if failures:
        raise failures[0]
    Path(orders.file).write_text("".join(history.dump() for history in histories), encoding="ascii")
    print("done", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How `cluster.py` measures: single calls, processes side by side, batches, and a leader that is killed."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.cluster_clients import Spec, make_client
from benchmarks.cluster_subjects import Subject
from benchmarks.data import Plan
from benchmarks.measures import NotMeasured, WrongAnswer
from benchmarks.measures import Subject as Turn

VALUE = data.text(100).encode()
ASCENDING = 10_000
SETTLE_S = 0.5
AFTER_S = 0.5
LONGEST_GAP_S = 60.0
PROCESS_END_S = 30.0


class Work:
    """A measure of some subjects, each with a client."""

    def __init__(self, plan: Plan, subjects: dict[str, Subject]) -> None:
        self.plan = plan
        self.subjects = subjects
        self.clients: dict[str, Any] = {}
        self.keys = [key.encode() for key in data.keys(plan.key_count)]

    def prepare(self, turn: Turn) -> None:
        """Connect, and store the keys."""
        client = self.clients[turn.name] = make_client(self.subjects[turn.name].spec)
        for chunk in range(0, len(self.keys), 100):
            client.set_many([(key, VALUE) for key in self.keys[chunk : chunk + 100]])
        if client.get(self.keys[-1]) != VALUE:
            raise WrongAnswer("it does not return what was stored")

    def close(self) -> None:
        """Let go of the clients."""
        for client in self.clients.values():
            client.close()


class Single(Work):
    """One call after the other: microseconds of each."""

    def __init__(self, plan: Plan, subjects: dict[str, Subject], call: str) -> None:
        super().__init__(plan, subjects)
        self._call = call

    def prepare(self, turn: Turn) -> None:
        super().prepare(turn)
        if getattr(self.clients[turn.name], self._call, None) is None:
            raise NotMeasured("it has no such call")

    def batch(self, turn: Turn) -> list[float]:
        call: Callable[..., Any] = getattr(self.clients[turn.name], self._call)
        arguments = ((key, VALUE) if self._call == "set" else (key,) for key in itertools.cycle(self.keys))
        samples: list[float] = []
        clock, ends_ns = time.perf_counter_ns, time.perf_counter_ns() + self.plan.batch_ns
        call(*next(arguments))
        while (began_ns := clock()) < ends_ns and len(samples) < self.plan.sample_count_max:
            call(*next(arguments))
            samples.append((clock() - began_ns) / 1000)
        return samples or [(clock() - ends_ns + self.plan.batch_ns) / 1000]


class Batches(Work):
    """Keys per second in batches of so many."""

    def __init__(self, plan: Plan, subjects: dict[str, Subject], size: int, ascending: bool = False) -> None:
        super().__init__(plan, subjects)
        self._size = size
        self._ascending = ascending
        self._next = itertools.count()

    def batch(self, turn: Turn) -> list[float]:
        client, done, began_ns = self.clients[turn.name], 0, time.perf_counter_ns()
        while True:
            first = next(self._next) * self._size
            names = (
                [b"ascending:%012d" % number for number in range(first, first + self._size)]
                if self._ascending
                else [self.keys[number % len(self.keys)] for number in range(first, first + self._size)]
            )
            client.set_many([(name, VALUE) for name in names])
            done += self._size
            elapsed_ns = time.perf_counter_ns() - began_ns
            if elapsed_ns >= self.plan.batch_ns:
                return [done * 1e9 / elapsed_ns]


class Together(Work):
    """Some processes, one call after the other in each: calls per second, or microseconds of processor time of each."""

    def __init__(self, plan: Plan, subjects: dict[str, Subject], call: str, what: str = "rate") -> None:
        super().__init__(plan, subjects)
        self._call = call
        self._what = what
        self._processes: dict[str, list[tuple[Any, Any]]] = {}

    def prepare(self, turn: Turn) -> None:
        super().prepare(turn)
        context = multiprocessing.get_context("spawn")
        found = self._processes[turn.name] = []
        for number in range(self.plan.process_count):
            own, theirs = context.Pipe()
            keys = self.keys[number :: self.plan.process_count]
            process = context.Process(
                target=_serve, args=(self.subjects[turn.name].spec, keys, self._call, theirs), daemon=True
            )
            process.start()
            theirs.close()
            found.append((own, process))
        for pipe, _ in found:
            if pipe.recv() != "ready":
                raise WrongAnswer("a client process could not connect")

    def batch(self, turn: Turn) -> list[float]:
        pids = self.subjects[turn.name].pids()
        servers_s = sum(map(processor_s, pids))
        for pipe, _ in self._processes[turn.name]:
            pipe.send(self.plan.mix_seconds)
        told = [pipe.recv() for pipe, _ in self._processes[turn.name]]
        servers_s = sum(map(processor_s, pids)) - servers_s
        if errors := [each for each in told if isinstance(each, str)]:
            raise WrongAnswer(errors[0])
        count = sum(done for done, _, _ in told)
        found = {
            "rate": sum(done / seconds for done, seconds, _ in told),
            "servers": servers_s / count * 1e6,
            "clients": sum(cpu_s for _, _, cpu_s in told) / count * 1e6,
        }
        return [found[self._what]]

    def close(self) -> None:
        for pipe, process in itertools.chain.from_iterable(self._processes.values()):
            pipe.close()
            process.join(PROCESS_END_S)
            if process.is_alive():
                process.kill()
        super().close()


def processor_s(pid: int) -> float:
    """Processor time that a process has taken, as exact as the scheduler knows it."""
    found_ns = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            found_ns += int((task / "schedstat").read_text().split()[0])
    return found_ns / 1e9


def _serve(spec: Spec, keys: list[bytes], name: str, pipe: Any) -> None:
    """A process of clients: call for so many seconds as often as it is told to."""
    client = make_client(spec)
    call = getattr(client, name)
    arguments = ((key, VALUE) if name == "set" else (key,) for key in itertools.cycle(keys))
    try:
        call(*next(arguments))
        pipe.send("ready")
        while True:
            ends_s = time.perf_counter() + pipe.recv()
            began_s, cpu_s, done = time.perf_counter(), time.process_time(), 0
            while not done or time.perf_counter() < ends_s:
                call(*next(arguments))
                done += 1
            pipe.send((done, time.perf_counter() - began_s, time.process_time() - cpu_s))
    except EOFError:
        client.close()
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")


class Gaps(Work):
    """The leader is killed while a client writes: milliseconds of the longest time without an acknowledged write."""

    def prepare(self, turn: Turn) -> None:
        if getattr(self.subjects[turn.name], "kill_leader", None) is None:
            raise NotMeasured("nobody takes over without Sentinels")

    def batch(self, turn: Turn) -> list[float]:
        subject = self.subjects[turn.name]
        client = make_client(subject.spec)
        acknowledged_s: list[float] = []
        stop, failures = threading.Event(), []

        def write() -> None:
            try:
                for key in itertools.cycle(self.keys):
                    if stop.is_set():
                        return
                    client.set(key, VALUE)
                    acknowledged_s.append(time.monotonic())
            except Exception as error:
                failures.append(error)

        thread = threading.Thread(target=write, daemon=True)
        thread.start()
        try:
            stop.wait(SETTLE_S)
            subject.kill_leader()
            killed_s = time.monotonic()
            while not failures and (not acknowledged_s or acknowledged_s[-1] < killed_s + AFTER_S):
                if time.monotonic() > killed_s + LONGEST_GAP_S:
                    raise WrongAnswer(f"no write was acknowledged within {LONGEST_GAP_S:.0f} s")
                stop.wait(0.01)
        finally:
            stop.set()
            thread.join(PROCESS_END_S)
            client.close()
        if failures:
            raise failures[0]
        subject.mend()
        return [
            max(later - earlier for earlier, later in itertools.pairwise(acknowledged_s) if later > killed_s) * 1000
        ]

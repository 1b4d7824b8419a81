"""How each kind of measure is carried out: timed calls, requests, threads, tasks, processes, stores of two sizes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks import data, figures
from benchmarks.data import Plan
from benchmarks.measures import (
    Measure,
    NotMeasured,
    Operation,
    Subject,
    clock_overhead_ns,
    expect,
    sample,
    store_all,
    warm_up,
)
from benchmarks.processes import Crew, run_mix


def batch_of(operation: Operation, plan: Plan) -> list[float]:
    """Warm up, time an operation for one batch, and return microseconds per call."""
    warm_up(operation, plan.batch_ns)
    overhead_ns = clock_overhead_ns()
    return figures.net_of_overhead(sample(operation, plan.batch_ns, plan.sample_count_max), overhead_ns)


class Calls:
    """Times single calls in this thread."""

    def __init__(self, measure: Measure, plan: Plan) -> None:
        if measure.make is None:
            raise ValueError(f"the measure {measure.name} has no single operation")
        self._make, self._plan = measure.make, plan
        self._operations: dict[str, Operation] = {}

    def prepare(self, subject: Subject) -> None:
        subject.cache.clear()
        self._operations[subject.name] = self._make(subject, self._plan)

    def batch(self, subject: Subject) -> list[float]:
        return batch_of(self._operations[subject.name], self._plan)

    def close(self) -> None:
        self._operations.clear()


class Requests(Calls):
    """Times calls that send Django's request signals, each backend in a thread of its own.

    The signals close every cache and every database connection that the thread has used: in a thread of its own a
    backend closes what a site with this one cache would close.
    """

    def __init__(self, measure: Measure, plan: Plan) -> None:
        super().__init__(measure, plan)
        self._threads: dict[str, ThreadPoolExecutor] = {}

    def prepare(self, subject: Subject) -> None:
        thread = self._threads[subject.name] = ThreadPoolExecutor(1, f"request-{subject.name}")
        thread.submit(lambda: super(Requests, self).prepare(_in_this_thread(subject))).result()

    def batch(self, subject: Subject) -> list[float]:
        return self._threads[subject.name].submit(super().batch, subject).result()

    def close(self) -> None:
        for thread in self._threads.values():
            thread.submit(_close_databases).result()
            thread.shutdown()
        super().close()


class Threads:
    """Counts what some threads of this process get done together, each with the backend object Django gives it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def prepare(self, subject: Subject) -> None:
        subject.cache.clear()
        store_all(subject.cache, data.keys(self._plan.key_count, "mixed"), data.text(100))

    def batch(self, subject: Subject) -> list[float]:
        plan = self._plan
        barrier = threading.Barrier(plan.thread_count, timeout=30)

        def work(number: int) -> float:
            try:
                cache = _in_this_thread(subject).cache
                pattern = data.mix(data.SEED + number, plan.key_count)
                cache.get(pattern[0][1])
                barrier.wait()
                return run_mix(cache, pattern, data.text(100), plan.mix_seconds)
            finally:
                _close_databases()

        with ThreadPoolExecutor(plan.thread_count) as pool:
            return [sum(pool.map(work, range(plan.thread_count)))]

    def close(self) -> None:
        """Its threads end with each batch."""


class Processes:
    """Counts what some processes get done together on one shared store."""

    def __init__(self, plan: Plan, crew: Crew) -> None:
        self._plan, self._crew = plan, crew

    def prepare(self, subject: Subject) -> None:
        subject.cache.clear()
        self._crew.prepare(subject.alias, self._plan.key_count)

    def batch(self, subject: Subject) -> list[float]:
        return [self._crew.run(subject.alias, self._plan.key_count, self._plan.mix_seconds)]

    def close(self) -> None:
        self._crew.close()


class Tasks:
    """Counts what many asyncio tasks get done, gathered again and again in one event loop per batch."""

    def __init__(self, plan: Plan, writing: bool) -> None:
        self._plan, self._writing = plan, writing
        self._keys = data.keys(plan.concurrent_count, "task")
        self._value = data.text(100)

    def prepare(self, subject: Subject) -> None:
        subject.cache.clear()
        store_all(subject.cache, self._keys, self._value)

    def batch(self, subject: Subject) -> list[float]:
        with asyncio.Runner(loop_factory=self._loop_factory()) as runner:
            return runner.run(self._measure(subject.cache))

    async def _measure(self, cache: Any) -> list[float]:
        await self._round(cache)
        rates = []
        stop_at = time.perf_counter() + self._plan.mix_seconds / 2
        while True:
            started = time.perf_counter()
            results = await self._round(cache)
            ended = time.perf_counter()
            rates.append(len(self._keys) / (ended - started))
            if ended >= stop_at:
                break
        if not self._writing:
            expect(results[-1], self._value, "the last of the gathered agets")
        else:
            expect(await cache.aget(self._keys[-1]), self._value, "aget after the asets")
        return rates

    def _round(self, cache: Any) -> Awaitable[list[Any]]:
        if self._writing:
            return asyncio.gather(*[cache.aset(key, self._value) for key in self._keys])
        return asyncio.gather(*[cache.aget(key) for key in self._keys])

    def _loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop] | None:
        if not self._plan.uvloop:
            return None
        import uvloop

        return uvloop.new_event_loop

    def close(self) -> None:
        """Its event loops end with each batch."""


class Stores:
    """Times sets in stores that hold few or many keys; every subject is an instance of its own."""

    def __init__(self, plan: Plan, key_counts: dict[str, int], progress: Callable[[str], None]) -> None:
        """Arguments: the plan; how many keys each subject's store holds, by its name; where lines about loading go."""
        self._plan, self._key_counts, self._progress = plan, key_counts, progress
        self._operations: dict[str, Operation] = {}

    def prepare(self, subject: Subject) -> None:
        """Load the store. Errors: NotMeasured when that would take longer than the plan allows."""
        count = self._key_counts[subject.name]
        keys = data.keys(count, "stored")
        value = data.text(100)
        started = time.monotonic()
        for number, chunk in enumerate(data.chunks(keys, 1_000), start=1):
            store_all(subject.cache, chunk, value)
            passed = time.monotonic() - started
            expected = passed * count / (number * 1_000)
            if number >= 5 and expected > self._plan.load_limit_seconds:
                raise NotMeasured(f"loading {count:,} keys would take {expected:.0f} s")
        expect(subject.cache.get(keys[count // 2]), value, "get of a key in the loaded store")
        self._progress(f"    {subject.name}: {count:,} keys loaded in {time.monotonic() - started:.1f} s")
        # Keys from all over the store, so that the large one is not measured on a small warm part of it.
        step = max(1, count // self._plan.sample_count_max)
        self._operations[subject.name] = Operation(subject.cache.set, [(key, value) for key in keys[::step]])

    def batch(self, subject: Subject) -> list[float]:
        return batch_of(self._operations[subject.name], self._plan)

    def close(self) -> None:
        self._operations.clear()


def _in_this_thread(subject: Subject) -> Subject:
    from django.core.cache import caches

    return Subject(subject.name, subject.alias, caches[subject.alias], subject.raw)


def _close_databases() -> None:
    from django.db import connections

    connections.close_all()

"""What is measured: one entry per measure, each with the calls it makes ready and the calls it times.

A measure of single operations returns nanoseconds per call; a measure of throughput returns operations per second. Each
call is timed by itself, so that there is a p99 and so that work which must not count (making the key that the next
delete removes) can be done in between.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import data
from benchmarks.data import Plan

WARM_UP_CALLS_MAX = 20
CLOCK_READINGS = 101


class WrongAnswer(Exception):
    """A backend did not return what was stored, so its speed means nothing."""


class NotMeasured(Exception):
    """A backend is left out of a measure that it could not finish in reasonable time."""


@dataclass(frozen=True)
class Subject:
    """One backend under test: its row's name, its alias in Django, and the backend object of the thread that measures.

    ``raw`` marks a bare store, which keeps text only.
    """

    name: str
    alias: str
    cache: Any
    raw: bool = False


@dataclass(frozen=True)
class Operation:
    """A call to time, the arguments to cycle through, and what to do, untimed, before each call."""

    call: Callable[..., object]
    arguments: Sequence[tuple[Any, ...]]
    before: Callable[..., object] | None = None


@dataclass(frozen=True)
class Measure:
    """One line of the comparison.

    ``make`` stores what the calls need, checks that the backend really keeps it, and returns the operation to time; it
    is None for the measures that ``works.py`` runs in its own ways. ``group`` gathers measures into one table.
    ``where`` is how the operation runs: ``plain`` in this thread, ``request`` as a request of its own.
    ``raw`` says whether a bare store, which is no Django cache, can take part.
    """

    name: str
    title: str
    group: str
    make: Callable[[Subject, Plan], Operation] | None = None
    unit: str = "us"
    where: str = "plain"
    raw: bool = True

    @property
    def more_is_better(self) -> bool:
        """Whether this is a throughput."""
        return self.unit == "ops/s"


def sample(operation: Operation, limit_ns: int, sample_count_max: int) -> list[int]:
    """Time an operation again and again.

    Arguments: the operation; how long to go on, untimed work included; how many samples are enough.
    Returns: nanoseconds per call, at least one.
    """
    clock = time.perf_counter_ns
    call, before = operation.call, operation.before
    samples: list[int] = []
    stop_at = clock() + limit_ns
    for arguments in itertools.cycle(operation.arguments):
        if before is not None:
            before(*arguments)
        started = clock()
        call(*arguments)
        ended = clock()
        samples.append(ended - started)
        if ended >= stop_at or len(samples) >= sample_count_max:
            return samples
    raise ValueError("an operation needs arguments")


def warm_up(operation: Operation, limit_ns: int) -> None:
    """A few calls that don't count: the processor's caches still hold the backend measured before this one."""
    sample(operation, limit_ns // 5, WARM_UP_CALLS_MAX)


def clock_overhead_ns() -> float:
    """What reading the clock twice adds to a sample, at the present speed of the machine."""
    clock = time.perf_counter_ns
    readings = []
    for _ in range(CLOCK_READINGS):
        started = clock()
        ended = clock()
        readings.append(ended - started)
    return float(sorted(readings)[CLOCK_READINGS // 2])


def store_all(cache: Any, keys: Sequence[str], value: object) -> None:
    """Store a value under all keys without a timeout, and check the first and the last."""
    for chunk in data.chunks(list(keys), 100):
        failed = cache.set_many(dict.fromkeys(chunk, value), timeout=None)
        if failed:
            raise WrongAnswer(f"set_many did not store {len(failed)} of {len(chunk)} keys")
    for key in (keys[0], keys[-1]):
        expect(cache.get(key), value, f"get({key!r})")


def expect(found: object, wanted: object, what: str) -> None:
    """Errors: WrongAnswer where they differ."""
    if found != wanted:
        raise WrongAnswer(f"{what} returned {str(found)[:60]!r} instead of {str(wanted)[:60]!r}")


def _getting(value: Callable[[], object], key_count: int | None = None) -> Callable[[Subject, Plan], Operation]:
    def make(subject: Subject, plan: Plan) -> Operation:
        cache = subject.cache
        keys = data.keys(key_count or plan.key_count)
        store_all(cache, keys, value())
        return Operation(cache.get, [(key,) for key in keys])

    return make


def _setting(value: Callable[[], object], key_count: int | None = None) -> Callable[[Subject, Plan], Operation]:
    def make(subject: Subject, plan: Plan) -> Operation:
        cache = subject.cache
        keys = data.keys(key_count or plan.key_count)
        stored = value()
        store_all(cache, keys, stored)
        return Operation(cache.set, [(key, stored) for key in keys])

    return make


def _missing(subject: Subject, plan: Plan) -> Operation:
    cache = subject.cache
    keys = data.keys(plan.key_count)
    store_all(cache, keys, data.text(100))
    absent = data.keys(plan.key_count, "absent")
    expect(cache.get(absent[0]), None, "get of an absent key")
    return Operation(cache.get, [(key,) for key in absent])


def _adding(subject: Subject, plan: Plan) -> Operation:
    cache = subject.cache
    value = data.text(100)
    keys = data.keys(plan.key_count)
    store_all(cache, keys, value)
    fresh = data.keys(plan.key_count, "fresh")
    expect(bool(cache.add(fresh[0], value)), True, "add of a new key")
    expect(bool(cache.add(fresh[0], value)), False, "add of a present key")
    return Operation(cache.add, [(key, value) for key in fresh], before=lambda key, _value: cache.delete(key))


def _counting(subject: Subject, plan: Plan) -> Operation:
    cache = subject.cache
    keys = data.keys(plan.key_count, "counter")
    for key in keys:
        cache.set(key, "0" if subject.raw else 0, timeout=None)
    expect(cache.incr(keys[0]), 1, "incr")
    return Operation(cache.incr, [(key,) for key in keys])


def _deleting(subject: Subject, plan: Plan) -> Operation:
    cache = subject.cache
    value = data.text(100)
    keys = data.keys(plan.key_count)
    store_all(cache, keys, value)
    doomed = data.keys(plan.key_count, "doomed")
    cache.set(doomed[0], value)
    expect(bool(cache.delete(doomed[0])), True, "delete of a present key")
    return Operation(cache.delete, [(key,) for key in doomed], before=lambda key: cache.set(key, value))


def _getting_many(subject: Subject, plan: Plan) -> Operation:
    cache = subject.cache
    keys = data.keys(max(plan.key_count, 100))
    store_all(cache, keys, data.text(100))
    expect(len(cache.get_many(keys[:100])), 100, "the number of keys of get_many(100)")
    return Operation(cache.get_many, [(chunk,) for chunk in data.chunks(keys, 100)])


def _setting_many(subject: Subject, plan: Plan) -> Operation:
    cache = subject.cache
    value = data.text(100)
    keys = data.keys(max(plan.key_count, 100))
    store_all(cache, keys, value)
    return Operation(cache.set_many, [(dict.fromkeys(chunk, value),) for chunk in data.chunks(keys, 100)])


def _getting_in_request(subject: Subject, plan: Plan) -> Operation:
    cache = subject.cache
    from django.core.handlers.wsgi import WSGIHandler
    from django.core.signals import request_finished, request_started

    keys = data.keys(plan.key_count)
    store_all(cache, keys, data.text(100))

    def request(key: str) -> None:
        request_started.send(sender=WSGIHandler, environ={})
        cache.get(key)
        request_finished.send(sender=WSGIHandler)

    return Operation(request, [(key,) for key in keys])


def _getting_on_new_object(subject: Subject, plan: Plan) -> Operation:
    cache = subject.cache
    from django.conf import settings

    keys = data.keys(plan.key_count)
    store_all(cache, keys, data.text(100))
    backend = type(cache)
    params = {name: value for name, value in settings.CACHES[subject.alias].items() if name != "BACKEND"}
    location = params.pop("LOCATION", "")

    def get_on_new_object(key: str) -> None:
        backend(location, params).get(key)

    return Operation(get_on_new_object, [(key,) for key in keys])


def _text_of(size_bytes: int) -> Callable[[], object]:
    return lambda: data.text(size_bytes)


MEASURES: tuple[Measure, ...] = (
    Measure("get", "get, hit, 100 B str", "operations", _getting(_text_of(100))),
    Measure("get_miss", "get, miss", "operations", _missing),
    Measure("set", "set, 100 B str", "operations", _setting(_text_of(100))),
    Measure("add", "add of a new key", "operations", _adding),
    Measure("incr", "incr", "operations", _counting),
    Measure("delete", "delete of a present key", "operations", _deleting),
    Measure("get_many", "get_many(100)", "many", _getting_many),
    Measure("set_many", "set_many(100)", "many", _setting_many),
    Measure(
        "get_request", "one get within a request's signals", "many", _getting_in_request, where="request", raw=False
    ),
    Measure("get_new_object", "one get on a new backend object", "many", _getting_on_new_object, raw=False),
    Measure("get_dict", "get, dict of 1 KB", "values", _getting(data.nested_dict), raw=False),
    Measure("set_dict", "set, dict of 1 KB", "values", _setting(data.nested_dict), raw=False),
    Measure("get_10b", "get, 10 B str", "values", _getting(_text_of(10))),
    Measure("set_10b", "set, 10 B str", "values", _setting(_text_of(10))),
    Measure("get_1kb", "get, 1 KB str", "values", _getting(_text_of(1_000))),
    Measure("set_1kb", "set, 1 KB str", "values", _setting(_text_of(1_000))),
    Measure("get_100kb", "get, 100 KB str", "values", _getting(_text_of(100_000), 50)),
    Measure("set_100kb", "set, 100 KB str", "values", _setting(_text_of(100_000), 50)),
    Measure("set_small_store", "set, small store", "stores"),
    Measure("set_large_store", "set, large store", "stores"),
    Measure("processes", "4 processes, 90/10", "throughput", unit="ops/s"),
    Measure("threads", "4 threads, 90/10", "throughput", unit="ops/s"),
    Measure("agets", "100 concurrent agets", "throughput", unit="ops/s", raw=False),
    Measure("asets", "100 concurrent asets", "throughput", unit="ops/s", raw=False),
)

MEASURES_BY_NAME = {measure.name: measure for measure in MEASURES}

"""Processes that fork after they have used the store: announced to Python or not, quiet or in mid-transaction."""

from __future__ import annotations

import ctypes
import faulthandler
import multiprocessing
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from tests.multiprocess.actors import make_cache, say

_IN_CHILD = 20
"""Read-modify-writes of each child."""


def _in_child(fork: Callable[[], int], work: Callable[[], str]) -> str:
    """What ``work`` answers in a forked child; the child must be gone by itself."""
    reading, writing = os.pipe()
    pid = fork()
    if pid == 0:
        code = 1
        try:
            os.close(reading)
            os.write(writing, work().encode())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading) as pipe:
        answer = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return answer if code == 0 else f"exit code {code}"


def _c_fork() -> int:
    """Fork as a C program does that tells Python nothing of it."""
    return int(ctypes.PyDLL(None).fork())


def _uwsgi_fork() -> int:
    """Fork as uwsgi does: Python is told in the child, and not before."""
    pid = _c_fork()
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
    return pid


FORKS: dict[str, Callable[[], int]] = {"os": os.fork, "c": _c_fork, "uwsgi": _uwsgi_fork}


def _read_modify_write(cache: Any, times: int) -> str:
    for _ in range(times):
        while True:
            value, revision = cache.get_with_revision("swapped", 0)
            if cache.cas("swapped", None, value + 1, revision=revision):
                break
        cache.incr("counted")
    return "done"


def storm(folder: str, children: int, threads: int) -> None:
    """Fork children while threads read and write; each child reads, changes and writes."""
    cache = make_cache(folder, timeout_ms=60_000)
    cache.set_many({"swapped": 0, "counted": 0, "threads": 0})
    over = threading.Event()
    counts = [0] * threads
    troubles: list[str] = []

    def work(number: int) -> None:
        try:
            while not over.is_set():
                cache.incr("threads")
                counts[number] += 1
                cache.get("swapped")
                cache.get_many(["counted", "threads"])
        except BaseException:
            troubles.append(traceback.format_exc())

    busy = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for thread in busy:
        thread.start()
    context = multiprocessing.get_context("fork")
    began = monotonic()
    codes = []
    for first in range(0, children, 6):
        processes, pids = [], []
        for number in range(first, min(first + 6, children)):
            if number % 2:
                process = context.Process(target=_read_modify_write, args=(cache, _IN_CHILD))
                process.start()
                processes.append(process)
                continue
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    _read_modify_write(cache, _IN_CHILD)
                    code = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(code)
            pids.append(pid)
        codes += [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        for process in processes:
            process.join()
            codes.append(process.exitcode or 0)
    seconds = monotonic() - began
    over.set()
    for thread in busy:
        thread.join()
    store = cache._runtime.engine.store
    stale = store.check_readers()
    say(
        {
            "codes": codes,
            "troubles": troubles,
            "expected": children * _IN_CHILD,
            "swapped": cache.get("swapped"),
            "counted": cache.get("counted"),
            "threads": cache.get("threads"),
            "by_threads": sum(counts),
            "slots": len(store._environment.lmdb.readers().splitlines()) - 1,
            "stale": stale,
            "seconds": seconds,
        }
    )


@contextmanager
def _busy_transaction(cache: Any) -> Iterator[threading.Thread]:
    """A thread that stands in the middle of a read transaction."""
    from django_keyspace.store import store as store_module

    inside, over = threading.Event(), threading.Event()
    store = cache._runtime.engine.store

    def long_read(txn: Any, environment: Any, now_ms: int) -> str:
        inside.set()
        over.wait()
        return "read"

    store_module.READS["long_read"] = long_read
    thread = threading.Thread(target=store.read, args=("long_read",))
    thread.start()
    inside.wait()
    try:
        yield thread
    finally:
        over.set()
        thread.join()


def _use(cache: Any) -> str:
    """What comes of using the cache: twice, since a refusal must stay one."""
    told = []
    for _ in range(2):
        try:
            told.append(str(cache.incr("counted")))
        except Exception as error:
            told.append(type(error).__name__)
    try:
        cache.get("counted")
        told.append("read")
    except Exception as error:
        told.append(type(error).__name__)
    return " ".join(told)


def _rest(cache: Any) -> None:
    """Stop the upkeep thread: it, too, would rightly make an unannounced fork unsafe, once in a while."""
    cache._runtime.engine.store._maintenance.stop()


def fork_quietly(folder: str, how: str) -> None:
    """Fork while nothing runs, use the cache on both sides, and fork again."""
    cache = make_cache(folder)
    cache.set("counted", 0)
    told = []
    for _ in range(3):
        _rest(cache)
        told.append(_in_child(FORKS[how], lambda: _use(cache)))
        told.append(_use(cache))
    say(told)


def fork_busily(folder: str, how: str) -> None:
    """Fork while a transaction runs; also after a fork that was announced and found quiet."""
    from django_keyspace.store import opening as store_module

    store_module._QUIET_WAIT_S = 0.2  # type: ignore[misc]
    cache = make_cache(folder)
    cache.set("counted", 0)
    told = [_in_child(os.fork, lambda: _use(cache))]
    with warnings.catch_warnings(record=True) as warned, _busy_transaction(cache):
        warnings.simplefilter("always")
        told.append(_in_child(FORKS[how], lambda: _use(cache)))
        warned_about = [f"{warning.category.__name__}: {warning.message}" for warning in warned]
        told.append(_use(cache))
    say({"told": told, "warned": warned_about})


def fork_and_use_in_threads(folder: str) -> None:
    """Fork without telling Python, and let eight threads of the child be the first to use the cache."""
    cache = make_cache(folder)
    cache.set("counted", 0)
    _rest(cache)

    def work() -> str:
        sys.setswitchinterval(1e-6)
        barrier = threading.Barrier(8)
        troubles: list[str] = []

        def count() -> None:
            try:
                barrier.wait()
                for _ in range(10):
                    cache.incr("counted")
            except BaseException as error:
                troubles.append(repr(error))

        threads = [threading.Thread(target=count) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return "; ".join(troubles) or "done"

    told = [_in_child(_uwsgi_fork, work) for _ in range(20)]
    say({"told": told, "counted": cache.get("counted")})


def fork_while_locks_are_held(folder: str) -> None:
    """Fork while other threads hold this package's locks; the child makes new caches and meets an outage."""
    from django_keyspace.backend import runtime as runtime_module
    from django_keyspace.exceptions import StorageError

    cache = make_cache(folder, on_error="miss")
    cache.set("counted", 0)
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with runtime_module._lock, cache._runtime.outages._lock:
            held.set()
            over.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()

    def work() -> str:
        another = make_cache(folder, serializer="json")
        cache._runtime.outages.note("here", StorageError("a trouble"))
        return str(another.incr("counted"))

    told = _in_child(os.fork, work)
    over.set()
    thread.join()
    say(told)


def leave_normally(folder: str) -> None:
    """Fork in mid-transaction; the refused child ends as programs do, not by ``os._exit``."""
    faulthandler.cancel_dump_traceback_later()  # the child would wait for its thread
    cache = make_cache(folder)
    cache.set("counted", 0)
    with _busy_transaction(cache):
        pid = _uwsgi_fork()
        if pid == 0:
            told = _use(cache)
            sys.stdin = None  # type: ignore[assignment]
            sys.exit(0 if told == "UnsafeFork UnsafeFork UnsafeFork" else 9)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    say({"code": code, "after": _use(cache)})

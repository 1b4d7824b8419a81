"""Processes that fill, hold, wait for, grow and lose a store."""

from __future__ import annotations

import logging
import os
import resource
import threading
from time import monotonic
from typing import Any

from tests.multiprocess.actors import hear, make_cache, say


def _outcome(function: Any, *arguments: Any) -> str:
    """What comes of a call: its result, or the class and the beginning of its error."""
    try:
        return str(function(*arguments))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def read_and_idle(folder: str) -> None:
    """Read, stop in the middle of a listing, and sleep; later list the rest."""
    cache = make_cache(folder)
    cache.get("key0")
    keys = cache.iter_keys("key*")
    seen = [next(keys)]
    say("idle")
    hear()
    seen += list(keys)
    say(len(seen))


def fill(folder: str, name: str, seconds: float, options: dict[str, Any]) -> None:
    """Write values of many sizes for some time; tell the errors by class."""
    cache = make_cache(folder, **options)
    errors: dict[str, int] = {}
    over = monotonic() + seconds
    number = 0
    while monotonic() < over:
        number += 1
        try:
            value = b"x" * (number * 7919 % 6000)
            cache.set(f"{name}{number}", value, timeout=None if number % 3 else 300)
            if number % 50 == 0:
                cache.delete_many([f"{name}{n}" for n in range(number - 20, number - 10)])
        except Exception as error:
            errors[type(error).__name__] = errors.get(type(error).__name__, 0) + 1
    say({"errors": errors, "written": number, "last": cache.get(f"{name}{number}") is not None})


def fill_limited_file(folder: str) -> None:
    """Fill a file that may not grow beyond two megabytes, make room, and go on."""
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    cache = make_cache(folder, timeout_ms=60_000)
    cache.set("first", "here")
    cache.shutdown()
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, resource.RLIM_INFINITY))
    fill_disk_of(cache, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2))


def fill_disk(folder: str, ballast: str) -> None:
    """Fill a small disk, make room, and go on."""
    cache = make_cache(folder)
    cache.set("first", "here")
    fill_disk_of(cache, lambda: os.remove(ballast))


def fill_disk_of(cache: Any, make_room: Any) -> None:
    """Write until the disk refuses; look whether what was written is there; make room; write again."""
    told: list[str] = []
    written = 0
    for number in range(2000):
        outcome = _outcome(cache.set, f"key{number}", b"x" * 10_000)
        if outcome != "True":
            told.append(outcome)
            break
        written = number + 1
    told.append(_outcome(cache.get, "first"))
    missing = sum(cache.get(f"key{number}") is None for number in range(written))
    make_room()
    told.append(_outcome(cache.set, "after", "room"))
    told.append(_outcome(cache.get, "after"))
    cache.shutdown()
    told.append(_outcome(cache.get, "after"))
    say({"told": told, "written": written, "missing": missing})


def hold_lock(folder: str) -> None:
    """Stop in the middle of a write, as a paused container does; go on when told to."""
    import signal

    from django_keyspace.store import store as store_module

    cache = make_cache(folder)
    cache.set("counted", 0)
    original = store_module.apply

    def stopping(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGSTOP)
        return original(*arguments)

    say("ready")
    hear()
    store_module.apply = stopping
    number = cache.incr("counted")
    store_module.apply = original
    say(number)


def wait_for_lock(folder: str, timeout_ms: int) -> None:
    """Write when told to; tell what came of it and how long it took."""
    cache = make_cache(folder, timeout_ms=timeout_ms)
    say("ready")
    while True:
        word = hear()
        if word == "end":
            return
        began = monotonic()
        outcome = _outcome(cache.get, "counted") if word == "read" else _outcome(cache.incr, "counted")
        say([outcome.split(":")[0], monotonic() - began])


def use_while_growing(folder: str, writes: int, options: dict[str, Any]) -> None:
    """Read and write small things; or, with ``writes``, write so much that the map must grow."""
    cache = make_cache(folder, timeout_ms=30_000, **options)
    store = cache._runtime.engine.store
    cache.add("counted", 0)
    cache.get("counted")
    maps = [cache.status()["map_bytes"]]
    over = threading.Event()
    troubles: list[str] = []
    counts = [0, 0]

    def work(number: int) -> None:
        try:
            while not over.is_set():
                cache.get("counted")
                cache.list_keys("big", count=10)
                cache.incr("counted")
                counts[number] += 1
        except BaseException as error:
            troubles.append(repr(error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    say("ready")
    hear()
    for thread in threads:
        thread.start()
    for number in range(writes):
        cache.set(f"big{number}", b"x" * 50_000)
    say("written")
    hear()
    over.set()
    for thread in threads:
        thread.join()
    maps.append(cache.status()["map_bytes"])
    say({"maps": maps, "counts": sum(counts), "troubles": troubles, "big": cache.count("big"), "path": store.path})


def use_while_replaced(folder: str, writing: bool) -> None:
    """Read, and perhaps write, without a pause; tell the marker that is seen whenever asked."""
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("django_keyspace").addHandler(handler)
    cache = make_cache(folder, timeout_ms=30_000)
    over = threading.Event()
    troubles: list[str] = []

    def work(number: int) -> None:
        while not over.is_set():
            try:
                cache.get("marker")
                if writing:
                    cache.set(f"written{os.getpid()}:{number}", b"x" * 3000)
            except BaseException as error:
                troubles.append(repr(error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    cache.get("marker")
    for thread in threads:
        thread.start()
    say("ready")
    while hear() == "marker":
        say(cache.get("marker"))
    over.set()
    for thread in threads:
        thread.join()
    say({"troubles": troubles, "logged": records})


def write_unsynced(folder: str, options: dict[str, Any]) -> None:
    """Write, and die without a goodbye."""
    cache = make_cache(folder, **options)
    cache.set("key", "value")
    say("written")
    os._exit(0)


def open_after_boot(folder: str, boot_id: str, options: dict[str, Any]) -> None:
    """Open the store as if the machine had been started anew; tell what is there and what was logged."""
    from django_keyspace.store import folder as folder_module

    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("django_keyspace").addHandler(handler)
    if boot_id:
        folder_module.boot_id = lambda: boot_id
    cache = make_cache(folder, **options)
    told = [_outcome(cache.get, "key"), _outcome(cache.set, "after", 1), _outcome(cache.get, "after")]
    say({"told": told, "logged": records})


def first_process_of_a_namespace(folder: str) -> None:
    """Use the store, and tell this process's id as it sees it; keep a transaction open until told to end it."""
    cache = make_cache(folder)
    outcome = _outcome(cache.set, "key", os.getpid())
    store = cache._runtime.engine.store
    if outcome != "True":
        say([os.getpid(), outcome])
        return
    with store._environment.begin():
        say([os.getpid(), outcome])
        hear()


def take_all_reader_slots(folder: str) -> None:
    """Take every slot of the reader table, and wait to be killed."""
    import lmdb

    cache = make_cache(folder)
    cache.get("key")
    begin = cache._runtime.engine.store._environment.begin
    held = []
    try:
        while True:
            held.append(begin())
    except lmdb.ReadersFullError:
        say(len(held))
    hear()


def watch_opened_files(folder: str) -> None:
    """Use a store in every way; tell which of LMDB's files Python opened."""
    import sys

    opened: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str) and arguments[0].startswith(folder):
            opened.append(os.path.basename(arguments[0]))

    sys.addaudithook(watch)
    cache = make_cache(folder)
    cache.set("key", "value")
    cache.get("key")
    cache.status()
    cache.list_keys()
    store = cache._runtime.engine.store
    store._maintenance.tick()
    store.check_readers()
    cache.clear(everything=True)
    cache.shutdown()
    cache.get("key")
    cache.shutdown()
    say(sorted(set(opened)))


def die_while_creating(folder: str, moment: str) -> None:
    """Be killed at some moment of the creation of a store."""
    import signal

    import lmdb

    from django_keyspace.store import environment as environment_module

    def die(*arguments: Any, **options: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    cache = make_cache(folder)
    if moment == "before the file":
        lmdb.open = die
    elif moment == "before the databases":
        environment_module.Environment._make_databases = die  # type: ignore[method-assign]
    elif moment == "after the databases":
        environment_module.Environment._check_format = die  # type: ignore[method-assign]
    say("now")
    cache.get("key")

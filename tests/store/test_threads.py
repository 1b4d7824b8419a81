"""What waits for others: the writer lock, the writer thread, the upkeep, and the registry of stores."""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest

from django_keyspace.exceptions import ConfigurationError, LockTimeout, StorageError
from django_keyspace.store import Store, StoreOptions, forget_store, maintenance, open_store, registry
from django_keyspace.store import store as store_module
from django_keyspace.store.lock import WriterLock
from tests.store.helpers import MIB, await_condition, got, put, small_options, val

# ------------------------------------------------------------------------------------------------------ writer lock

HOLDER = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.readline()
fcntl.flock(file, fcntl.LOCK_UN)
print("freed", flush=True)
sys.stdin.readline()
"""


class OtherProcess:
    """A process that holds a lock file's lock."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout.readline() == "held\n"

    def free(self) -> None:
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "freed\n"

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[OtherProcess]:
    process = OtherProcess(tmp_path / "lock")
    yield process
    process.kill()


def helpers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "keyspace-writer-lock"]


def test_a_write_waits_for_another_process_no_longer_than_it_may(tmp_path: Path, holder: OtherProcess) -> None:
    lock = WriterLock(str(tmp_path / "lock"))
    for wait_s in (0.05, 0, -1):
        started_s = time.monotonic()
        with pytest.raises(LockTimeout, match="another process"):
            lock.acquire(wait_s)
        assert time.monotonic() - started_s < 5
    holder.free()
    lock.acquire(10)
    lock.release()
    lock.acquire(0)
    lock.release()
    lock.close()
    await_condition(lambda: not helpers())


def test_a_waiter_gets_the_lock_when_it_is_freed_or_its_holder_is_killed(tmp_path: Path, holder: OtherProcess) -> None:
    lock = WriterLock(str(tmp_path / "lock"))
    threading.Timer(0.1, holder.free).start()
    lock.acquire(20)
    lock.release()
    second = OtherProcess(tmp_path / "lock")
    threading.Timer(0.1, second.kill).start()
    lock.acquire(20)
    other = os.open(tmp_path / "lock", os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    lock.release()
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)
    lock.close()


def test_a_lock_that_comes_too_late_is_given_back(tmp_path: Path, holder: OtherProcess) -> None:
    lock = WriterLock(str(tmp_path / "lock"))
    with pytest.raises(LockTimeout):
        lock.acquire(0.01)
    holder.free()
    other = os.open(tmp_path / "lock", os.O_RDWR)

    def is_free() -> bool:
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    await_condition(is_free)
    os.close(other)
    lock.close()


def test_threads_of_one_process_wait_for_each_other(tmp_path: Path) -> None:
    lock = WriterLock(str(tmp_path / "lock"))
    lock.acquire(1)
    errors: list[Exception] = []

    def try_it() -> None:
        try:
            lock.acquire(0.02)
        except LockTimeout as error:
            errors.append(error)

    thread = threading.Thread(target=try_it)
    thread.start()
    thread.join(10)
    assert "another thread" in str(errors[0])
    lock.release()
    total = [0]

    def count() -> None:
        for _ in range(200):
            lock.acquire(20)
            seen = total[0]
            total[0] = seen + 1
            lock.release()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert total == [800]
    lock.close()


def test_a_store_whose_lock_is_held_elsewhere_reads_but_does_not_write(store_folder: Path) -> None:
    store = open_store(store_folder, small_options(lock_wait_ms=50))
    put(store, b"k")
    other = OtherProcess(store_folder / "keyspace.lock")
    with pytest.raises(LockTimeout):
        put(store, b"k", b"new")
    with pytest.raises(LockTimeout):
        store.write("delete", 0, b"k", wait_s=0.01)
    assert got(store, b"k") == b"v"
    other.kill()
    await_condition(lambda: store.write("delete", 0, b"k", wait_s=5) is True)


# ------------------------------------------------------------------------------------------------------ writer thread


def test_submitted_writes_are_done_in_order_and_in_groups(store_folder: Path) -> None:
    store = open_store(store_folder, small_options())
    answers: list[tuple[int, list[Any]]] = []
    finished = threading.Event()

    def done(number: int) -> Any:
        def note(results: list[Any]) -> None:
            answers.append((number, results))
            if number == 199:
                finished.set()

        return note

    put(store, b"text", b"x")
    for number in range(200):
        bad = ("incr", 0, b"text", 1, None, None, 4)
        store.submit([("incr", 0, b"n", 1, 0, None, 4), bad], done(number))
    assert finished.wait(20)
    assert [number for number, _ in answers] == list(range(200))
    assert [results[0] for _, results in answers] == list(range(1, 201))
    assert all(type(results[1]).__name__ == "NotANumber" for _, results in answers)
    assert store.counters.commits < 200, "what comes together is committed together"


def test_a_group_that_fails_tells_everybody(store_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    store = open_store(store_folder, small_options())
    put(store, b"k")
    answers: list[Any] = []
    for error in (StorageError("disk"), RuntimeError("a bug")):

        def fail(*args: Any, error: Exception = error, **kwargs: Any) -> Any:
            raise error

        with monkeypatch.context() as patch, caplog.at_level(logging.ERROR, "django_keyspace.store"):
            patch.setattr(store, "write_many", fail)
            store.submit([("delete", 0, b"k")] * 2, answers.extend)
            await_condition(lambda: len(answers) == 2)
        assert all(isinstance(answer, StorageError) for answer in answers)
        answers.clear()
    assert "a bug" in caplog.text
    store.submit([("delete", 0, b"k")], answers.extend)
    await_condition(lambda: answers == [True])


def test_shutdown_finishes_what_was_submitted(store_folder: Path) -> None:
    store = open_store(store_folder, small_options())
    for _ in range(3):
        answers: list[Any] = []
        for number in range(100):
            store.submit([("set", 0, b"k%d" % number, val(b""), None, "always")], answers.extend)
        store.shutdown()
        assert answers == [True] * 100
    assert store.read("count", 0, b"", b"", False, True, 0) == (100, None)


# ------------------------------------------------------------------------------------------------------ upkeep


@pytest.fixture
def upkept(store_folder: Path) -> Store:
    """A store whose upkeep runs only when the test says so."""
    store = open_store(store_folder, small_options(durability="interval"))
    store._maintenance._start = lambda: None
    return store


def test_a_tick_syncs_what_was_written_and_marks_an_idle_store_clean(
    upkept: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("sync", "mark_clean"):
        real = getattr(upkept, name)
        monkeypatch.setattr(upkept, name, lambda name=name, real=real: (calls.append(name), real()))
    upkept._maintenance.tick()
    assert calls == []
    put(upkept, b"k")
    upkept._maintenance.tick()
    put(upkept, b"k")
    upkept._maintenance.tick()
    assert calls == ["sync", "sync"]
    for _ in range(5):
        upkept._maintenance.tick()
    assert calls == ["sync", "sync", "mark_clean"]
    assert upkept.folder.state.clean is True
    put(upkept, b"k")
    assert upkept.folder.state.clean is False


def test_a_tick_sweeps_and_looks_for_dead_readers(upkept: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from django_keyspace.store import clock

    for number in range(1_200):
        put(upkept, b"k%d" % number, b"v", 1)
    put(upkept, b"stays", b"v", 10**9)
    upkept._maintenance.tick()
    assert upkept.read("status")["records"] == 1_201, "their bucket is not over"
    real = clock.wall_ms
    monkeypatch.setattr(clock, "wall_ms", lambda: real() + 20_000)
    monkeypatch.setattr(maintenance, "monotonic", lambda: time.monotonic() + 3_600)
    checks: list[int] = []
    monkeypatch.setattr(upkept, "check_readers", lambda: checks.append(1))
    upkept._maintenance.tick()
    assert upkept.read("status")["records"] == 1
    assert upkept.counters.expired == 1_200 and checks == [1]


def test_the_upkeep_goes_on_after_an_error(
    store_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(maintenance, "TICK_S", 0.005)
    store = open_store(store_folder, small_options())
    errors: list[Exception] = [StorageError("disk"), RuntimeError("a bug")]
    ticks: list[int] = []

    def tick() -> None:
        ticks.append(1)
        if errors:
            raise errors.pop(0)

    monkeypatch.setattr(store._maintenance, "tick", tick)
    with caplog.at_level(logging.WARNING, "django_keyspace.store"):
        put(store, b"k")
        await_condition(lambda: len(ticks) > 4)
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
    store.shutdown()
    assert not [thread for thread in threading.enumerate() if thread is store._maintenance._thread]


def test_a_data_file_that_was_replaced_is_left(upkept: Store, caplog: pytest.LogCaptureFixture) -> None:
    put(upkept, b"k")
    assert upkept.reopen_if_replaced() is False
    os.remove(upkept.folder.file("data.mdb"))
    os.remove(upkept.folder.file("lock.mdb"))
    upkept._maintenance.tick()
    assert "replaced or deleted" in caplog.text
    assert got(upkept, b"k") is None
    put(upkept, b"k2")
    assert got(upkept, b"k2") == b"v"


def test_upkeep_of_a_store_that_is_not_open_does_nothing(store_folder: Path) -> None:
    store = Store(str(store_folder), small_options())
    store.sync()
    store.mark_clean()
    store.shutdown()
    assert (store.check_readers(), store.sweep_is_due(), store.reopen_if_replaced()) == (0, False, False)
    assert not store_folder.exists()


# ------------------------------------------------------------------------------------------------------ registry


def test_one_folder_is_one_store_however_it_is_written(store_folder: Path, tmp_path: Path) -> None:
    options = small_options()
    store = open_store(store_folder, options)
    put(store, b"k")
    (tmp_path / "link").symlink_to(store_folder)
    for path in (str(store_folder), tmp_path / "link", f"{tmp_path}/./x/../store", os.path.relpath(store_folder)):
        assert open_store(path, options) is store
    for other in (StoreOptions(), small_options(max_bytes=2 * MIB)):
        with pytest.raises(ConfigurationError, match="different options"):
            open_store(tmp_path / "link", other)
    forget_store(store)
    again = open_store(store_folder, small_options(max_bytes=2 * MIB))
    assert again is not store and got(again, b"k") == b"v"


def test_all_stores_are_shut_down_at_the_end(
    store_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_stores", {})
    stores = [open_store(tmp_path / name, small_options()) for name in ("one", "two")]
    for store in stores:
        put(store, b"k")
    registry.shutdown_all()
    assert [store._environment for store in stores] == [None, None]
    assert [got(store, b"k") for store in stores] == [b"v", b"v"]
    registry.shutdown_all()


# ------------------------------------------------------------------------------------------------------ the map

GROWER = """
import sys
from django_keyspace.store import StoreOptions, open_store
store = open_store(sys.argv[1], StoreOptions(durability="none", databases=2, map_bytes=2**20, max_bytes=2**26,
                                             value_bytes_max=2**22))
for number in range(8):
    store.write("set", 0, b"other%d" % number, (1, 4, b"x" * 2**20), None, "always")
"""


def test_a_map_that_another_process_has_grown_is_adopted(store_folder: Path) -> None:
    options = small_options(map_bytes=MIB, max_bytes=64 * MIB, value_bytes_max=4 * MIB)
    store = open_store(store_folder, options)
    put(store, b"k")
    assert store.read("status")["map_bytes"] == MIB
    subprocess.run([sys.executable, "-c", GROWER, str(store_folder)], check=True, timeout=60)
    assert got(store, b"other7") == b"x" * MIB
    assert store.read("status")["map_bytes"] >= 8 * MIB
    subprocess.run([sys.executable, "-c", GROWER, str(store_folder)], check=True, timeout=60)
    put(store, b"mine", b"y" * MIB)
    assert got(store, b"mine") == b"y" * MIB


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
from django_keyspace.store import open_store
store = open_store(sys.argv[1])
store.write("set", 0, b"k", (1, 4, b"v"), None, "always")
print(store.read("status")["map_bytes"])
"""


def test_a_limited_address_space_gets_a_smaller_map(store_folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(store_folder)], check=True, timeout=60, capture_output=True, text=True
    )
    assert MIB * 256 <= int(done.stdout) < 4 * 2**30
    assert "Address space is limited" in done.stderr


def test_more_databases_can_be_asked_for_later(store_folder: Path) -> None:
    store = open_store(store_folder, small_options(databases=2))
    put(store, b"kept", kept=True)
    forget_store(store)
    store = open_store(store_folder, small_options(databases=5))
    assert store.write("set", 4, b"k", val(b"", kept=True), None, "always") is True
    figures = store.read("status")
    assert figures["records_by_database"] == figures["kept_records_by_database"] == [1, 0, 0, 0, 1]


# ------------------------------------------------------------------------------------------------------ second attempts


@pytest.mark.parametrize("error", [lmdb.BadTxnError("mixed snapshots"), lmdb.MapResizedError("grown elsewhere")])
def test_a_read_that_lmdb_refused_is_tried_again(
    store_folder: Path, monkeypatch: pytest.MonkeyPatch, error: lmdb.Error
) -> None:
    store = open_store(store_folder, small_options())
    put(store, b"k")
    real, failures = dict(store_module.READS), [error, error]

    def fail_twice(*args: Any) -> Any:
        if failures:
            raise failures.pop()
        return real["get"](*args)

    monkeypatch.setattr(store_module, "READS", {**real, "get": fail_twice})
    assert got(store, b"k") == b"v"
    assert failures == [] and store.gate.active == {}


def test_attempts_end(store_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(store_folder, small_options())
    put(store, b"k")

    def fail(*args: Any) -> Any:
        raise lmdb.MapResizedError("again and again")

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "READS", {"get": fail})
        with pytest.raises(StorageError, match="attempts"):
            got(store, b"k")
        patch.setattr(store_module, "apply", fail)
        with pytest.raises(StorageError, match="attempts"):
            put(store, b"k")
    assert got(store, b"k") == b"v"


def test_an_error_that_no_attempt_mends_is_raised_in_our_words(
    store_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(store_folder, small_options())
    put(store, b"k")

    def fail(*args: Any) -> Any:
        error = lmdb.DiskError("bad sector")
        error.code = 5  # as lmdb sets it
        raise error

    monkeypatch.setattr(store_module, "apply", fail)
    with pytest.raises(StorageError, match="bad sector"):
        put(store, b"k")
    monkeypatch.undo()
    put(store, b"k", b"mended")
    assert got(store, b"k") == b"mended"

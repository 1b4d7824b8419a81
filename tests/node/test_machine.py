"""The state machine of a node: which store counts, what may be trusted, and how a snapshot's store takes its place."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from django_keyspace.exceptions import ConfigurationError, DamagedSnapshot, DiskFailed, StorageError
from django_keyspace.node.disk import HostDisk
from django_keyspace.node.entries import LoggedCalls
from django_keyspace.node.machine import Machine
from django_keyspace.node.snapshot import Snapshot, SnapshotStore
from django_keyspace.store import Store, StoreOptions, forget_store, open_store, registry
from django_keyspace.store.folder import boot_id
from tests.journal.helpers import MEMBERS
from tests.store.helpers import MIB, await_condition, small_options, val

WAIT_S = 30
NOW_MS = 1_800_000_000_000
OPTIONS = small_options(max_bytes=4 * MIB)


def set_call(key: bytes, payload: bytes = b"v", expire: Any = None) -> Any:
    return ("set", 0, key, val(payload), expire, "always")


def write(machine: Machine, *calls: Any, log_ms: int = NOW_MS) -> list[Any]:
    return machine.apply([LoggedCalls(machine.applied_index + 1, log_ms, calls)])[0]


def has(machine: Machine, key: bytes) -> bool:
    return bool(machine.read(NOW_MS, "exists", 0, key))


def take_snapshot(machine: Machine, snapshots: SnapshotStore, **fields: Any) -> Snapshot:
    with machine.copy() as copy:
        made = Snapshot(copy.index, 1, MEMBERS, copy.log_ms, "c1")._replace(**fields)
        snapshots.build(made, copy)
    return made


class Host:
    """Where machines are opened, each on a disk of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._machines: list[Machine] = []

    def disk(self, name: str = "n1") -> HostDisk:
        (self._path / name).mkdir(exist_ok=True)
        return HostDisk(str(self._path / name))

    def open(self, name: str = "n1", boot: str = "boot-1", options: StoreOptions = OPTIONS) -> Machine:
        machine = Machine.open(self.disk(name), options, boot, Random(1), upkeep=False)
        self._machines.append(machine)
        return machine

    def begun(self, name: str = "n1", boot: str = "boot-1") -> Machine:
        machine = self.open(name, boot)
        machine.begin()
        return machine

    def close(self) -> None:
        for machine in self._machines:
            machine.close(clean=False)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    host.close()
    left = [path for path in registry._stores if Path(path).is_relative_to(tmp_path.resolve())]
    assert not left, "a machine has left a store in the registry"


# --- Beginning and ending


def test_a_new_machine_has_no_store_until_it_begins(host: Host) -> None:
    machine = host.open()
    assert machine.is_trustworthy is False
    with pytest.raises(StorageError, match="no store yet"):
        machine.apply([])
    machine.begin()
    assert (machine.is_trustworthy, machine.applied_index, machine.log_ms) == (True, 0, 0)
    assert machine.apply([LoggedCalls(1, 0, ()), LoggedCalls(2, NOW_MS, [set_call(b"a")])]) == [[], [True]]
    assert (machine.applied_index, machine.log_ms) == (2, NOW_MS)
    assert has(machine, b"a")


@pytest.mark.parametrize(
    ("clean", "boot", "is_trusted"),
    [(True, "boot-1", True), (True, "boot-2", True), (False, "boot-1", True), (False, "boot-2", False)],
)
def test_a_store_is_trusted_in_its_boot_or_when_it_was_closed(
    host: Host, clean: bool, boot: str, is_trusted: bool
) -> None:
    machine = host.begun()
    write(machine, set_call(b"a"))
    machine.close(clean=clean)
    again = host.open(boot=boot)
    assert again.is_trustworthy is is_trusted
    if is_trusted:
        assert again.applied_index == 1 and has(again, b"a")
        write(again, set_call(b"b"))
        again.close(clean=False)
        assert host.open(boot=boot).applied_index == 2, "it notes that it is not clean any more"
        assert host.open(boot="boot-3").is_trustworthy is False
    else:
        again.begin()
        assert again.applied_index == 0 and not has(again, b"a")


def test_what_a_power_cut_has_left_is_never_looked_at(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = host.begun()
    write(machine, set_call(b"a"))
    snapshots = SnapshotStore(host.disk())
    snapshot = take_snapshot(machine, snapshots)
    machine.close(clean=False)
    Path(host.disk().path("store-1/data.mdb")).write_bytes(b"rubbish" * 10_000)
    opened: list[str] = []
    open_environment = Store._open_environment

    def note(self: Store) -> Any:
        opened.append(Path(self.path).name)
        return open_environment(self)

    monkeypatch.setattr(Store, "_open_environment", note)
    again = host.open(boot="boot-2")
    again.install(snapshots, snapshot)
    assert has(again, b"a") and again.applied_index == snapshot.place
    assert opened == ["store-2"]
    assert host.disk().list() == ["generation.json", "snapshots", "store-2"]


def test_a_store_that_cannot_be_opened_is_made_again(host: Host) -> None:
    machine = host.begun()
    write(machine, set_call(b"a"))
    machine.close(clean=True)
    Path(host.disk().path("store-1/data.mdb")).write_bytes(b"rubbish" * 10_000)
    again = host.open()
    assert again.is_trustworthy is False
    again.begin()
    assert again.applied_index == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [(OPTIONS, "different options"), (dataclasses.replace(OPTIONS, replicated=True), "by others")],
)
def test_a_store_that_others_use_in_this_process_is_left_alone(host: Host, options: StoreOptions, message: str) -> None:
    machine = host.begun()
    path = machine.store.path
    machine.close()
    other = open_store(path, options)
    try:
        with pytest.raises((StorageError, ConfigurationError), match=message):
            host.open()
        assert other.read("exists", 0, b"a") is False
    finally:
        forget_store(other)


def test_machines_of_one_process_have_equal_stores_at_equal_indices(host: Host) -> None:
    machines = [host.begun(f"n{number}") for number in range(5)]
    for index in range(1, 6):
        calls = [set_call(b"k%d" % index, expire=1_000), ("incr", 0, b"n", index, 0, None, 0)]
        assert [machine.apply([LoggedCalls(index, NOW_MS + index, calls)]) for machine in machines] == [
            [[True, sum(range(index + 1))]]
        ] * 5
        assert len({machine.digest() for machine in machines}) == 1
    write(machines[0], set_call(b"k"))
    assert len({machine.digest() for machine in machines}) == 2


def test_reads_and_upkeep_are_at_log_time(host: Host) -> None:
    machine = host.begun()
    write(machine, set_call(b"a", expire=1_000))
    assert machine.read(NOW_MS + 999, "exists", 0, b"a") is True
    assert machine.read(NOW_MS + 1_000, "exists", 0, b"a") is False
    assert machine.due(NOW_MS) == []
    assert machine.due(NOW_MS + 60_000) == [("sweep", 500)]
    machine.now_ms = lambda: NOW_MS + 1_000
    assert machine.store.read("exists", 0, b"a") is False
    snapshots = SnapshotStore(host.disk())
    machine.install(snapshots, take_snapshot(machine, snapshots))
    assert machine.store.read("exists", 0, b"a") is False, "the next store has the same clock"


def test_a_plan_is_what_the_log_has_to_be_told(host: Host) -> None:
    machine = host.begun()
    value = val(b"x" * 2_000)
    write(machine, ("set_many", 0, [(b"k%04d" % number, value) for number in range(1_100)], None))
    calls = [set_call(b"new", bytes(100_000))]
    plan = machine.plan(calls, NOW_MS)
    assert plan.evict and plan.refusal is None
    assert write(machine, ("evict", plan.evict), *calls) == [len(plan.evict), True]
    kept = val(b"x" * 2_000, kept=True)
    write(machine, ("set_many", 0, [(b"k%04d" % number, kept) for number in range(1_100)], None))
    calls.append(("delete", 0, b"k0000"))
    plan = machine.plan(calls, NOW_MS)
    while plan.evict:
        write(machine, ("evict", plan.evict))
        plan = machine.plan(calls, NOW_MS)
    assert plan.refusal is not None, "what was evicted and came again is not on its way out"
    assert machine.growing(calls) == [True, False]


# --- Snapshots


def test_a_copy_is_the_store_at_one_index(host: Host) -> None:
    machine = host.begun()
    write(machine, set_call(b"a"))
    digest = machine.digest()
    snapshots = SnapshotStore(host.disk())
    with machine.copy() as copy:
        write(machine, set_call(b"b"), log_ms=NOW_MS + 5)
        assert (copy.index, copy.log_ms) == (1, NOW_MS)
        snapshot = Snapshot(copy.index, 1, MEMBERS, copy.log_ms, "c1")
        snapshots.build(snapshot, copy)
    other = host.begun("n2")
    other.install(snapshots, snapshot)
    assert (other.applied_index, other.log_ms, other.digest()) == (1, NOW_MS, digest)
    assert write(other, set_call(b"b"), log_ms=NOW_MS + 5) == [True]
    assert other.digest() == machine.digest()


def test_rule_35_a_snapshots_store_takes_the_place_of_the_one_that_counts(host: Host) -> None:
    machine, snapshots = host.begun(), SnapshotStore(host.disk())
    write(machine, set_call(b"a"))
    snapshot, digest = take_snapshot(machine, snapshots), machine.digest()
    write(machine, set_call(b"b"))
    old = machine.store
    machine.install(snapshots, snapshot)
    assert (machine.applied_index, machine.digest(), machine.is_trustworthy) == (1, digest, True)
    assert has(machine, b"a") and not has(machine, b"b")
    for use in (lambda: old.read("exists", 0, b"a"), old.digest, lambda: old.copy().__enter__()):
        with pytest.raises(StorageError, match="replaced"):
            use()
    assert host.disk().list() == ["generation.json", "snapshots", "store-2"]
    machine.close(clean=False)
    assert host.open().applied_index == 1
    assert host.open(boot="boot-2").is_trustworthy is False, "an installed store was not synced"


def test_a_snapshot_that_holds_another_index_stops_the_node(host: Host) -> None:
    machine, snapshots = host.begun(), SnapshotStore(host.disk())
    write(machine, set_call(b"a"))
    snapshot = take_snapshot(machine, snapshots, place=7)
    with pytest.raises(DamagedSnapshot, match="applied entry 1, not 7"):
        machine.install(snapshots, snapshot)


def test_a_damaged_snapshot_changes_nothing(host: Host) -> None:
    machine, snapshots = host.begun(), SnapshotStore(host.disk())
    write(machine, set_call(b"a"))
    snapshot = take_snapshot(machine, snapshots)
    path = Path(host.disk().path(f"snapshots/{snapshot.file_name}"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedSnapshot):
        machine.install(snapshots, snapshot)
    assert has(machine, b"a")
    assert write(machine, set_call(b"b")) == [True]
    assert host.disk().list() == ["generation.json", "snapshots", "store-1"]


def test_a_crash_before_the_old_store_is_removed_leaves_the_new_one(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, snapshots = host.begun(), SnapshotStore(host.disk())
    write(machine, set_call(b"a"))
    snapshot = take_snapshot(machine, snapshots)
    write(machine, set_call(b"b"))
    remove = HostDisk.remove

    def fail(self: HostDisk, name: str) -> None:
        if name == "store-1":
            raise DiskFailed("as if the process was killed")
        remove(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(HostDisk, "remove", fail)
        with pytest.raises(DiskFailed):
            machine.install(snapshots, snapshot)
    assert host.disk().list() == ["generation.json", "snapshots", "store-1", "store-2"]
    machine.close(clean=False)
    again = host.open()
    assert again.applied_index == 1
    assert host.disk().list() == ["generation.json", "snapshots", "store-2"]


def test_a_script_gives_the_old_store_back(host: Host) -> None:
    machine, snapshots = host.begun(), SnapshotStore(host.disk())
    write(machine, set_call(b"a"))
    snapshot = take_snapshot(machine, snapshots)
    old, reading, seen = machine.store, threading.Event(), []

    def run_script() -> None:
        with old.snapshot() as state:
            reading.set()
            await_condition(state.is_wanted_back, WAIT_S)
            seen.append(state.txn.get(b"a", db=state.environment.databases[0]) is not None)

    thread = threading.Thread(target=run_script)
    thread.start()
    assert reading.wait(WAIT_S)
    machine.install(snapshots, snapshot)
    thread.join(WAIT_S)
    assert seen == [True]
    assert has(machine, b"a")


def test_reads_go_on_while_stores_are_replaced(host: Host) -> None:
    machine, snapshots = host.begun(), SnapshotStore(host.disk())
    write(machine, set_call(b"a"))
    snapshot = take_snapshot(machine, snapshots)
    reads: list[Any] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                reads.append(has(machine, b"a"))
        except BaseException as error:
            reads.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    for _ in range(10):
        seen = len(reads)
        machine.install(snapshots, snapshot)
        await_condition(lambda seen=seen: len(reads) > seen, WAIT_S)  # type: ignore[misc]
    done.set()
    thread.join(WAIT_S)
    assert set(map(repr, reads)) == {"True"}
    assert host.disk().list() == ["generation.json", "snapshots", "store-11"]


READER = """
import sys
from django_keyspace.store import StoreOptions, open_store
from django_keyspace.store.environment import META_RETIRED
store = open_store(sys.argv[1], StoreOptions(durability="none", databases=2, map_bytes=2**26))
with store.snapshot() as snapshot:
    print("reading", flush=True)
    sys.stdin.readline()
    record = snapshot.txn.get(b"a", db=snapshot.environment.databases[0])
    before = snapshot.environment.read_meta(snapshot.txn)
    with_new_transaction = snapshot.environment.lmdb
snapshot.txn.abort()
with with_new_transaction.begin() as txn:
    after = snapshot.environment.read_meta(txn)
print(record is not None, bool(before.flags & META_RETIRED), bool(after.flags & META_RETIRED), flush=True)
"""


def test_another_process_reads_on_and_sees_the_mark(host: Host) -> None:
    machine, snapshots = host.begun(boot=boot_id()), SnapshotStore(host.disk())
    write(machine, set_call(b"a"))
    snapshot = take_snapshot(machine, snapshots)
    command = [sys.executable, "-c", READER, machine.store.path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        try:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "reading\n"
            machine.install(snapshots, snapshot)
            answer, _ = reader.communicate("go on\n", timeout=WAIT_S)
        finally:
            reader.kill()
    assert answer == "True False True\n"
    assert has(machine, b"a")


def test_applying_and_reading_on_two_threads(host: Host) -> None:
    """As a node does it: entries on one thread, reads, plans and copies on others, while the map grows."""
    machine = host.open(options=small_options(max_bytes=64 * MIB, map_bytes=MIB))
    machine.begin()
    errors: list[BaseException] = []
    done = threading.Event()

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                errors.append(error)

        return run

    def look() -> None:
        while not done.is_set():
            index = machine.applied_index
            number = machine.read(NOW_MS, "get", 0, b"n")
            assert index == 0 or number is not None
            machine.plan([set_call(b"k")], NOW_MS)
            machine.due(NOW_MS)

    def apply_all() -> None:
        try:
            for number in range(1, 61):
                value = bytes(100_000)
                write(machine, ("incr", 0, b"n", 1, 0, None, 0), set_call(b"k%d" % number, value))
        finally:
            done.set()

    threads = [threading.Thread(target=guarded(work)) for work in (look, apply_all)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert not errors
    assert machine.applied_index == 60

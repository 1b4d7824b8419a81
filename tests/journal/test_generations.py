"""A store takes the place of another one: aside, durable, at once, and with a mark for those who still read the old one."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from django_keyspace.exceptions import DamagedSnapshot, DiskFailed, ForeignStore, NoSpace, StorageError
from django_keyspace.node.disk import HostDisk, read_file, replace_file
from django_keyspace.node.generations import Generations, snapshot_to_start_from
from django_keyspace.node.journal import Batch
from django_keyspace.node.raft.storage import HardState
from django_keyspace.node.snapshot import Snapshot, SnapshotStore
from django_keyspace.store import StoreOptions, forget_store, open_store
from django_keyspace.store.environment import META_RETIRED, READERS_MAX
from django_keyspace.store.folder import boot_id
from tests.journal.helpers import BOOTSTRAP, MEMBERS, append, open_journal, sim_disk
from tests.journal.test_snapshots import build, content, snapshot
from tests.sim.disk import PowerCut, SimDisk
from tests.store.helpers import await_condition, got, put

OPTIONS = StoreOptions(durability="none", databases=2, map_bytes=64 * 2**20)


class Shelf:
    """The generations on a disk, and who was retired."""

    def __init__(self, disk: Any) -> None:
        self.retired: list[str] = []
        self.generations = Generations(disk, self.retired.append)


def data_of(disk: Any, generations: Generations) -> bytes:
    return read_file(disk, f"{generations.folder}/data.mdb")


def test_a_new_node_begins_with_an_empty_folder() -> None:
    disk = sim_disk()
    shelf = Shelf(disk)
    assert shelf.generations.number == 0
    assert not shelf.generations.is_trustworthy("boot")
    shelf.generations.begin()
    assert (shelf.generations.number, shelf.generations.folder, shelf.retired) == (1, "store-1", [])
    assert Shelf(disk).generations.number == 1
    assert disk.list("store-1") == []


def test_rule_35_a_snapshot_takes_the_place_of_the_store() -> None:
    disk = sim_disk()
    snapshots, shelf = SnapshotStore(disk), Shelf(disk)
    shelf.generations.begin()
    first, second = build(snapshots, 10), build(snapshots, 20)
    shelf.generations.install(snapshots, first, "boot")
    shelf.generations.install(snapshots, second, "boot")
    assert shelf.retired == ["store-1", "store-2"]
    assert data_of(disk, shelf.generations) == content(20)
    disk.crash()
    again = Shelf(disk)
    assert again.generations.number == 3
    assert again.retired in ([], ["store-2"]), "its removal may be undone by the power cut; then it is done again"
    assert data_of(disk, again.generations) == content(20)
    assert disk.list() == ["generation.json", "snapshots", "store-3"]


def test_a_store_is_trusted_in_its_boot_or_when_it_was_closed() -> None:
    disk = sim_disk()
    snapshots, shelf = SnapshotStore(disk), Shelf(disk)
    shelf.generations.install(snapshots, build(snapshots, 10), "boot-1")
    assert shelf.generations.is_trustworthy("boot-1")
    assert not shelf.generations.is_trustworthy("boot-2")
    assert not shelf.generations.is_trustworthy(""), "a system that does not tell its boots"
    name = "store-1/keyspace.json"
    state = json.loads(read_file(disk, name))
    replace_file(disk, name, json.dumps(state | {"clean": True}).encode())
    assert shelf.generations.is_trustworthy("boot-2")
    for broken in (b"{", b"[]", json.dumps(state | {"clean": True, "made": False}).encode(), b"{}"):
        replace_file(disk, name, broken)
        assert not shelf.generations.is_trustworthy("boot-1")


def test_a_damaged_snapshot_changes_nothing() -> None:
    disk = sim_disk()
    snapshots, shelf = SnapshotStore(disk), Shelf(disk)
    shelf.generations.install(snapshots, build(snapshots, 10), "boot")
    bad = build(snapshots, 20)
    disk.flip_bit(snapshots.path(bad.file_name), 600_000)
    with pytest.raises(DamagedSnapshot):
        shelf.generations.install(snapshots, bad, "boot")
    good = build(snapshots, 30)
    disk.fail("enospc", 2)
    with pytest.raises(NoSpace):
        shelf.generations.install(snapshots, good, "boot")
    assert data_of(disk, shelf.generations) == content(10)
    assert disk.list() == ["generation.json", "snapshots", "store-1"]
    assert shelf.retired == []


def test_rule_43_without_room_nothing_changes_and_nothing_is_left_whichever_write_is_refused() -> None:
    after = refusals = 0
    while refusals == after:
        disk = sim_disk(after)
        snapshots, shelf = SnapshotStore(disk), Shelf(disk)
        shelf.generations.install(snapshots, build(snapshots, 10), "boot")
        later = build(snapshots, 20)
        disk.fail("enospc", after)
        try:
            shelf.generations.install(snapshots, later, "boot")
        except NoSpace:
            refusals += 1
            assert disk.list() == ["generation.json", "snapshots", "store-1"] and shelf.retired == []
            if after % 2:  # power goes out before the next attempt
                disk.crash()
                snapshots, shelf = SnapshotStore(disk), Shelf(disk)
            assert data_of(disk, shelf.generations) == content(10)
            shelf.generations.install(snapshots, later, "boot")
        assert data_of(disk, shelf.generations) == content(20)
        assert disk.list() == ["generation.json", "snapshots", "store-2"]
        after += 1
    assert refusals > 6, "the pointer's among them"


@pytest.mark.parametrize("after", range(9))
def test_rule_42_a_sync_that_fails_during_an_installation_is_no_want_of_room(after: int) -> None:
    disk = sim_disk(after)
    snapshots, shelf = SnapshotStore(disk), Shelf(disk)
    shelf.generations.begin()
    received = build(snapshots, 10)
    disk.fail("eio_sync", after)
    if after < 7:
        with pytest.raises(DiskFailed):
            shelf.generations.install(snapshots, received, "boot")
        disk.crash()
        shelf = Shelf(disk)
        assert shelf.generations.folder in disk.list()
    else:
        shelf.generations.install(snapshots, received, "boot")


def test_a_pointer_whose_name_finds_no_room_in_the_folder_may_count_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = sim_disk()
    replace_file(disk, "generation.json", b"old")

    def refuse(folder: str = "") -> None:
        raise NoSpace("no room for the folder's names")

    monkeypatch.setattr(disk, "sync_folder", refuse)
    with pytest.raises(DiskFailed, match="no room for the folder's names"):
        replace_file(disk, "generation.json", b"new")


@pytest.mark.parametrize(
    "pointer", [b"", b"7", b'{"format": 1}', b'{"format": 2, "generation": 3}', b'{"format": 1, "generation": "x"}']
)
def test_a_pointer_that_cannot_be_read_is_not_guessed(pointer: bytes) -> None:
    disk = sim_disk()
    Shelf(disk).generations.begin()
    replace_file(disk, "generation.json", pointer)
    with pytest.raises(ForeignStore, match="not touched"):
        Shelf(disk)
    assert disk.list() == ["generation.json", "store-1"]


def node_with_a_store(disk: SimDisk) -> tuple[Any, SnapshotStore, Generations]:
    """A node that has applied and made a snapshot of ten entries, and has three more in its journal."""
    journal, snapshots, generations = open_journal(disk), SnapshotStore(disk), Shelf(disk).generations
    append(journal, 1, 13)
    journal.append([Batch(HardState(1, "n2", 10))])
    generations.install(snapshots, build(snapshots, 10, size=20_000), "boot")
    journal.note_snapshot(snapshot(10).meta)
    return journal, snapshots, generations


@pytest.mark.parametrize("received", [snapshot(50, 3), snapshot(12, 1)], ids=["beyond the log", "within the log"])
def test_rule_35_power_may_go_out_anywhere_while_one_is_installed(received: Snapshot) -> None:
    """Received, made the store, and made the beginning of the log, in this order: at each step the node can go on."""
    operation, done = 0, False
    while not done:
        disk = sim_disk(operation)
        journal, snapshots, generations = node_with_a_store(disk)
        journal.append([Batch(HardState(3, "", 10))])
        disk.cut_power_after(operation)
        try:
            snapshots.build(received, [content(received.place, 20_000)])
            generations.install(snapshots, received, "boot")
            journal.restore(received.meta)
            done = True
        except PowerCut:
            pass
        disk.crash()
        shelf = Shelf(disk)
        snapshots, generations = SnapshotStore(disk), shelf.generations
        data = data_of(disk, generations)
        place = {content(at, 20_000): at for at in (10, received.place)}[data]
        assert not done or place == received.place
        journal = open_journal(disk, bootstrap=None)
        assert journal.first_index() <= place + 1, "the journal continues the store"
        assert journal.hard_state().term == 3
        start = snapshot_to_start_from(snapshots, journal.first_index(), "join")
        assert start is not None, "and what the store could be made from again"
        # What is left to do is done at the start.
        if place > journal.hard_state().commit:
            journal.restore(received.meta)
        assert journal.last_index() >= place
        operation += 1
    assert operation > 20


# ------------------------------------------------------------------------------------------------ with a real store


@pytest.fixture
def real(tmp_path: Path) -> Any:
    """A disk, its snapshots, and a way to open its store."""
    disk = HostDisk(str(tmp_path))
    opened: list[Any] = []

    def open_in(folder: str) -> Any:
        store = open_store(disk.path(folder), OPTIONS)
        opened.append(store)
        return store

    yield disk, SnapshotStore(disk), open_in
    for store in opened:
        forget_store(store)


def meta_of(store: Any) -> Any:
    with store._opened().begin() as transaction:
        return store._opened().read_meta(transaction)


def revision_in(store: Any) -> Any:
    return lambda transaction: store._opened().read_meta(transaction).revision


def take_snapshot(store: Any, snapshots: SnapshotStore) -> Snapshot:
    with store.copy(revision_in(store)) as copy:
        made = Snapshot(copy.facts, 1, MEMBERS, cluster="c1")
        snapshots.build(made, copy)
    return made


def test_rule_48_a_copy_is_a_store_that_can_be_opened(real: Any) -> None:
    disk, snapshots, open_in = real
    store = open_in("old")
    for number in range(300):
        put(store, b"key%d" % number, b"v" * number)
    made = take_snapshot(store, snapshots)
    put(store, b"later", b"v")
    generations = Generations(disk, lambda folder: None)
    generations.install(snapshots, made, boot_id())
    installed = open_in(generations.folder)
    assert all(got(installed, b"key%d" % number) == b"v" * number for number in range(300))
    assert got(installed, b"later") is None
    assert meta_of(installed).revision == made.place
    put(installed, b"and", b"goes on")
    assert got(installed, b"and") == b"goes on"


def test_a_store_that_was_installed_needs_no_more_room_to_be_opened(real: Any) -> None:
    """LMDB writes to its table of readers through a mapping: without room behind it, the system kills the process."""
    disk, snapshots, open_in = real
    store = open_in("old")
    put(store, b"key", b"v")
    generations = Generations(disk, lambda folder: None)
    generations.install(snapshots, take_snapshot(store, snapshots), boot_id())
    folder = Path(disk.path(generations.folder))
    before = {file.name: (file.stat().st_ino, file.stat().st_size, file.stat().st_blocks) for file in folder.iterdir()}
    _, size_bytes, blocks = before["lock.mdb"]
    assert blocks * 512 >= size_bytes, "it is no sparse file"
    installed = open_in(generations.folder)
    assert got(installed, b"key") == b"v"
    after = {file.name: (file.stat().st_ino, file.stat().st_size, file.stat().st_blocks) for file in folder.iterdir()}
    assert after == before
    assert installed._opened().lmdb.info()["max_readers"] == READERS_MAX


def test_the_store_is_used_while_it_is_copied(real: Any) -> None:
    """And the facts that are read with the copy are true of it, whatever is written meanwhile."""
    disk, snapshots, open_in = real
    store = open_in("old")
    put(store, b"count", b"0")
    for number in range(2_000):
        put(store, b"key%d" % number, b"v" * 500)
    ended = threading.Event()
    written = []

    def write() -> None:
        while not ended.is_set():
            put(store, b"count", b"%d" % (store.read("status")["revision"] + 1))
            written.append(1)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        generations = Generations(disk, lambda folder: None)
        for _ in range(3):
            begin = len(written)
            await_condition(lambda begin=begin: len(written) > begin, 30)
            made = take_snapshot(store, snapshots)
            generations.install(snapshots, made, boot_id())
    finally:
        ended.set()
        thread.join()
    installed = open_in(generations.folder)
    assert got(installed, b"count") == b"%d" % made.place
    assert meta_of(installed).revision == made.place


def test_the_old_store_is_marked_for_those_who_read_it(real: Any) -> None:
    disk, snapshots, open_in = real
    generations = Generations(disk, lambda folder: open_in(folder).retire())
    generations.begin()
    store = open_in(generations.folder)
    put(store, b"a", b"1")
    flags = []

    def retire(folder: str) -> None:
        assert folder == "store-1"
        store.retire()
        flags.append(meta_of(store).flags)
        forget_store(store)

    generations = Generations(disk, retire)
    generations.install(snapshots, take_snapshot(store, snapshots), boot_id())
    assert flags[0] & META_RETIRED
    assert not os.path.exists(disk.path("store-1"))
    installed = open_in(generations.folder)
    assert not meta_of(installed).flags & META_RETIRED
    assert got(installed, b"a") == b"1"


def test_a_copy_gives_way_when_the_store_needs_its_quiet(real: Any) -> None:
    _, snapshots, open_in = real
    store = open_in("old")
    for number in range(500):
        put(store, b"key%d" % number, b"v" * 5_000)
    with store.copy() as copy:
        pieces = iter(copy)
        next(pieces)
        store._resize(128 * 2**20)
        with pytest.raises(StorageError, match="given up"):
            list(pieces)
    assert not store.copies
    assert not store.gate.active
    with pytest.raises(ZeroDivisionError), store.copy() as copy:
        raise ZeroDivisionError
    assert not store.gate.active, "a reader that stops in the middle leaves nothing behind"
    snapshots.build(snapshot(1), store.copy().__enter__())
    assert snapshots.latest == snapshot(1)


def test_a_copy_that_cannot_begin_says_why(real: Any) -> None:
    _, _, open_in = real
    store = open_in("old")
    with pytest.raises(StorageError, match="could not be copied: integer division"):
        with store.copy(lambda transaction: 1 // 0):
            pass
    Path(store.path).mkdir(parents=True, exist_ok=True)
    blocked = open_in("old/file")
    Path(blocked.path).write_text("")
    with pytest.raises(StorageError, match="is a file"):
        with blocked.copy():
            pass


def test_a_bootstrap_is_a_snapshot_of_nothing() -> None:
    disk = sim_disk()
    journal = open_journal(disk)
    assert journal.snapshot() == BOOTSTRAP
    assert snapshot_to_start_from(SnapshotStore(disk), journal.first_index(), "join") is None

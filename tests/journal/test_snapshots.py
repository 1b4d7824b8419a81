"""Snapshots as files: whole or not there, kept for as long as the rule says, and never believed when they were changed."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import msgpack
import pytest

from django_keyspace.exceptions import DamagedSnapshot, DiskFailed, NoSpace
from django_keyspace.node.disk import HostDisk
from django_keyspace.node.generations import snapshot_to_start_from
from django_keyspace.node.raft.membership import Membership
from django_keyspace.node.snapshot import Snapshot, SnapshotReader, SnapshotStore
from tests.journal.helpers import MEMBERS, sim_disk
from tests.sim.disk import PowerCut


def snapshot(place: int, term: int = 1) -> Snapshot:
    return Snapshot(place, term, MEMBERS, log_ms=1_700_000_000_000 + place, cluster="c1")


def content(place: int, size: int = 700_000) -> bytes:
    return Random(place).randbytes(size)


def build(snapshots: SnapshotStore, place: int, size: int = 700_000) -> Snapshot:
    made = snapshot(place)
    data = content(place, size)
    snapshots.build(made, [data[at : at + 100_000] for at in range(0, len(data), 100_000)])
    return made


def read(snapshots: SnapshotStore, which: Snapshot) -> bytes:
    with snapshots.reader(which) as reader:
        assert reader.snapshot == which
        return b"".join(reader)


@pytest.fixture(params=["simulated", "real"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return sim_disk() if request.param == "simulated" else HostDisk(str(tmp_path))


def test_rule_37_a_snapshot_holds_data_and_what_the_core_needs(disk: Any) -> None:
    snapshots = SnapshotStore(disk)
    assert snapshots.latest is None
    made = build(snapshots, 10)
    for opened in (snapshots, SnapshotStore(disk)):
        assert opened.latest == made
        assert read(opened, made) == content(10)
    assert made.meta == (10, 1, MEMBERS)
    other = Snapshot(11, 2, Membership(("a",), ("b",), ("c",), (("a", "host"),)), 5, "x")
    snapshots.build(other, [])
    assert SnapshotStore(disk).latest == other
    assert read(snapshots, other) == b""


def test_rule_38_the_last_two_are_kept_and_the_journal_since_the_older(disk: Any) -> None:
    snapshots = SnapshotStore(disk)
    assert snapshots.compactable_index == 0
    build(snapshots, 10)
    assert snapshots.compactable_index == 0, "if the only one could not be read, the journal would be needed"
    for place in (20, 30, 40):
        build(snapshots, place)
        assert snapshots.compactable_index == place - 10
    for opened in (snapshots, SnapshotStore(disk)):
        assert [kept.place for kept in opened.kept] == [30, 40]
        assert opened.compactable_index == 30
        assert len(disk.list("snapshots")) == 2


def test_an_older_one_than_the_newest_is_dropped(disk: Any) -> None:
    snapshots = SnapshotStore(disk)
    build(snapshots, 20)
    build(snapshots, 10)
    assert [kept.place for kept in snapshots.kept] == [20]
    assert len(disk.list("snapshots")) == 1


def test_rule_44_no_changed_byte_is_believed() -> None:
    disk = sim_disk()
    snapshots = SnapshotStore(disk)
    made = build(snapshots, 10, size=3_000)
    name = snapshots.path(made.file_name)
    size = disk.open(name).size
    for at in range(size):
        disk.flip_bit(name, at)
        with pytest.raises(DamagedSnapshot, match="not used"):
            with SnapshotReader(disk, name) as reader:
                list(reader)
                assert reader.snapshot == made
            raise DamagedSnapshot("not used: other head")
        damaged = disk.open(name).read_at(at, 1)[0]
        kept = made_byte(made, at)
        disk.open(name).write_at(at, bytes([kept]))
        assert damaged != kept
    assert read(snapshots, made) == content(10, 3_000)


def made_byte(made: Snapshot, at: int, _cache: dict[str, bytes] = {}) -> int:  # noqa: B006 - the file as it was
    if made.file_name not in _cache:
        disk = sim_disk()
        snapshots = SnapshotStore(disk)
        build(snapshots, made.place, size=3_000)
        file = disk.open(snapshots.path(made.file_name))
        _cache[made.file_name] = file.read_at(0, file.size)
    return _cache[made.file_name][at]


@pytest.mark.parametrize("head", [b"", b"x", msgpack.packb((1, 2, b"{", 0, "c1")), msgpack.packb((1, 2))])
def test_a_head_that_says_nothing_is_not_used(head: bytes) -> None:
    disk = sim_disk()
    snapshots = SnapshotStore(disk)

    class Strange:
        file_name = snapshot(10).file_name

        def pack(self) -> bytes:
            return head

    writer = snapshots.writer(Strange())  # type: ignore[arg-type]
    with pytest.raises(DamagedSnapshot):
        writer.finish()


def test_a_chunk_of_impossible_size_is_not_read() -> None:
    disk = sim_disk()
    snapshots = SnapshotStore(disk)
    made = build(snapshots, 10)
    name = snapshots.path(made.file_name)
    disk.open(name).write_at(20, (2**31).to_bytes(4, "little"))
    with pytest.raises(DamagedSnapshot, match="cannot have"):
        SnapshotReader(disk, name)


@pytest.mark.parametrize("size", [0, 10, 30, 200, 262_000, 524_500, 699_999])
def test_one_that_was_cut_short_is_not_used(size: int) -> None:
    disk = sim_disk()
    snapshots = SnapshotStore(disk)
    older, newer = build(snapshots, 10), build(snapshots, 20)
    disk.cut_short(snapshots.path(newer.file_name), size)
    snapshots = SnapshotStore(disk)
    assert snapshots.newest_sound() == older
    assert read(snapshots, older) == content(10)
    assert f"{newer.file_name}.damaged" in disk.list("snapshots")


def test_the_store_is_made_from_the_newest_sound_one_that_the_journal_continues() -> None:
    disk = sim_disk()
    snapshots = SnapshotStore(disk)
    assert snapshot_to_start_from(snapshots, 1, "join") is None
    with pytest.raises(DamagedSnapshot, match="learner: join"):
        snapshot_to_start_from(snapshots, 2, "join")
    build(snapshots, 10)
    newer = build(snapshots, 20)
    assert snapshot_to_start_from(snapshots, 21, "join") == newer
    disk.flip_bit(snapshots.path(newer.file_name), 300_000)
    found = snapshot_to_start_from(snapshots, 11, "join")
    assert found is not None and found.place == 10
    with pytest.raises(DamagedSnapshot, match="begins at entry 12"):
        snapshot_to_start_from(snapshots, 12, "join")


def test_files_that_say_something_else_than_their_name_are_set_aside(disk: Any) -> None:
    snapshots = SnapshotStore(disk)
    made = build(snapshots, 10)
    disk.rename(snapshots.path(made.file_name), snapshots.path(snapshot(11).file_name))
    assert SnapshotStore(disk).latest is None


@pytest.mark.parametrize("kind", ["enospc", "eio_write", "eio_sync", "eio_read"])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_one_that_fails_leaves_those_before(kind: str, after: int) -> None:
    disk = sim_disk()
    snapshots = SnapshotStore(disk)
    older = build(snapshots, 10)
    disk.fail(kind, after)
    try:
        build(snapshots, 20)
    except (NoSpace, DiskFailed):
        assert disk.counts[kind] == 1
        assert [kept.place for kept in snapshots.kept] == [10]
        if kind != "eio_sync":
            assert disk.list("snapshots") == [older.file_name]
            build(snapshots, 20)
    assert read(snapshots, older) == content(10)


def test_rule_35_power_may_go_out_anywhere_while_one_is_built() -> None:
    done = False
    operation = 0
    while not done:
        disk = sim_disk(operation)
        snapshots = SnapshotStore(disk)
        build(snapshots, 10, size=300_000)
        build(snapshots, 20, size=300_000)
        disk.cut_power_after(operation)
        try:
            build(snapshots, 30, size=300_000)
            done = True
        except PowerCut:
            pass
        disk.crash()
        snapshots = SnapshotStore(disk)
        places = [kept.place for kept in snapshots.kept]
        assert places in ([10, 20], [20, 30], [10, 20, 30]), places
        assert not done or 30 in places, "it was durable before build returned"
        for kept in snapshots.kept:
            assert read(snapshots, kept) == content(kept.place, 300_000)
        assert not [name for name in disk.list("snapshots") if name.endswith(".new")]
        operation += 1
    assert operation > 12

"""A new cluster from what one node of an old one has: nothing is lost, nobody votes again, the old folder stays."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import pytest

from django_keyspace.exceptions import ConfigurationError, DamagedJournal, NotSupported
from django_keyspace.node.disk import HostDisk
from django_keyspace.node.entries import logged_calls, pack_calls
from django_keyspace.node.folder import DataFolder
from django_keyspace.node.identity import Identity, addresses_of, member_info, read_identity
from django_keyspace.node.journal import Batch, Journal
from django_keyspace.node.machine import Machine
from django_keyspace.node.raft import (
    ADD,
    CHANGE,
    COMMANDS,
    NOOP,
    Change,
    Entry,
    HardState,
    Membership,
    bootstrap_snapshot,
    make_membership,
)
from django_keyspace.node.recovery import Findings, Recovery
from django_keyspace.node.snapshot import Snapshot
from django_keyspace.node.start import open_state
from django_keyspace.store import StoreOptions
from django_keyspace.store.folder import boot_id
from tests.node.replicas import incr, payload

VOTERS = ("n1.00000001", "n2.00000002", "n3.00000003")
MEMBERS = make_membership(VOTERS, info={one: member_info(one[:2], f"127.0.0.1:700{one[1]}") for one in VOTERS})
TERM, HARD_TERM = 3, 5
SEGMENT_BYTES = 8192
LOG_MS = 1_800_000_000_000


def entry(index: int) -> Entry:
    """Entry n adds n to the key ``n``; every tenth one has no operation, the twelfth adds a learner."""
    if index == 12:
        data = MEMBERS.after(Change(ADD, "n4.00000004", member_info("n4", "127.0.0.1:7004"))).to_bytes()
        return Entry(index, TERM, CHANGE, data)
    if index % 10 == 0:
        return Entry(index, TERM, NOOP, b"")
    return Entry(index, TERM, COMMANDS, pack_calls(LOG_MS + index, [incr(delta=index)]))


def total(last: int) -> int:
    return sum(index for index in range(1, last + 1) if index != 12 and index % 10)


def make_node(path: Path, *, last: int, commit: int, applied: int, compacted: int = 0) -> Path:
    """The folder of n1 after it has ended: a log up to ``last``, of which the store has what is ``applied``."""
    folder = DataFolder(str(path), "n1")
    folder.become(Identity("n1", "00000001", "c1", MEMBERS))
    machine = Machine.open(folder.disk, StoreOptions(), boot_id(), Random(1))
    journal, snapshots = open_state(folder.disk, machine, bootstrap_snapshot(MEMBERS), segment_bytes=SEGMENT_BYTES)
    folder.become(folder.identity.begun())
    journal.append([Batch(HardState(TERM, "n1.00000001", commit), [entry(index) for index in range(1, last + 1)])])
    journal.append([Batch(HardState(HARD_TERM, "n2.00000002", commit))])
    for index in range(1, applied + 1):
        machine.apply([logged_calls(entry(index))])
        if index == compacted:
            with machine.copy() as copy:
                made = Snapshot(index, TERM, membership_at(index), copy.log_ms, "c1")
                snapshots.build(made, copy)
            journal.note_snapshot(made.meta)
            journal.forget(index)
            journal.compact()
    journal.close()
    machine.close()
    folder.release()
    return path


def membership_at(index: int) -> Membership:
    return MEMBERS.after(Change(ADD, "n4.00000004", member_info("n4", "127.0.0.1:7004"))) if index >= 12 else MEMBERS


class Started:
    """A node's folder as a start finds it, with all of its log applied."""

    def __init__(self, path: Path) -> None:
        identity = read_identity(HostDisk(str(path)))
        assert identity is not None
        self.folder = DataFolder(str(path), identity.node)
        self.machine = Machine.open(self.folder.disk, StoreOptions(), boot_id(), Random(1))
        self.journal, self.snapshots = open_state(
            self.folder.disk, self.machine, identity.bootstrap, segment_bytes=SEGMENT_BYTES
        )
        self.applied_at_start = self.machine.applied_index
        last = self.journal.last_index()
        entries = self.journal.entries(self.applied_at_start + 1, last, 2**40) if last > self.applied_at_start else []
        self.kinds = {one.index: one.kind for one in entries}
        for one in entries:
            self.machine.apply([logged_calls(one)])
        record = self.machine.read(0, "get", 0, b"n")
        self.count = int(payload(record)) if record is not None else 0
        self.members = self.journal.snapshot().membership
        assert not self.journal.changes()

    def close(self) -> None:
        self.journal.close()
        self.machine.close()
        self.folder.release()


def recover(path: Path, to: Path) -> tuple[Findings, Identity]:
    with Recovery(str(path), segment_bytes=SEGMENT_BYTES) as recovery:
        return recovery.findings, recovery.make(str(to), "127.0.0.1:9000")


@pytest.mark.parametrize(
    ("last", "commit", "applied", "compacted"),
    [(25, 25, 25, 0), (25, 20, 17, 0), (25, 20, 0, 0), (25, 22, 20, 15), (9, 9, 9, 0)],
)
def test_everything_that_the_log_has_is_in_the_new_cluster(
    tmp_path: Path, last: int, commit: int, applied: int, compacted: int
) -> None:
    old = make_node(tmp_path / "old", last=last, commit=commit, applied=applied, compacted=compacted)
    findings, identity = recover(old, tmp_path / "new")
    assert (findings.last_index, findings.last_term, findings.commit, findings.applied) == (last, TERM, commit, applied)
    assert findings.log_ms == LOG_MS + last
    assert findings.membership == membership_at(last) and findings.address == "127.0.0.1:7001"
    assert [name for name, _, _ in findings.others] == (["n2", "n3", "n4"] if last >= 12 else ["n2", "n3"])
    started = Started(tmp_path / "new")
    try:
        assert started.count == total(last) and started.machine.applied_index == last
        assert started.journal.hard_state() == HardState(HARD_TERM, "", last)
        assert started.members == make_membership(
            [identity.member_id], info={identity.member_id: member_info("n1", "127.0.0.1:9000")}
        )
        assert CHANGE not in started.kinds.values()
    finally:
        started.close()


def test_the_new_member_is_nobody_who_ever_was(tmp_path: Path) -> None:
    old = make_node(tmp_path / "old", last=20, commit=20, applied=20)
    ids = set()
    for name in ("a", "b"):
        _, identity = recover(old, tmp_path / name)
        ids |= {identity.cluster, identity.member_id}
        assert identity.initialised and identity == read_identity(HostDisk(str(tmp_path / name)))
        assert addresses_of(identity.members) == {identity.member_id: "127.0.0.1:9000"}
    assert len(ids) == 4 and not ids & {"c1", *VOTERS}


def test_the_old_folder_stays_what_it_was(tmp_path: Path) -> None:
    old = make_node(tmp_path / "old", last=25, commit=20, applied=17)
    recover(old, tmp_path / "new")
    with Recovery(str(old)) as recovery:
        assert recovery.findings.applied == 17 and recovery.findings.last_index == 25
        assert recovery.findings.identity == Identity("n1", "00000001", "c1", MEMBERS, True)


def test_a_store_that_a_power_cut_has_spoilt_is_made_again_first(tmp_path: Path) -> None:
    old = make_node(tmp_path / "old", last=25, commit=25, applied=25, compacted=15)
    state = old / "store-1" / "keyspace.json"
    state.write_text(state.read_text().replace('"clean": true', '"clean": false').replace(boot_id(), "another boot"))
    findings, _ = recover(old, tmp_path / "new")
    assert findings.applied == 15
    started = Started(tmp_path / "new")
    assert started.count == total(25)
    started.close()


def test_what_cannot_be_recovered_from(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="There is no folder"):
        Recovery(str(tmp_path / "nowhere"))
    with pytest.raises(ConfigurationError, match="not the data folder"):
        Recovery(str(tmp_path))
    DataFolder(str(tmp_path / "alone"), "n1").release()
    with pytest.raises(NotSupported, match="start it as it is"):
        Recovery(str(tmp_path / "alone"))
    old = make_node(tmp_path / "old", last=5, commit=5, applied=5)
    serving = DataFolder(str(old), "n1")
    with pytest.raises(ConfigurationError, match="is in use by node n1"):
        Recovery(str(old))
    serving.release()
    shutil.rmtree(old / "journal")
    with pytest.raises(DamagedJournal, match="take the folder of another node"):
        Recovery(str(old))
    DataFolder(str(old), "n1").release()  # it was let go of


def test_nothing_is_written_over(tmp_path: Path) -> None:
    old = make_node(tmp_path / "old", last=5, commit=5, applied=5)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "somebody's").write_text("work")
    for to in (tmp_path / "new", old):
        with pytest.raises(ConfigurationError, match="is not empty"):
            recover(old, to)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["somebody's"]


def test_a_recovery_that_was_broken_off_leaves_a_folder_that_no_node_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = make_node(tmp_path / "old", last=25, commit=20, applied=17)
    append, calls = Journal.append, 0

    def breaks(self: Journal, batches: list[Batch]) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        append(self, batches)

    monkeypatch.setattr(Journal, "append", breaks)
    with pytest.raises(KeyboardInterrupt):
        recover(old, tmp_path / "new")
    monkeypatch.undo()
    assert read_identity(HostDisk(str(tmp_path / "new"))) is None
    with pytest.raises(Exception, match="nobody can tell whose promises these are"):
        DataFolder(str(tmp_path / "new"), "n1")
    recover(old, tmp_path / "again")


def test_large_logs_are_taken_over_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_keyspace.node.recovery.CHUNK_BYTES", 200)
    old = make_node(tmp_path / "old", last=60, commit=60, applied=5)
    recover(old, tmp_path / "new")
    started = Started(tmp_path / "new")
    assert started.count == total(60)
    started.close()

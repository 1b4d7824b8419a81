"""The journal in good times, on the simulated disk and on a real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from django_keyspace.node.disk import HostDisk
from django_keyspace.node.journal import Batch, Journal
from django_keyspace.node.journal.stored import StoredLog
from django_keyspace.node.raft.errors import BrokenInvariant
from django_keyspace.node.raft.membership import Membership
from django_keyspace.node.raft.messages import CHANGE, SnapshotMeta
from django_keyspace.node.raft.storage import HardState
from tests.journal.helpers import (
    BOOTSTRAP,
    EVERYTHING,
    MEMBERS,
    append,
    compact,
    entry,
    log_of,
    open_journal,
    pairs,
    segment_names,
    sim_disk,
)


@pytest.fixture(params=["simulated", "real"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return sim_disk() if request.param == "simulated" else HostDisk(str(tmp_path))


def reopen(disk: Any, journal: Journal, **options: Any) -> Journal:
    journal.abandon()
    return open_journal(disk, **{"bootstrap": None, **options})


def test_a_new_journal_begins_after_its_bootstrap(disk: Any) -> None:
    journal = open_journal(disk)
    assert journal.hard_state() == HardState(0, "", 0)
    assert (journal.first_index(), journal.last_index(), journal.term(0)) == (1, 0, 0)
    assert journal.snapshot() == BOOTSTRAP
    assert not journal.changes()
    journal = reopen(disk, journal)
    assert journal.snapshot() == BOOTSTRAP


def test_entries_and_hard_state_come_back(disk: Any) -> None:
    journal = open_journal(disk)
    append(journal, 1, 3, term=1)
    append(journal, 4, 100, term=3, commit=2, data=b"y" * 100)
    assert log_of(journal)[3] == entry(4, 3, b"y" * 100)
    before = log_of(journal), journal.hard_state()
    journal = reopen(disk, journal)
    assert (log_of(journal), journal.hard_state()) == before
    assert journal.hard_state() == HardState(3, "n2", 2)
    assert [journal.term(index) for index in (0, 3, 4, 103)] == [0, 1, 3, 3]


def test_an_entry_replaces_what_was_at_its_index_and_behind(disk: Any) -> None:
    journal = open_journal(disk)
    append(journal, 1, 10, term=1, commit=4)
    append(journal, 6, 2, term=2, commit=4)
    expected = [(i, 1) for i in range(1, 6)] + [(6, 2), (7, 2)]
    assert pairs(log_of(journal)) == expected
    assert pairs(log_of(reopen(disk, journal))) == expected


def test_batches_of_one_call_share_a_sync(disk: Any) -> None:
    journal = open_journal(disk)
    before = journal.syncs
    journal.append([Batch(HardState(1, "", 0), [entry(1)]), Batch(None, [entry(2)]), Batch(HardState(2, "n1", 2), [])])
    assert journal.syncs == before + 1
    assert (journal.last_index(), journal.hard_state()) == (2, HardState(2, "n1", 2))


def test_a_commit_index_waits_for_the_next_write(disk: Any) -> None:
    journal = open_journal(disk)
    append(journal, 1, 5)
    before = journal.syncs
    journal.append([Batch(HardState(1, "n2", 5))])
    assert (journal.syncs, journal.hard_state().commit) == (before, 5)
    journal = reopen(disk, journal)
    assert journal.hard_state().commit == 0, "nobody had promised more"
    journal.append([Batch(HardState(1, "n2", 5))])
    append(journal, 6, 1, commit=5)
    assert reopen(disk, journal).hard_state().commit == 5


def test_close_keeps_the_commit_index_and_says_so(disk: Any) -> None:
    journal = open_journal(disk)
    append(journal, 1, 5)
    journal.append([Batch(HardState(1, "n2", 4))])
    journal.close()
    journal = open_journal(disk, bootstrap=None)
    assert journal.closed_well
    assert journal.hard_state().commit == 4
    append(journal, 6, 1, commit=4)
    assert not reopen(disk, journal).closed_well


def test_reading_is_bounded_in_bytes_and_gives_one_entry_at_least(disk: Any) -> None:
    journal = open_journal(disk)
    append(journal, 1, 20, data=b"z" * 968)  # a thousand bytes each, as they count
    for opened in (journal, reopen(disk, journal)):  # from memory, and from the files
        assert len(opened.entries(1, 20, 5_000)) == 5
        assert len(opened.entries(1, 20, 5_999)) == 5
        assert len(opened.entries(7, 20, 1)) == 1
        assert len(opened.entries(1, 20, EVERYTHING)) == 20
        for low, high in ((0, 3), (1, 21), (4, 3)):
            with pytest.raises(BrokenInvariant):
                opened.entries(low, high, EVERYTHING)
        with pytest.raises(BrokenInvariant):
            opened.term(21)


def test_memory_holds_only_so_much(disk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = open_journal(disk)
    journal._log = StoredLog(journal._segments, journal._log.index, cache_bytes_max=5_000)
    append(journal, 1, 30, data=b"z" * 968)
    assert sorted(journal._log._cache) == [26, 27, 28, 29, 30]
    assert [e.index for e in log_of(journal)] == list(range(1, 31)), "the others come from the file"
    append(journal, 28, 1, term=2, data=b"z" * 968)
    assert sorted(journal._log._cache) == [26, 27, 28]


def test_files_follow_each_other_and_go_when_they_are_forgotten(disk: Any) -> None:
    journal = open_journal(disk)
    for first in range(1, 401, 10):
        append(journal, first, 10, commit=first - 1, data=b"d" * 50)
    assert len(segment_names(disk)) > 4
    journal.note_snapshot(SnapshotMeta(390, 1, MEMBERS))
    compact(journal, 380)
    assert (journal.first_index(), journal.last_index(), journal.term(380)) == (381, 400, 1)
    assert len(segment_names(disk)) <= 2
    compact(journal, 10)  # further back: nothing to do
    journal = reopen(disk, journal)
    assert (journal.first_index(), journal.last_index(), journal.term(380)) == (381, 400, 1)
    assert [e.index for e in log_of(journal)] == list(range(381, 401))
    append(journal, 401, 3, commit=400)
    assert reopen(disk, journal).last_index() == 403


def test_everything_may_be_forgotten(disk: Any) -> None:
    journal = open_journal(disk)
    append(journal, 1, 10, commit=0)
    journal.append([Batch(HardState(1, "n2", 10))])
    journal.note_snapshot(SnapshotMeta(10, 1, MEMBERS))
    compact(journal, 10)
    for opened in (journal, reopen(disk, journal)):
        assert (opened.first_index(), opened.last_index(), opened.term(10)) == (11, 10, 1)
        assert opened.snapshot().index == 10


def test_what_is_not_in_a_snapshot_is_kept(disk: Any) -> None:
    journal = open_journal(disk)
    append(journal, 1, 10, commit=0)
    append(journal, 11, 1, commit=10)
    for refused in (1, 10):
        with pytest.raises(BrokenInvariant, match="not in a snapshot"):
            compact(journal, refused)
    with pytest.raises(BrokenInvariant, match="does not fit"):
        journal.note_snapshot(SnapshotMeta(12, 1, MEMBERS))


def test_changes_of_the_membership_are_found_again(disk: Any) -> None:
    journal = open_journal(disk)
    two = Membership(("n1", "n2"))
    change = [entry(i, 1, two.to_bytes(), CHANGE) for i in (3, 6, 9)]
    journal.append([Batch(HardState(1, "", 0), [entry(1), entry(2), change[0], entry(4), entry(5), change[1]])])
    journal.append([Batch(HardState(1, "", 6), [entry(7), entry(8), change[2]])])
    assert list(journal.changes()) == change
    append(journal, 8, 1, commit=6)  # takes the last one back
    journal.note_snapshot(SnapshotMeta(4, 1, two))
    for opened in (journal, reopen(disk, journal)):
        assert list(opened.changes()) == change[1:2]
        assert opened.snapshot() == SnapshotMeta(4, 1, two)


@pytest.mark.parametrize(("index", "term", "kept"), [(8, 1, [9, 10]), (8, 2, []), (20, 2, []), (10, 1, [])])
def test_a_snapshot_from_elsewhere(disk: Any, index: int, term: int, kept: list[int]) -> None:
    journal = open_journal(disk)
    append(journal, 1, 10, term=1, commit=5)
    meta = SnapshotMeta(index, term, Membership(("n9",)))
    journal.restore(meta)
    for opened in (journal, reopen(disk, journal)):
        assert opened.snapshot() == meta
        assert opened.hard_state().commit == index
        assert opened.term(index) == term
        assert [e.index for e in log_of(opened) if e.index > index] == kept
        assert opened.last_index() == (kept[-1] if kept else index)
    if not kept and term == 2:
        assert opened.first_index() == index + 1
        append(opened, index + 1, 2, term=2, commit=index)
        assert [e.index for e in log_of(reopen(disk, opened))] == [index + 1, index + 2]


def test_an_older_snapshot_than_what_is_committed_is_refused(disk: Any) -> None:
    journal = open_journal(disk)
    append(journal, 1, 10)
    append(journal, 11, 1, commit=8)
    with pytest.raises(BrokenInvariant, match="over commit 8"):
        journal.restore(SnapshotMeta(7, 1, MEMBERS))


@pytest.mark.parametrize("size", [0, 1, 15, 16, 31, 32, 479, 480, 481, 512, 5_000, 100_000])
@pytest.mark.parametrize("fill", [b"\0", b"a", b"\xa5", b"\0" * 31 + b"\xa5"])
def test_every_size_and_filling_comes_back(disk: Any, size: int, fill: bytes) -> None:
    journal = open_journal(disk)
    data = (fill * (size + 1))[:size]
    append(journal, 1, 3, data=data)
    journal = reopen(disk, journal)
    assert [e.data for e in log_of(journal)] == [data] * 3


def test_rule_12_a_committed_entry_is_never_replaced(disk: Any) -> None:
    journal = open_journal(disk)
    append(journal, 1, 10)
    append(journal, 11, 1, commit=7)
    before = log_of(journal)
    with pytest.raises(BrokenInvariant, match="Entry 7 cannot be written"):
        append(journal, 7, 1, term=2, commit=7)
    with pytest.raises(BrokenInvariant):
        append(journal, 13, 1, commit=7)  # a gap
    assert log_of(journal) == before == log_of(reopen(disk, journal))


def test_rule_1_term_and_vote_are_never_taken_back(disk: Any) -> None:
    journal = open_journal(disk)
    journal.append([Batch(HardState(5, "n2", 0))])
    journal = reopen(disk, journal)
    assert journal.hard_state() == HardState(5, "n2", 0)
    for worse in (HardState(4, "n2", 0), HardState(5, "n1", 0), HardState(5, "", 0)):
        with pytest.raises(BrokenInvariant):
            journal.append([Batch(worse)])
    with pytest.raises(BrokenInvariant, match="term 6"):
        journal.append([Batch(None, [entry(1, 6)])])
    with pytest.raises(BrokenInvariant, match="cannot be committed"):
        journal.append([Batch(HardState(5, "n2", 1))])
    append(journal, 1, 2, term=5, commit=1)
    with pytest.raises(BrokenInvariant, match="falls"):
        journal.append([Batch(HardState(5, "n2", 0))])
    journal.append([Batch(HardState(6, "", 1)), Batch(HardState(6, "n3", 1))])
    assert reopen(disk, journal).hard_state() == HardState(6, "n3", 1)

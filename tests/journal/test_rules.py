"""The rules of durability, one by one: what a journal does with broken files, full disks and failing ones."""

from __future__ import annotations

import copy
from itertools import product

import pytest

from django_keyspace.exceptions import DamagedJournal, DiskFailed, NoSpace
from django_keyspace.node.disk import read_file
from django_keyspace.node.journal import Batch, Journal
from django_keyspace.node.journal.records import SECTOR_BYTES, SegmentHead, encode, header_at
from django_keyspace.node.raft.messages import SnapshotMeta
from django_keyspace.node.raft.storage import HardState
from tests.journal.helpers import MEMBERS, append, compact, log_of, open_journal, segment_names, sim_disk
from tests.sim.disk import SimDisk, sectors_of

FIRST = "journal/0000000001.segment"


def contents(disk: SimDisk) -> dict[str, bytes]:
    return {name: read_file(disk, name) for name in segment_names(disk)}


def reopen(disk: SimDisk) -> Journal:
    return open_journal(disk, bootstrap=None)


def refuses(disk: SimDisk) -> str:
    """The journal must not open, nothing is changed, and the command that helps is named. Returns: the sentence."""
    before = contents(disk)
    with pytest.raises(DamagedJournal, match=r"fresh learner: please --join") as caught:
        open_journal(disk, bootstrap=None, remedy="please --join")
    assert contents(disk) == before
    return str(caught.value)


def overwrite(disk: SimDisk, name: str, offset: int, data: bytes) -> None:
    file = disk.open(name)
    file.write_at(offset, data)
    file.sync()


def flipped(disk: SimDisk, name: str, offset: int) -> SimDisk:
    other = copy.deepcopy(disk)
    other.flip_bit(name, offset)
    return other


# ------------------------------------------------------------------------------------------------ rule 45


@pytest.mark.parametrize("fill", [b"y", b"\0", b"\xa5"])
def test_rule_45_every_way_in_which_a_batch_can_tear(fill: bytes) -> None:
    """A batch over five sectors: whichever of them are missing, it is cut as a whole, or is there as a whole."""
    disk = sim_disk()
    journal = open_journal(disk)
    append(journal, 1, 3, data=b"before")
    log, state, end = log_of(journal), journal.hard_state(), journal._end
    append(journal, 4, 4, term=2, commit=2, data=fill * 400)
    whole = contents(disk)[FIRST]
    sectors = sectors_of(end, whole[end : journal._end])
    assert len(sectors) == 5
    for kept in product([False, True], repeat=len(sectors)):
        torn = copy.deepcopy(disk)
        overwrite(torn, FIRST, end, bytes(journal._end - end))
        for is_kept, (offset, data) in zip(kept, sectors, strict=True):
            if is_kept:
                overwrite(torn, FIRST, offset, data)
        opened = reopen(torn)
        if all(kept):
            assert log_of(opened) == log_of(journal)
        else:
            assert (log_of(opened), opened.hard_state()) == (log, state)
            assert contents(torn)[FIRST][end:].strip(b"\0") == b"", "nothing of it is left that could be found later"
        append(opened, opened.last_index() + 1, 1, term=2, commit=2)
        expected = log_of(opened)
        torn.crash()
        assert log_of(reopen(torn)) == expected


def test_rule_45_a_changed_bit_anywhere_is_noticed_or_changes_nothing() -> None:
    """Also in the last batch, and in what a full file has behind its end."""
    disk = sim_disk()
    journal = open_journal(disk, segment_bytes=1536)
    for first in range(1, 16, 3):
        append(journal, first, 3, term=first, commit=first - 1, data=b"\0" * 60)
    log, state = log_of(journal), journal.hard_state()
    assert len(segment_names(disk)) == 3
    noticed = harmless = 0
    for name, content in contents(disk).items():
        for offset in range(0, len(content), 5):  # all places of a header, over several records
            other = flipped(disk, name, offset)
            try:
                opened = reopen(other)
            except DamagedJournal:
                noticed += 1
            else:
                assert (log_of(opened), opened.hard_state()) == (log, state)
                harmless += 1
    assert noticed > harmless > 0, "padding, and the room that is not used yet"


def test_rule_45_a_lost_sector_before_the_last_batch_is_damage() -> None:
    disk = sim_disk()
    journal = open_journal(disk)
    for first in range(1, 31, 3):
        append(journal, first, 3, data=b"d" * 100)
    last_batch = journal._end // SECTOR_BYTES * SECTOR_BYTES
    for offset in range(0, last_batch - SECTOR_BYTES, SECTOR_BYTES):
        other = copy.deepcopy(disk)
        overwrite(other, FIRST, offset, bytes(SECTOR_BYTES))
        sentence = refuses(other)
        assert FIRST in sentence
        if offset:
            assert "though a later batch" in sentence


def test_rule_45_what_was_written_before_a_clean_end_cannot_be_torn() -> None:
    """Without the record of the end, the loss of the last sectors would look like a torn tail."""
    disk = sim_disk()
    journal = open_journal(disk)
    append(journal, 1, 3)
    begin = journal._end
    append(journal, 4, 3, data=b"z" * 700)
    journal.close()
    overwrite(disk, FIRST, begin, bytes(3 * SECTOR_BYTES - begin % SECTOR_BYTES))
    assert "though a later batch" in refuses(disk)


def journal_of_three_files() -> SimDisk:
    disk = sim_disk()
    journal = open_journal(disk, segment_bytes=1536)
    for first in range(1, 16, 3):
        append(journal, first, 3, commit=first - 1, data=b"d" * 60)
    journal.append([Batch(HardState(1, "n2", 15))])
    journal.close()
    assert len(segment_names(disk)) == 3
    return disk


@pytest.mark.parametrize("number", [1, 2, 3])
def test_rule_45_a_missing_file_is_damage(number: int) -> None:
    disk = journal_of_three_files()
    disk.remove(f"journal/{number:010d}.segment")
    if number == 3:  # the newest: only what others know can tell
        with pytest.raises(DamagedJournal, match="entry 15 was applied"):
            reopen(disk).require_reaches(15)
    else:
        assert "missing" in refuses(disk)


@pytest.mark.parametrize("size", [0, 31, 100, 1000])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_rule_45_a_file_that_was_cut_short_is_damage(number: int, size: int) -> None:
    disk = journal_of_three_files()
    disk.cut_short(f"journal/{number:010d}.segment", size)
    assert f"{number:010d}" in refuses(disk)


def test_rule_45_a_file_in_the_place_of_another_is_damage() -> None:
    disk = journal_of_three_files()
    content = contents(disk)["journal/0000000002.segment"]
    overwrite(disk, "journal/0000000003.segment", 0, content)
    assert "segment 2 lies here" in refuses(disk)


def test_rule_45_the_end_of_an_earlier_file_cannot_be_torn() -> None:
    disk = journal_of_three_files()
    name = "journal/0000000002.segment"
    used = len(contents(disk)[name].rstrip(b"\0"))
    begin = (used - 1) // SECTOR_BYTES * SECTOR_BYTES
    overwrite(disk, name, begin, bytes(SECTOR_BYTES))
    assert "not whole" in refuses(disk) or "though a later" in refuses(disk) or "continue" in refuses(disk)


def test_rule_45_an_old_state_of_a_file_is_noticed() -> None:
    """A write that the disk has acknowledged and forgotten: the next file does not follow what is there."""
    disk = sim_disk()
    journal = open_journal(disk, segment_bytes=1024)
    states = []
    for first in range(1, 16, 3):
        if len(segment_names(disk)) == 1:
            states.append(contents(disk)[FIRST])
        append(journal, first, 3, commit=first - 1, data=b"d" * 60)
    journal.abandon()
    overwrite(disk, FIRST, 0, states[-2])
    assert "0000000002" in refuses(disk)


def test_rule_10_a_node_that_lost_its_journal_does_not_begin_as_if_it_were_new() -> None:
    disk = sim_disk()
    open_journal(disk).close()
    for name in segment_names(disk):
        disk.remove(name)
    assert "it is not there" in refuses(disk)


def test_rule_34_a_journal_of_a_newer_release_is_refused() -> None:
    """A record of another format or kind stops the start; it is not skipped."""
    from django_keyspace.node.journal import records

    disk = sim_disk()
    journal = open_journal(disk)
    journal._write([(99, b"")], 0, may_use_reserve=False)
    journal.abandon()
    assert "kind 99" in refuses(disk)
    disk = sim_disk()
    journal = open_journal(disk)
    records.FORMAT, was = 2, records.FORMAT
    try:
        append(journal, 1, 1)
    finally:
        records.FORMAT = was
    journal.abandon()
    assert "format 2" in refuses(disk)


def forge(journal: Journal, *written: tuple[int, bytes]) -> None:
    """Write records that the journal would not write."""
    journal._write(list(written), 0, may_use_reserve=False)
    journal.abandon()


@pytest.mark.parametrize(
    ("kind", "body", "sentence"),
    [
        (2, (0).to_bytes(8, "little"), "term falls"),
        (3, (1).to_bytes(8, "little"), "commit index falls"),
        (4, (9).to_bytes(8, "little") + (3).to_bytes(8, "little") + b"\1", "entry 9 follows entry 5"),
        (4, (2).to_bytes(8, "little") + (3).to_bytes(8, "little") + b"\1", "written again after it was committed"),
        (5, (2).to_bytes(8, "little") + (9).to_bytes(8, "little"), "forgotten with term 9"),
        (1, SegmentHead(1, 3, 0, 0, 0, 1, "", b"").pack(), "does not continue"),
    ],
)
def test_rule_52_what_contradicts_itself_is_damage(kind: int, body: bytes, sentence: str) -> None:
    disk = sim_disk()
    journal = open_journal(disk)
    append(journal, 1, 5, term=3, commit=0)
    append(journal, 6, 0, term=3, commit=2)
    journal.close()
    journal = reopen(disk)
    forge(journal, (kind, body))
    assert sentence in refuses(disk)


def write_raw(disk: SimDisk, journal: Journal, batch: int, previous: int, cut: bool) -> None:
    """Write a commit record with a batch number or a chain of one's own choice, perhaps up to the end of the file."""
    data = encode([(3, bytes(8))] * 2, 1, batch, previous).data
    overwrite(disk, FIRST, journal._end, data[: len(data) // 2] if cut else data)
    journal.abandon()


def test_rule_44_records_are_chained_and_batches_counted() -> None:
    for wrong_batch, wrong_previous, sentence in ((2, 0, "a batch is missing"), (0, 1, "does not follow")):
        disk = sim_disk()
        journal = open_journal(disk)
        append(journal, 1, 3)
        write_raw(disk, journal, journal._batch + 1 + wrong_batch, journal._previous ^ wrong_previous, cut=False)
        assert sentence in refuses(disk)


def test_rule_45_a_file_cannot_end_within_a_batch() -> None:
    disk = sim_disk()
    journal = open_journal(disk)
    append(journal, 1, 3)
    write_raw(disk, journal, journal._batch + 1, journal._previous, cut=True)
    end = len(contents(disk)[FIRST].rstrip(b"\0"))
    disk.cut_short(FIRST, -(-end // 32) * 32)
    assert "ends within a batch" in refuses(disk)


def test_rule_52_committed_entries_must_be_there() -> None:
    disk = sim_disk()
    journal = open_journal(disk)
    append(journal, 1, 3)
    journal._commit = 9
    journal.note_snapshot(SnapshotMeta(3, 1, MEMBERS))
    journal.abandon()
    assert "entries up to 9 were committed, and the last one here is 3" in refuses(disk)


# ------------------------------------------------------------------------------------------------ rules 42 to 44, 46


@pytest.mark.parametrize("kind", ["eio_write", "eio_sync"])
def test_rule_42_after_a_failed_write_or_sync_the_journal_takes_no_call(kind: str) -> None:
    disk = sim_disk()
    journal = open_journal(disk)
    append(journal, 1, 3)
    disk.fail(kind)
    with pytest.raises(DiskFailed):
        append(journal, 4, 3)
    assert journal.last_index() == 3
    meta = SnapshotMeta(0, 0, MEMBERS)
    for call in (
        lambda: append(journal, 4, 3),
        lambda: journal.append([Batch(HardState(9, "", 0))]),
        journal.compact,
        lambda: journal.note_snapshot(meta),
        lambda: journal.restore(meta),
    ):
        with pytest.raises(DiskFailed, match="takes no further calls"):
            call()
    journal.close()
    assert [e.index for e in log_of(reopen(disk))][:3] == [1, 2, 3]


def test_rule_42_what_a_failed_sync_left_in_the_page_cache_is_written_again() -> None:
    """The system says that the pages are clean, a new process reads them, and a power cut would take them away."""
    for seed in range(30):
        disk = sim_disk(seed)
        journal = open_journal(disk)
        disk.fail("eio_sync")
        with pytest.raises(DiskFailed):
            append(journal, 1, 3, data=b"z" * 700)
        disk.kill()
        seen = log_of(reopen(disk))
        assert [e.index for e in seen] == [1, 2, 3]
        disk.crash()
        assert log_of(reopen(disk)) == seen


def test_rule_42_a_start_that_cannot_make_it_durable_fails() -> None:
    disk = sim_disk()
    append(open_journal(disk), 1, 3)
    disk.kill()
    disk.fail("eio_sync", 2)
    with pytest.raises(DiskFailed):
        reopen(disk)


def fill(journal: Journal, disk: SimDisk) -> None:
    """Append until the disk is full."""
    disk.capacity_bytes = disk.used_bytes
    with pytest.raises(NoSpace, match="goes on by itself"):
        while True:
            append(journal, journal.last_index() + 1, 10, data=b"d" * 50)


def test_rule_43_a_full_disk_refuses_entries_and_still_takes_votes() -> None:
    disk = sim_disk()
    journal = open_journal(disk)
    fill(journal, disk)
    last = journal.last_index()
    for term in range(2, 8):
        journal.append([Batch(HardState(term, "n2", 0))])
    journal.append([Batch(None, [log_of(journal)[-1]._replace(index=last + 1)], may_use_reserve=True)])
    assert journal.last_index() == last + 1
    with pytest.raises(NoSpace):
        append(journal, last + 2, 1, term=7)
    disk.kill()
    journal = reopen(disk)
    assert (journal.last_index(), journal.hard_state().term) == (last + 1, 7)
    with pytest.raises(NoSpace):
        append(journal, last + 2, 1, term=7)
    disk.capacity_bytes *= 2
    append(journal, last + 2, 20, term=7, data=b"d" * 50)
    assert reopen(disk).last_index() == last + 21


def test_rule_43_room_is_made_by_forgetting() -> None:
    disk = sim_disk()
    journal = open_journal(disk)
    for first in range(1, 200, 10):
        append(journal, first, 10, data=b"d" * 50)
    fill(journal, disk)
    journal.append([Batch(HardState(1, "n2", journal.last_index()))])
    journal.note_snapshot(SnapshotMeta(150, 1, MEMBERS))
    compact(journal, 150)
    append(journal, journal.last_index() + 1, 10, commit=journal.hard_state().commit, data=b"d" * 50)


def test_rule_43_the_reserve_ends() -> None:
    disk = sim_disk()
    journal = open_journal(disk)
    fill(journal, disk)
    with pytest.raises(NoSpace):
        for term in range(2, 1000):
            journal.append([Batch(HardState(term, "n2", 0))])
    journal.close()
    journal = reopen(disk)
    assert not journal.closed_well
    assert journal.hard_state().term == term - 1


def test_rule_43_a_refused_write_leaves_nothing_that_could_be_taken_for_a_batch() -> None:
    for seed in range(30):
        disk = sim_disk(seed)
        journal = open_journal(disk)
        append(journal, 1, 3)
        disk.fail("enospc")
        with pytest.raises(NoSpace):
            append(journal, 4, 5, data=b"z" * 900)
        disk.fail("enospc")
        with pytest.raises(NoSpace):
            append(journal, 4, 1)
        append(journal, 4, 1, data=b"short")
        expected = log_of(journal)
        disk.kill()
        assert log_of(reopen(disk)) == expected


def test_rule_44_an_entry_that_has_changed_since_is_not_handed_out() -> None:
    disk = sim_disk()
    journal = open_journal(disk)
    append(journal, 1, 3, data=b"d" * 100)
    journal = reopen(disk)
    place = journal._log.index.place(2)
    disk.flip_bit(FIRST, place.offset + 80)
    assert journal.entries(1, 1, 0)
    with pytest.raises(DamagedJournal, match="Entry 2"):
        journal.entries(2, 2, 0)
    with pytest.raises(DiskFailed):
        append(journal, 4, 1)
    assert "journal" in refuses(disk)


def test_rule_44_a_record_in_the_place_of_another_is_not_handed_out() -> None:
    disk = sim_disk()
    journal = open_journal(disk)
    append(journal, 1, 3, data=b"d" * 100)
    append(journal, 3, 1, term=2, data=b"d" * 100)
    journal = reopen(disk)
    content = contents(disk)[FIRST]
    one, three = journal._log.index.place(1).offset, journal._log.index.place(3).offset
    overwrite(disk, FIRST, three, content[one : one + 160])
    with pytest.raises(DamagedJournal, match="another entry"):
        journal.entries(3, 3, 0)
    journal = Journal.__new__(Journal)
    state = next(at for at in range(0, len(content), 32) if (header_at(content, at) or (0,) * 9)[3] == 2)
    disk = sim_disk()
    journal = open_journal(disk)
    append(journal, 1, 1, data=b"")
    journal = reopen(disk)
    overwrite(disk, FIRST, journal._log.index.place(1).offset, content[state : state + 64])
    with pytest.raises(DamagedJournal, match="another kind"):
        journal.entries(1, 1, 0)


def test_rule_46_a_new_file_is_durable_before_anything_is_written_to_it() -> None:
    for seed in range(20):
        disk = sim_disk(seed)
        journal = open_journal(disk, segment_bytes=1024)
        for first in range(1, 40, 3):
            append(journal, first, 3, data=b"d" * 60)
        disk.crash()
        assert reopen(disk).last_index() == 39


def test_files_that_a_power_cut_has_brought_back_are_removed() -> None:
    disk = journal_of_three_files()
    kept = contents(disk)
    journal = reopen(disk)
    journal.note_snapshot(SnapshotMeta(15, 1, MEMBERS))
    compact(journal, 14)
    journal.close()
    assert segment_names(disk)[0] != FIRST
    for name in (FIRST, "journal/0000000009.segment.new"):
        disk.create(name).write_at(0, kept[FIRST])
    if "journal/0000000002.segment" in segment_names(disk):
        disk.remove("journal/0000000002.segment")
    journal = reopen(disk)
    assert (journal.first_index(), journal.last_index()) == (15, 15)
    assert FIRST not in segment_names(disk)
    assert not [name for name in segment_names(disk) if name.endswith(".new")]


def test_a_batch_larger_than_a_file_gets_a_file_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = sim_disk()
    journal = open_journal(disk, segment_bytes=1024)
    append(journal, 1, 2, data=b"d" * 50_000)
    append(journal, 3, 2, data=b"d")
    assert [len(e.data) for e in log_of(reopen(disk))] == [50_000, 50_000, 1, 1]
    monkeypatch.setattr("django_keyspace.node.journal.journal.BATCH_BYTES_MAX", 10_000)
    with pytest.raises(Exception, match="too large for the journal") as caught:
        append(journal, 5, 1, data=b"d" * 50_000)
    assert type(caught.value).__name__ == "BrokenInvariant"

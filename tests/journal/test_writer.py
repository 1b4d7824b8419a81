"""The disk thread: groups, order, trouble, and that nobody waits for it who only reads."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from django_keyspace.exceptions import DiskFailed, KeyspaceError, NoSpace
from django_keyspace.node.journal import Batch, Journal, JournalWriter
from django_keyspace.node.raft.messages import SnapshotMeta
from django_keyspace.node.raft.storage import HardState
from tests.journal.helpers import MEMBERS, batch, compact, entry, log_of, open_journal, sim_disk
from tests.sim.disk import SimFile
from tests.store.helpers import await_condition


class Desk:
    """A journal with its thread, and the answers in their order."""

    def __init__(self) -> None:
        self.disk = sim_disk()
        self.journal = open_journal(self.disk)
        self.given_up: list[KeyspaceError] = []
        self.writer = JournalWriter(self.journal, self.given_up.append)
        self.answers: list[tuple[Any, KeyspaceError | None]] = []

    def submit(self, name: Any, a_batch: Batch) -> None:
        self.writer.submit(a_batch, lambda error: self.answers.append((name, error)))

    def call(self, name: Any, work: Any) -> None:
        self.writer.call(work, lambda error: self.answers.append((name, error)))

    def wait(self, count: int) -> list[tuple[Any, KeyspaceError | None]]:
        await_condition(lambda: len(self.answers) >= count, 30)
        return self.answers


@pytest.fixture
def desk() -> Any:
    desk = Desk()
    yield desk
    desk.writer.stop()


def batch_after_vote(data: bytes) -> Batch:
    return Batch(HardState(5, "n3", 0), [entry(index, 5, data) for index in range(1, 21)])


class Gate:
    """Holds syncs of the simulated disk until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        sync = SimFile.sync

        def held(file: SimFile) -> None:
            self.reached.set()
            assert self.opened.wait(60)
            sync(file)

        monkeypatch.setattr(SimFile, "sync", held)


def test_what_comes_together_shares_a_sync(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    before = desk.journal.syncs
    desk.submit(1, batch(1, 1))
    assert gate.reached.wait(60)
    for index in range(2, 102):
        desk.submit(index, batch(index, 1))
    gate.opened.set()
    assert desk.wait(101) == [(index, None) for index in range(1, 102)]
    assert desk.journal.syncs == before + 2
    assert desk.journal.last_index() == 101


def test_rule_47_reading_does_not_wait_for_a_hanging_disk(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """And whoever leads can see that it hangs."""
    desk.submit(1, batch(1, 3))
    desk.wait(1)
    await_condition(lambda: desk.writer.busy_since_s is None, 30)
    gate = Gate(monkeypatch)
    desk.submit(2, batch(4, 3))
    assert gate.reached.wait(60)
    assert len(log_of(desk.journal)) == 3, "what is not durable is not shown"
    assert desk.journal.term(3) == 1
    assert desk.writer.busy_since_s is not None
    gate.opened.set()
    desk.wait(2)
    assert desk.journal.last_index() == 6


def test_groups_are_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_keyspace.node.journal.writer.GROUP_BATCHES_MAX", 10)
    gate = Gate(monkeypatch)
    desk.submit(0, Batch(HardState(1, "", 0)))
    assert gate.reached.wait(60)
    before = desk.journal.syncs
    for index in range(1, 31):
        desk.submit(index, batch(index, 1))
    gate.opened.set()
    desk.wait(31)
    assert desk.journal.syncs - before == 4


def test_other_work_is_done_in_its_turn(desk: Desk) -> None:
    desk.submit("entries", batch(1, 10))
    desk.submit("commit", Batch(HardState(1, "n2", 9)))
    desk.call("snapshot", lambda: desk.journal.note_snapshot(SnapshotMeta(9, 1, MEMBERS)))
    desk.call("compact", lambda: compact(desk.journal, 5))
    desk.submit("more", batch(11, 1, commit=9))
    assert desk.wait(5) == [(name, None) for name in ("entries", "commit", "snapshot", "compact", "more")]
    assert (desk.journal.first_index(), desk.journal.last_index()) == (6, 11)


def test_rule_43_a_vote_among_refused_entries_finds_room(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.disk.capacity_bytes = desk.disk.used_bytes
    gate = Gate(monkeypatch)
    desk.submit("first", Batch(HardState(1, "n2", 0)))
    assert gate.reached.wait(60)
    desk.submit("entries", batch(1, 20, data=b"z" * 1_000))
    desk.submit("vote", Batch(HardState(5, "n3", 20)))  # the majority has committed what has no room here
    desk.submit("behind", Batch(None, [entry(21)]))
    gate.opened.set()
    answers = dict(desk.wait(4))
    assert isinstance(answers["entries"], NoSpace) and isinstance(answers["behind"], NoSpace)
    assert answers["first"] is answers["vote"] is None
    assert desk.journal.hard_state() == HardState(5, "n3", 0)
    desk.submit("alone", batch_after_vote(data=b"z" * 1_000))
    desk.call("work", lambda: desk.journal._make_room(10**6, may_use_reserve=False))
    answers = dict(desk.wait(6))
    assert isinstance(answers["alone"], NoSpace) and isinstance(answers["work"], NoSpace)
    desk.disk.capacity_bytes *= 10
    desk.submit("later", batch_after_vote(data=b"z" * 1_000))
    assert desk.wait(7)[-1] == ("later", None)
    assert not desk.given_up


def test_rule_42_a_failed_sync_ends_it_for_everybody(desk: Desk) -> None:
    desk.disk.fail("eio_sync")
    desk.submit(1, batch(1, 1))
    desk.wait(1)
    desk.submit(2, batch(1, 1))
    desk.call(3, lambda: None)
    answers = dict(desk.wait(3))
    assert all(isinstance(error, DiskFailed) for error in answers.values())
    assert len(desk.given_up) == 1, "said once"


def test_rule_42_a_disk_that_fails_while_batches_are_tried_one_by_one(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    desk.submit(0, Batch(HardState(1, "n2", 0)))
    assert gate.reached.wait(60)
    desk.disk.fail("enospc")
    desk.disk.fail("eio_write", 2)
    for index in (1, 2, 3):
        desk.submit(index, batch(index, 1))
    gate.opened.set()
    answers = dict(desk.wait(4))
    assert [type(answers[index]) for index in (1, 2, 3)] == [type(None), DiskFailed, DiskFailed] or len(
        desk.given_up
    ) == 1
    assert len(desk.given_up) == 1


@pytest.mark.parametrize("how", ["batch", "work", "work that fails the disk"])
def test_rule_52_what_must_not_be_written_ends_it(desk: Desk, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "batch":
        desk.submit(1, batch(7, 1))  # a gap
    elif how == "work":
        desk.call(1, lambda: 1 // 0)
    else:
        monkeypatch.setattr(Journal, "compact", lambda journal: (_ for _ in ()).throw(DiskFailed("gone")))
        desk.call(1, desk.journal.compact)
    ((_, error),) = desk.wait(1)
    assert isinstance(error, DiskFailed)
    await_condition(lambda: len(desk.given_up) == 1, 30)


def test_it_may_be_left_alone_with_an_error() -> None:
    disk = sim_disk()
    writer = JournalWriter(open_journal(disk))
    disk.fail("eio_sync")
    errors: list[Any] = []
    writer.submit(batch(1, 1), errors.append)
    writer.stop()
    assert isinstance(errors[0], DiskFailed)


def test_stop_waits_for_what_was_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    gate = Gate(monkeypatch)
    for index in range(1, 6):
        desk.submit(index, batch(index, 1))
    assert gate.reached.wait(60)
    stopper = threading.Thread(target=desk.writer.stop)
    stopper.start()
    gate.opened.set()
    stopper.join()
    assert [error for _, error in desk.answers] == [None] * 5
    desk.journal.close()

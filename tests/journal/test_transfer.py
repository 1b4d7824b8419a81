"""A snapshot on its way to a peer: over links that lose, double and reorder, and to a disk that is full."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from django_keyspace.exceptions import DiskFailed
from django_keyspace.node.snapshot import SnapshotStore
from django_keyspace.node.transfer import (
    DONE,
    MORE,
    REFUSED,
    SnapshotAck,
    SnapshotBegin,
    SnapshotChunk,
    SnapshotReceiver,
    SnapshotSender,
)
from tests.journal.helpers import sim_disk
from tests.journal.test_snapshots import build, content, read

CHUNK = 10_000


class Pair:
    """A leader with a snapshot of index 20, and a follower."""

    def __init__(self, **options: Any) -> None:
        self.leader = SnapshotStore(sim_disk(1))
        build(self.leader, 10, size=100_000)
        self.snapshot = build(self.leader, 20, size=100_000)
        self.disk = sim_disk(2, **options)
        self.follower = SnapshotStore(self.disk)
        self.receiver = SnapshotReceiver(self.follower, "c1")
        self.sender = self.new_sender(1)

    def new_sender(self, transfer: int, **options: Any) -> SnapshotSender:
        return SnapshotSender(
            self.leader, self.snapshot, transfer, **{"chunk_bytes": CHUNK, "window_bytes": 3 * CHUNK, **options}
        )

    def run(self, sender: SnapshotSender, applied_index: int = 0) -> None:
        """Carry everything over at once, until there is nothing to send."""
        while messages := sender.messages():
            for message in messages:
                ack = self.receiver.step(message, applied_index)
                if ack is not None:
                    sender.step(ack)


def test_it_arrives_whole() -> None:
    pair = Pair()
    pair.run(pair.sender)
    assert pair.sender.state == DONE
    assert pair.snapshot == pair.follower.latest
    assert read(SnapshotStore(pair.disk), pair.snapshot) == content(20, 100_000)


def test_a_later_snapshot_that_is_kept_stands_for_an_earlier_one() -> None:
    """It came for an earlier leader, and was not installed: the next one's is older, and would not be kept."""
    pair = Pair()
    later = build(pair.follower, 30, size=50_000)
    pair.run(pair.sender)
    assert (pair.sender.state, pair.follower.latest) == (DONE, later)


def test_a_later_snapshot_that_is_damaged_does_not() -> None:
    pair = Pair()
    later = build(pair.follower, 30, size=50_000)
    pair.disk.flip_bit(pair.follower.path(later.file_name), 40_000)
    pair.run(pair.sender)
    assert (pair.sender.state, pair.follower.latest) == (DONE, pair.snapshot)


def test_no_more_than_the_window_is_under_way() -> None:
    pair = Pair()
    begin, *chunks = pair.sender.messages()
    assert isinstance(begin, SnapshotBegin)
    assert [chunk.offset for chunk in chunks] == [0, CHUNK, 2 * CHUNK]
    assert pair.sender.messages() == []
    pair.sender.step(SnapshotAck(1, CHUNK, MORE))
    assert [chunk.offset for chunk in pair.sender.messages()] == [3 * CHUNK]
    pair.sender.step(SnapshotAck(2, 3 * CHUNK, MORE))  # of another transfer
    pair.sender.step(SnapshotAck(1, CHUNK, MORE))  # says nothing new
    pair.sender.step(SnapshotAck(1, 10**9, MORE))  # beyond the file
    assert pair.sender.messages() == []


@pytest.mark.parametrize("seed", range(20))
def test_rule_50_over_a_link_that_loses_doubles_and_reorders(seed: int) -> None:
    pair = Pair()
    random = Random(seed)
    there: list[SnapshotBegin | SnapshotChunk] = []
    back: list[SnapshotAck] = []
    sender = pair.new_sender(1, retries_max=1_000)
    for _ in range(5_000):
        if sender.state != MORE:
            break
        messages = sender.messages()
        if not (messages or there or back):
            sender.retry()
        for message in messages:
            there += [message] * random.choice([0, 1, 1, 1, 2])
        for link in (there, back):
            random.shuffle(link)
        if there:
            message = there.pop()
            if isinstance(message, SnapshotChunk) and random.random() < 0.1:
                message = message._replace(data=bytes(len(message.data)))
            ack = pair.receiver.step(message, 0)
            back += [ack] * random.choice([0, 1, 1, 2]) if ack else []
        if back:
            sender.step(back.pop())
    assert sender.state == DONE
    assert read(pair.follower, pair.snapshot) == content(20, 100_000)


def test_rule_36_one_that_is_older_than_what_was_applied_is_refused() -> None:
    pair = Pair()
    pair.run(pair.sender, applied_index=20)
    assert (pair.sender.state, pair.follower.latest) == (REFUSED, None)
    assert "applied 20" in pair.sender.reason
    again = pair.new_sender(2)
    pair.run(again, applied_index=19)
    assert again.state == DONE


def test_rule_36_a_slow_peer_does_not_keep_the_leader_from_dropping_it() -> None:
    pair = Pair()
    first = pair.sender.messages()
    for place in (30, 40):
        build(pair.leader, place, size=1_000)
    assert pair.snapshot not in pair.leader.kept
    for message in first:
        pair.sender.step(pair.receiver.step(message, 0))
    pair.run(pair.sender)
    assert pair.sender.state == DONE
    assert read(pair.follower, pair.snapshot) == content(20, 100_000)


def test_rule_51_one_of_another_cluster_is_refused() -> None:
    pair = Pair()
    pair.receiver = SnapshotReceiver(pair.follower, "c2")
    pair.run(pair.sender)
    assert pair.sender.state == REFUSED
    assert "'c1'" in pair.sender.reason


def test_rule_3_a_transfer_that_was_on_its_way_for_long_does_not_disturb_a_newer_one() -> None:
    pair = Pair()
    old = pair.new_sender(1).messages()
    newer = pair.new_sender(2)
    for message in newer.messages():
        newer.step(pair.receiver.step(message, 0))
    for message in old:
        assert pair.receiver.step(message, 0) is None
    pair.run(newer)
    assert newer.state == DONE
    assert pair.receiver.step(old[0], 0) is None


def test_a_newer_transfer_takes_the_place_of_one_that_stopped() -> None:
    pair = Pair()
    for message in pair.sender.messages():
        pair.receiver.step(message, 0)
    newer = pair.new_sender(2)
    pair.run(newer)
    assert newer.state == DONE


def test_an_answer_that_was_lost_is_given_again() -> None:
    pair = Pair()
    pair.run(pair.sender)
    last = SnapshotChunk(1, 0, b"x", 0)
    assert pair.receiver.step(last, 0) == SnapshotAck(1, pair.sender._size, DONE)


def test_rule_43_a_full_disk_refuses_and_is_left_clean() -> None:
    pair = Pair(capacity_bytes=50_000)
    pair.run(pair.sender)
    assert pair.sender.state == REFUSED
    assert "room" in pair.sender.reason
    assert pair.disk.used_bytes == 0
    pair.disk.capacity_bytes = 10**6
    pair.disk.fail("enospc", 4)
    again = pair.new_sender(2)
    pair.run(again)
    assert again.state == REFUSED
    assert pair.disk.used_bytes == 0, "nothing of it stays"
    last = pair.new_sender(3)
    pair.run(last)
    assert last.state == DONE


def test_rule_42_a_failed_sync_is_for_the_process_to_end() -> None:
    pair = Pair()
    pair.disk.fail("eio_sync")
    with pytest.raises(DiskFailed):
        pair.run(pair.sender)


@pytest.mark.parametrize("change", [{"place": 21}, {"term": 2}, {"size_bytes": 99_000}, {"size_bytes": 0}])
def test_rule_44_one_that_is_not_what_was_announced_is_refused(change: dict[str, int]) -> None:
    pair = Pair()
    begin = pair.sender.messages()[0]._replace(**change)
    ack = pair.receiver.step(begin, 0)
    assert ack is not None
    offset = 0
    file = pair.leader.open_file(pair.snapshot)
    while ack.state == MORE:
        data = file.read_at(offset, min(CHUNK, begin.size_bytes - offset))
        ack = pair.receiver.step(SnapshotChunk(1, offset, data, __import__("zlib").crc32(data)), 0)
        offset += len(data)
    assert ack.state == REFUSED
    assert pair.follower.latest is None
    assert pair.disk.used_bytes == 0


def test_chunks_that_nobody_asked_for_are_ignored() -> None:
    pair = Pair()
    assert pair.receiver.step(SnapshotChunk(7, 0, b"x", 0), 0) is None
    pair.receiver.cancel()


def test_rule_27_attempts_without_progress_end() -> None:
    pair = Pair()
    sender = pair.new_sender(1, retries_max=3)
    for _ in range(3):
        sender.retry()
        assert isinstance(sender.messages()[0], SnapshotBegin)
    sender.retry()
    assert (sender.state, sender.messages()) == (REFUSED, [])
    other = pair.new_sender(2)
    other.cancel()
    other.cancel()
    other.step(SnapshotAck(2, 0, DONE))
    assert other.state == REFUSED

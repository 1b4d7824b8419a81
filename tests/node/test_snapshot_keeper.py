"""A node's snapshots while it runs: made, compacted behind, sent to those who are far behind, and installed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import pytest

from django_keyspace.exceptions import DiskFailed, KeyspaceError, NoSpace, StorageError, TooStale
from django_keyspace.node import snapshot_keeper
from django_keyspace.node.raft import (
    ADD,
    PROMOTE,
    BadMessage,
    Change,
    Refused,
    SnapshotMeta,
    SnapshotRequest,
    from_wire,
)
from django_keyspace.node.snapshot_keeper import ACK, BEGIN, CHUNK
from django_keyspace.node.transfer import SnapshotSender
from tests.node.replicas import ELECTION_MS, Cluster, Node, incr, once, put, session_of

Make = Callable[..., Cluster]
SMALL = {"snapshot_entries": 20, "tail_entries": 5, "transfer_retry_ms": 500}


@pytest.fixture
def small(make_cluster: Make, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Three nodes that make snapshots often and send them in many chunks."""
    sender = partial(SnapshotSender, chunk_bytes=8_192, window_bytes=32_768)
    monkeypatch.setattr(snapshot_keeper, "SnapshotSender", sender)
    monkeypatch.setattr(sender, "retry", SnapshotSender.retry, raising=False)
    cluster = make_cluster(segment_bytes=8_192, **SMALL)
    cluster.start()
    return cluster


def write_many(node: Node, count: int, size_bytes: int = 200) -> None:
    for number in range(count):
        node.write(put(b"k%d" % (number % 7), bytes(size_bytes)), incr())


def places(node: Node) -> tuple[int, ...]:
    return node.runtime.status().snapshots


def leave_behind(cluster: Cluster, node: Node) -> Node:
    """Have a follower miss so much that the leader's log does not have it any more. Returns: the leader."""
    leader = cluster.leader()
    assert node is not leader
    cluster.cut(node.name)
    last = node.runtime.raft.status().last_index if node.is_up else 0
    while leader.runtime.parts.journal.first_index() <= last + 1:
        write_many(leader, 10)
        cluster.run(600)
    return leader


def has_snapshots(cluster: Cluster, node: Node, count: int = 1) -> None:
    cluster.until(lambda: len(places(node)) >= count)


def sent(node: Node, kind: str) -> list[Any]:
    return [frame for _, frame in node.sent if frame[0] == kind]


# --- Making and compacting --------------------------------------------------------------------------------------------


def test_rule_38_snapshots_are_made_noted_and_the_log_begins_later_but_for_a_tail(small: Cluster) -> None:
    leader = small.leader()
    journal = leader.runtime.parts.journal
    write_many(leader, 25)
    has_snapshots(small, leader)
    small.until(lambda: journal.snapshot().index == places(leader)[-1])
    assert journal.first_index() == 1, "two are kept, and the log since the older one"
    for _ in range(4):
        write_many(leader, 25)
        small.run(1_500)
    assert len(places(leader)) == 2
    small.until(lambda: journal.first_index() > 20)
    assert journal.first_index() - 1 <= min(places(leader))
    assert journal.first_index() - 1 <= leader.runtime.applied_index - SMALL["tail_entries"]
    small.settle()
    assert all(places(node) for node in small), "every node makes its own"


def test_nothing_is_made_or_compacted_while_a_snapshot_is_installed(small: Cluster) -> None:
    leader = small.leader()
    write_many(leader, 12)
    keeper, before = leader.runtime._keeper, places(leader)
    keeper.is_installing = True
    keeper.make()
    keeper._compact()
    small.run(1_000)
    assert places(leader) == before
    keeper.is_installing = False
    keeper.make()
    has_snapshots(small, leader, len(before) + 1)


def test_a_snapshot_that_the_journal_has_no_room_to_note_is_noted_with_the_next(
    small: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    leader = small.leader()
    journal = leader.runtime.parts.journal
    with monkeypatch.context() as full:

        def refuse(meta: SnapshotMeta) -> None:
            raise NoSpace("no room at all")

        full.setattr(journal, "note_snapshot", refuse)
        write_many(leader, 25)
        has_snapshots(small, leader)
        small.until(lambda: "no room at all" in caplog.text)
    assert leader.is_up and journal.snapshot().index == 0
    write_many(leader, 30)
    small.until(lambda: journal.snapshot().index > 0)


def test_a_snapshot_behind_the_beginning_of_the_log_is_not_noted(
    small: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader's snapshot has taken the place of the whole log while this one was being made."""
    leader = small.leader()
    write_many(leader, 5)
    journal, noted = leader.runtime.parts.journal, []
    monkeypatch.setattr(journal, "note_snapshot", noted.append)
    monkeypatch.setattr(journal, "first_index", lambda: 10**6)
    place = leader.machine.applied_index
    leader.runtime._keeper._made(snapshot_keeper.Snapshot(place, 1, leader.runtime.raft.membership), None)
    small.run(100)
    assert noted == []


def test_transfers_that_are_over_are_over(small: Cluster) -> None:
    leader = small.leader()
    keeper = leader.runtime._keeper
    keeper._end("nobody", arrived=True)
    request = SnapshotRequest("n9.1", leader.id, 1, SnapshotMeta(1, 1, leader.runtime.raft.membership))
    keeper._next(snapshot_keeper._Sending(request, 1), SnapshotSender.retry)
    small.run(100)
    assert leader.is_up and sent(leader, BEGIN) == []


def test_rule_38_the_tail_spares_a_brief_outage_a_snapshot(make_cluster: Make) -> None:
    cluster = make_cluster(segment_bytes=8_192, **{**SMALL, "tail_entries": 200})
    leader = cluster.start()
    follower = cluster.followers()[0]
    for _ in range(3):
        write_many(leader, 25)
        cluster.run(1_000)
    cluster.settle()
    cluster.cut(follower.name)
    write_many(leader, 60)
    cluster.run(2_000)
    cluster.cut()
    cluster.settle()
    assert not sent(leader, BEGIN)


def test_a_snapshot_is_made_after_so_many_bytes(make_cluster: Make) -> None:
    cluster = make_cluster(snapshot_bytes=50_000)
    leader = cluster.start()
    write_many(leader, 5, 9_000)
    cluster.run(1_500)
    assert places(leader) == ()
    write_many(leader, 6, 9_000)
    has_snapshots(cluster, leader)
    cluster.run(3_000)
    assert len(places(leader)) == 1, "not again without more"


@pytest.mark.parametrize("error", [NoSpace("no room"), StorageError("The copy was given up.")])
def test_a_snapshot_that_cannot_be_made_is_tried_again(
    small: Cluster, monkeypatch: pytest.MonkeyPatch, error: KeyspaceError
) -> None:
    leader = small.leader()
    with monkeypatch.context() as trouble:

        def build(snapshot: Any, pieces: Any) -> None:
            raise error

        trouble.setattr(leader.runtime.parts.snapshots, "build", build)
        write_many(leader, 25)
        small.run(3_000)
        assert places(leader) == () and leader.is_up
    write_many(leader, 25)
    has_snapshots(small, leader)


def test_a_copy_that_cannot_begin_is_tried_again(small: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    leader = small.leader()

    class Busy:
        def __enter__(self) -> None:
            raise StorageError("The store needs its quiet.")

    with monkeypatch.context() as trouble:
        trouble.setattr(leader.machine, "copy", Busy)
        write_many(leader, 25)
        small.run(3_000)
        assert places(leader) == () and leader.is_up
    has_snapshots(small, leader)


def test_rule_42_a_disk_that_fails_under_a_snapshot_ends_the_node(
    small: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = small.leader()

    def build(snapshot: Any, pieces: Any) -> None:
        raise DiskFailed("The disk would not.")

    monkeypatch.setattr(leader.runtime.parts.snapshots, "build", build)
    write_many(leader, 40)
    small.until(lambda: not leader.is_up)
    assert "would not" in leader.reason
    leader.start()
    small.settle()


# --- Sending and installing -------------------------------------------------------------------------------------------


def test_rule_37_a_follower_that_is_far_behind_gets_data_place_members_sessions_and_log_clock(small: Cluster) -> None:
    leader, follower = small.leader(), small.followers()[0]
    session = session_of(leader.runtime.log_time_ms())
    leader.write(once(session, 1, incr(b"once")))
    small.settle()
    leave_behind(small, follower)
    small.cut()
    small.settle()
    assert sent(leader, BEGIN) and len(sent(leader, CHUNK)) >= 1 and sent(follower, ACK)
    write_many(leader, 3)
    small.settle()
    assert follower.runtime.raft.membership == leader.runtime.raft.membership
    assert follower.machine.log_ms == leader.machine.log_ms
    follower = small.elect(follower)
    assert follower.write(once(session, 1, incr(b"once"), again=True)) == [1]


def test_rule_35_while_a_snapshot_is_installed_nothing_is_read(small: Cluster) -> None:
    leader, follower = small.leader(), small.followers()[0]
    leave_behind(small, follower)
    follower.thread_us["applier"] = 2_000_000
    waits = follower.ask("session", 10**6)
    small.cut()
    small.until(lambda: follower.runtime._persistence.is_installing)
    for level in ("dirty", "session", "safe"):
        (refused,) = follower.ask(level)
        assert isinstance(refused, TooStale) and "catching up" in str(refused)
    assert waits and isinstance(waits[0], TooStale)
    write_many(leader, 5)
    small.settle()
    assert follower.ask("dirty")[0].index == leader.runtime.applied_index


def test_rule_36_a_transfer_whose_chunks_get_lost_ends_well(small: Cluster) -> None:
    leader, follower = small.leader(), small.followers()[0]
    leave_behind(small, follower)
    chance, lost = Random(1), [0]

    def lossy(sender: str, to: str, frame: tuple[Any, ...]) -> bool:
        loses = frame[0] in (BEGIN, CHUNK, ACK) and chance.random() < 0.4
        lost[0] += loses
        return loses

    small.drops = lossy
    small.until(lambda: follower.runtime.applied_index == leader.runtime.applied_index)
    small.settle()
    assert lost[0] > 0


def test_rule_36_a_receiver_that_is_gone_stops_nobody_and_gets_it_later(small: Cluster) -> None:
    leader, follower = small.leader(), small.followers()[0]
    leave_behind(small, follower)
    small.drops = lambda sender, to, frame: frame[0] == CHUNK
    small.until(lambda: bool(sent(leader, BEGIN)))
    follower.end()
    first = leader.runtime.parts.journal.first_index()
    for _ in range(4):
        write_many(leader, 25)
        small.run(2 * ELECTION_MS)
    assert leader.runtime.parts.journal.first_index() > first, "the log goes on being compacted"
    small.cut()
    follower.start()
    small.settle()


def test_a_transfer_ends_with_the_leadership_that_began_it(small: Cluster) -> None:
    leader, follower = small.leader(), small.followers()[0]
    leave_behind(small, follower)
    small.drops = lambda sender, to, frame: frame[0] == CHUNK
    small.until(lambda: bool(sent(leader, BEGIN)))
    other = next(node for node in small if node not in (leader, follower))
    told: list[Any] = []
    leader.runtime.transfer(other.id, told.append)
    small.until(lambda: other.leads)
    assert not leader.runtime._keeper._sendings
    small.cut()
    small.settle()


def test_a_new_member_joins_as_a_learner_by_a_snapshot_and_is_promoted(small: Cluster) -> None:
    """Rule 40, with everything that belongs to it."""
    leader = small.leader()
    for _ in range(4):
        write_many(leader, 25)
        small.run(1_000)
    assert leader.runtime.parts.journal.first_index() > 1
    new = small.add("n4")
    new.start()
    small.run(2 * ELECTION_MS)
    assert new.runtime.applied_index == 0
    small.change(Change(ADD, new.id, '{"name": "n4", "address": "n4:1"}'))
    small.settle()
    assert sent(leader, BEGIN)
    small.change(Change(PROMOTE, new.id))
    small.settle()
    found = new.runtime.members()
    assert {node["name"] for node in found["nodes"]} == {"n1", "n2", "n3", "n4"}
    assert small.elect(new).write(incr(b"fresh")) == [1]


def test_rule_35_power_may_go_out_at_any_step_of_installing(make_cluster: Make) -> None:
    """On the disk of journal and snapshots, and in the folder of stores."""
    cluster = make_cluster(segment_bytes=8_192, **SMALL)
    leader = cluster.start()
    follower = cluster.followers()[0]
    for step in range(0, 60, 3):
        leave_behind(cluster, follower)
        begun = len(sent(leader, BEGIN))
        cluster.cut()
        if step % 2:
            cluster.until(lambda: len(sent(leader, BEGIN)) > begun)  # noqa: B023
            follower.store_disk.cut_after = step // 6
        else:
            cluster.until(lambda: len(sent(leader, BEGIN)) > begun)  # noqa: B023
            follower.disk.cut_power_after(step)
        cluster.until(lambda: not follower.is_up or follower.runtime.applied_index == leader.runtime.applied_index)
        follower.store_disk.cut_after = None
        follower.disk.calm()
        if not follower.is_up:
            follower.start()
        cluster.settle()


@pytest.mark.parametrize("after", range(0, 12, 2))
def test_rule_43_a_disk_without_room_for_a_snapshot_waits_for_it(small: Cluster, after: int) -> None:
    leader, follower = small.leader(), small.followers()[0]
    leave_behind(small, follower)
    follower.disk.fail("enospc", after=after)
    small.cut()
    small.until(lambda: follower.is_up and follower.runtime.applied_index == leader.runtime.applied_index)
    assert follower.lives == 1, "it did not end"
    small.settle()


@pytest.mark.parametrize("creations", range(5))
def test_rule_43_without_room_for_the_store_an_installation_is_given_up_until_there_is(
    small: Cluster, creations: int
) -> None:
    """The data, the readers' table, the lock, the state, and last the pointer: whichever finds no room, the old store counts."""
    leader, follower = small.leader(), small.followers()[0]
    leader.write(put(b"old", b"kept"))
    small.settle()
    leave_behind(small, follower)
    before = follower.machine.applied_index
    follower.store_disk.fill(creations)
    small.cut()
    small.until(lambda: follower.runtime.is_full)
    small.run(3 * ELECTION_MS)
    assert follower.is_up and follower.lives == 1 and follower.runtime.status().is_full
    assert follower.machine.applied_index == before
    small.until(lambda: not follower.runtime._persistence.is_installing)
    assert follower.get(b"old", "dirty") == b"kept", "it goes on with what it has"
    small.until(lambda: follower.store_disk.list() == ["generation.json", follower.machine.folder])
    follower.store_disk.creations_left = None
    small.until(lambda: follower.runtime.applied_index == leader.runtime.applied_index)
    small.until(lambda: not follower.runtime.status().is_full)
    assert follower.lives == 1, "it did not end"
    small.settle()


@pytest.mark.parametrize("restores_at_once", [True, False])
def test_rule_43_a_batch_without_room_while_a_store_takes_its_place_ends_nothing(
    small: Cluster, monkeypatch: pytest.MonkeyPatch, restores_at_once: bool
) -> None:
    """What was refused was on its way to the disk before the snapshot. The core begins again from store and journal, both new."""
    leader, follower = small.leader(), small.followers()[0]
    leave_behind(small, follower)
    install, full = follower.machine.install, NoSpace("simulated: no room")
    restores: list[SnapshotMeta] = []

    def install_and_refuse(snapshots: Any, snapshot: Any) -> None:
        install(snapshots, snapshot)
        follower.runtime.no_room(full)

    def refuse_once(meta: SnapshotMeta) -> None:
        restores.append(meta)
        if len(restores) == 1 and not restores_at_once:
            raise full
        restore(meta)

    journal = follower.runtime.parts.journal
    restore = journal.restore
    with monkeypatch.context() as trouble:
        trouble.setattr(follower.machine, "install", install_and_refuse)
        trouble.setattr(journal, "restore", refuse_once)
        small.cut()
        small.until(lambda: bool(restores) or not follower.is_up)
        small.until(lambda: journal.first_index() - 1 == follower.machine.applied_index or not follower.is_up)
    small.until(lambda: follower.is_up and follower.runtime.applied_index == leader.runtime.applied_index)
    assert follower.lives == 1, follower.reason
    small.until(lambda: not follower.runtime.status().is_full)
    small.settle()


def test_a_leader_does_not_send_a_refused_snapshot_again_at_once(small: Cluster) -> None:
    leader, follower = small.leader(), small.followers()[0]
    leave_behind(small, follower)
    follower.disk.capacity_bytes = follower.disk.used_bytes
    small.cut()
    small.until(lambda: follower.runtime.status().is_full)
    began_ms, before = small.now_ms, len(sent(leader, BEGIN))
    small.run(10 * ELECTION_MS)
    assert follower.runtime.status().is_full and not follower.runtime.is_full, "it takes what finds room"
    assert 0 < len(sent(leader, BEGIN)) - before <= (small.now_ms - began_ms) / SMALL["transfer_retry_ms"] + 1
    follower.disk.capacity_bytes = 2**40
    small.until(lambda: follower.runtime.applied_index == leader.runtime.applied_index)
    assert follower.lives == 1 and not follower.runtime.status().is_full
    small.settle()


def test_a_store_that_cannot_be_replaced_ends_the_node(small: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    follower = small.followers()[0]
    leave_behind(small, follower)

    def install(snapshots: Any, snapshot: Any) -> None:
        raise DiskFailed("The disk would not.")

    with monkeypatch.context() as trouble:
        trouble.setattr(follower.machine, "install", install)
        small.cut()
        small.until(lambda: not follower.is_up)
    assert "would not" in follower.reason
    follower.start()
    small.settle()


@pytest.mark.parametrize("where", ["sender", "receiver"])
def test_rule_42_a_disk_that_fails_under_a_transfer_ends_the_node(
    small: Cluster, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    leader, follower = small.leader(), small.followers()[0]
    leave_behind(small, follower)

    def broken(*arguments: Any) -> Any:
        raise DiskFailed("The disk would not.")

    broken_one = leader if where == "sender" else follower
    with monkeypatch.context() as trouble:
        if where == "sender":
            trouble.setattr(snapshot_keeper, "SnapshotSender", broken)
        else:
            trouble.setattr(follower.runtime._keeper._receiver, "step", broken)
        small.cut()
        small.until(lambda: not broken_one.is_up)
    assert "would not" in broken_one.reason
    broken_one.start()
    small.settle()


def test_what_cannot_be_sent_or_made_is_said_to_the_core(small: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    leader, follower = small.leader(), small.followers()[0]
    keeper, term = leader.runtime._keeper, leader.runtime.raft.term
    told: list[Any] = []
    monkeypatch.setattr(leader.runtime, "report_snapshot", lambda peer, arrived: told.append((peer, arrived)))
    request = SnapshotRequest(follower.id, leader.id, term, SnapshotMeta(5, term, leader.runtime.raft.membership))
    keeper.send(request)
    assert told == [(follower.id, False)], "there is no snapshot yet"

    def newer(index: int) -> Any:
        raise Refused("The core has taken a newer snapshot.")

    with monkeypatch.context() as trouble:
        trouble.setattr(leader.runtime, "membership_at", newer)
        write_many(leader, 40)
        small.run(2_000)
        assert places(leader) == ()
    has_snapshots(small, leader)
    keeper.send(request)
    keeper.send(request)
    assert len(keeper._sendings) == 1
    first = keeper._sendings[follower.id]
    keeper.send(request._replace(term=term + 1))
    assert keeper._sendings[follower.id] is not first, "that of another term takes its place"
    keeper.stop_sending()
    keeper.stop_sending()
    small.run(1_000)
    assert not keeper._sendings


# --- Frames -----------------------------------------------------------------------------------------------------------


def frames_of(cluster: Cluster, leader: Node, follower: Node) -> dict[str, Any]:
    """One frame of each kind of a transfer."""
    leave_behind(cluster, follower)
    cluster.cut()
    cluster.settle()
    return {BEGIN: sent(leader, BEGIN)[0], CHUNK: sent(leader, CHUNK)[0], ACK: sent(follower, ACK)[0]}


def test_rule_51_frames_that_make_no_sense_are_refused(small: Cluster) -> None:
    leader, follower = small.leader(), small.followers()[0]
    other = next(node for node in small if node not in (leader, follower))
    frames = frames_of(small, leader, follower)
    begin = frames[BEGIN]
    request = from_wire(begin[1])
    assert isinstance(request, SnapshotRequest)
    bad: list[Any] = [
        (BEGIN,),
        (BEGIN, begin[1]),
        (BEGIN, frames[CHUNK][1:], *begin[2:]),
        (*begin[:3], begin[3] + 1, *begin[4:]),
        (CHUNK, 1, 2, "text", 3),
        (CHUNK, 1, 2, b"", True),
        (ACK, 1, 2, 3, 4),
        (ACK,),
    ]
    for frame in bad:
        with pytest.raises(BadMessage):
            follower.runtime.receive(leader.id, [frame])
    with pytest.raises(BadMessage, match="without its request"):
        follower.runtime.receive(other.id, [begin])
    with pytest.raises(BadMessage, match="without the snapshot"):
        follower.runtime.receive(leader.id, [("raft", *begin[1])])
    for frame in frames.values():  # late ones, of a transfer that is over
        follower.runtime.receive(leader.id, [frame])
        leader.runtime.receive(follower.id, [frames[ACK]])
    small.run(ELECTION_MS)
    small.settle()
    assert follower.is_up and leader.is_up

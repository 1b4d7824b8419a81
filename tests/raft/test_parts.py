"""The parts of the core by themselves: majorities, memberships, the log against a simple model, settings, small calls."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_keyspace.node.raft import (
    ADD,
    PROMOTE,
    REMOVE,
    AppendRequest,
    AppendResponse,
    BrokenInvariant,
    Change,
    ChangeRefused,
    Config,
    Entry,
    Heartbeat,
    HeartbeatResponse,
    InvalidConfig,
    Refused,
    SnapshotMeta,
    SnapshotRequest,
    VoteResponse,
    make_membership,
)
from django_keyspace.node.raft.log import Log
from django_keyspace.node.raft.membership import History
from django_keyspace.node.raft.quorum import Outcome, majority, outcome, reached_by_majority

from .bench import Bench
from .storage import MemoryStorage

STEADY = settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

# --- Majorities -------------------------------------------------------------------------------------------------------


@STEADY
@given(values=st.lists(st.integers(0, 9), max_size=7))
def test_what_a_majority_reached(values: list[int]) -> None:
    reached = reached_by_majority(values)
    if not values:
        assert reached == 0
        return
    assert sum(value >= reached for value in values) >= majority(len(values))
    assert sum(value > reached for value in values) < majority(len(values))


def test_any_two_majorities_meet_also_one_change_apart() -> None:
    for size in range(1, 6):
        members = range(size + 1)
        for one in itertools.combinations(members[:size], majority(size)):
            for other in itertools.combinations(members, majority(size + 1)):
                assert set(one) & set(other)


@pytest.mark.parametrize(
    ("voters", "votes", "expected"),
    [
        ("abc", {}, Outcome.PENDING),
        ("abc", {"a": True, "x": True, "y": True}, Outcome.PENDING),
        ("abc", {"a": True, "b": True}, Outcome.WON),
        ("abc", {"a": False, "b": False}, Outcome.LOST),
        ("abcd", {"a": True, "b": True, "c": False}, Outcome.PENDING),
        ("abcd", {"a": False, "b": False}, Outcome.LOST),
        ("", {"a": True}, Outcome.LOST),
    ],
)
def test_votes_are_counted(voters: str, votes: dict[str, bool], expected: Outcome) -> None:
    assert outcome(voters, votes) is expected


# --- Memberships ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        Change(ADD, "n1"),
        Change(ADD, ""),
        Change(ADD, "n" * 201),
        Change(ADD, "n4", "x" * 4097),
        Change(PROMOTE, "n1"),
        Change(PROMOTE, "n9"),
        Change(REMOVE, "n9"),
        Change("rename", "n1"),
    ],
)
def test_senseless_changes_are_refused(change: Change) -> None:
    with pytest.raises(ChangeRefused, match="Nothing was changed"):
        make_membership(["n1", "n2"], ["n3"]).after(change)


def test_changes_one_after_the_other() -> None:
    membership = make_membership(["n2", "n1"]).after(Change(ADD, "n3", "at home"))
    assert (membership.voters, membership.learners, dict(membership.info)) == (("n1", "n2"), ("n3",), {"n3": "at home"})
    membership = membership.after(Change(PROMOTE, "n3")).after(Change(REMOVE, "n1")).after(Change(REMOVE, "n3"))
    assert (membership.members, membership.retired, membership.info) == (("n2",), ("n1", "n3"), ())


def test_history_follows_the_log() -> None:
    first, second, third = (make_membership(names) for names in (["a"], ["a", "b"], ["a", "b", "c"]))
    history = History(5, first)
    assert (history.latest, history.previous, history.latest_index) == (first, first, 5)
    history.append(7, second)
    history.append(9, third)
    assert [history.at(index) for index in (5, 6, 7, 8, 9, 99)] == [first, first, second, second, third, third]
    assert history.previous == second
    history.truncate_from(8)
    assert history.latest == second
    history.compact(6)
    assert history.at(6) == first
    history.compact(7)
    with pytest.raises(Refused):
        history.at(6)
    history.truncate_from(1)
    assert history.latest == second
    with pytest.raises(BrokenInvariant):
        history.append(7, third)


# --- The log against a model ------------------------------------------------------------------------------------------


@STEADY
@given(seed=st.integers(0, 2**32))
def test_log_is_like_a_list(seed: int) -> None:
    """Appends, truncations, late writes and compaction in any order; every question is answered as a list would."""
    luck = random.Random(seed)
    storage = MemoryStorage(make_membership(["n1"]))
    log = Log(storage, 0, 0)
    model: list[Entry] = []
    written: list[tuple[int, tuple[Entry, ...]]] = []
    number = term = 0
    for _ in range(60):
        action = luck.randrange(6)
        if action <= 1:
            term += luck.randrange(2)
            entry = Entry(len(model) + 1, max(term, 1), 1, bytes(luck.randrange(40)))
            log.append(entry)
            model.append(entry)
        elif action == 2 and len(model) > log.commit:
            index = luck.randrange(log.commit + 1, len(model) + 1)
            log.truncate_from(index)
            del model[index - 1 :]
        elif action == 3:
            number += 1
            written.append((number, log.take_writes(number, None)))
        elif action == 4 and written:
            done, entries = written.pop(0)
            if entries:
                del storage.log[entries[0].index - storage.base_index - 1 :]
                storage.log.extend(entries)
            log.persisted(done)
        elif action == 5 and log.stable > log.commit and luck.random() < 0.5:
            log.commit_to(luck.randrange(log.commit, log.stable) + 1)
            for entry in log.take_committed(200):
                assert entry == model[entry.index - 1]
                log.applied_to(entry.index)
            if luck.random() < 0.5 and log.applied > storage.base_index:
                membership = make_membership(["n1"])
                storage.compact(SnapshotMeta(log.applied, model[log.applied - 1].term, membership), luck.randrange(3))
        assert log.last_index == len(model)
        assert log.stable <= len(model)
        assert [log.term(entry.index) for entry in model[log.first_index - 1 :]] == [
            entry.term for entry in model[log.first_index - 1 :]
        ]
        if log.first_index <= len(model):
            low = luck.randrange(log.first_index, len(model) + 1)
            room, count = luck.randrange(1, 200), luck.randrange(1, 8)
            found = log.entries(low, room, count)
            assert list(found) == model[low - 1 : low - 1 + len(found)]
            assert 1 <= len(found) <= count
            assert len(found) == 1 or sum(entry.size_bytes for entry in found) <= room
            following = model[low - 1 + len(found) : low + len(found)]
            if following and len(found) < count:
                stored = low <= log.stable < following[0].index
                assert stored or sum(entry.size_bytes for entry in (*found, *following)) > room
    assert log.term(len(model) + 1) is None
    assert log.entries(len(model) + 1, 100, 10) == ()


def test_log_refuses_what_cannot_be() -> None:
    storage = MemoryStorage(make_membership(["n1"]))
    storage.log = [Entry(index, 1, 1, b"") for index in (1, 2, 3)]
    log = Log(storage, 1, 0)
    for broken in (
        lambda: log.append(Entry(9, 1, 1, b"")),
        lambda: log.restore(SnapshotMeta(1, 1, make_membership(["n1"]))),
        lambda: log.applied_to(1),
        lambda: log.commit_to(4),
    ):
        with pytest.raises(BrokenInvariant):
            broken()
    assert log.commit_to(1) is False
    assert log.commit_to(3) is True
    storage.entries = lambda low, high, bytes_max: []  # type: ignore[method-assign]
    with pytest.raises(BrokenInvariant, match="did not give"):
        log.entries(1, 100, 10)


# --- Small calls ------------------------------------------------------------------------------------------------------


def test_settings_are_checked() -> None:
    for name in ("append_bytes_max", "reads_max", "heartbeat_ticks"):
        with pytest.raises(InvalidConfig, match=name):
            Config(**{name: 0})
    assert Config().lease_ticks == 0
    assert Config(lease_drift_max=0.2, election_ticks=20).lease_ticks == 15


def test_log_time_travels_with_votes_and_heartbeats() -> None:
    """A new leader knows the latest of its majority; followers know the leader's."""
    bench = Bench(pre_vote=False)
    bench.raft.raise_log_time(500)
    bench.raft.raise_log_time(400)
    bench.tick(20)
    bench.work()
    bench.raft.step(VoteResponse("n1", "n2", 1, True, 900))
    assert bench.raft.log_time_ms == 900
    bench.tick()
    assert {message.log_time_ms for message in bench.of(Heartbeat)} == {900}
    bench.raft.step(HeartbeatResponse("n1", "n2", 1, 1, 950))
    assert bench.raft.log_time_ms == 950
    bench = Bench(term=1)
    bench.raft.step(Heartbeat("n1", "n2", 1, 0, 1, 700, 0))
    assert [message.log_time_ms for message in bench.of(HeartbeatResponse)] == [700]


def test_a_broken_connection_is_probed_again() -> None:
    bench = Bench()
    bench.lead_settled()
    bench.raft.propose(b"a")
    bench.work()
    bench.raft.report_unreachable("n2")
    bench.raft.report_unreachable("n9")
    bench.raft.report_snapshot("n9", arrived=True)
    assert bench.raft.status().peers["n2"].flow == "probe"
    sent = [message for message in bench.of(AppendRequest) if message.to == "n2"]
    assert [[entry.data for entry in message.entries] for message in sent] == [[b"a"]]
    bench.accept("n2")
    assert bench.raft.status().peers["n2"].flow == "replicate"


def test_a_lost_append_shows_at_the_next_heartbeat() -> None:
    bench = Bench(inflight_messages_max=1)
    bench.lead_settled()
    bench.raft.propose(b"a")
    bench.work()  # Lost, and the window is full.
    bench.tick()
    bench.work()
    bench.beat("n2")
    check = [message for message in bench.of(AppendRequest) if message.to == "n2"]
    assert [(message.prev_index, message.entries) for message in check] == [(2, ())]
    bench.raft.step(AppendResponse("n1", "n2", 1, False, 2, 1, 1))
    sent = [message for message in bench.of(AppendRequest) if message.to == "n2"]
    assert [[entry.data for entry in message.entries] for message in sent] == [[b"a"]]


def test_late_and_doubled_answers_are_harmless() -> None:
    bench = Bench()
    bench.lead_settled()
    for number in range(3):
        bench.raft.propose(b"%d" % number)
    bench.work()
    bench.accept("n2", index=4)
    bench.accept("n2", index=2)
    assert bench.raft.status().peers["n2"].match == 4
    bench.raft.step(AppendResponse("n1", "n2", 1, False, 3, 1, 1))
    assert bench.raft.status().peers["n2"] == bench.raft.status().peers["n2"]._replace(flow="replicate", match=4)
    bench.raft.step(AppendResponse("n1", "n9", 1, True, 4, 0, 0))
    bench.raft.step(HeartbeatResponse("n1", "n9", 1, 1, 0))


def test_a_slow_disk_does_not_gather_answers() -> None:
    """A leader asks again and again; what waits for the disk is one answer of each kind."""
    bench = Bench(term=1)
    bench.append((0, 0), [1])
    bench.take()
    for _ in range(100):
        bench.append((0, 0), [1])
        bench.append((1, 1), [])
        bench.take()
    assert len(bench.raft._state.held) == 1
    bench.write()
    assert [message.index for message in bench.of(AppendResponse)] == [1]
    bench.heartbeat(term=2)
    for number in range(100):
        bench.heartbeat(number=number + 1)
        bench.append((5, 2), [])
        bench.take()
    assert len(bench.raft._state.held) == 2
    bench.write()
    messages = bench.take()
    assert [message.round for message in bench.of(HeartbeatResponse, messages)] == [100]
    assert [message.accepted for message in bench.of(AppendResponse, messages)] == [False]


def test_only_what_had_to_be_written_is_reported() -> None:
    bench = Bench(term=1)
    bench.append((0, 0), [1])
    ready = bench.raft.ready()
    assert ready is not None
    assert ready.must_sync
    bench.heartbeat(commit=1)
    later = bench.raft.ready()
    assert later is not None
    assert not later.must_sync
    # It would stand for the first one, which is still being written.
    with pytest.raises(BrokenInvariant, match="nothing in it"):
        bench.raft.persisted(later.number)


def test_advance_is_for_drivers_that_do_one_after_the_other() -> None:
    bench = Bench(voters=["n1"])
    for _ in range(3):
        bench.tick()
        while (ready := bench.raft.ready()) is not None:
            bench.storage.write(ready)
            bench.raft.advance(ready)
    bench.raft.propose(b"a")
    while (ready := bench.raft.ready()) is not None:
        bench.storage.write(ready)
        bench.raft.advance(ready)
    assert bench.raft.status().applied == 2
    assert bench.raft.describe() == "n1 leader term=1 vote=n1 leader=n1 applied=2 commit=2 stable=2 last=2"


def test_a_newer_snapshot_replaces_one_that_is_being_installed() -> None:
    bench = Bench(term=1)
    members = make_membership(["n1", "n2", "n3"])
    for index in (5, 9):
        bench.raft.step(SnapshotRequest("n1", "n2", 1, SnapshotMeta(index, 1, members)))
        bench.take()
    bench.append((9, 1), [1, 1], commit=11)
    assert bench.of(AppendResponse, bench.take()) == []
    bench.tick(50)  # It does not campaign meanwhile.
    assert bench.raft.term == 1
    with pytest.raises(Refused):
        bench.raft.membership_at(5)
    first = bench.unwritten.pop(0)
    bench.storage.write(first)
    bench.raft.persisted(first.number)
    assert bench.raft.status().stable == 0
    assert max(message.index for message in bench.of(AppendResponse)) == 11
    assert [entry.index for entry in bench.committed] == [10, 11]
    assert bench.raft.status().applied == 9


def test_refused_elections() -> None:
    """A candidate that cannot win follows again, and waits."""
    bench = Bench(voters=["n1", "n2", "n3", "n4"], pre_vote=False)
    bench.tick(20)
    bench.work()
    for voter in ("n2", "n3"):
        bench.raft.step(VoteResponse("n1", voter, 1, False, 0))
    assert bench.raft.role.value == "follower"
    bench.tick(20)
    bench.raft.set_may_lead(False)
    assert bench.raft.role.value == "follower"
    bench.raft.set_may_lead(True)
    bench.tick(30)
    bench.raft._state.may_lead = False
    bench.tick(30)
    assert bench.raft.role.value == "follower"


# --- When to look again -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_a_core_that_has_nothing_to_do_is_not_asked_in_vain(seed: int) -> None:
    """Without an input there is nothing new: a core that is made to look all the same finds nothing."""
    luck = random.Random(seed)
    bench = Bench(seed=seed, apply_bytes_max=luck.choice((60, 10**6)), inflight_messages_max=luck.choice((1, 64)))
    bench.lead_settled()
    raft = bench.raft
    taken: list[int] = []
    for _ in range(120):
        act = luck.randrange(8)
        if act < 3 and raft.role.value == "leader":
            raft.propose(bytes(luck.randrange(40)))
        elif act == 3:
            bench.accept(luck.choice(("n2", "n3")))
        elif act == 4:
            bench.beat("n2", "n3")
        elif act == 5:
            bench.tick()
        elif act == 6 and raft.role.value == "leader":
            raft.read_index()
        elif taken:
            raft.applied(taken.pop())
        if luck.random() < 0.5:
            bench.work()
        else:
            bench.take()
        taken = [entry.index for entry in bench.committed[-1:]]
        assert raft.ready() is None
        raft._is_settled = False
        assert raft.ready() is None


def test_a_leader_waits_for_its_own_disk_once_a_peer_has_answered() -> None:
    bench = Bench()
    assert bench.raft.awaits_disk, "a follower is waited for"
    bench.lead_settled()
    bench.raft.propose(b"x")
    bench.take()
    assert not bench.raft.awaits_disk
    bench.accept("n2")
    assert bench.raft.awaits_disk, "with it, this would be a majority"
    bench.write()
    assert not bench.raft.awaits_disk


def test_who_leads_alone_waits_for_its_own_disk() -> None:
    bench = Bench(voters=["n1"])
    bench.tick(30)
    bench.work()
    assert bench.role.value == "leader"
    bench.raft.propose(b"x")
    bench.take()
    assert bench.raft.awaits_disk

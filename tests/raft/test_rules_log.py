"""Rules 11 to 18 and 35 to 38: replication, snapshots, compaction."""

from __future__ import annotations

import pytest

from django_keyspace.node.raft import (
    ADD,
    AppendRequest,
    AppendResponse,
    BrokenInvariant,
    Change,
    Entry,
    EntryTooLarge,
    HeartbeatResponse,
    Overloaded,
    SnapshotMeta,
    SnapshotRequest,
    Stopped,
    make_membership,
)
from django_keyspace.node.raft.messages import ENTRY_OVERHEAD_BYTES

from .bench import Bench
from .cluster import Cluster


def test_rule_11_a_late_append_that_matches_shortens_nothing() -> None:
    bench = Bench()
    bench.append((0, 0), [1, 1, 1, 1])
    bench.work()
    bench.append((0, 0), [1, 1])
    bench.append((1, 1), [])
    bench.work()
    assert bench.terms() == [1, 1, 1, 1]
    # A real conflict takes away the end, and only that.
    bench.append((2, 1), [2], term=2)
    bench.work()
    assert bench.terms() == [1, 1, 2]


def test_rule_11_appends_doubled_and_reordered() -> None:
    bench = Bench()
    for prev, terms in [((0, 0), [1]), ((1, 1), [1, 2]), ((0, 0), [1, 1]), ((3, 2), [2]), ((1, 1), [1]), ((3, 2), [2])]:
        bench.append(prev, terms, term=2)
        bench.work()
    assert bench.terms() == [1, 1, 2, 2]


def test_rule_12_what_is_committed_is_never_cut() -> None:
    bench = Bench(terms=[1, 1, 1], commit=2)
    with pytest.raises(BrokenInvariant, match="committed"):
        bench.append((0, 0), [1, 2], term=2)
    with pytest.raises(Stopped):
        bench.tick()
    assert bench.terms() == [1, 1, 1]


def test_rule_13_only_what_is_proven_counts() -> None:
    """The follower has more, of another leader: what it acknowledges is what this message proves."""
    bench = Bench(terms=[1, 1, 1, 1], commit=1)
    bench.append((2, 1), [], term=2)
    assert [message.index for message in bench.of(AppendResponse)] == [2]


def test_rule_14_figure_8() -> None:
    """An entry of an old term on a majority is not committed by that; it is by an entry of this term behind it."""
    bench = Bench(voters=["n1", "n2", "n3", "n4", "n5"], terms=[1, 2], commit=1)
    bench.lead()
    bench.work()
    bench.accept("n2", "n3", index=2)
    assert bench.raft.status().commit == 1
    bench.accept("n2", index=3)
    assert bench.raft.status().commit == 1
    bench.accept("n3", index=3)
    assert bench.raft.status().commit == 3


def test_rule_14_a_new_leader_begins_with_an_entry_of_its_own() -> None:
    bench = Bench(terms=[1])
    bench.lead()
    bench.work()
    assert bench.storage.log[-1] == Entry(2, 2, 0, b"")


def test_rule_15_a_followers_commit_ends_where_the_message_does() -> None:
    bench = Bench(terms=[1, 1, 1, 1])
    bench.append((1, 1), [1], commit=4, term=2)
    assert bench.raft.status().commit == 2
    bench.append((2, 1), [2], commit=9, term=2)
    assert bench.raft.status().commit == 3


def test_rule_16_an_append_is_acknowledged_when_it_is_durable() -> None:
    bench = Bench()
    bench.append((0, 0), [1])
    bench.heartbeat()
    messages = bench.take()
    bench.write()  # The term of this leader was new: that is what the answer to the heartbeat had to wait for.
    messages += bench.take()
    assert [type(message) for message in messages] == [AppendResponse, HeartbeatResponse]
    bench.append((1, 1), [1, 1])
    assert bench.of(AppendResponse, bench.take()) == []
    bench.restart()
    assert bench.terms() == [1]


def test_rule_16_heartbeats_do_not_wait_for_entries() -> None:
    bench = Bench(term=1)
    bench.append((0, 0), [1])
    bench.heartbeat(number=3)
    assert [type(message) for message in bench.take()] == [HeartbeatResponse]
    bench.write()
    assert [type(message) for message in bench.take()] == [AppendResponse]


def test_rule_16_a_replaced_write_does_not_stand_for_its_successor() -> None:
    """An entry is written, replaced and comes back: the first write's end must not acknowledge the third."""
    bench = Bench(term=1)
    bench.append((0, 0), [1], term=1)
    bench.take()
    first = list(bench.unwritten)
    bench.append((0, 0), [2], term=2, leader="n3")
    bench.take()
    bench.append((0, 0), [1, 3], term=3)
    bench.take()
    bench.storage.write(first[0])
    bench.raft.persisted(first[0].number)
    assert bench.raft.status().stable == 0
    assert bench.of(AppendResponse, bench.take()) == []
    bench.unwritten = [ready for ready in bench.unwritten if ready not in first]
    bench.write()
    assert bench.raft.status().stable == 2
    assert [(message.term, message.index) for message in bench.of(AppendResponse, bench.take())] == [(3, 2)]


def test_rule_17_proposals_are_bounded() -> None:
    bench = Bench(entry_bytes_max=100, uncommitted_entries_max=4, uncommitted_bytes_max=300)
    bench.lead_settled()
    with pytest.raises(EntryTooLarge):
        bench.raft.propose(b"x" * 101)
    for _ in range(2):
        bench.raft.propose(b"x" * 100)
    with pytest.raises(Overloaded):
        bench.raft.propose(b"x" * 100)
    for _ in range(2):
        bench.raft.propose(b"")
    with pytest.raises(Overloaded):
        bench.raft.propose(b"")
    bench.work()
    bench.accept("n2")
    bench.work()
    bench.raft.propose(b"x" * 100)
    assert bench.raft.status().commit == 5


def test_rule_17_what_is_sent_is_bounded() -> None:
    bench = Bench(append_entries_max=2, append_bytes_max=10 * ENTRY_OVERHEAD_BYTES, inflight_messages_max=3)
    bench.lead_settled()
    for number in range(20):
        bench.raft.propose(b"%d" % number)
    sent = [message for message in bench.of(AppendRequest) if message.to == "n2"]
    assert [len(message.entries) for message in sent] == [2, 2, 2]
    bench.accept("n2", index=3)
    assert len([message for message in bench.of(AppendRequest) if message.to == "n2"]) == 1
    bench = Bench(append_bytes_max=100, inflight_bytes_max=100)
    bench.lead_settled()
    for _ in range(5):
        bench.raft.propose(b"x" * 30)
    sent = [message for message in bench.of(AppendRequest) if message.to == "n2"]
    assert [len(message.entries) for message in sent] == [1, 1]


def test_rule_17_what_is_to_be_applied_is_bounded() -> None:
    bench = Bench(terms=[1] * 10, commit=10, apply_bytes_max=3 * (ENTRY_OVERHEAD_BYTES + 1))
    bench.work()
    assert [entry.index for entry in bench.committed] == [1, 2, 3]
    bench.raft.applied(2)
    bench.work()
    assert len(bench.committed) == 3
    bench.raft.applied(3)
    bench.work()
    assert [entry.index for entry in bench.committed] == [1, 2, 3, 4, 5, 6]


def test_rule_17_reads_and_members_are_bounded() -> None:
    bench = Bench(reads_max=3)
    bench.lead_settled()
    for _ in range(3):
        bench.raft.read_index()
    with pytest.raises(Overloaded):
        bench.raft.read_index()
    bench.work()
    bench.beat("n2")
    bench.work()
    bench.raft.read_index()


def test_rule_18_a_follower_far_behind_is_found_in_few_rounds() -> None:
    """Both logs have a long end of their own, of a few terms: each round skips a term, not an entry."""
    cluster = Cluster(("n1", "n2"))
    mine = [1] * 10 + [2] * 2_000 + [5] * 2_000
    theirs = [1] * 10 + [3] * 2_000 + [4] * 2_000
    for name, terms in (("n1", mine), ("n2", theirs)):
        node = cluster.nodes[name]
        node.storage.log = [Entry(index, term, 1, b"%d" % index) for index, term in enumerate(terms, 1)]
        node.storage.hard = node.storage.hard._replace(term=terms[-1])
        cluster.restart(name)
    cluster.elect("n1")
    before = cluster.delivered
    cluster.run(10)
    assert cluster.delivered - before < 60
    assert [entry.term for entry in cluster.nodes["n2"].storage.log] == [*mine, cluster["n1"].term]
    cluster.check_logs()


def test_rule_35_a_snapshot_that_the_log_has_keeps_what_is_behind_it() -> None:
    bench = Bench(terms=[1, 1, 1, 1], commit=1)
    bench.raft.step(SnapshotRequest("n1", "n2", 2, SnapshotMeta(3, 1, make_membership(["n1", "n2", "n3"]))))
    assert bench.raft._state.snapshot_to_install is None
    assert [message.index for message in bench.of(AppendResponse)] == [3]
    assert bench.terms() == [1, 1, 1, 1]
    # One that differs from the log replaces it.
    bench.raft.step(SnapshotRequest("n1", "n2", 2, SnapshotMeta(4, 2, make_membership(["n1", "n2", "n3"]))))
    bench.work()
    assert (bench.terms(), bench.storage.base_index, bench.storage.base_term) == ([], 4, 2)


def test_rule_36_an_older_snapshot_is_refused() -> None:
    bench = Bench(terms=[1, 1, 1, 1], commit=3, applied=3)
    bench.raft.step(SnapshotRequest("n1", "n2", 2, SnapshotMeta(2, 1, make_membership(["n1"]))))
    assert [message.index for message in bench.of(AppendResponse)] == [3]
    assert bench.terms() == [1, 1, 1, 1]
    assert bench.raft.membership.voters == ("n1", "n2", "n3")


def leader_with_snapshot(**settings: int) -> Bench:
    """n1 leads, its log begins at 4, and n3 needs what was before."""
    bench = Bench(terms=[1] * 5, commit=5, applied=5, **settings)
    bench.storage.compact(SnapshotMeta(4, 1, bench.raft.membership))
    bench.lead()
    bench.work()
    bench.accept("n2")
    bench.raft.step(AppendResponse("n1", "n3", bench.raft.term, False, 5, 1, 1))
    assert len(bench.of(SnapshotRequest)) == 1
    return bench


def test_rule_36_a_snapshot_that_does_not_move_is_given_up() -> None:
    bench = leader_with_snapshot(snapshot_ticks=4)
    for _ in range(20):
        bench.tick()
        bench.beat("n2", "n3")
        bench.raft.report_snapshot("n3", arrived=None)
        assert bench.of(SnapshotRequest) == []
    for _ in range(4):
        bench.tick()
        bench.beat("n2", "n3")
    assert len(bench.of(SnapshotRequest)) == 1


def test_rule_36_a_snapshot_under_way_stops_nobody() -> None:
    bench = leader_with_snapshot()
    entry = bench.raft.propose(b"a")
    assert {message.to for message in bench.of(AppendRequest)} == {"n2"}
    bench.accept("n2")
    assert bench.raft.status().commit == entry.index
    # The leader compacts meanwhile; the old snapshot arrives; what n3 needs next is only in a newer one.
    bench.work()
    bench.raft.applied(entry.index)
    bench.storage.compact(SnapshotMeta(entry.index, entry.term, bench.raft.membership))
    bench.raft.report_snapshot("n3", arrived=True)
    assert [message.snapshot.index for message in bench.of(SnapshotRequest)] == [entry.index]


def test_rule_36_a_snapshot_that_failed_is_sent_anew() -> None:
    bench = leader_with_snapshot()
    bench.raft.report_snapshot("n3", arrived=False)
    assert len(bench.of(SnapshotRequest)) == 1
    bench.raft.report_snapshot("n3", arrived=True)
    bench.accept("n3", index=4)
    sent = [message for message in bench.of(AppendRequest) if message.to == "n3"]
    assert [entry.index for message in sent for entry in message.entries] == [5, 6]
    assert bench.raft.status().peers["n3"].flow == "replicate"


def test_rule_36_a_peer_that_lost_its_snapshot_is_found_out_without_new_entries() -> None:
    """It said that it had it, and crashed before it was its log; nobody writes, so there is nothing to append."""
    bench = leader_with_snapshot()
    bench.work()
    bench.raft.applied(6)
    bench.raft.report_snapshot("n3", arrived=False)
    bench.storage.compact(SnapshotMeta(6, bench.raft.term, bench.raft.membership))
    bench.raft.step(AppendResponse("n1", "n3", bench.raft.term, False, 4, 1, 1))
    assert [message.snapshot.index for message in bench.of(SnapshotRequest)] == [6]
    bench.raft.report_snapshot("n3", arrived=True)
    assert bench.work() == []
    bench.tick()
    bench.beat("n3")
    (probe,) = [message for message in bench.of(AppendRequest) if message.to == "n3"]
    assert (probe.prev_index, probe.entries) == (6, ())
    bench.raft.step(AppendResponse("n1", "n3", bench.raft.term, False, 6, 1, 1))
    assert len(bench.of(SnapshotRequest)) == 1


def test_rule_37_a_snapshot_has_the_membership_of_its_index() -> None:
    cluster = Cluster()
    cluster.elect("n1")
    cluster.add("n4")
    before = cluster.nodes["n1"].store_index
    cluster["n1"].propose_change(Change(ADD, "n4", "at home"))
    cluster.run(2)
    assert cluster["n1"].membership_at(before).learners == ()
    meta = cluster.snapshot("n1")
    assert meta.membership.learners == ("n4",)
    assert dict(meta.membership.info) == {"n4": "at home"}
    # A node that starts from it, and one that gets it, know who the members are.
    cluster.crash("n1")
    cluster.restart("n1")
    assert cluster["n1"].membership.learners == ("n4",)


def test_rule_38_a_tail_that_is_kept_spares_a_snapshot() -> None:
    for kept, snapshots in ((0, True), (4, False)):
        cluster = Cluster()
        cluster.elect("n1")
        cluster.partition(["n1", "n2"], ["n3"])
        for number in range(4):
            cluster["n1"].propose(b"%d" % number)
        cluster.settle()
        cluster.snapshot("n1", kept=kept)
        cluster.heal()
        cluster.run(3)
        cluster.check_stores()
        assert bool(cluster.nodes["n3"].aside) is snapshots

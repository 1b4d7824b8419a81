"""The start of a replicated node: store, journal and snapshots may be one step apart, and power may go out anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from django_keyspace.exceptions import DamagedJournal, DamagedSnapshot, NoSpace
from django_keyspace.node.disk import HostDisk
from django_keyspace.node.entries import LoggedCalls, pack_calls
from django_keyspace.node.journal import Batch, Journal
from django_keyspace.node.machine import Machine
from django_keyspace.node.raft import COMMANDS, Entry, HardState, SnapshotMeta
from django_keyspace.node.snapshot import Snapshot, SnapshotStore
from django_keyspace.node.start import open_state
from tests.journal.helpers import BOOTSTRAP, MEMBERS, sim_disk
from tests.node.replicas import CLUSTER, ELECTION_MS, OPTIONS, Cluster, Node, StoreFolder, incr, payload
from tests.sim.disk import PowerCut, SimDisk

Make = Callable[..., Cluster]
REMEDY = "wipe it and let it join again"
TERM = 3
SEGMENT_BYTES = 8_192


class Host:
    """The disks of one node, and what a test has lain on them. Entry n adds n to the key ``n``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.mkdir()
        self.disk: SimDisk = sim_disk()
        self.store_disk = StoreFolder(str(path))
        self.boot = "boot-1"
        self.machine: Machine | None = None
        self.journal: Journal | None = None
        self.has_run = False

    def open_machine(self) -> Machine:
        self.machine = Machine.open(self.store_disk, OPTIONS, self.boot, Random(1), upkeep=False, boot_ms=lambda: 1)
        return self.machine

    def start(self) -> tuple[Machine, Journal, SnapshotStore]:
        """Start as a node does. Returns: what it runs on."""
        machine = self.open_machine()
        journal, snapshots = open_state(
            self.disk, machine, None if self.has_run else BOOTSTRAP, remedy=REMEDY, segment_bytes=SEGMENT_BYTES
        )
        self.journal, self.has_run = journal, True
        return machine, journal, snapshots

    def write(self, last: int, commit: int | None = None) -> None:
        """Have the journal reach to an entry."""
        assert self.journal is not None
        first = self.journal.last_index() + 1
        entries = [
            Entry(index, TERM, COMMANDS, pack_calls(index, [incr(delta=index)])) for index in range(first, last + 1)
        ]
        self.journal.append([Batch(HardState(TERM, "n2", last if commit is None else commit), entries)])

    def apply(self, last: int) -> None:
        """Have the store apply up to an entry."""
        assert self.machine is not None
        for index in range(self.machine.applied_index + 1, last + 1):
            self.machine.apply([LoggedCalls(index, index, [incr(delta=index)])])

    def snapshot(self, snapshots: SnapshotStore, *, note: bool = True) -> Snapshot:
        """Make a snapshot of the store as it is."""
        assert self.machine is not None and self.journal is not None
        with self.machine.copy() as copy:
            made = Snapshot(copy.index, TERM, MEMBERS, copy.log_ms, CLUSTER)
            snapshots.build(made, copy)
        if note:
            self.journal.note_snapshot(made.meta)
        return made

    def kill(self) -> None:
        if self.machine is not None:
            self.machine.close(clean=False)
        if self.journal is not None:
            self.journal.abandon()
        self.machine = self.journal = None
        self.disk.kill()

    def power_cut(self, boot: str = "boot-2") -> None:
        self.kill()
        self.disk.crash()
        self.store_disk.lose()
        self.boot = boot


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path / "n1")
    yield host
    host.kill()


@pytest.fixture
def donor(tmp_path: Path) -> Iterator[Host]:
    """Another node, whose snapshots come over."""
    donor = Host(tmp_path / "n2")
    yield donor
    donor.kill()


def sum_to(last: int) -> int:
    return last * (last + 1) // 2


def value(machine: Machine) -> int:
    """What is under the key, as a reader sees it."""
    found = machine.read(0, "get", 0, b"n")
    return 0 if found is None else int(payload(found))


def receive(host: Host, donor: Host, last: int) -> Snapshot:
    """A snapshot up to an entry comes from another node, and lies aside."""
    _, _, snapshots = donor.start()
    donor.write(last)
    donor.apply(last)
    made = donor.snapshot(snapshots)
    here = SnapshotStore(host.disk)
    with snapshots.reader(made) as reader:
        here.build(made, reader)
    return made


# --- First starts -----------------------------------------------------------------------------------------------------


def test_a_founding_member_begins_with_an_empty_store(host: Host) -> None:
    machine, journal, snapshots = host.start()
    assert (machine.applied_index, journal.first_index(), journal.last_index(), snapshots.kept) == (0, 1, 0, [])
    assert journal.snapshot().membership == MEMBERS


def test_rule_10_a_node_that_has_run_does_not_start_without_its_journal(host: Host) -> None:
    host.has_run = True
    with pytest.raises(DamagedJournal, match=REMEDY):
        host.start()


def test_what_was_opened_is_closed_when_the_start_fails(host: Host) -> None:
    host.start()
    host.write(5, commit=4)
    host.apply(4)
    host.kill()
    (name,) = [name for name in host.disk.list("journal") if name.endswith(".segment")]
    host.disk.remove(f"journal/{name}")
    host.has_run = False  # a journal made anew: it ends at 0, and the store has applied 4
    with pytest.raises(DamagedJournal, match="entry 4 was applied, and the last one here is 0"):
        host.start()


# --- One step apart ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power_cut", [False, True])
def test_the_store_is_behind_the_journal(host: Host, power_cut: bool) -> None:
    host.start()
    host.write(9)
    host.apply(6)
    if power_cut:
        host.power_cut()
    else:
        host.kill()
    machine, journal, _ = host.start()
    assert machine.applied_index == (0 if power_cut else 6) and journal.last_index() == 9
    host.apply(9)
    assert value(machine) == sum_to(9)


def test_rule_32_the_store_is_never_ahead_of_what_the_journal_holds(host: Host) -> None:
    """Entries are applied when they are durable here, so a store that is ahead has a journal that lost something."""
    host.start()
    host.write(9, commit=9)
    host.apply(9)
    assert host.journal is not None
    host.kill()
    machine, journal, _ = host.start()
    assert machine.applied_index == 9 <= journal.last_index()
    # The commit index on the disk may be older than what was applied: it goes along with the next batch.
    assert journal.hard_state().commit <= 9


def test_after_a_power_cut_the_store_is_made_from_the_newest_snapshot(host: Host) -> None:
    _, _, snapshots = host.start()
    for last in (5, 9):
        host.write(last)
        host.apply(last)
        host.snapshot(snapshots)
    host.write(12)
    host.apply(12)
    host.power_cut()
    machine, journal, snapshots = host.start()
    assert machine.applied_index == 9 and value(machine) == sum_to(9)
    host.apply(12)
    assert value(machine) == sum_to(12) and journal.last_index() == 12


def test_a_snapshot_of_which_the_journal_was_not_told_yet(host: Host) -> None:
    _, _, snapshots = host.start()
    host.write(9)
    host.apply(7)
    host.snapshot(snapshots, note=False)
    host.power_cut()
    machine, journal, snapshots = host.start()
    assert machine.applied_index == 7 and [one.place for one in snapshots.kept] == [7]
    assert (journal.first_index(), journal.last_index()) == (1, 9), "what is behind it stays"


def test_a_damaged_snapshot_is_set_aside_and_the_one_before_counts(host: Host) -> None:
    _, journal, snapshots = host.start()
    for last in (5, 9):
        host.write(last)
        host.apply(last)
        host.snapshot(snapshots)
    journal.forget(5)
    journal.compact()
    host.disk.flip_bit(snapshots.path(snapshots.kept[-1].file_name), 5_000)
    host.power_cut()
    machine, _, snapshots = host.start()
    assert machine.applied_index == 5 and [one.place for one in snapshots.kept] == [5]


def test_rule_45_without_a_sound_snapshot_a_compacted_journal_is_not_enough(host: Host) -> None:
    _, journal, snapshots = host.start()
    for last in (5, 9):
        host.write(last)
        host.apply(last)
        host.snapshot(snapshots)
    journal.forget(5)
    journal.compact()
    for one in snapshots.kept:
        host.disk.flip_bit(snapshots.path(one.file_name), 5_000)
    host.power_cut()
    with pytest.raises(DamagedSnapshot, match=REMEDY):
        host.start()


def test_a_received_snapshot_that_was_not_installed_does_not_count(host: Host, donor: Host) -> None:
    host.start()
    host.write(3)
    host.apply(3)
    receive(host, donor, 20)
    host.kill()
    machine, journal, snapshots = host.start()
    assert (machine.applied_index, journal.last_index()) == (3, 3)
    assert [one.place for one in snapshots.kept] == [20]


def test_rule_35_a_snapshot_whose_store_counts_already_is_taken_over_by_the_journal(host: Host, donor: Host) -> None:
    machine, _, _ = host.start()
    host.write(3)
    host.apply(3)
    made = receive(host, donor, 20)
    machine.install(SnapshotStore(host.disk), made)
    host.kill()
    machine, journal, _ = host.start()
    assert (machine.applied_index, value(machine)) == (20, sum_to(20))
    assert (journal.first_index(), journal.last_index(), journal.snapshot().index) == (21, 20, 20)
    assert journal.hard_state().commit == 20


def test_rule_35_after_a_power_cut_too(host: Host, donor: Host) -> None:
    """Its store is not believed, and made again from the same snapshot."""
    machine, _, _ = host.start()
    host.write(3)
    host.apply(3)
    made = receive(host, donor, 20)
    machine.install(SnapshotStore(host.disk), made)
    host.power_cut()
    machine, journal, _ = host.start()
    assert (machine.applied_index, value(machine), journal.last_index()) == (20, sum_to(20), 20)


def test_a_store_that_the_journal_has_left_behind_is_made_again(host: Host, donor: Host) -> None:
    """The journal was restored, and the folder of the store is that of before: it was put back by hand."""
    _, journal, _ = host.start()
    host.write(3)
    host.apply(3)
    made = receive(host, donor, 20)
    journal.restore(made.meta)
    host.kill()
    machine, journal, _ = host.start()
    assert (machine.applied_index, value(machine), journal.first_index()) == (20, sum_to(20), 21)


def test_a_store_from_nowhere_is_refused(host: Host, donor: Host) -> None:
    machine, _, _ = host.start()
    host.write(3)
    made = receive(host, donor, 20)
    machine.install(SnapshotStore(host.disk), made)
    host.disk.remove(SnapshotStore(host.disk).path(made.file_name))
    host.kill()
    with pytest.raises(DamagedJournal, match="entry 20 was applied, and the last one here is 3"):
        host.start()


def test_a_full_disk_at_the_start_says_so_and_changes_nothing(host: Host, donor: Host) -> None:
    host.start()
    host.write(3)
    host.apply(3)
    host.power_cut()
    host.store_disk.fill()
    host.disk.capacity_bytes = host.disk.used_bytes
    with pytest.raises(NoSpace):
        receive(host, donor, 20)
    host.store_disk.creations_left = None
    host.disk.capacity_bytes = 2**40
    machine, journal, _ = host.start()
    assert (machine.applied_index, journal.last_index()) == (0, 3)


# --- Power goes out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_stores", [False, True])
def test_power_may_go_out_at_any_step_of_a_start(make_cluster: Make, on_stores: bool) -> None:
    """A node that has to make its store again, and to finish an installation, is cut off at each step of that."""
    cluster = make_cluster(snapshot_entries=20, tail_entries=5, segment_bytes=8_192)
    leader = cluster.start()
    for _ in range(60):
        leader.write(incr())
    cluster.run(2_000)
    cluster.settle()
    follower = cluster.followers()[0]
    follower.end(power_cut=True)
    step = completed = 0
    while not completed:
        if on_stores:
            follower.store_disk.cut_after = step
        else:
            follower.disk.cut_power_after(step)
        completed = start_or_lose_power(follower)
        follower.store_disk.cut_after = None
        follower.disk.calm()
        step += 1
        assert step < 200
    assert step > 5
    cluster.settle()
    assert follower.here(b"n") == b"60"


def start_or_lose_power(node: Node) -> bool:
    try:
        node.start()
    except PowerCut:
        node.end(power_cut=True)
        return False
    return node.is_up


def test_all_nodes_lose_their_power_at_once(make_cluster: Make) -> None:
    """Rule 1: what was acknowledged is there when they come back."""
    cluster = make_cluster(snapshot_entries=20, tail_entries=5, segment_bytes=8_192)
    leader = cluster.start()
    done = 0
    for _ in range(6):
        for _ in range(13):
            (done,) = leader.write(incr())
        leader.propose(incr())  # nobody hears of this one
        cluster.run(1.5)
        for node in cluster:
            node.end(power_cut=True)
        for node in cluster:
            node.start()
        leader = cluster.leader()
        (after,) = leader.write(incr())
        assert done < after <= done + 2
        done = after
    cluster.run(2 * ELECTION_MS)
    cluster.settle()


def test_hosts_differ_from_simulated_disks_in_nothing_that_matters(tmp_path: Path) -> None:
    """The same on files of this machine."""
    disk = HostDisk(str(tmp_path))
    machine = Machine.open(disk, OPTIONS, "boot", Random(1), upkeep=False)
    journal, _ = open_state(disk, machine, SnapshotMeta(0, 0, MEMBERS))
    journal.append([Batch(HardState(TERM, "n2", 1), [Entry(1, TERM, COMMANDS, pack_calls(1, [incr(delta=1)]))])])
    machine.apply([LoggedCalls(1, 1, [incr(delta=1)])])
    journal.close()
    machine.close()
    machine = Machine.open(disk, OPTIONS, "another boot", Random(1), upkeep=False)
    journal, _ = open_state(disk, machine, None)
    assert (machine.applied_index, journal.last_index()) == (1, 1), "it was closed well"
    journal.close()
    machine.close()

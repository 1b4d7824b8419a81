"""The start of a replicated node: from what lies on its disks to a runtime that may begin to tick.

The order matters, because a crash may have come between any two steps of an earlier run:

1. the snapshots, and the store that counts, if it can be trusted (after a power cut it cannot);
2. the journal, without which a node that has run before must not take part: it may have voted;
3. a snapshot that was installed as the store and not yet taken over by the journal is taken over now;
4. a store that cannot be trusted, or is behind the journal's beginning, is made again from a snapshot, or empty;
5. the journal must reach as far as the store.
"""

from __future__ import annotations

import logging

from django_keyspace.node.disk import Disk
from django_keyspace.node.generations import snapshot_to_start_from
from django_keyspace.node.journal import Journal
from django_keyspace.node.journal.journal import SEGMENT_BYTES
from django_keyspace.node.journal.recovery import REMEDY
from django_keyspace.node.machine import Machine
from django_keyspace.node.raft import SnapshotMeta
from django_keyspace.node.snapshot import SnapshotStore

logger = logging.getLogger("django_keyspace.node")


def open_state(
    disk: Disk,
    machine: Machine,
    bootstrap: SnapshotMeta | None,
    *,
    remedy: str = REMEDY,
    segment_bytes: int = SEGMENT_BYTES,
) -> tuple[Journal, SnapshotStore]:
    """Bring journal, snapshots and store together.

    Arguments:
        disk: where journal and snapshots are.
        machine: the state machine, opened.
        bootstrap: for a node that has never run: what its log begins after; None for one that has.
        remedy: the command that lets the node join again, for messages.
        segment_bytes: size of the journal's files.
    Returns:
        The journal and the snapshots. The store has applied something that the journal reaches and continues.
    Raises:
        DamagedJournal, DamagedSnapshot: something is missing that this node had promised to keep.
        DiskFailed, NoSpace: the disk.
    """
    snapshots = SnapshotStore(disk)
    journal = Journal.open(disk, bootstrap=bootstrap, segment_bytes=segment_bytes, remedy=remedy)
    try:
        _bring_together(machine, journal, snapshots, remedy)
    except BaseException:
        journal.abandon()
        raise
    return journal, snapshots


def _bring_together(machine: Machine, journal: Journal, snapshots: SnapshotStore, remedy: str) -> None:
    if machine.is_trustworthy:
        _take_over(machine.applied_index, journal, snapshots)
    if not machine.is_trustworthy or machine.applied_index + 1 < journal.first_index():
        snapshot = snapshot_to_start_from(snapshots, journal.first_index(), remedy)
        if snapshot is None:
            logger.info("The store is made again from the journal")
            machine.begin()
        else:
            logger.info("The store is made again from the snapshot of entry %d", snapshot.place)
            machine.install(snapshots, snapshot)
            _take_over(snapshot.place, journal, snapshots)
    journal.require_reaches(machine.applied_index)


def _take_over(applied_index: int, journal: Journal, snapshots: SnapshotStore) -> None:
    """Finish the installation of a snapshot that a crash has interrupted between store and journal."""
    if applied_index <= journal.hard_state().commit:
        return
    installed = next((snapshot for snapshot in snapshots.kept if snapshot.place == applied_index), None)
    if installed is not None:
        journal.restore(installed.meta)

"""A new cluster from what one node of an old one has: for when a majority is lost for ever.

Everything is made in another folder, and the old one is only read, as a start of its node would read it: whoever finds the other
nodes again can go back. The new folder becomes a node's by its last step, ``node.json``; a crash before leaves a folder that no
node takes.

**What the new cluster begins with** is all that the old log has here, also what this node does not know to be committed: writes
that were acknowledged may be there, and one that was not may happen all the same, since nobody was told that it did not. The
store is a snapshot at what was applied, and the log behind it is taken over, without its changes of members: there is one now,
with an id that nobody had.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final, Self

from django_keyspace.exceptions import ConfigurationError, NotSupported
from django_keyspace.node.disk import HostDisk
from django_keyspace.node.entries import logged_calls
from django_keyspace.node.folder import DataFolder
from django_keyspace.node.identity import (
    Identity,
    address_of,
    member_info,
    name_of,
    new_cluster_id,
    read_identity,
    write_identity,
)
from django_keyspace.node.journal import Batch, Journal
from django_keyspace.node.journal.journal import SEGMENT_BYTES
from django_keyspace.node.machine import Machine
from django_keyspace.node.raft import (
    CHANGE,
    NOOP,
    Entry,
    HardState,
    Membership,
    SnapshotMeta,
    make_membership,
    membership_from_bytes,
)
from django_keyspace.node.snapshot import Snapshot, SnapshotStore
from django_keyspace.node.start import open_state
from django_keyspace.store import StoreOptions
from django_keyspace.store.folder import boot_id

CHUNK_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Findings:
    """What a node's folder has.

    Attributes:
        identity: whose it is.
        membership: the members, by its log.
        applied: the last entry that its store holds.
        commit: the last entry that it knows to be committed.
        last_index: the last entry of its log.
        last_term: that entry's term.
        log_ms: the log clock of the last entry with operations, in milliseconds; 0 if there is none.
    """

    identity: Identity
    membership: Membership
    applied: int
    commit: int
    last_index: int
    last_term: int
    log_ms: int

    @property
    def address(self) -> str | None:
        """Where the node was reached."""
        return address_of(self.membership, self.identity.member_id)

    @property
    def others(self) -> list[tuple[str, str, str | None]]:
        """The other members: name, id and address; voters first."""
        own = self.identity.member_id
        return [
            (name_of(member), member, address_of(self.membership, member))
            for member in self.membership.members
            if member != own
        ]


class Recovery:
    """A node's folder, held and opened in a ``with``.

    Arguments:
        path: the folder.
        segment_bytes: size of the new journal's files.
    Raises:
        ConfigurationError: there is none, or its node runs.
        NotSupported: its node was in no cluster.
        KeyspaceError: what is in it cannot be used.

    Attributes:
        findings: what it has.
    """

    def __init__(self, path: str, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        if not os.path.isdir(path):
            raise ConfigurationError(f"There is no folder {path}.")
        identity = read_identity(HostDisk(path))
        if identity is None:
            raise ConfigurationError(f"{path} is not the data folder of a node: it has no node.json.")
        if not identity.cluster or not identity.initialised:
            raise NotSupported(
                f"Node {identity.node} of {path} was in no cluster that it had begun with: there is nothing to recover. "
                "If it runs alone, start it as it is."
            )
        self._segment_bytes = segment_bytes
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as opening:
            self._folder = DataFolder(path, identity.node)
            opening.callback(self._folder.release)
            self._machine = Machine.open(self._folder.disk, StoreOptions(), boot_id(), Random())
            opening.callback(self._close_machine)
            self._journal, _ = open_state(
                self._folder.disk, self._machine, None, remedy="take the folder of another node for the recovery"
            )
            opening.callback(self._journal.close)
            self.findings = self._look()
            self._stack = opening.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _close_machine(self) -> None:
        self._machine.close(clean=self._machine.is_trustworthy)

    def _look(self) -> Findings:
        journal, machine = self._journal, self._machine
        changes = list(journal.changes())
        membership = journal.snapshot().membership
        if changes:
            membership = membership_from_bytes(changes[-1].data)
        last = journal.last_index()
        log_ms = machine.log_ms
        for entry in self._tail():
            log_ms = max(log_ms, logged_calls(entry).log_ms)
        return Findings(
            self._folder.identity,
            membership,
            machine.applied_index,
            journal.hard_state().commit,
            last,
            journal.term(last),
            log_ms,
        )

    def _tail(self) -> Iterator[Entry]:
        """The entries that the store has not applied yet."""
        at, last = self._machine.applied_index + 1, self._journal.last_index()
        while at <= last:
            entries = self._journal.entries(at, last, CHUNK_BYTES)
            yield from entries
            at = entries[-1].index + 1

    def make(self, path: str, address: str, name: str = "") -> Identity:
        """Make the folder of a new cluster's only member.

        Arguments:
            path: the folder; it must not exist, or be empty.
            address: where the node will be reached.
            name: its name; empty: as before.
        Returns:
            Who the node is now.
        Raises:
            ConfigurationError: the folder has something in it.
            NoSpace, DiskFailed: the disk. The new folder is of no use; the old one is as it was.
        """
        target = Path(path).absolute()
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise ConfigurationError(
                f"{target} is not empty. Nothing was changed. Give a folder that does not exist yet."
            )
        with contextlib.suppress(FileExistsError):
            HostDisk(str(target.parent)).make_folder(target.name)
        disk = HostDisk(str(target))
        identity = Identity(name or self.findings.identity.node).with_incarnation()
        info = {identity.member_id: member_info(identity.node, address)}
        members = make_membership([identity.member_id], info=info)
        identity = identity.in_cluster(new_cluster_id(), members).begun()
        self._copy_store(disk, identity)
        self._copy_log(disk, members)
        write_identity(disk, identity)  # from here on it is a node's
        disk.sync_folder()
        return identity

    def _copy_store(self, disk: HostDisk, identity: Identity) -> None:
        machine = self._machine
        if not machine.applied_index:
            return  # the log has everything
        with machine.copy() as copy:
            term = self._journal.term(copy.index)
            snapshot = Snapshot(copy.index, term, identity.members, copy.log_ms, identity.cluster)
            SnapshotStore(disk).build(snapshot, copy)

    def _copy_log(self, disk: HostDisk, members: Membership) -> None:
        old, applied = self._journal, self._machine.applied_index
        bootstrap = SnapshotMeta(applied, old.term(applied), members)
        journal = Journal.open(disk, bootstrap=bootstrap, segment_bytes=self._segment_bytes)
        try:
            term = old.hard_state().term
            journal.append([Batch(HardState(term, "", applied))])
            batch: list[Entry] = []
            size_bytes = 0
            for entry in self._tail():
                # Who was a member does not matter any more; the place of the entry does.
                batch.append(Entry(entry.index, entry.term, NOOP, b"") if entry.kind == CHANGE else entry)
                size_bytes += entry.size_bytes
                if size_bytes >= CHUNK_BYTES:
                    journal.append([Batch(None, batch)])
                    batch, size_bytes = [], 0
            journal.append([Batch(HardState(term, "", old.last_index()), batch)])
            journal.close()
        except BaseException:
            journal.abandon()
            raise

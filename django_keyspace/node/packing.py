"""From what has come together to entries of the log: the leader's decisions, made once and logged.

Its time, what has to be evicted to make room, and what has no room at all are decided here, before an entry is proposed. All
nodes apply the same entry; none decides anything again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, Protocol

from django_keyspace.exceptions import InvalidArgument, KeyspaceError, NotSupported
from django_keyspace.node import raft as consensus
from django_keyspace.node.barrier import ScriptBarrier
from django_keyspace.node.clock import LogClock
from django_keyspace.node.entries import (
    ENTRY_VERSION,
    ENTRY_VERSION_OLDEST,
    pack_calls,
    version_needed,
    version_of_entry,
)
from django_keyspace.node.gathering import Gathering
from django_keyspace.node.identity import name_of
from django_keyspace.node.log import Done
from django_keyspace.node.parts import Parts
from django_keyspace.node.proposals import Group, Proposal, Proposals
from django_keyspace.operations import Call

logger = logging.getLogger("django_keyspace.node")

_LOOK_BACK: Final = 256
"""So many entries, at most, are looked at to find one with operations."""


class Leading(Protocol):
    """What packing needs of the runtime."""

    node: str
    raft: consensus.Raft

    def public(self, error: Exception) -> KeyspaceError:
        """What the core refused, in the words of the package."""

    def answered(self, count: int, *, now: bool = False) -> None:
        """So many calls were answered."""

    def flush_soon(self) -> None:
        """Call :meth:`Packer.pack_waiting` in the next turn of the loop."""


class Packer:
    """Makes the entries of one node.

    Arguments:
        core: the runtime.
        parts: of the node.
        proposals: what waits, and what is under way.
        barrier: who may write alone.
        log_clock: the node's.
    """

    def __init__(
        self, core: Leading, parts: Parts, proposals: Proposals, barrier: ScriptBarrier, log_clock: LogClock
    ) -> None:
        self._core = core
        self._proposals = proposals
        self._gathering = Gathering(proposals, parts.scheduler, core.flush_soon)
        self._barrier = barrier
        self._machine = parts.machine
        self._clock = parts.clock
        self._links = parts.links
        self._log_clock = log_clock
        self._settings = parts.settings
        self._journal = parts.journal
        self._logged_version = ENTRY_VERSION_OLDEST
        self._said_version = ENTRY_VERSION_OLDEST

    def pack_waiting(self) -> None:
        """Make entries of what waits, if it is time, as long as there may be more under way.

        While leadership is being handed over, it goes on to wait: soon this node leads on, or says who does.
        """
        proposals = self._proposals
        if not proposals.is_waiting or not self._gathering.is_due():
            return
        while (
            proposals.is_waiting
            and not self._barrier.is_held
            and proposals.entries < self._settings.entries_max
            and self._core.raft.role is consensus.Role.LEADER
            and not self._core.raft.is_handing_over
        ):
            group = proposals.take()
            calls = group[0].calls if len(group) == 1 else [call for proposal in group for call in proposal.calls]
            self._pack(Group(group), calls)

    def pack_alone(self, calls: Sequence[Call], size_bytes: int, done: Done) -> None:
        """Make an entry of one proposal that waits for nobody."""
        proposal = Proposal(calls, size_bytes, done)
        self._proposals.account(proposal)
        self._pack(Group([proposal]), calls)

    def _pack(self, group: Group, calls: Sequence[Call]) -> None:
        log_ms, version = self._log_clock.now_ms(), self._version()
        refused: Sequence[KeyspaceError | None] = ()
        try:
            plan = self._machine.plan(calls, log_ms)
            if plan.refusal is not None:
                refused = [plan.refusal if grows else None for grows in self._machine.growing(calls)]
            if version < ENTRY_VERSION:
                refused = self._too_new(calls, version, refused)
            if version != self._said_version:
                self._say(version)
        except KeyspaceError as error:
            self._fail(group, len(calls), error)
            return
        if refused:
            calls = [call for call, error in zip(calls, refused, strict=True) if error is None]
        upkeep: list[Call] = [("evict", plan.evict)] if plan.evict else []
        group = group._replace(refused=refused, upkeep=len(upkeep), began_ms=self._clock.monotonic_ms())
        if not calls and not upkeep:
            self._core.answered(len(refused))
            self._proposals.answer(group, [])
            return
        try:
            entry = self._core.raft.propose(pack_calls(log_ms, [*upkeep, *calls], version))
        except (consensus.Refused, InvalidArgument) as error:
            self._fail(group, len(calls), self._core.public(error))
        else:
            self._proposals.under_way(entry.index, entry.term, group)

    def _version(self) -> int:
        """The newest version of entries that all members are known to read (rule 34).

        A version that is in the log already was known to all when it was written: who cannot read it has to stop there anyway.
        """
        known = self._links.entry_versions
        for member in self._core.raft.membership.members:
            if known.get(member, ENTRY_VERSION_OLDEST) < ENTRY_VERSION and member != self._core.node:
                break
        else:
            return ENTRY_VERSION
        return max(self._look_into_log(), min(map(self._version_read_by, self._core.raft.membership.members)))

    def _look_into_log(self) -> int:
        """The version of the newest entry with operations; a member may be down, so that nobody knows what it reads."""
        journal = self._journal
        last = journal.last_index()
        if self._logged_version == ENTRY_VERSION:
            return ENTRY_VERSION
        for index in range(last, max(last - _LOOK_BACK, journal.first_index() - 1), -1):
            (entry,) = journal.entries(index, index, 0)
            if entry.kind == consensus.COMMANDS:
                self._logged_version = max(self._logged_version, min(version_of_entry(entry), ENTRY_VERSION))
                break
        return self._logged_version

    def _version_read_by(self, member: str) -> int:
        if member == self._core.node:
            return ENTRY_VERSION
        return min(self._links.entry_versions.get(member, ENTRY_VERSION_OLDEST), ENTRY_VERSION)

    def _say(self, version: int) -> None:
        self._said_version = version
        logger.info("Node %s writes entries of version %d: all members read it.", name_of(self._core.node), version)

    def _too_new(
        self, calls: Sequence[Call], version: int, refused: Sequence[KeyspaceError | None]
    ) -> Sequence[KeyspaceError | None]:
        """What is refused, with the operations that some member does not know yet."""
        needed = [version_needed(call) for call in calls]
        if max(needed, default=version) <= version:
            return refused
        members = self._core.raft.membership.members
        older = sorted(name_of(member) for member in members if self._version_read_by(member) < ENTRY_VERSION)
        error = NotSupported(
            f"This operation is newer than some nodes of the cluster: {', '.join(older)} did not say that they know it. "
            "Nothing was changed. Finish the upgrade, and try again."
        )
        return [
            error if need > version else earlier
            for need, earlier in zip(needed, refused or [None] * len(needed), strict=True)
        ]

    def _fail(self, group: Group, count: int, error: KeyspaceError) -> None:
        """Nothing of a group was logged."""
        self._core.answered(count)
        self._proposals.fail(group, error)

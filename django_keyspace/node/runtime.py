"""The runtime of a replicated node: it drives the consensus core, and is the replicated log that the node serves from.

It carries out what ``raft/__init__.py`` asks of a driver, with the parts that ``interfaces.py`` names. Everything happens on one
thread, in short steps: something comes in (a tick, a frame, a proposal, a report of the disk), the core is told, and what it
wants done is carried out. The simulator runs this very class.

The way of a write: :meth:`Runtime.propose` queues it, the next turn of the loop packs what has come together into an entry with
the log time (``proposals.py``), the core replicates it while the disk thread writes it here (``persistence.py``), ``applier.py``
applies it once it is committed, and the results go back to who proposed. The way of a read: ``reading.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from django_keyspace.exceptions import KeyspaceError, NoConnection, NoSpace
from django_keyspace.node import raft as consensus
from django_keyspace.node.applier import Applier
from django_keyspace.node.barrier import Granted, Hold, ScriptBarrier
from django_keyspace.node.changes import Changes, Told
from django_keyspace.node.clock import LogClock
from django_keyspace.node.directory import Directory
from django_keyspace.node.entries import log_time_of, readable_log_time_of
from django_keyspace.node.guard import guarded
from django_keyspace.node.identity import name_of
from django_keyspace.node.incoming import RAFT, core_message, needs_room
from django_keyspace.node.interfaces import Handle
from django_keyspace.node.log import Done
from django_keyspace.node.notices import CommitNotices
from django_keyspace.node.packing import Packer
from django_keyspace.node.parts import Parts, RuntimeStatus
from django_keyspace.node.persistence import Persistence
from django_keyspace.node.proposals import Proposal, Proposals
from django_keyspace.node.raft import BadMessage, Entry, Raft, Role, SnapshotRequest, to_wire
from django_keyspace.node.reading import NodeReads
from django_keyspace.node.snapshot_keeper import KINDS as SNAPSHOT_KINDS
from django_keyspace.node.snapshot_keeper import SnapshotKeeper
from django_keyspace.node.upkeep import Upkeep
from django_keyspace.operations import Call

logger = logging.getLogger("django_keyspace.node")


class Runtime:
    """One node's part in the replicated log.

    Arguments:
        node: this node's id among the members.
        cluster: the cluster's id.
        parts: what it is made of.

    Attributes:
        name: the node's name, for people.
        raft: the consensus core.
        reads: the reads: see :class:`~django_keyspace.node.log.Reads`.
        is_over: whether it has been stopped, or has failed.
        is_full: whether the disk has no room: no writes are taken, and others lead.
        on_group: told of each entry of this node: how many writes, and the seconds that they took.
    """

    def __init__(self, node: str, cluster: str, parts: Parts) -> None:
        self.node = node
        self.cluster = cluster
        self.name = name_of(node)
        self.parts = parts
        self.settings = settings = parts.settings
        self.is_over = False
        self.is_full = False
        self.on_group: Callable[[int, float], None] | None = None
        self._clock = parts.clock
        self._scheduler = scheduler = parts.scheduler
        self._machine = machine = parts.machine
        self._log_clock = LogClock(parts.clock, machine.log_ms)
        self.log_time_ms = machine.now_ms = self._log_clock.now_ms
        self._proposals = Proposals(settings)
        self._barrier = ScriptBarrier(self._is_quiet, self.flush_soon)
        self.let_go = self._barrier.let_go
        self._packer = Packer(self, parts, self._proposals, self._barrier, self._log_clock)
        directory = Directory(self, parts.clock, 2 * settings.election_timeout_ms)
        self.members, self.membership_at = directory.members, directory.membership_at
        self.address_of = directory.address_of
        self.not_leader, self.public, self._no_room = directory.not_leader, directory.public, directory.no_room
        self._set_full, self.waits_for_room = directory.set_full, directory.waits_for_room
        self._changes = Changes(self, scheduler, parts.links, settings.election_timeout_ms)
        self.reads = NodeReads(self, machine, parts.clock, self._log_clock, scheduler, settings)
        self._applier = Applier(machine, scheduler, settings, self._applied, self.fail, self._store_is_full)
        self.read, self.hurry = self.reads.read, self._applier.hurry
        self._keeper = SnapshotKeeper(cluster, self, parts)
        self._upkeep = Upkeep(self, machine, self._keeper, parts.clock, self._log_clock, settings.upkeep_ms)
        self._callbacks: list[Callable[[int], None]] = []
        self.on_commit = self._callbacks.append
        self._answered = 0
        self._notices = CommitNotices(scheduler, lambda: bool(self._proposals.entries), self.flush_soon)
        self._is_pumping = self._flush_scheduled = False
        self._timer: Handle | None = None
        self._last_tick_ms = 0
        self._begin()

    def _begin(self) -> None:
        """Begin from what is durable: at the start, and when a full disk has made a write impossible."""
        parts, applied = self.parts, self._machine.applied_index
        self._persistence = Persistence(self, parts)
        self.raft = Raft(self.node, parts.journal, parts.random, parts.settings.raft, applied=applied)
        self._log_clock.observe(readable_log_time_of(self.raft.newest_commands()))  # now: the time from here on counts
        self.raft.raise_log_time(self._log_clock.last_ms)
        self.raft.set_tells_commits(False)
        self._was, self._has_core = (Role.FOLLOWER, 0), True

    # --- Beginning and end --------------------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """Whether there is a core that takes part."""
        return self._has_core and not self.is_over

    @guarded
    def start(self) -> None:
        """Begin to tick."""
        self._last_tick_ms = self._clock.monotonic_ms()
        self._pump()
        self._timer = self._scheduler.call_later(self.settings.tick_ms, self._tick)

    def fail(self, error: BaseException) -> None:
        """Something happened after which this node must not go on: end the process."""
        if self.is_over:
            return
        reason = str(error) or type(error).__name__
        is_ours = isinstance(error, KeyspaceError | consensus.RaftError)
        state, trace = self.raft.describe(), None if is_ours else error
        logger.critical("Node %s stops: %s At that moment: %s", self.node, reason, state, exc_info=trace)
        self.raft.fail(reason)
        self.kill()
        self.parts.give_up(reason)

    def stop(self) -> None:
        """End it; the journal is closed in good order by who opened it. Call after :meth:`stop_leading` and a drain."""
        if not self.is_over:
            self.kill()
            self._lead_no_more(NoConnection(f"Node {self.name} has stopped."))

    def kill(self) -> None:
        """Forget everything at once, and tell nobody: what a crash does."""
        self.is_over = True
        if self._timer is not None:
            self._timer.cancel()

    # --- Time ---------------------------------------------------------------------------------------------------------

    @guarded
    def _tick(self) -> None:
        self._timer = self._scheduler.call_later(self.settings.tick_ms, self._tick)
        self.pass_time()
        self._persistence.note()
        self._pump()
        if self._proposals.is_waiting:
            self.flush_soon()
        if self.is_running and not self._persistence.is_installing:
            self._barrier.look()  # handing over may have ended without an entry
            self._upkeep.look()

    def pass_time(self) -> None:
        """Deliver the ticks that are due, before anything that came meanwhile (step 11 of the driver's contract)."""
        due = (self._clock.monotonic_ms() - self._last_tick_ms) // self.settings.tick_ms
        if due <= 0 or not self._has_core:
            return
        self._last_tick_ms += due * self.settings.tick_ms
        if self.raft.role is Role.LEADER:
            self.raft.raise_log_time(self._log_clock.now_ms())
        for _ in range(min(due, 2 * self.settings.raft.election_ticks)):
            self.raft.tick()

    # --- Writes -------------------------------------------------------------------------------------------------------

    @property
    def pending_calls(self) -> int:
        """Writes that are accepted and not answered."""
        return self._proposals.calls

    @property
    def pending_bytes(self) -> int:
        """The same in bytes, about."""
        return self._proposals.bytes

    def propose(self, calls: Sequence[Call], size_bytes: int, done: Done) -> None:
        """See :meth:`ReplicatedLog.propose`. Raises :class:`NotLeader`, :class:`NoSpace`, :class:`Overloaded`."""
        self.require_leader()
        self._proposals.put(Proposal(calls, size_bytes, done))
        self.flush_soon()

    def propose_held(self, calls: Sequence[Call], size_bytes: int, done: Done) -> None:
        """See :meth:`ReplicatedLog.propose_held`."""
        self.require_leader()
        self._packer.pack_alone(calls, size_bytes, done)
        self._pump()

    def hold(self, granted: Granted) -> Hold:
        """See :meth:`ReplicatedLog.hold`."""
        self.require_leader()
        return self._barrier.hold(granted)

    @property
    def leads(self) -> bool:
        """Whether this node leads and takes writes."""
        return self.is_running and not self.is_full and self.raft.role is Role.LEADER

    @property
    def may_log(self) -> bool:
        """See :class:`upkeep.Core`."""
        return self.leads and not self._barrier.is_held

    def _is_quiet(self) -> bool:
        """Whether a script may begin: this node leads for sure, and its store has everything that is in the log."""
        is_idle = self._applier.is_idle and not self._proposals.entries and not self.raft.is_handing_over
        return self.leads and is_idle and self.raft.has_applied_all

    def flush_soon(self) -> None:
        """Pack what comes together until the next turn of the loop."""
        if not self._flush_scheduled and not self.is_over:
            self._flush_scheduled = True
            self._scheduler.call_soon(self._flush)

    @guarded
    def _flush(self) -> None:
        """Pack what has come together, and ask a majority for the reads that have."""
        self._flush_scheduled = False
        if not self._has_core:
            return
        self.pass_time()
        self._persistence.note()
        self.reads.ask()
        self._packer.pack_waiting()
        if self._notices.take():
            self.raft.tell_commits()
        self._pump()

    def _applied(self, entries: Sequence[Entry], results: list[list[Any]]) -> None:
        """The state machine has applied entries: answer those who wait for them."""
        for entry, entry_results in zip(entries, results, strict=True):
            self._keeper.applied_bytes += entry.size_bytes
            group = self._proposals.applied(entry.index, entry.term, entry_results)
            if group is not None:
                count = sum(len(proposal.calls) for proposal in group.proposals)
                self._answered += count
                if self.on_group is not None:
                    self.on_group(count, (self._clock.monotonic_ms() - group.began_ms) / 1000)
            if entry.kind == consensus.CHANGE:
                self._changes.applied(entry)
        self.raft.applied(entries[-1].index)
        self.reads.applied(entries[-1].index)
        self._barrier.look()
        if self._proposals.is_waiting:
            self.flush_soon()
        self._pump()

    # --- Other nodes --------------------------------------------------------------------------------------------------

    @guarded
    def receive(self, sender: str, frames: Sequence[tuple[Any, ...]]) -> None:
        """Take what another node has sent.

        Arguments:
            sender: who it is, as its link knows.
            frames: of :meth:`Links.send`, in the order of their arrival.
        Raises:
            BadMessage: one of them makes no sense. What came before it was used.
        """
        if not self._has_core:
            return
        self.pass_time()
        self._persistence.note()
        try:
            for frame in frames:
                self._receive(sender, frame)
        finally:
            self._pump()

    def _receive(self, sender: str, frame: tuple[Any, ...]) -> None:
        kind = frame[0] if frame else None
        if kind in SNAPSHOT_KINDS:
            self._keeper.receive(sender, frame)
            return
        if kind != RAFT:
            raise BadMessage(f"{sender} sent a frame of the unknown kind {kind!r:.40}.")
        message = core_message(sender, frame)
        if self.is_full and needs_room(message):
            return  # as if it were lost
        self.raft.step(message)
        if isinstance(message, consensus.Heartbeat) and message.term >= self.raft.term:
            self.reads.heard_leader(message.leader_commit, message.log_time_ms)

    @guarded
    def peer_lost(self, peer: str, *, is_gone: bool = False) -> None:
        """The link to another node broke, perhaps with messages in it; or (`is_gone`) nobody listens there any more."""
        if self._has_core:
            self.raft.report_unreachable(peer, is_gone=is_gone)
            self._pump()

    @guarded
    def step(self, message: SnapshotRequest) -> None:
        """See :class:`snapshot_keeper.Core`."""
        if self._has_core:
            self.raft.step(message)
            self._pump()

    @guarded
    def report_snapshot(self, peer: str, arrived: bool | None) -> None:
        """See :class:`snapshot_keeper.Core`."""
        if self._has_core:
            self.raft.report_snapshot(peer, arrived=arrived)
            self._pump()

    # --- Changes ------------------------------------------------------------------------------------------------------

    def change(self, change: consensus.Change, told: Told) -> None:
        """Add, promote or remove a member; ``told`` takes None once that is committed, or an error."""
        self._changes.change(change, told)
        self._pump()

    def transfer(self, target: str | None, told: Told) -> None:
        """Hand leadership over to a member, or to whoever has most of the log; ``told`` as for :meth:`change`."""
        self._changes.transfer(target, told)
        self._pump()

    def stop_leading(self, told: Told) -> None:
        """Hand leadership over if there is somebody, before this node goes. ``told`` as for :meth:`change`."""
        if not self.is_running or self.raft.role is not Role.LEADER:
            told(None)
        else:
            self.transfer(None, told)

    # --- Carrying out -------------------------------------------------------------------------------------------------

    @guarded
    def _pump(self) -> None:
        """Carry out what the core wants done, until it wants nothing. Inner calls leave it to the outer one."""
        if self._is_pumping:
            return
        self._is_pumping = True
        try:
            while self.is_running and (ready := self.raft.ready()) is not None:
                self._carry_out(ready)
            if self.is_running:
                self._look_at_role()
        finally:
            self._is_pumping = False
        self._persistence.settle()
        self._tell_answered()

    def _carry_out(self, ready: consensus.Ready) -> None:
        for message in ready.messages:
            if isinstance(message, SnapshotRequest):
                self._keeper.send(message)
            else:
                self.parts.links.send(message.to, (RAFT, *to_wire(message)))
        self._persistence.take(ready)
        if ready.committed:
            leads = self.raft.role is Role.LEADER  # everybody waits for a follower's disk, and few for its store
            self._applier.put(ready.committed, at_once=leads or not ready.entries or self.reads.is_awaited)
            if leads:
                self._notices.committed()
        if ready.reads or ready.refused_reads:
            self.reads.take(ready)

    def _look_at_role(self) -> None:
        """Has this node begun to lead, or ceased to?"""
        now = (self.raft.role, self.raft.term)
        if now == self._was:
            return
        led, self._was = self._was[0] is Role.LEADER, now
        if led:
            logger.info("Node %s does not lead any more (term %d)", self.node, self.raft.term)
            self._lead_no_more(self.not_leader())
        if now[0] is Role.LEADER:
            logger.info("Node %s leads in term %d", self.node, now[1])
            logged_ms = log_time_of(self.raft.newest_commands())  # a former leader's entry may not be applied yet
            self._log_clock.observe(max(self.raft.log_time_ms, self._machine.log_ms, logged_ms))
            self.flush_soon()

    def _lead_no_more(self, refusal: KeyspaceError) -> None:
        self._keeper.stop_sending()
        self._answered += self._proposals.calls
        self._proposals.leadership_ended(refusal)
        if self.is_running:
            self.reads.leadership_ended(refusal)
        else:
            self.reads.refuse_all(refusal)
        self._changes.leadership_ended()
        self._barrier.refuse_all(refusal)
        self._tell_answered()

    def answered(self, count: int, *, now: bool = False) -> None:
        """See :class:`reading.Leading`."""
        self._answered += count
        if now:
            self._tell_answered()

    def _tell_answered(self) -> None:
        if self._answered:
            answered, self._answered = self._answered, 0
            for callback in self._callbacks:
                callback(answered)

    # --- The disk -----------------------------------------------------------------------------------------------------

    @guarded
    def persisted(self, number: int) -> None:
        """See :class:`persistence.Core`."""
        self.pass_time()
        self.raft.persisted(number)
        self._pump()

    @guarded
    def installing(self, *, begins: bool) -> None:
        """See :class:`persistence.Core`."""
        self._keeper.is_installing = begins
        if begins:
            logger.info("Installing a snapshot")
            self._applier.drop()
            self.reads.refuse_all()
        else:
            self._log_clock.observe(self._machine.log_ms)
            self._pump()

    @guarded
    def no_room(self, error: NoSpace) -> None:
        """See :class:`persistence.Core`. The core's wishes are forgotten, as in a crash; it begins from what is durable.

        Nothing that depends on them has left this node. Until there is room, it takes no entries and does not lead.
        """
        logger.error("%s Node %s takes no writes until there is room.", error, self.node)
        self._set_full(True)
        self._persistence.abandon()
        self._applier.drop()
        self._has_core = False
        self.raft.fail("The disk is full.")
        self._lead_no_more(self._no_room())

        again = self._begin_again
        self.parts.writer.call(self.parts.journal.accept_again, lambda _: self._scheduler.call_threadsafe(again))

    @guarded
    def _begin_again(self) -> None:
        if self._applier.is_busy or self._persistence.is_replacing:
            self._scheduler.call_later(self.settings.tick_ms, self._begin_again)
            return
        self._keeper.is_installing = False
        self._last_tick_ms = self._clock.monotonic_ms()
        self._begin()
        self.raft.set_may_lead(False)
        self._pump()

    def _store_is_full(self, is_full: bool) -> None:
        """There is no room for what is committed: it waits, and so does whoever reads here; others may lead."""
        if is_full:
            logger.error("The store of node %s has no room on the disk for what is committed. It waits.", self.node)
        self._set_full(is_full)
        if self._has_core:
            self.raft.set_may_lead(not is_full)

    def has_room_again(self) -> None:
        """See :class:`upkeep.Core`."""
        if not self._applier.is_busy and self.parts.journal.has_room():
            logger.info("Node %s has room on its disk again", self.node)
            self.is_full = False
            self.raft.set_may_lead(True)

    # --- Words --------------------------------------------------------------------------------------------------------

    @property
    def can_read(self) -> bool:
        """See :class:`reading.Leading`."""
        return self.is_running and not self._persistence.is_installing and self.raft.replayed

    def status(self) -> RuntimeStatus:
        """The node at this moment."""
        return RuntimeStatus(
            self.raft.status(),
            self._log_clock.now_ms(),
            self.pending_calls,
            self.is_full or self._keeper.is_short_of_room,
            tuple(snapshot.place for snapshot in self.parts.snapshots.kept),
            self.reads.age_ms,
        )

    @property
    def applied_index(self) -> int:
        """The last entry that this node has applied."""
        return self._machine.applied_index

    def require_leader(self) -> None:
        """Raise the error of a node that takes no writes, if this one does not."""
        if self.is_over:
            raise NoConnection(f"Node {self.name} has stopped. Nothing was done.")
        if self.is_full:
            raise self._no_room()
        if self.raft.role is not Role.LEADER:
            raise self.not_leader()

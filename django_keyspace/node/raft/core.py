"""The public face of the core: :class:`Raft`. Its contract is in the package's docstring."""

from __future__ import annotations

from collections.abc import Callable, Container
from random import Random
from typing import Any, Final

from . import elections, leadership, reads, replication
from .config import Config
from .errors import BadMessage, BrokenInvariant, Refused, Stopped
from .membership import Change, Membership
from .messages import (
    AppendRequest,
    AppendResponse,
    Entry,
    Heartbeat,
    HeartbeatResponse,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    SnapshotRequest,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from .output import Ready, Status, describe, status_of
from .progress import Flow
from .state import Role, State, Unpersisted
from .storage import HardState, LogStorage

HANDLERS: Final[dict[type[Any], Callable[[State, Any], None]]] = {
    PreVoteRequest: elections.on_pre_vote_request,
    PreVoteResponse: elections.on_pre_vote_response,
    VoteRequest: elections.on_vote_request,
    VoteResponse: elections.on_vote_response,
    TimeoutNow: elections.on_timeout_now,
    AppendRequest: replication.on_append_request,
    AppendResponse: replication.on_append_response,
    Heartbeat: replication.on_heartbeat,
    SnapshotRequest: replication.on_snapshot_request,
    HeartbeatResponse: reads.on_heartbeat_response,
}
"""What is done with each message, once its term is settled."""
FROM_LEADERS: Final = (AppendRequest, Heartbeat, SnapshotRequest, TimeoutNow)


class Raft:
    """One node's part in the consensus. Does no input or output, knows no clock but its ticks, and is for one thread.

    Arguments:
        node: this node's id.
        storage: the durable log, with what :func:`bootstrap_snapshot` gave it or an earlier run left there.
        random: a source of its own; only election timeouts and ids of attempts come from it.
        config: limits and times.
        applied: how far the state machine has applied; 0 for an empty one.
    Raises:
        BrokenInvariant: log, hard state and state machine do not fit together.
    """

    def __init__(
        self, node: str, storage: LogStorage, random: Random, config: Config | None = None, *, applied: int = 0
    ) -> None:
        self._state = State(node, config or Config(), storage, random, applied)
        self._why_stopped = ""
        self._the_guard = _Guard(self, self._state)
        self._is_settled = False
        self._has_lease_at_hand = False
        self._lease_at_hand: reads.Lease | None = None

    # --- Input --------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """A tick of the clock has passed."""
        with self._guard() as state:
            state.ticks += 1
            state.history.compact(state.log.first_index - 1)
            if state.is_leader:
                leadership.tick(state)
            else:
                elections.tick(state)

    def step(self, message: Message) -> None:
        """A message has arrived. Messages may be lost, late, doubled and out of order.

        Raises:
            BadMessage: it is not for this node, or cannot be from a sound one; it was not used.
        """
        with self._guard() as state:
            if type(message) not in HANDLERS:
                raise BadMessage(f"{type(message).__name__} is no message between cores.")
            if message.to != state.node or message.sender == state.node:
                raise BadMessage(f"A message from {message.sender} to {message.to} came to {state.node}.")
            self._step(state, message)

    def propose(self, data: bytes) -> Entry:
        """Put an entry into the log, if this node leads.

        Arguments:
            data: the driver's commands.
        Returns:
            The entry. It is committed if an entry of this index *and this term* comes out as committed; if another term's
            does, it is lost. If leadership ends before either, nobody knows yet.
        Raises:
            NotLeader, Overloaded, EntryTooLarge: nothing was changed.
        """
        with self._guard() as state:
            return leadership.propose(state, data)

    def propose_change(self, change: Change) -> Entry:
        """Add, promote or remove one member, if this node leads.

        Returns:
            The entry, as of :meth:`propose`. The change holds as soon as it is in a log.
        Raises:
            NotLeader, ChangeRefused: nothing was changed.
        """
        with self._guard() as state:
            return leadership.propose_change(state, change)

    def read_index(self, *, lease: bool = False) -> int:
        """Ask when a read that comes now may be answered, if this node leads.

        Arguments:
            lease: answer at once while the lease holds, if leases are configured; otherwise like any other read.
        Returns:
            An id that is never used again; it comes back in :attr:`Ready.reads` or :attr:`Ready.refused_reads`.
        Raises:
            NotLeader, Overloaded: nothing was changed.
        """
        with self._guard() as state:
            return reads.read_index(state, lease)

    def transfer(self, target: str | None = None) -> str:
        """Hand leadership to another voter; proposals are refused until it has it, or an election timeout has passed.

        Arguments:
            target: whom to; None for the one that has most of the log.
        Returns:
            The target's id.
        Raises:
            NotLeader, TransferRefused: nothing was changed.
        """
        with self._guard() as state:
            return leadership.transfer(state, target)

    def successor(self, avoid: Container[str] = ()) -> str | None:
        """The voter that would take over best: it was heard lately, and has most of the log.

        Arguments:
            avoid: those that come after all others.
        Returns:
            Its id; None if no other voter was heard, or this node does not lead.
        """
        with self._guard() as state:
            return replication.best_successor(state, avoid)

    def set_may_lead(self, may_lead: bool) -> None:
        """Whether this node may lead or try to: not while its disk is full or it shuts down. A leader steps down."""
        with self._guard() as state:
            state.may_lead = may_lead
            if not may_lead and state.role is not Role.FOLLOWER:
                state.become_follower(state.term, None)

    def set_tells_commits(self, tells: bool) -> None:
        """Whether peers are told what is committed as soon as it is; else with the next message, or by :meth:`tell_commits`."""
        with self._guard() as state:
            state.tells_commits = tells

    def tell_commits(self) -> None:
        """Of a leader: tell peers what is committed, unless a message has."""
        with self._guard() as state:
            for peer, progress in state.peers.items() if state.is_leader else ():
                if progress.match > progress.sent_commit < state.log.commit:
                    replication.tell_commit(state, peer, progress)

    def raise_log_time(self, log_time_ms: int) -> None:
        """Tell the log clock; heartbeats and votes carry the latest to the others. The core does not look at it."""
        with self._guard() as state:
            state.log_time_ms = max(state.log_time_ms, log_time_ms)

    def report_snapshot(self, peer: str, *, arrived: bool | None) -> None:
        """How the transfer of a snapshot goes.

        Arguments:
            arrived: True when the peer has said that it stepped the request; False if the transfer failed; None if it
                moves.
        """
        with self._guard() as state:
            progress = state.peers.get(peer)
            if progress is None or progress.flow is not Flow.SNAPSHOT:
                return
            if arrived is None:
                progress.snapshot_tick = state.ticks
            elif arrived:
                progress.become_probe()
            else:
                progress.snapshot_failed()

    def report_unreachable(self, peer: str, *, is_gone: bool = False) -> None:
        """A connection broke with appends in it: find out what arrived instead of waiting for answers.

        Arguments:
            is_gone: the peer's process has ended, for all that can be seen. Nobody waits an election timeout for a leader that
                is gone, unless it may answer reads by a lease: then it has this node's promise to wait. That this may be
                wrong does no harm: those who still hear the leader refuse the pre-vote.
        """
        with self._guard() as state:
            if is_gone and peer == state.leader and not state.is_leader and state.config.lease_drift_max is None:
                state.leader_is_gone()
            progress = state.peers.get(peer)
            if progress is not None and progress.flow is Flow.REPLICATE:
                progress.become_probe()

    # --- Output -------------------------------------------------------------------------------------------------------

    def ready(self) -> Ready | None:
        """Take what there is to do; None if there is nothing. Earlier ones need not be finished."""
        if self._is_settled and not self._why_stopped:
            return None  # nothing has come in since the last one took everything
        with self._guard() as state:
            self._is_settled = True
            self._has_lease_at_hand = False
            if state.is_leader:
                reads.begin_due_round(state)
                replication.send_appends(state)
            if not self._has_ready(state):
                return None
            number = state.handed_number + 1
            snapshot, state.snapshot_to_install = state.snapshot_to_install, None
            entries = state.log.take_writes(number, snapshot)
            committed = state.log.take_committed(state.config.apply_bytes_max)
            hard = HardState(state.term, state.vote, state.log.commit)
            must_sync = bool(entries) or snapshot is not None or hard[:2] != state.handed_hard[:2]
            result = Ready(
                number,
                tuple(state.outbox),
                snapshot,
                entries,
                hard if hard != state.handed_hard else None,
                must_sync,
                committed,
                tuple(state.reads.done),
                tuple(state.reads.refused),
            )
            state.handed_number = number
            state.handed_hard = hard
            state.outbox = []
            state.reads.done = []
            state.reads.refused = []
            if must_sync:
                state.unpersisted.append(Unpersisted(number, state.ticks))
            elif not state.unpersisted:
                state.persisted_number = number
            self._is_settled = not state.log.can_take_committed(state.config.apply_bytes_max)
            return result

    def _has_ready(self, state: State) -> bool:
        return bool(
            state.outbox
            or state.reads.done
            or state.reads.refused
            or state.snapshot_to_install
            or state.log.has_writes
            or state.log.can_take_committed(state.config.apply_bytes_max)
            or (state.term, state.vote, state.log.commit) != state.handed_hard
        )

    def persisted(self, number: int) -> None:
        """What the `Ready` of this number and all earlier ones asked to write is durable.

        Arguments:
            number: of a `Ready` whose `must_sync` is true; others need no report.
        Raises:
            BrokenInvariant: no such `Ready` waits for that.
        """
        with self._guard() as state:
            waiting = state.unpersisted
            if all(number != one.number for one in waiting):
                raise BrokenInvariant(
                    f"Ready {number} was reported as persisted, and there was nothing in it to wait for."
                )
            while waiting and waiting[0].number <= number:
                waiting.popleft()
            state.persisted_number = number if waiting else state.handed_number
            state.log.persisted(number)
            for message in state.take_released():
                if message.to == state.node:
                    self._step(state, message)
                else:
                    state.outbox.append(message)
            if state.is_leader and state.log.stable > state.log.commit:
                replication.advance_commit(state)

    def applied(self, index: int) -> None:
        """The state machine has applied everything up to `index`."""
        with self._guard() as state:
            state.log.applied_to(index)

    def advance(self, ready: Ready) -> None:
        """Everything in a `Ready` is done: written and applied. For drivers that do one after the other."""
        if ready.must_sync:
            self.persisted(ready.number)
        if ready.committed:
            self.applied(ready.committed[-1].index)

    # --- The end ------------------------------------------------------------------------------------------------------

    def fail(self, reason: str) -> None:
        """Stop for good, because something could not be written: what is durable now is known to nobody (rule 42)."""
        self._why_stopped = self._why_stopped or reason

    @property
    def stopped(self) -> str:
        """Why the core has stopped; empty if it has not."""
        return self._why_stopped

    def _guard(self) -> _Guard:
        if self._why_stopped:
            raise Stopped(f"This node's consensus has stopped: {self._why_stopped} Restart the node.")
        self._is_settled = False  # whoever comes in may change what there is to do
        return self._the_guard

    # --- Looking ------------------------------------------------------------------------------------------------------

    @property
    def role(self) -> Role:
        """What this node is."""
        return self._state.role

    @property
    def term(self) -> int:
        """The highest term that it has seen."""
        return self._state.term

    @property
    def leader(self) -> str | None:
        """Who leads, as far as it knows."""
        return self._state.leader

    @property
    def membership(self) -> Membership:
        """The members, by the latest entry in the log, committed or not."""
        return self._state.membership

    @property
    def replayed(self) -> bool:
        """Whether the state machine has applied what was known to be committed at the start (rule 23)."""
        return self._state.log.applied >= self._state.commit_at_start

    @property
    def log_time_ms(self) -> int:
        """The latest log time that any message carried."""
        return self._state.log_time_ms

    @property
    def confirmed_log_time_ms(self) -> int:
        """Of a leader: the latest log time of which a majority knows for sure, by a round of heartbeats that it answered."""
        return reads.confirmed_log_time_ms(self._state)

    @property
    def quorum_contact_ticks(self) -> int:
        """Of a leader: how many ticks ago, at most, the last round began that a majority has answered."""
        return reads.quorum_contact_ticks(self._state)

    @property
    def lease(self) -> reads.Lease | None:
        """Of a leader whose lease holds at this tick: what a read by lease has to see. None without a lease."""
        if not self._is_settled:
            return reads.lease(self._state)
        if not self._has_lease_at_hand:
            self._lease_at_hand = reads.lease(self._state)
            self._has_lease_at_hand = True
        return self._lease_at_hand

    @property
    def awaits_disk(self) -> bool:
        """Whether something may wait for what is being written here. Not as long as a leader waits for its peers anyway."""
        state = self._state
        if not state.is_leader or state.held or len(state.membership.voters) == 1:
            return True
        stable = state.log.stable
        return max([progress.match for progress in state.peers.values()], default=0) > stable

    @property
    def has_applied_all(self) -> bool:
        """Of a leader: whether everything in its log is committed and applied, its own first entry too."""
        log = self._state.log
        return self._state.has_committed_in_term and log.applied == log.last_index

    @property
    def is_handing_over(self) -> bool:
        """Of a leader: whether another node is to be elected, so that it takes no proposals."""
        return self._state.transferee is not None

    def newest_commands(self) -> Entry | None:
        """The last of the driver's entries in the log that is not applied yet, committed or not; None if there is none."""
        with self._guard() as state:
            return state.log.newest_commands()

    def describe(self) -> str:
        """One line for logs: who, what, where in the log. It reads nothing from the storage."""
        return describe(self._state)

    def membership_at(self, index: int) -> Membership:
        """The members as of an applied index; what a snapshot up to that index has to hold (rule 37).

        Raises:
            Refused: the core has taken a newer snapshot; do not make this one.
        """
        return self._state.history.at(index)

    def status(self) -> Status:
        """The core at this moment."""
        return status_of(self._state)

    # --- Terms --------------------------------------------------------------------------------------------------------

    def _step(self, state: State, message: Message) -> None:
        """Settle the term, which comes before anything else (rule 2), then do what the message says."""
        if message.term > state.term:
            if not self._take_term(state, message):
                return
        elif message.term < state.term and not self._may_use_old(state, message):
            return
        HANDLERS[type(message)](state, message)

    def _take_term(self, state: State, message: Message) -> bool:
        """A message of a higher term: follow in that term. Returns whether the message is used."""
        if isinstance(message, PreVoteRequest):
            return True  # It changes no term; that is what it is for.
        if isinstance(message, VoteRequest) and (state.is_new_here or (state.hears_leader and not message.forced)):
            return False
        leader = message.sender if isinstance(message, FROM_LEADERS) else None
        state.become_follower(message.term, leader)
        return True

    def _may_use_old(self, state: State, message: Message) -> bool:
        """A message of a lower term: answer requests with the term, so that their sender can catch up (rule 7)."""
        if isinstance(message, PreVoteRequest | PreVoteResponse):
            return True  # A voter of a lower term may say that it would vote for a higher one.
        if isinstance(message, FROM_LEADERS):
            state.send(AppendResponse(message.sender, state.node, state.term, False, 0, 0, 0))
        elif isinstance(message, VoteRequest):
            state.send(VoteResponse(message.sender, state.node, state.term, False, state.log_time_ms))
        return False


class _Guard:
    """Stops the core for good when an invariant breaks while it is used, or something unforeseen happens (rule 52)."""

    __slots__ = ("_raft", "_state")

    def __init__(self, raft: Raft, state: State) -> None:
        self._raft = raft
        self._state = state

    def __enter__(self) -> State:
        return self._state

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, Refused | BadMessage):
            return
        # Whatever else it was, it may have left half of something behind.
        self._state.outbox = []
        self._state.held = []
        self._raft.fail(f"{type(error).__name__}: {error} At that moment: {self._raft.describe()}.")

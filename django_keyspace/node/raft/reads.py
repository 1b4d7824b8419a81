"""Reads that see all earlier writes, without writing: ReadIndex by heartbeat rounds, and leases.

A read notes the commit index and waits until a majority has answered a heartbeat round that *began after the read came*:
nobody else can have led when it began. Rounds are numbered and never reused, so an answer that was under way during a pause
confirms only what was asked before the pause (rule 20). All reads that come in while a round is under way share the next.

A lease is the promise of a majority not to elect another leader for some time after a round was sent. It is counted in
ticks, so the driver has to deliver the ticks that are due before it asks (see the contract).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from .errors import Overloaded
from .messages import Heartbeat, HeartbeatResponse
from .quorum import reached_by_majority

if TYPE_CHECKING:
    from .state import State


class ReadState(NamedTuple):
    """A read may be answered from the state machine once that has applied `index`."""

    read_id: int
    index: int  # type: ignore[assignment]  # tuple.index is not needed here


class Lease(NamedTuple):
    """What a read by lease has to see, and the latest log time of which a majority has heard from this leader."""

    index: int  # type: ignore[assignment]  # tuple.index is not needed here
    log_time_ms: int


class _Pending(NamedTuple):
    """A read that waits for a majority's answer to `round`, which carried that log time."""

    read_id: int
    index: int  # type: ignore[assignment]  # tuple.index is not needed here
    round: int
    log_time_ms: int


class Reads:
    """A leader's reads, from their arrival to their confirmation."""

    __slots__ = ("confirmed_log_time_ms", "done", "pending", "refused", "starts", "waiting")

    def __init__(self) -> None:
        self.confirmed_log_time_ms = 0
        """The latest log time of a round that confirmed reads."""
        self.waiting: list[int] = []
        """Came after the last round began."""
        self.pending: deque[_Pending] = deque()
        self.done: list[ReadState] = []
        self.refused: list[int] = []
        self.starts: deque[tuple[int, int, int]] = deque()
        """(tick, first round that began in it, log time that it carried), oldest first."""

    @property
    def count(self) -> int:
        """Reads that are not confirmed."""
        return len(self.waiting) + len(self.pending)

    def refuse_all(self) -> None:
        """Leadership ended: nobody can say any more what these reads would see."""
        self.refused.extend(read.read_id for read in self.pending)
        self.refused.extend(self.waiting)
        self.waiting = []
        self.pending.clear()
        self.starts.clear()
        self.confirmed_log_time_ms = 0


def read_index(state: State, by_lease: bool) -> int:
    """Take a read; its id comes back in a `Ready`, as done or as refused.

    Arguments:
        by_lease: answer at once if the lease holds.
    Raises:
        NotLeader: ask that node.
        Overloaded: too many reads are waiting.
    """
    state.require_leader()
    if state.reads.count + len(state.reads.done) >= state.config.reads_max:
        raise Overloaded(
            f"{state.config.reads_max:,} reads are waiting for a majority. Nothing was changed. Try again later."
        )
    state.read_id += 1
    if by_lease and lease(state) is not None:
        state.reads.done.append(ReadState(state.read_id, state.log.commit))
    else:
        state.reads.waiting.append(state.read_id)
    return state.read_id


def begin_due_round(state: State) -> None:
    """Begin a round for the reads that wait, unless one is under way that others wait for."""
    if state.reads.waiting and not state.reads.pending and state.has_committed_in_term:
        begin_round(state)


def begin_round(state: State) -> None:
    """Send a heartbeat to everybody; the reads that wait join this round."""
    reads = state.reads
    state.round += 1
    if not reads.starts or reads.starts[-1][0] != state.ticks:
        reads.starts.append((state.ticks, state.round, state.log_time_ms))
        while reads.starts[0][0] < state.ticks - state.config.election_ticks:
            reads.starts.popleft()
    if state.has_committed_in_term:
        # Before that a new leader may not know of the latest commits (rule 19).
        reads.pending.extend(
            _Pending(read_id, state.log.commit, state.round, state.log_time_ms) for read_id in reads.waiting
        )
        reads.waiting = []
    acknowledged = state.may_be_acknowledged
    for peer, progress in state.peers.items():
        progress.sent_commit = commit = min(progress.match, state.log.commit)
        state.send(Heartbeat(peer, state.node, state.term, commit, state.round, state.log_time_ms, acknowledged))
    confirm_reads(state)


def on_heartbeat_response(state: State, message: HeartbeatResponse) -> None:
    """A peer answered a round: it counts for all reads that joined that round or an earlier one."""
    progress = state.peers.get(message.sender)
    if not state.is_leader or progress is None:
        return
    state.log_time_ms = max(state.log_time_ms, message.log_time_ms)
    progress.heard_tick = state.ticks
    if message.round <= state.round:
        progress.round = max(progress.round, message.round)
    progress.probing = False
    progress.check = progress.match < state.log.last_index
    confirm_reads(state)


def confirmed_round(state: State) -> int:
    """The last round that a majority has answered."""
    peers, own = state.peers, state.node
    return reached_by_majority(
        [state.round if voter == own else peers[voter].round for voter in state.membership.voters]
    )


def confirm_reads(state: State) -> None:
    """Finish the reads whose round a majority has answered."""
    pending = state.reads.pending
    if pending:
        confirmed = confirmed_round(state)
        while pending and pending[0].round <= confirmed:
            read = pending.popleft()
            state.reads.done.append(ReadState(read.read_id, read.index))
            state.reads.confirmed_log_time_ms = read.log_time_ms


def lease(state: State) -> Lease | None:
    """What a read may see now if no other leader can have been elected yet; otherwise None.

    The confirmed round was sent at or after the tick in which it began, and this tick may be almost over: the time since is
    less than one tick more than the difference. See :attr:`Config.lease_ticks` for the other side.
    """
    if state.config.lease_drift_max is None or state.lease_given_up or not state.has_committed_in_term:
        return None
    confirmed = confirmed_round(state)
    for tick, first_round, log_time_ms in reversed(state.reads.starts):
        if first_round <= confirmed:
            if state.ticks - tick + 1 > state.config.lease_ticks:
                return None
            return Lease(state.log.commit, max(state.reads.confirmed_log_time_ms, log_time_ms))
    return None


def confirmed_log_time_ms(state: State) -> int:
    """The latest log time of which a majority has heard from this leader, as far as its answers say."""
    if not state.is_leader:
        return 0
    confirmed = confirmed_round(state)
    heard = [log_time_ms for _, first_round, log_time_ms in state.reads.starts if first_round <= confirmed]
    return max(state.reads.confirmed_log_time_ms, *heard[-1:], 0)


def quorum_contact_ticks(state: State) -> int:
    """How many ticks ago, at most, the last round began that a majority has answered; of a leader."""
    confirmed = confirmed_round(state) if state.is_leader else -1
    started = [tick for tick, first_round, _ in state.reads.starts if first_round <= confirmed]
    return state.ticks - started[-1] if started else state.config.election_ticks

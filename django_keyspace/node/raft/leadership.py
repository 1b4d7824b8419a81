"""What a leader does beside replicating: its clock ticks, proposals, changes of membership, handing over."""

from __future__ import annotations

from . import reads, replication
from .errors import ChangeRefused, EntryTooLarge, Overloaded, TransferRefused
from .membership import PROMOTE, REMOVE, Change, Membership
from .messages import CHANGE, COMMANDS, Entry
from .progress import Flow, Progress
from .quorum import majority
from .state import State


def tick(state: State) -> None:
    """Step down if this node should not lead any more; give up what takes too long; send heartbeats."""
    if must_step_down(state):
        state.become_follower(state.term, None)
        return
    if state.transferee is not None and state.ticks - state.transfer_tick >= state.config.election_ticks:
        state.transferee = None
    for progress in state.peers.values():
        if progress.flow is Flow.SNAPSHOT and state.ticks - progress.snapshot_tick >= state.config.snapshot_ticks:
            progress.snapshot_failed()
    if state.ticks % state.config.heartbeat_ticks == 0:
        reads.begin_round(state)
        hand_over(state)


def must_step_down(state: State) -> bool:
    """Whether this leader is of no use: it hears no majority (rule 6), or its disk does not answer (rule 47)."""
    return lost_quorum(state) or state.disk_is_stuck


def lost_quorum(state: State) -> bool:
    """Whether no majority answered within an election timeout."""
    return state.config.check_quorum and not can_decide(state, state.membership)


def can_decide(state: State, membership: Membership) -> bool:
    """Whether a majority of a membership's voters answered lately."""
    heard = [
        voter
        for voter in membership.voters
        if voter == state.node or (voter in state.peers and replication.is_heard(state, state.peers[voter]))
    ]
    return len(heard) >= majority(len(membership.voters))


# --- Proposals --------------------------------------------------------------------------------------------------------


def propose(state: State, data: bytes) -> Entry:
    """Put commands into the log. See :meth:`Raft.propose`."""
    state.require_leader()
    if state.transferee is not None:
        raise Overloaded(
            f"Leadership is being handed to {state.transferee}. Nothing was changed. Try again in a moment."
        )
    if len(data) > state.config.entry_bytes_max:
        raise EntryTooLarge(
            f"The entry has {len(data):,} bytes and the limit is {state.config.entry_bytes_max:,}. Nothing was changed."
        )
    if not has_room(state, len(data)):
        raise Overloaded(
            f"{len(state.uncommitted):,} entries of {state.uncommitted_bytes:,} bytes wait for a majority. "
            "Nothing was changed. Try again later."
        )
    return replication.append_own(state, COMMANDS, data)


def has_room(state: State, size_bytes: int) -> bool:
    """Whether one more proposal may wait for a majority. One that is larger than the bound may, if it is alone."""
    if len(state.uncommitted) >= state.config.uncommitted_entries_max:
        return False
    return not state.uncommitted or state.uncommitted_bytes + size_bytes <= state.config.uncommitted_bytes_max


# --- Changes of membership --------------------------------------------------------------------------------------------


def propose_change(state: State, change: Change) -> Entry:
    """Put one change into the log; it holds at once. See :meth:`Raft.propose_change`."""
    state.require_leader()
    require_changeable(state)
    after = state.membership.after(change)
    if len(after.members) > state.config.members_max:
        raise ChangeRefused(f"A cluster has {state.config.members_max} members at most. Nothing was changed.")
    if change.kind == PROMOTE:
        require_caught_up(state, change.node)
    if change.kind in (PROMOTE, REMOVE):
        require_still_decides(state, after)
    entry = replication.append_own(state, CHANGE, after.to_bytes())
    for member in after.members:
        if member != state.node and member not in state.peers:
            state.peers[member] = Progress(entry.index, state.ticks)
    for peer in [peer for peer in state.peers if peer not in after.members]:
        del state.peers[peer]
    return entry


def require_changeable(state: State) -> None:
    """One change at a time, and only from what is known to be committed (rule 39).

    A leader that has not committed an entry of its own term may not know that another leader's change is still open: two
    memberships that differ by two changes need not have a majority in common. This is the correction of 2015.
    """
    if not state.has_committed_in_term:
        raise ChangeRefused(
            "This leader is new and has not committed anything yet. Nothing was changed. Try again in a moment."
        )
    if state.history.latest_index > state.log.commit:
        raise ChangeRefused(
            "Another change of membership is not committed yet. Nothing was changed. Try again in a moment."
        )
    if state.transferee is not None:
        raise ChangeRefused(
            f"Leadership is being handed to {state.transferee}. Nothing was changed. Try again in a moment."
        )


def require_caught_up(state: State, learner: str) -> None:
    """A learner that is far behind would count for majorities and help none (rule 40)."""
    progress = state.peers[learner]
    lag = state.log.last_index - progress.match
    if progress.flow is not Flow.REPLICATE or lag > state.config.promote_lag_max:
        raise ChangeRefused(
            f"{learner} is {lag:,} entries behind, and may be {state.config.promote_lag_max:,} at most to be promoted. "
            "Nothing was changed. Wait until it has caught up."
        )


def require_still_decides(state: State, after: Membership) -> None:
    """A change that would leave the cluster without a majority that answers is refused (rule 41)."""
    if not can_decide(state, after):
        raise ChangeRefused(
            f"Of the voters that would remain ({', '.join(after.voters)}), too few answer to decide anything. "
            "Nothing was changed. Bring nodes back first."
        )


# --- Handing over -----------------------------------------------------------------------------------------------------


def transfer(state: State, target: str | None) -> str:
    """Have another node elected. See :meth:`Raft.transfer`."""
    state.require_leader()
    if state.transferee is not None:
        raise TransferRefused(f"Leadership is being handed to {state.transferee} already. Nothing was changed.")
    if target is None:
        target = replication.best_successor(state)
    if target is None:
        raise TransferRefused("No other voter answers, so nobody could take over. Nothing was changed.")
    if target == state.node or target not in state.membership.voters:
        raise TransferRefused(f"{target!r} is not another voter, so it cannot take over. Nothing was changed.")
    state.transferee = target
    state.transfer_tick = state.ticks
    hand_over(state)
    return target


def hand_over(state: State) -> None:
    """Have the one who is to take over elected, if it has the whole log. Again with each heartbeat: the message may get lost, or
    come to a node that has started within an election timeout, and such a node does not stand."""
    target = state.transferee
    if target is not None and target in state.peers and state.peers[target].match == state.log.last_index:
        replication.send_timeout_now(state, target)

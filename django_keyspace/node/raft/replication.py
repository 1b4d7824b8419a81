"""Replication: the leader's appends and commits, and what a follower does with them."""

from __future__ import annotations

from collections.abc import Container

from .errors import BadMessage, require
from .messages import (
    AppendRequest,
    AppendResponse,
    Entry,
    Heartbeat,
    HeartbeatResponse,
    SnapshotMeta,
    SnapshotRequest,
    TimeoutNow,
)
from .progress import Flow, Progress
from .quorum import reached_by_majority
from .state import Role, State

# --- The leader: sending ----------------------------------------------------------------------------------------------


def append_own(state: State, kind: int, data: bytes) -> Entry:
    """Put an entry of this leader's term into its log. It is sent with the next `Ready`."""
    entry = Entry(state.log.last_index + 1, state.term, kind, data)
    state.append(entry)
    state.uncommitted.append((entry.index, entry.size_bytes))
    state.uncommitted_bytes += entry.size_bytes
    return entry


def send_appends(state: State) -> None:
    """Send every peer what it lacks, as far as its window allows, and what is committed."""
    last_index, committed = state.log.last_index, state.log.commit
    for peer, progress in state.peers.items():
        while progress.next_index <= last_index and progress.has_room(state.config):
            send_append(state, peer, progress, with_entries=True)
        if progress.check:
            progress.check = False
            # Whoever is probed for a place at the log's end gets an empty one: it may have said that it took a snapshot, and
            # have lost it before it was its log.
            if progress.flow is Flow.REPLICATE or (progress.flow is Flow.PROBE and not progress.probing):
                send_append(state, peer, progress, with_entries=False)
        if state.tells_commits and progress.match > progress.sent_commit < committed:
            tell_commit(state, peer, progress)


def tell_commit(state: State, peer: str, progress: Progress) -> None:
    """Tell a peer what is committed of what it has."""
    progress.sent_commit = commit = min(progress.match, state.log.commit)
    state.send(Heartbeat(peer, state.node, state.term, commit, 0, state.log_time_ms, state.may_be_acknowledged))


def send_append(state: State, peer: str, progress: Progress, with_entries: bool) -> None:
    """Send one append, or a snapshot if what the peer needs is compacted."""
    prev_index = progress.next_index - 1
    prev_term = state.log.term(prev_index)
    if prev_term is None or progress.next_index < state.log.first_index:
        send_snapshot(state, peer, progress)
        return
    entries: tuple[Entry, ...] = ()
    if with_entries:
        config = state.config
        entries = state.log.entries(progress.next_index, config.append_bytes_max, config.append_entries_max)
    progress.sent(prev_index + len(entries), sum([entry.size_bytes for entry in entries]))
    commit = state.log.commit
    progress.sent_commit = max(progress.sent_commit, min(commit, prev_index + len(entries)))
    state.send(AppendRequest(peer, state.node, state.term, prev_index, prev_term, entries, commit))


def send_snapshot(state: State, peer: str, progress: Progress) -> None:
    """Tell a peer which snapshot it gets. The driver sees this message and sends the snapshot along."""
    snapshot = state.storage.snapshot()
    require(
        snapshot.index >= state.log.first_index - 1,
        f"The log begins at {state.log.first_index} and the newest snapshot ends at {snapshot.index}: entries are missing.",
    )
    progress.become_snapshot(snapshot.index, state.ticks)
    state.send(SnapshotRequest(peer, state.node, state.term, snapshot))


# --- The leader: answers ----------------------------------------------------------------------------------------------


def on_append_response(state: State, message: AppendResponse) -> None:
    """A peer took an append, or its log differs."""
    progress = state.peers.get(message.sender)
    if not state.is_leader or progress is None:
        return
    if message.accepted and message.index > state.log.last_index:
        raise BadMessage(f"{message.sender} says that it has entry {message.index}, which this leader has not made.")
    progress.heard_tick = state.ticks
    if message.accepted:
        accept(state, message.sender, progress, message.index)
    elif not progress.is_stale_rejection(message.index):
        hint_index, _ = state.log.last_possible_match(message.hint_index, message.hint_term)
        progress.rejected(message.index, hint_index)


def accept(state: State, peer: str, progress: Progress, index: int) -> None:
    """A peer's log is durable and equal up to `index`."""
    progress.accepted(index)
    if progress.flow is Flow.PROBE or (
        progress.flow is Flow.SNAPSHOT and progress.match >= min(progress.pending_snapshot, state.log.first_index - 1)
    ):
        progress.become_replicate()
    if progress.match > state.log.commit:
        advance_commit(state)
    if state.is_leader and state.transferee == peer and progress.match == state.log.last_index:
        send_timeout_now(state, peer)


def send_timeout_now(state: State, peer: str) -> None:
    """Have a peer elected. Votes may be granted against this leader's lease from now on, and be counted much later."""
    state.lease_given_up = True
    state.send(TimeoutNow(peer, state.node, state.term))


def own_match(state: State) -> int:
    """How far this leader's own log counts: as far as it is durable (rule 1)."""
    return state.log.stable


def majority_match(state: State) -> int:
    """The last index that a majority of the voters has."""
    peers, own = state.peers, state.node
    return reached_by_majority(
        [own_match(state) if voter == own else peers[voter].match for voter in state.membership.voters]
    )


def may_commit(state: State, index: int) -> bool:
    """Whether an entry that a majority has is committed by that: only one of this term is (rule 14, figure 8)."""
    return state.log.term(index) == state.term


def advance_commit(state: State) -> None:
    """Commit what a majority has; leave if that was this leader's own removal."""
    index = majority_match(state)
    if index <= state.log.commit or not may_commit(state, index):
        return
    state.log.commit_to(index)
    while state.uncommitted and state.uncommitted[0][0] <= index:
        state.uncommitted_bytes -= state.uncommitted.popleft()[1]
    if not state.is_voter and state.history.latest_index <= index:
        retire(state)


def retire(state: State) -> None:
    """This leader's removal is committed: tell the others, have the best of them elected, and follow (rule 40)."""
    send_appends(state)
    successor = best_successor(state)
    if successor is not None:
        send_timeout_now(state, successor)
    state.become_follower(state.term, None)


def best_successor(state: State, avoid: Container[str] = ()) -> str | None:
    """The voter that has most of the log, among those that were heard lately; one to be avoided only if there is no other."""
    candidates = [
        (peer not in avoid, progress.match, peer)
        for peer, progress in state.peers.items()
        if peer in state.membership.voters and is_heard(state, progress)
    ]
    return max(candidates, default=(False, 0, None))[2]


def is_heard(state: State, progress: Progress) -> bool:
    """Whether a peer answered within an election timeout."""
    return state.ticks - progress.heard_tick < state.config.election_ticks


# --- The follower -----------------------------------------------------------------------------------------------------


def follow(state: State, leader: str) -> None:
    """A message of this term's leader came."""
    if state.is_leader or state.leader not in (None, leader):
        require(False, f"{leader} leads in term {state.term}, and so does {state.leader}.")
    if state.role is not Role.FOLLOWER:
        state.become_follower(state.term, leader)
    state.leader = leader
    state.elapsed_ticks = 0


def on_append_request(state: State, message: AppendRequest) -> None:
    """Take the leader's entries if they fit."""
    follow(state, message.sender)
    if not fits(state, message):
        hint_index, hint_term = state.log.last_possible_match(message.prev_index, message.prev_term)
        state.send(
            AppendResponse(message.sender, state.node, state.term, False, message.prev_index, hint_index, hint_term)
        )
        return
    verified = take_entries(state, message)
    state.log.commit_to(follower_commit(message, verified))
    answer(state, message.sender, verified)


def fits(state: State, message: AppendRequest) -> bool:
    """Whether the entries join this log without a gap. Compacted places fit: they are committed, and so equal everywhere."""
    log = state.log
    return message.prev_index < log.first_index - 1 or log.matches(message.prev_index, message.prev_term)


def take_entries(state: State, message: AppendRequest) -> int:
    """Append what is missing; drop the log's own end only where it differs.

    Returns:
        The last index that is proven to be as the leader has it: by this message, or because it is committed; not the
        log's last one (rule 13).
    """
    entries = [entry for entry in message.entries if entry.index >= state.log.first_index]
    position = state.log.first_conflict(entries)
    if position is not None:
        new = entries[position:]
        if new[0].index <= state.log.last_index:
            state.truncate_from(new[0].index)
        for entry in new:
            state.append(entry)
    return max(message.prev_index + len(message.entries), state.log.commit)


def follower_commit(message: AppendRequest, verified: int) -> int:
    """How far a follower may take the log as committed (rule 15)."""
    return min(message.commit, verified)


def answer(state: State, leader: str, index: int) -> None:
    """Acknowledge, once it is durable, that the log is as the leader's up to `index`."""
    state.send(AppendResponse(leader, state.node, state.term, True, index, 0, 0))


def on_heartbeat(state: State, message: Heartbeat) -> None:
    """The leader is there. It counts this node up to `commit`, so the entries must be here (rule 10)."""
    follow(state, message.sender)
    state.log_time_ms = max(state.log_time_ms, message.log_time_ms)
    state.log.commit_to(message.commit)
    if message.round:
        state.send(HeartbeatResponse(message.sender, state.node, state.term, message.round, state.log_time_ms))


def is_old(state: State, snapshot: SnapshotMeta) -> bool:
    """Whether a snapshot has nothing that is not committed here already."""
    return snapshot.index <= state.log.commit


def on_snapshot_request(state: State, message: SnapshotRequest) -> None:
    """A whole snapshot has arrived and lies aside: begin anew from it, unless the log has all that already (rule 36)."""
    follow(state, message.sender)
    snapshot = message.snapshot
    if is_old(state, snapshot):
        answer(state, message.sender, state.log.commit)
        return
    if state.log.matches(snapshot.index, snapshot.term):
        # The log has it, and perhaps more: keep that (rule 35).
        state.log.commit_to(snapshot.index)
        answer(state, message.sender, snapshot.index)
        return
    state.log.restore(snapshot)
    state.history.restart(snapshot.index, snapshot.membership)
    state.entries_number = state.handed_number + 1
    state.snapshot_to_install = snapshot
    answer(state, message.sender, snapshot.index)

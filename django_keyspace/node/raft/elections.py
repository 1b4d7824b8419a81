"""Elections: when to ask for votes, whom to grant one, and what a new leader does first."""

from __future__ import annotations

from . import replication
from .messages import NOOP, PreVoteRequest, PreVoteResponse, TimeoutNow, VoteRequest, VoteResponse
from .progress import Progress
from .quorum import Outcome, outcome
from .state import Role, State

_ATTEMPT_BITS = 53


def may_campaign(state: State) -> bool:
    """Whether this node may try to lead.

    A voter may. So may one whose removal is in its log and not known to be committed: it can be the only node whose log is
    long enough, and then nobody else can finish the removal. A node that waits for its disk or for a snapshot may not.
    """
    voters = state.membership.voters
    if state.history.latest_index > state.log.commit:
        voters += state.history.previous.voters
    return state.node in voters and state.may_lead and state.log.pending_snapshot is None and not state.disk_is_stuck


def tick(state: State) -> None:
    """A follower or candidate waited for another tick."""
    state.elapsed_ticks += 1
    if not needs_no_timeout(state) and state.elapsed_ticks < state.timeout_ticks:
        return
    if may_campaign(state):
        campaign(state, forced=False)
    elif state.role is not Role.FOLLOWER:
        state.become_follower(state.term, None)


def needs_no_timeout(state: State) -> bool:
    """Whether this node may stand at once: it is the only voter, for good.

    As long as the membership that says so is not known to be committed, the leader that made it may lead, and answer
    reads by a lease. When it is, that leader has left.
    """
    return (
        state.role is Role.FOLLOWER
        and state.membership.voters == (state.node,)
        and state.history.latest_index <= state.log.commit
    )


def campaign(state: State, forced: bool) -> None:
    """Ask for votes, or first whether asking could succeed.

    Arguments:
        forced: the leader asked for this election, so nobody is disturbed by it and there is no pre-vote.
    """
    if asks_first(state, forced):
        state.change_role(Role.PRE_CANDIDATE, None)
        state.attempt = state.random.getrandbits(_ATTEMPT_BITS)
        for voter in others(state):
            state.send(
                PreVoteRequest(
                    voter,
                    state.node,
                    state.term,
                    state.term + 1,
                    state.log.last_index,
                    state.log.last_term,
                    state.attempt,
                )
            )
        count_pre_vote(state, state.node, True)
    else:
        stand(state, forced)


def asks_first(state: State, forced: bool) -> bool:
    """Whether a pre-vote comes before the vote."""
    return state.config.pre_vote and not forced


def others(state: State) -> list[str]:
    """The voters beside this node."""
    return [voter for voter in state.membership.voters if voter != state.node]


def stand(state: State, forced: bool) -> None:
    """Become a candidate in a new term. The own vote is counted like the others: once it is durable."""
    state.change_role(Role.CANDIDATE, None)
    state.set_term(state.term + 1, state.node)
    last_index, last_term = state.log.last_index, state.log.last_term
    for voter in others(state):
        state.send(VoteRequest(voter, state.node, state.term, last_index, last_term, forced))
    state.send(VoteResponse(state.node, state.node, state.term, True, state.log_time_ms))


# --- Being asked ------------------------------------------------------------------------------------------------------


def ignores_candidates(state: State) -> bool:
    """Whether requests for votes are not even looked at: a leader is there, or may be, as far as this node can know."""
    return state.hears_leader or state.is_new_here


def on_pre_vote_request(state: State, message: PreVoteRequest) -> None:
    """Say whether a vote would be granted. Changes nothing here (rule 5)."""
    if message.term < state.term:
        # Its log may be the longer one: it has to learn of the term, or nobody can ever be elected (rule 7).
        state.send(PreVoteResponse(message.sender, state.node, state.term, message.attempt, False))
        return
    if ignores_candidates(state):
        return
    granted = message.next_term > state.term and state.log.is_up_to_date(message.last_index, message.last_term)
    state.send(PreVoteResponse(message.sender, state.node, state.term, message.attempt, granted))


def on_vote_request(state: State, message: VoteRequest) -> None:
    """Grant the one vote of this term, or say no. The requester's term is this node's by now."""
    free = state.vote == message.sender or (not state.vote and state.leader is None)
    granted = free and not state.is_new_here and state.log.is_up_to_date(message.last_index, message.last_term)
    if granted:
        if not state.vote:
            state.set_term(state.term, message.sender)
        state.reset_timer()
    state.send(VoteResponse(message.sender, state.node, state.term, granted, state.log_time_ms))


def on_timeout_now(state: State, message: TimeoutNow) -> None:
    """The leader hands over."""
    if state.role is Role.FOLLOWER and state.leader == message.sender and not state.is_new_here and may_campaign(state):
        campaign(state, forced=True)


# --- Being answered ---------------------------------------------------------------------------------------------------


def on_pre_vote_response(state: State, message: PreVoteResponse) -> None:
    """Count an answer, if it is one to the present attempt (rule 3)."""
    if state.role is Role.PRE_CANDIDATE and is_to_present_attempt(state, message):
        count_pre_vote(state, message.sender, message.granted)


def is_to_present_attempt(state: State, message: PreVoteResponse) -> bool:
    """Whether an answer is one to the question that is open, not to one of an earlier attempt in the same term."""
    return message.attempt == state.attempt


def count_pre_vote(state: State, voter: str, granted: bool) -> None:
    """Stand for election once a majority would vote for this node."""
    state.votes.setdefault(voter, granted)
    result = outcome(state.membership.voters, state.votes)
    if result is Outcome.WON:
        stand(state, forced=False)
    elif result is Outcome.LOST:
        state.become_follower(state.term, None)


def on_vote_response(state: State, message: VoteResponse) -> None:
    """Count a vote of this term, if this node still is a candidate (rule 3)."""
    if state.role is not Role.CANDIDATE:
        return
    state.votes.setdefault(message.sender, message.granted)
    state.log_time_ms = max(state.log_time_ms, message.log_time_ms)
    result = outcome(state.membership.voters, state.votes)
    if result is Outcome.WON:
        become_leader(state)
        return
    if result is Outcome.LOST:
        state.become_follower(state.term, None)
    if not message.granted and state.config.pre_vote:
        # Another one stands as well: a majority has said in advance that it would vote for this node, so its log is long enough.
        # If the votes are split, nobody leads in this term, and there is nothing to wait for.
        state.try_again_soon()


def become_leader(state: State) -> None:
    """Lead: an entry of the own term comes first, since older ones are committed only through it (rule 14)."""
    state.change_role(Role.LEADER, state.node)
    next_index = state.log.last_index + 1
    state.peers = {
        member: Progress(next_index, state.ticks) for member in state.membership.members if member != state.node
    }
    state.term_start_index = next_index
    replication.append_own(state, NOOP, b"")

"""What a rule is replaced with when it is switched off. Each function gets the original and returns the replacement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django_keyspace.node.raft import PreVoteRequest, Role, reads, replication
from django_keyspace.node.raft.progress import Flow


def always(value: Any) -> Callable[[Any], Any]:
    """Replace a function by one that returns always the same."""
    return lambda original: lambda *args, **kwargs: value


def forget_conflicts(original: Any) -> Any:
    return lambda log, entries: 0 if entries else None


def cut_committed(original: Any) -> Any:
    def truncate_from(log: Any, index: int) -> None:
        commit, log.commit = log.commit, min(log.commit, index - 1)
        original(log, index)
        log.commit = min(commit, index - 1)

    return truncate_from


def believe_the_leader(original: Any) -> Any:
    return lambda log, index: original(log, min(index, log.last_index))


def count_the_whole_log(original: Any) -> Any:
    def take_entries(state: Any, message: Any) -> int:
        original(state, message)
        return int(state.log.last_index)

    return take_entries


def pre_vote_takes_term(original: Any) -> Any:
    def take_term(raft: Any, state: Any, message: Any) -> bool:
        if isinstance(message, PreVoteRequest):
            state.become_follower(message.term, None)
        return bool(original(raft, state, message))

    return take_term


def hand_over_unprepared(original: Any) -> Any:
    def transfer(state: Any, target: str | None) -> Any:
        target = original(state, target)
        replication.send_timeout_now(state, target)
        return target

    return transfer


def step_back_one_by_one(original: Any) -> Any:
    return lambda log, index, term: (min(index, log.last_index) - 1, 0)


def join_the_last_round(original: Any) -> Any:
    def begin_due_round(state: Any) -> None:
        if state.round and state.has_committed_in_term:
            waiting, state.reads.waiting = state.reads.waiting, []
            state.reads.pending.extend(reads._Pending(read, state.log.commit, state.round) for read in waiting)
            reads.confirm_reads(state)
        original(state)

    return begin_due_round


def lease_from_the_answer(original: Any) -> Any:
    def on_heartbeat_response(state: Any, message: Any) -> None:
        original(state, message)
        if state.is_leader:
            state.reads.starts.append((state.ticks, message.round))

    return on_heartbeat_response


def forget_time_now(original: Any) -> Any:
    def send_timeout_now(state: Any, peer: str) -> None:
        original(state, peer)
        state.lease_given_up = False

    return send_timeout_now


def alone_at_once(original: Any) -> Any:
    return lambda state: state.role is Role.FOLLOWER and state.membership.voters == (state.node,)


def room_for_everything(original: Any) -> Any:
    return lambda progress, config: (
        progress.flow is Flow.REPLICATE or (progress.flow is Flow.PROBE and not progress.probing)
    )


def restart_always(original: Any) -> Any:
    def matches(log: Any, index: int, term: int) -> bool:
        return bool(original(log, index, term)) and index != log.last_index - 1

    return matches


def fixed_timer(original: Any) -> Any:
    def reset_timer(state: Any) -> None:
        state.elapsed_ticks = 0
        state.timeout_ticks = state.config.election_ticks

    return reset_timer


def write_counts_by_term(original: Any) -> Any:
    """Forget that writes are told apart by number: a write's end counts for whatever is at its index by then."""

    def truncate_from(log: Any, index: int) -> None:
        ends = [write.last_index for write in log._writes]
        original(log, index)
        for write, end in zip(log._writes, ends, strict=True):
            write.last_index = end

    return truncate_from


def keep_the_membership(original: Any) -> Any:
    return lambda history, index: None

"""What comes out of a core: what the driver has to do, and what people may want to see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .membership import Membership
from .messages import Entry, Message, SnapshotMeta
from .reads import ReadState
from .state import State
from .storage import HardState


class Ready(NamedTuple):
    """What the driver has to do; each thing is handed out once.

    Attributes:
        number: for :meth:`Raft.persisted`, if `must_sync`.
        messages: may leave at once.
        snapshot: a snapshot to install in place of store and log, before `entries` are written.
        entries: to be written to the log. If the first one's index is in the log already, it replaces that and all
            behind it.
        hard_state: to be written, if not None, together with the entries or behind them.
        must_sync: whether any of this has to be durable before it is reported as persisted. A new commit index alone
            does not.
        committed: durable and committed, for the state machine, in order.
        reads: reads that may be answered once the state machine has applied their index.
        refused_reads: ids of reads whose leader this node is no more; they may be asked anew, elsewhere.
    """

    number: int
    messages: tuple[Message, ...] = ()
    snapshot: SnapshotMeta | None = None
    entries: tuple[Entry, ...] = ()
    hard_state: HardState | None = None
    must_sync: bool = False
    committed: tuple[Entry, ...] = ()
    reads: tuple[ReadState, ...] = ()
    refused_reads: tuple[int, ...] = ()


class PeerStatus(NamedTuple):
    """What a leader knows of a peer: see :class:`~django_keyspace.node.raft.progress.Progress`."""

    match: int
    next_index: int
    flow: str
    inflight_messages: int
    heard_ticks_ago: int


@dataclass(frozen=True, slots=True)
class Status:
    """A core at one moment, for pages, metrics and traces.

    Attributes:
        leader_contact_ticks: ticks since this node heard from a leader, 0 for a leader itself, None if it knows of none.
        peers: what a leader knows of the others; empty for others.
    """

    node: str
    role: str
    term: int
    vote: str
    leader: str | None
    commit: int
    applied: int
    stable: int
    first_index: int
    last_index: int
    last_term: int
    leader_contact_ticks: int | None
    membership: Membership
    transferee: str | None
    peers: dict[str, PeerStatus]


def status_of(state: State) -> Status:
    """The core at this moment."""
    log = state.log
    peers = {
        peer: PeerStatus(
            progress.match,
            progress.next_index,
            progress.flow.value,
            progress.inflight_messages,
            state.ticks - progress.heard_tick,
        )
        for peer, progress in state.peers.items()
    }
    return Status(
        node=state.node,
        role=state.role.value,
        term=state.term,
        vote=state.vote,
        leader=state.leader,
        commit=log.commit,
        applied=log.applied,
        stable=log.stable,
        first_index=log.first_index,
        last_index=log.last_index,
        last_term=log.last_term,
        leader_contact_ticks=None if state.leader is None else 0 if state.is_leader else state.elapsed_ticks,
        membership=state.membership,
        transferee=state.transferee,
        peers=peers,
    )


def describe(state: State) -> str:
    """One line for logs: who, what, where in the log. It reads nothing from the storage."""
    log = state.log
    return (
        f"{state.node} {state.role.value} term={state.term} vote={state.vote or '-'} leader={state.leader or '-'} "
        f"applied={log.applied} commit={log.commit} stable={log.stable} last={log.last_index}"
    )

"""The state of one node's core, and the few moves that all its parts share: timers, roles, and what may be sent when.

Rules for elections, replication, reads and changes are in the modules of these names; they are functions over this state.
"""

from __future__ import annotations

import enum
from collections import deque
from random import Random
from typing import Final, NamedTuple

from .config import Config
from .errors import NotLeader, require
from .log import Log
from .membership import History, Membership, membership_from_bytes
from .messages import (
    CHANGE,
    AppendResponse,
    Entry,
    HeartbeatResponse,
    Message,
    PreVoteResponse,
    SnapshotMeta,
    VoteResponse,
)
from .progress import Progress
from .reads import Reads
from .storage import HardState, LogStorage


class Role(enum.Enum):
    """What a node is. A learner is a follower whose vote does not count."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


TRANSITIONS: Final = frozenset(
    {
        (Role.FOLLOWER, Role.FOLLOWER),
        (Role.FOLLOWER, Role.PRE_CANDIDATE),
        (Role.FOLLOWER, Role.CANDIDATE),
        (Role.PRE_CANDIDATE, Role.PRE_CANDIDATE),
        (Role.PRE_CANDIDATE, Role.CANDIDATE),
        (Role.PRE_CANDIDATE, Role.FOLLOWER),
        (Role.CANDIDATE, Role.CANDIDATE),
        (Role.CANDIDATE, Role.PRE_CANDIDATE),
        (Role.CANDIDATE, Role.LEADER),
        (Role.CANDIDATE, Role.FOLLOWER),
        (Role.LEADER, Role.FOLLOWER),
    }
)
"""Every change of role that there is, and a timer that begins anew in the same role."""


class Unpersisted(NamedTuple):
    """A `Ready` that has something to write and is not reported as persisted: its number, and when it was handed out."""

    number: int
    tick: int


def replaces(new: Message, held: Message) -> bool:
    """Whether an answer makes an earlier one of the same kind to the same node superfluous."""
    if type(new) is not type(held) or new[:3] != held[:3]:
        return False
    if isinstance(new, AppendResponse) and isinstance(held, AppendResponse):
        return new.accepted == held.accepted and (new.index >= held.index or not new.accepted)
    return isinstance(new, HeartbeatResponse | VoteResponse | PreVoteResponse)


class State:
    """Everything that a core knows. The public face is :class:`~django_keyspace.node.raft.core.Raft`.

    Arguments:
        node: this node's id.
        config: limits and times.
        storage: the durable log.
        random: where election timeouts and ids of attempts come from.
        applied: how far the state machine has applied.
    """

    def __init__(self, node: str, config: Config, storage: LogStorage, random: Random, applied: int) -> None:
        hard = storage.hard_state()
        snapshot = storage.snapshot()
        self.node = node
        self.config = config
        self.storage = storage
        self.random = random
        self.log = Log(storage, max(hard.commit, snapshot.index), applied)
        self.history = History(snapshot.index, snapshot.membership)
        for entry in storage.changes():
            if entry.index > snapshot.index:
                self.history.append(entry.index, membership_from_bytes(entry.data))
        self.term = hard.term
        self.vote = hard.vote
        self.commit_at_start = self.log.commit

        self.role = Role.FOLLOWER
        self.is_leader = False
        """Whether this node leads in its term, as far as it knows."""
        self.leader: str | None = None
        self.ticks = 0
        self.elapsed_ticks = 0
        """Since the leader was heard, a vote was granted or an election was begun."""
        self.timeout_ticks = 0
        self.may_lead = True
        self.votes: dict[str, bool] = {}
        self.attempt = 0
        self.log_time_ms = 0

        # A leader's.
        self.peers: dict[str, Progress] = {}
        self.term_start_index = 0
        self.uncommitted: deque[tuple[int, int]] = deque()
        """(index, bytes) of the own entries that are not committed."""
        self.uncommitted_bytes = 0
        self.reads = Reads()
        self.read_id = 0
        self.round = 0
        self.transferee: str | None = None
        self.tells_commits = True
        self.transfer_tick = 0
        self.lease_given_up = False

        # What goes out, and what it waits for.
        self.handed_number = 0
        self.persisted_number = 0
        self.hard_number = 0
        """The `Ready` that holds the present term and vote."""
        self.entries_number = 0
        """The `Ready` that holds the present log."""
        self.handed_hard = HardState(hard.term, hard.vote, hard.commit)
        self.unpersisted: deque[Unpersisted] = deque()
        self.outbox: list[Message] = []
        self.held: list[tuple[int, Message]] = []
        self.snapshot_to_install: SnapshotMeta | None = None
        if self.log.last_term > self.term:
            # A crash came between the entries and the hard state. Nothing of that term has left this node.
            self.set_term(self.log.last_term, "")
        self.reset_timer()

    # --- Questions ----------------------------------------------------------------------------------------------------

    @property
    def membership(self) -> Membership:
        """The latest in the log, committed or not."""
        return self.history.latest

    @property
    def is_voter(self) -> bool:
        """Whether this node's own vote and log count."""
        return self.node in self.membership.voters

    @property
    def has_committed_in_term(self) -> bool:
        """Whether this leader knows for sure how far the log is committed: its own first entry is (rules 19, 39)."""
        return self.is_leader and self.log.commit >= self.term_start_index

    @property
    def may_be_acknowledged(self) -> int:
        """The last index that anybody may have been told of: before it knows how far the log is committed, all of its own."""
        return self.log.commit if self.has_committed_in_term else self.log.last_index

    @property
    def is_new_here(self) -> bool:
        """Whether this node started within the last election timeout. It may have forgotten whom it heard then, so it
        grants no vote."""
        return self.ticks < self.config.election_ticks

    @property
    def hears_leader(self) -> bool:
        """Whether a leader was heard within an election timeout, or this node is one: then no vote is granted (rule 6)."""
        return (
            self.config.check_quorum
            and self.leader is not None
            and (self.is_leader or self.elapsed_ticks < self.config.election_ticks)
        )

    @property
    def disk_is_stuck(self) -> bool:
        """Whether something has been waiting to become durable for an election timeout (rule 47)."""
        return bool(self.unpersisted) and self.ticks - self.unpersisted[0].tick >= self.config.election_ticks

    def require_leader(self) -> None:
        """Refuse what only the leader may do. Raises :class:`NotLeader`."""
        if not self.is_leader:
            raise NotLeader(self.leader)

    # --- Roles --------------------------------------------------------------------------------------------------------

    def reset_timer(self) -> None:
        """Begin to wait for an election timeout, of a length of its own (rule 8)."""
        self.elapsed_ticks = 0
        self.timeout_ticks = self.config.election_ticks + self.random.randrange(self.config.election_ticks)

    def leader_is_gone(self) -> None:
        """Wait no longer for the leader, but a moment of a length of its own. Once: until it is heard again."""
        if self.elapsed_ticks < self.config.election_ticks:
            self.elapsed_ticks = self.config.election_ticks
            self.timeout_ticks = self.elapsed_ticks + 1 + self.random.randrange(self.config.election_ticks // 2)

    def try_again_soon(self) -> None:
        """Wait no election timeout for the next attempt, but a moment of a length of its own: a part of the drawn one."""
        moment_ticks = 1 + self.timeout_ticks % (self.config.election_ticks // 2)
        self.timeout_ticks = min(self.timeout_ticks, self.elapsed_ticks + moment_ticks)

    def change_role(self, role: Role, leader: str | None) -> None:
        """Take a role and forget what belonged to the last one."""
        require((self.role, role) in TRANSITIONS, f"A {self.role.value} cannot become a {role.value}.")
        self.role = role
        self.is_leader = role is Role.LEADER
        self.leader = leader
        self.votes = {}
        self.peers = {}
        self.uncommitted.clear()
        self.uncommitted_bytes = 0
        self.transferee = None
        self.lease_given_up = False
        self.reads.refuse_all()
        self.reset_timer()

    def become_follower(self, term: int, leader: str | None) -> None:
        """Follow in a term, which is this node's or a higher one."""
        if term > self.term:
            self.set_term(term, "")
        self.change_role(Role.FOLLOWER, leader)

    def set_term(self, term: int, vote: str) -> None:
        """Take a term and a vote; what depends on them is held back until they are durable (rule 1)."""
        require(
            term > self.term or (term == self.term and self.vote in ("", vote)),
            "Terms grow, and one vote is given in each.",
        )
        self.term = term
        self.vote = vote
        self.hard_number = self.handed_number + 1

    # --- The log ------------------------------------------------------------------------------------------------------

    def append(self, entry: Entry) -> None:
        """Put an entry behind the log's last one."""
        self.log.append(entry)
        if entry.kind == CHANGE:
            self.history.append(entry.index, membership_from_bytes(entry.data))
        self.entries_number = self.handed_number + 1

    def truncate_from(self, index: int) -> None:
        """Drop entries that conflict with the leader's, and the membership that stood in them."""
        self.log.truncate_from(index)
        self.history.truncate_from(index)

    # --- Sending ------------------------------------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Send a message as soon as what it says is durable here.

        All messages speak of the term, and a vote of the vote. An accepted append speaks of the entries too, so only that
        one waits for them: heartbeats do not (rules 1, 16).
        """
        needed = self.needed_number(message)
        if needed <= self.persisted_number:
            self.outbox.append(message)
            return
        # While a disk is slow, a leader asks again and again. One answer of each kind, the newest, is enough.
        self.held = [(other, held) for other, held in self.held if other != needed or not replaces(message, held)]
        self.held.append((needed, message))

    def needed_number(self, message: Message) -> int:
        """The number of the `Ready` that has to be durable before a message may leave."""
        if isinstance(message, AppendResponse) and message.accepted:
            return max(self.hard_number, self.entries_number)
        return self.hard_number

    def take_released(self) -> list[Message]:
        """The messages that were held back and may leave now; those of older terms are of no use any more."""
        if not self.held:
            return []
        released = [message for needed, message in self.held if needed <= self.persisted_number]
        self.held = [(needed, message) for needed, message in self.held if needed > self.persisted_number]
        return [message for message in released if message.term == self.term]

"""One core on a bench: a test plays its disk and all its peers."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

from django_keyspace.node.raft import (
    COMMANDS,
    AppendRequest,
    AppendResponse,
    Config,
    Entry,
    HardState,
    Heartbeat,
    HeartbeatResponse,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    Raft,
    Ready,
    Role,
    VoteRequest,
    VoteResponse,
    make_membership,
)

from .storage import MemoryStorage


class Bench:
    """Node n1.

    Arguments:
        voters, learners: the first members.
        terms: of the entries in its log, in order; their data is their index.
        term, vote, commit: the hard state.
        applied: of its state machine.
        new: whether it has started just now; otherwise an election timeout has passed in silence.
        seed: of its timeouts.
        settings: of :class:`Config`.
    """

    def __init__(
        self,
        voters: Iterable[str] = ("n1", "n2", "n3"),
        learners: Iterable[str] = (),
        terms: Iterable[int] = (),
        term: int | None = None,
        vote: str = "",
        commit: int = 0,
        applied: int = 0,
        new: bool = False,
        seed: int = 1,
        **settings: Any,
    ) -> None:
        terms = list(terms)
        self.storage = MemoryStorage(make_membership(voters, learners))
        self.storage.log = [Entry(index, of, COMMANDS, b"%d" % index) for index, of in enumerate(terms, 1)]
        self.storage.hard = HardState(max(terms, default=0) if term is None else term, vote, commit)
        self.config = Config(**settings)
        self.raft = Raft("n1", self.storage, random.Random(seed), self.config, applied=applied)
        self.unwritten: list[Ready] = []
        self.committed: list[Entry] = []
        self.reads: dict[int, int] = {}
        self.refused: list[int] = []
        if not new:
            self.raft._state.ticks = self.config.election_ticks
            self.raft._state.elapsed_ticks = 0

    # --- The driver ---------------------------------------------------------------------------------------------------

    def take(self) -> list[Message]:
        """Take everything that there is to do, without writing it; returns the messages."""
        messages: list[Message] = []
        while (ready := self.raft.ready()) is not None:
            self.unwritten.append(ready)
            self.committed += ready.committed
            self.reads.update(ready.reads)
            self.refused += ready.refused_reads
            messages += ready.messages
        return messages

    def write(self) -> None:
        """The disk does what it was given."""
        for ready in self.unwritten:
            self.storage.write(ready)
        numbers = [ready.number for ready in self.unwritten if ready.must_sync]
        self.unwritten = []
        if numbers:
            self.raft.persisted(numbers[-1])

    def work(self) -> list[Message]:
        """Take, write and take until nothing is left; returns all messages."""
        messages = self.take()
        while self.unwritten:
            self.write()
            messages += self.take()
        return messages

    def of(self, kind: type[Any], messages: Iterable[Message] | None = None) -> list[Any]:
        """The messages of one kind; by default of all that comes out of working."""
        return [message for message in (self.work() if messages is None else messages) if isinstance(message, kind)]

    def tick(self, count: int = 1) -> None:
        for _ in range(count):
            self.raft.tick()

    def restart(self) -> None:
        """Crash and start again: what was taken and not written is lost."""
        self.unwritten = []
        self.raft = Raft("n1", self.storage, random.Random(7), self.config)

    @property
    def role(self) -> Role:
        return self.raft.role

    # --- The peers ----------------------------------------------------------------------------------------------------

    def lead(self) -> None:
        """Have it elected, with everybody's votes."""
        while self.role is Role.FOLLOWER:
            self.tick()
        for request in self.of(PreVoteRequest):
            self.raft.step(PreVoteResponse("n1", request.to, request.term, request.attempt, True))
        for request in self.of(VoteRequest):
            self.raft.step(VoteResponse("n1", request.to, request.term, True, 0))
        assert self.role is Role.LEADER

    def lead_settled(self, peers: Iterable[str] = ("n2", "n3")) -> None:
        """Have it elected, and everything acknowledged by these peers."""
        self.lead()
        self.work()
        self.accept(*peers)
        self.work()

    def accept(self, *peers: str, index: int | None = None) -> None:
        """Peers acknowledge up to an index, by default everything."""
        index = self.raft.status().last_index if index is None else index
        for peer in peers:
            self.raft.step(AppendResponse("n1", peer, self.raft.term, True, index, 0, 0))

    def beat(self, *peers: str, round_number: int | None = None) -> None:
        """Peers answer a heartbeat round, by default the last."""
        number = self.raft._state.round if round_number is None else round_number
        for peer in peers:
            self.raft.step(HeartbeatResponse("n1", peer, self.raft.term, number, 0))

    def append(
        self, prev: tuple[int, int], terms: Iterable[int], commit: int = 0, term: int | None = None, leader: str = "n2"
    ) -> None:
        """The leader sends entries of these terms behind `prev`."""
        terms = list(terms)
        term = max([self.raft.term, *terms]) if term is None else term
        entries = tuple(Entry(prev[0] + n, of, COMMANDS, b"%d" % (prev[0] + n)) for n, of in enumerate(terms, 1))
        self.raft.step(AppendRequest("n1", leader, term, *prev, entries, commit))

    def heartbeat(self, commit: int = 0, number: int = 1, term: int | None = None, leader: str = "n2") -> None:
        term = self.raft.term if term is None else term
        self.raft.step(Heartbeat("n1", leader, term, commit, number, 0, commit))

    def terms(self) -> list[int]:
        """The terms of the entries that are durable."""
        return [entry.term for entry in self.storage.log]

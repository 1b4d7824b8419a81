"""A small cluster in one thread: cores, their disks, the messages under way, and what must hold after every step.

Nothing happens by itself: a test, an interaction file or a random schedule ticks, delivers, writes and crashes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from django_keyspace.node.raft import (
    COMMANDS,
    Config,
    Entry,
    Membership,
    Message,
    Raft,
    Ready,
    Role,
    SnapshotMeta,
    SnapshotRequest,
    from_wire,
    make_membership,
    reads,
    to_wire,
)

from .storage import MemoryStorage

Store = list[tuple[int, int, bytes]]


class Violated(AssertionError):
    """A safety property does not hold."""


@dataclass
class Node:
    """A core with its driver: storage, state machine, and what the disk has not done yet."""

    name: str
    storage: MemoryStorage
    config: Config
    seed: int
    raft: Raft
    store: Store = field(default_factory=list)
    store_index: int = 0
    queue: list[Ready] = field(default_factory=list)
    aside: dict[tuple[int, int], Store] = field(default_factory=dict)
    snapshots: dict[int, Store] = field(default_factory=dict)
    up: bool = True
    paused: bool = False
    slow_disk: bool = False
    confirmed: dict[int, int] = field(default_factory=dict)
    refused: list[int] = field(default_factory=list)
    floors: dict[int, int] = field(default_factory=dict)


@dataclass
class Letter:
    """A message under way, and the bytes of a snapshot that travel with it."""

    message: Message
    payload: Store | None = None


class Cluster:
    """Nodes and the network between them.

    Arguments:
        names: the first voters.
        seed: of all randomness in here.
        source: makes a node's source of randomness from its name and a number of its own; by default a seeded one.
        settings: of :class:`Config`.
    """

    def __init__(
        self,
        names: Iterable[str] = ("n1", "n2", "n3"),
        seed: int = 1,
        source: Callable[[str, int], random.Random] = lambda name, number: random.Random(number),
        **settings: Any,
    ) -> None:
        self.config = Config(**settings)
        self.seed = seed
        self.source = source
        self.nodes: dict[str, Node] = {}
        self.wire: list[Letter] = []
        self.cut: set[tuple[str, str]] = set()
        self.leaders: dict[int, str] = {}
        self.committed: dict[int, Entry] = {}
        self.committed_in: dict[int, int] = {}
        """By index: a term in which it is committed, perhaps since an earlier one."""
        self.delivered = 0
        names = list(names)
        for name in names:
            self.add(name, make_membership(names))

    def add(self, name: str, membership: Membership | None = None, config: Config | None = None) -> Node:
        """A new node with an empty disk; without members it waits for a leader to find it."""
        storage = MemoryStorage(membership or Membership())
        seed = random.Random(f"{self.seed}/{name}").getrandbits(32)
        config = config or self.config
        node = Node(name, storage, config, seed, Raft(name, storage, self.source(name, seed), config))
        self.nodes[name] = node
        return node

    def __getitem__(self, name: str) -> Raft:
        return self.nodes[name].raft

    # --- One step -----------------------------------------------------------------------------------------------------

    def tick(self, name: str, count: int = 1) -> None:
        """Let time pass at a node that runs."""
        node = self.nodes[name]
        for _ in range(count):
            if node.up and not node.paused:
                node.raft.tick()

    def work(self, name: str) -> Ready | None:
        """Take one `Ready` of a node; write it unless its disk is slow."""
        node = self.nodes[name]
        if not node.up or node.paused:
            return None
        ready = node.raft.ready()
        self.check_leader(node)
        if ready is None:
            return None
        self.post(node, ready.messages)
        for entry in ready.committed:
            self.check_committed(node, entry)
            if entry.kind == COMMANDS:
                node.store.append((entry.index, entry.term, entry.data))
            node.store_index = entry.index
            node.raft.applied(entry.index)
        for read in ready.reads:
            node.confirmed[read.read_id] = read.index
            if read.index < node.floors[read.read_id]:
                raise Violated(
                    f"{node.name} answers a read at {read.index}, and {node.floors[read.read_id]} was committed"
                )
        node.refused.extend(ready.refused_reads)
        node.queue.append(ready)
        if not node.slow_disk:
            self.write(name)
        return ready

    def write(self, name: str, count: int | None = None) -> None:
        """The disk finishes what it was given, or the first `count` of it."""
        node = self.nodes[name]
        for ready in node.queue[:count]:
            self.make_durable(node, ready)
        done = node.queue[:count]
        node.queue = node.queue[len(done) :]
        numbers = [ready.number for ready in done if ready.must_sync]
        if numbers:
            node.raft.persisted(numbers[-1])

    def make_durable(self, node: Node, ready: Ready) -> None:
        """What a disk does with one `Ready`."""
        if ready.snapshot is not None:
            meta = ready.snapshot
            if meta.index > node.store_index:
                node.store = list(node.aside[meta.index, meta.term])
                node.store_index = meta.index
            node.snapshots[meta.index] = list(node.aside[meta.index, meta.term])
        node.storage.write(ready)

    def post(self, node: Node, messages: Iterable[Message]) -> None:
        for message in messages:
            payload = None
            if isinstance(message, SnapshotRequest):
                payload = node.snapshots[message.snapshot.index]
            self.wire.append(Letter(message, payload))

    def deliver(self, letter: Letter) -> bool:
        """Give a message to its receiver; False if it is lost on the way."""
        message = letter.message
        node = self.nodes.get(message.to)
        if node is None or not node.up or (message.sender, message.to) in self.cut:
            if letter.payload is not None and message.sender in self.nodes:
                self.nodes[message.sender].raft.report_snapshot(message.to, arrived=False)
            return False
        if isinstance(message, SnapshotRequest):
            node.aside[message.snapshot.index, message.snapshot.term] = letter.payload or []
        self.delivered += 1
        node.raft.step(from_wire(to_wire(message)))
        return True

    def read(self, name: str, lease: bool = False) -> int:
        """Ask a read; its answer must not be older than what is committed now."""
        read_id = self.nodes[name].raft.read_index(lease=lease)
        self.nodes[name].floors[read_id] = max(self.committed, default=0)
        return read_id

    def snapshot(self, name: str, index: int | None = None, kept: int = 0) -> SnapshotMeta:
        """Make a snapshot of what a node has applied, and cut its log."""
        node = self.nodes[name]
        index = node.store_index if index is None else index
        assert index <= node.store_index, "only what is applied can be in a snapshot"
        meta = SnapshotMeta(index, node.storage.term(index), node.raft.membership_at(index))
        node.snapshots[index] = [item for item in node.store if item[0] <= index]
        node.storage.compact(meta, kept)
        return meta

    def crash(self, name: str, survived: int = 0, torn: int = 0) -> None:
        """Lose what the disk had not written: all that it was given but the first ones, and some entries of the next."""
        node = self.nodes[name]
        for ready in node.queue[:survived]:
            self.make_durable(node, ready)
        for ready in node.queue[survived : survived + 1]:
            if ready.snapshot is None:
                self.make_durable(node, ready._replace(entries=ready.entries[:torn], hard_state=None))
        node.up = node.paused = False
        node.queue = []

    def restart(self, name: str) -> None:
        """Start from the disk. The store is ahead of nothing: only durable entries are applied."""
        node = self.nodes[name]
        node.up, node.slow_disk = True, False
        node.seed += 1
        node.confirmed, node.refused, node.floors = {}, [], {}
        node.raft = Raft(name, node.storage, self.source(name, node.seed), node.config, applied=node.store_index)

    # --- Many steps ---------------------------------------------------------------------------------------------------

    def settle(self, rounds: int = 200) -> None:
        """Work and deliver until nothing is under way. Messages to paused nodes stay."""
        for _ in range(rounds):
            busy = False
            for name in self.nodes:
                while self.work(name) is not None:
                    busy = True
            letters, self.wire = self.wire, []
            for letter in letters:
                node = self.nodes.get(letter.message.to)
                if node is not None and node.paused:
                    self.wire.append(letter)
                else:
                    busy = True
                    self.deliver(letter)
            if not busy:
                self.check_logs()
                return
        raise Violated(f"the cluster does not settle in {rounds} rounds")

    def run(self, ticks: int) -> None:
        """Let time pass everywhere and settle after each tick."""
        for _ in range(ticks):
            for name in self.nodes:
                self.tick(name)
            self.settle()

    def wait(self, name: str, limit: int = 60) -> None:
        """Tick one node alone until it stands for election."""
        term = self[name].term
        for _ in range(limit):
            self.tick(name)
            if self[name].role in (Role.PRE_CANDIDATE, Role.CANDIDATE, Role.LEADER) or self[name].term > term:
                return
        raise Violated(f"{name} did not campaign in {limit} ticks")

    def elect(self, name: str) -> None:
        """Make a node the leader: time passes everywhere until votes may be given, then its timer ends first."""
        for other in self.nodes:
            if other != name and self.nodes[other].up and not self.nodes[other].paused:
                # As if the leader had been silent, and as if this node's timer began anew a moment ago.
                state = self[other]._state
                state.ticks = max(state.ticks, self.config.election_ticks)
                state.elapsed_ticks = self.config.election_ticks
                state.timeout_ticks = 10 * self.config.election_ticks
        state = self[name]._state
        state.ticks = max(state.ticks, self.config.election_ticks)
        self.wait(name)
        self.settle()
        if self[name].role is not Role.LEADER:
            raise Violated(f"{name} was not elected: {self[name].describe()}")

    def leader(self) -> str:
        """The leader of the highest term."""
        found = [
            (node.raft.term, name) for name, node in self.nodes.items() if node.up and node.raft.role is Role.LEADER
        ]
        if not found:
            raise Violated("there is no leader")
        return max(found)[1]

    def partition(self, *groups: Iterable[str]) -> None:
        """Cut all links between nodes of different groups."""
        groups = tuple(set(group) for group in groups)
        for one in groups:
            for other in groups:
                if one is not other:
                    self.cut |= {(left, right) for left in one for right in other}

    def heal(self) -> None:
        """Mend all links."""
        self.cut = set()

    # --- What must hold -----------------------------------------------------------------------------------------------

    def check_leader(self, node: Node) -> None:
        """Election safety, leader completeness, and a lease that is not the one of a moment ago."""
        if node.raft.lease != reads.lease(node.raft._state):
            raise Violated(f"{node.name} says that its lease is {node.raft.lease}")
        if node.raft.role is not Role.LEADER:
            return
        known = self.leaders.get(node.raft.term)
        if known == node.name:
            return
        if known is not None:
            raise Violated(f"{known} and {node.name} lead in term {node.raft.term}")
        self.leaders[node.raft.term] = node.name
        for entry in self.committed.values():
            self.check_complete(node, entry)

    def check_complete(self, node: Node, entry: Entry) -> None:
        """A leader has every entry that an earlier term committed. (Not: that an earlier term made. See figure 8.)"""
        log = node.raft._state.log
        if (
            self.committed_in[entry.index] < node.raft.term
            and log.first_index <= entry.index
            and log.term(entry.index) != entry.term
        ):
            raise Violated(f"{node.name} leads in term {node.raft.term} without committed entry {entry.index}")

    def check_committed(self, node: Node, entry: Entry) -> None:
        """State machine safety: no two nodes apply different entries at one index, and none skips one."""
        if entry.index not in self.committed:
            self.committed[entry.index] = entry
            self.committed_in[entry.index] = node.raft.term
            for other in self.nodes.values():
                if other.up and other.raft.role is Role.LEADER:
                    self.check_complete(other, entry)
        known = self.committed[entry.index]
        if known != entry:
            raise Violated(f"{node.name} applies {entry}, and {known} was applied elsewhere")
        if entry.index != node.store_index + 1:
            raise Violated(f"{node.name} applies {entry.index} after {node.store_index}")

    def check_logs(self) -> None:
        """Log matching: where two logs have an entry of the same index and term, they are equal up to there."""
        logs = {name: {entry.index: entry for entry in node.storage.log} for name, node in self.nodes.items()}
        names = list(logs)
        for position, one in enumerate(names):
            for other in names[position + 1 :]:
                common = sorted(logs[one].keys() & logs[other].keys(), reverse=True)
                matched = False
                for index in common:
                    left, right = logs[one][index], logs[other][index]
                    matched = matched or left.term == right.term
                    if matched and left != right:
                        raise Violated(f"the logs of {one} and {other} differ at {index} and agree behind it")

    def check_stores(self) -> None:
        """All nodes that are up hold the same."""
        stores = {name: node.store for name, node in self.nodes.items() if node.up}
        first = next(iter(stores))
        for name, store in stores.items():
            if store != stores[first]:
                raise Violated(f"{name} and {first} hold different things: {store} and {stores[first]}")

"""Replicated nodes in one thread and in virtual time, for tests of the runtime.

What happens is decided by the test alone: frames take a millisecond, a write to a disk one, work in a thread two. Journal
and snapshots lie on simulated disks, stores in a folder of the test. :meth:`Cluster.until` lets time pass until something
holds. The simulator (``tests/sim/``) adds chance, faults and checkers to the same parts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from django_keyspace.exceptions import KeyspaceError
from django_keyspace.node.machine import Machine
from django_keyspace.node.parts import Parts
from django_keyspace.node.raft import Config, Membership, Role, SnapshotMeta, make_membership
from django_keyspace.node.runtime import Runtime
from django_keyspace.node.settings import RuntimeSettings
from django_keyspace.node.start import open_state
from django_keyspace.operations import SESSION_ID_BYTES, Call
from django_keyspace.store import StoreOptions
from django_keyspace.store.record import HEADER_BYTES, Tag
from tests.sim.clock import SimClock
from tests.sim.disk import SimDisk
from tests.sim.node import StoreDisk
from tests.sim.process import SimScheduler, SimWriter
from tests.sim.world import Life, World
from tests.store.helpers import EVICTABLE

CLUSTER = "c0ffee"
MS = 1_000
TICK_MS = 100
ELECTION_MS = 10 * TICK_MS
WAIT_MS = 60_000
OPTIONS = StoreOptions(databases=2, max_bytes=2**22, map_bytes=2**22, value_bytes_max=2**20)


def val(payload: bytes = b"v", *, kept: bool = True) -> tuple[int, int, bytes]:
    """A value; ``kept`` ones must not be evicted."""
    return (int(Tag.BYTES), 0 if kept else EVICTABLE, payload)


def put(key: bytes, payload: bytes = b"v", expire: Any = None, *, kept: bool = True) -> Call:
    return ("set", 0, key, val(payload, kept=kept), expire, "always")


def incr(key: bytes = b"n", delta: int = 1) -> Call:
    return ("incr", 0, key, delta, 0, None, 0)


def delete(key: bytes) -> Call:
    return ("delete", 0, key)


def once(
    session: bytes, sequence: int, call: Call, *, again: bool = False, lowest: int = 1, answer: bytes | None = None
) -> Call:
    return ("once", session, sequence, lowest, again, call, answer)


def session_of(born_ms: int, name: bytes = b"s") -> bytes:
    """The id of a session that was born at a log time."""
    return born_ms.to_bytes(8, "big") + name.ljust(SESSION_ID_BYTES - 8, b"-")


class StoreFolder(StoreDisk):
    """The folder of a node's stores."""

    def lose(self) -> None:
        """A power cut: nobody gets away with using what is left."""
        for data in Path(self.root).glob("store-*/data.mdb"):
            data.write_bytes(b"\xde\xad" * 2_048)


class Node:
    """A host, and the node's process on it."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.id = f"{name}.{Random(name).getrandbits(32):08x}"
        world = cluster.world
        self.disk = SimDisk(world.random(f"disk/{name}"))
        root = cluster.folder / name
        root.mkdir()
        self.store_disk = StoreFolder(str(root))
        self.clock = SimClock(world.random(f"clock/{name}"), lambda: world.now_us)
        self.boots = self.lives = 0
        self.has_run = False
        self.life: Life | None = None
        self.settings = cluster.settings
        self.options = OPTIONS
        self.reason = ""
        self.sent: list[tuple[str, tuple[Any, ...]]] = []
        self.thread_us: dict[str, int] = {}
        self.write_us = MS

    runtime: Runtime
    machine: Machine

    @property
    def is_up(self) -> bool:
        return self.life is not None

    @property
    def leads(self) -> bool:
        return self.is_up and self.runtime.is_running and self.runtime.raft.role is Role.LEADER

    def start(self, membership: Membership | None = None) -> None:
        """Start a process on what the host has on its disks."""
        assert self.life is None
        world, name = self.cluster.world, self.name
        self.lives += 1
        self.started_ms = world.now_us / MS
        self.reason = ""
        life = Life(name, lambda: self.end(power_cut=True))
        random = world.random(f"runtime/{name}/{self.lives}")
        scheduler = SimScheduler(world, life, self.clock, lambda thread: self.thread_us.get(thread, 2 * MS))
        self.machine = Machine.open(
            self.store_disk,
            self.options,
            f"boot-{self.boots}",
            random,
            upkeep=False,
            boot_ms=self.clock.monotonic_ms,
        )
        try:
            bootstrap = None if self.has_run else SnapshotMeta(0, 0, membership or Membership())
            journal, snapshots = open_state(
                self.disk, self.machine, bootstrap, segment_bytes=self.cluster.segment_bytes
            )
        except BaseException:
            self.machine.close(clean=False)
            raise
        self.has_run = True
        self.life = life
        writer = SimWriter(
            journal,
            lambda error: None,
            world=world,
            life=life,
            clock=self.clock,
            disk=self.disk,
            delay_us=lambda: self.write_us,
        )
        self.entry_versions: dict[str, int] = {}
        parts = Parts(
            self.clock, scheduler, writer, journal, snapshots, self.machine, self, random, self.settings, self.give_up
        )
        self.runtime = Runtime(self.id, CLUSTER, parts)
        self.runtime.start()

    def connected_ms(self, member: str) -> int:
        """See ``interfaces.Links``."""
        started_ms = {node.id: node.started_ms for node in self.cluster if node.is_up}
        return int(self.cluster.now_ms - started_ms[member]) if member in started_ms else 0

    def send(self, to: str, frame: tuple[Any, ...]) -> None:
        """See ``interfaces.Links``."""
        self.sent.append((to, frame))
        self.cluster.carry(self.id, to, frame)

    def give_up(self, reason: str) -> None:
        self.end()
        self.reason = reason

    def end(self, *, power_cut: bool = False) -> None:
        """Kill the process; with a power cut, what was not synced is lost, and the store's file holds rubbish."""
        if self.life is not None:
            self.life.dead = True
            self.life = None
            self.runtime.kill()
            self.machine.close(clean=False)
        if power_cut:
            self.disk.crash()
            self.store_disk.lose()
            self.boots += 1
        else:
            self.disk.kill()
        self.store_disk.cut_after = None

    def shut_down(self) -> None:
        """End in good order."""
        assert self.life is not None
        self.runtime.stop()
        self.runtime.parts.writer.stop()
        self.runtime.parts.journal.close()
        self.machine.close()
        self.life.dead = True
        self.life = None
        self.disk.kill()

    # --- Clients ------------------------------------------------------------------------------------------------------

    def propose(self, *calls: Call, size_bytes: int = 100) -> list[Any]:
        """Propose; the results come into the list that is returned."""
        results: list[Any] = []
        self.runtime.propose(calls, size_bytes, results.extend)
        return results

    def write(self, *calls: Call) -> list[Any]:
        """Propose, and wait for the results."""
        results = self.propose(*calls)
        self.cluster.until(lambda: len(results) == len(calls))
        return results

    def ask(self, level: str = "safe", min_index: int = 0, max_staleness_ms: int | None = None) -> list[Any]:
        """Ask for a view; it, or an error, comes into the list that is returned."""
        found: list[Any] = []
        self.runtime.read(level, found.append, min_index, max_staleness_ms)
        return found

    def view(self, level: str = "safe", **options: Any) -> Any:
        """Ask for a view, and wait for it."""
        found = self.ask(level, **options)
        self.cluster.until(lambda: bool(found))
        return found[0]

    def get(self, key: bytes, level: str = "safe") -> bytes | None:
        """The payload under a key."""
        return payload_of(self.view(level), key)

    def here(self, key: bytes) -> bytes | None:
        """The payload under a key in this node's own copy, deadlines aside."""
        found = self.machine.read(0, "get", 0, key)
        return None if found is None else payload(found)


def payload(record: bytes) -> bytes:
    return record[HEADER_BYTES:]


def payload_of(view: Any, key: bytes) -> bytes | None:
    """The payload under a key, from a view."""
    if isinstance(view, KeyspaceError):
        raise view
    found = view.read("get", 0, key)
    return None if found is None else payload(found)


class Cluster:
    """Some nodes and the network between them.

    Arguments:
        folder: for the stores.
        count: how many founding voters.
        seed: decides election timeouts and the like.
        settings: of :class:`RuntimeSettings` and, with ``raft_`` before them, of its :class:`Config`.
    """

    def __init__(
        self, folder: Path, count: int = 3, seed: int = 1, segment_bytes: int = 65_536, **settings: Any
    ) -> None:
        self.folder = folder
        self.world = World(seed)
        self.segment_bytes = segment_bytes
        core = {name.removeprefix("raft_"): settings.pop(name) for name in list(settings) if name.startswith("raft_")}
        settings = {"tick_ms": TICK_MS, "session_wait_ms": 200, "upkeep_ms": 500, **settings}
        self.settings = RuntimeSettings(raft=Config(**core), **settings)
        self.nodes: dict[str, Node] = {}
        self.drops: Callable[[str, str, tuple[Any, ...]], bool] = lambda sender, to, frame: False
        for number in range(1, count + 1):
            self.add(f"n{number}")
        info = {node.id: f'{{"name": "{node.name}", "address": "{node.name}:1"}}' for node in self}
        self.membership = make_membership(sorted(info), info=info)

    def __iter__(self) -> Any:
        return iter(self.nodes.values())

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def add(self, name: str) -> Node:
        """Another host; nothing runs on it."""
        self.nodes[name] = Node(self, name)
        return self.nodes[name]

    def start(self) -> Node:
        """Start all nodes. Returns: the leader, once there is one that has committed."""
        for node in self:
            node.start(self.membership)
        return self.leader()

    def close(self) -> None:
        for node in self:
            node.end()

    def carry(self, sender: str, to: str, frame: tuple[Any, ...]) -> None:
        if not self.drops(sender.partition(".")[0], to.partition(".")[0], frame):
            self.world.at(MS, None, self.arrive, sender, to, frame)

    def arrive(self, sender: str, to: str, frame: tuple[Any, ...]) -> None:
        node = self.nodes.get(to.partition(".")[0])
        if node is None or node.life is None or node.id != to:
            return
        if node.life.paused:
            self.world.at(0, node.life, self.arrive, sender, to, frame)  # it waits in the socket
        else:
            node.runtime.receive(sender, [frame])

    def cut(self, *names: str) -> None:
        """From now on these nodes hear nobody and are heard by nobody; without a name, all are whole again."""
        self.drops = lambda sender, to, frame: sender in names or to in names

    def pause(self, node: Node) -> None:
        """Stop a node's process; what comes waits."""
        assert node.life is not None
        node.life.paused = True

    def resume(self, node: Node, *, frames_first: bool = True) -> None:
        """Let it go on: what has come from the network is looked at before the timers that ran out, or after them."""
        assert node.life is not None
        events, node.life.deferred, node.life.paused = node.life.deferred, [], False
        for event in sorted(events, key=lambda event: (event.function == self.arrive) is not frames_first):
            if event.function is not None:
                self.world.at(0, node.life, event.function, *event.arguments)

    # --- Time ---------------------------------------------------------------------------------------------------------

    @property
    def now_ms(self) -> int:
        return self.world.now_us // MS

    def run(self, duration_ms: float) -> None:
        """Let time pass."""
        self.world.run_until(self.world.now_us + int(duration_ms * MS))

    def until(self, holds: Callable[[], bool], wait_ms: float = WAIT_MS) -> None:
        """Let time pass until something holds."""
        begin_us = self.world.now_us
        while not holds():
            passed_us = self.world.now_us - begin_us
            assert passed_us < wait_ms * MS, "it never came to hold"
            self.world.run_until(self.world.now_us + (MS // 4 if passed_us < 100 * MS else 10 * MS))

    def leader(self, *but: Node) -> Node:
        """Wait for one node that leads and has everything applied that it knows of."""
        found: list[Node] = []

        def settled() -> bool:
            found[:] = [node for node in self if node not in but and node.leads and node.runtime.raft.has_applied_all]
            return len(found) == 1

        self.until(settled)
        return found[0]

    def followers(self) -> list[Node]:
        return [node for node in self if node.is_up and not node.leads]

    def settle(self) -> None:
        """Wait until all nodes that are up have applied the same, and hold the same."""
        self.until(lambda: len({node.machine.applied_index for node in self if node.is_up}) == 1)
        assert len({node.machine.digest() for node in self if node.is_up}) == 1, "stores differ at an equal index"

    def elect(self, node: Node) -> Node:
        """Have a node lead."""
        leader = self.leader()
        if leader is not node:
            told: list[Any] = []
            leader.runtime.transfer(node.id, told.append)
            self.until(lambda: node.leads and told == [None])
        return self.leader()

    def change(self, change: Any) -> None:
        """Change the membership."""
        told: list[Any] = []
        self.leader().runtime.change(change, told.append)
        self.until(lambda: bool(told))
        assert told == [None]


def with_settings(node: Node, **changes: Any) -> None:
    """Change a node's settings before its next start."""
    node.settings = dataclasses.replace(node.settings, **changes)


def entries_of(node: Node) -> Sequence[Any]:
    """The entries in a node's journal."""
    journal = node.runtime.parts.journal
    return journal.entries(journal.first_index(), journal.last_index(), 2**40)

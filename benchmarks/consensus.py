"""Measure what a replicated write costs: the core, the journal, one node's runtime, and three of them, in one interleaved run.

    python benchmarks/consensus.py
    python benchmarks/consensus.py --quick --folder /var/tmp --json out.json

Every row does writes of 100 bytes and waits for them; ``depth`` is how many are under way at a time.

===============  =====================================================================================================
core             three cores of consensus in memory: an entry per write, until it is committed and handed out
journal          the journal through its disk thread, an entry per write (as in ``benchmarks/journal.py``)
node             core, journal and store of a node that is its only voter: proposals, packed as they come together
three nodes      three of them in this process, in memory linked, each with its own journal: a majority is durable
lmdb             a transaction of ``depth`` puts under ascending keys, with LMDB's fsync
===============  =====================================================================================================

Rounds take turns, and medians of the rounds are shown. Syncs are those of all journals of a row together. Read ratios: the
time of one row depends on the machine and its load.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import journal
from benchmarks.journal import DATA, Lmdb, Subject, ThreadedJournal
from django_keyspace.node.clock import HostClock
from django_keyspace.node.disk import HostDisk
from django_keyspace.node.journal import JournalWriter
from django_keyspace.node.machine import Machine
from django_keyspace.node.parts import Parts
from django_keyspace.node.raft import (
    Entry,
    HardState,
    Raft,
    Ready,
    Role,
    SnapshotMeta,
    bootstrap_snapshot,
    make_membership,
)
from django_keyspace.node.runtime import Runtime
from django_keyspace.node.scheduler import LoopScheduler
from django_keyspace.node.settings import RuntimeSettings
from django_keyspace.node.start import open_state
from django_keyspace.store import StoreOptions

# Other load on the machine may hold a disk or a loop up for long, and nobody is to be elected in the middle of a turn.
SETTINGS = RuntimeSettings(tick_ms=300)
KEYS = 10_000
KEPT_ENTRIES = 4_096
CALL_BYTES = 200


class MemoryLog:
    """A log that is durable at once, and forgets what is applied."""

    def __init__(self, meta: SnapshotMeta) -> None:
        self._meta = meta
        self._hard = HardState()
        self._entries: list[Entry] = []
        self._base = (0, 0)

    def hard_state(self) -> HardState:
        return self._hard

    def snapshot(self) -> SnapshotMeta:
        return self._meta

    def changes(self) -> Sequence[Entry]:
        return ()

    def first_index(self) -> int:
        return self._base[0] + 1

    def last_index(self) -> int:
        return self._base[0] + len(self._entries)

    def term(self, index: int) -> int:
        return self._entries[index - self.first_index()].term if index > self._base[0] else self._base[1]

    def entries(self, low: int, high: int, bytes_max: int) -> Sequence[Entry]:
        begin = low - self.first_index()
        return self._entries[begin : begin + high - low + 1]

    def write(self, ready: Ready) -> None:
        self._entries.extend(ready.entries)
        self._hard = ready.hard_state or self._hard

    def forget(self, index: int) -> None:
        count = index - self._base[0]
        if count >= KEPT_ENTRIES:
            last = self._entries[count - 1]
            del self._entries[:count]
            self._base = (last.index, last.term)


class Core(Subject):
    """See above."""

    name = "core"

    def __init__(self, folder: Path) -> None:
        members = make_membership(("n1", "n2", "n3"))
        self._logs = {name: MemoryLog(bootstrap_snapshot(members)) for name in members.voters}
        self._cores = {name: Raft(name, log, Random(name)) for name, log in self._logs.items()}
        self._committed = 0
        while not any(core.role is Role.LEADER for core in self._cores.values()):
            for core in self._cores.values():
                core.tick()
                self._settle()
        self._leader = next(core for core in self._cores.values() if core.role is Role.LEADER)

    def _settle(self) -> None:
        """Carry out what the cores want done, until they want nothing."""
        busy = True
        while busy:
            busy = False
            for name, core in self._cores.items():
                while (ready := core.ready()) is not None:
                    busy = True
                    self._logs[name].write(ready)
                    core.advance(ready)
                    if ready.committed:
                        self._logs[name].forget(ready.committed[-1].index - KEPT_ENTRIES)
                        self._committed += len(ready.committed)
                    for message in ready.messages:
                        self._cores[message.to].step(message)

    def write(self, count: int, depth: int) -> None:
        for _ in range(0, count, depth):
            before = self._committed
            for _ in range(depth):
                self._leader.propose(DATA)
            self._settle()
            if self._committed - before < 3 * depth:
                raise RuntimeError("The cores did not commit what was proposed.")


class TurnClock(HostClock):
    """The host's clock, which stands still while other rows have their turn: nobody's leadership ends meanwhile."""

    def __init__(self) -> None:
        self._stopped_ms = super().monotonic_ms()
        self._away_ms = 0
        self._runs = False

    def monotonic_ms(self) -> int:
        return (super().monotonic_ms() if self._runs else self._stopped_ms) - self._away_ms

    def go(self) -> None:
        self._away_ms += super().monotonic_ms() - self._stopped_ms
        self._runs = True

    def stop(self) -> None:
        self._stopped_ms = super().monotonic_ms()
        self._runs = False

    def skip(self, duration_ms: int) -> None:
        """Let time pass at once."""
        self._away_ms -= duration_ms


class Nodes(Subject):
    """Some nodes in one event loop."""

    count = 1

    def __init__(self, folder: Path) -> None:
        self._loop = new_loop()
        self._clock = TurnClock()
        self._key = 0
        self._nodes: dict[str, Runtime] = {}
        members = make_membership([f"n{number}.1" for number in range(1, self.count + 1)])
        for name in members.voters:
            (folder / name).mkdir(parents=True)
            self._nodes[name] = self._open(folder / name, name, bootstrap_snapshot(members))
        for node in self._nodes.values():
            node.start()
        self._run(self._elect())

    def _open(self, folder: Path, name: str, bootstrap: SnapshotMeta) -> Runtime:
        disk = HostDisk(str(folder))
        machine = Machine.open(disk, StoreOptions(max_bytes=2**30, databases=1), "boot", Random(name))
        durable, snapshots = open_state(disk, machine, bootstrap)
        scheduler = LoopScheduler(self._loop)
        writer = JournalWriter(durable)

        def give_up(reason: str) -> None:
            raise RuntimeError(reason)

        parts = Parts(
            self._clock,
            scheduler,
            writer,
            durable,
            snapshots,
            machine,
            Links(self, name),
            Random(name),
            SETTINGS,
            give_up,
        )
        return Runtime(name, "benchmark", parts)

    def carry(self, sender: str, to: str, frame: tuple[Any, ...]) -> None:
        """A frame arrives in the next turn of the loop."""
        self._loop.call_soon(self._nodes[to].receive, sender, [frame])

    def _run(self, coroutine: Any) -> None:
        self._clock.go()
        try:
            self._loop.run_until_complete(coroutine)
        finally:
            self._clock.stop()

    async def _elect(self) -> None:
        while not any(node.leads and node.raft.has_applied_all for node in self._nodes.values()):
            self._clock.skip(SETTINGS.tick_ms)
            await asyncio.sleep(SETTINGS.tick_ms / 3_000)
        self._leader = next(node for node in self._nodes.values() if node.leads)

    @property
    def syncs(self) -> int:  # type: ignore[override]
        return sum(node.parts.journal.syncs for node in self._nodes.values())

    def write(self, count: int, depth: int) -> None:
        self._run(self._write(count, depth))

    async def _write(self, count: int, depth: int) -> None:
        for _ in range(0, count, depth):
            answered = self._loop.create_future()
            missing = depth

            def done(results: list[Any], answered: asyncio.Future[None] = answered) -> None:
                nonlocal missing
                if results != [True]:
                    answered.set_exception(RuntimeError(f"A write was answered by {results}."))
                missing -= 1
                if not missing:
                    answered.set_result(None)

            for _ in range(depth):
                self._key = (self._key + 1) % KEYS
                call = ("set", 0, b"%020d" % self._key, (1, 0, DATA), None, "always")
                self._leader.propose((call,), CALL_BYTES, done)
            await answered

    def close(self) -> None:
        for node in self._nodes.values():
            node.stop()
        for node in self._nodes.values():
            node.parts.writer.stop()
            node.parts.journal.close()
            node.parts.machine.close()
        self._loop.close()


class Links:
    """See ``interfaces.Links``."""

    def __init__(self, nodes: Nodes, name: str) -> None:
        self._nodes = nodes
        self._name = name
        self.entry_versions: dict[str, int] = {}

    def send(self, to: str, frame: tuple[Any, ...]) -> None:
        self._nodes.carry(self._name, to, frame)


class OneNode(Nodes):
    """See above."""

    name = "node"


class ThreeNodes(Nodes):
    """See above."""

    name = "three nodes"
    count = 3


def new_loop() -> asyncio.AbstractEventLoop:
    """The event loop that a node runs on."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


SUBJECTS: tuple[Callable[[Path], Subject], ...] = (Core, ThreadedJournal, OneNode, ThreeNodes, Lmdb)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for."""
    journal.main(arguments, SUBJECTS, "Measure what a replicated write costs, beside py-lmdb's durable commit.")


if __name__ == "__main__":
    main()

"""A node of a simulation: a host with clocks and disks, and a process on it that comes and goes.

The process is the real one, as far as :func:`~django_keyspace.node.start.open_runtime` makes it: journal and snapshots lie
on a :class:`~tests.sim.disk.SimDisk`, the store on a folder in memory. A power cut gives the machine another boot id, loses what
was not synced, and leaves rubbish in the store's file, so that nobody gets away with using it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any
from zlib import crc32

import lmdb

from django_keyspace.exceptions import DamagedJournal, DamagedSnapshot, DiskFailed, KeyspaceError, NoSpace
from django_keyspace.node.disk import DiskFile, HostDisk
from django_keyspace.node.raft import BadMessage, Membership, SnapshotMeta
from django_keyspace.store.folder import STATE_FILE
from django_keyspace.store.record import Tag, pack_header
from tests.sim.clock import SimClock
from tests.sim.disk import PowerCut, SimDisk
from tests.sim.process import SimScheduler, SimWriter
from tests.sim.world import Event, Life, Violated

if TYPE_CHECKING:
    from tests.sim.cluster import SimCluster

RUBBISH = b"\xde\xad" * 2048


class StoreDisk(HostDisk):
    """The folder of a node's store. Its operations end when the power does; what was done stays.

    Attributes:
        cut_after: so many more operations are done before the power goes out; None if it does not.
        creations_left: for so many more files there is room; None if there is for any number.
    """

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.cut_after: int | None = None
        self.creations_left: int | None = None

    def fill(self, creations_left: int = 0) -> None:
        """From now on there is room for so many more files."""
        self.creations_left = creations_left

    def _step(self) -> None:
        if self.cut_after is not None:
            self.cut_after -= 1
            if self.cut_after < 0:
                raise PowerCut

    def create(self, name: str, size_bytes: int = 0) -> DiskFile:
        self._step()
        if self.creations_left is not None:
            self.creations_left -= 1
            if self.creations_left < 0:
                raise NoSpace(f"simulated: no room for {name}")
        return super().create(name, size_bytes)

    def rename(self, old: str, new: str) -> None:
        self._step()
        super().rename(old, new)

    def remove(self, name: str) -> None:
        self._step()
        super().remove(name)

    def make_folder(self, name: str) -> None:
        self._step()
        super().make_folder(name)

    def sync_folder(self, folder: str = "") -> None:
        self._step()

    def spoil(self, random: Random) -> None:
        """A power cut: data files that had unsynced writes hold rubbish now, or look sound and are wrong."""
        for data in sorted(Path(self.root).glob("store-*/data.mdb")):
            state = data.with_name(STATE_FILE)
            if state.exists() and json.loads(state.read_text())["clean"]:
                continue
            if random.random() < 0.5:
                with open(data, "r+b") as file:
                    file.write(RUBBISH)
            else:
                self._falsify(data.parent)

    @staticmethod
    def _falsify(folder: Path) -> None:
        """Take a record away, and put another one there."""
        try:
            with lmdb.open(str(folder), max_dbs=8, map_size=2**23, sync=False) as environment:
                records = environment.open_db(b"database0", create=False)
                with environment.begin(write=True, db=records) as txn:
                    cursor = txn.cursor()
                    if cursor.last():
                        cursor.delete()
                    txn.put(b"k0", pack_header(int(Tag.BYTES), 0, crc32(b"v0."), 1, 0, 0) + b"v0.")
        except lmdb.Error:
            pass  # it was spoilt before


class SimNode:
    """A host, the node on it, and the process that runs now.

    Arguments:
        cluster: which it belongs to.
        host: its name.
        membership: the first members, if it is one of them; none for a node that joins.

    Attributes:
        id: the node's id in the consensus; it changes when the host is wiped.
        life: the process; None while there is none.
        runtime: what runs in it.
        trouble: why the node cannot start again, and has to be wiped; empty if it can.
        is_removed: whether the node is no member any more, and rests.
        doom: what happens to it in the middle of its next write to the journal.
    """

    def __init__(self, cluster: SimCluster, host: str, membership: Membership | None) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.host = host
        self.random = self.world.random(f"node/{host}")
        self.clock = SimClock(
            self.random, lambda: self.world.now_us, cluster.plan.drift_max, self.random.randint(-5_000, 5_000)
        )
        if cluster.plan.drift_max:
            self.clock.drift()
            self.clock.counts.clear()
        self.number = 0
        self.lives = 0
        self.boots = 0
        self.life: Life | None = None
        self.runtime: Any = None
        self.machine: Any = None
        self.writer: Any = None
        self.slow_disk = False
        self.slow_apply = False
        self.is_removed = False
        self.doom: Callable[[], object] | None = None
        self.wipe(membership)

    # --- Identity and disks -------------------------------------------------------------------------------------------

    def wipe(self, membership: Membership | None = None) -> None:
        """The host gets new disks, and the node another id."""
        assert self.life is None, "only a node that is down is wiped"
        if self.number:
            self._collect()
        self.number += 1
        self.id = f"{self.host}.{self.random.getrandbits(32):08x}"
        self.disk = SimDisk(self.world.random(f"disk/{self.host}/{self.number}"))
        root = self.cluster.folder / f"{self.host}-{self.number}"
        root.mkdir()
        self.store_disk = StoreDisk(str(root))
        self.bootstrap = SnapshotMeta(0, 0, membership or Membership())
        self.is_initialised = False
        self.is_joining = membership is None
        self.trouble = ""
        self.is_removed = False
        self.cluster.hosts_by_id[self.id] = self.host

    def _collect(self) -> None:
        """Keep the counts of a disk that goes."""
        self.world.counts.update({f"disk:{kind}": count for kind, count in self.disk.counts.items()})
        self.disk.counts.clear()

    def collect(self) -> None:
        """At the end: add the counts of faults."""
        self._collect()
        self.world.counts.update({f"clock:{kind}": count for kind, count in self.clock.counts.items()})

    @property
    def boot_id(self) -> str:
        """This boot of the machine."""
        return f"{self.host}-boot-{self.boots}"

    # --- The process --------------------------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """Whether a process runs, or is stopped."""
        return self.life is not None

    @property
    def is_running(self) -> bool:
        """Whether a process runs."""
        return self.life is not None and not self.life.paused

    @property
    def age_ms(self) -> int:
        """For how long its process has run."""
        return (self.world.now_us - self.started_us) // 1000

    def start(self) -> bool:
        """Start a process. Returns whether it runs."""
        if self.life is not None or self.trouble:
            return False
        self.lives += 1
        self.started_us = self.world.now_us
        life = self.life = Life(self.host, lambda: self.power_cut("in the middle of an operation"))
        self.scheduler = SimScheduler(self.world, life, self.clock, self._thread_delay_us)
        try:
            self.cluster.open_node(self)
        except PowerCut:
            self.power_cut("while it started")
            return False
        except (DamagedJournal, DamagedSnapshot) as error:
            self._end(f"cannot start: {error}")
            self.trouble = str(error)
            self.world.counts["unusable"] += 1
            self.cluster.watch.unusable(self)
            return False
        except (DiskFailed, NoSpace) as error:
            self._end(f"did not start: {error}")
            self.cluster.start_later(self)
            return False
        self.is_initialised = True
        self.cluster.watch.started(self)
        self.world.note(self.host, f"started as {self.id}: {self.describe()}")
        self.runtime.start()
        return True

    def make_writer(self, journal: Any, give_up: Callable[[KeyspaceError], None]) -> SimWriter:
        """The disk thread."""
        assert self.life is not None
        self.writer = SimWriter(
            journal,
            give_up,
            world=self.world,
            life=self.life,
            clock=self.clock,
            disk=self.disk,
            delay_us=self._write_delay_us,
        )
        return self.writer

    def gives_up(self, reason: str) -> None:
        """The process ends because of itself."""
        self.world.counts["gave_up"] += 1
        self.cluster.watch.gave_up(self, reason)
        self._end(f"gave up: {reason}")
        self.disk.kill()
        self.cluster.start_later(self)

    def kill(self, writing: int | None = None) -> None:
        """SIGKILL. What was written stays in the system's page cache.

        Arguments:
            writing: if a write is under way, so many more operations of it reach the system.
        """
        self._cut_write(writing)
        self._end("killed")
        self.disk.kill()

    def power_cut(self, why: str = "", writing: int | None = None) -> None:
        """The machine is off, and then on again, without what was not synced."""
        self._cut_write(writing)
        self._end(f"lost its power {why}", told=False)
        self.world.counts["power_cut"] += 1
        self.disk.crash()
        self.store_disk.spoil(self.random)
        self.boots += 1
        self.cluster.start_later(self)

    def shut_down(self) -> None:
        """A clean end, at once."""
        runtime = self.runtime
        runtime.stop()
        try:
            self.writer.stop()
            runtime.parts.journal.close()
            self.machine.close(clean=True)
            self.machine = None
        except DiskFailed as error:
            self.world.note(self.host, f"could not stop in good order: {error}")
        self._end("stopped")
        self.disk.kill()

    def pause(self) -> None:
        """SIGSTOP."""
        assert self.life is not None
        self.life.paused = True
        self.world.note(self.host, "paused")

    def resume(self) -> None:
        """SIGCONT."""
        if self.life is not None and self.life.paused:
            self.world.note(self.host, f"goes on, {len(self.life.deferred)} things are waiting")
            self.world.wake(self.life, self._after_pause)

    def _after_pause(self, events: list[Event]) -> list[Event]:
        """In which order a process finds what waited: timers, clients and peers have no order among each other. And after a long
        while the others have given up its connections: what they had sent is lost.
        """
        order = self.random.choice((None, ("arrive", "handled"), ("handled", "arrive")))
        if self.random.random() < 0.4:
            lost = [event for event in events if _name(event) == "arrive"]
            self.world.counts["lost_while_stopped"] += len(lost)
            events = [event for event in events if _name(event) != "arrive"]
        if order is None:
            return events
        return sorted(events, key=lambda event: order.index(_name(event)) if _name(event) in order else 2)

    def _cut_write(self, writing: int | None) -> None:
        if writing is not None and self.writer is not None and self.writer.is_writing:
            self.world.counts["cut_write"] += 1
            self.writer.cut_short(writing)

    def _end(self, how: str, told: bool = True) -> None:
        self.world.note(self.host, how)
        life, self.life = self.life, None
        assert life is not None
        life.dead = True
        life.deferred = []
        self.doom = None
        self.store_disk.cut_after = None
        runtime, self.runtime = self.runtime, None
        machine, self.machine = self.machine, None
        self.writer = None
        if runtime is not None:
            runtime.kill()
            self.cluster.watch.ended(self, runtime.parts.journal)
        if machine is not None:
            machine.close(clean=False)
        self.cluster.ended(self, told)

    def drop(self) -> None:
        """The simulation is over: close what is open."""
        if self.machine is not None:
            self.machine.close(clean=False)
            self.machine = None

    # --- How long things take -----------------------------------------------------------------------------------------

    def _write_delay_us(self) -> int:
        delay_us = 80 + int(self.random.random() ** 3 * 1_500)
        if self.doom is not None:
            doom, self.doom = self.doom, None
            self.world.at(40, self.life, doom)
        if self.slow_disk and self.random.random() < 0.3:
            self.disk.counts["slow"] += 1
            delay_us += int(self.random.random() ** 2 * 2_500_000)
        return delay_us

    def _thread_delay_us(self, thread: str) -> int:
        if thread == "snapshot":
            return self.random.randint(2_000, 80_000)
        if thread == "script":
            return self.random.randint(200, 20_000)
        delay_us = 40 + int(self.random.random() ** 3 * 600)
        if self.slow_apply and self.random.random() < 0.3:
            self.world.counts["slow_apply"] += 1
            delay_us += int(self.random.random() ** 2 * 500_000)
        return delay_us

    # --- What comes ---------------------------------------------------------------------------------------------------

    def arrive(self, sender: str, frame: Any) -> None:
        """A frame of another node."""
        try:
            self.runtime.receive(sender, [frame])
        except BadMessage as error:
            raise Violated(f"{self.id} does not understand what {sender} says: {error}: {frame!r:.200}") from error

    def lost_peer(self, peer: str, is_gone: bool = False) -> None:
        """The connection to another node broke, or nobody is there any more, or so it seems."""
        self.runtime.peer_lost(peer, is_gone=is_gone)

    # --- Looking ------------------------------------------------------------------------------------------------------

    @property
    def raft(self) -> Any:
        """The consensus core of the process."""
        return self.runtime.raft

    @property
    def leads(self) -> bool:
        """Whether it believes to lead."""
        return self.life is not None and self.runtime is not None and self.raft.role.value == "leader"

    def describe(self) -> str:
        """Role, term and places."""
        return "down" if self.runtime is None else str(self.raft.describe())

    def read_now(self, name: str, *arguments: Any) -> Any:
        """Read the store as it is now."""
        return self.machine.read(self.runtime.log_time_ms(), name, *arguments)

    def free_disk(self) -> None:
        """There is room again."""
        self.disk.capacity_bytes = 2**40
        self.store_disk.creations_left = None


def _name(event: Event) -> str:
    return getattr(event.function, "__name__", "")

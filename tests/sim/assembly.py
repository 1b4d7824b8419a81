"""How a node of a simulation is put together, and what of the package is replaced meanwhile: clocks, ids and one thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from django_keyspace.node.machine import Machine
from django_keyspace.node.parts import Parts
from django_keyspace.node.raft import Config
from django_keyspace.node.runtime import Runtime
from django_keyspace.node.settings import RuntimeSettings
from django_keyspace.node.start import open_state
from django_keyspace.store import StoreOptions, clock, sessions
from django_keyspace.store import store as store_module
from tests.sim.clients import use_time_of
from tests.sim.profiles import Plan
from tests.sim.world import Violated, World

if TYPE_CHECKING:
    from tests.sim.cluster import SimCluster
    from tests.sim.node import SimNode

REMEDY = "wipe it and let it join again"
CLUSTER = "c0ffee"
TICK_MS = 100


class PlainCopy:
    """A copy of a store as it is now, without a thread: see :class:`~django_keyspace.store.copying.StoreCopy`."""

    def __init__(self, store: Any, read: Callable[[Any], Any]) -> None:
        self.facts: Any = None
        self._store = store
        self._read = read
        self._data = b""

    def __enter__(self) -> PlainCopy:
        environment = self._store._opened()
        descriptor = os.memfd_create("copy")
        try:
            with environment.begin() as transaction:
                self.facts = self._read(transaction)
                environment.lmdb.copyfd(descriptor, compact=True, txn=transaction)
            self._data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        finally:
            os.close(descriptor)
        return self

    def __exit__(self, *_: object) -> None:
        self._data = b""

    def __iter__(self) -> Iterator[bytes]:
        yield self._data


def no_clock(of_host: Callable[[], int]) -> Callable[[], int]:
    """Stands in for one of the host's clocks on this thread. Stores of other tests may have threads that go on."""
    simulation = threading.get_ident()

    def read() -> int:
        if threading.get_ident() == simulation:
            raise Violated("Something in a simulation looked at the host's clock.")
        return of_host()

    return read


@contextmanager
def patched(world: World, plan: Plan) -> Iterator[None]:
    """Take time, ids and chance from a simulation, and refuse those of the host."""
    use_time_of(world)
    with (
        patch.object(clock, "wall_ms", no_clock(clock.wall_ms)),
        patch.object(clock, "boot_ms", no_clock(clock.boot_ms)),
        patch.object(store_module, "StoreCopy", PlainCopy),
        patch.object(sessions, "EXPIRY_MS", plan.session_ms),
    ):
        yield


def settings_of(plan: Plan) -> RuntimeSettings:
    """The runtime's settings in a plan."""
    return RuntimeSettings(
        tick_ms=TICK_MS,
        raft=Config(
            election_ticks=10,
            lease_drift_max=0.1 if plan.leases else None,
            append_entries_max=plan.append_entries,
            inflight_messages_max=plan.inflight,
            snapshot_ticks=30,
        ),
        apply_here_bytes_max=plan.apply_here_bytes,
        upkeep_ms=500,
        snapshot_entries=plan.snapshot_entries,
        tail_entries=plan.tail_entries,
        session_wait_ms=200,
        transfer_retry_ms=500,
        entries_max=plan.entries_max,
    )


class SimLinks:
    """See ``interfaces.Links``."""

    entry_versions: Mapping[str, int] = MappingProxyType({})

    def __init__(self, cluster: SimCluster, node: SimNode) -> None:
        self._cluster = cluster
        self._host = node.host
        self._id = node.id

    def connected_ms(self, member: str) -> int:
        host = self._cluster.host_of(member)
        node = self._cluster.nodes.get(host) if host is not None else None
        return node.age_ms if node is not None and node.is_running else 0

    def send(self, to: str, frame: tuple[Any, ...]) -> None:
        host = self._cluster.host_of(to)
        if host is not None:
            self._cluster.network.send(self._host, self._id, host, to, frame)


def options_of(plan: Plan) -> StoreOptions:
    """How stores are opened."""
    return StoreOptions(databases=1, max_bytes=plan.max_bytes, map_bytes=2**22, value_bytes_max=2**20)


def assemble(cluster: SimCluster, node: SimNode) -> None:
    """Open what a node has on its disks, and make its runtime."""
    world, plan, life = cluster.world, cluster.plan, node.life
    assert life is not None
    random = world.random(f"runtime/{node.id}/{node.lives}")
    machine = node.machine = Machine.open(
        node.store_disk,
        options_of(plan),
        node.boot_id,
        random,
        upkeep=False,
        boot_ms=node.clock.monotonic_ms,
    )
    journal, snapshots = open_state(
        node.disk,
        machine,
        None if node.is_initialised else node.bootstrap,
        remedy=REMEDY,
        segment_bytes=plan.segment_bytes,
    )
    parts = Parts(
        clock=node.clock,
        scheduler=node.scheduler,
        writer=node.make_writer(journal, lambda error: None),
        journal=journal,
        snapshots=snapshots,
        machine=machine,
        links=SimLinks(cluster, node),
        random=random,
        settings=settings_of(plan),
        give_up=node.gives_up,
    )
    node.runtime = Runtime(node.id, CLUSTER, parts)

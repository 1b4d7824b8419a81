"""What a runtime is made of, and what it says about itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from django_keyspace.node import raft as consensus
from django_keyspace.node.clock import NodeClock
from django_keyspace.node.interfaces import Links, Scheduler, Writer
from django_keyspace.node.journal import Journal
from django_keyspace.node.machine import Machine
from django_keyspace.node.settings import RuntimeSettings
from django_keyspace.node.snapshot import SnapshotStore


@dataclass(frozen=True, slots=True)
class Parts:
    """What a runtime is made of; see ``interfaces.py``."""

    clock: NodeClock
    scheduler: Scheduler
    writer: Writer
    journal: Journal
    snapshots: SnapshotStore
    machine: Machine
    links: Links
    random: Random
    settings: RuntimeSettings
    give_up: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RuntimeStatus:
    """A node at one moment.

    Attributes:
        core: what the consensus core says.
        log_ms: the log clock.
        pending_calls: writes that wait or are under way.
        is_full: whether the disk has no room.
        snapshots: the entries of which there are snapshots.
        heard_ms_ago: how long ago this node knew of a leader that a majority follows; None if it does not know.
    """

    core: consensus.Status
    log_ms: int
    pending_calls: int
    is_full: bool
    snapshots: tuple[int, ...]
    heard_ms_ago: int | None

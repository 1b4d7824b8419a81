"""How a replicated node's runtime is set up: times, and the bounds on what it keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from django_keyspace.node.raft import Config

ELECTION_TIMEOUT_MS: Final = 400
TICKS_PER_ELECTION: Final = 10
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """Settings of one node's runtime; the same on all nodes of a cluster.

    Attributes:
        tick_ms: the time between two heartbeats; the election timeout is ``raft.election_ticks`` of them.
        raft: settings of the consensus core, in ticks.
        calls_max: writes that may be waiting or under way before more are refused.
        bytes_max: the same in bytes.
        group_calls_max: operations in one entry.
        group_bytes_max: the same in bytes, unless a single write is larger.
        entries_max: entries of this node that may be under way; what comes meanwhile gathers for the next one.
        apply_here_bytes_max: committed entries of at most so many bytes are applied on the loop's own thread.
        upkeep_ms: the time between two looks at what is due: sweeps, sessions, snapshots, room on the disk.
        snapshot_entries: a snapshot is made when so many entries were applied since the last one.
        snapshot_bytes: or so many bytes.
        tail_entries: entries before the snapshots that are kept for slow followers, so that a brief outage needs no snapshot.
        session_wait_ms: how long a session read waits for this node to catch up before it is sent to the leader.
        transfer_retry_ms: a snapshot's chunks that were not acknowledged for so long are sent again.
    """

    tick_ms: int = ELECTION_TIMEOUT_MS // TICKS_PER_ELECTION
    raft: Config = field(default_factory=lambda: Config(election_ticks=TICKS_PER_ELECTION))
    calls_max: int = 100_000
    bytes_max: int = 256 * _MIB
    group_calls_max: int = 1_000
    group_bytes_max: int = 8 * _MIB
    entries_max: int = 16
    apply_here_bytes_max: int = 128 * 1024
    upkeep_ms: int = 1_000
    snapshot_entries: int = 200_000
    snapshot_bytes: int = 256 * _MIB
    tail_entries: int = 10_000
    session_wait_ms: int = 100
    transfer_retry_ms: int = 1_000

    @property
    def election_timeout_ms(self) -> int:
        """The shortest time after which a node that hears no leader asks for an election."""
        return self.tick_ms * self.raft.election_ticks

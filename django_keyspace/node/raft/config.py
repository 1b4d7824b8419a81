"""How a core is set up: its times in ticks and the bounds on everything that it keeps or sends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .errors import InvalidConfig

HEARTBEATS_PER_ELECTION_MIN: Final = 10
"""An election timeout has to outlast several lost heartbeats, or a busy link elects leaders all day."""
DRIFT_MAX: Final = 0.5
_KIB: Final = 1024
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of one core; the same on all nodes of a cluster.

    Attributes:
        election_ticks: the election timeout. Each attempt waits for a random time between this and its double. A
            follower that heard from its leader within this time grants no vote, and neither does a node that has started
            within this time.
        heartbeat_ticks: the leader's time between two heartbeats; at most a tenth of the election timeout.
        pre_vote: ask whether an election could be won before the term is raised for it.
        check_quorum: a leader that has not heard from a majority for an election timeout steps down, and followers in
            contact with a leader ignore votes.
        lease_drift_max: None switches lease reads off. Otherwise the largest difference of speed between any two nodes'
            clocks that lease reads survive, as a fraction: 0.1 means that one clock may run 10 % faster than another.
        entry_bytes_max: the largest proposal.
        append_bytes_max: bytes of entries in one message, unless a single entry is larger.
        append_entries_max: entries in one message.
        inflight_messages_max: append messages that may be unanswered per peer.
        inflight_bytes_max: the same in bytes.
        uncommitted_entries_max: proposals that may wait for a majority before more are refused.
        uncommitted_bytes_max: the same in bytes.
        apply_bytes_max: bytes of committed entries that may be handed out and not yet reported as applied.
        reads_max: reads that may wait for a confirmation before more are refused.
        promote_lag_max: entries by which a learner may be behind when it is promoted.
        members_max: voters and learners together.
        snapshot_ticks: a snapshot transfer that does not move for so long counts as failed.
    """

    election_ticks: int = 10
    heartbeat_ticks: int = 1
    pre_vote: bool = True
    check_quorum: bool = True
    lease_drift_max: float | None = None
    entry_bytes_max: int = 128 * _MIB
    append_bytes_max: int = _MIB
    append_entries_max: int = 1024
    inflight_messages_max: int = 64
    inflight_bytes_max: int = 16 * _MIB
    uncommitted_entries_max: int = 16_384
    uncommitted_bytes_max: int = 256 * _MIB
    apply_bytes_max: int = 64 * _MIB
    reads_max: int = 65_536
    promote_lag_max: int = 1_000
    members_max: int = 31
    snapshot_ticks: int = 300

    def __post_init__(self) -> None:
        """Check that the settings fit together. Raises :class:`InvalidConfig`."""
        for name in self.__slots__:
            value = getattr(self, name)
            if type(value) is int and value < 1:
                raise InvalidConfig(f"{name} is {value}, and has to be 1 or more.")
        if self.election_ticks < HEARTBEATS_PER_ELECTION_MIN * self.heartbeat_ticks:
            raise InvalidConfig(
                f"election_ticks is {self.election_ticks} and heartbeat_ticks {self.heartbeat_ticks}: an election timeout "
                f"has to be {HEARTBEATS_PER_ELECTION_MIN} heartbeats or more, or lost heartbeats elect new leaders."
            )
        if self.lease_drift_max is None:
            return
        if not self.check_quorum:
            raise InvalidConfig(
                "lease_drift_max needs check_quorum: without it nobody promises the leader to elect no other one. "
                "Switch check_quorum on, or use safe reads."
            )
        if not 0 < self.lease_drift_max <= DRIFT_MAX:
            raise InvalidConfig(
                f"lease_drift_max is {self.lease_drift_max}: it has to be above 0, since no two clocks run alike, and "
                f"{DRIFT_MAX} at most. If the clocks are worse than that, use safe reads."
            )

    @property
    def lease_ticks(self) -> int:
        """For how many ticks a lease lasts, counted from the tick in which its heartbeats were sent; 0 without leases.

        A follower keeps its promise for `election_ticks` of its own ticks. The first of these may come right after the
        heartbeat, so the promise lasts one tick less, and it may run faster than the leader by the drift bound.
        """
        if self.lease_drift_max is None:
            return 0
        return int((self.election_ticks - 1) * (1 - self.lease_drift_max))

"""What a leader knows of one peer, and what it may send to it.

=============  =======================================================================================================
``probe``      It is not known where the peer's log leaves the leader's: one append at a time, then wait for an answer.
``replicate``  The peer follows: appends are sent without waiting, within the windows of messages and bytes.
``snapshot``   The peer needs what the leader has compacted: nothing is appended until the snapshot has arrived.
=============  =======================================================================================================

::

    probe --accepted--> replicate --rejected, lost--> probe --log compacted--> snapshot --arrived, failed--> probe
"""

from __future__ import annotations

import enum
from collections import deque

from .config import Config


class Flow(enum.Enum):
    """How entries are sent to a peer."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Progress:
    """One peer.

    Arguments:
        next_index: the first entry to try.
        tick: the current tick; a new leader gives its peers an election timeout to answer.

    Attributes:
        match: the peer's log is proven equal to the leader's, and durable there, up to this index (rule 13).
        next_index: the next entry to send.
        flow: see the module.
        probing: an append was sent while probing and is unanswered.
        check: a heartbeat was answered by a peer that is behind: send it an append, an empty one too, so that a lost
            message shows.
        pending_snapshot: index of the snapshot that is on its way.
        snapshot_tick: when that transfer last moved.
        heard_tick: when the peer last answered anything in this term.
        round: the last heartbeat round that it answered.
        sent_commit: the commit index that it was last told.
    """

    __slots__ = (
        "_inflight",
        "_inflight_bytes",
        "check",
        "flow",
        "heard_tick",
        "match",
        "next_index",
        "pending_snapshot",
        "probing",
        "round",
        "sent_commit",
        "snapshot_tick",
    )

    def __init__(self, next_index: int, tick: int) -> None:
        self.match = 0
        self.next_index = next_index
        self.flow = Flow.PROBE
        self.probing = False
        self.check = False
        self.pending_snapshot = 0
        self.snapshot_tick = 0
        self.heard_tick = tick
        self.round = 0
        self.sent_commit = 0
        self._inflight: deque[tuple[int, int]] = deque()
        self._inflight_bytes = 0

    @property
    def inflight_messages(self) -> int:
        """Appends that are unanswered."""
        return len(self._inflight)

    @property
    def inflight_bytes(self) -> int:
        """Bytes of the entries in them."""
        return self._inflight_bytes

    def _change_flow(self, flow: Flow, next_index: int) -> None:
        self.flow = flow
        self.next_index = next_index
        self.probing = self.check = False
        self.pending_snapshot = 0
        self._inflight.clear()
        self._inflight_bytes = 0

    def become_probe(self) -> None:
        """Find out where the peer's log is; after a snapshot, behind that."""
        self._change_flow(Flow.PROBE, max(self.match, self.pending_snapshot) + 1)

    def become_replicate(self) -> None:
        """The peer follows."""
        self._change_flow(Flow.REPLICATE, self.match + 1)

    def become_snapshot(self, index: int, tick: int) -> None:
        """A snapshot up to `index` is on its way."""
        self._change_flow(Flow.SNAPSHOT, index + 1)
        self.pending_snapshot = index
        self.snapshot_tick = tick

    def snapshot_failed(self) -> None:
        """It did not arrive; find out again what the peer needs."""
        self.pending_snapshot = 0
        self.become_probe()

    def has_room(self, config: Config) -> bool:
        """Whether an append with entries may be sent now."""
        if self.flow is Flow.REPLICATE:
            return (
                self.inflight_messages < config.inflight_messages_max
                and self._inflight_bytes < config.inflight_bytes_max
            )
        return self.flow is Flow.PROBE and not self.probing

    def sent(self, last_index: int, size_bytes: int) -> None:
        """An append with entries up to `last_index` was sent; none if `size_bytes` is 0."""
        if self.flow is Flow.PROBE:
            self.probing = True
        elif size_bytes:
            self.next_index = last_index + 1
            self._inflight.append((last_index, size_bytes))
            self._inflight_bytes += size_bytes

    def accepted(self, index: int) -> None:
        """The peer's log is durable and equal up to `index`; answers may be late or doubled."""
        self.match = max(self.match, index)
        self.next_index = max(self.next_index, self.match + 1)
        while self._inflight and self._inflight[0][0] <= index:
            self._inflight_bytes -= self._inflight.popleft()[1]
        self.probing = False

    def is_stale_rejection(self, rejected_index: int) -> bool:
        """Whether a rejection is older than what is known by now."""
        if self.flow is Flow.REPLICATE:
            return rejected_index <= self.match
        return self.flow is Flow.SNAPSHOT or rejected_index != self.next_index - 1

    def rejected(self, rejected_index: int, hint_index: int) -> None:
        """The peer does not have `rejected_index` as we do; the last place that both may have is `hint_index`."""
        if self.flow is Flow.REPLICATE:
            self.become_probe()
            return
        self.next_index = max(min(rejected_index, hint_index + 1), self.match + 1)
        self.probing = False

"""Consensus: Raft, as Ongaro's dissertation describes it, without input, output, threads or clocks.

A :class:`Raft` is one node's part. It is told what happens (:meth:`~Raft.tick`, :meth:`~Raft.step`,
:meth:`~Raft.propose`, ...) and says what is to be done (:meth:`~Raft.ready`). Whoever carries that out is called the driver:
it owns the disk, the network, the clock and the state machine. The rules are numbered in ``docs/design.md``.

The contract of the driver
--------------------------

Always

1.  One thread calls a core. Its storage (:class:`LogStorage`) is read on that thread too.
2.  After each call, or after several, take :meth:`~Raft.ready` until it returns None. There may be several `Ready` under
    way: a disk thread may still write the first when the third is taken.

With each `Ready`, in the order of their numbers

3.  Send `messages` at once. *The core holds back what depends on something that is not durable yet* and hands it out
    after step 5: votes and everything else of a new term until term and vote are durable, acknowledgements until the
    entries are. So appends of a leader leave while its own disk still writes, and heartbeats never wait for entries.
4.  Make durable, in this order, what is not None or empty: `snapshot` (install it: store, then log; whatever `committed`
    of earlier `Ready` is not applied yet may be dropped), `entries` (they replace whatever the log has from the first one's
    index on), `hard_state` (last, because its commit index may be that of an entry beside it). A crash may leave any
    beginning of that. If `must_sync` is false, nothing waits for it and no sync is needed. What several `Ready` ask for may
    be synced at once.
5.  When that is durable and visible through the storage, and not before, call :meth:`~Raft.persisted` with the number, if
    `must_sync` was true; it covers all earlier ones. Then go to step 2: acknowledgements, votes and commits come now.
6.  Give `committed` to the state machine, in order, at any pace, and call :meth:`~Raft.applied` when it is done. What is handed
    out is durable here, so that the state machine is never ahead of its log. The core hands out a bounded number of bytes
    at a time and goes on after `applied`.
7.  Answer each of `reads` from the state machine once it has applied that index. Ask those of `refused_reads` anew,
    elsewhere. No read of any kind is answered before :attr:`~Raft.replayed` is true.

If something fails

8.  **If step 4 fails, stop.** Call :meth:`~Raft.fail`, send nothing, retry nothing on the same files, and end the
    process: after a failed sync nobody knows what is on the disk. The next start finds out. A full disk that was noticed
    *before* writing is not a failure: refuse proposals, and :meth:`~Raft.set_may_lead` (False) until there is room.
9.  A crash at any point is fine. At the start the storage shows what was durable; `applied` is what the state machine has
    in the same transaction as its data. A torn end that was never reported as persisted may be cut. Anything else that is
    missing must keep the node from starting under its id: it may have voted or acknowledged what it lost.
10. :class:`BrokenInvariant` and :class:`Stopped` mean the same as 8. :class:`BadMessage` is the peer's fault: log it, drop
    the connection. :class:`Refused` is an answer for a client.

Time

11. Call :meth:`~Raft.tick` once per tick of a monotonic clock that goes on while the machine sleeps. If ticks were missed,
    deliver them (as many as an election timeout has is enough) *before* stepping messages that were waiting and before asking for
    a lease read: a leader that slept has to find out that it may be none, and a follower that slept must not let time pass
    for a heartbeat that it has only just read. Never deliver more ticks than have passed.

Network

12. Messages may be lost, doubled, late and out of order, so a link needs no guarantees. They must come from who they say they
    come from, and from this cluster: that is the handshake's business. :func:`to_wire` and :func:`from_wire` are their form.
13. A :class:`SnapshotRequest` is special: the driver sends the snapshot's bytes first and the message behind them; the receiver
    steps it when it has them all, verified and durable aside, and then says so to the sender, whose driver calls
    :meth:`~Raft.report_snapshot`. While chunks move, it reports that too. A receiver whose core does not ask for the
    installation (`Ready.snapshot`) had the log already and drops the file.
14. When a connection breaks, :meth:`~Raft.report_unreachable` saves waiting.

Compaction

15. The log may be cut at the front up to a durable snapshot, never behind :attr:`Status.applied`, and
    :meth:`LogStorage.snapshot` returns the newest. A tail that stays spares slow followers a snapshot.

What the core decides by itself
-------------------------------

Nothing is unbounded: see :class:`Config`. A leader that hears no majority for an election timeout steps down, as does one whose
disk has not answered for so long. A node that started within an election timeout grants no vote. A leader whose own removal is
committed has a successor elected and follows.
"""

from .config import Config
from .core import Raft
from .errors import (
    BadMessage,
    BrokenInvariant,
    ChangeRefused,
    EntryTooLarge,
    InvalidConfig,
    NotLeader,
    Overloaded,
    RaftError,
    Refused,
    Stopped,
    TransferRefused,
)
from .membership import ADD, PROMOTE, REMOVE, Change, Membership, make_membership, membership_from_bytes
from .messages import (
    CHANGE,
    COMMANDS,
    NOOP,
    AppendRequest,
    AppendResponse,
    Entry,
    Heartbeat,
    HeartbeatResponse,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    SnapshotMeta,
    SnapshotRequest,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
    entry_from_wire,
    from_wire,
    to_wire,
)
from .output import PeerStatus, Ready, Status
from .reads import ReadState
from .state import Role
from .storage import HardState, LogStorage, bootstrap_snapshot

__all__ = [
    "ADD",
    "CHANGE",
    "COMMANDS",
    "NOOP",
    "PROMOTE",
    "REMOVE",
    "AppendRequest",
    "AppendResponse",
    "BadMessage",
    "BrokenInvariant",
    "Change",
    "ChangeRefused",
    "Config",
    "Entry",
    "EntryTooLarge",
    "HardState",
    "Heartbeat",
    "HeartbeatResponse",
    "InvalidConfig",
    "LogStorage",
    "Membership",
    "Message",
    "NotLeader",
    "Overloaded",
    "PeerStatus",
    "PreVoteRequest",
    "PreVoteResponse",
    "Raft",
    "RaftError",
    "ReadState",
    "Ready",
    "Refused",
    "Role",
    "SnapshotMeta",
    "SnapshotRequest",
    "Status",
    "Stopped",
    "TimeoutNow",
    "TransferRefused",
    "VoteRequest",
    "VoteResponse",
    "bootstrap_snapshot",
    "entry_from_wire",
    "from_wire",
    "make_membership",
    "membership_from_bytes",
    "to_wire",
]

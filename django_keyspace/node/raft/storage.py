"""What the core needs of the durable log, and what is kept there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from .membership import Membership
from .messages import Entry, SnapshotMeta


class HardState(NamedTuple):
    """What a node must not forget.

    Attributes:
        term: the highest term that it has seen.
        vote: whom it voted for in that term, "" for nobody.
        commit: how far it knew the log to be committed. Losing this costs nothing but time.
    """

    term: int = 0
    vote: str = ""
    commit: int = 0


class LogStorage(Protocol):
    """The durable part of the log. The core only reads it; the driver writes what :meth:`Raft.ready` hands out.

    All methods are called on the thread that calls the core. They show what is durable: what a `Ready` holds has to be
    visible here when it is reported as persisted. Indexes begin at 1; index 0 has term 0 and is always known.
    """

    def hard_state(self) -> HardState:
        """The last hard state that was written; read once, at the start."""

    def snapshot(self) -> SnapshotMeta:
        """The newest snapshot, which the log behind :meth:`first_index` - 1 continues. A new cluster begins with one of
        index 0, term 0 and the first membership; a node that joins, with index 0 and no members."""

    def changes(self) -> Sequence[Entry]:
        """The membership entries in the log behind the snapshot, oldest first; read once, at the start."""

    def first_index(self) -> int:
        """Index of the oldest entry that is kept; one more than the last if there is none."""

    def last_index(self) -> int:
        """Index of the newest entry; that of the snapshot if there is none behind it."""

    def term(self, index: int) -> int:
        """The term of an index between :meth:`first_index` - 1 and :meth:`last_index`."""

    def entries(self, low: int, high: int, bytes_max: int) -> Sequence[Entry]:
        """The entries from `low` to `high`, both included and both kept.

        Returns:
            A beginning of them of at most `bytes_max` bytes of :attr:`Entry.size_bytes`, and the first one in any case.
        """


def bootstrap_snapshot(membership: Membership) -> SnapshotMeta:
    """What the storage of each first node of a cluster begins with.

    Arguments:
        membership: the first voters, the same on all of them.
    """
    return SnapshotMeta(0, 0, membership)

"""Writes on their way through the log: those that wait to be packed into an entry, and those whose entry is under way.

Whatever has come together in one turn of the loop becomes one entry (the ancestor's command packing). Each entry of this
node's is remembered until it comes back as committed and applied, or until this node ceases to lead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from django_keyspace.exceptions import KeyspaceError, LeadershipLost, Overloaded
from django_keyspace.node.log import Done
from django_keyspace.node.settings import RuntimeSettings
from django_keyspace.operations import Call


class Proposal(NamedTuple):
    """What one caller wants to have done."""

    calls: Sequence[Call]
    size_bytes: int
    done: Done


class Group(NamedTuple):
    """Proposals that go into one entry.

    Attributes:
        proposals: they, in order.
        refused: for each operation of theirs, the error that it got instead of being logged, or None; empty if all are logged.
        upkeep: operations of the node's own that stand before theirs in the entry.
        began_ms: when the entry was made, by the monotonic clock.
    """

    proposals: Sequence[Proposal]
    refused: Sequence[KeyspaceError | None] = ()
    upkeep: int = 0
    began_ms: int = 0

    def results(self, logged: Sequence[Any]) -> list[Any]:
        """The result of each operation, from those of the entry."""
        if not self.refused:
            return list(logged[self.upkeep :]) if self.upkeep else list(logged)
        rest = iter(logged[self.upkeep :])
        return [next(rest) if error is None else error for error in self.refused]


class _UnderWay(NamedTuple):
    term: int
    group: Group


class Proposals:
    """The writes that a node has accepted and not answered.

    Arguments:
        settings: the bounds.

    Attributes:
        calls: how many operations that are.
        bytes: how much memory they take, about.
        waiting_bytes: the same of those that are not in an entry yet.
        came_together: how many proposals were answered with the last entry.
    """

    def __init__(self, settings: RuntimeSettings) -> None:
        self._settings = settings
        self._waiting: deque[Proposal] = deque()
        self._under_way: dict[int, _UnderWay] = {}
        self.calls = self.bytes = self.waiting_bytes = 0
        self.came_together = 1

    @property
    def entries(self) -> int:
        """Entries under way."""
        return len(self._under_way)

    @property
    def waiting(self) -> int:
        """How many are not in an entry yet."""
        return len(self._waiting)

    @property
    def is_waiting(self) -> bool:
        """Whether some are not in an entry yet."""
        return bool(self._waiting)

    def put(self, proposal: Proposal) -> None:
        """Accept one. Raises :class:`Overloaded` if there are too many."""
        calls, size_bytes = self.calls + len(proposal.calls), self.bytes + proposal.size_bytes
        # One proposal larger than the limit is taken when nothing else is pending: otherwise it never could be.
        if self.calls and (calls > self._settings.calls_max or size_bytes > self._settings.bytes_max):
            raise Overloaded(
                f"The node has {self.calls:,} writes of {self.bytes:,} bytes waiting. Nothing was done. Try again later."
            )
        self.calls, self.bytes = calls, size_bytes
        self.waiting_bytes += proposal.size_bytes
        self._waiting.append(proposal)

    def account(self, proposal: Proposal) -> None:
        """Count one that does not wait."""
        self.calls += len(proposal.calls)
        self.bytes += proposal.size_bytes

    def take(self) -> list[Proposal]:
        """The next ones that go into an entry together."""
        group: list[Proposal] = []
        calls = size_bytes = 0
        settings = self._settings
        while self._waiting and calls < settings.group_calls_max:
            proposal = self._waiting[0]
            if group and size_bytes + proposal.size_bytes > settings.group_bytes_max:
                break
            group.append(self._waiting.popleft())
            calls += len(proposal.calls)
            size_bytes += proposal.size_bytes
        self.waiting_bytes -= size_bytes
        return group

    def under_way(self, index: int, term: int, group: Group) -> None:
        """A group's entry is in the log, at that index and of that term."""
        self._under_way[index] = _UnderWay(term, group)

    def applied(self, index: int, term: int, results: Sequence[Any]) -> Group | None:
        """An entry was applied: answer its proposals, if it is this node's.

        Returns:
            The group, if there was one.
        """
        found = self._under_way.pop(index, None)
        if found is None:
            return None
        self.came_together = len(found.group.proposals)
        if found.term == term:
            self.answer(found.group, results)
        else:
            self.fail(found.group, _lost())
        return found.group

    def answer(self, group: Group, results: Sequence[Any]) -> None:
        """Give each proposal of a group its results."""
        all_results = group.results(results)
        begin = 0
        for calls, size_bytes, done in group.proposals:  # as _end, but once per write of a busy node
            end = begin + len(calls)
            self.calls -= len(calls)
            self.bytes -= size_bytes
            done(all_results[begin:end])
            begin = end

    def fail(self, group: Group, error: KeyspaceError) -> None:
        """Nothing of a group was logged, or nobody knows whether it was."""
        for proposal in group.proposals:
            self._end(proposal, [error] * len(proposal.calls))

    def leadership_ended(self, refusal: KeyspaceError) -> None:
        """This node leads no more: what waits was not done, what is under way nobody knows."""
        under_way, self._under_way = list(self._under_way.values()), {}
        waiting, self._waiting = list(self._waiting), deque()
        self.waiting_bytes, self.came_together = 0, 1
        error = _lost()
        for found in under_way:
            self.fail(found.group, error)
        self.fail(Group(waiting), refusal)

    def _end(self, proposal: Proposal, results: list[Any]) -> None:
        self.calls -= len(proposal.calls)
        self.bytes -= proposal.size_bytes
        proposal.done(results)


def _lost() -> LeadershipLost:
    return LeadershipLost(
        "The node ceased to lead before it knew whether the write is committed. It may happen. Sent again under the same "
        "session and sequence, it happens once."
    )

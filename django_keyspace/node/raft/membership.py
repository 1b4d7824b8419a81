"""Who belongs to the cluster, how that may change, and which membership holds at which index.

A membership holds from the moment when its entry is in a node's log, committed or not, as the dissertation has it. If
that entry is truncated, the one before it holds again: :class:`History` remembers them.

An id names one node with one disk. A node that lost its disk comes back under another id, and an id that was removed is
never taken again, because whoever used it may have voted or acknowledged something that it forgot.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from .errors import BadMessage, ChangeRefused, Refused, require

ADD: Final = "add"
PROMOTE: Final = "promote"
REMOVE: Final = "remove"

NODE_CHARACTERS_MAX: Final = 200
INFO_CHARACTERS_MAX: Final = 4096


class Change(NamedTuple):
    """One step: add a learner, promote it to a voter, or remove a member.

    Attributes:
        kind: :data:`ADD`, :data:`PROMOTE` or :data:`REMOVE`.
        node: whom.
        info: for :data:`ADD`: what the driver wants all nodes to know of it, such as its address.
    """

    kind: str
    node: str
    info: str = ""


class Membership(NamedTuple):
    """The members of the cluster; ids are sorted.

    Attributes:
        voters: those whose acknowledgements and votes count.
        learners: those who get the log and count for nothing.
        retired: ids that were removed.
        info: (id, text) of each member about whom the driver said something.
    """

    voters: tuple[str, ...] = ()
    learners: tuple[str, ...] = ()
    retired: tuple[str, ...] = ()
    info: tuple[tuple[str, str], ...] = ()

    @property
    def members(self) -> tuple[str, ...]:
        """Voters, then learners."""
        return self.voters + self.learners

    def after(self, change: Change) -> Membership:
        """The membership that a change leads to.

        Raises:
            ChangeRefused: it does not make sense for these members.
        """
        kind, node, info = change
        voters, learners, infos = set(self.voters), set(self.learners), dict(self.info)
        retired = set(self.retired)
        if kind == ADD:
            _require_addable(self, node, info)
            learners.add(node)
            if info:
                infos[node] = info
        elif kind == PROMOTE:
            if node not in learners:
                raise ChangeRefused(f"{node!r} is not a learner, so it cannot be promoted. Nothing was changed.")
            learners.remove(node)
            voters.add(node)
        elif kind == REMOVE:
            if node not in voters | learners:
                raise ChangeRefused(f"{node!r} is not a member, so it cannot be removed. Nothing was changed.")
            if voters == {node}:
                raise ChangeRefused(
                    f"{node!r} is the last voter: without it nothing could be decided. Nothing was changed."
                )
            voters.discard(node)
            learners.discard(node)
            infos.pop(node, None)
            retired.add(node)
        else:
            raise ChangeRefused(f"There is no change {kind!r}: use add, promote or remove. Nothing was changed.")
        return make_membership(voters, learners, retired, infos)

    def to_bytes(self) -> bytes:
        """As the data of an entry."""
        return json.dumps(self, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def _require_addable(membership: Membership, node: str, info: str) -> None:
    if not node or len(node) > NODE_CHARACTERS_MAX or len(info) > INFO_CHARACTERS_MAX:
        raise ChangeRefused(
            f"A node's id has 1 to {NODE_CHARACTERS_MAX} characters, and the text about it {INFO_CHARACTERS_MAX} at most. "
            "Nothing was changed."
        )
    if node in membership.members:
        raise ChangeRefused(f"{node!r} is a member already. Nothing was changed.")
    if not is_new(membership, node):
        raise ChangeRefused(
            f"{node!r} was a member once, and whoever used that id may have promised what it forgot. Nothing was changed. "
            "Join under a new id."
        )


def is_new(membership: Membership, node: str) -> bool:
    """Whether an id was never used in this cluster (rule 9)."""
    return node not in membership.retired


def make_membership(voters: Any, learners: Any = (), retired: Any = (), info: Any = ()) -> Membership:
    """A membership from any collections of ids, sorted.

    Arguments:
        voters, learners, retired: ids.
        info: a mapping or pairs of id and text.
    """
    return Membership(
        tuple(sorted(voters)), tuple(sorted(learners)), tuple(sorted(retired)), tuple(sorted(dict(info).items()))
    )


def membership_from_wire(value: object) -> Membership:
    """Check and rebuild a membership from plain tuples or lists.

    Raises:
        BadMessage: it is not one.
    """
    if (
        not isinstance(value, tuple | list)
        or len(value) != 4
        or not all(isinstance(part, tuple | list) for part in value)
    ):
        raise BadMessage("A membership has four parts.")
    voters, learners, retired, info = value
    if not all(isinstance(node, str) and node for part in (voters, learners, retired) for node in part):
        raise BadMessage("A membership names nodes by text.")
    pairs = []
    for pair in info:
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise BadMessage("A membership's information is pairs of texts.")
        pairs.append((pair[0], pair[1]))
    if set(voters) & set(learners) or set(retired) & {*voters, *learners}:
        raise BadMessage("A membership names a node twice.")
    return make_membership(voters, learners, retired, pairs)


def membership_from_bytes(data: bytes) -> Membership:
    """The membership of an entry's data.

    Raises:
        BadMessage: the data is not one.
    """
    try:
        return membership_from_wire(json.loads(data))
    except ValueError as error:
        raise BadMessage(f"The data of a membership entry is damaged: {error}.") from None


class History:
    """The memberships of a log, by the index from which each holds.

    Arguments:
        index: index of the snapshot that the log begins after, 0 if there is none.
        membership: the membership as of that index.
    """

    __slots__ = ("_steps",)

    def __init__(self, index: int, membership: Membership) -> None:
        self._steps: list[tuple[int, Membership]] = [(index, membership)]

    @property
    def latest(self) -> Membership:
        """The one that holds."""
        return self._steps[-1][1]

    @property
    def latest_index(self) -> int:
        """Since which index it holds."""
        return self._steps[-1][0]

    @property
    def previous(self) -> Membership:
        """The one before it, as far as it is known; otherwise the same."""
        return self._steps[-2 if len(self._steps) > 1 else -1][1]

    def at(self, index: int) -> Membership:
        """The one that holds at an index. Raises :class:`Refused` if that is before what is remembered."""
        found = [membership for since, membership in self._steps if since <= index]
        if not found:
            raise Refused(f"Nobody remembers the membership at {index}: a newer snapshot is there or on its way.")
        return found[-1]

    def append(self, index: int, membership: Membership) -> None:
        """A membership entry came into the log."""
        require(index > self.latest_index, "Membership entries are appended in order.")
        self._steps.append((index, membership))

    def truncate_from(self, index: int) -> None:
        """The entries from `index` on left the log."""
        while len(self._steps) > 1 and self._steps[-1][0] >= index:
            self._steps.pop()

    def restart(self, index: int, membership: Membership) -> None:
        """A snapshot replaced the log."""
        self._steps = [(index, membership)]

    def compact(self, index: int) -> None:
        """Nobody asks for indexes below `index` any more."""
        while len(self._steps) > 1 and self._steps[1][0] <= index:
            del self._steps[0]

"""What the core raises. The driver turns these into the package's public errors; none of them is public itself.

A :class:`Refused` is an answer: nothing was changed, and the caller may do what the sentence says. A :class:`BadMessage` is
a peer's fault and changes nothing either. A :class:`BrokenInvariant` means that this node must not go on: the core stops,
and so must the process.
"""

from __future__ import annotations


class RaftError(Exception):
    """Base of all errors of the core."""


class InvalidConfig(RaftError, ValueError):
    """A limit or a time of the configuration contradicts another one, or would make a promise untrue."""


class Refused(RaftError):
    """The core does not do what was asked; nothing was changed."""


class NotLeader(Refused):
    """Only the leader can do this.

    Arguments:
        leader: id of the node that is believed to be the leader, if any is known. It may be wrong.
    """

    def __init__(self, leader: str | None) -> None:
        where = f"{leader} is believed to be" if leader else "no node is known to be"
        super().__init__(f"This node is not the leader; {where}. Nothing was changed.")
        self.leader = leader


class Overloaded(Refused):
    """A bound is reached; the same call may succeed later."""


class EntryTooLarge(Refused):
    """The proposal is larger than an entry may be; it would never be accepted."""


class ChangeRefused(Refused):
    """The membership cannot be changed like this, or not now."""


class TransferRefused(Refused):
    """Leadership cannot be handed to that node, or not now."""


class BadMessage(RaftError, ValueError):
    """A message is malformed or was meant for somebody else; it was not used."""


class BrokenInvariant(RaftError):
    """Something happened that must not happen: lost entries, two leaders in a term. The core has stopped."""


class Stopped(RaftError):
    """The core has stopped for good and takes no more calls; restart the node from what is on its disk."""


def require(condition: bool, sentence: str) -> None:
    """Stop at a broken invariant. (Not `assert`, which `python -O` removes.)

    Arguments:
        condition: what must hold.
        sentence: what it means that it does not.
    Raises:
        BrokenInvariant: it does not hold.
    """
    if not condition:
        raise BrokenInvariant(sentence)

"""The arithmetic of majorities. Pure functions."""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping


class Outcome(enum.Enum):
    """What the votes so far say."""

    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def majority(count: int) -> int:
    """How many of `count` voters are a majority."""
    return count // 2 + 1


def reached_by_majority(values: Collection[int]) -> int:
    """The highest value that a majority has reached.

    Arguments:
        values: what each voter has reached, such as its match index.
    Returns:
        0 if there are no voters: nothing is ever decided by nobody.
    """
    if not values:
        return 0
    return sorted(values, reverse=True)[majority(len(values)) - 1]


def outcome(voters: Collection[str], votes: Mapping[str, bool]) -> Outcome:
    """Count the votes of those who may vote.

    Arguments:
        voters: their ids.
        votes: what has been answered; answers of others are not counted.
    """
    granted = sum(1 for voter in voters if votes.get(voter))
    refused = sum(1 for voter in voters if votes.get(voter) is False)
    needed = majority(len(voters))
    if voters and granted >= needed:
        return Outcome.WON
    return Outcome.LOST if len(voters) - refused < needed else Outcome.PENDING

"""What happens when something breaks in a node that must not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from django_keyspace.node.raft import BadMessage


class CanFail(Protocol):
    """Something that can stop its node."""

    is_over: bool

    def fail(self, error: BaseException) -> None:
        """Stop the node."""


T = TypeVar("T", bound=CanFail)
P = ParamSpec("P")


def guarded(method: Callable[Concatenate[T, P], None]) -> Callable[Concatenate[T, P], None]:
    """Make what comes in from outside end the node if something breaks in it that must not, and nothing after that."""

    @functools.wraps(method)
    def call(self: T, /, *arguments: P.args, **named: P.kwargs) -> None:
        if self.is_over:
            return
        try:
            method(self, *arguments, **named)
        except BadMessage:
            raise  # the peer's fault
        except Exception as error:
            self.fail(error)

    return call

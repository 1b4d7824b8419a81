"""Steps that also wait, call the user's function, or encode a value; and that clean up whatever happens meanwhile.

Steps (``backend/twins.py``) yield operations. Those of locks and of single flight yield three more things, so that they too
are written once for threads and for event loops:

- ``("pause", seconds)``: nothing for so long;
- ``("make", default)``: the value of ``default``, which is called if it is callable, and awaited on a loop if need be;
- ``("encode", value)``: the value's stored form.

Every exception is raised at the ``yield``, not only those of operations: steps that hold something give it back when the
user's function fails, at Ctrl-C, and when their task is cancelled.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import random
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation

from django_keyspace.backend.twins import Steppable
from django_keyspace.exceptions import CannotSerialize, InvalidArgument, KeyspaceError
from django_keyspace.operations import Call
from django_keyspace.status import Status, status_of_error

if TYPE_CHECKING:
    from django_keyspace.backend.cache import KeyspaceCache

PAUSE: Final = "pause"
MAKE: Final = "make"
ENCODE: Final = "encode"
LEASE_S_DEFAULT: Final = 30.0
"""How long a lease lasts, for locks and single flight, if the caller does not say."""
_PAUSE_S_MIN: Final = 0.001
_PAUSE_S_MAX: Final = 0.1
_PAUSE_FACTOR: Final = 1.6


class Waiting(Steppable):
    """Carries such steps out.

    Arguments:
        cache: whose engine does the operations.

    Outages are raised always, whatever ``on_error`` says: an answer that stands for an outage must not win a lock.
    """

    _thrown = (BaseException,)

    def __init__(self, cache: KeyspaceCache) -> None:
        self._cache = cache

    def _execute(self, call: Call) -> Any:
        kind = call[0]
        if kind == PAUSE:
            return time.sleep(call[1])
        if kind == MAKE:
            return call[1]() if callable(call[1]) else call[1]
        if kind == ENCODE:
            return self._cache._encode(call[1])
        try:
            return self._noted(self._cache._do(*call))
        except KeyspaceError as error:
            self._cache._note(status_of_error(error))
            raise

    async def _aexecute(self, call: Call) -> Any:
        kind = call[0]
        if kind == PAUSE:
            return await asyncio.sleep(call[1])
        if kind == MAKE:
            made = call[1]() if callable(call[1]) else call[1]
            return await made if inspect.isawaitable(made) else made
        if kind == ENCODE:
            return await self._aencode(call[1])
        try:
            return self._noted(await self._cache._ado(*call))
        except KeyspaceError as error:
            self._cache._note(status_of_error(error))
            raise

    def _noted(self, answer: Any) -> Any:
        """An operation's answer, after the cache's ``last_status`` was set by it."""
        verdict = answer[0] if isinstance(answer, list | tuple) and answer else answer
        self._cache._note(Status.FAILED if verdict is None or verdict is False else Status.SUCCESS)
        return answer

    async def _aencode(self, value: Any) -> Any:
        try:
            return self._cache._encode(value)
        except CannotSerialize as error:
            if not isinstance(error.__cause__, SynchronousOnlyOperation):
                raise
        # A lazy queryset asks the database while it is pickled, which a loop's thread must not do.
        return await sync_to_async(self._cache._encode)(value)


def pauses_s() -> Iterator[float]:
    """Lengths of the pauses between looks at something that others hold: growing, bounded, and different for everybody."""
    longest_s = _PAUSE_S_MIN
    while True:
        yield longest_s * (0.5 + random.random() / 2)
        longest_s = min(longest_s * _PAUSE_FACTOR, _PAUSE_S_MAX)


def seconds(name: str, length: Any, least_s: float) -> float:
    """A length of time that a caller gave, in seconds.

    Arguments:
        name: of the argument, for the error.
        length: int, float or timedelta.
        least_s: anything shorter is refused.
    Raises:
        InvalidArgument: it is no such length, or it is endless.
    """
    if isinstance(length, timedelta):
        length = length.total_seconds()
    if isinstance(length, bool) or not isinstance(length, int | float) or not math.isfinite(length) or length < least_s:
        raise InvalidArgument(
            f"{name} must be a number of seconds or a timedelta, {least_s:g} s or more and not endless; not {length!r}. "
            "Nothing was changed."
        )
    return float(length)

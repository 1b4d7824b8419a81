"""Django's timeouts, of every kind, to the ``expire`` argument of the operations."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any, Final

from django.utils import timezone

from django_keyspace.exceptions import InvalidArgument
from django_keyspace.operations import DEADLINE_MS_MAX, Expire

Timeout = Any
"""Seconds (int or float), a timedelta, None for no expiry, or Django's ``DEFAULT_TIMEOUT``. Zero or less: expired."""

_TIMEOUT_MS_MAX: Final = DEADLINE_MS_MAX // 2


def make_expire(timeout: Timeout) -> Expire:
    """The ``expire`` argument for a timeout, to the millisecond; fractions of one are rounded up.

    Raises:
        InvalidArgument: it is not a number, or NaN, or endless.
    """
    if type(timeout) is int:
        if 0 <= timeout <= _TIMEOUT_MS_MAX // 1000:
            return timeout * 1000
        timeout_ms = timeout * 1000
    elif timeout is None:
        return None
    elif isinstance(timeout, timedelta):
        timeout_ms = math.ceil(timeout / timedelta(milliseconds=1))
    elif isinstance(timeout, int | float) and not isinstance(timeout, bool) and math.isfinite(timeout):
        timeout_ms = math.ceil(timeout * 1000)
    else:
        raise InvalidArgument(
            f"A timeout is a number of seconds, a timedelta, or None for no expiry; not {timeout!r}. Nothing was changed."
        )
    if timeout_ms > _TIMEOUT_MS_MAX:
        raise InvalidArgument(
            f"A timeout of {timeout!r} is beyond any calendar. None means no expiry. Nothing was changed."
        )
    return max(timeout_ms, 0)


def make_deadline(moment: datetime | float) -> Expire:
    """The ``expire`` argument for a point in time.

    Arguments:
        moment: a datetime (a naive one is in Django's current time zone) or seconds since the epoch.
    Raises:
        InvalidArgument: it is neither.
    """
    if isinstance(moment, datetime):
        seconds = (timezone.make_aware(moment) if timezone.is_naive(moment) else moment).timestamp()
    elif type(moment) is int or (isinstance(moment, float) and math.isfinite(moment)):
        seconds = moment
    else:
        raise InvalidArgument(
            f"A deadline is a datetime or seconds since the epoch, not {moment!r}. Nothing was changed."
        )
    deadline_ms = math.ceil(seconds * 1000)
    if deadline_ms > DEADLINE_MS_MAX:
        raise InvalidArgument(f"The deadline {moment!r} is beyond any calendar. Nothing was changed.")
    return ("at", max(deadline_ms, 0))

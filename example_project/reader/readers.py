"""What visitors do: views counted, pages read lately, searches limited. All of it lives in the cache.

Keys: ``views:NAME`` is a counter without a timeout, ``limit:search:ADDRESS`` a counter that ends with its minute.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from django.conf import settings
from django.core.cache import cache
from django.http import HttpRequest

VIEWS_PREFIX = "views:"
COUNTERS_READ_MAX = 5000
RECENT_MAX = 8
LIMIT_WINDOW_S = 60


@dataclass(frozen=True, slots=True)
class Read:
    """A module and how often its page was viewed."""

    name: str
    views: int


def count_view(name: str) -> int:
    """Count one view of a module's page and return how many there are now. Atomic over all threads and processes."""
    return int(cache.incr(f"{VIEWS_PREFIX}{name}", 1, default=0, timeout=None))


def most_read(count: int = 8) -> list[Read]:
    """Return the modules with the most views: one listing of the counters, one get_many for their values."""
    keys = cache.list_keys(prefix=VIEWS_PREFIX, count=COUNTERS_READ_MAX)
    counters = cache.get_many(keys)
    reads = [Read(key.removeprefix(VIEWS_PREFIX), int(views)) for key, views in counters.items()]
    return sorted(reads, key=lambda read: (-read.views, read.name))[:count]


def remember(request: HttpRequest, name: str) -> None:
    """Put a module at the front of this visitor's "recently read" list, which is part of the session."""
    earlier = [other for other in request.session.get("recent", []) if other != name]
    request.session["recent"] = [name, *earlier][:RECENT_MAX]


def recently_read(request: HttpRequest) -> list[str]:
    """Return the modules that this visitor read last, the latest first."""
    recent: list[str] = request.session.get("recent", [])
    return recent


def seconds_to_wait(request: HttpRequest) -> int:
    """Count a search of this address; return 0 if it may go ahead, otherwise the seconds until the next may.

    The first search of a window creates the counter together with its deadline; later ones only count, so the window
    ends when it should however often somebody asks.
    """
    key = f"limit:search:{request.META['REMOTE_ADDR']}"
    searches = cache.incr(key, 1, default=0, timeout=LIMIT_WINDOW_S)
    if searches <= settings.READER["searches_per_minute"]:
        return 0
    return max(1, math.ceil(cache.ttl(key) or 1))

"""What visitors do: views counted, pages read lately, searches limited.

Who they are and what they read are objects (``models.py``). Counters live in the cache: ``views:NAME`` is one without a
timeout, ``limit:search:ADDRESS`` one that ends with its minute.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.core.cache import cache
from django.http import HttpRequest
from django.utils import timezone

from django_keyspace import kv
from reader.models import TOKEN_LENGTH, VISITOR_TIMEOUT, Read, Visitor

VIEWS_PREFIX = "views:"
COUNTERS_READ_MAX = 5000
RECENT_MAX = 8
LIMIT_WINDOW_S = 60


@dataclass(frozen=True, slots=True)
class Views:
    """A module and how often its page was viewed."""

    name: str
    views: int


def count_view(name: str) -> int:
    """Count one view of a module's page and return how many there are now. Atomic over all threads and processes."""
    return int(cache.incr(f"{VIEWS_PREFIX}{name}", 1, default=0, timeout=None))


def most_read(count: int = 8) -> list[Views]:
    """Return the modules with the most views: one listing of the counters, one get_many for their values."""
    keys = cache.list_keys(prefix=VIEWS_PREFIX, count=COUNTERS_READ_MAX)
    counters = cache.get_many(keys)
    reads = [Views(key.removeprefix(VIEWS_PREFIX), int(views)) for key, views in counters.items()]
    return sorted(reads, key=lambda read: (-read.views, read.name))[:count]


def visitor_of(request: HttpRequest) -> str | None:
    """Return the token of this visitor, or None for somebody who has done nothing yet that is worth remembering."""
    token: str | None = request.session.get("visitor")
    return token


def visit(request: HttpRequest, reads: int = 0) -> Visitor:
    """Return this visitor, seen now and with so many reads more; a new one if there is none, or was none for a month."""
    now = timezone.now()
    token = request.session.setdefault("visitor", secrets.token_hex(TOKEN_LENGTH // 2))
    visitor, is_new = Visitor.objects.get_or_create(token=token, defaults={"last_seen": now, "reads": reads})
    if not is_new:
        # Added up in the store, so that two tabs lose no read; the month begins again.
        visitor.reads, visitor.last_seen = kv.F("reads") + reads, now
        visitor.save(update_fields=["reads", "last_seen"], timeout=VISITOR_TIMEOUT)
    return visitor


def remember(request: HttpRequest, name: str) -> None:
    """Put a module at the front of this visitor's "recently read" list, and drop what has left its end."""
    visitor = visit(request, reads=1)
    # Whether or not it was read before: this one is the latest.
    Read(visitor=visitor.token, module=name, read_at=timezone.now()).save(force=True, timeout=VISITOR_TIMEOUT)
    for old in _reads(visitor.token)[RECENT_MAX:]:
        old.delete()


def recently_read(request: HttpRequest) -> list[str]:
    """Return the modules that this visitor read last, the latest first: one range of an index, read backwards."""
    token = visitor_of(request)
    return list(_reads(token).values_list("module", flat=True)[:RECENT_MAX]) if token else []


def visitors_since(ago: timedelta) -> int:
    """Return how many visitors were there in this time."""
    return int(Visitor.objects.filter(last_seen__gte=timezone.now() - ago).count())


def _reads(token: str) -> kv.QuerySet:
    return Read.objects.filter(visitor=token).order_by("-read_at")


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

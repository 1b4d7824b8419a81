"""What the cache holds and how it fares, for the page /cache/."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.cache import cache

from reader import readers
from reader.catalogue import Module
from reader.place import node_count

KEYS_SHOWN_MAX = 100
KEYS_READ_MAX = 5000
SLOWEST_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Family:
    """Keys that start alike, and what they are for."""

    slug: str
    prefix: str
    title: str
    keys_are_public: bool = True


FAMILIES = (
    Family("pages", "page:", "Rendered pages"),
    Family("views", "views:", "View counters"),
    Family("cold", "cold:", "Times without the cache"),
    Family("warm", "warm:", "Times from the cache"),
    Family("failed", "failed:", "Modules that fail to import"),
    Family("catalogue", "catalogue", "The module list"),
    Family("fragments", "template.cache.", "Template fragments"),
    Family("cache-page", "views.decorators.cache.", "Responses kept by cache_page"),
    # The names of these keys are secrets (who knows a session key has the session) or addresses of visitors.
    Family("limits", "limit:", "Rate limits", keys_are_public=False),
    Family("sessions", "django.contrib.sessions.cache", "Sessions", keys_are_public=False),
)


@dataclass(frozen=True, slots=True)
class FamilyCount:
    """How many keys a family has."""

    family: Family
    keys: int


@dataclass(frozen=True, slots=True)
class KeyLine:
    """One key and the seconds it has left; None if it stays until it is deleted."""

    key: str
    ttl_s: float | None


@dataclass(frozen=True, slots=True)
class Render:
    """What a page cost to make, and to take from the cache; None if it was not asked for again."""

    name: str
    cold_ms: float
    warm_ms: float | None

    @property
    def gain(self) -> float | None:
        """How many times faster the cache is."""
        return self.cold_ms / self.warm_ms if self.warm_ms else None


@dataclass(frozen=True, slots=True)
class Report:
    """All that the page shows."""

    location: str
    nodes: int
    keys_total: int
    counters: dict[str, int]
    hit_percent: float | None
    used_bytes: int
    max_bytes: int
    durability: str
    families: list[FamilyCount]
    other_keys: int
    slowest: list[Render]
    cold_ms_max: float
    shown: Family | None
    keys: list[KeyLine]
    visitors_today: int


def report(family_slug: str) -> Report:
    """Gather the report; ``family_slug`` names the family whose keys are listed, if any."""
    status: dict[str, Any] = cache.status()
    counters: dict[str, int] = status["counters"]
    families = [FamilyCount(family, cache.count(prefix=family.prefix)) for family in FAMILIES]
    keys_total = cache.count()
    lookups = counters["hits"] + counters["misses"]
    slowest = slowest_renders()
    shown = next((f for f in FAMILIES if f.slug == family_slug and f.keys_are_public), None)
    location = str(settings.CACHES["default"]["LOCATION"])
    return Report(
        location=location,
        nodes=node_count(),
        keys_total=keys_total,
        counters=counters,
        hit_percent=100 * counters["hits"] / lookups if lookups else None,
        used_bytes=status["used_bytes"],
        max_bytes=status["max_bytes"],
        durability=status["durability"],
        families=families,
        other_keys=max(0, keys_total - sum(line.keys for line in families)),
        slowest=slowest,
        cold_ms_max=max((render.cold_ms for render in slowest), default=1.0),
        shown=shown,
        keys=_key_lines(shown) if shown else [],
        visitors_today=readers.visitors_since(timedelta(days=1)),
    )


def slowest_renders() -> list[Render]:
    """Return the pages that took longest to make, the slowest first."""
    cold = cache.get_many(cache.list_keys(prefix="cold:", count=KEYS_READ_MAX))
    worst = sorted(cold.items(), key=lambda item: -item[1])[:SLOWEST_SHOWN]
    names = [key.removeprefix("cold:") for key, _ in worst]
    warm = cache.get_many([f"warm:{name}" for name in names])
    return [Render(name, cold[f"cold:{name}"], warm.get(f"warm:{name}")) for name in names]


def forget_rendered_pages() -> int:
    """Delete every rendered page in one step; return how many there were."""
    return int(cache.prune("page:"))


def count_by_origin(modules: list[Module]) -> list[tuple[str, int]]:
    """Return (release that the modules come from, how many), the largest first."""
    counts = Counter(module.origin or "unknown" for module in modules)
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _key_lines(family: Family) -> list[KeyLine]:
    keys = cache.list_keys(prefix=family.prefix, count=KEYS_SHOWN_MAX)
    return [KeyLine(key, cache.ttl(key)) for key in keys]

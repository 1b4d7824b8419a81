"""Where this site's store is."""

from __future__ import annotations

from django.conf import settings


def node_count() -> int:
    """Return how many nodes the settings name; 0 if the store is a folder."""
    location = str(settings.CACHES["default"]["LOCATION"])
    return location.partition("://")[2].partition("/")[0].count(",") + 1 if "://" in location else 0

"""The smallest Django site that has the benchmarked caches; the parent and its workers configure the same one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: Signs the values of backends that sign. Fixed, so that parent and workers read each other's records.
SECRET_KEY = "benchmarks sign their own throw-away values and nothing else"


def sqlite(database_file: Path | str, synchronous: str = "normal") -> dict[str, Any]:
    """A SQLite database as is recommended under a web site; with Django's defaults the peer would be far slower.

    Arguments: its file; ``normal`` or ``full``, which syncs the log in each transaction.
    """
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(database_file),
        "OPTIONS": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": f"PRAGMA journal_mode=wal; PRAGMA synchronous={synchronous}",
        },
    }


def configure(
    caches: dict[str, dict[str, Any]], database_file: Path | str, databases: dict[str, dict[str, Any]] | None = None
) -> None:
    """Configure and set up Django with these caches and one SQLite database.

    Arguments: caches as in ``settings.CACHES``; the file of the database that DatabaseCache uses; more databases.
    """
    import django
    from django.conf import settings

    plain = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "unused"}
    settings.configure(
        SECRET_KEY=SECRET_KEY,
        USE_TZ=True,
        CACHES={"default": plain, **caches},
        DATABASES={"default": sqlite(database_file), **(databases or {})},
    )
    django.setup()


def add_alias(alias: str, cache: dict[str, Any]) -> None:
    """Make one more cache known to a site that is already configured."""
    from django.conf import settings
    from django.core.cache import caches

    settings.CACHES[alias] = cache
    caches.settings[alias] = cache

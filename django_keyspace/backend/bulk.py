"""Kyoto Tycoon's calls on the cache that answer something else than Django's for the same thing do.

What differs in name only is an alias: see the table at the end of ``backend/cache.py``.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from typing import Any

import django
from django.core.cache.backends.base import DEFAULT_TIMEOUT

import django_keyspace
from django_keyspace.backend.expire import Timeout
from django_keyspace.backend.methods import Methods
from django_keyspace.backend.twins import Steps, twins


class BulkMethods(Methods):
    """Mixed into :class:`~django_keyspace.backend.cache.KeyspaceCache`. Source: kt's KyotoTycoon, with users' keys."""

    def _replace(self, key: Any, value: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: Any = None) -> Steps[bool]:
        """Store a value if there is one under the key. True if it was stored."""
        return (yield from self._set(key, value, timeout, version, xx=True))

    replace, areplace = twins(_replace)

    def _set_bulk(self, data: Mapping[Any, Any], timeout: Timeout = DEFAULT_TIMEOUT, version: Any = None) -> Steps[int]:
        """Store many values, all or none of them. Their number."""
        return len(data) - len((yield from self._set_many(data, timeout, version)))

    set_bulk, aset_bulk = twins(_set_bulk)

    def _remove_bulk(self, keys: Iterable[Any], version: Any = None) -> Steps[int]:
        """Delete many keys, in one step. The number of those that were there."""
        full = list(self._keys(keys, version))
        return (yield "delete_many", self._database, full) if full else 0

    remove_bulk, aremove_bulk = twins(_remove_bulk)

    def _report(self) -> Steps[dict[str, Any]]:
        """What ``status`` tells and what it runs on, flat: every figure under a name of its own, one ``db_N`` per database."""
        status = yield from self._status()
        flat: dict[str, Any] = {
            "version": django_keyspace.__version__,
            "python": platform.python_version(),
            "django": django.get_version(),
            "pid": os.getpid(),
            "location": self._runtime.config.location,
        }
        for name, figure in status.items():
            if isinstance(figure, dict):
                flat |= {f"{name}_{word}": number for word, number in figure.items()}
            elif not isinstance(figure, list):
                flat[name] = figure
        lists = {name: figure for name, figure in status.items() if isinstance(figure, list)}
        for number in range(min(map(len, lists.values()), default=0)):
            flat[f"db_{number}"] = {name.removesuffix("_by_database"): figure[number] for name, figure in lists.items()}
        return flat

    report, areport = twins(_report)

"""Keyspace's dirty reads: reads that any node may answer from what it has, without asking whether that is the latest.

An embedded store and a single node have one state only, so that these answer what the safe reads answer. Whoever uses them
says that an older answer will do.
"""

from __future__ import annotations

from typing import Any

from django_keyspace.backend.listing import ListingMethods
from django_keyspace.backend.twins import Steps, twins


class DirtyMethods(ListingMethods):
    """Mixed into :class:`~django_keyspace.backend.cache.KeyspaceCache`. Source: Keyspace's Python API, "Dirty reads"."""

    def _dirty_get(self, key: Any, default: Any = None, version: Any = None) -> Steps[Any]:
        """As ``get``, but perhaps not the latest value."""
        return (yield from self._get(key, default, version))

    dirty_get, adirty_get = twins(_dirty_get)

    def _dirty_list_keys(
        self,
        prefix: str = "",
        start_key: str = "",
        count: int = 0,
        skip: bool = False,
        forward: bool = True,
        version: Any = None,
    ) -> Steps[list[str]]:
        """As ``list_keys``, but perhaps not the latest keys."""
        return (yield from self._list_keys(prefix, start_key, count, skip, forward, version))

    dirty_list_keys, adirty_list_keys = twins(_dirty_list_keys)

    def _dirty_list_key_values(
        self,
        prefix: str = "",
        start_key: str = "",
        count: int = 0,
        skip: bool = False,
        forward: bool = True,
        version: Any = None,
    ) -> Steps[dict[str, Any]]:
        """As ``list_key_values``, but perhaps not the latest keys and values."""
        return (yield from self._list_key_values(prefix, start_key, count, skip, forward, version))

    dirty_list_key_values, adirty_list_key_values = twins(_dirty_list_key_values)

    def _dirty_count(
        self,
        prefix: str = "",
        start_key: str = "",
        count: int = 0,
        skip: bool = False,
        forward: bool = True,
        version: Any = None,
    ) -> Steps[int]:
        """As ``count``, but perhaps not the latest number."""
        return (yield from self._count(prefix, start_key, count, skip, forward, version))

    dirty_count, adirty_count = twins(_dirty_count)

"""Keyspace's dirty reads: reads that any node may answer from what it has, without asking whether that is the latest.

An embedded store and a single node have one state only, so that these answer what the safe reads answer. Of a cluster, they
share the load of all nodes, and are answered while there is no leader. Whoever uses them says that an older answer will do;
``cache.last_read`` says how old it was.
"""

from __future__ import annotations

from typing import Any

from django_keyspace.backend.levels import LastRead
from django_keyspace.backend.listing import ListingMethods
from django_keyspace.backend.twins import R, Steps, twins
from django_keyspace.exceptions import KeyspaceError
from django_keyspace.status import status_of_answer


class DirtyMethods(ListingMethods):
    """Mixed into :class:`~django_keyspace.backend.cache.KeyspaceCache`. Source: Keyspace's Python API, "Dirty reads"."""

    def _dirtily(self, steps: Steps[R], max_staleness_ms: int | None) -> Steps[R]:
        """The same steps, each of whose reads any node may answer."""
        runtime = self._runtime
        try:
            call = next(steps)
            while True:
                try:
                    answer, index, age_ms, node = yield "at", "dirty", 0, max_staleness_ms, call
                except KeyspaceError as error:
                    call = steps.throw(error)
                    continue
                if age_ms is None:  # an outage was turned into a miss, and noted as such; or this is a part of a batch
                    runtime.last_read.set(None)
                else:
                    runtime.last_read.set((node, index, age_ms))
                    runtime.last_status.set(status_of_answer(answer))
                call = steps.send(answer)
        except StopIteration as stop:
            result: R = stop.value
            return result

    @property
    def last_read(self) -> LastRead | None:
        """Where the answer of this alias's last dirty read in this thread or task came from, and how old it was; with the
        option ``consistency``, that of its last read of the option's level. None before the first."""
        note = self._runtime.last_read.get()
        return None if note is None else LastRead(*note)

    def _dirty_get(
        self, key: Any, default: Any = None, version: Any = None, *, max_staleness_ms: int | None = None
    ) -> Steps[Any]:
        """As ``get``, but perhaps not the latest value.

        Arguments:
            max_staleness_ms: how long ago, at most, the copy that answers was current; None: any time.
        Raises:
            TooStale: no node is so fresh.
        """
        return (yield from self._dirtily(self._get(key, default, version), max_staleness_ms))

    dirty_get, adirty_get = twins(_dirty_get)

    def _dirty_list_keys(
        self,
        prefix: str = "",
        start_key: str = "",
        count: int = 0,
        skip: bool = False,
        forward: bool = True,
        version: Any = None,
        *,
        max_staleness_ms: int | None = None,
    ) -> Steps[list[str]]:
        """As ``list_keys``, but perhaps not the latest keys."""
        steps = self._list_keys(prefix, start_key, count, skip, forward, version)
        return (yield from self._dirtily(steps, max_staleness_ms))

    dirty_list_keys, adirty_list_keys = twins(_dirty_list_keys)

    def _dirty_list_key_values(
        self,
        prefix: str = "",
        start_key: str = "",
        count: int = 0,
        skip: bool = False,
        forward: bool = True,
        version: Any = None,
        *,
        max_staleness_ms: int | None = None,
    ) -> Steps[dict[str, Any]]:
        """As ``list_key_values``, but perhaps not the latest keys and values."""
        steps = self._list_key_values(prefix, start_key, count, skip, forward, version)
        return (yield from self._dirtily(steps, max_staleness_ms))

    dirty_list_key_values, adirty_list_key_values = twins(_dirty_list_key_values)

    def _dirty_count(
        self,
        prefix: str = "",
        start_key: str = "",
        count: int = 0,
        skip: bool = False,
        forward: bool = True,
        version: Any = None,
        *,
        max_staleness_ms: int | None = None,
    ) -> Steps[int]:
        """As ``count``, but perhaps not the latest number."""
        steps = self._count(prefix, start_key, count, skip, forward, version)
        return (yield from self._dirtily(steps, max_staleness_ms))

    dirty_count, adirty_count = twins(_dirty_count)

"""Short words for the tests of the store."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from django_keyspace.store import Store, StoreOptions
from django_keyspace.store.record import HEADER_BYTES, Flag, Tag

EVICTABLE = int(Flag.EVICTABLE)
MIB = 2**20


def val(payload: bytes, *, kept: bool = False) -> tuple[int, int, bytes]:
    """A value; ``kept`` ones must not be evicted."""
    return (int(Tag.BYTES), 0 if kept else EVICTABLE, payload)


def put(store: Store, key: bytes, payload: bytes = b"v", expire: Any = None, *, kept: bool = False) -> None:
    """Store a value in database 0."""
    assert store.write("set", 0, key, val(payload, kept=kept), expire, "always") is True


def got(store: Store, key: bytes) -> bytes | None:
    """The payload under a key of database 0."""
    record = store.read("get", 0, key)
    return None if record is None else record[HEADER_BYTES:]


def counted(store: Store, prefix: bytes = b"") -> int:
    """How many records of database 0 have the prefix, slice by slice."""
    number, last = store.read("count", 0, prefix, b"", False, True, 0)
    while last is not None:
        more, last = store.read("count", 0, prefix, last, "after", True, 0)
        number += more
    return int(number)


def small_options(**options: Any) -> StoreOptions:
    """Options of a small store that need not outlive a power cut."""
    return StoreOptions(**{"durability": "none", "databases": 2, "map_bytes": 64 * MIB, **options})


def await_condition(holds: Callable[[], bool], wait_s: float = 10) -> None:
    """Wait until something holds that another thread or process does."""
    give_up_s = time.monotonic() + wait_s
    while not holds():
        assert time.monotonic() < give_up_s, "it never came to hold"
        time.sleep(0.002)

"""One machine's data: an LMDB store, what operations do in it, and how it is opened. No network, no Django."""

from __future__ import annotations

from django_keyspace.store.options import Counters, StoreOptions
from django_keyspace.store.registry import forget_store, open_store, shutdown_all
from django_keyspace.store.store import Store

__all__ = ["Counters", "Store", "StoreOptions", "forget_store", "open_store", "shutdown_all"]

"""django-keyspace: a cache backend and key-value database for Django that needs no other server."""

from __future__ import annotations

__version__ = "0.1.0"

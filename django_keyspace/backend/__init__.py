"""The Django face: ``BACKEND = "django_keyspace.backend.KeyspaceCache"``."""

from __future__ import annotations

from django_keyspace.backend.cache import KeyspaceCache

__all__ = ["KeyspaceCache"]

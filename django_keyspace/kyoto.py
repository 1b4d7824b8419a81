"""kt's Python API: KyotoTycoon, TokyoTyrant and the embedded servers, over stores and nodes of this package.

Change one import, and a program that was written for kt runs::

    from django_keyspace.kyoto import KyotoTycoon

    db = KyotoTycoon("127.0.0.1", 1978)

docs/kyoto-api.md lists every method, what is the same and what is better. Needs no Django settings.
"""

from __future__ import annotations

from django_keyspace.backend.kyoto.cursors import Cursor
from django_keyspace.backend.kyoto.embedded import EmbeddedServer, EmbeddedTokyoTyrantServer
from django_keyspace.backend.kyoto.errors import (
    ImproperlyConfigured,
    KyotoTycoonError,
    ProtocolError,
    ScriptError,
    ServerConnectionError,
    ServerError,
)
from django_keyspace.backend.kyoto.queue import Queue
from django_keyspace.backend.kyoto.serializers import KT_BINARY, KT_JSON, KT_MSGPACK, KT_NONE, KT_PICKLE
from django_keyspace.backend.kyoto.tycoon import KyotoTycoon
from django_keyspace.backend.kyoto.tyrant import TokyoTyrant

__all__ = [
    "KT_BINARY",
    "KT_JSON",
    "KT_MSGPACK",
    "KT_NONE",
    "KT_PICKLE",
    "Cursor",
    "EmbeddedServer",
    "EmbeddedTokyoTyrantServer",
    "ImproperlyConfigured",
    "KyotoTycoon",
    "KyotoTycoonError",
    "ProtocolError",
    "Queue",
    "ScriptError",
    "ServerConnectionError",
    "ServerError",
    "TokyoTyrant",
]

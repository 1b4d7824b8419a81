"""Which indexes of a model hold every record: the model's schema record, and what every write makes of it.

``{"indexes": {name: "ready" or "building"}}``, with a ``"version"`` where ``Meta.version`` is not 1. A query may use an index
that is ready. One that is new to a store with objects is being built until ``keyspace_reindex`` has visited them all; writes
keep it in step from the first moment on. Another version has all indexes built again: what ``Model.upgrade`` makes of an
object may belong elsewhere.

Every write has the condition that the schema is what the writing process knows. So a process that runs older code, and
would not keep a new index in step, cannot write behind its back: its first write drops the index from the schema, and the
index is built again once only processes are left that know it.
"""

from __future__ import annotations

import time
from typing import Any, Final, NamedTuple

import msgpack

from django_keyspace.backend.models.access import Access
from django_keyspace.backend.models.layout import Index
from django_keyspace.backend.models.options import VERSION_NAME
from django_keyspace.backend.twins import Steps
from django_keyspace.operations import Value
from django_keyspace.store.record import Tag, payload_of, revision_of

READY, BUILDING = "ready", "building"
_TRUSTED_S: Final = 1.0
"""A reader looks at the schema again after so long."""


class Owned(NamedTuple):
    """The index entries of a record that is in the store.

    Attributes:
        entries: those that it has.
        unsure: keys of entries that it has not, but may get at any moment: the index is being built. A block that changes
            the record must have the condition that they are absent.
    """

    entries: dict[bytes, Index]
    unsure: list[bytes]


class SchemaSteps(Access):
    """The schema of one model on one alias."""

    _payload: bytes | None = None
    _ready: frozenset[str] = frozenset()
    _ready_until_s = 0.0

    def ready_indexes(self) -> Steps[frozenset[str]]:
        """Names of the indexes that hold every record of the model. Others must not be used to find objects."""
        if time.monotonic() < self._ready_until_s:
            return self._ready
        record = yield "get", self.database, self.meta.schema_key
        if record is None and not (yield from self.has_records()):
            return frozenset(self.meta.indexes)
        self._note(None if record is None else payload_of(record))
        return self._ready

    def owned_entries(self, record: bytes, key_bytes: bytes) -> Steps[Owned]:
        """The index entries that a record has. To be asked after :meth:`schema_condition`, whose condition makes it hold.

        Where an index is being built, the store is looked at: an entry may be missing, or belong to another object.
        """
        entries = self.stored_entries(record, key_bytes)
        is_complete = len(self._ready) == len(self.meta.indexes)
        if not entries or (is_complete and self.data_of(record).get(VERSION_NAME, 1) == self.meta.version):
            return Owned(entries, [])
        found = yield "get_many", self.database, list(entries)
        pairs = list(zip(entries.items(), found, strict=True))
        owned = {entry: index for (entry, index), other in pairs if other and payload_of(other) == key_bytes}
        return Owned(owned, [entry for (entry, _), other in pairs if other is None])

    def has_records(self) -> Steps[bool]:
        """Whether there is any object."""
        rows, _ = yield "list", self.database, self._prefix, b"", False, True, 1, False
        return bool(rows)

    def schema_condition(self) -> Steps[tuple[int, tuple[Any, ...]]]:
        """The condition of each write: the schema is what this process knows. Makes the schema at the first write."""
        payload = self._payload
        while payload is None:
            payload = yield from self._agree()
        return (self.database, ("value", self.meta.schema_key, None, payload))

    def forget_schema(self) -> None:
        """Look at the schema again: a write has found another one."""
        self._payload, self._ready_until_s = None, 0.0

    def _agree(self) -> Steps[bytes | None]:
        """Bring the schema in the store into line with the model. None if somebody else was faster: try again."""
        stored = yield "get", self.database, self.meta.schema_key
        payload = None if stored is None else payload_of(stored)
        states = self._states(payload)
        wanted = {name: states.get(name, BUILDING) for name in self.meta.indexes}
        if payload != self._packed(wanted):
            payload = yield from self._swap(payload, wanted)
            if payload is None:
                return None
            if BUILDING in wanted.values() and not (yield from self.has_records()):
                # Announced first and looked then: whoever writes from now on knows of the indexes.
                wanted = dict.fromkeys(wanted, READY)
                payload = yield from self._swap(payload, wanted)
        if payload is not None:
            self._note(payload)
        return payload

    def schema_revision(self) -> Steps[int]:
        """The revision of the schema record, after it was brought into line with the model."""
        while True:
            self.forget_schema()
            _, (_, _, _, payload) = yield from self.schema_condition()
            record = yield "get", self.database, self.meta.schema_key
            if record is not None and payload_of(record) == payload:  # and nobody has replaced it in between
                return int(revision_of(record)[0])

    def mark_ready(self, revision: int) -> Steps[bool]:
        """Say that every index holds every record. False if the schema was written since, so that they may not.

        Arguments:
            revision: that of the schema, from before the first record was looked at.
        """
        packed = self._packed(dict.fromkeys(self.meta.indexes, READY))
        value: Value = (int(Tag.MSGPACK), 0, packed)
        swapped, _ = yield "cas", self.database, ("revision", self.meta.schema_key, revision), value, None
        self.forget_schema()
        return bool(swapped)

    def _swap(self, payload: bytes | None, states: dict[str, str]) -> Steps[bytes | None]:
        """Replace the schema. Its new payload, or None if it is not any more what was read."""
        key = self.meta.schema_key
        condition = ("absent", key) if payload is None else ("value", key, None, payload)
        packed = self._packed(states)
        value: Value = (int(Tag.MSGPACK), 0, packed)
        swapped, _ = yield "cas", self.database, condition, value, None
        return packed if swapped else None

    def _note(self, payload: bytes | None) -> None:
        states = self._states(payload)
        self._payload = payload if payload and payload == self._packed(states) else None
        self._ready = frozenset(name for name in self.meta.indexes if states.get(name) == READY)
        self._ready_until_s = time.monotonic() + _TRUSTED_S

    def _packed(self, states: dict[str, str]) -> bytes:
        schema: dict[str, Any] = {"indexes": {name: states.get(name, BUILDING) for name in sorted(self.meta.indexes)}}
        if self.meta.version != 1:
            schema["version"] = self.meta.version
        packed: bytes = msgpack.packb(schema)
        return packed

    def _states(self, payload: bytes | None) -> dict[str, str]:
        """The state of each index in a schema; of none, if it is one of another version."""
        if payload is None:
            return {}
        schema = msgpack.unpackb(payload)
        return dict(schema["indexes"]) if schema.get("version", 1) == self.meta.version else {}

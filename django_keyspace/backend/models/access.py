"""The objects of one model in one store: how records become objects and values, and how operations get there.

Everything that talks to the store is steps (``backend/twins.py``): generators that yield operations, driven in the calling
thread or on an event loop. One more thing may be yielded here: ``(SEND, signal, arguments)`` sends a signal.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import msgpack

from django_keyspace.backend.models.options import VERSION_NAME
from django_keyspace.backend.runtime import Runtime
from django_keyspace.backend.twins import Steppable, Steps
from django_keyspace.exceptions import DamagedStore, InvalidArgument
from django_keyspace.operations import MODELS_BASE, Call, Value, value_too_large
from django_keyspace.store.record import Tag, pack_header, payload_of, unpack_header

if TYPE_CHECKING:
    from django_keyspace.backend.models.base import Model
    from django_keyspace.backend.models.layout import Index

SEND: Final = "send"
READ_KEYS: Final = 500
"""So many records are asked for at a time."""
_MSGPACK, _BYTES = int(Tag.MSGPACK), int(Tag.BYTES)

Data = dict[str, Any]
"""Stored values by name."""


class Access(Steppable):
    """One model on one alias.

    Arguments:
        model: the model.
        alias: the alias's name.
        runtime: what the objects of the alias share.

    Attributes:
        database: number of the sub-store for models.
    """

    def __init__(self, model: type[Model], alias: str, runtime: Runtime) -> None:
        self.model, self.alias, self.runtime = model, alias, runtime
        self.meta = model._meta
        self.database = MODELS_BASE + runtime.config.database
        self._do, self._ado = runtime.safe_engine.execute, runtime.safe_engine.aexecute
        self._value_bytes_max = runtime.config.store.value_bytes_max
        self._prefix = self.meta.record_prefix

    def _execute(self, call: Call) -> Any:
        if call[0] == SEND:
            return call[1].send(**call[2])
        return self._do(*call)

    async def _aexecute(self, call: Call) -> Any:
        if call[0] == SEND:
            return await call[1].asend(**call[2])
        return await self._ado(*call)

    # ------------------------------------------------------------------------------------------- records

    def record_key(self, key_bytes: bytes) -> bytes:
        """The key of a record in the store."""
        return self._prefix + key_bytes

    def data_of(self, record: bytes) -> Data:
        """The stored map of a record, as it was written.

        Raises:
            DamagedStore: it is no such record.
        """
        try:
            data = msgpack.unpackb(payload_of(record), raw=False, strict_map_key=False)
        except (ValueError, msgpack.exceptions.UnpackException) as error:
            data = error
        if type(data) is not dict:
            raise DamagedStore(
                f"A record under the prefix {self.meta.prefix!r} is no object of {self.meta.label}: {data!r:.80}. It was not "
                "used. Did something else write there?"
            )
        return data

    def current_data(self, record: bytes) -> Data:
        """The stored map of a record in the form of the model's present version: see ``Model.upgrade``."""
        data = self.data_of(record)
        version = data.get(VERSION_NAME, 1)
        return data if version >= self.meta.version else self.upgraded(data, version)

    def upgraded(self, data: Data, version: int) -> Data:
        """What ``Model.upgrade`` makes of stored data of an older version.

        Raises:
            InvalidArgument: it makes no dict.
        """
        made = self.model.upgrade({name: value for name, value in data.items() if name != VERSION_NAME}, version)
        if not isinstance(made, dict):
            raise InvalidArgument(
                f"{self.meta.label}.upgrade() must return the data as a dict, not {made!r:.80}. Nothing was changed."
            )
        return {**made, VERSION_NAME: self.meta.version}

    def values(self, record: bytes) -> dict[str, Any]:
        """The Python values of all fields by name."""
        data = self.current_data(record)
        values = {}
        for name, _, load, default in self.meta.loaders:
            value = data.get(name, data)  # data itself stands for nothing: it is no value of its own
            if value is data:
                value = default()
            elif load is not None and value is not None:
                value = load(value)
            values[name] = value
        return values

    def value_getter(self, names: Sequence[str]) -> Callable[[bytes], tuple[Any, ...]]:
        """A function from a record to the Python values of some fields, in their order."""
        plans = [self.meta.plans[name] for name in names]

        def get(record: bytes) -> tuple[Any, ...]:
            data = self.current_data(record)
            return tuple([plan.loaded(data[plan.name]) if plan.name in data else plan.default() for plan in plans])

        return get

    def instance(self, record: bytes, only: Collection[str] | None = None) -> Model:
        """The object of a record.

        Arguments:
            record: as the store answers it.
            only: names of the fields to set, with those of the key; the others are read when they are asked for.
        """
        data = self.current_data(record)
        obj = self.model.__new__(self.model)
        values = obj.__dict__
        for name, attname, load, default in self.meta.loaders:
            if only is not None and name not in only and name not in self.meta.key_names:
                continue
            value = data.get(name, data)
            if value is data:
                value = default()
            elif load is not None and value is not None:
                value = load(value)
            values[attname] = value
        obj._state = state = ModelState()
        state.adding, state.db, state.record = False, self.alias, record
        return obj

    def pack(self, data: Data) -> bytes:
        """The payload of a record.

        Raises:
            InvalidValue: a field's value has no stored form, such as text with a lone surrogate.
            ValueTooLarge: the object is larger than a value may be.
        """
        try:
            payload: bytes = msgpack.packb(data, use_bin_type=True)
        except (TypeError, ValueError, OverflowError) as error:
            for name, value in data.items():
                try:
                    msgpack.packb(value, use_bin_type=True)
                except (TypeError, ValueError, OverflowError) as reason:
                    if name in self.meta.plans:
                        raise self.meta.plans[name].refusal(value, f"it has no stored form ({reason})") from reason
            raise InvalidArgument(f"An object of {self.meta.label} cannot be stored: {error}.") from error
        if len(payload) > self._value_bytes_max:
            raise value_too_large(len(payload), self._value_bytes_max)
        return payload

    def record_value(self, payload: bytes) -> Value:
        """``(tag, flags, payload)`` of a record. No flag: it must not be evicted."""
        return (_MSGPACK, 0, payload)

    def entry_value(self, key_bytes: bytes) -> Value:
        """``(tag, flags, payload)`` of an index entry."""
        return (_BYTES, 0, key_bytes)

    def record_like(self, other: bytes | None, payload: bytes) -> bytes | None:
        """The record with a payload that was written by the same block as another record; None if that has expired."""
        if other is None:
            return None
        _, _, _, revision, deadline_ms, _ = unpack_header(other)
        return pack_header(_MSGPACK, 0, crc32(payload), revision, deadline_ms, 0) + payload

    # ------------------------------------------------------------------------------------------- index entries

    def entries(self, values: dict[str, Any], key_bytes: bytes) -> dict[bytes, Index]:
        """The index entries of an object: their keys, and the index of each.

        Raises:
            KeyTooLong, InvalidValue: see :meth:`Index.entry`.
        """
        made = {}
        for index in self.meta.indexes.values():
            entry = index.entry(values, key_bytes)
            if entry is not None:
                made[entry] = index
        return made

    def stored_entries(self, record: bytes, key_bytes: bytes) -> dict[bytes, Index]:
        """The index entries that belong to a record as it was written. An index of a field that it lacks has none."""
        data, made = self.data_of(record), {}
        for index in self.meta.indexes.values():
            if all(name in data for name in index.field_names):
                try:
                    values = {plan.name: plan.loaded(data[plan.name]) for plan in index.plans}
                    entry = index.entry(values, key_bytes)
                except (TypeError, ValueError, ArithmeticError):
                    if data.get(VERSION_NAME, 1) >= self.meta.version:
                        raise
                    continue  # a field of the name meant something else then; it was not indexed so
                if entry is not None:
                    made[entry] = index
        return made

    # ------------------------------------------------------------------------------------------- reading

    def load(self, key_bytes: bytes) -> Steps[Model | None]:
        """The object with a key, or None."""
        record = yield "get", self.database, self._prefix + key_bytes
        return None if record is None else self.instance(record)

    def load_many(self, keys: Sequence[bytes]) -> Steps[list[Model | None]]:
        """The objects with some keys, or None for those that are not there, in the order of the keys."""
        records = yield from self.read_many(keys)
        return [None if record is None else self.instance(record) for record in records]

    def read_many(self, keys: Sequence[bytes]) -> Steps[list[bytes | None]]:
        """The records with some keys."""
        records: list[bytes | None] = []
        for start in range(0, len(keys), READ_KEYS):
            page = [self._prefix + key_bytes for key_bytes in keys[start : start + READ_KEYS]]
            records += yield "get_many", self.database, page
        return records


class ModelState:
    """What an object knows of its record: ``obj._state``.

    Attributes:
        adding: whether it has no record yet.
        db: the alias that it was read from or written to.
        record: the record as it was then, header and payload.
        fields_cache: nothing; Django's fields look for it.
    """

    __slots__ = ("adding", "db", "fields_cache", "record")

    def __init__(self) -> None:
        self.adding = True
        self.db: str | None = None
        self.record: bytes = b""
        self.fields_cache: dict[str, Any] = {}

    @property
    def revision(self) -> int:
        """The record's revision; 0 without one."""
        return int(unpack_header(self.record)[3]) if self.record else 0

    @property
    def deadline_ms(self) -> int:
        """The record's deadline in milliseconds since the epoch; 0 for none."""
        return int(unpack_header(self.record)[4]) if self.record else 0

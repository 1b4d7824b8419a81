"""Writing one object: its record and its index entries in one atomic block, under the revision that was read.

A block has these conditions: the schema is as known, the record is as it was read (or absent), and no other object has the
values of a unique index. If one fails, nothing was done, and its number says why. What concerns only the store is settled by
reading again; what concerns the user is raised: :class:`Conflict`, :class:`DuplicateValue`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

from django_keyspace.backend.expire import make_expire
from django_keyspace.backend.models import signals
from django_keyspace.backend.models.access import SEND, Data
from django_keyspace.backend.models.errors import Conflict, DuplicateValue, InvalidValue, unknown_field
from django_keyspace.backend.models.expressions import Expression
from django_keyspace.backend.models.options import VERSION_NAME
from django_keyspace.backend.models.ordering import read_ordered
from django_keyspace.backend.models.schema import Owned, SchemaSteps
from django_keyspace.backend.twins import Steps
from django_keyspace.exceptions import InvalidArgument
from django_keyspace.operations import Expire
from django_keyspace.store.record import payload_of, unpack_header

if TYPE_CHECKING:
    from django_keyspace.backend.models.base import Model
    from django_keyspace.backend.models.layout import Index

    Still = Callable[[Model], bool] | None
    Written = tuple[bytes | None, Index | str | None]

UNSET: Final[Any] = object()
"""A timeout that was not given: a new object gets the model's, another keeps its deadline."""
_NOTHING_OWNED: Final = Owned({}, [])
_RECORD: Final = "record"
"""The obstacle that the record is not what was expected; others are unique indexes."""


class WriteSteps(SchemaSteps):
    """Writes of single objects of one model on one alias."""

    # --------------------------------------------------------------------------------------------- what is written

    def cleaned(self, obj: Model, adding: bool) -> dict[str, Any]:
        """The Python values of an object that will be stored, by name; ``auto_now`` and the like are done on the way.

        Raises:
            InvalidValue: a field does not take its value.
        """
        values, auto = {}, self.meta.auto_field
        for plan in self.meta.plans.values():
            value = plan.pre_save(obj, adding) if plan.has_pre_save else getattr(obj, plan.attname)
            values[plan.name] = None if value is None and plan.field is auto else plan.clean(value)
        return values

    def dumped(self, values: Mapping[str, Any], unknown: Mapping[str, Any] | None = None) -> Data:
        """The map to store.

        Arguments:
            values: Python values of all fields.
            unknown: stored values that are none of the model's fields: they are kept.
        """
        data = dict(unknown) if unknown else {}
        if self.meta.version != 1 and data.get(VERSION_NAME, 1) < self.meta.version:
            data[VERSION_NAME] = self.meta.version
        for name, plan in self.meta.plans.items():
            data[name] = plan.dump(values[name])
        return data

    def unknown_of(self, data: Data) -> Data:
        """What of stored data is none of the model's fields."""
        return {name: value for name, value in data.items() if name not in self.meta.plans}

    def expire_of(self, timeout: Any, record: bytes | None) -> Expire:
        """The ``expire`` argument for a timeout; for none given, the record's own deadline or that of new objects.

        Raises:
            InvalidArgument: it is no timeout, or nothing would be left to store.
        """
        if timeout is UNSET:
            if record is None:
                return self.meta.expire
            deadline_ms = unpack_header(record)[4]
            return ("at", deadline_ms) if deadline_ms else None
        expire = make_expire(timeout)
        if expire == 0:
            raise InvalidArgument(
                f"A timeout of {timeout!r} leaves nothing to store. Nothing was changed. Use delete()."
            )
        return expire

    def put(
        self, key_bytes: bytes, values: dict[str, Any], data: Data, old: bytes | None, timeout: Any = UNSET
    ) -> Steps[Written]:
        """Write a record with its entries over the one that was read.

        Arguments:
            key_bytes: the key values in their ordered form.
            values, data: Python values, and the map to store.
            old: the record as it was read; None if there must be none.
            timeout: as of :meth:`save`.
        Returns:
            ``(record, None)``, or ``(None, obstacle)`` where nothing was written: "record" if the record is not as it was
            read, or the unique index whose values another object has. ``(None, None)``: written, and expired already.
        """
        database, key = self.database, self._prefix + key_bytes
        payload, expire = self.pack(data), self.expire_of(timeout, old)
        entries, value = self.entries(values, key_bytes), self.entry_value(key_bytes)
        condition = ("absent", key) if old is None else ("revision", key, unpack_header(old)[3])
        while True:
            schema = yield from self.schema_condition()
            owned = (yield from self.owned_entries(old, key_bytes)) if old is not None else _NOTHING_OWNED
            gone = owned.entries
            new = [(entry, index) for entry, index in entries.items() if entry not in gone]
            taken = [(entry, index) for entry, index in new if index.unique]
            absent = [entry for entry, _ in taken] + [entry for entry in owned.unsure if entry not in dict(taken)]
            # Entries that stay have the right deadline, unless the record gets another one.
            written = (
                [(entry, value) for entry, _ in new] if timeout is UNSET else [(entry, value) for entry in entries]
            )
            calls: list[Any] = [("set", database, key, self.record_value(payload), expire, "always")]
            if written:
                calls.append(("set_many", database, written, expire))
            if lost := [entry for entry in gone if entry not in entries]:
                calls.append(("delete_many", database, lost))
            calls.append(
                ("get", database, written[0][0] if written else key)
            )  # the smallest thing with the new revision
            conditions = [schema, (database, condition), *((database, ("absent", entry)) for entry in absent)]
            done, answer = yield "atomic", conditions, calls
            if done:
                return self.record_like(answer[-1], payload), None
            if answer == 0:
                self.forget_schema()
            elif answer == 1:
                return None, _RECORD
            elif absent[answer - 2] not in owned.unsure:
                return None, taken[answer - 2][1]

    def under(self, old: bytes, key_bytes: bytes) -> Steps[tuple[list[Any], list[bytes]]]:
        """The conditions under which a record is what was read and has these entries, and the entries."""
        schema = yield from self.schema_condition()
        owned = yield from self.owned_entries(old, key_bytes)
        states: list[tuple[Any, ...]] = [("revision", self._prefix + key_bytes, unpack_header(old)[3])]
        states += [("absent", entry) for entry in owned.unsure]
        return [schema, *((self.database, state) for state in states)], list(owned.entries)

    # --------------------------------------------------------------------------------------------- save

    def save(
        self,
        obj: Model,
        *,
        force: bool = False,
        insert: bool = False,
        update_fields: Collection[str] | None = None,
        timeout: Any = UNSET,
        raw: bool = False,
    ) -> Steps[None]:
        """Store an object. See :meth:`Model.save`.

        Arguments:
            raw: the object comes from a dump: its values are stored as they are, without ``auto_now``.
        """
        if update_fields is not None and not update_fields:
            return
        state = obj._state
        told = {"sender": self.model, "instance": obj, "raw": raw, "using": self.alias, "update_fields": update_fields}
        if signals.pre_save.has_listeners(self.model):
            yield SEND, signals.pre_save, told
        created = insert or state.adding or state.db != self.alias
        if update_fields is not None:
            yield from self._save_fields(obj, update_fields, timeout)
            created = False
        else:
            values = self._evaluated(obj) if raw else self.cleaned(obj, created)
            created = created or self.meta.key_of(values) != self.key_of_record(state.record)
            if force:
                created = yield from self._save_forced(obj, values, timeout)
            elif created:
                yield from self._insert(obj, values, timeout)
            else:
                yield from self._update(obj, values, timeout)
        if signals.post_save.has_listeners(self.model):
            yield SEND, signals.post_save, {**told, "created": created}

    def key_of_record(self, record: bytes) -> bytes:
        """The key values of a record in their ordered form."""
        data = self.current_data(record)
        plans = self.meta.plans
        return self.meta.key_of({name: plans[name].loaded(data[name]) for name in self.meta.key_names})

    def _evaluated(self, obj: Model) -> dict[str, Any]:
        return {name: plan.clean(getattr(obj, plan.attname)) for name, plan in self.meta.plans.items()}

    def _insert(self, obj: Model, values: dict[str, Any], timeout: Any) -> Steps[None]:
        auto = self.meta.auto_field
        is_automatic = auto is not None and values[auto.name] is None
        while True:
            if auto is not None and is_automatic:
                (values[auto.name],) = yield from self.next_ids(1)
            record, obstacle = yield from self.put(self.meta.key_of(values), values, self.dumped(values), None, timeout)
            if obstacle is None:
                break
            if obstacle != _RECORD or not is_automatic:
                raise self.duplicate(obstacle, values)
            yield from self.raise_sequence()
        self._stored(obj, record, values)

    def _update(self, obj: Model, values: dict[str, Any], timeout: Any) -> Steps[None]:
        key_bytes, old = self.meta.key_of(values), obj._state.record
        while True:
            data = self.dumped(values, self.unknown_of(self.current_data(old)))
            record, obstacle = yield from self.put(key_bytes, values, data, old, timeout)
            if obstacle is None:
                break
            if obstacle != _RECORD:
                raise self.duplicate(obstacle, values)
            found = yield "get", self.database, self._prefix + key_bytes
            if found is None or payload_of(found) != payload_of(old):
                raise self.conflict(obj, found)
            old = found  # only its deadline was changed
        self._stored(obj, record, values)

    def _save_forced(self, obj: Model, values: dict[str, Any], timeout: Any) -> Steps[bool]:
        """Store over whatever is there. True if there was nothing."""
        auto = self.meta.auto_field
        if auto is not None and values[auto.name] is None:
            yield from self._insert(obj, values, timeout)
            return True
        key_bytes = self.meta.key_of(values)
        while True:
            old = yield "get", self.database, self._prefix + key_bytes
            data = self.dumped(values, None if old is None else self.unknown_of(self.current_data(old)))
            record, obstacle = yield from self.put(key_bytes, values, data, old, timeout)
            if obstacle is None:
                self._stored(obj, record, values)
                return old is None
            if obstacle != _RECORD:
                raise self.duplicate(obstacle, values)

    def _save_fields(self, obj: Model, names: Collection[str], timeout: Any) -> Steps[None]:
        plans = self.meta.plans
        for name in names:
            if name not in plans:
                raise unknown_field(self.meta.label, name, plans)
        if obj._state.adding:
            raise InvalidArgument(f"{obj!r} was never stored, so that update_fields has nothing to update.")
        changes = {name: plans[name].pre_save(obj, False) for name in names}
        fresh = yield from self.change(self.key_of_record(obj._state.record), changes, timeout=timeout, basis=obj)
        if fresh is None:
            raise self.conflict(obj, None)

    def _stored(self, obj: Model, record: bytes | None, values: dict[str, Any]) -> None:
        """Note in an object what was stored of it."""
        state = obj._state
        state.adding, state.db, state.record = record is None, self.alias, record or b""
        auto = self.meta.auto_field
        if auto is not None:
            setattr(obj, auto.attname, values[auto.name])

    # --------------------------------------------------------------------------------------------- changes in place

    def change(
        self,
        key_bytes: bytes,
        changes: Mapping[str, Any],
        still: Still = None,
        *,
        timeout: Any = UNSET,
        basis: Model | None = None,
    ) -> Steps[Model | None]:
        """Change some fields of one object, whatever its other fields are.

        Arguments:
            key_bytes: its key values in their ordered form.
            changes: values or expressions by field name; expressions see the values that are replaced.
            still: is asked about the object as it is; if it answers False, nothing is changed.
            timeout: as of :meth:`save`.
            basis: the caller's object; it gets the new values, and counts as fresh if it was so before.
        Returns:
            The object as it was stored, or None if there is none or it is not meant any more.
        Raises:
            InvalidValue, DuplicateValue: nothing was changed.
        """
        plans = self.meta.plans
        for name in changes:
            if name not in plans:
                raise unknown_field(self.meta.label, name, plans)
            if name in self.meta.key_names:
                raise InvalidArgument(
                    f"{self.meta.label}.{name} is part of the key, which cannot be changed in place. Nothing was changed. "
                    "Create another object, and delete this one."
                )
        while True:
            old = yield "get", self.database, self._prefix + key_bytes
            if old is None or (still is not None and not still(self.instance(old))):
                return None
            values = self.values(old)
            new = {
                name: plans[name].clean(value.evaluate(values) if isinstance(value, Expression) else value)
                for name, value in changes.items()
            }
            values.update(new)
            data = self.dumped(values, self.unknown_of(self.current_data(old)))
            record, obstacle = yield from self.put(key_bytes, values, data, old, timeout)
            if obstacle is None:
                break
            if obstacle != _RECORD:
                raise self.duplicate(obstacle, values)
        if basis is not None:
            for name, value in new.items():
                setattr(basis, plans[name].attname, value)
            if record is not None and payload_of(old) == payload_of(basis._state.record):
                basis._state.record = record  # what it does not know of, nobody has done
        return self.instance(record if record is not None else old)

    def touch(self, obj: Model, timeout: Any) -> Steps[bool]:
        """Give an object and its index entries another deadline. False if it is not there."""
        key_bytes = self.key_of_record(obj._state.record)
        key = self._prefix + key_bytes
        expire = self.meta.expire if timeout is UNSET else self.expire_of(timeout, None)
        while True:
            old = yield "get", self.database, key
            if old is None:
                return False
            conditions, gone = yield from self.under(old, key_bytes)
            calls = [("touch", self.database, each, expire) for each in (key, *gone)]
            done, answer = yield "atomic", conditions, [*calls, ("get", self.database, key)]
            if not done and answer == 0:
                self.forget_schema()
            if done:
                if payload_of(old) == payload_of(obj._state.record):
                    obj._state.record = answer[-1]
                return True

    def delete(self, key_bytes: bytes, still: Still = None) -> Steps[bool]:
        """Delete an object with its index entries.

        Arguments:
            still: is asked about the object as it is; if it answers False, nothing is deleted.
        Returns:
            True if it was there.
        """
        key = self._prefix + key_bytes
        while True:
            old = yield "get", self.database, key
            if old is None or (still is not None and not still(self.instance(old))):
                return False
            conditions, gone = yield from self.under(old, key_bytes)
            done, answer = yield "atomic", conditions, [("delete_many", self.database, [key, *gone])]
            if done:
                return True
            if answer == 0:
                self.forget_schema()

    def delete_object(self, obj: Model) -> Steps[bool]:
        """Delete an object, with signals."""
        told = {"sender": self.model, "instance": obj, "using": self.alias}
        if signals.pre_delete.has_listeners(self.model):
            yield SEND, signals.pre_delete, told
        was_there = yield from self.delete(self.key_of_record(obj._state.record))
        obj._state.adding, obj._state.record = True, b""
        if signals.post_delete.has_listeners(self.model):
            yield SEND, signals.post_delete, told
        return was_there

    def taken_names(self, obj: Model, exclude: Collection[str]) -> Steps[list[tuple[str, ...]]]:
        """The fields of the key and of unique indexes whose values another object has, in the store as it is now."""
        attributes = {plan.name: plan.attname for plan in self.meta.plans.values()}
        own = self.key_of_record(obj._state.record) if obj._state.record else None
        claims: list[tuple[tuple[str, ...], bytes]] = []
        values: dict[str, Any] = {}
        for name, plan in self.meta.plans.items():
            try:
                values[name] = plan.convert(getattr(obj, attributes[name]))
            except InvalidValue:
                exclude = {*exclude, name}  # which clean_fields has told
        groups = [("", self.meta.key_names), *((i.name, i.field_names) for i in self.meta.indexes.values() if i.unique)]
        for index_name, names in groups:
            if any(name in exclude for name in names):
                continue
            if index_name:
                entry = self.meta.indexes[index_name].entry(values, b"")
            else:
                entry = None if None in map(values.get, names) else self._prefix + self.meta.key_of(values)
            if entry is not None:
                claims.append((names, entry))
        found = yield "get_many", self.database, [entry for _, entry in claims]
        taken = []
        for (names, entry), record in zip(claims, found, strict=True):
            if record is not None:
                key_bytes = entry[len(self._prefix) :] if names == self.meta.key_names else payload_of(record)
                if key_bytes != own:
                    taken.append(names)
        return taken

    # --------------------------------------------------------------------------------------------- automatic ids

    def next_ids(self, number: int) -> Steps[range]:
        """So many ids that nobody else gets."""
        last = yield "incr", self.database, self.meta.sequence_key, number, 0, None, 0
        return range(last - number + 1, last + 1)

    def raise_sequence(self, least: int = 0) -> Steps[None]:
        """Go on behind the highest id that is in use: somebody has given ids by hand.

        Arguments:
            least: go on behind this one, too.
        """
        rows, _ = yield "list", self.database, self._prefix, b"", False, False, 1, False
        highest = max(read_ordered(rows[0], len(self._prefix))[0], least) if rows else least
        if highest > 0:
            last = yield "incr", self.database, self.meta.sequence_key, 0, 0, None, 0
            if highest > last:
                yield "incr", self.database, self.meta.sequence_key, highest - last, 0, None, 0

    # --------------------------------------------------------------------------------------------- errors

    def conflict(self, obj: Model, found: bytes | None) -> Conflict:
        """The error for an object whose record is not what it was read from."""
        happened = "was deleted, or has expired," if found is None else "was changed by somebody else"
        return Conflict(
            f"{obj!r} {happened} since it was read, so it was not saved. Nothing was changed. The error has both versions: "
            "refresh() the object and do the change again, or save(force=True).",
            obj,
            None if found is None else self.instance(found),
        )

    def duplicate(self, obstacle: Any, values: Mapping[str, Any]) -> DuplicateValue:
        """The error for values that another object has: those of a unique index, or of the key."""
        is_key = obstacle == _RECORD
        names = self.meta.key_names if is_key else obstacle.field_names
        shown = ", ".join(f"{name}={values[name]!r:.80}" for name in names)
        return DuplicateValue(
            f"There is a {self.meta.label} with {shown} already. Nothing was changed. "
            + ("Get it and change it, or save(force=True) over it." if is_key else "Choose another value."),
            names,
            is_key,
        )

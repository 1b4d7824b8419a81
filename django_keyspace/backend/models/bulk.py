"""Many objects at once: some thousand records with their index entries in one atomic block after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from django_keyspace.backend.models.errors import unknown_field
from django_keyspace.backend.models.expressions import Expression
from django_keyspace.backend.models.writes import _RECORD, UNSET, WriteSteps
from django_keyspace.backend.twins import Steps
from django_keyspace.exceptions import InvalidArgument
from django_keyspace.store.record import unpack_header

if TYPE_CHECKING:
    from django_keyspace.backend.models.base import Model
    from django_keyspace.backend.models.writes import Still

CHUNK_OBJECTS: Final = 2000
"""Objects in one atomic block, if the caller does not say."""
CHUNK_OBJECTS_MAX: Final = 10_000
CHUNK_BYTES_MAX: Final = 4 * 1024 * 1024
"""A block ends with the object that brings its records to so many bytes."""


class _Row:
    """One object on its way into the store."""

    __slots__ = ("entries", "is_automatic", "key", "key_bytes", "obj", "payload", "taken", "values")

    def __init__(self, storage: BulkSteps, obj: Model, values: dict[str, Any], is_automatic: bool) -> None:
        self.obj, self.values, self.is_automatic = obj, values, is_automatic
        self.key_bytes = storage.meta.key_of(values)
        self.key = storage.record_key(self.key_bytes)
        self.payload = storage.pack(storage.dumped(values))
        self.entries = storage.entries(values, self.key_bytes)
        self.taken = [entry for entry, index in self.entries.items() if index.unique]


class BulkSteps(WriteSteps):
    """Bulk writes of one model on one alias. No signals are sent, as in Django."""

    def bulk_insert(
        self,
        objs: Sequence[Model],
        *,
        batch_size: int | None = None,
        ignore_conflicts: bool = False,
        timeout: Any = UNSET,
    ) -> Steps[list[Model]]:
        """Store new objects, block after block; each block is stored as a whole or not at all.

        Arguments:
            batch_size: objects in a block.
            ignore_conflicts: leave out objects whose key or unique values are taken, instead of raising.
            timeout: as of ``save``.
        Returns:
            The objects; those that were left out have ``_state.adding`` still.
        Raises:
            DuplicateValue: the blocks before that of the object are stored, its own and later ones are not.
            InvalidValue: nothing was stored.
        """
        size = self._batch_size(batch_size)
        prepared = [self.cleaned(obj, True) for obj in objs]
        numbered = yield from self._give_ids(prepared)
        rows = [
            _Row(self, obj, values, number in numbered)
            for number, (obj, values) in enumerate(zip(objs, prepared, strict=True))
        ]
        for chunk in _chunks(rows, size):
            yield from self._insert_chunk(chunk, ignore_conflicts, timeout)
        return list(objs)

    def _give_ids(self, prepared: Sequence[dict[str, Any]]) -> Steps[frozenset[int]]:
        """Give automatic ids to those without. The positions of those that got one."""
        auto = self.meta.auto_field
        if auto is None:
            return frozenset()
        without = [number for number, values in enumerate(prepared) if values[auto.name] is None]
        if without:
            given = [values[auto.name] for values in prepared if values[auto.name] is not None]
            yield from self.raise_sequence(max(given, default=0))
            for number, automatic in zip(without, (yield from self.next_ids(len(without))), strict=True):
                prepared[number][auto.name] = automatic
        return frozenset(without)

    def _insert_chunk(self, candidates: list[_Row], ignore_conflicts: bool, timeout: Any) -> Steps[None]:
        rows = self._distinct(candidates, ignore_conflicts)
        database, expire = self.database, self.expire_of(timeout, None)
        while rows:
            conditions: list[Any] = [(database, ("absent", row.key)) for row in rows]
            conditions += [(database, ("absent", entry)) for row in rows for entry in row.taken]
            pairs = [(row.key, self.record_value(row.payload)) for row in rows]
            pairs += [(entry, self.entry_value(row.key_bytes)) for row in rows for entry in row.entries]
            pairs.sort()  # the store fills its pages best in order
            schema = yield from self.schema_condition()
            calls = [("set_many", database, pairs, expire), ("get", database, pairs[0][0])]
            done, answer = yield "atomic", [schema, *conditions], calls
            if done:
                for row in rows:
                    self._stored(row.obj, self.record_like(answer[-1], row.payload), row.values)
                return
            if answer == 0:
                self.forget_schema()
            elif answer <= len(rows) and rows[answer - 1].is_automatic:
                candidates = yield from self._renumbered(candidates, rows[answer - 1])
            elif ignore_conflicts:
                candidates = yield from self._without_taken(candidates)
            else:
                raise self._duplicate_of(rows, answer - 1)
            rows = self._distinct(candidates, ignore_conflicts)

    def _renumbered(self, candidates: Sequence[_Row], row: _Row) -> Steps[list[_Row]]:
        """The candidates with another automatic id for a row: somebody has given its id by hand."""
        yield from self.raise_sequence()
        (number,) = yield from self.next_ids(1)
        another = _Row(self, row.obj, {**row.values, self.meta.key_names[0]: number}, True)
        return [another if each is row else each for each in candidates]

    def _duplicate_of(self, rows: Sequence[_Row], number: int) -> Exception:
        """The error for the condition that failed: one per row, then those of the unique entries."""
        if number < len(rows):
            return self.duplicate(_RECORD, rows[number].values)
        taken = [(row, entry) for row in rows for entry in row.taken]
        row, entry = taken[number - len(rows)]
        return self.duplicate(row.entries[entry], row.values)

    def _distinct(self, rows: Sequence[_Row], ignore_conflicts: bool) -> list[_Row]:
        """The rows that do not contradict an earlier one. Raises DuplicateValue for another one."""
        seen: set[bytes] = set()
        kept = []
        for row in rows:
            for claim in (row.key, *row.taken):
                if claim in seen:
                    if not ignore_conflicts:
                        raise self.duplicate(row.entries.get(claim, _RECORD), row.values)
                    break
            else:
                seen.update((row.key, *row.taken))
                kept.append(row)
        return kept

    def _without_taken(self, rows: Sequence[_Row]) -> Steps[list[_Row]]:
        claims = [claim for row in rows for claim in (row.key, *row.taken)]
        found = yield "get_many", self.database, claims
        taken = {claim for claim, record in zip(claims, found, strict=True) if record is not None}
        return [row for row in rows if taken.isdisjoint((row.key, *row.taken))]

    def bulk_update(
        self, objs: Sequence[Model], field_names: Sequence[str], *, batch_size: int | None = None
    ) -> Steps[int]:
        """Write some fields of many objects over what is stored, block after block; other fields stay as they are there.

        Returns:
            How many objects were there.
        Raises:
            DuplicateValue: the blocks before that of the object are stored, its own and later ones are not.
        """
        plans = self.meta.plans
        for name in field_names:
            if name not in plans:
                raise unknown_field(self.meta.label, name, plans)
            if name in self.meta.key_names:
                raise InvalidArgument(f"{self.meta.label}.{name} is part of the key: bulk_update() cannot change it.")
        if not field_names:
            raise InvalidArgument("bulk_update() needs the names of the fields to write.")
        changes: dict[bytes, dict[str, Any]] = {}
        for obj in objs:
            if obj._state.adding:
                raise InvalidArgument(f"{obj!r} was never stored, so that bulk_update() has nothing to update.")
            given = {name: getattr(obj, plans[name].attname) for name in field_names}
            changes[self.key_of_record(obj._state.record)] = {
                name: value if isinstance(value, Expression) else plans[name].clean(value)
                for name, value in given.items()
            }
        keys, size, updated = list(changes), self._batch_size(batch_size), 0
        for start in range(0, len(keys), size):
            updated += yield from self._update_chunk({key: changes[key] for key in keys[start : start + size]})
        return updated

    def _update_chunk(self, changes: Mapping[bytes, Mapping[str, Any]]) -> Steps[int]:
        while True:
            schema = yield from self.schema_condition()
            records = yield from self.read_many(list(changes))
            conditions: list[Any] = []
            calls: list[Any] = []
            claims: list[tuple[Any, dict[str, Any]] | None] = []
            for (key_bytes, given), old in zip(changes.items(), records, strict=True):
                if old is not None:
                    yield from self._plan_update(key_bytes, given, old, conditions, calls, claims)
            if not calls:
                return 0
            # Values that one object gives up and another takes: the deletes come first, and the claims hold after them.
            done, answer = yield "atomic", [schema, *conditions], calls
            if done:
                return sum(record is not None for record in records)
            claim = claims[answer - 1] if answer else None
            if claim is not None:
                raise self.duplicate(*claim)
            if answer == 0:
                self.forget_schema()

    def _plan_update(
        self,
        key_bytes: bytes,
        given: Mapping[str, Any],
        old: bytes,
        conditions: list[Any],
        calls: list[Any],
        claims: list[tuple[Any, dict[str, Any]] | None],
    ) -> Steps[None]:
        """Add to a block what one object needs."""
        values = self.values(old)
        new = {
            name: self.meta.plans[name].clean(value.evaluate(values)) if isinstance(value, Expression) else value
            for name, value in given.items()
        }
        values.update(new)
        database, key, expire = self.database, self.record_key(key_bytes), self.expire_of(UNSET, old)
        payload = self.pack(self.dumped(values, self.unknown_of(self.current_data(old))))
        entries, (gone, unsure) = self.entries(values, key_bytes), (yield from self.owned_entries(old, key_bytes))
        conditions.append((database, ("revision", key, unpack_header(old)[3])))
        conditions += [(database, ("absent", entry)) for entry in unsure]
        claims += [None] * (1 + len(unsure))
        for entry, index in entries.items():
            if index.unique and entry not in gone and entry not in unsure:
                conditions.append((database, ("absent", entry)))
                claims.append((index, values))
        calls.append(("set", database, key, self.record_value(payload), expire, "always"))
        value = self.entry_value(key_bytes)
        if written := [(entry, value) for entry in entries if entry not in gone]:
            calls.append(("set_many", database, written, expire))
        if lost := [entry for entry in gone if entry not in entries]:
            calls.append(("delete_many", database, lost))

    def delete_many(self, keys: Sequence[bytes], still: Still = None) -> Steps[int]:
        """Delete objects by the ordered forms of their keys. How many were there.

        Arguments:
            still: is asked about each object as it is; those that it answers False for stay.
        """
        deleted = 0
        for start in range(0, len(keys), CHUNK_OBJECTS):
            chunk = keys[start : start + CHUNK_OBJECTS]
            deleted += yield from self._delete_chunk(chunk, still)
        return deleted

    def _delete_chunk(self, keys: Sequence[bytes], still: Still) -> Steps[int]:
        schema = yield from self.schema_condition()
        records = yield from self.read_many(keys)
        conditions: list[Any] = []
        gone: list[bytes] = []
        deleted = 0
        for key_bytes, old in zip(keys, records, strict=True):
            if old is not None and (still is None or still(self.instance(old))):
                key = self.record_key(key_bytes)
                conditions.append((self.database, ("revision", key, unpack_header(old)[3])))
                owned = yield from self.owned_entries(old, key_bytes)
                conditions += [(self.database, ("absent", entry)) for entry in owned.unsure]
                gone += [key, *owned.entries]
                deleted += 1
        if not gone:
            return 0
        done, answer = yield "atomic", [schema, *conditions], [("delete_many", self.database, gone)]
        if done:
            return deleted
        if answer == 0:
            self.forget_schema()
        deleted = 0  # somebody writes the same objects: one by one
        for key_bytes in keys:
            deleted += yield from self.delete(key_bytes, still)
        return deleted

    def _batch_size(self, batch_size: int | None) -> int:
        if batch_size is None:
            return CHUNK_OBJECTS
        if type(batch_size) is not int or batch_size < 1:
            raise InvalidArgument(f"batch_size must be a positive integer, not {batch_size!r}. Nothing was changed.")
        return min(batch_size, CHUNK_OBJECTS_MAX)


def _chunks(rows: Sequence[_Row], size: int) -> Iterator[list[_Row]]:
    chunk: list[_Row] = []
    chunk_bytes = 0
    for row in rows:
        chunk.append(row)
        chunk_bytes += len(row.payload)
        if len(chunk) >= size or chunk_bytes >= CHUNK_BYTES_MAX:
            yield chunk
            chunk, chunk_bytes = [], 0
    if chunk:
        yield chunk

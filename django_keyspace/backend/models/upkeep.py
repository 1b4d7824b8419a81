"""Looking after the index entries of a model: building what is missing, finding and mending drift.

Reading goes in pages, while others write. So whatever looks wrong on a page is looked at again, record and entries in one
consistent view, and mended in one atomic block under the revisions of that view.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from django_keyspace.backend.models.bulk import BulkSteps
from django_keyspace.backend.models.layout import Index
from django_keyspace.backend.twins import Steps
from django_keyspace.exceptions import DamagedStore, InvalidArgument, KeyTooLong
from django_keyspace.operations import AFTER, Call
from django_keyspace.store.record import payload_of, unpack_header

PAGE_ROWS: Final = 200

MISSING, WRONG, DEADLINE, ORPHAN, UNREADABLE, DUPLICATE = (
    "missing",
    "wrong",
    "other deadline",
    "orphan",
    "unreadable",
    "duplicate",
)


_UNUSABLE: Final = (DamagedStore, InvalidArgument, KeyTooLong, KeyError, TypeError, ValueError)
"""What reading a record may raise that is no object: its map may have any values."""


class Drift(NamedTuple):
    """One thing that is not as it should be.

    Attributes:
        kind: ``missing``, ``wrong`` or ``other deadline``: an entry of a record; ``orphan``: an entry without a record that has
            it; ``unreadable``: a record that is no object; ``duplicate``: two objects with the values of a unique index.
        index_name: name of the index; empty for a record.
        key: the object's key values in their ordered form.
        entry: the entry's key in the store; empty for a record.
    """

    kind: str
    index_name: str
    key: bytes
    entry: bytes


class Page(NamedTuple):
    """What was found on a page.

    Attributes:
        looked_at: how many rows it had.
        found: what is not as it should be.
        last: the last row's key in the store: the next page begins behind it; None at the end.
    """

    looked_at: int
    found: list[Drift]
    last: bytes | None


class UpkeepSteps(BulkSteps):
    """The upkeep of one model on one alias."""

    # ------------------------------------------------------------------------------------------- records

    def inspect_records(self, last: bytes | None) -> Steps[Page]:
        """Look at the entries of a page of records.

        Arguments:
            last: where the page before ended, None for the first one.
        """
        rows, more = yield from self._rows(self._prefix, last)
        suspects: dict[bytes, None] = {}
        wanted: list[tuple[bytes, bytes, bytes]] = []
        for key, record in rows:
            key_bytes = key[len(self._prefix) :]
            try:
                wanted += [(entry, key_bytes, record) for entry in self._wanted(self.values(record), key_bytes)]
            except _UNUSABLE:
                suspects[key_bytes] = None
        found = (yield "get_many", self.database, [entry for entry, _, _ in wanted]) if wanted else []
        for (_, key_bytes, record), other in zip(wanted, found, strict=True):
            if self._fault(record, key_bytes, other):
                suspects[key_bytes] = None
        drifts: list[Drift] = []
        for key_bytes in suspects:
            drifts += yield from self.inspect_object(key_bytes)
        return Page(len(rows), drifts, rows[-1][0] if more else None)

    def inspect_object(self, key_bytes: bytes) -> Steps[list[Drift]]:
        """What is wrong with one object's entries, in one view."""
        return (yield from self._look(key_bytes))[1]

    def _look(
        self, key_bytes: bytes
    ) -> Steps[tuple[bytes | None, list[Drift], dict[str, Any], dict[bytes, bytes | None]]]:
        """A record, what is wrong with it, its values, and its entries as they are, all of one moment."""
        key = self._prefix + key_bytes
        while True:
            record = yield "get", self.database, key
            if record is None:
                return None, [], {}, {}
            try:
                values = self.values(record)
                wanted = self._wanted(values, key_bytes)
            except _UNUSABLE:
                return record, [Drift(UNREADABLE, "", key_bytes, b"")], {}, {}
            calls: list[Call] = [("get", self.database, entry) for entry in wanted]
            conditions = [(self.database, ("revision", key, unpack_header(record)[3]))]
            done, found = yield "atomic", conditions, calls
            if done:
                break
        drifts = []
        for (entry, index), other in zip(wanted.items(), found, strict=True):
            fault = self._fault(record, key_bytes, other)
            if fault == WRONG and index.unique and (yield from self._has_entry(payload_of(other), entry)):
                fault = DUPLICATE
            if fault:
                drifts.append(Drift(fault, index.name, key_bytes, entry))
        return record, drifts, values, dict(zip(wanted, found, strict=True))

    def mend_object(self, key_bytes: bytes) -> Steps[list[Drift]]:
        """Write the entries that an object should have.

        Returns:
            What could not be mended: duplicates, and records that cannot be read.
        """
        key = self._prefix + key_bytes
        while True:
            record, drifts, values, entries = yield from self._look(key_bytes)
            left = [drift for drift in drifts if drift.kind in (DUPLICATE, UNREADABLE)]
            if record is None or not drifts or left:
                return left
            revision, deadline_ms = unpack_header(record)[3:5]
            conditions: list[Any] = [(self.database, ("revision", key, revision))]
            for entry, other in entries.items():
                state = ("absent", entry) if other is None else ("revision", entry, unpack_header(other)[3])
                conditions.append((self.database, state))
            expire = ("at", deadline_ms) if deadline_ms else None
            value = self.entry_value(key_bytes)
            # The record is written whole, so that what is stored says which entries belong to it: a default that is worked
            # out anew each time would find others at the next look.
            data = self.dumped(values, self.unknown_of(self.current_data(record)))
            schema = yield from self.schema_condition()
            owned = yield from self.owned_entries(record, key_bytes)
            stale = [entry for entry in owned.entries if entry not in entries]
            calls: list[Call] = [("set_many", self.database, [(entry, value) for entry in entries], expire)]
            if data != self.data_of(record):
                calls.append(("set", self.database, key, self.record_value(self.pack(data)), expire, "always"))
            if stale:
                calls.append(("delete_many", self.database, stale))
            done, answer = yield "atomic", [schema, *conditions], calls
            if done:
                return []
            if answer == 0:
                self.forget_schema()

    def _wanted(self, values: dict[str, Any], key_bytes: bytes) -> dict[bytes, Index]:
        """The entries that an object of these values should have.

        Raises:
            DamagedStore: its values make another key than that of its record.
        """
        if self.meta.key_of(values) != key_bytes:
            raise DamagedStore(f"An object of {self.meta.label} lies under a key that is not its own.")
        return self.entries(values, key_bytes)

    def _fault(self, record: bytes, key_bytes: bytes, other: bytes | None) -> str:
        """What is wrong with an entry of a record; empty if nothing is."""
        if other is None:
            return MISSING
        if payload_of(other) != key_bytes:
            return WRONG
        return DEADLINE if unpack_header(other)[4] != unpack_header(record)[4] else ""

    def _has_entry(self, key_bytes: bytes, entry: bytes) -> Steps[bool]:
        """Whether there is an object whose values make this entry."""
        record = yield "get", self.database, self._prefix + key_bytes
        return self._owns(record, key_bytes, entry)

    def _owns(self, record: bytes | None, key_bytes: bytes, entry: bytes) -> bool:
        try:
            return record is not None and entry in self._wanted(self.values(record), key_bytes)
        except _UNUSABLE:
            return True  # nobody knows: leave it to those who look at the record

    # ------------------------------------------------------------------------------------------- entries

    def entry_prefixes(self) -> tuple[bytes, bytes]:
        """What the keys of all entries begin with, of indexes that there are and of those that there were."""
        tail = f"{self.meta.prefix}\0".encode()
        return b"i" + tail, b"u" + tail

    def inspect_entries(self, prefix: bytes, last: bytes | None) -> Steps[Page]:
        """Look for entries on a page that belong to no object.

        Arguments:
            prefix: one of :meth:`entry_prefixes`, or that of an index.
            last: where the page before ended, None for the first one.
        """
        rows, more = yield from self._rows(prefix, last)
        owners = [payload_of(other) for _, other in rows]
        records = yield from self.read_many(owners)
        found = []
        for (entry, _), owner, record in zip(rows, owners, records, strict=True):
            if not self._owns(record, owner, entry) and (yield from self._as_orphan(entry, [])):
                name = entry.split(b"\0", 2)[1].decode("utf-8", "replace")
                found.append(Drift(ORPHAN, name, owner, entry))
        return Page(len(rows), found, rows[-1][0] if more else None)

    def drop_orphan(self, drift: Drift) -> Steps[bool]:
        """Delete an entry that belongs to no object. False if it does by now, or is gone."""
        return (yield from self._as_orphan(drift.entry, [("delete_many", self.database, [drift.entry])]))

    def _as_orphan(self, entry: bytes, calls: list[Call]) -> Steps[bool]:
        """Carry out calls if an entry belongs to no object, in one view. False if it belongs to one, or is gone."""
        while True:
            other = yield "get", self.database, entry
            if other is None:
                return False
            key = self._prefix + payload_of(other)
            record = yield "get", self.database, key
            if self._owns(record, payload_of(other), entry):
                return False
            state = ("absent", key) if record is None else ("revision", key, unpack_header(record)[3])
            conditions = [(self.database, ("revision", entry, unpack_header(other)[3])), (self.database, state)]
            if calls:
                conditions.append((yield from self.schema_condition()))
            done, answer = yield "atomic", conditions, calls
            if done:
                return True
            if answer == 2:
                self.forget_schema()

    def former_prefixes(self) -> Steps[list[bytes]]:
        """What the keys of entries begin with whose indexes the model has no more."""
        kept = {index.prefix for index in self.meta.indexes.values()}
        found = []
        for prefix in self.entry_prefixes():
            start = b""
            while True:
                keys, _ = yield "list", self.database, prefix, start, False, True, 1, False
                if not keys:
                    break
                name = keys[0][len(prefix) :].partition(b"\0")[0]
                if prefix + name + b"\0" not in kept:
                    found.append(prefix + name + b"\0")
                start = prefix + name + b"\1"
        return found

    def drop_former(self, prefix: bytes) -> Steps[int]:
        """Delete a page of entries of an index that the model has no more.

        Arguments:
            prefix: one of :meth:`former_prefixes`.
        Returns:
            How many; 0 at the end.
        """
        while True:
            rows, _ = yield from self._rows(prefix, None)
            if not rows:
                return 0
            # While the schema does not have the index, nobody writes or trusts such entries.
            schema = yield from self.schema_condition()
            done, _ = yield "atomic", [schema], [("delete_many", self.database, [entry for entry, _ in rows])]
            if done:
                return len(rows)
            self.forget_schema()

    # ------------------------------------------------------------------------------------------- pages

    def number_of_records(self) -> Steps[int]:
        """How many objects there are, those that cannot be read included."""
        number, last = 0, b""
        while True:
            some: int
            some, end = yield "count", self.database, self._prefix, last, AFTER if last else False, True, 0
            number += some
            if end is None:
                return number
            last = end

    def page_of_records(self, last: bytes | None) -> Steps[tuple[list[bytes], bytes | None]]:
        """A page of records in the order of the key, and where it ended; None at the end."""
        rows, more = yield from self._rows(self._prefix, last)
        return [record for _, record in rows], rows[-1][0] if more else None

    def _rows(self, prefix: bytes, last: bytes | None) -> Steps[tuple[list[Any], bool]]:
        """A page of keys and records, and whether there are more."""
        skip = AFTER if last else False
        rows, more = yield "list", self.database, prefix, last or b"", skip, True, PAGE_ROWS, True
        return rows, more

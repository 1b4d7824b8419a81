"""What a script sees of the store: one snapshot, and over it what the script itself has written.

:class:`ViewTransaction` looks like an LMDB transaction to ``apply.py`` and ``queries.py``: their functions run on it as they
are, so that an operation means the same to a script as to everybody else. What they write stays here. What they read of the
snapshot is noted, and becomes the conditions under which the writes may be done: that nobody has changed it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from django_keyspace.store.queries import range_digest
from django_keyspace.store.record import deadline_of, revision_of

if TYPE_CHECKING:
    from django_keyspace.store.environment import Environment

Condition = tuple[Any, ...]


class _Changes:
    """What was written to one LMDB database: by key, None for a delete; and the keys in order."""

    __slots__ = ("keys", "records")

    def __init__(self) -> None:
        self.records: dict[bytes, bytes | None] = {}
        self.keys: list[bytes] = []

    def note(self, key: bytes, record: bytes | None) -> None:
        if key not in self.records:
            insort(self.keys, key)
        self.records[key] = record


class ViewTransaction:
    """A transaction of which nothing is ever committed.

    Arguments:
        base: a read transaction of LMDB: the snapshot.
        watched: the LMDB database whose reads become conditions.

    Attributes:
        is_watching: False while reads do not matter, since the answer will not depend on them.
    """

    def __init__(self, base: Any, watched: Any) -> None:
        self.base = base
        self.is_watching = True
        self._watched = watched
        self._changes: dict[int, _Changes] = {}
        self._seen: set[bytes] = set()
        self._spans: list[tuple[bytes, bytes]] = []

    # ------------------------------------------------------------------------------------------- as LMDB's

    def get(self, key: bytes, default: Any = None, db: Any = None) -> Any:
        """The record under a key."""
        changes = self._changes.get(id(db))
        if changes is not None and key in changes.records:
            record = changes.records[key]
            return default if record is None else record
        if db is self._watched and self.is_watching:
            self._seen.add(key)
        return self.base.get(key, default, db)

    def put(
        self,
        key: bytes,
        value: bytes,
        dupdata: bool = True,
        overwrite: bool = True,
        append: bool = False,
        db: Any = None,
    ) -> bool:
        """Write a record."""
        self._changes_of(db).note(bytes(key), value)
        return True

    def delete(self, key: bytes, value: bytes = b"", db: Any = None) -> bool:
        """Delete a record. True if it was there."""
        is_there = self.look(key, db) is not None
        if is_there:
            self._changes_of(db).note(bytes(key), None)
        return is_there

    def cursor(self, db: Any = None) -> ViewCursor:
        """A cursor over a database."""
        return ViewCursor(self, db)

    def stat(self, db: Any = None) -> dict[str, int]:
        """LMDB's figures, with the number of entries as the script sees it."""
        figures: dict[str, int] = dict(self.base.stat(db))
        changes = self._changes.get(id(db))
        if changes is not None:
            for key, record in changes.records.items():
                figures["entries"] += (record is not None) - (self.base.get(key, None, db) is not None)
        return figures

    def look(self, key: bytes, db: Any) -> bytes | None:
        """As :meth:`get`, without a note that it was read."""
        changes = self._changes.get(id(db))
        if changes is not None and key in changes.records:
            return changes.records[key]
        record: bytes | None = self.base.get(key, None, db)
        return record

    def _changes_of(self, db: Any) -> _Changes:
        return self._changes.setdefault(id(db), _Changes())

    # ------------------------------------------------------------------------------------------- for the cursor

    def neighbour(self, key: bytes | None, db: Any, *, forward: bool, inclusive: bool) -> bytes | None:
        """The next key in a direction, or None at the end. A ``key`` of None stands before the first, or behind the last."""
        changes = self._changes.get(id(db))
        cursor = self.base.cursor(db=db)
        while True:
            candidate = _step(cursor, key, forward, inclusive)
            if changes is not None:
                changed = _nearest(changes.keys, key, forward, inclusive)
                if changed is not None and (
                    candidate is None or (changed <= candidate if forward else changed >= candidate)
                ):
                    candidate = changed
                    if changes.records[changed] is None:
                        key, inclusive = changed, False
                        continue
            return candidate

    def note_span(self, low: bytes, high: bytes, db: Any) -> None:
        """Note that somebody looked for keys from ``low`` to ``high``, both included; an empty ``high`` is the end."""
        if db is not self._watched or not self.is_watching:
            return
        if self._spans:
            last_low, last_high = self._spans[-1]
            if (not last_high or low <= last_high) and (not high or high >= last_low):  # it goes on from the last one
                self._spans[-1] = min(low, last_low), max(high, last_high) if high and last_high else b""
                return
        self._spans.append((low, high))

    # ------------------------------------------------------------------------------------------- what was read

    def conditions(self, environment: Environment, database: int, now_ms: int) -> list[tuple[int, Condition]]:
        """That everything which was read of the snapshot is still the same.

        Arguments:
            environment: with the handles of the databases.
            database: number of the database that was watched.
            now_ms: the time of the snapshot: what was expired then counts as absent.
        """
        spans = _merged(self._spans)
        starts = [low for low, _ in spans]
        found: list[tuple[int, Condition]] = []
        for key in sorted(self._seen):
            at = bisect_right(starts, key) - 1
            if at >= 0 and (not spans[at][1] or key <= spans[at][1]):
                continue
            record = self.base.get(key, None, self._watched)
            is_live = record is not None and (not deadline_of(record)[0] or deadline_of(record)[0] > now_ms)
            found.append((database, ("revision", key, revision_of(record)[0]) if is_live else ("absent", key)))
        for low, high in spans:
            digest = range_digest(self.base, environment, now_ms, database, low, high)
            found.append((database, ("range", low, high, digest)))
        return found


class ViewCursor:
    """A cursor over a :class:`ViewTransaction`, as far as ``apply.py`` and ``queries.py`` use one."""

    def __init__(self, view: ViewTransaction, db: Any) -> None:
        self._view = view
        self._db = db
        self._key: bytes | None = None

    def key(self) -> bytes:
        """The key that it stands on; empty if there is none."""
        return self._key or b""

    def value(self) -> bytes:
        """The record that it stands on."""
        return (self._view.look(self._key, self._db) if self._key is not None else None) or b""

    def first(self) -> bool:
        """Stand on the first key."""
        return self._go_forward(b"", None, inclusive=True)

    def set_range(self, key: bytes) -> bool:
        """Stand on the first key that is not below ``key``."""
        return self._go_forward(key, key, inclusive=True)

    def next(self) -> bool:
        """Stand on the next key."""
        return self._go_forward(self._key or b"", self._key, inclusive=False)

    def last(self) -> bool:
        """Stand on the last key."""
        return self._go_back(None)

    def prev(self) -> bool:
        """Stand on the key before; on the last one if it stands nowhere."""
        return self._go_back(self._key)

    def delete(self) -> bool:
        """Delete the key that it stands on, and stand on the next one. True if there was one to delete."""
        if self._key is None:
            return False
        deleted = self._view.delete(self._key, db=self._db)
        self.next()
        return deleted

    def putmulti(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Write records."""
        for key, record in items:
            self._view.put(key, record, db=self._db)

    def close(self) -> None:
        """Nothing: LMDB's cursors have it."""

    def _go_forward(self, low: bytes, key: bytes | None, *, inclusive: bool) -> bool:
        self._key = self._view.neighbour(key, self._db, forward=True, inclusive=inclusive)
        self._view.note_span(low, self._key or b"", self._db)
        return self._key is not None

    def _go_back(self, key: bytes | None) -> bool:
        self._key = self._view.neighbour(key, self._db, forward=False, inclusive=False)
        self._view.note_span(self._key or b"", key or b"", self._db)
        return self._key is not None


def _step(cursor: Any, key: bytes | None, forward: bool, inclusive: bool) -> bytes | None:
    """The key of the snapshot that is next to ``key``."""
    if forward:
        if key is None or not key:
            found = cursor.first()
        else:
            found = cursor.set_range(key)
            if found and not inclusive and cursor.key() == key:
                found = cursor.next()
    elif key is None:
        found = cursor.last()
    else:
        found = cursor.prev() if cursor.set_range(key) else cursor.last()
    return bytes(cursor.key()) if found else None


def _nearest(keys: Sequence[bytes], key: bytes | None, forward: bool, inclusive: bool) -> bytes | None:
    """The changed key that is next to ``key``."""
    if forward:
        at = 0 if key is None else bisect_left(keys, key) if inclusive else bisect_right(keys, key)
    else:
        at = (len(keys) if key is None else bisect_left(keys, key)) - 1
    return keys[at] if 0 <= at < len(keys) else None


def _merged(spans: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The same keys in spans that do not overlap, in order."""
    merged: list[tuple[bytes, bytes]] = []
    for low, high in sorted(spans):
        if merged and (not merged[-1][1] or low <= merged[-1][1]):
            last_low, last_high = merged[-1]
            merged[-1] = last_low, max(high, last_high) if high and last_high else b""
        else:
            merged.append((low, high))
    return merged

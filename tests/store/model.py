"""A store as a dict, slow and plain, for comparison: what each operation does, written down a second time."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django_keyspace.exceptions import KeyspaceError, MissingKey, NotANumber, NumberOverflow, WrongType
from django_keyspace.store.record import Flag, Tag


@dataclass(frozen=True)
class Stored:
    """A record as it lies there, expired or not.

    Attributes:
        deadline_ms: the one that counts: the earlier of its own and its name's.
        own_ms: its own.
    """

    tag: int
    flags: int
    payload: bytes
    deadline_ms: int
    revision: int
    own_ms: int

    @property
    def evictable(self) -> bool:
        return bool(self.flags & Flag.EVICTABLE)


Address = tuple[int, bytes]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def edits(one: str, other: str) -> int:
    """How many characters must be inserted, deleted or substituted to make one word of the other."""
    row = list(range(len(other) + 1))
    for number, left in enumerate(one, 1):
        row, above = [number], row
        for index, right in enumerate(other, 1):
            row.append(min(above[index] + 1, row[-1] + 1, above[index - 1] + (left != right)))
    return row[-1]


class Model:
    """A store with deadlines.

    Attributes:
        stored: what lies there, by database and key.
        expiries: deadlines of names, also of those that have fired and still lie there.
        now_ms: the log clock.
        revision: number of the running write.
    """

    def __init__(self, now_ms: int) -> None:
        self.stored: dict[Address, Stored] = {}
        self.expiries: dict[Address, int] = {}
        self.now_ms = now_ms
        self.revision = 0

    def is_expired(self, record: Stored) -> bool:
        return 0 < record.deadline_ms <= self.now_ms

    def live(self, database: int, key: bytes) -> Stored | None:
        record = self.stored.get((database, key))
        return None if record is None or self.is_expired(record) else record

    def keys(self, database: int, prefix: bytes = b"") -> list[bytes]:
        """Live keys in byte order."""
        return sorted(
            key for (number, key) in self.stored if number == database and key.startswith(prefix)
            and self.live(database, key)
        )  # fmt: skip

    def do(self, name: str, *args: Any) -> Any:
        """Do an operation; raises as the store does, and then has changed nothing."""
        method: Callable[..., Any] = getattr(self, f"op_{name}")
        return method(*args)

    def expiry(self, address: Address) -> int:
        """The deadline of a name that has not fired, 0 for none."""
        deadline_ms = self.expiries.get(address, 0)
        return deadline_ms if deadline_ms > self.now_ms else 0

    def _put(self, database: int, key: bytes, value: Sequence[Any], own_ms: int) -> None:
        if 0 < own_ms <= self.now_ms:
            self.stored.pop((database, key), None)
            return
        name_ms = self.expiry((database, key))
        if not name_ms:
            self.expiries.pop((database, key), None)
        deadline_ms = min(own_ms or name_ms, name_ms or own_ms)
        self.stored[database, key] = Stored(*value, deadline_ms, self.revision, own_ms)

    def _deadline(self, expire: Any, old: Stored | None) -> int:
        if expire is None:
            return 0
        if expire == "keep":
            return old.own_ms if old else 0
        return max(expire[1], 1) if isinstance(expire, tuple) else self.now_ms + expire

    def _kept_deadline(self, expire: Any, old: Stored | None) -> int:
        if isinstance(expire, tuple) and expire[0] == "set":
            return self._deadline(expire[1], None)
        return old.own_ms if old else self._deadline(expire, None)

    # -------------------------------------------------------------------------------------------------- writes

    def op_set(self, database: int, key: bytes, value: Any, expire: Any, presence: str) -> bool:
        old = self.live(database, key)
        if {"always": False, "absent": old is not None, "present": old is None}[presence]:
            return False
        self._put(database, key, value, self._deadline(expire, old))
        return True

    def op_set_many(self, database: int, pairs: Any, expire: Any) -> int:
        for key, value in pairs:
            self.op_set(database, key, value, expire, "always")
        return len(pairs)

    def op_touch(self, database: int, key: bytes, expire: Any) -> bool:
        old = self.live(database, key)
        if old is not None:
            self._put(database, key, (old.tag, old.flags, old.payload), self._deadline(expire, old))
        return old is not None

    def op_remove(self, database: int, key: bytes) -> bytes | None:
        old = self.live(database, key)
        self.stored.pop((database, key), None)
        return old.payload if old else None

    def op_delete(self, database: int, key: bytes) -> bool:
        return self.op_remove(database, key) is not None

    def op_delete_many(self, database: int, keys: Sequence[bytes]) -> int:
        return sum(self.op_delete(database, key) for key in keys)

    def _count(self, read: Any, tags: set[int], database: int, key: bytes, delta: Any, default: Any, expire: Any,
               flags: int) -> tuple[Any, int, int]:  # fmt: skip
        old = self.live(database, key)
        if old is None:
            if default is None:
                raise MissingKey
            return default + delta, flags, self._kept_deadline(expire, None)
        if old.tag not in tags:
            raise NotANumber
        return read(old.payload) + delta, old.flags, self._kept_deadline(expire, old)

    def op_incr(self, database: int, key: bytes, *args: Any) -> int:
        number, flags, deadline_ms = self._count(int, {Tag.INTEGER}, database, key, *args)
        if not -(2**63) <= number < 2**63:
            raise NumberOverflow
        self._put(database, key, (int(Tag.INTEGER), flags, str(number).encode()), deadline_ms)
        return number

    def op_incr_float(self, database: int, key: bytes, *args: Any) -> float:
        number, flags, deadline_ms = self._count(float, {Tag.INTEGER, Tag.FLOAT}, database, key, *args)
        self._put(database, key, (int(Tag.FLOAT), flags, repr(number).encode()), deadline_ms)
        return number

    def op_append(self, database: int, key: bytes, value: Any, expire: Any) -> int:
        old, (tag, flags, payload) = self.live(database, key), value
        deadline_ms = self._kept_deadline(expire, old)
        if old is not None:
            if old.tag != tag or tag not in (Tag.TEXT, Tag.BYTES):
                raise WrongType
            payload, flags = old.payload + payload, old.flags
        self._put(database, key, (tag, flags, payload), deadline_ms)
        return len(payload)

    def holds(self, database: int, condition: Sequence[Any]) -> bool:
        old = self.live(database, condition[1])
        if condition[0] == "absent" or old is None:
            return condition[0] == "absent" and old is None
        if condition[0] == "revision":
            return old.revision == condition[2]
        return condition[0] == "present" or (condition[2] in (None, old.tag) and old.payload == condition[3])

    def op_cas(self, database: int, condition: Any, value: Any, expire: Any) -> tuple[bool, bytes | None]:
        key, old = condition[1], self.live(database, condition[1])
        before = old.payload if old else None
        if not self.holds(database, condition):
            return False, before
        if value is None:
            self.stored.pop((database, key), None)
        else:
            self._put(database, key, value, self._deadline(expire, old))
        return True, before

    def op_rename(self, database: int, key: bytes, new_key: bytes) -> bool:
        old = self.live(database, key)
        if old is None:
            return False
        if key != new_key:
            del self.stored[database, key]
            self._put(database, new_key, (old.tag, old.flags, old.payload), old.own_ms)
        return True

    def op_prune(self, database: int, prefix: bytes) -> int:
        live = len(self.keys(database, prefix))
        self._forget(lambda address, _: address[0] == database and address[1].startswith(prefix))
        return live

    def op_clear(self, database: int, everything: bool) -> int:
        number = self._forget(lambda address, record: address[0] == database and (everything or record.evictable))
        for address in [address for address in self.expiries if address[0] == database and address not in self.stored]:
            del self.expiries[address]
        return number

    def op_set_expiry(self, database: int, key: bytes, expiry: Any) -> bool:
        address, old, deadline_ms = (database, key), self.live(database, key), self._deadline(expiry, None)
        self.expiries.pop(address, None)
        self.stored.pop(address, None)
        if deadline_ms > self.now_ms:
            self.expiries[address] = deadline_ms
            if old is not None:
                self._put(database, key, (old.tag, old.flags, old.payload), old.own_ms)
        return True

    def op_remove_expiry(self, database: int, key: bytes) -> int:
        address, old = (database, key), self.live(database, key)
        deadline_ms = self.expiries.pop(address, None)
        if deadline_ms is not None and old is None:
            if deadline_ms <= self.now_ms:
                self.stored.pop(address, None)
        elif deadline_ms is not None:
            self._put(database, key, (old.tag, old.flags, old.payload), old.own_ms)
        return int(deadline_ms is not None and deadline_ms > self.now_ms)

    def op_clear_expiries(self, database: int) -> int:
        return sum(self.op_remove_expiry(*address) for address in list(self.expiries) if address[0] == database)

    def _forget(self, doomed: Callable[[Address, Stored], bool]) -> int:
        addresses = [address for address, record in self.stored.items() if doomed(address, record)]
        for address in addresses:
            del self.stored[address]
        return len(addresses)

    def op_cull(self, database: int, keys: Sequence[bytes], records_max: int, frequency: int) -> int:
        records = sum(number == database for number, _ in self.stored)
        new = sum((database, key) not in self.stored for key in keys)
        if not new or records + new <= records_max:
            return 0
        rows = sorted(
            (not self.is_expired(record), record.revision, key)
            for (number, key), record in self.stored.items() if number == database and record.evictable
        )  # fmt: skip
        doomed = rows[: max(records // frequency if frequency else records, records + new - records_max)]
        return self.op_evict([(database, key) for _, _, key in doomed])

    def op_evict(self, addresses: Sequence[Address]) -> int:
        return self._forget(lambda address, record: address in addresses and record.evictable)

    def op_batch(self, calls: Sequence[Any]) -> list[tuple[str, Any]]:
        answers = []
        for call in calls:
            try:
                answers.append(("ok", self.do(*call)))
            except KeyspaceError as error:
                answers.append((error.code, None))
        return answers

    def op_atomic(self, conditions: Sequence[Any], calls: Sequence[Any]) -> tuple[bool, Any]:
        for index, (database, condition) in enumerate(conditions):
            if not self.holds(database, condition):
                return False, index
        before = dict(self.stored), dict(self.expiries)
        try:
            return True, [self.do(*call) for call in calls]
        except KeyspaceError:
            self.stored, self.expiries = before
            raise

    # -------------------------------------------------------------------------------------------------- reads

    def op_get(self, database: int, key: bytes) -> bytes | None:
        record = self.live(database, key)
        return record.payload if record else None

    def op_get_many(self, database: int, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.op_get(database, key) for key in keys]

    def op_exists(self, database: int, key: bytes) -> bool:
        return self.live(database, key) is not None

    def op_length(self, database: int, key: bytes) -> int | None:
        record = self.live(database, key)
        return len(record.payload) if record else None

    def op_ttl(self, database: int, key: bytes) -> int | None:
        record = self.live(database, key)
        if record is None:
            return None
        return record.deadline_ms - self.now_ms if record.deadline_ms else -1

    def _range(self, database: int, prefix: bytes, start: bytes, skip: Any, forward: bool) -> list[bytes]:
        keys = self.keys(database, prefix)
        if forward:
            keys = [key for key in keys if key >= start]
        else:
            keys = [key for key in reversed(keys) if not start or key <= start]
        if skip == "after":
            return [key for key in keys if key != start]
        return keys[1:] if skip else keys

    def op_list(self, database: int, prefix: bytes, start: bytes, skip: Any, forward: bool, rows: int,
                with_values: bool) -> tuple[list[Any], bool]:  # fmt: skip
        keys = self._range(database, prefix, start, skip, forward)
        page = keys[:rows]
        return [(key, self.op_get(database, key)) for key in page] if with_values else page, len(keys) > rows

    def op_match_regex(self, database: int, prefix: bytes, pattern: bytes, start: bytes, rows: int) -> Any:
        keys = [key for key in self.keys(database, prefix) if key > start and re.search(pattern, key[len(prefix) :])]
        return keys[:rows], keys[rows - 1] if len(keys) >= rows else None

    def op_match_similar(self, database: int, prefix: bytes, origin: bytes, distance: int, start: bytes) -> Any:
        words = [
            (key, edits(_text(origin), _text(key[len(prefix) :]))) for key in self.keys(database, prefix) if key > start
        ]
        return [(key, number) for key, number in words if number <= distance], None

    def op_count(self, database: int, prefix: bytes, start: bytes, skip: Any, forward: bool, limit: int) -> Any:
        number = len(self._range(database, prefix, start, skip, forward))
        return min(number, limit or number), None

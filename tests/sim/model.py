"""What each operation does, written down a second time, for histories in which nobody knows the time or every outcome.

A key's state is a :class:`Cell`. :func:`outcomes` carries a call out on some cells and gives every answer that would be right,
with what becomes of the cells: mostly one. There are several where the history does not say what decides:

- A record with a deadline may be gone from any moment on, and then stays gone; when is not checked here. The same for every
  record under a name with a deadline (``set_expiry``), and for evictable records of a store that evicts (``evicting``).
- A condition on a revision, or on a range's digest, may hold or not, as long as the key is there: revisions are not modelled.

Nothing of ``store/apply.py`` or ``store/queries.py`` is used: a mistake there must not hide here.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

Address = tuple[int, bytes]
"""A key: ``(database, key)``."""

Value = tuple[int, int, bytes]
"""``(tag, flags, payload)``."""

BYTES, TEXT, INTEGER, FLOAT, RAW = 1, 2, 3, 4, 19
_EVICTABLE, OVERLAID, _DECIMAL = 4, 8, 16
_INT64: Final = 1 << 63
_HEADER: Final = struct.Struct("<BBIQQI")
_DECIMAL_TEXT: Final = re.compile(rb"-?[0-9]*").fullmatch
ALTERNATIVES_MAX: Final = 4096
"""A call with more right answers than this is not for this model."""


class NotModelled(Exception):
    """The history has an operation that this model does not know."""


class Cell(NamedTuple):
    """The state of a key.

    Attributes:
        value: what is stored, None for nothing.
        mortal: it may be gone at any time.
        fused: a deadline hangs on the name, so that whatever is stored may be gone at any time.
    """

    value: Value | None = None
    mortal: bool = False
    fused: bool = False


EMPTY: Final = Cell()


class Refusal(Exception):
    """The state does not allow the call; the argument is the error's code."""


class Between:
    """Equal to every integer from ``low`` to ``high``, and to what is in ``also``."""

    def __init__(self, low: int, high: int, *also: Any) -> None:
        self.low, self.high, self.also = low, high, also

    def __eq__(self, other: object) -> bool:
        return (type(other) is int and self.low <= other <= self.high) or other in self.also

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{self.low}..{self.high}" + "".join(f" or {item}" for item in self.also)


class Outcome(NamedTuple):
    """One right answer of a call: what it changes, ``ok`` or ``error``, and the result or the error's code."""

    changes: dict[Address, Cell]
    word: str
    result: Any


def record_value(record: bytes) -> Value:
    """Tag, flags and payload of a record's bytes."""
    tag, flags, *_ = _HEADER.unpack_from(record)
    return tag, flags & ~OVERLAID, record[_HEADER.size :]


def record_revision(record: bytes) -> int:
    """The number of the write that made a record: its index in the log."""
    return int(_HEADER.unpack_from(record)[3])


def number(record: bytes | None) -> int | None:
    """The integer in a record: 0 for no record, None for one without an integer."""
    if record is None:
        return 0
    tag, _, payload = record_value(record)
    return int(payload) if tag == INTEGER else None


def pack_record(value: Value, revision: int = 0) -> bytes:
    """A record's bytes, for histories that are made up."""
    return _HEADER.pack(value[0], value[1], 0, revision, 0, 0) + value[2]


def _maybe(record: bytes | None) -> Value | None:
    return None if record is None else record_value(record)


def seen(call: Sequence[Any], result: Any) -> Any:
    """An operation's answer as :func:`outcomes` puts it: values for records, and of a refused part of a batch only the code."""
    name = call[0]
    if name in ("get", "remove"):
        return _maybe(result)
    if name == "get_many":
        return tuple(_maybe(record) for record in result)
    if name == "cas":
        return result[0], _maybe(result[1])
    if name == "list" and call[7]:
        return tuple((key, record_value(record)) for key, record in result[0]), result[1]
    if name == "once":
        return seen(call[5], result)
    if name == "batch":
        return tuple(
            (word, seen(part, answer)) if word == "ok" else (word, None)
            for part, (word, answer) in zip(call[1], result, strict=True)
        )
    if name == "atomic" and result[0]:
        return True, tuple(seen(part, answer) for part, answer in zip(call[2], result[1], strict=True))
    return result


def outcomes(
    cells: Callable[[Address], Cell], keys: Sequence[Address], call: Sequence[Any], *, evicting: bool = False
) -> Iterable[Outcome]:
    """Every right answer of a call.

    Arguments:
        cells: the state of each key before.
        keys: the keys that may have a record, in byte order: those that prefixes are compared with.
        call: the operation.
        evicting: evictable records may be gone at any time.
    """
    scripts: list[list[bool]] = [[]]
    number = 0
    while scripts:
        number += 1
        if number > ALTERNATIVES_MAX:
            raise NotModelled(f"a call has more than {ALTERNATIVES_MAX} right answers: {call!r:.200}")
        run = _Run(cells, keys, scripts.pop(), evicting)
        try:
            result = run.do(call)
        except Refusal as refusal:
            yield Outcome(run.changes, "error", refusal.args[0])  # nothing, but what was found to be gone
        else:
            yield Outcome(run.changes, "ok", result)
        scripts.extend(run.other_ways())


class _Run:
    """One way to carry a call out.

    Attributes:
        changes: the cells that are not as before.
    """

    def __init__(
        self, cells: Callable[[Address], Cell], keys: Sequence[Address], script: list[bool], evicting: bool
    ) -> None:
        self.changes: dict[Address, Cell] = {}
        self._cells, self._keys, self._evicting = cells, keys, evicting
        self._script, self._given, self._asked = script, len(script), 0

    def _either(self) -> bool:
        """True in some ways to carry the call out and False in the others."""
        if self._asked == len(self._script):
            self._script.append(False)
        self._asked += 1
        return self._script[self._asked - 1]

    def other_ways(self) -> Iterable[list[bool]]:
        """What is to be tried as well, after this way was tried."""
        return [[*self._script[:place], True] for place in range(self._given, len(self._script))]

    def do(self, call: Sequence[Any]) -> Any:
        operation = OPERATIONS.get(call[0])
        if operation is None:
            raise NotModelled(f"no model of the operation {call[0]}")
        return operation(self, *call[1:])

    def cell(self, address: Address) -> Cell:
        found = self.changes.get(address)
        return self._cells(address) if found is None else found

    def live(self, address: Address) -> Value | None:
        """The value under a key, after it was decided whether that is still there."""
        cell = self.cell(address)
        if self.is_mortal(cell) and self._either():
            self.changes[address] = Cell(fused=cell.fused)
            return None
        return cell.value

    def is_mortal(self, cell: Cell) -> bool:
        return cell.value is not None and bool(
            cell.mortal or cell.fused or (self._evicting and cell.value[1] & _EVICTABLE)
        )

    def put(self, address: Address, value: Sequence[Any], expire: Any, was_mortal: bool = False) -> None:
        """Store a value with a deadline: None, ``keep``, a timeout or a point in time."""
        fused = self.cell(address).fused
        mortal = was_mortal if expire == "keep" else expire is not None
        gone = expire == 0 and type(expire) is int
        stored = None if gone else (value[0], value[1] & ~OVERLAID, value[2])
        self.changes[address] = Cell(stored, mortal and not gone, fused)

    def put_kept(self, address: Address, value: Sequence[Any], expire: Any, old: Value | None) -> None:
        """Store what an operation writes that keeps deadlines."""
        if isinstance(expire, tuple | list) and expire[0] == "set":
            self.put(address, value, expire[1])
        else:
            self.put(address, value, expire if old is None else "keep", self.cell(address).mortal)

    def drop(self, address: Address) -> None:
        self.changes[address] = Cell(fused=self.cell(address).fused)

    def with_prefix(self, database: int, prefix: bytes) -> list[Address]:
        return [address for address in self._keys if address[0] == database and address[1].startswith(prefix)]

    def live_keys(self, database: int, prefix: bytes) -> list[tuple[bytes, Value]]:
        found = [(address[1], self.live(address)) for address in self.with_prefix(database, prefix)]
        return [(key, value) for key, value in found if value is not None]

    def holds(self, database: int, condition: Sequence[Any]) -> bool:
        kind = condition[0]
        if kind == "range":
            return self._either()
        value = self.live((database, condition[1]))
        if kind == "absent" or value is None:
            return kind == "absent" and value is None
        if kind == "revision":
            return self._either()
        return kind == "present" or (condition[2] in (None, value[0]) and value[2] == condition[3])


# ---------------------------------------------------------------------------------------------------------- reads


def _get(run: _Run, database: int, key: bytes) -> Value | None:
    return run.live((database, key))


def _get_many(run: _Run, database: int, keys: Sequence[bytes]) -> Any:
    return tuple(run.live((database, key)) for key in keys)


def _exists(run: _Run, database: int, key: bytes) -> bool:
    return run.live((database, key)) is not None


def _length(run: _Run, database: int, key: bytes) -> int | None:
    value = run.live((database, key))
    return None if value is None else len(value[2])


def _ttl(run: _Run, database: int, key: bytes) -> Any:
    if run.live((database, key)) is None:
        return None
    cell = run.cell((database, key))
    if cell.fused and not cell.mortal:
        return Between(0, _INT64, -1)  # the name's deadline may be over, and this a record that came later
    return Between(0, _INT64) if cell.mortal else -1


def _rows(run: _Run, database: int, prefix: bytes, start: bytes, skip: Any, forward: bool) -> list[tuple[bytes, Value]]:
    rows = run.live_keys(database, prefix)
    if not forward:
        rows.reverse()
    if start:
        rows = [row for row in rows if (row[0] >= start if forward else row[0] <= start)]
    if skip == "after":
        return [row for row in rows if row[0] != start]
    return rows[1:] if skip else rows


def _list(
    run: _Run, database: int, prefix: bytes, start: bytes, skip: Any, forward: bool, limit: int, with_values: bool
) -> Any:
    rows = _rows(run, database, prefix, start, skip, forward)
    return tuple(row if with_values else row[0] for row in rows[:limit]), len(rows) > limit


def _count(run: _Run, database: int, prefix: bytes, start: bytes, skip: Any, forward: bool, limit: int) -> Any:
    number = len(_rows(run, database, prefix, start, skip, forward))
    return (min(number, limit) if limit else number), None


# --------------------------------------------------------------------------------------------------------- writes


def _set(run: _Run, database: int, key: bytes, value: Value, expire: Any, presence: str) -> bool:
    address = (database, key)
    if presence != "always" or expire == "keep":
        old = run.live(address)
        if presence != "always" and (presence == "absent") == (old is not None):
            return False
    run.put(address, value, expire, run.cell(address).mortal)
    return True


def _set_many(run: _Run, database: int, pairs: Sequence[Any], expire: Any) -> int:
    for key, value in pairs:
        _set(run, database, key, value, expire, "always")
    return len(pairs)


def _touch(run: _Run, database: int, key: bytes, expire: Any) -> bool:
    value = run.live((database, key))
    if value is not None:
        run.put((database, key), value, expire, run.cell((database, key)).mortal)
    return value is not None


def _remove(run: _Run, database: int, key: bytes) -> Value | None:
    value = run.live((database, key))
    run.drop((database, key))
    return value


def _delete(run: _Run, database: int, key: bytes) -> bool:
    return _remove(run, database, key) is not None


def _delete_many(run: _Run, database: int, keys: Sequence[bytes]) -> int:
    return sum(_delete(run, database, key) for key in keys)


def _number(
    run: _Run, address: Address, default: Any, flags: int, kinds: Sequence[int]
) -> tuple[Any, int, Value | None]:
    """What to count from, the flags of the sum, and the value that was there."""
    old = run.live(address)
    if old is None:
        if default is None:
            raise Refusal("missing-key")
        return default, flags, None
    tag, flags, payload = old
    if flags & _DECIMAL and tag in (TEXT, BYTES) and _DECIMAL_TEXT(payload) and payload != b"-":
        return int(payload or b"0"), flags, old
    if tag not in kinds:
        raise Refusal("not-a-number")
    return float(payload) if tag == FLOAT else int(payload), flags, old


def _incr(run: _Run, database: int, key: bytes, delta: int, default: int | None, expire: Any, flags: int) -> int:
    base, flags, old = _number(run, (database, key), default, flags, (INTEGER,))
    total = int(base + delta)
    if not -_INT64 <= total < _INT64:
        raise Refusal("number-overflow")
    run.put_kept((database, key), (INTEGER, flags, str(total).encode()), expire, old)
    return total


def _incr_float(
    run: _Run, database: int, key: bytes, delta: float, default: float | None, expire: Any, flags: int
) -> float:
    base, flags, old = _number(run, (database, key), default, flags, (INTEGER, FLOAT))
    total = float(base) + delta
    if total in (float("inf"), float("-inf")) or total != total:
        raise Refusal("number-overflow")
    run.put_kept((database, key), (FLOAT, flags, repr(total).encode()), expire, old)
    return total


def _append(run: _Run, database: int, key: bytes, value: Value, expire: Any) -> int:
    old = run.live((database, key))
    tag, flags, payload = value
    if old is not None:
        if old[0] != tag or tag not in (BYTES, TEXT, RAW):
            raise Refusal("wrong-type")
        if old[1] & 1:
            raise NotModelled("append to a compressed value")
        flags, payload = old[1], old[2] + payload
    run.put_kept((database, key), (tag, flags, payload), expire, old)
    return len(payload)


def _cas(run: _Run, database: int, condition: Sequence[Any], value: Value | None, expire: Any) -> Any:
    holds, address = run.holds(database, condition), (database, condition[1])
    old = run.cell(address).value  # whether it is still there was decided by the condition
    if holds and value is None:
        run.drop(address)
    elif holds and value is not None:
        run.put(address, value, expire, run.cell(address).mortal)
    return holds, old


def _rename(run: _Run, database: int, key: bytes, new_key: bytes) -> bool:
    value = run.live((database, key))
    if value is None:
        return False
    if key != new_key:
        mortal = run.cell((database, key)).mortal
        run.drop((database, key))
        run.put((database, new_key), value, "keep", mortal)
    return True


def _forget(run: _Run, addresses: Iterable[Address]) -> Between:
    """Delete records. How many of them were still there is between two numbers."""
    low = high = 0
    for address in addresses:
        cell = run.cell(address)
        if cell.value is not None:
            high += 1
            low += not run.is_mortal(cell)
            run.drop(address)
    return Between(low, high)


def _prune(run: _Run, database: int, prefix: bytes) -> Between:
    return _forget(run, run.with_prefix(database, prefix))


def _clear(run: _Run, database: int, everything: bool) -> Between:
    addresses = run.with_prefix(database, b"")
    doomed = [a for a in addresses if everything or ((run.cell(a).value or (0, 0))[1] & _EVICTABLE)]
    number = _forget(run, doomed)
    number.high = _INT64  # expired records that still lie there are counted, too
    for address in addresses:
        if run.cell(address).value is None:
            run.changes[address] = EMPTY
    return number


def _evict(run: _Run, addresses: Sequence[Address]) -> Between:
    return _forget(run, [a for a in addresses if (run.cell(a).value or (0, 0))[1] & _EVICTABLE])


def _set_expiry(run: _Run, database: int, key: bytes, expiry: Any) -> bool:
    value = run.live((database, key))
    cell = run.cell((database, key))
    gone = expiry == 0 and type(expiry) is int
    run.changes[database, key] = EMPTY if gone else Cell(value, cell.mortal, True)
    return True


def _remove_expiry(run: _Run, database: int, key: bytes) -> Any:
    run.live((database, key))
    cell = run.cell((database, key))
    run.changes[database, key] = cell._replace(fused=False)
    return Between(0, 1) if cell.fused else 0


def _clear_expiries(run: _Run, database: int) -> Between:
    fused = [address for address in run.with_prefix(database, b"") if run.cell(address).fused]
    for address in fused:
        _remove_expiry(run, *address)
    return Between(0, len(fused))


def _batch(run: _Run, calls: Sequence[Any]) -> Any:
    answers: list[tuple[str, Any]] = []
    for call in calls:
        try:
            answers.append(("ok", run.do(call)))
        except Refusal as refusal:
            answers.append((refusal.args[0], None))
    return tuple(answers)


def _atomic(run: _Run, conditions: Sequence[Any], calls: Sequence[Any]) -> Any:
    for place, (database, condition) in enumerate(conditions):
        if not run.holds(database, condition):
            return False, place
    before = dict(run.changes)
    try:
        return True, tuple(run.do(call) for call in calls)
    except Refusal:
        run.changes = before
        raise


def _once(run: _Run, session: bytes, sequence: int, lowest: int, again: bool, call: Sequence[Any], answer: Any) -> Any:
    return run.do(call)


OPERATIONS: Final[dict[str, Callable[..., Any]]] = {
    "get": _get, "get_many": _get_many, "exists": _exists, "length": _length, "ttl": _ttl, "list": _list,
    "count": _count, "set": _set, "set_many": _set_many, "touch": _touch, "delete": _delete,
    "delete_many": _delete_many, "incr": _incr, "incr_float": _incr_float, "append": _append, "cas": _cas,
    "remove": _remove, "rename": _rename, "prune": _prune, "clear": _clear, "evict": _evict,
    "set_expiry": _set_expiry, "remove_expiry": _remove_expiry, "clear_expiries": _clear_expiries,
    "batch": _batch, "atomic": _atomic, "once": _once,
}  # fmt: skip

READS: Final = frozenset({"get", "get_many", "exists", "length", "ttl", "list", "count"})
"""The modelled operations that only read."""

"""Where to look for the objects of a query: a few keys, a range of the keys, a range of an index, or everything.

What can be walked in order is a :class:`Source`: the records themselves, in the order of the key, or the entries of an index,
in the order of its fields and then of the key. Conditions narrow a source: values for its first fields, then a range of the
next one. The source that is narrowed most wins; of two alike the one that comes in the order that is asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from django_keyspace.backend.models.fields import Plan as FieldPlan
from django_keyspace.backend.models.fields import is_custom
from django_keyspace.backend.models.lookups import EVERYTHING, NOTHING, Condition, Group, QueryError
from django_keyspace.backend.models.ordering import ordered, ordered_beginning
from django_keyspace.exceptions import InvalidArgument
from django_keyspace.operations import BATCH_OPERATIONS_MAX, KEY_BYTES_MAX
from django_keyspace.store.queries import end_of_prefix

if TYPE_CHECKING:
    from django_keyspace.backend.models.layout import Index
    from django_keyspace.backend.models.options import Options

RANGES_MAX: Final = 1_000
"""A query reads at most so many ranges one after the other; with longer lists in ``in`` it reads one range and filters."""

Order = tuple[tuple[str, bool], ...]
"""Names of fields, each with whether it descends."""

_ABOVE_NONE: Final = end_of_prefix(ordered(None)) or b""
_BOUNDS: Final = frozenset({"gt", "gte", "lt", "lte", "range", "startswith"})


@dataclass(frozen=True, slots=True)
class Range:
    """Keys to walk.

    Attributes:
        prefix: all of them begin so.
        low: the least key; inclusive.
        high: the first key above; None for the end of the prefix.
    """

    prefix: bytes
    low: bytes
    high: bytes | None

    @property
    def is_whole(self) -> bool:
        """Whether it is all keys that begin with the prefix."""
        return self.low == self.prefix and self.high is None


def make_range(beginning: bytes, low: bytes, high: bytes | None) -> Range:
    """The range of keys that begin with ``beginning``, from ``low`` to below ``high``, with its longest prefix."""
    if high is None:
        return Range(beginning, low, None)
    if high == end_of_prefix(low):
        return Range(low, low, None)
    return Range(low[: _shared_bytes(low, high)], low, high)


def _shared_bytes(low: bytes, high: bytes) -> int:
    """How many bytes two keys have in common at their beginning."""
    number = 0
    for one, other in zip(low, high, strict=False):
        if one != other:
            break
        number += 1
    return number


@dataclass(frozen=True, slots=True)
class Source:
    """What can be walked in order.

    Attributes:
        index: None for the records themselves.
        prefix: how its keys begin.
        columns: the fields in whose order its keys are, in full.
    """

    index: Index | None
    prefix: bytes
    columns: tuple[FieldPlan, ...]

    def __str__(self) -> str:
        if self.index is None:
            return f"key {', '.join(plan.name for plan in self.columns)}"
        return f"{'unique index' if self.index.unique else 'index'} {', '.join(self.index.field_names)}"


@dataclass(frozen=True, slots=True)
class Plan:
    """How a query finds its objects.

    Attributes:
        source: what is walked or looked up.
        keys: keys in the source to look up, in order; None if ranges are walked.
        ranges: what is walked, in order. Neither keys nor ranges: there is nothing to find.
        forward: direction of the walk.
        used: the conditions that keys and ranges stand for.
        rest: the conditions that each object is held against.
        sort: what the objects are sorted by when all are found; empty if they come in order.
    """

    source: Source
    keys: tuple[bytes, ...] | None
    ranges: tuple[Range, ...]
    forward: bool
    used: tuple[Condition, ...]
    rest: Group
    sort: Order

    @property
    def is_scan(self) -> bool:
        """Whether objects are looked at that no condition has chosen, only to be dropped."""
        return self.keys is None and not self.used and bool(self.rest.children) and bool(self.ranges)

    def __str__(self) -> str:
        if self.keys is not None:
            number = len(self.keys)
            parts = [f"{number:,} {'key' if number == 1 else 'keys'} of the {self.source}" if number else "nothing"]
        elif not self.ranges:
            parts = ["nothing"]
        else:
            what = "scan of the" if self.is_scan else "range of the" if self.used else "all of the"
            if len(self.ranges) > 1:
                what = f"{len(self.ranges):,} ranges of the"
            parts = [f"{what} {self.source}" + ("" if self.forward else ", backwards")]
        if self.used:
            parts.append("by " + " and ".join(map(str, self.used)))
        if self.rest.children:
            parts.append(f"filter {self.rest}")
        if self.sort:
            parts.append("sort by " + ", ".join("-" * descends + name for name, descends in self.sort))
        return "; ".join(parts)


def make_plan(meta: Options, where: Group, order: Order, ready: Collection[str]) -> Plan:
    """The plan of a query.

    Arguments:
        meta: of the model.
        where: what the objects have to pass.
        order: what they are to be ordered by; empty for any order.
        ready: names of the indexes that hold every record.
    Raises:
        QueryError: a field of ``order`` has no order.
    """
    for name, _ in order:
        if not meta.plans[name].is_ordered:
            raise QueryError(f"{meta.label}.{name} has no order: its values are not comparable.")
    if NOTHING.children[0] in where.children:
        return Plan(next(iter(_sources(meta, ready))), (), (), True, (), EVERYTHING, ())
    by_field: dict[str, list[Condition]] = {}
    for child in where.required():
        if isinstance(child, Condition):
            by_field.setdefault(child.field, []).append(child)
    single = {name for name, found in by_field.items() if any(_is_single(condition) for condition in found)}
    needed = tuple(item for item in order if item[0] not in single)
    best: tuple[int, Plan] | None = None
    for source in _sources(meta, ready):
        candidate = _candidate(source, where, by_field, needed, single)
        if candidate is not None and (best is None or candidate[0] > best[0]):
            best = candidate
    if best is None:  # the records themselves always are one
        raise QueryError(f"There is no way to look for objects of {meta.label}.")
    return best[1]


def _sources(meta: Options, ready: Collection[str]) -> Iterable[Source]:
    key_plans = tuple(meta.plans[name] for name in meta.key_names)
    yield Source(None, meta.record_prefix, key_plans)
    for name, index in meta.indexes.items():
        if name in ready:
            # Fields that the key repeats say nothing new about the order, and are there all the same.
            yield Source(index, index.prefix, index.plans if index.unique else index.plans + key_plans)


def _is_single(condition: Condition) -> bool:
    return condition.lookup == "exact" or (condition.lookup == "isnull" and condition.value)


# ------------------------------------------------------------------------------------------------- narrowing


@dataclass(frozen=True, slots=True)
class _Narrowed:
    """A source with conditions: the beginnings of its keys, and the bounds of what follows them."""

    beginnings: list[bytes]
    columns: int
    low: bytes
    high: bytes | None
    used: list[Condition]
    kept: list[Condition]
    """Of ``used``, those that each object has to be held against nevertheless."""


def _narrow(source: Source, by_field: dict[str, list[Condition]], beginnings_max: int) -> _Narrowed:
    beginnings, used, kept = [b""], list[Condition](), list[Condition]()
    for number, plan in enumerate(source.columns):
        conditions = by_field.get(plan.name, [])
        condition = min(
            (condition for condition in conditions if _is_single(condition) or condition.lookup == "in"),
            key=lambda condition: condition.lookup == "in",
            default=None,
        )
        values = _values_of(plan, condition) if condition is not None else None
        if condition is None or values is None or len(values) * len(beginnings) > beginnings_max:
            low, high, bounds = _bounds_of(plan, conditions)
            return _Narrowed(beginnings, number, low, high, used + bounds, kept)
        beginnings = [beginning + value for beginning in beginnings for value in values]
        used.append(condition)
        if is_custom(plan.field):
            kept.append(condition)
    return _Narrowed(beginnings, len(source.columns), b"", None, used, kept)


def _values_of(plan: FieldPlan, condition: Condition) -> list[bytes] | None:
    """What the values that a condition allows are in keys, sorted; None if they have no order."""
    wanted = {"exact": (condition.value,), "isnull": (None,)}.get(condition.lookup, condition.value)
    try:
        return sorted({ordered(plan.order_value(value)) for value in wanted})
    except InvalidArgument:
        return None


def _bounds_of(plan: FieldPlan, conditions: list[Condition]) -> tuple[bytes, bytes | None, list[Condition]]:
    """``(low, high, conditions that these stand for)`` of one field's values, where there are any."""
    low, high, used = b"", None, list[Condition]()
    if is_custom(plan.field):  # its order in keys is that of what it stores, not of its values
        return low, high, used
    for condition in conditions:
        if condition.lookup in _BOUNDS:
            try:
                least, above = _bounds(condition)
            except InvalidArgument:
                continue
        elif condition.lookup == "isnull" and not condition.value:
            least, above = _ABOVE_NONE, None
        else:
            continue
        used.append(condition)
        low = max(low, least)
        high = above if high is None else high if above is None else min(high, above)
    return low, high, used


def _bounds(condition: Condition) -> tuple[bytes, bytes | None]:
    value = condition.value
    if condition.lookup == "gt":
        return end_of_prefix(ordered(value)) or b"", None
    if condition.lookup == "gte":
        return ordered(value), None
    if condition.lookup == "lt":
        return _ABOVE_NONE, ordered(value)
    if condition.lookup == "lte":
        return _ABOVE_NONE, end_of_prefix(ordered(value))
    if condition.lookup == "range":
        return ordered(value[0]), end_of_prefix(ordered(value[1]))
    beginning = ordered_beginning(value)
    return beginning, end_of_prefix(beginning)


# ------------------------------------------------------------------------------------------------- choosing

_DIRECT, _DIRECT_UNIQUE = 1_000, 900
# Bounds count more than the records in the right order: a range leads to some objects, a scan looks at all of them.
_PER_COLUMN, _FOR_BOUNDS, _FOR_ORDER, _FOR_RECORDS = 10, 6, 3, 2


def _candidate(
    source: Source, where: Group, by_field: dict[str, list[Condition]], needed: Order, single: set[str]
) -> tuple[int, Plan] | None:
    """``(how good it is, plan)`` of one source; None if some object might have no entry in it."""
    narrowed = _narrow(source, by_field, BATCH_OPERATIONS_MAX)
    is_unique = source.index is None or source.index.unique
    is_direct = is_unique and narrowed.columns == len(source.columns)
    if not is_direct and len(narrowed.beginnings) > RANGES_MAX:
        narrowed = _narrow(source, by_field, RANGES_MAX)
    if source.index is not None and source.index.unique and not _is_complete(source, narrowed):
        return None
    direction = _direction(source, needed, single)
    used = tuple(narrowed.used)
    dropped = {id(condition) for condition in used} - {id(condition) for condition in narrowed.kept}
    rest = Group(tuple(child for child in where.required() if id(child) not in dropped))
    plan = Plan(source, None, (), direction is not False, used, rest, needed if direction is None else ())
    beginnings = [source.prefix + beginning for beginning in narrowed.beginnings]
    if not plan.forward:
        beginnings.reverse()
    # No record's key and no entry is longer than a key may be, so nothing begins with what is longer.
    if is_direct:
        keys = tuple(beginning for beginning in beginnings if len(beginning) <= KEY_BYTES_MAX)
        return (_DIRECT if source.index is None else _DIRECT_UNIQUE), replace(plan, keys=keys)
    low, high = narrowed.low, narrowed.high
    walked = [make_range(start, start + low, None if high is None else start + high) for start in beginnings]
    if low and high is not None and low >= high:  # no value is above the one and below the other
        walked = []
    ranges = tuple(wanted for wanted in walked if len(wanted.prefix) <= KEY_BYTES_MAX)
    score = _PER_COLUMN * narrowed.columns - (len(narrowed.beginnings) > 1)
    score += _FOR_BOUNDS * (low != b"" or high is not None)
    score += _FOR_ORDER * (bool(needed) and direction is not None) + _FOR_RECORDS * (source.index is None)
    return score, replace(plan, ranges=ranges)


def _is_complete(source: Source, narrowed: _Narrowed) -> bool:
    """Whether a unique index has an entry for each object that passes: it has none for objects with None."""
    asked = {condition.field for condition in narrowed.used if not (condition.lookup == "isnull" and condition.value)}
    return all(not plan.field.null or plan.name in asked for plan in source.columns)


def _direction(source: Source, needed: Order, single: set[str]) -> bool | None:
    """Whether a source comes in the order when it is walked forwards (True) or backwards (False); None if in neither."""
    if not needed:
        return True
    columns: Sequence[str] = list(
        dict.fromkeys(plan.name for plan in source.columns if plan.name not in single)  # in this order, each once
    )
    names = list(dict.fromkeys(name for name, _ in needed))
    directions = dict(reversed(needed))
    shared = min(len(columns), len(names))
    # A source in whose order no two objects are equal leaves nothing to the names that come after.
    if names[:shared] != list(columns[:shared]) or len({directions[name] for name in names[:shared]}) > 1:
        return None
    return not directions[names[0]] if shared else True

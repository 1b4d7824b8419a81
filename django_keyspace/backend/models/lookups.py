"""Conditions on fields: ``filter(visits__gte=3)`` to a test that a value passes or fails.

A condition is a field's name, a lookup and a value that the field has converted. What a lookup means is in
:data:`LOOKUPS`, once. The planner turns some conditions into ranges of keys; what is left of them, each object that is found
is held against.

``None`` passes no lookup but ``isnull`` and ``exact=None``, as in SQL; ``exclude`` keeps whatever does not pass.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, Final
from uuid import UUID

from django.core.exceptions import FieldError, ValidationError
from django.db import models
from django.db.models import Q

from django_keyspace.backend.models.fields import kind_of, python_value
from django_keyspace.exceptions import InvalidArgument

if TYPE_CHECKING:
    from django_keyspace.backend.models.options import Options

    Field = models.Field[Any, Any]

SEPARATOR: Final = "__"
Values = Mapping[str, Any]
"""An object's values by the names of its fields; at least those that conditions ask for."""


class QueryError(InvalidArgument, FieldError):
    """A query asks for what a field does not have: an unknown lookup, an order of JSON values. (``FieldError``, as Django
    raises.)"""

    code: ClassVar[str] = "query"


# ------------------------------------------------------------------------------------------------- what lookups mean


@dataclass(frozen=True, slots=True)
class Lookup:
    """One row of the table.

    Attributes:
        test: ``test(value, wanted)`` for a value that is not None.
        kind: which fields have it: "any", "ordered" or "text".
        prepare: what becomes of the wanted value: "value", "values", "pair", "text", "pattern" or "flag".
    """

    test: Callable[[Any, Any], bool]
    kind: str
    prepare: str


def _folded(test: Callable[[str, str], bool]) -> Callable[[Any, Any], bool]:
    return lambda value, wanted: test(str(value).casefold(), wanted.casefold())


LOOKUPS: Final[dict[str, Lookup]] = {
    "exact": Lookup(lambda value, wanted: bool(value == wanted), "any", "value"),
    "in": Lookup(lambda value, wanted: value in wanted, "any", "values"),
    "isnull": Lookup(lambda value, wanted: not wanted, "any", "flag"),
    "gt": Lookup(lambda value, wanted: bool(value > wanted), "ordered", "value"),
    "gte": Lookup(lambda value, wanted: bool(value >= wanted), "ordered", "value"),
    "lt": Lookup(lambda value, wanted: bool(value < wanted), "ordered", "value"),
    "lte": Lookup(lambda value, wanted: bool(value <= wanted), "ordered", "value"),
    "range": Lookup(lambda value, wanted: bool(wanted[0] <= value <= wanted[1]), "ordered", "pair"),
    "contains": Lookup(lambda value, wanted: wanted in str(value), "text", "text"),
    "startswith": Lookup(lambda value, wanted: str(value).startswith(wanted), "text", "text"),
    "endswith": Lookup(lambda value, wanted: str(value).endswith(wanted), "text", "text"),
    "regex": Lookup(lambda value, wanted: re.search(wanted, str(value)) is not None, "text", "pattern"),
    "iexact": Lookup(_folded(str.__eq__), "text", "text"),
    "icontains": Lookup(_folded(str.__contains__), "text", "text"),
    "istartswith": Lookup(_folded(str.startswith), "text", "text"),
    "iendswith": Lookup(_folded(str.endswith), "text", "text"),
    "iregex": Lookup(lambda value, wanted: re.search(wanted, str(value), re.IGNORECASE) is not None, "text", "pattern"),
}
"""Every lookup by its name."""

_TEXT_FIELDS: Final = (
    models.CharField,
    models.TextField,
    models.FileField,
    models.FilePathField,
    models.GenericIPAddressField,
)


def lookups_of(field: Field) -> list[str]:
    """Names of the lookups that a field has."""
    kinds = {"any"}
    if kind_of(field).is_ordered:
        kinds.add("ordered")
    if isinstance(field, _TEXT_FIELDS):
        kinds.add("text")
    return [name for name, lookup in LOOKUPS.items() if lookup.kind in kinds]


# ------------------------------------------------------------------------------------------------- conversion


def convert(field: Field, value: Any) -> Any:
    """A value as an object has it in a field, by the field's own conversion.

    Arguments:
        field: of a model.
        value: what a user gave; text becomes a date in a ``DateField``, and so on.
    Raises:
        InvalidValue: the field does not take it.
    """
    if type(value) in _AS_IS.get(type(field), ()):
        return value
    if isinstance(field, models.IntegerField | models.DecimalField):
        # A bound may well be what no object has: a number below zero, or with more digits.
        try:
            return field.to_python(value)
        except (ValidationError, TypeError, ValueError, OverflowError) as error:
            raise field.model._meta.plans[field.name].refusal(  # type: ignore[attr-defined]
                value, " ".join(error.messages) if isinstance(error, ValidationError) else str(error)
            ) from error
    return python_value(field, value)


_AS_IS: Final[dict[type, tuple[type, ...]]] = {
    models.CharField: (str,),
    models.SlugField: (str,),
    models.EmailField: (str,),
    models.BigAutoField: (int,),
    models.UUIDField: (UUID,),
}
"""Values of just these types need no conversion in just these fields: the usual keys."""


_ROUNDING: Final[dict[str, Callable[[Any], int]]] = {
    "gt": math.floor,
    "lte": math.floor,
    "gte": math.ceil,
    "lt": math.ceil,
}
"""A fraction as a bound of whole numbers: ``n > 1.5`` is ``n > 1`` and ``n >= 1.5`` is ``n >= 2``."""


def _convert_bound(field: Field, lookup: str, value: Any) -> Any:
    if isinstance(field, models.IntegerField) and isinstance(value, float | Decimal):
        if math.isfinite(value) and value != math.floor(value):
            if lookup not in _ROUNDING:
                raise QueryError(
                    f"The field {field.name!r} holds whole numbers, and {lookup} with {value!r} can never match."
                )
            return _ROUNDING[lookup](value)
    return convert(field, value)


def _refuse_value(field: Field, lookup: str, value: Any, wanted: str) -> QueryError:
    return QueryError(f"{field.name}{SEPARATOR}{lookup} takes {wanted}, not {value!r:.80}.")


def _values(field: Field, lookup: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise _refuse_value(field, lookup, value, "a list of values")
    wanted = [_convert_bound(field, "exact", item) for item in value if item is not None]
    try:
        return tuple(dict.fromkeys(wanted))
    except TypeError:  # values of a JSONField
        return tuple(wanted)


def _pair(field: Field, lookup: str, value: Any) -> tuple[Any, Any]:
    if isinstance(value, str | bytes) or not isinstance(value, Collection) or len(value) != 2:
        raise _refuse_value(field, lookup, value, "a pair of values")
    low, high = value
    if low is None or high is None:
        raise _refuse_value(field, lookup, value, "a pair of values that are not None")
    return _convert_bound(field, "gte", low), _convert_bound(field, "lte", high)


def _pattern(field: Field, lookup: str, value: Any) -> str:
    pattern = _text(field, lookup, value)
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise QueryError(f"{field.name}{SEPARATOR}{lookup}: {pattern!r:.80} is not a pattern: {error}.") from error
    return pattern


def _text(field: Field, lookup: str, value: Any) -> str:
    if value is None:
        raise _refuse_value(field, lookup, value, "text")
    return str(value)


def _flag(field: Field, lookup: str, value: Any) -> bool:
    if type(value) is not bool:
        raise _refuse_value(field, lookup, value, "True or False")
    return value


def _value(field: Field, lookup: str, value: Any) -> Any:
    if value is None:
        raise _refuse_value(field, lookup, value, "a value; for missing ones use isnull")
    return _convert_bound(field, lookup, value)


_PREPARE: Final[dict[str, Callable[..., Any]]] = {
    "value": _value,
    "values": _values,
    "pair": _pair,
    "text": _text,
    "pattern": _pattern,
    "flag": _flag,
}


# ------------------------------------------------------------------------------------------------- conditions


@dataclass(frozen=True, slots=True)
class Condition:
    """What one keyword of ``filter`` says.

    Attributes:
        field: name of the field.
        lookup: a word of :data:`LOOKUPS`.
        value: converted by the field.
    """

    field: str
    lookup: str
    value: Any

    def passes(self, values: Values) -> bool:
        """Whether an object's values pass."""
        value = values[self.field]
        if value is None:
            return self.lookup == "isnull" and bool(self.value)
        return LOOKUPS[self.lookup].test(value, self.value)

    def fields(self) -> Iterator[str]:
        """Names of the fields that it looks at."""
        yield self.field

    def __str__(self) -> str:
        return f"{self.field}{SEPARATOR}{self.lookup}={self.value!r:.60}"


@dataclass(frozen=True, slots=True)
class Group:
    """Conditions that all hold, or any of them, or not.

    Attributes:
        children: conditions and groups.
        any_of: one that holds is enough.
        negated: the whole must not hold.
    """

    children: tuple[Condition | Group, ...] = ()
    any_of: bool = False
    negated: bool = False

    def passes(self, values: Values) -> bool:
        """Whether an object's values pass."""
        if self.any_of:
            return any(child.passes(values) for child in self.children) != self.negated
        return all(child.passes(values) for child in self.children) != self.negated

    def fields(self) -> Iterator[str]:
        """Names of the fields that the conditions look at; one may come more than once."""
        for child in self.children:
            yield from child.fields()

    def __str__(self) -> str:
        joined = (" or " if self.any_of else " and ").join(map(str, self.children))
        return f"not ({joined})" if self.negated else f"({joined})"

    def both(self, other: Group) -> Group:
        """What passes this and the other."""
        if self.any_of or self.negated:
            return Group((self, *other.required()))
        return Group(self.children + other.required())

    def required(self) -> tuple[Condition | Group, ...]:
        """Conditions that all must hold, one by one."""
        return (self,) if self.any_of or self.negated else self.children


EVERYTHING: Final = Group()
"""No condition at all."""
NOTHING: Final = Group((Group((EVERYTHING,), negated=True),))
"""What no object passes."""


def condition(meta: Options, keyword: str, value: Any) -> Condition:
    """What one keyword says.

    Arguments:
        meta: of the model.
        keyword: a field's name, or that and a lookup: ``visits__gte``.
        value: what to compare with.
    Raises:
        UnknownField: there is no such field; the message lists those there are.
        QueryError: the field has no such lookup, or the lookup takes no such value.
        InvalidValue: the field does not take the value.
    """
    name, separator, lookup = keyword.partition(SEPARATOR)
    field = meta.get_field(name)
    if not separator:
        lookup = "exact"
    if value is None and lookup == "exact":
        return Condition(field.name, "isnull", True)
    known = lookups_of(field)
    if lookup not in known:
        raise QueryError(
            f"{meta.label}.{field.name} ({type(field).__name__}) has no lookup {lookup!r:.80}. It has: {', '.join(known)}."
        )
    if hasattr(value, "resolve_expression") or hasattr(value, "evaluate"):
        raise QueryError(f"{keyword}: a query compares a field with a value, not with {value!r:.80}.")
    return Condition(field.name, lookup, _PREPARE[LOOKUPS[lookup].prepare](field, lookup, value))


def group(meta: Options, trees: Iterable[Any], keywords: Mapping[str, Any]) -> Group:
    """What the arguments of ``filter`` say together: :class:`~django.db.models.Q` objects and keywords.

    Raises:
        As :func:`condition`.
    """
    children: list[Condition | Group] = []
    for tree in trees:
        children.extend(_of_tree(meta, tree).required())
    children.extend(condition(meta, keyword, value) for keyword, value in keywords.items())
    return Group(tuple(children))


def _of_tree(meta: Options, tree: Any) -> Group:
    if not isinstance(tree, Q):
        raise QueryError(f"A query takes keywords and Q objects, not {tree!r:.80}.")
    if tree.connector not in (Q.AND, Q.OR):
        raise QueryError(f"Q objects are joined by & and |, not by {tree.connector}.")
    children = [
        condition(meta, *child) if isinstance(child, tuple) else _of_tree(meta, child) for child in tree.children
    ]
    # An empty Q says nothing, in whatever company it is.
    kept = tuple(child for child in children if isinstance(child, Condition) or child.children)
    return Group(kept, any_of=tree.connector == Q.OR and len(kept) > 1, negated=tree.negated and bool(kept))

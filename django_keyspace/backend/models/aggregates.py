"""Figures over all objects of a query: ``aggregate(Max("last_seen"), total=Sum("visits"))``.

An aggregate takes the values of one field, one after the other, and leaves out None, as SQL does.
"""

from __future__ import annotations

import copy
from decimal import Context, Decimal
from typing import TYPE_CHECKING, Any, ClassVar, Final

from django.db import models

from django_keyspace.backend.models.lookups import QueryError
from django_keyspace.backend.models.ordering import ordered

if TYPE_CHECKING:
    from django_keyspace.backend.models.options import Options

ANY: Final = "*"
"""The name that stands for the object itself: ``Count("*")``."""

_EXACT: Final = Context(prec=1_000)
"""Sums of decimals lose no digit: the default context would round to 28."""


class Aggregate:
    """One figure.

    Arguments:
        field: name of the field.
        distinct: take each value once.
        default: the result if there are no values; None otherwise.
    """

    function: ClassVar[str] = ""

    def __init__(self, field: str, *, distinct: bool = False, default: Any = None) -> None:
        self.field = field
        self.distinct = distinct
        self.default = default

    @property
    def default_alias(self) -> str:
        """The name of the figure if none is given: ``visits__sum``."""
        return f"{self.field}__{self.function}"

    def of(self, field: str) -> Aggregate:
        """The same figure of another field."""
        other = copy.copy(self)
        other.field = field
        return other

    def check(self, meta: Options, field: models.Field[Any, Any]) -> None:
        """Refuse a field that there is no such figure of.

        Raises:
            QueryError: its values have no order, or do not add up.
        """
        if not meta.plans[field.name].is_ordered and (self.distinct or not isinstance(self, Count)):
            raise QueryError(f"{self!r}: the values of {meta.label}.{field.name} have no order.")
        if isinstance(self, Sum | Avg) and not isinstance(field, _ADDED):
            raise QueryError(
                f"{self!r}: {meta.label}.{field.name} is a {type(field).__name__}, whose values do not add up."
            )

    def accumulator(self) -> Accumulator:
        """A new sum of nothing yet."""
        return Accumulator(self)

    def add(self, total: Any, value: Any) -> Any:
        """The figure with one more value."""
        raise NotImplementedError

    def finish(self, total: Any, count: int) -> Any:
        """The figure of ``count`` values, at least one."""
        return total

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.field!r})"


class Accumulator:
    """An aggregate at work.

    Arguments:
        aggregate: which.
    """

    __slots__ = ("_aggregate", "_count", "_seen", "_total")

    def __init__(self, aggregate: Aggregate) -> None:
        self._aggregate = aggregate
        self._count = 0
        self._total: Any = None
        self._seen: set[bytes] | None = set() if aggregate.distinct else None

    def add(self, value: Any) -> None:
        """Take one more value."""
        if value is None:
            return
        if self._seen is not None:
            identity = ordered(value)
            if identity in self._seen:
                return
            self._seen.add(identity)
        self._count += 1
        self._total = value if self._count == 1 else self._aggregate.add(self._total, value)

    def result(self) -> Any:
        """The figure."""
        if isinstance(self._aggregate, Count):
            return self._count
        if not self._count:
            return self._aggregate.default
        return self._aggregate.finish(self._total, self._count)


class Count(Aggregate):
    """How many objects have a value; ``Count("*")``: how many objects."""

    function = "count"

    def __init__(self, field: str = ANY, *, distinct: bool = False) -> None:
        super().__init__(field, distinct=distinct)

    @property
    def default_alias(self) -> str:
        """``visits__count``, or ``count`` for all objects."""
        return self.function if self.field == ANY else super().default_alias

    def add(self, total: Any, value: Any) -> Any:
        """Only the number counts."""
        return total


class Min(Aggregate):
    """The least value."""

    function = "min"

    def add(self, total: Any, value: Any) -> Any:
        """The lesser of both."""
        return value if value < total else total


class Max(Aggregate):
    """The greatest value."""

    function = "max"

    def add(self, total: Any, value: Any) -> Any:
        """The greater of both."""
        return value if value > total else total


def _plus(total: Any, value: Any) -> Any:
    return _EXACT.add(total, value) if type(value) is Decimal else total + value


class Sum(Aggregate):
    """The sum of numbers, decimals or timedeltas."""

    function = "sum"

    def add(self, total: Any, value: Any) -> Any:
        """Both together."""
        return _plus(total, value)


class Avg(Aggregate):
    """The mean: a float for whole numbers, a Decimal or timedelta for those."""

    function = "avg"

    def add(self, total: Any, value: Any) -> Any:
        """Both together."""
        return _plus(total, value)

    def finish(self, total: Any, count: int) -> Any:
        """The sum, divided."""
        return total / count


_ADDED: Final = (models.IntegerField, models.FloatField, models.DecimalField, models.DurationField)
"""Fields whose values can be summed."""

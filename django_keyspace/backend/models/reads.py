"""What a query set answers: single objects, figures, dicts of objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from django_keyspace.backend.models.aggregates import ANY, Aggregate
from django_keyspace.backend.models.cursor import Cursor
from django_keyspace.backend.models.lookups import Group, QueryError
from django_keyspace.backend.models.planner import Order
from django_keyspace.backend.twins import Steppable, Steps, twins
from django_keyspace.exceptions import KeyTooLong

if TYPE_CHECKING:
    from typing import Self

    from django_keyspace.backend.models.base import Model
    from django_keyspace.backend.models.storage import Storage

T = TypeVar("T")
_MORE_THAN_ONE = 2


class ReadMethods(Steppable, Generic[T]):
    """Mixed into the query set: the methods that ask once. Every one has an async twin with an ``a`` before its name."""

    if TYPE_CHECKING:
        model: type[Model]
        _storage: Storage
        _where: Group
        _low: int
        _high: int | None
        _answers: list[T] | None

        def filter(self, *trees: Any, **keywords: Any) -> Self: ...
        def order_by(self, *names: str) -> Self: ...
        def reverse(self) -> Self: ...
        def _cursor(self) -> Cursor: ...
        def _all(self) -> Steps[list[T]]: ...
        def _made(self, records: list[bytes]) -> list[T]: ...
        def _limited(self, low: int, high: int | None) -> Self: ...
        def _order(self) -> Order: ...
        def _refuse_slice(self, what: str) -> None: ...

    # ------------------------------------------------------------------------------------------- one object

    def _get(self, /, *trees: Any, **keywords: Any) -> Steps[T]:
        """The one object that passes.

        Arguments:
            *trees: Q objects.
            **keywords: as of :meth:`filter`.
        Raises:
            DoesNotExist: there is none. (The model's own class.)
            MultipleObjectsReturned: there are several. (The model's own class.)
        """
        query = self.filter(*trees, **keywords) if trees or keywords else self
        found = yield from query._limited(0, _MORE_THAN_ONE)._all()
        if len(found) == 1:
            return found[0]
        what = ", ".join(f"{name}={value!r:.60}" for name, value in keywords.items()) or str(query._where)
        label = self.model._meta.label
        if found:
            raise self.model.MultipleObjectsReturned(f"More than one {label} has {what}.")
        raise self.model.DoesNotExist(f"There is no {label} with {what}.")

    get, aget = twins(_get)

    def _first(self) -> Steps[T | None]:
        """The first object, or None. Without an order, the first by key."""
        query = self if self._order() else self.order_by(*self.model._meta.key_names)
        found = yield from query._limited(0, 1)._all()
        return found[0] if found else None

    first, afirst = twins(_first)

    def _last(self) -> Steps[T | None]:
        """The last object, or None. Without an order, the last by key."""
        self._refuse_slice("take the last of")
        query = self if self._order() else self.order_by(*self.model._meta.key_names)
        found = yield from query.reverse()._limited(0, 1)._all()
        return found[0] if found else None

    last, alast = twins(_last)

    def _earliest(self, *names: str) -> Steps[T]:
        """The object with the least values of some fields.

        Arguments:
            *names: of fields; with a minus, the greatest.
        Raises:
            DoesNotExist: there is no object.
        """
        return (yield from self._end_of("earliest", names, False))

    earliest, aearliest = twins(_earliest)

    def _latest(self, *names: str) -> Steps[T]:
        """The object with the greatest values of some fields. See :meth:`earliest`."""
        return (yield from self._end_of("latest", names, True))

    latest, alatest = twins(_latest)

    def _end_of(self, method: str, names: tuple[str, ...], is_last: bool) -> Steps[T]:
        if not names:
            raise QueryError(f"{method}() needs the name of a field: {method}('created').")
        self._refuse_slice(f"take the {method} of")
        query = self.order_by(*names)
        found = yield from (query.reverse() if is_last else query)._limited(0, 1)._all()
        if not found:
            raise self.model.DoesNotExist(f"There is no {self.model._meta.label} to be the {method}.")
        return found[0]

    # ------------------------------------------------------------------------------------------- figures

    def _count(self) -> Steps[int]:
        """How many objects there are."""
        if self._answers is not None:
            return len(self._answers)
        return (yield from self._cursor().count())

    count, acount = twins(_count)

    def _exists(self) -> Steps[bool]:
        """Whether there is any object."""
        if self._answers is not None:
            return bool(self._answers)
        cursor = self.order_by()._limited(0, 1)._cursor()
        while (page := (yield from cursor.next_page())) is not None:
            if page:
                return True
        return False

    exists, aexists = twins(_exists)

    def _aggregate(self, /, *aggregates: Aggregate, **named: Aggregate) -> Steps[dict[str, Any]]:
        """Figures over all objects: ``aggregate(Count(), oldest=Min("born"))``.

        Arguments:
            *aggregates: named by field and function: ``born__min``.
            **named: by the names that you give.
        Returns:
            The figures by name. Of no values, all but Count are None.
        """
        wanted = self._named(aggregates, named)
        names = tuple(dict.fromkeys(each.field for each in wanted.values() if each.field != ANY))
        get = self._storage.value_getter(names)
        accumulators = [(each.accumulator(), each.field) for each in wanted.values()]
        cursor = (self.order_by() if self._low == 0 and self._high is None else self)._cursor()
        while (page := (yield from cursor.next_page())) is not None:
            for record in page:
                values = dict(zip(names, get(record), strict=True))
                values[ANY] = True
                for accumulator, name in accumulators:
                    accumulator.add(values[name])
        return {name: made.result() for name, (made, _) in zip(wanted, accumulators, strict=True)}

    aggregate, aaggregate = twins(_aggregate)

    def _named(self, aggregates: tuple[Aggregate, ...], named: Mapping[str, Aggregate]) -> dict[str, Aggregate]:
        wanted: dict[str, Aggregate] = {}
        for name, each in [*((getattr(each, "default_alias", ""), each) for each in aggregates), *named.items()]:
            if not isinstance(each, Aggregate):
                raise QueryError(f"aggregate() takes kv.Count, Min, Max, Sum and Avg, not {each!r:.80}.")
            if name in wanted:
                raise QueryError(f"aggregate() has two figures of the name {name!r}.")
            if each.field != ANY:
                field = self.model._meta.get_field(each.field)
                each.check(self.model._meta, field)
                each = each.of(field.name)
            wanted[name] = each
        return wanted

    # ------------------------------------------------------------------------------------------- many at once

    def _in_bulk(self, ids: Iterable[Any] | None = None, *, field_name: str = "pk") -> Steps[dict[Any, T]]:
        """Objects by their keys, or by a unique field.

        Arguments:
            ids: keys (tuples, if the key has several fields), or values of ``field_name``; all objects if None.
            field_name: a field that has a unique index by itself.
        """
        self._refuse_slice("use in_bulk() on")
        meta = self.model._meta
        is_key = field_name == "pk" or (field_name,) == meta.key_names
        if not is_key:
            field_name = meta.get_field(field_name).name
            index = meta.indexes.get(field_name)
            if index is None or not index.unique:
                raise QueryError(
                    f"in_bulk() needs the key or a unique field, and {meta.label}.{field_name} is not unique."
                )
        if ids is None:
            found = yield from self._all()
        elif is_key:
            found = yield from self._with_keys(ids)
        else:
            found = yield from self.filter(**{f"{field_name}__in": list(ids)})._all()
        return {obj.pk if is_key else getattr(obj, field_name): obj for obj in found}  # type: ignore[attr-defined]

    in_bulk, ain_bulk = twins(_in_bulk)

    def _with_keys(self, ids: Iterable[Any]) -> Steps[list[T]]:
        keys = []
        for pk in ids:
            try:
                keys.append(self.model._meta.make_key(pk))
            except KeyTooLong:
                continue  # no object can have it
        records = yield from self._storage.read_many(list(dict.fromkeys(keys)))
        return self._made([record for record in records if record is not None and self._passes(record)])

    def _passes(self, record: bytes) -> bool:
        names = tuple(dict.fromkeys(self._where.fields()))
        return self._where.passes(dict(zip(names, self._storage.value_getter(names)(record), strict=True)))

    def _explain(self) -> Steps[str]:
        """How the objects are found: by keys, by a range of the key or of an index, or by a scan; what filters and sorts."""
        return str((yield from self._cursor().plan()))

    explain, aexplain = twins(_explain)

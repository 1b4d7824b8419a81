"""``Visitor.objects.filter(...)``: a lazy question, that can be made narrower until it is asked.

A query set asks when it is iterated over, measured with ``len()`` or ``bool()``, shown or pickled, and keeps the answers.
``filter`` and the like make another query set and ask nothing.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, cast

from django_keyspace.backend.models.cursor import Cursor
from django_keyspace.backend.models.lookups import EVERYTHING, NOTHING, Group, QueryError, group
from django_keyspace.backend.models.planner import Order
from django_keyspace.backend.models.query_writes import WriteMethods
from django_keyspace.backend.twins import Steps
from django_keyspace.exceptions import InvalidArgument

if TYPE_CHECKING:
    from django_keyspace.backend.models.base import Model
    from django_keyspace.backend.models.manager import Manager
    from django_keyspace.backend.models.storage import Storage

T = TypeVar("T")
REPR_ANSWERS_MAX: Final = 20

Shape = tuple[str, tuple[tuple[str, str], ...]]
"""What an answer is: "object", "only", "dict", "tuple", "named" or "flat"; and the names of answer and field."""


class QuerySet(WriteMethods[T]):
    """The objects of a model that pass some conditions, in some order.

    Arguments:
        model: the model.
        using: an alias of ``CACHES``; the model's own if None.

    Every method that asks has an async twin: ``aget``, ``acount``, ``aiterator``; and ``async for`` iterates.
    """

    def __init__(self, model: type[Model] | None = None, using: str | None = None) -> None:
        self.model = cast("type[Model]", model)
        self._using = using
        self._where: Group = EVERYTHING
        self._named_order: tuple[str, ...] | None = None
        self._is_reversed = False
        self._low, self._high = 0, None
        self._shape: Shape = ("object", ())
        self._answers: list[T] | None = None

    # ------------------------------------------------------------------------------------------- other query sets

    def _clone(self) -> Self:
        other = self.__class__.__new__(self.__class__)
        other.__dict__.update(self.__dict__)
        other._answers = None
        return other

    def all(self) -> Self:
        """The same objects, asked for anew."""
        return self._clone()

    def none(self) -> Self:
        """No objects."""
        return self._narrowed(NOTHING)

    def filter(self, *trees: Any, **keywords: Any) -> Self:
        """The objects that pass.

        Arguments:
            *trees: Django's Q objects.
            **keywords: ``field=value`` or ``field__lookup=value``; ``pk`` stands for the key field.
        Raises:
            UnknownField, QueryError, InvalidValue: the field, the lookup or the value is not right. (``FieldError``)
        """
        self._refuse_slice("filter")
        return self._narrowed(group(self.model._meta, trees, keywords))

    def exclude(self, *trees: Any, **keywords: Any) -> Self:
        """The objects that do not pass. See :meth:`filter`."""
        self._refuse_slice("filter")
        excluded = group(self.model._meta, trees, keywords)
        return self._narrowed(Group((Group(excluded.children, negated=True),))) if excluded.children else self._clone()

    def _narrowed(self, where: Group) -> Self:
        other = self._clone()
        other._where = self._where.both(where)
        return other

    def order_by(self, *names: str) -> Self:
        """The objects in the order of some fields; with a minus before the name, the other way round. Without any, in no order.

        Raises:
            UnknownField, QueryError: there is no such field, or its values have no order.
        """
        self._refuse_slice("order")
        checked = []
        for name in names:
            if not isinstance(name, str) or name == "?":
                raise QueryError(
                    f"order_by() takes names of fields, such as 'created' or '-created', not {name!r:.80}."
                )
            field = self.model._meta.get_field(name.removeprefix("-").removeprefix("+"))
            if not self.model._meta.plans[field.name].is_ordered:
                raise QueryError(f"{self.model._meta.label}.{field.name} has no order: its values are not comparable.")
            checked.append("-" * name.startswith("-") + field.name)
        other = self._clone()
        other._named_order, other._is_reversed = tuple(checked), False
        return other

    def reverse(self) -> Self:
        """The objects in the opposite order."""
        self._refuse_slice("reverse")
        other = self._clone()
        other._is_reversed = not self._is_reversed
        return other

    def using(self, alias: str | None) -> Self:
        """The objects on another alias of ``CACHES``."""
        other = self._clone()
        other._using = alias
        return other

    def only(self, *names: str) -> Self:
        """Objects with just these fields and the key; another field is read when it is asked for."""
        return self._shaped("only", names, [(name, name) for name in self._names(names)])

    def values(self, *names: str) -> QuerySet[dict[str, Any]]:
        """Dicts instead of objects, of all fields or of those named."""
        return cast("QuerySet[dict[str, Any]]", self._shaped("dict", names))

    def values_list(self, *names: str, flat: bool = False, named: bool = False) -> QuerySet[Any]:
        """Tuples instead of objects, of all fields or of those named.

        Arguments:
            flat: the values of the one field that is named, without tuples.
            named: named tuples.
        """
        if flat and (named or len(names) != 1):
            raise TypeError("values_list(flat=True) takes the name of one field, and is not named.")
        return self._shaped("flat" if flat else "named" if named else "tuple", names)

    def _shaped(self, kind: str, names: tuple[str, ...], pairs: list[tuple[str, str]] | None = None) -> Self:
        other = self._clone()
        given = names or self.model._meta.field_names
        other._shape = (kind, tuple(pairs or zip(given, self._names(given), strict=True)))
        return other

    def _names(self, names: tuple[str, ...]) -> list[str]:
        return [self.model._meta.get_field(name).name for name in names]

    def _objects(self) -> Self:
        other = self._clone()
        other._shape = ("object", ())
        return other

    @property
    def ordered(self) -> bool:
        """Whether the objects have an order."""
        return bool(self._order())

    @property
    def db(self) -> str:
        """The alias that is asked."""
        return self._using or self.model._meta.using

    def _order(self) -> Order:
        names = self.model._meta.ordering if self._named_order is None else self._named_order
        return tuple((self._bare(name), name.startswith("-") != self._is_reversed) for name in names)

    def _bare(self, name: str) -> str:
        return self.model._meta.get_field(name.removeprefix("-")).name

    def _refuse_slice(self, what: str) -> None:
        if self._low or self._high is not None:
            raise TypeError(f"Cannot {what} a query once a slice has been taken.")

    # ------------------------------------------------------------------------------------------- slices

    def __getitem__(self, item: Any) -> Any:
        """An object by its position, or a query set of a slice (a list if it has a step)."""
        if not isinstance(item, int | slice):
            raise TypeError(f"QuerySet indices must be integers or slices, not {type(item).__name__}.")
        ends = (item,) if isinstance(item, int) else (item.start or 0, item.stop or 0)
        if any(end < 0 for end in ends):
            raise ValueError("Negative indexing is not supported.")
        if self._answers is not None:
            return self._answers[item]
        if isinstance(item, int):
            found = list(self._limited(item, item + 1))
            if not found:
                raise IndexError(f"There is no object at position {item}.")
            return found[0]
        sliced = self._limited(item.start or 0, item.stop)
        return list(sliced)[:: item.step] if item.step else sliced

    def _limited(self, low: int, high: int | None) -> Self:
        other = self._clone()
        other._low = self._low + low
        ends = [end for end in (self._high, None if high is None else self._low + high) if end is not None]
        other._high = min(ends, default=None)
        return other

    # ------------------------------------------------------------------------------------------- asking

    @property
    def _storage(self) -> Storage:  # type: ignore[override]
        return self.model._storage(self._using)

    def _cursor(self) -> Cursor:
        return Cursor(self._storage, self._where, self._order(), self._low, self._high)

    def _all(self) -> Steps[list[T]]:
        cursor, records = self._cursor(), list[bytes]()
        while (page := (yield from cursor.next_page())) is not None:
            records += page
        return self._made(records)

    def _made(self, records: list[bytes]) -> list[T]:
        return list(map(self._maker(), records))

    def _maker(self) -> Callable[[bytes], T]:
        """A function from a record to an answer."""
        kind, pairs = self._shape
        storage = self._storage
        if kind == "object":
            return cast("Callable[[bytes], T]", storage.instance)
        names = [name for _, name in pairs]
        if kind == "only":
            only = frozenset(names)
            return lambda record: cast(T, storage.instance(record, only))
        get = storage.value_getter(names)
        labels = [label for label, _ in pairs]
        if kind == "dict":
            return lambda record: cast(T, dict(zip(labels, get(record), strict=True)))
        if kind == "flat":
            return lambda record: cast(T, get(record)[0])
        if kind == "named":
            row: Any = namedtuple("Row", labels)  # type: ignore[misc]
            return lambda record: cast(T, row._make(get(record)))
        return cast("Callable[[bytes], T]", get)

    def _fetch(self) -> list[T]:
        if self._answers is None:
            self._answers = self._run(self._all())
        return self._answers

    async def _afetch(self) -> list[T]:
        if self._answers is None:
            self._answers = await self._arun(self._all())
        return self._answers

    def iterator(self, chunk_size: int | None = None) -> Iterator[T]:
        """The objects page by page; they are not kept.

        Arguments:
            chunk_size: for Django's signature; pages have the size that suits the store.
        """
        _check_chunk_size(chunk_size)
        make, cursor = self._maker(), self._cursor()
        while (page := self._run(cursor.next_page())) is not None:
            yield from map(make, page)

    async def aiterator(self, chunk_size: int | None = None) -> AsyncIterator[T]:
        """The objects page by page, for ``async for``; they are not kept."""
        _check_chunk_size(chunk_size)
        make, cursor = self._maker(), self._cursor()
        while (page := await self._arun(cursor.next_page())) is not None:
            for record in page:
                yield make(record)

    def __iter__(self) -> Iterator[T]:
        return iter(self._fetch())

    async def __aiter__(self) -> AsyncIterator[T]:
        for answer in await self._afetch():
            yield answer

    def __len__(self) -> int:
        return len(self._fetch())

    def __bool__(self) -> bool:
        return bool(self._fetch())

    def __repr__(self) -> str:
        shown: list[Any] = list(self[: REPR_ANSWERS_MAX + 1])
        if len(shown) > REPR_ANSWERS_MAX:
            shown[-1] = "...(remaining elements truncated)..."
        return f"<{type(self).__name__} {shown!r}>"

    def __getstate__(self) -> dict[str, Any]:
        """A pickled query set has its answers in it."""
        self._fetch()
        return self.__dict__.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy asks anew."""
        return self._clone()

    @classmethod
    def as_manager(cls) -> Manager:
        """A manager with the methods of this class: ``objects = VisitorQuerySet.as_manager()``."""
        from django_keyspace.backend.models.manager import Manager

        manager: Manager = Manager.from_queryset(cls)()
        return manager


def _check_chunk_size(chunk_size: int | None) -> None:
    if chunk_size is not None and chunk_size <= 0:
        raise InvalidArgument("chunk_size must be more than 0.")

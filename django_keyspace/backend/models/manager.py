"""The manager of a model: ``Visitor.objects``, from which queries start."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from django_keyspace.backend.models.query import QuerySet
from django_keyspace.backend.models.storage import storage_of
from django_keyspace.exceptions import InvalidArgument

if TYPE_CHECKING:
    from django_keyspace.backend.models.base import Model
    from django_keyspace.backend.models.storage import Storage

_HIDDEN: Final = frozenset({"as_manager", "delete", "adelete"})
"""Public methods of query sets that managers do not have: ``Visitor.objects.delete()`` is written too easily."""


_PLAIN: Final[Any] = QuerySet


class BaseManager:
    """What managers are without the methods of a query set.

    Attributes:
        model: the model that it belongs to.
        name: the attribute that it is.
    """

    _queryset_class: ClassVar[type[Any]] = QuerySet
    model: type[Model]
    name = ""
    _is_plain = False

    def contribute_to_class(self, model: type[Model], name: str) -> None:
        """Become a model's manager."""
        self.model, self.name = model, name
        own = type(self)
        # Whoever changes how objects are found is asked each time; otherwise a get by key takes the short way.
        self._is_plain = (
            own.get_queryset is BaseManager.get_queryset
            and self._queryset_class.get is _PLAIN.get
            and self._queryset_class.filter is _PLAIN.filter
        )
        setattr(model, name, self)

    def __get__(self, instance: Any, owner: type[Model]) -> Self:
        if instance is not None:
            raise AttributeError(f"{owner.__name__}.{self.name} belongs to the class, not to its objects.")
        if owner._meta.abstract:
            raise AttributeError(f"{owner.__name__} is abstract and has no objects: {self.name} is for its subclasses.")
        return self

    @classmethod
    def from_queryset(cls, queryset_class: type[QuerySet[Any]], class_name: str | None = None) -> type[Self]:
        """A class of managers that have the methods of a query set.

        Arguments:
            queryset_class: public methods are taken, private ones only with ``queryset_only = False``; one with
                ``queryset_only = True`` is left out.
            class_name: of the new class.
        """
        name = class_name or f"{cls.__name__}From{queryset_class.__name__}"
        methods = _methods_for(cls, queryset_class)
        return type(name, (cls,), {"_queryset_class": queryset_class, **methods})

    def get_queryset(self) -> QuerySet[Any]:
        """A new query set: where every query of this manager starts. Override it to leave objects out."""
        made: QuerySet[Any] = self._queryset_class(self.model)
        return made

    @property
    def db(self) -> str:
        """The alias that is asked."""
        return self.get_queryset().db

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BaseManager) and type(self) is type(other) and self.__dict__ == other.__dict__

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {getattr(self, 'model', None)!r}>"


def _methods_for(cls: type, queryset_class: type) -> dict[str, Callable[..., Any]]:
    """The methods of a query set for a class of managers, but for those that it has."""

    def forwarded(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def forward(self: BaseManager, *args: Any, **kwargs: Any) -> Any:
            return getattr(self.get_queryset(), name)(*args, **kwargs)

        return forward

    methods = {}
    for name, method in inspect.getmembers(queryset_class, inspect.isfunction):
        hidden = getattr(method, "queryset_only", None)
        if hidden is None:
            hidden = name.startswith("_") or name in _HIDDEN
        if hidden or name in ("get_queryset", "db"):
            continue
        # What a class of managers got from another query set is replaced; what is written in it stays.
        inherited = getattr(cls, name, None)
        if inherited is None or hasattr(inherited, "__wrapped__"):
            methods[name] = forwarded(name, method)
    return methods


_FromQuerySet: Any = BaseManager.from_queryset(QuerySet)


class Manager(_FromQuerySet):  # type: ignore[misc]
    """A manager with all methods of :class:`~django_keyspace.backend.models.query.QuerySet` but ``delete``.

    ``objects = Manager()`` is there by itself. Subclasses may override :meth:`get_queryset` and add methods.
    """

    def get(self, *trees: Any, **keywords: Any) -> Any:
        """The one object that passes. See ``QuerySet.get``; a get by key alone takes the shortest way."""
        found = self._by_key(trees, keywords)
        if found is not None:
            storage, key_bytes = found
            record = storage._do("get", storage.database, storage.record_key(key_bytes))
            if record is not None:
                return storage.instance(record)
        return self.get_queryset().get(*trees, **keywords)

    async def aget(self, *trees: Any, **keywords: Any) -> Any:
        """The one object that passes, see :meth:`get`."""
        found = self._by_key(trees, keywords)
        if found is not None:
            storage, key_bytes = found
            record = await storage._ado("get", storage.database, storage.record_key(key_bytes))
            if record is not None:
                return storage.instance(record)
        return await self.get_queryset().aget(*trees, **keywords)

    def _by_key(self, trees: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Storage, bytes] | None:
        """``(storage, key)`` of an ordinary get by key; None for anything else, which the query set looks at."""
        if not self._is_plain or trees or len(keywords) != 1:
            return None
        meta = self.model._meta
        ((name, value),) = keywords.items()
        if len(meta.key_names) != 1 or (name != "pk" and name != meta.key_names[0]):
            return None
        try:
            return storage_of(self.model), meta.make_key(value)
        except InvalidArgument:
            return None

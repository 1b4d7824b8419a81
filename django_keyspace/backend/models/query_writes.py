"""What a query set changes: new objects, and updates and deletes of all that it finds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from django_keyspace.backend.models.errors import Conflict, DuplicateValue
from django_keyspace.backend.models.expressions import Expression
from django_keyspace.backend.models.lookups import SEPARATOR, QueryError
from django_keyspace.backend.models.reads import ReadMethods
from django_keyspace.backend.models.signals import post_delete, pre_delete
from django_keyspace.backend.models.writes import UNSET
from django_keyspace.backend.twins import Steps, twins
from django_keyspace.operations import Call

if TYPE_CHECKING:
    from typing import Self

    from django_keyspace.backend.models.base import Model

T = TypeVar("T")
CALL: Final = "call"
"""``(CALL, object, method, arguments)`` instead of an operation calls an object's method, or its async twin."""


class WriteMethods(ReadMethods[T]):
    """Mixed into the query set: the methods that change something. Every one has an async twin."""

    if TYPE_CHECKING:

        def _objects(self) -> Self: ...

    def _execute(self, call: Call) -> Any:
        if call[0] == CALL:
            return getattr(call[1], call[2])(**call[3])
        return self._storage._execute(call)

    async def _aexecute(self, call: Call) -> Any:
        if call[0] == CALL:
            return await getattr(call[1], f"a{call[2]}")(**call[3])
        return await self._storage._aexecute(call)

    # ------------------------------------------------------------------------------------------- new objects

    def _create(self, /, **values: Any) -> Steps[Model]:
        """Make an object and store it.

        Raises:
            DuplicateValue: another object has the key, or a unique value. (``IntegrityError``)
        """
        made = self.model(**values)
        yield CALL, made, "save", {"force_insert": True, "using": self._storage.alias}
        return made

    create, acreate = twins(_create)

    def _get_or_create(
        self, /, defaults: Mapping[str, Any] | None = None, **keywords: Any
    ) -> Steps[tuple[Model, bool]]:
        """The object that passes, or a new one. Of several callers at once one creates, if the key or a unique index decides.

        Arguments:
            defaults: values of a new object beside those of the keywords; functions are called.
            **keywords: as of :meth:`filter`.
        Returns:
            ``(object, whether it is new)``.
        """
        while True:
            try:
                found: Any = yield from self._objects()._get(**keywords)
                return found, False
            except self.model.DoesNotExist:
                pass
            try:
                return (yield from self._create(**self._values_of(keywords, defaults))), True
            except DuplicateValue as error:
                if (yield from self._is_taken_by_other(keywords)):
                    raise error

    get_or_create, aget_or_create = twins(_get_or_create)

    def _update_or_create(
        self,
        /,
        defaults: Mapping[str, Any] | None = None,
        create_defaults: Mapping[str, Any] | None = None,
        **keywords: Any,
    ) -> Steps[tuple[Model, bool]]:
        """The object that passes, with the values of ``defaults`` stored, or a new one.

        Arguments:
            defaults: values to set; functions are called.
            create_defaults: values of a new object instead of ``defaults``.
            **keywords: as of :meth:`filter`.
        Returns:
            ``(object, whether it is new)``.
        """
        of_new = defaults if create_defaults is None else create_defaults
        while True:
            obj, is_new = yield from self._get_or_create(of_new, **keywords)
            if is_new:
                return obj, True
            for name, value in (defaults or {}).items():
                setattr(obj, name, value() if callable(value) else value)
            try:
                yield CALL, obj, "save", {"using": self._storage.alias}
            except Conflict:
                continue  # somebody else changed it meanwhile: on top of that, then
            return obj, False

    update_or_create, aupdate_or_create = twins(_update_or_create)

    def _values_of(self, keywords: Mapping[str, Any], defaults: Mapping[str, Any] | None) -> dict[str, Any]:
        """The values of a new object."""
        meta, values = self.model._meta, dict[str, Any]()
        for keyword, value in keywords.items():
            name, _, lookup = keyword.partition(SEPARATOR)
            if lookup in ("", "exact"):
                values[meta.get_field(name).name] = value
        for name, value in (defaults or {}).items():
            values["pk" if name == "pk" else meta.get_field(name).name] = value() if callable(value) else value
        return values

    def _is_taken_by_other(self, keywords: Mapping[str, Any]) -> Steps[bool]:
        """Whether, after a duplicate, there still is no object that passes: then it is another one that is in the way."""
        return not (yield from self._objects().filter(**keywords)._exists())

    def _bulk_create(
        self,
        objs: Sequence[Model],
        batch_size: int | None = None,
        ignore_conflicts: bool = False,
        *,
        timeout: Any = UNSET,
    ) -> Steps[list[Model]]:
        """Store many new objects, in blocks that are each stored as a whole. No signals, and ``save`` is not called.

        Arguments:
            objs: new objects of the model.
            batch_size: objects in a block.
            ignore_conflicts: leave out objects whose key or unique values are taken.
            timeout: of the new objects, in seconds.
        Raises:
            DuplicateValue: a key or unique value is taken; the blocks before it are stored.
        """
        objs = list(objs)
        self._refuse_strangers(objs)
        return (
            yield from self._storage.bulk_insert(
                objs, batch_size=batch_size, ignore_conflicts=ignore_conflicts, timeout=timeout
            )
        )

    bulk_create, abulk_create = twins(_bulk_create)

    def _bulk_update(self, objs: Sequence[Model], fields: Collection[str], batch_size: int | None = None) -> Steps[int]:
        """Store some fields of many objects, over whatever is stored there now.

        Arguments:
            objs: objects that are stored.
            fields: names of the fields.
            batch_size: objects in a block.
        Returns:
            How many objects were there.
        """
        objs = list(objs)
        self._refuse_strangers(objs)
        names = [self._changeable(name) for name in fields]
        if not names:
            raise QueryError("bulk_update() needs the names of the fields to store.")
        return (yield from self._storage.bulk_update(objs, names, batch_size=batch_size))

    bulk_update, abulk_update = twins(_bulk_update)

    def _refuse_strangers(self, objs: Sequence[Any]) -> None:
        for obj in objs:
            if type(obj) is not self.model:
                raise QueryError(f"{obj!r:.80} is no object of {self.model._meta.label}. Nothing was changed.")

    # ------------------------------------------------------------------------------------------- all that it finds

    def _update(self, /, **changes: Any) -> Steps[int]:
        """Change fields of all objects, each by itself and atomically; an object that does not pass any more is left alone.

        Arguments:
            **changes: values, or expressions such as ``F("visits") + 1``.
        Returns:
            How many were changed.
        """
        self._refuse_slice("update")
        checked = {self._changeable(name): value for name, value in changes.items()}
        for name, value in checked.items():
            if isinstance(value, Expression):
                for read in value.names():
                    self.model._meta.get_field(read)
            else:
                checked[name] = self.model._meta.plans[name].clean(value)
        number = 0
        for key_bytes in (yield from self._keys()) if checked else ():
            number += (yield from self._storage.change(key_bytes, checked, self._still())) is not None
        return number

    update, aupdate = twins(_update)

    def _delete(self) -> Steps[tuple[int, dict[str, int]]]:
        """Delete all objects, those that do not pass any more excepted. With signals, if somebody listens to them.

        Returns:
            ``(number, {label: number})``, as Django.
        """
        self._refuse_slice("delete")
        number = 0
        if pre_delete.has_listeners(self.model) or post_delete.has_listeners(self.model):
            for obj in (yield from self._objects()._all()):
                deleted, _ = yield CALL, obj, "delete", {"using": self._storage.alias}
                number += deleted
        else:
            keys = yield from self._keys()
            number = yield from self._storage.delete_many(keys, self._still())
        return number, {self.model._meta.label: number} if number else {}

    delete, adelete = twins(_delete)

    def _changeable(self, name: str) -> str:
        meta = self.model._meta
        found = meta.get_field(name).name
        if found in meta.key_names:
            raise QueryError(
                f"{meta.label}.{found} is part of the key, which says where the object is, and cannot be changed. Nothing was "
                "changed. Create another object and delete this one."
            )
        return found

    def _keys(self) -> Steps[list[bytes]]:
        """The keys of all objects, before any of them is changed: a change could move an object to where it is found again."""
        cursor = self.order_by()._cursor()
        keys: dict[bytes, None] = {}
        while (page := (yield from cursor.next_page())) is not None:
            keys.update(dict.fromkeys(map(self._storage.key_of_record, page)))
        return list(keys)

    def _still(self) -> Any:
        """A test whether an object as it is now passes."""
        if not self._where.children:
            return None
        names = tuple(dict.fromkeys(self._where.fields()))
        return lambda obj: self._where.passes({name: getattr(obj, name) for name in names})

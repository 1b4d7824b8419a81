"""``class Visitor(kv.Model)``: the class, its objects, and what one may do with one of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, ClassVar, Concatenate, ParamSpec, Self, TypeVar

from django.core.exceptions import NON_FIELD_ERRORS, MultipleObjectsReturned, ObjectDoesNotExist, ValidationError
from django.db import models
from django.utils.encoding import force_str
from django.utils.hashable import make_hashable
from django.utils.text import capfirst

from django_keyspace.backend.models.access import Data, ModelState
from django_keyspace.backend.models.definition import ModelBase
from django_keyspace.backend.models.errors import unknown_field
from django_keyspace.backend.models.expressions import F
from django_keyspace.backend.models.options import Options
from django_keyspace.backend.models.storage import Storage, storage_of
from django_keyspace.backend.models.writes import UNSET
from django_keyspace.backend.twins import Steps
from django_keyspace.exceptions import InvalidArgument

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M", bound="Model")


def _twins(
    steps: Callable[Concatenate[M, P], Steps[R]],
) -> tuple[Callable[Concatenate[M, P], R], Callable[Concatenate[M, P], Coroutine[Any, Any, R]]]:
    """The sync and the async method of some steps, which the storage of the object carries out (or that of ``using``)."""

    @functools.wraps(steps)
    def method(self: M, /, *args: P.args, **kwargs: P.kwargs) -> R:
        storage = self._own_storage(kwargs.get("using"))  # type: ignore[arg-type]
        return storage._run(steps(self, *args, **kwargs))

    @functools.wraps(steps)
    async def amethod(self: M, /, *args: P.args, **kwargs: P.kwargs) -> R:
        storage = self._own_storage(kwargs.get("using"))  # type: ignore[arg-type]
        return await storage._arun(steps(self, *args, **kwargs))

    name = steps.__name__.removeprefix("_")
    for twin, twin_name in ((method, name), (amethod, f"a{name}")):
        twin.__name__ = twin_name
        twin.__qualname__ = f"Model.{twin_name}"
    return method, amethod


class Model(metaclass=ModelBase):
    """Base of key-value models: an object is one record of an alias.

    Fields are Django's own (``django.db.models.CharField`` and so on). ``class Meta`` says what the key is, which indexes there
    are and where the objects live; its options are in ``docs/models.md``.

    Arguments:
        **values: by field name. Fields that are not given get their defaults.
    Raises:
        TypeError: there is no such field, or the class is abstract.

    Two objects are equal if they are of one model and have the same key. Methods have async twins with an ``a`` before the
    name: ``await visitor.asave()``.
    """

    _meta: ClassVar[Options]
    objects: ClassVar[Any]
    _default_manager: ClassVar[Any]
    DoesNotExist: ClassVar[type[ObjectDoesNotExist]]
    MultipleObjectsReturned: ClassVar[type[MultipleObjectsReturned]]
    _state: ModelState

    def __init__(self, **values: Any) -> None:
        meta = getattr(type(self), "_meta", None)
        if meta is None or meta.abstract:
            raise TypeError(f"{type(self).__name__} is abstract: only classes that inherit from it have objects.")
        self._state = ModelState()
        for field in meta.fields:
            if field.name in values:
                setattr(self, field.attname, values.pop(field.name))
            else:
                setattr(self, field.attname, field.get_default())
        for name, value in values.items():
            if not isinstance(getattr(type(self), name, None), property):
                raise TypeError(str(unknown_field(meta.label, name, meta.field_names)))
            setattr(self, name, value)

    # ------------------------------------------------------------------------------------------- where it is

    @classmethod
    def _storage(cls, using: str | None = None) -> Storage:
        if "_meta" not in vars(cls) or cls._meta.abstract:
            raise InvalidArgument(f"{cls.__name__} is abstract and has no objects.")
        return storage_of(cls, using)

    def _own_storage(self, using: str | None = None) -> Storage:
        return storage_of(type(self), using or self._state.db)

    @property
    def pk(self) -> Any:
        """The key: its value, or a tuple if it has several fields."""
        values = tuple([getattr(self, field.attname) for field in self._meta.key_fields])
        return values[0] if len(values) == 1 else values

    @pk.setter
    def pk(self, value: Any) -> None:
        fields = self._meta.key_fields
        values = (value,) if len(fields) == 1 else tuple(value)
        for field, each in zip(fields, values, strict=True):
            setattr(self, field.attname, each)

    @property
    def revision(self) -> int:
        """The revision of the record that the object was read from or written to; 0 before the first save."""
        return self._state.revision

    def _is_pk_set(self) -> bool:
        """Whether every field of the key has a value. Django's fields ask."""
        return all(getattr(self, field.attname) is not None for field in self._meta.key_fields)

    def key_bytes(self) -> bytes:
        """The key's values in their ordered form."""
        return self._meta.make_key(self.pk)

    # ------------------------------------------------------------------------------------------- store and read

    def _save(
        self,
        *,
        force: bool = False,
        force_insert: bool = False,
        update_fields: Collection[str] | None = None,
        timeout: Any = UNSET,
        using: str | None = None,
    ) -> Steps[None]:
        """Store the object, with its index entries, in one atomic step.

        Values are converted as the fields do; validators, choices and lengths are looked at by :meth:`full_clean` only, as
        with Django's models. A new object must have a key that nobody has.

        Arguments:
            force: store over whatever is there, changed or not.
            force_insert: it must not be there yet.
            update_fields: write only these fields over what is stored, whatever the others are.
            timeout: seconds, a timedelta or None for never. Without it, a new object gets ``Meta.timeout`` and another
                keeps its deadline.
            using: an alias; that of the object or the model if None.
        Raises:
            Conflict: it was changed, deleted or has expired since it was read. The error has both versions.
            DuplicateValue: another object has the key or the values of a unique index.
            InvalidValue, KeyTooLong: a field does not take its value; the message names it.
        """
        if update_fields is not None and isinstance(update_fields, str):
            raise InvalidArgument(f"update_fields takes several names, not {update_fields!r}. Nothing was changed.")
        storage = self._own_storage(using)
        yield from storage.save(self, force=force, insert=force_insert, update_fields=update_fields, timeout=timeout)

    save, asave = _twins(_save)

    def _delete(self, *, using: str | None = None) -> Steps[tuple[int, dict[str, int]]]:
        """Delete the object, whatever version is stored.

        Returns:
            ``(number deleted, {label: number})``, as Django's models answer.
        """
        if self._state.adding:
            raise InvalidArgument(f"{self!r} is not stored, so it cannot be deleted. Nothing was changed.")
        storage = self._own_storage(using)
        deleted = int((yield from storage.delete_object(self)))
        return deleted, {self._meta.label: deleted} if deleted else {}

    delete, adelete = _twins(_delete)

    def _refresh(self, fields: Collection[str] | None = None, *, using: str | None = None) -> Steps[Self]:
        """Read the object again.

        Arguments:
            fields: names of the fields to read; with them, the object stays as old as it was for conflicts.
        Returns:
            The object itself.
        Raises:
            DoesNotExist: it was deleted, or has expired.
        """
        storage = self._own_storage(using)
        key_bytes = storage.key_of_record(self._state.record) if self._state.record else self.key_bytes()
        fresh = yield from storage.load(key_bytes)
        if fresh is None:
            raise self.DoesNotExist(f"{self!r} was deleted, or has expired.")
        names = self._meta.field_names if fields is None else tuple(fields)
        for name in names:
            if name not in self._meta.plans:
                raise unknown_field(self._meta.label, name, self._meta.field_names)
            attname = self._meta.plans[name].attname
            self.__dict__[attname] = fresh.__dict__[attname]
        if fields is None:
            self._state = fresh._state
        return self

    refresh, arefresh = _twins(_refresh)

    def refresh_from_db(self, using: str | None = None, fields: Collection[str] | None = None) -> None:
        """Read the object again: :meth:`refresh` by Django's name."""
        self.refresh(fields, using=using)

    async def arefresh_from_db(self, using: str | None = None, fields: Collection[str] | None = None) -> None:
        """Read the object again: :meth:`refresh` by Django's name."""
        await self.arefresh(fields, using=using)

    def _incr(self, field: str, delta: Any = 1) -> Steps[Any]:
        """Add to a number field in the store, whatever version of the object is in memory; no addition is lost.

        Arguments:
            field: name of a number field.
            delta: what to add; negative to subtract.
        Returns:
            The new number; the object has it too.
        Raises:
            DoesNotExist: the object was deleted, or has expired.
            InvalidValue: the field does not take the sum. Nothing was changed.
        """
        changed = yield from self._change({field: F(field) + delta})
        return getattr(changed, field)

    incr, aincr = _twins(_incr)

    def _update(self: M, /, **changes: Any) -> Steps[M]:
        """Write some fields in the store, whatever version of the object is in memory: ``obj.update(visits=F("visits") + 1)``.

        Arguments:
            **changes: values, or expressions of the values that are stored.
        Returns:
            The object itself, with the new values.
        Raises:
            DoesNotExist: the object was deleted, or has expired.
        """
        yield from self._change(changes)
        return self

    update, aupdate = _twins(_update)

    def _change(self, changes: Mapping[str, Any]) -> Steps[Model]:
        if self._state.adding:
            raise InvalidArgument(f"{self!r} is not stored, so there is nothing to change. Nothing was changed.")
        storage = self._own_storage()
        key_bytes = storage.key_of_record(self._state.record)
        changed = yield from storage.change(key_bytes, changes, basis=self)
        if changed is None:
            raise self.DoesNotExist(f"{self!r} was deleted, or has expired.")
        return changed

    def _touch(self, timeout: Any = UNSET) -> Steps[bool]:
        """Give the object another timeout, from now on.

        Arguments:
            timeout: seconds, a timedelta or None for never; ``Meta.timeout`` if not given.
        Returns:
            False if it is not there any more.
        """
        if self._state.adding:
            raise InvalidArgument(f"{self!r} is not stored, so it has no timeout. Nothing was changed.")
        storage = self._own_storage()
        return (yield from storage.touch(self, timeout))

    touch, atouch = _twins(_touch)

    def _ttl(self) -> Steps[float | None]:
        """Seconds that the object has left; None if it never expires.

        Raises:
            DoesNotExist: it was deleted, or has expired.
        """
        storage = self._own_storage()
        key = storage.record_key(self.key_bytes())
        left_ms = yield "ttl", storage.database, key
        if left_ms is None:
            raise self.DoesNotExist(f"{self!r} was deleted, or has expired.")
        return None if left_ms < 0 else left_ms / 1000

    ttl, attl = _twins(_ttl)

    @classmethod
    def upgrade(cls, data: Data, version: int) -> Data:
        """What stored data of an older ``Meta.version`` is in the present one. Override it when the form changes.

        Arguments:
            data: stored values by name, without the version.
            version: what it was written by; 1 where none is told.
        Returns:
            The data for the present version. Fields that it lacks get their defaults, what is no field is kept.
        """
        return data

    # ------------------------------------------------------------------------------------------- validation

    def full_clean(
        self, exclude: Collection[str] | None = None, validate_unique: bool = True, validate_constraints: bool = True
    ) -> None:
        """Convert and validate everything: fields, :meth:`clean`, unique values.

        Arguments:
            exclude: names of fields to leave out.
            validate_unique: whether to ask the store for the unique values, too.
            validate_constraints: for Django's forms; there are none.
        Raises:
            ValidationError: with all that was found.
        """
        errors: dict[str, Any] = {}
        excluded = set(exclude or ())
        steps: tuple[Callable[[], None], ...] = (functools.partial(self.clean_fields, excluded), self.clean)
        for step in steps:
            try:
                step()
            except ValidationError as error:
                errors = error.update_error_dict(errors)
        if validate_unique:
            excluded |= {name for name in errors if name != NON_FIELD_ERRORS}
            try:
                self.validate_unique(excluded)
            except ValidationError as error:
                errors = error.update_error_dict(errors)
        if errors:
            raise ValidationError(errors)

    def clean_fields(self, exclude: Collection[str] | None = None) -> None:
        """Convert and validate the fields: types, validators, choices, null and blank. Raises ValidationError."""
        errors: dict[str, Any] = {}
        for field in self._meta.fields:
            raw = getattr(self, field.attname)
            if field.name in (exclude or ()) or (field.blank and raw in field.empty_values):
                continue
            try:
                setattr(self, field.attname, field.clean(raw, self))  # type: ignore[arg-type]
            except ValidationError as error:
                errors[field.name] = error.error_list
        if errors:
            raise ValidationError(errors)

    def clean(self) -> None:
        """Hook for validation that concerns several fields. Raises ValidationError."""

    def validate_unique(self, exclude: Collection[str] | None = None) -> None:
        """Ask the store whether another object has the key or unique values. Raises ValidationError."""
        storage = self._own_storage()
        errors: dict[str, Any] = {}
        for names in storage._run(storage.taken_names(self, set(exclude or ()))):
            errors.setdefault(names[0] if len(names) == 1 else NON_FIELD_ERRORS, []).append(self._unique_error(names))
        if errors:
            raise ValidationError(errors)

    def _unique_error(self, names: tuple[str, ...]) -> ValidationError:
        labels = [str(self._meta.get_field(name).verbose_name) for name in names]
        told = {
            "model_name": capfirst(str(self._meta.verbose_name)),
            "field_label": capfirst(" and ".join(labels)),
        }
        if len(names) == 1:
            messages = self._meta.get_field(names[0]).error_messages
            return ValidationError(messages["unique"], code="unique", params=told)
        return ValidationError("%(model_name)s with this %(field_label)s already exists.", "unique_together", told)

    # What Django's forms and formsets call beside these.
    def _get_unique_checks(
        self, exclude: Collection[str] | None = None, include_meta_constraints: bool = False
    ) -> tuple[list[tuple[type[Model], tuple[str, ...]]], list[Any]]:
        """``(unique checks, none by date)``: what no two objects of a formset may have in common."""
        groups = [self._meta.key_names, *(index.field_names for index in self._meta.indexes.values() if index.unique)]
        return [(type(self), names) for names in groups if not set(names) & set(exclude or ())], []

    def validate_constraints(self, exclude: Collection[str] | None = None) -> None:
        """Nothing: there are no constraints."""

    def _get_FIELD_display(self, field: models.Field[Any, Any]) -> str:
        """The label of a choice; Django's fields make ``get_..._display`` of it."""
        value = getattr(self, field.attname)
        choices = dict(make_hashable(field.flatchoices))
        label: str = force_str(choices.get(make_hashable(value), value), strings_only=True)
        return label

    def _get_next_or_previous_by_FIELD(self, field: models.Field[Any, Any], is_next: bool, **kwargs: Any) -> Any:
        order, comparison = (field.name, "gt") if is_next else (f"-{field.name}", "lt")
        query = type(self)._default_manager.filter(
            **kwargs, **{f"{field.name}__{comparison}": getattr(self, field.name)}
        )
        found = query.order_by(order).first()
        if found is None:
            raise self.DoesNotExist(f"There is no {self._meta.verbose_name} beyond this one by {field.name}.")
        return found

    # ------------------------------------------------------------------------------------------- as a Python object

    def serializable_value(self, field_name: str) -> Any:
        """The value of a field, for Django's serializers."""
        return getattr(self, self._meta.get_field(field_name).attname)

    def get_deferred_fields(self) -> set[str]:
        """Names of the fields that were not read: see ``only()``."""
        return {field.attname for field in self._meta.fields if field.attname not in self.__dict__}

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self}>"

    def __str__(self) -> str:
        return f"{type(self).__name__} object ({self.pk!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Model) or type(self) is not type(other):
            return NotImplemented
        mine, its = self.pk, other.pk
        return self is other if mine is None else bool(mine == its)

    def __hash__(self) -> int:
        if self.pk is None:
            raise TypeError("Objects without a key cannot be hashed.")
        return hash((type(self), self.pk))

"""Django's model fields and what is stored of them.

A stored object is a msgpack map from field names to plain values that any msgpack reader understands:

==============================  ========================================================================================
field                           stored as
==============================  ========================================================================================
Boolean, Integer..., Float      bool, int, float
Char, Text, Slug, Email, URL    text (FilePath and GenericIPAddress, too; a File by its name)
DateTime, Date, Time            ISO 8601 text; a moment in UTC with its offset
Duration                        microseconds, as int
Decimal, UUID                   text
Binary                          bytes
JSON                            the JSON value itself
any other                       what its ``get_prep_value`` makes; read by ``from_db_value`` or ``to_python``
==============================  ========================================================================================

A :class:`Plan` is what is known of one field of one model: how to clean, store, load and order its values. Validators,
choices and lengths are ``full_clean``'s, as with Django's own models; what a table's column would refuse (a wrong type, None,
a negative number in a positive field) is refused at each save.
"""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone
from django.utils.functional import Promise

from django_keyspace.backend.models.errors import InvalidValue
from django_keyspace.backend.models.expressions import Expression
from django_keyspace.operations import INT64_MAX, INT64_MIN

Function = Callable[[Any], Any]

_MICROSECOND: Final = datetime.timedelta(microseconds=1)
_PLAIN: Final = frozenset({str, int, float, bool, type(None)})


def _dump_datetime(value: datetime.datetime) -> str:
    return (value if value.tzinfo is None else value.astimezone(datetime.UTC)).isoformat()


def _load_datetime(text: str) -> datetime.datetime:
    value = datetime.datetime.fromisoformat(text)
    if (value.tzinfo is None) is settings.USE_TZ:  # written under the other setting
        value = timezone.make_aware(value) if value.tzinfo is None else timezone.make_naive(value)
    return value


def _load_duration(microseconds: int) -> datetime.timedelta:
    return datetime.timedelta(microseconds=microseconds)


def _is_json(value: Any) -> bool:
    """Whether a value is what reading JSON would give: no tuples, no subclasses, text as keys."""
    kind = type(value)
    if kind in _PLAIN:
        return True
    if kind is list:
        return all(map(_is_json, value))
    return kind is dict and set(map(type, value)) <= {str} and all(map(_is_json, value.values()))


def _exactly(*kinds: type) -> frozenset[type]:
    return frozenset(kinds)


class _Kind:
    """What holds for all fields of a class.

    Attributes:
        exact: values of exactly these types need no ``to_python``.
        dump, load: Python value to stored value and back; None if they are the same.
        is_ordered: whether it may be in a key or an index.
    """

    __slots__ = ("dump", "exact", "is_ordered", "load")

    def __init__(
        self,
        exact: frozenset[type] = frozenset(),
        dump: Function | None = None,
        load: Function | None = None,
        is_ordered: bool = True,
    ) -> None:
        self.exact, self.dump, self.load, self.is_ordered = exact, dump, load, is_ordered


_KINDS: Final[dict[type, _Kind]] = {
    models.BooleanField: _Kind(_exactly(bool)),
    models.IntegerField: _Kind(_exactly(int)),
    models.FloatField: _Kind(_exactly(float)),
    models.CharField: _Kind(_exactly(str)),
    models.TextField: _Kind(_exactly(str)),
    models.FilePathField: _Kind(_exactly(str)),
    models.GenericIPAddressField: _Kind(),
    models.DateTimeField: _Kind(frozenset(), _dump_datetime, _load_datetime),
    models.DateField: _Kind(_exactly(datetime.date), datetime.date.isoformat, datetime.date.fromisoformat),
    models.TimeField: _Kind(_exactly(datetime.time), datetime.time.isoformat, datetime.time.fromisoformat),
    models.DurationField: _Kind(_exactly(datetime.timedelta), lambda value: value // _MICROSECOND, _load_duration),
    models.DecimalField: _Kind(frozenset(), str, Decimal),
    models.UUIDField: _Kind(_exactly(uuid.UUID), str, uuid.UUID),
    models.BinaryField: _Kind(_exactly(bytes), bytes),
    models.JSONField: _Kind(is_ordered=False),
    models.FileField: _Kind(_exactly(str), str, is_ordered=False),
}
"""By class of Django; a field goes by the first of its bases that is here."""

_CUSTOM: Final = _Kind()
_HOOKS: Final = ("to_python", "get_prep_value", "from_db_value")
"""Methods of a field that say how it is stored; who overrides one has the last word."""

_AUTOMATIC_PRE_SAVES: Final = tuple(
    kind.pre_save for kind in (models.DateTimeField, models.DateField, models.TimeField)
)
"""They do something for ``auto_now`` and ``auto_now_add`` only."""

REFUSED: Final[tuple[tuple[type, str], ...]] = (
    (models.ForeignObject, "an object cannot point at rows of a table: store the other's key in a field of its type"),
    (models.ManyToManyField, "there are no tables between objects: store a list of keys in a JSONField"),
    (models.GeneratedField, "no database computes it: override save(), or use a property"),
    (models.CompositePrimaryKey, 'name the fields in Meta.key = ("one", "two")'),
)
"""Fields that no object can have, and what to use instead."""


def kind_of(field: models.Field[Any, Any]) -> _Kind:
    """What holds for a field: of Django's class that it derives from, or of a custom one."""
    for base in type(field).__mro__:
        kind = _KINDS.get(base)
        if kind is not None:
            is_changed = any(getattr(type(field), hook, None) is not getattr(base, hook, None) for hook in _HOOKS)
            is_known = type(field).__module__.startswith("django.db.models.")
            return _CUSTOM if is_changed and not is_known else kind
    return _CUSTOM


def is_custom(field: models.Field[Any, Any]) -> bool:
    """Whether a field has its own say in how it is stored, so that its order is that of its ``get_prep_value``."""
    return kind_of(field) is _CUSTOM


class Plan:
    """How one field of a model is cleaned, stored, loaded and ordered.

    Arguments:
        field: a field that belongs to a model.

    Attributes:
        name, attname: of the field.
        has_pre_save: whether the field does something at each save.
        load: from the stored value, which is not None, to the Python value; None if they are the same.
        is_ordered: whether it may be in a key or an index.
    """

    __slots__ = (
        "_dump",
        "_exact",
        "_least",
        "_refine",
        "attname",
        "field",
        "has_pre_save",
        "is_ordered",
        "load",
        "name",
    )

    def __init__(self, field: models.Field[Any, Any]) -> None:
        kind = kind_of(field)
        self.field, self.name, self.attname = field, field.name, field.attname
        self.is_ordered, self._exact = kind.is_ordered, kind.exact
        self.load, self._dump = kind.load, kind.dump
        automatic = getattr(field, "auto_now", False) or getattr(field, "auto_now_add", False)
        self.has_pre_save = automatic or type(field).pre_save not in (models.Field.pre_save, *_AUTOMATIC_PRE_SAVES)
        self._least = INT64_MIN
        self._refine: Function | None = None
        if kind is _CUSTOM:
            self.load, self._dump = self._load_custom, self._dump_custom
        elif isinstance(field, models.IntegerField):
            self._refine = self._whole
            if isinstance(
                field, models.PositiveIntegerField | models.PositiveBigIntegerField | models.PositiveSmallIntegerField
            ):
                self._least = 0
        elif isinstance(field, models.DateTimeField):
            self._refine = self._moment
        elif isinstance(field, models.DecimalField):
            self._refine = self._rounded
        elif isinstance(field, models.JSONField):
            self._refine = self._json

    def pre_save(self, obj: Any, adding: bool) -> Any:
        """The object's value, after what the field does at each save: ``auto_now``, storing a file."""
        return self.field.pre_save(obj, adding)

    def clean(self, value: Any) -> Any:
        """The Python value that will be stored for what somebody has assigned.

        Raises:
            InvalidValue: the field does not take it; the message names model, field and value.
        """
        if value is None:
            if not self.field.null:
                raise self.refusal(value, "the field is not null")
            return None
        if type(value) in self._exact:
            return value if self._refine is None else self._refine(value)
        return self._convert(value)

    def convert(self, value: Any) -> Any:
        """As :meth:`clean`, for a value to compare with: None is legal."""
        return None if value is None else self.clean(value)

    def _convert(self, value: Any) -> Any:
        if isinstance(value, Promise):
            value = str(value)
        elif isinstance(value, Expression):
            raise self.refusal(value, "only update() and save(update_fields=...) work out an expression")
        try:
            if isinstance(self.field, models.FileField):
                converted: Any = str(value)
            elif isinstance(self.field, models.JSONField):
                converted = value
            else:
                converted = self.field.to_python(value)
        except ValidationError as error:
            raise self.refusal(value, " ".join(error.messages)) from error
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            raise self.refusal(value, str(error)) from error
        if converted is None:
            return self.clean(None)
        if type(converted) not in self._exact:
            for kind in self._exact:
                if isinstance(converted, kind):  # a member of TextChoices, a SafeString: as a table would keep it
                    is_text = kind is str and issubclass(type(converted), str)  # a lazy object only says that it is
                    converted = str.__str__(converted) if is_text else kind(converted)
        return converted if self._refine is None else self._refine(converted)

    def dump(self, value: Any) -> Any:
        """The stored value of what :meth:`clean` has made."""
        if value is None or self._dump is None:
            return value
        return self._dump(value)

    def loaded(self, stored: Any) -> Any:
        """The Python value of a stored value."""
        return stored if stored is None or self.load is None else self.load(stored)

    def order_value(self, value: Any) -> Any:
        """What stands for a Python value in keys and indexes: itself, or a custom field's ``get_prep_value``."""
        if value is None or self._dump != self._dump_custom:
            return value
        return self.field.get_prep_value(value)

    def default(self) -> Any:
        """The value of an object that was stored before the field existed."""
        return self.field.get_default()

    def refusal(self, value: Any, reason: str) -> InvalidValue:
        """The error for a value that the field does not take."""
        label = self.field.model._meta.label
        return InvalidValue(
            f"{label}.{self.name} does not take {value!r:.80}: {reason.rstrip('.')}. Nothing was changed.", self.name
        )

    # --------------------------------------------------------------------------------- what a column would look at

    def _whole(self, value: int) -> int:
        if not self._least <= value <= INT64_MAX:
            raise self.refusal(value, f"the number is not between {self._least:,} and {INT64_MAX:,}")
        return value

    def _moment(self, value: datetime.datetime) -> datetime.datetime:
        if settings.USE_TZ:
            return value if value.tzinfo is not None else self.field.get_prep_value(value)  # which warns, as in a table
        return value if value.tzinfo is None else timezone.make_naive(value)

    def _rounded(self, value: Decimal) -> Decimal:
        field: Any = self.field
        if field.decimal_places is None or not value.is_finite():
            return value
        try:
            return value.quantize(Decimal(1).scaleb(-field.decimal_places), context=field.context)
        except InvalidOperation as error:
            raise self.refusal(value, f"it has more than {field.max_digits} digits") from error

    def _json(self, value: Any) -> Any:
        if _is_json(value):
            return value
        field: Any = self.field
        try:
            return json.loads(json.dumps(value, cls=field.encoder), cls=field.decoder)
        except (TypeError, ValueError, RecursionError) as error:
            raise self.refusal(value, str(error)) from error

    # ------------------------------------------------------------------------------------------- custom fields

    def _dump_custom(self, value: Any) -> Any:
        stored = self.field.get_prep_value(value)
        if type(stored) in _PLAIN or type(stored) is bytes:
            return stored
        if isinstance(stored, datetime.datetime | datetime.date | datetime.time):
            return stored.isoformat()
        if isinstance(stored, Decimal | uuid.UUID):
            return str(stored)
        if _is_json(stored):
            return stored
        raise self.refusal(value, f"its get_prep_value makes a {type(stored).__name__}, which cannot be stored")

    def _load_custom(self, stored: Any) -> Any:
        from_db_value = getattr(self.field, "from_db_value", None)
        return self.field.to_python(stored) if from_db_value is None else from_db_value(stored, None, None)


def python_value(field: models.Field[Any, Any], value: Any) -> Any:
    """The Python value of a field for something to compare it with, such as ``"3"`` for a number.

    Raises:
        InvalidValue: the field does not take it; the message names model, field and value.
    """
    plan: Plan = field.model._meta.plans[field.name]  # type: ignore[attr-defined]
    return plan.convert(value)

"""What ``class Meta`` of a model says, checked and worked out: ``Model._meta``.

It has as much of Django's own ``_meta`` as model fields, forms and generic views ask for, so that they work with models that
have no table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.utils.functional import cached_property
from django.utils.text import camel_case_to_spaces

from django_keyspace.backend.expire import make_expire
from django_keyspace.backend.models.errors import UnknownField, nearest, unknown_field
from django_keyspace.backend.models.fields import REFUSED, Plan
from django_keyspace.backend.models.layout import PREFIX_BYTES_MAX, Index, key_encoder
from django_keyspace.exceptions import ConfigurationError, InvalidArgument
from django_keyspace.operations import Expire

if TYPE_CHECKING:
    Field = models.Field[Any, Any]

META: Final[dict[str, str]] = {
    "key": "name of the key field, or several; without it, an automatic id",
    "using": "alias in CACHES, by default 'default'",
    "indexes": "names of fields, or tuples of names: what queries may use to filter and order",
    "unique": "names of fields, or tuples of names: values that only one object may have",
    "timeout": "seconds or a timedelta after which an object that is created vanishes, by default None: never",
    "ordering": "names of fields, with a minus for the other direction",
    "abstract": "True for a class that only others inherit from",
    "app_label": "label of the app, by default that of the app whose package the class is in",
    "prefix": "what the keys of the objects begin with, by default app_label.model_name",
    "verbose_name": "the model's name for people",
    "verbose_name_plural": "the same, of many",
    "version": "number of the form of the data, by default 1; see Model.upgrade",
}
"""Every name that ``class Meta`` may have."""

VERSION_NAME: Final = "@version"
"""The member of a stored map that has the version, unless that is 1. No field can have the name."""

Names = tuple[str, ...]


def _names(option: str, label: str, value: Any) -> list[Names]:
    """``["a", ("b", "c")]`` as a list of tuples of names."""
    if isinstance(value, str):
        value = [value]
    groups = []
    for group in value if isinstance(value, list | tuple) else [value]:
        names = (group,) if isinstance(group, str) else group
        if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
            raise ConfigurationError(
                f"{label}.Meta.{option} takes names of fields, and tuples of names; not {group!r}."
            )
        groups.append(tuple(names))
    return groups


class Options:
    """``Model._meta``. See :data:`META` for the attributes that ``class Meta`` gives.

    Arguments:
        meta: the class ``Meta`` or None.
        object_name: the model's name.
        app_label: the app's label, unless ``Meta`` gives one.

    Attributes:
        fields: all fields in the order of their declaration.
        plans: how each is stored, by name.
        key_fields: the fields of the key.
        key_bytes: function from Python values by name to the ordered form of the key.
        indexes: ordered and unique indexes, by name.
        problems: ``(kind, message, hint)`` for the system checks; objects of such a model cannot be used.
    """

    # What Django's fields and forms look at, and what it always is here.
    private_fields: tuple[Field, ...] = ()
    many_to_many: tuple[Field, ...] = ()
    local_many_to_many: tuple[Field, ...] = ()
    related_objects: tuple[Any, ...] = ()
    parents: Mapping[Any, Any] = {}
    unique_together: tuple[Any, ...] = ()
    total_unique_constraints: tuple[Any, ...] = ()
    constraints: tuple[Any, ...] = ()
    required_db_features: tuple[str, ...] = ()
    db_table = db_tablespace = ""
    proxy = managed = swapped = auto_created = False

    def __init__(self, meta: type | None, object_name: str, app_label: str | None) -> None:
        given = {name: value for name, value in vars(meta).items() if not name.startswith("_")} if meta else {}
        for name in given:
            if name not in META:
                raise ConfigurationError(
                    f"{object_name}.Meta has no option {name!r}.{nearest(name, META)} Known are: {', '.join(META)}."
                )
        self.abstract: bool = given.get("abstract", False)
        self.app_label: str = given.get("app_label", app_label) or ""
        self.object_name = object_name
        self.model_name = object_name.lower()
        self.verbose_name: Any = given.get("verbose_name", camel_case_to_spaces(object_name))
        self.verbose_name_plural: Any = given.get("verbose_name_plural", f"{self.verbose_name}s")
        self.using: str = given.get("using", "default")
        self.version = self._version(given.get("version", 1))
        self.timeout = given.get("timeout")
        self.expire = self._expire_of(self.timeout)
        self.prefix = self._prefix(given.get("prefix", self.label_lower))
        self.ordering: Names = tuple(names[0] for names in _names("ordering", self.label, given.get("ordering", ())))
        self.fields: tuple[Field, ...] = ()
        self.auto_field: Field | None = None
        self.model: Any = None
        self.default_manager: Any = None
        self.problems: list[tuple[str, str, str]] = []
        self.plans: dict[str, Plan] = {}
        self.indexes: dict[str, Index] = {}
        self.key_fields: tuple[Field, ...] = ()
        self.key_of: Callable[[Mapping[str, Any]], bytes] = lambda values: b""
        self.storages: dict[str, Any] = {}
        self._given = given

    def __repr__(self) -> str:
        return f"<Options for {self.object_name}>"

    def __str__(self) -> str:
        return self.label_lower

    # --------------------------------------------------------------------------------------------- names

    @property
    def label(self) -> str:
        """``app_label.ObjectName``."""
        return f"{self.app_label}.{self.object_name}" if self.app_label else self.object_name

    @property
    def label_lower(self) -> str:
        """``app_label.model_name``."""
        return self.label.lower()

    @property
    def verbose_name_raw(self) -> str:
        """The verbose name, not translated."""
        return str(self.verbose_name)

    @property
    def concrete_model(self) -> Any:
        """The model itself."""
        return self.model

    @property
    def concrete_fields(self) -> tuple[Field, ...]:
        """All fields: each has a stored value."""
        return self.fields

    local_fields = local_concrete_fields = concrete_fields

    @cached_property
    def field_names(self) -> Names:
        """The names of all fields."""
        return tuple(field.name for field in self.fields)

    @cached_property
    def key_names(self) -> Names:
        """The names of the key's fields."""
        return tuple(field.name for field in self.key_fields)

    @property
    def pk(self) -> Field | None:
        """The key field; None if the key has several."""
        return self.key_fields[0] if len(self.key_fields) == 1 else None

    pk_fields = property(lambda self: list(self.key_fields))

    def get_field(self, name: str) -> Field:
        """A field by its name; ``pk`` is the key field if there is one.

        Raises:
            FieldDoesNotExist: the message lists the known ones. (Also an ``UnknownField``.)
        """
        plan = self.plans.get(name)
        if plan is not None:
            return plan.field
        if name == "pk" and self.pk is not None:
            return self.pk
        for field in self.fields:  # while the class is being made
            if field.name == name:
                return field
        raise _NoSuchField(str(unknown_field(self.label, name, self.field_names)))

    def get_ancestor_link(self, ancestor: Any) -> None:
        """None: no field leads to a parent's table."""

    # --------------------------------------------------------------------------------------------- the class is made

    def contribute_to_class(self, cls: Any, name: str) -> None:
        """Become the ``_meta`` of a class."""
        setattr(cls, name, self)
        self.model = cls

    def add_field(self, field: Field, private: bool = False) -> None:
        """Take a field in: Django's fields call this when they are put on a class."""
        for refused, instead in REFUSED:
            if isinstance(field, refused):
                raise ConfigurationError(
                    f"{self.label}.{field.name} is a {type(field).__name__}, which a key-value model cannot have: {instead}."
                )
        if any(field.name == other.name for other in self.fields):
            self.fields = tuple(other for other in self.fields if other.name != field.name)
        self.fields = tuple(sorted([*self.fields, field]))

    def finish(self) -> None:
        """Work out key and indexes, once all fields are there.

        Raises:
            ConfigurationError: ``Meta`` names a field that is not there.
        """
        self.key_fields = tuple(map(self._declared("key"), self._key_names()))
        if self.auto_field is not None and self.key_fields != (self.auto_field,):
            raise ConfigurationError(
                f"{self.label}.{self.auto_field.name} counts by itself, so it must be the key, alone. Make it a BigIntegerField, "
                "or remove Meta.key."
            )
        self.plans = {field.name: Plan(field) for field in self.fields}
        self.indexes = {}
        for option in ("unique", "indexes"):
            for names in self._index_names(option):
                fields = tuple(map(self._declared(option), names))
                index = Index(self.prefix, [self.plans[field.name] for field in fields], option == "unique")
                if index.name not in self.indexes:  # a unique index serves for both
                    self.indexes[index.name] = index
        for name in self.ordering:
            self._declared("ordering")(name.removeprefix("-"))
        key_plans = [self.plans[field.name] for field in self.key_fields]
        self.record_prefix = b"r" + f"{self.prefix}\0".encode()
        self.sequence_key = b"s" + f"{self.prefix}\0".encode()
        self.schema_key = b"m" + f"{self.prefix}\0".encode()
        self.key_of = key_encoder(key_plans, len(self.record_prefix))
        self.loaders = tuple((plan.name, plan.attname, plan.load, plan.default) for plan in self.plans.values())
        self._find_problems(key_plans)

    def _key_names(self) -> Sequence[str]:
        if "key" in self._given:
            groups = _names("key", self.label, self._given["key"])
            return [name for group in groups for name in group]
        return [field.name for field in self.fields if field.primary_key]

    def _index_names(self, option: str) -> list[Names]:
        groups = _names(option, self.label, self._given.get(option, ()))
        attribute = "unique" if option == "unique" else "db_index"
        for field in self.fields:
            if getattr(field, attribute) and field not in self.key_fields and (field.name,) not in groups:
                groups.append((field.name,))
        return groups

    def _declared(self, option: str) -> Callable[[str], Field]:
        def find(name: str) -> Field:
            for field in self.fields:
                if field.name == name or (name == "pk" and field in self.key_fields):
                    return field
            known = [field.name for field in self.fields]
            raise ConfigurationError(
                f"{self.label}.Meta.{option} names {name!r}, which is no field.{nearest(name, known)} It has: "
                f"{', '.join(known)}."
            )

        return find

    def _find_problems(self, key_plans: Sequence[Plan]) -> None:
        if len(set(self.key_names)) < len(self.key_names):
            raise ConfigurationError(f"{self.label}.Meta.key names a field twice: {', '.join(self.key_names)}.")
        used = [("Meta.key", plan) for plan in key_plans]
        used += [(f"index {index.name!r}", plan) for index in self.indexes.values() for plan in index.plans]
        for where, plan in used:
            if not plan.is_ordered:
                self.problems.append(
                    (
                        "unordered",
                        f"{self.label}.{plan.name} is a {type(plan.field).__name__}, whose values have no order, and {where} "
                        "needs one.",
                        "Index a field that is made of it: a number, a text, a date.",
                    )
                )
        for plan in key_plans:
            if plan.field.null:
                self.problems.append(
                    (
                        "null-key",
                        f"{self.label}.{plan.name} is part of the key and may be None.",
                        "Remove null=True.",
                    )
                )

    # --------------------------------------------------------------------------------------------- keys

    def make_key(self, pk: Any) -> bytes:
        """The ordered form of a key.

        Arguments:
            pk: the key's value, or a tuple if it has several fields; converted as the fields do.
        Raises:
            InvalidArgument: it is no such key.
        """
        names = self.key_names
        values = (pk,) if len(names) == 1 else pk
        if not isinstance(values, tuple | list) or len(values) != len(names):
            raise InvalidArgument(
                f"The key of {self.label} is ({', '.join(names)}), not {pk!r:.80}. Nothing was changed."
            )
        return self.key_of({name: self.plans[name].clean(value) for name, value in zip(names, values, strict=True)})

    # --------------------------------------------------------------------------------------------- checks of Meta

    def _version(self, version: Any) -> int:
        if type(version) is not int or not 1 <= version < 2**31:
            raise ConfigurationError(f"{self.object_name}.Meta.version must be an integer from 1 on, not {version!r}.")
        return version

    def _expire_of(self, timeout: Any) -> Expire:
        try:
            expire = make_expire(timeout)
        except InvalidArgument as error:
            raise ConfigurationError(f"{self.object_name}.Meta.timeout: {error}") from error
        if expire == 0:
            raise ConfigurationError(f"{self.object_name}.Meta.timeout must be more than nothing, not {timeout!r}.")
        return expire

    def _prefix(self, prefix: Any) -> str:
        if not isinstance(prefix, str) or not prefix or "\0" in prefix or len(prefix.encode()) > PREFIX_BYTES_MAX:
            raise ConfigurationError(
                f"{self.object_name}.Meta.prefix must be text of 1 to {PREFIX_BYTES_MAX} bytes without NUL, not {prefix!r}."
            )
        return prefix


class _NoSuchField(UnknownField, FieldDoesNotExist):
    """No field has the name. (``FieldDoesNotExist``, as Django raises.)"""

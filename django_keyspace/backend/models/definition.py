"""How ``class Visitor(kv.Model)`` becomes a model: the metaclass."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import MultipleObjectsReturned, ObjectDoesNotExist
from django.db import models

from django_keyspace.backend.models import registry
from django_keyspace.backend.models.manager import Manager
from django_keyspace.backend.models.options import Options
from django_keyspace.exceptions import ConfigurationError


class ModelBase(type):
    """Makes the classes: takes fields and managers in, works ``Meta`` out, registers what is not abstract."""

    def __new__(mcs, name: str, bases: tuple[type, ...], attributes: dict[str, Any], **kwargs: Any) -> Any:
        """Make a model's class.

        Raises:
            ConfigurationError, ModelsNotReady: it cannot be one; the message says why.
        """
        parents: list[Any] = [base for base in bases if isinstance(base, ModelBase)]
        if not parents:
            return super().__new__(mcs, name, bases, attributes, **kwargs)
        for parent in parents:
            if "_meta" in vars(parent) and not parent._meta.abstract:
                raise ConfigurationError(
                    f"{name} inherits from {parent.__name__}, which is not abstract: objects of both would have to be in two "
                    "places. Give both an abstract base with the common fields (Meta: abstract = True)."
                )
        contributors = {key: value for key, value in attributes.items() if _contributes(value)}
        plain = {key: value for key, value in attributes.items() if key not in contributors and key != "Meta"}
        cls: Any = super().__new__(mcs, name, bases, plain, **kwargs)
        meta = attributes.get("Meta") or _inherited_meta(parents)
        is_abstract = bool(meta and vars(meta).get("abstract", False))
        has_label = is_abstract or (meta is not None and hasattr(meta, "app_label"))
        app_label = None if has_label else registry.app_label_of(cls.__module__, name)
        Options(_flattened(meta, attributes.get("Meta") is not None), name, app_label).contribute_to_class(cls, "_meta")
        if is_abstract:
            cls.Meta = meta  # for "class Meta(Base.Meta)"
        _add_fields(cls, parents, contributors)
        if not is_abstract:
            _finish(cls)
        return cls

    def __repr__(cls) -> str:
        return f"<class {cls.__module__}.{cls.__qualname__}>"


def _contributes(value: Any) -> bool:
    return not isinstance(value, type) and hasattr(value, "contribute_to_class")


def _inherited_meta(parents: list[Any]) -> type | None:
    """The ``Meta`` of the first base that has one; ``abstract`` and names are the base's own."""
    for parent in parents:
        meta = getattr(parent, "_inherited_meta", None)
        if meta is not None:
            own = ("abstract", "verbose_name", "verbose_name_plural", "prefix")
            given = {key: value for key, value in _attributes(meta).items() if key not in own}
            return type("Meta", (), given)
    return None


def _attributes(meta: type) -> dict[str, Any]:
    """What a ``Meta`` and its bases say."""
    found: dict[str, Any] = {}
    for base in reversed(meta.__mro__[:-1]):
        found.update({key: value for key, value in vars(base).items() if not key.startswith("_")})
    return found


def _flattened(meta: type | None, is_own: bool) -> type | None:
    """A ``Meta`` with everything that its bases say, but for ``abstract``: that is never inherited."""
    if meta is None:
        return None
    given = _attributes(meta)
    if is_own and "abstract" not in vars(meta):
        given.pop("abstract", None)
    return type("Meta", (), given)


def _add_fields(cls: Any, parents: list[Any], contributors: Mapping[str, Any]) -> None:
    """Put fields and managers on a class: copies of those of its abstract bases, then its own."""
    cls._inherited_meta = type("Meta", (), dict(cls._meta._given))
    cls._contributors = {}
    for parent in reversed(cls.__mro__[1:]):
        if isinstance(parent, ModelBase):
            for name, value in vars(parent).get("_contributors", {}).items():
                if name not in vars(cls) and name not in contributors:
                    cls._contributors[name] = value
    root = [base for base in cls.__mro__ if isinstance(base, ModelBase)][-1]
    inherited = {name: copy.deepcopy(value) for name, value in cls._contributors.items()}
    cls._contributors.update(contributors)
    for name, value in {**inherited, **contributors}.items():
        if isinstance(value, models.Field) and (hasattr(root, name) or name.startswith("_") or "__" in name):
            raise ConfigurationError(
                f"{cls.__name__}.{name} cannot be a field: {_why_reserved(name)}. Choose another name."
            )
        value.contribute_to_class(cls, name)


def _why_reserved(name: str) -> str:
    if "__" in name:
        return "two underscores separate a field from a lookup in filter()"
    return (
        "a leading underscore is for what is not a field" if name.startswith("_") else f"kv.Model has its own {name!r}"
    )


def _finish(cls: Any) -> None:
    """What only a class that has objects needs: key, indexes, errors of its own, a manager, its place in the registry."""
    meta: Options = cls._meta
    if not meta._key_names():
        automatic = models.BigAutoField(primary_key=True, auto_created=True, verbose_name="ID")
        if any(field.name == "id" for field in meta.fields):
            raise ConfigurationError(
                f'{meta.label} has a field "id" and no key. Name the key in Meta.key, or give the field primary_key=True.'
            )
        automatic.contribute_to_class(cls, "id")
    meta.finish()
    for name, base in (
        ("DoesNotExist", ObjectDoesNotExist),
        ("MultipleObjectsReturned", MultipleObjectsReturned),
    ):
        made = type(name, (base,), {"__module__": cls.__module__, "__qualname__": f"{cls.__qualname__}.{name}"})
        setattr(cls, name, made)
    managers = [value for value in vars(cls).values() if isinstance(value, Manager)]
    if not any(isinstance(value, Manager) for value in cls._contributors.values()) and not managers:
        manager = Manager()
        manager.contribute_to_class(cls, "objects")
        managers = [manager]
    meta.default_manager = cls._default_manager = managers[0] if managers else getattr(cls, "objects", None)
    registry.register(cls)

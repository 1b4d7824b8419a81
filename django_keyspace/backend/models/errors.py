"""Errors of models. They are ``LocalError``: the call cannot be done as asked, and nothing was changed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from django.core.exceptions import AppRegistryNotReady, FieldError
from django.db import IntegrityError

from django_keyspace.exceptions import InvalidArgument, LocalError


class Conflict(LocalError):
    """The object was changed by somebody else since it was read, so that saving it would undo that change.

    Attributes:
        mine: the object that was to be saved, as it is in memory.
        stored: the object as it is in the store now, or None if it was deleted or has expired.
    """

    code: ClassVar[str] = "conflict"

    def __init__(self, message: str, mine: Any = None, stored: Any = None) -> None:
        super().__init__(message)
        self.mine = mine
        self.stored = stored


class DuplicateValue(LocalError, IntegrityError):
    """Another object has the key, or the values of a unique index. (``IntegrityError``, as Django raises.)

    Attributes:
        fields: names of the fields of the key or of the unique index.
        is_key: whether it is the key.
    """

    code: ClassVar[str] = "duplicate-value"

    def __init__(self, message: str, fields: Sequence[str] = (), is_key: bool = False) -> None:
        super().__init__(message)
        self.fields = tuple(fields)
        self.is_key = is_key


class InvalidValue(InvalidArgument, TypeError):
    """A field does not take this value.

    Attributes:
        field: name of the field.
    """

    code: ClassVar[str] = "invalid-value"

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class UnknownField(InvalidArgument, FieldError):
    """A model has no such field; the message lists those that it has. (``FieldError``, as Django raises.)"""

    code: ClassVar[str] = "unknown-field"


class ModelsNotReady(LocalError, AppRegistryNotReady):
    """A model is defined or used before Django has loaded the apps."""

    code: ClassVar[str] = "models-not-ready"


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the known name that is most like a wrong one: a sentence, or nothing."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {found[0]!r}?" if found else ""


def unknown_field(label: str, name: str, known: Iterable[str]) -> UnknownField:
    """The error for a name that is no field of a model.

    Arguments:
        label: the model's label, such as ``shop.Visitor``.
        name: what was asked for.
        known: names of the fields.
    """
    known = list(known)
    return UnknownField(
        f"{label} has no field {name!r}.{nearest(name, known)} It has: {', '.join(known)}. Nothing was changed."
    )

"""What the commands about key-value models share."""

from __future__ import annotations

from collections.abc import Sequence

from django.core.cache import InvalidCacheBackendError, caches
from django.core.management.base import CommandError

from django_keyspace.backend.cache import KeyspaceCache
from django_keyspace.backend.models.ordering import read_ordered_all
from django_keyspace.backend.models.registry import select
from django_keyspace.backend.models.storage import Storage, storage_of
from django_keyspace.exceptions import KeyspaceError


def storages(labels: Sequence[str], using: str | None) -> list[Storage]:
    """The storages of models.

    Arguments:
        labels: ``app.Model`` or ``app``; none: all models.
        using: an alias, or None for each model's own.
    Raises:
        CommandError: there is no such model, or no such alias.
    """
    try:
        return [storage_of(model, using) for model in select(list(labels))]
    except (KeyspaceError, LookupError) as error:
        raise CommandError(str(error)) from error


def check_alias(using: str) -> None:
    """Refuse an alias that is not in ``CACHES``, before anything is done.

    Raises:
        CommandError: there is no such alias, or another cache has it.
    """
    try:
        cache = caches[using]
    except InvalidCacheBackendError as error:
        raise CommandError(f"There is no alias {using!r} in CACHES. Nothing was changed.") from error
    if not isinstance(cache, KeyspaceCache):
        raise CommandError(
            f"The alias {using!r} is a {type(cache).__name__}, not a cache of django_keyspace. Nothing was changed."
        )


def key_text(storage: Storage, key_bytes: bytes) -> str:
    """An object's key for people."""
    try:
        values, _ = read_ordered_all(key_bytes, len(storage.meta.key_fields))
    except (ValueError, IndexError, KeyspaceError):
        return repr(key_bytes)
    return repr(values[0] if len(values) == 1 else values)

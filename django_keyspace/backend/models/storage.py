"""Where the objects of a model are: one :class:`Storage` per model and alias."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.apps import apps
from django.core.cache import InvalidCacheBackendError, caches

from django_keyspace.backend.models.errors import ModelsNotReady
from django_keyspace.backend.models.upkeep import UpkeepSteps
from django_keyspace.exceptions import ConfigurationError

if TYPE_CHECKING:
    from django_keyspace.backend.models.base import Model
    from django_keyspace.backend.runtime import Runtime


class Storage(UpkeepSteps):
    """The objects of one model on one alias: reading and writing them, as steps.

    ``storage._run(storage.load(key_bytes))`` does it in the calling thread, ``await storage._arun(...)`` on the loop.
    """


def storage_of(model: type[Model], using: str | None = None) -> Storage:
    """The storage of a model.

    Arguments:
        model: not an abstract one.
        using: an alias of ``CACHES``; the model's own if None.
    Raises:
        ModelsNotReady: Django has not loaded the apps yet.
        ConfigurationError: the alias is not ours, or the model has something that the system checks report as an error.
    """
    alias = model._meta.using if using is None else using
    made: dict[str, Storage] = model._meta.storages
    storage = made.get(alias)
    runtime = _runtime_of(model, alias)
    if storage is None or storage.runtime is not runtime:
        _refuse_unusable(model)
        storage = made[alias] = Storage(model, alias, runtime)
    return storage


def _runtime_of(model: type[Model], alias: str) -> Runtime:
    from django_keyspace.backend.cache import KeyspaceCache

    try:
        cache = caches[alias]
    except InvalidCacheBackendError as error:
        raise ConfigurationError(
            f"{model._meta.label} uses the alias {alias!r}, which is not in CACHES. Add it, or set Meta.using."
        ) from error
    if not isinstance(cache, KeyspaceCache):
        raise ConfigurationError(
            f"{model._meta.label} uses CACHES[{alias!r}], which is a {type(cache).__name__}: models need "
            "django_keyspace.backend.KeyspaceCache. Set Meta.using to an alias that has it."
        )
    return cache._runtime


def _refuse_unusable(model: type[Model]) -> None:
    meta = model._meta
    if not apps.models_ready:
        raise ModelsNotReady(
            f"{meta.label} is used before Django has loaded the apps. Call django.setup() first, or use it later: in a view, "
            "a command or AppConfig.ready()."
        )
    if meta.problems:
        _, message, hint = meta.problems[0]
        raise ConfigurationError(f"{message} {hint}")

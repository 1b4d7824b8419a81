"""The models of a process, by label. Django's own registry has the apps; this one has the classes without tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core.exceptions import AppRegistryNotReady

from django_keyspace.backend.models.errors import ModelsNotReady, nearest
from django_keyspace.exceptions import ConfigurationError

if TYPE_CHECKING:
    from django_keyspace.backend.models.base import Model

_models: dict[str, type[Model]] = {}


def app_label_of(module: str, name: str) -> str:
    """The label of the app that a module belongs to.

    Arguments:
        module: dotted name of the module that defines a model.
        name: the model's, for messages.
    Raises:
        ModelsNotReady: the apps are not known yet.
        ConfigurationError: the module is in no installed app.
    """
    try:
        config = apps.get_containing_app_config(module)
    except AppRegistryNotReady as error:
        raise ModelsNotReady(
            f"The model {module}.{name} is defined before Django knows its apps. Import the module later (models.py of an app "
            "is the usual place), call django.setup() first, or give Meta.app_label."
        ) from error
    if config is None:
        raise ConfigurationError(
            f"The model {module}.{name} is in no app of INSTALLED_APPS. Install its app, or give Meta.app_label."
        )
    return config.label


def register(model: type[Model]) -> None:
    """Take a model in.

    Raises:
        ConfigurationError: another class has its label, or its prefix on the same alias.
    """
    meta = model._meta
    for other in _models.values():
        if (other.__module__, other.__qualname__) == (model.__module__, model.__qualname__):
            continue  # the same class once more: its module was loaded again
        where = f"{other.__module__}.{other.__qualname__}"
        if other._meta.label_lower == meta.label_lower:
            raise ConfigurationError(
                f"Two models are called {meta.label}: {where} and {model.__module__}.{model.__qualname__}. Rename one, or "
                "give Meta.app_label."
            )
        if (other._meta.using, other._meta.prefix) == (meta.using, meta.prefix):
            raise ConfigurationError(
                f"{meta.label} and {other._meta.label} both keep their objects under the prefix {meta.prefix!r} in "
                f"{meta.using!r}, where they would overwrite each other. Give one another Meta.prefix."
            )
    _models[meta.label_lower] = model


def forget(model: type[Model]) -> None:
    """Forget a model. For tests that define one."""
    if _models.get(model._meta.label_lower) is model:
        del _models[model._meta.label_lower]


def get_models(app_label: str | None = None) -> list[type[Model]]:
    """All models, or those of an app, in the order of their definition."""
    return [model for model in _models.values() if app_label in (None, model._meta.app_label)]


def get_model(label: str) -> type[Model]:
    """A model by its label, ``app_label.ModelName``, in any case.

    Raises:
        ConfigurationError: there is none.
    """
    model = _models.get(label.lower())
    if model is None:
        known = [other._meta.label for other in _models.values()]
        raise ConfigurationError(
            f"There is no model {label!r}.{nearest(label, known)} Known are: {', '.join(known) or 'none'}."
        )
    return model


def select(labels: list[str]) -> list[Any]:
    """Models by labels of models and of apps; all for no labels.

    Raises:
        ConfigurationError: a label is unknown.
    """
    if not labels:
        return get_models()
    found: dict[Any, None] = {}
    for label in labels:
        for model in [get_model(label)] if "." in label else get_models(label) or [get_model(label)]:
            found[model] = None
    return list(found)

"""Key-value models: ``from django_keyspace import kv``, then ``class Visitor(kv.Model)``. See docs/models.md."""

from __future__ import annotations

from django_keyspace.backend.models.aggregates import Avg, Count, Max, Min, Sum
from django_keyspace.backend.models.base import Model
from django_keyspace.backend.models.cursor import ScanWarning
from django_keyspace.backend.models.errors import (
    Conflict,
    DuplicateValue,
    InvalidValue,
    ModelsNotReady,
    UnknownField,
)
from django_keyspace.backend.models.expressions import F, Value
from django_keyspace.backend.models.forms import ModelForm, modelform_factory
from django_keyspace.backend.models.lookups import QueryError
from django_keyspace.backend.models.manager import Manager
from django_keyspace.backend.models.query import QuerySet
from django_keyspace.backend.models.registry import get_model, get_models
from django_keyspace.backend.models.signals import post_delete, post_save, pre_delete, pre_save

__all__ = [
    "Avg",
    "Conflict",
    "Count",
    "DuplicateValue",
    "F",
    "InvalidValue",
    "Manager",
    "Max",
    "Min",
    "Model",
    "ModelForm",
    "ModelsNotReady",
    "QueryError",
    "QuerySet",
    "ScanWarning",
    "Sum",
    "UnknownField",
    "Value",
    "get_model",
    "get_models",
    "modelform_factory",
    "post_delete",
    "post_save",
    "pre_delete",
    "pre_save",
]

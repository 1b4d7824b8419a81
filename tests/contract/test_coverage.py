"""Nothing of the tables is without a contract test: operations, and the cache's public methods with their twins."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache

import pytest
from django.core.cache.backends.base import BaseCache

from django_keyspace.backend import KeyspaceCache
from django_keyspace.operations import CHANGES, OPERATIONS, WRITES
from django_keyspace.store import apply, queries
from tests import contract
from tests.contract.faces import NO_TWIN

pytestmark = pytest.mark.contract


@cache
def covered() -> dict[str, set[str]]:
    """What the tests of this folder say that they cover, by the fixture that proves it."""
    found: dict[str, set[str]] = {"do": set(), "face": set()}
    for module_info in pkgutil.iter_modules(contract.__path__):
        if not module_info.name.startswith("test_"):
            continue
        module = importlib.import_module(f"{contract.__name__}.{module_info.name}")
        for name, function in vars(module).items():
            if name.startswith("test_") and inspect.isfunction(function):
                kind = "do" if "do" in inspect.signature(function).parameters else "face"
                for mark in getattr(function, "pytestmark", []):
                    if mark.name == "covers":
                        found[kind] |= set(mark.args)
    return found


def public_names(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


def test_every_operation_has_a_contract_test() -> None:
    assert set(OPERATIONS) - covered()["do"] == set()


def test_every_operation_has_a_function_and_every_function_an_operation() -> None:
    assert set(apply.WRITES) == WRITES
    assert set(queries.READS) == set(OPERATIONS) - CHANGES


NOT_OPERATIONS = {"make_key", "make_and_validate_key", "validate_key", "get_backend_timeout", "cull_num"}


def test_every_public_method_of_the_cache_has_a_contract_test() -> None:
    methods = {name for name in public_names(KeyspaceCache) if not _is_twin(name)} - NOT_OPERATIONS
    assert methods - covered()["face"] == set()


def _is_twin(name: str) -> bool:
    return name.startswith("a") and hasattr(KeyspaceCache, name[1:])


def test_every_method_of_the_cache_has_a_twin() -> None:
    for name in public_names(KeyspaceCache) - NO_TWIN - NOT_OPERATIONS:
        if not _is_twin(name):
            twin = getattr(KeyspaceCache, f"a{name}")
            assert inspect.iscoroutinefunction(inspect.unwrap(twin, stop=inspect.iscoroutinefunction)) or (
                inspect.isasyncgenfunction(twin)
            ), name
            assert (
                str(inspect.signature(twin)).partition(" ->")[0]
                == (str(inspect.signature(getattr(KeyspaceCache, name))).partition(" ->")[0])
            ), name


def test_every_async_method_of_djangos_base_is_our_own() -> None:
    """Django's own a-methods go through a thread or are not atomic. One that a new release adds is missing here."""
    ours = {name for cls in KeyspaceCache.__mro__ if cls.__module__.startswith("django_keyspace") for name in vars(cls)}
    theirs = {
        name
        for name, method in vars(BaseCache).items()
        if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method)
    }
    assert len(theirs) >= 15
    assert theirs - ours == set()

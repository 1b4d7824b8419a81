"""Which of Django's test classes run, in which suite, and with which settings.

Django's classes are subclassed, never edited: the subclass gets the same settings with its caches moved to the
engine under test. Classes that Django adds later and that no table here names make the run fail, so that nothing is
left out unnoticed.
"""

from __future__ import annotations

import importlib
import inspect
import unittest
from collections.abc import Callable, Iterator
from typing import Any

from . import adapters
from .engines import Engine

LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
DUMMY = "django.core.cache.backends.dummy.DummyCache"

# Django's classes, as they are but for the engine: suite -> module -> classes.
CLASSES: dict[str, dict[str, tuple[str, ...]]] = {
    "cache": {
        "cache.tests": ("CustomCacheKeyValidationTests", "CacheClosingTests", "DefaultNonExpiringCacheKeyTests"),
    },
    "sessions": {
        "sessions_tests.tests": ("CacheSessionTests", "CacheDBSessionTests", "CacheDBSessionWithTimeZoneTests"),
    },
    "middleware": {
        "cache.tests": (
            "CacheUtils",
            "PrefixedCacheUtils",
            "CacheHEADTest",
            "CacheI18nTest",
            "PrefixedCacheI18nTest",
            "CacheMiddlewareTest",
            "TestWithTemplateResponse",
            "TestMakeTemplateFragmentKey",
            "CacheHandlerTest",
        ),
    },
    "fragments": {
        "template_tests.syntax_tests.test_cache": ("CacheTagTests", "CacheTests"),
    },
}
# Suites that are made from Django's mixin `cache.tests.BaseCacheTests`, and the variant of the backend they run on.
MIXIN_SUITES: dict[str, str | None] = {"cache": None, "async": "async"}
SUITES = ("cache", "async", "sessions", "middleware", "fragments")

# At least so many tests must run, so that an empty run is no success (Django 5.2 has 63, 54, 210, 61 and 18).
MIN_TESTS = {"cache": 60, "async": 52, "sessions": 205, "middleware": 58, "fragments": 17}

# Tests of the classes above that can't apply to our backend, with the reason: "Class.test_name" -> why.
NOT_APPLICABLE: dict[str, str] = {}

# Tests that Django itself skips on this platform: "Class.test_name" -> why.
KNOWN_SKIPS: dict[str, str] = {}

# Classes about another backend's inner workings. What all backends share is in BaseCacheTests, which runs.
OTHER_BACKENDS: dict[str, str] = {
    "DummyCacheTests": "says what a backend does that stores nothing",
    "AsyncDummyCacheTests": "says what a backend does that stores nothing",
    "DBCacheTests": "counts DatabaseCache's queries",
    "DBCacheWithTimeZoneTests": "counts DatabaseCache's queries",
    "CreateCacheTableForDBCacheTests": "creates DatabaseCache's table",
    "LocMemCacheTests": "looks into LocMemCache's dicts; its test_multiple_caches runs in suite cache",
    "PyLibMCCacheTests": "options of pylibmc",
    "PyMemcacheCacheTests": "options of pymemcache",
    "FileBasedCacheTests": "looks at FileBasedCache's files",
    "FileBasedCachePathLibTests": "looks at FileBasedCache's files",
    "RedisCacheTests": "looks into redis-py's connection pools",
}
# Modules whose classes must all be in one of the tables; of the others only those with "Cache" in their names.
FULLY_COVERED_MODULES = ("cache.tests", "cache.tests_async")
PARTLY_COVERED_MODULES = ("sessions_tests.tests", "template_tests.syntax_tests.test_cache")


class SuiteMismatch(Exception):
    """Django's tests aren't what the tables here say."""


def build(suite: str, engine: Engine) -> list[type[unittest.TestCase]]:
    """Return the test classes of one suite, with their caches on ``engine``."""
    classes = []
    if suite in MIXIN_SUITES:
        classes.append(_from_mixin(engine, MIXIN_SUITES[suite]))
    if suite == "cache":
        classes.append(_multiple_caches(engine))
    for module_name, names in CLASSES.get(suite, {}).items():
        module = importlib.import_module(module_name)
        for name in names:
            if not hasattr(module, name):
                raise SuiteMismatch(f"Django's {module_name} has no class {name}: adapt the tables in {__name__}.")
            classes.append(_moved(getattr(module, name), engine))
    return classes


def require_full_coverage() -> None:
    """Raise `SuiteMismatch` when Django has a test class, or lacks a test, that the tables don't speak of."""
    named = {name for modules in CLASSES.values() for names in modules.values() for name in names} | set(OTHER_BACKENDS)
    unknown = []
    for module_name in FULLY_COVERED_MODULES + PARTLY_COVERED_MODULES:
        module = importlib.import_module(module_name)
        for name, member in vars(module).items():
            defined_here = inspect.isclass(member) and member.__module__ == module_name
            if not defined_here or not issubclass(member, unittest.TestCase):
                continue
            if name not in named and (module_name in FULLY_COVERED_MODULES or "Cache" in name):
                unknown.append(f"{module_name}.{name}")
    if unknown:
        raise SuiteMismatch(f"Django has test classes that no table in {__name__} names: {', '.join(unknown)}")


def is_wanted(test: unittest.TestCase) -> bool:
    """Whether no table says that this test can't apply."""
    return short_name(test) not in NOT_APPLICABLE


def short_name(test: unittest.TestCase) -> str:
    """Return "Class.test_name" of a test."""
    return ".".join(test.id().split(".")[-2:])


def _from_mixin(engine: Engine, variant: str | None) -> type[unittest.TestCase]:
    """Django's shared tests of a backend, composed exactly as Django composes them for its own backends."""
    from django.test import TestCase, override_settings

    tests = importlib.import_module("cache.tests")
    params = engine.settings("default")
    name = "KeyspaceCacheTests"
    if variant is not None:
        params["BACKEND"] = adapters.path(variant)
        name = f"Keyspace{variant.capitalize()}CacheTests"
    made = type(name, (tests.BaseCacheTests, TestCase), {"__module__": __name__})
    return override_settings(CACHES=tests.caches_setting_for_tests(**params))(made)


def _multiple_caches(engine: Engine) -> type[unittest.TestCase]:
    """The one test of LocMemCacheTests that every backend should pass: two locations don't see each other."""
    from django.test import SimpleTestCase

    tests = importlib.import_module("cache.tests")
    name = "test_multiple_caches"
    body = {"__module__": __name__, name: _moved_method(getattr(tests.LocMemCacheTests, name), engine, LOCMEM)}
    return type("KeyspaceMultipleCachesTests", (SimpleTestCase,), body)


def _moved(django_class: type, engine: Engine) -> type[unittest.TestCase]:
    """Subclass one of Django's test classes so that its caches, also those of single tests, live in ``engine``."""
    from django.test import override_settings

    locmem_becomes = (
        adapters.path("deadlines") if django_class.__name__ == "DefaultNonExpiringCacheKeyTests" else LOCMEM
    )
    body: dict[str, Any] = {"__module__": django_class.__module__, "__doc__": django_class.__doc__}
    for name, function in inspect.getmembers(django_class, inspect.isfunction):
        if name.startswith("test"):
            moved = _moved_method(function, engine, locmem_becomes)
            if moved is not function:
                body[name] = moved
    made = type(django_class.__name__, (django_class,), body)
    # Class-wide settings; Django's SimpleTestCase keeps what override_settings was given in this attribute.
    class_caches = (getattr(django_class, "_overridden_settings", None) or {}).get("CACHES")
    if class_caches is not None:
        made = override_settings(CACHES=_moved_caches(class_caches, engine, locmem_becomes))(made)
    return made


def _moved_method(function: Callable[..., Any], engine: Engine, locmem_becomes: str) -> Callable[..., Any]:
    """Decorate a test again, with moved caches, when Django decorated it with settings that name caches."""
    from django.test import override_settings

    for depth, (layer, decorator) in enumerate(_settings_layers(function)):
        if "CACHES" in decorator.options:
            if depth or layer is not function:
                raise SuiteMismatch(f"{function.__qualname__} names caches below another decorator.")
            options = decorator.options | {"CACHES": _moved_caches(decorator.options["CACHES"], engine, locmem_becomes)}
            return override_settings(**options)(layer.__wrapped__)
    return function


def _settings_layers(function: Callable[..., Any]) -> Iterator[tuple[Any, Any]]:
    """Yield the wrappers of a test that an override_settings made, outermost first, with that override_settings."""
    from django.test import modify_settings, override_settings

    layer: Any = function
    while hasattr(layer, "__wrapped__"):
        decorator = inspect.getclosurevars(layer).nonlocals.get("self")
        if isinstance(decorator, override_settings) and not isinstance(decorator, modify_settings):
            yield layer, decorator
        layer = layer.__wrapped__


def _moved_caches(caches: dict[str, dict[str, Any]], engine: Engine, locmem_becomes: str) -> dict[str, dict[str, Any]]:
    """Return ``CACHES`` with every in-memory backend replaced by the engine's; equal locations stay equal."""
    replacements = {
        LOCMEM: engine.backend if locmem_becomes == LOCMEM else locmem_becomes,
        "cache.liberal_backend.CacheClass": adapters.path("liberal"),
        "cache.closeable_cache.CacheClass": adapters.path("closing"),
        "cache.failing_cache.CacheClass": adapters.path("failing"),
    }
    moved = {}
    for alias, params in caches.items():
        backend = params["BACKEND"]
        if backend == DUMMY:
            moved[alias] = params
        elif backend in replacements:
            store = params.get("LOCATION", "default")
            moved[alias] = params | engine.settings(store) | {"BACKEND": replacements[backend]}
        else:
            raise SuiteMismatch(f"Django's tests name the backend {backend}, which no table in {__name__} replaces.")
    return moved

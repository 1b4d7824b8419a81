"""Set Django up as its own test runner does, run the chosen tests on one engine, and say what came out.

This takes over the whole process (settings, warning filters, a test database), so it runs in one of its own.
"""

from __future__ import annotations

import importlib
import sys
import unittest
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import adapters, suites
from .engines import Engine

INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sites",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.admin.apps.SimpleAdminConfig",
    "django.contrib.staticfiles",
    "cache",
    "sessions_tests",
    "template_tests",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
CONTEXT_PROCESSORS = [
    "django.template.context_processors.request",
    "django.contrib.auth.context_processors.auth",
    "django.contrib.messages.context_processors.messages",
]


class UnknownLabel(Exception):
    """A label on the command line names no suite, class or test."""


@dataclass
class Report:
    """What a run came to; `problems` empty means success."""

    ran: int = 0
    problems: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def run(engine: Engine, tests_folder: Path, labels: list[str], verbosity: int) -> Report:
    """Run Django's tests on a started engine.

    Args:
        engine: where the caches live.
        tests_folder: Django's ``tests`` folder.
        labels: names of suites, ``Class`` or ``Class.test_name``; empty for everything.
        verbosity: 1 prints dots, 2 the name of each test.

    Raises:
        UnknownLabel: a label names nothing.
        SuiteMismatch: Django's tests aren't what the tables in ``suites`` say.
    """
    _set_django_up(engine, tests_folder)
    suites.require_full_coverage()
    _build_variants(engine)
    chosen, tests = _choose(engine, labels)
    leaks: list[str] = []
    sys.unraisablehook = lambda event: leaks.append(f"{event.object!r}: {event.exc_value!r}")
    result = _run_with_database(unittest.TestSuite(tests), verbosity)
    report = Report(ran=result.testsRun)
    broken = [("failed", result.failures), ("ended with an error", result.errors)]
    report.problems += [f"{_name_of(test)} {how}" for how, found in broken for test, _trace in found]
    report.problems += [f"{_name_of(test)} passed, though an error is expected" for test in result.unexpectedSuccesses]
    report.problems += [f"something failed while being thrown away: {leak}" for leak in leaks]
    report.skipped = {_name_of(test): reason for test, reason in result.skipped}
    report.problems += [
        f"{name} was skipped: {reason}" for name, reason in report.skipped.items() if name not in suites.KNOWN_SKIPS
    ]
    least = sum(suites.MIN_TESTS[suite] for suite in chosen)
    if report.ran < least:
        report.problems.append(f"only {report.ran} tests ran, at least {least} belong to {', '.join(chosen)}")
    return report


def _set_django_up(engine: Engine, tests_folder: Path) -> None:
    """Give this process the settings and warning filters of Django's own test runner, with our caches."""
    import django
    from django.conf import settings
    from django.utils import deprecation

    warnings.simplefilter("error", deprecation.RemovedInNextVersionWarning)
    warnings.simplefilter("error", deprecation.RemovedAfterNextVersionWarning)
    warnings.simplefilter("error", ResourceWarning)
    warnings.simplefilter("error", RuntimeWarning)
    sys.path.insert(0, str(tests_folder))
    templates = {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [str(tests_folder / "templates")],
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": CONTEXT_PROCESSORS},
    }
    settings.configure(
        CACHES={"default": engine.settings("default")},
        DATABASES={alias: {"ENGINE": "django.db.backends.sqlite3"} for alias in ("default", "other")},
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        INSTALLED_APPS=INSTALLED_APPS,
        LANGUAGE_CODE="en",
        MIDDLEWARE=MIDDLEWARE,
        MIGRATION_MODULES={"auth": None, "contenttypes": None, "sessions": None},
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        ROOT_URLCONF="urls",
        SECRET_KEY="django_tests_secret_key",
        SITE_ID=1,
        STATIC_URL="static/",
        TEMPLATES=[templates],
        USE_TZ=False,
    )
    django.setup()
    imported_from = Path(str(importlib.import_module("cache.tests").__file__))
    if imported_from != tests_folder / "cache" / "tests.py":
        raise suites.SuiteMismatch(f"cache.tests was imported from {imported_from}, not from Django's tests.")


def _build_variants(engine: Engine) -> None:
    from django.utils.module_loading import import_string

    helpers = {
        "liberal": import_string("cache.liberal_backend.LiberalKeyValidationMixin"),
        "closing": import_string("cache.closeable_cache.CloseHookMixin"),
    }
    adapters.build(import_string(engine.backend), helpers)


def _choose(engine: Engine, labels: list[str]) -> tuple[list[str], list[unittest.TestCase]]:
    """Return the suites that run whole, and all tests that the labels name."""
    chosen: dict[str, unittest.TestCase] = {}
    unused = set(labels)
    whole = [suite for suite in suites.SUITES if not labels or suite in labels]
    for suite in suites.SUITES:
        for test in _tests_of(suites.build(suite, engine)):
            name = suites.short_name(test)
            matching = {suite, name, name.split(".")[0], name.split(".")[1]} & set(labels)
            if (not labels or matching) and suites.is_wanted(test):
                chosen[f"{suite} {name}"] = test
            unused -= matching
    if unused:
        names = ", ".join(sorted(unused))
        raise UnknownLabel(f"No suite ({', '.join(suites.SUITES)}), class or test is called {names}.")
    return whole, list(chosen.values())


def _tests_of(classes: list[type[unittest.TestCase]]) -> Iterator[unittest.TestCase]:
    loader = unittest.TestLoader()
    for test_class in classes:
        for name in loader.getTestCaseNames(test_class):
            yield test_class(name)


def _run_with_database(suite: unittest.TestSuite, verbosity: int) -> unittest.TextTestResult:
    from django.test.runner import DiscoverRunner

    runner = DiscoverRunner(verbosity=verbosity, interactive=False, parallel=1)
    runner.setup_test_environment()
    try:
        databases = runner.setup_databases(aliases={"default": True, "other": False})
        try:
            result: Any = runner.run_suite(suite)
            return result
        finally:
            runner.teardown_databases(databases)
    finally:
        runner.teardown_test_environment()


def _name_of(test: Any) -> str:
    """Return "Class.test_name" with the parameters of a part of a test; of a failure outside of tests, its place."""
    whole = getattr(test, "test_case", None)
    if isinstance(whole, unittest.TestCase):
        return f"{suites.short_name(whole)} {test.id().removeprefix(whole.id()).strip()}"
    return suites.short_name(test) if isinstance(test, unittest.TestCase) else str(test)

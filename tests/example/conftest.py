"""The example site's settings on a fresh store, for one test at a time."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from django.test import Client

PROJECT = Path(__file__).resolve().parents[2] / "example_project"
COPIED = (
    "INSTALLED_APPS",
    "MIDDLEWARE",
    "ROOT_URLCONF",
    "TEMPLATES",
    "SESSION_ENGINE",
    "STATIC_URL",
    "USE_I18N",
    "READER",
    "BASE_DIR",
    "SWITCH",
)

# The site's packages are importable in its own processes because manage.py stands beside them.
sys.path.insert(0, str(PROJECT))
# Its settings would otherwise make a key file for whoever runs the tests.
os.environ.setdefault("DEMO_SECRET_KEY", "only for the tests of the example site")


@pytest.fixture
def site(settings, tmp_path):
    """Put the site's own settings in place, with an empty store; gives the settings for further changes.

    No test here asks for a database, and pytest-django refuses what was not asked for: the site does without one.
    """
    import docsite.settings as ours

    for name in COPIED:
        setattr(settings, name, getattr(ours, name))
    settings.CACHES = {
        alias: {**entry, "LOCATION": str(tmp_path / folder)}
        for (alias, entry), folder in zip(ours.CACHES.items(), ("cache", "records"), strict=True)
    }
    return settings


@pytest.fixture
def browser(site):
    """A visitor of the site."""
    return Client()

"""Django settings for the tests: one cache on an embedded store in a temporary folder of this process."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import tempfile


def _temporary_folder() -> str:
    """Name a folder that goes when this very process exits; a forked child that exits leaves it alone.

    Whoever opens a cache makes it: tools that only read these settings and end without a farewell leave nothing behind.
    """
    folder = os.path.join(tempfile.gettempdir(), f"keyspace-tests-{secrets.token_hex(8)}")
    owner_pid = os.getpid()

    def remove() -> None:
        if os.getpid() == owner_pid:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


SECRET_KEY = "only for the tests of django-keyspace"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django_keyspace",
]
CACHES = {
    "default": {
        "BACKEND": "django_keyspace.backend.KeyspaceCache",
        "LOCATION": _temporary_folder(),
    },
}

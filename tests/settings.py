"""Django settings for the tests: one cache on an embedded store in a temporary folder of this process."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent


def _temporary_folder() -> str:
    """Make a folder that goes when this very process exits; a forked child that exits leaves it alone."""
    folder = tempfile.mkdtemp(prefix="keyspace-tests-")
    owner_pid = os.getpid()

    def remove() -> None:
        if os.getpid() == owner_pid:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


TEMPORARY_FOLDER = _temporary_folder()

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
        "LOCATION": os.path.join(TEMPORARY_FOLDER, "store"),
    },
}

"""What the processes of these tests do. Each function runs in an interpreter of its own: see ``__main__``."""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def say(word: Any) -> None:
    """Tell the test something."""
    print(json.dumps(word), flush=True)


def hear() -> str:
    """Wait for what the test tells. Ends the process if the test has ended."""
    line = sys.stdin.readline()
    if not line:
        os._exit(3)
    return line.strip()


def make_cache(folder: str, **options: Any) -> Any:
    """A cache on an embedded store, as Django would make it."""
    from django.conf import settings

    if not settings.configured:
        settings.configure(SECRET_KEY="only for the tests of many processes", USE_TZ=True)
    from django_keyspace.backend import KeyspaceCache

    return KeyspaceCache(folder, {"TIMEOUT": None, "OPTIONS": options})

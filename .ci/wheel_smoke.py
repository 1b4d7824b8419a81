"""Serve a set and a get from an installed django-keyspace with settings.configure: wheel_smoke.py FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

import django
from django.conf import settings
from django.core.management import call_command

settings.configure(
    SECRET_KEY="only for this check",
    USE_TZ=True,
    INSTALLED_APPS=["django_keyspace"],
    CACHES={"default": {"BACKEND": "django_keyspace.backend.KeyspaceCache", "LOCATION": sys.argv[1]}},
)
django.setup()


def main() -> int:
    """Write two values, read them back, and return 1 when anything is off; a second run also finds what the first left."""
    from django.core.cache import cache

    import django_keyspace

    home = Path(django_keyspace.__file__).resolve()
    if not home.is_relative_to(Path(sys.prefix).resolve()):
        print(f"django_keyspace comes from {home}, which is not the environment under test")
        return 1
    call_command("check", fail_level="ERROR")
    if Path(sys.argv[1]).exists() and cache.get("text") != "value":
        print("what an earlier process wrote is gone")
        return 1
    cache.set("text", "value", 60)
    cache.set("object", {"list": [1, 2.5, None], "set": {1, 2}}, 60)
    got = cache.get("text"), cache.get("object"), cache.get("absent", "default")
    wanted = "value", {"list": [1, 2.5, None], "set": {1, 2}}, "default"
    if got != wanted:
        print(f"got {got!r} instead of {wanted!r}")
        return 1
    if not (Path(sys.argv[1]) / "data.mdb").is_file():
        print(f"there is no store in {sys.argv[1]}")
        return 1
    print(f"django-keyspace {django_keyspace.__version__} on Django {django.__version__}: a set and a get work")
    return 0


if __name__ == "__main__":
    sys.exit(main())

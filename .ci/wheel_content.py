"""Check what a built wheel holds: wheel_content.py WHEEL. It is the package with its type marker, and nothing else."""

from __future__ import annotations

import sys
import zipfile


def problems(names: list[str]) -> list[str]:
    """Return a sentence for everything that a wheel with these file names lacks or should not have."""
    found = [
        f"{name} is missing"
        for name in ("django_keyspace/__init__.py", "django_keyspace/py.typed")
        if name not in names
    ]
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in names):
        found.append("the licence is missing")
    for name in names:
        top = name.split("/", 1)[0]
        if top != "django_keyspace" and not top.endswith(".dist-info"):
            found.append(f"{name} should not be in the wheel")
        elif name.endswith((".mdb", ".pyc", ".sqlite3")):
            found.append(f"{name} was left over by a run")
    return found


if __name__ == "__main__":
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        content = wheel.namelist()
    for problem in problems(content):
        print(problem)
    print(f"{sys.argv[1].rsplit('/', 1)[-1]}: {len(content)} files")
    sys.exit(1 if problems(content) else 0)

#!/usr/bin/env python3
"""Django's command line for the example site of django-keyspace."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the management command that the arguments name."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "docsite.settings")
    try:
        from django.core.management import execute_from_command_line

        import django_keyspace  # noqa: F401 - the settings name it; without it Django's error is a long traceback
    except ImportError as error:
        raise SystemExit(
            f"{error}. Run scripts/demo, which installs what the site needs, or install the project into your "
            "virtual environment: pip install -e ."
        ) from error
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()

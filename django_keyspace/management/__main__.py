"""The commands about nodes without a Django project: ``python -m django_keyspace.management keyspace_status ...``.

They are the same as with ``manage.py``, with settings that have nothing in them but this package.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import django
from django.conf import settings
from django.core.management import ManagementUtility
from django.core.management.base import BaseCommand

COMMANDS: Final = ("keyspace_status", "keyspace_members", "keyspace_cluster", "keyspace_recover")
"""Those that need nothing of a site."""


class _Utility(ManagementUtility):
    def main_help_text(self, commands_only: bool = False) -> str:
        return "\n".join(COMMANDS if commands_only else [f"usage: {self.prog_name} COMMAND [flags]", "", *COMMANDS])

    def fetch_command(self, subcommand: str) -> BaseCommand:
        if subcommand not in COMMANDS:
            sys.stderr.write(
                f"{subcommand!r} is none of {', '.join(COMMANDS)}. Other commands need a site: use its manage.py.\n"
            )
            sys.exit(2)
        return super().fetch_command(subcommand)


def main(arguments: Sequence[str]) -> None:
    """Run a command.

    Arguments:
        arguments: its name and flags.
    """
    if not settings.configured:
        settings.configure(INSTALLED_APPS=["django_keyspace"], USE_TZ=True)
        django.setup()
    utility = _Utility(["python -m django_keyspace.management", *arguments])
    utility.prog_name = utility.argv[0]
    utility.execute()


if __name__ == "__main__":
    main(sys.argv[1:])

"""``manage.py keyspace_node``: run a node, with the flags of ``python -m django_keyspace.node``."""

from __future__ import annotations

import logging
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from django_keyspace.exceptions import ConfigurationError, KeyspaceError
from django_keyspace.node.__main__ import EXIT_CONFIGURATION, EXIT_FAILED, run
from django_keyspace.node.flags import add_arguments, config_from
from django_keyspace.node.logs import set_up_logging


class Command(BaseCommand):
    """Serves until SIGTERM or SIGINT. Flags that are not given come from ``settings.KEYSPACE["NODE"]``."""

    help = "Run a keyspace node: a process that serves one store to clients."
    # The node needs nothing of the site but its settings.
    requires_system_checks = []
    stealth_options = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The node's flags, with the site's defaults."""
        try:
            add_arguments(parser, _site_values())
        except ConfigurationError as error:
            raise CommandError(f'settings.KEYSPACE["NODE"]: {error}', returncode=EXIT_CONFIGURATION) from error

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the node."""
        try:
            config = config_from(options, _site_values())
            if not logging.getLogger("django_keyspace.node").hasHandlers():
                set_up_logging(config.log_format)
            run(config)
        except ConfigurationError as error:
            raise CommandError(f"The node did not start. {error}", returncode=EXIT_CONFIGURATION) from error
        except KeyspaceError as error:
            raise CommandError(f"The node did not start or had to end. {error}", returncode=EXIT_FAILED) from error


def _site_values() -> dict[str, Any]:
    values: dict[str, Any] = getattr(settings, "KEYSPACE", {}).get("NODE", {})
    return values

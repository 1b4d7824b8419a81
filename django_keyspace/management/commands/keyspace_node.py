"""``manage.py keyspace_node``: run a node, with the flags of ``python -m django_keyspace.node``."""

from __future__ import annotations

import logging
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from django_keyspace.exceptions import ConfigurationError, KeyspaceError
from django_keyspace.node.__main__ import EXIT_CONFIGURATION, EXIT_FAILED, add_arguments, config_from, run


class Command(BaseCommand):
    """Serves until SIGTERM or SIGINT. Flags that are not given come from ``settings.KEYSPACE["NODE"]``."""

    help = "Run a keyspace node: a process that serves one store to clients on this machine."
    # The node needs nothing of the site but its settings.
    requires_system_checks = []
    stealth_options = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The node's flags, with the site's defaults."""
        defaults = getattr(settings, "KEYSPACE", {}).get("NODE", {})
        try:
            add_arguments(parser, defaults)
        except ConfigurationError as error:
            raise CommandError(f'settings.KEYSPACE["NODE"]: {error}', returncode=EXIT_CONFIGURATION) from error

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the node."""
        logger = logging.getLogger("django_keyspace.node")
        if not logger.hasHandlers():
            logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        try:
            run(config_from(options))
        except ConfigurationError as error:
            raise CommandError(f"The node did not start. {error}", returncode=EXIT_CONFIGURATION) from error
        except KeyspaceError as error:
            raise CommandError(f"The node did not start or had to end. {error}", returncode=EXIT_FAILED) from error

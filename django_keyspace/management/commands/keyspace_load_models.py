"""``manage.py keyspace_load_models``: store the objects of a dump."""

from __future__ import annotations

import contextlib
import sys
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

from django.core.management.base import BaseCommand, CommandError

from django_keyspace.backend.models.transfer import EXPIRED, KEPT, LOADED, load
from django_keyspace.exceptions import KeyspaceError
from django_keyspace.management.models import check_alias
from django_keyspace.management.progress import Progress


class Command(BaseCommand):
    """Stores line by line, over what is there; the first line that cannot be stored ends it."""

    help = (
        "Store the objects of JSON lines, as keyspace_dump_models writes them, over those that are there. Signals are sent with "
        "raw=True. A line that cannot be stored ends the command; the lines before it are stored."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Its flags."""
        parser.add_argument("files", nargs="+", metavar="FILE", help="Files to read; - is the input.")
        parser.add_argument("--using", help="Alias of CACHES to write to (default: each model's own).")
        parser.add_argument(
            "--keep-existing", action="store_true", help="Leave objects alone whose key is there already."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Load, file by file."""
        if options["using"] is not None:
            check_alias(options["using"])
        tally: Counter[str] = Counter()
        with Progress(self.stderr, "Read", "lines", quiet=options["verbosity"] < 1) as bar:
            for name in options["files"]:
                self._load(name, options, tally, bar)
        if options["verbosity"] >= 1:
            self.stdout.write(self.style.SUCCESS(f"Loaded {tally[LOADED]:,} objects."))
            for reason in (EXPIRED, KEPT):
                if tally[reason]:
                    self.stdout.write(f"Left out {tally[reason]:,}: {reason}.")

    def _load(self, name: str, options: dict[str, Any], tally: Counter[str], bar: Progress) -> None:
        try:
            with _opened(name) as stream:
                for number, line in enumerate(stream, 1):
                    if not line.isspace():
                        tally[self._outcome(name, number, line, options, tally)] += 1
                    bar.advance(1)
        except OSError as error:
            raise CommandError(f"{name} can't be read: {error}. {_before(tally)}") from error

    def _outcome(self, name: str, number: int, line: bytes, options: dict[str, Any], tally: Counter[str]) -> str:
        try:
            return load(line, using=options["using"], keep_existing=options["keep_existing"])
        except KeyspaceError as error:
            where = "the input" if name == "-" else name
            text = str(error).removesuffix(" Nothing was changed.")
            raise CommandError(f"{where}, line {number:,}: {text} {_before(tally)}") from error


@contextlib.contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
        return
    with open(name, "rb") as stream:
        yield stream


def _before(tally: Counter[str]) -> str:
    return f"{tally[LOADED]:,} objects before it are loaded."

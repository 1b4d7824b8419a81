"""``manage.py keyspace_dump_models``: the objects of key-value models as lines of JSON."""

from __future__ import annotations

import contextlib
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from django_keyspace.backend.models.transfer import dumped
from django_keyspace.exceptions import KeyspaceError
from django_keyspace.management.models import storages
from django_keyspace.management.progress import Progress


class Command(BaseCommand):
    """Writes a line per object; a file is there only once it is complete."""

    help = (
        "Write the objects of key-value models as JSON lines, in Django's serialization convention. keyspace_load_models reads "
        "them. The site may go on working meanwhile: each object is as it is when its page is read."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Its flags."""
        parser.add_argument("models", nargs="*", metavar="app.Model", help="Models, or apps; without any: all models.")
        parser.add_argument("--using", help="Alias of CACHES (default: each model's own).")
        parser.add_argument(
            "--output", "-o", metavar="FILE", default="-", help="File to write (default: -, the output)."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Write, model by model."""
        chosen = storages(options["models"], options["using"])
        number = 0
        try:
            with self._writer(options["output"]) as write:
                for storage in chosen:
                    total = storage._run(storage.number_of_records())
                    with Progress(
                        self.stderr, "Wrote", storage.meta.label, total=total, quiet=options["verbosity"] < 1
                    ) as bar:
                        for lines in dumped(storage):
                            if lines:
                                write("\n".join(lines) + "\n")
                            bar.advance(len(lines))
                        number += bar.done
        except OSError as error:
            raise CommandError(f"{options['output']} can't be written: {error}.") from error
        except KeyspaceError as error:
            raise CommandError(f"{error} The dump is not complete.") from error
        if options["verbosity"] >= 1 and options["output"] != "-":
            self.stderr.write(f"{number:,} objects are in {options['output']}.")

    @contextlib.contextmanager
    def _writer(self, output: str) -> Iterator[Callable[[str], Any]]:
        if output == "-":
            yield lambda text: self.stdout.write(text, ending="")
            return
        file = Path(output)
        written = file.with_name(f"{file.name}.new")
        try:
            with written.open("w", encoding="utf-8", newline="\n") as stream:
                yield stream.write
            written.replace(file)
        finally:
            written.unlink(missing_ok=True)

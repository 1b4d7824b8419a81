"""``manage.py keyspace_reindex``: build the indexes of models that were added to ``Meta.indexes`` or ``Meta.unique``."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError

from django_keyspace.backend.models.storage import Storage
from django_keyspace.backend.models.upkeep import DUPLICATE, Drift
from django_keyspace.exceptions import KeyspaceError
from django_keyspace.management.models import key_text, storages
from django_keyspace.management.progress import Progress

_NAMED_MAX: Final = 10
_ATTEMPTS_MAX: Final = 3


class Command(BaseCommand):
    """Visits every object, writes the entries that it lacks, and then says that the indexes are ready."""

    help = (
        "Build the indexes of key-value models that are not ready: after a change of Meta.indexes or Meta.unique. The site may "
        "go on working meanwhile; its queries use an index once it is ready."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Its flags."""
        parser.add_argument("models", nargs="*", metavar="app.Model", help="Models, or apps; without any: all models.")
        parser.add_argument("--using", help="Alias of CACHES (default: each model's own).")
        parser.add_argument("--all", action="store_true", help="Look at models whose indexes are ready, too.")
        parser.add_argument("--mark", metavar="FILE", help="Note in this file how far it came, and go on from there.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Build, model by model."""
        failed = []
        for storage in storages(options["models"], options["using"]):
            label = storage.meta.label
            try:
                storage.forget_schema()
                if not options["all"] and storage._run(storage.ready_indexes()) == set(storage.meta.indexes):
                    self._drop_old_entries(storage)
                    self.stdout.write(f"{label}: nothing to build.")
                    continue
                problems = self._build(storage, options)
            except KeyspaceError as error:
                raise CommandError(f"{label}: {error}") from error
            if problems:
                failed.append(label)
                self._tell(storage, problems)
            else:
                self.stdout.write(
                    self.style.SUCCESS(f"{label}: {', '.join(storage.meta.indexes) or 'no index'} ready.")
                )
        if failed:
            raise CommandError(f"Not ready: {', '.join(failed)}. Mend what is listed, and run the command again.")

    def _build(self, storage: Storage, options: dict[str, Any]) -> list[Drift]:
        mark = _Mark(options["mark"], storage)
        for _ in range(_ATTEMPTS_MAX):
            revision = storage._run(storage.schema_revision())
            last, done = mark.read(revision)
            problems: list[Drift] = []
            total = storage._run(storage.number_of_records())
            with Progress(
                self.stderr, "Indexed", storage.meta.label, total=total, done=done, quiet=options["verbosity"] < 1
            ) as bar:
                while True:
                    page = storage._run(storage.inspect_records(last))
                    for key in dict.fromkeys(drift.key for drift in page.found):
                        problems += storage._run(storage.mend_object(key))
                    bar.advance(page.looked_at)
                    last = page.last
                    if last is None:
                        break
                    if not problems:
                        mark.note(revision, last, bar.done)
            mark.forget()
            self._drop_old_entries(storage)
            if problems:
                return problems
            self._drop_orphans(storage)
            if storage._run(storage.mark_ready(revision)):
                return []
        raise CommandError(
            f"{storage.meta.label}: processes with other indexes in their code go on writing. Nothing was marked as ready. "
            "Restart all processes of the site with the new code, then run the command again."
        )

    def _drop_old_entries(self, storage: Storage) -> None:
        """Delete the entries of indexes that the model has no more."""
        for prefix in storage._run(storage.former_prefixes()):
            while storage._run(storage.drop_former(prefix)):
                pass

    def _drop_orphans(self, storage: Storage) -> None:
        """Delete entries that older code has left behind, which did not know the index: in a unique one they take values."""
        for index in storage.meta.indexes.values():
            last: bytes | None = None
            while True:
                page = storage._run(storage.inspect_entries(index.prefix, last))
                for drift in page.found:
                    storage._run(storage.drop_orphan(drift))
                last = page.last
                if last is None:
                    break

    def _tell(self, storage: Storage, problems: list[Drift]) -> None:
        for drift in problems[:_NAMED_MAX]:
            key = key_text(storage, drift.key)
            if drift.kind == DUPLICATE:
                self.stderr.write(f"{storage.meta.label} {key}: another object has its {drift.index_name}.")
            else:
                self.stderr.write(f"{storage.meta.label} {key}: it cannot be read, or not be indexed.")
        if len(problems) > _NAMED_MAX:
            self.stderr.write(f"and {len(problems) - _NAMED_MAX:,} more")


class _Mark:
    """How far the command came with a model, in a file.

    Arguments:
        path: the file, None for none.
        storage: the model's.
    """

    def __init__(self, path: str | None, storage: Storage) -> None:
        self._file = Path(path) if path else None
        self._name = f"{storage.alias}/{storage.meta.label_lower}"

    def read(self, revision: int) -> tuple[bytes | None, int]:
        """``(last key, objects done)``; from the beginning if the schema is another one than it was."""
        noted = self._noted().get(self._name)
        if noted is None or noted["revision"] != revision:
            return None, 0
        return bytes.fromhex(noted["last"]), noted["done"]

    def note(self, revision: int, last: bytes, done: int) -> None:
        """After a page."""
        if self._file is not None:
            self._write(self._noted() | {self._name: {"revision": revision, "last": last.hex(), "done": done}})

    def forget(self) -> None:
        """When the model is done."""
        if self._file is not None:
            noted = self._noted()
            noted.pop(self._name, None)
            if noted:
                self._write(noted)
            else:
                self._file.unlink(missing_ok=True)

    def _noted(self) -> dict[str, Any]:
        if self._file is None or not self._file.exists():
            return {}
        try:
            noted: dict[str, Any] = json.loads(self._file.read_text())
            for entry in noted.values():
                bytes.fromhex(entry["last"]), int(entry["revision"]), int(entry["done"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CommandError(
                f"{self._file} is no mark of keyspace_reindex ({error!r}). Name another file."
            ) from error
        return noted

    def _write(self, noted: dict[str, Any]) -> None:
        if self._file is not None:
            written = self._file.with_name(f"{self._file.name}.new")
            try:
                written.write_text(json.dumps(noted) + "\n")
                written.replace(self._file)
            except OSError as error:
                raise CommandError(
                    f"The mark {self._file} can't be written: {error}. What was built so far stays."
                ) from error

"""``manage.py keyspace_check_models``: whether the index entries of models are what they should be, and mending them."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError

from django_keyspace.backend.models.storage import Storage
from django_keyspace.backend.models.upkeep import MISSING, Drift, Page
from django_keyspace.backend.twins import Steps
from django_keyspace.exceptions import KeyspaceError
from django_keyspace.management.models import key_text, storages
from django_keyspace.management.progress import Progress

_NAMED_MAX: Final = 10


class Command(BaseCommand):
    """Looks at every record and at every index entry; what looks wrong is looked at again in one consistent view."""

    help = (
        "Look for index entries of key-value models that are missing, wrong or left over, and for records that are no "
        "objects. The site may go on working meanwhile. The exit code is 1 if something was found and not mended."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Its flags."""
        parser.add_argument("models", nargs="*", metavar="app.Model", help="Models, or apps; without any: all models.")
        parser.add_argument("--using", help="Alias of CACHES (default: each model's own).")
        parser.add_argument(
            "--fix", action="store_true", help="Write the entries that objects should have, delete others."
        )
        parser.add_argument("--json", action="store_true", help="Say what was found as JSON, with all that is wrong.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Check, model by model."""
        reports = []
        for storage in storages(options["models"], options["using"]):
            try:
                report = _Report(storage)
                self._check(report, options)
            except KeyspaceError as error:
                raise CommandError(f"{storage.meta.label}: {error}") from error
            reports.append(report)
            if not options["json"]:
                self._tell(report, options["fix"])
        left = sum(report.left for report in reports)
        if options["json"]:
            self.stdout.write(json.dumps({"models": [report.as_json() for report in reports], "left": left}, indent=2))
        if left:
            hint = (
                "Mend what is listed by hand."
                if options["fix"]
                else "With --fix they are mended where that is possible."
            )
            raise CommandError(f"Found and not mended: {left:,}. {hint}")

    def _check(self, report: _Report, options: dict[str, Any]) -> None:
        storage = report.storage
        total = storage._run(storage.number_of_records())
        quiet = options["verbosity"] < 1
        with Progress(self.stderr, "Checked", storage.meta.label, total=total, quiet=quiet) as bar:
            for page in _pages(storage, storage.inspect_records):
                report.note_records(page, options["fix"])
                bar.advance(page.looked_at)
        with Progress(self.stderr, "Checked", f"index entries of {storage.meta.label}", quiet=quiet) as bar:
            for prefix in storage.entry_prefixes():
                for page in _pages(storage, storage.inspect_entries, prefix):
                    report.note_entries(page, options["fix"])
                    bar.advance(page.looked_at)

    def _tell(self, report: _Report, fix: bool) -> None:
        storage, label = report.storage, report.storage.meta.label
        if report.not_ready:
            names = ", ".join(report.not_ready)
            self.stdout.write(f"{label}: {names} not ready; keyspace_reindex builds what is missing.")
        looked_at = f"{report.records:,} objects, {report.entries:,} index entries"
        if not report.found:
            self.stdout.write(self.style.SUCCESS(f"{label}: {looked_at}, all as it should be."))
            return
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in sorted(report.kinds.items()))
        mended = f"; {len(report.found) - report.left:,} mended" if fix else ""
        self.stdout.write(self.style.WARNING(f"{label}: {looked_at}; {kinds}{mended}."))
        for drift in report.found[:_NAMED_MAX]:
            where = f" in index {drift.index_name}" if drift.index_name else ""
            self.stdout.write(f"  {drift.kind}: {key_text(storage, drift.key)}{where}")
        if len(report.found) > _NAMED_MAX:
            self.stdout.write(f"  and {len(report.found) - _NAMED_MAX:,} more (--json lists all)")


class _Report:
    """What was found with one model.

    Arguments:
        storage: the model's.

    Attributes:
        records, entries: how many were looked at.
        found: what is not as it should be, in the order in which it was found.
        left: how much of it is not mended.
        not_ready: names of indexes that are being built: that entries are missing there is no drift.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.records = self.entries = self.left = 0
        self.found: list[Drift] = []
        self._seen: set[bytes] = set()
        storage.forget_schema()
        ready = storage._run(storage.ready_indexes())
        self.not_ready = [name for name in storage.meta.indexes if name not in ready]

    @property
    def kinds(self) -> Counter[str]:
        """How many of each kind."""
        return Counter(drift.kind for drift in self.found)

    def note_records(self, page: Page, fix: bool) -> None:
        """Take in a page of records, and mend it."""
        storage = self.storage
        self.records += page.looked_at
        drifts = [drift for drift in page.found if not (drift.kind == MISSING and drift.index_name in self.not_ready)]
        self.found += drifts
        self._seen.update(drift.entry for drift in drifts if drift.entry)
        if fix:
            for key in dict.fromkeys(drift.key for drift in drifts):
                self.left += len(storage._run(storage.mend_object(key)))
        else:
            self.left += len(drifts)

    def note_entries(self, page: Page, fix: bool) -> None:
        """Take in a page of index entries, and delete those that belong to nobody."""
        storage = self.storage
        self.entries += page.looked_at
        for drift in page.found:
            if fix:
                storage._run(storage.drop_orphan(drift))
            if drift.entry not in self._seen:  # a wrong entry of one object is one too many of another
                self.found.append(drift)
                self.left += not fix

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "model": self.storage.meta.label,
            "using": self.storage.alias,
            "objects": self.records,
            "entries": self.entries,
            "not_ready": self.not_ready,
            "left": self.left,
            "found": [
                {"kind": drift.kind, "index": drift.index_name, "key": key_text(self.storage, drift.key)}
                for drift in self.found
            ],
        }


def _pages(storage: Storage, inspect: Any, *args: Any) -> Iterator[Page]:
    last: bytes | None = None
    while True:
        steps: Steps[Page] = inspect(*args, last)
        page = storage._run(steps)
        yield page
        last = page.last
        if last is None:
            return

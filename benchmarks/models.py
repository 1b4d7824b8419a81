"""Compare key-value models with Django's ORM and peewee, both on SQLite, in one interleaved run.

    python benchmarks/models.py --quick
    python benchmarks/models.py --only embedded,django-orm --measures get,filter --json out.json
    python benchmarks/models.py --budgets

README.md says what takes part and how to read the result.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # The folder above, not this one, has the packages: benchmarks, and the project where it is not installed.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import command, django_setup, model_subjects, report, rounds
from benchmarks.budgets import Budget
from benchmarks.data import Plan, chunks
from benchmarks.measures import Measure, Operation, WrongAnswer
from benchmarks.measures import Subject as Turn
from benchmarks.model_subjects import LOAD, PER_SHELF, SUBJECTS, Subject, article, stored_articles
from benchmarks.servers import Workspace
from benchmarks.works import batch_of

STORED = 100_000
BULK = 10_000
NEW_SHELF, MOVED_SHELF = -1, -2

MEASURES: tuple[Measure, ...] = (
    Measure("create", "new objects", "models"),
    Measure("get", "gets by key", "models"),
    Measure("filter", "10 objects by an index", "models"),
    Measure("save", "an object again, moved in both of its indexes", "models"),
    Measure("bulk_create", "10,000 objects in one call", "bulk_models"),
)
MEASURES_BY_NAME = {measure.name: measure for measure in MEASURES}
DURABILITIES = (("embedded", "django-orm"), ("embedded-commit", "django-orm-full"))

#: Only neighbours in durability are compared: what may lose the last moment in a power cut, and what may not.
BUDGETS: tuple[Budget, ...] = tuple(
    Budget(ours, measure, must, None, to_backend=theirs)
    for ours, theirs in DURABILITIES
    for measure, must in (("get", 0.2), ("filter", 1.0), ("bulk_create", 2.0))
)


class Calls:
    """One measure on the subjects, through their methods."""

    def __init__(self, measure: str, plan: Plan, subjects: dict[str, Subject], stored: int, bulk: int) -> None:
        self._measure, self._plan, self._subjects, self._bulk = measure, plan, subjects, bulk
        self._stored = stored_articles(stored)
        self._operations: dict[str, Operation] = {}

    def prepare(self, turn: Turn) -> None:
        """Make the operation, and see that it does what it says."""
        subject = self._subjects[turn.name]
        make = getattr(self, f"_{self._measure}")
        self._operations[turn.name] = make(subject)

    def batch(self, turn: Turn) -> list[float]:
        """Microseconds per call."""
        return batch_of(self._operations[turn.name], self._plan)

    def close(self) -> None:
        """Nothing is kept."""
        self._operations.clear()

    def _create(self, subject: Subject) -> Operation:
        numbers = itertools.count()
        subject.create(article("new-first", NEW_SHELF, 0))
        _expect(subject.get("new-first").title, article("", 0, 0)["title"])

        def create() -> None:
            number = next(numbers)
            subject.create(article(f"new-{number:07d}", NEW_SHELF, number))

        return Operation(create, [()])

    def _get(self, subject: Subject) -> Operation:
        rows = self._stored[:: max(1, len(self._stored) // 1_000)]
        for row in (rows[0], rows[-1]):
            found = subject.get(row["slug"])
            _expect((found.title, found.shelf, found.published), (row["title"], row["shelf"], row["published"]))
        return Operation(subject.get, [(row["slug"],) for row in rows])

    def _filter(self, subject: Subject) -> Operation:
        shelves = range(0, len(self._stored) // PER_SHELF, 7)
        wanted = sorted(row["slug"] for row in self._stored if row["shelf"] == shelves[1])
        _expect(sorted(found.slug for found in subject.filter(shelves[1])), wanted)
        return Operation(subject.filter, [(shelf,) for shelf in shelves])

    def _save(self, subject: Subject) -> Operation:
        row = article("saved-again", MOVED_SHELF, 0)
        subject.create(row)
        obj, numbers = subject.get("saved-again"), itertools.count(1)

        def move() -> None:
            number = next(numbers)
            obj.shelf, obj.published = MOVED_SHELF - number, article("", 0, number)["published"]

        move()
        subject.save(obj)
        _expect(subject.get("saved-again").shelf, MOVED_SHELF - 1)
        return Operation(lambda: subject.save(obj), [()], before=move)

    def _bulk_create(self, subject: Subject) -> Operation:
        rows = [article(f"bulk-{number:07d}", NEW_SHELF, number) for number in range(self._bulk)]
        slugs = [row["slug"] for row in rows]
        subject.bulk_create(rows)
        _expect(subject.get(slugs[-1]).title, rows[-1]["title"])
        return Operation(lambda: subject.bulk_create(rows), [()], before=lambda: subject.delete_all(slugs))


def _expect(found: object, wanted: object) -> None:
    if found != wanted:
        raise WrongAnswer(f"it answered {found!r:.120} instead of {wanted!r:.120}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for. Returns: 1 where a must is not kept or not shown, otherwise 0."""
    options = parse(arguments)
    with Workspace(options.folder) as workspace:
        try:
            found = run(workspace, options)
        finally:
            _close()
    return command.publish(found, options, BUDGETS)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; its ``plan`` is the Plan that the options make."""
    options = command.parse(
        arguments,
        __doc__,
        subjects=SUBJECTS,
        measures=MEASURES_BY_NAME,
        batch_ms=40.0,
        budgets_help="compare with the ORM of equal durability; exit code 1",
    )
    options.stored, options.bulk = (1_000, 200) if options.quick else (STORED, BULK)
    return options


def run(workspace: Workspace, options: argparse.Namespace) -> report.Report:
    """Start the subjects, fill them, measure, and return the report.

    Arguments: the workspace; the command line.
    """
    caches, databases = model_subjects.caches_and_databases(workspace)
    django_setup.configure(caches, workspace.folder("unused") / "unused.db", databases)
    subjects: dict[str, Subject] = {}
    backends: dict[str, Any] = {}
    for name in options.only:
        title, _, start = SUBJECTS[name]
        row = backends[name] = {"title": title, "state": "present", "versions": model_subjects.versions(name)}
        report.progress(f"{name}: storing {options.stored:,} objects")
        try:
            subjects[name] = start(workspace)
            for some in chunks(stored_articles(options.stored), LOAD):
                subjects[name].bulk_create(some)
        except ImportError as error:
            row |= {"state": "absent", "reason": f"it can't be imported: {error}"}
            report.progress(f"{name}: {row['reason']}")
    backends["redis-om"] = {"title": "", "state": "absent", "versions": {}, "reason": model_subjects.redis_om_reason()}
    found = report.start(options.plan, options.quick, backends, references=("django-orm", "django-orm-full"))
    for name in options.measures:
        measure = MEASURES_BY_NAME[name]
        report.progress(f"{name}: {measure.title}")
        work = Calls(name, options.plan, subjects, options.stored, options.bulk)
        # Each turn of bulk_create stores and deletes twenty thousand objects.
        count = min(options.plan.rounds, 7) if name == "bulk_create" else options.plan.rounds
        rows = rounds.run(work, [Turn(each, each, None) for each in subjects], count, report.progress)
        report.add_measure(found, measure, rows, {})
    return found


def _close() -> None:
    from django.db import connections

    from django_keyspace.store import registry

    connections.close_all()
    registry.shutdown_all()


if __name__ == "__main__":
    sys.exit(main())

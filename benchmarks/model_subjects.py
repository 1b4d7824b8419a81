"""What ``models.py`` drives: the same class in our models, Django's ORM and peewee, each in a file of its own.

An article has a text key, two indexes, and fields without one. A subject has a method per measure; what they are given are
plain values, so that making the object is part of what is timed.
"""

from __future__ import annotations

import datetime
import importlib
from collections.abc import Callable
from typing import Any, Protocol

from benchmarks.django_setup import sqlite
from benchmarks.peers import distribution_version
from benchmarks.servers import Workspace

Row = dict[str, Any]
PER_SHELF = 10
LOAD = 10_000
FIRST_DAY = datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC)


def article(slug: str, shelf: int, number: int) -> Row:
    """The values of an article."""
    return {
        "slug": slug,
        "title": f"Title of article {number} with some words more",
        "author": f"author{number % 97}",
        "score": number / 7,
        "shelf": shelf,
        "published": FIRST_DAY + datetime.timedelta(seconds=number),
    }


def stored_articles(count: int) -> list[Row]:
    """What all subjects hold before they are measured: ten on each shelf."""
    return [article(f"stored-{number:07d}", number % (count // PER_SHELF), number) for number in range(count)]


class Subject(Protocol):
    """What is measured of each."""

    def create(self, row: Row) -> Any:
        """Store a new object."""

    def get(self, slug: str) -> Any:
        """The object with a key."""

    def filter(self, shelf: int) -> list[Any]:
        """The objects of a shelf, through its index."""

    def bulk_create(self, rows: list[Row]) -> Any:
        """Store many new objects in one call."""

    def delete_all(self, slugs: list[str]) -> None:
        """Delete objects; never timed."""

    def save(self, obj: Any) -> None:
        """Store an object again."""


class DjangoLike:
    """Our models and Django's: the same calls, which is the point of the former."""

    def __init__(self, model: Any, alias: str) -> None:
        self.model, self.alias = model, alias
        self.objects = model._default_manager.all() if alias == "" else model._default_manager.using(alias)

    def create(self, row: Row) -> Any:
        return self.objects.create(**row)

    def get(self, slug: str) -> Any:
        return self.objects.get(slug=slug)

    def filter(self, shelf: int) -> list[Any]:
        return list(self.objects.filter(shelf=shelf))

    def bulk_create(self, rows: list[Row]) -> Any:
        model = self.model
        return self.objects.bulk_create([model(**row) for row in rows])

    def delete_all(self, slugs: list[str]) -> None:
        self.objects.filter(slug__startswith=slugs[0].partition("-")[0]).delete()

    def save(self, obj: Any) -> None:
        obj.save()


class Ours(DjangoLike):
    """A key-value model; ``get`` by the manager, as a site has it."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, "")
        self.objects = model.objects

    def delete_all(self, slugs: list[str]) -> None:
        self.objects.filter(slug__in=slugs).delete()


def _our_model(alias: str) -> Any:
    from django.db import models as f

    from django_keyspace import kv

    class Meta:
        app_label = "benchmarks"
        using = alias
        key = "slug"
        indexes = ("shelf", "published")
        prefix = f"article-{alias}"

    return type(f"Article{''.join(filter(str.isalnum, alias)).title()}", (kv.Model,), {**_fields(f), "Meta": Meta})


def _fields(f: Any, key: dict[str, Any] | None = None, index: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "__module__": __name__,
        "slug": f.CharField(max_length=60, **(key or {})),
        "title": f.CharField(max_length=100),
        "author": f.CharField(max_length=40),
        "score": f.FloatField(),
        "shelf": f.IntegerField(**(index or {})),
        "published": f.DateTimeField(**(index or {})),
    }


class DjangoOrm(DjangoLike):
    """Django's own models, with the table made on one database."""

    _model: Any = None

    def __init__(self, alias: str) -> None:
        from django.db import connections, models

        if DjangoOrm._model is None:
            meta = type("Meta", (), {"app_label": "benchmarks"})
            attributes = _fields(models, {"primary_key": True}, {"db_index": True})
            DjangoOrm._model = type("Article", (models.Model,), {**attributes, "Meta": meta})
        with connections[alias].schema_editor() as editor:
            editor.create_model(DjangoOrm._model)
        super().__init__(DjangoOrm._model, alias)


class Peewee:
    """peewee on a file with a log written ahead, as its documentation has it under a web site."""

    def __init__(self, workspace: Workspace) -> None:
        import peewee

        file = workspace.folder("peewee") / "articles.db"
        self.database = peewee.SqliteDatabase(str(file), pragmas={"journal_mode": "wal", "synchronous": "normal"})
        meta = type("Meta", (), {"database": self.database})
        fields = {
            "slug": peewee.CharField(max_length=60, primary_key=True),
            "title": peewee.CharField(max_length=100),
            "author": peewee.CharField(max_length=40),
            "score": peewee.FloatField(),
            "shelf": peewee.IntegerField(index=True),
            "published": peewee.DateTimeField(index=True),
        }
        self.model = type("Article", (peewee.Model,), {**fields, "Meta": meta})
        self.database.create_tables([self.model])

    def create(self, row: Row) -> Any:
        return self.model.create(**row)

    def get(self, slug: str) -> Any:
        return self.model.get_by_id(slug)

    def filter(self, shelf: int) -> list[Any]:
        return list(self.model.select().where(self.model.shelf == shelf))

    def bulk_create(self, rows: list[Row]) -> Any:
        model = self.model
        with self.database.atomic():
            # As many rows as SQLite takes parameters in one statement.
            model.bulk_create([model(**row) for row in rows], batch_size=5_000)

    def delete_all(self, slugs: list[str]) -> None:
        self.model.delete().where(self.model.slug.startswith(slugs[0].partition("-")[0])).execute()

    def save(self, obj: Any) -> None:
        obj.save()


#: What takes part: (what it is, distributions whose versions are told, function that starts it).
SUBJECTS: dict[str, tuple[str, tuple[str, ...], Callable[[Workspace], Subject]]] = {
    "embedded": (
        "our models in a folder, interval",
        ("django-keyspace", "lmdb"),
        lambda _: Ours(_our_model("embedded")),
    ),
    "embedded-commit": ("the same, fsync in each write", (), lambda _: Ours(_our_model("embedded-commit"))),
    "django-orm": ("Django's ORM on SQLite, WAL, synchronous=normal", ("Django",), lambda _: DjangoOrm("normal")),
    "django-orm-full": ("the same, synchronous=full: fsync in each write", (), lambda _: DjangoOrm("full")),
    "peewee": ("peewee on SQLite, WAL, synchronous=normal", ("peewee",), Peewee),
}


def caches_and_databases(workspace: Workspace) -> tuple[dict[str, Any], dict[str, Any]]:
    """The aliases and databases that the subjects need."""
    durability = {"embedded": "interval", "embedded-commit": "commit"}
    caches = {
        alias: {
            "BACKEND": "django_keyspace.backend.KeyspaceCache",
            "LOCATION": str(workspace.folder(alias)),
            "OPTIONS": {"durability": each, "evictable": False, "max_bytes": 4 << 30},
        }
        for alias, each in durability.items()
    }
    files = workspace.folder("sqlite")
    return caches, {name: sqlite(files / f"{name}.db", name) for name in ("normal", "full")}


def versions(name: str) -> dict[str, str]:
    """The versions of what a subject is made of."""
    return {distribution: distribution_version(distribution) for distribution in SUBJECTS[name][1]}


def redis_om_reason() -> str:
    """Why redis-om is not measured."""
    try:
        importlib.import_module("redis_om")
    except ImportError as error:
        return f"redis-om can't be imported: {error}"
    return "redis-om's indexes need a Redis with search and JSON, and the servers that are started here have neither"

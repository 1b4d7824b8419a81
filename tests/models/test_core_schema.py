"""What is stored, and what becomes of it when the class changes: fields come and go, versions, indexes that are new."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from django.db import models as f

from django_keyspace import kv
from django_keyspace.backend.models import registry
from django_keyspace.exceptions import DamagedStore, InvalidArgument
from django_keyspace.store.record import Tag, payload_of
from tests.contract.engines import Place
from tests.models.drift import drift, listed

Ask = Callable[..., Any]


def define(**attributes: Any) -> Any:
    """A model ``schema.Book`` as the code has it at some time: the same objects, another class."""
    meta = {"app_label": "schema", "key": "title", **attributes.pop("meta", {})}
    fields = {"title": f.CharField(max_length=50), "pages": f.IntegerField(default=0), **attributes}
    body = {"__module__": __name__, "__qualname__": "Book", "Meta": type("Meta", (), meta), **fields}
    return type(kv.Model)("Book", (kv.Model,), body)


@pytest.fixture(autouse=True)
def forget() -> Any:
    yield
    registry.forget(registry.get_model("schema.book"))


def stored(alias: Place, model: Any) -> dict[str, Any]:
    """The stored map of the only object."""
    (record,) = listed(alias.engine, model._storage().database, model._meta.record_prefix).values()
    assert record[0] == Tag.MSGPACK
    return msgpack.unpackb(payload_of(record))


def test_the_stored_form_can_be_read_without_the_class(alias: Place) -> None:
    book = define(
        price=f.DecimalField(max_digits=6, decimal_places=2, null=True),
        printed=f.DateField(null=True),
        seen=f.DateTimeField(null=True),
        length=f.DurationField(null=True),
        number=f.UUIDField(null=True),
        cover=f.BinaryField(null=True),
        more=f.JSONField(default=dict),
    )
    book.objects.create(
        title="Emma", price="7.5", printed="1815-12-23", seen="2024-01-02T03:04:05+02:00", length="0:00:01",
        number="12345678-1234-5678-1234-567812345678", cover=b"\0\1", more={"tags": [1, None, "x"]},
    )  # fmt: skip
    assert stored(alias, book) == {
        "title": "Emma",
        "pages": 0,
        "price": "7.50",
        "printed": "1815-12-23",
        "seen": "2024-01-02T01:04:05+00:00",
        "length": 1_000_000,
        "number": "12345678-1234-5678-1234-567812345678",
        "cover": b"\0\1",
        "more": {"tags": [1, None, "x"]},
    }


def test_fields_come_and_go(alias: Place, ask: Ask) -> None:
    define(author=f.CharField(max_length=50)).objects.create(title="Emma", pages=5, author="Jane")
    book = define(shelf=f.IntegerField(default=9))
    emma = ask(book.objects, "get", pk="Emma")
    assert emma.shelf == 9 and not hasattr(emma, "author")
    emma.pages = 6
    ask(emma, "save")
    assert stored(alias, book) == {"title": "Emma", "pages": 6, "author": "Jane", "shelf": 9}
    ask(emma, "incr", "pages")
    assert book.objects.filter(shelf=9).update(shelf=3) == 1
    book.objects.bulk_update([emma], ["pages"])
    ask(book(title="Emma", shelf=4), "save", force=True)
    assert stored(alias, book)["author"] == "Jane"
    assert define(author=f.CharField(max_length=50)).objects.get().author == "Jane"


def test_versions(alias: Place, ask: Ask) -> None:
    define(name=f.CharField(max_length=50)).objects.create(title="Emma", name="Austen, Jane")
    seen = []

    def upgrade(cls: Any, data: dict[str, Any], version: int) -> dict[str, Any]:
        seen.append(version)
        last, _, first = data.pop("name").partition(", ")
        return {**data, "first": first, "last": last}

    new = {"first": f.CharField(max_length=50), "last": f.CharField(max_length=50)}
    book = define(**new, upgrade=classmethod(upgrade), meta={"version": 2})
    emma = ask(book.objects, "get", pk="Emma")
    assert (emma.first, emma.last, seen) == ("Jane", "Austen", [1])
    assert list(book.objects.values_list("last", flat=True)) == ["Austen"]
    assert [each.pk for each in book.objects.filter(first="Jane")] == ["Emma"]
    assert "name" in stored(alias, book)  # reading writes nothing
    ask(emma, "save")
    assert stored(alias, book) == {"title": "Emma", "pages": 0, "first": "Jane", "last": "Austen", "@version": 2}
    seen.clear()
    assert book.objects.get().first == "Jane" and seen == []
    ask(emma, "incr", "pages")
    assert stored(alias, book)["@version"] == 2


def test_an_upgrade_may_change_what_is_indexed(alias: Place, ask: Ask) -> None:
    indexed = {"indexes": ["pages"]}
    define(meta=indexed).objects.create(title="Emma", pages=5)

    def upgrade(cls: Any, data: dict[str, Any], version: int) -> dict[str, Any]:
        return {**data, "pages": data["pages"] * 10}

    book = define(upgrade=classmethod(upgrade), meta={**indexed, "version": 2})
    emma = book.objects.get(pk="Emma")
    ask(emma, "save")
    assert emma.pages == 50 and drift(alias.engine, book) == []
    ask(emma, "delete")
    assert drift(alias.engine, book) == []


def test_an_upgrade_must_answer_data(alias: Place, ask: Ask) -> None:
    define().objects.create(title="Emma")
    book = define(upgrade=classmethod(lambda cls, data, version: None), meta={"version": 2})
    with pytest.raises(InvalidArgument, match=r"schema.Book.upgrade\(\) must return the data as a dict"):
        ask(book.objects, "get", pk="Emma")


def test_an_older_class_keeps_what_a_newer_one_wrote(alias: Place, ask: Ask) -> None:
    define(first=f.CharField(max_length=9, default=""), meta={"version": 2}).objects.create(title="Emma", first="Jane")
    old = define()
    ask(old.objects.get(), "incr", "pages")
    assert stored(alias, old) == {"title": "Emma", "pages": 1, "first": "Jane", "@version": 2}


def test_a_new_index_is_not_used_before_it_is_complete(alias: Place, ask: Ask) -> None:
    define().objects.create(title="Emma", pages=5)
    book = define(meta={"indexes": ["pages"]})
    assert [each.pk for each in book.objects.filter(pages=5)] == ["Emma"]  # found without it
    ask(book(title="Persuasion", pages=5), "save")  # in the index from now on
    assert [each.pk for each in book.objects.filter(pages=5)] == ["Emma", "Persuasion"]
    storage = book._storage()
    assert storage._run(storage.ready_indexes()) == frozenset()
    book.objects.all().delete()
    assert drift(alias.engine, book) == []


def test_a_class_that_does_not_know_an_index_drops_it(alias: Place, ask: Ask) -> None:
    indexed = define(meta={"indexes": ["pages"]})
    indexed.objects.create(title="Emma", pages=5)
    plain = define()
    ask(plain.objects.get(), "incr", "pages")  # behind the index's back, if it were still trusted
    again = define(meta={"indexes": ["pages"]})
    assert [each.pk for each in again.objects.filter(pages=6)] == ["Emma"]
    assert list(again.objects.filter(pages=5)) == []
    storage = again._storage()
    assert storage._run(storage.ready_indexes()) == frozenset()


def test_an_entry_of_somebody_else_is_left_alone_while_an_index_is_built(alias: Place, ask: Ask) -> None:
    before = define()
    before.objects.bulk_create([before(title=title, pages=5) for title in ("a", "b", "c", "d")])
    book = define(meta={"unique": ["pages"]})
    first, *others = book.objects.all()
    ask(first, "save")  # the first of those with the value gets the entry
    for other in others:
        with pytest.raises(kv.DuplicateValue):
            ask(other, "save")
    ask(others[0], "delete")
    assert ask(others[1], "touch", 100) and book.objects.filter(pk="d").delete()[0] == 1
    others[1].pages = 6
    ask(others[1], "save")
    with pytest.raises(kv.DuplicateValue):
        ask(book(title="e", pages=5), "save")
    assert drift(alias.engine, book) == []


def test_another_version_has_indexes_built_again(alias: Place, ask: Ask) -> None:
    indexed = {"indexes": ["pages"]}
    define(meta=indexed).objects.create(title="Emma", pages=5)

    def upgrade(cls: Any, data: dict[str, Any], version: int) -> dict[str, Any]:
        return {**data, "pages": data["pages"] * 10}

    book = define(upgrade=classmethod(upgrade), meta={**indexed, "version": 2})
    assert [each.pk for each in book.objects.filter(pages=50)] == ["Emma"]  # not by the index, which has 5
    assert list(book.objects.filter(pages=5)) == []


def test_a_record_of_something_else_is_told(alias: Place, ask: Ask) -> None:
    book = define()
    key = book._storage().record_key(book._meta.make_key("Emma"))
    for payload in (b"\xc1", msgpack.packb([1])):
        alias.engine.execute("set", book._storage().database, key, (int(Tag.MSGPACK), 0, payload), None, "always")
        with pytest.raises(DamagedStore, match=r"is no object of schema.Book"):
            ask(book.objects, "get", pk="Emma")

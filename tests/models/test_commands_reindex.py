"""``keyspace_reindex``: indexes that come later hold everything, whatever happens while they are built."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import models as f

from django_keyspace import kv
from django_keyspace.backend.models import registry, upkeep
from django_keyspace.backend.models.storage import Storage
from django_keyspace.store.record import Tag
from tests.models.drift import drift, listed

pytestmark = pytest.mark.usefixtures("embedded_alias")
PAGE_ROWS = 10


def define(*, meta: dict[str, Any] | None = None, **fields: Any) -> Any:
    """A model ``reindex.Book`` as the code has it at some time: the same objects, another class."""
    options = {"app_label": "reindex", "key": "title", **(meta or {})}
    fields = {"title": f.CharField(max_length=50), "pages": f.IntegerField(default=0, null=True), **fields}
    body = {"__module__": __name__, "__qualname__": "Book", "Meta": type("Meta", (), options), **fields}
    return type(kv.Model)("Book", (kv.Model,), body)


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(upkeep, "PAGE_ROWS", PAGE_ROWS)
    yield
    registry.forget(registry.get_model("reindex.book"))


def books(number: int, **meta: Any) -> None:
    """So many objects of a class without the index."""
    made = define(meta=meta)
    made.objects.bulk_create([made(title=f"b{position:03}", pages=position % 7) for position in range(number)])


def reindex(**options: Any) -> str:
    out, err = io.StringIO(), io.StringIO()
    try:
        call_command("keyspace_reindex", "reindex.Book", stdout=out, stderr=err, no_color=True, **options)
    except CommandError as error:
        raise CommandError(f"{error}\n{err.getvalue()}") from error
    return out.getvalue() + err.getvalue()


def ready(model: Any) -> frozenset[str]:
    storage = model._storage()
    storage.forget_schema()
    return storage._run(storage.ready_indexes())


def is_sound(model: Any) -> bool:
    return drift(model._storage().runtime.engine, model) == []


def test_a_new_index_gets_all_objects() -> None:
    books(35)
    book = define(meta={"indexes": ["pages"]})
    assert ready(book) == frozenset()
    assert "index" not in book.objects.filter(pages=3).explain()
    assert reindex() == "reindex.Book: pages ready.\n"
    assert ready(book) == {"pages"} and is_sound(book)
    assert "index" in book.objects.filter(pages=3).explain()
    assert [obj.pk for obj in book.objects.filter(pages=3)] == ["b003", "b010", "b017", "b024", "b031"]
    assert reindex() == "reindex.Book: nothing to build.\n"
    assert reindex(all=True) == "reindex.Book: pages ready.\n"


def test_objects_that_lack_the_field() -> None:
    """They get its default, and it is stored: one that is worked out anew each time must not leave entries behind."""
    books(15)
    numbers = iter(range(1000))
    book = define(shelf=f.IntegerField(default=lambda: next(numbers)), meta={"indexes": ["shelf"]})
    reindex()
    assert ready(book) == {"shelf"} and is_sound(book)
    shelves = dict(book.objects.values_list("title", "shelf"))
    assert len(set(shelves.values())) == 15 and dict(book.objects.values_list("title", "shelf")) == shelves
    emma = book.objects.get(shelf=shelves["b004"])
    assert emma.pk == "b004"
    emma.update(shelf=5000)
    assert is_sound(book) and book.objects.filter(shelf=shelves["b004"]).count() == 0


def test_deadlines_are_those_of_the_objects() -> None:
    books(3)
    book = define(meta={"indexes": ["pages"]})
    book.objects.get(pk="b001").touch(600)
    reindex()
    assert is_sound(book) and book.objects.get(pk="b001").ttl() > 500


def test_duplicates_are_listed_and_nothing_is_ready() -> None:
    books(25)  # pages 0 to 6, and so on: 18 have what another one has
    book = define(meta={"indexes": ["title"], "unique": ["pages"]})
    with pytest.raises(CommandError) as caught:
        reindex()
    said = str(caught.value)
    assert "Not ready: reindex.Book. Mend what is listed, and run the command again." in said
    assert "reindex.Book 'b007': another object has its pages." in said and "and 8 more" in said
    assert ready(book) == frozenset()
    for obj in book.objects.filter(title__gte="b007"):
        obj.update(pages=None)
    assert reindex() == "reindex.Book: pages, title ready.\n"
    assert ready(book) == {"pages", "title"} and is_sound(book)


def test_records_that_are_no_objects_are_listed() -> None:
    books(3)
    book = define(meta={"indexes": ["pages"]})
    storage = book._storage()
    key = storage.record_key(book._meta.make_key("b001"))
    storage._do("set", storage.database, key, (int(Tag.MSGPACK), 0, b"\xc1"), None, "always")
    with pytest.raises(CommandError, match=r"reindex\.Book 'b001': it cannot be read"):
        reindex()
    assert ready(book) == frozenset()


class Killed(BaseException):
    """As a signal would end the command."""


@pytest.fixture
def visits(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Counts pages; ``visits.kill_at`` ends the command before that page, ``visits.between`` runs after each."""

    class Visits:
        pages = 0
        kill_at: int | None = None
        between: Any = None

    visits, inspect = Visits(), Storage.inspect_records

    def counted(self: Storage, last: bytes | None) -> Any:
        visits.pages += 1
        if visits.pages == visits.kill_at:
            raise Killed
        page = yield from inspect(self, last)
        if visits.between:
            visits.between(visits.pages)
        return page

    monkeypatch.setattr(Storage, "inspect_records", counted)
    return visits


def test_it_goes_on_where_it_was_killed(visits: Any, tmp_path: Path) -> None:
    books(48)
    book = define(meta={"indexes": ["pages"]})
    mark = tmp_path / "mark"
    visits.kill_at = 4
    with pytest.raises(Killed):
        reindex(mark=str(mark))
    (noted,) = json.loads(mark.read_text()).values()
    assert noted["done"] == 30 and bytes.fromhex(noted["last"]).endswith(book._meta.make_key("b029"))
    assert ready(book) == frozenset()
    book(title="a before it", pages=3).save()  # written behind the place where it was
    visits.pages, visits.kill_at = 0, None
    reindex(mark=str(mark))
    assert visits.pages == 2  # of five
    assert ready(book) == {"pages"} and is_sound(book)
    assert not mark.exists() and list(tmp_path.glob("*.new")) == []


def test_a_mark_of_another_schema_is_not_used(visits: Any, tmp_path: Path) -> None:
    books(28)
    define(meta={"indexes": ["pages"]})
    mark = tmp_path / "mark"
    visits.kill_at = 3
    with pytest.raises(Killed):
        reindex(mark=str(mark))
    visits.pages, visits.kill_at = 0, None
    define().objects.get(pk="b000").update(pages=99)  # a process with the old code
    book = define(meta={"indexes": ["pages"]})
    reindex(mark=str(mark))
    assert visits.pages == 3 and is_sound(book)


@pytest.mark.parametrize("text", ["nonsense", '{"source": "redis://x", "mark": "5"}', "[]", '{"a": {"last": "00"}}'])
def test_files_that_are_no_marks(tmp_path: Path, text: str) -> None:
    books(3)
    book = define(meta={"indexes": ["pages"]})
    mark = tmp_path / "mark"
    mark.write_text(text)
    with pytest.raises(CommandError, match="is no mark of keyspace_reindex"):
        reindex(mark=str(mark))
    assert mark.read_text() == text and ready(book) == frozenset()


def test_a_mark_that_cannot_be_written(tmp_path: Path) -> None:
    books(15)
    define(meta={"indexes": ["pages"]})
    with pytest.raises(CommandError, match="can't be written"):
        reindex(mark=str(tmp_path / "no" / "mark"))


def test_old_code_that_writes_meanwhile_is_noticed(visits: Any) -> None:
    """Each attempt begins anew, and after three of them the command gives up."""
    books(28)
    old, book = define(), define(meta={"indexes": ["pages"]})
    visits.between = lambda page: old.objects.get(pk="b000").update(pages=page + 100)
    with pytest.raises(CommandError, match="Restart all processes of the site with the new code"):
        reindex()
    assert visits.pages == 9 and ready(book) == frozenset()
    visits.between = None
    reindex()
    assert ready(book) == {"pages"} and is_sound(book)


def test_writers_meanwhile() -> None:
    books(150)
    book = define(meta={"indexes": ["pages"], "unique": [("pages", "title")]})
    done, failures = threading.Event(), []

    def write() -> None:
        number = 0
        try:
            while not done.is_set() or number < 50:
                number += 1
                book(title=f"b{number * 37 % 200:03}", pages=number % 5).save(force=True)
                book.objects.filter(title=f"b{number * 11 % 200:03}").update(pages=kv.F("pages") + 1)
                book.objects.filter(title=f"b{number * 17 % 200:03}").delete()
        except Exception as error:  # the test must hear of it
            failures.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        said = reindex()
    finally:
        done.set()
        writer.join(60)
    assert failures == [] and not writer.is_alive()
    assert said == "reindex.Book: pages,title, pages ready.\n"
    assert ready(book) == {"pages", "pages,title"} and is_sound(book)


@pytest.mark.parametrize("written", [False, True])
def test_entries_of_removed_indexes_vanish(written: bool) -> None:
    books(25, indexes=["pages", ("pages", "title")], unique=[("title", "pages")])
    book = define(meta={"indexes": [("pages", "title")]})
    if written:  # then the schema says nothing of the others any more
        book.objects.get(pk="b000").update(pages=8)
    engine, database = book._storage().runtime.engine, book._storage().database
    assert len(listed(engine, database, b"i")) == 50
    assert reindex() == "reindex.Book: nothing to build.\n"
    assert len(listed(engine, database, b"i")) == 25 and listed(engine, database, b"u") == {}
    assert is_sound(book) and ready(book) == {"pages,title"}
    book = define()
    reindex()
    assert listed(engine, database, b"i") == {} and book.objects.count() == 25

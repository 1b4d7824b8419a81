"""``keyspace_dump_models`` and ``keyspace_load_models``: what is written comes back, and bad lines are told."""

from __future__ import annotations

import datetime
import io
import json
import sys
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import models as f

from django_keyspace import kv
from django_keyspace.backend.models import registry, upkeep
from tests.models.drift import drift
from tests.models.samples import Note, Person, Visit, people

pytestmark = pytest.mark.usefixtures("embedded_alias")
MOMENT = datetime.datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=datetime.UTC)
HOUR = datetime.timedelta(hours=1)


@pytest.fixture
def everything() -> Iterator[Any]:
    """A model with a field of every kind."""

    class Everything(kv.Model):
        name = f.CharField(max_length=30)
        moment = f.DateTimeField(null=True)
        day = f.DateField(null=True)
        time = f.TimeField(null=True)
        length = f.DurationField(null=True)
        price = f.DecimalField(max_digits=8, decimal_places=3, null=True)
        weight = f.FloatField(null=True)
        number = f.BigIntegerField(null=True)
        yes = f.BooleanField(null=True)
        identity = f.UUIDField(null=True)
        data = f.BinaryField(null=True)
        tags = f.JSONField(null=True)
        text = f.TextField(null=True)
        address = f.GenericIPAddressField(null=True)
        file = f.FileField(null=True)
        touched = f.DateTimeField(auto_now=True)

        class Meta:
            app_label = "transfer"
            key = "name"
            indexes = ["moment", "length"]

    yield Everything
    registry.forget(Everything)


def dump(*labels: str, **options: Any) -> list[dict[str, Any]]:
    out = io.StringIO()
    call_command("keyspace_dump_models", *labels, stdout=out, stderr=io.StringIO(), **options)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def load(*files: Any, **options: Any) -> str:
    out = io.StringIO()
    call_command("keyspace_load_models", *map(str, files), stdout=out, stderr=io.StringIO(), no_color=True, **options)
    return out.getvalue()


@pytest.fixture
def written(tmp_path: Path) -> Any:
    """Writes lines into a file."""

    def write(*lines: Any) -> Path:
        file = tmp_path / "objects.jsonl"
        texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
        file.write_bytes(b"\n".join(texts) + b"\n")
        return file

    return write


def note(pk: Any, **more: Any) -> dict[str, Any]:
    return {"model": "samples.note", "pk": pk, "fields": {"text": f"note {pk}"}, **more}


def test_every_field_comes_back(everything: Any, tmp_path: Path) -> None:
    values = {
        "moment": MOMENT,
        "day": datetime.date(1815, 12, 23),
        "time": datetime.time(1, 2, 3, 456789),
        "length": datetime.timedelta(days=-1, microseconds=7),
        "price": Decimal("12.340"),
        "weight": 0.1,
        "number": -(2**63),
        "yes": False,
        "identity": uuid.UUID(int=7),
        "data": b"\0\xff",
        "tags": {"a": [1, None, "ü\n\u2028"]},
        "text": 'line\nline "\u2028" ü',
        "address": "::1",
        "file": "some/file.txt",
    }
    everything(name="full", **values).save()
    everything(name="empty").save()
    touched = {obj.pk: obj.touched for obj in everything.objects.all()}
    file = tmp_path / "dump.jsonl"
    call_command("keyspace_dump_models", "transfer", output=str(file), stderr=io.StringIO())
    assert file.read_bytes().count(b"\n") == 2 and list(tmp_path.glob("*.new")) == []
    everything.objects.all().delete()
    assert load(file) == "Loaded 2 objects.\n"
    full, empty = everything.objects.get(pk="full"), everything.objects.get(pk="empty")
    assert {name: getattr(full, name) for name in values} == values
    assert type(full.price) is Decimal and str(full.price) == "12.340"
    assert [getattr(empty, name) or None for name in values] == [None] * len(values)
    assert {obj.pk: obj.touched for obj in (full, empty)} == touched  # stored as it was, without auto_now
    assert [obj.pk for obj in everything.objects.filter(moment=MOMENT)] == ["full"]
    assert drift(everything._storage().runtime.engine, everything) == []


def test_the_lines_are_those_of_django() -> None:
    Note(id=7, text="seven", rank=3).save()
    Visit(day=datetime.date(2024, 1, 2), number=5, page="/").save()
    assert dump("samples.Note", "samples.visit") == [
        {"model": "samples.note", "pk": 7, "fields": {"text": "seven", "rank": 3}},
        {"model": "samples.visit", "pk": ["2024-01-02", 5], "fields": {"page": "/"}},
    ]


def test_all_models_in_pages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, only_models: Any) -> None:
    only_models("samples")
    monkeypatch.setattr(upkeep, "PAGE_ROWS", 5)
    before = [(obj.pk, obj.email, obj.seen, obj.balance, obj.tags) for obj in people()]
    Visit(day=datetime.date(2024, 1, 2), number=5, page="/").save()
    file = tmp_path / "all.jsonl"
    err = io.StringIO()
    call_command("keyspace_dump_models", output=str(file), stderr=err)
    assert err.getvalue() == f"13 objects are in {file}.\n"
    load(file, using="other")
    assert [obj.page for obj in Visit.objects.using("other").all()] == ["/"]
    found = Person.objects.using("other").order_by("name")
    assert [(obj.pk, obj.email, obj.seen, obj.balance, obj.tags) for obj in found] == before
    assert dump("samples", using="other") == dump("samples")


def test_timeouts(written: Any) -> None:
    storage = Note._storage()
    Note(id=1).save(timeout=3600)
    Note(id=2).save()
    soon, never = dump("samples.note")
    deadline = datetime.datetime.fromisoformat(soon["expires"])
    assert deadline.timestamp() * 1000 == pytest.approx(Note.objects.get(pk=1)._state.deadline_ms, abs=0.5)
    assert "expires" not in never
    past = {"expires": (deadline - 2 * HOUR).isoformat()}
    said = load(written(soon | {"pk": 2}, never | {"pk": 1}, note(3, **past), note(4, expires=None)))
    assert said == "Loaded 3 objects.\nLeft out 1: expired.\n"
    assert Note.objects.get(pk=1).ttl() is None
    assert 3500 < Note.objects.get(pk=2).ttl() <= 3600
    assert not Note.objects.filter(pk=3).exists() and Note.objects.get(pk=4).ttl() is None
    assert drift(storage.runtime.engine, Note) == []


def test_the_timeout_of_a_model() -> None:
    class Brief(kv.Model):
        name = f.CharField(max_length=30)

        class Meta:
            app_label = "transfer"
            key = "name"
            timeout = 600

    try:
        Brief(name="usual").save()
        Brief(name="forever").save(timeout=None)
        forever, usual = dump("transfer.brief")
        assert forever["expires"] is None and usual["expires"]
        del usual["expires"]
        lines = "\n".join(map(json.dumps, (forever, usual | {"pk": "new"}))).encode()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(lines)))
            load("-")
        assert Brief.objects.get(pk="forever").ttl() is None
        assert 500 < Brief.objects.get(pk="new").ttl() <= 600  # as of a new object
    finally:
        registry.forget(Brief)


def test_what_is_there_is_stored_over_or_kept(written: Any) -> None:
    Note(id=1, text="mine", rank=9).save()
    file = written(note(1), b"", note(2))
    assert load(file, keep_existing=True) == "Loaded 1 objects.\nLeft out 1: there already.\n"
    assert [(obj.pk, obj.text) for obj in Note.objects.all()] == [(1, "mine"), (2, "note 2")]
    assert load(file) == "Loaded 2 objects.\n"
    assert [(obj.text, obj.rank) for obj in Note.objects.all()] == [("note 1", 0), ("note 2", 0)]
    assert [obj.pk for obj in Note.objects.filter(rank=9)] == []
    assert Note.objects.create().pk == 3  # behind the ids of the file


def test_signals_say_raw(written: Any) -> None:
    heard = []

    def hear(sender: Any, raw: bool, created: bool, **more: Any) -> None:
        heard.append((raw, created))

    kv.post_save.connect(hear, sender=Note)
    try:
        load(written(note(1), note(1)))
    finally:
        kv.post_save.disconnect(hear, sender=Note)
    assert heard == [(True, True), (True, False)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{", "it is no JSON"),
        (b"\xff", "it is no JSON"),
        (b"[" * 100_000, "it is no JSON"),
        ([1], r"with model, pk and fields, not \[1\]"),
        ({"model": "samples.note", "pk": 1}, '"fields" with a map'),
        ({"pk": 1, "fields": {}}, 'needs "model"'),
        (note(1, revision=3), "a line has no 'revision'; it has expires, fields, model, pk"),
        (note(1) | {"model": "samples.nota"}, "There is no model 'samples.nota'. Did you mean"),
        (note(1) | {"fields": {"txt": ""}}, "samples.Note has no field 'txt'. Did you mean 'text'"),
        (note("x"), "samples.Note.id does not take 'x'"),
        (note([1, 2]), r"samples.Note.id does not take \[1, 2\]"),
        (note(1) | {"fields": {"rank": None}}, "samples.Note.rank does not take None"),
        (note(1) | {"fields": {"rank": {}}}, "samples.Note.rank does not take {}"),
        (note(1, expires=5), '"expires" is a moment in ISO 8601'),
        (note(1, expires="2030-01-01"), '"expires" needs an offset'),
        ({"model": "samples.visit", "pk": 3, "fields": {}}, "the pk of samples.Visit is a list of day, number, not 3"),
        ({"model": "samples.person", "pk": None, "fields": {}}, "it has no pk: samples.Person needs name"),
        (
            {"model": "samples.person", "pk": "other", "fields": {"email": "p00@example.org"}},
            "there is another samples.Person|already",
        ),
    ],
)
def test_bad_lines(written: Any, line: Any, words: str) -> None:
    Person(name="p00", email="p00@example.org").save()
    file = written(note(5), note(6), line, note(7))
    with pytest.raises(CommandError, match=rf"objects.jsonl, line 3: .*({words}).* 2 objects before it are loaded\.$"):
        load(file)
    assert [obj.pk for obj in Note.objects.all()] == [5, 6]
    assert Person.objects.count() == 1


def test_bad_input(tmp_path: Path, written: Any) -> None:
    with pytest.raises(CommandError, match=r"can't be read: .*0 objects before it are loaded"):
        load(tmp_path / "nothing")
    with pytest.raises(CommandError, match="There is no alias 'nowhere' in CACHES"):
        load(written(note(1)), using="nowhere")
    with pytest.raises(CommandError, match="can't be written"):
        call_command("keyspace_dump_models", "samples.note", output=str(tmp_path / "no" / "folder"))
    storage = Note._storage()
    Note(id=1).save()
    file = tmp_path / "dump.jsonl"
    file.write_text("the last dump")
    storage._do("set", storage.database, storage.record_key(b"x"), (1, 0, b"\xc1"), None, "always")
    with pytest.raises(CommandError, match=r"is no object of samples.Note.* The dump is not complete\."):
        call_command("keyspace_dump_models", "samples.note", output=str(file), stderr=io.StringIO())
    assert file.read_text() == "the last dump" and list(tmp_path.glob("*.new")) == []

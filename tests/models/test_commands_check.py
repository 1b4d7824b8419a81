"""``keyspace_check_models``: each kind of drift, made by hand, is found and mended."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from django_keyspace.backend.models import upkeep
from django_keyspace.store.record import Tag
from tests.models.drift import drift, listed
from tests.models.samples import Note, Person, people

INDEXES = 5


@pytest.fixture(autouse=True)
def stored(embedded_alias: Any) -> None:
    people()


def check(*labels: str, **options: Any) -> tuple[str, str | None]:
    """``(output, error or None)`` of the command."""
    out = io.StringIO()
    try:
        call_command("keyspace_check_models", *labels, stdout=out, stderr=io.StringIO(), no_color=True, **options)
    except CommandError as error:
        assert error.returncode == 1
        return out.getvalue(), str(error)
    return out.getvalue(), None


class Raw:
    """The store of the people, behind the models' back."""

    def __init__(self) -> None:
        self.storage = Person._storage()
        self.execute = self.storage._do
        self.meta = Person._meta

    def entry(self, name: str, index: str) -> bytes:
        person = Person.objects.get(pk=name)
        values = {plan.name: getattr(person, plan.attname) for plan in self.meta.plans.values()}
        return self.meta.indexes[index].entry(values, person.key_bytes())

    def write(self, key: bytes, payload: bytes, tag: Tag = Tag.BYTES, expire: Any = None) -> None:
        self.execute("set", self.storage.database, key, (int(tag), 0, payload), expire, "always")

    def delete(self, *keys: bytes) -> None:
        self.execute("delete_many", self.storage.database, list(keys))


def missing(raw: Raw) -> None:
    raw.delete(raw.entry("p01", "city,age"))


def wrong(raw: Raw) -> None:
    raw.write(raw.entry("p01", "email"), Person._meta.make_key("p02"))


def wrong_in_an_ordered_index(raw: Raw) -> None:
    raw.write(raw.entry("p01", "height"), Person._meta.make_key("p02"))


def other_deadline(raw: Raw) -> None:
    entry = raw.entry("p01", "height")
    raw.write(entry, Person._meta.make_key("p01"), expire=("at", 4_000_000_000_000))


def orphan_of_nobody(raw: Raw) -> None:
    raw.delete(raw.storage.record_key(Person._meta.make_key("p01")))


def orphan_beside_the_right_one(raw: Raw) -> None:
    raw.write(raw.meta.indexes["email"].prefix + b"somebody", Person._meta.make_key("p01"))


def orphan_of_a_former_index(raw: Raw) -> None:
    raw.write(b"i" + f"{raw.meta.prefix}\0name,age\0".encode() + b"x", Person._meta.make_key("p01"))


@pytest.mark.parametrize(
    ("make", "kind", "number", "words"),
    [
        (missing, "missing", 1, "missing: 'p01' in index city,age"),
        (wrong, "wrong", 1, "wrong: 'p01' in index email"),
        (wrong_in_an_ordered_index, "wrong", 1, "wrong: 'p01' in index height"),
        (other_deadline, "other deadline", 1, "other deadline: 'p01' in index height"),
        (orphan_of_nobody, "orphan", INDEXES, "orphan: 'p01' in index balance"),
        (orphan_beside_the_right_one, "orphan", 1, "orphan: 'p01' in index email"),
        (orphan_of_a_former_index, "orphan", 1, "orphan: 'p01' in index name,age"),
    ],
)
def test_drift_is_found_and_mended(make: Callable[[Raw], None], kind: str, number: int, words: str) -> None:
    raw = Raw()
    make(raw)
    before = listed(raw.storage.runtime.engine, raw.storage.database, b"")
    said, error = check("samples.Person")
    assert words in said and f"{number} {kind}." in said
    assert error == f"Found and not mended: {number}. With --fix they are mended where that is possible."
    assert listed(raw.storage.runtime.engine, raw.storage.database, b"") == before  # looking writes nothing
    said, error = check("samples.Person", fix=True)
    assert f"{number} {kind}; {number} mended." in said
    assert error is None
    assert drift(raw.storage.runtime.engine, Person) == []
    said, error = check("samples.Person")
    assert "all as it should be" in said and error is None


def test_what_is_as_it_should_be_has_exit_code_0() -> None:
    said, error = check("samples.Person")
    entries = 12 * 4 + 9  # every third has no e-mail address
    assert said == f"samples.Person: 12 objects, {entries} index entries, all as it should be.\n"
    assert error is None


@pytest.mark.parametrize("payload", [b"\xc1", b"\x90", b"\x81\xa4name\x01", b"\x81\xa4name\xa5other", b"\x81\x01\x02"])
def test_records_that_are_no_objects_are_left_to_people(payload: bytes) -> None:
    raw = Raw()
    raw.write(raw.storage.record_key(Person._meta.make_key("p01")), payload, Tag.MSGPACK)
    said, error = check("samples.Person", fix=True)
    assert "unreadable: 'p01'\n" in said
    assert error is not None and error.endswith("Mend what is listed by hand.")
    assert len(listed(raw.storage.runtime.engine, raw.storage.database, raw.meta.record_prefix)) == 12


def test_duplicates_are_left_to_people() -> None:
    """Two objects with one e-mail address, as a wrong restore may leave them."""
    raw = Raw()
    one, other = Person.objects.get(pk="p01"), Person.objects.get(pk="p02")
    raw.delete(raw.entry("p02", "email"))
    data = raw.storage.data_of(other._state.record) | {"email": one.email}
    raw.write(raw.storage.record_key(other.key_bytes()), raw.storage.pack(data), Tag.MSGPACK)
    said, error = check("samples.Person", fix=True)
    assert "1 duplicate; 0 mended" in said and "duplicate: 'p02' in index email" in said
    assert error == "Found and not mended: 1. Mend what is listed by hand."
    assert Person.objects.get(email=one.email).pk == "p01"


def test_json_lists_everything() -> None:
    raw = Raw()
    for name in ("p00", "p01", "p02", "p04", "p05", "p06", "p08", "p09"):
        raw.delete(raw.entry(name, "city,age"), raw.entry(name, "email"))
    said, error = check("samples", json=True)
    assert error is not None
    told = json.loads(said)
    assert told["left"] == 16
    (person,) = [each for each in told["models"] if each["model"] == "samples.Person"]
    assert (person["objects"], person["entries"], person["using"]) == (12, 41, "default")
    assert {"kind": "missing", "index": "email", "key": "'p05'"} in person["found"]
    assert len(person["found"]) == person["left"] == 16
    told = json.loads(check("samples", json=True, fix=True)[0])
    assert told["left"] == 0 and len(told["models"]) >= 3
    said, _ = check("samples.Person")
    assert "all as it should be" in said


def test_a_long_list_is_cut() -> None:
    raw = Raw()
    raw.delete(*listed(raw.storage.runtime.engine, raw.storage.database, b"i" + f"{raw.meta.prefix}\0".encode()))
    said, _ = check("samples.Person")
    assert said.count("missing: ") == 10
    assert "and 38 more (--json lists all)" in said


def test_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "PAGE_ROWS", 5)
    raw = Raw()
    for name in ("p00", "p04", "p05", "p09", "p11"):
        raw.delete(raw.entry(name, "balance"))
    assert "12 objects, 57 index entries; 5 missing; 5 mended." in check("samples.Person", fix=True)[0]
    assert "57 index entries, all as it should be" in check("samples.Person")[0]


def test_an_index_that_is_being_built_is_no_drift() -> None:
    raw = Raw()
    raw.delete(raw.meta.schema_key)
    raw.delete(raw.entry("p01", "height"))
    said, error = check("samples.Person")
    assert error is None
    assert "height, balance not ready; keyspace_reindex builds what is missing" in said


def test_another_alias() -> None:
    Note(text="there").save(using="other")
    assert "1 objects, 1 index entries" in check("samples.note", using="other")[0]
    assert "0 objects" in check("samples.note")[0]
    with pytest.raises(CommandError, match="which is not in CACHES"):
        call_command("keyspace_check_models", "samples.note", using="nowhere")
    with pytest.raises(CommandError, match=r"There is no model 'samples.Persn'. Did you mean"):
        call_command("keyspace_check_models", "samples.Persn")

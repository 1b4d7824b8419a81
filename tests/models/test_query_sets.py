"""Query sets: lazy, chained, sliced, shown, pickled; what they answer and change, by both faces, on every engine."""

from __future__ import annotations

import asyncio
import pickle
import warnings
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.cache import caches
from django.core.exceptions import FieldError, MultipleObjectsReturned, ObjectDoesNotExist
from django.db import IntegrityError
from django.db import models as f
from django.test import override_settings

from django_keyspace import kv
from tests.contract.engines import Place
from tests.models.conftest import settings_of
from tests.models.samples import DAY, FIRST, Note, Person, people

pytestmark = pytest.mark.usefixtures("alias")

Ask = Callable[..., Any]


def names(query: Any) -> list[str]:
    return [found.name for found in query]


# --- asking -----------------------------------------------------------------------------------------------------------


def test_lazy_and_kept() -> None:
    query = Person.objects.filter(city="Bern").order_by("name")
    people(8)
    assert names(query) == ["p00", "p04"]
    Person.objects.create(name="p99", city="Bern")
    assert len(query) == 2 and query.count() == 2 and query[1].name == "p04" and bool(query)
    assert names(query.all()) == ["p00", "p04", "p99"]
    assert query[0] is query[0]


def test_chaining_leaves_the_first_alone() -> None:
    people(8)
    first = Person.objects.filter(age__gt=0)
    number = len(first)
    assert len(first.filter(age__gt=100)) == 0 and len(first.exclude(age__gt=0)) == 0 and len(first.all()) == number
    assert len(first.none()) == 0 and not first.none().exists() and first.none().filter(age=1).count() == 0
    assert first.none().explain() == "nothing"


def test_slices() -> None:
    people(10)
    query = Person.objects.order_by("name")
    everyone = names(query.all())
    for low, high in [(0, 3), (2, 5), (None, 4), (7, None), (5, 5), (8, 20), (20, 30), (4, 2)]:
        assert names(query[low:high]) == everyone[low:high], (low, high)
        assert query[low:high].count() == len(everyone[low:high])
    assert names(query[2:8][1:4]) == everyone[3:6]
    assert names(query[1:9:3]) == everyone[1:9:3]
    assert query[3].name == "p03" and query.filter(age__lt=100)[2:][0].name == "p02"
    assert names(query.filter(active=True)[1:3]) == ["p02", "p04"]
    for order in ("-seen", "height", "-city"):
        whole = names(Person.objects.order_by(order))
        assert names(Person.objects.order_by(order)[2:6]) == whole[2:6]
    with pytest.raises(IndexError):
        query[10]
    with pytest.raises(ValueError, match="Negative"):
        query[-1]
    with pytest.raises(ValueError, match="Negative"):
        query[-2:]
    with pytest.raises(TypeError):
        query["name"]
    for change in ("filter", "exclude", "reverse", "last", "update", "delete", "in_bulk"):
        with pytest.raises(TypeError, match="slice"):
            getattr(query[:3], change)()
    with pytest.raises(TypeError, match="slice"):
        query[:3].order_by("age")


def test_orders() -> None:
    made = people(12)

    def none_first(value: Any) -> Any:
        return (value is not None, value)

    for name in ("name", "email", "city", "age", "height", "balance", "born", "seen", "active"):
        ascending = [getattr(found, name) for found in Person.objects.order_by(name)]
        assert ascending == sorted((getattr(found, name) for found in made), key=none_first), name
        descending = [getattr(found, name) for found in Person.objects.order_by(f"-{name}")]
        assert descending == ascending[::-1], name
        assert [getattr(found, name) for found in Person.objects.order_by(name).reverse()] == descending
    mixed = Person.objects.order_by("active", "-age", "name")
    assert names(mixed) == names(sorted(made, key=lambda found: (found.active, -found.age, found.name)))
    assert names(mixed.reverse()) == names(mixed)[::-1]
    both = Person.objects.order_by("-city", "-age")
    assert "backwards" in both.explain() and "sort" not in both.explain()
    assert [(p.city, p.age) for p in both] == sorted(((p.city, p.age) for p in made), reverse=True)


def test_shown_and_pickled() -> None:
    people(3)
    query = Person.objects.order_by("name")
    assert repr(query) == (
        "<QuerySet [<Person: Person object ('p00')>, <Person: Person object ('p01')>, <Person: Person object ('p02')>]>"
    )
    Note.objects.bulk_create([Note(text=str(number)) for number in range(25)])
    assert repr(Note.objects.all()).endswith("'...(remaining elements truncated)...']>")
    again = pickle.loads(pickle.dumps(query.filter(name__gt="p00")))
    Person.objects.create(name="p50")
    assert names(again) == ["p01", "p02"] and names(again.all()) == ["p01", "p02", "p50"]
    assert pickle.loads(pickle.dumps(query.values("name")))[0] == {"name": "p00"}


def test_shapes() -> None:
    people(3)
    query = Person.objects.order_by("-name")
    assert list(query.values("name", "balance")) == [
        {"name": f"p0{number}", "balance": Decimal(f"{number * 37 % 11 - 4}.25")} for number in (2, 1, 0)
    ]
    assert set(query.values()[0]) == set(Person._meta.field_names)
    assert list(query.values("pk")) == [{"pk": "p02"}, {"pk": "p01"}, {"pk": "p00"}]
    assert list(query.values_list("name", "active")) == [("p02", True), ("p01", False), ("p00", True)]
    assert list(query.values_list("name", flat=True)) == ["p02", "p01", "p00"]
    assert query.values_list("name", "tags", named=True).first().tags == []
    assert query.values_list("name", flat=True).get(pk="p01") == "p01"
    some = query.only("city").get(name="p01")
    assert "age" in some.get_deferred_fields() and some.name == "p01" and some.city == "Berlin" and some.age == 4
    with pytest.raises(TypeError, match="one field"):
        query.values_list("name", "age", flat=True)
    with pytest.raises(FieldError, match="no field"):
        query.values("nobody")


def test_iteration() -> None:
    Note.objects.bulk_create([Note(text=str(number), rank=number % 7) for number in range(230)])

    async def collect(query: Any) -> list[int]:
        return [note.pk async for note in query]

    for query in (
        Note.objects.order_by("pk"),
        Note.objects.order_by("-rank"),
        Note.objects.filter(rank__in=[1, 5]),
        Note.objects.order_by("text"),
        Note.objects.order_by("rank")[20:180],
    ):
        ids = [note.pk for note in query.all()]
        assert [note.pk for note in query.iterator(chunk_size=7)] == ids
        assert asyncio.run(collect(query.aiterator())) == ids
        assert asyncio.run(collect(query.all())) == ids
    with pytest.raises(ValueError, match="chunk_size"):
        list(Note.objects.iterator(chunk_size=0))


def test_no_transaction_is_held_while_user_code_runs() -> None:
    Note.objects.bulk_create([Note(rank=number) for number in range(120)])
    for note in Note.objects.order_by("rank").iterator():
        assert Note.objects.filter(pk=note.pk).update(text="seen") == 1  # a writer in the same thread
    assert Note.objects.filter(text="seen").count() == 120


# --- one object -------------------------------------------------------------------------------------------------------


def test_get(ask: Ask) -> None:
    people(4)
    assert ask(Person.objects, "get", name="p02").age == 1
    assert ask(Person.objects, "get", pk="p02", city="Oslo").name == "p02"
    assert ask(Person.objects.filter(city="Oslo"), "get").name == "p02"
    for keywords in ({"pk": "nobody"}, {"name": "p02", "city": "Bern"}, {"email": "nobody@example.org"}, {"pk": None}):
        with pytest.raises(Person.DoesNotExist) as caught:
            ask(Person.objects, "get", **keywords)
        assert isinstance(caught.value, ObjectDoesNotExist) and not isinstance(caught.value, Note.DoesNotExist)
    with pytest.raises(Person.MultipleObjectsReturned, match="active=False") as many:
        ask(Person.objects, "get", active=False)
    assert isinstance(many.value, MultipleObjectsReturned)


def test_ends(ask: Ask) -> None:
    assert ask(Person.objects, "first") is None and ask(Person.objects, "last") is None
    people(8)
    assert ask(Person.objects, "first").name == "p00" and ask(Person.objects, "last").name == "p07"
    assert ask(Person.objects.order_by("-age", "name"), "first").age == 6
    assert ask(Person.objects.order_by("-age"), "last").age == -3
    assert ask(Person.objects.filter(seen__isnull=False), "earliest", "seen", "name").name == "p00"
    assert ask(Person.objects, "latest", "seen").seen == FIRST + 3 * DAY
    assert ask(Person.objects, "earliest", "-age").age == 6
    with pytest.raises(Person.DoesNotExist):
        ask(Person.objects.filter(age=99), "latest", "age")
    with pytest.raises(FieldError, match="name of a field"):
        ask(Person.objects, "latest")


# --- figures ----------------------------------------------------------------------------------------------------------


def test_counts(ask: Ask) -> None:
    assert ask(Person.objects, "count") == 0 and not ask(Person.objects, "exists")
    people(12)
    assert ask(Person.objects, "count") == 12 and ask(Person.objects, "exists")
    assert ask(Person.objects.filter(city="Bern"), "count") == 3
    assert ask(Person.objects.filter(height__gt=0)[1:3], "count") == 2
    assert ask(Person.objects.filter(active=True), "count") == 6
    assert ask(Person.objects.filter(name__gte="p03", name__lt="p05"), "count") == 2


def test_aggregates(ask: Ask) -> None:
    nothing = ask(
        Person.objects, "aggregate", kv.Count(), kv.Sum("age"), low=kv.Min("seen"), none=kv.Sum("age", default=0)
    )
    assert nothing == {"count": 0, "age__sum": None, "low": None, "none": 0}
    made = people(12)
    ages, heights = [p.age for p in made], [p.height for p in made if p.height is not None]
    found = ask(
        Person.objects,
        "aggregate",
        kv.Count(),
        kv.Count("email"),
        kv.Max("age"),
        kv.Min("seen"),
        kv.Max("city"),
        cities=kv.Count("city", distinct=True),
        total=kv.Sum("balance"),
        mean=kv.Avg("age"),
        high=kv.Avg("height"),
        keys=kv.Count("pk"),
    )
    assert found == {
        "count": 12,
        "email__count": 9,
        "age__max": max(ages),
        "seen__min": FIRST,
        "city__max": "Oslo",
        "cities": 4,
        "total": sum(p.balance for p in made),
        "mean": sum(ages) / 12,
        "high": sum(heights) / len(heights),
        "keys": 12,
    }
    assert ask(Person.objects.order_by("-age")[:3], "aggregate", kv.Sum("age")) == {"age__sum": sum(sorted(ages)[-3:])}
    for wrong, message in [
        (kv.Sum("city"), "do not add up"),
        (kv.Max("tags"), "no order"),
        (kv.Sum("nobody"), "no field"),
        ("age", "kv.Count"),
    ]:
        with pytest.raises(FieldError, match=message):
            ask(Person.objects, "aggregate", x=wrong)
    with pytest.raises(FieldError, match="two figures"):
        ask(Person.objects, "aggregate", kv.Sum("age"), kv.Sum("age"))


def test_in_bulk(ask: Ask) -> None:
    people(6)
    assert sorted(ask(Person.objects, "in_bulk")) == [f"p0{number}" for number in range(6)]
    assert sorted(ask(Person.objects, "in_bulk", ["p01", "p03", "nobody", "x" * 3000])) == ["p01", "p03"]
    assert sorted(ask(Person.objects.filter(active=True), "in_bulk", ["p01", "p02"])) == ["p02"]
    assert ask(Person.objects, "in_bulk", ["p1@example.org"], field_name="email")["p1@example.org"].name == "p01"
    assert ask(Person.objects, "in_bulk", []) == {}
    with pytest.raises(FieldError, match="not unique"):
        ask(Person.objects, "in_bulk", [1], field_name="age")


# --- changes ----------------------------------------------------------------------------------------------------------


def test_create(ask: Ask) -> None:
    made = ask(Person.objects, "create", name="a", email="a@example.org", age=3)
    assert Person.objects.get(name="a") == made and not made._state.adding
    with pytest.raises(kv.DuplicateValue) as caught:
        ask(Person.objects, "create", name="a")
    assert isinstance(caught.value, IntegrityError)
    with pytest.raises(IntegrityError):
        ask(Person.objects, "create", name="b", email="a@example.org")
    assert Person.objects.count() == 1
    with pytest.raises(TypeError):
        ask(Person.objects, "create", name="b", nobody=1)


def test_get_or_create(ask: Ask) -> None:
    made, is_new = ask(Person.objects, "get_or_create", {"age": 3, "city": lambda: "Bern"}, name="a")
    assert is_new and (made.age, made.city) == (3, "Bern")
    again, is_new = ask(Person.objects, "get_or_create", defaults={"age": 9}, name="a")
    assert not is_new and again.age == 3
    found, is_new = ask(Person.objects, "get_or_create", name__startswith="a", defaults={"name": "abc"})
    assert not is_new and found.name == "a"
    _, is_new = ask(Person.objects, "get_or_create", name__startswith="b", defaults={"name": "bcd"})
    assert is_new
    with pytest.raises(kv.DuplicateValue):
        ask(Person.objects, "get_or_create", {"name": "a"}, city="Paris")
    with pytest.raises(FieldError):
        ask(Person.objects, "get_or_create", {"nobody": 1}, name="c")
    assert Person.objects.count() == 2


def test_update_or_create(ask: Ask) -> None:
    made, is_new = ask(Person.objects, "update_or_create", {"age": 3}, name="a")
    assert is_new and made.age == 3
    made, is_new = ask(Person.objects, "update_or_create", {"age": 4}, {"age": 0}, name="a")
    assert not is_new and made.age == 4 and Person.objects.get(name="a").age == 4
    made, is_new = ask(Person.objects, "update_or_create", {"age": 4}, {"age": 0}, name="b")
    assert is_new and made.age == 0


def test_bulk(ask: Ask) -> None:
    made = ask(Note.objects, "bulk_create", [Note(text=str(number), rank=number) for number in range(50)], 7)
    assert len({note.pk for note in made}) == 50 and Note.objects.count() == 50
    for note in made:
        note.rank += 100
        note.text = "changed"
    assert ask(Note.objects, "bulk_update", made[:30], ["rank"], batch_size=8) == 30
    assert Note.objects.filter(rank__gte=100).count() == 30 and not Note.objects.filter(text="changed").exists()
    with pytest.raises(FieldError, match="no object of"):
        ask(Note.objects, "bulk_create", [Person(name="a")])
    with pytest.raises(FieldError, match="part of the key"):
        ask(Note.objects, "bulk_update", made, ["id"])
    with pytest.raises(FieldError, match="names of the fields"):
        ask(Note.objects, "bulk_update", made, [])


def test_update(ask: Ask) -> None:
    people(8)
    assert ask(Person.objects.filter(city="Bern"), "update", age=kv.F("age") + 10, active=True) == 2
    assert sorted(Person.objects.filter(age__gte=7).values_list("age", flat=True)) == [7, 15]
    # An object that moves in the index which leads to it is changed once.
    assert ask(Person.objects.filter(height__gt=-9), "update", height=kv.F("height") + 100) == 6
    assert Person.objects.filter(height__range=(90, 110)).count() == 6
    assert ask(Person.objects.filter(city="Nowhere"), "update", age=0) == 0 and ask(Person.objects, "update") == 0
    assert ask(Person.objects.filter(name="p01"), "update", age=-kv.F("age") * 2 + kv.Value(1), height=None) == 1
    assert Person.objects.get(name="p01").age == -7 and Person.objects.get(name="p01").height is None
    for changes, message in [
        ({"nobody": 1}, "no field"),
        ({"name": "x"}, "part of the key"),
        ({"age": "many"}, "does not take"),
        ({"age": kv.F("nobody")}, "no field"),
        ({"age": kv.F("city") * 1.5}, "cannot be worked out"),
        ({"age": kv.F("age") // 0}, "cannot be worked out"),
    ]:
        with pytest.raises(ValueError, match=message):
            ask(Person.objects.filter(name="p02"), "update", **changes)
    assert Person.objects.get(name="p02").age == 1


def test_delete(ask: Ask) -> None:
    people(8)
    assert ask(Person.objects.filter(active=True), "delete") == (4, {"samples.Person": 4})
    assert ask(Person.objects.filter(active=True), "delete") == (0, {})
    assert sorted(names(Person.objects.all())) == ["p01", "p03", "p05", "p07"]
    gone: list[str] = []

    def note(sender: Any, instance: Any, **kwargs: Any) -> None:
        gone.append(instance.name)

    kv.post_delete.connect(note, sender=Person)
    try:
        assert ask(Person.objects.all(), "delete")[0] == 4
    finally:
        kv.post_delete.disconnect(note, sender=Person)
    assert sorted(gone) == ["p01", "p03", "p05", "p07"]
    assert not hasattr(Person.objects, "delete") and not hasattr(Person.objects, "adelete")


def test_other_alias(alias: Place) -> None:
    people(2)
    other = Person.objects.using("other")
    assert other.count() == 0 and other.db == "other" and Person.objects.db == "default"
    other.create(name="there")
    assert names(other.all()) == ["there"] and other.get(pk="there")._state.db == "other"
    caches["other"].clear(everything=True)  # a cache reaches no model
    assert other.count() == 1 and Person.objects.count() == 2


# --- what a query must not answer -------------------------------------------------------------------------------------


def test_entries_of_gone_and_changed_records_are_not_found(alias: Place) -> None:
    people(8)
    storage = Person._storage()
    index = Person._meta.indexes["seen"]
    gone = Person.objects.get(name="p00")
    alias.engine.execute("delete", storage.database, storage.record_key(gone.key_bytes()))
    moved = Person.objects.get(name="p01")
    stray = index.entry({"seen": FIRST - DAY}, moved.key_bytes())
    alias.engine.execute("set", storage.database, stray, storage.entry_value(moved.key_bytes()), None, "always")
    assert "index seen" in Person.objects.order_by("seen").explain()
    assert sorted(names(Person.objects.order_by("seen"))) == [f"p0{number}" for number in range(1, 8)]
    assert Person.objects.filter(seen__lt=FIRST).count() == 0 and not Person.objects.filter(seen__lt=FIRST).exists()
    assert not Person.objects.filter(email="p0@example.org").exists()


def test_expired_objects_are_not_found(alias: Place) -> None:
    people(4)
    storage = Person._storage()
    brief = Person.objects.get(name="p01")
    brief.touch(timedelta(milliseconds=1))
    # Time passes until the record is gone: no sleep of a fixed length decides.
    while alias.engine.execute("get", storage.database, storage.record_key(brief.key_bytes())) is not None:
        pass
    everyone = ["p00", "p02", "p03"]
    for query in (Person.objects.all(), Person.objects.order_by("seen"), Person.objects.order_by("city", "age")):
        assert sorted(names(query)) == everyone and query.count() == 3
    assert not Person.objects.filter(email="p1@example.org").exists()
    with pytest.raises(Person.DoesNotExist):
        Person.objects.get(pk="p01")


# --- plans and warnings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "order", "beginning"),
    [
        ({"name": "a"}, [], "1 key of the key name; by name__exact='a'"),
        ({"name__in": ["a", "b"]}, [], "2 keys of the key name"),
        ({"name": "a", "email": "e"}, [], "1 key of the key name"),
        ({"email": "e"}, [], "1 key of the unique index email"),
        (
            {"email__in": ["e", "g"]},
            ["name"],
            "2 keys of the unique index email; by email__in=('e', 'g'); sort by name",
        ),
        ({"email__isnull": True}, [], "scan of the key name; filter"),
        ({"email__startswith": "e"}, [], "range of the unique index email"),
        ({"name__gt": "a"}, [], "range of the key name; by name__gt='a'"),
        ({"name__startswith": "a"}, ["-name"], "range of the key name, backwards; by"),
        ({"city": "a"}, [], "range of the index city, age; by city__exact='a'"),
        ({"city": "a", "age__gt": 3}, [], "range of the index city, age; by city__exact='a' and age__gt=3"),
        ({"city": "a"}, ["age"], "range of the index city, age; by city__exact='a'"),
        ({"city": "a"}, ["-age", "-name"], "range of the index city, age, backwards; by city__exact='a'"),
        ({"city__in": ["a", "b"], "age": 3}, [], "2 ranges of the index city, age; by"),
        ({"age": 3}, [], "scan of the key name; filter"),
        ({"height__isnull": True}, [], "range of the index height; by height__isnull=True"),
        ({"height__gt": 3}, ["seen"], "range of the index height; by height__gt=3.0; sort by seen"),
        ({"height__gt": 3}, ["name"], "range of the index height; by height__gt=3.0; sort by name"),
        ({}, ["seen"], "all of the index seen"),
        ({}, ["-seen"], "all of the index seen, backwards"),
        ({}, ["email"], "all of the key name; sort by email"),
        ({"email__isnull": False}, ["email"], "range of the unique index email; by email__isnull=False"),
        ({}, ["seen", "-name"], "all of the key name; sort by seen, -name"),
        ({}, [], "all of the key name"),
        ({"name__in": []}, [], "nothing"),
        ({"name__gt": "b", "name__lt": "a"}, [], "nothing"),
    ],
)
def test_plans(ask: Ask, keywords: dict[str, Any], order: list[str], beginning: str) -> None:
    plan = ask(Person.objects.filter(**keywords).order_by(*order), "explain")
    assert plan.startswith(beginning), plan
    assert ("sort" in plan) == ("sort" in beginning), plan


def test_scans_warn(alias: Place) -> None:
    people(8)
    entry = settings_of(alias)["default"]
    entry["OPTIONS"] = {**entry["OPTIONS"], "scan_warning_keys": 5}
    with override_settings(CACHES={"default": entry}):
        with pytest.warns(
            kv.ScanWarning, match=r"samples\.Person has looked at more than 5 objects: scan of"
        ) as caught:
            assert Person.objects.filter(age__lt=100).count() == 8
        assert len(caught) == 1 and caught[0].filename == __file__
        with pytest.warns(kv.ScanWarning):
            assert len(Person.objects.filter(city__contains="e").order_by("age")) == 4
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(Person.objects.all()) == 8  # nothing is looked at in vain
            assert len(Person.objects.filter(name__startswith="p")) == 8


# --- managers ---------------------------------------------------------------------------------------------------------


class GrownUpQuerySet(kv.QuerySet):
    def named(self, letter: str) -> Any:
        return self.filter(name__startswith=letter)

    def _hidden(self) -> None: ...

    def for_queries(self) -> int:
        return 1

    for_queries.queryset_only = True  # type: ignore[attr-defined]


class GrownUps(kv.Manager.from_queryset(GrownUpQuerySet)):  # type: ignore[misc]
    def get_queryset(self) -> Any:
        return super().get_queryset().filter(age__gte=18)

    def count_named(self, letter: str) -> int:
        return int(self.named(letter).count())


class WithAge(kv.Model):
    age = f.IntegerField(default=0)

    everybody = kv.Manager()
    grown_ups = GrownUps()

    class Meta:
        abstract = True


class Member(WithAge):
    name = f.CharField(max_length=10)
    objects = GrownUpQuerySet.as_manager()

    class Meta:
        app_label = "samples"
        key = "name"


def test_managers() -> None:
    for name, age in (("ann", 30), ("bob", 7), ("abe", 8)):
        Member.objects.create(name=name, age=age)
    assert names(Member.objects.named("a")) == ["abe", "ann"]
    assert names(Member.everybody.all()) == ["abe", "ann", "bob"]
    assert names(Member.grown_ups.all()) == ["ann"] and Member.grown_ups.count_named("a") == 1
    with pytest.raises(Member.DoesNotExist):
        Member.grown_ups.get(name="bob")
    assert Member.grown_ups.model is Member and Member.objects.get(name="bob").age == 7
    assert not hasattr(Member.objects, "for_queries") and not hasattr(Member.objects, "_hidden")
    assert not hasattr(Member.objects, "as_manager")
    with pytest.raises(AttributeError, match="not to its objects"):
        _ = Member(name="x").objects
    with pytest.raises(AttributeError, match="abstract"):
        _ = WithAge.everybody

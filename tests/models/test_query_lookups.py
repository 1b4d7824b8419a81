"""What lookups mean: each against the same test in plain Python, with an index and without."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import FieldDoesNotExist, FieldError
from django.db.models import F, Q

from django_keyspace import kv
from tests.models.samples import DAY, FIRST, Note, Person, Visit, people

pytestmark = pytest.mark.usefixtures("alias")

Test = Callable[[Person], Any]

CASES: list[tuple[dict[str, Any], Test]] = [
    ({"name": "p03"}, lambda p: p.name == "p03"),
    ({"pk": "p03"}, lambda p: p.name == "p03"),
    ({"pk__in": ["p03", "p01", "p03", "nobody", None]}, lambda p: p.name in ("p01", "p03")),
    ({"name__gt": "p03"}, lambda p: p.name > "p03"),
    ({"name__gte": "p03", "name__lt": "p07"}, lambda p: "p03" <= p.name < "p07"),
    ({"name__range": ("p03", "p05")}, lambda p: "p03" <= p.name <= "p05"),
    ({"name__range": ("p05", "p03")}, lambda p: False),
    ({"name__startswith": "p0"}, lambda p: p.name.startswith("p0")),
    ({"name__startswith": ""}, lambda p: True),
    ({"name__endswith": "1"}, lambda p: p.name.endswith("1")),
    ({"email": "p4@example.org"}, lambda p: p.email == "p4@example.org"),
    ({"email__in": ["p4@example.org", "p5@example.org"]}, lambda p: p.name in ("p04", "p05")),
    ({"email": None}, lambda p: p.email is None),
    ({"email__isnull": False}, lambda p: p.email is not None),
    ({"email__startswith": "p1"}, lambda p: p.email and p.email.startswith("p1")),
    ({"city": "Bern"}, lambda p: p.city == "Bern"),
    ({"city": "Bern", "age__gte": 0}, lambda p: p.city == "Bern" and p.age >= 0),
    ({"city__in": ["Bern", "Oslo"], "age__lt": 2}, lambda p: p.city in ("Bern", "Oslo") and p.age < 2),
    ({"city__startswith": "Ber"}, lambda p: p.city.startswith("Ber")),
    ({"city__istartswith": "BER"}, lambda p: p.city.startswith("Ber")),
    ({"city__contains": "er"}, lambda p: "er" in p.city),
    ({"city__icontains": "ER"}, lambda p: "er" in p.city),
    ({"city__iexact": "bern"}, lambda p: p.city == "Bern"),
    ({"city__iendswith": "LO"}, lambda p: p.city == "Oslo"),
    ({"city__regex": "^B.*n$"}, lambda p: re.search("^B.*n$", p.city)),
    ({"city__iregex": "^b.*N$"}, lambda p: re.search("^B.*n$", p.city)),
    ({"city": ""}, lambda p: p.city == ""),
    ({"age": "3"}, lambda p: p.age == 3),
    ({"age__gt": 1.5}, lambda p: p.age > 1.5),
    ({"age__gte": -1.5}, lambda p: p.age >= -1.5),
    ({"age__lt": Decimal("1.5")}, lambda p: p.age < 1.5),
    ({"age__lte": -1.5}, lambda p: p.age <= -1.5),
    ({"age__gt": 10**30}, lambda p: False),
    ({"height__gt": 0}, lambda p: p.height is not None and p.height > 0),
    ({"height__lte": -0.0}, lambda p: p.height is not None and p.height <= 0),
    ({"height__gt": float("-inf")}, lambda p: p.height is not None),
    ({"height__isnull": True}, lambda p: p.height is None),
    ({"height__isnull": False}, lambda p: p.height is not None),
    ({"balance__lt": "0.00"}, lambda p: p.balance < 0),
    ({"balance__gte": Decimal("1.2501")}, lambda p: p.balance >= Decimal("1.2501")),
    ({"balance": 2.25}, lambda p: p.balance == Decimal("2.25")),
    ({"born__gt": "1965-01-01"}, lambda p: p.born and p.born > datetime.date(1965, 1, 1)),
    ({"seen__gte": FIRST + DAY}, lambda p: p.seen and p.seen >= FIRST + DAY),
    (
        {"seen": (FIRST + DAY).astimezone(datetime.timezone(datetime.timedelta(hours=-9)))},
        lambda p: p.seen == FIRST + DAY,
    ),
    ({"seen__range": (FIRST, FIRST + DAY)}, lambda p: p.seen and FIRST <= p.seen <= FIRST + DAY),
    ({"seen__lt": FIRST + DAY, "seen__isnull": False}, lambda p: p.seen and p.seen < FIRST + DAY),
    ({"active": True, "age__gt": 0}, lambda p: p.active and p.age > 0),
    ({"active": "False"}, lambda p: not p.active),
    ({"tags": ["odd"]}, lambda p: p.tags == ["odd"]),
    ({"tags__in": [[], ["other"]]}, lambda p: p.tags == []),
    ({"name": "p01", "age": 4}, lambda p: p.name == "p01" and p.age == 4),
    ({"name": "p01", "age": 5}, lambda p: p.name == "p01" and p.age == 5),
    ({"name__in": []}, lambda p: False),
    ({"city__in": [None]}, lambda p: False),
]


def names(query: Any) -> list[str]:
    return sorted(found.name for found in query)


@pytest.fixture
def everybody(alias: Any) -> list[Person]:
    return people()


def test_lookups(everybody: list[Person]) -> None:
    for keywords, test in CASES:
        wanted = [found.name for found in everybody if test(found)]
        query = Person.objects.filter(**keywords)
        assert names(query) == wanted, (keywords, query.explain())
        assert query.count() == len(wanted), keywords
        assert query.exists() is bool(wanted), keywords
        assert names(Person.objects.exclude(**keywords)) == [
            found.name for found in everybody if found.name not in wanted
        ]
        found = [other.name for other in query.order_by("name").reverse()]
        assert found == wanted[::-1], (keywords, query.order_by("-name").explain())


def test_trees(everybody: list[Person]) -> None:
    for tree, test in [
        (Q(city="Bern") | Q(age__gt=3), lambda p: p.city == "Bern" or p.age > 3),
        (Q(city="Bern") & ~Q(age__gt=3), lambda p: p.city == "Bern" and not p.age > 3),
        (~(Q(city="Bern") | Q(age__gt=3)), lambda p: not (p.city == "Bern" or p.age > 3)),
        (Q(city="Bern") | Q(), lambda p: p.city == "Bern"),
        (Q() & Q(), lambda p: True),
        (~Q(), lambda p: True),
    ]:
        wanted = [found.name for found in everybody if test(found)]
        assert names(Person.objects.filter(tree)) == wanted, tree
        assert names(Person.objects.filter(tree, name__lt="p06")) == [name for name in wanted if name < "p06"]


def test_texts_longer_than_any_key(everybody: list[Person]) -> None:
    long = "p" + "x" * 3000
    objects = Person.objects
    assert not objects.filter(name=long).exists()
    with pytest.raises(Person.DoesNotExist):
        objects.get(name=long)
    assert not objects.filter(name__startswith=long).exists()
    assert not objects.filter(email__in=[long]).exists()
    for order in ("name", "-name"):
        assert objects.filter(name__gt=long).order_by(order).count() == 0
        assert len(objects.filter(name__lt=long).order_by(order)) == len(everybody)
        assert len(objects.filter(name__gte="p00" + "x" * 3000).order_by(order)) == len(everybody) - 1
        assert len(objects.filter(city__lte=long)) == len(everybody)


def test_keys_of_several_fields() -> None:
    day = datetime.date(2024, 5, 1)
    for number in range(6):
        Visit.objects.create(day=day + number // 3 * DAY, number=number)
    assert [visit.number for visit in Visit.objects.all()] == [5, 4, 3, 2, 1, 0]
    assert [visit.number for visit in Visit.objects.filter(day=day)] == [2, 1, 0]
    assert Visit.objects.filter(day=day, number__gt=1).explain().startswith("range of the key")
    assert Visit.objects.get(day="2024-05-01", number=1).pk == (day, 1)
    assert set(Visit.objects.in_bulk([(day, 1), (day, 99)])) == {(day, 1)}
    with pytest.raises(FieldError, match="day"):
        Visit.objects.filter(pk=1)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"nme": 1}, "has no field 'nme'.*name, email, city"),
        ({"nme__gt": 1}, "has no field 'nme'"),
        ({"age__startswith": 1}, "has no lookup 'startswith'. It has: exact, in, isnull, gt, gte, lt, lte, range"),
        ({"name__": 1}, "no lookup|no field"),
        ({"seen__year": 2024}, "has no lookup 'year'"),
        ({"tags__gt": []}, "has no lookup 'gt'. It has: exact, in, isnull\\."),
        ({"age": "many"}, "does not take 'many'"),
        ({"age__gt": None}, "takes a value"),
        ({"age": 1.5}, "whole numbers"),
        ({"age__in": 3}, "takes a list"),
        ({"name__in": "abc"}, "takes a list"),
        ({"age__range": 3}, "takes a pair"),
        ({"age__range": (1, None)}, "takes a pair"),
        ({"age__range": (1, 2, 3)}, "takes a pair"),
        ({"age__isnull": 1}, "takes True or False"),
        ({"name__regex": "("}, "is not a pattern"),
        ({"name__contains": None}, "takes text"),
        ({"seen__gt": "yesterday"}, "does not take 'yesterday'"),
        ({"age": F("height")}, "not with"),
        ({"age__gt": kv.F("height")}, "not with"),
    ],
)
def test_what_is_no_query(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Person.objects.filter(**keywords)


def test_unknown_names_raise_what_django_raises() -> None:
    with pytest.raises(FieldError):
        Person.objects.filter(nobody=1)
    with pytest.raises(FieldDoesNotExist):
        Person.objects.order_by("nobody")
    with pytest.raises(FieldError):
        Person.objects.filter(name__like="a")
    with pytest.raises(FieldError, match="has no order"):
        Person.objects.order_by("tags")
    with pytest.raises(FieldError, match="names of fields"):
        Person.objects.order_by("?")
    with pytest.raises(FieldError, match="Q objects"):
        Person.objects.filter("name")
    with pytest.raises(FieldError, match="joined"):
        Person.objects.filter(Q(name="a") ^ Q(name="b"))
    assert Note.objects.count() == 0

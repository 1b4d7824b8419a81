"""Models that the tests of queries use."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

from django.db import models as f

from django_keyspace import kv

DAY = datetime.timedelta(days=1)
FIRST = datetime.datetime(2024, 1, 1, 12, tzinfo=datetime.UTC)


class Person(kv.Model):
    name = f.SlugField(max_length=200)
    email = f.EmailField(null=True)
    city = f.CharField(max_length=50, default="")
    age = f.IntegerField(default=0)
    height = f.FloatField(null=True)
    balance = f.DecimalField(max_digits=8, decimal_places=2, default=0)
    born = f.DateField(null=True)
    seen = f.DateTimeField(null=True)
    active = f.BooleanField(default=True)
    tags = f.JSONField(default=list)

    class Meta:
        app_label = "samples"
        key = "name"
        indexes = ["seen", ("city", "age"), "height", "balance"]
        unique = ["email"]


class Visit(kv.Model):
    """Several fields make the key."""

    day = f.DateField()
    number = f.IntegerField()
    page = f.CharField(max_length=100, default="")

    class Meta:
        app_label = "samples"
        key = ("day", "number")
        ordering = ["-day", "-number"]


class Note(kv.Model):
    """An automatic key."""

    text = f.TextField(default="")
    rank = f.IntegerField(default=0, db_index=True)

    class Meta:
        app_label = "samples"


CITIES = ("Bern", "Berlin", "Oslo", "")


def people(number: int = 12) -> list[Person]:
    """So many people that differ in everything, stored."""
    made = [Person(**person(position)) for position in range(number)]
    return Person.objects.bulk_create(made)


def person(position: int) -> dict[str, Any]:
    """The values of one of them."""
    return {
        "name": f"p{position:02}",
        "email": None if position % 4 == 3 else f"p{position}@example.org",
        "city": CITIES[position % 4],
        "age": position * 7 % 10 - 3,
        "height": None if position % 5 == 0 else position / 2 - 2,
        "balance": Decimal(f"{position * 37 % 11 - 4}.25"),
        "born": None if position % 6 == 1 else datetime.date(1960 + position, 2, 3),
        "seen": None if position % 3 == 2 else FIRST + position % 4 * DAY,
        "active": position % 2 == 0,
        "tags": ["odd"] if position % 2 else [],
    }

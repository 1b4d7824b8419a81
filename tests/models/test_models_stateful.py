"""Random operations on the objects of a model beside a dict; after each, records, indexes and queries are compared.

The bytes in the store are compared, too: exactly one record per object, exactly the entries that the objects' values call
for, and nothing else under the model's prefix.
"""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any, ClassVar

import pytest
from django.db import models as f
from django.test import override_settings
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from django_keyspace import kv
from django_keyspace.operations import MODELS_BASE
from tests.contract.engines import Place
from tests.models.conftest import settings_of


class Thing(kv.Model):
    code = f.CharField(max_length=40)
    label = f.CharField(max_length=40, null=True)
    count = f.IntegerField(default=0)
    score = f.FloatField(null=True)
    price = f.DecimalField(max_digits=12, decimal_places=3, null=True)
    when = f.DateTimeField(null=True)

    class Meta:
        app_label = "stateful"
        key = "code"
        indexes = ["count", "score", ("price", "count"), "when"]
        unique = ["label"]


ZONES = st.sampled_from([datetime.UTC, datetime.timezone(datetime.timedelta(hours=-11, minutes=-30))])
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "label": st.none() | st.text("ab\x01", max_size=2),
    "count": st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1),
    "score": st.none() | st.sampled_from([0.0, -0.0, 1.5, float("inf"), float("-inf")]) | st.floats(allow_nan=False),
    "price": st.none() | st.decimals(-100, 100, places=3),
    "when": st.none() | st.datetimes(datetime.datetime(1, 1, 3), datetime.datetime(9999, 12, 29), timezones=ZONES),
}
CODES = st.sampled_from(["", "a", "a\x01", "ab", "b", "ÿ", "\U0001f600"])
ROWS = st.fixed_dictionaries(VALUES)
FIELDS = ["code", *VALUES]

Row = dict[str, Any]


def none_first(value: Any) -> Any:
    return (value is not None, value)


class Things(RuleBasedStateMachine):
    """The machine: ``rows`` is what should be there."""

    place: ClassVar[Place]

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, Row] = {}

    @initialize()
    def empty(self) -> None:
        self.place.engine.execute("clear", MODELS_BASE, True)

    # --- what may happen ----------------------------------------------------------------------------------------------

    def is_taken(self, label: str | None, code: str) -> bool:
        """Whether another object has the label."""
        return label is not None and any(row["label"] == label for key, row in self.rows.items() if key != code)

    @rule(code=CODES, row=ROWS)
    def create(self, code: str, row: Row) -> None:
        if code in self.rows or self.is_taken(row["label"], code):
            with pytest.raises(kv.DuplicateValue):
                Thing.objects.create(code=code, **row)
        else:
            assert Thing.objects.create(code=code, **row).pk == code
            self.rows[code] = row

    @rule(code=CODES, row=ROWS)
    def save(self, code: str, row: Row) -> None:
        found = Thing.objects.filter(code=code).first()
        assert (found is not None) == (code in self.rows)
        if found is None:
            return
        for name, value in row.items():
            setattr(found, name, value)
        if self.is_taken(row["label"], code):
            with pytest.raises(kv.DuplicateValue):
                found.save()
        else:
            found.save()
            self.rows[code] = row

    @rule(code=CODES, row=ROWS)
    def save_what_is_stale(self, code: str, row: Row) -> None:
        stale = Thing.objects.filter(pk=code).first()
        if stale is not None and Thing.objects.filter(pk=code).update(count=kv.F("count") - kv.F("count") + 5):
            changed = self.rows[code]["count"] != 5
            self.rows[code] = {**self.rows[code], "count": 5}
            stale.count = row["count"]
            if changed:
                with pytest.raises(kv.Conflict):
                    stale.save()

    @rule(code=CODES)
    def delete(self, code: str) -> None:
        number, _ = Thing.objects.filter(code=code).delete()
        assert number == (self.rows.pop(code, None) is not None)

    @rule(least=st.integers(-3, 3))
    def delete_many(self, least: int) -> None:
        gone = [code for code, row in self.rows.items() if row["count"] < least]
        assert Thing.objects.filter(count__lt=least).delete()[0] == len(gone)
        for code in gone:
            del self.rows[code]

    @rule(least=st.integers(-3, 3))
    def update_many(self, least: int) -> None:
        chosen = [code for code, row in self.rows.items() if least <= row["count"] <= 3]
        query = Thing.objects.filter(count__range=(least, 3))
        assert query.update(count=kv.F("count") + 1, score=0.5) == len(chosen)
        for code in chosen:
            self.rows[code] = {**self.rows[code], "count": self.rows[code]["count"] + 1, "score": 0.5}

    @rule(code=CODES, row=ROWS)
    def update_or_create(self, code: str, row: Row) -> None:
        if self.is_taken(row["label"], code):
            with pytest.raises(kv.DuplicateValue):
                Thing.objects.update_or_create(row, code=code)
        else:
            _, is_new = Thing.objects.update_or_create(row, code=code)
            assert is_new == (code not in self.rows)
            self.rows[code] = row

    @rule(rows=st.dictionaries(CODES, ROWS, max_size=4))
    def bulk_create(self, rows: dict[str, Row]) -> None:
        Thing.objects.bulk_create([Thing(code=code, **row) for code, row in rows.items()], ignore_conflicts=True)
        for code, row in rows.items():
            if code not in self.rows and not self.is_taken(row["label"], code):
                self.rows[code] = row

    @precondition(lambda self: self.rows)
    @rule(scores=st.lists(VALUES["score"], min_size=7, max_size=7))
    def bulk_update(self, scores: list[Any]) -> None:
        things = list(Thing.objects.all())
        for thing, score in zip(things, scores, strict=False):
            thing.score, thing.count = score, 77  # the count is not stored
            self.rows[thing.code] = {**self.rows[thing.code], "score": score}
        assert Thing.objects.bulk_update(things, ["score"]) == len(things)

    # --- what must hold -----------------------------------------------------------------------------------------------

    @rule(first=ROWS, second=ROWS, name=st.sampled_from(list(VALUES)), descends=st.booleans())
    def ask(self, first: Row, second: Row, name: str, descends: bool) -> None:
        low, high = first[name], second[name]
        if low is None or high is None:
            wanted = [code for code, row in self.rows.items() if row[name] is None]
            assert sorted(Thing.objects.filter(**{name: None}).values_list("pk", flat=True)) == sorted(wanted)
            return
        matching = {code: row for code, row in self.rows.items() if row[name] is not None and low <= row[name] < high}
        query = Thing.objects.filter(**{f"{name}__gte": low, f"{name}__lt": high})
        found = list(query.order_by("-" * descends + name).values_list("pk", name))
        assert sorted(code for code, _ in found) == sorted(matching)
        assert [value for _, value in found] == sorted((row[name] for row in matching.values()), reverse=descends)
        assert query.count() == len(matching)
        assert Thing.objects.exclude(**{f"{name}__gte": low, f"{name}__lt": high}).count() == len(self.rows) - len(
            matching
        )

    @invariant()
    def objects_are_the_rows(self) -> None:
        stored = {values.pop("code"): values for values in Thing.objects.values(*FIELDS)}
        assert stored == self.rows
        assert list(stored) == sorted(self.rows)  # the order of the key

    @invariant()
    def indexes_are_exact_and_in_order(self) -> None:
        storage, meta = Thing._storage(), Thing._meta
        for index in meta.indexes.values():
            wanted = {}
            for code, row in self.rows.items():
                key_bytes = meta.make_key(code)
                entry = index.entry({"code": code, **row}, key_bytes)
                if entry is not None:
                    wanted[entry] = code
            rows, more = self.place.engine.execute(
                "list", storage.database, index.prefix, b"", False, True, 1000, False
            )
            assert not more and rows == sorted(wanted)
            in_order = [[none_first(self.rows[wanted[entry]][name]) for name in index.field_names] for entry in rows]
            assert in_order == sorted(in_order)

    @invariant()
    def nothing_else_is_stored(self) -> None:
        meta = Thing._meta
        prefixes = [meta.record_prefix, meta.schema_key, *(index.prefix for index in meta.indexes.values())]
        rows, more = self.place.engine.execute("list", Thing._storage().database, b"", b"", False, True, 1000, False)
        assert not more and all(any(key.startswith(prefix) for prefix in prefixes) for key in rows)


def test_random_operations(place: Place) -> None:
    is_local = place.orders_writes
    machine = type("Things", (Things,), {"place": place})
    bounded = settings(
        max_examples=50 if is_local else 12,
        stateful_step_count=25 if is_local else 15,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    with override_settings(CACHES=settings_of(place)):
        run_state_machine_as_test(machine, settings=bounded)


def test_decimals_compare_as_numbers() -> None:
    """What the machine relies on: a dict with 1.50 equals one with 1.5."""
    assert {"price": Decimal("1.50")} == {"price": Decimal("1.5")}

"""Values of fields: converted as a table would, validated by full_clean, and the same after they were stored."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.core.validators import MinValueValidator
from django.db import models as f
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy

from django_keyspace import kv
from tests.contract.engines import Place

Ask = Callable[..., Any]


class Color(f.TextChoices):
    RED = "r", "Red"
    BLUE = "b", "Blue"


class Reversed(f.CharField):
    """A field that is stored another way than it is used."""

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return None if value is None else value[::-1]

    def get_prep_value(self, value: Any) -> Any:
        return None if value is None else str(value)[::-1]


class Value(kv.Model):
    name = f.CharField(max_length=10, primary_key=True)
    flag = f.BooleanField(null=True)
    small = f.SmallIntegerField(null=True)
    big = f.BigIntegerField(null=True)
    ratio = f.FloatField(null=True)
    price = f.DecimalField(max_digits=6, decimal_places=2, null=True)
    text = f.TextField(null=True)
    color = f.CharField(max_length=1, choices=Color, null=True, blank=True)
    day = f.DateField(null=True)
    clock = f.TimeField(null=True)
    moment = f.DateTimeField(null=True)
    length = f.DurationField(null=True)
    code = f.UUIDField(null=True)
    raw = f.BinaryField(null=True)
    more = f.JSONField(null=True)
    address = f.GenericIPAddressField(null=True)
    back = Reversed(max_length=10, null=True)
    cover = f.FileField(null=True)

    class Meta:
        app_label = "values"
        indexes = ["back", "address"]


class Member(kv.Model):
    """What full_clean looks at."""

    nick = f.SlugField(max_length=5)
    age = f.IntegerField(default=18, validators=[MinValueValidator(16)])
    mail = f.EmailField("mail address", null=True, blank=True)
    first = f.CharField(max_length=9, blank=True)
    last = f.CharField(max_length=9, blank=True)

    class Meta:
        app_label = "values"
        key = "nick"
        unique = ["mail", ("first", "last")]
        verbose_name = "club member"

    def clean(self) -> None:
        if self.first == "X" == self.last:
            raise ValidationError("X is nobody.")


DAY = datetime.date(2024, 2, 29)
UTC = datetime.UTC
CODE = uuid.UUID("12345678-1234-5678-1234-567812345678")
CET = datetime.timezone(datetime.timedelta(hours=1))


@pytest.mark.parametrize(
    ("name", "given", "wanted"),
    [
        ("flag", "True", True),
        ("flag", 0, False),
        ("small", "-7", -7),
        ("small", 7.0, 7),
        ("big", -(2**63), -(2**63)),
        ("ratio", "1.5", 1.5),
        ("ratio", float("inf"), float("inf")),
        ("price", "1.005", Decimal("1.00")),
        ("price", 3, Decimal("3.00")),
        ("text", mark_safe("<b>"), "<b>"),
        ("text", gettext_lazy("lazy"), "lazy"),
        ("text", 12, "12"),
        ("text", "\0ÿ\U0001f600", "\0ÿ\U0001f600"),
        ("color", Color.RED, "r"),
        ("day", "2024-02-29", DAY),
        ("day", datetime.datetime(2024, 2, 29, 23, tzinfo=UTC), DAY),
        ("clock", "12:34:56.000001", datetime.time(12, 34, 56, 1)),
        ("moment", "2024-02-29T12:00:00+01:00", datetime.datetime(2024, 2, 29, 11, tzinfo=UTC)),
        ("moment", datetime.datetime(1, 1, 2, tzinfo=CET), datetime.datetime(1, 1, 1, 23, tzinfo=UTC)),
        ("length", "1 00:00:00.5", datetime.timedelta(days=1, microseconds=500_000)),
        ("length", datetime.timedelta(days=-99), datetime.timedelta(days=-99)),
        ("code", str(CODE), CODE),
        ("raw", memoryview(b"\0\xff"), b"\0\xff"),
        ("more", {"a": [1, None, {"b": "c"}]}, {"a": [1, None, {"b": "c"}]}),
        ("more", (1, 2), [1, 2]),
        ("more", "text", "text"),
        ("address", "::ffff:1.2.3.4", "::ffff:1.2.3.4"),
        ("back", "abc", "abc"),
        ("cover", "covers/emma.png", "covers/emma.png"),
        ("text", None, None),
    ],
)
def test_values_are_converted_and_come_back(alias: Place, ask: Ask, name: str, given: Any, wanted: Any) -> None:
    ask(Value(name="x", **{name: given}), "save")
    found = getattr(ask(Value.objects, "get", pk="x"), name)
    assert found == wanted
    if name != "cover":
        assert type(found) is type(wanted)
        assert Value.objects.values_list(name, flat=True).get() == wanted
    if wanted is not None and name not in ("more", "cover"):
        asked = wanted if name == "price" else given  # a lookup rounds nothing
        assert Value.objects.filter(**{name: asked}).count() == 1


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("flag", "perhaps"),
        ("small", "1.5"),
        ("small", [1]),
        ("ratio", "much"),
        ("price", "a lot"),
        ("price", "99999.99"),
        ("day", "2024-02-30"),
        ("clock", "25:00"),
        ("moment", "yesterday"),
        ("length", "long"),
        ("code", "no code"),
        ("length", datetime.timedelta.min),
        ("more", object()),
        ("more", {1, 2}),
        ("address", "::gg"),
    ],
)
def test_wrong_types_name_the_field(alias: Place, ask: Ask, name: str, given: Any) -> None:
    with pytest.raises(kv.InvalidValue, match=rf"values\.Value\.{name} does not take .*Nothing was changed"):
        ask(Value(name="x", **{name: given}), "save")
    with pytest.raises(kv.InvalidValue, match=name):
        ask(Value.objects, "bulk_create", [Value(name="y"), Value(name="x", **{name: given})])
    assert Value.objects.count() == 0


def test_lazy_objects(alias: Place) -> None:
    Value(name=SimpleLazyObject(lambda: "lazy"), text="a").save()
    assert Value.objects.get(pk="lazy").text == "a"


def test_naive_moments_get_the_current_zone(alias: Place) -> None:
    with pytest.warns(RuntimeWarning, match="naive datetime"):
        Value(name="x", moment=datetime.datetime(2024, 1, 1)).save()
    assert Value.objects.get().moment.tzinfo is not None


def test_without_time_zones(alias: Place, settings: Any) -> None:
    settings.USE_TZ = False
    moment = datetime.datetime(2024, 1, 1, 12)
    Value(name="x", moment=moment).save()
    assert Value.objects.get().moment == moment
    settings.USE_TZ = True
    assert Value.objects.get().moment.tzinfo is not None


def test_defaults_and_display() -> None:
    one = Member()
    assert (one.age, one.first, one.mail) == (18, "", None)
    assert Value().more is None and Value(color="b").get_color_display() == "Blue"


def errors_of(member: Member, **arguments: Any) -> dict[str, list[str]]:
    """What full_clean finds: codes by field."""
    try:
        member.full_clean(**arguments)
    except ValidationError as error:
        return {name: [each.code or "" for each in found] for name, found in error.error_dict.items()}
    return {}


def test_full_clean_finds_everything(alias: Place) -> None:
    assert errors_of(Member(nick="ann", age="17")) == {}
    assert errors_of(Member(nick="not a slug!", age=3, mail="nobody")) == {
        "nick": ["invalid", "max_length"],
        "age": ["min_value"],
        "mail": ["invalid"],
    }
    assert errors_of(Member(nick="", age=None)) == {"nick": ["blank"], "age": ["null"]}
    assert errors_of(Member(nick="a", age="many"), exclude=["age"]) == {}
    assert errors_of(Member(nick="a", first="X", last="X")) == {NON_FIELD_ERRORS: [""]}
    member = Member(nick="a", age="17")
    member.full_clean()
    assert member.age == 17


def test_full_clean_asks_the_store_for_unique_values(alias: Place) -> None:
    ann = Member.objects.create(nick="ann", mail="ann@example.org", first="A", last="B")
    assert errors_of(ann) == {}  # its own
    assert errors_of(Member(nick="bob", first="A", last="B", mail="ann@example.org")) == {
        "mail": ["unique"],
        NON_FIELD_ERRORS: ["unique_together"],
    }
    assert errors_of(Member(nick="ann", first="C")) == {"nick": ["unique"]}
    assert errors_of(Member(nick="ann", first="C"), validate_unique=False) == {}
    with pytest.raises(ValidationError, match="Club member with this Mail address already exists"):
        Member(nick="bob", mail="ann@example.org").full_clean()


def test_saving_does_not_validate_as_with_djangos_models(alias: Place, ask: Ask) -> None:
    ask(Member(nick="longer than five", age=3), "save")
    assert Member.objects.get().age == 3

"""The order of bytes is the order of Python's values, and bytes can be read back."""

from __future__ import annotations

import datetime
import enum
import itertools
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.db import models
from django.utils.safestring import SafeString
from hypothesis import example, given
from hypothesis import strategies as st

from django_keyspace.backend.models.ordering import (
    ordered,
    ordered_all,
    ordered_beginning,
    read_ordered,
    read_ordered_all,
)
from django_keyspace.exceptions import InvalidArgument

FIXED_ZONES = st.integers(-1439, 1439).map(lambda minutes: datetime.timezone(datetime.timedelta(minutes=minutes)))

KINDS: dict[str, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "small integer": st.integers(-300, 300),
    "integer": st.integers(-(2**70), 2**70),
    "huge integer": st.integers(-(2**2100), 2**2100),
    "float": st.floats(allow_nan=False),
    "decimal": st.decimals(allow_nan=False),
    "short decimal": st.decimals(-1000, 1000, places=3),
    "text": st.text(),
    "awkward text": st.text("\x00\x01\xff\ud800\U0010ffffa", max_size=5),
    "bytes": st.binary(),
    "awkward bytes": st.lists(st.sampled_from([b"\x00", b"\x01", b"\xff", b"a"]), max_size=5).map(b"".join),
    "date": st.dates(),
    "naive datetime": st.datetimes(),
    "aware datetime": st.datetimes(timezones=FIXED_ZONES),
    "time": st.times(),
    "timedelta": st.timedeltas(),
    "uuid": st.uuids(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_sort_as_values_and_read_back(kind: str) -> None:
    @given(first=KINDS[kind] | st.none(), second=KINDS[kind] | st.none(), tail=st.binary(max_size=3))
    def check(first: Any, second: Any, tail: bytes) -> None:
        mine, other = ordered(first), ordered(second)
        assert (mine == other) == (first == second)
        if None in (first, second):
            assert (mine < other) == (first is None and second is not None)
        else:
            assert (mine < other) == (first < second)
        if mine != other:
            assert not mine.startswith(other) and not other.startswith(mine)
        value, end = read_ordered(mine + tail)
        assert value == first and type(value) is type(first) and end == len(mine)

    check()


CORNERS: dict[str, list[Any]] = {
    "integer": [-(2**64), -(2**64) + 1, -(2**63), -65537, -65536, -257, -256, -255, -1, 0, 1, 255, 256, 2**63, 2**64],
    "long integer": [-(2**3000), -(2**2999), -(2**72), 2**64, 2**72, 2**2999, 2**3000],
    "float": [float("-inf"), -1.7e308, -1.5, -5e-324, 0.0, 5e-324, 1.5, 1.7e308, float("inf")],
    "decimal": [
        Decimal(text)
        for text in ["-Infinity", "-1e99", "-10.5", "-10.49", "-1e-9", "0", "1e-9", "9.99", "10", "Infinity"]
    ],
    "text": [
        "",
        "\x00",
        "\x00\x00",
        "\x00\x01",
        "\x00a",
        "\x01",
        "A",
        "a",
        "a\x00",
        "aa",
        "ab",
        "é",
        "\uffff",
        "\U00010000",
    ],
    "bytes": [b"", b"\x00", b"\x00\x00", b"\x00\xff", b"\x01", b"\xff", b"\xff\x00"],
    "date": [datetime.date.min, datetime.date(1969, 12, 31), datetime.date(1970, 1, 1), datetime.date.max],
    "time": [datetime.time.min, datetime.time(0, 0, 0, 1), datetime.time(23, 59), datetime.time.max],
    "timedelta": [
        datetime.timedelta.min,
        datetime.timedelta(microseconds=-1),
        datetime.timedelta(0),
        datetime.timedelta.max,
    ],
    "uuid": [UUID(int=0), UUID(int=1), UUID(int=2**127), UUID(int=2**128 - 1)],
}


@pytest.mark.parametrize("kind", CORNERS)
def test_corners(kind: str) -> None:
    values = [None, *CORNERS[kind]]
    encoded = [ordered(value) for value in values]
    assert all(first < second for first, second in itertools.pairwise(encoded))
    assert [read_ordered(data)[0] for data in encoded] == values


@given(
    st.lists(
        st.tuples(
            st.none() | st.text("ab\x00", max_size=2),
            st.none() | st.integers(-300, 300),
            st.none() | st.decimals(-2, 2, places=1),
        ),
        min_size=2,
        max_size=6,
    )
)
@example([("a", None, None), ("a\x00", -1, Decimal(0)), ("aa", 0, None)])
def test_tuples_sort_as_tuples(rows: list[tuple[Any, ...]]) -> None:
    def comparable(row: tuple[Any, ...]) -> list[Any]:
        return [(0,) if value is None else (1, value) for value in row]

    assert sorted(rows, key=ordered_all) == sorted(rows, key=comparable)
    for row in rows:
        assert read_ordered_all(b"x" + ordered_all(row) + b"rest", 3, 1) == (row, 1 + len(ordered_all(row)))


@given(st.text("ab\x00\xff", max_size=4), st.text("ab\x00\xff", max_size=4))
def test_beginnings(text: str, beginning: str) -> None:
    assert ordered(text).startswith(ordered_beginning(beginning)) == text.startswith(beginning)
    data, start = text.encode("latin-1"), beginning.encode("latin-1")
    assert ordered(data).startswith(ordered_beginning(start)) == data.startswith(start)


def test_equal_values_have_equal_bytes() -> None:
    assert ordered(-0.0) == ordered(0.0)
    assert ordered(Decimal("-0")) == ordered(Decimal("0.00"))
    assert ordered(Decimal("1.10")) == ordered(Decimal("1.1"))
    assert ordered(Decimal("1e3")) == ordered(Decimal("1000"))
    noon = datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.UTC)
    assert ordered(noon) == ordered(noon.astimezone(datetime.timezone(datetime.timedelta(hours=5, minutes=30))))
    assert ordered(noon) != ordered(noon.replace(tzinfo=None))
    assert ordered(bytearray(b"a")) == ordered(memoryview(b"a")) == ordered(b"a")


def test_subclasses_go_as_what_they_are() -> None:
    class Colour(models.TextChoices):
        RED = "r"

    class Number(enum.IntEnum):
        ONE = 1

    class Moment(datetime.datetime):
        pass

    assert ordered(Colour.RED) == ordered("r")
    assert ordered(Number.ONE) == ordered(1)
    assert ordered(SafeString("a")) == ordered("a")
    assert ordered(Moment(2024, 1, 1)) == ordered(datetime.datetime(2024, 1, 1))


def test_a_moment_outside_the_years_of_utc_reads_back() -> None:
    first = datetime.datetime.min.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=14)))
    last = datetime.datetime.max.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=-14)))
    assert read_ordered(ordered(first))[0] == first
    assert read_ordered(ordered(last))[0] == last


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        Decimal("NaN"),
        Decimal("sNaN"),
        [1],
        {"a": 1},
        object(),
        1j,
        datetime.time(1, tzinfo=datetime.UTC),
        pytest.param(1 << (8 * 65536), id="an integer of 64 KiB"),
    ],
)
def test_what_has_no_order_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="cannot be part of a key or an index"):
        ordered(value)


@pytest.mark.parametrize("data", [b"", b"\xfe", b"\x40abc", b"\x28\x01", b"\x30\x01", b"\x50\xff\xff\xff", b"\x60ab"])
def test_what_is_no_value_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument, match="no ordered value"):
        read_ordered(data)

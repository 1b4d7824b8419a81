"""Contract of the operations that build on what is there: incr, incr_float, append."""

from __future__ import annotations

import pytest

from django_keyspace.exceptions import MissingKey, NotANumber, NumberOverflow, ValueTooLarge, WrongType
from django_keyspace.operations import INT64_MAX, INT64_MIN
from django_keyspace.store.record import Flag, Tag
from tests.contract.engines import VALUE_BYTES_MAX
from tests.contract.records import (
    ABSENT_KEY,
    ALWAYS,
    DB,
    EVICTABLE,
    Do,
    about,
    deadline_of,
    flags_of,
    integer,
    left_ms,
    payload,
    put,
    tag_of,
    val,
)

pytestmark = pytest.mark.contract
covers = pytest.mark.covers


def store(do: Do, key: bytes, value: tuple[int, int, bytes], expire: object = None) -> bytes:
    do("set", DB, key, value, expire, ALWAYS)
    return do("get", DB, key)


@covers("incr")
def test_incr(do: Do) -> None:
    store(do, b"n", integer(40))
    assert [do("incr", DB, b"n", delta, None, None, EVICTABLE) for delta in (2, -50, 0)] == [42, -8, -8]
    record = do("get", DB, b"n")
    assert (tag_of(record), payload(record)) == (Tag.INTEGER, b"-8")


@covers("incr")
def test_incr_of_a_missing_key(do: Do) -> None:
    with pytest.raises(MissingKey):
        do("incr", DB, b"n", 1, None, None, EVICTABLE)
    assert do("exists", DB, b"n") is False
    assert do("incr", DB, b"n", 1, 10, 60_000, 0) == 11
    assert about(left_ms(do, b"n"), 60_000)
    assert flags_of(do("get", DB, b"n")) == 0
    assert do("incr", DB, b"gone", 1, 10, 0, EVICTABLE) == 11
    assert do("exists", DB, b"gone") is False


@covers("incr", "incr_float", "append")
def test_counting_and_appending_keep_deadline_and_flags(do: Do) -> None:
    for key, value, call in [
        (b"i", integer(1, 0), ("incr", DB, b"i", 1, 5, 1, EVICTABLE)),
        (b"f", val(b"1.5", Tag.FLOAT, 0), ("incr_float", DB, b"f", 1.0, 5.0, 1, EVICTABLE)),
        (b"a", val(b"x", Tag.TEXT, 0), ("append", DB, b"a", val(b"y", Tag.TEXT), 1)),
    ]:
        deadline_ms = deadline_of(store(do, key, value, 60_000))
        do(*call)
        record = do("get", DB, key)
        assert (deadline_of(record), flags_of(record)) == (deadline_ms, 0)


@covers("incr")
@pytest.mark.parametrize(("number", "delta"), [(INT64_MAX, 1), (INT64_MIN, -1), (1, INT64_MAX), (-2, INT64_MIN)])
def test_incr_refuses_to_leave_64_bits(do: Do, number: int, delta: int) -> None:
    before = store(do, b"n", integer(number), 60_000)
    with pytest.raises(NumberOverflow):
        do("incr", DB, b"n", delta, None, None, EVICTABLE)
    assert do("get", DB, b"n") == before
    with pytest.raises(NumberOverflow):
        do("incr", DB, ABSENT_KEY, delta, number, None, EVICTABLE)
    assert do("exists", DB, ABSENT_KEY) is False


@covers("incr")
def test_incr_reaches_both_ends_of_64_bits(do: Do) -> None:
    store(do, b"n", integer(INT64_MAX - 1))
    assert do("incr", DB, b"n", 1, None, None, EVICTABLE) == INT64_MAX
    store(do, b"n", integer(INT64_MIN + 1))
    assert do("incr", DB, b"n", -1, None, None, EVICTABLE) == INT64_MIN


NOT_INTEGERS = [(Tag.BYTES, b"1"), (Tag.TEXT, b"1"), (Tag.FLOAT, b"1.0"), (Tag.BOOLEAN, b"1"), (Tag.PICKLE, b"1")]


@covers("incr")
@pytest.mark.parametrize(("tag", "data"), NOT_INTEGERS)
def test_incr_counts_integers_only(do: Do, tag: int, data: bytes) -> None:
    before = store(do, b"n", val(data, tag), 60_000)
    with pytest.raises(NotANumber):
        do("incr", DB, b"n", 1, 0, None, EVICTABLE)
    assert do("get", DB, b"n") == before


@covers("incr", "incr_float")
@pytest.mark.parametrize("tag", [Tag.INTEGER, Tag.FLOAT])
@pytest.mark.parametrize("data", [b"", b"abc", b"\xff\xfe", b"x\x9c\x03\x00"])
def test_a_number_whose_bytes_are_none_is_not_counted(do: Do, tag: int, data: bytes) -> None:
    before = store(do, b"n", val(data, tag))
    for call in (("incr", DB, b"n", 1, 0, None, 0), ("incr_float", DB, b"n", 1.0, 0.0, None, 0)):
        with pytest.raises(NotANumber):
            do(*call)
    assert do("get", DB, b"n") == before


@covers("incr_float")
def test_incr_float(do: Do) -> None:
    assert do("incr_float", DB, b"f", 0.5, 1.0, 60_000, EVICTABLE) == 1.5
    assert about(left_ms(do, b"f"), 60_000)
    assert do("incr_float", DB, b"f", -2.25, None, None, EVICTABLE) == -0.75
    record = do("get", DB, b"f")
    assert (tag_of(record), payload(record)) == (Tag.FLOAT, b"-0.75")
    store(do, b"i", integer(7))
    answer = do("incr_float", DB, b"i", 1.0, None, None, EVICTABLE)
    assert answer == 8.0 and type(answer) is float
    assert tag_of(do("get", DB, b"i")) == Tag.FLOAT
    with pytest.raises(MissingKey):
        do("incr_float", DB, ABSENT_KEY, 1.0, None, None, EVICTABLE)


@covers("incr_float")
@pytest.mark.parametrize("data", [b"1.7976931348623157e+308", b"inf", b"nan"])
def test_incr_float_stays_finite(do: Do, data: bytes) -> None:
    before = store(do, b"f", val(data, Tag.FLOAT))
    with pytest.raises(NumberOverflow):
        do("incr_float", DB, b"f", 1.7976931348623157e308, None, None, EVICTABLE)
    assert do("get", DB, b"f") == before


@covers("incr_float")
@pytest.mark.parametrize("tag", [Tag.BYTES, Tag.TEXT, Tag.BOOLEAN, Tag.JSON])
def test_incr_float_counts_numbers_only(do: Do, tag: int) -> None:
    before = store(do, b"f", val(b"1", tag))
    with pytest.raises(NotANumber):
        do("incr_float", DB, b"f", 1.0, 0.0, None, EVICTABLE)
    assert do("get", DB, b"f") == before


@covers("append")
@pytest.mark.parametrize("tag", [Tag.TEXT, Tag.BYTES, Tag.RAW])
def test_append(do: Do, tag: int) -> None:
    assert do("append", DB, b"k", val(b"ab", tag), 60_000) == 2
    assert about(left_ms(do, b"k"), 60_000)
    assert do("append", DB, b"k", val("ü".encode(), tag), None) == 4
    assert do("append", DB, b"k", val(b"", tag), None) == 4
    record = do("get", DB, b"k")
    assert (tag_of(record), payload(record)) == (tag, b"ab" + "ü".encode())
    assert about(left_ms(do, b"k"), 60_000)


@covers("append")
@pytest.mark.parametrize(
    ("there", "added"),
    [(Tag.TEXT, Tag.BYTES), (Tag.BYTES, Tag.TEXT), (Tag.INTEGER, Tag.INTEGER), (Tag.PICKLE, Tag.PICKLE)],
)
def test_append_refuses_other_types(do: Do, there: int, added: int) -> None:
    before = store(do, b"k", val(b"1", there), 60_000)
    with pytest.raises(WrongType):
        do("append", DB, b"k", val(b"2", added), None)
    assert do("get", DB, b"k") == before


@covers("append")
def test_append_stays_within_the_limit_of_a_value(do: Do) -> None:
    store(do, b"k", val(b"x" * (VALUE_BYTES_MAX - 1)))
    assert do("append", DB, b"k", val(b"y"), None) == VALUE_BYTES_MAX
    with pytest.raises(ValueTooLarge):
        do("append", DB, b"k", val(b"z"), None)
    assert do("length", DB, b"k") == VALUE_BYTES_MAX


@covers("append")
def test_append_to_nothing_with_a_timeout_of_0(do: Do) -> None:
    assert do("append", DB, b"k", val(b"abc"), 0) == 3
    assert do("exists", DB, b"k") is False
    put(do, b"live", b"x")
    assert do("append", DB, b"live", val(b"y"), 0) == 2
    assert do("exists", DB, b"live") is True


DECIMAL = int(Flag.DECIMAL)


@covers("incr", "incr_float")
@pytest.mark.parametrize("tag", [Tag.TEXT, Tag.BYTES])
@pytest.mark.parametrize(("data", "sum_"), [(b"10", 11), (b"-5", -4), (b"007", 8), (b"", 1), (b"-0", 1)])
def test_text_that_is_flagged_as_decimal_is_counted(do: Do, tag: int, data: bytes, sum_: int) -> None:
    deadline_ms = deadline_of(store(do, b"n", val(data, tag, DECIMAL), 60_000))
    assert do("incr", DB, b"n", 1, None, None, EVICTABLE) == sum_
    record = do("get", DB, b"n")
    assert (tag_of(record), payload(record), flags_of(record)) == (Tag.INTEGER, b"%d" % sum_, DECIMAL)
    assert deadline_of(record) == deadline_ms
    store(do, b"f", val(data, tag, DECIMAL))
    assert do("incr_float", DB, b"f", 1.5, None, None, EVICTABLE) == sum_ + 0.5


@covers("incr")
@pytest.mark.parametrize("data", [b"-", b"+5", b" 5", b"1.5", b"1_0", b"abc", b"\xd9\xa3", b"5\n", b"9" * 5_000])
def test_flagged_text_that_is_no_decimal_integer_is_not_counted(do: Do, data: bytes) -> None:
    before = store(do, b"n", val(data, Tag.TEXT, DECIMAL))
    with pytest.raises(NotANumber):
        do("incr", DB, b"n", 1, 0, None, EVICTABLE)
    assert do("get", DB, b"n") == before

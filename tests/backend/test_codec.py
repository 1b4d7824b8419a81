"""Values to records and back: exact types, serializers, signatures, compression, and what an alias must not read."""

from __future__ import annotations

import datetime
import enum
import logging
import math
import pickle
from collections import OrderedDict
from decimal import Decimal
from typing import Any
from zlib import crc32

import msgpack
import pytest
from django.test import override_settings
from django.utils.safestring import SafeString, mark_safe
from hypothesis import given, settings
from hypothesis import strategies as st

from django_keyspace.backend.codec import Codec, Unreadable
from django_keyspace.conf import make_config
from django_keyspace.exceptions import CannotSerialize, ValueTooLarge
from django_keyspace.store.record import HEADER_BYTES, Flag, Tag, pack_header

NATIVE = {str: Tag.TEXT, bytes: Tag.BYTES, int: Tag.INTEGER, float: Tag.FLOAT, bool: Tag.BOOLEAN}


def codec(**options: Any) -> Codec:
    return Codec(make_config("/nowhere", options))


def record(value: tuple[int, int, bytes]) -> bytes:
    tag, flags, payload = value
    return pack_header(tag, flags, crc32(payload), 1, 0, 0) + payload


def there_and_back(one: Codec, value: Any) -> Any:
    return one.decode(record(one.encode(value)))


def same(one: Any, two: Any) -> bool:
    if isinstance(one, float) and isinstance(two, float) and math.isnan(one):
        return math.isnan(two)
    return type(one) is type(two) and one == two


natives = st.one_of(
    st.text(), st.binary(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.booleans()
)  # fmt: skip
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
msgpack_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(0, 99), inner, max_size=4),
    max_leaves=8,
)
atoms = st.none() | st.integers() | st.complex_numbers(allow_nan=False) | st.decimals(allow_nan=False) | st.datetimes()
pickle_values = st.recursive(
    atoms | st.frozensets(atoms, max_size=3),
    lambda inner: st.tuples(inner, inner) | st.lists(inner, max_size=3) | st.dictionaries(atoms, inner, max_size=3),
    max_leaves=8,
)
VALUES = {"pickle": pickle_values, "json": json_values, "msgpack": msgpack_values, "raw": st.binary().map(bytearray)}
OPTIONS = [{}, {"compressor": "zlib", "compress_min_bytes": 0}, {"signed": False}, {"evictable": False}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("serializer", VALUES)
def test_values_come_back(serializer: str, options: dict[str, Any]) -> None:
    one = codec(serializer=serializer, **options)

    @settings(max_examples=40, deadline=None, database=None)
    @given(natives)
    def natives_come_back(value: Any) -> None:
        assert same(value, there_and_back(one, value))

    @settings(max_examples=40, deadline=None, database=None)
    @given(VALUES[serializer])
    def serialized_values_come_back(value: Any) -> None:
        found = there_and_back(one, value)
        assert found == value and (type(found) is type(value) or type(value) is bytearray)

    natives_come_back()
    serialized_values_come_back()


@pytest.mark.parametrize("compressor", [None, "zlib"])
@pytest.mark.parametrize(
    "value",
    ["text", b"bytes", 5, -(2**63), 2**63 - 1, 0.1, float("nan"), float("-inf"), True, False, "", b""],
    ids=repr,
)
def test_exact_native_types_are_native(value: Any, compressor: str | None) -> None:
    one = codec(compressor=compressor, compress_min_bytes=0)
    tag, flags, payload = one.encode(value)
    assert tag == NATIVE[type(value)]
    if not flags & Flag.COMPRESSED:
        assert payload == (value if isinstance(value, bytes) else payload)
    assert b"pickle" not in payload and not flags & Flag.SIGNED
    for other in VALUES:
        assert same(value, codec(serializer=other).decode(record((tag, flags, payload))))


@pytest.mark.parametrize("number", [1111111111111111111, -1111111111111111111, 0.11111111111111111, 1e300])
def test_numbers_are_never_compressed_for_they_are_counted_in_the_store(number: float) -> None:
    one = codec(compressor="zlib", compress_min_bytes=0)
    _, flags, payload = one.encode(number)
    assert not flags & Flag.COMPRESSED and type(number)(payload) == number


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Name(str):
    pass


class Count(int):
    pass


SUBCLASSES = [
    mark_safe("<b>"), Colour.RED, Level.LOW, Name("n"), Count(5), 2**63, -(2**63) - 1, 10**30, "\ud800", None,
    (1, 2), {1: "a"}, {1, 2}, OrderedDict(a=1), Decimal("1.50"), datetime.date(2020, 1, 2), bytearray(b"x"), [True],
]  # fmt: skip


@pytest.mark.parametrize("value", SUBCLASSES, ids=repr)
def test_everything_else_keeps_its_type_through_pickle(value: Any) -> None:
    one = codec()
    tag, flags, _ = one.encode(value)
    assert tag == Tag.PICKLE and flags & Flag.SIGNED
    found = there_and_back(one, value)
    assert same(value, found)
    assert not isinstance(value, SafeString) or isinstance(found, SafeString)


@pytest.mark.parametrize(
    ("serializer", "value"),
    [
        ("json", {1, 2}), ("json", [b"x"]), ("json", "\ud800"), ("json", object()),
        ("msgpack", 2**64), ("msgpack", {1, 2}), ("msgpack", "\ud800"), ("msgpack", object()),
        ("raw", [1]), ("raw", None), ("raw", "\ud800"), ("raw", 2**63),
        ("pickle", lambda: 1), ("pickle", (number for number in [1])),
    ],
)  # fmt: skip
def test_values_that_a_serializer_does_not_take(serializer: str, value: Any) -> None:
    with pytest.raises(CannotSerialize, match="Nothing was changed"):
        codec(serializer=serializer).encode(value)


def test_appended_text_has_utf8_and_a_limit() -> None:
    one = codec(value_bytes_max=10)
    assert one.encode_uncompressed("ü") == (Tag.TEXT, Flag.EVICTABLE, "ü".encode())
    with pytest.raises(CannotSerialize):
        one.encode_uncompressed("\ud800")
    with pytest.raises(ValueTooLarge):
        one.encode_uncompressed(b"x" * 11)


# ------------------------------------------------------------------------------------------------------ signatures


class Bomb:
    """Unpickling this leaves a trace."""

    exploded: list[int] = []

    def __reduce__(self) -> Any:
        return Bomb.exploded.append, (1,)


def forged(payload: bytes, *, signature: bytes = b"", compressed: bool = False) -> bytes:
    flags = (Flag.SIGNED if signature else 0) | (Flag.COMPRESSED if compressed else 0)
    return record((Tag.PICKLE, int(flags), signature + payload))


@pytest.mark.parametrize("serializer", VALUES)
def test_a_pickle_that_this_site_did_not_sign_is_never_loaded(serializer: str) -> None:
    payload = pickle.dumps(Bomb())
    one = codec(serializer=serializer)
    for bad in (forged(payload), forged(payload, signature=b"\0" * 16), forged(payload, signature=b"short")):
        with pytest.raises(Unreadable):
            one.decode(bad)
    assert Bomb.exploded == []


def test_every_bit_of_a_signed_record_counts(caplog: pytest.LogCaptureFixture) -> None:
    one = codec(compressor="zlib", compress_min_bytes=10)
    for value in ({"a": 1}, ["x" * 500]):
        good = record(one.encode(value))
        assert one.decode(good) == value
        for position in range(HEADER_BYTES, len(good)):
            bad = bytearray(good)
            bad[position] ^= 0x40
            with pytest.raises(Unreadable):
                one.decode(bytes(bad))
        for flags in (Flag.SIGNED | Flag.COMPRESSED, Flag.SIGNED, 0, Flag.COMPRESSED):
            bad = bytearray(good)
            if bad[1] & 3 != flags:
                bad[1] = int(flags)
                with pytest.raises(Unreadable):
                    one.decode(bytes(bad))
    security = [entry for entry in caplog.records if entry.name == "django.security.django_keyspace"]
    assert security and all(entry.levelno == logging.WARNING for entry in security)


def test_signatures_follow_the_secret_key() -> None:
    one = codec()
    with override_settings(SECRET_KEY="old"):
        old = record(one.encode([1]))
        assert one.decode(old) == [1]
    with pytest.raises(Unreadable, match="signature"):
        one.decode(old)
    with override_settings(SECRET_KEY="new"):
        with pytest.raises(Unreadable):
            one.decode(old)
        with override_settings(SECRET_KEY_FALLBACKS=["older", "old"]):
            assert one.decode(old) == [1]
            new = record(one.encode([2]))
        assert one.decode(new) == [2], "signed by the first key, not by a fallback"
        with pytest.raises(Unreadable):
            one.decode(old)


def test_unsigned_pickles_are_read_only_where_signing_is_off() -> None:
    unsigned = record(codec(signed=False).encode([1]))
    assert codec(signed=False).decode(unsigned) == [1]
    with pytest.raises(Unreadable, match="unsigned"):
        codec().decode(unsigned)
    assert codec(signed=False).decode(record(codec().encode([2]))) == [2], "a good signature does no harm"
    damaged = bytearray(unsigned)
    damaged[-1] ^= 1
    with pytest.raises(Unreadable):
        codec(signed=False).decode(bytes(damaged))


# ------------------------------------------------------------------------------------------------------ foreign records


@pytest.mark.parametrize("writer", ["pickle", "json", "msgpack", "raw"])
@pytest.mark.parametrize("reader", ["pickle", "json", "msgpack", "raw"])
def test_records_of_another_serializer_are_unreadable(writer: str, reader: str) -> None:
    value = bytearray(b"x") if writer == "raw" else [1]
    written = record(codec(serializer=writer).encode(value))
    if writer == reader:
        assert codec(serializer=reader).decode(written) == value
    else:
        with pytest.raises(Unreadable):
            codec(serializer=reader).decode(written)


@pytest.mark.parametrize(
    ("tag", "flags", "payload"),
    [
        (Tag.TEXT, 0, b"\xff"),
        (Tag.INTEGER, 0, b"x"),
        (Tag.FLOAT, 0, b""),
        (Tag.JSON, 0, b"{"),
        (Tag.MSGPACK, 0, b"\xc1"),
        (Tag.TEXT, Flag.COMPRESSED, b"not zlib"),
        (200, 0, b"a tag of a later release"),
    ],
)
def test_garbage_is_unreadable(tag: int, flags: int, payload: bytes) -> None:
    for serializer in VALUES:
        with pytest.raises(Unreadable):
            codec(serializer=serializer).decode(record((int(tag), int(flags), payload)))


def test_a_wrong_checksum_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    bad = bytearray(record(codec().encode("text")))
    bad[-1] ^= 1
    with caplog.at_level(logging.ERROR, "django_keyspace.codec"), pytest.raises(Unreadable):
        codec().decode(bytes(bad))
    assert "damaged record" in caplog.text


def test_msgpack_of_a_later_release_is_data_and_nothing_else() -> None:
    packed = msgpack.packb(msgpack.ExtType(5, b"x"))
    found = codec(serializer="msgpack").decode(record((int(Tag.MSGPACK), 0, packed)))
    assert found == msgpack.ExtType(5, b"x")


# ------------------------------------------------------------------------------------------------------ compression


def test_compression_only_when_it_pays() -> None:
    one = codec(compressor="zlib", compress_min_bytes=100, compress_level=9)
    assert one.encode("x" * 99)[1] == Flag.EVICTABLE
    _, flags, payload = one.encode("x" * 100)
    assert flags == Flag.EVICTABLE | Flag.COMPRESSED and len(payload) < 100
    noise = bytes(range(256))
    assert one.encode(noise) == (Tag.BYTES, Flag.EVICTABLE, noise)
    for value in ("x" * 100, b"y" * 5_000, ["z" * 5_000], noise):
        assert there_and_back(one, value) == value
        assert codec().decode(record(one.encode(value))) == value, "readable where compression is off"
    assert one.encode_many(["x" * 99, "x" * 100, 5, "ü" * 99]) == [
        one.encode(value) for value in ("x" * 99, "x" * 100, 5, "ü" * 99)
    ]


def test_the_limit_of_a_value_counts_before_compression() -> None:
    one = codec(compressor="zlib", compress_min_bytes=10, value_bytes_max=1_000)
    assert there_and_back(one, "x" * 1_000) == "x" * 1_000
    for value in ("x" * 1_001, ["x" * 1_000], b"x" * 1_001):
        with pytest.raises(ValueTooLarge, match="value_bytes_max"):
            one.encode(value)
    with pytest.raises(ValueTooLarge):
        codec(value_bytes_max=1_000).encode("x" * 1_001)
    bomb = record(codec(compressor="zlib").encode("x" * 100_000))
    with pytest.raises(Unreadable):
        one.decode(bomb)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_many_records_are_decoded_as_each_alone(options: dict[str, Any]) -> None:
    one = codec(**options)
    values = ["text", "", "é", "x" * 10_000, b"bytes", 7, -(2**63), 0.5, True, {"a": [1]}, None, 2**70, "text"]
    records: list[bytes | None] = [record(one.encode(value)) for value in values]
    damaged = bytearray(record(one.encode("damaged")))
    damaged[-1] ^= 1
    records += [None, bytes(damaged), record((Tag.TEXT, 0, b"\xff"))]
    found = one.decode_many(range(len(records)), records)
    assert list(found) == list(range(len(values)))
    assert all(same(found[number], value) for number, value in enumerate(values))

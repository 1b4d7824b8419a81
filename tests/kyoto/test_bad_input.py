"""What callers get wrong: a clear error of ours, and the data as it was. Rows about single calls are in expectations.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from django_keyspace.exceptions import (
    CannotSerialize,
    ConfigurationError,
    InvalidArgument,
    InvalidKey,
    KeyspaceError,
    KeyTooLong,
    ValueTooLarge,
    WrongType,
)
from django_keyspace.exceptions import NumberOverflow as Overflow
from django_keyspace.kyoto import (
    KT_BINARY,
    KT_JSON,
    KT_MSGPACK,
    KT_NONE,
    KT_PICKLE,
    ImproperlyConfigured,
    KyotoTycoon,
    ProtocolError,
    Queue,
    TokyoTyrant,
)
from tests.contract.engines import VALUE_BYTES_MAX, Place

Make = Callable[..., Any]
SERIALIZERS = (KT_BINARY, KT_JSON, KT_MSGPACK, KT_NONE, KT_PICKLE)
SURROGATE = "\ud800"
NAN, INFINITE = float("nan"), float("inf")

CALLS: dict[str, tuple[Callable[[Any], Any], type[Exception]]] = {
    "empty key": (lambda db: db.set("", "v"), InvalidKey),
    "empty key among many": (lambda db: db.set_bulk({"a": "1", "": "2"}), InvalidKey),
    "empty key of many": (lambda db: db.get_bulk(["a", ""]), InvalidKey),
    "key too long": (lambda db: db.set("ü" * 513, "v"), KeyTooLong),
    "key too long among many": (lambda db: db.set_bulk({"a": "1", "k" * 1025: "2"}), KeyTooLong),
    "key too long to remove": (lambda db: db.remove_bulk(["k", "k" * 1025]), KeyTooLong),
    "key too long for a prefix": (lambda db: db.match_prefix("k" * 1025), KeyTooLong),
    "key without UTF-8": (lambda db: db.set(SURROGATE, "v"), InvalidKey),
    "key without UTF-8 among many": (lambda db: db.set_bulk({"a": "1", SURROGATE: "2"}), InvalidKey),
    "None as key": (lambda db: db.remove(None), TypeError),
    "None among keys": (lambda db: db.remove_bulk(["k", None]), TypeError),
    "value too large": (lambda db: db.set("k", "v" * (VALUE_BYTES_MAX + 1)), ValueTooLarge),
    "value too large among many": (lambda db: db.set_bulk({"a": "1", "b": "v" * (VALUE_BYTES_MAX + 1)}), ValueTooLarge),
    "append beyond the limit": (lambda db: db.append("k", "v" * VALUE_BYTES_MAX), ValueTooLarge),
    "append of bytes beyond the limit": (lambda db: db.append("k", b"v" * VALUE_BYTES_MAX), ValueTooLarge),
    "value without UTF-8": (lambda db: db.set("k", SURROGATE), CannotSerialize),
    "value without UTF-8 among many": (lambda db: db.set_bulk({"k": SURROGATE}), CannotSerialize),
    "None as value": (lambda db: db.set_bulk({"a": "1", "k": None}), TypeError),
    "None as replacement": (lambda db: db.replace("k", None), TypeError),
    "text as stored form": (lambda db: db.set_bytes("k", "text"), CannotSerialize),
    "expire_time of text": (lambda db: db.set("k", "v", expire_time="10"), InvalidArgument),
    "expire_time of a bool": (lambda db: db.set("k", "v", expire_time=True), InvalidArgument),
    "expire_time NaN": (lambda db: db.add("new", "v", expire_time=NAN), InvalidArgument),
    "expire_time infinite": (lambda db: db.incr("n", expire_time=INFINITE), InvalidArgument),
    "expire_time beyond all": (lambda db: db.set("k", "v", expire_time=2**60), InvalidArgument),
    "expire_time before all": (lambda db: db.set_bulk({"k": "v"}, expire_time=-(2**60)), InvalidArgument),
    "expire_time of a tuple": (lambda db: db.__setitem__("k", ("v", "soon")), InvalidArgument),
    "expire_time of a touch": (lambda db: db.touch("k", 1.5), InvalidArgument),
    "n is text": (lambda db: db.incr("n", "many"), InvalidArgument),
    "n is None": (lambda db: db.incr("n", None), InvalidArgument),
    "n is NaN": (lambda db: db.incr("n", NAN), InvalidArgument),
    "n is infinite": (lambda db: db.incr("n", INFINITE), Overflow),
    "n is huge": (lambda db: db.incr("n", -(2**63) - 1), Overflow),
    "orig is a word": (lambda db: db.incr("new", 1, "retry"), InvalidArgument),
    "orig is a list": (lambda db: db.incr("new", 1, []), InvalidArgument),
    "double NaN": (lambda db: db.incr_double("n", NAN), InvalidArgument),
    "double infinite": (lambda db: db.incr_double("n", -INFINITE), Overflow),
    "double beyond floats": (lambda db: db.incr_double("n", 10**400), Overflow),
    "double of text": (lambda db: db.incr_double("n", "x"), InvalidArgument),
    "orig NaN": (lambda db: db.incr_double("new", 1, NAN), InvalidArgument),
    "max_keys of text": (lambda db: db.match_prefix("k", "2"), InvalidArgument),
    "max_keys of a bool": (lambda db: db.match_prefix("k", True), InvalidArgument),
    "regular expression that is none": (lambda db: db.match_regex("[a"), ProtocolError),
    "regular expression with a back reference": (lambda db: db.match_regex(r"(a)\1"), ProtocolError),
    "regular expression that is bytes of nothing": (lambda db: db.match_regex(None), ProtocolError),
    "distance of text": (lambda db: db.match_similar("k", "1"), InvalidArgument),
    "origin is no text": (lambda db: db.match_similar(7), ProtocolError),
    "raw rows that are none": (lambda db: db.set_bulk_raw([(0, "a", "1")]), InvalidArgument),
    "raw rows of text": (lambda db: db.get_bulk_raw(["ab", "k"]), InvalidArgument),
    "raw rows with a bad database": (lambda db: db.remove_bulk_raw([(0, "k"), (-1, "k")]), ProtocolError),
    "queue with a negative number": (lambda db: Queue(db, "k").pop(-1), InvalidArgument),
    "queue with no number": (lambda db: Queue(db, "k").peek(0), InvalidArgument),
    "queue on another value": (lambda db: Queue(db, "k").add("item"), ProtocolError),
    "queue with a long name": (lambda db: Queue(db, "q" * 1020), KeyTooLong),
    "queue removing text": (lambda db: Queue(db, "q").remove("x", "y"), InvalidArgument),
    "script without a name": (lambda db: db.script("", {"a": "1"}), InvalidArgument),
    "script in a bad database": (lambda db: db.script("hset", db=99), ProtocolError),
    "script with plain None": (lambda db: db.script("hset", {"a": None}, encode_values=False), TypeError),
    "script with None": (lambda db: db.script("hset", {"a": None}), TypeError),
}


@pytest.fixture
def place(emptied_place: Place) -> Place:
    """One place per engine for the whole table."""
    return emptied_place


@pytest.mark.parametrize("name", CALLS)
def test_bad_call_changes_nothing(name: str, db: KyotoTycoon) -> None:
    call, error = CALLS[name]
    db["k"] = ("kept", 1000)
    db.incr("n", 7)
    before = db.get_bulk_raw_details([(0, key) for key in db])
    with pytest.raises(error) as raised:
        call(db)
    assert isinstance(raised.value, KeyspaceError) and len(str(raised.value)) > 20
    assert db.get_bulk_raw_details([(0, key) for key in db]) == before
    assert db.count(1) == 0


@pytest.mark.parametrize("client_class", [KyotoTycoon, TokyoTyrant])
@pytest.mark.parametrize(
    "arguments",
    [
        {"serializer": "yaml"},
        {"serializer": None},
        {"serializer": ["json"]},
        {"default_db": -1},
        {"default_db": 5000},
        {"default_db": "0"},
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": "5"},
        {"timeout": NAN},
        {"timeout": True},
        {"port": 0},
        {"port": 70_000},
        {"port": "1978"},
        {"host": ""},
        {"host": None},
        {"host": "two words"},
        {"host": "keyspace://:0"},
        {"host": "embedded:"},
        {"durability": "commit"},
        {"host": "/nowhere/store", "colour": "red"},
        {"host": "/nowhere/store", "durability": "now and then"},
        {"serializer": KT_PICKLE, "pickle_secret": ""},
        {"serializer": KT_PICKLE, "pickle_secret": []},
        {"serializer": KT_PICKLE, "pickle_secret": [7]},
    ],
    ids=str,
)
def test_clients_that_make_no_sense(client_class: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises(KeyspaceError) as raised:
        client_class(**arguments)
    assert isinstance(raised.value, ImproperlyConfigured | ProtocolError | ConfigurationError)


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_nested_too_deeply(serializer: str, tycoon: Make) -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    db = tycoon(serializer=serializer)
    db["k"] = "old"
    with pytest.raises((CannotSerialize, ValueTooLarge)):
        db["k"] = nested
    assert db.get_bytes("k")
    while nested:  # or else the interpreter may recurse when it frees it
        nested = nested.pop()


@pytest.mark.parametrize("reader", SERIALIZERS)
@pytest.mark.parametrize("writer", SERIALIZERS)
def test_values_of_other_serializers(writer: str, reader: str, tycoon: Make) -> None:
    """What a client cannot read is an error, and stays as it is. It cannot be popped either."""
    tycoon(serializer=writer).set("k", [1, "é"] if writer not in (KT_BINARY, KT_NONE) else b"\xff\xfe")
    db = tycoon(serializer=reader)
    stored = db.get_bytes("k")
    readable = writer == reader != KT_BINARY or reader == KT_NONE
    if writer in (KT_BINARY, KT_NONE) and reader in (KT_MSGPACK, KT_PICKLE):
        readable = reader == KT_PICKLE  # a record that says that it is bytes
    if writer == KT_JSON and reader == KT_BINARY:
        readable = True  # JSON is text
    if readable:
        db.get("k")
        assert db.pop("k") is not None and "k" not in db
        return
    for call in (db.get, db.pop, lambda key: db.get_bulk([key]), lambda key: list(db.items())):
        with pytest.raises(WrongType):
            call("k")
    assert db.get_bytes("k") == stored


def test_numbers_of_other_apis_are_numbers(place: Place, tycoon: Make) -> None:
    cache = place.cache(params={"KEY_FUNCTION": "tests.kyoto.test_bad_input.plain_key"})
    cache.set("n", 41, None)
    for serializer in SERIALIZERS:
        assert int(tycoon(serializer=serializer).get("n")) == 41
    assert tycoon().incr("n") == 42 == cache.get("n")


def plain_key(key: str, prefix: str, version: int) -> str:
    """A KEY_FUNCTION that adds nothing."""
    return key

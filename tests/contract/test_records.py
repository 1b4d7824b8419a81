"""Contract of the operations on single records and lists of keys: reading, storing, touching, deleting, moving."""

from __future__ import annotations

import pytest

from django_keyspace.exceptions import InvalidArgument, InvalidKey, KeyTooLong, ValueTooLarge
from django_keyspace.operations import Limits, check_call
from tests.contract.engines import VALUE_BYTES_MAX, Place
from tests.contract.records import (
    ABSENT,
    ABSENT_KEY,
    ALWAYS,
    DB,
    EVICTABLE,
    OTHER,
    PRESENT,
    Do,
    about,
    deadline_of,
    flags_of,
    left_ms,
    payload,
    put,
    put_expired,
    revision_of,
    tag_of,
    val,
    wall_ms,
)

pytestmark = pytest.mark.contract
covers = pytest.mark.covers

EXPIRES = [(None, -1), (60_000, 60_000), (1, 1), ("absolute", 90_000)]


def _expire(kind: object) -> object:
    return ("at", wall_ms() + 90_000) if kind == "absolute" else kind


@covers("get", "set")
def test_set_and_get_keep_tag_flags_and_bytes(do: Do) -> None:
    assert do("get", DB, b"k") is None
    for tag, flags, data in [(1, 4, b""), (2, 0, b"text"), (19, 7, b"\x00\xff" * 50), (255, 255, b"x")]:
        assert do("set", DB, b"k", (tag, flags, data), None, ALWAYS) is True
        record = do("get", DB, b"k")
        assert (tag_of(record), flags_of(record), payload(record)) == (tag, flags, data)
        assert deadline_of(record) == 0
    assert do("get", OTHER, b"k") is None, "databases must not see each other"


@covers("set")
def test_set_by_presence(do: Do) -> None:
    assert do("set", DB, b"k", val(b"1"), None, PRESENT) is False
    assert do("get", DB, b"k") is None
    assert do("set", DB, b"k", val(b"2"), None, ABSENT) is True
    assert do("set", DB, b"k", val(b"3"), None, ABSENT) is False
    assert payload(do("get", DB, b"k")) == b"2"
    assert do("set", DB, b"k", val(b"4"), None, PRESENT) is True
    assert payload(do("get", DB, b"k")) == b"4"


@covers("set", "ttl")
@pytest.mark.parametrize(("kind", "wanted_ms"), EXPIRES)
def test_set_gives_every_kind_of_deadline(do: Do, kind: object, wanted_ms: int) -> None:
    put(do, b"k", expire=_expire(kind))
    left = left_ms(do, b"k")
    if wanted_ms == -1:
        assert left == -1
    elif wanted_ms > 1:
        assert about(left, wanted_ms)
    else:
        assert left in (None, 1)


@covers("set")
def test_set_keep_leaves_the_deadline(do: Do) -> None:
    put(do, b"new", expire="keep")
    assert left_ms(do, b"new") == -1
    put(do, b"k", b"old", expire=60_000)
    deadline_ms = deadline_of(do("get", DB, b"k"))
    put(do, b"k", b"new", expire="keep")
    record = do("get", DB, b"k")
    assert (payload(record), deadline_of(record)) == (b"new", deadline_ms)
    put(do, b"k", b"newer")
    assert left_ms(do, b"k") == -1


@covers("set")
@pytest.mark.parametrize("expire", [0, ("at", 0), ("at", 1), ("at", 1_000_000)])
def test_set_with_a_deadline_in_the_past_deletes(do: Do, expire: object) -> None:
    assert do("set", DB, b"k", val(b"x"), expire, ALWAYS) is True
    assert do("get", DB, b"k") is None
    put(do, b"k")
    assert do("set", DB, b"k", val(b"x"), expire, PRESENT) is True
    assert do("get", DB, b"k") is None
    assert do("status")["records_by_database"][DB] == 0


@covers("set")
def test_revisions_grow_with_each_write(do: Do) -> None:
    seen = []
    for number in range(3):
        put(do, b"k", b"same")
        put(do, b"other%d" % number)
        seen.append(revision_of(do("get", DB, b"k")))
    do("touch", DB, b"k", 60_000)
    seen.append(revision_of(do("get", DB, b"k")))
    assert seen == sorted(set(seen)) and seen[0] > 0
    assert do("status")["revision"] >= seen[-1]


@covers("get_many")
def test_get_many_answers_in_order(do: Do) -> None:
    put(do, b"a", b"1")
    put(do, b"c", b"3")
    put_expired(do, b"b")
    keys = [b"c", b"missing", b"a", b"b", b"c"]
    assert [payload(record) for record in do("get_many", DB, keys)] == [b"3", None, b"1", None, b"3"]
    assert do("get_many", DB, []) == []
    many = [b"m%04d" % number for number in range(450)]
    do("set_many", DB, [(key, val(key)) for key in many], None)
    assert [payload(record) for record in do("get_many", DB, many)] == many


@covers("exists", "length", "ttl", "get", "get_many", "list", "count")
def test_expired_records_are_invisible_to_every_read(do: Do) -> None:
    put_expired(do, b"k")
    assert do("get", DB, b"k") is None
    assert do("get_many", DB, [b"k"]) == [None]
    assert do("exists", DB, b"k") is False
    assert do("length", DB, b"k") is None
    assert do("ttl", DB, b"k") is None
    assert do("list", DB, b"", b"", False, True, 10, False) == ([], False)
    assert do("list", DB, b"", b"", False, False, 10, True) == ([], False)
    assert do("count", DB, b"", b"", False, True, 0) == (0, None)
    assert do("count", DB, b"", b"", False, False, 0) == (0, None)


@covers("exists", "length", "ttl")
def test_exists_length_and_ttl_of_live_and_missing_keys(do: Do) -> None:
    put(do, b"k", b"12345")
    put(do, b"empty", b"")
    put(do, b"short", b"x", expire=30_000)
    assert [do("exists", DB, key) for key in (b"k", b"empty", ABSENT_KEY)] == [True, True, False]
    assert [do("length", DB, key) for key in (b"k", b"empty", ABSENT_KEY)] == [5, 0, None]
    assert [do("ttl", DB, key) for key in (b"k", ABSENT_KEY)] == [-1, None]
    assert about(do("ttl", DB, b"short"), 30_000)


@covers("set_many")
def test_set_many(do: Do) -> None:
    put(do, b"b", b"old", expire=60_000)
    assert do("set_many", DB, [(b"a", val(b"1")), (b"b", val(b"2")), (b"a", val(b"3"))], "keep") == 3
    assert [payload(record) for record in do("get_many", DB, [b"a", b"b"])] == [b"3", b"2"]
    assert left_ms(do, b"a") == -1 and about(left_ms(do, b"b"), 60_000)
    assert do("set_many", DB, [], None) == 0
    assert do("set_many", DB, [(b"a", val(b"x")), (b"c", val(b"y"))], 0) == 2
    assert do("list", DB, b"", b"", False, True, 10, False) == ([b"b"], False)


@covers("touch")
@pytest.mark.parametrize(("kind", "wanted_ms"), [*EXPIRES[:2], EXPIRES[3]])
def test_touch_changes_the_deadline_alone(do: Do, kind: object, wanted_ms: int) -> None:
    assert do("touch", DB, ABSENT_KEY, _expire(kind)) is False
    for first in (None, 5_000, 500_000):
        put(do, b"k", b"data", expire=first, tag=2)
        assert do("touch", DB, b"k", _expire(kind)) is True
        record = do("get", DB, b"k")
        assert (tag_of(record), flags_of(record), payload(record)) == (2, EVICTABLE, b"data")
        assert left_ms(do, b"k") == -1 if wanted_ms == -1 else about(left_ms(do, b"k"), wanted_ms)
    deadline_ms = deadline_of(do("get", DB, b"k"))
    assert do("touch", DB, b"k", "keep") is True
    assert deadline_of(do("get", DB, b"k")) == deadline_ms
    assert do("touch", DB, b"k", 0) is True
    assert do("exists", DB, b"k") is False


@covers("delete", "delete_many", "remove")
def test_deletes(do: Do) -> None:
    for key in (b"a", b"b", b"c", b"d"):
        put(do, key, key)
    put_expired(do, b"expired", b"expired2", b"expired3")
    assert [do("delete", DB, key) for key in (b"a", b"a", b"expired", ABSENT_KEY)] == [True, False, False, False]
    assert do("delete_many", DB, [b"b", b"b", b"expired2", ABSENT_KEY, b"c"]) == 2
    assert do("delete_many", DB, []) == 0
    assert [payload(do("remove", DB, key)) for key in (b"d", b"d", b"expired3")] == [b"d", None, None]
    assert do("status")["records_by_database"][DB] == 0, "deleting an expired record takes it away, too"


@covers("rename")
def test_rename_moves_record_and_deadline_over_what_is_there(do: Do) -> None:
    assert do("rename", DB, ABSENT_KEY, b"to") is False
    put(do, b"from", b"data", expire=60_000, tag=2, flags=0)
    put(do, b"to", b"goes", expire=10)
    deadline_ms = deadline_of(do("get", DB, b"from"))
    assert do("rename", DB, b"from", b"to") is True
    record = do("get", DB, b"to")
    assert (tag_of(record), flags_of(record), payload(record), deadline_of(record)) == (2, 0, b"data", deadline_ms)
    assert do("exists", DB, b"from") is False
    assert do("rename", DB, b"to", b"to") is True
    assert payload(do("get", DB, b"to")) == b"data"
    assert do("status")["records_by_database"][DB] == 1
    put_expired(do, b"expired")
    assert do("rename", DB, b"expired", b"to") is False
    assert payload(do("get", DB, b"to")) == b"data"


@covers("set", "touch", "cas", "incr", "append", "rename", "remove", "delete", "incr_float")
def test_every_write_takes_an_expired_record_for_absent(do: Do) -> None:
    def expired(value: tuple[int, int, bytes] | None = None) -> None:
        put_expired(do, b"k", value=value)

    expired()
    assert do("set", DB, b"k", val(b"x"), None, PRESENT) is False
    expired()
    assert do("set", DB, b"k", val(b"x"), "keep", ABSENT) is True
    assert left_ms(do, b"k") == -1
    expired()
    assert do("touch", DB, b"k", 60_000) is False
    expired(val(b"5", 3))
    assert do("incr", DB, b"k", 1, 10, None, EVICTABLE) == 11
    expired(val(b"5", 3))
    assert do("incr_float", DB, b"k", 1.0, 10.0, None, EVICTABLE) == 11.0
    expired(val(b"text", 2))
    assert do("append", DB, b"k", val(b"bytes"), None) == 5
    expired()
    assert do("cas", DB, ("present", b"k"), val(b"x"), None) == (False, None)
    assert do("cas", DB, ("absent", b"k"), val(b"x"), None) == (True, None)
    expired()
    assert do("remove", DB, b"k") is None
    expired()
    assert do("delete", DB, b"k") is False
    put(do, b"from", b"moved")
    expired()
    assert do("rename", DB, b"from", b"k") is True
    assert payload(do("get", DB, b"k")) == b"moved"


KEYS = [b"\x00", b"\xff", b"\xff" * 1024, b"k" * 1024, "schlüssel".encode(), b"a b\n"]


@covers("set", "get", "delete")
@pytest.mark.parametrize("key", KEYS)
def test_any_bytes_are_a_key(do: Do, key: bytes) -> None:
    put(do, key, key, expire=60_000)
    put(do, key, key, expire=70_000)
    assert payload(do("get", DB, key)) == key
    assert do("list", DB, key, b"", False, True, 10, False) == ([key], False)
    assert do("delete", DB, key) is True


BAD_CALLS = [
    (("set", DB, b"", val(b"x"), None, ALWAYS), InvalidKey),
    (("set", DB, b"k" * 1025, val(b"x"), None, ALWAYS), KeyTooLong),
    (("set", 16, b"k", val(b"x"), None, ALWAYS), InvalidArgument),
    (("set", DB, b"k", val(b"x" * (VALUE_BYTES_MAX + 1)), None, ALWAYS), ValueTooLarge),
]


@covers("status")
@pytest.mark.parametrize(("call", "error"), BAD_CALLS, ids=["empty", "long", "database", "large"])
def test_bad_arguments_change_nothing(do: Do, place: Place, call: tuple, error: type[Exception]) -> None:
    with pytest.raises(error):
        # Inside one process the caller checks; what comes from another one is checked by the engine.
        if place.orders_writes:
            check_call(call, Limits(value_bytes_max=VALUE_BYTES_MAX))
        else:
            do(*call)
    assert do("status")["records"] == 0

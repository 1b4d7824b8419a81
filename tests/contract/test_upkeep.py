"""Contract of status, of what only the orderer of writes may do (sweep, evict), and of refusals."""

from __future__ import annotations

import pytest

from django_keyspace.exceptions import UnknownOperation
from tests.contract.engines import Place
from tests.contract.records import DB, OTHER, Do, await_condition, put, put_expired, val

pytestmark = pytest.mark.contract
covers = pytest.mark.covers


@covers("status")
def test_status(do: Do) -> None:
    before = do("status")
    assert (before["records"], list(before["records_by_database"])) == (0, [0] * 16)
    put(do, b"a")
    put(do, b"b", flags=0)
    do("set_many", OTHER, [(b"c", val(b"x" * 100_000))], None)
    after = do("status")
    assert after["records"] == 3
    assert (after["records_by_database"][DB], after["records_by_database"][OTHER]) == (2, 1)
    assert sum(after["kept_records_by_database"]) == after["kept_records_by_database"][DB] == 1
    assert after["revision"] >= before["revision"] + 3
    assert after["log_time_ms"] >= before["log_time_ms"]
    assert after["used_bytes"] >= before["used_bytes"] + 100_000
    assert after["file_bytes"] >= after["used_bytes"] and after["map_bytes"] >= after["file_bytes"]
    do("clear", OTHER, True)
    assert do("status")["used_bytes"] <= after["used_bytes"] - 100_000, "figures tell what is used now"
    assert type(after["records_by_database"]) is list


@covers("sweep")
def test_sweep_deletes_what_has_expired_and_nothing_else(do: Do, place: Place) -> None:
    if not place.orders_writes:
        with pytest.raises(UnknownOperation):
            do("sweep", 100)
        return
    put(do, b"forever")
    put(do, b"later", expire=10_000)
    put(do, b"prolonged", expire=1)
    put(do, b"prolonged", expire=60_000)
    put_expired(do, *[b"old%d" % number for number in range(5)])
    assert do("sweep", 2)[1] is True
    swept = 0
    await_condition(lambda: do("status")["records_by_database"][DB] <= 6)
    while True:
        deleted, more = do("sweep", 100)
        swept += deleted
        if not more:
            break
    assert swept <= 5
    assert do("status")["records_by_database"][DB] == 3
    assert do("list", DB, b"", b"", False, True, 10, False)[0] == [b"forever", b"later", b"prolonged"]


@covers("evict")
def test_evict_deletes_evictable_records_of_a_list(do: Do, place: Place) -> None:
    addresses = [(DB, b"a"), (DB, b"kept"), (DB, b"missing"), (OTHER, b"b")]
    if not place.orders_writes:
        with pytest.raises(UnknownOperation):
            do("evict", addresses)
        return
    put(do, b"a")
    put(do, b"kept", flags=0)
    put(do, b"b")
    do("set_many", OTHER, [(b"b", val(b""))], 60_000)
    assert do("evict", addresses) == 2
    assert do("list", DB, b"", b"", False, True, 10, False)[0] == [b"b", b"kept"]
    assert do("exists", OTHER, b"b") is False

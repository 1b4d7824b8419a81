"""The small parts of the store: records, clock, options, gate."""

from __future__ import annotations

import threading
import zlib
from pathlib import Path
from typing import Any

import pytest

from django_keyspace.exceptions import ConfigurationError, DamagedStore
from django_keyspace.store import Store, StoreOptions, clock
from django_keyspace.store import store as store_module
from django_keyspace.store.gate import TransactionGate
from django_keyspace.store.queries import end_of_prefix
from django_keyspace.store.record import (
    HEADER_BYTES,
    deadline_of,
    inflate,
    pack_header,
    payload_of,
    revision_of,
    unpack_header,
    with_deadline,
)
from tests.store.helpers import await_condition, got, put, small_options

# ------------------------------------------------------------------------------------------------------ records


def make_record(tag: int, flags: int, payload: bytes, revision: int, deadline_ms: int, bucket: int) -> bytes:
    return pack_header(tag, flags, zlib.crc32(payload), revision, deadline_ms, bucket) + payload


def test_a_record_is_its_header_and_its_payload() -> None:
    record = make_record(2, 5, b"payload", 2**64 - 1, 2**53, 2**32 - 1)
    assert unpack_header(record) == (2, 5, zlib.crc32(b"payload"), 2**64 - 1, 2**53, 2**32 - 1)
    assert (revision_of(record), deadline_of(record)) == ((2**64 - 1,), (2**53,))
    assert payload_of(record) == b"payload" and len(record) == HEADER_BYTES + 7
    other = with_deadline(record, 7, 8, 9)
    assert unpack_header(other) == (2, 5, zlib.crc32(b"payload"), 7, 8, 9)
    assert payload_of(other) == b"payload"


@pytest.mark.parametrize("position", [0, 3, -1])
def test_a_flipped_bit_in_a_payload_is_noticed(position: int) -> None:
    record = bytearray(make_record(1, 0, b"payload", 1, 0, 0))
    record[range(HEADER_BYTES, len(record))[position]] ^= 1
    with pytest.raises(DamagedStore, match="checksum"):
        payload_of(bytes(record))


def test_inflate_makes_no_more_than_it_may() -> None:
    packed = zlib.compress(b"x" * 1000)
    assert inflate(packed, 1000) == b"x" * 1000
    assert inflate(packed, 1001) == b"x" * 1000
    for limit in (1, 500, 999):
        with pytest.raises(DamagedStore):
            inflate(packed, limit)
    for bad in (b"", b"not zlib", packed[:-1], packed[:5]):
        with pytest.raises(DamagedStore):
            inflate(bad, 10_000)


@pytest.mark.parametrize(
    ("prefix", "end"),
    [(b"", None), (b"a", b"b"), (b"a\xff", b"b"), (b"\xff", None), (b"\xff\xff", None), (b"\xfe\xff\xff", b"\xff")],
)
def test_end_of_prefix(prefix: bytes, end: bytes | None) -> None:
    assert end_of_prefix(prefix) == end


# ------------------------------------------------------------------------------------------------------ clock


class Clocks:
    """The host's clocks, as a test sets them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall_ms, self.boot_ms = 1_800_000_000_000, 50_000
        monkeypatch.setattr(clock, "wall_ms", lambda: self.wall_ms)
        monkeypatch.setattr(clock, "boot_ms", lambda: self.boot_ms)
        monkeypatch.setattr(store_module, "time_ns", lambda: self.wall_ms * 1_000_000 + 500_000)

    def advance(self, ms: int) -> None:
        self.wall_ms += ms
        self.boot_ms += ms


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


def test_the_log_clock_follows_the_wall_clock(clocks: Clocks) -> None:
    assert clock.next_log_time(0, 0) == (clocks.wall_ms, 50_000)
    last = clocks.wall_ms
    clocks.advance(5_000)
    assert clock.next_log_time(last, 50_000) == (last + 5_000, 55_000)
    clocks.wall_ms += 10**9
    assert clock.next_log_time(last, 50_000) == (clocks.wall_ms, 55_000)
    last = clocks.wall_ms
    clocks.advance(500)
    assert clock.next_log_time(last, 55_000) == (last + 500, 55_500)


def test_the_log_clock_goes_on_slower_when_the_wall_clock_was_set_back(clocks: Clocks) -> None:
    log_ms, boot_ms = clock.next_log_time(0, 0)
    start_ms = log_ms
    clocks.wall_ms -= 60_000
    for _ in range(100):
        clocks.advance(10)
        before = log_ms
        log_ms, boot_ms = clock.next_log_time(log_ms, boot_ms)
        assert log_ms >= before
    assert log_ms == start_ms + 900
    clocks.advance(600_000)
    assert clock.next_log_time(log_ms, boot_ms)[0] == clocks.wall_ms, "the wall clock has caught up"


def test_the_log_clock_stands_still_rather_than_go_back(clocks: Clocks) -> None:
    last = clocks.wall_ms
    clocks.wall_ms -= 5_000
    assert clock.next_log_time(last, 50_000) == (last, 50_000), "nothing to remember: the fraction is not lost"
    clocks.boot_ms = 10  # another boot
    assert clock.next_log_time(last, 50_000) == (last, 10)


def test_real_clocks_move_forward() -> None:
    assert clock.wall_ms() > 1_700_000_000_000
    before = clock.boot_ms()
    await_condition(lambda: clock.boot_ms() > before)


def _store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "store"), small_options())
    store._maintenance.start = lambda: None
    return store


def test_nothing_comes_back_when_the_clock_is_set_back(tmp_path: Path, clocks: Clocks) -> None:
    store = _store(tmp_path)
    put(store, b"short", b"v", 1_000)
    put(store, b"long", b"v", 100_000)
    clocks.advance(2_000)
    assert (got(store, b"short"), got(store, b"long")) == (None, b"v")
    put(store, b"other")  # the log clock is known to the store now
    clocks.wall_ms -= 50_000
    assert got(store, b"short") is None, "expired stays expired"
    assert store.read("ttl", 0, b"long") == 98_000
    clocks.advance(10_000)
    assert store.read("ttl", 0, b"long") == 98_000 - 9_000
    seen_ms = store.read("ttl", 0, b"long")
    for _ in range(20):
        clocks.advance(7_000)
        left_ms = store.read("ttl", 0, b"long")
        assert left_ms is None or left_ms < seen_ms, "time does not go back when the wall clock has caught up"
        seen_ms = left_ms or 0
    assert got(store, b"long") is None, "and nothing stays for ever"
    assert store.write("set", 0, b"short", (1, 4, b"new"), 1_000, "absent") is True
    store.shutdown()


def test_a_store_that_is_reopened_knows_its_clock(tmp_path: Path, clocks: Clocks) -> None:
    store = _store(tmp_path)
    put(store, b"k", b"v", 1_000)
    clocks.advance(2_000)
    put(store, b"other")
    store.shutdown()
    clocks.wall_ms -= 50_000
    again = _store(tmp_path)
    assert got(again, b"k") is None
    assert again.read("status")["log_time_ms"] >= clocks.wall_ms + 50_000
    again.shutdown()


# ------------------------------------------------------------------------------------------------------ options


@pytest.mark.parametrize(
    "options",
    [
        {"durability": "sometimes"},
        {"databases": 0},
        {"databases": 1025},
        {"max_bytes": 1000},
        {"map_bytes": 2**19},
        {"value_bytes_max": 0},
        {"lock_wait_ms": -1},
        {"lock_wait_ms": 1.5},
        {"databases": True},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        StoreOptions(**options)


# ------------------------------------------------------------------------------------------------------ gate


def test_the_gate_waits_for_running_transactions_and_holds_new_ones_back() -> None:
    gate = TransactionGate()
    may_leave, passed, order = threading.Event(), threading.Event(), []

    def first() -> None:
        gate.enter("first")
        passed.set()
        may_leave.wait(10)
        order.append("left")
        gate.leave()

    def second() -> None:
        gate.enter("second")
        order.append("entered")
        gate.leave()

    one, two = threading.Thread(target=first), threading.Thread(target=second)
    one.start()
    assert passed.wait(10)
    assert list(gate.shut(0.01).values()) == ["first"], "told after the wait"
    two.start()
    gate.open()
    two.join(10)
    assert order == ["entered"]

    releaser = threading.Timer(0.02, may_leave.set)
    releaser.start()
    assert gate.shut(10) == {}
    assert order == ["entered", "left"]
    two = threading.Thread(target=second)
    two.start()
    two.join(0.05)
    assert two.is_alive(), "nobody passes a shut gate"
    gate.open()
    two.join(10)
    one.join(10)
    assert order[-1] == "entered" and gate.active == {}


def test_a_transaction_of_the_thread_that_shuts_the_gate_does_not_count() -> None:
    gate = TransactionGate()
    gate.enter("mine")
    assert gate.shut(1) == {}
    gate.open()
    gate.leave()

"""Random programs of a KyotoTycoon client, against a small model of what kt's documentation says, on a clock of their own.

Deadlines of records and Keyspace's deadlines of names are both in them: a client of either API sees what the other has set.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from django_keyspace.kyoto import KyotoTycoon, ProtocolError, Queue
from django_keyspace.store import StoreOptions, clock, forget_store, open_store
from django_keyspace.store import store as store_module
from tests.kyoto.expectations import NEVER

START_MS = 1_800_000_000_000
Address = tuple[int, str]


class Model:
    """What the documentation says, in a dict."""

    def __init__(self) -> None:
        self.now_ms = START_MS
        self.records: dict[Address, tuple[str, str, int, int]] = {}
        """Kind (text, int, float), text, own deadline, the deadline that counts; 0 for none."""
        self.names: dict[Address, int] = {}
        """Deadlines that hang on names."""

    def live(self, address: Address) -> tuple[str, str, int, int] | None:
        record = self.records.get(address)
        if record is not None and 0 < record[3] <= self.now_ms:
            del self.records[address]
            return None
        return record

    def deadline(self, expire_time: int | None) -> int:
        if not expire_time:
            return 0
        return self.now_ms + expire_time * 1000 if expire_time > 0 else -expire_time * 1000

    def put(self, address: Address, kind: str, text: str, own_ms: int) -> None:
        if 0 < own_ms <= self.now_ms:
            self.records.pop(address, None)
            return
        name_ms = self.names.get(address, 0)
        if name_ms <= self.now_ms:
            self.names.pop(address, None)
            name_ms = 0
        self.records[address] = kind, text, own_ms, min(own_ms or name_ms, name_ms or own_ms)

    def hang(self, address: Address, ms: int) -> None:
        record = self.live(address)
        self.records.pop(address, None)
        self.names.pop(address, None)
        if ms > 0:
            self.names[address] = self.now_ms + ms
            if record is not None:
                self.put(address, *record[:3])

    def unhang(self, address: Address) -> None:
        record = self.live(address)
        self.names.pop(address, None)
        if record is not None:
            self.put(address, *record[:3])

    def add_to(self, address: Address, kinds: dict[str, Any], n: Any, orig: Any) -> Any:
        record = self.live(address)
        if record is None:
            return None if orig == "try" else (orig or 0) + n
        return kinds[record[0]](record[1]) + n if record[0] in kinds else None

    def rows(self, database: int) -> list[tuple[int, str, str, int]]:
        addresses = sorted(address for address in list(self.records) if address[0] == database)
        found = [(address, self.live(address)) for address in addresses]
        return [(database, a[1], r[1], r[3] // 1000 if r[3] else NEVER) for a, r in found if r is not None]


databases = st.sampled_from([0, 1])
keys = st.sampled_from(["a", "ab", "b", "ba"])
several = st.lists(keys, max_size=5)
texts = st.sampled_from(["", "x", "10", "text"])
values = texts | st.sampled_from([5, -3, 1.5])
times = st.sampled_from([None, None, 0, 1, 20, 100, -1, -(START_MS // 1000 + 30)])
call_times = times.filter(lambda expire_time: expire_time != 0)
numbers = st.integers(-3, 3)


def kind_of(value: Any) -> tuple[str, str]:
    return {int: "int", float: "float"}.get(type(value), "text"), str(value)


class ClientAgainstModel(RuleBasedStateMachine):
    """Programs of calls on two databases."""

    def __init__(self) -> None:
        super().__init__()
        self.exit = contextlib.ExitStack()
        folder = tempfile.mkdtemp(prefix="keyspace-kyoto-")
        self.exit.callback(shutil.rmtree, folder, ignore_errors=True)
        self.model = Model()
        for module, name, function in [
            (clock, "wall_ms", lambda: self.model.now_ms),
            (clock, "boot_ms", lambda: self.model.now_ms - START_MS + 1000),
            (store_module, "time_ns", lambda: self.model.now_ms * 1_000_000 + 500_000),
        ]:
            self.exit.enter_context(mock.patch.object(module, name, function))
        options = StoreOptions(durability="none", databases=2, map_bytes=2**24, max_bytes=2**23)
        store = open_store(f"{folder}/store", options)
        self.exit.callback(forget_store, store)
        store._maintenance.start = lambda: None  # type: ignore[method-assign]
        self.db = KyotoTycoon(f"{folder}/store")

    def teardown(self) -> None:
        self.exit.close()

    @initialize()
    def empty(self) -> None:
        assert self.db.keys() == [] and self.db.keys(1) == []

    # ------------------------------------------------------------------------------------------- one record

    @rule(database=databases, key=keys, value=values, expire_time=times)
    def set(self, database: int, key: str, value: Any, expire_time: Any) -> None:
        assert self.db.set(key, value, database, expire_time) == 1
        self.model.put((database, key), *kind_of(value), self.model.deadline(expire_time))

    @rule(database=databases, key=keys, value=values, expire_time=call_times, wants=st.booleans())
    def add_or_replace(self, database: int, key: str, value: Any, expire_time: Any, wants: bool) -> None:
        is_there = self.model.live((database, key)) is not None
        stored = (self.db.replace if wants else self.db.add)(key, value, database, expire_time)
        assert stored is (is_there is wants)
        if stored:
            self.model.put((database, key), *kind_of(value), self.model.deadline(expire_time))

    @rule(database=databases, key=keys, value=values, expire_time=call_times)
    def append(self, database: int, key: str, value: Any, expire_time: Any) -> None:
        record = self.model.live((database, key))
        assert self.db.append(key, value, database, expire_time) is True
        kind, text = kind_of(value) if record is None else ("text", record[1] + str(value))
        self.model.put((database, key), kind, text, self.model.deadline(expire_time))

    @rule(database=databases, key=keys, old=st.none() | values, new=st.none() | values, expire_time=call_times)
    def cas(self, database: int, key: str, old: Any, new: Any, expire_time: Any) -> None:
        record = self.model.live((database, key))
        try:
            swapped = self.db.cas(key, old, new, database, expire_time)
        except ValueError:
            assert old is None and new is None
            return
        holds = record is None if old is None else record is not None and record[1] == str(old)
        assert swapped is holds
        if holds and new is None:
            self.model.records.pop((database, key), None)
        elif holds:
            self.model.put((database, key), *kind_of(new), self.model.deadline(expire_time))

    @rule(
        database=databases, key=keys, n=numbers, orig=st.sampled_from([None, 7, "try", "set"]), expire_time=call_times
    )
    def incr(self, database: int, key: str, n: int, orig: Any, expire_time: Any) -> None:
        wanted = n if orig == "set" else self.model.add_to((database, key), {"int": int}, n, orig)
        self._count("incr", "int", database, key, n, orig, expire_time, wanted)

    @rule(
        database=databases, key=keys, n=numbers, orig=st.sampled_from([None, 0.5, "try", "set"]), expire_time=call_times
    )
    def incr_double(self, database: int, key: str, n: int, orig: Any, expire_time: Any) -> None:
        kinds = {"int": float, "float": float}
        wanted = float(n) if orig == "set" else self.model.add_to((database, key), kinds, float(n), orig)
        self._count("incr_double", "float", database, key, n, orig, expire_time, wanted)

    def _count(
        self, method: str, kind: str, database: int, key: str, n: int, orig: Any, expire_time: Any, wanted: Any
    ) -> None:
        try:
            answer = getattr(self.db, method)(key, n, orig, database, expire_time)
        except ProtocolError:
            answer = None
        assert answer == wanted
        if wanted is not None:
            self.model.put((database, key), kind, str(wanted), self.model.deadline(expire_time))

    @rule(database=databases, key=keys, expire_time=times)
    def touch(self, database: int, key: str, expire_time: Any) -> None:
        record = self.model.live((database, key))
        assert self.db.touch(key, expire_time, database) is (record is not None)
        if record is not None:
            self.model.put((database, key), *record[:2], self.model.deadline(expire_time))

    @rule(database=databases, key=keys, method=st.sampled_from(["remove", "seize", "pop"]))
    def take(self, database: int, key: str, method: str) -> None:
        record = self.model.live((database, key))
        wanted = int(record is not None) if method == "remove" else None if record is None else record[1]
        assert getattr(self.db, method)(key, database) == wanted
        self.model.records.pop((database, key), None)

    # ------------------------------------------------------------------------------------------- many records

    @rule(database=databases, names=several, value=values, expire_time=times)
    def set_bulk(self, database: int, names: list[str], value: Any, expire_time: Any) -> None:
        assert self.db.set_bulk(dict.fromkeys(names, value), database, expire_time) == len(set(names))
        for name in names:
            self.model.put((database, name), *kind_of(value), self.model.deadline(expire_time))

    @rule(rows=st.lists(st.tuples(databases, keys, values, times), max_size=5))
    def set_bulk_raw(self, rows: Any) -> None:
        assert self.db.set_bulk_raw(rows) == len(rows)
        for database, key, value, expire_time in rows:
            self.model.put((database, key), *kind_of(value), self.model.deadline(expire_time))

    @rule(database=databases, names=several)
    def remove_bulk(self, database: int, names: list[str]) -> None:
        there = [name for name in set(names) if self.model.live((database, name)) is not None]
        assert self.db.remove_bulk(names, database) == len(there)
        for name in there:
            del self.model.records[database, name]

    @rule(database=databases)
    def clear(self, database: int) -> None:
        assert self.db.clear(database) is True
        for found in (self.model.records, self.model.names):
            for address in [address for address in found if address[0] == database]:
                del found[address]

    # ------------------------------------------------------------------------------------------- time and names

    @rule(ms=st.sampled_from([1, 999, 1000, 1001, 20_000, 60_000]))
    def time_goes_by(self, ms: int) -> None:
        self.model.now_ms += ms

    @rule(database=databases, key=keys, ms=st.sampled_from([0, 5_000, 50_000]))
    def hang_a_deadline_on_a_name(self, database: int, key: str, ms: int) -> None:
        self.db._tell("set_expiry", database, key.encode(), ms)
        self.model.hang((database, key), ms)

    @rule(database=databases, key=keys)
    def take_it_off(self, database: int, key: str) -> None:
        self.db._tell("remove_expiry", database, key.encode())
        self.model.unhang((database, key))

    # ------------------------------------------------------------------------------------------- what is seen

    @rule(database=databases, names=several, prefix=st.sampled_from(["", "a", "b", "x"]), limit=st.integers(-1, 3))
    def look(self, database: int, names: list[str], prefix: str, limit: int) -> None:
        rows = {key: text for _, key, text, _ in self.model.rows(database)}
        assert self.db.get_bulk(names, database) == {name: rows[name] for name in names if name in rows}
        matching = [key for key in rows if key.startswith(prefix)]
        assert self.db.match_prefix(prefix, limit, database) == (matching if limit < 0 else matching[:limit])
        for key in ("a", "ab"):
            assert self.db.get(key, database) == rows.get(key)
            assert self.db.exists(key, database) is (key in rows)
            assert self.db.length(key, database) == (len(rows[key]) if key in rows else None)

    @invariant()
    def same_records(self) -> None:
        for database in (0, 1):
            rows = self.model.rows(database)
            found = self.db.keys(database)
            assert self.db.get_bulk_details(found, database) == rows
            assert self.db.count(database) == len(rows)


TestClientAgainstModel = ClientAgainstModel.TestCase
TestClientAgainstModel.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


class QueueAgainstList(RuleBasedStateMachine):
    """A queue is a list with two ends, and a number that grows."""

    def __init__(self) -> None:
        super().__init__()
        self.exit = contextlib.ExitStack()
        folder = tempfile.mkdtemp(prefix="keyspace-queue-")
        self.exit.callback(shutil.rmtree, folder, ignore_errors=True)
        store = open_store(f"{folder}/store", StoreOptions(durability="none", map_bytes=2**24, max_bytes=2**23))
        self.exit.callback(forget_store, store)
        self.queue = Queue(KyotoTycoon(f"{folder}/store"), "queue")
        self.items: list[str] = []
        self.last = 0

    def teardown(self) -> None:
        self.exit.close()

    @rule(items=st.lists(st.sampled_from("abc"), min_size=2, max_size=6), alone=st.booleans())
    def add(self, items: list[str], alone: bool) -> None:
        if alone:
            for item in items:
                self.last += 1
                assert self.queue.add(item) == self.last
        else:
            self.last += len(items)
            assert self.queue.extend(items) == len(items)
        self.items += items

    @rule(n=st.integers(1, 4), method=st.sampled_from(["pop", "rpop", "peek", "rpeek"]))
    def take(self, n: int, method: str) -> None:
        ordered = self.items[::-1] if method.startswith("r") else self.items
        wanted: Any = ordered[:n] if n > 1 else ordered[0] if ordered else None
        assert getattr(self.queue, method)(n) == wanted
        if method.endswith("pop"):
            self.items = ordered[n:][::-1] if method == "rpop" else ordered[n:]

    @rule(item=st.sampled_from("abc"), n=st.none() | st.integers(-1, 2), method=st.sampled_from(["remove", "rremove"]))
    def remove(self, item: str, n: int | None, method: str) -> None:
        ordered = self.items[::-1] if method == "rremove" else list(self.items)
        removed = 0
        while item in ordered and (n is None or n < 0 or removed < n):
            ordered.remove(item)
            removed += 1
        assert getattr(self.queue, method)(item, n) == removed
        self.items = ordered[::-1] if method == "rremove" else ordered

    @precondition(lambda self: len(self.items) > 9)
    @rule()
    def clear(self) -> None:
        assert self.queue.clear() == len(self.items)
        self.items, self.last = [], 0

    @initialize(items=st.permutations("abcab"))
    def begin(self, items: list[str]) -> None:
        self.add(items, alone=True)

    @invariant()
    def same_items(self) -> None:
        assert len(self.queue) == len(self.items)
        assert self.queue.peek(1000) == self.items


TestQueueAgainstList = QueueAgainstList.TestCase
TestQueueAgainstList.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)

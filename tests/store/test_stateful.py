"""The store against the model, by random programs with a clock that the test owns; its invariants after each step."""

from __future__ import annotations

import contextlib
import shutil
import struct
import tempfile
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from django_keyspace.exceptions import KeyspaceError
from django_keyspace.operations import OPERATIONS, WRITES
from django_keyspace.store import Store, StoreOptions, clock
from django_keyspace.store import store as store_module
from django_keyspace.store.deadlines import bucket_of
from django_keyspace.store.environment import META_OVERLAY
from django_keyspace.store.record import HEADER_BYTES, Flag, Tag, unpack_header
from tests.store.model import Model

START_MS = 1_800_000_000_000
DATABASES = 2
EVICTABLE = int(Flag.EVICTABLE)

databases = st.integers(0, DATABASES - 1)
# Few keys, so that what one step leaves another one finds.
KEYS = [b"a", b"ab", b"b", b"\xff", b"\xff\xff"]
keys = st.sampled_from(KEYS)
prefixes = st.sampled_from([b"", b"a", b"ab", b"b", b"\xff", b"\xff\xff", b"z"])
flag_bits = st.sampled_from([EVICTABLE, EVICTABLE, 0])
payloads = st.binary(max_size=12) | st.just(9000).map(bytes)
values = st.one_of(
    st.tuples(st.sampled_from([int(Tag.BYTES), int(Tag.TEXT), int(Tag.PICKLE)]), flag_bits, payloads),
    st.integers(-5, 5).map(lambda number: (int(Tag.INTEGER), EVICTABLE, b"%d" % number)),
    st.just((int(Tag.INTEGER), 0, b"%d" % (2**63 - 1))),
)
expires = st.one_of(
    st.none(),
    st.just("keep"),
    st.sampled_from([0, 1, 50, 10_000, 16_000, 20_000, 24_000, 10**9]),
    st.integers(-20_000, 200_000).map(lambda ms: ("at", START_MS + ms)),
)
moments = expires.filter(lambda expire: expire not in (None, "keep"))
kept_expires = expires | expires.filter(lambda expire: expire != "keep").map(lambda expire: ("set", expire))
conditions = st.one_of(
    st.tuples(st.sampled_from(["absent", "present"]), keys),
    st.tuples(st.just("revision"), keys, st.integers(1, 20)),
    st.tuples(st.just("value"), keys, st.sampled_from([None, 1, 3]), st.sampled_from([b"", b"1", b"x"])),
)
several = st.lists(keys, max_size=4)
ranges = (databases, prefixes, prefixes | keys, st.sampled_from([False, True, "after"]), st.booleans())


def call(name: str, *arguments: Any) -> Any:
    return st.tuples(st.just(name), *arguments)


writes = st.one_of(
    call("set", databases, keys, values, expires, st.sampled_from(["always", "always", "absent", "present"])),
    call("set_many", databases, st.lists(st.tuples(keys, values), max_size=4), expires),
    call("touch", databases, keys, expires),
    call("delete", databases, keys),
    call("delete_many", databases, several),
    call("remove", databases, keys),
    call("incr", databases, keys, st.integers(-3, 3), st.none() | st.just(7), kept_expires, flag_bits),
    call(
        "incr_float", databases, keys, st.sampled_from([0.5, -1.0]), st.none() | st.just(1.0), kept_expires, flag_bits
    ),
    call("append", databases, keys, values, kept_expires),
    call("cas", databases, conditions, st.none() | values, expires),
    call("rename", databases, keys, keys),
    call("prune", databases, prefixes),
    call("clear", databases, st.booleans()),
    call("set_expiry", databases, keys, moments),
    call("remove_expiry", databases, keys),
    call("clear_expiries", databases),
    call("cull", databases, several, st.integers(0, 6), st.integers(0, 4)),
    call("evict", st.lists(st.tuples(databases, keys), max_size=3)),
)
reads = st.one_of(
    call("get", databases, keys),
    call("get_many", databases, several),
    call("exists", databases, keys),
    call("length", databases, keys),
    call("ttl", databases, keys),
    call("list", *ranges, st.integers(1, 5), st.booleans()),
    call("count", *ranges, st.integers(0, 3)),
    call("match_regex", databases, prefixes, st.sampled_from([b"", b"b", b"^a"]), prefixes | keys, st.integers(1, 3)),
    call("match_similar", databases, prefixes, st.sampled_from([b"", b"aa"]), st.integers(0, 2), prefixes | keys),
)
blocks = st.one_of(
    call("batch", st.lists(writes | reads, max_size=5)),
    call("atomic", st.lists(st.tuples(databases, conditions), max_size=2), st.lists(writes | reads, max_size=5)),
)
NEVER = ("incr", 0, b"never there", 1, None, None, 0)
ELSEWHERE = {"once", "expire_sessions"}
"""Operations that test_sessions.py tries against a model of their own."""
ABOUT_NODES = {"at", "members"}
"""Operations that no store does by itself."""
TRIED = (
    {"sweep", "status", "batch", "atomic"}
    | ELSEWHERE
    | ABOUT_NODES
    | set(
        """set set_many touch delete delete_many remove incr incr_float append cas rename prune clear cull evict
    set_expiry remove_expiry clear_expiries get get_many exists length ttl list count match_regex match_similar""".split()  # noqa: SIM905
    )
)


def test_every_operation_is_tried() -> None:
    assert {name for name, operation in OPERATIONS.items() if not operation.runs} == TRIED


def plain(name: str, result: Any) -> Any:
    """A result with the payload in place of each record, as the model answers it."""
    if name in ("get", "remove") and result is not None:
        return result[HEADER_BYTES:]
    if name == "get_many":
        return [plain("get", record) for record in result]
    if name == "cas":
        return result[0], plain("get", result[1])
    if name == "list":
        return [(row[0], row[1][HEADER_BYTES:]) if isinstance(row, tuple) else row for row in result[0]], result[1]
    return result


def plain_block(block: Any, result: Any) -> Any:
    if block[0] == "batch":
        pairs = zip(block[1], result, strict=True)
        return [(word, plain(inner[0], answer) if word == "ok" else None) for inner, (word, answer) in pairs]
    if result[0]:
        return True, [plain(inner[0], answer) for inner, answer in zip(block[2], result[1], strict=True)]
    return result


class StoreAgainstModel(RuleBasedStateMachine):
    """Programs of operations on two databases."""

    def __init__(self) -> None:
        super().__init__()
        self.exit = contextlib.ExitStack()
        folder = tempfile.mkdtemp(prefix="keyspace-stateful-")
        self.exit.callback(shutil.rmtree, folder, ignore_errors=True)
        self.model = Model(START_MS)
        for module, name, function in [
            (clock, "wall_ms", lambda: self.model.now_ms),
            (clock, "boot_ms", lambda: self.model.now_ms - START_MS + 1000),
            (store_module, "time_ns", lambda: self.model.now_ms * 1_000_000 + 500_000),
        ]:
            self.exit.enter_context(mock.patch.object(module, name, function))
        options = StoreOptions(durability="none", databases=DATABASES, map_bytes=2**24, max_bytes=2**23)
        self.store = Store(f"{folder}/store", options)
        self.exit.callback(self.store.shutdown)
        self.store._maintenance.start = lambda: None  # sweeping is the test's own business here

    @initialize()
    def open(self) -> None:
        assert self.store.read("status")["records"] == 0

    def teardown(self) -> None:
        self.exit.close()

    def revision(self) -> int:
        return self.store.read("status")["revision"]

    def both(self, call: Any) -> None:
        before = self.revision()
        self.model.revision = before + 1
        is_block = call[0] in ("batch", "atomic")
        try:
            wanted: Any = self.model.do(*call)
        except KeyspaceError as error:
            wanted = type(error)
        try:
            result = self.store.write(*call)
            result = plain_block(call, result) if is_block else plain(call[0], result)
        except KeyspaceError as error:
            result = type(error)
        assert result == wanted, call
        assert self.revision() in (before, before + 1)

    @rule(calls=st.lists(writes, min_size=1, max_size=8))
    def write(self, calls: Any) -> None:
        for call in calls:
            self.both(call)

    @rule(database=databases, pairs=st.lists(st.tuples(keys, values, expires), min_size=2, max_size=6))
    def fill(self, database: int, pairs: Any) -> None:
        for key, value, expire in pairs:
            self.both(("set", database, key, value, expire, "always"))

    @rule(calls=st.lists(writes, min_size=1, max_size=4))
    def roll_back(self, calls: Any) -> None:
        self.both(("atomic", [], [*calls, NEVER]))

    @rule(database=databases, key=keys)
    def roll_back_what_removes_the_last_expiry(self, database: int, key: bytes) -> None:
        self.both(("clear_expiries", 0))
        self.both(("clear_expiries", 1))
        self.both(("set_expiry", database, key, 20_000))
        self.both(("atomic", [], [("clear_expiries", database), NEVER]))
        self.both(("set", database, key, (1, 0, b"dies with its name"), None, "always"))

    @rule(database=databases, key=keys, expire=expires, kept_expire=kept_expires)
    def count(self, database: int, key: bytes, expire: Any, kept_expire: Any) -> None:
        self.both(("set", database, key, (int(Tag.INTEGER), 0, b"1"), expire, "always"))
        self.both(("incr", database, key, 1, None, kept_expire, 0))

    @rule(database=databases, records_max=st.integers(0, 4), frequency=st.integers(0, 4))
    def cull(self, database: int, records_max: int, frequency: int) -> None:
        self.both(("cull", database, [b"never there"], records_max, frequency))

    @rule(call=blocks)
    def block(self, call: Any) -> None:
        self.both(call)

    @rule(call=reads)
    def read(self, call: Any) -> None:
        assert plain(call[0], self.store.read(*call)) == self.model.do(*call), call

    @rule(database=databases, key=keys, new_key=keys)
    def rename(self, database: int, key: bytes, new_key: bytes) -> None:
        self.both(("set", database, key, (1, EVICTABLE, b"moves"), 20_000, "always"))
        self.both(("rename", database, key, new_key))

    @rule(database=databases, prefix=prefixes)
    def list_from_everywhere(self, database: int, prefix: bytes) -> None:
        for start in (b"", b"aa", *KEYS):
            for call in [
                ("match_regex", database, prefix, b"", start, 2),
                ("match_similar", database, prefix, b"b", 1, start),
            ]:
                assert self.store.read(*call) == self.model.do(*call), call
            for skip in (False, True, "after"):
                for forward in (True, False):
                    for call in [
                        ("list", database, prefix, start, skip, forward, 2, False),
                        ("count", database, prefix, start, skip, forward, 0),
                    ]:
                        assert plain(call[0], self.store.read(*call)) == self.model.do(*call), call

    @rule(ms=st.sampled_from([1, 49, 50, 8_191, 8_192, 20_000, 10**6]))
    def advance(self, ms: int) -> None:
        self.model.now_ms += ms

    @rule(limit=st.sampled_from([0, 1, 2, 1000]))
    def sweep(self, limit: int) -> None:
        expired = {address for address, record in self.model.stored.items() if self.model.is_expired(record)}
        deleted, more = self.store.write("sweep", limit)
        left = set(self.records())
        gone = set(self.model.stored) - left
        assert gone <= expired and len(gone) == deleted <= limit
        assert more or gone == expired
        for address in gone:
            del self.model.stored[address]
        swept = set(self.model.expiries) - set(self.expiries())
        assert all(self.model.expiries.pop(address) <= self.model.now_ms for address in swept)
        assert more or all(deadline_ms > self.model.now_ms for deadline_ms in self.model.expiries.values())

    @rule(database=databases, key=keys, ms=st.sampled_from([5, 9_000, 25_000]), calls=st.lists(writes, max_size=3))
    def hang_a_deadline_on_a_name(self, database: int, key: bytes, ms: int, calls: Any) -> None:
        self.both(("set_expiry", database, key, ms))
        for call in calls:
            self.both(call)
        self.both(("set", database, key, (1, 0, b"dies with its name"), 20_000, "always"))

    # ------------------------------------------------------------------------------------------ invariants

    def records(self) -> dict[tuple[int, bytes], bytes]:
        environment = self.store._opened()
        with environment.begin() as txn:
            return {
                (number, key): record
                for number, handle in environment.databases.items()
                for key, record in txn.cursor(db=handle)
            }

    def expiries(self) -> dict[tuple[int, bytes], int]:
        """Deadlines of names; and that both entries of each are there, and the flag that says so."""
        environment = self.store._opened()
        with environment.begin() as txn:
            rows = [(bytes(key), bytes(value)) for key, value in txn.cursor(db=environment.overlay)]
            flagged = bool(environment.read_meta(txn).flags & META_OVERLAY)
        assert flagged == bool(rows)
        names = {
            (struct.unpack(">H", key[1:3])[0], key[3:]): struct.unpack("<QQ", value)[0]
            for key, value in rows
            if key[:1] == b"n"
        }
        times = {
            (struct.unpack(">H", key[9:11])[0], key[11:]): struct.unpack(">Q", key[1:9])[0]
            for key, _ in rows
            if key[:1] == b"t"
        }
        assert names == times and len(rows) == 2 * len(names)
        return names

    @invariant()
    def same_expiries(self) -> None:
        assert self.expiries() == self.model.expiries

    @invariant()
    def same_records(self) -> None:
        found = {}
        for address, record in self.records().items():
            tag, flags, _, revision, deadline_ms, _ = unpack_header(record)
            if not self.model.is_expired(self.model.stored[address]):
                assert bool(flags & Flag.OVERLAID) == (address in self.model.expiries)
            found[address] = (tag, flags & ~Flag.OVERLAID, record[HEADER_BYTES:], deadline_ms, revision)
        assert found == {
            address: (record.tag, record.flags, record.payload, record.deadline_ms, record.revision)
            for address, record in self.model.stored.items()
        }

    @invariant()
    def deadline_index_leads_to_every_record_in_time(self) -> None:
        environment = self.store._opened()
        with environment.begin() as txn:
            entries = {key for key, _ in txn.cursor(db=environment.deadlines)}
        wanted = set()
        for (database, key), record in self.records().items():
            _, _, _, _, deadline_ms, bucket = unpack_header(record)
            if deadline_ms:
                wanted.add(struct.pack(">IH", bucket, database) + key)
                assert 0 < bucket <= bucket_of(deadline_ms)
            else:
                assert bucket == 0
        assert entries == wanted, "an entry for each record with a deadline, and no others"

    @invariant()
    def counts_are_recounts(self) -> None:
        figures = self.store.read("status")
        for database in range(DATABASES):
            here = [record for (number, _), record in self.model.stored.items() if number == database]
            assert figures["records_by_database"][database] == len(here)
            assert figures["kept_records_by_database"][database] == sum(not record.evictable for record in here)


TestStoreAgainstModel = StoreAgainstModel.TestCase
TestStoreAgainstModel.settings = settings(
    phases=[Phase.generate],  # shrinking takes minutes: add Phase.shrink by hand to look into a failure
    max_examples=50,
    stateful_step_count=30,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def test_writes_of_the_table_are_all_known_to_the_model() -> None:
    assert {name for name in WRITES if not hasattr(Model, f"op_{name}")} == {"sweep"} | ELSEWHERE

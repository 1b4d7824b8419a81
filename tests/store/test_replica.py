"""The store that a log writes: the same entries make the same store, nothing happens by itself, and nothing is skipped."""

from __future__ import annotations

import shutil
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_keyspace.exceptions import (
    DamagedStore,
    KeyspaceError,
    MissingKey,
    NoSpace,
    Overloaded,
    SessionExpired,
    StorageError,
    UnknownOutcome,
)
from django_keyspace.operations import MODELS_BASE, SESSION_ID_BYTES
from django_keyspace.store import Store, StoreOptions, admission, clock, deadlines, opening, replica, sessions
from django_keyspace.store.apply import apply
from django_keyspace.store.environment import META_RETIRED
from django_keyspace.store.maintenance import Maintenance
from django_keyspace.store.record import HEADER_BYTES, unpack_header
from django_keyspace.store.replica import ReplicaStore
from django_keyspace.store.sessions import EXPIRY_MS
from tests.store.helpers import MIB, await_condition, val
from tests.store.test_stateful import START_MS, blocks, databases, keys, writes

WAIT_S = 30


class Logged(NamedTuple):
    """An entry."""

    index: int  # type: ignore[assignment]
    log_ms: int
    calls: Sequence[Any]


def options(**more: Any) -> StoreOptions:
    return StoreOptions(
        **{"durability": "none", "databases": 2, "map_bytes": 64 * MIB, "replicated": True, **more},
    )


def set_call(key: bytes, payload: bytes = b"v", expire: Any = None, *, kept: bool = False, database: int = 0) -> Any:
    return ("set", database, key, val(payload, kept=kept), expire, "always")


def session_id(number: int = 1, birth_ms: int = START_MS) -> bytes:
    return struct.pack(">Q", birth_ms) + bytes([number]) * (SESSION_ID_BYTES - 8)


def once(call: Any, sequence: int = 1, session: bytes | None = None, *, again: bool = False) -> Any:
    return ("once", session or session_id(), sequence, 1, again, call, None)


Make = Callable[..., ReplicaStore]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes stores, each in a folder of its own unless it is given one."""
    made: list[ReplicaStore] = []

    def make_store(name: str = "", **more: Any) -> ReplicaStore:
        store = ReplicaStore(str(tmp_path / (name or f"s{len(made)}")), options(**more), boot="boot-1")
        made.append(store)
        return store

    yield make_store
    for store in made:
        store.end("the test is over", clean=False)


def write(store: ReplicaStore, *calls: Any, log_ms: int = START_MS) -> list[Any]:
    """Apply one entry; its results."""
    return store.apply_entries([Logged(store.applied_index + 1, log_ms, calls)])[0]


def copied(store: ReplicaStore, make: Make, **more: Any) -> ReplicaStore:
    """A store made from a compact copy of another one, as a snapshot makes it."""
    target = make(**more)
    target.folder.create()
    write(target)
    target._close()
    with store.copy() as pieces:
        Path(target.path, "data.mdb").write_bytes(b"".join(pieces))
    return target


def plain(results: list[list[Any]]) -> list[list[Any]]:
    """Results that can be compared."""
    return [
        [(type(result), str(result)) if isinstance(result, KeyspaceError) else result for result in some]
        for some in results
    ]


# --- The same entries make the same store

onces = st.builds(
    lambda session, sequence, lowest, again, call: (
        "once", session_id(session), sequence, min(lowest, sequence), again, call, None,
    ),
    st.integers(1, 3), st.integers(1, 6), st.integers(1, 4), st.booleans(), writes | blocks,
)  # fmt: skip
upkeep = st.one_of(
    st.tuples(st.just("sweep"), st.integers(1, 5)),
    st.tuples(st.just("evict"), st.lists(st.tuples(databases, keys), max_size=4)),
    st.tuples(st.just("expire_sessions"), st.lists(st.integers(1, 3).map(session_id), max_size=3)),
)
groups = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from([0, 0, 1, 40, 9_000, 30_000, EXPIRY_MS - 10]),
            st.lists(writes | blocks | onces | onces | upkeep, max_size=4),
        ),
        min_size=1,
        max_size=4,
    ),
    min_size=1,
    max_size=4,
)


@given(program=groups, cut=st.integers(0, 3))
@settings(max_examples=60)
def test_rule_29_however_entries_come_together_the_store_is_the_same(program: Any, cut: int) -> None:
    """One transaction for each group, one for each entry, and a snapshot installed at some group: three equal stores."""
    index, log_ms = 0, START_MS
    entries: list[list[Logged]] = []
    for group in program:
        entries.append([])
        for passed_ms, calls in group:
            index, log_ms = index + 1, log_ms + passed_ms
            entries[-1].append(Logged(index, log_ms, calls))
    folder = tempfile.mkdtemp()
    stores = [ReplicaStore(f"{folder}/{number}", options(), boot="b", upkeep=False) for number in range(3)]
    together, apart, from_copy = stores
    try:
        for number, group in enumerate(entries):
            if number == min(cut, len(entries) - 1):
                write(from_copy)
                from_copy._close()
                with together.copy() as pieces:
                    Path(from_copy.path, "data.mdb").write_bytes(b"".join(pieces))
            results = together.apply_entries(group)
            assert [len(some) for some in results] == [len(entry.calls) for entry in group]
            one_by_one = [apart.apply_entries([entry])[0] for entry in group]
            assert plain(one_by_one) == plain(results)
            assert apart.digest() == together.digest()
            if number >= min(cut, len(entries) - 1):
                assert plain(from_copy.apply_entries(group)) == plain(results)
                assert from_copy.digest() == together.digest()
        assert together.applied_index == apart.applied_index == index
        assert together.log_ms == log_ms
    finally:
        for store in stores:
            store.end("over", clean=False)
        shutil.rmtree(folder)


def test_what_an_entry_writes_has_its_index_and_its_time(make: Make) -> None:
    store = make()
    store.apply_entries(
        [Logged(1, 1_000, [set_call(b"a", expire=50)]), Logged(2, 2_000, [set_call(b"b", expire=50)]), Logged(3, 0, ())]
    )
    headers = [unpack_header(store.read_at(1_000, "get", 0, key) or b"") for key in (b"b",)]
    assert [(header[3], header[4]) for header in headers] == [(2, 2_050)]
    assert store.read_at(1_000, "get", 0, b"a") is None, "over at the log time of the last entry"
    assert (store.applied_index, store.log_ms) == (3, 2_000)


def test_log_time_never_goes_back(make: Make) -> None:
    store = make()
    assert write(store, set_call(b"a", expire=1_000), log_ms=5_000) == [True]
    assert write(store, set_call(b"b", expire=1_000), log_ms=1_000) == [True]
    assert unpack_header(store.read("get", 0, b"b"))[4] == 6_000
    assert store.log_ms == 5_000


def test_a_new_store_has_no_time_of_its_own(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "wall_ms", lambda: 9_000_000_000_000)
    one = make()
    assert (one.applied_index, one.log_ms) == (0, 0)
    write(one, set_call(b"a"))
    monkeypatch.setattr(clock, "wall_ms", lambda: 5)
    monkeypatch.setattr(clock, "boot_ms", lambda: 5)
    other = make()
    write(other, set_call(b"a"))
    assert one.digest() == other.digest()


def test_rule_32_the_applied_index_moves_with_entries_that_do_nothing(make: Make) -> None:
    store = make("s")
    store.apply_entries([Logged(1, 0, ()), Logged(2, START_MS, [("delete", 0, b"missing")]), Logged(3, 0, ())])
    assert store.apply_entries([]) == []
    store.end("over", clean=False)
    again = make("s")
    assert (again.applied_index, again.log_ms) == (3, START_MS)


def test_bounds_of_sessions_do_not_depend_on_groups(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old session's write does not take a new one's place, whether both are in one transaction or not."""
    monkeypatch.setattr(sessions, "SESSIONS_MAX", 3)
    together, apart = make(), make()
    entries = [Logged(1, START_MS, [once(set_call(b"a"), 1, session_id(1)), once(set_call(b"a"), 1, session_id(2))])]
    for index, number in enumerate((1, 2, 3, 4), 2):
        entries.append(Logged(index, START_MS, [once(set_call(b"b"), 2, session_id(number))]))
    results = together.apply_entries(entries[:1]) + together.apply_entries(entries[1:])
    assert plain([apart.apply_entries([entry])[0] for entry in entries]) == plain(results)
    assert [type(result) for some in results[1:] for result in some] == [bool, bool, bool, Overloaded]
    assert together.digest() == apart.digest()


def test_room_for_results_is_counted_in_their_bytes(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "STORE_SHARE", 4 * MIB // 3_000)
    store = make(max_bytes=4 * MIB)

    def removed(sequence: int, lowest: int = 1, *, again: bool = False) -> Any:
        remove = ("once", session_id(), sequence, lowest, again, ("remove", 0, b"k"), None)
        return write(store, set_call(b"k", bytes(1_000)), remove)[1]

    for sequence in (1, 2, 3):
        assert removed(sequence)[HEADER_BYTES:] == bytes(1_000)
    assert removed(2, again=True)[HEADER_BYTES:] == bytes(1_000)
    assert isinstance(removed(3, again=True), UnknownOutcome), "two of them fill the room"
    removed(4, lowest=3)
    assert removed(4, lowest=3, again=True)[HEADER_BYTES:] == bytes(1_000), "what was acknowledged leaves room"
    assert write(store, ("expire_sessions", [session_id()]), log_ms=START_MS + EXPIRY_MS) == [1]
    with store.snapshot() as snapshot:
        assert snapshot.environment.answers_bytes(snapshot.txn) == 0


# --- Nothing is skipped, nothing half done


@pytest.mark.parametrize("indices", [[2], [0], [1, 1], [1, 3], [-1], [2, 1]])
def test_gaps_are_refused(make: Make, indices: list[int]) -> None:
    store = make()
    before = store.digest()
    with pytest.raises(StorageError, match="do not fit together"):
        store.apply_entries([Logged(index, START_MS, [set_call(b"k%d" % index)]) for index in indices])
    assert store.applied_index == 0
    assert store.digest() == before
    assert write(store, set_call(b"k")) == [True]
    with pytest.raises(StorageError, match="do not fit together"):
        store.apply_entries([Logged(1, START_MS, ())])


@pytest.mark.parametrize("error", [RuntimeError("a bug"), StorageError("the disk")], ids=["bug", "storage"])
def test_rule_33_what_is_unexpected_leaves_the_store_as_it_was(
    make: Make, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    store = make()
    write(store, once(("incr", 0, b"n", 1, 0, None, 0)))
    before = store.digest()

    def fail_at_once(context: Any, call: Any) -> Any:
        if call[0] == "clear":
            raise error
        return apply(context, call)

    entries = [
        Logged(2, START_MS, [once(("incr", 0, b"n", 1, 0, None, 0), 2), set_call(b"a", kept=True)]),
        Logged(3, START_MS, [("set_expiry", 0, b"a", 5_000), ("clear", 0, True)]),
    ]
    with monkeypatch.context() as patch:
        patch.setattr(replica, "apply", fail_at_once)
        with pytest.raises(type(error), match=str(error)):
            store.apply_entries(entries)
    assert (store.applied_index, store.digest()) == (1, before)
    assert store.apply_entries(entries)[0] == [2, True]
    again = once(("incr", 0, b"n", 1, 0, None, 0), 2, again=True)
    assert write(store, again, ("incr", 0, b"n", 0, None, None, 0))[0] == 2
    twin = make()
    twin.apply_entries([Logged(1, START_MS, [once(("incr", 0, b"n", 1, 0, None, 0))]), *entries])
    write(twin, again, ("incr", 0, b"n", 0, None, None, 0))
    assert twin.digest() == store.digest()


def test_rule_33_what_an_operation_refuses_is_its_result(make: Make) -> None:
    store = make()
    results = write(
        store,
        ("incr", 0, b"missing", 1, None, None, 0),
        once(set_call(b"k"), session=session_id(1, START_MS - 2 * EXPIRY_MS)),
        set_call(b"after"),
    )
    assert [type(result) for result in results] == [MissingKey, SessionExpired, bool]
    assert store.applied_index == 1


def test_a_full_map_grows_and_the_entries_are_applied(make: Make) -> None:
    store = make(map_bytes=MIB, max_bytes=MIB, value_bytes_max=200_000)
    entries = [
        Logged(
            index, START_MS, [set_call(b"%d-%d" % (index, number), bytes(100_000), kept=True) for number in range(10)]
        )
        for index in range(1, 9)
    ]
    assert store.apply_entries(entries[:4]) == [[True] * 10] * 4
    assert store.apply_entries(entries[4:]) == [[True] * 10] * 4, (
        "also far beyond the soft limit: admission is the leader's"
    )
    assert store.applied_index == 8
    assert store.read("status")["map_bytes"] >= 8 * MIB
    twin = make()
    twin.apply_entries(entries)
    assert twin.digest() == store.digest()


def test_a_map_grows_when_a_long_reader_lets_go(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_QUIET_WAIT_S", 0.01)
    store = make(map_bytes=MIB, max_bytes=MIB)
    write(store, set_call(b"a"))
    reading, tries = threading.Event(), []
    recover = ReplicaStore._recover

    def count_tries(self: ReplicaStore, *arguments: Any) -> None:
        tries.append(1)
        recover(self, *arguments)

    monkeypatch.setattr(ReplicaStore, "_recover", count_tries)

    def hold() -> None:
        with store.snapshot():
            reading.set()
            await_condition(lambda: len(tries) >= 3, WAIT_S)

    thread = threading.Thread(target=hold)
    thread.start()
    assert reading.wait(WAIT_S)
    assert write(store, *[set_call(b"k%d" % number, bytes(100_000)) for number in range(20)]) == [True] * 20
    thread.join(WAIT_S)
    assert len(tries) >= 3


def test_a_map_that_the_disk_has_no_room_for_is_an_error(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make(map_bytes=MIB, max_bytes=MIB)
    write(store, set_call(b"a"))
    monkeypatch.setattr("django_keyspace.store.environment.free_disk_bytes", lambda path: 0)
    with pytest.raises(NoSpace):
        write(store, *[set_call(b"k%d" % number, bytes(100_000)) for number in range(20)])
    assert store.applied_index == 1


def test_only_the_log_writes(make: Make) -> None:
    store = make()
    with pytest.raises(StorageError, match="written by the log alone"):
        store.write(*set_call(b"a"))
    assert store.applied_index == 0
    with pytest.raises(StorageError, match="replicated"):
        ReplicaStore(store.path, StoreOptions(durability="commit"))


# --- Nothing happens by itself


def test_rule_30_upkeep_is_found_and_not_done(make: Make) -> None:
    store = make()
    write(store, set_call(b"a", expire=1_000), set_call(b"b"), once(set_call(b"c")))
    bucket_ms = 1 << deadlines.BUCKET_SHIFT
    assert store.due(START_MS + 1_000) == [], "the bucket is not over"
    over_ms = START_MS + 1_000 + 2 * bucket_ms
    before = store.digest()
    assert store.due(over_ms) == [("sweep", 500)]
    ended_ms = START_MS + EXPIRY_MS
    assert store.due(ended_ms) == [("sweep", 500), ("expire_sessions", [session_id()])]
    assert store.due(ended_ms) == [("sweep", 500), ("expire_sessions", [session_id()])], "until it is done"
    store.now_ms = lambda: ended_ms
    Maintenance(store).tick()
    assert store.digest() == before
    assert write(store, *store.due(ended_ms), log_ms=ended_ms) == [(1, False), 1]
    assert store.due(ended_ms + 1) == []
    assert store.read("count", 0, b"", b"", False, True, 0)[0] == 2


def test_an_embedded_store_does_sweep_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above would look like if the option did nothing."""
    store = Store(str(tmp_path / "store"), options(replicated=False))
    monkeypatch.setattr(clock, "wall_ms", lambda: START_MS)
    store.write(*set_call(b"a", expire=1_000))
    monkeypatch.setattr(clock, "wall_ms", lambda: START_MS + 100_000)
    Maintenance(store).tick()
    with store.snapshot() as snapshot:
        assert snapshot.txn.stat(snapshot.environment.databases[0])["entries"] == 0
    store.shutdown()


def test_names_deadlines_are_due_too(make: Make) -> None:
    store = make()
    write(store, set_call(b"a"), ("set_expiry", 0, b"a", 500))
    assert store.due(START_MS + 499) == []
    assert store.due(START_MS + 500) == [("sweep", 500)]


def test_reads_are_at_the_time_that_the_node_gives(make: Make) -> None:
    store = make()
    write(store, set_call(b"a", expire=1_000))
    assert store.read_at(START_MS + 999, "exists", 0, b"a") is True
    assert store.read_at(START_MS + 1_000, "exists", 0, b"a") is False
    assert store.read_at(0, "exists", 0, b"a") is True, "not before the last entry's time"
    assert store.read("exists", 0, b"a") is True
    store.now_ms = lambda: START_MS + 1_000
    assert store.read("exists", 0, b"a") is False
    assert store.log_time_ms() == START_MS + 1_000
    with store.snapshot() as snapshot:
        assert snapshot.now_ms == START_MS + 1_000


# --- The digest


def tampered(change: Callable[[Any, Any], None], store: ReplicaStore) -> bytes:
    """The digest after a change beneath the operations."""
    environment = store._opened()
    with environment.begin(write=True) as txn:
        change(txn, environment)
    return store.digest()


def drop_first(table: str) -> Callable[[Any, Any], None]:
    def change(txn: Any, environment: Any) -> None:
        handle = getattr(environment, table)
        cursor = txn.cursor(db=handle)
        assert cursor.first()
        cursor.delete()

    return change


def put_in(number: int) -> Callable[[Any, Any], None]:
    def change(txn: Any, environment: Any) -> None:
        ((key, record),) = list(txn.cursor(db=environment.databases[number]))
        txn.put(key, record[:HEADER_BYTES] + b"another", db=environment.databases[number])

    return change


def set_meta(**fields: Any) -> Callable[[Any, Any], None]:
    def change(txn: Any, environment: Any) -> None:
        environment.write_meta(txn, environment.read_meta(txn)._replace(**fields))

    return change


CHANGES: dict[str, Callable[[Any, Any], None]] = {
    "a record": put_in(0),
    "a record of the other database": put_in(1),
    "a record of a model": put_in(MODELS_BASE),
    "the deadline index": drop_first("deadlines"),
    "the overlay": drop_first("overlay"),
    "the sessions": drop_first("sessions"),
    "a count of kept records": lambda txn, environment: environment.change_kept_records(txn, {1: 1}),
    "a count of a model's records": lambda txn, environment: environment.change_kept_records(txn, {MODELS_BASE + 1: 1}),
    "bytes of results": lambda txn, environment: environment.change_answers_bytes(txn, 1),
    "the revision": set_meta(revision=2),
    "the log clock": set_meta(log_ms=START_MS + 1),
    "the overlay's flag": set_meta(flags=0),
    "the format": set_meta(format=2),
}


def full_store(make: Make, **more: Any) -> ReplicaStore:
    """A store with something of each kind."""
    store = make(**more)
    write(
        store,
        set_call(b"a", b"v" * 300, 60_000, kept=True),
        set_call(b"b", database=1),
        set_call(b"m", database=MODELS_BASE, kept=True),
        ("set_expiry", 0, b"a", 70_000),
        once(("remove", 0, b"a")),
        set_call(b"a", b"v" * 300, 60_000, kept=True),
    )
    return store


@pytest.mark.parametrize("what", CHANGES)
def test_the_digest_tells_every_difference(make: Make, what: str) -> None:
    store = full_store(make)
    before = store.digest()
    assert tampered(lambda txn, environment: None, store) == before
    assert tampered(CHANGES[what], store) != before


def test_the_digest_does_not_tell_how_it_came_to_be(make: Make) -> None:
    store = full_store(make)
    for number in range(300):
        write(store, set_call(b"k%d" % number, bytes(1_000)))
    write(store, ("delete_many", 0, [b"k%d" % number for number in range(0, 300, 2)]))
    digest = store.digest()
    assert copied(store, make).digest() == digest, "a compact copy"
    assert copied(store, make, databases=5).digest() == digest, "opened with more databases"
    assert tampered(set_meta(boot_ms=7), store) == digest
    store.retire()
    assert store.digest() == digest
    with store._opened().begin() as txn:
        assert store._opened().read_meta(txn).flags & META_RETIRED
    store.mark_clean()
    assert store.digest() == digest


# --- Admission


def fill(store: ReplicaStore, count: int, *, kept: bool, prefix: bytes = b"k") -> None:
    for start in range(0, count, 100):
        pairs = [(prefix + b"%05d" % number, val(b"x" * 2_000, kept=kept)) for number in range(start, start + 100)]
        write(store, ("set_many", 0, pairs, None))


def used(store: ReplicaStore) -> int:
    return int(store.read("status")["used_bytes"])


def test_there_is_room_in_an_empty_store(make: Make) -> None:
    store = make(max_bytes=4 * MIB)
    assert store.plan([set_call(b"new", b"x" * 2_000)], START_MS, Random(1)) == ([], None)


def test_a_plan_names_what_may_go_and_applied_it_makes_room(make: Make) -> None:
    store = make(max_bytes=4 * MIB)
    fill(store, 300, kept=True, prefix=b"kept")
    fill(store, 900, kept=False)
    assert used(store) > 4 * MIB
    new = [set_call(b"new%d" % number, b"x" * 2_000) for number in range(50)]
    before, log_ms = store.digest(), START_MS
    addresses, refusal = store.plan(new, log_ms, Random(1))
    assert refusal is None
    assert addresses and len(set(addresses)) == len(addresses)
    assert all(database == 0 and key.startswith(b"k0") for database, key in addresses)
    assert store.digest() == before, "it only looks"
    for _ in range(40):
        write(store, ("evict", addresses), *new, log_ms=log_ms)
        log_ms += 1
        addresses, refusal = store.plan(new, log_ms, Random(1))
        assert refusal is None
    assert used(store) <= 4 * MIB * 1.1
    assert store.read("count", 0, b"kept", b"", False, True, 0)[0] == 300


def test_plans_are_repeatable_and_do_not_name_what_is_on_its_way(make: Make) -> None:
    one, other = make(max_bytes=4 * MIB), make(max_bytes=4 * MIB)
    for store in (one, other):
        fill(store, 1_100, kept=False)
        assert used(store) > 4 * MIB
    new = [set_call(b"new", bytes(100_000))]  # so much that each plan looks at the fill
    first, _ = one.plan(new, START_MS, Random(7))
    assert first == other.plan(new, START_MS, Random(7))[0]
    assert len(first) > 50
    assert one.plan(new, START_MS + 1, Random(7)) == ([], None), "what was planned makes room enough"
    assert other.plan(new, START_MS + admission.PLAN_HOLDS_MS, Random(7))[0], "it did not come back: it is planned anew"
    more, refusal = one.plan(new * 9, START_MS + 2, Random(7))
    assert refusal is None and len(more) > 50 and not set(first) & set(more)
    write(one, ("evict", first), ("evict", more), *new)
    assert one.plan(new, START_MS + 3, Random(7)) == ([], None)


def test_no_room_is_an_error_when_nothing_may_go(make: Make) -> None:
    store = make(max_bytes=4 * MIB)
    fill(store, 1_100, kept=True)
    done = once(set_call(b"done", kept=True))
    write(store, done)
    calls = [set_call(b"new", b"x"), ("delete", 0, b"k00001"), done, once(set_call(b"other"), 2)]
    addresses, refusal = store.plan(calls, START_MS, Random(1))
    assert addresses == [] and isinstance(refusal, NoSpace)
    assert store.growing(calls) == [True, False, False, True]
    sent_again = once(set_call(b"other"), 2, again=True)
    assert store.growing([sent_again, ("delete", 0, b"a")]) == [False, False]
    assert store.plan([("delete", 0, b"k00001")], START_MS, Random(1)) == ([], None)
    write(store, ("delete_many", 0, [b"k%05d" % number for number in range(600)]))
    assert store.plan(calls, START_MS, Random(1)) == ([], None)


def test_what_can_never_fit_pushes_nothing_out(make: Make) -> None:
    store = make(max_bytes=4 * MIB)
    fill(store, 1_700, kept=False)
    addresses, refusal = store.plan([set_call(b"new", bytes(5 * MIB))], START_MS, Random(1))
    assert addresses == [] and isinstance(refusal, NoSpace)


# --- Its files


def test_a_damaged_file_is_no_reason_to_begin_anew(make: Make) -> None:
    store = make("s")
    write(store, set_call(b"a"))
    store.end("over", clean=True)
    Path(store.path, "data.mdb").write_bytes(b"rubbish" * 10_000)
    with pytest.raises(DamagedStore):
        make("s").applied_index  # noqa: B018
    Path(store.path, "data.mdb").unlink()
    with pytest.raises(DamagedStore):
        make("s").applied_index  # noqa: B018


def test_a_file_that_was_taken_away_is_not_made_anew_beneath_a_node(make: Make) -> None:
    store = make()
    write(store, set_call(b"a"))
    Path(store.path, "data.mdb").unlink()
    assert store.reopen_if_replaced() is False
    assert write(store, set_call(b"b")) == [True]
    assert store.read("exists", 0, b"a") is True


def test_a_store_that_has_ended_says_why(make: Make) -> None:
    store = make()
    write(store, set_call(b"a"))
    store.end("It has ended, and that is why.")
    shutil.rmtree(store.path)
    with pytest.raises(StorageError, match="that is why"):
        store.read("exists", 0, b"a")
    with pytest.raises(StorageError, match="that is why"):
        write(store, set_call(b"a"))
    store.shutdown()
    assert not Path(store.path).exists()

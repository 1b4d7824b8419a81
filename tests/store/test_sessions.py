"""The exactly-once table of a store: bounds, expiry, restarts, and a model."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import lmdb
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from django_keyspace.exceptions import (
    KeyspaceError,
    MissingKey,
    NoSpace,
    Overloaded,
    SessionExpired,
    StaleSequence,
    UnknownOutcome,
)
from django_keyspace.operations import SESSION_WINDOW
from django_keyspace.store import Store, StoreOptions, clock, sessions
from django_keyspace.store.sessions import EXPIRY_MS

from .helpers import MIB, put, small_options, val

COUNT = ("incr", 0, b"n", 1, 0, None, 0)


def session_id(store: Store, number: int = 0) -> bytes:
    return store.log_time_ms().to_bytes(8, "big") + b"%016d" % number


def once(store: Store, session: bytes, sequence: int, lowest: int = 1, call: Any = COUNT, again: bool = False) -> Any:
    return store.write("once", session, sequence, lowest, again, call, None)


@pytest.fixture
def store(tmp_path: Path):
    store = Store(str(tmp_path / "s"), small_options())
    yield store
    store.shutdown()


class Clocks:
    """The host's clocks, for a test to move."""

    def __init__(self) -> None:
        self.ms = 1_700_000_000_000

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    clocks = Clocks()
    monkeypatch.setattr(clock, "wall_ms", clocks)
    monkeypatch.setattr(clock, "boot_ms", clocks)
    return clocks


# --- Results


@pytest.mark.parametrize(
    "result",
    [
        None, True, False, 0, -(2**70), 1.5, b"", b"L", b"bytes", "text", "\udc80", (), [], (True, None), (False, b"record"),
        [("ok", [b"a", None]), ("missing-key", "no")], (True, [1, ({"a": 1, "b": [2]}, False)]), {"path": "x", "n": [1, 2]},
    ],
)  # fmt: skip
def test_results_come_back_as_they_were(result: Any) -> None:
    found = sessions.decode(sessions.encode(result))
    assert found == result and type(found) is type(result)


def test_errors_come_back_as_they_were() -> None:
    found = sessions.decode(sessions.encode(MissingKey("there is none")))
    assert type(found) is MissingKey and str(found) == "there is none"


# --- Restarts, and older stores


@pytest.mark.parametrize("size", [10, 100_000])
def test_what_is_kept_outlives_a_restart(tmp_path: Path, size: int) -> None:
    first = Store(str(tmp_path), small_options())
    put(first, b"k", b"v" * size)
    session = session_id(first)
    record = once(first, session, 1, call=("remove", 0, b"k"))
    assert record.endswith(b"v" * size)
    first.shutdown()
    second = Store(str(tmp_path), small_options())
    put(second, b"k", b"newer")
    assert once(second, session, 1, call=("remove", 0, b"k"), again=True) == record
    assert second.read("exists", 0, b"k") is True
    second.shutdown()


def test_a_store_of_before_there_were_sessions_gets_the_table(tmp_path: Path) -> None:
    first = Store(str(tmp_path), small_options())
    put(first, b"k")
    first.shutdown()
    raw = lmdb.open(str(tmp_path), max_dbs=30)
    with raw.begin(write=True) as txn:
        txn.drop(raw.open_db(b"sessions", txn=txn, create=False))
    raw.close()
    second = Store(str(tmp_path), small_options())
    assert once(second, session_id(second), 1) == 1
    assert second.read("exists", 0, b"k") is True
    second.shutdown()


def test_another_process_may_write_in_between(tmp_path: Path, store: Store) -> None:
    """What is remembered of sessions counts only while nobody else has committed."""
    session = session_id(store)
    assert once(store, session, 1) == 1
    store._last_commit = (0, ())  # as it looks after another process's commit
    assert once(store, session, 1, again=True) == 1
    assert once(store, session, 2) == 2
    assert once(store, session, 1, again=True) == 1


# --- Bounds


def test_a_group_of_one_session_is_one_record(store: Store) -> None:
    session = session_id(store)
    calls = [("once", session, number, 1, False, COUNT, None) for number in range(1, 101)]
    assert store.write_many(calls) == list(range(1, 101))
    assert store.write_many(calls) == list(range(1, 101))
    with store.snapshot() as snapshot:
        assert snapshot.txn.stat(snapshot.environment.sessions)["entries"] == 1
    once(store, session, SESSION_WINDOW + 90, 100)
    assert set(store._sessions[session].small) == {100, SESSION_WINDOW + 90}


def test_acknowledged_results_go(store: Store) -> None:
    session = session_id(store)
    for number in range(1, 4):
        put(store, b"k", b"v" * 1000)
        once(store, session, number, 1, ("remove", 0, b"k"))
    with store.snapshot() as snapshot:
        assert snapshot.txn.stat(snapshot.environment.sessions)["entries"] == 4
    once(store, session, 4, 4)
    with store.snapshot() as snapshot:
        assert snapshot.txn.stat(snapshot.environment.sessions)["entries"] == 1


def test_of_a_result_that_is_too_large_only_the_fact_is_kept(store: Store) -> None:
    session = session_id(store)
    for number in (1, 2):
        put(store, b"k", b"v" * (sessions.SESSION_BYTES_MAX * 2 // 3))
        assert once(store, session, number, 1, ("remove", 0, b"k")) is not None
    put(store, b"k", b"newer")
    assert once(store, session, 1, 1, ("remove", 0, b"k"), again=True) is not None
    with pytest.raises(UnknownOutcome, match="was done, once"):
        once(store, session, 2, 1, ("remove", 0, b"k"), again=True)
    assert store.read("exists", 0, b"k") is True


def test_no_more_sessions_than_the_limit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SESSIONS_MAX", 3)
    for number in range(3):
        once(store, session_id(store, number), 1)
    newcomer = session_id(store, 9)
    with pytest.raises(Overloaded):
        once(store, newcomer, 1)
    assert store.write("incr", 0, b"n", 0, 0, None, 0) == 3


def test_a_full_store_still_tells_what_was_done(tmp_path: Path) -> None:
    store = Store(str(tmp_path), StoreOptions(durability="none", databases=2, max_bytes=MIB * 4))
    session = session_id(store)
    big = ("set", 0, b"k", val(b"v" * 100_000, kept=True), None, "always")
    assert once(store, session, 1, call=big) is True
    number = 0
    with pytest.raises(NoSpace):
        for number in range(1000):
            put(store, b"fill%d" % number, b"x" * 100_000, kept=True)
    with pytest.raises(NoSpace):
        once(store, session, 2, call=big)
    assert once(store, session, 1, call=big, again=True) is True
    store.shutdown()


# --- Expiry


def test_sessions_end_by_log_time(store: Store, clocks: Clocks) -> None:
    old, busy = session_id(store, 1), session_id(store, 2)
    put(store, b"k", b"v" * 1000)
    once(store, old, 1, call=("remove", 0, b"k"))
    once(store, busy, 1)
    clocks.ms += EXPIRY_MS - 1
    assert once(store, busy, 2) == 2
    assert store.due_sessions(10) == []
    clocks.ms += 1
    assert store.due_sessions(10) == [old]
    with pytest.raises(SessionExpired):  # not swept yet, and over all the same
        once(store, old, 1, again=True)
    assert store.write("expire_sessions", [old, busy]) == 1
    with store.snapshot() as snapshot:
        assert snapshot.txn.stat(snapshot.environment.sessions)["entries"] == 1
    with pytest.raises(SessionExpired):  # swept: its birth says that it may have been here
        once(store, old, 1, again=True)
    assert once(store, busy, 2, again=True) == 2


def test_upkeep_ends_sessions_in_bounded_steps(store: Store, clocks: Clocks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_keyspace.store.maintenance.SESSIONS_AT_A_TIME", 2)
    monkeypatch.setattr("django_keyspace.store.maintenance._SWEEPS_PER_TICK_MAX", 2)
    for number in range(5):
        once(store, session_id(store, number), 1)
    clocks.ms += EXPIRY_MS + 1
    store._maintenance.expire_sessions()
    assert len(store.due_sessions(10)) == 1
    store._maintenance.expire_sessions()
    assert store.due_sessions(10) == []


def test_a_session_that_was_born_ahead_of_the_log_clock_lives_as_long_as_its_birth_says(
    store: Store, clocks: Clocks
) -> None:
    ahead = (clocks.ms + 1_000_000).to_bytes(8, "big") + b"x" * 16
    once(store, ahead, 1)
    clocks.ms += EXPIRY_MS + 500_000
    assert once(store, ahead, 1, again=True) == 1


# --- Against a model


class TableAgainstModel(RuleBasedStateMachine):
    """Random copies of random writes, with restarts and time, against a dict of what each sequence has answered."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store(self.folder.name, small_options())
        self.now_ms = 1_700_000_000_000
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(clock, "wall_ms", lambda: self.now_ms)
        self.patch.setattr(clock, "boot_ms", lambda: self.now_ms)
        self.ids = [self.now_ms.to_bytes(8, "big") + b"%016d" % number for number in range(3)]
        self.used_ms: dict[int, int] = {}
        self.lowest: dict[int, int] = {}
        self.answers: dict[tuple[int, int], Any] = {}
        self.count = 0

    def teardown(self) -> None:
        self.store.shutdown()
        self.patch.undo()
        self.folder.cleanup()

    def expected(self, number: int, sequence: int, lowest: int, again: bool, changes: bool) -> Any:
        used_ms = self.used_ms.get(number)
        last_ms = int.from_bytes(self.ids[number][:8], "big") if used_ms is None else used_ms
        if last_ms + EXPIRY_MS <= self.now_ms:
            return SessionExpired
        if used_ms is not None and sequence < self.lowest[number]:
            return StaleSequence
        if (number, sequence) in self.answers:
            return self.answers[number, sequence]
        self.count += changes
        answer = self.count if changes else MissingKey
        if changes or again:
            self.used_ms[number] = self.now_ms
            self.lowest[number] = max(lowest, self.lowest.get(number, 0))
            self.answers[number, sequence] = answer
        return answer

    @rule(
        copies=st.lists(
            st.tuples(st.integers(0, 2), st.integers(1, 6), st.integers(0, 5), st.booleans(), st.booleans()),
            min_size=1,
            max_size=4,
        )
    )
    def write(self, copies: list[tuple[int, int, int, bool, bool]]) -> None:
        calls, wanted = [], []
        for number, sequence, back, again, changes in copies:
            lowest = max(sequence - back, 1)
            call = COUNT if changes else ("incr", 0, b"none", 1, None, None, 0)
            calls.append(("once", self.ids[number], sequence, lowest, again, call, None))
            wanted.append(self.expected(number, sequence, lowest, again, changes))
        found = [
            type(result) if isinstance(result, KeyspaceError) else result for result in self.store.write_many(calls)
        ]
        assert found == wanted

    @rule(milliseconds=st.sampled_from([1, EXPIRY_MS // 2, EXPIRY_MS]))
    def wait(self, milliseconds: int) -> None:
        self.now_ms += milliseconds

    @rule()
    def sweep(self) -> None:
        due = {number for number, used_ms in self.used_ms.items() if used_ms + EXPIRY_MS <= self.now_ms}
        assert self.store.due_sessions(10) == [self.ids[number] for number in sorted(due)]
        assert self.store.write("expire_sessions", self.ids) == len(due)
        for number in due:
            del self.used_ms[number], self.lowest[number]
            self.answers = {place: answer for place, answer in self.answers.items() if place[0] != number}

    @precondition(lambda self: not self.used_ms)
    @rule()
    def begin_anew(self) -> None:
        self.ids = [self.now_ms.to_bytes(8, "big") + b"%016d" % number for number in range(3)]

    @rule()
    def restart(self) -> None:
        self.store.shutdown()
        self.store = Store(self.folder.name, small_options())

    @invariant()
    def counted(self) -> None:
        record = self.store.read("get", 0, b"n")
        assert (0 if record is None else int(record[-len(str(self.count)) :])) == self.count


TestTableAgainstModel = TableAgainstModel.TestCase
TestTableAgainstModel.settings = settings(
    phases=[Phase.generate],
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

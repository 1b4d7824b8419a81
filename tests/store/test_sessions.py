"""Every write once: the table of client sessions against a model, and its limits one by one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from django_keyspace.exceptions import InvalidArgument, Overloaded, SessionExpired
from django_keyspace.store import sessions as module
from django_keyspace.store.sessions import RESULTS_MAX, Sessions, Verdict

TTL_MS = 1_000
A, B = b"a" * 16, b"b" * 16


class Table:
    """A store with nothing in it but sessions; each call is a transaction, at a time that the test sets."""

    def __init__(self, folder: str) -> None:
        self.environment = lmdb.open(folder, max_dbs=1, sync=False, map_size=2**28, lib_version=1)
        self.handle = self.environment.open_db(b"sessions")
        self.now_ms = 1_000_000

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            with self.environment.begin(write=True) as txn:
                return getattr(Sessions(txn, self.handle, self.now_ms), name)(*arguments)

        return call

    def write(self, session: bytes, sequence: int, lowest: int, result: bytes) -> bytes | Verdict:
        """What a node does with a write: the answer, new or kept, or that it was forgotten."""
        with self.environment.begin(write=True) as txn:
            sessions = Sessions(txn, self.handle, self.now_ms)
            verdict = sessions.admit(session, sequence, lowest)
            if verdict is Verdict.NEW:
                sessions.record(session, sequence, lowest, result)
                return result
            return verdict

    def dump(self) -> list[tuple[bytes, bytes]]:
        with self.environment.begin() as txn, txn.cursor(db=self.handle) as cursor:
            return [(bytes(key), bytes(value)) for key, value in cursor]

    def results(self, session: bytes) -> list[int]:
        return [int.from_bytes(key[17:], "big") for key, _ in self.dump() if key.startswith(b"r" + session)]


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    table = Table(str(tmp_path))
    yield table
    table.environment.close()


def test_rule_24_a_resent_write_gets_the_answer_that_it_had(table: Table) -> None:
    table.open(A, TTL_MS)
    assert table.write(A, 1, 1, b"first") == b"first"
    before = table.dump()
    assert table.write(A, 1, 1, b"second") == b"first"
    assert table.dump() == before
    assert table.write(A, 2, 1, b"") == b""
    assert table.write(A, 2, 1, b"other") == b"", "an empty answer is one, too"
    table.open(B, TTL_MS)
    assert table.write(B, 1, 1, b"its own") == b"its own"


def test_rule_24_acknowledged_answers_go_and_such_writes_are_not_done_again(table: Table) -> None:
    table.open(A, TTL_MS)
    for sequence in range(1, 6):
        table.write(A, sequence, 1, b"%d" % sequence)
    table.write(A, 6, 4, b"6")
    assert table.results(A) == [4, 5, 6]
    assert table.write(A, 2, 1, b"again") is Verdict.FORGOTTEN
    assert table.write(A, 4, 1, b"again") == b"4", "the lowest number never goes back"
    assert table.write(A, 9, 9, b"9") == b"9", "numbers may be left out: their writes were refused before the log"
    assert table.write(A, 8, 8, b"late") is Verdict.FORGOTTEN, "its client has given it up"
    assert table.results(A) == [9]


def test_a_write_that_was_overtaken_is_done_while_its_client_waits(table: Table) -> None:
    table.open(A, TTL_MS)
    assert table.write(A, 3, 1, b"3") == b"3"
    assert table.write(A, 1, 1, b"1") == b"1"
    assert table.write(A, 2, 1, b"2") == b"2"
    assert table.results(A) == [1, 2, 3]


def test_rule_25_a_session_ends_by_log_time_and_nothing_is_done_for_it_then(table: Table) -> None:
    table.open(A, TTL_MS)
    table.write(A, 1, 1, b"1")
    table.now_ms += TTL_MS - 1
    assert table.write(A, 1, 1, b"x") == b"1"
    assert table.write(A, 2, 1, b"2") == b"2", "a new write is a use"
    table.now_ms += TTL_MS
    for sequence in (1, 2, 3):
        with pytest.raises(SessionExpired, match="not known"):
            table.write(A, sequence, 1, b"x")
    with pytest.raises(SessionExpired):
        table.write(B, 1, 1, b"x")
    with pytest.raises(SessionExpired):
        table.record(A, 3, 1, b"x")
    table.open(A, TTL_MS)
    assert table.write(A, 1, 1, b"new") == b"new", "a session of the same name begins anew"
    assert table.count() == 1


def test_opening_again_is_a_use_and_no_more(table: Table) -> None:
    table.open(A, TTL_MS)
    table.write(A, 1, 1, b"1")
    table.now_ms += TTL_MS - 1
    table.open(A, 5)
    table.now_ms += TTL_MS - 1
    assert table.write(A, 1, 1, b"x") == b"1"
    assert table.count() == 1


def test_rule_25_the_sweep_ends_what_is_over(table: Table) -> None:
    for number in range(20):
        table.open(b"%016d" % number, TTL_MS)
        table.write(b"%016d" % number, 1, 1, b"x")
    assert table.sweep(100) == (0, False)
    table.now_ms += TTL_MS - 1
    for number in range(5):
        table.write(b"%016d" % number, 2, 1, b"y")
    assert table.sweep(100) == (0, False)
    table.now_ms += 1
    ended = more = 0
    while True:
        some, more = table.sweep(7)
        ended += some
        if not more:
            break
    assert (ended, table.count()) == (15, 5)
    table.now_ms += TTL_MS
    assert table.sweep(100) == (5, False)
    assert table.dump() == [(b"n", bytes(8))], "nothing is left of them"


def test_closing_leaves_nothing(table: Table) -> None:
    table.open(A, TTL_MS)
    table.open(B, TTL_MS)
    table.write(A, 1, 1, b"x")
    table.write(B, 1, 1, b"y")
    assert table.close(A) is True
    assert table.close(A) is False
    assert table.write(B, 1, 1, b"z") == b"y"
    table.close(B)
    assert table.dump() == [(b"n", bytes(8))]


def test_rule_17_answers_of_a_session_are_bounded_in_number(table: Table) -> None:
    table.open(A, TTL_MS)
    for sequence in range(1, RESULTS_MAX + 1):
        table.write(A, sequence, 1, b"x")
    before = table.dump()
    with pytest.raises(Overloaded, match="1,024 answers"):
        table.write(A, RESULTS_MAX + 1, 1, b"x")
    assert table.dump() == before
    assert table.write(A, 5, 1, b"y") == b"x", "what was done is still answered"
    assert table.write(A, RESULTS_MAX + 1, 2, b"x") == b"x"
    assert len(table.results(A)) == RESULTS_MAX
    assert table.write(A, 3_000, 3_000, b"x") == b"x"
    assert table.results(A) == [3_000]


def test_rule_17_and_in_bytes(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESULT_BYTES_MAX", 1_000)
    table.open(A, TTL_MS)
    table.write(A, 1, 1, b"x" * 400)
    table.write(A, 2, 1, b"x" * 5_000)  # one answer may be larger; it is the next write that waits
    with pytest.raises(Overloaded, match="5,400 bytes"):
        table.write(A, 3, 1, b"x")
    with pytest.raises(Overloaded):
        table.write(A, 3, 2, b"x")
    assert table.write(A, 3, 3, b"x") == b"x"
    assert table.head(A).result_bytes == 1


def test_rule_17_sessions_are_bounded(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SESSIONS_MAX", 2)
    table.open(A, TTL_MS)
    table.open(B, TTL_MS)
    with pytest.raises(Overloaded, match="2 client sessions"):
        table.open(b"c" * 16, TTL_MS)
    table.open(A, TTL_MS)
    table.close(B)
    table.open(b"c" * 16, TTL_MS)


@pytest.mark.parametrize(("session", "ttl_ms"), [(b"", 1), (b"a" * 15, 1), (b"a" * 17, 1), (A, 0), (A, -1), (A, 2**63)])
def test_bad_sessions_are_refused(table: Table, session: bytes, ttl_ms: int) -> None:
    with pytest.raises(InvalidArgument, match="Nothing was changed"):
        table.open(session, ttl_ms)
    assert table.dump() == []


@pytest.mark.parametrize(("sequence", "lowest"), [(0, 0), (1, 0), (1, 2), (-1, -1), (2**63, 1)])
def test_bad_numbers_are_refused(table: Table, sequence: int, lowest: int) -> None:
    table.open(A, TTL_MS)
    before = table.dump()
    with pytest.raises(InvalidArgument, match="Nothing was changed"):
        table.write(A, sequence, lowest, b"x")
    assert table.dump() == before


class SessionMachine(RuleBasedStateMachine):
    """The table beside a dictionary; ``done`` counts how often each write was done."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory(prefix="sessions-")
        self.table = Table(self.folder.name)
        self.model: dict[bytes, dict[str, Any]] = {}

    def teardown(self) -> None:
        self.table.environment.close()
        self.folder.cleanup()

    def living(self, session: bytes) -> dict[str, Any] | None:
        found = self.model.get(session)
        return found if found and self.table.now_ms < found["used"] + found["ttl"] else None

    @rule(session=st.sampled_from([A, B]), ttl=st.sampled_from([100, TTL_MS]))
    def open(self, session: bytes, ttl: int) -> None:
        self.table.open(session, ttl)
        found = self.living(session)
        if found:
            found["used"] = self.table.now_ms
        else:
            self.model[session] = {"used": self.table.now_ms, "ttl": ttl, "lowest": 0, "results": {}}

    @precondition(lambda self: self.model)
    @rule(session=st.sampled_from([A, B]), sequence=st.integers(1, 12), back=st.integers(0, 6), size=st.integers(0, 9))
    def write(self, session: bytes, sequence: int, back: int, size: int) -> None:
        lowest, result, found = max(sequence - back, 1), b"r" * size, self.living(session)
        if found is None:
            with pytest.raises(SessionExpired):
                self.table.write(session, sequence, lowest, result)
            return
        answer = self.table.write(session, sequence, lowest, result)
        if sequence < found["lowest"]:
            assert answer is Verdict.FORGOTTEN
        elif sequence in found["results"]:
            assert answer == found["results"][sequence]
        else:
            assert answer == result
            found["used"] = self.table.now_ms
            found["lowest"] = max(found["lowest"], lowest)
            found["results"][sequence] = result
            found["results"] = {n: kept for n, kept in found["results"].items() if n >= found["lowest"]}

    @rule(milliseconds=st.sampled_from([1, 50, 99, 100, 999, 1_000]))
    def pass_time(self, milliseconds: int) -> None:
        self.table.now_ms += milliseconds

    @rule(session=st.sampled_from([A, B]))
    def close(self, session: bytes) -> None:
        assert self.table.close(session) is (self.model.pop(session, None) is not None)

    @rule()
    def sweep(self) -> None:
        ended, more = self.table.sweep(10)
        over = [session for session in self.model if not self.living(session)]
        assert (ended, more) == (len(over), False)
        for session in over:
            del self.model[session]

    @invariant()
    def nothing_else_is_stored(self) -> None:
        assert self.table.count() == len(self.model)
        for session in (A, B):
            found, head = self.model.get(session), self.table.head(session)
            assert (found is None) is (head is None)
            assert self.table.results(session) == sorted(found["results"] if found else [])
            if found and head:
                assert (head.results, head.lowest) == (len(found["results"]), found["lowest"])
                assert head.result_bytes == sum(map(len, found["results"].values()))
        entries = [key for key, _ in self.table.dump() if key.startswith(b"e")]
        assert len(entries) == len(self.model), "one entry of the index each"


TestSessions = SessionMachine.TestCase
TestSessions.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)

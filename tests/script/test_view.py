"""A script's view of the store, beside a real write transaction: the same operations, the same answers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_keyspace.exceptions import KeyspaceError
from django_keyspace.store import Store
from django_keyspace.store.apply import apply
from django_keyspace.store.context import WriteContext
from django_keyspace.store.scripting.view import ViewTransaction

KEYS = st.sampled_from([b"a", b"ab", b"abc", b"b", b"ba", b"c", b"\xff", b"\xff\xff"])
PREFIXES = st.sampled_from([b"", b"a", b"ab", b"b", b"\xff", b"z"])
VALUES = st.sampled_from([(2, 4, b"text"), (3, 0, b"7"), (4, 4, b"1.5"), (1, 0, b"\xff")])
EXPIRES = st.sampled_from([None, "keep", 0, 1000, ("at", 5), ("at", 2**45)])
CALLS = st.one_of(
    st.tuples(st.just("set"), st.just(0), KEYS, VALUES, EXPIRES, st.sampled_from(["always", "absent", "present"])),
    st.tuples(st.just("set_many"), st.just(0), st.lists(st.tuples(KEYS, VALUES), max_size=4), EXPIRES),
    st.tuples(st.just("delete"), st.just(0), KEYS),
    st.tuples(st.just("delete_many"), st.just(0), st.lists(KEYS, max_size=4)),
    st.tuples(st.just("remove"), st.just(0), KEYS),
    st.tuples(st.just("rename"), st.just(0), KEYS, KEYS),
    st.tuples(st.just("touch"), st.just(0), KEYS, EXPIRES),
    st.tuples(st.just("incr"), st.just(0), KEYS, st.just(3), st.sampled_from([None, 0]), st.just(None), st.just(0)),
    st.tuples(st.just("append"), st.just(0), KEYS, st.just((2, 4, b"+")), st.just(None)),
    st.tuples(st.just("prune"), st.just(0), PREFIXES),
    st.tuples(st.just("get"), st.just(0), KEYS),
    st.tuples(st.just("get_many"), st.just(0), st.lists(KEYS, max_size=4)),
    st.tuples(st.just("ttl"), st.just(0), KEYS),
    st.tuples(
        st.just("list"), st.just(0), PREFIXES, st.one_of(st.just(b""), KEYS), st.sampled_from([True, False, "after"]),
        st.booleans(), st.sampled_from([1, 2, 1000]), st.just(True),
    ),
    st.tuples(
        st.just("count"), st.just(0), PREFIXES, st.one_of(st.just(b""), KEYS), st.sampled_from([True, False]),
        st.booleans(), st.sampled_from([0, 2]),
    ),
)  # fmt: skip


def answer(context: WriteContext, call: Any) -> Any:
    try:
        return apply(context, call)
    except KeyspaceError as error:
        return type(error)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.lists(CALLS, max_size=12), within=st.lists(CALLS, max_size=25))
def test_the_same_as_a_write_transaction(store: Store, before: list[Any], within: list[Any]) -> None:
    store.write("clear", 0, True)
    store.write_many(before)
    with store.snapshot() as snapshot:
        environment = snapshot.environment
        view = ViewTransaction(snapshot.txn, environment.databases[0])
        seen = WriteContext(view, environment, snapshot.now_ms, 10**6)
        with environment.begin(write=True) as txn:
            real = WriteContext(txn, environment, snapshot.now_ms, 10**6)
            for call in within:
                assert answer(seen, call) == answer(real, call), call
            for handle in environment.databases[0], environment.deadlines:
                assert view.stat(handle)["entries"] == txn.stat(handle)["entries"]
            txn.abort()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.lists(CALLS, max_size=12), within=st.lists(CALLS, max_size=8), between=st.lists(CALLS, max_size=2))
def test_conditions_hold_unless_an_answer_would_have_been_another(
    store: Store, before: list[Any], within: list[Any], between: list[Any]
) -> None:
    """What was read is the same as long as the conditions hold, and they hold as long as nothing was written."""
    store.write("clear", 0, True)
    store.write_many(before)
    with store.snapshot() as snapshot:
        view = ViewTransaction(snapshot.txn, snapshot.environment.databases[0])
        seen = WriteContext(view, snapshot.environment, snapshot.now_ms, 10**6)
        answers = [answer(seen, call) for call in within]
        conditions = view.conditions(snapshot.environment, 0, snapshot.now_ms)
        now_ms = snapshot.now_ms
    assert store.write("atomic", conditions, []) == (True, [])
    store.write_many(between)
    if store.write("atomic", conditions, [])[0]:
        with store.snapshot() as snapshot:
            view = ViewTransaction(snapshot.txn, snapshot.environment.databases[0])
            seen = WriteContext(view, snapshot.environment, now_ms, 10**6)
            assert [answer(seen, call) for call in within] == answers


@pytest.mark.parametrize("forward", [True, False])
def test_a_range_that_was_read_must_not_change(store: Store, forward: bool) -> None:
    value = (2, 0, b"x")
    for key in (b"b", b"d", b"f"):
        store.write("set", 0, key, value, None, "always")

    def conditions() -> list[Any]:
        with store.snapshot() as snapshot:
            view = ViewTransaction(snapshot.txn, snapshot.environment.databases[0])
            seen = WriteContext(view, snapshot.environment, snapshot.now_ms, 1)
            start = b"b" if forward else b"d"
            rows, _ = apply(seen, ("list", 0, b"", start, False, forward, 2, False))
            assert sorted(rows) == [b"b", b"d"]
            return view.conditions(snapshot.environment, 0, snapshot.now_ms)

    for call, holds in (
        (("set", 0, b"z", value, None, "always"), True),
        (("set", 0, b"c", value, None, "always"), False),
        (("delete", 0, b"c"), False),
        (("set", 0, b"b", value, None, "always"), False),
    ):
        before = conditions() if call[0] != "delete" else None
        if before is None:
            with store.snapshot() as snapshot:
                view = ViewTransaction(snapshot.txn, snapshot.environment.databases[0])
                seen = WriteContext(view, snapshot.environment, snapshot.now_ms, 1)
                apply(seen, ("list", 0, b"b", b"", False, forward, 9, False))
                apply(seen, ("list", 0, b"c", b"", False, forward, 9, False))
                before = view.conditions(snapshot.environment, 0, snapshot.now_ms)
        store.write(*call)
        assert store.write("atomic", before, [])[0] is holds, call


def test_a_blind_write_is_overtaken_by_nobody(store: Store) -> None:
    with store.snapshot() as snapshot:
        view = ViewTransaction(snapshot.txn, snapshot.environment.databases[0])
        view.is_watching = False
        seen = WriteContext(view, snapshot.environment, snapshot.now_ms, 1)
        apply(seen, ("set", 0, b"k", (2, 0, b"x"), None, "always"))
        assert view.conditions(snapshot.environment, 0, snapshot.now_ms) == []

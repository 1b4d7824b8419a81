"""Hypothesis: random programs on a client and on the model, which must answer alike and leave the same behind."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_keyspace.keyspace import Client
from tests.contract.engines import Place
from tests.keyspace.expectations import rows
from tests.keyspace.model import FAR_S, Model

pytestmark = pytest.mark.contract

keys = st.sampled_from(["a", "aa", "ab", "b", "ba", "ä", "\x00", "a\x00", "zz"])
values = st.sampled_from(["", "0", "7", "-5", "007", "-", "text", "+1", "ä", str(2**63 - 1), "9" * 25])
numbers = st.sampled_from([0, 1, -1, 40, 2**63 - 1, -(2**63)])
prefixes = st.sampled_from(["", "a", "aa", "ä", "b", "z", "nothing"])
starts = st.sampled_from(["", "a", "aa", "aab", "b", "ä", "zzz"])
expiries = st.sampled_from([FAR_S, FAR_S, 0, -1])
listing = (prefixes, starts, st.sampled_from([0, 0, 1, 2, 9]), st.booleans(), st.booleans())


def call(name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(st.just(name), *arguments)


writes = st.one_of(
    call("set", keys, values),
    call("set", keys, values),
    call("test_and_set", keys, values, values),
    call("rename", keys, keys),
    call("add", keys, numbers),
    call("delete", keys),
    call("remove", keys),
    call("prune", prefixes),
    call("set_expiry", keys, expiries),
    call("remove_expiry", keys),
    call("clear_expiries"),
)
gets = call("get", keys)
single = st.one_of(
    writes, writes, gets, call("dirty_get", keys), call("list_keys", *listing), call("list_key_values", *listing),
    call("count", *listing),
)  # fmt: skip
batches = st.one_of(
    st.tuples(st.sampled_from(["submit", "submit", "cancel"]), st.lists(writes, max_size=12)),
    st.tuples(st.just("submit"), st.lists(gets, max_size=6)),
)
programs = st.lists(st.one_of(single, single, batches), max_size=30)


def value_in_a_batch(name: str, returned: Any) -> Any:
    """What a batch shows as the value of a command that would return this by itself."""
    if returned is None:
        return None
    return str(returned) if name in ("add", "remove", "test_and_set", "get") else ""


def run_batch(client: Client, model: Model, end: str, commands: list[tuple[Any, ...]]) -> None:
    assert client.begin() == 0
    for name, *arguments in commands:
        assert getattr(client, name)(*arguments) is None
        assert client.begin() == -1  # refused, and the batch goes on
    if end == "cancel":
        assert client.cancel() == 0
        return
    assert client.submit() == 0
    wanted = []
    for name, *arguments in commands:
        value = value_in_a_batch(name, getattr(model, name)(*arguments))
        wanted.append((arguments[0] if arguments else "", value, -402 if value is None else 0))
    assert rows(client) == wanted


@given(program=programs)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_client_and_model_answer_alike(program: list[Any], place: Place) -> None:
    client, model = place.keyspace_client(), Model()
    client.prune("")
    client.clear_expiries()
    for name, *arguments in program:
        if name in ("submit", "cancel"):
            run_batch(client, model, name, *arguments)
        else:
            answer, wanted = getattr(client, name)(*arguments), getattr(model, name)(*arguments)
            assert answer == wanted, (name, arguments)
            assert type(answer) is type(wanted)
    assert client.list_key_values() == model.values
    for key, value in model.values.items():
        assert client.get(key) == value
        left_ms = place.engine.execute("ttl", 0, key.encode())
        assert (left_ms > 0) if key in model.expiries else (left_ms == -1), key
    # An expiry hangs on the name whether or not the key is there: make the others, and look.
    for key in model.expiries - set(model.values):
        client.set(key, "made")
        assert place.engine.execute("ttl", 0, key.encode()) > 0

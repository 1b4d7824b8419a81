"""Many processes write the same keys at once, and nothing is lost or done twice."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

from django_keyspace.store import forget_store, open_store
from django_keyspace.store.record import payload_of

pytestmark = pytest.mark.stress

PROCESSES = 8
TIMES = 2500
KEYS = 4


@pytest.fixture
def store(folder):
    """The store, in this process too."""
    store = open_store(folder)
    yield store
    forget_store(store)


def test_8_processes_count_and_append_20000_times_each_with_exact_totals(fleet, store, folder):
    # Two of the eight work from an event loop.
    for key in range(KEYS):
        store.write("set", 0, f":1:counter{key}".encode(), (3, 0, b"0"), None, "always")
    actors = [
        fleet.start(
            "counting.acount" if n >= 6 else "counting.count", folder=folder, name="abcdefgh"[n], times=TIMES, keys=KEYS
        )
        for n in range(PROCESSES)
    ]
    for actor in actors:
        assert actor.hear() == "ready"
    for actor in actors:
        actor.tell("go")
    for actor in actors:
        assert actor.result(90) == "done"

    counters = [int(payload_of(store.read("get", 0, f":1:counter{key}".encode()))) for key in range(KEYS)]
    assert counters == [PROCESSES * TIMES // KEYS] * KEYS
    assert sum(counters) == 20_000

    appended = 0
    for key in range(KEYS):
        seen = defaultdict(list)
        text = payload_of(store.read("get", 0, f":1:text{key}".encode())).decode()
        for word in text.split(";")[:-1]:
            seen[word[0]].append(int(word[1:]))
            appended += 1
        assert sorted(seen) == list("abcdefgh")
        for numbers in seen.values():
            assert numbers == list(range(key, TIMES, KEYS))  # each once, and in the order of its process
    assert appended == 20_000


def test_64_processes_open_a_new_store_at_once_and_one_creates_it(fleet, store, folder):
    actors = [fleet.start("counting.open_new", folder=folder, times=8) for _ in range(8)]
    for actor in actors:
        assert actor.hear() == "ready"
    assert not Path(folder).exists()
    for actor in actors:
        actor.tell("go")
    told = [actor.result() for actor in actors]

    assert [each["codes"] for each in told] == [[0] * 8] * 8
    assert sum(each["made"] for each in told) == 1
    state = json.loads((Path(folder) / "keyspace.json").read_text())
    store_ids = [store_id for each in told for store_id in each["store_ids"]]
    assert store_ids == [state["store_id"]] * 64
    assert payload_of(store.read("get", 0, b"opened")) == b"64"
    assert store.read("count", 0, b"pid", b"", False, True, 0)[0] == 64

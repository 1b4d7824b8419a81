"""Writers are killed in mid-write, again and again: the store opens, and nothing that was acknowledged is missing."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.stress


@pytest.mark.parametrize(("durability", "kills"), [("interval", 100), ("none", 60), ("commit", 60)])
def test_kills_in_mid_write_lose_nothing_acknowledged(fleet, folder, durability, kills, record_property):
    told = fleet.run(
        "killing.kill_writers",
        timeout_s=90,
        folder=folder,
        durability=durability,
        kills=kills,
        verify_every=20,
        seed=kills,
    )
    for name in ("kills", "verified", "writes", "seconds"):
        record_property(name, told[name])

    assert told["wrong"] == []
    assert told["slots"] == []  # the one who looked had no transaction, and the dead ones' slots are free
    assert told["kills"] >= kills
    assert told["verified"] >= kills // 20
    assert told["writes"] > kills  # they did die while they were writing
    assert set(told["left"]) <= {"data.mdb", "lock.mdb", "keyspace.lock", "keyspace.json", "keyspace.json.new"}

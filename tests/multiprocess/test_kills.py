"""Writers are killed in mid-write, again and again: the store opens, and nothing that was acknowledged is missing."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from django_keyspace.backend import KeyspaceCache
from django_keyspace.exceptions import DamagedStore


@pytest.mark.stress
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


@pytest.mark.parametrize("moment", ["before the file", "before the databases", "after the databases", "in the file"])
def test_kill_while_a_store_is_created_leaves_one_that_opens(fleet, folder, moment):
    maker = fleet.start("storing.die_while_creating", folder=folder, moment=moment.replace("in the", "before the"))
    assert maker.hear() == "now"
    assert maker.process.wait(20) == -signal.SIGKILL
    if moment == "in the file":
        (Path(folder) / "data.mdb").write_bytes(b"")

    told = fleet.run("storing.open_after_boot", folder=folder, boot_id="", options={})
    assert told == {"told": ["None", "True", "1"], "logged": []}
    again = fleet.run("storing.open_after_boot", folder=folder, boot_id="", options={})
    assert again == told
    assert not list(Path(folder).glob("*.damaged"))


def test_damage_is_no_reason_to_drop_records_that_another_process_has_stored(fleet, folder):
    cache = KeyspaceCache(folder, {"TIMEOUT": None})
    cache.set("key", "value")  # this process knows of evictable records only
    assert fleet.run("storing.write_unsynced", folder=folder, options={"evictable": False}) == "written"
    with pytest.raises(DamagedStore, match="must not be dropped"):
        cache._runtime.engine.store.folder.set_aside("as if")
    assert cache.get("key") == "value"
    cache.shutdown()

"""The map grows, the data file goes or changes, the power fails, two containers share a folder: under processes at work."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from time import monotonic, sleep

import pytest

from django_keyspace.backend import KeyspaceCache

MIB = 1 << 20


@pytest.mark.stress
def test_map_grows_by_one_process_while_others_read_and_write(fleet, folder):
    options = {"map_bytes": MIB, "max_bytes": 64 * MIB, "value_bytes_max": MIB}
    grower = fleet.start("storing.use_while_growing", folder=folder, writes=200, options=options)
    assert grower.hear() == "ready"
    others = [fleet.start("storing.use_while_growing", folder=folder, writes=0, options=options) for _ in range(3)]
    for actor in others:
        assert actor.hear() == "ready"
    for actor in (grower, *others):
        actor.tell("go")
    for actor in (grower, *others):
        assert actor.hear() == "written"
    for actor in (grower, *others):
        actor.tell("end")
    told = [actor.result() for actor in (grower, *others)]

    assert [each["troubles"] for each in told] == [[]] * 4
    assert [each["big"] for each in told] == [200] * 4
    for each in told:
        assert each["maps"][0] == MIB
        assert each["maps"][1] == told[0]["maps"][1] >= 10 * MIB
        assert each["counts"] > 0
    cache = KeyspaceCache(folder, {"OPTIONS": options})
    assert cache.get("counted") == sum(each["counts"] for each in told)
    cache.shutdown()


def _ask_until(actor, wanted: object, seconds: float = 15) -> None:
    deadline = monotonic() + seconds
    while True:
        actor.tell("marker")
        if (seen := actor.hear()) == wanted:
            return
        assert monotonic() < deadline, f"still {seen!r}"
        sleep(0.05)


@pytest.mark.stress
@pytest.mark.parametrize("how", ["deleted", "replaced", "folder deleted"])
def test_processes_go_over_to_another_data_file_within_seconds(fleet, folder, tmp_path, how):
    other = KeyspaceCache(str(tmp_path / "other"), {"TIMEOUT": None})
    other.set("marker", "new")
    other.shutdown()
    here = KeyspaceCache(folder, {"TIMEOUT": None})
    here.set("marker", "old")
    here.shutdown()
    actors = [
        fleet.start("storing.use_while_replaced", folder=folder, writing=writing) for writing in (True, True, False)
    ]
    for actor in actors:
        assert actor.hear() == "ready"
        _ask_until(actor, "old")

    data = Path(folder) / "data.mdb"
    if how == "replaced":
        (Path(folder) / "lock.mdb").unlink()  # it goes with the data file
        os.replace(tmp_path / "other" / "data.mdb", data)
    elif how == "deleted":
        data.unlink()
    else:
        shutil.rmtree(folder)
    for actor in actors:
        _ask_until(actor, "new" if how == "replaced" else None)
    here.set("marker", "newest")
    for actor in actors:
        _ask_until(actor, "newest")
    for actor in actors:
        actor.tell("end")
    for actor in actors:
        told = actor.result()
        assert any("was replaced or deleted" in line for line in told["logged"])
        assert not [line for line in told["logged"] if "damaged" in line]
        if how != "folder deleted":
            assert told["troubles"] == []
    assert here.get("marker") == "newest"
    here.shutdown()


@pytest.mark.parametrize("durability", ["interval", "none"])
def test_power_cut_with_unsynced_writes_empties_a_cache_and_says_so(fleet, folder, durability):
    options = {"durability": durability}
    assert fleet.run("storing.write_unsynced", folder=folder, options=options) == "written"

    same_boot = fleet.run("storing.open_after_boot", folder=folder, boot_id="", options=options)
    assert same_boot == {"told": ["value", "True", "1"], "logged": []}

    assert fleet.run("storing.write_unsynced", folder=folder, options=options) == "written"
    told = fleet.run("storing.open_after_boot", folder=folder, boot_id="another", options=options)
    assert told["told"] == ["None", "True", "1"]
    (line,) = told["logged"]
    assert "unsynced writes: it starts empty" in line and folder in line


def test_power_cut_after_a_clean_end_or_with_commit_durability_keeps_everything(fleet, folder, tmp_path):
    cache = KeyspaceCache(folder, {"TIMEOUT": None})
    cache.set("key", "value")
    cache.shutdown()
    told = fleet.run("storing.open_after_boot", folder=folder, boot_id="another", options={})
    assert told == {"told": ["value", "True", "1"], "logged": []}

    durable = str(tmp_path / "durable")
    assert fleet.run("storing.write_unsynced", folder=durable, options={"durability": "commit"}) == "written"
    options = {"durability": "commit"}
    told = fleet.run("storing.open_after_boot", folder=durable, boot_id="another", options=options)
    assert told == {"told": ["value", "True", "1"], "logged": []}


def test_power_cut_with_kept_records_refuses_and_touches_nothing(fleet, folder):
    options = {"evictable": False}
    assert fleet.run("storing.write_unsynced", folder=folder, options=options) == "written"
    before = (Path(folder) / "data.mdb").read_bytes()

    told = fleet.run("storing.open_after_boot", folder=folder, boot_id="another", options=options)
    assert [outcome.split(":")[0] for outcome in told["told"]] == ["UncleanStore"] * 3
    assert "Restore the folder from a backup" in told["told"][0]
    assert (Path(folder) / "data.mdb").read_bytes() == before


def _can_unshare() -> bool:
    command = ["unshare", "--pid", "--fork", "--kill-child", "true"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not _can_unshare(), reason="process id namespaces may not be made here")
def test_two_process_id_namespaces_get_the_sentence_about_containers(fleet, folder):
    prefix = ("unshare", "--pid", "--fork", "--kill-child")
    first = fleet.start("storing.first_process_of_a_namespace", prefix=prefix, folder=folder)
    assert first.hear() == [1, "True"]
    second = fleet.start("storing.first_process_of_a_namespace", prefix=prefix, folder=folder)
    pid, outcome = second.result()
    assert pid == 1
    assert outcome.startswith("StorageError: Two processes with the same process id use ")
    assert "Give each container its own folder" in outcome
    first.tell("end")
    first.end()

"""Trouble for real nodes, the short form: fixed seeds, the faults that matter most. ``python -m tests.cluster`` has more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.history import Event
from tests.sim.model import pack_record

from .nemesis.disks import why_no_hanging_disks, why_no_small_disks
from .nemesis.faults import NEED_CUTS, NEED_DISKS
from .nemesis.namespaces import why_no_namespaces
from .nemesis.place import running_place
from .nemesis.run import ROOT, run
from .nemesis.verify import Broken, check_once, check_totals

FAULTS = (
    "kill_leader", "freeze_leader", "cut_off_leader_from_all", "deafen_leader", "kill_all", "restart_each", "wipe_follower",
)  # fmt: skip


def trouble(folder: Path, seed: int, faults: tuple[str, ...], disks: str = "") -> None:
    with running_place(folder, disks=disks, net="plain" if set(faults).isdisjoint(NEED_CUTS) else "proxy") as place:
        try:
            result = run(place, seed, faults, folder)
        except BaseException:
            for name, node in place.nodes.items():
                print(f"--- {name}\n{node.errors()[-4000:]}")
            raise
    print("\n".join(result.lines()))
    assert set(result.faults) == set(faults)
    assert result.patient["ok"] > 10 * len(faults)
    assert not result.errors  # whoever waits long enough is always answered
    assert result.checked.verdict == "right"


def skip_for(reason: str | None) -> None:
    """Not before the test runs: finding out takes a moment."""
    if reason is not None:
        pytest.skip(reason)


@pytest.mark.timeout(300)
def test_no_trouble_shows_in_an_answer(tmp_path: Path) -> None:
    trouble(tmp_path, 1, FAULTS)


@pytest.mark.timeout(300)
def test_full_disks_show_in_no_answer(tmp_path: Path) -> None:
    skip_for(why_no_small_disks())
    trouble(tmp_path, 2, NEED_DISKS, "small")


@pytest.mark.timeout(300)
def test_hanging_disks_show_in_no_answer(tmp_path: Path) -> None:
    skip_for(why_no_hanging_disks())
    trouble(
        tmp_path,
        3,
        ("hang_disk_of_leader", "hang_disk_of_follower", "slow_disk_of_leader", "freeze_files_of_leader"),
        "hanging",
    )


@pytest.mark.timeout(300)
def test_lost_packets_show_in_no_answer() -> None:
    """In a process that has a network of its own."""
    skip_for(why_no_namespaces())
    faults = "cut_off_leader_from_all,deafen_leader,mute_leader,cut_one_pair,unplug_leader"
    command = [sys.executable, "-m", "tests.cluster", "--minutes", "0", "--seed", "4", "--nodes", "3"]
    done = subprocess.run(
        [*command, "--net", "namespaces", "--faults", faults], cwd=ROOT, capture_output=True, text=True, check=False
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert "net namespaces" in done.stdout
    assert done.stdout.rstrip().endswith(": right")


# --- That it would notice ---------------------------------------------------------------------------------------------


class Records:
    """An engine that has some records."""

    def __init__(self, records: dict[bytes, bytes]) -> None:
        self.records = records

    def execute(self, name: str, database: int, keys: bytes | list[bytes]) -> object:
        return self.records.get(keys) if isinstance(keys, bytes) else [self.records.get(key) for key in keys]


def once(value: bytes, outcome: str = "ok") -> Event:
    return Event("c", 1, ("set", 0, b"once:" + value, (2, 0, value), None, "always"), 1, 2, outcome, True)


def count(delta: int, outcome: str = "ok") -> Event:
    return Event("c", 1, ("incr", 0, b"total:0", delta, 0, None, 0), 1, 2, outcome, 1)


def test_a_missing_write_is_noticed() -> None:
    engine = Records({b"once:a": pack_record((2, 0, b"a"))})
    check_once(engine, [once(b"a"), once(b"b", "unknown"), once(b"c", "refused")])
    with pytest.raises(Broken, match=r"once:b.*was acknowledged, and is missing"):
        check_once(engine, [once(b"a"), once(b"b")])
    engine.records[b"once:b"] = pack_record((2, 0, b"a"))
    with pytest.raises(Broken, match="once:b' holds"):
        check_once(engine, [once(b"b")])


@pytest.mark.parametrize("found", [b"1", b"5", b"6"])
def test_an_increment_too_few_or_too_many_is_noticed(found: bytes) -> None:
    events = [count(1), count(1), count(2, "unknown"), count(100, "refused")]
    for right in (b"2", b"3", b"4"):
        check_totals(Records({b"total:0": pack_record((3, 0, right))}), events)
    with pytest.raises(Broken, match="must be from 2 to 4"):
        check_totals(Records({b"total:0": pack_record((3, 0, found))}), events)

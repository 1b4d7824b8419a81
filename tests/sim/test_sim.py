"""Fixed seeds of the simulated cluster, each kind of fault among them; the same seed, the same trace; the simulator's parts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.sim import network
from tests.sim.profiles import PROFILES
from tests.sim.run import KINDS, Outcome, Totals, run_many, run_seed
from tests.sim.world import Life, Violated, World

CHUNK = 6
CHUNKS = 6
"""So many times so many seeds, of all profiles."""
RICH_SEEDS = range(1000, 1080)
"""Seeds of the full mix. About thirty of them have every kind of fault; a change of the package may make it a few more."""


def complain(outcome: Outcome) -> None:
    if outcome.failure:
        pytest.fail(f"python -m tests.sim --seed {outcome.seed}\n{outcome.failure}", pytrace=False)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_seeds(chunk: int) -> None:
    run_many(range(chunk * CHUNK, (chunk + 1) * CHUNK), tell=complain)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_kind_of_fault_happens() -> None:
    totals = Totals()
    for seed in RICH_SEEDS:
        outcome = run_seed(seed, "everything")
        complain(outcome)
        totals.add(outcome)
        if not totals.missing:
            break
    assert totals.missing == []
    assert totals.counts["undecided"] == 0


@pytest.mark.timeout(300)
def test_the_same_seed_gives_the_same_trace() -> None:
    """In two processes with different hash seeds, and whether or not anybody reads the trace."""
    found = set()
    for hash_seed, option in (("1", "--quiet"), ("2", "--to=0.1")):
        command = [sys.executable, "-m", "tests.sim", "--seed", "7", "--profile", "everything", option]
        run = subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stdout + run.stderr
        found.add(run.stdout.splitlines()[-1].rpartition(" digest ")[2])
    assert len(found) == 1
    assert run_seed(8, "everything").digest == run_seed(8, "everything").digest
    assert f"{run_seed(7, 'everything').digest:08x}" in found


def test_a_run_says_what_never_happened() -> None:
    totals = Totals()
    totals.add(Outcome(1, "calm", Counter({"loss": 2}), 3_600_000_000, 10, 0, 0.5))
    assert "loss" not in totals.missing
    assert set(totals.missing) == set(KINDS) - {"loss"}
    lines = list(totals.lines())
    assert lines[0].startswith("1 seeds, 1.0 virtual hours, 10 operations of clients")
    assert lines[-1].startswith("Never happened: fault:all_down")


def test_there_is_a_way_to_do_each_fault() -> None:
    from tests.sim.faults import Spirit

    for _, profile in PROFILES:
        for name in profile.faults:
            assert callable(getattr(Spirit, name))


# --- The parts --------------------------------------------------------------------------------------------------------


def test_things_happen_in_order_and_those_of_the_dead_do_not() -> None:
    world, seen = World(1), []
    life = Life("n1", lambda: None)
    world.at(20, None, seen.append, "c")
    world.at(10, None, seen.append, "a")
    world.at(10, None, seen.append, "b")
    world.at(15, life, seen.append, "of the dead")
    world.at(16, None, seen.append, "cancelled").cancel()
    life.dead = True
    world.run_until(30)
    assert seen == ["a", "b", "c"]
    assert world.now_us == 30


def test_what_comes_while_a_process_is_stopped_waits_for_it() -> None:
    world, seen = World(1), []
    life = Life("n1", lambda: None)
    life.paused = True
    world.at(5, life, seen.append, "a")
    world.at(6, life, seen.append, "b")
    world.run_until(10)
    assert seen == []
    world.wake(life, lambda events: events[::-1])
    world.run_until(10)
    assert seen == ["b", "a"]


def test_sources_of_chance_are_told_apart_by_name() -> None:
    world = World(5)
    assert world.random("a").random() == World(5).random("a").random() != world.random("b").random()


def test_a_frame_that_is_not_plain_is_noticed() -> None:
    world = World(1)
    net = network.Network(world, lambda *arguments: None)
    net.send("n1", "n1.a", "n2", "n2.a", ("raft", ["a list arrives as a tuple"]))
    with pytest.raises(Violated, match="plain values"):
        world.run_until(1_000_000)


def test_links_lose_double_and_delay() -> None:
    world, arrived = World(3), []
    net = network.Network(world, lambda *frame: arrived.append(frame[-1][0]))
    net.weather = network.Weather(loss=0.2, duplicate=0.2, reorder=1.0, spike=0.1)
    for number in range(300):
        net.send("n1", "n1.a", "n2", "n2.a", (number,))
        world.run_until(world.now_us + 200)
    world.run_until(world.now_us + 10_000_000)
    assert len(set(arrived)) == 300 - world.counts["loss"]
    assert len(arrived) == len(set(arrived)) + world.counts["duplicate"]
    assert arrived != sorted(arrived)
    assert world.counts["reorder"] and world.counts["spike"]


def test_a_cut_link_carries_nothing() -> None:
    world, arrived = World(3), []
    net = network.Network(world, lambda *frame: arrived.append(frame[-1][0]))
    net.send("n1", "n1.a", "n2", "n2.a", (1,))  # under way when the link is cut
    net.cut.add(("n1", "n2"))
    net.send("n1", "n1.a", "n2", "n2.a", (2,))
    net.send("n2", "n2.a", "n1", "n1.a", (3,))
    world.run_until(10_000_000)
    assert arrived == [3]
    assert (world.counts["lost_in_flight"], world.counts["cut_frame"]) == (1, 1)

"""Tasks, threads and the bridges between them, on one embedded store."""

from __future__ import annotations

import pytest


def test_gathered_tasks_keep_their_own_last_status(fleet, folder):
    told = fleet.run("tasks.gathered_tasks", folder=folder)

    assert told == [f"{number} SUCCESS" if number % 2 else "None FAILED" for number in range(100)]


def test_a_thousand_bridged_calls_leak_no_descriptor_and_no_thread(fleet, folder):
    told = fleet.run("tasks.bridge", folder=folder, times=1000)

    for before, after in zip(told["before"], told["after"], strict=True):
        assert after <= before + 1  # the loop of the last call may still be on its way out
    assert told["pending"] <= 1


@pytest.mark.stress
def test_threads_and_event_loops_count_together_exactly(fleet, folder):
    told = fleet.run("tasks.mix", folder=folder, threads=4, tasks=25, times=20)

    assert told["troubles"] == []
    assert told["counted"] == told["expected"] == 4 * 20 * 26

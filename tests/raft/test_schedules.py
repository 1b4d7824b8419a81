"""Random schedules, some fixed and some of the day; see :mod:`.schedules` for what they do and :mod:`.cluster` for what holds."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .schedules import Schedule

SEEDS = range(30)
FOUND = {
    2209: "a lone voter elected itself while the leader that had left it alone still had a lease",
}
"""Seeds that found something, once."""


def test_rule_50_fixed_seeds_and_every_kind_of_fault() -> None:
    counts: Counter[str] = Counter()
    for seed in SEEDS:
        counts += Schedule(seed).run()
    schedule = Schedule(0)
    missing = {act.__name__ for _, act in schedule.actions} - set(counts)
    assert not missing, f"never happened: {missing}"


@pytest.mark.parametrize("seed", FOUND)
def test_seeds_that_found_something(seed: int) -> None:
    Schedule(seed).run()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(1_000, 10_000_000), steps=st.integers(50, 600), pre_vote=st.booleans())
def test_chosen_schedules(seed: int, steps: int, pre_vote: bool) -> None:
    Schedule(seed, steps, pre_vote=pre_vote).run()

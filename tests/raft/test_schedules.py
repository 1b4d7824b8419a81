"""Random schedules, some fixed and some of the day; see :mod:`.schedules` for what they do and :mod:`.cluster` for what holds."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .schedules import Schedule

SEEDS = range(30)


def test_rule_50_fixed_seeds_and_every_kind_of_fault() -> None:
    counts: Counter[str] = Counter()
    for seed in SEEDS:
        counts += Schedule(seed).run()
    schedule = Schedule(0)
    missing = {act.__name__ for _, act in schedule.actions} - set(counts)
    assert not missing, f"never happened: {missing}"


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(1_000, 10_000_000), steps=st.integers(50, 600), pre_vote=st.booleans())
def test_chosen_schedules(seed: int, steps: int, pre_vote: bool) -> None:
    Schedule(seed, steps, pre_vote=pre_vote).run()

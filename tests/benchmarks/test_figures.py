"""The benchmarks' medians, ratios and ties."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import figures

numbers = st.floats(min_value=0.001, max_value=1e6, allow_nan=False)


def test_percentile_interpolates_between_neighbours() -> None:
    assert figures.percentile([10.0, 20.0], 0.25) == 12.5
    assert figures.percentile([3.0], 0.99) == 3.0
    assert figures.percentile(range(101), 0.99) == 99


@given(st.lists(numbers, min_size=1))
def test_median_agrees_with_the_standard_library(values: list[float]) -> None:
    assert figures.median(values) == pytest.approx(statistics.median(values))


@given(st.lists(numbers, min_size=1), st.floats(min_value=0, max_value=1), st.floats(min_value=0, max_value=1))
def test_percentiles_lie_within_the_values_and_rise(values: list[float], one: float, other: float) -> None:
    low, high = sorted([figures.percentile(values, one), figures.percentile(values, other)])
    assert min(values) <= low * 1.000001
    assert high <= max(values) * 1.000001
    if one < other:
        assert figures.percentile(values, one) <= figures.percentile(values, other) * 1.000001


@pytest.mark.parametrize(("values", "fraction"), [([], 0.5), ([1.0], 1.5), ([1.0], -0.1)])
def test_percentile_refuses_what_it_cannot_answer(values: list[float], fraction: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        figures.percentile(values, fraction)


def test_a_round_with_many_samples_counts_no_more_than_another() -> None:
    summary = figures.summarize([[1.0] * 1_000, [5.0], [6.0]])
    assert summary.median == 5.0
    assert summary.sample_count == 1_002
    assert summary.p99 == 1.0  # the tail, in contrast, is one of calls


def test_failed_rounds_are_left_out_and_keep_their_place() -> None:
    summary = figures.summarize([[1.0, 3.0], None, [], [4.0]])
    assert summary.round_medians == (2.0, None, None, 4.0)
    assert summary.median == 3.0


def test_aggregates_have_no_p99() -> None:
    assert figures.summarize([[100.0], [200.0]], with_p99=False).p99 is None


def test_no_sample_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="no round"):
        figures.summarize([None, []])


def test_ratio_is_taken_within_rounds_so_drift_does_not_move_it() -> None:
    dice = random.Random(7)
    drift = [dice.uniform(1.0, 1.7) for _ in range(9)]
    found = figures.ratio([2.0 * speed for speed in drift], [1.0 * speed for speed in drift])
    assert found is not None
    assert found.median == pytest.approx(2.0)
    assert found.high - found.low == pytest.approx(0.0)


def test_ratio_uses_only_rounds_that_both_have() -> None:
    found = figures.ratio([2.0, None, 9.0, 4.0], [1.0, 1.0, None, 1.0])
    assert found is not None
    assert (found.median, found.round_count) == (3.0, 2)
    assert figures.ratio([1.0], [None]) is None
    assert figures.ratio([1.0], [0.0]) is None


@pytest.mark.parametrize(
    ("value", "tie"), [(1.0, True), (1.29, True), (0.78, True), (1.3, False), (1.31, False), (0.76, False)]
)
def test_ties(value: float, tie: bool) -> None:
    assert figures.is_tie(value) is tie


def test_overhead_never_makes_a_sample_negative() -> None:
    assert figures.net_of_overhead([1_060, 40], 60.0) == [1.0, 0.0]

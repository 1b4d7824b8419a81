"""The comparison of a run with the speed budgets."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import budgets, report
from benchmarks.budgets import Budget
from benchmarks.measures import MEASURES_BY_NAME
from benchmarks.peers import PEERS_BY_NAME

GET = Budget("embedded", "get", must=1.0, aim=0.8, to_backend="locmem")
AGETS = Budget("embedded", "agets", must=80_000, aim=150_000, at_least=True)


def a_report(measures: dict[str, dict[str, list[float]]], absent: tuple[str, ...] = ()) -> dict[str, Any]:
    names = {backend for rows in measures.values() for backend in rows}
    return {
        "backends": {name: {"state": "present"} for name in names} | {name: {"state": "absent"} for name in absent},
        "measures": {
            measure: {"results": {backend: {"round_medians": rounds} for backend, rounds in rows.items()}}
            for measure, rows in measures.items()
        },
    }


@pytest.mark.parametrize(
    ("ours", "state", "aim_met"),
    [
        ([3.0, 3.0], "pass", True),
        ([3.6, 3.6], "pass", False),
        ([4.0, 4.0], "pass", False),
        ([4.4, 4.4], "fall-short", False),
    ],
)
def test_relative_budgets(ours: list[float], state: str, aim_met: bool) -> None:
    verdict = budgets.judge(GET, a_report({"get": {"embedded": ours, "locmem": [4.0, 4.0]}}))
    assert (verdict.state, verdict.aim_met) == (state, aim_met)
    assert verdict.failed is (state == "fall-short")
    assert verdict.figure == pytest.approx(ours[0] / 4)


@pytest.mark.parametrize(("rate", "state"), [(79_999.0, "fall-short"), (80_000.0, "pass"), (200_000.0, "pass")])
def test_throughput_budgets_want_more(rate: float, state: str) -> None:
    assert budgets.judge(AGETS, a_report({"agets": {"embedded": [rate]}})).state == state


def test_a_budget_between_two_measures_of_one_backend() -> None:
    budget = Budget("embedded", "set_large_store", 2.0, None, to_backend="embedded", to_measure="set_small_store")
    stores = {"set_small_store": {"embedded": [10.0]}, "set_large_store": {"embedded": [21.0]}}
    verdict = budgets.judge(budget, a_report(stores))
    assert (verdict.state, verdict.figure, verdict.aim_met) == ("fall-short", 2.1, None)


def test_what_should_have_been_measured_and_was_not_fails() -> None:
    verdict = budgets.judge(GET, a_report({"get": {"locmem": [4.0]}}, absent=("embedded",)))
    assert (verdict.state, verdict.failed) == ("unmeasured", True)


@pytest.mark.parametrize(
    "found",
    [
        a_report({"set": {"embedded": [1.0], "locmem": [1.0]}}),
        a_report({"get": {"locmem": [1.0]}}),
        a_report({"get": {"embedded": [1.0]}}),
        a_report({"get": {"embedded": [1.0]}}, absent=("locmem",)),
    ],
    ids=["measure not chosen", "backend not chosen", "reference not chosen", "reference not installed"],
)
def test_what_was_left_out_does_not_fail(found: dict[str, Any]) -> None:
    verdict = budgets.judge(GET, found)
    assert (verdict.state, verdict.failed) == ("left-out", False)


@pytest.mark.parametrize("budget", budgets.TABLES["all"], ids=lambda budget: budget.title)
def test_every_budget_names_a_measure_and_backends_that_exist(budget: Budget) -> None:
    measure = MEASURES_BY_NAME[budget.measure]
    assert budget.backend in PEERS_BY_NAME
    assert budget.to_backend is None or budget.to_backend in PEERS_BY_NAME
    assert budget.to_measure is None or budget.to_measure in MEASURES_BY_NAME
    assert budget.at_least is measure.more_is_better
    if budget.aim is not None:
        assert budget.aim >= budget.must if budget.at_least else budget.aim <= budget.must


def test_the_budget_table_shows_each_row_with_its_verdict() -> None:
    found = a_report({"get": {"embedded": [2.0], "locmem": [4.0]}, "agets": {"embedded": [60_000.0]}})
    shown = report.budget_table(budgets.judge_all([GET, AGETS], found)).splitlines()
    assert any("embedded get / locmem" in line and "0.50x" in line and "pass" in line for line in shown)
    assert any("embedded agets" in line and "60 k" in line and "fall-short" in line for line in shown)


def test_throughputs_are_also_shown_at_the_speed_of_the_reference() -> None:
    found = a_report({"get": {"locmem": [8.6]}, "agets": {"embedded": [60_000.0]}})
    found["measures"]["get"]["results"]["locmem"]["median"] = 8.6
    assert budgets.speed(found) == pytest.approx(0.5)
    shown = report.budget_table(budgets.judge_all([AGETS], found), budgets.speed(found))
    assert "fall-short" in shown
    assert "embedded agets 120 k" in shown
    assert budgets.speed(a_report({})) is None

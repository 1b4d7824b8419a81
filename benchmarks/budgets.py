"""The speed budgets as a table, and the comparison of a run with them.

*Must* is what a release is held to, *aim* is what we are out for. Relative budgets are same-round ratios, so they mean
the same on every machine; absolute ones (operations per second) were set on a machine with two cores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.figures import Ratio, ratio

#: A get of LocMem in microseconds on the machine for which the budgets in operations per second were set.
REFERENCE_LOCMEM_GET_US = 4.3


@dataclass(frozen=True)
class Budget:
    """One row.

    ``backend`` in ``measure`` is divided by ``to_backend`` in ``to_measure``; without a ``to_backend`` the figure
    itself is judged. ``at_least`` turns the comparison round: for throughputs, where more is better.
    """

    backend: str
    measure: str
    must: float
    aim: float | None
    to_backend: str | None = None
    to_measure: str | None = None
    at_least: bool = False
    absolute_unit: str = "ops/s"

    @property
    def title(self) -> str:
        """What the row compares, for the report."""
        if self.to_backend is None:
            return f"{self.backend} {self.measure}"
        if self.to_measure is not None:
            return f"{self.backend} {self.measure} / {self.to_measure}"
        return f"{self.backend} {self.measure} / {self.to_backend}"

    @property
    def unit(self) -> str:
        """``x`` for ratios, mostly ``ops/s`` for what is judged by itself."""
        return self.absolute_unit if self.to_backend is None else "x"


def _times_locmem(measure: str, must: float, aim: float) -> Budget:
    return Budget("embedded", measure, must, aim, to_backend="locmem")


def _times_pylibmc(measure: str, must: float, aim: float) -> Budget:
    return Budget("node", measure, must, aim, to_backend="pylibmc")


EMBEDDED: tuple[Budget, ...] = (
    _times_locmem("get", 1.0, 0.8),
    _times_locmem("set", 3.0, 2.0),
    _times_locmem("get_dict", 1.3, 1.0),
    _times_locmem("set_dict", 4.0, 3.0),
    _times_locmem("get_many", 0.5, 0.3),
    _times_locmem("set_many", 0.5, 0.3),
    Budget("embedded", "processes", 150_000, 250_000, at_least=True),
    Budget("embedded", "set_large_store", 2.0, None, to_backend="embedded", to_measure="set_small_store"),
    Budget("embedded", "agets", 80_000, 150_000, at_least=True),
    Budget("embedded", "asets", 50_000, 80_000, at_least=True),
)

NODE: tuple[Budget, ...] = (
    _times_pylibmc("get", 1.2, 1.0),
    _times_pylibmc("set", 1.2, 1.0),
    Budget("node-unix", "get", 1.0, 0.8, to_backend="pylibmc"),
    Budget("node-unix-direct", "get", 1.0, 0.8, to_backend="pylibmc"),
    _times_pylibmc("get_many", 0.5, 0.3),
    _times_pylibmc("set_many", 0.5, 0.3),
    Budget("node", "processes", 0.6, 1.0, to_backend="pylibmc", at_least=True),
    Budget("node", "agets", 30_000, 50_000, at_least=True),
)

BESIDE: tuple[Budget, ...] = (
    Budget("beside", "get", 1.5, 1.2, to_backend="embedded"),
    Budget("beside", "get_many", 1.5, 1.2, to_backend="embedded"),
)

TABLES: dict[str, tuple[Budget, ...]] = {
    "embedded": EMBEDDED,
    "node": NODE,
    "beside": BESIDE,
    "all": EMBEDDED + NODE + BESIDE,
}


@dataclass(frozen=True)
class Verdict:
    """How one budget fared.

    ``state`` is ``pass``, ``fall-short``, ``unmeasured`` (it should have been measured: absent or failed) or
    ``left-out`` (the run was told not to, or has nothing to compare with). ``aim_met`` is None without a figure or an
    aim.
    """

    budget: Budget
    state: str
    figure: float | None
    low: float | None
    high: float | None
    aim_met: bool | None

    @property
    def failed(self) -> bool:
        """Whether this verdict must fail a run: what should have been measured and wasn't proves nothing."""
        return self.state in ("fall-short", "unmeasured")

    def as_json(self) -> dict[str, Any]:
        """The verdict as the JSON report has it."""
        found = {key: value for key, value in asdict(self).items() if key != "budget"}
        return {"title": self.budget.title, "unit": self.budget.unit, **asdict(self.budget), **found}


def judge(budget: Budget, report: Mapping[str, Any]) -> Verdict:
    """Compare one budget with a report."""
    figure = _figure(budget, report["measures"])
    if figure is None:
        return Verdict(budget, _why_missing(budget, report), None, None, None, None)
    kept = _holds(budget, figure.median, budget.must)
    return Verdict(
        budget=budget,
        state="pass" if kept else "fall-short",
        figure=figure.median,
        low=figure.low,
        high=figure.high,
        aim_met=None if budget.aim is None else _holds(budget, figure.median, budget.aim),
    )


def judge_all(table: Sequence[Budget], report: Mapping[str, Any]) -> list[Verdict]:
    """Compare a whole table of budgets with a report."""
    return [judge(budget, report) for budget in table]


def speed(report: Mapping[str, Any]) -> float | None:
    """How fast this machine was in this run: 1.0 is the reference; None where LocMem was not measured."""
    found = report["measures"].get("get", {}).get("results", {}).get("locmem", {}).get("median")
    return REFERENCE_LOCMEM_GET_US / found if found else None


def _why_missing(budget: Budget, report: Mapping[str, Any]) -> str:
    measures = {budget.measure, budget.to_measure or budget.measure}
    if budget.backend not in report["backends"] or not measures <= set(report["measures"]):
        return "left-out"
    other = report["backends"].get(budget.to_backend or budget.backend, {"state": "absent"})
    if budget.to_backend not in (None, budget.backend) and other["state"] == "absent":
        return "left-out"
    return "unmeasured"


def _holds(budget: Budget, figure: float, limit: float) -> bool:
    return figure >= limit if budget.at_least else figure <= limit


def _figure(budget: Budget, measures: Mapping[str, Any]) -> Ratio | None:
    found = _rounds(measures, budget.measure, budget.backend)
    if found is None:
        return None
    if budget.to_backend is None:
        return ratio(found, [1.0] * len(found))
    other = _rounds(measures, budget.to_measure or budget.measure, budget.to_backend)
    return ratio(found, other) if other is not None else None


def _rounds(measures: Mapping[str, Any], measure: str, backend: str) -> Sequence[float | None] | None:
    result = measures.get(measure, {}).get("results", {}).get(backend, {})
    return result.get("round_medians")

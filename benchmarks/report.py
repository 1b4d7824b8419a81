"""A run's result: the JSON that keeps it, and the tables that people read."""

from __future__ import annotations

import datetime
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import figures
from benchmarks.budgets import Verdict
from benchmarks.data import Plan
from benchmarks.measures import Measure
from benchmarks.rounds import Row

SCHEMA = 1

#: The backends that caches are compared with.
REFERENCES = ("locmem", "pylibmc")

GROUPS = {
    "operations": "Single operations, 100-byte strings",
    "many": "100 keys at once; one get in a request; one get on a new backend object",
    "values": "Other values",
    "stores": "One set in stores of different sizes",
    "throughput": "Together: operations per second",
    "calls": "Single calls: operations per second",
    "bulk": "Many keys at once: keys per second",
    "models": "Objects: one call each; a filter that finds 10",
    "bulk_models": "Many objects in one call",
    "processor": "Processor time of one call",
    "failover": "After the leader was killed",
    "search": "Listing and searching: keys per second that were gone through",
}

Report = dict[str, Any]


def machine() -> dict[str, Any]:
    """What a figure depends on besides the code."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "processor": _processor(),
        "processor_count": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
    }


def _processor() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or "unknown"


def start(
    plan: Plan, quick: bool, backends: dict[str, dict[str, Any]], references: Sequence[str] = REFERENCES
) -> Report:
    """A report without figures yet. ``references`` are the backends that others are compared with."""
    return {
        "schema": SCHEMA,
        "started_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "plan": asdict(plan),
        "machine": machine(),
        "backends": backends,
        "references": list(references),
        "measures": {},
        "budgets": [],
    }


def add_measure(report: Report, measure: Measure, rows: Mapping[str, Row], skipped: Mapping[str, str]) -> None:
    """Put the rows of one measure into the report.

    Arguments: the report; the measure; the rows by backend; why other backends were not measured.
    """
    results: dict[str, Any] = {}
    for name, row in rows.items():
        reasons = {"error": row.error, "skipped": row.skipped}
        results[name] = {kind: reason for kind, reason in reasons.items() if reason}
        if row.measured:
            summary = figures.summarize(row.rounds, with_p99=not measure.more_is_better)
            results[name].update(asdict(summary))
    for reference in report["references"]:
        base = results.get(reference, {}).get("round_medians")
        for result in results.values():
            if base is not None and "round_medians" in result:
                quotient = figures.ratio(result["round_medians"], base)
                result[f"to_{reference}"] = asdict(quotient) if quotient else None
    results.update({name: {"skipped": reason} for name, reason in skipped.items()})
    report["measures"][measure.name] = {
        "title": measure.title,
        "group": measure.group,
        "unit": measure.unit,
        "more_is_better": measure.more_is_better,
        "results": results,
    }


def tables(report: Report, markdown: bool = False) -> str:
    """All tables of a report.

    Arguments: the report, new or read from its JSON; whether to write Markdown instead of plain columns.
    """
    parts = [_heading(report)]
    for group, title in GROUPS.items():
        names = [name for name, measure in report["measures"].items() if measure["group"] == group]
        if not names:
            continue
        parts.append(_title(title, markdown))
        parts.append(_grid(*_figures_table(report, names), markdown))
        for reference in report["references"]:
            if report["backends"].get(reference, {}).get("state") == "present":
                parts.append(_grid(*_ratio_table(report, names, reference), markdown))
    notes = _notes(report)
    if notes:
        parts.append(_title("Not measured", markdown))
        parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(part for part in parts if part)


def budget_table(verdicts: Sequence[Verdict], speed: float | None = None, markdown: bool = False) -> str:
    """The budgets and how they fared, one line each.

    Arguments: the verdicts; the speed of this machine in this run, where it is known; whether to write Markdown.
    """
    header = ["budget", "measured", "middle half", "must", "", "aim", ""]
    lines = []
    for verdict in verdicts:
        budget = verdict.budget
        sign = "≥" if budget.at_least else "≤"
        aim_state = {None: "", True: "met", False: "not yet"}[verdict.aim_met]
        lines.append(
            [
                budget.title,
                _in_unit(verdict.figure, budget.unit),
                ""
                if verdict.low is None
                else f"{_in_unit(verdict.low, budget.unit)}..{_in_unit(verdict.high, budget.unit)}",
                f"{sign} {_in_unit(budget.must, budget.unit)}",
                verdict.state,
                "" if budget.aim is None else f"{sign} {_in_unit(budget.aim, budget.unit)}",
                aim_state,
            ]
        )
    parts = [_title("Budgets", markdown), _grid(header, lines, markdown)]
    absolute = [verdict for verdict in verdicts if verdict.figure is not None and verdict.budget.unit == "ops/s"]
    if speed is not None and absolute:
        # Said beside the verdicts and not used in them: LocMem's get is a weak measure of a whole machine.
        scaled = ", ".join(
            f"{verdict.budget.title} {_in_unit(verdict.figure / speed, 'ops/s')}" for verdict in absolute
        )
        parts.append(
            f"LocMem's get ran at {speed:.2f} of its speed on the machine for which the ops/s were set. "
            f"At that machine's speed they would be some: {scaled}."
        )
    return "\n\n".join(parts)


def _heading(report: Report) -> str:
    found = report["machine"]
    versions = sorted({item for row in report["backends"].values() for item in row.get("versions", {}).items()})
    lines = [
        f"{report['started_at']} · {found['processor']}, {found['processor_count']} processors · "
        f"{found['system']} {found['kernel']} · Python {found['python']}",
        ", ".join(f"{name} {version}" for name, version in versions),
        f"{report['plan']['rounds']} interleaved rounds; medians of the rounds' medians, (p99 over all samples); "
        f"ratios within rounds; ~ is a tie (less than {figures.TIE_FACTOR}x apart)",
    ]
    if report["quick"]:
        lines.append("Quick plan: small stores and few samples, so these figures are rough.")
    return "\n".join(lines)


def _figures_table(report: Report, names: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    unit = report["measures"][names[0]]["unit"]
    header = ["µs" if unit == "us" else unit, *[_column(report, name) for name in names]]
    lines = []
    for backend in _present(report):
        cells = [_figure_cell(report["measures"][name]["results"].get(backend, {}), unit) for name in names]
        if any(cells):
            lines.append([backend, *cells])
    return header, lines


def _ratio_table(report: Report, names: Sequence[str], reference: str) -> tuple[list[str], list[list[str]]]:
    header = [f"x {reference}", *[_column(report, name) for name in names]]
    lines = []
    for backend in _present(report):
        cells = []
        for name in names:
            quotient = report["measures"][name]["results"].get(backend, {}).get(f"to_{reference}")
            cells.append("" if not quotient else _ratio_text(quotient["median"]))
        if backend != reference and any(cells):
            lines.append([backend, *cells])
    return header, lines


def _column(report: Report, name: str) -> str:
    plan = report["plan"]
    sizes = {"set_small_store": plan["small_store_keys"], "set_large_store": plan["large_store_keys"]}
    return f"set at {sizes[name]:,}" if name in sizes else name


def _present(report: Report) -> list[str]:
    return [name for name, row in report["backends"].items() if row["state"] == "present"]


def _figure_cell(result: Mapping[str, Any], unit: str) -> str:
    if "median" not in result:
        return "error" if "error" in result else ""
    mark = "!" if "error" in result else ""
    if result["p99"] is None:
        return f"{_in_unit(result['median'], unit)}{mark}"
    return f"{_number(result['median'])} ({_number(result['p99'])}){mark}"


def _ratio_text(value: float) -> str:
    return f"{'~' if figures.is_tie(value) else ''}{_number(value)}"


def _in_unit(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    if unit == "ops/s":
        return f"{value / 1000:,.0f} k" if value >= 10_000 else f"{value / 1000:,.1f} k"
    if unit == "ms":
        return f"{value:,.0f} ms"
    return f"{value:.2f}x"


def _number(value: float) -> str:
    """Three digits that matter."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _notes(report: Report) -> list[str]:
    notes = [f"{name}: {row['reason']}" for name, row in report["backends"].items() if row["state"] == "absent"]
    for measure, found in report["measures"].items():
        for backend, result in found["results"].items():
            reason = result.get("error") or result.get("skipped")
            if reason:
                notes.append(f"{backend}, {measure}: {reason}")
    return notes


def _title(text: str, markdown: bool) -> str:
    return f"### {text}" if markdown else f"{text}\n{'-' * len(text)}"


def _grid(header: Sequence[str], lines: Sequence[Sequence[str]], markdown: bool) -> str:
    if markdown:
        rule = ["---", *["---:"] * (len(header) - 1)]
        return "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *lines])
    widths = [max(len(line[column]) for line in [header, *lines]) for column in range(len(header))]
    shown = []
    for line in [header, *lines]:
        first, *others = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        shown.append("  ".join([first, *others]).rstrip())
    return "\n".join(shown)


def progress(line: str) -> None:
    """One line about what is going on, kept apart from the result."""
    print(line, file=sys.stderr, flush=True)

"""Fail when a part of the package is covered too little: coverage_gate.py PERCENT PART [PART ...].

A PART is a folder of the package, or a file (with .py).

Two figures have to reach PERCENT for each part: lines and branches together (what coverage calls the total), and
branches alone, which hides behind the lines otherwise. Reads the data files that a run with --cov left behind.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path


def files_of(part: str) -> str:
    """Return the pattern of a part's files."""
    return f"django_keyspace/{part}" if part.endswith(".py") else f"django_keyspace/{part}/*"


def measure(part: str) -> dict[str, int]:
    """Return coverage's totals for django_keyspace/PART; ends the script when nothing was measured there."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "coverage.json"
        command = [sys.executable, "-m", "coverage", "json", "--quiet", "--fail-under=0", "-o", str(report)]
        if subprocess.run([*command, f"--include={files_of(part)}"]).returncode or not report.exists():
            sys.exit(f"{part}: nothing was measured; were the tests run with --cov, and does the folder exist?")
        totals: dict[str, int] = json.loads(report.read_text())["totals"]
    return totals


def percent(covered: int, total: int) -> float:
    """Return how much of the total is covered; a part without any branch counts as covered."""
    return 100.0 * covered / total if total else 100.0


def main(arguments: list[str]) -> int:
    """Print both figures of every part and return 1 when one of them is too low."""
    required, parts = float(arguments[0]), arguments[1:]
    failed = False
    for part in parts:
        totals = measure(part)
        branches = percent(totals["covered_branches"], totals["num_branches"])
        both = percent(
            totals["covered_branches"] + totals["covered_lines"], totals["num_branches"] + totals["num_statements"]
        )
        too_low = min(branches, both) < required
        failed = failed or too_low
        verdict = f"TOO LOW, {required:g} % is required" if too_low else "ok"
        print(f"{part}: {both:.1f} % of lines and branches, {branches:.1f} % of branches: {verdict}", flush=True)
        if too_low:
            subprocess.run(
                [sys.executable, "-m", "coverage", "report", "--fail-under=0", f"--include={files_of(part)}"]
            )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The benchmarks of the journal and of consensus run, and their rows say what they should."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def measured(program: str, folder: Path) -> tuple[list[dict[str, Any]], str]:
    """Run a benchmark quickly. Returns: its rows, and what it printed."""
    result = folder / "out.json"
    command = [sys.executable, str(BENCHMARKS / program), "--quick", "--folder", str(folder), "--json", str(result)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(result.read_text())["rows"], done.stdout


def test_every_row_is_measured_at_every_depth(tmp_path: Path) -> None:
    rows, printed = measured("journal.py", tmp_path)
    names = {"journal", "journal, bare", "lmdb", "fdatasync"}
    assert {(row["depth"], row["name"]) for row in rows} == {(depth, name) for depth in (1, 64, 1024) for name in names}
    for row in rows:
        assert row["entries_per_s"] > 0
        # A group commit: never more than one sync per entry, and one per `depth` entries where they are written together.
        assert 0 < row["fsyncs_per_entry"] <= 1.01
        if row["name"] != "journal":
            assert abs(row["fsyncs_per_entry"] * row["depth"] - 1) < 0.5
        assert f"| {row['depth']:,} | {row['name']} |" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"], "its files are gone"


def test_what_a_replicated_write_costs_is_measured_at_every_depth(tmp_path: Path) -> None:
    rows, _ = measured("consensus.py", tmp_path)
    names = {"core", "journal", "node", "three nodes", "lmdb"}
    assert {(row["depth"], row["name"]) for row in rows} == {(depth, name) for depth in (1, 64, 1024) for name in names}
    for row in rows:
        assert row["entries_per_s"] > 0
        # One sync per write and node at most; what comes together shares them. Of three, one may be behind.
        most = {"core": 0, "three nodes": 3.1}.get(row["name"], 1.01)
        assert row["fsyncs_per_entry"] <= most
        if row["depth"] > 1 and row["name"] != "core":
            assert 0 < row["fsyncs_per_entry"] <= 3 * most / row["depth"] or row["name"] == "journal"

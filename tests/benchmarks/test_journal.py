"""The benchmark of the journal runs, and its rows say what they should."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "journal.py"


def test_every_row_is_measured_at_every_depth(tmp_path: Path) -> None:
    result = tmp_path / "out.json"
    command = [sys.executable, str(PROGRAM), "--quick", "--folder", str(tmp_path), "--json", str(result)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads(result.read_text())["rows"]
    names = {"journal", "journal, bare", "lmdb", "fdatasync"}
    assert {(row["depth"], row["name"]) for row in rows} == {(depth, name) for depth in (1, 64, 1024) for name in names}
    for row in rows:
        assert row["entries_per_s"] > 0
        # A group commit: never more than one sync per entry, and one per `depth` entries where they are written together.
        assert 0 < row["fsyncs_per_entry"] <= 1.01
        if row["name"] != "journal":
            assert abs(row["fsyncs_per_entry"] * row["depth"] - 1) < 0.5
        assert f"| {row['depth']:,} | {row['name']} |" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"], "its files are gone"

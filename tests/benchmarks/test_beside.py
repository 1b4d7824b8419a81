"""The measurement of gets beside something long runs, and counts what it says that it did."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "beside.py"


@pytest.mark.node
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_short_run(kind: str, tmp_path: Path) -> None:
    result = tmp_path / "out.json"
    command = [sys.executable, str(PROGRAM), "--kind", kind, "--keys", "2500", "--json", str(result)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = {row["beside"]: row for row in json.loads(result.read_text())}
    assert rows["nothing"]["requests"] == 0 and rows["nothing"]["gets"] > 0
    assert rows["a list of 2,500 keys"]["requests"] == rows["the same with values"]["requests"] == 3
    assert rows["sets of 1,000 keys at once"]["requests"] == 50
    for row in rows.values():
        assert row["gets"] >= row["requests"] and 0 < row["p50_ms"] <= row["p99_ms"] <= row["max_ms"]
        assert f"| {row['beside']} | {row['requests']} |" in done.stdout


def test_no_keys_are_refused(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(PROGRAM), "--keys", "0"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "1 key or more" in done.stderr

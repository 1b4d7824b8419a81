"""The load generator runs over each way to a node, and its figures agree with each other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "node.py"


@pytest.mark.node
@pytest.mark.parametrize(
    ("kind", "connections", "depth", "processes"), [("tcp", 5, 1, 2), ("unix", 2, 16, 1), ("tls", 2, 4, 1)]
)
def test_a_short_run(kind: str, connections: int, depth: int, processes: int, tmp_path: Path) -> None:
    result = tmp_path / "out.json"
    command = [sys.executable, str(PROGRAM), "--kind", kind, "--connections", str(connections), "--depth", str(depth)]
    command += ["--processes", str(processes), "--seconds", "0.3", "--reads", "0.5", "--json", str(result)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    figures = json.loads(result.read_text())
    assert (figures["kind"], figures["connections"], figures["depth"]) == (kind, connections, depth)
    assert figures["operations"] > 0 and figures["per_second"] > 0
    assert 0 < figures["p50_ms"] <= figures["p99_ms"] <= figures["p999_ms"]
    assert figures["client_cpu_us"] > 0
    assert f"| {kind} | {connections} | {depth} |" in done.stdout


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--connections", "1", "--processes", "2"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "a connection for each" in done.stderr

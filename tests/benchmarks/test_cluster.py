"""The comparison of clusters as a program: that it runs against our own nodes, and says what it has measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from benchmarks import cluster
from benchmarks.cluster_clients import field, fields, varint
from benchmarks.cluster_subjects import SUBJECTS

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "cluster.py"


@pytest.mark.timeout(240)
def test_a_quick_run_against_our_own_nodes(tmp_path: Path) -> None:
    result_file = tmp_path / "out.json"
    measures = "set,get,get_lease,get_dirty,set_100,sets_4,gap"
    command = [
        sys.executable,
        str(PROGRAM),
        "--quick",
        "--rounds",
        "1",
        "--only",
        "keyspace,keyspace-lease",
        "--measures",
        measures,
    ]
    # The path of a Unix socket is short, and that of a test's own folder may be too long for it.
    with tempfile.TemporaryDirectory(prefix="ks-") as stores:
        done = subprocess.run(
            [*command, "--folder", stores, "--json", str(result_file)], capture_output=True, text=True, timeout=220
        )
        assert os.listdir(stores) == []
    assert done.returncode == 0, done.stderr
    found = json.loads(result_file.read_text())
    assert set(found["measures"]) == set(measures.split(","))
    for name, measure in found["measures"].items():
        subject = "keyspace-lease" if name == "get_lease" else "keyspace"
        assert measure["results"][subject]["median"] > 0, (name, done.stderr)


def test_budgets_compare_what_is_measured() -> None:
    for budget in cluster.BUDGETS:
        assert budget.backend in SUBJECTS
        assert {budget.measure, budget.to_measure or budget.measure} <= set(cluster.MEASURES_BY_NAME)
        assert budget.to_backend is None or budget.to_backend in SUBJECTS
        assert budget.at_least == cluster.MEASURES_BY_NAME[budget.measure].more_is_better
    assert {budget.title: budget.unit for budget in cluster.BUDGETS}["keyspace gap"] == "ms"


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**40])
def test_messages_of_grpc(number: int) -> None:
    content = b"x" * (number % 1_000)
    message = field(1, content) + b"\x18" + varint(number) + field(20, b"")
    assert list(fields(message)) == [(1, content), (3, number), (20, b"")]

"""The comparison with the ancestors as a program: the smallest run there is, its budgets, and what it leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import ancestors
from benchmarks.ancestor_subjects import SUBJECTS, searched_keys

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "ancestors.py"


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAM), "--folder", str(folder), "--quick", "--rounds", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, cwd=folder)


def test_a_quick_run(tmp_path: Path) -> None:
    stores, result_file = tmp_path / "stores", tmp_path / "out.json"
    stores.mkdir()
    measures = "get,set,incr,get_100,set_10000,list,match_regex"
    done = run("--only", "keyspace,kyoto,lmdb", "--measures", measures, "--json", str(result_file), folder=stores)
    assert done.returncode == 0, done.stderr
    found = json.loads(result_file.read_text())
    assert set(found["measures"]) == set(measures.split(","))
    for name, measure in found["measures"].items():
        for subject in ("keyspace", "kyoto", "lmdb"):
            result = measure["results"][subject]
            if (name, subject) == ("match_regex", "keyspace"):
                assert result == {"skipped": "it has no such call"}
            else:
                assert result["median"] > 0, (name, subject)
                assert result["to_lmdb"]["round_count"] == 1
    assert "Many keys at once" in done.stdout
    assert "x lmdb" in done.stdout
    assert list(stores.iterdir()) == []


def test_budgets_that_are_missed_fail_the_run(tmp_path: Path) -> None:
    done = run("--only", "lmdb", "--measures", "get", "--budgets", folder=tmp_path)
    assert done.returncode == 0, done.stderr  # nothing of ours took part
    assert "left-out" in done.stdout


def test_the_budgets_are_the_ancestors_figures() -> None:
    rows = {(budget.backend, budget.measure): budget for budget in ancestors.BUDGETS}
    assert rows["keyspace", "set_10000"].must == 325_000
    assert (rows["keyspace-node", "set_10000"].must, rows["keyspace-node", "set_10000"].aim) == (162_500, 325_000)
    assert {backend for backend, _ in rows} == {"keyspace", "keyspace-node", "kyoto", "kyoto-node"}
    assert all(budget.at_least for budget in ancestors.BUDGETS)
    assert {measure for _, measure in rows} <= set(ancestors.MEASURES_BY_NAME)


@pytest.mark.parametrize("option", ["--only", "--measures"])
def test_unknown_names_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        ancestors.parse([option, "nobody"])
    assert "nobody is not one of" in capsys.readouterr().err


def test_every_subject_has_some_measure_and_nothing_else() -> None:
    for name, (_, cls) in SUBJECTS.items():
        methods = {method for method in ancestors.MEASURES_BY_NAME if hasattr(cls, method)}
        assert {"get", "set", "incr", "get_10000", "set_10000", "list"} <= methods, name


def test_the_keys_of_the_large_store_are_distinct() -> None:
    assert len(set(searched_keys(50_000))) == 50_000

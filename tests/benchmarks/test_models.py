"""The comparison of models as a program: the smallest run there is, its budgets, and what it leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import models
from benchmarks.model_subjects import stored_articles

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "models.py"


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAM), "--folder", str(folder), "--quick", "--rounds", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, cwd=folder)


def test_a_quick_run(tmp_path: Path) -> None:
    stores, result_file = tmp_path / "stores", tmp_path / "out.json"
    stores.mkdir()
    done = run("--only", "embedded,django-orm", "--json", str(result_file), folder=stores)
    assert done.returncode == 0, done.stderr
    found = json.loads(result_file.read_text())
    assert set(found["measures"]) == set(models.MEASURES_BY_NAME)
    for name, measure in found["measures"].items():
        for subject in ("embedded", "django-orm"):
            assert measure["results"][subject].get("median", 0) > 0, (name, subject, measure["results"][subject])
        assert measure["results"]["embedded"]["to_django-orm"]["round_count"] == 1
    assert found["backends"]["redis-om"]["state"] == "absent"
    assert "Many objects in one call" in done.stdout
    assert list(stores.iterdir()) == []


def test_budgets_of_what_took_no_part_are_left_out(tmp_path: Path) -> None:
    done = run("--only", "django-orm", "--measures", "get", "--budgets", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("left-out") == len(models.BUDGETS)


def test_the_budgets_compare_equal_durability() -> None:
    rows = {(budget.backend, budget.measure): (budget.to_backend, budget.must) for budget in models.BUDGETS}
    assert rows["embedded", "get"] == ("django-orm", 0.2)
    assert rows["embedded-commit", "filter"] == ("django-orm-full", 1.0)
    assert rows["embedded", "bulk_create"] == ("django-orm", 2.0)
    assert not any(budget.at_least for budget in models.BUDGETS)


@pytest.mark.parametrize("option", ["--only", "--measures"])
def test_unknown_names_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        models.parse([option, "nobody"])
    assert "nobody is not one of" in capsys.readouterr().err


def test_ten_articles_are_on_each_shelf() -> None:
    shelves = [row["shelf"] for row in stored_articles(1_000)]
    assert {shelves.count(shelf) for shelf in set(shelves)} == {10}

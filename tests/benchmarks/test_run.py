"""The benchmarks as a program: the smallest run there is, and what it leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report, rounds
from benchmarks.measures import MEASURES_BY_NAME, NotMeasured, Subject
from benchmarks.servers import ServerFailed, Workspace

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "caches.py"


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAM), "--folder", str(folder), *arguments]
    # From another folder: it must find the project by itself.
    return subprocess.run(command, capture_output=True, text=True, timeout=90, cwd=folder)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, Path]:
    folder = tmp_path_factory.mktemp("stores")
    result_file = tmp_path_factory.mktemp("result") / "out.json"
    measures = (
        "get,add,incr,delete,set_many,get_request,get_new_object,set_dict,set_large_store,processes,threads,agets"
    )
    done = run(
        *("--quick", "--rounds", "2", "--only", "locmem,embedded,filebased,lmdb", "--measures", measures),
        *("--json", str(result_file)),
        folder=folder,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(result_file.read_text()), done.stdout, folder


def test_the_json_says_what_was_measured_and_on_what(quick: tuple[dict[str, Any], str, Path]) -> None:
    found, _, _ = quick
    assert found["schema"] == report.SCHEMA
    assert found["quick"] is True
    assert found["plan"]["rounds"] == 2
    assert {"python", "processor", "processor_count", "load_average", "load_average_at_end"} <= set(found["machine"])
    assert set(found["backends"]) == {"locmem", "embedded", "filebased", "lmdb"}
    assert found["backends"]["locmem"]["state"] == "present"
    assert found["backends"]["locmem"]["versions"]["Django"]
    assert found["backends"]["embedded"]["state"] == "present"


def test_every_measure_has_a_figure_and_a_ratio(quick: tuple[dict[str, Any], str, Path]) -> None:
    found, _, _ = quick
    assert len(found["measures"]) == 13  # the two stores are measured together
    for name, measure in found["measures"].items():
        assert measure["unit"] == MEASURES_BY_NAME[name].unit
        locmem = measure["results"]["locmem"]
        assert len(locmem["round_medians"]) == 2, name
        assert locmem["median"] > 0, name
        assert locmem["sample_count"] >= 2, name
        assert (locmem["p99"] is None) is measure["more_is_better"], name
        assert locmem["to_locmem"]["median"] == 1.0, name
    other = found["measures"]["get"]["results"]["filebased"]
    assert other["to_locmem"]["round_count"] == 2
    assert "error" not in other


def test_what_is_not_measured_says_why(quick: tuple[dict[str, Any], str, Path]) -> None:
    found, shown, _ = quick
    assert found["measures"]["set_dict"]["results"]["lmdb"] == {"skipped": "it is no cache"}
    assert "every entry" in found["measures"]["set_large_store"]["results"]["filebased"]["skipped"]
    assert "lmdb, set_dict: it is no cache" in shown


def test_the_tables_have_plain_and_markdown_forms(quick: tuple[dict[str, Any], str, Path]) -> None:
    found, shown, _ = quick
    assert report.tables(found) in shown
    assert "| x locmem | get |" in report.tables(found, markdown=True)


def test_nothing_is_left_in_the_folder(quick: tuple[dict[str, Any], str, Path]) -> None:
    assert list(quick[2].iterdir()) == []


def test_a_budget_that_cannot_be_shown_fails_only_when_it_was_asked_for(tmp_path: Path) -> None:
    done = run("--quick", "--rounds", "1", "--only", "locmem", "--measures", "get", "--budgets", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "left-out" in done.stdout


def test_a_profile_names_functions(tmp_path: Path) -> None:
    done = run("--quick", "--profile", "locmem", "--measures", "get", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "locmem.py" in done.stdout


@pytest.mark.parametrize("arguments", [("--only", "memorycache"), ("--measures", "gets"), ("--rounds", "0")])
def test_a_wrong_command_line_is_refused(arguments: tuple[str, str], tmp_path: Path) -> None:
    done = run(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert arguments[0] in done.stderr


class Scripted:
    """A work that answers from a script and notes in which order it was asked."""

    def __init__(self, failing_at: dict[str, int]) -> None:
        self.failing_at = failing_at
        self.asked: list[str] = []
        self.closed = False

    def prepare(self, subject: Subject) -> None:
        if self.failing_at.get(subject.name) == 0:
            raise ConnectionError("nobody listens")

    def batch(self, subject: Subject) -> list[float]:
        self.asked.append(subject.name)
        if subject.name == "slow":
            raise NotMeasured("loading would take a week")
        if self.asked.count(subject.name) == self.failing_at.get(subject.name):
            raise TimeoutError("too slow")
        return [1.0]

    def close(self) -> None:
        self.closed = True


def test_rounds_are_interleaved_and_the_first_place_goes_round() -> None:
    work = Scripted({})
    rounds.run(work, [Subject(name, name, None) for name in "abc"], 3, lambda _line: None)
    assert "".join(work.asked) == "abc" + "bca" + "cab"
    assert work.closed


def test_one_failing_backend_does_not_end_the_run() -> None:
    lines: list[str] = []
    work = Scripted({"a": 0, "b": 2})
    rows = rounds.run(work, [Subject(name, name, None) for name in "abc"], 3, lines.append)
    assert rows["a"].rounds == [None, None, None]
    assert rows["a"].error == "ConnectionError: nobody listens"
    assert rows["b"].rounds == [[1.0], None, None]
    assert rows["c"].rounds == [[1.0]] * 3
    assert len(lines) == 2


def test_a_backend_that_would_take_too_long_is_left_out_and_is_no_error() -> None:
    rows = rounds.run(Scripted({}), [Subject(name, name, None) for name in ("a", "slow")], 2, lambda _line: None)
    found: dict[str, Any] = {"references": [], "measures": {}}
    report.add_measure(found, MEASURES_BY_NAME["set"], rows, {})
    assert found["measures"]["set"]["results"]["slow"] == {"skipped": "loading would take a week"}
    assert found["measures"]["set"]["results"]["a"]["median"] == 1.0


def test_a_server_that_ends_at_once_is_reported_with_its_output(tmp_path: Path) -> None:
    program = "import sys; sys.exit('the port is cursed')"
    with Workspace(tmp_path) as workspace, pytest.raises(ServerFailed, match="the port is cursed"):
        workspace.start_server("cursed", lambda _port: [sys.executable, "-c", program])


def test_a_server_is_ended_with_its_workspace(tmp_path: Path) -> None:
    with Workspace(tmp_path) as workspace:
        server = workspace.start_server(
            "files", lambda port: [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
        )
        assert server.process.poll() is None
    assert server.process.poll() is not None
    assert list(tmp_path.iterdir()) == []

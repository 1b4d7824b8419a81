"""``keyspace_cluster``: which nodes, where, how they are shown, and that it starts and ends them."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError, OutputWrapper

from django_keyspace.exceptions import ConfigurationError
from django_keyspace.management.live import Picture
from django_keyspace.management.local import LocalCluster, make_plan
from tests.management.fakes import alone, answers_of, status

ROOT = Path(__file__).resolve().parents[2]


# --- Plans ------------------------------------------------------------------------------------------------------------


def test_a_new_plan(tmp_path: Path) -> None:
    plan = make_plan(tmp_path / "new", None, None)
    assert plan.addresses == {"n1": "127.0.0.1:7080", "n2": "127.0.0.1:7081", "n3": "127.0.0.1:7082"}
    assert not (tmp_path / "new").exists()
    assert list(make_plan(tmp_path, 5, 9000).addresses.values())[-1] == "127.0.0.1:9004"
    free = make_plan(tmp_path, 3, 0).addresses
    assert len({address.rpartition(":")[2] for address in free.values()} - {"0"}) == 3


def test_a_plan_stays_with_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_keyspace.management.local.LocalNode.start", lambda node: None)
    plan = make_plan(tmp_path, 3, 9000)
    LocalCluster(plan).start()
    for nodes, port in ((None, None), (3, None), (None, 9000), (None, 0)):
        assert make_plan(tmp_path, nodes, port).addresses == plan.addresses
    for nodes, port in ((5, None), (None, 9001)):
        with pytest.raises(ConfigurationError, match="holds a cluster of 3 nodes from port 9000 on"):
            make_plan(tmp_path, nodes, port)


@pytest.mark.parametrize("text", ["", "[]", '{"format": 1}', '{"format": 2, "nodes": {}}', '{"format": 1, "nodes": 3}'])
def test_a_plan_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "cluster.json").write_text(text)
    with pytest.raises(ConfigurationError, match="not touched"):
        make_plan(tmp_path, None, None)
    assert (tmp_path / "cluster.json").read_text() == text


@pytest.mark.parametrize(("nodes", "port"), [(0, None), (10, None), (-1, None), (3, 65_534)])
def test_numbers_that_are_none(tmp_path: Path, nodes: int, port: int | None) -> None:
    with pytest.raises(ConfigurationError):
        make_plan(tmp_path, nodes, port)


# --- Pictures ---------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def show(stream: io.StringIO, *looks: tuple[float, Any]) -> str:
    with Picture(OutputWrapper(stream), "the title") as picture:
        for now_s, answers in looks:
            picture.show(answers, {"n1": "1001", "n2": "1002", "n3": "exit -9"}, now_s)
    return stream.getvalue()


def busy(reads: int, writes: int, **facts: Any) -> Any:
    return answers_of(status("n1", "leader", requests={"reads": reads, "writes": writes}, **facts), status("n2"), "n3")


def test_a_log_gets_a_line_when_something_changes() -> None:
    looks = [(10, busy(0, 0)), (11, busy(500, 100)), (12, busy(900, 200, term=4)), (50, busy(900, 200, term=4))]
    lines = show(io.StringIO(), *looks).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("n1 leader, term 3, applied 100, - reads/s, - writes/s; n2 follower, term 3,")
    assert lines[1].startswith("n1 leader, term 4, applied 100, 400 reads/s, 100 writes/s;") and "n3 down" in lines[1]


def test_operations_of_a_node_that_was_started_again_are_not_those_of_the_old_one() -> None:
    lines = show(io.StringIO(), (10, busy(900, 900)), (11, busy(5, 5, process=99, term=4))).splitlines()
    assert lines[1].startswith("n1 leader, term 4, applied 100, - reads/s, - writes/s")


@pytest.mark.parametrize("with_rich", [False, True])
def test_a_terminal_is_drawn_anew(with_rich: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not with_rich:
        monkeypatch.setitem(sys.modules, "rich.live", None)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    out = show(Terminal(), (10, busy(0, 0)), (11, busy(500, 100)))
    if not with_rich:
        first, second = out.split("\x1b[6A\x1b[J")
        assert [line.split()[:2] for line in first.splitlines()] == [
            ["the", "title"],
            [],
            ["node", "role"],
            ["n1", "leader"],
            ["n2", "follower"],
            ["n3", "down"],
        ]
        assert "500" in second and "exit -9" in second
    else:
        assert all(text in out for text in ("the title", "leader", "exit -9", "500"))


def test_a_terminal_says_why_nobody_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.live", None)
    out = show(Terminal(), (10, answers_of(status("n1", leader=None), "n2", "n3")))
    assert "! 1 of 3 voters answer, and a majority is 2." in out


def test_a_node_alone_has_a_picture() -> None:
    assert show(io.StringIO(), (10, answers_of(alone()))).startswith("n1 alone, term -, applied -")


# --- Real nodes -------------------------------------------------------------------------------------------------------


def command(data: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "django_keyspace.management", "keyspace_cluster", "--data", str(data), *arguments]


@pytest.mark.node
def test_three_nodes_start_find_their_data_again_and_end_with_the_command(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    data = tmp_path / "cluster"
    done = subprocess.run(
        command(data, "--nodes", "3", "--port", "0", "--once"),
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Cluster ") and "3 voters" in done.stdout and "leads in term" in done.stdout
    cluster = done.stdout.split()[1]
    with subprocess.Popen(
        command(data, "--json"), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            facts = json.loads(process.stdout.readline())
            out = io.StringIO()
            call_command(
                "keyspace_status",
                "--location",
                facts["location"].rpartition("/")[0],
                "--json",
                "--timeout=20000",
                stdout=out,
            )
            state = json.loads(out.getvalue())
            assert f"{state['cluster']}:" == cluster
            assert {node["name"]: node["status"]["process"] for node in state["nodes"]} == {
                name: node["process"] for name, node in facts["nodes"].items()
            }
        finally:
            process.send_signal(signal.SIGINT)
            try:
                _, errors = process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                process.terminate()
                raise
        assert process.returncode == 0, errors
    logs = [(data / f"n{number}.log").read_text() for number in (1, 2, 3)]
    assert all(log.rstrip().endswith("the store is synced and closed") for log in logs)


@pytest.mark.node
def test_a_node_that_cannot_start_is_named_and_the_others_end(tmp_path: Path) -> None:
    out = io.StringIO()
    with pytest.raises(CommandError, match=r"Node n1 ended with 2(.|\n)*max_bytes must be") as caught:
        call_command(
            "keyspace_cluster",
            "--data",
            str(tmp_path),
            "--nodes",
            "1",
            "--port",
            "0",
            "--",
            "--max-bytes=1",
            stdout=out,
        )
    assert "n1.log" in str(caught.value)

"""``keyspace_status``: whom it asks, what it shows, and what it says when something is wrong."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import override_settings

from django_keyspace.testing import running_node
from tests.certificates import Certificates
from tests.management.fakes import LOCATION, FakeCluster, alone, member, status

PATIENT = ("--timeout", "20000")
"""For real nodes on a busy machine."""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    return FakeCluster().install(monkeypatch)


def run(*arguments: str, **options: Any) -> tuple[str, str | None]:
    """``(output, error or None)``."""
    out = io.StringIO()
    try:
        call_command("keyspace_status", *arguments, stdout=out, stderr=io.StringIO(), no_color=True, **options)
    except CommandError as error:
        assert error.returncode == 1
        return out.getvalue(), str(error)
    return out.getvalue(), None


def test_the_nodes_of_a_location(cluster: FakeCluster) -> None:
    cluster.statuses["n3"]["applied"] = 60
    out, error = run("--location", LOCATION)
    assert error is None
    lines = [line.split() for line in out.splitlines()]
    assert out.startswith("Cluster c1: 3 voters; n1 leads in term 3.\n")
    assert lines[1][:7] == ["node", "role", "term", "leader", "commit", "applied", "lag"]
    assert lines[2][:7] == ["n1", "leader", "3", "n1", "100", "100", "0"]
    assert lines[4][:7] == ["n3", "follower", "3", "n1", "100", "60", "40"]
    assert all(text in out for text in ("100@3", "10.0 GiB", "2 h 5 m", "0.1.0", "127.0.0.1:7003"))


def test_one_address_leads_to_all(cluster: FakeCluster) -> None:
    out, error = run("--location", "127.0.0.1:7002")
    assert error is None
    assert [line.split()[0] for line in out.splitlines()[2:]] == ["n1", "n2", "n3"]


def test_who_does_not_answer_has_a_line_and_a_name(cluster: FakeCluster) -> None:
    del cluster.statuses["n2"]
    out, error = run("--location", LOCATION)
    assert error is None
    assert any(line.split()[:3] == ["n2", "no", "answer"] for line in out.splitlines())
    assert "! n2 does not answer." in out


def test_nobody_leads(cluster: FakeCluster) -> None:
    del cluster.statuses["n1"], cluster.statuses["n3"]
    cluster.statuses["n2"] |= {"leader": None, "leader_address": None}
    out, error = run("--location", LOCATION)
    assert "nobody leads" in out and "n2" in out
    assert error is not None and error.startswith("No node leads.\n  1 of 3 voters answer, and a majority is 2.")


def test_json(cluster: FakeCluster) -> None:
    del cluster.statuses["n2"]
    out, error = run("--location", LOCATION, "--json")
    assert error is None
    found = json.loads(out)
    assert (found["cluster"], found["leader"], found["term"], found["no_leader"]) == ("c1", "n1", 3, [])
    assert [(node["name"], node["answers"], node["lag"]) for node in found["nodes"]] == [
        ("n1", True, 0),
        ("n2", False, None),
        ("n3", True, 0),
    ]
    assert found["nodes"][0]["status"]["members"] == [member("n1"), member("n2"), member("n3")]
    assert "No node answers" in found["nodes"][1]["error"]


def test_json_without_a_leader_is_whole_and_the_exit_code_says_so(cluster: FakeCluster) -> None:
    cluster.statuses.clear()
    out, error = run("--location", LOCATION, "--json")
    assert error is not None
    assert json.loads(out)["no_leader"][0] == "No node answers."


def test_a_node_that_runs_alone(cluster: FakeCluster) -> None:
    cluster.statuses = {"n1": alone("n1")}
    out, error = run("--location", "127.0.0.1:7001")
    assert error is None
    assert [line.split()[:2] for line in out.splitlines()] == [["node", "role"], ["n1", "alone"]]


def test_learners_are_counted(cluster: FakeCluster) -> None:
    for facts in cluster.statuses.values():
        facts["members"].append(member("n4", "learner"))
    cluster.statuses["n4"] = status("n4", "learner", members=cluster.statuses["n1"]["members"])
    out, _ = run("--location", LOCATION)
    assert out.startswith("Cluster c1: 3 voters, 1 learner; n1 leads")
    assert any(line.split()[:2] == ["n4", "learner"] for line in out.splitlines())


def caches(location: Any, **entry: Any) -> dict[str, Any]:
    return {"default": {"BACKEND": "django_keyspace.backend.KeyspaceCache", "LOCATION": location} | entry}


def test_the_nodes_of_an_alias(cluster: FakeCluster) -> None:
    with override_settings(CACHES=caches(LOCATION + "/0")):
        assert run() == run("--location", LOCATION) == run("--using", "default") == run("--alias", "default")


@pytest.mark.parametrize(
    ("entry", "arguments", "sentence"),
    [
        (caches("/folder"), [], "in the processes of the site: there are no nodes"),
        (caches(LOCATION), ["--using", "other"], "There is no alias 'other' in CACHES"),
        (
            {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
            [],
            "not a cache of django_keyspace",
        ),
        (caches(LOCATION), ["--using", "default", "--location", LOCATION], "not both"),
        (caches(LOCATION), ["--location", "redis://127.0.0.1"], "the scheme is none of"),
        (caches(LOCATION), ["--location", LOCATION, "--tls-ca", "ca.pem"], "write keyspaces:// in LOCATION"),
        (caches(LOCATION), ["--location", LOCATION, "--secret-file", "/does/not/exist"], "/does/not/exist"),
    ],
)
def test_places_that_are_none(entry: Any, arguments: list[str], sentence: str) -> None:
    with override_settings(CACHES=entry):
        out, error = run(*arguments)
    assert out == "" and error is not None and sentence in error


@pytest.mark.node
def test_a_real_node_with_a_secret_and_without_a_project(tmp_path: Path) -> None:
    secret = "a secret of the test"
    (tmp_path / "secret").write_text(secret)
    (tmp_path / "secret").chmod(0o600)
    with running_node(secret=secret) as node:
        location = f"keyspace://{node.address}"
        out, error = run("--location", location, "--secret-file", str(tmp_path / "secret"), *PATIENT)
        assert error is None and "alone" in out and node.address in out
        out, error = run("--location", location, *PATIENT)
        assert error is not None and "secret" in error
        root = Path(__file__).resolve().parents[2]
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "django_keyspace.management",
                "keyspace_status",
                "--location",
                location,
                "--json",
                *PATIENT,
            ],
            cwd=tmp_path,
            env={"PYTHONPATH": str(root), "KEYSPACE_SECRET": secret, "PATH": ""},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["nodes"][0]["status"]["process"] == node.pid


@pytest.mark.node
def test_a_real_node_with_tls(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    with running_node(**certificates.node_options()) as node:
        location = f"keyspaces://{node.address}"
        assert run("--location", location, "--tls-ca", certificates.ca, *PATIENT)[1] is None
        for wrong in ([location, "--tls-ca", certificates.strangers_ca], [f"keyspace://{node.address}"]):
            out, error = run("--location", *wrong, *PATIENT)
            assert error is not None and "no answer" in out


def test_only_the_commands_about_nodes_work_without_a_project(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "django_keyspace.management", "keyspace_dump_models"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2 and "is none of keyspace_status" in done.stderr

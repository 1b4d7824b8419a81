"""The commands for operators, on real nodes: they see what is there, and what they change is changed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from django_keyspace.testing import RunningCluster, running_cluster, running_node
from django_keyspace.testing.cluster import ask_node, await_found
from tests.cluster.helpers import put

pytestmark = pytest.mark.node

ELECTION_MS = 2_000
"""On a busy machine nobody is to be elected but by what a test does."""


def run(name: str, *arguments: str) -> tuple[str, str | None]:
    """``(output, error or None)`` of a command."""
    out = io.StringIO()
    more = [] if name == "keyspace_recover" else ["--timeout", "20000"]  # the machine may be busy
    try:
        call_command(name, *arguments, *more, stdout=out, stderr=io.StringIO(), no_color=True)
    except CommandError as error:
        return out.getvalue(), str(error)
    return out.getvalue(), None


def await_state(cluster: RunningCluster, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What ``keyspace_status --json`` says, as soon as it is what is wanted."""
    found: dict[str, Any] = {}

    def look() -> dict[str, Any] | None:
        nonlocal found
        found = json.loads(run("keyspace_status", "--location", place(cluster), "--json")[0])
        return found if wanted(found) else None

    assert await_found(look), json.dumps(found, indent=1)
    return found


def place(cluster: RunningCluster) -> str:
    return cluster.location.rpartition("/")[0]


def members(cluster: RunningCluster) -> dict[str, str]:
    """Role by name, as ``keyspace_members list`` has it."""
    out, error = run("keyspace_members", "list", "--location", place(cluster), "--json")
    assert error is None
    return {member["name"]: member["role"] for member in json.loads(out)["members"]}


def test_the_life_of_a_cluster() -> None:
    with running_cluster(3, election_timeout_ms=ELECTION_MS) as cluster:
        put(cluster, "a", "1")
        state = await_state(cluster, lambda found: all(node["lag"] == 0 for node in found["nodes"]))
        assert [node["name"] for node in state["nodes"]] == ["n1", "n2", "n3"] and state["warnings"] == []
        assert {member["flow"] for member in leader_of(state)["members"]} == {"replicate", None}
        assert all(
            {member["is_connected"] for member in node["status"]["members"]} == {True}
            for node in await_state(cluster, connected)["nodes"]
        )

        target = next(name for name in ("n1", "n2", "n3") if name != state["leader"])
        out, error = run("keyspace_members", "transfer", target, "--location", place(cluster))
        assert error is None and out.startswith(f"{target} leads now, in term ")

        cluster.join("n4")
        out, error = run("keyspace_members", "add", "n4", "--location", place(cluster))
        assert error is None and "n4 is a voter now." in out and "! There are 4 voters" in out
        assert members(cluster) == dict.fromkeys(("n1", "n2", "n3", "n4"), "voter")

        gone = next(name for name in ("n1", "n2", "n3") if name != target)
        out, error = run("keyspace_members", "remove", gone, "--location", place(cluster))
        assert error is None and f"{gone} is no member any more" in out
        left = {"n1", "n2", "n3", "n4"} - {gone}
        assert set(members(cluster)) == left

        # Without a majority nobody leads, nothing is changed, and it is said why.
        for name in sorted(left - {"n4"}):
            cluster.nodes[name].kill()
        cluster.nodes[gone].kill()
        state = await_state(cluster, lambda found: "no link to" in (status_of(found, "n4")["no_leader"] or ""))
        assert state["leader"] is None and "1 of 3 voters answer, and a majority is 2." in state["no_leader"]
        assert "No node leads." in (run("keyspace_status", "--location", place(cluster))[1] or "")


def leader_of(state: dict[str, Any]) -> dict[str, Any]:
    return status_of(state, state["leader"])


def status_of(state: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(node["status"] for node in state["nodes"] if node["name"] == name)
    return found


def connected(state: dict[str, Any]) -> bool:
    return all(
        node["status"] is not None and all(member["is_connected"] for member in node["status"]["members"])
        for node in state["nodes"]
    )


def test_a_cluster_that_lost_its_majority_is_recovered(tmp_path: Path) -> None:
    with running_cluster(3, data=tmp_path / "old", election_timeout_ms=ELECTION_MS) as cluster:
        for number in range(20):
            put(cluster, f"k{number}", "x")
        await_state(cluster, lambda found: all(node["lag"] == 0 for node in found["nodes"]))
        folder, address = cluster.nodes["n1"].data, cluster.nodes["n1"].address
        error = run("keyspace_recover", "--data", str(folder), "--to", str(tmp_path / "new"), "--yes")[1]
        assert error is not None and "is in use by node n1" in error
        cluster.nodes["n1"].stop()
        error = run("keyspace_recover", "--data", str(folder), "--to", str(tmp_path / "new"), "--yes")[1]
        assert error is not None and "n2, n3 and this node are a majority of the 3 voters" in error
        cluster.nodes["n2"].kill()
        error = run("keyspace_recover", "--data", str(folder), "--to", str(tmp_path / "new"), "--yes")[1]
        assert error is not None and "n3 and this node are a majority of the 3 voters" in error
        assert not (tmp_path / "new").exists()
        cluster.nodes["n3"].kill()
        found = json.loads(run("keyspace_recover", "--data", str(folder), "--look", "--json")[0])
        out, error = run("keyspace_recover", "--data", str(folder), "--to", str(tmp_path / "new"), "--yes")
        assert error is None and f"up to entry {found['last_index']:,}" in out and "What may be lost" in out
        with running_node(data=tmp_path / "new", node_id="n1", listen=address) as node:
            recovered = RecoveredCluster(node)
            assert await_found(recovered.has_leader)
            assert all(recovered.ask("exists", 0, f"k{number}".encode()) for number in range(20))
            assert members(recovered) == {"n1": "voter"}
            with running_node(node_id="n2", listen=cluster.addresses["n2"], join=address):
                out, error = run("keyspace_members", "promote", "n2", "--location", place(recovered))
                assert error is None and members(recovered) == {"n1": "voter", "n2": "voter"}


class RecoveredCluster:
    """One node that makes a cluster by itself."""

    def __init__(self, node: Any) -> None:
        self.node = node
        self.location = node.location

    def ask(self, *call: Any) -> Any:
        return ask_node(self.node, *call)

    def has_leader(self) -> bool | None:
        return self.ask("members")["leader"] == "n1" or None

"""What operators ask of a node: what it says of itself, and the changes that it makes or refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from django_keyspace.exceptions import ChangeRefused, KeyspaceError, NotLeader, NotSupported
from django_keyspace.node.control import Control, find_member, why_no_leader
from django_keyspace.node.metrics import Metrics
from django_keyspace.node.raft import ADD, Change, make_membership
from tests.node.replicas import Cluster, Node, incr


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    made.start()
    yield made
    made.close()


def control_of(node: Node | None, tmp_path: Path, connected: list[str] | None = None) -> Control:
    """The control of a node, behind a server that serves nobody."""
    served: Any = SimpleNamespace(
        config=SimpleNamespace(node_id=node.name if node else "n1", data=str(tmp_path)),
        log=node.runtime if node else object(),
        store=SimpleNamespace(read=lambda name: node.machine.read(0, name) if node else {}),
        metrics=Metrics(),
        address="127.0.0.1:7001",
        draining=False,
        connections=set(),
    )
    served.metrics.requests.update({"get": 5, "set": 2, "incr": 1, "node_status": 9})
    if node is None:
        served.store.read = lambda name: {
            "records": 1,
            "used_bytes": 2,
            "max_bytes": 3,
            "file_bytes": 4,
            "readers": 5,
            "more": 6,
        }
    control = Control(served)
    if node is not None:
        others = [one.id for one in node.cluster if one is not node] if connected is None else connected
        control.links = SimpleNamespace(connected=lambda: others, entry_versions=dict.fromkeys(others, 1), removed=None)
    return control


async def ask(control: Control, *call: Any, cluster: Cluster | None = None) -> Any:
    """The answer to a request."""
    found: list[Any] = []
    control.answer(call, found.append)
    assert not found, "the answer comes in a later turn of the loop"
    for _ in range(3):
        await asyncio.sleep(0)
    if not found and cluster is not None:
        # It is called in virtual time, and handed on by the real loop.
        for _ in range(1_000):
            cluster.run(10)
            await asyncio.sleep(0)
            if found:
                break
    [[result]] = found
    if isinstance(result, KeyspaceError):
        raise result
    return result


async def test_a_node_that_runs_alone(tmp_path: Path) -> None:
    control = control_of(None, tmp_path)
    status = await ask(control, "node_status")
    assert (status["node"], status["role"], status["cluster"], status["address"]) == (
        "n1",
        "alone",
        None,
        "127.0.0.1:7001",
    )
    assert status["requests"] == {"reads": 5, "writes": 3}
    assert status["store"] == {"records": 1, "used_bytes": 2, "max_bytes": 3, "file_bytes": 4, "readers": 5}
    assert status["disk_free_bytes"] > 0 and status["no_leader"] is None and "term" not in status
    for call in (("change_member", "promote", "n2"), ("transfer_leadership", None)):
        with pytest.raises(NotSupported, match=r"runs alone.*Nothing was changed"):
            await ask(control, *call)


async def test_the_leader_and_a_follower(cluster: Cluster, tmp_path: Path) -> None:
    leader = cluster.leader()
    leader.write(incr())
    cluster.settle()
    follower = cluster.followers()[0]
    said = await ask(control_of(leader, tmp_path), "node_status")
    assert (said["role"], said["leader"], said["member_id"]) == ("leader", leader.name, leader.id)
    assert said["last_index"] == said["commit"] == said["applied"] == said["stable"] == leader.machine.applied_index
    assert said["last_term"] == said["term"] and said["no_leader"] is None and said["heard_ms_ago"] <= 1_000
    assert [(one["name"], one["role"], one["address"], one["lag"]) for one in said["members"]] == [
        (name, "voter", f"{name}:1", 0) for name in ("n1", "n2", "n3")
    ]
    others = [one for one in said["members"] if one["name"] != leader.name]
    assert all(one["flow"] == "replicate" and one["heard_ms_ago"] <= 1_000 and one["is_connected"] for one in others)
    said = await ask(control_of(follower, tmp_path, connected=[leader.id]), "node_status")
    assert (said["role"], said["leader"], said["leader_address"]) == ("follower", leader.name, f"{leader.name}:1")
    assert {one["lag"] for one in said["members"]} == {None, 0}
    assert sum(one["is_connected"] for one in said["members"]) == 2
    assert said["store"]["records"] == 1


async def test_a_member_is_promoted_and_removed(cluster: Cluster, tmp_path: Path) -> None:
    leader, learner = cluster.leader(), cluster.add("n4")
    cluster.change(Change(ADD, learner.id, '{"name": "n4", "address": "n4:1"}'))
    learner.start()
    cluster.settle()
    assert (await ask(control_of(learner, tmp_path), "node_status"))["role"] == "learner"
    control = control_of(leader, tmp_path)
    cluster.until(lambda: control.status()["members"][-1]["lag"] == 0)
    assert await ask(control, "change_member", "promote", "n4", cluster=cluster) is None
    assert learner.id in leader.runtime.raft.membership.voters
    with pytest.raises(ChangeRefused, match="is not a learner"):
        await ask(control, "change_member", "promote", "n4")
    assert await ask(control, "change_member", "remove", learner.id, cluster=cluster) is None
    assert leader.runtime.raft.membership.members == cluster.membership.voters
    with pytest.raises(ChangeRefused, match="There is no member 'n4'; there are n1, n2, n3"):
        await ask(control, "change_member", "remove", "n4")


async def test_a_leader_that_removes_itself_hears_of_it_and_another_one_leads(cluster: Cluster, tmp_path: Path) -> None:
    leader = cluster.leader()
    assert await ask(control_of(leader, tmp_path), "change_member", "remove", leader.name, cluster=cluster) is None
    successor = cluster.leader(leader)
    assert leader.id not in successor.runtime.raft.membership.members
    assert (await ask(control_of(leader, tmp_path), "node_status"))["role"] == "removed"


async def test_a_change_that_would_lose_the_quorum_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    leader = cluster.leader()
    gone, other = cluster.followers()
    gone.end()
    cluster.run(1_500)
    with pytest.raises(ChangeRefused, match=r"too few answer to decide anything. Nothing was changed"):
        await ask(control_of(cluster.leader(), tmp_path), "change_member", "remove", other.name)
    assert cluster.leader() is leader


async def test_only_the_leader_changes_something(cluster: Cluster, tmp_path: Path) -> None:
    leader, follower = cluster.leader(), cluster.followers()[0]
    for call in (
        ("change_member", "remove", "n1"),
        ("change_member", "promote", "nobody"),
        ("transfer_leadership", None),
    ):
        with pytest.raises(NotLeader) as caught:
            await ask(control_of(follower, tmp_path), *call)
        assert caught.value.address == f"{leader.name}:1"


async def test_leadership_is_handed_over(cluster: Cluster, tmp_path: Path) -> None:
    leader, follower = cluster.leader(), cluster.followers()[1]
    control = control_of(leader, tmp_path)
    assert await ask(control, "transfer_leadership", leader.name) is None
    assert cluster.leader() is leader
    assert await ask(control, "transfer_leadership", follower.name, cluster=cluster) is None
    assert cluster.leader() is follower
    with pytest.raises(ChangeRefused, match="There is no member 'n9'"):
        await ask(control_of(follower, tmp_path), "transfer_leadership", "n9")


async def test_why_a_node_knows_of_no_leader(cluster: Cluster, tmp_path: Path) -> None:
    follower = cluster.followers()[0]
    cluster.cut(follower.name)
    cluster.until(lambda: follower.runtime.raft.leader is None)
    others = [node.id for node in cluster if node is not follower]
    said = await ask(control_of(follower, tmp_path, connected=[]), "node_status")
    assert said["leader"] is None and said["role"] in ("follower", "pre-candidate", "candidate")
    assert "1 of 3 voters are not a majority of 2" in said["no_leader"]
    said = await ask(control_of(follower, tmp_path, connected=others), "node_status")
    assert said["no_leader"].startswith("An election is under way")


async def test_a_node_that_was_told_that_it_is_removed(cluster: Cluster, tmp_path: Path) -> None:
    control = control_of(cluster.followers()[0], tmp_path)
    control.links.removed = "Node n2 was removed."
    said = await ask(control, "node_status")
    assert (said["role"], said["leader"], said["no_leader"]) == ("removed", None, "Node n2 was removed.")


def test_why_in_other_cases() -> None:
    def why(node: str, connected: list[str], *, is_full: bool = False, **parts: Any) -> str:
        membership = make_membership(parts.get("voters", ()), parts.get("learners", ()), parts.get("retired", ()))
        core = SimpleNamespace(node=node, membership=membership, vote="", term=3)
        status: Any = SimpleNamespace(core=core, is_full=is_full)
        return why_no_leader(status, connected)

    voters = ["n1.1", "n2.2", "n3.3"]
    assert "has joined" in why("n4.4", [])
    assert "removed" in why("n4.4", voters, voters=voters, retired=["n4.4"])
    assert "learner" in why("n4.4", voters, voters=voters, learners=["n4.4"])
    assert "disk is full" in why("n1.1", ["n2.2"], voters=voters, is_full=True)
    assert "no link to n1, n2: 1 of 3 voters" in why("n4.4", ["n3.3"], voters=voters, learners=["n4.4"])
    assert "in term 3, it has not voted" in why("n1.1", ["n2.2"], voters=voters)


def test_a_member_is_found_by_name_and_by_id() -> None:
    membership = make_membership(["n1.1", "n3.old"], ["n3.new"])
    everybody = membership.members
    assert find_member(membership, "n1", everybody) == find_member(membership, "n1.1", everybody) == "n1.1"
    assert find_member(membership, "n3", membership.learners) == "n3.new"
    assert find_member(membership, "n3", membership.voters) == "n3.old"
    with pytest.raises(ChangeRefused, match=r"2 members have the name 'n3': n3.old, n3.new. Nothing was changed"):
        find_member(membership, "n3", everybody)

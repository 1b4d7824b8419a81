"""Three real nodes: they form a cluster, survive what they have to, and let in nobody whom they must not."""

from __future__ import annotations

import json
import shutil
from typing import Any
from urllib.request import urlopen

import pytest

from django_keyspace.exceptions import NotLeader
from django_keyspace.testing import RunningCluster, RunningNode

from .helpers import await_copy, await_log, await_true, do, has, put, value


def members(cluster: RunningCluster, name: str) -> dict[str, Any]:
    found: dict[str, Any] = cluster.ask(name, "members")
    return found


def test_three_nodes_know_each_other_and_one_leads(cluster: RunningCluster) -> None:
    views = [members(cluster, name) for name in ("n1", "n2", "n3")]
    assert len({view["cluster"] for view in views}) == 1
    for view in views:
        assert [(node["name"], node["address"], node["role"]) for node in view["nodes"]] == [
            (name, cluster.addresses[name], "voter") for name in ("n1", "n2", "n3")
        ]
    facts = cluster.nodes["n2"].facts
    assert facts["cluster"] == views[0]["cluster"]
    assert facts["member"].startswith("n2.")
    assert facts["members"] == "n1, n2, n3"


def test_the_leader_writes_and_the_others_name_it(cluster: RunningCluster) -> None:
    leader = cluster.leader()
    put(cluster, "written", "here")
    for follower in cluster.followers():
        await_copy(cluster, follower.node_id, "written")
        for call in (("set", 0, b"refused", value("x"), None, "always"), ("get", 0, b"written")):
            with pytest.raises(NotLeader, match=f"node {leader.node_id} at {leader.address} does"):
                cluster.ask(follower.node_id, *call)
    assert do(cluster, "exists", 0, b"refused") is False


def page(node: RunningNode, path: str) -> str:
    with urlopen(f"{node.facts['http'].removesuffix('/status')}{path}", timeout=30) as answer:
        return str(answer.read().decode())


def test_operators_see_role_term_and_lag(cluster: RunningCluster) -> None:
    leader, follower = cluster.leader(), cluster.followers()[0]
    put(cluster, "seen", "x")
    await_copy(cluster, follower.node_id, "seen")
    status = {node.node_id: json.loads(page(node, "/status"))["cluster"] for node in (leader, follower)}
    of_leader, of_follower = status[leader.node_id], status[follower.node_id]
    assert (of_leader["role"], of_follower["role"]) == ("leader", "follower")
    assert of_leader["leader"] == of_follower["leader"] == leader.node_id
    assert of_leader["term"] == of_follower["term"]
    assert {member["name"]: member["lag"] is not None for member in of_leader["members"]} == dict.fromkeys(
        cluster.nodes, True
    )
    assert page(leader, "/readyz") == page(follower, "/readyz") == "ready\n"
    metrics = page(leader, "/metrics")
    for line in ('keyspace_cluster_role{role="leader"} 1', "keyspace_cluster_has_leader 1"):
        assert line in metrics
    for name in ("term", "commit", "applied", "log_ms"):
        assert f"\nkeyspace_cluster_{name} " in metrics
    assert f'keyspace_cluster_lag{{member="{follower.node_id}"}} ' in metrics


def test_a_killed_leader_is_replaced_and_nothing_is_lost(cluster: RunningCluster) -> None:
    leader = cluster.leader()
    for number in range(50):
        put(cluster, f"before {number}", "x")
    leader.kill()
    successor = cluster.leader(other_than=leader.node_id)
    put(cluster, "after", "x")
    assert all(do(cluster, "exists", 0, f"before {number}".encode()) for number in range(50))
    leader.start()
    await_copy(cluster, leader.node_id, "after")
    assert members(cluster, leader.node_id)["cluster"] == members(cluster, successor.node_id)["cluster"]


def test_without_a_majority_nothing_is_done(cluster: RunningCluster) -> None:
    leader = cluster.leader()
    for node in cluster.nodes.values():
        if node is not leader:
            node.kill()
    # Its log may say that it has stepped down from an earlier occasion.
    await_true(lambda: members(cluster, leader.node_id)["leader"] is None, "it sees that it leads nobody")
    with pytest.raises(NotLeader):
        cluster.ask(leader.node_id, "set", 0, b"alone", value("x"), None, "always")
    cluster.start()
    cluster.leader()
    assert do(cluster, "exists", 0, b"alone") is False


def test_all_nodes_are_killed_at_once_and_come_back(cluster: RunningCluster) -> None:
    put(cluster, "kept", "x")
    before = members(cluster, "n1")
    for node in cluster.nodes.values():
        node.kill()
    cluster.start()
    cluster.leader()
    assert do(cluster, "exists", 0, b"kept") is True
    assert members(cluster, "n1")["cluster"] == before["cluster"]


def test_a_leader_that_is_told_to_stop_hands_over_first(cluster: RunningCluster) -> None:
    put(cluster, "kept", "x")
    leader = cluster.leader()
    for name in cluster.nodes:
        await_copy(cluster, name, "kept")
    assert leader.stop() == 0
    assert "has handed leadership over" in leader.errors()
    successor = cluster.leader()
    assert successor is not leader
    leader.start()


def edited(running: RunningNode, **fields: Any) -> dict[str, Any]:
    """Change a stopped node's identity file, and return what it held."""
    file = running.data / "node.json"
    before: dict[str, Any] = json.loads(file.read_text())
    file.write_text(json.dumps(before | fields))
    return before


def test_a_node_of_another_cluster_is_refused(cluster: RunningCluster) -> None:
    node = cluster.followers()[0]
    node.stop()
    before = edited(node, cluster="0123456789abcdef")
    node.start()
    await_log(cluster, node.node_id, "they have nothing to do with each other")
    leader = cluster.leader()
    await_log(cluster, leader.node_id, "is of cluster 0123456789abcdef")
    put(cluster, "without it", "x")
    assert not has(cluster, node.node_id, "without it")
    node.stop()
    edited(node, **before)
    node.start()
    await_copy(cluster, node.node_id, "without it")


def test_a_node_with_another_secret_is_refused(cluster: RunningCluster) -> None:
    node = cluster.followers()[0]
    node.stop()
    right = node.options["secret"]
    node.options["secret"] = "another secret of that length"
    node.start()
    await_log(cluster, node.node_id, "The secret of node")
    put(cluster, "secret", "x")
    assert not has(cluster, node.node_id, "secret")
    node.stop()
    node.options["secret"] = right
    node.start()
    await_copy(cluster, node.node_id, "secret")


def test_a_wiped_node_is_refused_and_joins_again(cluster: RunningCluster) -> None:
    node = cluster.followers()[0]
    name = node.node_id
    put(cluster, "before the wipe", "x")
    old = json.loads((node.data / "node.json").read_text())
    node.kill()
    shutil.rmtree(node.data)
    node.launch()
    assert node.wait(30) == 1
    refusal = node.errors()
    assert "as if it had forgotten nothing" in refusal
    assert f"--id {name}" in refusal
    assert "--join" in refusal
    again = cluster.rejoin(name)
    await_copy(cluster, name, "before the wipe")
    found = {row["name"]: row["role"] for row in members(cluster, cluster.leader().node_id)["nodes"]}
    assert found[name] == "learner"
    assert len(found) == 3
    new = json.loads((again.data / "node.json").read_text())
    assert new["incarnation"] != old["incarnation"]
    assert new["cluster"] == old["cluster"]
    # A restart does not join once more, and the copy stays.
    again.kill()
    again.start()
    await_copy(cluster, name, "before the wipe")


def test_a_learner_joins_and_a_removed_node_is_told(cluster: RunningCluster) -> None:
    learner = cluster.join("n9")
    put(cluster, "for the learner", "x")
    await_copy(cluster, "n9", "for the learner")
    leader = cluster.leader()
    assert cluster.ask(leader.node_id, "change_member", "remove", "n9") is None
    await_log(cluster, "n9", "was removed from cluster")
    assert "--join" in learner.errors()
    learner.kill()
    learner.start()
    await_log(cluster, "n9", "its id is never used again")
    assert learner.stop() == 0
    del cluster.nodes["n9"], cluster.addresses["n9"]
    cluster.leader()

"""A cluster that only answers operators: what its nodes say, and what changes of the members do to that."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from django_keyspace.addresses import Endpoint
from django_keyspace.exceptions import ChangeRefused, NoConnection, NotLeader, NotSupported
from django_keyspace.management import nodes
from django_keyspace.management.diagnosis import Answer, Answers

LOCATION = "keyspace://127.0.0.1:7001,127.0.0.1:7002,127.0.0.1:7003"


def address_of(name: str) -> str:
    return f"127.0.0.1:{7000 + int(name[1:])}"


def member(name: str, role: str = "voter", **facts: Any) -> dict[str, Any]:
    """A member as a leader knows it."""
    found = {
        "name": name,
        "id": f"{name}.0000000{name[1:]}",
        "role": role,
        "address": address_of(name),
        "is_connected": True,
        "entry_version": 1,
        "match": 100,
        "lag": 0,
        "flow": "replicate",
        "heard_ms_ago": 10,
    }
    return found | facts


def status(name: str, role: str = "follower", **facts: Any) -> dict[str, Any]:
    """What a node of a cluster of three says."""
    found = {
        "node": name,
        "role": role,
        "cluster": "c1",
        "address": address_of(name),
        "release": "0.1.0",
        "protocol": 1,
        "entry_version": 1,
        "process": 1000 + int(name[1:]),
        "uptime_ms": 7_500_000,
        "is_draining": False,
        "connections": 1,
        "requests": {"reads": 0, "writes": 0},
        "disk_free_bytes": 10 * 2**30,
        "store": {"records": 5, "used_bytes": 4096, "max_bytes": 2**30, "file_bytes": 8192, "readers": 1},
        "no_leader": None,
        "member_id": f"{name}.0000000{name[1:]}",
        "term": 3,
        "vote": "n1",
        "leader": "n1",
        "leader_address": address_of("n1"),
        "commit": 100,
        "applied": 100,
        "stable": 100,
        "first_index": 1,
        "last_index": 100,
        "last_term": 3,
        "heard_ms_ago": 0,
        "log_ms": 1_800_000_000_000,
        "pending_writes": 0,
        "is_full": False,
        "snapshots": [],
        "handing_over_to": None,
        "election_timeout_ms": 400,
        "promote_lag_max": 1000,
        "members": [member("n1"), member("n2"), member("n3")],
    }
    return found | facts


def alone(name: str = "n1") -> dict[str, Any]:
    """What a node says that runs alone."""
    cluster_facts = status(name).keys() - {"node", "role", "cluster", "address", "release", "protocol", "entry_version"}
    kept = {"process", "uptime_ms", "is_draining", "connections", "requests", "disk_free_bytes", "store", "no_leader"}
    found = {key: value for key, value in status(name).items() if key not in cluster_facts - kept}
    return found | {"role": "alone", "cluster": None}


def answers_of(*found: dict[str, Any] | str) -> Answers:
    """What ``ask_all`` makes of statuses, and of the names of nodes that do not answer."""
    made = []
    for one in found:
        if isinstance(one, str):
            endpoint = nodes.endpoint_of(address_of(one))
            made.append(Answer(endpoint, None, NoConnection("Nobody is there."), one, f"{one}.0000000{one[1:]}"))
        else:
            endpoint = nodes.endpoint_of(one["address"])
            made.append(Answer(endpoint, one, None, one["node"], one.get("member_id") or one["node"]))
    return Answers(made)


class FakeCluster:
    """Three nodes, n1 leads. Put it in the place of the network with :meth:`install`.

    Attributes:
        statuses: by name; a node without one does not answer.
        asked: the changes that were asked for, with whom.
        before_asking: called before each question; may change anything.
        refusals: errors that the leader answers changes with, one after the other.
    """

    def __init__(self) -> None:
        self.statuses = {"n1": status("n1", "leader"), "n2": status("n2"), "n3": status("n3")}
        self.asked: list[tuple[Any, ...]] = []
        self.before_asking: Callable[[FakeCluster], None] = lambda cluster: None
        self.refusals: list[Exception] = []

    def install(self, patch: pytest.MonkeyPatch) -> FakeCluster:
        patch.setattr(nodes, "ask_node", self.ask)
        patch.setattr(nodes, "LOOK_AGAIN_S", 0.001)
        patch.setattr("django_keyspace.management.commands.keyspace_members.LOOK_AGAIN_S", 0.001)
        return self

    def ask(self, endpoint: Endpoint, security: Any, name: str, *arguments: Any, timeout_ms: int = 0) -> Any:
        self.before_asking(self)
        who = next((one for one in self.statuses if self.statuses[one]["address"] == str(endpoint)), None)
        if who is None:
            raise NoConnection(f"No node answers at {endpoint}.")
        if name == "node_status":
            return copy.deepcopy(self.statuses[who])
        self.asked.append((who, name, *arguments))
        if self.statuses[who]["role"] == "alone":
            raise NotSupported(f"Node {who} runs alone. Nothing was changed.")
        if self.statuses[who]["role"] != "leader":
            raise NotLeader(f"Node {who} does not lead.", address=self.statuses[who]["leader_address"])
        if self.refusals:
            raise self.refusals.pop(0)
        return getattr(self, name)(*arguments)

    def members(self) -> list[dict[str, Any]]:
        return self.statuses["n1"]["members"]

    def change_member(self, change: str, name: str) -> None:
        found = [one for one in self.members() if name in (one["name"], one["id"])]
        if not found:
            raise ChangeRefused(f"There is no member {name}. Nothing was changed.")
        for facts in self.statuses.values():
            for one in list(facts["members"]):
                if one["id"] == found[0]["id"]:
                    if change == "remove":
                        facts["members"].remove(one)
                    else:
                        one["role"] = "voter"

    def transfer_leadership(self, name: str | None) -> None:
        target = name or "n2"
        for one, facts in self.statuses.items():
            facts["role"] = "leader" if one == target else "follower"
            facts |= {"leader": target, "leader_address": address_of(target), "term": 4}

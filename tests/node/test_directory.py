"""What a node says that has no room, and of whom."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from django_keyspace.exceptions import NoSpace, NotLeader
from django_keyspace.node.directory import Directory
from django_keyspace.node.raft import Membership

PATIENCE_MS = 2_000


class Bench:
    """A node of three, and its clock."""

    def __init__(self) -> None:
        self.now_ms = 0
        raft = SimpleNamespace(membership=Membership(("n1.a", "n2.b", "n3.c")), leader=None)
        self.core: Any = SimpleNamespace(node="n1.a", name="n1", cluster="c", raft=raft, is_full=False)
        self.directory = Directory(self.core, self, PATIENCE_MS)

    def monotonic_ms(self) -> int:
        return self.now_ms

    def wall_ms(self) -> int:
        return self.now_ms


def test_rule_43_a_node_that_waits_for_room_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    with caplog.at_level(logging.ERROR, "django_keyspace.node"):
        for _ in range(3):
            bench.directory.waits_for_room(NoSpace("There is no room for a file."))
    assert bench.core.is_full
    assert caplog.messages == ["There is no room for a file. Node n1.a waits until there is room."]


def test_rule_43_who_has_no_room_names_who_leads_or_may_soon() -> None:
    bench = Bench()
    bench.directory.set_full(True)
    assert isinstance(bench.directory.no_room(), NotLeader), "the others are electing one"
    bench.now_ms = PATIENCE_MS
    assert isinstance(bench.directory.no_room(), NoSpace), "nobody was elected"
    bench.core.raft.leader = "n2.b"
    error = bench.directory.no_room()
    assert isinstance(error, NotLeader) and error.leader == "n2.b" and "Its disk is full" in str(error)

"""The consensus core over journals: three nodes whose power goes out, one after the other and all at once."""

from __future__ import annotations

from random import Random

import pytest

from django_keyspace.node.journal import Batch
from django_keyspace.node.raft import Raft
from django_keyspace.node.raft.errors import Refused
from django_keyspace.node.raft.messages import COMMANDS
from tests.journal.helpers import MEMBERS, log_of, open_journal
from tests.sim.disk import SimDisk


class Node:
    """A core, its journal and its disk; what it has applied is gone with a power cut and is applied again."""

    def __init__(self, name: str, seed: int) -> None:
        self.name, self.random = name, Random(f"{name} {seed}")
        self.disk = SimDisk(self.random)
        self.start()

    def start(self) -> None:
        self.journal = open_journal(self.disk, segment_bytes=2048)
        self.raft = Raft(self.name, self.journal, self.random)
        self.applied: list[bytes] = []

    def cut_power(self) -> None:
        self.disk.crash()
        self.start()


class Cluster:
    def __init__(self, seed: int) -> None:
        self.nodes = {name: Node(name, seed) for name in MEMBERS.voters}
        self.random = Random(seed)

    def turn(self) -> None:
        """One tick everywhere, and everything that follows from it; some messages are lost."""
        for node in self.nodes.values():
            node.raft.tick()
        busy = True
        while busy:
            busy = False
            for node in self.nodes.values():
                while (ready := node.raft.ready()) is not None:
                    busy = True
                    node.journal.append([Batch(ready.hard_state, ready.entries)])
                    if ready.must_sync:
                        node.raft.persisted(ready.number)
                    for entry in ready.committed:
                        node.applied += [entry.data] if entry.kind == COMMANDS else []
                    if ready.committed:
                        node.raft.applied(ready.committed[-1].index)
                    for message in ready.messages:
                        if self.random.random() < 0.97:
                            self.nodes[message.to].raft.step(message)

    def propose(self, data: bytes) -> bool:
        for node in self.nodes.values():
            try:
                node.raft.propose(data)
                return True
            except Refused:
                continue
        return False


@pytest.mark.parametrize("seed", range(8))
def test_what_was_committed_survives_every_power_cut(seed: int) -> None:
    cluster = Cluster(seed)
    acknowledged: list[bytes] = []
    for turn in range(600):
        cluster.turn()
        cluster.propose(b"%d" % turn)
        longest = max((node.applied for node in cluster.nodes.values()), key=len)
        assert longest[: len(acknowledged)] == acknowledged[: len(longest)]
        acknowledged = max(acknowledged, longest, key=len)
        if cluster.random.random() < 0.03:
            victims = cluster.random.choice([list(cluster.nodes), [cluster.random.choice(list(cluster.nodes))]])
            for name in victims:
                cluster.nodes[name].cut_power()
    for _ in range(200):
        cluster.turn()
    logs = [log_of(node.journal) for node in cluster.nodes.values()]
    for node, log in zip(cluster.nodes.values(), logs, strict=True):
        assert node.applied[: len(acknowledged)] == acknowledged
        commit = node.journal.hard_state().commit
        assert log[:commit] == logs[0][:commit], "equal logs up to what is committed"
    assert len(acknowledged) > 100

"""Random schedules: one integer seed decides who ticks, what arrives, what is lost, who crashes and what clients ask.

The checks are in :mod:`.cluster`; a schedule ends with a healed cluster that has to make progress. Time passes at all nodes
alike, tick by tick, as the bound on clock drift demands for leases; a paused node gets its missed ticks when it wakes, before
anything else. In between, everything happens in any order.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from django_keyspace.node.raft import ADD, PROMOTE, REMOVE, Change, Refused, Role

from .cluster import Cluster, Letter, Violated

STEPS = 1_000
NAMES = ("n1", "n2", "n3", "n4", "n5")


class Schedule:
    """One run.

    Arguments:
        seed: decides everything.
        steps: how many things happen before the cluster is healed.
        settings: of :class:`Config`, in place of what the seed chooses.
    """

    def __init__(self, seed: int, steps: int = STEPS, **settings: object) -> None:
        self.random = random.Random(seed)
        self.steps = steps
        size = self.random.choice((1, 2, 3, 3, 3, 4, 5, 5))
        chosen = {
            "pre_vote": self.random.random() < 0.8,
            "append_entries_max": self.random.choice((1, 3, 100)),
            "inflight_messages_max": self.random.choice((1, 2, 8)),
            "lease_drift_max": 0.1,
            "snapshot_ticks": 20,
            **settings,
        }
        self.cluster = Cluster(NAMES[:size], seed, **chosen)
        self.missed: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.number = 0
        self.actions: list[tuple[float, Callable[[], object]]] = [
            (25, self.pass_time),
            (120, self.work_somewhere),
            (200, self.deliver_something),
            (6, self.double),
            (3, self.lose),
            (1, self.cut_link),
            (0.5, self.partition),
            (2, self.heal),
            (1, self.crash),
            (5, self.restart),
            (1, self.pause),
            (5, self.resume),
            (1, self.slow_disk),
            (12, self.write_disk),
            (16, self.propose),
            (8, self.read),
            (2, self.transfer),
            (6, self.change),
            (4, self.snapshot),
            (1, self.unreachable),
        ]

    def run(self) -> Counter[str]:
        """Do it all. Raises :class:`Violated`, or what a core raises."""
        weights = [weight for weight, _ in self.actions]
        acts = [act for _, act in self.actions]
        for act in self.random.choices(acts, weights, k=self.steps):
            if act() is not False:
                self.counts[act.__name__] += 1
        self.finish()
        return self.counts

    # --- Who and what -------------------------------------------------------------------------------------------------

    def some_node(self) -> str:
        return self.random.choice(list(self.cluster.nodes))

    def running(self, name: str) -> bool:
        node = self.cluster.nodes[name]
        return node.up and not node.paused

    def some_leader(self) -> str | None:
        """Mostly somebody who believes to lead."""
        leaders = [name for name in self.cluster.nodes if self.running(name) and self.cluster[name].role is Role.LEADER]
        return self.random.choice(leaders) if leaders else None

    # --- Time, network, disks -----------------------------------------------------------------------------------------

    def pass_time(self) -> None:
        names = list(self.cluster.nodes)
        self.random.shuffle(names)
        for name in names:
            if self.running(name):
                self.cluster.tick(name)
            else:
                self.missed[name] += 1

    def work_somewhere(self) -> bool:
        return self.cluster.work(self.some_node()) is not None

    def deliver_something(self) -> bool:
        """Mostly the oldest message, sometimes any."""
        wire = self.cluster.wire
        if not wire:
            return False
        letter = wire.pop(0 if self.random.random() < 0.7 else self.random.randrange(len(wire)))
        node = self.cluster.nodes[letter.message.to]
        if node.paused:
            wire.append(letter)
            return False
        arrived = self.cluster.deliver(letter)
        if letter.payload is not None and arrived and self.running(letter.message.sender):
            self.cluster[letter.message.sender].report_snapshot(letter.message.to, arrived=True)
        return True

    def double(self) -> bool:
        if not self.cluster.wire:
            return False
        letter = self.random.choice(self.cluster.wire)
        self.cluster.wire.append(Letter(letter.message, letter.payload))
        return True

    def lose(self) -> bool:
        if not self.cluster.wire:
            return False
        self.cluster.wire.pop(self.random.randrange(len(self.cluster.wire)))
        return True

    def cut_link(self) -> None:
        self.cluster.cut.add((self.some_node(), self.some_node()))

    def partition(self) -> None:
        names = list(self.cluster.nodes)
        self.random.shuffle(names)
        middle = self.random.randrange(len(names) + 1)
        self.cluster.partition(names[:middle], names[middle:])

    def heal(self) -> None:
        self.cluster.heal()

    def crash(self) -> None:
        self.cluster.crash(self.some_node())

    def restart(self) -> bool:
        down = [name for name, node in self.cluster.nodes.items() if not node.up]
        if not down:
            return False
        name = self.random.choice(down)
        self.missed[name] = 0
        self.cluster.restart(name)
        return True

    def pause(self) -> bool:
        name = self.some_node()
        if not self.running(name):
            return False
        self.cluster.nodes[name].paused = True
        return True

    def resume(self) -> bool:
        paused = [name for name, node in self.cluster.nodes.items() if node.paused]
        if not paused:
            return False
        name = self.random.choice(paused)
        self.cluster.nodes[name].paused = False
        self.cluster.tick(name, min(self.missed.pop(name, 0), 2 * self.cluster.config.election_ticks))
        return True

    def slow_disk(self) -> None:
        node = self.cluster.nodes[self.some_node()]
        node.slow_disk = not node.slow_disk

    def write_disk(self) -> bool:
        name = self.some_node()
        node = self.cluster.nodes[name]
        if not self.running(name) or not node.queue:
            return False
        self.cluster.write(name, self.random.randrange(1, len(node.queue) + 1))
        return True

    # --- Clients and operators ----------------------------------------------------------------------------------------

    def propose(self) -> bool:
        name = self.some_leader()
        if name is None:
            return False
        self.number += 1
        try:
            self.cluster[name].propose(b"%d" % self.number)
        except Refused:
            return False
        return True

    def read(self) -> bool:
        name = self.some_leader()
        if name is None:
            return False
        self.cluster.read(name, lease=self.random.random() < 0.5)
        return True

    def transfer(self) -> bool:
        name = self.some_leader()
        if name is None:
            return False
        try:
            self.cluster[name].transfer(self.random.choice([None, *self.cluster[name].membership.voters]))
        except Refused:
            return False
        return True

    def change(self) -> bool:
        name = self.some_leader()
        if name is None:
            return False
        membership = self.cluster[name].membership
        kind = self.random.choice((ADD, PROMOTE, PROMOTE, REMOVE))
        if kind == ADD:
            if len(membership.members) >= len(NAMES):
                return False
            target = f"n{len(self.cluster.nodes) + 1}"
        else:
            candidates = membership.learners if kind == PROMOTE else membership.members
            if not candidates:
                return False
            target = self.random.choice(candidates)
        try:
            self.cluster[name].propose_change(Change(kind, target))
        except Refused:
            return False
        if kind == ADD:
            self.cluster.add(target)
        return True

    def snapshot(self) -> bool:
        name = self.some_node()
        node = self.cluster.nodes[name]
        if not self.running(name) or node.queue or node.store_index <= node.storage.meta.index:
            return False
        try:
            self.cluster.snapshot(name, kept=self.random.choice((0, 2)))
        except Refused:
            return False
        return True

    def unreachable(self) -> bool:
        name = self.some_leader()
        if name is None:
            return False
        self.cluster[name].report_unreachable(self.some_node())
        return True

    # --- The end ------------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Mend everything; then a leader must be found, a write must pass, and all members must hold the same."""
        cluster = self.cluster
        cluster.heal()
        for name, node in cluster.nodes.items():
            if not node.up:
                cluster.restart(name)
            node.paused = node.slow_disk = False
            cluster.write(name)
        cluster.settle()
        for _ in range(60):
            cluster.run(5)
            name = self.some_leader()
            if name is not None:
                try:
                    entry = cluster[name].propose(b"last")
                except Refused:
                    continue
                cluster.run(5)
                if cluster.committed.get(entry.index) == entry:
                    break
        else:
            raise Violated("no progress after healing")
        cluster.run(30)
        members = set(cluster[cluster.leader()].membership.members)
        stores = {name: cluster.nodes[name].store for name in members}
        if any(store != stores[name] for store in stores.values()):
            raise Violated(f"the members hold different things: {stores}")
        if cluster.nodes[name].store[-1][2] != b"last":
            raise Violated("the last write is not the last one")

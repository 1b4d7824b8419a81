"""Random schedules: one integer seed decides who ticks, what arrives, what is lost, who crashes and what clients ask.

The checks are in :mod:`.cluster`; a schedule ends with a healed cluster that has to make progress. In half of the schedules
there are leases, and time passes at all nodes alike, tick by tick, as the bound on clock drift demands; a paused node gets its
missed ticks when it wakes, before anything else. In the other half clocks run as they like, and nobody notices a pause: safe
reads and everything else must hold there too. In between, everything happens in any order.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from django_keyspace.node.raft import ADD, PROMOTE, REMOVE, Change, Refused, Role

from .cluster import Cluster, Letter, Violated

STEPS = 600
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
        self.wild_clocks = self.random.random() < 0.5
        chosen = {
            "pre_vote": self.random.random() < 0.8,
            "append_entries_max": self.random.choice((1, 3, 100)),
            "inflight_messages_max": self.random.choice((1, 2, 8)),
            "lease_drift_max": None if self.wild_clocks else 0.1,
            "snapshot_ticks": 20,
            **settings,
        }
        self.cluster = Cluster(NAMES[:size], seed, **chosen)
        self.slow_clocks: set[str] = set()
        self.missed: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.number = 0
        self.actions: list[tuple[float, Callable[[], object]]] = [
            (25, self.pass_time),
            (90, self.work_somewhere),
            (120, self.deliver_something),
            (12, self.bustle),
            (5, self.depose),
            (6, self.double),
            (3, self.lose),
            (0.5, self.cut_link),
            (0.4, self.partition),
            (3, self.heal),
            (1, self.slow_clock),
            (0.8, self.crash),
            (6, self.restart),
            (1, self.pause),
            (5, self.resume),
            (0.6, self.slow_disk),
            (10, self.write_disk),
            (14, self.propose),
            (8, self.read),
            (2, self.transfer),
            (5, self.change),
            (4, self.snapshot),
            (1, self.unreachable),
        ]

    def run(self) -> Counter[str]:
        """Do it all. Raises :class:`Violated`, or what a core raises."""
        for _ in range(self.random.choice((0, 20, 25))):
            self.pass_time()
            self.bustle()
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

    def shuffled(self) -> list[str]:
        names = list(self.cluster.nodes)
        self.random.shuffle(names)
        return names

    def running(self, name: str) -> bool:
        node = self.cluster.nodes[name]
        return node.up and not node.paused

    def some_leader(self) -> str | None:
        """Mostly somebody who believes to lead."""
        leaders = [name for name in self.cluster.nodes if self.running(name) and self.cluster[name].role is Role.LEADER]
        return self.random.choice(leaders) if leaders else None

    # --- Time, network, disks -----------------------------------------------------------------------------------------

    def pass_time(self) -> None:
        for name in self.shuffled():
            if not self.running(name):
                self.missed[name] += 1
            elif not self.wild_clocks:
                self.cluster.tick(name)
            elif name not in self.slow_clocks or self.random.random() < 0.1:
                self.cluster.tick(name, self.random.randrange(3))

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
        names = self.shuffled()
        middle = self.random.randrange(len(names) + 1)
        self.cluster.partition(names[:middle], names[middle:])

    def heal(self) -> None:
        self.cluster.heal()

    def crash(self) -> None:
        name = self.some_node()
        queued = len(self.cluster.nodes[name].queue)
        self.cluster.crash(name, self.random.randrange(queued + 1), self.random.randrange(3))

    def restart(self) -> bool:
        down = [name for name, node in self.cluster.nodes.items() if not node.up]
        if not down:
            return False
        name = self.random.choice(down)
        self.missed[name] = 0
        self.cluster.restart(name)
        return True

    def slow_clock(self) -> bool:
        """A clock almost stands still, or goes on."""
        if not self.wild_clocks:
            return False
        self.slow_clocks ^= {self.some_leader() or self.some_node()}
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
        missed = min(self.missed.pop(name, 0), 2 * self.cluster.config.election_ticks)
        if not self.wild_clocks:
            self.cluster.tick(name, missed)
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

    def bustle(self) -> None:
        """Everybody works, and what is under way arrives, in any order, but for one message in twenty."""
        for name in self.shuffled():
            for _ in range(20):
                if self.cluster.work(name) is None:
                    break
        self.random.shuffle(self.cluster.wire)
        for _ in range(len(self.cluster.wire)):
            if self.random.random() < 0.95:
                self.deliver_something()

    def depose(self) -> bool:
        """A leader is cut off, perhaps with a minority, while it is asked for writes; for a while the others go on."""
        name = self.some_leader()
        if name is None:
            return False
        others = [other for other in self.shuffled() if other != name]
        with_it = others[: self.random.randrange(len(others) // 2 + 1)]
        if self.random.random() < 0.5:
            self.propose()
            self.bustle()
        self.cluster.partition([name, *with_it], others[len(with_it) :])
        self.cluster.nodes[name].slow_disk = self.random.random() < 0.3
        for _ in range(self.random.randrange(4)):
            self.propose()
        for _ in range(self.random.randrange(40)):
            self.pass_time()
            self.bustle()
            if self.random.random() < 0.2:
                self.propose()
                self.read()
            if self.random.random() < 0.02:
                self.crash()
        if self.random.random() < 0.5:
            self.heal()
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

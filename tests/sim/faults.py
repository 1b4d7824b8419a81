"""The evil spirit: from time to time it does something to the network, a disk, a clock, a process, or to the members.

Each method does one thing, and returns False if it cannot be done now. What it breaks mends itself after a while, or at the end
of the trouble. One rule keeps it honest: at most one disk at a time is lost or changed, until its node has been replaced,
since nobody promises to survive more than that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_keyspace.exceptions import KeyspaceError
from tests.sim.network import Weather

if TYPE_CHECKING:
    from tests.sim.cluster import SimCluster
    from tests.sim.node import SimNode


class Spirit:
    """Does one bad thing after the other.

    Arguments:
        cluster: to whom.
    """

    def __init__(self, cluster: SimCluster) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.random = cluster.world.random("spirit")
        self.profile = cluster.plan.profile
        self.rests = False
        cluster.network.weather = self.profile.weather
        self.names = list(self.profile.faults)
        self.weights = list(self.profile.faults.values())
        self.wait()

    def wait(self) -> None:
        """Until the next thing."""
        delay_us = int(self.random.expovariate(1.0) * self.profile.fault_every_ms * 1000)
        self.world.at(delay_us, None, self.act)

    def act(self) -> None:
        """Do something."""
        if self.rests or not self.names:
            return
        name = self.random.choices(self.names, self.weights)[0]
        if getattr(self, name)() is not False:
            self.world.counts[f"fault:{name}"] += 1
        self.wait()

    def later(self, least_ms: int, most_ms: int, function: object, *arguments: object) -> None:
        """Have something mended after a time between two."""
        self.world.at(self.random.randint(least_ms, most_ms) * 1000, None, function, *arguments)  # type: ignore[arg-type]

    # --- Whom ---------------------------------------------------------------------------------------------------------

    def running(self) -> list[SimNode]:
        return [node for node in self.cluster.nodes.values() if node.is_running and not node.is_removed]

    def some(self) -> SimNode | None:
        """A node that runs."""
        nodes = self.running()
        return self.random.choice(nodes) if nodes else None

    def leader(self) -> SimNode | None:
        """Who believes to lead."""
        nodes = [node for node in self.running() if node.leads]
        return self.random.choice(nodes) if nodes else None

    # --- Network ------------------------------------------------------------------------------------------------------

    def cut(self, links: set[tuple[str, str]], what: str) -> None:
        """Cut links for a while."""
        self.world.note("network", f"{what}: {sorted(links)!r:.300}")
        self.cluster.network.cut |= links
        self.later(200, 6_000, self.mend, links)

    def mend(self, links: set[tuple[str, str]]) -> None:
        self.cluster.network.cut -= links

    def hosts(self) -> list[str]:
        """All hosts, in some order; clients are on hosts, too."""
        hosts = [*self.cluster.nodes, *(client.name for client in self.cluster.clients)]
        self.random.shuffle(hosts)
        return hosts

    def partition(self) -> None:
        hosts = self.hosts()
        middle = self.random.randrange(1, len(hosts))
        one, other = hosts[:middle], hosts[middle:]
        self.cut({pair for a in one for b in other for pair in ((a, b), (b, a))}, "partition")

    def one_way(self) -> None:
        hosts = self.hosts()
        middle = self.random.randrange(1, len(hosts))
        self.cut({(a, b) for a in hosts[:middle] for b in hosts[middle:]}, "one-way partition")

    def partial(self) -> bool:
        """Some pairs of nodes do not hear each other, but all hear somebody."""
        nodes = list(self.cluster.nodes)
        if len(nodes) < 3:
            return False
        self.random.shuffle(nodes)
        a, b = nodes[:2]
        self.cut({(a, b), (b, a)}, "partial partition")
        return True

    def isolate_leader(self) -> bool:
        """The leader loses all, or most, of the others; clients may still reach it."""
        leader = self.leader()
        if leader is None:
            return False
        others = [host for host in self.cluster.nodes if host != leader.host]
        self.random.shuffle(others)
        lost = others[: self.random.randint((len(others) + 1) // 2, len(others))]
        self.cut(
            {pair for host in lost for pair in ((leader.host, host), (host, leader.host))}, "the leader is cut off"
        )
        return True

    def slow_link(self) -> None:
        a, b = self.hosts()[:2]
        self.cluster.network.slow[a, b] = self.random.choice((20_000, 150_000, 600_000))
        self.later(500, 5_000, self.cluster.network.slow.pop, (a, b), None)

    def break_link(self) -> bool:
        """Connections break, and both sides notice."""
        nodes = self.running()
        if len(nodes) < 2:
            return False
        one, other = self.random.sample(nodes, 2)
        self.cluster.break_link(one, other)
        return True

    # --- Processes ----------------------------------------------------------------------------------------------------

    def kill(self) -> bool:
        return self._end(self.some(), "kill")

    def kill_writing(self) -> bool:
        return self._doom("kill")

    def power_cut(self) -> bool:
        return self._end(self.some(), "power_cut")

    def power_cut_writing(self) -> bool:
        return self._doom("power_cut")

    def power_cut_somewhere(self) -> bool:
        """The power goes out in the course of one of the next operations of a disk, whatever it is for."""
        node = self.some()
        if node is None:
            return False
        if self.random.random() < 0.7:
            node.disk.cut_power_after(self.random.randrange(12))
        else:
            node.store_disk.cut_after = self.random.randrange(8)
        return True

    def _doom(self, how: str) -> bool:
        """A node ends in the middle of its next write to the journal."""
        node = self.leader() if self.random.random() < 0.5 else self.some()
        if node is None:
            return False
        node.doom = lambda: self._end(node, how, writing=True)
        return True

    def _end(self, node: SimNode | None, how: str, writing: bool = False) -> bool:
        if node is None:
            return False
        operations = self.random.randrange(3) if writing else None
        if how == "kill":
            node.kill(operations)
            self.cluster.start_later(node)
        else:
            node.power_cut("", operations)
        return True

    def all_down(self) -> None:
        for node in self.running():
            self._end(node, "kill", writing=self.random.random() < 0.5)

    def all_power_cut(self) -> None:
        for node in self.running():
            self._end(node, "power_cut", writing=self.random.random() < 0.5)

    def pause(self) -> bool:
        return self._pause(self.some())

    def pause_leader(self) -> bool:
        return self._pause(self.leader())

    def _pause(self, node: SimNode | None) -> bool:
        if node is None:
            return False
        node.pause()
        longest_ms = self.random.choice((50, 400, 1_500, 6_000))
        self.later(10, longest_ms, self._resume, node, node.life)
        return True

    def _resume(self, node: SimNode, life: object) -> None:
        if node.life is life:
            node.resume()

    def shutdown(self) -> bool:
        """A clean end: leadership is handed over, then the process stops."""
        node = self.some()
        if node is None:
            return False
        life = node.life

        def stop(error: KeyspaceError | None) -> None:
            # Not at once: that would be in the middle of the runtime's own work.
            self.world.at(1_000, life, end)

        def end() -> None:
            node.shut_down()
            self.cluster.start_later(node)

        node.runtime.stop_leading(stop)
        return True

    # --- Disks --------------------------------------------------------------------------------------------------------

    def eio_write(self) -> bool:
        return self._fail("eio_write")

    def eio_sync(self) -> bool:
        return self._fail("eio_sync")

    def eio_read(self) -> bool:
        return self._fail("eio_read")

    def _fail(self, kind: str) -> bool:
        node = self.leader() if self.random.random() < 0.3 else self.some()
        if node is None:
            return False
        node.disk.fail(kind, self.random.randrange(3))
        return True

    def enospc(self) -> bool:
        node = self.leader() if self.random.random() < 0.3 else self.some()
        if node is None:
            return False
        node.disk.capacity_bytes = node.disk.used_bytes + self.random.choice((0, 0, 2_000, 20_000))
        mood = self.random.random()
        if mood < 0.3:
            node.store_disk.fill(int(mood * 20))  # a store that takes the place of another one is five files, or six
        if self.random.random() < 0.5:
            node.disk.fail("enospc", self.random.randrange(3))
        self.later(500, 6_000, node.free_disk)
        return True

    def slow_disk(self) -> bool:
        node = self.some()
        if node is None:
            return False
        node.slow_disk = True
        self.later(500, 5_000, setattr, node, "slow_disk", False)
        return True

    def slow_apply(self) -> bool:
        node = self.some()
        if node is None:
            return False
        node.slow_apply = True
        self.later(500, 5_000, setattr, node, "slow_apply", False)
        return True

    def bit_flip(self) -> bool:
        """A bit changes on a disk; the node is started again soon, and has to notice, or be as before."""
        node = self.some()
        if node is None or not self.cluster.may_lose(node):
            return False
        names = [f"{folder}/{name}" for folder in ("journal", "snapshots") for name in node.disk.names(folder)]
        if not names:
            return False
        name = self.random.choice(names)
        used = node.disk.used_size(name)
        if not used:
            return False
        self.cluster.suspects[node.id] = name
        offset = node.disk.flip_bit(name, self.random.randrange(used))
        self.world.note(node.host, f"a bit of {name} changes at {offset}")
        if self.random.random() < 0.6:
            node.kill()
            self.cluster.start_later(node)
        else:
            self.later(100, 2_500, self._end_suspect, node, node.id)
        return True

    def _end_suspect(self, node: SimNode, node_id: str) -> None:
        if node.id == node_id and node.is_running:
            node.kill()
            self.cluster.start_later(node)

    # --- Clocks -------------------------------------------------------------------------------------------------------

    def drift(self) -> bool:
        if not self.cluster.plan.drift_max:
            return False
        for node in self.cluster.nodes.values():
            node.clock.drift()
        return True

    def wall_jump(self) -> bool:
        node = self.leader() if self.random.random() < 0.5 else self.some()
        if node is None:
            return False
        node.clock.jump(self.random.choice((-3_600_000, -5_000, -300, 300, 5_000, 3_600_000)))
        return True

    # --- Members ------------------------------------------------------------------------------------------------------

    def transfer(self) -> bool:
        leader = self.leader()
        if leader is None:
            return False
        target = None
        if self.random.random() < 0.7:
            target = self.random.choice(leader.raft.membership.members)
        leader.runtime.transfer(target, lambda error: None)
        return True

    def stop_leading(self) -> bool:
        leader = self.leader()
        if leader is None:
            return False
        leader.runtime.stop_leading(lambda error: None)
        return True

    def grow(self) -> bool:
        return self.cluster.operator.grow()

    def shrink(self) -> bool:
        return self.cluster.operator.shrink()

    def wipe(self) -> bool:
        """A host loses its disks."""
        node = self.some()
        if node is None or not self.cluster.may_lose(node):
            return False
        node.kill()
        node.trouble = "its disks are gone"
        return True

    # --- The end ------------------------------------------------------------------------------------------------------

    def rest(self) -> None:
        """Mend everything, and do nothing any more."""
        self.rests = True
        self.cluster.network.heal()
        self.cluster.network.weather = Weather()
        for node in self.cluster.nodes.values():
            node.slow_disk = node.slow_apply = False
            node.free_disk()
            node.disk.calm()
            node.store_disk.cut_after = None
            node.doom = None
            node.resume()

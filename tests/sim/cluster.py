"""A whole cluster from one integer: nodes, network, clients, operator and evil spirit; then healing, and the last look."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django_keyspace.exceptions import KeyspaceError, NoConnection
from django_keyspace.node import raft as consensus
from django_keyspace.node.raft import make_membership
from tests.sim.assembly import assemble, patched
from tests.sim.checker import check
from tests.sim.clients import Call, SimClient
from tests.sim.door import serve
from tests.sim.faults import Spirit
from tests.sim.history import History
from tests.sim.network import Network
from tests.sim.node import SimNode
from tests.sim.operator import Operator
from tests.sim.profiles import Plan, draw
from tests.sim.watch import Watch
from tests.sim.workload import Wish
from tests.sim.world import Violated, World

DEFERRED_MAX = 3_000
"""So many frames wait for a stopped process; then the sender's buffers are full, and the rest is lost."""
HEAL_MS = 40_000
"""After everything is healed, so much time passes at most until the cluster is whole."""
AGE_SLACK_US = 3_000_000
"""By how much a copy may be older than its node says: a leader of yesterday finds out within an election timeout."""
PAUSE_SLACK_US = 1_500_000
"""What a stopped process finds in its buffers was sent long ago, and it can only tell how long about."""
FOLDER = "/dev/shm"
REDIAL_US = 60_000
"""So long after a process has ended, its peers are refused a new connection."""


class SimCluster:
    """One run.

    Arguments:
        seed: decides everything.
        plan: in place of what the seed draws.
        profile: the name of the mix of faults, in place of what the seed draws.
        say: takes the lines of a trace.

    Attributes:
        nodes: by host.
        suspects: nodes on whose disk a bit has changed, with the file's name, until that is settled.
    """

    def __init__(
        self,
        seed: int,
        *,
        plan: Plan | None = None,
        profile: str | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.world = World(seed, say)
        self.seed = seed
        self.plan = plan or draw(self.world.random("plan"), profile)
        self.random = self.world.random("cluster")
        self.history = History()
        self.nodes: dict[str, SimNode] = {}
        self.hosts_by_id: dict[str, str] = {}
        self.suspects: dict[str, str] = {}
        self.clients: list[SimClient] = []
        self.watch = Watch(self)
        self.network = Network(self.world, self.deliver)

    # --- The run ------------------------------------------------------------------------------------------------------

    def run(self) -> Result:
        """Do it all. Raises :class:`Violated`."""
        base = FOLDER if Path(FOLDER).is_dir() else None
        self.folder = Path(tempfile.mkdtemp(prefix="keyspace-sim-", dir=base))
        try:
            with patched(self.world, self.plan):
                self.begin()
                self.world.run_until(self.world.now_us + self.plan.trouble_ms * 1000)
                self.heal()
                self.check()
            return Result(self.seed, self.plan, self.world.counts, self.world.now_us, self.world.digest, self.history)
        finally:
            for node in self.nodes.values():
                node.drop()
            shutil.rmtree(self.folder, ignore_errors=True)

    def begin(self) -> None:
        """Nodes start, clients come, the spirit wakes up."""
        hosts = [f"n{number}" for number in range(1, self.plan.nodes + 1)]
        for host in hosts:
            self.nodes[host] = SimNode(self, host, None)
        membership = make_membership(node.id for node in self.nodes.values())
        for node in self.nodes.values():
            node.bootstrap = consensus.bootstrap_snapshot(membership)
            self.world.at(self.random.randrange(300_000), None, self._start, node, node.id)
        self.operator = Operator(self)
        for number in range(1, self.plan.clients + 1):
            threads = self.random.choice((1, 1, 2))
            self.clients.append(SimClient(self, f"c{number}", threads, self.plan.think_ms))
        self.spirit = Spirit(self)

    def heal(self) -> None:
        """Mend everything; then there must be a leader, a write must pass, and all members must hold the same."""
        world = self.world
        world.note("world", "everything is healed")
        self.spirit.rest()
        for node in self.nodes.values():
            if not node.is_up and not node.is_removed:
                self.start_later(node)
        deadline_us = world.now_us + HEAL_MS * 1000
        world.run_until(world.now_us + 2_000_000)
        for client in self.clients:
            client.is_stopping = True
        last: Call | None = None
        while world.now_us < deadline_us:
            world.run_until(world.now_us + 250_000)
            if any(client.under_way for client in self.clients) or not self.operator.is_idle:
                continue
            if last is None:
                wish = Wish("write", ("set", 0, b"last", self.clients[0].workload.value(), None, "always"))
                last = Call(self.clients[0], "c1.last", wish, 20_000)
            elif last.is_over and self.is_whole():
                break
        if last is None or not last.is_over or isinstance(last.result, KeyspaceError):
            raise Violated(f"No write passes after healing: {self.describe()}")
        if not self.is_whole():
            raise Violated(f"Not all members catch up after healing: {self.describe()}")
        self.finish()

    def check(self) -> None:
        """Ask the checker about what clients have seen."""
        pauses = any("pause" in name for name in self.plan.profile.faults)
        slack_us = AGE_SLACK_US + (PAUSE_SLACK_US if pauses else 0)
        report = check(self.history, evicting=self.plan.tight, slack_us=slack_us)
        self.world.counts["undecided"] += len(report.undecided)
        if report.violations:
            raise Violated("\n\n".join(violation.text for violation in report.violations[:3]))

    def is_whole(self) -> bool:
        """Whether all members run and have applied the same."""
        leader = self.newest_leader()
        if leader is None:
            return False
        members = [self.nodes[self.hosts_by_id[node]] for node in leader.raft.membership.members]
        last = leader.raft._state.log.last_index
        return all(
            node.is_running and node.machine.applied_index == last >= self.watch.last_committed for node in members
        )

    def finish(self) -> None:
        """The last look."""
        leader = self.newest_leader()
        assert leader is not None
        for member in leader.raft.membership.members:
            node = self.nodes[self.hosts_by_id[member]]
            self.watch.compare_digest(node, node.machine.applied_index)
            self.watch.finish(node)
        for node in self.nodes.values():
            node.collect()
        self.world.counts["events"] = self.world.events

    def describe(self) -> str:
        """All nodes, one per line."""
        return (
            "".join(
                f"\n  {host}: {node.describe()} {node.trouble or ''}{' removed' if node.is_removed else ''}"
                for host, node in self.nodes.items()
            )
            + f"\n  operator: {self.operator.task}, calls under way: {[c.under_way for c in self.clients]}"
        )

    # --- Nodes --------------------------------------------------------------------------------------------------------

    def new_host(self) -> SimNode:
        """A host more, whose node is no member yet."""
        host = f"n{len(self.nodes) + 1}"
        self.nodes[host] = SimNode(self, host, None)
        return self.nodes[host]

    def start_later(self, node: SimNode) -> None:
        """Somebody starts the node again, after a while."""
        delay_us = self.random.randint(50_000, self.random.choice((300_000, 3_000_000)))
        self.world.at(delay_us, None, self._start, node, node.id)

    def _start(self, node: SimNode, node_id: str) -> None:
        if node.id == node_id and not node.is_up and not node.is_removed:
            node.start()

    def open_node(self, node: SimNode) -> None:
        """Make the process of a node: see ``assembly.py``."""
        assemble(self, node)
        if self.suspects.get(node.id, "").startswith("journal"):
            del self.suspects[node.id]  # the journal was read at the start, all of it

    def ended(self, node: SimNode, told: bool) -> None:
        """A process has ended.

        Arguments:
            told: whether its peers notice.
        """
        for other in self.nodes.values():
            if other is node:
                continue
            self.network.break_link(node.host, other.host)
            if told and other.life is not None:
                delay_us = self.random.randrange(300, 5_000)
                self.world.at(delay_us, other.life, other.lost_peer, node.id)
                self.world.at(delay_us + REDIAL_US, other.life, other.lost_peer, node.id, True)

    def break_link(self, one: SimNode, other: SimNode) -> None:
        """The connection between two nodes breaks, and both notice."""
        self.network.break_link(one.host, other.host)
        for here, there in ((one, other), (other, one)):
            if here.life is not None:
                delay_us = self.random.randrange(300, 50_000)
                # Now and then it looks as if the other one had ended, and it has not.
                self.world.at(delay_us, here.life, here.lost_peer, there.id, delay_us % 3 == 0)

    def host_of(self, node_id: str) -> str | None:
        """Where a node is."""
        return self.hosts_by_id.get(node_id)

    def member_hosts(self) -> list[str]:
        """The hosts that clients know: those that were ever told to them, and are not laid to rest."""
        return [host for host, node in self.nodes.items() if not node.is_removed]

    def newest_leader(self) -> SimNode | None:
        """Who leads in the highest term, of those who believe it."""
        leaders = [node for node in self.nodes.values() if node.is_running and node.leads]
        return max(leaders, key=lambda node: node.raft.term) if leaders else None

    def is_settled(self, leader: SimNode) -> bool:
        """Whether the leader's members are committed."""
        state = leader.raft._state
        return bool(state.has_committed_in_term and state.history.latest_index <= state.log.commit)

    def may_lose(self, node: SimNode) -> bool:
        """Whether the cluster has promised to survive the loss of this node's disks, now."""
        for node_id, name in list(self.suspects.items()):
            holder = self.nodes[self.hosts_by_id[node_id]]
            if name.startswith("snapshots") and not holder.disk.has(name):
                del self.suspects[node_id]
        leader = self.newest_leader()
        return bool(
            self.operator.is_idle
            and not self.suspects
            and leader is not None
            and self.is_settled(leader)
            and len(leader.raft.membership.voters) >= 3
            and node.id in leader.raft.membership.members
        )

    # --- Frames -------------------------------------------------------------------------------------------------------

    def deliver(self, from_host: str, sender: str, to_host: str, to: str, frame: Any) -> None:
        """A frame arrives at a host: it reaches the process that it is for, if there is one."""
        node = self.nodes[to_host]
        life = node.life
        if life is None or node.id != to or self.nodes[from_host].id != sender:
            return
        if life.paused and len(life.deferred) > DEFERRED_MAX:
            self.world.counts["buffer_full"] += 1
            return
        self.world.at(0, life, node.arrive, sender, frame)

    def hello(self, client: str, host: str, met: Callable[[int], None]) -> None:
        """A client greets a node, and learns its log clock."""
        self._travel(client, host, lambda node: self._reply(client, host, met, node.runtime.log_time_ms()), None)

    def ask(self, client: str, host: str, request: Any, answered: Callable[[Any], None]) -> None:
        """A client's request travels to a node, and the answer back."""

        def arrived(node: SimNode) -> None:
            serve(node, request, lambda answer: self._reply(client, host, answered, answer))

        self._travel(client, host, arrived, lambda: answered(NoConnection("Nobody is there.")))

    def _travel(
        self, client: str, host: str, arrived: Callable[[SimNode], None], refused: Callable[[], None] | None
    ) -> None:
        """A request on its way; a host without the process says at once that nobody is there."""
        if self._is_lost((client, host)):
            return

        def at_host() -> None:
            node = self.nodes[host]
            if node.life is not None:
                self.world.at(0, node.life, handled, node)
            elif refused is not None and not self._is_lost((host, client)):
                self.world.at(self.network.delay_us((host, client)), None, refused)

        def handled(node: SimNode) -> None:
            if not node.runtime.is_over:
                arrived(node)

        self.world.at(self.network.delay_us((client, host)), None, at_host)

    def _reply(self, client: str, host: str, answered: Callable[[Any], None], answer: Any) -> None:
        if not self._is_lost((host, client)):
            self.world.at(self.network.delay_us((host, client)), None, answered, answer)

    def _is_lost(self, link: tuple[str, str]) -> bool:
        if link in self.network.cut:
            self.world.counts["cut_request"] += 1
            return True
        share = 0.0 if self.spirit.rests else self.plan.profile.lose_requests
        if share and self.random.random() < share:
            self.world.counts["lost_request"] += 1
            return True
        return False


@dataclass
class Result:
    """What became of a run."""

    seed: int
    plan: Plan
    counts: Counter[str]
    virtual_us: int
    digest: int
    history: History

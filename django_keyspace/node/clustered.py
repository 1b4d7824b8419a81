"""A node of a cluster, put together: it finds its cluster, opens what it has, and ends in good order."""

from __future__ import annotations

import asyncio
import logging
import shlex
import socket
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final, cast

from django_keyspace import __version__
from django_keyspace.exceptions import ConfigurationError, KeyspaceError, NoLeader
from django_keyspace.node.auth import ServerTls
from django_keyspace.node.beside import Beside, Seen, group_id
from django_keyspace.node.bootstrap import Founding, Seeker, join
from django_keyspace.node.clock import HostClock
from django_keyspace.node.config import NodeConfig
from django_keyspace.node.disk_watch import DiskWatch
from django_keyspace.node.entries import ENTRY_VERSION
from django_keyspace.node.folder import DataFolder
from django_keyspace.node.greeting import ASK, LINK, PeerHello, is_peer_hello
from django_keyspace.node.identity import address_of, name_of
from django_keyspace.node.journal import JournalWriter
from django_keyspace.node.links import PeerLink
from django_keyspace.node.machine import Machine
from django_keyspace.node.parts import Parts
from django_keyspace.node.peers import Answer, Credentials, Peers
from django_keyspace.node.raft import Membership, Role
from django_keyspace.node.reception import Reception
from django_keyspace.node.runtime import Runtime
from django_keyspace.node.scheduler import LoopScheduler
from django_keyspace.node.start import open_state
from django_keyspace.store.folder import boot_id
from django_keyspace.wire import CONNECTION_ID, HELLO_BYTES_MAX, Decoder, Encoder, FrameReader

logger = logging.getLogger("django_keyspace.node")

FRAME_OVERHEAD_BYTES: Final = 16 * 1024 * 1024
MEMBERS_MS: Final = 100
"""How often the members are looked at, for links to new ones."""
HAND_OVER_TIMEOUT_S: Final = 5.0
HAND_OVER_ELECTIONS: Final = 4
"""So many election timeouts on top: who may take over has to have run for one, and an attempt that fails takes two."""
HAND_OVER_AGAIN_S: Final = 0.05


def is_clustered(config: NodeConfig, folder: DataFolder) -> bool:
    """Whether a node is, or is to be, part of a cluster.

    Raises:
        ConfigurationError: it is to be, and its folder holds the data of a node that ran alone.
    """
    if folder.identity.cluster:
        return True
    if config.seeks_cluster and folder.has_own_store:
        raise ConfigurationError(
            f"The folder {folder.path} holds the store of a node that ran alone, which cannot become one of a cluster. Start "
            "with an empty folder, and copy the data by a client; or leave out --peer and --join."
        )
    return config.seeks_cluster


def rejoin_command(config: NodeConfig, members: Sequence[str]) -> str:
    """The command that lets a node join its cluster again, as a learner without data."""
    flags = ["--id", config.node_id, "--listen", f"{config.host}:{config.port}", "--data", config.data]
    if config.advertise:
        flags += ["--advertise", config.advertise]
    return shlex.join(["python", "-m", "django_keyspace.node", *flags, "--join", ",".join(members) or "HOST:PORT"])


class Doorway(asyncio.Protocol):
    """A connection to a node that has no cluster yet: other nodes may ask, clients are sent away."""

    def __init__(self, peers: Peers, name: str) -> None:
        self._peers = peers
        self._name = name
        self._reader = FrameReader(HELLO_BYTES_MAX)
        self._reader.one_by_one = True
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody has come."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Look at the first message."""
        transport = self._transport
        if transport is None:
            return
        try:
            bodies = self._reader.feed(data)
            message = Decoder().decode(bodies[0]) if bodies else None
        except KeyspaceError:
            transport.close()
            return
        if is_peer_hello(message):
            self._peers.accept().take_over(transport, message, self._reader)
        elif bodies:
            error = NoLeader(f"Node {self._name} waits for the other nodes of its cluster. Nothing was done.")
            transport.write(Encoder(HELLO_BYTES_MAX).encode((CONNECTION_ID, error.code, str(error))))
            transport.close()


class ClusterNode:
    """What a node of a cluster has beside its server.

    Arguments:
        config: what it was told.
        folder: its data folder, held by this process.
        tls: its certificate, None without TLS.
        loop: the event loop.
        give_up: called when the node must end at once, with the reason.
    """

    def __init__(
        self,
        config: NodeConfig,
        folder: DataFolder,
        tls: ServerTls | None,
        loop: asyncio.AbstractEventLoop,
        give_up: Callable[[str], None],
    ) -> None:
        if tls is not None:
            tls.meet_peers(config.tls_peer_ca)
        self.config = config
        self.settings = config.runtime_settings()
        self._folder = folder
        self._tls = tls
        self._loop = loop
        self._give_up = give_up
        self._credentials = Credentials(config.secret, tls.dialling if tls is not None else None)
        self._random = Random()
        self._scheduler = LoopScheduler(loop)
        self._watch: asyncio.TimerHandle | None = None
        self._dialled: Membership | None = None

    # --- Finding a cluster --------------------------------------------------------------------------------------------

    async def find_cluster(self, listening: socket.socket) -> None:
        """See that the folder says of which cluster this node is; ask others until it does.

        Arguments:
            listening: where other nodes ask this one.
        Raises:
            ConfigurationError, PeerRefused: it never will.
        """
        folder, config = self._folder, self.config
        config.require_reachable()
        folder.become(folder.identity.with_incarnation())
        if folder.identity.cluster:
            return
        seeker = Seeker(
            folder.identity, self._hello(ASK), self._credentials, lambda members: rejoin_command(config, members)
        )
        if config.join:
            await join(seeker, config.join, folder.become)
            return
        founding = Founding(seeker, dict(config.peers), folder.become)
        peers = Peers(seeker.hello, self._credentials, self._frame_bytes_max, self._random, founding.answer)
        # The socket itself goes on to listen when this server is closed: nobody is sent away in between.
        server = await self._loop.create_server(
            lambda: Doorway(peers, config.node_id),
            sock=listening.dup(),
            ssl=self._tls.context if self._tls is not None else None,
        )
        try:
            await founding.run()
        finally:
            server.close()
            await peers.stop()

    def _hello(self, purpose: str) -> PeerHello:
        identity, options = self._folder.identity, self.config.store_options()
        drift = self.config.lease_drift_max
        return PeerHello(
            identity.member_id,
            identity.cluster or None,
            purpose,
            self.config.address,
            ENTRY_VERSION,
            (options.databases, options.value_bytes_max, options.max_bytes),
            (int(drift * 1_000_000), self.settings.election_timeout_ms) if drift else (0, 0),
            release=__version__,
        )

    @property
    def _frame_bytes_max(self) -> int:
        return self.settings.raft.entry_bytes_max + FRAME_OVERHEAD_BYTES

    # --- Beginning ----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the log and the store, and put the parts together. Nothing runs yet.

        Raises:
            KeyspaceError: something is missing or damaged; nothing was changed.
        """
        folder, identity = self._folder, self._folder.identity
        group = group_id(self.config.replica_group)
        known = [address for node, address in self._known_addresses() if name_of(node) != identity.node]
        remedy = f"move {folder.path} away, and start it with: {rejoin_command(self.config, known)}"
        self.machine = Machine.open(folder.disk, self.config.store_options(), boot_id(), self._random)
        try:
            self.journal, snapshots = open_state(folder.disk, self.machine, identity.bootstrap, remedy=remedy)
        except BaseException:
            self.machine.close(clean=False)
            raise
        # From here on the log may hold promises: it must not be begun again.
        folder.become(identity.begun())
        self.writer = JournalWriter(self.journal)
        self._disk_watch = DiskWatch(identity.node, self.writer)
        self.peers = Peers(
            self._hello(LINK),
            self._credentials,
            self._frame_bytes_max,
            self._random,
            self._asked,
        )
        parts = Parts(
            clock=HostClock(),
            scheduler=self._scheduler,
            writer=self.writer,
            journal=self.journal,
            snapshots=snapshots,
            machine=self.machine,
            links=self.peers,
            random=self._random,
            settings=self.settings,
            give_up=self._give_up,
        )
        self.runtime = Runtime(identity.member_id, identity.cluster, parts)
        self._reception = Reception(identity, self.config.address, self, self.peers)
        self.beside = Beside(folder.path, self._seen, self._scheduler, self.settings.tick_ms, self._store_facts, group)

    def _known_addresses(self) -> list[tuple[str, str]]:
        members = self._folder.identity.members
        found = [(node, address_of(members, node) or "") for node in members.members]
        return found or [(f"{address}.", address) for address in self.config.join]

    def _asked(self, peer: PeerHello, frame: tuple[Any, ...], take: Answer) -> None:
        self._reception.answer(peer, frame, take)

    def start(self) -> None:
        """Begin to tick, and to talk to the other nodes."""
        self.peers.start(self.runtime, self.membership())
        self._look_at_members()
        self.runtime.start()
        self.beside.start()
        self._warn_about_flags()

    def _look_at_members(self) -> None:
        membership = self.membership()
        if membership is not self._dialled:
            self._dialled = membership
            self.peers.set_membership(membership)
        self._disk_watch.look()
        self._watch = self._loop.call_later(MEMBERS_MS / 1000, self._look_at_members)

    def _warn_about_flags(self) -> None:
        """The members are what the log says, whatever the flags do."""
        config, members = self.config, self.membership()
        names = {name_of(node) for node in members.members}
        told = {config.node_id, *(name for name, _ in config.peers)}
        if config.peers and names and names != told:
            logger.warning(
                "--peer names %s, and the members of the cluster are %s. The cluster is right; change the flags.",
                ", ".join(sorted(told)),
                ", ".join(sorted(names)),
            )
        known = address_of(members, self._folder.identity.member_id)
        if known is not None and known != config.address:
            logger.warning(
                "This node is reached at %s, and the cluster knows it at %s: the others cannot connect to it. Give it its old "
                "address, or let it join again under the new one.",
                config.address,
                known,
            )

    # --- What others need ---------------------------------------------------------------------------------------------

    def membership(self) -> Membership:
        """The members, as this node knows them."""
        return self.runtime.raft.membership

    def change(self, *arguments: Any) -> None:
        """See :meth:`Runtime.change`."""
        self.runtime.change(*arguments)

    def require_leader(self) -> None:
        """Raise :class:`NotLeader` if this node does not lead."""
        self.runtime.require_leader()

    def _seen(self) -> Seen | None:
        """What the store is as of, for those who read it beside this node; None while it is not to be shown."""
        if self.peers.removed is not None or not self.runtime.can_read:
            return None
        age_ms = self.runtime.reads.age_ms
        return Seen(self.machine.generation, self.machine.applied_index, self.log_time_ms(), age_ms)

    def _store_facts(self) -> dict[str, Any]:
        """Where the store is and whose, for those who read it beside this node."""
        options = self.config.store_options()
        return {
            "alone": False,  # even the only member of a cluster may get others, and one of them lead
            "node": self.config.node_id,
            "member": self.runtime.node,
            "cluster": self.runtime.cluster,
            "store": str(self._folder.path / self.machine.folder),
            "generation": self.machine.generation,
            "databases": options.databases,
            "value_bytes_max": options.value_bytes_max,
            "addresses": [row["address"] for row in self.runtime.members()["nodes"]],
        }

    def peer_link(self) -> PeerLink:
        """See :meth:`Service.peer_link`."""
        return self.peers.accept()

    def facts(self) -> list[tuple[str, str]]:
        """For the block that a node prints when it is ready."""
        members = ", ".join(name_of(node) for node in self.membership().members)
        return [
            ("durability", "a write is on the disks of a majority"),
            ("cluster", self.runtime.cluster),
            ("member", self.runtime.node),
            ("members", members or "not known yet: the leader tells them"),
        ]

    def not_ready(self) -> str | None:
        """Why it cannot answer safe reads or take part, None if it can."""
        if self.peers.removed is not None:
            return self.peers.removed
        if not self.runtime.raft.replayed:
            return "The log is being replayed."
        return None if self.runtime.raft.leader else "The node knows of no leader."

    def log_time_ms(self) -> int:
        """The log clock."""
        return self.runtime.log_time_ms()

    def read(self, name: str, *arguments: Any) -> Any:
        """Read what this node has, whether it is current or not: for operators."""
        return self.machine.read(self.log_time_ms(), name, *arguments)

    # --- The end ------------------------------------------------------------------------------------------------------

    async def hand_over(self) -> None:
        """Lead no more, so that the cluster does not have to find out that this node is gone.

        A node that has just started neither stands nor votes, so this may take some time, and several attempts.
        """
        patience_s = HAND_OVER_TIMEOUT_S + HAND_OVER_ELECTIONS * self.settings.election_timeout_ms / 1000
        deadline_s = self._loop.time() + patience_s
        while not self.runtime.is_over and self.runtime.raft.role is Role.LEADER:
            error = await self._hand_over_once(patience_s)
            if error is None:
                logger.info("Node %s has handed leadership over", self.config.node_id)
                await self._await_leader()
                return
            voters = self.membership().voters
            there = {self.runtime.node, *self.peers.connected()} & set(voters)
            if len(there) <= len(voters) // 2 or self._loop.time() > deadline_s:
                logger.warning("Node %s ends without a successor: %s", self.config.node_id, error)
                return
            await asyncio.sleep(HAND_OVER_AGAIN_S)

    async def _await_leader(self) -> None:
        """Stay until somebody leads: the one who is to take over may need this node's vote, if others have just started."""
        deadline_s = self._loop.time() + self.settings.election_timeout_ms / 1000
        while not self.runtime.is_over and self.runtime.raft.leader is None and self._loop.time() < deadline_s:
            await asyncio.sleep(HAND_OVER_AGAIN_S)

    async def _hand_over_once(self, patience_s: float) -> KeyspaceError | None:
        done: asyncio.Future[KeyspaceError | None] = self._loop.create_future()

        def take(error: KeyspaceError | None) -> None:
            if not done.done():
                done.set_result(error)

        self.runtime.stop_leading(take)
        try:
            async with asyncio.timeout(patience_s):
                return await done
        except TimeoutError:
            return NoLeader("Nobody took it in time.")

    async def stop(self) -> None:
        """Close everything in good order. After the server has answered what was under way."""
        if self._watch is not None:
            self._watch.cancel()
        self.beside.stop()
        self.runtime.stop()
        await self.peers.stop()
        self._scheduler.stop()
        self.writer.stop()
        self.journal.close()
        self.machine.close(clean=True)

    async def abandon(self) -> None:
        """Close everything as it is: after a failure, nothing is written any more."""
        if self._watch is not None:
            self._watch.cancel()
        self.beside.stop()
        self.runtime.kill()
        await self.peers.stop()
        self.journal.abandon()
        self.machine.close(clean=False)

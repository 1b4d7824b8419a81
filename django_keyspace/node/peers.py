"""The other nodes of a cluster: a node dials every member, sends on the link that it has dialled, and receives on all.

What comes in over a link is the runtime's; what is here is who the other side is, and that there is a link again soon after one
broke.
A node that has not learnt of any member yet (it joins) answers on the link that the leader has opened to it.

Somebody is not taken who
- does not know the secret, or shows no certificate where nodes have TLS,
- is of another cluster,
- was removed: his id is never used again,
- has the name of a member and another incarnation, and is no member himself: he has lost his data.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from time import monotonic
from typing import Any, Final, Protocol

from django_keyspace.exceptions import (
    AuthenticationFailed,
    KeyspaceError,
    NoConnection,
    NodeRemoved,
    NoLeader,
    NotLeader,
    PeerRefused,
    ProtocolError,
)
from django_keyspace.node.config import parse_listen
from django_keyspace.node.greeting import ASK, LINK, Accepting, Dialling, PeerHello
from django_keyspace.node.identity import addresses_of, name_of
from django_keyspace.node.incoming import RAFT
from django_keyspace.node.links import APPENDS, SNAPSHOTS, URGENT, PeerLink
from django_keyspace.node.logs import SeldomLog
from django_keyspace.node.raft import AppendRequest, BadMessage, Membership
from django_keyspace.node.raft.messages import code_of
from django_keyspace.node.snapshot_keeper import CHUNK

logger = logging.getLogger("django_keyspace.node")

DIAL_TIMEOUT_S: Final = 5.0
REDIAL_FIRST_S: Final = 0.05
REDIAL_MAX_S: Final = 1.0
REDIAL_REFUSED_S: Final = 5.0
ALIVE_S: Final = 0.5
"""A link on which nothing was sent for so long says that its node is there."""
IDLE_S: Final = 3.0
"""A link on which nothing came for so long is closed: a host that went down says no goodbye."""


class PeerRuntime(Protocol):
    """What the links need of the runtime."""

    def receive(self, sender: str, frames: Sequence[tuple[Any, ...]]) -> None:
        """Frames have come. Raises :class:`BadMessage`."""

    def peer_lost(self, node: str, *, is_gone: bool = False) -> None:
        """The link to a member broke; or (`is_gone`) nobody listens at its address: its process has ended."""


_APPEND: Final = code_of(AppendRequest)

Answer = Callable[[Any], None]
"""Takes the result, or the :class:`KeyspaceError`, of a question."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """How nodes show each other who they are.

    Attributes:
        secret: what all of them know, None for none.
        tls: for connections that this node opens; None without TLS.
    """

    secret: bytes | None = None
    tls: ssl.SSLContext | None = None


class Peers:
    """The links of a node: see :class:`~django_keyspace.node.interfaces.Links`.

    Arguments:
        hello: what this node says of itself on its links.
        credentials: what it shows and wants to see.
        frame_bytes_max: limit of a frame.
        random: for the times between two attempts.
        answer: answers what nodes ask that are in no cluster yet: a word, its arguments, and who takes the answer.
    """

    def __init__(
        self,
        hello: PeerHello,
        credentials: Credentials,
        frame_bytes_max: int,
        random: Random,
        answer: Callable[[PeerHello, tuple[Any, ...], Answer], None] | None = None,
    ) -> None:
        self._hello = hello
        self._credentials = credentials
        self._frame_bytes_max = frame_bytes_max
        self._random = random
        self._answer = answer
        self._runtime: PeerRuntime | None = None
        self._membership = Membership()
        self._addresses: dict[str, str] = {}
        self._dialled: dict[str, PeerLink] = {}
        self._accepted: dict[str, PeerLink] = {}
        self._guests: set[PeerLink] = set()  # those that have not greeted yet, and those that ask
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._wishes: dict[str, asyncio.Event] = {}  # dial now
        self._ends: dict[PeerLink, asyncio.Event] = {}
        self._met_s: dict[str, float] = {}  # when a member's newest link came up
        self._look_at_s = monotonic()
        self._watch: asyncio.TimerHandle | None = None
        self._log = SeldomLog(logger)
        self.entry_versions: dict[str, int] = {}
        """The newest version of entries that each member reads, as far as it was met."""
        self.removed: str | None = None
        """What a member said when it did not take this node because it was removed from the cluster."""

    # Sending: what the runtime calls

    def send(self, to: str, frame: tuple[Any, ...]) -> None:
        """Send a frame, or drop it: see :meth:`Links.send`."""
        link = self._dialled.get(to) or self._accepted.get(to)
        if link is not None:
            link.send(frame, kind_of(frame))

    # Beginning and end

    def start(self, runtime: PeerRuntime, membership: Membership) -> None:
        """Begin to dial the members, and to give the runtime what comes."""
        self._runtime = runtime
        self.set_membership(membership)
        self._look_at_s = monotonic()
        self._watch = asyncio.get_running_loop().call_later(ALIVE_S, self._look_around)

    def set_membership(self, membership: Membership) -> None:
        """The members are these from now on."""
        own = self._hello.node
        self._membership = membership
        self._addresses = addresses_of(membership)
        self._hello = replace(self._hello, is_member=own in membership.members)
        # Learners have nothing to say to each other.
        others = membership.members if own in membership.voters else membership.voters
        wanted = {node for node in others if node != own and node in self._addresses}
        for node in [node for node in self._tasks if node not in wanted]:
            self._tasks.pop(node).cancel()
            self._wishes.pop(node, None)
            if node in self._dialled:
                self._dialled[node].close()
        for node in wanted - set(self._tasks):
            self._wishes[node] = asyncio.Event()
            self._tasks[node] = asyncio.get_running_loop().create_task(self._keep_dialling(node))
        for node in set(membership.retired) & set(self._accepted):
            self._accepted[node].refuse(self._removed(node))

    async def stop(self) -> None:
        """Close all links."""
        if self._watch is not None:
            self._watch.cancel()
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        for link in self._links():
            link.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        for link in self._links():
            link.abort()

    def _links(self) -> list[PeerLink]:
        return [*self._dialled.values(), *self._accepted.values(), *self._guests]

    def connected(self) -> list[str]:
        """The members that frames can be sent to."""
        return sorted({*self._dialled, *self._accepted})

    def connected_ms(self, member: str) -> int:
        """See :meth:`Links.connected_ms`."""
        if member in self._dialled or member in self._accepted:
            return int((monotonic() - self._met_s[member]) * 1000)
        return 0

    # Being called

    def accept(self) -> PeerLink:
        """The protocol object for a connection on which a node has begun to greet; give it the connection."""
        link = PeerLink(self, Accepting(self._hello, self._credentials.secret, self._admit), self._frame_bytes_max)
        self._guests.add(link)
        return link

    def _admit(self, peer: PeerHello) -> None:
        """Raise what is to be said to somebody who is not taken."""
        own, name = self._hello, peer.name
        if peer.node == own.node:
            raise PeerRefused(f"Node {own.name} was called by itself: an address of its cluster is wrong.")
        if peer.purpose == ASK and self._answer is not None:
            return
        if peer.purpose != LINK:
            raise ProtocolError(f"Node {own.name} does not know the purpose {peer.purpose!r:.40}.")
        if own.cluster is None:
            raise NoLeader(f"Node {own.name} is in no cluster yet.")
        if peer.cluster != own.cluster:
            raise PeerRefused(
                f"Node {own.name} is of cluster {own.cluster}, and node {name} of {peer.cluster or 'none'}: they have nothing "
                "to do with each other. Look at the addresses that both were given."
            )
        if peer.node in self._membership.retired:
            raise self._removed(peer.node)
        namesakes = [node for node in self._membership.members if name_of(node) == name and node != peer.node]
        if namesakes and not peer.is_member:
            raise self.lost_its_data(name, peer.address)
        self.require_same_store(peer)

    def lost_its_data(self, name: str, address: str) -> PeerRefused:
        """What is said to a node that comes back under the name of a member with another incarnation."""
        others = [text for node, text in self._addresses.items() if name_of(node) != name]
        return PeerRefused(
            f"Node {name} is a member of cluster {self._hello.cluster} with data that this process does not have. It must not "
            "vote as if it had forgotten nothing. To let it join again as a fresh learner, start it with an empty data folder "
            f"and these flags: --id {name} --listen {address or 'HOST:PORT'} --data DIR --join {','.join(others) or 'HOST:PORT'}"
        )

    def _removed(self, node: str) -> NodeRemoved:
        return NodeRemoved(
            f"Node {name_of(node)} ({node}) was removed from cluster {self._hello.cluster}, and its id is never used again. "
            "Stop it. To have it back, start it with an empty data folder and --join "
            f"{','.join(self._addresses.values()) or 'HOST:PORT'}"
        )

    # What links tell

    def link_up(self, link: PeerLink) -> None:
        """Both sides have greeted each other."""
        peer, wants_certificates = link.peer, self._credentials.tls is not None
        if wants_certificates and not link.shows_certificate:
            raise AuthenticationFailed(f"Node {peer.name} shows no certificate, and nodes of this cluster have to.")
        if link.expected is not None:
            self._require_expected(link.expected, peer)
            self._dialled[link.expected] = link
        elif peer.purpose == LINK:
            self._guests.discard(link)
            before = self._accepted.get(peer.node)
            self._accepted[peer.node] = link
            if before is not None:
                before.abort(NoConnection(f"Node {peer.name} has opened another link."))
            if peer.node in self._wishes:
                self._wishes[peer.node].set()
        if peer.purpose == LINK:
            self.entry_versions[peer.node] = peer.entry_version
            self._met_s[peer.node] = monotonic()

    def _require_expected(self, expected: str, peer: PeerHello) -> None:
        if peer.cluster != self._hello.cluster:
            raise PeerRefused(
                f"Node {peer.name}, which answers there, is of cluster {peer.cluster or 'none'}, not of {self._hello.cluster}."
            )
        if peer.node != expected:
            raise PeerRefused(
                f"Who answers there is {peer.node}, not {expected}. If that node lost its data, let it join again as a learner."
            )
        self.require_same_store(peer)

    def require_same_store(self, peer: PeerHello) -> None:
        """Raise :class:`PeerRefused` unless another node has what all have to have: what operations answer depends on it."""
        own = self._hello.store
        if peer.store[2:] != own[2:]:
            self._log.say(
                logging.WARNING,
                (peer.node, "store"),
                f"Node {peer.name} has another max_bytes than node {self._hello.name}. That of the leader counts.",
            )
        if peer.store[:2] != own[:2]:
            raise PeerRefused(
                f"Node {peer.name} has {_words(peer.store)}, and node {self._hello.name} {_words(own)}. They "
                "have to be equal on all nodes of a cluster. Start one of them with the values of the others."
            )
        if peer.lease != self._hello.lease:
            raise PeerRefused(
                f"Node {peer.name} has {_lease_words(peer.lease)}, and node {self._hello.name} "
                f"{_lease_words(self._hello.lease)}. Reads by lease are only safe if --lease-drift-max and "
                "--election-timeout-ms are equal on all nodes of a cluster. Start one of them with the values of the others."
            )

    def link_frames(self, link: PeerLink, frames: list[Any]) -> None:
        """Frames have come. Raises :class:`ProtocolError` if one is not of those that nodes send."""
        peer = link.peer
        if not all(type(frame) is tuple and frame for frame in frames):
            raise ProtocolError("A frame between nodes is a list that begins with a word.")
        if peer.purpose == ASK:
            for frame in frames:
                self._answer_to(link, frame)
        elif self._runtime is not None:
            try:
                self._runtime.receive(peer.node, frames)
            except BadMessage as error:
                raise ProtocolError(f"Node {peer.name} sent what no sound node sends: {error}") from error

    def _answer_to(self, link: PeerLink, frame: tuple[Any, ...]) -> None:
        def take(result: Any) -> None:
            if isinstance(result, NotLeader):
                link.send((result.code, str(result), result.address))
            elif isinstance(result, KeyspaceError):
                link.send((result.code, str(result)))
            else:
                link.send(("ok", result))

        if self._answer is not None:
            self._answer(link.peer, frame, take)

    def link_down(self, link: PeerLink, error: Exception | None) -> None:
        """A connection is gone."""
        self._guests.discard(link)
        if link.is_greeted and monotonic() - link.begun_s > IDLE_S:
            self._log.forget(link.peer.node)  # it was fine for a while: what comes now is news
        ended = self._ends.pop(link, None)
        if ended is not None:
            ended.set()
        for links in (self._dialled, self._accepted):
            for node in [node for node, other in links.items() if other is link]:
                del links[node]
                if node not in self._dialled and node not in self._accepted:
                    self._lost(node)
        if link.expected is None and error is not None:
            node = link.peer.node if link.is_greeted else "unknown"
            self._log.say(
                logging.WARNING,
                (node, "came", type(error)),
                f"A link that node {name_of(node)} had opened ended: {error}",
            )

    def _lost(self, node: str, *, is_gone: bool = False) -> None:
        if self._runtime is not None:
            self._runtime.peer_lost(node, is_gone=is_gone)

    # Calling

    async def _keep_dialling(self, node: str) -> None:
        """Have a link to a member, for ever."""
        delay_s = REDIAL_FIRST_S
        wish = self._wishes[node]
        while True:
            began_s = monotonic()
            try:
                error = await self._dial(node, self._addresses.get(node, ""))
            except Exception as fault:
                # Whatever it is, the other node may be needed again in a moment.
                logger.exception("Dialling node %s failed in a way that it should not", name_of(node))
                error = NoConnection(f"Dialling failed: {fault!r:.100}")
            if monotonic() - began_s > IDLE_S:
                delay_s = REDIAL_FIRST_S
            self._tell(node, error)
            is_linked = node in self._dialled or node in self._accepted
            if error is not None and isinstance(error.__cause__, ConnectionRefusedError) and not is_linked:
                self._lost(node, is_gone=True)
            wish.clear()
            pause_s = (REDIAL_REFUSED_S if isinstance(error, PeerRefused) else delay_s) * self._random.uniform(0.5, 1.5)
            delay_s = min(delay_s * 2, REDIAL_MAX_S)
            if error is not None and not isinstance(error, NoConnection):
                await asyncio.sleep(pause_s)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await wish.wait()
                # It has just called by itself, so it is there.
                delay_s = REDIAL_FIRST_S

    def _tell(self, node: str, error: KeyspaceError | None) -> None:
        if error is None:
            return
        if isinstance(error, NodeRemoved):
            self.removed = str(error)
        level = logging.ERROR if isinstance(error, PeerRefused | AuthenticationFailed) else logging.WARNING
        address = self._addresses.get(node, "an unknown address")
        self._log.say(level, (node, "dialled", type(error)), f"No link to node {name_of(node)} at {address}: {error}")

    async def _dial(self, node: str, address: str) -> KeyspaceError | None:
        """One attempt. Returns when the link is gone, with the reason."""
        ended = asyncio.Event()
        link = PeerLink(self, Dialling(self._hello, self._credentials.secret), self._frame_bytes_max, node)
        self._ends[link] = ended
        try:
            await connect(link, address, self._credentials.tls)
            await ended.wait()
        except KeyspaceError as error:
            return error
        finally:
            self._ends.pop(link, None)
            link.close()
        return link.refusal

    def _look_around(self) -> None:
        """Say on all links that this node is there, and close those on which nothing came for long."""
        loop, now_s = asyncio.get_running_loop(), monotonic()
        was_away = now_s - self._look_at_s > 2 * ALIVE_S
        self._look_at_s = now_s
        self._watch = loop.call_later(ALIVE_S, self._look_around)
        for link in [*self._dialled.values(), *self._accepted.values()]:
            if was_away:
                link.heard_s = now_s  # what came meanwhile could not be read
            if now_s - link.heard_s > IDLE_S:
                link.abort(NoConnection(f"Nothing came for {IDLE_S:.0f} seconds."))
            elif now_s - link.sent_s >= ALIVE_S:
                link.keep_alive()


async def connect(link: PeerLink, address: str, tls: ssl.SSLContext | None) -> None:
    """Open a connection to a node, and let a link have it.

    Raises:
        KeyspaceError: nobody is there.
    """
    host, port = parse_listen(address)
    try:
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            await asyncio.get_running_loop().create_connection(
                lambda: link, host, port, ssl=tls, server_hostname=host if tls is not None else None
            )
    except TimeoutError:
        raise NoConnection(f"Nobody answers within {DIAL_TIMEOUT_S:.0f} seconds.") from None
    except ssl.SSLCertVerificationError as error:
        raise AuthenticationFailed(f"Its certificate is not accepted: {error.verify_message}.") from error
    except ssl.SSLError as error:
        raise ProtocolError(f"No TLS with it: {error.reason or error}.") from error
    except OSError as error:
        raise NoConnection(f"{error.strerror or error}.") from error


def _words(store: tuple[int, ...]) -> str:
    databases, value_bytes_max = (*store, 0, 0)[:2]
    return f"{databases} databases and values of up to {value_bytes_max:,} bytes"


def _lease_words(lease: tuple[int, ...]) -> str:
    drift, timeout_ms = (*lease, 0, 0)[:2]
    return (
        f"leases with a drift of {drift / 1e6:g} and an election timeout of {timeout_ms:,} ms" if drift else "no leases"
    )


def kind_of(frame: tuple[Any, ...]) -> int:
    """In which order a frame of the runtime's leaves when not all can.

    Heartbeats, votes and answers are small and first: without them the cluster has no leader. A lost append is sent again.
    """
    word = frame[0]
    if word == RAFT:
        return APPENDS if frame[1] == _APPEND else URGENT
    return SNAPSHOTS if word == CHUNK else URGENT

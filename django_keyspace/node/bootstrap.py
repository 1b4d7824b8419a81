"""How a node without a cluster comes to one: it founds one with the others of ``--peer``, or it joins one that is there.

**Founding** happens once. When every node that ``--peer`` names is reachable and in no cluster, and all of them were given the
same names, the one with the smallest name draws the cluster's id and writes it down together with the member ids of all. From
that moment the cluster exists: the others learn of it by asking, and write the same down. So:

- nobody else may draw an id, since all have the same list, and a part of the nodes cannot, since it takes all;
- a crash at any step leaves a node that has written it down or one that has not; who has not asks again, and is told;
- a node whose folder was lost meanwhile has another incarnation. It is on no list, and is told how to join instead.

**Joining** asks any member. It names the leader, and the leader adds the node as a learner. What the node writes down is the
cluster's id alone: its log begins empty and without members, and the leader finds it.

Nothing here is promised to anybody before it is durable, and the consensus core starts after that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from django_keyspace.exceptions import (
    ConfigurationError,
    KeyspaceError,
    NoConnection,
    NoLeader,
    NotLeader,
    PeerRefused,
    ProtocolError,
    error_from_code,
)
from django_keyspace.node.greeting import Dialling, PeerHello
from django_keyspace.node.identity import Identity, member_info, name_of, new_cluster_id
from django_keyspace.node.links import PeerLink
from django_keyspace.node.logs import SeldomLog
from django_keyspace.node.peers import Answer, Credentials, connect
from django_keyspace.node.raft import BadMessage, Membership, make_membership, membership_from_bytes

logger = logging.getLogger("django_keyspace.node")

STATE: Final = "state"
JOIN: Final = "join"
ASK_TIMEOUT_S: Final = 5.0
JOIN_TIMEOUT_S: Final = 15.0
ASK_AGAIN_S: Final = 0.2
JOIN_AGAIN_S: Final = 1.0
ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class State:
    """What a node says of itself to one that looks for its cluster.

    Attributes:
        node: its member id.
        address: where it is.
        cluster: its cluster, None if it is in none.
        first: the members with which its cluster began, as far as it knows; empty for one that joined later.
        now: the members as it knows them.
        names: the names that it was started with, its own among them; empty if it was started without.
    """

    node: str
    address: str = ""
    cluster: str | None = None
    first: Membership = field(default_factory=Membership)
    now: Membership = field(default_factory=Membership)
    names: tuple[str, ...] = ()

    def fields(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "node": self.node,
            "address": self.address,
            "cluster": self.cluster,
            "first": self.first.to_bytes(),
            "now": self.now.to_bytes(),
            "names": self.names,
        }

    @classmethod
    def from_fields(cls, fields: Any) -> State:
        """The reverse. Raises :class:`ProtocolError`."""
        try:
            first, now = membership_from_bytes(fields["first"]), membership_from_bytes(fields["now"])
            state = cls(fields["node"], fields["address"], fields["cluster"], first, now, tuple(fields["names"]))
        except (BadMessage, LookupError, TypeError) as error:
            raise ProtocolError(f"A node has described itself in a way that makes no sense: {error!r:.100}") from error
        texts = (state.node, state.address, state.cluster or "", *state.names)
        if not all(type(text) is str for text in texts):
            raise ProtocolError("A node has described itself in a way that makes no sense.")
        return state


@dataclass(frozen=True, slots=True)
class Seeker:
    """A node that looks for its cluster.

    Attributes:
        identity: who it is.
        hello: what it says of itself; its purpose is to ask.
        credentials: what it shows and wants to see.
        rejoin: makes the command that lets it join again, from the addresses of members.
    """

    identity: Identity
    hello: PeerHello
    credentials: Credentials
    rejoin: Callable[[Sequence[str]], str]


# --- Asking -----------------------------------------------------------------------------------------------------------


class _Question:
    """The owner of a link that asks one question."""

    def __init__(self, frame: tuple[Any, ...]) -> None:
        self._frame = frame
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def link_up(self, link: PeerLink) -> None:
        link.send(self._frame)

    def link_frames(self, link: PeerLink, frames: list[Any]) -> None:
        if not self.answer.done():
            self.answer.set_result(frames[0])
        link.close()

    def link_down(self, link: PeerLink, error: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(error or NoConnection("The connection ended before the answer came."))


async def ask(seeker: Seeker, address: str, frame: tuple[Any, ...], timeout_s: float = ASK_TIMEOUT_S) -> Any:
    """Ask a node something.

    Arguments:
        seeker: who asks.
        address: whom.
        frame: the question, and its arguments.
        timeout_s: how long to wait for all of it.
    Raises:
        KeyspaceError: there is no answer, or the answer is this error.
    """
    question = _Question(frame)
    link = PeerLink(question, Dialling(seeker.hello, seeker.credentials.secret), ANSWER_BYTES_MAX)
    try:
        async with asyncio.timeout(timeout_s):
            await connect(link, address, seeker.credentials.tls)
            answer = await question.answer
    except TimeoutError:
        raise NoConnection(f"No answer within {timeout_s:.0f} seconds.") from None
    finally:
        link.abort()
        question.answer.cancel()
    if type(answer) is tuple and len(answer) == 2 and answer[0] == "ok":
        return answer[1]
    if type(answer) is tuple and len(answer) >= 2 and all(isinstance(text, str) for text in answer[:2]):
        error = error_from_code(answer[0], answer[1])
        if isinstance(error, NotLeader) and isinstance(answer[-1], str) and len(answer) == 3:
            error.address = answer[2]
        raise error
    raise ProtocolError("The answer is not one that nodes give.")


# --- Founding ---------------------------------------------------------------------------------------------------------


class NotYet(Exception):
    """The cluster cannot be founded or found now; the sentence says what is missing."""


def decide(
    seeker: Seeker, names: Sequence[str], answers: Mapping[str, State | KeyspaceError], draw: Callable[[], str]
) -> Identity:
    """What a node that was started with ``--peer`` is to write down.

    Arguments:
        seeker: the node.
        names: the names of all nodes that found the cluster, its own among them.
        answers: by the name of each other one, what it said of itself or why it said nothing.
        draw: makes the id of a new cluster.
    Returns:
        Its identity as a member of the cluster.
    Raises:
        NotYet: ask again.
        ConfigurationError, PeerRefused: it can never be.
    """
    identity = seeker.identity
    states = {name: answer for name, answer in answers.items() if isinstance(answer, State)}
    known = [state for state in states.values() if state.cluster]
    clusters = sorted({state.cluster or "" for state in known})
    if len(clusters) > 1:
        raise ConfigurationError(
            f"The nodes of --peer are of different clusters: {', '.join(clusters)}. Look at the addresses."
        )
    for state in known:
        if identity.member_id in state.first.members:
            return identity.in_cluster(clusters[0], state.first)
    for state in known:
        if state.first.members or state.now.members:
            if identity.member_id in state.now.members:
                continue
            raise _is_no_member(seeker, state)
    if known:
        raise NotYet(f"It waits for a node that knows the first members of cluster {clusters[0]}.")
    _require_all(names, answers, states)
    if identity.node != min(names):
        raise NotYet(f"Node {min(names)} makes the cluster; it waits for that.")
    ids = {identity.member_id: (identity.node, seeker.hello.address)}
    ids |= {state.node: (name, state.address) for name, state in states.items()}
    info = {member: member_info(name, address) for member, (name, address) in ids.items()}
    return identity.in_cluster(draw(), make_membership(ids, info=info))


def _is_no_member(seeker: Seeker, state: State) -> PeerRefused:
    identity = seeker.identity
    namesakes = [member for member in state.now.members or state.first.members if name_of(member) == identity.node]
    why = (
        f"a node {identity.node} with other data is a member of it, and this folder is empty. It must not vote as if it had "
        "forgotten nothing"
        if namesakes
        else f"there is no node {identity.node} among its members"
    )
    return PeerRefused(
        f"The cluster {state.cluster} is there already, and {why}. Nothing was changed. To let this node join as a fresh "
        f"learner: {seeker.rejoin([state.address])}"
    )


def _require_all(
    names: Sequence[str], answers: Mapping[str, State | KeyspaceError], states: Mapping[str, State]
) -> None:
    """All nodes are there, and were told the same."""
    missing = [f"{name} ({answer})" for name, answer in answers.items() if isinstance(answer, KeyspaceError)]
    if missing:
        raise NotYet(f"It waits until it has reached {'; '.join(missing)}")
    for name, state in states.items():
        if name_of(state.node) != name:
            raise NotYet(f"At the address of node {name} answers node {name_of(state.node)}. Look at --peer.")
        if sorted(state.names) != sorted(names):
            raise NotYet(
                f"Node {name} was started with the members {', '.join(sorted(state.names)) or 'of another kind'}, and this node "
                f"with {', '.join(sorted(names))}. Start all with the same members."
            )


class Founding:
    """A node that was started with ``--peer``, until it has a cluster.

    Arguments:
        seeker: the node.
        others: the addresses of the other nodes, by name.
        store: writes down, durably, who the node is.
    """

    def __init__(self, seeker: Seeker, others: Mapping[str, str], store: Callable[[Identity], None]) -> None:
        self._seeker = seeker
        self._others = dict(others)
        self._names = tuple(sorted({seeker.identity.node, *others}))
        self._store = store
        self._called = asyncio.Event()
        self._log = SeldomLog(logger, 10.0)

    def answer(self, peer: PeerHello, frame: tuple[Any, ...], take: Answer) -> None:
        """Answer another node that looks for its cluster."""
        identity = self._seeker.identity
        if frame == (STATE,):
            take(State(identity.member_id, self._seeker.hello.address, names=self._names).fields())
            # It is there: perhaps it was the last one.
            self._called.set()
        else:
            take(NoLeader(f"Node {identity.node} is in no cluster yet itself."))

    async def run(self) -> Identity:
        """Ask until there is a cluster.

        Returns:
            Who the node is now; it is written down.
        Raises:
            ConfigurationError, PeerRefused: it can never be.
        """
        while True:
            self._called.clear()
            found = await asyncio.gather(*map(self._ask, self._others.values()))
            try:
                identity = decide(
                    self._seeker, self._names, dict(zip(self._others, found, strict=True)), new_cluster_id
                )
            except NotYet as reason:
                self._log.say(logging.WARNING, (), f"Node {self._seeker.identity.node} is in no cluster yet. {reason}")
            else:
                self._store(identity)
                _tell_founded(identity)
                return identity
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ASK_AGAIN_S):
                    await self._called.wait()
            # Two nodes that wake each other up must not turn into a storm.
            await asyncio.sleep(ASK_AGAIN_S / 10)

    async def _ask(self, address: str) -> State | KeyspaceError:
        try:
            return State.from_fields(await ask(self._seeker, address, (STATE,)))
        except KeyspaceError as error:
            return error


def _tell_founded(identity: Identity) -> None:
    voters = identity.members.voters
    logger.info("Node %s is part of cluster %s with %s", identity.member_id, identity.cluster, ", ".join(voters))
    if len(voters) % 2 == 0:
        logger.warning(
            "The cluster has %d voters: it survives the loss of %d, as it would with %d. Take an odd number.",
            len(voters),
            (len(voters) - 1) // 2,
            len(voters) - 1,
        )


# --- Joining ----------------------------------------------------------------------------------------------------------


async def join(seeker: Seeker, addresses: Sequence[str], store: Callable[[Identity], None]) -> Identity:
    """Join a cluster as a learner: ask until its leader has added this node.

    Arguments:
        seeker: the node.
        addresses: members of the cluster.
        store: writes down, durably, who the node is.
    Returns:
        Who the node is now; it is written down.
    Raises:
        PeerRefused, ConfigurationError: the cluster does not take it.
    """
    log = SeldomLog(logger, 10.0)
    turn, hint = 0, ""
    while True:
        address = hint or addresses[turn % len(addresses)]
        turn, hint = turn + (not hint), ""
        try:
            answer = await ask(seeker, address, (JOIN,), JOIN_TIMEOUT_S)
            if not isinstance(answer, dict) or not isinstance(answer.get("cluster"), str):
                raise ProtocolError("The answer is not one that nodes give.")
        except (PeerRefused, ConfigurationError) as error:
            raise type(error)(f"The node at {address} does not take this node into its cluster. {error}") from error
        except KeyspaceError as error:
            log.say(logging.WARNING, (address, type(error)), f"No way into the cluster by {address} yet: {error}")
            if isinstance(error, NotLeader) and error.address and error.address != address:
                hint = error.address
            else:
                await asyncio.sleep(JOIN_AGAIN_S if turn % len(addresses) == 0 else 0)
            continue
        identity = seeker.identity.in_cluster(answer["cluster"], Membership())
        store(identity)
        logger.info(
            "Node %s has joined cluster %s as a learner. Once it has caught up, it can be promoted to a voter.",
            identity.member_id,
            identity.cluster,
        )
        return identity

"""What a process knows of a cluster: its id, its nodes, who leads, and who has not answered lately. Sans-IO.

All of it may be out of date or wrong; it only decides whom to ask first. What is true is what a node answers.
"""

from __future__ import annotations

import itertools
import logging
import random
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django_keyspace.addresses import Endpoint, parse_location
from django_keyspace.backend.breaker import FAILURES_MAX, Breaker
from django_keyspace.exceptions import ConfigurationError, KeyspaceError, ProtocolError
from django_keyspace.wire import NodeHello

logger = logging.getLogger("django_keyspace.backend")

LEARN_INTERVAL_S: Final = 30.0
"""How often a process asks who the members are."""
LEARN_AGAIN_S: Final = 2.0
"""The same after an answer that did not come, or did not help."""
ASIDE_S_LEAST: Final = 0.25
"""For how long a node that did not answer is asked last; doubles with each further time."""
ASIDE_S_MOST: Final = 4.0
FORGET_S: Final = 15.0
"""When no node of the cluster has answered for so long, another cluster at the same addresses may take its place."""
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class Member:
    """A node as the cluster knows it.

    Attributes:
        name: its name.
        endpoint: where it says that it listens; None if that cannot be understood.
        is_voter: whether it may lead.
    """

    name: str
    endpoint: Endpoint | None
    is_voter: bool


class Cluster:
    """What a process knows of one cluster. Threads and event loops share it.

    Arguments:
        seeds: the addresses of ``LOCATION``.
        jitter: gives a random number from 0 to 1.

    Attributes:
        id: the cluster's id, None before a node was met.
        leader: the node that is believed to lead, None if nobody is.
        learn_at_s: when to ask for the members again, on the drivers' clock.
    """

    def __init__(self, seeds: Sequence[Endpoint], jitter: Callable[[], float] = random.random) -> None:
        self._seeds = tuple(seeds)
        self._jitter = jitter
        self.forget()

    def forget(self) -> None:
        """Begin anew, as in a forked child."""
        self._lock = threading.Lock()
        self.id: str | None = None
        self.leader: Endpoint | None = None
        self.learn_at_s = float("-inf")
        self._members: tuple[Member, ...] = ()
        self._names: dict[Endpoint, str] = {}  # who has said hello where
        self._breakers: dict[Endpoint, Breaker] = {}
        self._answered_s = float("-inf")
        self._turn = itertools.count(int(self._jitter() * 1000))
        self._order()

    # ------------------------------------------------------------------------------------------- what nodes say

    def met(self, endpoint: Endpoint, node: NodeHello, now_s: float = 0.0) -> None:
        """A node has said hello.

        Raises:
            ConfigurationError: it is a single node.
            ProtocolError: it belongs to another cluster.
        """
        if node.cluster is None:
            raise ConfigurationError(
                f"Node {node.node} at {endpoint} is a single node, and the location lists several addresses. Two "
                "single nodes would each hold a part of the data: list one address only."
            )
        with self._lock:
            if self.id is None:
                self.id = node.cluster
            elif self.id != node.cluster:
                if now_s - self._answered_s < FORGET_S:
                    raise ProtocolError(
                        f"Node {node.node} at {endpoint} belongs to cluster {node.cluster:.80}, and the others of this "
                        f"location to {self.id:.80}. Nothing was sent to it. Correct LOCATION."
                    )
                logger.warning("Cluster %s is gone; %s at its addresses takes its place", self.id, node.cluster)
                self.id, self.leader, self._members = node.cluster, None, ()
                self._names.clear()
                self.learn_at_s = float("-inf")
            if self._names.get(endpoint) != node.node:
                self._names[endpoint] = node.node
                self._order()

    def learned(self, facts: Mapping[str, Any], now_s: float) -> None:
        """A node has said who the members are.

        Raises:
            ProtocolError: it said something else.
        """
        try:
            members = tuple(_member(row) for row in facts["nodes"])
            leader = facts["leader"]
        except (KeyError, TypeError) as error:
            raise ProtocolError(f"A node answered 'members' with something else: {error!r}") from None
        with self._lock:
            self._members = members
            self._order()
            self.learn_at_s = now_s + LEARN_INTERVAL_S * (0.75 + self._jitter() / 2)
            found = self._endpoint_of(leader) if leader is not None else None
            if found is not None and self._is_well(found):
                self.leader = found

    def not_learned(self, now_s: float) -> None:
        """Nobody has said who the members are: ask again, but not with each call."""
        self.learn_at_s = now_s + LEARN_AGAIN_S * (0.5 + self._jitter())

    def hinted(self, address: str | None) -> Endpoint | None:
        """Where the node is that another one believes to lead; None if that says nothing."""
        if address is None:
            return None
        found = _endpoint(address)
        for member in self._members:
            if member.endpoint == found and found is not None:
                return self._endpoint_of(member.name)
        self.learn_at_s = float("-inf")  # a node that nobody has told us of
        return found

    def deposed(self, endpoint: Endpoint) -> None:
        """A node does not lead, or cannot be asked whether it does."""
        if self.leader == endpoint:
            self.leader = None

    def answered(self, endpoint: Endpoint, now_s: float) -> None:
        """A node has answered, whatever it said."""
        self._answered_s = now_s
        breaker = self._breakers.get(endpoint)
        if breaker is not None and breaker.failures:
            breaker.succeeded()

    def failed(self, endpoint: Endpoint, error: KeyspaceError, now_s: float) -> None:
        """A node did not answer."""
        self.deposed(endpoint)
        breaker = self._breakers.get(endpoint)
        if breaker is None:
            with self._lock:
                breaker = self._breakers.setdefault(
                    endpoint,
                    Breaker(self._jitter, failures_max=1, open_s_least=ASIDE_S_LEAST, open_s_most=ASIDE_S_MOST),
                )
        breaker.failed(error, now_s)

    # ------------------------------------------------------------------------------------------- whom to ask

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """All nodes, voters first."""
        return self._endpoints

    @property
    def is_given_up(self) -> bool:
        """Whether each node has failed to answer several times in a row: calls need not wait for it."""
        breakers = self._breakers
        return all(
            (breaker := breakers.get(endpoint)) is not None and breaker.failures >= FAILURES_MAX
            for endpoint in self._endpoints
        )

    def name_of(self, endpoint: Endpoint) -> str | None:
        """The name of the node at an address, if it is known."""
        met = self._names.get(endpoint)
        return met or next((member.name for member in self._members if member.endpoint == endpoint), None)

    def place_of(self, name: str) -> int | None:
        """Which address of LOCATION is that of a node, from 0; None if it is none of them."""
        for place, seed in enumerate(self._seeds):
            if self.name_of(seed) == name:
                return place
        return None

    def next_for_leader(self, asked: Collection[Endpoint], now_s: float, *, insists: bool = False) -> Endpoint | None:
        """The node to ask for what only a leader does.

        Arguments:
            asked: those that have been asked in this round.
            now_s: the clock.
            insists: ask those as well that have not answered lately.
        Returns:
            None: all have been asked that are worth it.
        """
        leader = self.leader
        if leader is not None and leader not in asked:
            return leader
        left = [endpoint for endpoint in self._endpoints if endpoint not in asked]
        for endpoint in left:
            if self._is_well(endpoint):
                return endpoint
        for endpoint in left:
            if insists or self._breakers[endpoint].lets_through(now_s):
                return endpoint
        return None

    def next_reader(self, asked: Collection[Endpoint], now_s: float, *, insists: bool = False) -> Endpoint | None:
        """The node to ask for what any node does: a near one if there is one, otherwise one after the other.

        Arguments and result as those of :meth:`next_for_leader`.
        """
        for group in (self._near, self._endpoints):
            if not group:
                continue
            begin = next(self._turn) % len(group)
            doubtful = None
            for endpoint in (*group[begin:], *group[:begin]):
                if endpoint in asked:
                    continue
                if self._is_well(endpoint):
                    return endpoint
                doubtful = doubtful or endpoint
            if doubtful is not None and (insists or self._breakers[doubtful].lets_through(now_s)):
                return doubtful
        return None

    def _is_well(self, endpoint: Endpoint) -> bool:
        breaker = self._breakers.get(endpoint)
        return breaker is None or not breaker.failures

    def _endpoint_of(self, name: str) -> Endpoint | None:
        """Where a node is to be found: at the address of LOCATION where it said hello, or where it says that it listens."""
        for endpoint, met in self._names.items():
            if met == name and endpoint in self._seeds and self._is_well(endpoint):
                return endpoint
        return next((member.endpoint for member in self._members if member.name == name), None)

    def _order(self) -> None:
        """Make the list of nodes anew, from the members, or from LOCATION while nobody knows them."""
        found: dict[Endpoint, None] = {}
        for is_voter in (True, False):
            for member in self._members:
                endpoint = self._endpoint_of(member.name)
                if member.is_voter is is_voter and endpoint is not None:
                    found[endpoint] = None
        named = {member.name for member in self._members}
        for seed in self._seeds:
            # A seed that nobody has met may be a member under another address, or the only way in.
            if self._names.get(seed) not in named:
                found[seed] = None
        self._endpoints = tuple(found)
        near = tuple(endpoint for endpoint in found if endpoint.path or endpoint.host in _LOOPBACK)
        self._near = near if len(near) < len(found) else ()


def _member(row: Any) -> Member:
    name, address = row["name"], row["address"]
    if type(name) is not str or not (address is None or type(address) is str):
        raise TypeError(row)
    return Member(name, _endpoint(address), row["role"] == "voter")


def _endpoint(address: str | None) -> Endpoint | None:
    """The endpoint of ``host:port``; None if it is something else."""
    if address is None:
        return None
    try:
        (endpoint,) = parse_location(f"keyspace://{address}/0").endpoints
    except (ConfigurationError, ValueError):
        return None
    return endpoint

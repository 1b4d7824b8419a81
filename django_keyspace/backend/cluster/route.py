"""The way of one call through a cluster. Sans-IO.

:meth:`Route.steps` is a generator of intents (:class:`Ask`, :class:`Pause`) that a driver carries out. It is sent what came of
each, and the time, and ends with the call's result or raises its error. While all is well a call is one attempt:
:meth:`Route.first` and :meth:`Route.took` are that much of it, without a generator.

A call asks one node after the other in rounds: who is believed to lead first, whom a node names as the leader next, then all
others; nobody twice in a round. Between rounds it waits, a little longer each time. So nodes that name each other, or somebody
who is gone, cost a round and no more, and nobody is asked in a tight loop while there is no leader.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

from django_keyspace.addresses import Endpoint
from django_keyspace.backend.cluster.knowledge import Cluster
from django_keyspace.backend.levels import note_seen, seen_index
from django_keyspace.backend.routing import ATTEMPTS_MAX, Failure, shape_result, unknown_outcome
from django_keyspace.backend.sessions import Request
from django_keyspace.exceptions import (
    DeadlineExceeded,
    KeyspaceError,
    LeadershipLost,
    NoConnection,
    NoLeader,
    NotLeader,
    Overloaded,
    ProtocolError,
    SessionExpired,
    TooStale,
    TransportError,
)
from django_keyspace.operations import CHANGES
from django_keyspace.wire import OK

HINTS_MAX: Final = 8
"""A call follows so many hints at most. After that it asks all nodes in turn, until its time is over."""
ATTEMPT_S_LEAST: Final = 1.0
ATTEMPT_S_MOST: Final = 2.0
"""A node that has a call for so long without an answer may be frozen or cut off: others are asked. It gets twice as much the
next time, because the call may simply take long."""
PAUSE_S_LEAST: Final = 0.01
PAUSE_S_MOST: Final = 0.2
_ANYWHERE: Final = frozenset({"session", "dirty"})
"""Levels of reads that any node may answer."""
_OTHER_WAYS: Final = frozenset({"members", "script"})
"""Operations that are not done at the leader, or get more time there."""
_NO_LEADER_HERE: Final = (NotLeader, NoLeader)
_SCRIPT_S: Final = 2.0


class Ask(NamedTuple):
    """Send a request to a node and bring its answer. What comes of it: an :data:`Answer` or a :class:`Failure`.

    Attributes:
        endpoint: the node.
        name: the operation.
        arguments: its arguments.
        until_s: when to give up, on the driver's clock.
        connect_by_s: when a connection has to stand.
        is_new: whether it takes a connection that is made for it.
    """

    endpoint: Endpoint
    name: str
    arguments: Sequence[Any]
    until_s: float
    connect_by_s: float
    is_new: bool = False


class Pause(NamedTuple):
    """Wait. Nothing comes of it."""

    seconds: float


Intent = Ask | Pause
Answer = tuple[Any, ...]
"""Id, status, result, and perhaps an index: what a node sent."""
Steps = Generator[Intent, tuple[Answer | Failure | None, float], Any]


@cache
def attempt_s(timeout_ms: int) -> float:
    """How long a node may have a call at the first attempt, in seconds, of the call's whole time."""
    timeout_s = timeout_ms / 1000
    return min(max(timeout_s / 4, ATTEMPT_S_LEAST), ATTEMPT_S_MOST, timeout_s / 2)


class Route:
    """One call's way.

    Arguments:
        cluster: what is known of the cluster.
        request: the call.
        begin_s: the driver's clock.
        timeout_ms: how long the call may take in all.
        leader_timeout_ms: how long of it may pass without a leader; None: all of it.
        prefers_leader: whether a read that any node may answer goes to the leader, if one is known.
        jitter: gives a random number from 0 to 1.
    """

    # What nearly no call changes.
    _rounds = _hints = _failed = 0
    _began = _is_plain = _may_be_done = _is_new = _reached = False
    _last: KeyspaceError | None = None

    def __init__(
        self,
        cluster: Cluster,
        request: Request,
        begin_s: float,
        timeout_ms: int,
        leader_timeout_ms: int | None = None,
        *,
        prefers_leader: bool = False,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._cluster = cluster
        self._request = request
        self._now_s = self._alone_since_s = begin_s
        self._timeout_ms = timeout_ms
        self._leader_timeout_ms = leader_timeout_ms
        self.deadline_at_s = begin_s + timeout_ms / 1000
        self._attempt_s = attempt_s(timeout_ms)
        self._prefers_leader = prefers_leader
        self._jitter = jitter
        self._asked: set[Endpoint] = set()  # in this round
        self._told: dict[Endpoint, KeyspaceError] = {}
        self._answer: Any = None

    # ------------------------------------------------------------------------------------------- the way

    def first(self) -> Ask | None:
        """The attempt that nearly every call is done with; None if this one takes :meth:`steps`.

        What came of it goes to :meth:`took`.
        """
        request, cluster = self._request, self._cluster
        if cluster.learn_at_s <= self._now_s or request.name in _OTHER_WAYS:
            return None
        endpoint = cluster.leader if self._word() else self._next_reader()
        if endpoint is None:
            return None
        self._began = True
        return self._attempt(endpoint, *request.parts(), self._attempt_s)

    def took(self, ask: Ask, outcome: Answer | Failure, now_s: float) -> list[Any]:
        """Take what came of :meth:`first`. Raises what ends the call.

        Returns:
            A list of the call's result; an empty one if :meth:`steps` has to go on.
        """
        self._now_s = now_s
        if not self._take(ask.endpoint, ask.name, outcome):
            return []
        return [self._result(ask.endpoint)]

    def steps(self) -> Steps:
        """The intents of this call; its result at the end. Raises KeyspaceError."""
        name = self._request.name
        if not self._began and self._cluster.learn_at_s <= self._now_s:
            yield from self._learn()
        if name == "members":
            return (yield from self._anywhere())
        if name == "script":
            self._attempt_s = min(self._attempt_s + _SCRIPT_S, self._timeout_ms / 1000)
        return (yield from self._at_leader() if self._word() else self._anywhere())

    def _word(self) -> bool:
        """Word a read for a cluster. Doing it twice changes nothing.

        A plain one is asked as a safe one, whose answer says more; a session's asks for what the session has seen by now.

        Returns:
            Whether it is the leader who does this call.
        """
        request = self._request
        if request.name in CHANGES:
            return True
        if request.name != "at":
            request.name, request.arguments = "at", ("safe", 0, None, (request.name, *request.arguments))
            self._is_plain = True
            return True
        level, index, max_staleness_ms, call = request.arguments
        if level == "session":
            request.arguments = level, max(index, self._seen()), max_staleness_ms, call
        return level not in _ANYWHERE

    def _learn(self) -> Steps:
        """Ask who the members are. A cluster of which nothing is known yet must be met first; otherwise one try is enough."""
        cluster = self._cluster
        must = cluster.id is None
        while True:
            endpoint = cluster.next_reader(self._asked, self._now_s, insists=must and self._rounds > 0)
            if endpoint is None:
                if not must:
                    break
                yield from self._rest()
                continue
            if (yield from self._ask(endpoint, "members", (), self._attempt_s / (1 if must else 2))):
                cluster.learned(shape_result("members", (), self._answer[2]), self._now_s)
                break
            if not must:
                break
        if cluster.learn_at_s <= self._now_s:
            cluster.not_learned(self._now_s)
        self._asked.clear()
        self._rounds = 0

    def _at_leader(self) -> Steps:
        """Find the leader and have the call done there."""
        request, cluster = self._request, self._cluster
        while True:
            endpoint = cluster.next_for_leader(self._asked, self._now_s, insists=self._insists())
            if endpoint is None:
                yield from self._rest()
                continue
            # What this process knows of the log clock was wrong: a new hello tells it, and asks for nothing.
            if self._is_new and not (yield from self._ask(endpoint, "members", (), self._attempt_s)):
                continue
            if (yield from self._ask(endpoint, *request.parts(), self._attempt_s)):
                if cluster.leader != endpoint:
                    cluster.leader = endpoint
                return self._result(endpoint)
            if isinstance(self._last, TooStale) and endpoint == cluster.leader:
                raise self._last

    def _anywhere(self) -> Steps:
        """Have a read done by any node; if none is fresh enough, by the leader."""
        request = self._request
        while True:
            stale = self._last if isinstance(self._last, (TooStale, *_NO_LEADER_HERE)) else None
            if stale is not None and request.arguments[:1] == ("session",):
                return (yield from self._at_leader())
            endpoint = self._next_reader()
            if endpoint is not None:
                if (yield from self._ask(endpoint, *request.parts(), self._attempt_s)):
                    return self._result(endpoint)
            elif stale is not None:
                self._asked.clear()  # the leader, or whoever becomes it, is fresh
                try:
                    return (yield from self._at_leader())
                except NoLeader as error:
                    raise stale if isinstance(stale, TooStale) else error from None
            else:
                yield from self._rest()

    def _next_reader(self) -> Endpoint | None:
        """Whom to ask next for what any node does."""
        cluster = self._cluster
        if self._prefers_leader and cluster.leader is not None and cluster.leader not in self._asked:
            return cluster.leader
        return cluster.next_reader(self._asked, self._now_s, insists=self._insists())

    # ------------------------------------------------------------------------------------------- one attempt

    def _ask(self, endpoint: Endpoint, name: str, arguments: Sequence[Any], attempt_s: float) -> Steps:
        """Ask a node. True if it did what was asked: the answer is in ``_answer``. Raises what ends the call."""
        if self._now_s >= self.deadline_at_s:
            raise self._over()
        outcome, self._now_s = yield self._attempt(endpoint, name, arguments, attempt_s)
        self._is_new = False
        return self._take(endpoint, name, outcome)

    def _attempt(self, endpoint: Endpoint, name: str, arguments: Sequence[Any], attempt_s: float) -> Ask:
        """An attempt that begins now."""
        until_s = min(self._now_s + attempt_s, self.deadline_at_s)
        return Ask(endpoint, name, arguments, until_s, min(until_s, self._alone_limit_s), self._is_new)

    def _take(self, endpoint: Endpoint, name: str, outcome: Answer | Failure | None) -> bool:
        """Take what came of an attempt: see :meth:`_ask`."""
        if type(outcome) is tuple:
            self._cluster.answered(endpoint, self._now_s)
            if outcome[1] == OK:
                self._answer = outcome
                return True
            failure = self._request.refused(outcome[1], outcome[2])
        elif isinstance(outcome, Failure):
            failure = outcome
        else:
            raise TypeError("An Ask is answered by an answer or a failure.")
        self._judge(endpoint, failure, name)
        return False

    def _judge(self, endpoint: Endpoint, failure: Failure, name: str) -> None:
        """Learn from an attempt that was not answered, or refused. Raises what ends the call."""
        cluster, error, request = self._cluster, failure.error, self._request
        self._last = self._told[endpoint] = error
        self._asked.add(endpoint)
        self._reached = self._reached or failure.reached
        if failure.sent and name in CHANGES:
            self._may_be_done = True
            if not request.has_session:
                raise unknown_outcome(request.name, endpoint, error) from error
        if name != "members" and request.prepare(failure):
            self._is_new = True
        if isinstance(error, NotLeader):
            cluster.deposed(endpoint)
            self._follow(endpoint, error)
            return
        if isinstance(error, NoLeader | LeadershipLost):
            cluster.deposed(endpoint)
            return
        if isinstance(error, TooStale):
            return
        if failure.reached:
            self._alone_since_s = self._now_s
        if isinstance(error, SessionExpired):
            if self._may_be_done:
                raise self._unknown(error) from error
            self._asked.discard(endpoint)
            self._count(error)
        elif isinstance(error, Overloaded):
            self._count(error)
        elif isinstance(error, DeadlineExceeded):
            self._attempt_s *= 2
            cluster.failed(endpoint, error, self._now_s)
        elif isinstance(error, NoConnection) and failure.sent and self._failed < ATTEMPTS_MAX:
            self._failed += 1
            self._asked.discard(endpoint)  # a connection broke: a new one may well work
        else:
            cluster.failed(endpoint, NoConnection(str(error)), self._now_s)

    def _follow(self, endpoint: Endpoint, error: NotLeader) -> None:
        """Ask the node next that another one believes to lead. It may be wrong, or name itself."""
        hint = self._cluster.hinted(error.address)
        if hint is None or hint == endpoint or hint in self._asked or self._hints >= HINTS_MAX:
            return
        self._hints += 1
        self._cluster.leader = hint

    def _count(self, error: TransportError) -> None:
        """Of a node that could not do it now: it is tried a few times. Raises what ends the call."""
        self._failed += 1
        if self._failed >= ATTEMPTS_MAX and not self._may_be_done:
            raise error

    def _result(self, endpoint: Endpoint) -> Any:
        """The result of the call, once a node has answered it."""
        request, cluster = self._request, self._cluster
        result = shape_result(request.name, request.arguments, self._answer[2])
        index = self._answer[3] if len(self._answer) > 3 else result[1] if request.name == "at" else 0
        if type(index) is not int:
            raise ProtocolError(f"{endpoint} answered {request.name!r} without an index.")
        if index and cluster.id is not None:
            note_seen(cluster.id, index)
        return result[0] if self._is_plain else result

    def _seen(self) -> int:
        return seen_index(self._cluster.id) if self._cluster.id is not None else 0

    # ------------------------------------------------------------------------------------------- between rounds

    def _insists(self) -> bool:
        """Whether to ask nodes that have not answered lately: after a round without an answer."""
        return self._rounds > 0 and not self._reached

    @property
    def _alone_limit_s(self) -> float:
        """When to stop looking for a leader."""
        if self._leader_timeout_ms is None:
            return self.deadline_at_s
        return min(self.deadline_at_s, self._alone_since_s + self._leader_timeout_ms / 1000)

    def _rest(self) -> Steps:
        """A round is over without an answer. Raises what ends the call, or waits."""
        self._rounds += 1
        last = self._last
        if not self._reached and not self._may_be_done:
            for error in self._told.values():  # what will not get better
                if not isinstance(error, TransportError) or isinstance(error, ProtocolError):
                    raise error
        if self._now_s >= self._alone_limit_s:
            raise self._over()
        if self._leader_timeout_ms is None and not self._may_be_done and not self._reached:
            if self._rounds >= ATTEMPTS_MAX or (self._rounds == 1 and self._cluster.is_given_up):
                raise last or self._no_connection()
        longest_s = min(PAUSE_S_LEAST * 2 ** min(self._rounds - 1, 10), PAUSE_S_MOST)
        pause_s = min(longest_s * (0.5 + self._jitter()), max(self._alone_limit_s - self._now_s, 0.001))
        self._asked.clear()
        _, self._now_s = yield Pause(pause_s)

    def _over(self) -> KeyspaceError:
        """The error of a call whose time, or whose time without a leader, is over."""
        error = self._timed_out()
        error.reached = self._reached
        if self._may_be_done:
            return self._unknown(self._last, error)
        return error

    def _timed_out(self) -> TransportError:
        last = self._last
        in_all = self._now_s >= self.deadline_at_s
        if in_all and self._reached and isinstance(last, DeadlineExceeded | Overloaded):
            return DeadlineExceeded(
                f"The cluster did not answer within {self._timeout_ms:,} ms. The last thing that happened: {last} "
                "The option timeout_ms sets the time of a call."
            )
        limit_ms = self._timeout_ms if in_all or self._leader_timeout_ms is None else self._leader_timeout_ms
        error = NoLeader(
            f"No leader of {self._cluster_text()} was found within {limit_ms:,} ms. Nothing was changed. {self._known()}"
        )
        error.took_all = in_all
        return error

    def _cluster_text(self) -> str:
        return f"cluster {self._cluster.id}" if self._cluster.id is not None else "the cluster"

    def _known(self) -> str:
        """What each node said, or did not say."""
        if not self._told:
            return "No node was asked: none has answered lately."
        names = self._cluster.name_of
        return " ".join(
            f"{names(endpoint) or 'The node'} at {endpoint}: {error}" for endpoint, error in self._told.items()
        )

    def _no_connection(self) -> NoConnection:
        nodes = ", ".join(map(str, self._cluster.endpoints))
        return NoConnection(f"No node answers at {nodes}, and none has lately. Nothing was changed. Are they running?")

    def _unknown(self, last: KeyspaceError | None, cause: KeyspaceError | None = None) -> KeyspaceError:
        """The error of a write that may be done: what happened last, and why it was not asked for any longer."""
        error = unknown_outcome(self._request.name, self._cluster_text(), last)
        error.__cause__ = cause or last
        return error

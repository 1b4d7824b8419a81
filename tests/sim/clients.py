"""Clients: processes with sessions, threads that call, attempts that follow hints, and a record of what was answered.

What numbers the writes is the real client's (`backend/sessions.py`), with time and chance of the simulation. The rest of
the real client is sockets; here it is: an attempt is sent to a node, an answer comes or not, and until the call's deadline the
next attempt goes where the last answer pointed, or anywhere.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from django_keyspace.backend import sessions as real
from django_keyspace.backend.routing import Failure
from django_keyspace.exceptions import (
    DeadlineExceeded,
    KeyspaceError,
    LeadershipLost,
    LocalError,
    NoConnection,
    NoLeader,
    NotLeader,
    Overloaded,
    SessionExpired,
    StaleSequence,
    TooStale,
    UnknownOutcome,
)
from tests.sim.workload import Wish, Workload
from tests.sim.world import Event, Violated, World

if TYPE_CHECKING:
    from tests.sim.cluster import SimCluster

CHECK_AGES = True
"""Whether what a dirty read saw is held against the age that came with it."""
SENT_NOTHING = (NotLeader, NoLeader, Overloaded, TooStale, NoConnection)


def use_time_of(world: World) -> None:
    """Have the real sessions take time and ids from a simulation. The last one to ask has it."""
    random = world.random("session ids")
    real.monotonic = lambda: world.now_us / 1e6
    real.secrets = SimpleNamespace(token_bytes=random.randbytes)


class SimClient:
    """One process with some threads; they share its sessions.

    Arguments:
        cluster: whom it calls.
        name: of its host.
        threads: how many calls it may have under way.
        think_ms: mean time between two calls of a thread.

    Attributes:
        seen_index: the newest state that it has seen: session reads are at least as new.
        is_stopping: it begins no new calls.
        under_way: calls that have not ended.
    """

    def __init__(self, cluster: SimCluster, name: str, threads: int, think_ms: int) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.name = name
        self.random = cluster.world.random(f"client/{name}")
        self.workload = (
            cluster.clients[0].workload if cluster.clients else Workload(cluster.world.random("workload"), cluster.plan)
        )
        self.sessions = real.Sessions()
        self.hint: str | None = None
        self.seen_index = 0
        self.is_stopping = False
        self.under_way = 0
        self.think_ms = think_ms
        for number in range(threads):
            self.world.at(self.random.randrange(500_000), None, self.think, f"{name}.{number}")

    def think(self, thread: str) -> None:
        """A thread begins its next call, if there is to be one."""
        if not self.is_stopping:
            Call(self, thread, self.workload.next())

    def ended(self, thread: str) -> None:
        """A thread's call has ended."""
        self.under_way -= 1
        pause_us = int(self.random.expovariate(1.0) * self.think_ms * 1000)
        self.world.at(pause_us, None, self.think, thread)

    def met(self, log_ms: int) -> None:
        """A node has told its log clock in its hello."""
        self.sessions.met(log_ms)

    @property
    def knows_clock(self) -> bool:
        """Whether a session can be begun."""
        return self.sessions._log_ms is not None


class Call:
    """One call of one thread, over all of its attempts."""

    def __init__(self, client: SimClient, thread: str, wish: Wish, deadline_ms: int | None = None) -> None:
        self.client = client
        self.world = client.world
        self.thread = thread
        self.wish = wish
        self.is_write = wish.level in ("write", "script")
        self.request = real.Request(client.sessions, wish.call[0], wish.call[1:])
        self.attempt = 0
        self.timer: Event | None = None
        self.result: Any = None
        self.is_over = False
        self.was_sent = False
        random = client.random
        self.deadline_us = self.world.now_us + (deadline_ms or random.choice((800, 2_000, 5_000, 9_000))) * 1000
        self.patience_us = random.choice((300, 1_000, 2_000, 7_000)) * 1000
        self.staleness_ms = random.choice((None, None, 300)) if wish.level in ("session", "dirty") else None
        level = "safe" if self.is_write else wish.level
        self.min_index = client.seen_index if level == "session" else 0
        self.ticket = client.cluster.history.begin(
            thread,
            wish.call,
            self.world.now_us,
            level=level,
            max_staleness_us=self.staleness_ms * 1000
            if self.staleness_ms and level == "dirty" and CHECK_AGES
            else None,
            min_index=self.min_index if level == "session" else None,
        )
        client.under_way += 1
        client.cluster.watch.begins(self)
        self.try_node()

    # --- Attempts -----------------------------------------------------------------------------------------------------

    def try_node(self) -> None:
        """Send the next attempt, or give up."""
        if self.is_over:
            return
        if self.world.now_us >= self.deadline_us:
            self.give_up()
            return
        self.attempt += 1
        self.was_sent = False
        host = self.choose()
        if self.attempt > 1:
            self.world.counts["resend" if self.request.again else "retry"] += 1
        if not self.client.knows_clock and self.is_write:
            self.client.cluster.hello(self.client.name, host, self.on_hello(self.attempt, host))
        else:
            self.send(host)
        if not self.is_over:
            left_us = self.deadline_us - self.world.now_us
            self.timer = self.world.at(min(self.patience_us, left_us), None, self.lost_patience, self.attempt)

    def choose(self) -> str:
        """Which node to ask."""
        hosts = self.client.cluster.member_hosts()
        level = self.wish.level
        if level in ("session", "dirty") and self.attempt < 5:
            return self.client.random.choice(hosts)
        if self.client.hint in hosts and self.client.random.random() < 0.95:
            return str(self.client.hint)
        return self.client.random.choice(hosts)

    def on_hello(self, attempt: int, host: str) -> Any:
        def arrived(log_ms: int) -> None:
            self.client.met(log_ms)
            if attempt == self.attempt and not self.is_over:
                self.send(host)

        return arrived

    def send(self, host: str) -> None:
        """Have the attempt travel."""
        self.was_sent = True
        name, arguments = self.request.parts()
        self.client.cluster.ask(
            self.client.name,
            host,
            (self.wish.level, (name, *arguments), self.min_index, self.staleness_ms),
            lambda answer, attempt=self.attempt: self.on_answer(host, attempt, answer),
        )

    def lost_patience(self, attempt: int) -> None:
        if attempt == self.attempt and not self.is_over:
            self.client.hint = None
            self.failed(Failure(DeadlineExceeded("No answer."), sent=self.was_sent, reached=True), 0)

    # --- Answers ------------------------------------------------------------------------------------------------------

    def on_answer(self, host: str, attempt: int, answer: Any) -> None:
        """An answer has come: (result, index, age in ms) or an error."""
        if self.is_over or attempt != self.attempt:
            self.world.counts["late_answer"] += 1
            return
        if self.timer is not None:
            self.timer.cancel()
        if isinstance(answer, KeyspaceError):
            self.on_error(host, answer)
            return
        result, index, age_ms = answer
        if self.wish.level != "dirty":
            self.client.hint = host if self.is_write or self.wish.level == "safe" else self.client.hint
            self.client.seen_index = max(self.client.seen_index, index)
        self.end(result, index, age_ms)

    def on_error(self, host: str, error: KeyspaceError) -> None:
        if isinstance(error, LocalError):
            self.client.hint = host
            self.end(error, None, None)
        elif isinstance(error, StaleSequence):
            raise Violated(f"{self.thread} waits for {self.wish.call}, and is told that nobody does: {error}")
        elif isinstance(error, LeadershipLost):
            self.failed(Failure(error, sent=True, reached=True), 30)
        elif isinstance(error, SENT_NOTHING):
            self.client.hint = None
            if isinstance(error, NotLeader) and error.leader:
                self.client.hint = self.client.cluster.host_of(error.leader)
            self.failed(Failure(error, sent=False, reached=True), 5 if self.client.hint else 80)
        elif isinstance(error, SessionExpired) and not self.request.again:
            self.world.counts["session_expired"] += 1
            self.failed(Failure(error, sent=False, reached=True), 10)
        else:  # NoSpace and the like; UnknownOutcome
            self.world.counts[f"error:{error.code}"] += 1
            unknown = self.request.again or isinstance(error, UnknownOutcome)
            self.over(UnknownOutcome(str(error)) if unknown else error)

    def failed(self, failure: Failure, pause_ms: int) -> None:
        """An attempt has failed; there is another one after a pause."""
        if self.timer is not None:
            self.timer.cancel()
        self.attempt += 1  # an answer to the last one comes too late now
        self.request.prepare(failure)
        self.world.at(pause_ms * 1000 + self.client.random.randrange(5_000), None, self.try_node)

    def give_up(self) -> None:
        """The call's time is over."""
        may_have_been = self.is_write and self.request.again
        self.over(UnknownOutcome("No answer in time.") if may_have_been else NoLeader("Nobody took it in time."))

    def end(self, result: Any, index: int | None, age_ms: int | None) -> None:
        """The call has an answer of the state machine."""
        cluster, now_us = self.client.cluster, self.world.now_us
        self.result = result
        self.world.counts["answered"] += 1
        cluster.watch.answered(self, result)
        if isinstance(result, KeyspaceError):
            cluster.history.fail(self.ticket, now_us, result)
        else:
            age_us = age_ms * 1000 if age_ms is not None and CHECK_AGES else None
            cluster.history.finish(self.ticket, now_us, result, index=index, age_us=age_us)
        if self.world.is_traced:
            self.world.tell(self.thread, f"{self.wish.level} {_short(self.wish.call)} -> {_short(result)} @{index}")
        self.close()

    def over(self, error: KeyspaceError) -> None:
        """The call ends without one."""
        self.result = error
        self.world.counts["unknown" if isinstance(error, UnknownOutcome) else "refused"] += 1
        self.client.cluster.history.fail(self.ticket, self.world.now_us, error)
        if self.world.is_traced:
            self.world.tell(self.thread, f"{self.wish.level} {_short(self.wish.call)} -> {error.code}")
        self.close()

    def close(self) -> None:
        self.is_over = True
        if self.timer is not None:
            self.timer.cancel()
        self.request.end()
        self.client.ended(self.thread)


def _short(value: Any) -> str:
    return f"{value!r:.90}"

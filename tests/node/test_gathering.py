"""When an entry is made of what waits: together with those who come back, and never late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from django_keyspace.exceptions import NoConnection
from django_keyspace.node.gathering import COME_BACK_MS, ENOUGH_BYTES, UNDER_WAY_MS, Gathering
from django_keyspace.node.proposals import Group, Proposal, Proposals
from django_keyspace.node.settings import RuntimeSettings
from tests.node.replicas import Cluster, put


class Bench:
    """Proposals, and a timer that a test plays."""

    def __init__(self) -> None:
        self.proposals = Proposals(RuntimeSettings())
        self.timers: list[Timer] = []
        self.flushes = 0
        scheduler: Any = self
        self.gathering = Gathering(self.proposals, scheduler, self.flush)

    def call_later(self, delay_ms: int, function: Callable[[], None]) -> Timer:
        self.timers.append(Timer(delay_ms, function))
        return self.timers[-1]

    def flush(self) -> None:
        self.flushes += 1

    def come(self, count: int = 1, size_bytes: int = 100) -> None:
        for _ in range(count):
            self.proposals.put(Proposal([put(b"k", b"v")], size_bytes, lambda results: None))

    def pack(self, index: int) -> int:
        """Make an entry. Returns: of how many."""
        group = self.proposals.take()
        self.proposals.under_way(index, 1, Group(group))
        return len(group)

    def apply(self, index: int, count: int) -> None:
        self.proposals.applied(index, 1, [None] * count)

    def is_due(self) -> bool:
        return self.gathering.is_due()


class Timer:
    def __init__(self, delay_ms: int, function: Callable[[], None]) -> None:
        self.delay_ms = delay_ms
        self.is_cancelled = False
        self._function = function

    def cancel(self) -> None:
        self.is_cancelled = True

    def ring(self) -> None:
        assert not self.is_cancelled
        self._function()


def together(count: int) -> Bench:
    """So many were answered with the last entry."""
    bench = Bench()
    bench.come(count)
    assert bench.pack(1) == count
    bench.apply(1, count)
    return bench


def test_who_is_alone_never_waits() -> None:
    bench = Bench()
    for index in range(1, 4):
        bench.come()
        assert bench.is_due()
        bench.pack(index)
        bench.apply(index, 1)
    assert bench.timers == []


def test_those_who_were_answered_together_come_together_again() -> None:
    bench = together(3)
    bench.come()
    assert not bench.is_due()
    bench.come()
    assert not bench.is_due()
    (timer,) = bench.timers
    assert timer.delay_ms == COME_BACK_MS
    bench.come()
    assert bench.is_due() and timer.is_cancelled
    assert bench.pack(2) == 3


def test_who_does_not_come_back_holds_the_others_up_once() -> None:
    bench = together(3)
    bench.come(2)
    assert not bench.is_due()
    bench.timers[0].ring()
    assert bench.flushes == 1 and bench.is_due()
    assert bench.pack(2) == 2
    bench.apply(2, 2)
    bench.come(2)
    assert bench.is_due(), "only two are waited for from now on"
    assert len(bench.timers) == 1


def test_while_an_entry_is_under_way_its_end_is_waited_for() -> None:
    bench = Bench()
    bench.come()
    bench.pack(1)
    bench.come(2)
    assert not bench.is_due()
    bench.apply(1, 1)
    assert bench.is_due() and bench.timers[0].is_cancelled
    bench.pack(2)
    bench.come()
    assert not bench.is_due() and bench.timers[1].delay_ms == UNDER_WAY_MS
    bench.timers[1].ring()
    assert bench.is_due(), "not for long, however far away the others are"


def test_much_waits_for_nothing() -> None:
    bench = together(3)
    bench.come(1, ENOUGH_BYTES - 1)
    assert not bench.is_due()
    bench.come(1, 1)
    assert bench.is_due()


def test_a_timer_that_rings_for_nobody_does_nothing() -> None:
    bench = together(2)
    bench.come()
    assert not bench.is_due()
    bench.proposals.leadership_ended(NoConnection("lost"))
    assert bench.proposals.waiting_bytes == 0
    bench.timers[0].ring()
    assert bench.flushes == 0
    bench.come()
    assert bench.is_due(), "what was lost is not waited for"


@pytest.mark.parametrize("count", [1, 4])
def test_clients_of_a_cluster_share_entries(make_cluster: Callable[..., Cluster], count: int) -> None:
    """Each sends its next write when the last one is answered."""
    cluster = make_cluster()
    cluster.start()
    leader = cluster.leader()
    before, done = leader.runtime.applied_index, [0] * count

    def go_on(number: int) -> None:
        def answered(results: list[Any]) -> None:
            done[number] += 1
            if done[number] < 50:
                cluster.world.at(200 + 50 * number, None, go_on, number)

        leader.runtime.propose([put(b"k%d" % number, b"v")], 100, answered)

    for number in range(count):
        go_on(number)
    cluster.until(lambda: min(done) == 50)
    assert leader.runtime.applied_index - before <= 60

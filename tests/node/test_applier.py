"""From committed entries to results: groups, the thread beside the loop, a full disk, and what ends a node."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from django_keyspace.exceptions import KeyspaceError, NoSpace, NotANumber, StorageError
from django_keyspace.node import applier as applier_module
from django_keyspace.node.applier import Applier
from django_keyspace.node.entries import LoggedCalls, pack_calls
from django_keyspace.node.raft import COMMANDS, NOOP, BrokenInvariant, Entry
from django_keyspace.node.settings import RuntimeSettings
from tests.node.replicas import Cluster, incr, put


class Bench:
    """An applier whose machine, threads and timers a test plays."""

    def __init__(self, here_bytes_max: int = 1_000) -> None:
        self.trouble: deque[Exception] = deque()
        self.applied_groups: list[list[int]] = []
        self.told: list[tuple[int, list[Any]]] = []
        self.failures: list[BaseException] = []
        self.full: list[bool] = []
        self.beside: deque[tuple[Callable[[], Any], Callable[[Any], None]]] = deque()
        self.later: deque[Callable[[], None]] = deque()
        settings = RuntimeSettings(apply_here_bytes_max=here_bytes_max)
        self.applier = Applier(self, self, settings, self.applied, self.failures.append, self.full.append)

    # As a machine.
    def apply(self, entries: Sequence[LoggedCalls]) -> list[list[Any]]:
        if self.trouble:
            raise self.trouble.popleft()
        self.applied_groups.append([entry.index for entry in entries])
        return [[f"{entry.index}.{at}" for at in range(len(entry.calls))] for entry in entries]

    # As a scheduler.
    def in_thread(self, name: str, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        assert name == "applier"
        self.beside.append((work, done))

    def call_later(self, delay_ms: int, function: Callable[[], None]) -> None:
        self.later.append(function)

    call_soon = call_threadsafe = call_later

    def finish(self) -> None:
        """The thread has done what was given to it first."""
        work, done = self.beside.popleft()
        try:
            result = work()
        except Exception as error:
            result = error
        done(result)

    # As a runtime.
    def applied(self, entries: Sequence[Entry], results: list[list[Any]]) -> None:
        self.told += [(entry.index, found) for entry, found in zip(entries, results, strict=True)]


def entry(index: int, size_bytes: int = 50, calls: int = 1) -> Entry:
    data = pack_calls(1, [("set", bytes(max(size_bytes - 32 - 20, 0)))] * calls)
    return Entry(index, 1, COMMANDS, data)


def test_small_entries_are_applied_at_once_and_together() -> None:
    bench = Bench()
    bench.applier.put([entry(1), Entry(2, 1, NOOP, b""), entry(3, calls=2)])
    assert bench.applied_groups == [[1, 2, 3]]
    assert bench.told == [(1, ["1.0"]), (2, []), (3, ["3.0", "3.1"])]
    assert bench.applier.is_idle and not bench.beside


def test_what_nobody_waits_for_is_applied_a_little_later_and_together() -> None:
    bench = Bench()
    bench.applier.put([entry(1)], at_once=False)
    bench.applier.put([entry(2), entry(3)], at_once=False)
    assert bench.applied_groups == [] and not bench.applier.is_idle
    assert len(bench.later) == 1
    bench.later.popleft()()
    assert bench.applied_groups == [[1, 2, 3]]
    bench.applier.put([entry(4)], at_once=False)
    bench.applier.hurry()
    assert bench.applied_groups[-1] == [4]
    bench.applier.put([entry(5)], at_once=False)
    bench.applier.put([entry(6)])
    assert bench.applied_groups[-1] == [5, 6]
    bench.later.popleft()()
    assert len(bench.applied_groups) == 3, "there is nothing left for the timer"


def test_what_comes_faster_than_that_is_applied_when_it_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applier_module, "GROUP_ENTRIES_MAX", 3)
    bench = Bench()
    for index in (1, 2, 3):
        bench.applier.put([entry(index)], at_once=False)
    assert bench.applied_groups == [[1, 2, 3]]


def test_later_is_not_while_another_thread_applies() -> None:
    bench = Bench()
    bench.applier.put([entry(1, 5_000)])
    bench.applier.put([entry(2)], at_once=False)
    bench.later.popleft()()
    bench.applier.hurry()
    assert bench.applied_groups == []
    bench.finish()
    assert bench.applied_groups == [[1], [2]]


def test_what_is_large_is_applied_beside_the_loop_and_in_order() -> None:
    bench = Bench()
    bench.applier.put([entry(1), entry(2, 5_000), entry(3)])
    assert bench.applied_groups == [[1]] and bench.applier.is_busy and not bench.applier.is_idle
    bench.applier.put([entry(4)])
    assert bench.applied_groups == [[1]], "the small ones wait for the large one before them"
    bench.finish()
    assert bench.applied_groups == [[1], [2, 3], [4]]
    assert [index for index, _ in bench.told] == [1, 2, 3, 4] and bench.applier.is_idle


def test_groups_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applier_module, "GROUP_ENTRIES_MAX", 3)
    bench = Bench(here_bytes_max=10**6)
    bench.applier.put([entry(index) for index in range(1, 8)])
    assert bench.applied_groups == [[1, 2, 3], [4, 5, 6], [7]]
    monkeypatch.setattr(applier_module, "GROUP_BYTES_MAX", 2_500)
    bench = Bench(here_bytes_max=100)
    bench.applier.put([entry(index, 1_000) for index in range(1, 4)])
    bench.finish()
    bench.finish()
    assert bench.applied_groups == [[1, 2], [3]]


def test_what_was_dropped_is_not_told_and_the_thread_finishes() -> None:
    bench = Bench()
    bench.applier.put([entry(1, 5_000), entry(2)])
    bench.applier.drop()
    assert bench.applier.is_busy
    bench.finish()
    assert bench.told == [] and bench.applier.is_idle
    bench.applier.put([entry(9)])
    assert bench.told == [(9, ["9.0"])]


@pytest.mark.parametrize("size_bytes", [50, 5_000])
def test_rule_43_a_full_disk_holds_everything_up_and_skips_nothing(size_bytes: int) -> None:
    bench = Bench()
    bench.trouble += [NoSpace("full"), NoSpace("still full")]
    bench.applier.put([entry(1, size_bytes), entry(2)])
    while bench.beside:
        bench.finish()
    assert bench.told == [] and bench.full == [True] and bench.applier.is_busy
    bench.applier.put([entry(3)])
    bench.later.popleft()()
    while bench.beside:
        bench.finish()
    assert bench.full == [True] and bench.told == []
    bench.later.popleft()()
    while bench.beside:
        bench.finish()
    assert [index for index, _ in bench.told] == [1, 2, 3]
    assert bench.full == [True, False] and bench.failures == [] and bench.applier.is_idle


def test_rule_43_what_was_dropped_meanwhile_is_not_put_back() -> None:
    bench = Bench()
    bench.trouble.append(NoSpace("full"))
    bench.applier.put([entry(1, 5_000)])
    bench.applier.drop()
    bench.finish()
    bench.later.popleft()()
    assert bench.told == [] and bench.applier.is_idle


@pytest.mark.parametrize("size_bytes", [50, 5_000])
@pytest.mark.parametrize("error", [StorageError("broken"), ZeroDivisionError("unforeseen")])
def test_rule_33_an_unexpected_error_stops_the_node_and_skips_nothing(size_bytes: int, error: Exception) -> None:
    bench = Bench()
    bench.trouble.append(error)
    bench.applier.put([entry(1, size_bytes), entry(2)])
    while bench.beside:
        bench.finish()
    assert bench.failures == [error] and bench.told == [] and bench.applied_groups == []


def test_rule_34_an_unknown_version_stops_the_node_before_it() -> None:
    bench = Bench()
    bench.applier.put([Entry(1, 1, COMMANDS, b"\x63")])
    assert isinstance(bench.failures[0], BrokenInvariant) and bench.applied_groups == []


# --- In a cluster -----------------------------------------------------------------------------------------------------


def test_rule_33_a_failing_command_is_a_logged_no_op_with_the_same_error_everywhere(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    results: dict[str, list[Any]] = {}
    for node in cluster:
        apply = node.machine.apply

        def keep(entries: Any, name: str = node.name, apply: Any = apply) -> Any:
            found = apply(entries)
            results.setdefault(name, []).extend(result for entry in found for result in entry)
            return found

        monkeypatch.setattr(node.machine, "apply", keep)
    leader = cluster.leader()
    leader.write(put(b"text", b"no number"))
    index = leader.runtime.applied_index
    (error,) = leader.write(incr(b"text"))
    assert isinstance(error, NotANumber)
    assert leader.runtime.applied_index == index + 1, "it has its place in the log"
    cluster.settle()
    described = [[(type(one), str(one)) for one in results[node.name]] for node in cluster]
    assert described[0] == described[1] == described[2] and isinstance(results[leader.name][-1], KeyspaceError)
    assert leader.here(b"text") == b"no number"


def test_rule_33_a_node_on_which_something_unexpected_happens_stops_and_finds_all_when_it_is_mended(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, broken = cluster.leader(), cluster.followers()[0]
    leader.write(incr())
    cluster.settle()
    with monkeypatch.context() as trouble:
        trouble.setattr(broken.machine, "apply", lambda entries: 1 // 0)
        assert leader.write(incr()) == [2]
        cluster.until(lambda: not broken.is_up)
    assert "division" in broken.reason
    assert leader.write(incr()) == [3]
    broken.start()
    cluster.settle()
    assert broken.here(b"n") == b"3"


def test_large_entries_are_applied_beside_and_the_stores_stay_equal(cluster: Cluster) -> None:
    leader = cluster.leader()
    answers = [leader.propose(incr()), leader.propose(put(b"big", bytes(200_000)), size_bytes=200_000)]
    cluster.run(1)
    answers += [leader.propose(incr()), leader.propose(incr())]
    cluster.until(lambda: answers == [[1], [True], [2], [3]])
    cluster.settle()

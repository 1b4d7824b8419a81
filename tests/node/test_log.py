"""The log of a single node: grouping, limits, errors, order. The store is a fake whose thread the test plays."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from django_keyspace.exceptions import LockTimeout, NoSpace, Overloaded, StorageError
from django_keyspace.node.log import GROUP_CALLS_MAX, GROUPS_MAX, LocalLog


class FakeStore:
    """Keeps what is submitted until the test lets it be done."""

    def __init__(self) -> None:
        self.groups: list[tuple[list[Any], Any]] = []
        self.refusal: Exception | None = None

    def submit(self, calls: Sequence[Any], done: Any) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.groups.append((list(calls), done))

    async def commit(self) -> list[Any]:
        """Do the oldest group, as another thread would."""
        calls, done = self.groups.pop(0)
        await asyncio.to_thread(done, [f"did {call[0]}" for call in calls])
        await asyncio.sleep(0)
        return calls


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_what_arrives_in_one_turn_becomes_one_group() -> None:
    store, results, committed = FakeStore(), [], []
    log = LocalLog(store, asyncio.get_running_loop())
    log.on_commit(committed.append)
    for number in range(5):
        log.propose([(f"w{number}",)], 10, results.append)
    assert store.groups == []
    await turn()
    assert await store.commit() == [(f"w{number}",) for number in range(5)]
    assert results == [[f"did w{number}"] for number in range(5)]
    assert committed == [5]
    assert (log.pending_calls, log.pending_bytes) == (0, 0)
    assert log.reads is None


async def test_next_group_gathers_while_the_store_is_busy() -> None:
    store, results = FakeStore(), []
    log = LocalLog(store, asyncio.get_running_loop())
    for number in range(GROUPS_MAX + 3):
        log.propose([(f"w{number}",), (f"x{number}",)], 10, results.append)
        await turn()
    assert len(store.groups) == GROUPS_MAX
    done = []
    while store.groups:
        done.append(await store.commit())
        await turn()
    assert [len(group) for group in done] == [2] * GROUPS_MAX + [6]
    assert results == [[f"did w{number}", f"did x{number}"] for number in range(GROUPS_MAX + 3)]


async def test_groups_are_limited() -> None:
    store, results = FakeStore(), []
    log = LocalLog(store, asyncio.get_running_loop())
    for number in range(GROUP_CALLS_MAX + 1):
        log.propose([(number,)], 1, results.append)
    log.propose([("large",)], 50_000_000, results.append)
    log.propose([("after",)], 1, results.append)
    await turn()
    assert [len(calls) for calls, _ in store.groups] == [GROUP_CALLS_MAX, 2]
    while store.groups:
        await store.commit()
        await turn()
    assert len(results) == GROUP_CALLS_MAX + 3


@pytest.mark.parametrize("limits", [{"calls_max": 3}, {"bytes_max": 3}])
async def test_more_than_the_limit_is_refused_and_room_is_made_by_commits(limits: dict[str, int]) -> None:
    store, results = FakeStore(), []
    log = LocalLog(store, asyncio.get_running_loop(), **limits)
    for _ in range(3):
        log.propose([("w",)], 1, results.append)
    with pytest.raises(Overloaded, match="Nothing was done"):
        log.propose([("w",)], 1, results.append)
    await turn()
    await store.commit()
    assert len(results) == 3
    log.propose([("w",)] * 5, 5, results.append)  # above the limit, but alone
    await turn()
    await store.commit()
    assert len(results) == 4


async def test_errors_of_the_store() -> None:
    store, results = FakeStore(), []
    log = LocalLog(store, asyncio.get_running_loop())
    store.refusal = NoSpace("full")
    log.propose([("w",)], 1, results.append)
    log.propose([("w",)], 1, results.append)
    await turn()
    assert results == [[store.refusal], [store.refusal]]
    store.refusal = None
    log.propose([("w",), ("w",)], 1, results.append)
    await turn()
    _, done = store.groups.pop()
    done([1])  # one answer for two writes
    await turn()
    assert all(isinstance(result, StorageError) for result in results[2])
    assert log.pending_calls == 0


async def test_a_commit_after_the_loop_has_gone_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    store = FakeStore()

    async def leave_behind() -> None:
        LocalLog(store, asyncio.get_running_loop()).propose([("w",)], 1, lambda results: None)
        await turn()

    await asyncio.to_thread(lambda: asyncio.run(leave_behind()))
    _, done = store.groups.pop()
    done(["did w"])
    assert "1 writes were committed after the node had stopped" in caplog.text


class QuickStore(FakeStore):
    """Writes on the caller's thread too, unless its lock is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.locked = False
        self.slow_s = 0.0
        self.here: list[list[Any]] = []

    def write_many(self, calls: Sequence[Any], *, wait_s: float | None = None) -> list[Any]:
        assert wait_s == 0
        if self.locked:
            raise LockTimeout("taken")
        if self.refusal is not None:
            raise self.refusal
        time.sleep(self.slow_s)
        self.here.append(list(calls))
        return [f"did {call[0]}" for call in calls]


SET: tuple[Any, ...] = ("set", 0, b"k")


async def test_small_groups_are_written_at_once_where_no_disk_is_waited_for() -> None:
    store, results, committed = QuickStore(), [], []
    log = LocalLog(store, asyncio.get_running_loop(), may_write_here=True)
    log.on_commit(committed.append)
    log.propose([SET], 10, results.append)
    log.propose([SET, SET], 10, results.append)
    await turn()
    assert store.here == [[SET] * 3]
    assert results == [["did set"], ["did set"] * 2]
    assert committed == [3]
    assert log.pending_calls == 0
    store.refusal = NoSpace("full")
    log.propose([SET], 10, results.append)
    await turn()
    assert results[2] == [store.refusal]


@pytest.mark.parametrize(
    ("calls", "size_bytes"),
    [([SET] * 129, 10), ([SET], 100_000), ([SET, ("clear", 0, True)], 10), ([("batch", [])], 1)],
)
async def test_other_groups_go_to_the_stores_thread(calls: list[Any], size_bytes: int) -> None:
    store = QuickStore()
    log = LocalLog(store, asyncio.get_running_loop(), may_write_here=True)
    log.propose(calls, size_bytes, lambda results: None)
    await turn()
    assert store.here == []
    assert [group for group, _ in store.groups] == [calls]


async def test_a_taken_lock_and_order_send_groups_to_the_stores_thread() -> None:
    store, results = QuickStore(), []
    log = LocalLog(store, asyncio.get_running_loop(), may_write_here=True)
    store.locked = True
    log.propose([("set", 1)], 10, results.append)
    await turn()
    store.locked = False
    log.propose([("set", 2)], 10, results.append)
    await turn()
    assert store.here == []  # the second must not overtake the first
    while store.groups:
        await store.commit()
        await turn()
    log.propose([("set", 3)], 10, results.append)
    await turn()
    assert store.here == [[("set", 3)]]
    assert len(results) == 3


async def test_after_a_slow_group_the_loop_leaves_writing_to_the_stores_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_keyspace.node.log.AWAY_S_MIN", 3_600.0)
    store = QuickStore()
    log = LocalLog(store, asyncio.get_running_loop(), may_write_here=True)
    store.slow_s = 0.02
    for _ in range(2):
        log.propose([SET], 10, lambda results: None)
        await turn()
    assert (len(store.here), len(store.groups)) == (1, 1)


async def test_the_loop_writes_again_when_that_moment_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_keyspace.node.log.AWAY_S_MIN", 0.0)
    store = QuickStore()
    log = LocalLog(store, asyncio.get_running_loop(), may_write_here=True)
    store.slow_s = 0.02
    for _ in range(2):
        log.propose([SET], 10, lambda results: None)
        await turn()
    assert (len(store.here), len(store.groups)) == (2, 0)

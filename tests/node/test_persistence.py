"""What the core wants to be durable: batches held back behind a snapshot, and what becomes of them when something fails."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from django_keyspace.exceptions import DiskFailed, NoSpace
from django_keyspace.node.persistence import Persistence
from django_keyspace.node.raft import BrokenInvariant, Entry, HardState, Membership, SnapshotMeta

MEMBERS = Membership(("n1",))


class Bench:
    """A core, a disk thread and an applier's thread that a test plays."""

    def __init__(self, *places: int) -> None:
        self.kept = [SimpleNamespace(place=place) for place in places]
        self.told: list[Any] = []
        self.jobs: list[tuple[str, Any, Callable[[Any], None]]] = []
        self.later: list[tuple[Any, ...]] = []
        self.meanwhile: list[Callable[[], None]] = []
        parts: Any = SimpleNamespace(**dict.fromkeys(("journal", "writer", "snapshots", "machine", "scheduler"), self))
        parts.settings = SimpleNamespace(upkeep_ms=500)
        self.raft: Any = SimpleNamespace(awaits_disk=True)
        self.persistence = Persistence(self, parts)

    # The core.
    def persisted(self, number: int) -> None:
        while self.meanwhile:
            self.meanwhile.pop(0)()
        self.told.append(number)

    def no_room(self, error: NoSpace) -> None:
        self.told.append("no room")

    def waits_for_room(self, error: NoSpace) -> None:
        self.told.append("waits")

    def installing(self, *, begins: bool) -> None:
        self.told.append("begins" if begins else "ends")

    def fail(self, error: BaseException) -> None:
        self.told.append(error)

    # The journal, the snapshots and the machine.
    def hard_state(self) -> HardState:
        return HardState(1, "", 0)

    def restore(self, meta: SnapshotMeta) -> None:
        pass

    def install(self, snapshots: Any, snapshot: Any) -> None:
        pass

    # The threads.
    def submit(self, batch: Any, done: Callable[[Any], None]) -> None:
        self.jobs.append(("batch", batch, done))

    def call(self, work: Callable[[], None], done: Callable[[Any], None]) -> None:
        self.jobs.append(("restore", work, done))

    def in_thread(self, name: str, work: Callable[[], None], done: Callable[[Any], None]) -> None:
        self.jobs.append(("install", work, done))

    def call_threadsafe(self, function: Callable[..., None], *arguments: Any) -> None:
        function(*arguments)

    def call_later(self, delay_ms: int, function: Callable[..., None], *arguments: Any) -> None:
        self.later.append((delay_ms, function, *arguments))

    # The test.
    def take(self, number: int, snapshot: int | None = None, *, must_sync: bool = True) -> None:
        meta = None if snapshot is None else SnapshotMeta(snapshot, 1, MEMBERS)
        entries = () if meta is not None else (Entry(number, 1, 1, b""),)
        ready: Any = SimpleNamespace(
            number=number, snapshot=meta, entries=entries, hard_state=HardState(1, "", number), must_sync=must_sync
        )
        self.persistence.take(ready)

    def finish(self, kind: str, error: Any = None) -> None:
        """The oldest job has been done, and is of that kind."""
        found, work, done = self.jobs.pop(0)
        assert found == kind
        if callable(work):
            work()
        done(error)

    def retry(self) -> None:
        delay_ms, function, *arguments = self.later.pop(0)
        assert delay_ms == 500
        function(*arguments)


def test_batches_go_to_the_disk_with_the_latest_state() -> None:
    bench = Bench()
    bench.take(1, must_sync=False)
    assert bench.jobs == []
    bench.take(2)
    assert bench.jobs[0][1].hard_state.commit == 2
    bench.finish("batch")
    assert bench.told == [2]


def test_what_ends_while_the_core_is_being_told_is_told_after_that() -> None:
    """Before it takes what was written, the core may do other things, which may look what has been written."""
    bench = Bench()
    for number in (1, 2, 3):
        bench.take(number)
    bench.raft.awaits_disk = False
    bench.persistence.settle()
    bench.meanwhile = [lambda: bench.finish("batch"), bench.persistence.look, lambda: bench.finish("batch")]
    bench.finish("batch")
    assert bench.told == []
    bench.persistence.look()
    assert bench.told == [1, 3]


def test_what_comes_while_a_snapshot_is_installed_is_written_behind_it() -> None:
    bench = Bench(10, 20)
    bench.take(1, snapshot=10)
    bench.take(2)
    bench.take(3, snapshot=20)
    bench.take(4)
    assert bench.persistence.is_installing
    for kind in ("install", "restore"):
        bench.finish(kind)
    # The second snapshot follows the batches before it.
    for kind in ("batch", "batch", "install", "restore", "batch", "batch"):
        bench.finish(kind)
    assert bench.told == ["begins", "begins", 1, 2, "ends", 3, 4] and not bench.persistence.is_installing


def test_rule_43_without_room_for_the_store_an_installation_is_given_up() -> None:
    bench = Bench(10)
    bench.take(1, snapshot=10)
    assert bench.persistence.is_replacing
    bench.finish("install", NoSpace("full"))
    assert bench.told == ["begins", "no room"] and not bench.persistence.is_replacing
    assert bench.jobs == [] and bench.later == []


def test_rule_43_a_journal_without_room_to_begin_behind_a_snapshot_is_tried_again() -> None:
    bench = Bench(10)
    bench.take(1, snapshot=10)
    bench.finish("install")
    bench.finish("restore", NoSpace("full"))
    assert bench.told == ["begins", "waits"] and bench.persistence.is_replacing
    bench.retry()
    bench.finish("restore")
    bench.finish("batch")
    assert bench.told == ["begins", "waits", "ends", 1] and not bench.persistence.is_replacing


@pytest.mark.parametrize("kinds", [("install",), ("install", "restore"), ("install", "restore", "batch")])
def test_rule_42_what_fails_otherwise_ends_the_node(kinds: tuple[str, ...]) -> None:
    bench, error = Bench(10), DiskFailed("broken")
    bench.take(1, snapshot=10)
    for kind in kinds[:-1]:
        bench.finish(kind)
    bench.finish(kinds[-1], error)
    assert bench.told[-1] is error


def test_rule_52_a_snapshot_that_is_not_there_cannot_be_installed() -> None:
    bench = Bench(11)
    bench.take(1, snapshot=10)
    (error,) = bench.told
    assert isinstance(error, BrokenInvariant) and "entry 10" in str(error)


def test_rule_43_without_room_the_core_is_told_once_and_what_was_under_way_means_nothing_more() -> None:
    bench = Bench(10)
    bench.take(1)
    bench.take(2)
    bench.finish("batch", NoSpace("full"))
    bench.persistence.abandon()
    bench.finish("batch", NoSpace("full"))
    assert bench.told == ["no room"]
    error = DiskFailed("broken")
    bench.take(3)
    bench.finish("batch", error)
    assert bench.told[-1] is error, "a failed disk ends the node whoever wrote"


def test_what_nobody_waits_for_is_told_when_somebody_looks() -> None:
    bench = Bench()
    bench.take(1)
    bench.raft.awaits_disk = False
    bench.persistence.settle()
    bench.take(2)
    bench.finish("batch")
    bench.finish("batch")
    assert bench.told == []
    bench.persistence.look()
    bench.persistence.look()
    assert bench.told == [2], "the last one stands for those before it"


def test_what_nobody_waits_for_counts_when_something_else_comes() -> None:
    bench = Bench()
    noted: list[int] = []
    bench.raft.persisted = noted.append
    bench.take(1)
    bench.take(2)
    bench.raft.awaits_disk = False
    bench.persistence.settle()
    bench.persistence.note()
    bench.finish("batch")
    bench.finish("batch")
    bench.persistence.note()
    bench.persistence.note()
    bench.persistence.look()
    assert noted == [2] and bench.told == []
    bench.take(3)
    bench.persistence.abandon()
    bench.finish("batch")
    bench.persistence.note()
    assert noted == [2], "that core is gone"


def test_what_ends_while_the_core_is_being_told_is_not_noted_before() -> None:
    bench = Bench()
    noted: list[int] = []
    bench.raft.persisted = noted.append
    bench.take(1)
    bench.take(2)
    bench.meanwhile = [lambda: bench.finish("batch"), bench.persistence.note]
    bench.finish("batch")
    assert bench.told == [1, 2] and noted == []


def test_what_is_waited_for_only_after_it_was_written_is_told_then() -> None:
    bench = Bench()
    bench.take(1)
    bench.raft.awaits_disk = False
    bench.persistence.settle()
    bench.finish("batch")
    bench.raft.awaits_disk = True
    bench.persistence.settle()
    assert bench.told == [1]
    bench.take(2)
    bench.finish("batch")
    assert bench.told == [1, 2]


def test_rule_43_an_error_is_told_at_once_and_after_what_was_written_before_it() -> None:
    bench = Bench()
    bench.take(1)
    bench.raft.awaits_disk = False
    bench.persistence.settle()
    bench.take(2)
    bench.finish("batch")
    bench.finish("batch", NoSpace("full"))
    assert bench.told == [1, "no room"]


@pytest.mark.parametrize("at", ["install", "restore", "retry"])
def test_a_store_that_has_taken_its_place_gets_its_journal_also_when_the_core_is_gone(at: str) -> None:
    """Otherwise the next core would begin with a store that is ahead of its journal, and be changed beneath it."""
    bench = Bench(10)
    bench.take(1, snapshot=10)
    if at != "install":
        bench.finish("install")
    if at == "retry":
        bench.finish("restore", NoSpace("full"))
    told = list(bench.told)
    bench.persistence.abandon()
    if at == "install":
        bench.finish("install")
    elif at == "retry":
        bench.retry()
    assert bench.persistence.is_replacing, "the next core waits for that"
    bench.finish("restore")
    assert not bench.persistence.is_replacing
    assert bench.told == told and bench.jobs == [], "what the old core wanted behind it is nobody's"


def test_an_installation_that_was_abandoned_and_finds_no_room_is_over() -> None:
    bench = Bench(10)
    bench.take(1, snapshot=10)
    bench.persistence.abandon()
    bench.finish("install", NoSpace("full"))
    assert bench.told == ["begins"] and bench.jobs == [] and not bench.persistence.is_replacing

"""What a node tells those who read its store beside it: the file of freshness, and the answer to ``node_store``."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from django_keyspace.exceptions import ConfigurationError, StorageError
from django_keyspace.node.beside import Beside, FreshnessFile, Seen, beside_alone, group_id
from django_keyspace.node.config import NodeConfig
from django_keyspace.node.reading import UNKNOWN_AGE_MS
from django_keyspace.store.folder import boot_id, process_space
from django_keyspace.store.freshness import ENDED, FRESHNESS_FILE, READABLE, RECORD_BYTES, Freshness, unpack


class Timer:
    def __init__(self) -> None:
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Turns:
    """A scheduler whose timers and threads go on when the test says so."""

    def __init__(self) -> None:
        self.timers: list[tuple[int, Callable[[], None], Timer]] = []
        self.work: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []

    def call_later(self, delay_ms: int, function: Callable[..., None], *_: Any) -> Timer:
        timer = Timer()
        self.timers.append((delay_ms, function, timer))
        return timer

    def in_thread(self, name: str, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        assert name == "freshness"
        self.work.append((work, done))

    def tick(self) -> None:
        _, function, timer = self.timers.pop(0)
        if not timer.is_cancelled:
            function()

    def thread(self) -> None:
        work, done = self.work.pop(0)
        try:
            result = work()
        except Exception as error:
            result = error
        done(result)


class Node:
    """A node whose store is as of whatever the test says."""

    def __init__(self, folder: Path, interval_ms: int = 40, group: int | None = None) -> None:
        self.turns = Turns()
        self.seen: Seen | None = Seen(3, 17, 1_000_000, 12)
        self.now_ms = 5_000
        self.path = folder / FRESHNESS_FILE
        self.beside = Beside(
            folder,
            lambda: self.seen,
            self.turns,  # type: ignore[arg-type]
            interval_ms,
            lambda: {"node": "n1", "generation": 3, "store": str(folder / "store-3")},
            group,
            boot_ms=lambda: self.now_ms,
        )

    @property
    def told(self) -> Freshness | None:
        return unpack(self.path.read_bytes())

    @property
    def life(self) -> bytes:
        return bytes(self.beside.answer()["life"])


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_it_is_told_at_once_and_then_again_and_again(node: Node) -> None:
    node.beside.start()
    node.turns.thread()
    assert node.told == Freshness(READABLE, os.getpid(), 3, 17, 1_000_000, 12, 5_000, node.life)
    node.now_ms, node.seen = 5_040, Seen(3, 20, 1_000_040, 0)
    node.turns.tick()
    node.turns.thread()
    assert node.told == Freshness(READABLE, os.getpid(), 3, 20, 1_000_040, 0, 5_040, node.life)
    assert len(node.turns.timers) == 1


def test_the_file_is_its_users_alone_and_never_changes_its_size(node: Node) -> None:
    node.beside.start()
    node.turns.thread()
    first = node.path.stat()
    assert stat.S_IMODE(first.st_mode) == 0o600 and first.st_size == RECORD_BYTES
    node.turns.tick()
    node.turns.thread()
    assert (node.path.stat().st_ino, node.path.stat().st_size) == (first.st_ino, RECORD_BYTES)


@pytest.mark.parametrize(("tick_ms", "interval_ms"), [(1, 20), (40, 40), (6_000, 200)])
def test_how_often(tmp_path: Path, tick_ms: int, interval_ms: int) -> None:
    node = Node(tmp_path, tick_ms)
    node.beside.start()
    assert node.turns.timers[0][0] == interval_ms


def test_a_store_that_is_not_to_be_shown(node: Node) -> None:
    node.seen = None
    node.beside.start()
    node.turns.thread()
    assert node.told == Freshness(0, os.getpid(), 0, 0, 0, UNKNOWN_AGE_MS, 5_000, node.life)
    node.seen = Seen(3, 17, 1_000_000, None)
    node.turns.tick()
    node.turns.thread()
    assert node.told is not None and (node.told.flags, node.told.age_ms) == (READABLE, UNKNOWN_AGE_MS)


def test_a_disk_that_hangs_holds_up_nobody(node: Node) -> None:
    node.beside.start()
    for _ in range(10):
        node.turns.tick()
    assert len(node.turns.work) == 1, "nothing piles up behind it"
    node.now_ms = 9_000
    node.turns.thread()
    assert node.told is not None and node.told.boot_ms == 5_000, "what was true then"
    node.turns.tick()
    node.turns.thread()
    assert node.told.boot_ms == 9_000


def test_a_disk_that_fails_is_no_reason_to_end(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    node.path.mkdir()
    node.beside.start()
    node.turns.thread()
    node.turns.tick()
    node.turns.thread()
    assert caplog.text.count("nobody reads beside this node") == 1
    node.path.rmdir()
    node.turns.tick()
    node.turns.thread()
    assert node.told is not None and node.told.flags == READABLE
    assert sorted(path.name for path in node.path.parent.iterdir()) == [FRESHNESS_FILE]


def modes(folder: Path) -> dict[str, str]:
    paths = [folder, *(path for path in folder.rglob("*"))]
    return {str(path.relative_to(folder)): f"{stat.S_IMODE(path.stat().st_mode):o}" for path in paths}


@pytest.mark.parametrize("shares", [True, False])
def test_a_group_may_read_once_all_is_there(tmp_path: Path, shares: bool) -> None:
    tmp_path.chmod(0o700)
    store = tmp_path / "store-3"
    store.mkdir(mode=0o700)
    for path in (store / "data.mdb", store / "lock.mdb", store / "keyspace.json", tmp_path / "node.json"):
        path.touch(mode=0o600)
    node = Node(tmp_path, group=os.getgid() if shares else None)
    node.beside.start()
    node.turns.thread()
    (tmp_path / "node.sock").touch(mode=0o600)
    node.turns.tick()
    node.turns.thread()
    private = {".": "700", "store-3": "700", "node.sock": "600", FRESHNESS_FILE: "600"}
    private |= {f"store-3/{name}": "600" for name in ("data.mdb", "lock.mdb", "keyspace.json")} | {"node.json": "600"}
    shared = {".": "710", "store-3": "710", "node.sock": "660", FRESHNESS_FILE: "640"}
    shared |= {"store-3/data.mdb": "640", "store-3/lock.mdb": "660"}
    assert modes(tmp_path) == private | (shared if shares else {})
    if shares:
        store.chmod(0o700)
        node.turns.tick()
        node.turns.thread()
        assert modes(tmp_path)["store-3"] == "700", "once for each generation"


def test_groups_are_named() -> None:
    grp = pytest.importorskip("grp")
    own = grp.getgrgid(os.getgid())
    assert (group_id(own.gr_name), group_id(None)) == (own.gr_gid, None)
    with pytest.raises(ConfigurationError, match="no group 'no such group'"):
        group_id("no such group")


def test_the_end_is_told_and_nothing_after_it(node: Node) -> None:
    node.beside.start()
    node.beside.stop()
    node.beside.stop()
    node.turns.tick()
    node.beside.start()
    while node.turns.work:
        node.turns.thread()
    assert node.told is not None and (node.told.flags, node.told.life) == (ENDED, node.life)
    assert node.turns.timers == []


def test_an_end_before_the_beginning(node: Node) -> None:
    node.beside.stop()
    node.turns.thread()
    assert node.told is not None and node.told.flags == ENDED


def test_the_first_word_is_there_before_anything_else_happens(tmp_path: Path) -> None:
    first, second = Node(tmp_path), Node(tmp_path)
    assert first.beside.begin() is False
    assert first.told is not None and first.told.life == first.life
    before = first.path.stat().st_ino
    assert second.beside.begin() is True, "somebody may read as of the life before"
    assert second.told is not None and second.told.life == second.life and second.path.stat().st_ino != before
    assert second.turns.work == second.turns.timers == []


def test_a_disk_without_room_takes_the_word_of_the_life_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Node(tmp_path), Node(tmp_path)
    first.beside.begin()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FreshnessFile, "write", full)
    assert second.beside.begin() is True
    assert not second.path.exists()
    monkeypatch.undo()
    second.beside.start()
    second.turns.thread()
    assert second.told is not None and second.told.life == second.life


def test_a_node_does_not_serve_beside_a_word_that_stays(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.path.mkdir()
    with pytest.raises(StorageError, match="neither replaced nor removed"):
        node.beside.begin()


def test_a_lone_store_that_cannot_be_read_is_not_shown(tmp_path: Path) -> None:
    class Broken:
        def file_number(self) -> int:
            return 5

        def log_time_ms(self) -> int:
            raise StorageError("It cannot be read.")

    config = NodeConfig("n1", "127.0.0.1", 0, str(tmp_path))
    beside = beside_alone(config, tmp_path, str(tmp_path / "store"), Broken(), Turns())  # type: ignore[arg-type]
    beside.begin()
    told = unpack((tmp_path / FRESHNESS_FILE).read_bytes())
    assert told is not None and told.flags == 0
    assert (beside.answer()["alone"], beside.answer()["generation"]) == (True, 5)


def test_another_life_does_not_write_into_the_file_of_the_one_before(tmp_path: Path) -> None:
    record = Freshness(READABLE, 1, 2, 3, 4, 5, 6, b"")
    first, second = FreshnessFile(tmp_path), FreshnessFile(tmp_path)
    assert first.life != second.life
    first.write(record._replace(life=first.life))
    with open(first.path, "rb") as mapped:
        second.write(record._replace(life=second.life))
        first.write(record._replace(life=first.life, flags=0))
        seen = unpack(mapped.read())
    now = unpack(Path(first.path).read_bytes())
    assert seen is not None and (seen.life, seen.flags) == (first.life, 0)
    assert now is not None and (now.life, now.flags) == (second.life, READABLE)
    first.close()
    second.close()
    second.close()


def test_what_is_answered(node: Node, tmp_path: Path) -> None:
    answer = node.beside.answer()
    assert answer | {"life": b""} == {
        "folder": str(tmp_path),
        "boot_id": boot_id(),
        "boot_ms": 5_000,
        "life": b"",
        "process": os.getpid(),
        "process_space": process_space(),
        "node": "n1",
        "generation": 3,
        "store": str(tmp_path / "store-3"),
    }
    assert len(answer["life"]) == 16 and answer["life"] != Node(tmp_path).life

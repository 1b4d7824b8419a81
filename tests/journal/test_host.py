"""The real disk in our words, the clocks, and the simulated ones that stand in for them."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from random import Random
from typing import Any

import pytest

from django_keyspace.exceptions import DiskFailed, NoSpace
from django_keyspace.node import disk as disk_module
from django_keyspace.node.clock import CATCH_UP_PACE, HostClock, LogClock
from django_keyspace.node.disk import HostDisk, read_file, replace_file
from django_keyspace.store import clock as store_clock
from tests.sim.clock import SimClock
from tests.sim.disk import KINDS, Faults, SimDisk


@pytest.fixture
def disk(tmp_path: Path) -> HostDisk:
    return HostDisk(str(tmp_path))


@pytest.mark.parametrize("kind", ["real", "simulated"])
def test_files_and_folders(kind: str, tmp_path: Path) -> None:
    disk: Any = HostDisk(str(tmp_path)) if kind == "real" else SimDisk(Random(1))
    disk.make_folder("a")
    disk.make_folder("a")
    assert disk.list("a") == disk.list("missing") == []
    file = disk.create("a/x", 100)
    assert (file.size, file.read_at(0, 200)) == (100, bytes(100))
    file.write_at(95, b"0123456789")
    file.sync()
    assert (file.size, file.read_at(93, 5), file.read_at(200, 5)) == (105, b"\0\x00012", b"")
    file.close()
    file.close()
    with pytest.raises(DiskFailed, match="a/x"):
        disk.create("a/x")
    disk.rename("a/x", "a/y")
    disk.sync_folder("a")
    disk.sync_folder()
    assert disk.list("a") == ["y"] and disk.list() == ["a"]
    assert disk.exists("a/y") and not disk.exists("a/x")
    replace_file(disk, "a/y", b"new")
    assert read_file(disk, "a/y") == b"new"
    disk.make_folder("a/b")
    disk.create("a/b/c").close()
    disk.remove("a/missing")
    disk.remove("a")
    assert disk.list() == []
    assert disk.free_bytes() > 0
    for call in (lambda: disk.open("a/x"), lambda: disk.rename("a", "b"), lambda: disk.sync_folder("a")):
        with pytest.raises(DiskFailed):
            call()


def failing(code: int) -> Any:
    def fail(*_: Any) -> Any:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize(
    ("code", "error"),
    [(errno.EIO, DiskFailed), (errno.ENOSPC, NoSpace), (errno.EDQUOT, NoSpace), (errno.EROFS, DiskFailed)],
)
def test_the_system_s_errors_become_ours(
    disk: HostDisk, code: int, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = disk.create("x")
    with monkeypatch.context() as patch:
        for name in ("pwrite", "pread", "fdatasync", "fsync", "posix_fallocate", "fstat", "listdir"):
            patch.setattr(os, name, failing(code))
        calls = (
            lambda: file.write_at(0, b"x"),
            lambda: file.read_at(0, 1),
            file.sync,
            lambda: file.size,
            disk.sync_folder,
            lambda: disk.create("y", 100),
            disk.list,
        )
        for call in calls:
            with pytest.raises(error, match=os.strerror(code) if error is DiskFailed else "no room"):
                call()
    assert disk.list() == ["x"], "what could not be made is not there"


def test_short_writes_and_reads_are_carried_on(disk: HostDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite, pread = os.pwrite, os.pread
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: pwrite(descriptor, data[:3], offset))
    monkeypatch.setattr(os, "pread", lambda descriptor, size, offset: pread(descriptor, min(size, 4), offset))
    file = disk.create("x")
    file.write_at(1, b"0123456789")
    assert file.read_at(0, 50) == b"\x000123456789"
    assert file.read_at(3, 5) == b"23456"


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP, None])
def test_where_room_cannot_be_set_aside_zeros_are_written(
    disk: HostDisk, code: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if code is None:
        monkeypatch.delattr(os, "posix_fallocate")
        monkeypatch.delattr(os, "fdatasync")
    else:
        monkeypatch.setattr(os, "posix_fallocate", failing(code))
    synced = []
    monkeypatch.setattr("fcntl.fcntl", lambda descriptor, command: synced.append(command))
    file = disk.create("x", 2 * len(disk_module._ZEROS) + 5)
    assert file.size == 2 * len(disk_module._ZEROS) + 5
    file.sync()
    assert bool(synced) is (code is None), "macOS has a stronger sync than fsync"


def test_the_host_s_clock_is_the_store_s() -> None:
    clock = HostClock()
    assert store_clock.boot_ms() <= clock.monotonic_ms() <= store_clock.boot_ms()
    assert abs(clock.wall_ms() - store_clock.wall_ms()) < 60_000


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.wall, self.monotonic = 1_000_000, 50_000

    def wall_ms(self) -> int:
        return self.wall

    def monotonic_ms(self) -> int:
        return self.monotonic

    def pass_ms(self, milliseconds: int) -> None:
        self.wall += milliseconds
        self.monotonic += milliseconds


def test_rule_30_the_log_clock_follows_the_wall_clock_and_never_goes_back() -> None:
    hands = Hands()
    clock = LogClock(hands)
    assert clock.now_ms() == clock.last_ms == 1_000_000
    hands.pass_ms(5_000)
    assert clock.now_ms() == 1_005_000
    hands.wall -= 3_600_000
    assert clock.now_ms() == 1_005_000
    for _ in range(100):
        hands.pass_ms(10)
        clock.now_ms()
    assert clock.now_ms() == 1_005_900, "nine tenths of the speed"


def test_rule_30_a_clock_that_is_ahead_does_not_let_everything_expire_at_once() -> None:
    hands = Hands()
    clock = LogClock(hands)
    hands.wall += 365 * 86_400_000
    assert clock.now_ms() == 1_000_000
    for _ in range(1_000):
        hands.pass_ms(1)
        clock.now_ms()
    assert clock.now_ms() == 1_000_000 + 1_000 * CATCH_UP_PACE


def test_a_node_that_was_down_catches_up() -> None:
    hands = Hands()
    clock = LogClock(hands, 1_000_000 - 60_000)
    for _ in range(700):
        hands.pass_ms(10)
        clock.now_ms()
    assert clock.now_ms() == hands.wall


def test_a_new_leader_goes_on_from_the_latest_that_is_known() -> None:
    hands = Hands()
    clock = LogClock(hands, 900_000)
    clock.observe(1_200_000)
    clock.observe(1_100_000)
    assert clock.now_ms() == 1_200_000
    hands.pass_ms(1_000)
    assert clock.now_ms() == 1_200_900


def test_simulated_clocks_drift_and_jump() -> None:
    now_us = 0
    clock = SimClock(Random(3), lambda: now_us, drift_max=0.1, wall_offset_ms=500)
    other = SimClock(Random(3), lambda: now_us, drift_max=0.1, wall_offset_ms=500)
    assert clock.monotonic_ms() == other.monotonic_ms(), "the same source, the same time"
    began_ms, wall_ms = clock.monotonic_ms(), clock.wall_ms()
    clock.drift()
    now_us = 10_000_000
    passed_ms = clock.monotonic_ms() - began_ms
    assert passed_ms != 10_000 and abs(passed_ms - 10_000) <= 1_001
    clock.jump(-3_000)
    assert clock.wall_ms() == wall_ms + 7_000
    assert clock.counts == {"drift": 1, "wall_jump": 1}


def test_a_simulated_disk_does_everything_that_it_can_and_the_same_each_time() -> None:
    def story(seed: int) -> tuple[Any, ...]:
        faults = Faults(eio_read=0.05, eio_write=0.05, eio_sync=0.05, enospc=0.05, slow=0.1)
        disk = SimDisk(Random(seed), faults)
        seen: list[Any] = []
        for step in range(300):
            try:
                file = disk.open("f") if disk.exists("f") else disk.create("f", 4096)
                file.write_at(step * 50 % 3000, b"%d" % step * 300)
                file.read_at(0, 10)
                if step % 3:
                    file.sync()
                if step % 7:
                    disk.sync_folder()
            except (DiskFailed, NoSpace) as error:
                seen.append(str(error))
            if step % 20 == 19:
                disk.crash()
                with disk.untroubled():
                    seen.append(read_file(disk, "f") if disk.exists("f") else None)
                    if disk.exists("f"):
                        disk.flip_bit("f")
        return seen, disk.delay_us, dict(disk.counts), disk.operations

    assert story(1) == story(1)
    assert story(1) != story(2)
    assert {kind for kind, count in story(1)[2].items() if count} | {"lost_name"} == set(KINDS)


def test_rule_30_what_has_passed_is_not_forgotten_for_what_somebody_else_says() -> None:
    hands = Hands()
    clock = LogClock(hands, 1_200_000)
    hands.pass_ms(1_000)
    clock.observe(1_200_500)
    assert clock.now_ms() == 1_200_900

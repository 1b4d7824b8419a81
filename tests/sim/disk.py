"""A disk that does what disks do at the worst moment, decided by one random source.

Three layers of truth: what a program reads (the page cache), what is on its way to the medium, and what would survive a
power cut. A write is on its way until the file is synced; a new, renamed or removed name until its folder is. At
:meth:`SimDisk.crash` each sector on its way is kept or lost by itself, and each folder keeps some of its changes: a first part
of them, or any.

:meth:`SimDisk.kill` ends a process only: the page cache stays, and what was on its way still is.

Faults come by rate (:class:`Faults`) or by order (:meth:`SimDisk.fail`), and each is counted in :attr:`SimDisk.counts`.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from django_keyspace.exceptions import DiskFailed, NoSpace

SECTOR_BYTES = 512
KINDS = (
    "lost_write", "torn_write", "lost_name", "bit_flip", "eio_read", "eio_write", "eio_sync", "enospc", "slow",
)  # fmt: skip
"""Every kind of fault that this disk can produce, by its name in the counts."""


class PowerCut(BaseException):
    """The machine is off. Not an Exception: no program handles it."""


@dataclass(frozen=True)
class Faults:
    """How often each operation goes wrong, as shares of one."""

    eio_read: float = 0.0
    eio_write: float = 0.0
    eio_sync: float = 0.0
    enospc: float = 0.0
    slow: float = 0.0


@dataclass(eq=False)
class _File:
    """Attributes: what is read now; what would survive; what is on its way, as (offset, data) in order."""

    live: bytearray = field(default_factory=bytearray)
    kept: bytearray = field(default_factory=bytearray)
    on_its_way: list[tuple[int, bytes]] = field(default_factory=list)


@dataclass(eq=False)
class _Folder:
    """Attributes: names now; names that would survive; changes on their way, each a group that is kept as a whole."""

    live: dict[str, _File | _Folder] = field(default_factory=dict)
    kept: dict[str, _File | _Folder] = field(default_factory=dict)
    on_its_way: list[dict[str, _File | _Folder | None]] = field(default_factory=list)

    def change(self, group: dict[str, _File | _Folder | None]) -> None:
        _apply(self.live, group)
        self.on_its_way.append(group)


def _apply(names: dict[str, _File | _Folder], group: dict[str, _File | _Folder | None]) -> None:
    for name, node in group.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset + len(data):
        content.extend(bytes(offset + len(data) - len(content)))
    content[offset : offset + len(data)] = data


def sectors_of(offset: int, data: bytes) -> list[tuple[int, bytes]]:
    """A write in the pieces that a disk writes as a whole."""
    pieces = []
    begin = 0
    while begin < len(data):
        end = min(len(data), begin + SECTOR_BYTES - (offset + begin) % SECTOR_BYTES)
        pieces.append((offset + begin, data[begin:end]))
        begin = end
    return pieces


class SimFile:
    """An open file of a :class:`SimDisk`."""

    def __init__(self, disk: SimDisk, name: str, file: _File) -> None:
        self._disk, self._name, self._file = disk, name, file
        self._life = disk.life

    def _check(self, operation: str) -> None:
        self._disk.step(operation, self._name)
        assert self._life == self._disk.life, "a dead process's handle was used"

    @property
    def size(self) -> int:
        self._check("size")
        return len(self._file.live)

    def write_at(self, offset: int, data: bytes) -> None:
        disk = self._disk
        try:
            self._check("write")
            disk.take_room(max(0, offset + len(data) - len(self._file.live)), self._name)
        except (PowerCut, DiskFailed, NoSpace):
            whole = sum(len(piece) for _, piece in sectors_of(offset, data)[: disk.random.randint(0, 8)])
            self._write(offset, data[:whole])  # as far as it came
            raise
        self._write(offset, data)

    def _write(self, offset: int, data: bytes) -> None:
        _put(self._file.live, offset, data)
        self._file.on_its_way.append((offset, bytes(data)))

    def read_at(self, offset: int, size: int) -> bytes:
        self._check("read")
        return bytes(self._file.live[offset : offset + size])

    def sync(self) -> None:
        file = self._file
        try:
            self._check("sync")
        except DiskFailed:
            # The system forgets that the pages were not written: they are read as before, and no later sync writes them.
            self._disk.settle(file, lose_all=False)
            raise
        except PowerCut:
            if self._disk.random.random() < 0.5:
                self._disk.settle(file, lose_all=False)
            raise
        for offset, data in file.on_its_way:
            _put(file.kept, offset, data)
        file.on_its_way.clear()

    def close(self) -> None:
        """Nothing to do, also for a dead process."""


class SimDisk:
    """A :class:`django_keyspace.node.disk.Disk` in memory.

    Arguments:
        random: decides everything.
        faults: how often what goes wrong.
        capacity_bytes: when files together are as large, the disk is full.

    Attributes:
        counts: how often each fault was fired, by its name in :data:`KINDS`.
        delay_us: the time that all operations so far would have taken. The simulator takes the difference.
        life: grows with each crash and kill; handles of an earlier life are dead.
        operations: how many operations were done so far.
    """

    def __init__(self, random: Random, faults: Faults | None = None, capacity_bytes: int = 2**40) -> None:
        self.random = random
        self.faults = faults or Faults()
        self.capacity_bytes = capacity_bytes
        self.counts: Counter[str] = Counter()
        self.delay_us = 0
        self.life = 0
        self.operations = 0
        self._root = _Folder()
        self._cut_after: int | None = None
        self._ordered: dict[str, int] = {}

    # ------------------------------------------------------------------------------------------------ as a disk

    def create(self, name: str, size_bytes: int = 0) -> SimFile:
        self.step("create", name)
        folder, last = self._folder_of(name)
        if last in folder.live:
            raise DiskFailed(f"{name} exists")
        self.take_room(size_bytes, name)
        file = _File(live=bytearray(size_bytes))
        if size_bytes:
            file.on_its_way.append((size_bytes - 1, b"\0"))
        folder.change({last: file})
        return SimFile(self, name, file)

    def open(self, name: str) -> SimFile:
        self.step("open", name)
        node = self._find(name)
        if not isinstance(node, _File):
            raise DiskFailed(f"there is no file {name}")
        return SimFile(self, name, node)

    def exists(self, name: str) -> bool:
        self.step("exists", name)
        return self._find(name) is not None

    def list(self, folder: str = "") -> list[str]:
        self.step("list", folder)
        node = self._find(folder)
        return sorted(node.live) if isinstance(node, _Folder) else []

    def rename(self, old: str, new: str) -> None:
        self.step("rename", old)
        (old_folder, old_last), (new_folder, new_last) = self._folder_of(old), self._folder_of(new)
        assert old_folder is new_folder, "renames stay within a folder"
        if old_last not in old_folder.live:
            raise DiskFailed(f"there is no {old}")
        old_folder.change({new_last: old_folder.live[old_last], old_last: None})

    def remove(self, name: str) -> None:
        self.step("remove", name)
        if self._find(name) is not None:
            folder, last = self._folder_of(name)
            folder.change({last: None})

    def make_folder(self, name: str) -> None:
        self.step("make_folder", name)
        if self._find(name) is None:
            folder, last = self._folder_of(name)
            folder.change({last: _Folder()})

    def sync_folder(self, folder: str = "") -> None:
        self.step("sync", folder or "the root")
        node = self._find(folder)
        if not isinstance(node, _Folder):
            raise DiskFailed(f"there is no folder {folder}")
        for group in node.on_its_way:
            _apply(node.kept, group)
        node.on_its_way.clear()

    def free_bytes(self) -> int:
        return max(0, self.capacity_bytes - self.used_bytes)

    # ------------------------------------------------------------------------------------------------ trouble

    def fail(self, kind: str, after: int = 0) -> None:
        """Let one operation fail: the first of that kind, such as ``eio_sync``, after so many."""
        assert kind in KINDS
        self._ordered[kind] = after

    def cut_power_after(self, operations: int) -> None:
        """Let the power go out in the course of the operation after so many more."""
        self._cut_after = self.operations + operations

    def calm(self) -> None:
        """Take back what was ordered and has not happened."""
        self._cut_after = None
        self._ordered.clear()

    def has(self, name: str) -> bool:
        """Whether there is such a file, without an operation of the disk."""
        return self._find(name) is not None

    def names(self, folder: str) -> list[str]:
        """The names in a folder, without an operation of the disk."""
        node = self._find(folder)
        return sorted(node.live) if isinstance(node, _Folder) else []

    def used_size(self, name: str) -> int:
        """How much of a file is not zeros at its end, in bytes."""
        file = self._find(name)
        assert isinstance(file, _File)
        return len(file.live.rstrip(b"\0"))

    @contextlib.contextmanager
    def untroubled(self) -> Iterator[None]:
        """For a test that looks at what is there: nothing goes wrong meanwhile."""
        trouble = self._cut_after, self._ordered, self.faults, self.operations
        self._cut_after, self._ordered, self.faults = None, {}, Faults()
        try:
            yield
        finally:
            self._cut_after, self._ordered, self.faults, self.operations = trouble

    def crash(self) -> None:
        """A power cut and a new start."""
        self._begin_life()
        self._crash_folder(self._root)

    def kill(self) -> None:
        """The process is killed; the machine runs on."""
        self._begin_life()

    def flip_bit(self, name: str, offset: int | None = None) -> int:
        """Change one bit of a file on the medium. Returns: the byte's offset."""
        file = self._find(name)
        assert isinstance(file, _File)
        if offset is None:
            offset = self.random.randrange(len(file.live))
        mask = 1 << self.random.randrange(8)
        for content in (file.live, file.kept):
            if offset < len(content):
                content[offset] ^= mask
        self.counts["bit_flip"] += 1
        return offset

    def cut_short(self, name: str, size_bytes: int) -> None:
        """Let a file end earlier."""
        file = self._find(name)
        assert isinstance(file, _File)
        del file.live[size_bytes:], file.kept[size_bytes:]

    # ------------------------------------------------------------------------------------------------ inside

    @property
    def used_bytes(self) -> int:
        """Bytes of all files."""
        return sum(len(file.live) for file in _files(self._root))

    def step(self, operation: str, name: str) -> None:
        """Before an operation: the power may be out, time passes, the operation may fail."""
        if self._cut_after is not None and self.operations >= self._cut_after:
            raise PowerCut
        self.operations += 1
        self.delay_us += 100 if operation == "sync" else 1
        if self._fires("slow"):
            self.delay_us += self.random.randint(1_000, 2_000_000)
        kind = f"eio_{operation}"
        if kind in ("eio_read", "eio_write", "eio_sync") and self._fires(kind):
            raise DiskFailed(f"simulated {kind} of {name}")

    def take_room(self, size_bytes: int, name: str) -> None:
        """Before a file grows, or any write."""
        if self._fires("enospc"):
            raise NoSpace(f"simulated: no room for {name}")
        if size_bytes and self.used_bytes + size_bytes > self.capacity_bytes:
            self.counts["enospc"] += 1
            raise NoSpace(f"simulated: the disk is full, no room for {name}")

    def settle(self, file: _File, *, lose_all: bool) -> None:
        """Keep some of the sectors that are on their way, and forget the others."""
        mood = self.random.random()  # often everything or nothing, sometimes each sector by itself
        for offset, data in file.on_its_way:
            for sector in sectors_of(offset, data):
                if not lose_all and self.random.random() < mood:
                    _put(file.kept, *sector)
        file.on_its_way.clear()

    def _fires(self, kind: str) -> bool:
        rate = getattr(self.faults, kind)
        fires = bool(rate) and self.random.random() < rate
        if kind in self._ordered:
            self._ordered[kind] -= 1
            if self._ordered[kind] < 0:
                del self._ordered[kind]
                fires = True
        self.counts[kind] += fires
        return fires

    def _begin_life(self) -> None:
        self.life += 1
        self._cut_after = None
        self._ordered.clear()

    def _crash_folder(self, folder: _Folder) -> None:
        # Most file systems keep names in order; nothing promises it.
        in_order = self.random.random() < 0.5
        first = self.random.randint(0, len(folder.on_its_way))
        for number, group in enumerate(folder.on_its_way):
            if number < first if in_order else self.random.random() < 0.5:
                _apply(folder.kept, group)
            else:
                self.counts["lost_name"] += 1
        folder.on_its_way.clear()
        folder.live = dict(folder.kept)
        for _, node in sorted(folder.live.items()):
            if isinstance(node, _Folder):
                self._crash_folder(node)
            else:
                self._crash_file(node)

    def _crash_file(self, file: _File) -> None:
        if file.on_its_way:
            before = bytes(file.kept)
            self.settle(file, lose_all=self.random.random() < 0.25)
            if file.kept != file.live:
                self.counts["lost_write" if file.kept == before else "torn_write"] += 1
        file.live = bytearray(file.kept)

    def _find(self, name: str) -> _File | _Folder | None:
        node: _File | _Folder | None = self._root
        for part in filter(None, name.split("/")):
            node = node.live.get(part) if isinstance(node, _Folder) else None
        return node

    def _folder_of(self, name: str) -> tuple[_Folder, str]:
        path, _, last = name.rpartition("/")
        folder = self._find(path)
        if not isinstance(folder, _Folder):
            raise DiskFailed(f"there is no folder {path}")
        return folder, last


def _files(folder: _Folder) -> list[_File]:
    found = []
    for node in folder.live.values():
        found.extend(_files(node) if isinstance(node, _Folder) else [node])
    return found

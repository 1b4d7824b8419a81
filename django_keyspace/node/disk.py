"""A node's files, behind an interface small enough for a simulator to stand in for it.

The journal and the snapshots reach the disk through :class:`Disk` alone. Names are relative to the node's data folder and
use slashes. What is written is certain to survive a power cut only after :meth:`DiskFile.sync`, and that a file exists, is
gone or has a new name only after :meth:`Disk.sync_folder`.

Errors are ours: :class:`NoSpace` when the disk is full, after which the node goes on; :class:`DiskFailed` for everything
else, after which it must not: what a failed write or sync has left behind is unknown until the file has been read again by a
new process.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Final, Protocol

from django_keyspace.exceptions import DiskFailed, NoSpace
from django_keyspace.store.errors import free_disk_bytes

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_ZEROS: Final = bytes(1 << 20)
NEW_SUFFIX: Final = ".new"
"""What ends so is being made. Whoever finds one at its start removes it."""


class DiskFile(Protocol):
    """An open file."""

    @property
    def size(self) -> int:
        """Its size in bytes."""

    def write_at(self, offset: int, data: bytes) -> None:
        """Write ``data`` at ``offset``, beyond the end if need be. Not durable before :meth:`sync`."""

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``offset``: fewer only at the end of the file."""

    def sync(self) -> None:
        """Return when everything written so far, and the file's size, would survive a power cut."""

    def close(self) -> None:
        """Let go of it, without a sync."""


class Disk(Protocol):
    """A folder. Every method raises :class:`NoSpace` or :class:`DiskFailed`."""

    def create(self, name: str, size_bytes: int = 0) -> DiskFile:
        """Make a file of ``size_bytes`` zeros whose room on the disk is taken already. It must not exist."""

    def open(self, name: str) -> DiskFile:
        """Open an existing file for reading and writing."""

    def exists(self, name: str) -> bool:
        """Whether there is such a file or folder."""

    def list(self, folder: str = "") -> list[str]:
        """The names in a folder, sorted, without the folder's own; empty if there is no such folder."""

    def rename(self, old: str, new: str) -> None:
        """Rename a file or folder; a file called ``new`` is replaced."""

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with everything in it; nothing happens if there is none."""

    def make_folder(self, name: str) -> None:
        """Make a folder, private to this user, unless it exists."""

    def sync_folder(self, folder: str = "") -> None:
        """Return when the folder's list of names would survive a power cut."""

    def free_bytes(self) -> int:
        """Bytes that this user may still write."""


def replace_file(disk: Disk, name: str, data: bytes) -> None:
    """Write a small file durably, so that a crash leaves either the old content or the new.

    Arguments:
        disk: where.
        name: the file.
        data: its whole content.
    Raises:
        NoSpace: the old content stands, and nothing of the new one is left.
        DiskFailed: nobody knows which content stands.
    """
    temporary = name + NEW_SUFFIX
    disk.remove(temporary)
    try:
        file = disk.create(temporary)
        try:
            file.write_at(0, data)
            file.sync()
        finally:
            file.close()
        disk.rename(temporary, name)
    except NoSpace:
        disk.remove(temporary)
        raise
    try:
        disk.sync_folder(os.path.dirname(name))
    except NoSpace as error:  # the new content can be read already, and a power cut may bring the old one back
        raise DiskFailed(str(error)) from error


def read_file(disk: Disk, name: str) -> bytes:
    """The whole content of a file."""
    file = disk.open(name)
    try:
        return file.read_at(0, file.size)
    finally:
        file.close()


# ------------------------------------------------------------------------------------------------ the real one


@contextlib.contextmanager
def _explained(what: str, path: str) -> Iterator[None]:
    """Turn an error of the system into one of ours."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise NoSpace(f"The disk has no room to {what} {path}. Make room there.") from error
        raise DiskFailed(
            f"The disk would not {what} {path}: {error.strerror or error}. Look at the system's log and at the disk."
        ) from error


class HostFile:
    """An open file of this machine: see :class:`DiskFile`."""

    def __init__(self, path: str, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @property
    def size(self) -> int:
        """See :attr:`DiskFile.size`."""
        with _explained("look at", self._path):
            return os.fstat(self._descriptor).st_size

    def write_at(self, offset: int, data: bytes) -> None:
        """See :meth:`DiskFile.write_at`."""
        with _explained("write", self._path):
            written = os.pwrite(self._descriptor, data, offset)
            while written < len(data):  # a signal, or the last bytes before the disk is full
                written += os.pwrite(self._descriptor, data[written:], offset + written)

    def read_at(self, offset: int, size: int) -> bytes:
        """See :meth:`DiskFile.read_at`."""
        with _explained("read", self._path):
            data = os.pread(self._descriptor, size, offset)
            while 0 < len(data) < size:
                more = os.pread(self._descriptor, size - len(data), offset + len(data))
                if not more:
                    break
                data += more
            return data

    def sync(self) -> None:
        """See :meth:`DiskFile.sync`."""
        with _explained("sync", self._path):
            _sync_data(self._descriptor)

    def close(self) -> None:
        """See :meth:`DiskFile.close`."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class HostDisk:
    """A folder of this machine: see :class:`Disk`.

    Arguments:
        root: the folder; it exists.
    """

    def __init__(self, root: str) -> None:
        self.root = root

    def path(self, name: str) -> str:
        """Where a file is, for those who must open it by themselves (LMDB)."""
        return os.path.join(self.root, name) if name else self.root

    def create(self, name: str, size_bytes: int = 0) -> DiskFile:
        """See :meth:`Disk.create`."""
        path = self.path(name)
        with _explained("make", path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                _take_room(descriptor, size_bytes)
            except BaseException:
                os.close(descriptor)
                os.remove(path)
                raise
        return HostFile(path, descriptor)

    def open(self, name: str) -> DiskFile:
        """See :meth:`Disk.open`."""
        path = self.path(name)
        with _explained("open", path):
            return HostFile(path, os.open(path, os.O_RDWR | os.O_CLOEXEC))

    def exists(self, name: str) -> bool:
        """See :meth:`Disk.exists`."""
        return os.path.lexists(self.path(name))

    def list(self, folder: str = "") -> list[str]:
        """See :meth:`Disk.list`."""
        path = self.path(folder)
        with _explained("list", path):
            try:
                return sorted(os.listdir(path))
            except FileNotFoundError:
                return []

    def rename(self, old: str, new: str) -> None:
        """See :meth:`Disk.rename`."""
        with _explained("rename", self.path(old)):
            os.replace(self.path(old), self.path(new))

    def remove(self, name: str) -> None:
        """See :meth:`Disk.remove`."""
        path = self.path(name)
        with _explained("remove", path), contextlib.suppress(FileNotFoundError):
            if os.path.isdir(path) and not os.path.islink(path):
                for inner in os.listdir(path):
                    self.remove(f"{name}/{inner}")
                os.rmdir(path)
            else:
                os.remove(path)

    def make_folder(self, name: str) -> None:
        """See :meth:`Disk.make_folder`."""
        with _explained("make", self.path(name)):
            os.makedirs(self.path(name), mode=0o700, exist_ok=True)

    def sync_folder(self, folder: str = "") -> None:
        """See :meth:`Disk.sync_folder`."""
        path = self.path(folder)
        with _explained("sync", path):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def free_bytes(self) -> int:
        """See :meth:`Disk.free_bytes`."""
        with _explained("look at", self.root):
            return free_disk_bytes(self.root)


def _take_room(descriptor: int, size_bytes: int) -> None:
    """Make an empty file as large as that. Where the system cannot set room aside, zeros are written."""
    if not size_bytes:
        return
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size_bytes)
            return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
    offset = 0
    while offset < size_bytes:
        offset += os.pwrite(descriptor, _ZEROS[: size_bytes - offset], offset)


def _sync_data(descriptor: int) -> None:
    """The strongest sync that the system has for a file's data."""
    if hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
        return
    import fcntl  # macOS: a plain fsync leaves the data in the drive's own memory

    fcntl.fcntl(descriptor, getattr(fcntl, "F_FULLFSYNC", 51))

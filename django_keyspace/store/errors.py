"""What LMDB's errors mean, in this package's words. Nothing from lmdb leaves ``store/``."""

from __future__ import annotations

import errno
import os
from typing import Final

import lmdb

from django_keyspace.exceptions import DamagedStore, KeyspaceError, NoSpace, StorageError

DAMAGE: Final = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.VersionMismatchError)
"""Errors that say that a data file is not what LMDB wrote."""

_SHORT_WRITE: Final = -30772
"""LMDB 1.0's word for a disk that took only part of a page; lmdb has no class for it."""
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, _SHORT_WRITE)
_FULL_BELOW_BYTES: Final = 16 * 2**20
"""A disk with less than that is full for LMDB, which says EIO or that its map is full where the system has refused a write."""

OUT_OF_FILES: Final = (errno.EMFILE, errno.ENFILE)
"""Errors that say nothing about a file, but that no more can be opened now."""
_ADVICE: Final = {
    errno.EMFILE: "This process has as many files open as it may: raise its limit (ulimit -n, or LimitNOFILE of a systemd unit).",
    errno.ENFILE: "This machine has as many files open as it may: raise fs.file-max.",
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "Make room on its disk."),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS), "Mend the owner or the permissions of the store's files."
    ),
}

_CONTAINER = (
    "Two processes with the same process id use {path}: containers that share the folder but not the process ids. Give each "
    "container its own folder, let them share the pid namespace, or run a node and connect to it."
)


def free_disk_bytes(path: str) -> int:
    """Bytes that this user may still write on the disk of a path."""
    figures = os.statvfs(path)
    return figures.f_bavail * figures.f_frsize


def explain(error: lmdb.Error, path: str) -> KeyspaceError:
    """The error of ours for one of LMDB's.

    Arguments:
        error: what LMDB raised; nothing was committed.
        path: the store's folder.
    """
    if isinstance(error, DAMAGE):
        return DamagedStore(f"The store {path} is damaged: {error}.")
    if isinstance(error, lmdb.LockError):
        return StorageError(_CONTAINER.format(path=path))
    if isinstance(error, lmdb.ReadersFullError):
        return StorageError(
            f"All {2048} reader slots of {path} are taken by living processes. Use fewer processes and threads on one store."
        )
    # Whatever there is by now: somebody may have made room in between.
    has_no_room = isinstance(error, lmdb.DiskError) or error.code in _NO_ROOM
    if has_no_room or isinstance(error, lmdb.MapFullError) or error.code == errno.EIO:
        free_bytes = free_disk_bytes(path)
        if has_no_room or free_bytes < _FULL_BELOW_BYTES:
            return NoSpace(
                f"The disk of {path} is full ({free_bytes:,} bytes are free now): {error}. Nothing was written. Make room there, "
                "or raise the quota."
            )
    return StorageError(f"The store {path} failed: {error}. Nothing was written. {advice(error.code)}")


def advice(code: int | None) -> str:
    """What to do about an error of the system, by its number."""
    return _ADVICE.get(code or 0, "Check the disk and the system's log.")

"""Disks of their own for nodes: small ones, and ones that can be made to hang. Only root may mount them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from django_keyspace.testing.cluster import await_found

SMALL_BYTES = 64 * 2**20
_INNER_BYTES = 96 * 2**20
_OUTER_BYTES = 128 * 2**20
_HANG = 'fsfreeze --freeze "$0" && echo hangs; read -r line; fsfreeze --unfreeze "$0" && echo goes on'
UNMOUNT_TIMEOUT_S = 30.0
TOOLS = ("mount", "umount", "mkfs.ext4", "fsfreeze")


class SmallDisk:
    """A disk in memory.

    Arguments:
        folder: where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={SMALL_BYTES}", "tmpfs", str(folder))

    def close(self) -> None:
        """Unmount it. Nobody may use it any more."""
        _unmount(self.folder)


class HangingDisk:
    """A small ext4 in a file of another one, which is frozen to make it hang.

    The file system goes on to take writes into its cache, and whoever wants them on the disk waits, without an error: so
    does a disk that does not answer.

    Arguments:
        folder: where it is mounted. Its files are beside that.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._below = folder.with_name(f"{folder.name}-below")
        self._mounted: list[Path] = []
        try:
            self._mount(folder.with_name(f"{folder.name}.img"), self._below, _OUTER_BYTES, "-O", "^has_journal")
            self._mount(self._below / "disk.img", folder, _INNER_BYTES)
        except BaseException:
            self.close()
            raise

    def _mount(self, image: Path, folder: Path, size_bytes: int, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with image.open("wb") as file:
            file.truncate(size_bytes)
        _run("mkfs.ext4", "-q", "-m", "0", *options, str(image))
        _run("mount", "-o", "loop", str(image), str(folder))
        self._mounted.append(folder)

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Nothing gets to the disk meanwhile. It goes on even if this process is killed."""
        with self._frozen(self._below):
            yield

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Whoever writes waits, not only who wants it on the disk: as while somebody takes a snapshot of it."""
        with self._frozen(self.folder):
            yield

    @contextlib.contextmanager
    def _frozen(self, folder: Path) -> Iterator[None]:
        process = subprocess.Popen(
            ["sh", "-c", _HANG, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            if process.stdout is None or process.stdout.readline() != "hangs\n":
                raise RuntimeError("The disk cannot be made to hang.")
            yield
        finally:
            said, _ = process.communicate()
        if said != "goes on\n":
            raise RuntimeError("The disk does not go on.")

    def close(self) -> None:
        """Unmount it. Nobody may use it any more."""
        while self._mounted:
            _unmount(self._mounted.pop())


def why_no_small_disks() -> str | None:
    """Why this machine does not let us make small disks; None if it does."""
    return _why_not(SmallDisk, ("mount",))


def why_no_hanging_disks() -> str | None:
    """Why this machine does not let us make disks that hang; None if it does."""

    def attempt(folder: Path) -> HangingDisk:
        disk = HangingDisk(folder)
        try:
            with disk.hanging():
                pass
        except BaseException:
            disk.close()
            raise
        return disk

    return _why_not(attempt, TOOLS)


def _why_not(make: type[SmallDisk] | object, tools: tuple[str, ...]) -> str | None:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "only root may mount a disk"
    if missing := [tool for tool in tools if shutil.which(tool) is None]:
        return f"there is no {', '.join(missing)} here"
    with tempfile.TemporaryDirectory(prefix="keyspace-disk-") as folder:
        try:
            make(Path(folder) / "disk").close()
        except RuntimeError as error:
            return f"this machine does not let root mount a disk: {error}"
    return None


def _unmount(folder: Path) -> None:
    """The file of a disk is in use until the kernel has let go of the disk, which is some time after it was unmounted."""

    def attempt() -> bool | None:
        return subprocess.run(["umount", str(folder)], capture_output=True, check=False).returncode == 0 or None

    if await_found(attempt, UNMOUNT_TIMEOUT_S) is None:
        _run("umount", "--lazy", str(folder))


def _run(*command: str) -> None:
    """Raises :class:`RuntimeError` with what the command says."""
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.decode(errors="replace").strip())

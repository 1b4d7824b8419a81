"""The cluster of a run: real node processes behind :class:`~tests.cluster.nemesis.wires.Wires`."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django_keyspace.exceptions import KeyspaceError
from django_keyspace.testing import NodeDidNotStart, RunningCluster, RunningNode
from django_keyspace.testing.cluster import _free_ports, await_found

from .wires import Wires

_ATTEMPTS = 5


class Place(RunningCluster):
    """A cluster whose nodes and clients reach each other through wires that can be cut.

    Arguments:
        is_wired: False: they reach each other as they are. Who calls a process that has ended is refused then, which wires hide.

    Attributes:
        wires: those.
        disks: the nodes whose data folder is a small disk of its own, with the folder.
    """

    def __init__(self, folder: Path, size: int, flags: list[str], is_wired: bool = True) -> None:
        self.wires = Wires()
        self.is_wired = is_wired
        self.disks: dict[str, Path] = {}
        self._listens: dict[str, str] = {}
        try:
            super().__init__(folder, size, None, flags)
        except BaseException:
            self.wires.close()
            raise

    def _node(self, name: str, flags: list[str]) -> RunningNode:
        advertised = self.addresses[name]
        if not self.is_wired:
            return RunningNode(self._folder / name, [*self._flags, *flags], name, advertised, self._secret)
        listen = self._listens.setdefault(name, f"127.0.0.1:{_free_ports(1)[0]}")
        self.wires.add(name, advertised, listen)
        return RunningNode(
            self._folder / name, [*self._flags, f"--advertise={advertised}", *flags], name, listen, self._secret
        )

    @property
    def location(self) -> str:
        """With the addresses that nodes give each other."""
        return f"keyspace://{','.join(self.addresses.values())}/0"

    def status(self, name: str) -> dict[str, Any] | None:
        """What a node says of itself, None if it does not answer."""
        with contextlib.suppress(KeyspaceError):
            found: dict[str, Any] = self.ask(name, "node_status", timeout_s=2)
            return found
        return None

    def leader_name(self, *, other_than: str = "") -> str:
        """The name of the node that leads. Waits until there is one."""
        return self.leader(other_than=other_than).node_id

    def give_disk(self, name: str, size_bytes: int) -> None:
        """Have a node's data on a disk of its own, of that size. Only for root. Before the node is started."""
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)], check=True)
        self.disks[name] = folder

    def close(self) -> None:
        """End all of it."""
        try:
            super().close()
        finally:
            for folder in self.disks.values():
                subprocess.run(["umount", str(folder)], check=False)
            self.wires.close()


def why_no_small_disks() -> str | None:
    """Why this machine does not let us make small disks; None if it does."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("mount") is None:
        return "only root may mount a small disk"
    with tempfile.TemporaryDirectory(prefix="keyspace-disk-") as folder:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=65536", "tmpfs", folder], capture_output=True, check=False
        )
        if done.returncode == 0:
            subprocess.run(["umount", folder], check=True)
            return None
    return f"this machine does not let root mount a small disk: {done.stderr.decode(errors='replace').strip()}"


@contextlib.contextmanager
def running_place(
    folder: Path, size: int = 3, *, disk_bytes: int = 0, is_wired: bool = True, **options: Any
) -> Iterator[Place]:
    """Run a cluster as long as the block runs; no process is left behind.

    Arguments:
        folder: for the data folders.
        size: the number of nodes.
        disk_bytes: the size of a disk for each node; 0: all on the folder's.
        is_wired: whether what is between nodes can be cut.
        **options: flags of all nodes.
    """
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    with contextlib.ExitStack() as stack:
        for attempt in range(_ATTEMPTS):
            try:
                place = Place(folder / str(attempt), size, flags, is_wired)
                stack.callback(place.close)
                for name in place.nodes if disk_bytes else ():
                    place.give_disk(name, disk_bytes)
                place.start()
                break
            except (NodeDidNotStart, OSError) as error:  # somebody has taken one of the ports meanwhile
                if attempt == _ATTEMPTS - 1 or ("Another program" not in str(error) and not isinstance(error, OSError)):
                    raise
        place.leader()
        yield place


__all__ = ["Place", "await_found", "running_place", "why_no_small_disks"]

"""A node's store and what it says of it, in a process of its own, doing what a test says.

The test's process may not have the same store open twice, and a node that is killed has to be another process. It is the node's
own state machine and file of freshness; only the loop, the network and the time are the test's.

Run as a module it is that process: one Python literal per line in, one out.
"""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from random import Random
from typing import Any

from django_keyspace.node.beside import FreshnessFile
from django_keyspace.node.disk import HostDisk
from django_keyspace.node.entries import LoggedCalls
from django_keyspace.node.machine import Machine
from django_keyspace.node.snapshot import Snapshot, SnapshotStore
from django_keyspace.store import StoreOptions, clock
from django_keyspace.store.folder import boot_id, process_space
from django_keyspace.store.freshness import READABLE, Freshness
from tests.journal.helpers import MEMBERS

LOG_MS = 1_800_000_000_000
DATABASES = 2


class Neighbour:
    """The process, as the test sees it."""

    folder: Path

    def __init__(self) -> None:
        self._asking = threading.Lock()
        self._start()

    def _start(self) -> None:
        command = [sys.executable, "-m", "tests.backend.neighbour"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def begin(self, folder: Path, map_bytes: int = 2**24) -> None:
        """Begin another life, in a process that may have had others.

        Arguments:
            folder: the node's data folder; made if it is missing.
            map_bytes: size of the store's map to begin with.
        """
        if self.process.poll() is not None:
            self._start()
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.ask("begin", str(folder), map_bytes)

    def ask(self, *request: Any) -> Any:
        """Have it do something: a method of :class:`Life` with these arguments."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with self._asking:
            self.process.stdin.write(f"{request!r}\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        assert line, "the neighbour has died"
        return ast.literal_eval(line)

    def put(self, key: bytes, payload: bytes = b"v", expire: Any = None) -> int:
        """Store a value, and say so. The index."""
        index = self.ask("apply", [("set", 0, key, (1, 0, payload), expire, "always")])
        self.ask("tell", {})
        return int(index)

    def tell(self, **fields: Any) -> None:
        """Write how fresh it is: now, unless the fields say something else."""
        self.ask("tell", fields)

    def facts(self) -> dict[str, Any]:
        """What it answers to ``node_store``."""
        return dict(self.ask("facts"))

    def kill(self) -> None:
        """As a crash does it."""
        self.process.send_signal(signal.SIGKILL)
        self.close()

    def close(self) -> None:
        """End it, if it runs."""
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None and not stream.closed:
                stream.close()
        self.process.wait()


class Life:
    """What happens in the process."""

    def __init__(self, folder: str, map_bytes: int) -> None:
        self.folder = folder
        options = StoreOptions(databases=DATABASES, map_bytes=map_bytes)
        disk = HostDisk(folder)
        self.machine = Machine.open(disk, options, boot_id(), Random(1), upkeep=False)
        if not self.machine.is_trustworthy:
            self.machine.begin()
        self.snapshots = SnapshotStore(disk)
        self.file = FreshnessFile(Path(folder))
        self.tell({})

    def applied(self) -> int:
        """The last entry that it has applied."""
        return self.machine.applied_index

    def apply(self, calls: list[Any], log_ms: int = LOG_MS) -> int:
        """Apply an entry."""
        index = self.machine.applied_index + 1
        for result in self.machine.apply([LoggedCalls(index, log_ms, calls)])[0]:
            if isinstance(result, Exception):
                raise result
        return index

    def read(self, *call: Any) -> Any:
        """Read here."""
        return self.machine.read(LOG_MS, *call)

    def tell(self, fields: dict[str, Any]) -> None:
        """Write a record of freshness."""
        machine = self.machine
        now = Freshness(
            READABLE, os.getpid(), machine.generation, machine.applied_index, LOG_MS, 0, clock.boot_ms(), self.file.life
        )
        self.file.write(now._replace(**fields))

    def facts(self) -> dict[str, Any]:
        """As ``Beside.answer``."""
        return {
            "folder": self.folder,
            "boot_id": boot_id(),
            "boot_ms": clock.boot_ms(),
            "life": self.file.life,
            "process": os.getpid(),
            "process_space": process_space(),
            "alone": False,
            "node": "n1",
            "member": "n1.00000000",
            "cluster": self.file.life.hex(),
            "store": os.path.join(self.folder, self.machine.folder),
            "generation": self.machine.generation,
            "databases": DATABASES,
            "value_bytes_max": 2**20,
            "addresses": ("127.0.0.1:7080",),
        }

    def install(self) -> int:
        """Have a store made from a snapshot take the place of this one, and say nothing of it yet."""
        with self.machine.copy() as copy:
            made = Snapshot(copy.index, 1, MEMBERS, copy.log_ms, "c1")
            self.snapshots.build(made, copy)
        self.machine.install(self.snapshots, made)
        return self.machine.generation

    def readers(self) -> int:
        """Slots in the table of readers, after those of dead processes were freed."""
        self.machine.store.check_readers()
        return int(self.machine.store.read("status")["readers"])


def main() -> None:
    """Do what comes on standard input until it ends."""
    life: Life | None = None
    for line in sys.stdin:
        name, *arguments = ast.literal_eval(line)
        if name == "begin":
            if life is not None:
                life.machine.close(clean=False)
            life = Life(*arguments)
            print(None, flush=True)
        else:
            print(repr(getattr(life, name)(*arguments)), flush=True)


if __name__ == "__main__":
    main()

"""What a node tells processes of its host that read its store beside it: where the store is, and how fresh.

Where it is, they ask over the Unix socket (the request ``node_store``). How fresh it is stands in a small file, see
``store/freshness.py``. That file is written on a thread of its own: a page of a disk that hangs must not hold up the node.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from django_keyspace.addresses import SOCKET_FILE
from django_keyspace.exceptions import ConfigurationError, KeyspaceError, StorageError
from django_keyspace.node.config import NodeConfig
from django_keyspace.node.interfaces import Handle, Scheduler
from django_keyspace.node.reading import UNKNOWN_AGE_MS
from django_keyspace.store import clock
from django_keyspace.store.folder import DATA_FILE, READERS_FILE, boot_id, process_space
from django_keyspace.store.freshness import (
    ENDED,
    FRESHNESS_FILE,
    LIFE_BYTES,
    LOOK_MS,
    READABLE,
    Freshness,
)

logger = logging.getLogger("django_keyspace.node")

INTERVAL_MS_LEAST: Final = 20
INTERVAL_MS_MOST: Final = 200
ALONE_INTERVAL_MS: Final = 100
FORGET_MS: Final = 3 * LOOK_MS
"""Who reads beside a node has noticed after so long that another life of it has begun."""


class FreshnessFile:
    """The file in a node's folder, written anew for each life of the node.

    Arguments:
        folder: the node's data folder.

    Attributes:
        life: what this life of the node is known by.
    """

    def __init__(self, folder: Path) -> None:
        self.life = secrets.token_bytes(LIFE_BYTES)
        self.path = str(folder / FRESHNESS_FILE)
        self._descriptor: int | None = None

    def write(self, record: Freshness) -> None:
        """Write a record. Raises OSError."""
        data = record.pack()
        if self._descriptor is not None:
            os.pwrite(self._descriptor, data, 0)
            return
        # Never in place of an older life's: whoever has that one mapped sees that it grows old.
        new = f"{self.path}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(descriptor, data, 0)
            os.replace(new, self.path)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    @property
    def is_open(self) -> bool:
        """Whether the file that lies there is that of this life."""
        return self._descriptor is not None

    def close(self) -> None:
        """Close it; what it said last stays."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def group_id(name: str | None) -> int | None:
    """The number of a group of users; None for none. Raises :class:`ConfigurationError` if there is no such group."""
    if name is None:
        return None
    try:
        import grp

        return grp.getgrnam(name).gr_gid
    except (ImportError, KeyError):
        raise ConfigurationError(
            f"There is no group {name!r:.80} on this host. Make it, add the node's user and the site's to it, or leave out "
            "--replica-group."
        ) from None


def share(folder: Path, store: Path, group: int) -> None:
    """Let a group read a node's store. By path only: LMDB's files must not be opened. Raises OSError.

    Arguments:
        folder: the node's data folder; the group may pass, and not list it.
        store: the store's folder in it.
        group: the group's number.
    """
    for path, mode in (
        (folder, 0o710),
        (folder / FRESHNESS_FILE, 0o640),
        (store, 0o710),
        (store / DATA_FILE, 0o640),
        (store / READERS_FILE, 0o660),  # readers write their slots there
        (folder / SOCKET_FILE, 0o660),
    ):
        os.chown(path, -1, group)
        os.chmod(path, mode)


class Seen(NamedTuple):
    """What the store is as of, at the moment of asking.

    Attributes:
        generation: number of the store folder that counts.
        applied: the last entry that was applied.
        log_ms: the log clock.
        age_ms: how long ago, at most, the store was known to be current; None if that is unknown.
    """

    generation: int
    applied: int
    log_ms: int
    age_ms: int | None


class Beside:
    """Tells those who read beside a node.

    Arguments:
        folder: the node's data folder.
        look: what the store is as of; None while the node may not show it. Called on the loop's thread.
        scheduler: the node's.
        interval_ms: how often to write.
        facts: what else stands in the answer to ``node_store``, the generation and the store's folder among it.
        group: number of a group of users who may read the store as well.
        boot_ms: the host's monotonic clock.
    """

    def __init__(
        self,
        folder: Path,
        look: Callable[[], Seen | None],
        scheduler: Scheduler,
        interval_ms: int,
        facts: Callable[[], dict[str, Any]],
        group: int | None = None,
        boot_ms: Callable[[], int] = clock.boot_ms,
    ) -> None:
        self._folder = folder
        self._look = look
        self._scheduler = scheduler
        self._interval_ms = min(max(interval_ms, INTERVAL_MS_LEAST), INTERVAL_MS_MOST)
        self._facts = facts
        self._group = group
        self._shared = -1  # the generation that the group may read
        self._boot_ms = boot_ms
        self._file = FreshnessFile(folder)
        self._writing = False
        self._is_over = False
        self._next: Handle | None = None
        self._trouble = ""

    def answer(self) -> dict[str, Any]:
        """What the request ``node_store`` answers."""
        return {
            "folder": str(self._folder),
            "boot_id": boot_id(),
            "boot_ms": self._boot_ms(),
            "life": self._file.life,
            "process": os.getpid(),
            "process_space": process_space(),
            **self._facts(),
        }

    def begin(self) -> bool:
        """Write for the first time, on this thread.

        Returns:
            Whether there was the file of an earlier life: then :data:`FORGET_MS` have to pass before this one changes anything,
            so that nobody reads any more what was true in that one.
        Raises:
            StorageError: that file can be neither replaced nor removed.
        """
        had_another = os.path.exists(self._file.path)
        try:
            self._write(self._record(), self._facts()["store"])
        except OSError as error:
            self._written(error)
            if not self._file.is_open:
                self._remove()
        return had_another

    def _remove(self) -> None:
        """Remove an earlier life's file: whoever reads beside the node sees that it has gone."""
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._file.path)
        except OSError as error:
            raise StorageError(
                f"{self._file.path} can be neither replaced nor removed ({error.strerror}): who reads the store beside this node "
                "would believe what an earlier process says there. Mend the permissions of the folder, and start the node again."
            ) from error

    def start(self) -> None:
        """Write now, and from now on."""
        if self._is_over:
            return
        self._next = self._scheduler.call_later(self._interval_ms, self.start)
        if not self._writing:  # otherwise the disk hangs, and readers see that what they have grows old
            self._writing = True
            record = self._record()
            self._scheduler.in_thread("freshness", partial(self._write, record, self._facts()["store"]), self._written)

    def _write(self, record: Freshness, store: str) -> None:
        self._file.write(record)
        if self._group is not None and record.generation not in (0, self._shared):
            with contextlib.suppress(FileNotFoundError):  # the socket comes last, or the store is being replaced
                share(self._folder, Path(store), self._group)
                self._shared = record.generation

    def stop(self) -> None:
        """Say that nothing will be written any more. Before the scheduler's threads end."""
        if self._is_over:
            return
        self._is_over = True
        if self._next is not None:
            self._next.cancel()
        record = self._unreadable(ENDED, self._boot_ms())

        def work() -> None:
            try:
                self._file.write(record)
            finally:
                self._file.close()

        self._scheduler.in_thread("freshness", work, self._written)

    def _record(self) -> Freshness:
        boot_ms = self._boot_ms()  # first: what is asked after it is at least as fresh
        seen = self._look()
        if seen is None:
            return self._unreadable(0, boot_ms)
        age_ms = UNKNOWN_AGE_MS if seen.age_ms is None else seen.age_ms
        return Freshness(
            READABLE, os.getpid(), seen.generation, seen.applied, seen.log_ms, age_ms, boot_ms, self._file.life
        )

    def _unreadable(self, flags: int, boot_ms: int) -> Freshness:
        return Freshness(flags, os.getpid(), 0, 0, 0, UNKNOWN_AGE_MS, boot_ms, self._file.life)

    def _written(self, result: Exception | None) -> None:
        self._writing = False
        trouble = str(result) if isinstance(result, Exception) else ""
        if trouble and trouble != self._trouble:
            logger.warning("%s cannot be written, so nobody reads beside this node: %s", self._file.path, trouble)
        self._trouble = trouble


class LoneStore(Protocol):
    """What is asked of the store of a node that runs alone."""

    def file_number(self) -> int:
        """What tells its data file from others."""

    def log_time_ms(self) -> int:
        """The log clock now."""


def beside_alone(config: NodeConfig, folder: Path, path: str, store: LoneStore, scheduler: Scheduler) -> Beside:
    """Tells those who read beside a node that runs alone. Its store has whatever was answered, so they may read safely there.

    Arguments:
        config: what the node was told.
        folder: its data folder.
        path: the store's folder in it.
        store: the store.
        scheduler: the loop and its threads.
    Raises:
        ConfigurationError: there is no group of the name that ``--replica-group`` has.
    """
    options = config.store_options()

    def seen() -> Seen | None:
        try:
            return Seen(store.file_number(), 0, store.log_time_ms(), 0)
        except KeyspaceError:
            return None

    def facts() -> dict[str, Any]:
        return {
            "alone": True,
            "node": config.node_id,
            "cluster": "",
            "store": path,
            "generation": store.file_number(),
            "databases": options.databases,
            "value_bytes_max": options.value_bytes_max,
            "addresses": (),
        }

    return Beside(folder, seen, scheduler, ALONE_INTERVAL_MS, facts, group_id(config.replica_group))

"""The state machine of a node: the store that the log writes, in the generation folder that counts.

The runtime applies entries here, reads here, and has a store made from a snapshot take the place of the one that counts. See
``store/replica.py`` for what applying means, and ``generations.py`` for the folders.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import Random
from typing import Any, Final, NamedTuple, Protocol

from django_keyspace.exceptions import DamagedSnapshot, DamagedStore, StorageError, UncleanStore
from django_keyspace.node.disk import Disk
from django_keyspace.node.entries import LoggedCalls
from django_keyspace.node.generations import Generations, is_trustworthy
from django_keyspace.node.snapshot import Snapshot, SnapshotStore
from django_keyspace.operations import Call
from django_keyspace.store import StoreOptions, clock, forget_store, open_store
from django_keyspace.store.copying import StoreCopy
from django_keyspace.store.eviction import Address
from django_keyspace.store.replica import ReplicaStore

logger = logging.getLogger("django_keyspace.node")

_REPLACED: Final = "The store {path} was replaced by one from a snapshot. Nothing was done. Try again."
_CLOSED: Final = "The store {path} was closed with its node. Nothing was done. Try again with another node."


class MachineDisk(Disk, Protocol):
    """A disk whose folders have paths: LMDB opens files by itself."""

    def path(self, name: str) -> str:
        """The path of a file or folder."""


class Plan(NamedTuple):
    """What has to be logged with operations that are about to be.

    Attributes:
        evict: for an ``evict`` before them; may be empty.
        refusal: the error of those that :meth:`Machine.growing` names; None if there is room.
    """

    evict: list[Address]
    refusal: StorageError | None


class MachineCopy:
    """A copy of the store at one index, in a ``with``; iterating gives its bytes. Errors as of ``StoreCopy``.

    Attributes:
        index: the last entry that it holds.
        log_ms: the log clock there.
    """

    def __init__(self, copy: StoreCopy) -> None:
        self._copy = copy
        self.index = self.log_ms = 0

    def __enter__(self) -> MachineCopy:
        self._copy.__enter__()
        if self._copy.facts is None:
            self._copy.__exit__()
            raise StorageError("The copy was given up, because the store needed its quiet. Copy it again.")
        self.index, self.log_ms = self._copy.facts
        return self

    def __exit__(self, *_: object) -> None:
        self._copy.__exit__()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._copy)


class Machine:
    """The state machine. Get one from :meth:`open`.

    Attributes:
        is_trustworthy: whether there is a store that holds what was written to it. If not: :meth:`begin` or :meth:`install`.
    """

    def __init__(
        self,
        disk: MachineDisk,
        options: StoreOptions,
        boot_id: str,
        generator: Random,
        make: Callable[..., ReplicaStore],
    ) -> None:
        self._disk = disk
        self._options = dataclasses.replace(options, durability="none", replicated=True)
        self._boot_id = boot_id
        self._random = generator
        self._make = make
        self._store: ReplicaStore | None = None
        self._now_ms: Callable[[], int] = lambda: 0
        self._generations = Generations(disk, self._retire)
        self.is_trustworthy = self._generations.is_trustworthy(boot_id)

    @classmethod
    def open(
        cls,
        disk: MachineDisk,
        options: StoreOptions,
        boot_id: str,
        generator: Random,
        *,
        upkeep: bool = True,
        boot_ms: Callable[[], int] = clock.boot_ms,
    ) -> Machine:
        """Open the store that counts, if there is one that can be trusted.

        Arguments:
            disk: the node's.
            options: of its stores; durability is ``none`` in any case, since the journal is what is durable.
            boot_id: this boot of the machine.
            generator: draws samples of what may be evicted.
            upkeep: whether a thread may look for dead readers of other processes.
            boot_ms: the host's monotonic clock, for processes that read the store beside the node.
        Raises:
            StorageError: it cannot be opened, for a reason that making it again would not mend.
        """
        make = partial(ReplicaStore, boot=boot_id, upkeep=upkeep, boot_ms=boot_ms)
        machine = cls(disk, options, boot_id, generator, make)
        if machine.is_trustworthy:
            try:
                machine._open_store()
            except (DamagedStore, UncleanStore) as error:
                logger.warning("The store will be made again from a snapshot and the journal: %s", error)
                machine.is_trustworthy = False
        return machine

    @property
    def store(self) -> ReplicaStore:
        """The store that counts now. Whoever keeps it meets a :class:`StorageError` after it was replaced."""
        if self._store is None:
            raise StorageError(
                "This node has no store yet: it is made from a snapshot and the journal. Try again later."
            )
        return self._store

    @property
    def applied_index(self) -> int:
        """Index of the last entry that was applied."""
        return self.store.applied_index

    @property
    def log_ms(self) -> int:
        """The log clock at that entry, in milliseconds."""
        return self.store.log_ms

    @property
    def generation(self) -> int:
        """Number of the store folder that counts."""
        return self._generations.number

    @property
    def folder(self) -> str:
        """Name of the store folder that counts, on the node's disk."""
        return self._generations.folder

    @property
    def now_ms(self) -> Callable[[], int]:
        """Tells the log time by which scripts and operators read; set by whoever has a log clock."""
        return self._now_ms

    @now_ms.setter
    def now_ms(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        if self._store is not None:
            self._store.now_ms = now_ms

    # ------------------------------------------------------------------------------------------------ the log

    def apply(self, entries: Sequence[LoggedCalls]) -> list[list[Any]]:
        """Apply entries that follow the last one applied: see :meth:`ReplicaStore.apply_entries`."""
        return self.store.apply_entries(entries)

    def read(self, now_ms: int, name: str, *arguments: Any) -> Any:
        """Do a reading operation at a log time: see :meth:`ReplicaStore.read_at`."""
        store = self.store
        try:
            return store.read_at(now_ms, name, *arguments)
        except StorageError:
            if store is self._store:
                raise
            return self.store.read_at(now_ms, name, *arguments)  # another store took its place just then

    def plan(self, calls: Sequence[Call], log_ms: int) -> Plan:
        """What a leader has to log with operations: see :meth:`ReplicaStore.plan`."""
        return Plan(*self.store.plan(calls, log_ms, self._random))

    def growing(self, calls: Sequence[Call]) -> list[bool]:
        """Which operations a refusal of :meth:`plan` is for: see :meth:`ReplicaStore.growing`."""
        return self.store.growing(calls)

    def due(self, log_ms: int) -> list[Call]:
        """Upkeep that has to be logged: see :meth:`ReplicaStore.due`."""
        return self.store.due(log_ms)

    def digest(self) -> bytes:
        """Of all that has to be equal on all nodes at an equal index."""
        return self.store.digest()

    def digest_at(self) -> tuple[int, bytes]:
        """The same behind the index that it is of. From any thread."""
        return self.store.digest_at()

    # ------------------------------------------------------------------------------------------------ snapshots

    def copy(self) -> MachineCopy:
        """A copy of the store as it is when the ``with`` is entered."""
        store = self.store

        def facts(transaction: Any) -> tuple[int, int]:
            meta = store._opened().read_meta(transaction)
            return meta.revision, meta.log_ms

        return MachineCopy(store.copy(facts))

    def begin(self) -> None:
        """Begin with an empty store, at index 0."""
        self._generations.begin()
        self._open_store()
        self.is_trustworthy = True

    def install(self, snapshots: SnapshotStore, snapshot: Snapshot) -> None:
        """Have the store of a snapshot take the place of the one that counts. Others may read meanwhile, but not apply.

        Arguments:
            snapshots: where the snapshot is.
            snapshot: which one.
        Raises:
            DamagedSnapshot: it does not hold what its head says. What counts if its bytes were sound is its store.
            NoSpace, DiskFailed: the disk. The old store counts.
        """
        self._generations.install(snapshots, snapshot, self._boot_id)
        self._open_store()  # unless _retire() has done so
        self.is_trustworthy = True
        if self.applied_index != snapshot.place:
            raise DamagedSnapshot(
                f"The snapshot {snapshot.file_name} holds a store that has applied entry {self.applied_index}, not "
                f"{snapshot.place}. The node has to stop."
            )

    def close(self, clean: bool = True) -> None:
        """Close the store.

        Arguments:
            clean: whether to sync it first and to note that it can be trusted after a reboot; False leaves it as a kill does.
        """
        store, self._store = self._store, None
        if store is not None:
            store.end(_CLOSED.format(path=store.path), clean=clean)
            forget_store(store)

    def _store_in(self, path: str) -> ReplicaStore:
        store = open_store(path, self._options, self._make)
        if not isinstance(store, ReplicaStore):
            raise StorageError(f"The store {path} is used in this process by others than its node. Let them end first.")
        return store

    def _open_store(self) -> None:
        path = self._disk.path(self._generations.folder)
        store = self._store_in(path)
        store.now_ms = self._now_ms
        try:
            logger.info("%s is open at entry %d.", path, store.applied_index)
        except BaseException:
            forget_store(store)
            raise
        self._store = store

    def _retire(self, folder: str) -> None:
        """Mark the store of an old generation for those who read it beside this process, and close it here."""
        path = self._disk.path(folder)
        store = self._store
        if store is not None and store.path == os.path.realpath(path):
            self._open_store()  # first: those who read here meanwhile always find one of both
        elif is_trustworthy(self._disk, folder, self._boot_id):
            store = self._store_in(path)
        else:
            return  # a power cut has left it: nobody reads it, and LMDB must not look at it
        try:
            store.retire()
        except StorageError as error:
            logger.warning("The store that was replaced could not be marked: %s", error)
        store.end(_REPLACED.format(path=path), clean=False)
        forget_store(store)

"""The store folders of a node: which one counts, and how another one takes its place.

===================  ================================================================================================
``store-N``          the store of generation N: a folder as ``store/`` makes and opens it
``generation.json``  which N counts; written as a whole, so that a crash leaves the old one or the new one
===================  ================================================================================================

A store is never changed into another one in place: others on this machine may be reading it. The new one is made aside, from a
snapshot or empty, and is durable before the pointer names it; then the old one is marked *retired* and removed. Whoever still has
the old one open reads on in an old state, sees the mark, and leaves.

A node's store is not synced at each commit, so after a power cut it may look sound and be wrong:
:meth:`Generations.is_trustworthy` says whether it was closed well or the machine has stayed up. If not, a new
generation is made from the last snapshot and the journal.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Final

from django_keyspace.exceptions import DamagedSnapshot, DiskFailed, ForeignStore, NoSpace
from django_keyspace.node.disk import NEW_SUFFIX, Disk, read_file, replace_file
from django_keyspace.node.snapshot import Snapshot, SnapshotStore
from django_keyspace.store.environment import READERS_BYTES
from django_keyspace.store.folder import DATA_FILE, LOCK_FILE, READERS_FILE, STATE_FILE, FolderState

logger = logging.getLogger("django_keyspace.node")

POINTER_FILE: Final = "generation.json"
FORMAT: Final = 1
_FOLDER = re.compile(r"store-(\d+)(?:\.new)?")


class Generations:
    """The store folders on a node's disk.

    Arguments:
        disk: the node's disk.
        retire: marks the store in a folder of the disk as retired; called with the folder's name. A store that cannot be opened
            is nobody's any more: it may let that pass.

    Attributes:
        number: the generation that counts; 0 if there is none yet.
    """

    def __init__(self, disk: Disk, retire: Callable[[str], None]) -> None:
        self._disk = disk
        self._retire = retire
        self.number = self._read_pointer()
        self._remove_others()

    @property
    def folder(self) -> str:
        """The folder, on the disk, of the store that counts."""
        return self.folder_of(self.number)

    @staticmethod
    def folder_of(number: int) -> str:
        """The folder of a generation."""
        return f"store-{number}"

    def is_trustworthy(self, boot_id: str) -> bool:
        """Whether the store that counts holds what was written to it.

        Arguments:
            boot_id: this boot of the machine; ``store.folder.boot_id()``.
        """
        return bool(self.number) and is_trustworthy(self._disk, self.folder, boot_id)

    def begin(self) -> None:
        """Begin with an empty folder: a new node's, or of one that has its whole log and no snapshot."""
        self._swap(self._make_folder())

    def install(self, snapshots: SnapshotStore, snapshot: Snapshot, boot_id: str) -> None:
        """Make a store from a snapshot, and let it take the place of the one that counts.

        The caller has closed that one, or closes it when ``retire`` is called. If there is no room, nothing has changed, and
        nothing of what was made is left.

        Arguments:
            snapshots: where the snapshot is.
            snapshot: which one.
            boot_id: this boot of the machine.
        Raises:
            DamagedSnapshot: its bytes are not those that were written.
            NoSpace, DiskFailed: the disk.
        """
        number = self._make_folder()
        folder = self.folder_of(number) + NEW_SUFFIX
        try:
            file = self._disk.create(f"{folder}/{DATA_FILE}")
            try:
                end = 0
                with snapshots.reader(snapshot) as reader:
                    for piece in reader:
                        file.write_at(end, piece)
                        end += len(piece)
                file.sync()
            finally:
                file.close()
            # Whoever opens it must not need any more room: LMDB writes to its table of readers through a mapping, and where the
            # disk has nothing behind a mapping, the process is killed.
            self._disk.create(f"{folder}/{READERS_FILE}", READERS_BYTES).close()
            self._disk.create(f"{folder}/{LOCK_FILE}").close()
            # Not clean: the copied store's own record says that the state file needs no word before an unsynced write.
            store_id = f"{snapshot.cluster or 'node'}-{number}"
            state = FolderState(store_id=store_id, boot_id=boot_id, clean=False, keeps_records=True, made=True)
            replace_file(self._disk, f"{folder}/{STATE_FILE}", json.dumps(asdict(state)).encode() + b"\n")
        except BaseException:
            self._disk.remove(folder)
            raise
        self._swap(number)

    def _make_folder(self) -> int:
        number = self.number + 1
        folder = self.folder_of(number) + NEW_SUFFIX
        self._disk.remove(folder)
        self._disk.make_folder(folder)
        return number

    def _swap(self, number: int) -> None:
        folder = self.folder_of(number)
        pointer = json.dumps({"format": FORMAT, "generation": number}).encode() + b"\n"
        try:
            self._disk.sync_folder(folder + NEW_SUFFIX)
            self._disk.rename(folder + NEW_SUFFIX, folder)
            self._disk.sync_folder()
            replace_file(self._disk, POINTER_FILE, pointer)
        except NoSpace:  # the old one counts, and the next attempt takes the same names
            self._disk.remove(folder + NEW_SUFFIX)
            self._disk.remove(folder)
            raise
        self.number = number  # from here on the new one counts, also after a crash
        try:
            self._remove_others()
        except NoSpace as error:
            raise DiskFailed(f"{folder} counts, and what it has replaced could not be removed: {error}") from error

    def _remove_others(self) -> None:
        """Retire and remove the folders of other generations, and what was being made."""
        for name in self._disk.list():
            match = _FOLDER.fullmatch(name)
            if match is None or name == self.folder:
                continue
            if int(match[1]) < self.number:
                self._retire(name)
            self._disk.remove(name)

    def _read_pointer(self) -> int:
        self._disk.remove(POINTER_FILE + NEW_SUFFIX)
        if not self._disk.exists(POINTER_FILE):
            return 0
        try:
            pointer = json.loads(read_file(self._disk, POINTER_FILE))
            if pointer["format"] == FORMAT:
                return int(pointer["generation"])
        except (ValueError, TypeError, KeyError) as error:
            raise ForeignStore(
                f"{POINTER_FILE} of the node's folder cannot be read: {error}. It was not touched."
            ) from error
        raise ForeignStore(
            f"{POINTER_FILE} of the node's folder has format {pointer['format']!r:.40}, and this release knows {FORMAT}. It was "
            "not touched. Use the release that made it, or a newer one."
        )


def is_trustworthy(disk: Disk, folder: str, boot_id: str) -> bool:
    """Whether the store in a folder holds what was written to it: it was closed well, or the machine has stayed up.

    Arguments:
        disk: the node's disk.
        folder: the store's folder there.
        boot_id: this boot of the machine.
    """
    name = f"{folder}/{STATE_FILE}"
    if not disk.exists(name):
        return False
    try:
        state = json.loads(read_file(disk, name))
        return bool(state["clean"] or (boot_id and state["boot_id"] == boot_id)) and bool(state["made"])
    except (ValueError, TypeError, KeyError):
        return False


def snapshot_to_start_from(snapshots: SnapshotStore, first_index: int, remedy: str) -> Snapshot | None:
    """The snapshot from which a store can be made that the journal continues.

    Arguments:
        snapshots: the node's snapshots; damaged ones are set aside.
        first_index: the journal's first index.
        remedy: the command that lets the node join again, for the message.
    Returns:
        The newest one that is whole; None if the journal has everything from index 1 on.
    Raises:
        DamagedSnapshot: there is none, and the journal alone is not enough.
    """
    snapshot = snapshots.newest_sound()
    place = snapshot.place if snapshot is not None else 0
    if place + 1 < first_index:
        raise DamagedSnapshot(
            f"The journal of this node begins at entry {first_index}, and no sound snapshot reaches so far: the store cannot be "
            f"made again. Nothing was changed. To let the node join again as a fresh learner: {remedy}"
        )
    return snapshot

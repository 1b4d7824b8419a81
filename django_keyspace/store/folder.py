"""The folder of a store: what lies in it, whose it is, and whether its file can be trusted.

===================  ================================================================================================
``data.mdb``         LMDB's data. Only LMDB opens it: closing any descriptor of it would drop LMDB's file locks.
``lock.mdb``         LMDB's lock and reader table. The same.
``keyspace.lock``    our writer lock; also held while the folder is set up
``keyspace.json``    the state file: format, and what :class:`FolderState` says
===================  ================================================================================================

**No check-and-keep.** Without an fsync per commit (durability ``interval`` or ``none``) a power cut can leave a file that
looks sound and is wrong; LMDB's own verifier accepted such files. So the state file says whether unsynced writes may exist,
and in which boot of the machine. If the boot has changed and they may, the file is not used: a cache starts empty and says
so, a store with records that must not be dropped refuses to open.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import uuid
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Final

from django_keyspace.exceptions import DamagedStore, ForeignStore, StorageError, UncleanStore
from django_keyspace.store.errors import OUT_OF_FILES, advice

logger = logging.getLogger("django_keyspace.store")

FORMAT: Final = 1
DATA_FILE: Final = "data.mdb"
READERS_FILE: Final = "lock.mdb"
LOCK_FILE: Final = "keyspace.lock"
STATE_FILE: Final = "keyspace.json"
DAMAGED_SUFFIX: Final = ".damaged"

_REMEDY = "Restore the folder from a backup; or, to start empty, delete the folder."


@dataclass(slots=True)
class FolderState:
    """What the state file says.

    Attributes:
        format: version of the files' layout.
        store_id: random name of this store, made with it.
        boot_id: the boot of the machine in which the store was last opened.
        clean: False while writes may exist that were not synced to the disk.
        keeps_records: True once the store has held a record that is not evictable.
        made: False while the data file is being made. Whoever finds it so knows that the maker was killed, and begins anew.
    """

    format: int = FORMAT
    store_id: str = ""
    boot_id: str = ""
    clean: bool = True
    keeps_records: bool = False
    made: bool = True


def boot_id() -> str:
    """A word that changes with each boot of this machine: the kernel's own on Linux and macOS, empty elsewhere.

    Raises:
        StorageError: nothing more can be opened now.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError as error:
        if error.errno in OUT_OF_FILES:
            # A cache whose boot seems to be another one may be emptied.
            raise StorageError(
                f"The boot of this machine cannot be looked at: {error}. {advice(error.errno)}"
            ) from error
        return _darwin_boot_id() if sys.platform == "darwin" else ""


def process_space() -> str:
    """A word for the processes that this one can tell from each other by their ids; empty where the system does not tell.

    LMDB knows its readers by process id alone: only processes of one space may have a store open.
    """
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


@cache
def _darwin_boot_id() -> str:
    command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


class Folder:
    """One store's folder. Methods that change something expect that the caller holds the lock file's lock.

    Arguments:
        path: the folder, absolute.
        boot: this boot of the machine; default: what :func:`boot_id` says.
    """

    def __init__(self, path: str, boot: str | None = None) -> None:
        self.path = path
        self.state = FolderState()
        self._boot = boot

    def file(self, name: str) -> str:
        """The path of a file of this folder."""
        return os.path.join(self.path, name)

    def create(self) -> None:
        """Make the folder, private to this user, if it is missing.

        Raises:
            StorageError: it is a file, or cannot be made or written.
        """
        try:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
        except FileExistsError:
            raise StorageError(f"{self.path} is a file; a store needs a folder. Choose another LOCATION.") from None
        except OSError as error:
            raise StorageError(
                f"The store's folder {self.path} cannot be made: {error.strerror}. Choose another LOCATION or mend its "
                "permissions."
            ) from error
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise StorageError(
                f"The store's folder {self.path} cannot be written by this user (uid {os.geteuid()}). Mend its owner or "
                "permissions: readers of a store also write to its reader table."
            )

    def prepare(self) -> bool:
        """Look at what lies here and make it fit for opening.

        Returns:
            True if there is no data file and a new store has to be made.
        Raises:
            ForeignStore: the folder holds a database of something else, or of a newer release.
            UncleanStore: the data cannot be trusted and must not be dropped.
            DamagedStore: the data file is gone, and it must not be.
        """
        has_data = os.path.exists(self.file(DATA_FILE))
        state = self._read_state(has_data)
        if state is None:
            self.state = FolderState(store_id=uuid.uuid4().hex, boot_id=self._boot_now(), made=False)
            self.save()
            return True
        self.state = state
        if not state.made:
            has_data = False  # what lies there was never a store
        if not has_data and state.keeps_records:
            raise DamagedStore(
                f"The data file {DATA_FILE} of {self.path} is missing, and it held records that must not be dropped. {_REMEDY}"
            )
        if not has_data:
            # Somebody deleted it, perhaps beneath living processes. Two data files must not share one of LMDB's lock files.
            self._remove_data()
        now = self._boot_now()
        if state.boot_id == now:
            return not has_data
        if has_data and not state.clean:
            if state.keeps_records:
                raise UncleanStore(
                    f"The machine went down while {self.path} held writes that were not synced to the disk, so the file "
                    f"may be wrong without looking so. It holds records that must not be dropped. {_REMEDY} "
                    "Durability 'commit' avoids this."
                )
            logger.warning(
                "The machine went down while the cache %s held unsynced writes: it starts empty. "
                "Durability 'commit' would have kept it.",
                self.path,
            )
            self._remove_data()
            has_data = False
        self.state.boot_id = now
        self.state.clean = True
        self.save()
        return not has_data

    def _boot_now(self) -> str:
        return boot_id() if self._boot is None else self._boot

    def set_aside(self, reason: str) -> None:
        """A damaged data file: move it out of the way, so that a cache can start empty.

        Raises:
            DamagedStore: the store holds records that must not be dropped.
        """
        # Another process may have stored the first such record.
        self.state = self._read_state(has_data=False) or self.state
        if self.state.keeps_records:
            raise DamagedStore(
                f"The store {self.path} is damaged ({reason}) and holds records that must not be dropped. {_REMEDY}"
            )
        logger.error(
            "The cache %s is damaged (%s): it starts empty. The damaged file is kept as %s%s.",
            self.path,
            reason,
            DATA_FILE,
            DAMAGED_SUFFIX,
        )
        with contextlib.suppress(FileNotFoundError):
            os.replace(self.file(DATA_FILE), self.file(DATA_FILE + DAMAGED_SUFFIX))
        self._remove_data()

    def mark_dirty(self) -> None:
        """Say, durably, that unsynced writes may exist from now on."""
        self._change(clean=False)

    def mark_clean(self) -> None:
        """Say that all writes are synced. The caller has synced them and no write came since."""
        self._change(clean=True)

    def mark_made(self, *, keeps_records: bool) -> None:
        """Say that the data file is complete, and whether it must not be dropped from now on."""
        self._change(made=True, keeps_records=keeps_records or self.state.keeps_records)

    def mark_keeps_records(self) -> None:
        """Say, durably, that the store holds records that must not be dropped."""
        self._change(keeps_records=True)

    def _change(self, **fields: bool) -> None:
        # Another process may have changed the other field meanwhile.
        state = self._read_state(has_data=True) or self.state
        self.state = state
        if all(getattr(state, name) == value for name, value in fields.items()):
            return
        for name, value in fields.items():
            setattr(state, name, value)
        self.save()

    def save(self) -> None:
        """Write the state file: atomically, and synced with its folder."""
        path = self.file(STATE_FILE)
        temporary = f"{path}.new"
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                json.dump(asdict(self.state), file, indent=1)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            self._sync()
        except OSError as error:
            raise StorageError(
                f"The state file {path} cannot be written: {error.strerror}. Nothing was changed. {advice(error.errno)}"
            ) from error

    def _read_state(self, has_data: bool) -> FolderState | None:
        path = self.file(STATE_FILE)
        try:
            with open(path, encoding="utf-8") as file:
                fields = json.load(file)
            state_format = fields["format"]
        except FileNotFoundError:
            if has_data:
                raise ForeignStore(
                    f"{self.path} holds a data.mdb that this package did not make (there is no {STATE_FILE}). It was not "
                    "touched. Choose another LOCATION."
                ) from None
            return None
        except OSError as error:
            raise StorageError(
                f"The state file {path} cannot be opened: {error.strerror}. Nothing was changed. {advice(error.errno)}"
            ) from error
        except (ValueError, TypeError, KeyError) as error:
            raise DamagedStore(f"The state file {path} cannot be read ({error}). {_REMEDY}") from error
        if state_format != FORMAT:
            raise ForeignStore(
                f"The store {self.path} has format {state_format!r}; this release knows format {FORMAT}. It was not "
                "touched. Use the release that made it, or choose another LOCATION."
            )
        known = {name: fields[name] for name in FolderState.__dataclass_fields__ if name in fields}
        return FolderState(**known)

    def _remove_data(self) -> None:
        for name in (DATA_FILE, READERS_FILE):
            with contextlib.suppress(FileNotFoundError):
                os.remove(self.file(name))
        self.state.made = False
        self.save()

    def _sync(self) -> None:
        folder = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

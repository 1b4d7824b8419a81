"""The data folder of a node: whose it is, and that only one process uses it.

===============  ====================================================================================================
``node.json``    who the node is: see ``identity.py``
``node.lock``    locked (flock) by the process that serves the folder; says process, id and address
``node.sock``    the Unix socket of the running node
``node.fresh``   how fresh its store is, for those who read it beside the node: see ``beside.py``
``store/``       the store of a node that runs alone
``store-N/``     the store of a node of a cluster: see ``generations.py``
``journal/``     its log                                 ``snapshots/``  its snapshots
===============  ====================================================================================================
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from pathlib import Path
from typing import Any, Final

from django_keyspace.addresses import SOCKET_FILE
from django_keyspace.exceptions import ConfigurationError, ForeignStore, NoSpace, StorageError
from django_keyspace.node.disk import HostDisk
from django_keyspace.node.identity import IDENTITY_FILE, Identity, read_identity, write_identity

try:
    import fcntl
except ImportError:  # Windows: see _lock
    fcntl = None  # type: ignore[assignment]
    import msvcrt

logger = logging.getLogger("django_keyspace.node")

LOCK_FILE: Final = "node.lock"
STORE_FOLDER: Final = "store"
_OF_CLUSTERS: Final = ("journal", "snapshots", "generation.json")


class DataFolder:
    """A node's folder, held by this process from construction until :meth:`release`.

    Arguments:
        path: the folder; made, with mode 0700, if it does not exist.
        node_id: whose it has to be.
    Raises:
        ConfigurationError: another process serves it, or it belongs to another node.
        ForeignStore: its identity file is not ours, or of a newer release.
        StorageError: it cannot be made or written.

    Attributes:
        path: the folder.
        disk: its files.
        identity: who the node is.
    """

    def __init__(self, path: str, node_id: str) -> None:
        self.path = Path(path).absolute()
        self.node_id = node_id
        self.disk = HostDisk(str(self.path))
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock_file = open(self.path / LOCK_FILE, "a+b")  # noqa: SIM115 - held until release
        except OSError as error:
            raise StorageError(f"The data folder {self.path} cannot be used: {error.strerror or error}.") from error
        try:
            if not _lock(self._lock_file.fileno()):
                raise ConfigurationError(self._held_sentence())
            self._say({"pid": os.getpid(), "node": node_id, "address": None})
            self.identity = self._check_identity()
        except BaseException:
            self._lock_file.close()
            raise

    @property
    def store_path(self) -> str:
        """Where the store is."""
        return str(self.path / STORE_FOLDER)

    @property
    def socket_path(self) -> str:
        """Where the Unix socket is."""
        return str(self.path / SOCKET_FILE)

    @property
    def has_own_store(self) -> bool:
        """Whether it holds the data of a node that ran alone."""
        return self.disk.exists(STORE_FOLDER)

    def become(self, identity: Identity) -> None:
        """Write down, durably, who the node is from now on. Raises :class:`NoSpace` or :class:`DiskFailed`."""
        if identity != self.identity:
            write_identity(self.disk, identity)
            self.identity = identity

    def announce(self, address: str) -> None:
        """Write the address on which the node listens into the lock file."""
        self._say({"pid": os.getpid(), "node": self.node_id, "address": address})

    def release(self) -> None:
        """Let go of the folder."""
        self._say({})
        self._lock_file.close()

    def _say(self, facts: dict[str, Any]) -> None:
        text = json.dumps(facts).encode() + b"\n"
        try:
            self._lock_file.truncate(0)
            self._lock_file.write(text)
            self._lock_file.flush()
        except OSError as error:
            # On a full disk the node still has to start, to serve reads and deletes. The lock does not depend on it.
            logger.warning("%s cannot be written: %s", self.path / LOCK_FILE, error)

    def _held_sentence(self) -> str:
        holder: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            self._lock_file.seek(0)
            holder = json.loads(self._lock_file.read())
        who = f"node {holder['node']} (process {holder['pid']})" if holder.get("pid") else "another process"
        where = f" at {holder['address']}" if holder.get("address") else ""
        return f"The data folder {self.path} is in use by {who}{where}. Stop that node first, or use another folder."

    def _check_identity(self) -> Identity:
        try:
            identity = read_identity(self.disk)
        except ForeignStore as error:
            raise ForeignStore(f"In {self.path}: {error}") from error
        if identity is None:
            left = [name for name in _OF_CLUSTERS if self.disk.exists(name)]
            if left:
                raise ForeignStore(
                    f"{self.path} has {' and '.join(left)}, and no {IDENTITY_FILE}: nobody can tell whose promises these are. "
                    "Restore the file; or move the folder away, and let the node join again with --join."
                )
            identity = Identity(self.node_id)
            try:
                write_identity(self.disk, identity)
            except NoSpace as error:
                raise StorageError(str(error)) from error
        if identity.node != self.node_id:
            raise ConfigurationError(
                f"The data folder {self.path} belongs to node {identity.node!r:.80}, not to {self.node_id!r}. "
                "Start it with that id, or use another folder."
            )
        return identity


def _lock(descriptor: int) -> bool:
    """Lock the file for this process without waiting; False if someone else holds it."""
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            # Far behind what the file says, so that others can read that.
            os.lseek(descriptor, 2**30, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    except OSError:
        return False
    return True

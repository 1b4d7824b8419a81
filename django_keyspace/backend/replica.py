"""Reads from the store of a node on this host, without a network: the option ``replica``.

A :class:`Replica` finds the node and opens its store, on a thread beside the callers; a :class:`LocalCopy` is the store once it
is open. No read ever waits for either. Whatever is wrong with the copy (too old for the read, replaced by another, its node
gone, of another cluster, broken), the read goes over the network, as if there were no replica, and is counted.

The engines that read there are in ``beside.py``.
"""

from __future__ import annotations

import logging
import mmap
import os
import random
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import monotonic, time_ns
from typing import Any, Final

from django_keyspace.addresses import SOCKET_FILE, Endpoint
from django_keyspace.backend.transport import RemoteEngine, ask_node
from django_keyspace.exceptions import ConfigurationError, KeyspaceError, NoConnection, StorageError, TooStale
from django_keyspace.security import Security
from django_keyspace.store import StoreOptions, clock, forget_store, open_store
from django_keyspace.store.folder import boot_id, process_space
from django_keyspace.store.freshness import ENDED, FRESHNESS_FILE, LOOK_MS, READABLE, RECORD_BYTES, Freshness, unpack
from django_keyspace.store.visitor import VisitedStore

logger = logging.getLogger("django_keyspace.replica")

AUTO: Final = "auto"
STALE_MS: Final = 2_000
"""A node that has said nothing for so long is taken to be gone."""
ASK_TIMEOUT_MS: Final = 1_000
CLOCKS_APART_MS: Final = 50
"""A node whose clock is further away than this, beyond the time that asking took, has another clock than this process."""
SEEK_S_LEAST: Final = 0.25
SEEK_S_MOST: Final = 15.0
LOG_INTERVAL_S: Final = 60.0
_LOOKS: Final = 4


class LocalCopy:
    """The open store of a node on this host.

    Arguments:
        facts: what the node answered to ``node_store``.
        is_foreign: whether a cluster is another one than this process talks to.
        boot_ns: the host's monotonic clock, in nanoseconds.
    Raises:
        KeyspaceError, OSError: it cannot be read here.

    Attributes:
        alone: whether the node runs alone: then its store has all that was answered, and every read here is a safe one.
        node: the node's name.
        cluster: its cluster's id; empty for a node that runs alone.
        store: the store.
        fresh: what :meth:`look` answered last.
        noted: the last index that was noted as seen.
        from_ms, until_ms: by the wall clock, for how long what :meth:`look_now` has found holds.
    """

    __slots__ = (
        "_boot_ns",
        "_file",
        "_generation",
        "_is_foreign",
        "_life",
        "_map",
        "_path",
        "alone",
        "cluster",
        "fresh",
        "from_ms",
        "node",
        "noted",
        "store",
        "until_ms",
    )

    def __init__(
        self,
        facts: Mapping[str, Any],
        is_foreign: Callable[[str], bool],
        boot_ns: Callable[[], int] = clock.boot_ns,
    ) -> None:
        self.alone: bool = facts["alone"]
        self.node: str = facts["node"]
        self.cluster: str = facts["cluster"]
        self._life: bytes = facts["life"]
        self._generation: int = facts["generation"]
        self._is_foreign = is_foreign
        self._boot_ns = boot_ns
        self.noted = -1
        self.from_ms = self.until_ms = 0
        self._path = os.path.join(facts["folder"], FRESHNESS_FILE)
        with open(self._path, "rb") as file:
            found = os.fstat(file.fileno())
            self._file = found.st_dev, found.st_ino
            self._map = mmap.mmap(file.fileno(), RECORD_BYTES, access=mmap.ACCESS_READ)
        self.fresh = (0, 0, 0)
        try:
            self.look(boot_ns() // 1_000_000)
            self.store = _store_of(facts)
            try:
                self.read(0, None, "exists", (0, b"\0"))
                if self.alone and self.store.file_number() != self._generation:
                    raise StorageError(f"{self.store.path} is not the store that node {self.node} has open.")
            except BaseException:
                self.store.end("It could not be read.")
                forget_store(self.store)
                raise
        except BaseException:
            self._map.close()
            raise

    def read(
        self, min_index: int, max_staleness_ms: int | None, name: str, arguments: Sequence[Any]
    ) -> tuple[Any, int, int, str]:
        """Do a reading operation.

        Arguments:
            min_index: how much of the log the store has to hold.
            max_staleness_ms: how old it may be; None: of any age.
            name: an operation of ``store.visitor.READABLE_HERE``.
            arguments: its arguments.
        Returns:
            As the operation ``at``: result, index, age in milliseconds, the node's name.
        Raises:
            TooStale: the store is too old for this read, or its node is catching up.
            StorageError: this copy is of no use any more.
        """
        if self.alone:
            return *self.read_now(min_index, name, arguments), 0, self.node
        boot_ms = self._boot_ns() // 1_000_000
        until_ms, age_ms, log_ms = self.fresh
        if boot_ms >= until_ms:
            until_ms, age_ms, log_ms = self.look(boot_ms)
        age_ms += boot_ms
        if max_staleness_ms is not None and age_ms > max_staleness_ms:
            raise self.too_old(age_ms)
        answer, index = self.store.visit(min_index, boot_ms + log_ms, name, arguments)
        return answer, index, age_ms if age_ms > 0 else 1, self.node

    def read_now(self, min_index: int, name: str, arguments: Sequence[Any]) -> tuple[Any, int]:
        """Do a reading operation on the store of a node that runs alone. Arguments and errors as those of :meth:`read`.

        Returns:
            Its result and the index of the last write that it takes into account.
        """
        # The node's time is this host's wall clock, too: what has expired for one of both has expired for the other.
        now_ms = time_ns() // 1_000_000
        if not self.from_ms <= now_ms < self.until_ms:
            self.look_now(now_ms)
        return self.store.visit(min_index, now_ms, name, arguments)

    def look_now(self, now_ms: int) -> None:
        """Look at what a node that runs alone says. Errors as those of :meth:`read`.

        Arguments:
            now_ms: the wall clock.
        """
        self.store.note_log_time(self._checked(self._boot_ns() // 1_000_000).log_ms)
        self.from_ms, self.until_ms = now_ms, now_ms + LOOK_MS  # the wall clock may be set back

    def too_old(self, age_ms: int) -> TooStale:
        """The error of a read that allows less than this age."""
        return TooStale(f"The store of node {self.node} may be {age_ms:,} ms old.")

    def look(self, boot_ms: int) -> tuple[int, int, int]:
        """Look at what the node says. Arguments and errors as those of :meth:`read`.

        Returns:
            Until when that holds; and what has to be added to the clock to have the store's age, and the log clock.
        """
        fresh = self._checked(boot_ms)
        self.fresh = found = boot_ms + LOOK_MS, fresh.age_ms - fresh.boot_ms, fresh.log_ms - fresh.boot_ms
        return found

    def _checked(self, boot_ms: int) -> Freshness:
        """What the node says, if that is good for anything."""
        self._check_file()
        fresh = self._freshness()
        if fresh.life != self._life or fresh.flags & ENDED:
            raise StorageError(f"Node {self.node} has ended.")
        if boot_ms - fresh.boot_ms > STALE_MS:
            raise StorageError(f"Node {self.node} has said nothing for {boot_ms - fresh.boot_ms:,} ms.")
        if not fresh.flags & READABLE:
            raise TooStale(f"Node {self.node} is catching up with its cluster.")
        if fresh.generation != self._generation:
            raise StorageError(f"The store of node {self.node} was replaced.")
        if self._is_foreign(self.cluster):
            raise StorageError(f"Node {self.node} belongs to cluster {self.cluster}, which LOCATION does not name.")
        return fresh

    def _check_file(self) -> None:
        """Raise :class:`StorageError` if another life of the node has begun, or the folder was removed."""
        try:
            found = os.stat(self._path)
        except OSError as error:
            raise StorageError(f"What node {self.node} says of its store has gone: {error.strerror}.") from error
        if (found.st_dev, found.st_ino) != self._file:
            raise StorageError(f"Node {self.node} has ended, and another process has begun in its folder.")

    def _freshness(self) -> Freshness:
        for _ in range(_LOOKS):
            fresh = unpack(self._map[:])
            if fresh is not None:  # otherwise it was being written just then
                return fresh
        raise TooStale(f"What node {self.node} says of its store cannot be read.")

    def end(self) -> None:
        """Close the store. Waits for reads that are under way."""
        self.store.end(f"The store {self.store.path} is not read here any more.")
        forget_store(self.store)
        self._map.close()


def _store_of(facts: Mapping[str, Any]) -> VisitedStore:
    options = StoreOptions(
        durability="none",
        databases=facts["databases"],
        value_bytes_max=facts["value_bytes_max"],
        replicated=not facts["alone"],
    )
    try:
        store = open_store(facts["store"], options, VisitedStore)
    except ConfigurationError:
        other = open_store(facts["store"])
        if isinstance(other, VisitedStore):  # another alias has it open as an earlier life of the node had it
            other.end(f"The node of {other.path} was started again, with other options.")
            forget_store(other)
        raise
    if not isinstance(store, VisitedStore):
        raise StorageError(f"The store {store.path} is that of a node in this process.")
    return store


class Replica:
    """The node on this host that a process reads beside, wherever and whenever there is one.

    Arguments:
        engine: the way to the cluster.
        place: the node's data folder, the Unix socket in it, or :data:`AUTO`.
        security: what to show to nodes, and to want of them.
        quiet: nobody has asked for it: whatever keeps reads from being answered here is not worth a warning.

    Attributes:
        copy: its open store; None while there is none that can be used.
        reads: how many reads were answered here.
        fallbacks: how many could have been, and went over the network.
        last_error: why the last ones did; None while all is well.
    """

    def __init__(self, engine: RemoteEngine, place: str, security: Security, quiet: bool = False) -> None:
        self._engine = engine
        self._place = place
        self._security = security
        self._level = logging.DEBUG if quiet else logging.WARNING
        self.reads = self.fallbacks = 0
        self.copy: LocalCopy | None = None
        self._left: LocalCopy | None = None
        self.last_error: str | None = None
        self._logged: dict[str, float] = {}
        self._delay_s = SEEK_S_LEAST
        self._seek_at_s = 0.0
        self.after_fork()

    def after_fork(self) -> None:
        """In a forked child: no thread of the parent's is there. An open store is opened anew by itself."""
        self._lock = threading.Lock()
        self._seeking = False

    def figures(self) -> dict[str, Any]:
        """For ``cache.status()``."""
        copy = self.copy
        return {
            "node": copy.node if copy else None,
            "is_safe": copy.alone if copy else None,
            "reads": self.reads,
            "fallbacks": self.fallbacks,
            "last_error": self.last_error,
        }

    def seek(self) -> None:
        """Look for the node on a thread beside, unless somebody does, or did just now."""
        if self._seeking or monotonic() < self._seek_at_s:
            return
        with self._lock:
            if self._seeking or self.copy is not None:
                return
            self._seeking = True
        try:
            threading.Thread(target=self._seek, name="keyspace-replica", daemon=True).start()
        except RuntimeError:  # no more threads, or the process is ending
            self._seeking = False

    def missed(self) -> None:
        """There was no copy for a read."""
        self.fallbacks += 1
        self.seek()

    def trouble(self, copy: LocalCopy, error: Exception) -> None:
        """A read was not answered by the copy, and goes over the network."""
        self.fallbacks += 1
        if isinstance(error, TooStale):
            return
        self._log(error)
        if not isinstance(error, StorageError):
            return  # something about this call, of which a node will have its own words
        with self._lock:
            if self.copy is not copy:
                return
            self.copy, self._left = None, copy
            self._seek_at_s = 0.0
            self._delay_s = SEEK_S_LEAST
        self.seek()

    def close(self) -> None:
        """Close the store; the next read looks for it again."""
        with self._lock:
            copy, self.copy = self.copy, None
            self._seek_at_s = 0.0
        if copy is not None:
            copy.end()

    def _seek(self) -> None:
        try:
            left, self._left = self._left, None
            if left is not None:
                left.end()
            self.copy = copy = self.find()
            logger.info("Reads beside node %s: %s", copy.node, copy.store.path)
            self._delay_s, self.last_error = SEEK_S_LEAST, None
        except Exception as error:
            self._log(error)
            # A fleet must not look at the same moment.
            self._seek_at_s = monotonic() + self._delay_s * (0.5 + random.random())
            self._delay_s = min(2 * self._delay_s, SEEK_S_MOST)
        finally:
            self._seeking = False

    def find(self) -> LocalCopy:
        """Find the node and open its store. Waits for the node's answer.

        Raises:
            KeyspaceError, OSError: there is none that can be used; the error is that of the last one that was looked at.
        """
        last: Exception = NoConnection("No node of the location is on this host.")
        for path in self._sockets():
            try:
                return self._open(path)
            except (KeyspaceError, OSError) as error:
                last = error
        raise last

    def _open(self, path: str) -> LocalCopy:
        before_ms = clock.boot_ms()
        facts = ask_node(Endpoint(path=path), self._security, "node_store", timeout_ms=ASK_TIMEOUT_MS)
        after_ms = clock.boot_ms()
        if facts["boot_id"] != boot_id():
            raise StorageError(f"The node at {path} is on another machine, or in another boot of this one.")
        if not before_ms - CLOCKS_APART_MS <= facts["boot_ms"] <= after_ms + CLOCKS_APART_MS:
            raise StorageError(f"The node at {path} has another clock than this process: is it in another container?")
        if facts["process_space"] != process_space():
            raise StorageError(
                f"The node at {path} does not share process ids with this process, and LMDB tells readers apart by them: is it "
                "in another container?"
            )
        cluster = self._engine.cluster
        if facts["alone"]:
            if cluster is not None or not self._is_that_of(path, facts["life"]):
                raise NoConnection(f"The node at {path} runs alone, and is not the one that LOCATION names.")
        elif (cluster is None or cluster.id is None) and not self._is_named(facts["addresses"]):
            raise NoConnection(
                f"Whether the node at {path} is of this location is not known before a node of it has answered."
            )
        return LocalCopy(facts, self._is_foreign)

    def _is_foreign(self, cluster: str) -> bool:
        known = self._engine.cluster
        return known is not None and known.id not in (None, cluster)

    def _is_named(self, addresses: Iterator[str | None]) -> bool:
        """Whether LOCATION has the address of a member."""
        return not {str(endpoint) for endpoint in self._engine.endpoints}.isdisjoint(addresses)

    def _is_that_of(self, path: str, life: bytes) -> bool:
        """Whether the one node that LOCATION names is the one with this socket and this life."""
        endpoint = self._engine.endpoints[0]
        if endpoint.path == path:
            return True
        found = ask_node(endpoint, self._security, "node_store", timeout_ms=ASK_TIMEOUT_MS)
        return bool(found["life"] == life)

    def _sockets(self) -> Iterator[str]:
        """Paths of Unix sockets where the node may be."""
        if self._place != AUTO:
            yield os.path.join(self._place, SOCKET_FILE) if os.path.isdir(self._place) else self._place
            return
        cluster = self._engine.cluster
        endpoints = self._engine.endpoints if cluster is None else cluster.endpoints
        # Learners come last there, and are what a host has for its own reads.
        for endpoint in reversed(endpoints):
            if endpoint.path:
                yield endpoint.path
            elif is_on_this_host(endpoint):
                try:
                    facts = ask_node(endpoint, self._security, "node_store", timeout_ms=ASK_TIMEOUT_MS)
                except KeyspaceError as error:
                    logger.debug("Node at %s: %s", endpoint, error)
                    continue
                yield os.path.join(facts["folder"], SOCKET_FILE)

    def _log(self, error: Exception) -> None:
        """Say why reads go over the network, each kind of reason at most once a minute."""
        self.last_error = str(error)
        kind, now_s = type(error).__name__, monotonic()
        if now_s - self._logged.get(kind, -LOG_INTERVAL_S) >= LOG_INTERVAL_S:
            self._logged[kind] = now_s
            logger.log(self._level, "Reads go over the network, and not to the store of a node of this host: %s", error)


def is_on_this_host(endpoint: Endpoint) -> bool:
    """Whether an address is one of this host's."""
    try:
        found = socket.getaddrinfo(endpoint.host, 0, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return False
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.bind(address)  # only to an address of one's own
            return True
        except OSError:
            continue
    return False


_replicas: dict[tuple[RemoteEngine, str, Security, bool], Replica] = {}
_lock = threading.Lock()


def replica_of(engine: RemoteEngine, place: str, security: Security, quiet: bool) -> Replica:
    """The replica that all aliases of a location and a place share in this process. Arguments as those of :class:`Replica`."""
    with _lock:
        key = (engine, place, security, quiet)
        if key not in _replicas:
            _replicas[key] = Replica(*key)
        return _replicas[key]


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    for replica in list(_replicas.values()):
        replica.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

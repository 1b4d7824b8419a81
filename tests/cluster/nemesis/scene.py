"""What faults have at hand: the cluster, who leads in it, and trouble that ends with a block."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from django_keyspace.exceptions import KeyspaceError
from django_keyspace.testing import RunningNode
from django_keyspace.testing.cluster import await_found

from .disks import HangingDisk
from .namespaces import Namespaces
from .place import Place
from .verify import Broken

TROUBLE_TIMEOUT_S = 60.0


@dataclass
class Scene:
    """What a fault works with.

    Attributes:
        place: the cluster.
        random: of its choices.
    """

    place: Place
    random: Random

    def leader(self) -> str:
        """Who leads."""
        return self.place.leader_name()

    def others(self, name: str) -> list[str]:
        """All but one, in any order."""
        found = [other for other in self.place.nodes if other != name]
        self.random.shuffle(found)
        return found

    def node(self, name: str) -> RunningNode:
        """A node's process."""
        return self.place.nodes[name]

    def linger(self, least_s: float = 0.1, most_s: float = 0.6) -> None:
        """Let it be like that for a moment: how long the trouble lasts is part of it."""
        time.sleep(self.random.uniform(least_s, most_s))

    def successor(self, name: str) -> str:
        """Wait until another node leads, and serves."""
        return self.place.leader_name(other_than=name)

    @contextlib.contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """A node does nothing, as in a pause of its whole machine."""
        self.node(name).send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.node(name).send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def cut(self, *directions: tuple[str, str]) -> Iterator[None]:
        """Nothing passes in these directions."""
        net = self.place.net
        if net is None:
            raise RuntimeError("There is nothing between these nodes that could be cut.")
        net.hold(directions)
        try:
            yield
        finally:
            net.release()

    @contextlib.contextmanager
    def unplugged(self, name: str) -> Iterator[None]:
        """A node's cable is pulled."""
        net = self.place.net
        if not isinstance(net, Namespaces):
            raise RuntimeError("These nodes have no cables.")
        net.plug(name, False)
        try:
            yield
        finally:
            net.plug(name, True)

    @contextlib.contextmanager
    def hanging(self, name: str) -> Iterator[None]:
        """A node's disk does not answer."""
        with self._disk(name).hanging():
            yield

    @contextlib.contextmanager
    def without_writes(self, name: str) -> Iterator[None]:
        """A node's file system takes no writes."""
        with self._disk(name).frozen():
            yield

    def _disk(self, name: str) -> HangingDisk:
        disk = self.place.disks[name]
        if not isinstance(disk, HangingDisk):
            raise RuntimeError("This disk never hangs.")
        return disk

    def writes(self) -> None:
        """A write is done, within a few seconds."""
        mark = b"a write"

        def look() -> bool | None:
            with contextlib.suppress(KeyspaceError):
                self.place.ask(self.leader(), "set", 0, mark, (2, 0, b"x"), None, "always", timeout_s=2)
                return True
            return None

        if await_found(look, TROUBLE_TIMEOUT_S) is None:
            raise Broken(f"Nobody takes a write: {[self.place.status(name) for name in self.place.nodes]}")

    def reads_here(self, name: str) -> None:
        """A node answers from its own copy."""
        try:
            self.place.ask(name, "at", "dirty", 0, None, ("exists", 0, b"k"), timeout_s=TROUBLE_TIMEOUT_S / 2)
        except KeyspaceError as error:
            raise Broken(f"{name} does not answer a dirty read: {error}") from error

    def follows(self, name: str) -> None:
        """Wait until a node knows that another one leads."""

        def look() -> bool | None:
            status = self.place.status(name)
            return (status is not None and status["leader"] not in (None, name)) or None

        if await_found(look, TROUBLE_TIMEOUT_S) is None:
            raise Broken(f"{name} does not follow anybody: {self.place.status(name)}")

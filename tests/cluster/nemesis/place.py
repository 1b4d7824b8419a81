"""The cluster of a run: real node processes with something between them that can be cut, on disks that can be in trouble."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django_keyspace.exceptions import KeyspaceError
from django_keyspace.security import Security, make_security
from django_keyspace.testing import NodeDidNotStart, RunningCluster, RunningNode
from django_keyspace.testing.cluster import _free_ports, await_found
from tests.cluster.releases import NEXT, make_release

from .disks import HangingDisk, SmallDisk
from .namespaces import Namespaces
from .wires import Wires

SECRET = "whoever listens on more than loopback has one"
_ATTEMPTS = 5


class Place(RunningCluster):
    """A cluster between whose nodes and clients something can be cut, and whose disks may be in trouble.

    Arguments:
        folder: for the data folders.
        size: the number of nodes.
        flags: of all nodes.
        net: ``proxy`` or ``namespaces``: what is between them. ``plain``: nothing; who calls a process that has ended is refused
            then, which a proxy hides.

    Attributes:
        net: what cuts, None if nothing does.
        disks: the nodes whose data folder is a small disk of its own, with it.
        upgraded: the nodes that run the next release, or will when they are started again.
    """

    def __init__(self, folder: Path, size: int, flags: list[str], net: str = "proxy") -> None:
        self.net: Wires | Namespaces | None = None if net == "plain" else Wires() if net == "proxy" else Namespaces()
        self.disks: dict[str, SmallDisk | HangingDisk] = {}
        self.upgraded: set[str] = set()
        self._next_release: Path | None = None
        self._listens: dict[str, str] = {}
        try:
            super().__init__(folder, size, SECRET if net == "namespaces" else None, flags)
        except BaseException:
            self._close_net()
            raise

    def _find_addresses(self, names: list[str]) -> list[str]:
        if isinstance(self.net, Namespaces):
            return [self.net.add(name) for name in names]
        return super()._find_addresses(names)

    def _node(self, name: str, flags: list[str]) -> RunningNode:
        node = self._node_at_net(name, flags)
        self.nodes[name] = node
        if self.upgraded:  # whoever joins during an upgrade joins with the newer release
            self.upgrade(name)
        return node

    def _node_at_net(self, name: str, flags: list[str]) -> RunningNode:
        if not isinstance(self.net, Wires):
            node = super()._node(name, flags)
            node.within = self.net.within(name) if self.net is not None else []
            return node
        advertised = self.addresses[name]
        listen = self._listens.setdefault(name, f"127.0.0.1:{_free_ports(1)[0]}")
        self.net.add(name, advertised, listen)
        return RunningNode(
            self._folder / name, [*self._flags, f"--advertise={advertised}", *flags], name, listen, self._secret
        )

    def upgrade(self, name: str) -> None:
        """Have a node run the next release when it is started again."""
        if self._next_release is None:
            self._next_release = make_release(self._folder / "next-release", NEXT)
        self.nodes[name].root = self._next_release
        self.upgraded.add(name)

    @property
    def location(self) -> str:
        """With the addresses that nodes give each other."""
        return f"keyspace://{','.join(self.addresses.values())}/0"

    @property
    def security(self) -> Security:
        """What clients need to know."""
        return make_security(uses_tls=False, **self.options)

    def status(self, name: str) -> dict[str, Any] | None:
        """What a node says of itself, None if it does not answer."""
        with contextlib.suppress(KeyspaceError):
            found: dict[str, Any] = self.ask(name, "node_status", timeout_s=2)
            return found
        return None

    def leader_name(self, *, other_than: str = "") -> str:
        """The name of the node that leads. Waits until there is one."""
        return self.leader(other_than=other_than).node_id

    def give_disk(self, name: str, kind: str) -> None:
        """Have a node's data on a disk of its own, ``small`` or ``hanging``. Only for root. Before the node is started."""
        self.disks[name] = (SmallDisk if kind == "small" else HangingDisk)(self._folder / name)

    def close(self) -> None:
        """End all of it."""
        try:
            super().close()
        finally:
            for disk in self.disks.values():
                disk.close()
            self._close_net()

    def _close_net(self) -> None:
        if self.net is not None:
            self.net.close()


@contextlib.contextmanager
def running_place(
    folder: Path, size: int = 3, *, disks: str = "", net: str = "proxy", **options: Any
) -> Iterator[Place]:
    """Run a cluster as long as the block runs; no process is left behind.

    Arguments:
        folder: for the data folders.
        size: the number of nodes.
        disks: ``small`` or ``hanging``: a disk for each node; empty: all on the folder's.
        net: what is between them: see :class:`Place`.
        **options: flags of all nodes.
    """
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    with contextlib.ExitStack() as stack:
        for attempt in range(_ATTEMPTS):
            with contextlib.ExitStack() as this:
                try:
                    place = Place(folder / str(attempt), size, flags, net)
                    this.callback(place.close)
                    for name in place.nodes if disks else ():
                        place.give_disk(name, disks)
                    place.start()
                except (NodeDidNotStart, OSError) as error:  # somebody has taken one of the ports meanwhile
                    if attempt == _ATTEMPTS - 1 or not (isinstance(error, OSError) or "Another program" in str(error)):
                        raise
                else:
                    stack.push(this.pop_all())
                    break
        place.leader()
        yield place


__all__ = ["Place", "await_found", "running_place"]

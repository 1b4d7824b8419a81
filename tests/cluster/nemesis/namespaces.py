"""A network of its own for each node, in the kernel, with a bridge between them: what is cut there is dropped without a word.

No connection is refused or reset, and no listener stands between: packets get lost, in one direction or in both, acknowledgements
among them. Who sends is made to send to a card that nobody has.

All of it is in namespaces that have no names. They are gone with the processes in them, however those end; and the bridge
and the clients are in that of this process, which :func:`command_within` starts in one of its own. No other network is touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from .wires import CLIENTS, Direction

PORT = 7080
TOOLS = ("unshare", "nsenter", "ip")
_MARK = "KEYSPACE_TEST_NETWORK"
_BRIDGE = "hub"
_CARD = "eth0"
_NOBODY = "02:00:00:00:ff:ff"


@dataclass(frozen=True)
class Host:
    """One end of the bridge.

    Attributes:
        number: of it.
        within: words before a command that is to run there.
        card: its network device.
        holder: the process that keeps its namespace, None for this process's own.
    """

    number: int
    within: tuple[str, ...]
    card: str
    holder: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        """Of its card, as IP has it."""
        return f"10.0.0.{self.number}"

    @property
    def card_address(self) -> str:
        """Of its card, as the bridge has it."""
        return f"02:00:00:00:00:{self.number:02x}"

    def configure(self, *lines: str) -> None:
        """Run commands of ``ip`` there."""
        done = subprocess.run(
            [*self.within, "ip", "-batch", "-"],
            input="".join(f"{line}\n" for line in lines),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"The network does not take {lines}: {done.stderr.strip()}")


class Namespaces:
    """A bridge in this process's own network, and hosts at it."""

    def __init__(self) -> None:
        if not is_within():
            raise RuntimeError("This process is in the network of its machine, which is not to be changed.")
        self._hosts: dict[str, Host] = {CLIENTS: Host(254, (), _BRIDGE)}
        self._held: set[Direction] = set()
        hub = self._hosts[CLIENTS]
        hub.configure(
            f"link add {_BRIDGE} address {hub.card_address} type bridge",
            f"addr add {hub.address}/24 dev {_BRIDGE}",
            f"link set {_BRIDGE} up",
            "link set lo up",
        )

    def add(self, name: str) -> str:
        """Another host. Returns: the address at which a node there is reached by all."""
        holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo ready; exec cat"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        if holder.stdout is None or holder.stdout.readline() != "ready\n":
            raise RuntimeError("There is no further network on this machine.")
        within = ("nsenter", f"--net=/proc/{holder.pid}/ns/net")
        host = self._hosts[name] = Host(len(self._hosts), within, _CARD, holder)
        self._hosts[CLIENTS].configure(
            f"link add {_port_of(host)} type veth peer name {_CARD} address {host.card_address} netns {holder.pid}",
            f"link set {_port_of(host)} master {_BRIDGE} up",
        )
        host.configure(f"addr add {host.address}/24 dev {_CARD}", f"link set {_CARD} up", "link set lo up")
        for other in self._hosts:
            if other != name:
                self._let((name, other), True)
                self._let((other, name), True)
        return f"{host.address}:{PORT}"

    def within(self, name: str) -> list[str]:
        """Words before a command that is to run at a host."""
        return list(self._hosts[name].within)

    def hold(self, directions: Iterable[Direction]) -> None:
        """Lose what is sent in these directions from now on, besides those where it is lost already."""
        for direction in set(directions) - self._held:
            if direction[0] != direction[1]:
                self._let(direction, False)
                self._held.add(direction)

    def release(self) -> None:
        """Let everything pass."""
        for direction in self._held:
            self._let(direction, True)
        self._held.clear()

    def _let(self, direction: Direction, passes: bool) -> None:
        source, to = (self._hosts[name] for name in direction)
        card_address = to.card_address if passes else _NOBODY
        source.configure(f"neigh replace {to.address} lladdr {card_address} dev {source.card} nud permanent")

    def plug(self, name: str, is_in: bool) -> None:
        """Put the cable of a host in, or pull it: then its own card knows that nobody is there."""
        self._hosts[CLIENTS].configure(f"link set {_port_of(self._hosts[name])} {'up' if is_in else 'down'}")

    def close(self) -> None:
        """Let go of the namespaces. Whatever runs there has to have ended."""
        # The kernel takes away what was in a namespace some time after its end: the names are needed before that.
        devices = [_port_of(host) for host in self._hosts.values() if host.holder is not None]
        try:
            self._hosts[CLIENTS].configure(*(f"link del {device}" for device in (*devices, _BRIDGE)))
        finally:
            for host in self._hosts.values():
                if host.holder is not None:
                    host.holder.communicate()


def _port_of(host: Host) -> str:
    return f"port{host.number}"


def is_within() -> bool:
    """Whether this process was started by :func:`command_within`."""
    return _MARK in os.environ


def command_within(command: list[str], *, mounts: bool = False) -> tuple[list[str], dict[str, str]]:
    """A command and its environment, to be run in a network of its own.

    Arguments:
        command: words.
        mounts: whether what it mounts is its own, too, and goes with it. It then keeps all that is mounted elsewhere, so
            that nobody is rid of a disk by unmounting it meanwhile.
    """
    flags = [] if os.geteuid() == 0 else ["--map-root-user"]
    if mounts:
        flags += ["--mount", "--propagation", "slave"]
    return ["unshare", *flags, "--net", *command], os.environ | {_MARK: "1"}


def why_no_namespaces() -> str | None:
    """Why this machine does not let us make networks; None if it does."""
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"there is no {', '.join(missing)} here"
    attempt = "ip link add hub type bridge && ip link add one type veth peer name other && unshare --net true"
    command, _ = command_within(["sh", "-c", attempt])
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode == 0:
        return None
    return f"this machine lets nobody make networks: {done.stderr.decode(errors='replace').strip()[:200]}"

"""Three nodes for ``demo --cluster``: started, awaited until one leads, ended; and the status page's switch for them."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

from django_keyspace.management.local import LocalCluster, make_plan

NODES = 3
START_TIMEOUT_S = 120.0
SWITCH_VARIABLE = "DEMO_SWITCH"
KILL, START = "kill", "start"
DONE = "done"

_switching = threading.Lock()
"""Two site processes may ask for the same node at the same moment."""


class SwitchFailed(Exception):
    """A node could not be killed or started. The message says why."""


@contextlib.contextmanager
def cluster(data_folder: Path) -> Iterator[LocalCluster]:
    """Run a cluster for as long as the block runs; a folder that was used before has its nodes, ports and data.

    Raises CommandError if a node ends or nobody leads in time, KeyspaceError if the folder is no good.
    """
    found = LocalCluster(make_plan(data_folder, NODES, 0))
    try:
        found.start()
        found.await_leader(START_TIMEOUT_S)
        yield found
    finally:
        found.stop()


# --- The switch ---------------------------------------------------------------------------------------------------------
#
# The nodes are processes of the demo, and end with it. The site is another process of the demo, and asks for what its
# status page promises over a pair of connected sockets that nobody else can reach: one line of JSON there, one line back.


class Switch:
    """The demo's side: does what a site asks for.

    One for each site process.
    """

    def __init__(self, nodes: LocalCluster) -> None:
        """Begin to listen. The site's process gets the descriptor ``far_end`` and the variables ``environment``."""
        self._nodes = {node.address: node for node in nodes.nodes}
        self._near, self._far = socket.socketpair()
        self.far_end = self._far.fileno()
        self.environment = {SWITCH_VARIABLE: str(self.far_end)}
        threading.Thread(target=self._listen, name="switch", daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        self._far.close()
        with contextlib.suppress(OSError):  # closed already
            self._near.shutdown(socket.SHUT_RDWR)

    def _listen(self) -> None:
        with self._near, self._near.makefile("rw", encoding="utf-8", newline="\n") as lines:
            for line in lines:
                with _switching:
                    answer = self._obey(*json.loads(line))
                lines.write(json.dumps(answer) + "\n")
                lines.flush()

    def _obey(self, do: str, address: str) -> str:
        node = self._nodes.get(address)
        if node is None or do not in (KILL, START):
            return f"There is no node at {address:.40} to {do:.20}."
        try:
            if do == KILL:
                node.kill()
            elif node.exit_code is not None:
                node.start()
        except OSError as error:
            return f"Node {node.name} could not be started: {error.strerror}."
        return DONE


@contextlib.contextmanager
def switch(nodes: LocalCluster) -> Iterator[Switch]:
    """Offer a switch for as long as the block runs."""
    found = Switch(nodes)
    try:
        yield found
    finally:
        found.close()


class Remote:
    """The site's side."""

    def __init__(self, descriptor: int) -> None:
        """Use the descriptor that the demo gave to this process."""
        # The socket itself must stay: the file does not keep it open.
        self._socket = socket.socket(fileno=descriptor)
        self._lines = self._socket.makefile("rw", encoding="utf-8", newline="\n")
        self._lock = threading.Lock()

    def ask(self, do: str, address: str) -> None:
        """Have the node at an address killed or started, and return when that is done. Raises SwitchFailed."""
        try:
            with self._lock:
                self._lines.write(json.dumps([do, address]) + "\n")
                self._lines.flush()
                answer = json.loads(self._lines.readline() or "null")
        except OSError as error:
            raise SwitchFailed(f"The demo that runs the nodes is gone: {error.strerror}.") from error
        if answer != DONE:
            raise SwitchFailed(answer or "The demo that runs the nodes is gone.")


_remotes: dict[str, Remote] = {}
_remotes_lock = threading.Lock()


def remote() -> Remote | None:
    """Return what this process can switch nodes with: None unless ``demo --cluster`` has started it."""
    if not settings.SWITCH:
        return None
    with _remotes_lock:
        if settings.SWITCH not in _remotes:
            _remotes[settings.SWITCH] = Remote(int(settings.SWITCH))
        return _remotes[settings.SWITCH]

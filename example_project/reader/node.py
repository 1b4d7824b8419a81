"""A node process for ``demo --node``: started, awaited until it answers, ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.utils.module_loading import import_string

from django_keyspace.exceptions import KeyspaceError
from reader.children import Child, ChildFailed, Echo, child
from reader.serving import HOST, free_port

ANSWER_TIMEOUT_S = 20.0
ASK_AGAIN_S = 0.05


@dataclass(frozen=True, slots=True)
class Node:
    """A node that answers."""

    url: str
    process: Child


@contextmanager
def node(data_folder: Path, echo: Echo | None = None) -> Iterator[Node]:
    """Run a single node for as long as the block runs; its URL is that of its first database.

    Raises ChildFailed if it does not answer in time.
    """
    address = f"{HOST}:{free_port()}"
    arguments = ["keyspace_node", "--id", "n1", "--listen", address, "--data", str(data_folder)]
    with child("The node", arguments, {}, echo) as process:
        url = f"keyspace://{address}/0"
        _wait_for_answer(process, url)
        yield Node(url, process)


def _wait_for_answer(process: Child, url: str) -> None:
    """Ask the node for a key until it answers; that a port is open would not say that it serves."""
    cache = import_string(settings.CACHES["default"]["BACKEND"])(url, {})
    deadline_at_s = time.monotonic() + ANSWER_TIMEOUT_S
    while True:
        try:
            cache.get("is-there-a-node")
            return
        except (KeyspaceError, OSError) as error:
            if not process.is_running():
                raise ChildFailed(f"The node ended by itself, exit code {process.wait()}.{process.tail()}") from error
            if time.monotonic() > deadline_at_s:
                raise ChildFailed(
                    f"The node at {url} did not answer within {ANSWER_TIMEOUT_S:.0f} s: {error}.{process.tail()}"
                ) from error
        time.sleep(ASK_AGAIN_S)

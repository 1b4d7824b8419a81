"""A process may have so many files open and no more: a crowd of clients must not take those that the store needs."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from django_keyspace.exceptions import ConfigurationError, Overloaded
from django_keyspace.node.open_files import OWN_FILES, limit_connections
from django_keyspace.node.service import SPARE_CONNECTIONS
from django_keyspace.store import Store, StoreOptions
from django_keyspace.testing import NodeDidNotStart, RunningNode

from .conftest import crowd, engine_for, write_with_each

pytestmark = pytest.mark.node

RESERVED = OWN_FILES + SPARE_CONNECTIONS
VALUE = (1, 0, b"v")


def node_within(folder: Path, limits: str, connections_max: int = 500) -> RunningNode:
    """A node whose process begins with other limits than this one."""
    node = RunningNode(folder, [f"--connections-max={connections_max}"], "n1", "127.0.0.1:0", None)
    node.within = ["sh", "-c", f'{limits} && exec "$@"', "sh"]
    return node


def test_a_node_takes_the_limit_that_it_may_have(tmp_path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 500 + RESERVED:
        pytest.skip(f"no process may have more than {hard:,} files open here")
    node = node_within(tmp_path, "ulimit -Sn 100")
    try:
        node.start()
        with crowd(node.address, 500) as clients:
            write_with_each(clients)
        assert "connections instead of" not in node.errors()
    finally:
        node.close()


def test_clients_leave_a_node_the_files_that_it_needs(tmp_path: Path) -> None:
    node = node_within(tmp_path, f"ulimit -n {RESERVED + 40}")
    try:
        node.start()
        assert f"may have {RESERVED + 40} files open: the node takes 40 connections instead of 500" in node.errors()
        with crowd(node.address, 40) as clients:
            write_with_each(clients)
            engine = engine_for(node)
            with pytest.raises(Overloaded, match="has 40 connections already"):
                engine.execute("exists", 0, b"n")
            engine.close()
    finally:
        node.close()


def test_a_node_without_a_file_to_spare_does_not_start(tmp_path: Path) -> None:
    node = node_within(tmp_path, f"ulimit -n {RESERVED}")
    try:
        with pytest.raises(NodeDidNotStart, match=r"exit code 2.*besides its clients\. Raise the limit"):
            node.start()
    finally:
        node.close()
    assert not tmp_path.joinpath("store").exists()


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "allowed", "then"),
    [
        (1024, 4096, 500, 500, 1024),
        (1024, 4096, 1000, 1000, 1000 + RESERVED),
        (1024, 4096, 10_000, 4096 - RESERVED, 4096),
        (1024, 1024, 10_000, 1024 - RESERVED, 1024),
        (256, resource.RLIM_INFINITY, 10_000, 10_000, 10_000 + RESERVED),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 10_000, 10_000, resource.RLIM_INFINITY),
    ],
)
def test_how_many_are_allowed(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, wanted: int, allowed: int, then: int
) -> None:
    limits = [(soft, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[0])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.__setitem__(0, new))
    assert limit_connections(wanted) == allowed
    assert limits == [(then, hard)]


def test_a_system_that_allows_less_than_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(256, resource.RLIM_INFINITY)]

    def change(_: int, new: tuple[int, int]) -> None:
        if new[0] > 10_240:
            raise ValueError("current limit exceeds maximum limit")
        limits[0] = new

    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[0])
    monkeypatch.setattr(resource, "setrlimit", change)
    assert limit_connections(10_000) == 10_240 - RESERVED
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: change(0, (10_241, 0)))
    limits[0] = (256, resource.RLIM_INFINITY)
    with pytest.raises(ConfigurationError, match="256 files open"):
        limit_connections(10_000)


STARVED = """
import os, resource, sys
from django_keyspace.exceptions import StorageError
from django_keyspace.store import Store, StoreOptions

path, durability = sys.argv[1:]
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
calls = [("read", "get", 0, b"kept")] + [("write", "set", 0, b"other", (1, 0, b"v"), None, "always")] * 2
kinds = set()
for spare in range(8):
    store = Store(path, StoreOptions(durability=durability))
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1 + spare, limits[1]))
    for method, *call in calls:
        try:
            getattr(store, method)(*call)
            kinds.add("done")
        except StorageError as error:
            assert type(error) is StorageError, repr(error)  # neither damaged nor unclean
            assert "ulimit -n" in str(error), error
            kinds.add("refused")
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert store.read("get", 0, b"kept") is not None, f"with {spare} files to spare the store lost a record"
    store.shutdown()
assert kinds == {"done", "refused"}, kinds
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
@pytest.mark.parametrize("durability", ["none", "interval", "commit"])
def test_a_store_that_can_open_no_file_loses_nothing_and_is_not_called_damaged(tmp_path: Path, durability: str) -> None:
    store = Store(str(tmp_path), StoreOptions(durability=durability))
    store.write("set", 0, b"kept", VALUE, None, "always")
    store.shutdown()
    starved = subprocess.run(
        [sys.executable, "-c", STARVED, str(tmp_path), durability], capture_output=True, text=True, timeout=60
    )
    assert starved.returncode == 0, starved.stderr

"""Nodes and clients of different releases: a cluster is upgraded under its clients, and what cannot work says so."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from django_keyspace import __version__
from django_keyspace.addresses import parse_location
from django_keyspace.backend.transport import RemoteEngine
from django_keyspace.exceptions import KeyspaceError, NotSupported, ProtocolError, TransportError, UnknownOperation
from django_keyspace.security import make_security
from django_keyspace.testing import NodeDidNotStart, RunningCluster, running_cluster
from django_keyspace.testing.cluster import await_found

from .conftest import SECRET
from .helpers import await_log, await_true, do, value
from .releases import LATER, NEXT, OURS, make_release

pytestmark = [pytest.mark.node, pytest.mark.timeout(300)]

END_S = 90


@pytest.fixture(scope="module")
def next_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_release(tmp_path_factory.mktemp("next"), NEXT)


@pytest.fixture(scope="module")
def later_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_release(tmp_path_factory.mktemp("later"), LATER)


class Writer:
    """A client process that counts all the time."""

    def __init__(self, location: str, key: str, release: Path) -> None:
        file = str(Path(__file__).with_name("writer.py"))
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(release), os.environ.get("PYTHONPATH", "")])}
        self.process = subprocess.Popen(
            [sys.executable, "-P", file, location, SECRET, key],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True,
        )  # fmt: skip

    def expect_ready(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def end(self) -> dict[str, Any]:
        """Have it end. Returns: what it says."""
        found: dict[str, Any] = json.loads(self.process.communicate("", timeout=END_S)[0])
        return found


@contextlib.contextmanager
def writing(location: str, **releases: Path) -> Iterator[dict[str, Writer]]:
    """A client process of each release, each with the counter of its name."""
    writers = {key: Writer(location, key, release) for key, release in releases.items()}
    try:
        for writer in writers.values():
            writer.expect_ready()
        yield writers
    finally:
        for writer in writers.values():
            writer.process.kill()
            writer.process.communicate()


def restart(cluster: RunningCluster, name: str, release: Path) -> None:
    """What whoever upgrades a node does."""
    node = cluster.nodes[name]
    assert node.stop() == 0, node.errors()[-2000:]
    node.root = release
    node.start()
    await_caught_up(cluster, name)


def await_caught_up(cluster: RunningCluster, name: str) -> None:
    commit = cluster.ask(cluster.leader().node_id, "node_status")["commit"]

    def has_it() -> bool:
        with contextlib.suppress(KeyspaceError):
            return bool(cluster.ask(name, "node_status")["applied"] >= commit)
        return False

    await_true(has_it, f"{name} does not catch up")


def hand_over(cluster: RunningCluster, name: str) -> None:
    """Have a node lead that may have to catch up first."""

    def leads() -> bool:
        with contextlib.suppress(KeyspaceError):
            leader = cluster.leader().node_id
            if leader == name:
                return True
            cluster.ask(leader, "transfer_leadership", name)
        return False

    await_true(leads, f"{name} does not take over")


def await_refusal(cluster: RunningCluster, name: str, call: tuple[Any, ...], words: str) -> None:
    """Wait until a node leads and says why it does not do an operation."""
    last: list[str] = []

    def look() -> bool:
        hand_over(cluster, name)
        try:
            last.append(f"it was done: {cluster.ask(name, *call)}")
        except NotSupported as error:
            last.append(str(error))
            return words in str(error)
        except TransportError:  # it leads no more
            return False
        pytest.fail(last[-1])

    await_true(look, f"{words!r} was never said: {last[-3:]}")


def versions(cluster: RunningCluster, name: str) -> dict[str, int | None]:
    """By member, the version of entries that it reads, as far as a node knows."""
    return {member["name"]: member["entry_version"] for member in cluster.ask(name, "node_status")["members"]}


def digests(cluster: RunningCluster) -> set[Any]:
    return {cluster.ask(name, "node_digest") for name in cluster.nodes}


def test_a_rolling_upgrade_shows_in_no_answer_and_a_downgrade_is_refused(next_release: Path) -> None:
    with (
        running_cluster(3, secret=SECRET) as cluster,
        writing(cluster.location, ours=OURS, next=next_release) as writers,
    ):
        leader = cluster.leader().node_id
        first, second = (name for name in cluster.nodes if name != leader)
        double = ("double", 0, b"number")
        do(cluster, "set", 0, b"number", (3, 0, b"3"), None, "always")
        with pytest.raises(UnknownOperation, match="Is the other side a newer release"):
            cluster.ask(leader, *double)

        # Mixed: all go on, under a leader of either release, and nothing is written that a member cannot read.
        restart(cluster, first, next_release)
        await_true(lambda: versions(cluster, first) == {leader: 1, second: 1, first: 2}, "they have not met")
        assert {cluster.ask(name, "node_status")["release"] for name in cluster.nodes} == {__version__, "99.1"}
        await_refusal(cluster, first, double, f": {min(leader, second)}, {max(leader, second)} did not say")
        restart(cluster, leader, next_release)
        await_refusal(cluster, first, double, f": {second} did not say")
        await_refusal(cluster, first, ("atomic", (), (("delete", 0, b"number"), double)), "Finish the upgrade")
        assert do(cluster, "exists", 0, b"number")
        assert "entries of version 2" not in "".join(node.errors() for node in cluster.nodes.values())

        # Until then there is a way back.
        restart(cluster, leader, OURS)
        restart(cluster, leader, next_release)

        # The last one is upgraded.
        restart(cluster, second, next_release)
        assert do_new(cluster, *double) in (6, 12)  # whoever loses his leader asks again
        await_log(cluster, cluster.leader().node_id, "writes entries of version 2: all members read it")

        # There is no way back for a node that has to read what it cannot.
        leader = cluster.leader().node_id
        old = cluster.nodes[first if first != leader else second]
        assert old.stop() == 0
        old.root = OURS
        with contextlib.suppress(NodeDidNotStart):
            old.start()
        assert old.wait(END_S) == 1
        assert (
            "is of version 2, and this release knows 1: a newer release leads the cluster. Upgrade this node."
            in old.errors()
        )
        do(cluster, "set", 0, b"others", value("go on"), None, "always")
        old.root = next_release
        old.start()
        await_caught_up(cluster, old.node_id)

        results = {key: writer.end() for key, writer in writers.items()}
        for key, result in results.items():
            assert not result["errors"] and result["counted"] > 20, (key, result)
            assert do(cluster, "incr", 0, key.encode(), 0, None, None, 0) == result["counted"]
        assert [(result["release"], result["protocol"]) for result in results.values()] == [
            (__version__, 1),
            ("99.1", 2),
        ]
        assert await_found(lambda: len(digests(cluster)) == 1 or None), digests(cluster)


def do_new(cluster: RunningCluster, *call: Any) -> Any:
    """As soon as the leader knows that all members know the operation."""
    found: list[Any] = []

    def attempt() -> bool:
        with contextlib.suppress(KeyspaceError):
            found.append(cluster.ask(cluster.leader().node_id, *call))
        return bool(found)

    await_true(attempt, f"{call} is never done")
    return found[0]


def test_releases_that_have_no_version_in_common_say_so(later_release: Path) -> None:
    with running_cluster(3, secret=SECRET) as cluster, writing(cluster.location, ours=OURS) as writers:
        leader = cluster.leader().node_id
        late = cluster.followers()[0]
        other = next(name for name in cluster.nodes if name not in (leader, late.node_id))
        assert late.stop() == 0
        late.root = later_release
        late.start()
        await_log(cluster, late.node_id, "links have version 1, and this release speaks 2 to 2. Upgrade the older one")
        await_log(cluster, leader, "links have version 1, and this release speaks 2 to 2. Upgrade the older one")
        assert cluster.ask(leader, "node_status")["leader"] == leader
        await_true(lambda: not is_connected(cluster, leader, late.node_id), "the link stays")

        security = make_security(uses_tls=False, secret=SECRET)
        engine = RemoteEngine(
            parse_location(f"keyspace://{late.address}/0").endpoints, timeout_ms=20_000, security=security
        )
        try:
            with pytest.raises(
                ProtocolError, match=r"speaks protocol version 1; this node speaks 2 to 2. Update the client"
            ):
                engine.execute("get", 0, b"k")
        finally:
            engine.close()

        late.stop()
        late.root = OURS
        late.start()
        await_caught_up(cluster, late.node_id)
        result = writers["ours"].end()
        assert not result["errors"] and result["counted"] > 20, result
        assert do(cluster, "incr", 0, b"ours", 0, None, None, 0) == result["counted"]
        assert await_found(lambda: len(digests(cluster)) == 1 or None), digests(cluster)
        assert cluster.nodes[other].is_running()


def is_connected(cluster: RunningCluster, name: str, other: str) -> bool:
    members = cluster.ask(name, "node_status")["members"]
    return bool(next(member["is_connected"] for member in members if member["name"] == other))

"""Clients of three real nodes: a minority of them may go, and no caller sees more of it than time."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from django_keyspace.addresses import parse_location
from django_keyspace.backend import KeyspaceCache
from django_keyspace.backend.levels import session
from django_keyspace.backend.transport import RemoteEngine
from django_keyspace.exceptions import NoLeader
from django_keyspace.keyspace import Client, str_status
from django_keyspace.security import make_security
from django_keyspace.testing import RunningCluster

from .conftest import SECRET
from .helpers import await_true, value

pytestmark = pytest.mark.node

TIMEOUT_MS = 30_000
KEY = b"counter of the clients"


def new_engine(cluster: RunningCluster, names: list[str] | None = None, timeout_ms: int = TIMEOUT_MS) -> RemoteEngine:
    addresses = [cluster.addresses[name] for name in names or ("n1", "n2", "n3")]
    location = f"keyspace://{','.join(addresses)}/0"
    security = make_security(uses_tls=False, secret=SECRET)
    return RemoteEngine(parse_location(location).endpoints, timeout_ms=timeout_ms, security=security)


@pytest.fixture
def engine(cluster: RunningCluster) -> Iterator[RemoteEngine]:
    engine = new_engine(cluster)
    engine.execute("delete", 0, KEY)
    yield engine
    engine.close()


def counted(engine: RemoteEngine) -> int:
    return int(engine.execute("incr", 0, KEY, 0, 0, None, 0))


class Work:
    """Threads that count and read without a pause until they are told to stop."""

    def __init__(self, engine: RemoteEngine, threads: int = 3) -> None:
        self.done = 0
        self.reads = 0
        self.errors: list[BaseException] = []
        self._engine = engine
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(threads)]

    def _work(self) -> None:
        try:
            while not self._stopping.is_set():
                seen = self._engine.execute("incr", 0, KEY, 1, 0, None, 0)
                record = self._engine.execute("get", 0, KEY)
                assert record is not None and seen > 0
                (number, _), *_ = self._engine.execute("at", "dirty", 0, None, ("count", 0, b"", b"", False, True, 0))
                assert number >= 0
                with self._lock:
                    self.done += 1
                    self.reads += 2
        except BaseException as error:
            self.errors.append(error)

    def more(self, number: int) -> None:
        """Return when so many more rounds are done, or somebody has failed."""
        wanted = self.done + number
        while self.done < wanted and not self.errors:
            self._stopping.wait(0.01)

    def __enter__(self) -> Work:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()


def kill_and_start(cluster: RunningCluster, work: Work) -> None:
    leader = cluster.leader()
    leader.kill()
    work.more(20)
    leader.start()


def freeze_and_thaw(cluster: RunningCluster, work: Work) -> None:
    leader = cluster.leader()
    leader.send_signal(signal.SIGSTOP)
    try:
        work.more(20)  # others lead by then, or nobody could count
    finally:
        leader.send_signal(signal.SIGCONT)


def restart_all_in_turn(cluster: RunningCluster, work: Work) -> None:
    for node in cluster.nodes.values():
        node.stop()
        work.more(10)
        node.start()
        work.more(5)


def restart_all_without_a_pause(cluster: RunningCluster, work: Work) -> None:
    """Whoever leads has others beside it that have just started: they neither stand nor vote yet."""
    for node in [*cluster.nodes.values()] * 2:
        node.stop()
        node.start()
    for node in cluster.nodes.values():
        assert "ends without a successor" not in node.errors()


@pytest.mark.parametrize("trouble", [kill_and_start, freeze_and_thaw, restart_all_in_turn, restart_all_without_a_pause])
def test_a_minority_that_goes_is_no_error_and_every_write_happens_once(
    cluster: RunningCluster, engine: RemoteEngine, trouble: Callable[[RunningCluster, Work], None]
) -> None:
    with Work(engine) as work:
        work.more(20)
        trouble(cluster, work)
        work.more(20)
    assert work.errors == []
    assert counted(engine) == work.done


def test_the_same_on_an_event_loop(cluster: RunningCluster, engine: RemoteEngine) -> None:
    async def count(number: int) -> None:
        for _ in range(number):
            await engine.aexecute("incr", 0, KEY, 1, 0, None, 0)
            await engine.aexecute("at", "dirty", 0, None, ("exists", 0, KEY))

    async def main() -> None:
        work = [asyncio.create_task(count(20)) for _ in range(20)]
        await engine.aexecute("incr", 0, KEY, 1, 0, None, 0)
        leader = await asyncio.to_thread(cluster.leader)
        await asyncio.to_thread(leader.kill)
        await asyncio.gather(*work)
        await asyncio.to_thread(leader.start)

    asyncio.run(main())
    assert counted(engine) == 401


def test_one_address_is_enough_whichever_it_is(cluster: RunningCluster) -> None:
    for name in cluster.nodes:
        engine = new_engine(cluster, [name])
        assert engine.execute("set", 0, name.encode(), value(name), None, "always") is True
        assert asyncio.run(engine.aexecute("exists", 0, name.encode())) is True
        assert engine.cluster is not None
        assert {str(endpoint) for endpoint in engine.cluster.endpoints} == set(cluster.addresses.values())
        engine.close()


def test_a_session_reads_its_own_writes_from_any_node(engine: RemoteEngine) -> None:
    nodes = set()
    with session() as seen:
        for number in range(60):
            engine.execute("set", 0, b"own", value(str(number)), None, "always")
            record, index, age_ms, node = engine.execute("at", "session", 0, None, ("get", 0, b"own"))
            assert record.endswith(str(number).encode()), (number, node)
            assert age_ms >= 0 and index <= max(seen.as_dict().values())
            nodes.add(node)
    assert len(nodes) > 1


def test_an_alias_of_each_level(cluster: RunningCluster) -> None:
    location = f"keyspace://{','.join(cluster.addresses.values())}/0"
    for consistency in ("safe", "lease", "session"):
        cache = KeyspaceCache(location, {"OPTIONS": {"secret": SECRET, "consistency": consistency}})
        for number in range(10):
            cache.set("level", number)
            assert cache.get("level") == number
        if consistency != "safe":
            assert cache.last_read is not None and cache.last_read.node in cluster.nodes
    assert cache.dirty_get("level", max_staleness_ms=TIMEOUT_MS) in range(10)


def statuses(client: Client) -> tuple[str, ...]:
    result = client.result
    assert result is not None
    codes = (
        result.command_status(), result.transport_status(), result.connectivity_status(), result.timeout_status()
    )  # fmt: skip
    return tuple(str(str_status(code)).removeprefix("KEYSPACE_") for code in codes)


def test_what_keyspaces_client_says_of_a_minority(cluster: RunningCluster) -> None:
    nodes = list(cluster.addresses.values())
    client = Client(nodes, secret=SECRET)
    assert client.set("k", "v") == 0 and client.get("k") == "v"
    await_true(lambda: nodes[client.get_master()] == cluster.leader().address, "the leader is the master")
    assert [client.get_state(node) for node in range(3)] == [0, 0, 0]
    left = cluster.followers()[0]
    for node in cluster.nodes.values():
        if node is not left:
            node.kill()
    try:
        client.set_master_timeout(1_500)
        for call in (lambda: client.set("k", "w"), lambda: client.get("k"), client.list_keys):
            assert call() is None
            assert statuses(client) == ("NOSERVICE", "FAILURE", "NOMASTER", "MASTER_TIMEOUT")
        assert client.get_master() == -201
        assert client.dirty_get("k") == "v"
        assert statuses(client) == ("SUCCESS", "SUCCESS", "NOMASTER", "SUCCESS")
        assert client.dirty_list_keys("k") == ["k"]
        client.begin()
        client.dirty_get("k")
        assert client.submit() == 0 and client.result is not None and client.result.value() == "v"
        client.set_master_timeout(60_000)
        client.set_global_timeout(2_500)
        assert client.get("k") is None
        assert statuses(client) == ("NOSERVICE", "FAILURE", "NOMASTER", "GLOBAL_TIMEOUT")
        patient = new_engine(cluster, timeout_ms=2_500)
        with pytest.raises(NoLeader, match=left.node_id):
            patient.execute("set", 0, b"k", value("w"), None, "always")
        assert patient.execute("at", "dirty", 0, None, ("exists", 0, b"k"))[3] == left.node_id
    finally:
        cluster.start()
    client.set_global_timeout(TIMEOUT_MS)
    client.set_master_timeout(TIMEOUT_MS)
    assert client.set("k", "again") == 0
    assert statuses(client) == ("SUCCESS", "SUCCESS", "SUCCESS", "SUCCESS")

"""The four statuses in every situation that an engine can be in: each must be the truth."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from django_keyspace.backend.keyspace.submission import PIECE_CALLS
from django_keyspace.exceptions import (
    DeadlineExceeded,
    KeyspaceError,
    NoLeader,
    NoSpace,
    UnknownOutcome,
)
from django_keyspace.keyspace import Client, str_status
from django_keyspace.store import open_store
from django_keyspace.testing import RunningNode, running_node
from tests.keyspace.conftest import Proxy
from tests.keyspace.expectations import rows

HEALTHY = ("SUCCESS", "SUCCESS", "SUCCESS", "SUCCESS")
NO_ANSWER_IN_MASTER_TIMEOUT = ("NOSERVICE", "FAILURE", "NOCONNECTION", "MASTER_TIMEOUT")
NO_ANSWER_IN_GLOBAL_TIMEOUT = ("NOSERVICE", "FAILURE", "NOCONNECTION", "GLOBAL_TIMEOUT")
FROZEN_IN_MID_CALL = ("NOSERVICE", "FAILURE", "SUCCESS", "GLOBAL_TIMEOUT")

CALLS: dict[str, Callable[[Client], Any]] = {
    "set": lambda c: c.set("k", "v"),
    "add": lambda c: c.add("n", 1),
    "prune": lambda c: c.prune("p"),
    "set_expiry": lambda c: c.set_expiry("k", 60),
    "get": lambda c: c.get("k"),
    "dirty_get": lambda c: c.dirty_get("k"),
    "list_keys": lambda c: c.list_keys(),
    "count": lambda c: c.count(),
}
MASTER_MS = 1_500
"""Time enough to connect to a node on a busy machine, and not too long to wait for one that does not come."""
READS = {"get", "dirty_get", "list_keys", "count"}
calls = pytest.mark.parametrize("name", CALLS)


def statuses(client: Client) -> tuple[str, ...]:
    """Command, transport, connectivity and timeout, by name."""
    result = client.result
    assert result is not None
    codes = (
        result.command_status(),
        result.transport_status(),
        result.connectivity_status(),
        result.timeout_status(),
    )
    return tuple(str(str_status(code)).removeprefix("KEYSPACE_") for code in codes)


def with_timeouts(nodes: Any, *, global_ms: int, master_ms: int, **options: Any) -> Client:
    client = Client(nodes, **options)
    assert [client.set_global_timeout(global_ms), client.set_master_timeout(master_ms)] == [0, 0]
    return client


@pytest.fixture(scope="module")
def shared_node() -> Iterator[RunningNode]:
    with running_node() as node:
        yield node


@pytest.fixture
def free_address() -> Iterator[str]:
    """An address that nobody listens at, nor can while the test runs."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{holder.getsockname()[1]}"


@pytest.fixture
def silent_address() -> Iterator[str]:
    """An address that takes connections, and where nobody says anything: a node that is frozen."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def proxy(shared_node: RunningNode) -> Iterator[Proxy]:
    proxy = Proxy(shared_node.address)
    yield proxy
    proxy.close()


@calls
def test_healthy(client: Client, name: str) -> None:
    client.begin()
    client.set("k", "v")
    client.set("n", "1")
    assert client.submit() == 0
    assert CALLS[name](client) is not None
    assert statuses(client) == HEALTHY


# --- Nobody there


@pytest.mark.parametrize(
    ("global_ms", "master_ms", "wanted"),
    [
        (60_000, 150, NO_ANSWER_IN_MASTER_TIMEOUT),
        (150, 60_000, NO_ANSWER_IN_GLOBAL_TIMEOUT),
        (150, 150, NO_ANSWER_IN_GLOBAL_TIMEOUT),
    ],
)
@pytest.mark.parametrize("kind", ["free", "silent"])
@calls
def test_nothing_listens_or_answers(
    request: pytest.FixtureRequest, kind: str, name: str, global_ms: int, master_ms: int, wanted: tuple[str, ...]
) -> None:
    client = with_timeouts([request.getfixturevalue(f"{kind}_address")], global_ms=global_ms, master_ms=master_ms)
    assert CALLS[name](client) is None
    assert statuses(client) == wanted


@pytest.mark.parametrize("name", ["set", "get"])
def test_a_batch_when_nothing_listens(free_address: str, name: str) -> None:
    client = with_timeouts([free_address], global_ms=60_000, master_ms=150)
    client.begin()
    CALLS[name](client)
    CALLS[name](client)
    assert str_status(client.submit()) == "KEYSPACE_FAILURE"
    assert statuses(client) == NO_ANSWER_IN_MASTER_TIMEOUT
    assert [status for _, _, status in rows(client)] == [-401, -401]
    assert client.result is not None
    assert client.result.key_values() == {}


def test_get_master_and_get_state_when_nothing_listens(free_address: str) -> None:
    client = with_timeouts([free_address], global_ms=60_000, master_ms=150)
    assert str_status(client.get_master()) == "KEYSPACE_NOCONNECTION"
    assert str_status(client.get_state(0)) == "KEYSPACE_NOCONNECTION"


@pytest.mark.node
def test_get_master_connects_if_it_must(shared_node: RunningNode, free_address: str) -> None:
    assert Client([shared_node.address]).get_master() == 0
    client = Client([free_address, shared_node.address])
    assert [client.get_master(), client.get_state(0), client.get_state(1)] == [1, -202, 0]


@pytest.mark.node
def test_the_first_address_that_answers_serves(shared_node: RunningNode, free_address: str) -> None:
    client = Client([free_address, shared_node.address])
    assert [client.set("k", "v"), client.get("k"), client.get_master()] == [0, "v", 1]
    assert statuses(client) == HEALTHY
    assert Client([shared_node.address]).remove("k") == "v"


@pytest.mark.node
def test_a_client_stays_with_the_single_node_that_it_has_found(shared_node: RunningNode) -> None:
    with running_node() as first:
        client = with_timeouts([first.address, shared_node.address], global_ms=60_000, master_ms=MASTER_MS)
        assert client.set("only", "here") == 0
        first.kill()
        assert client.get("only") is None
        assert statuses(client) == NO_ANSWER_IN_MASTER_TIMEOUT
        assert client.get_master() == -202
        first.start()
        assert client.get("only") == "here"


def test_several_addresses_where_nobody_listens(free_address: str, silent_address: str) -> None:
    client = with_timeouts([free_address, silent_address], global_ms=60_000, master_ms=150)
    assert client.set("k", "v") is None
    assert statuses(client) == NO_ANSWER_IN_MASTER_TIMEOUT
    assert isinstance(client.result and client.result.error, NoLeader)


# --- A node that goes away or does not answer


@pytest.mark.node
@calls
def test_the_connection_breaks_in_mid_call(proxy: Proxy, name: str) -> None:
    client = with_timeouts([proxy.address], global_ms=60_000, master_ms=MASTER_MS)
    assert client.set("connect", "v") == 0
    proxy.arm("cut")
    assert CALLS[name](client) is None
    # It is sent again until the master timeout, a write under the same number.
    assert statuses(client) == NO_ANSWER_IN_MASTER_TIMEOUT
    error = client.result.error if client.result is not None else None
    assert isinstance(error, NoLeader if name in READS else UnknownOutcome)


@pytest.mark.node
@pytest.mark.parametrize("name", ["set", "add", "get", "list_keys"])
def test_a_node_that_does_not_answer_in_mid_call(proxy: Proxy, name: str) -> None:
    client = with_timeouts([proxy.address], global_ms=MASTER_MS, master_ms=60_000)
    assert client.set("connect", "v") == 0
    proxy.arm("swallow")
    assert CALLS[name](client) is None
    assert statuses(client) == FROZEN_IN_MID_CALL


@pytest.mark.node
def test_a_batch_of_which_a_part_was_answered(proxy: Proxy) -> None:
    client = with_timeouts([proxy.address], global_ms=60_000, master_ms=MASTER_MS)
    assert client.prune("") == 0
    client.begin()
    for number in range(3 * PIECE_CALLS):
        client.set(f"k{number:05d}", "v")
    proxy.arm("cut", passes=1)
    assert str_status(client.submit()) == "KEYSPACE_PARTIAL"
    assert statuses(client)[1:] == ("PARTIAL", "NOCONNECTION", "MASTER_TIMEOUT")
    found = [status for _, _, status in rows(client)]
    assert found == [0] * PIECE_CALLS + [-401] * (2 * PIECE_CALLS)
    assert client.result is not None
    assert len(client.result.key_values()) == PIECE_CALLS


@pytest.mark.node
def test_a_node_that_is_killed_and_started_again(free_address: str) -> None:
    with running_node() as node:
        client = with_timeouts([node.address], global_ms=60_000, master_ms=60_000)
        assert client.set("n", "0") == 0
        node.send_signal(signal.SIGSTOP)

        def kill_and_start() -> None:
            node.kill()
            node.start()

        killer = threading.Timer(1.0, kill_and_start)
        killer.start()
        assert client.add("n", 5) == 5  # sent twice, done once
        killer.join()
        assert statuses(client) == HEALTHY
        assert client.add("n", 1) == 6
        node.kill()
        starter = threading.Timer(0.1, node.start)
        starter.start()
        # Calls wait for the node as long as the master timeout allows.
        assert client.set("later", "x") == 0
        starter.join()
        assert statuses(client) == HEALTHY
        assert client.get("later") == "x"


@pytest.mark.node
def test_a_frozen_node(shared_node: RunningNode) -> None:
    with running_node() as node:
        client = with_timeouts([node.address], global_ms=2 * MASTER_MS, master_ms=MASTER_MS)
        assert client.set("k", "v") == 0
        node.send_signal(signal.SIGSTOP)
        assert client.get("k") is None
        assert statuses(client) == FROZEN_IN_MID_CALL
        # The connection is gone now, and the node does not greet a new one.
        assert client.get("k") is None
        assert statuses(client) == NO_ANSWER_IN_MASTER_TIMEOUT
        node.send_signal(signal.SIGCONT)
        client.set_master_timeout(60_000)
        client.set_global_timeout(60_000)
        assert client.get("k") == "v"
        assert statuses(client) == HEALTHY


# --- A store in this process


def test_the_writer_lock_is_not_to_be_had(store_folder: Path) -> None:

    client = with_timeouts(store_folder, global_ms=100, master_ms=60_000)
    assert client.set("k", "v") == 0
    lock = open_store(store_folder)._lock
    assert lock is not None
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        lock.acquire(30)
        held.set()
        release.wait(30)
        lock.release()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(30)
    try:
        assert client.set("k", "w") is None
        assert statuses(client) == FROZEN_IN_MID_CALL
        assert client.get("k") == "v"  # reads go on
        assert statuses(client) == HEALTHY
    finally:
        release.set()
        holder.join()


def test_a_full_store_answers_no_and_still_deletes(store_folder: Path) -> None:
    client = Client(store_folder, durability="interval", max_bytes=2**20)
    for number in range(200):
        if client.set(f"k{number:03d}", "x" * 50_000) is None:
            break
    assert statuses(client) == ("NOSERVICE", "SUCCESS", "SUCCESS", "SUCCESS")
    assert isinstance(client.result and client.result.error, NoSpace)
    client.begin()
    client.set("more", "x" * 50_000)
    client.delete("k000")
    assert client.submit() == 0
    assert [status for _, _, status in rows(client)] == [-401, 0]


# --- Statuses that stay


def test_a_wrong_call_leaves_connectivity_and_timeout_as_they_were(free_address: str) -> None:
    client = with_timeouts([free_address], global_ms=60_000, master_ms=100)
    assert client.set("k" * 2_000, "v") is None
    assert statuses(client) == ("API_ERROR", "FAILURE", "SUCCESS", "SUCCESS")
    assert client.set("k", "v") is None
    assert client.set("k" * 2_000, "v") is None
    assert statuses(client) == ("API_ERROR", "FAILURE", "NOCONNECTION", "MASTER_TIMEOUT")


RAISED: list[tuple[str, int, int, type[KeyspaceError]]] = [
    ("free", 60_000, 100, NoLeader),
    ("free", 100, 60_000, DeadlineExceeded),
    ("silent", 60_000, 100, NoLeader),
    ("silent", 100, 60_000, DeadlineExceeded),
]


@pytest.mark.parametrize(("kind", "global_ms", "master_ms", "error"), RAISED)
def test_outages_are_raised_where_that_was_asked_for(
    request: pytest.FixtureRequest, kind: str, global_ms: int, master_ms: int, error: type[KeyspaceError]
) -> None:
    address = request.getfixturevalue(f"{kind}_address")
    client = with_timeouts([address], global_ms=global_ms, master_ms=master_ms, raise_errors=True)
    with pytest.raises(error):
        client.set("k", "v")
    client.begin()
    client.set("k", "v")
    with pytest.raises(error):
        client.submit()
    assert client.result is not None
    assert client.result.transport_status() == -102


# --- A node that wants to be shown a secret


@pytest.mark.node
def test_a_node_with_a_secret(tmp_path: Path) -> None:
    secret = "correct horse battery staple"
    (tmp_path / "secret").write_text(secret)
    (tmp_path / "secret").chmod(0o600)
    with running_node(secret_file=tmp_path / "secret") as node:
        client = Client([node.address], secret=secret)
        assert [client.get_master(), client.get_state(), client.set("k", "v"), client.get("k")] == [0, 0, 0, "v"]
        stranger = with_timeouts([node.address], global_ms=60_000, master_ms=200, secret="another secret of the site")
        assert stranger.get("k") is None
        assert statuses(stranger)[:2] != ("SUCCESS", "SUCCESS")

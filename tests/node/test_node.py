"""A real node process: what it survives, refuses and bounds."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from django_keyspace.addresses import parse_location
from django_keyspace.backend.transport import RemoteEngine
from django_keyspace.exceptions import InvalidArgument, InvalidKey, KeyTooLong, UnknownOperation, ValueTooLarge
from django_keyspace.testing import NodeDidNotStart, RunningNode, running_node
from tests.node.conftest import RawClient, engine_for

pytestmark = pytest.mark.node


def value(payload: bytes) -> tuple[int, int, bytes]:
    return (1, 0, payload)


def put(engine: RemoteEngine, key: bytes, payload: bytes = b"v") -> None:
    assert engine.execute("set", 0, key, value(payload), None, "always") is True


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def until(condition: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    """Wait for something that another process does."""
    deadline_at_s = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline_at_s, "it did not happen in time"
        time.sleep(0.005)
    return found


# --- Start and end


@pytest.mark.parametrize("durability", ["commit", "interval", "none"])
def test_killed_node_keeps_what_it_has_answered(durability: str) -> None:
    with running_node(durability=durability) as node:
        engine = engine_for(node)
        for number in range(200):
            put(engine, b"k%d" % number, b"v%d" % number)
        node.kill()
        assert not node.is_running()
        node.start()
        records = engine.execute("get_many", 0, [b"k%d" % number for number in range(200)])
        assert [record[-len(b"v%d" % n) :] for n, record in enumerate(records)] == [b"v%d" % n for n in range(200)]


def test_start_prints_one_block_and_the_folder_says_where_the_node_is(node: RunningNode) -> None:
    assert node.location == f"keyspace://{node.address}/0"
    assert f'"address": "{node.address}"' in (node.data / "node.lock").read_text()
    assert f'"pid": {node.pid}' in (node.data / "node.lock").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_orderly_end(node: RunningNode, number: int) -> None:
    engine = engine_for(node)
    put(engine, b"k")
    node.send_signal(number)
    assert node.wait() == 0
    assert "synced and closed" in node.errors()
    assert "Traceback" not in node.errors()
    assert not (node.data / "node.sock").exists()
    assert '"clean": true' in (node.data / "store" / "keyspace.json").read_text()
    node.start()
    assert engine.execute("get", 0, b"k").endswith(b"v")


def test_orderly_end_answers_what_is_under_way_and_says_goodbye(node: RunningNode) -> None:
    client = RawClient(node.address)
    for number in range(1, 501):
        client.send((number, "incr", 0, b"n", 1, 0, None, 0))
    node.send_signal(signal.SIGTERM)
    answers = []
    while (message := client.receive()) is not None:
        answers.append(message)
    client.close()
    assert node.wait() == 0
    request_id, code, _ = answers.pop()
    assert (request_id, code) == (0, "no-connection")
    assert answers == [(number, "ok", number) for number in range(1, len(answers) + 1)]
    node.start()
    # What was not answered before the goodbye was not done.
    assert engine_for(node).execute("incr", 0, b"n", 0, 0, None, 0) == len(answers)


def test_second_start_on_the_folder_names_the_holder(shared_node: RunningNode) -> None:
    with pytest.raises(NodeDidNotStart) as caught, running_node(data=shared_node.data):
        pass
    assert "exit code 2" in str(caught.value)
    assert f"in use by node n1 (process {shared_node.pid}) at {shared_node.address}" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_folder_of_another_node(tmp_path: Path) -> None:
    with running_node(data=tmp_path, node_id="n1"):
        pass
    with pytest.raises(NodeDidNotStart, match="belongs to node 'n1', not to 'n2'"):
        with running_node(data=tmp_path, node_id="n2"):
            pass


def test_port_in_use(shared_node: RunningNode) -> None:
    with pytest.raises(NodeDidNotStart, match=f"Another program listens on {shared_node.address}") as caught:
        with running_node(listen=shared_node.address):
            pass
    assert "Traceback" not in str(caught.value)


def test_foreign_store(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "data.mdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(NodeDidNotStart, match="exit code 1") as caught, running_node(data=tmp_path):
        pass
    assert "Traceback" not in str(caught.value)


def test_node_without_a_unix_socket_serves_tcp(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    with running_node(data=deep) as node:
        put(engine_for(node), b"k")
        assert not (deep / "node.sock").exists()


def test_unix_socket_serves_the_same_store(shared_node: RunningNode, engine: RemoteEngine) -> None:
    path = shared_node.data / "node.sock"
    assert path.stat().st_mode & 0o077 == 0
    local = RemoteEngine(parse_location(f"keyspace+unix://{path}").endpoints)
    put(local, b"k", b"by unix")
    assert engine.execute("get", 0, b"k") == local.execute("get", 0, b"k")


# --- Operations over the wire


def test_operations_answer_what_the_store_answers(engine: RemoteEngine) -> None:
    put(engine, b"a", b"1")
    put(engine, b"b", b"2")
    assert engine.execute("exists", 0, b"a") is True
    assert engine.execute("get_many", 0, [b"a", b"x"])[1] is None
    rows, more = engine.execute("list", 0, b"", b"", False, True, 1, False)
    assert (rows, more) == ([b"a"], True)
    assert engine.execute("count", 0, b"", b"", False, True, 0) == (2, None)
    assert engine.execute("set_many", 0, [(b"c", value(b"3")), (b"d", value(b"4"))], 1000) == 2
    assert 0 < engine.execute("ttl", 0, b"c") <= 1000
    swapped, before = engine.execute("cas", 0, ("value", b"a", None, b"1"), value(b"9"), "keep")
    assert swapped is True
    assert before.endswith(b"1")
    answers = engine.execute("batch", [("get", 0, b"a"), ("incr", 0, b"none", 1, None, None, 0), ("delete", 0, b"b")])
    assert [status for status, _ in answers] == ["ok", "missing-key", "ok"]
    assert engine.execute("atomic", [(0, ("absent", b"a"))], [("delete", 0, b"a")]) == (False, 0)
    assert isinstance(engine.execute("status"), dict)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (("get", 0, b""), InvalidKey),
        (("get", 0, "text"), InvalidKey),
        (("get", 0, b"x" * 1025), KeyTooLong),
        (("get", 16, b"x"), InvalidArgument),
        (("get", 0), InvalidArgument),
        (("nothing", 0), UnknownOperation),
        (("sweep", 5), UnknownOperation),
        (("set", 0, b"k", (1, 0, "text"), None, "always"), InvalidArgument),
        (("set_many", 0, [(b"k", value(b"v"))] * 100_001, None), InvalidArgument),
    ],
)
def test_bad_requests_are_refused_and_change_nothing(engine: RemoteEngine, call: Any, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        engine.execute(*call)
    assert type(caught.value) is error
    assert engine.execute("count", 0, b"", b"", False, True, 0) == (0, None)


def test_values_and_frames_above_the_limit() -> None:
    with running_node(value_bytes_max=1000) as node:
        engine = engine_for(node)
        with pytest.raises(ValueTooLarge, match=r"1,001 bytes and the limit is 1,000"):
            engine.execute("set", 0, b"k", value(b"x" * 1001), None, "always")
        with pytest.raises(ValueTooLarge, match="one frame"):
            engine.execute("set", 0, b"k", value(b"x" * (20 * 2**20)), None, "always")
        put(engine, b"k", b"x" * 1000)
        # An answer above the limit is an error of its call and not the end of the connection.
        with pytest.raises(ValueTooLarge, match="one frame"):
            engine.execute("get_many", 0, [b"k"] * 20_000)
        assert len(engine.execute("get_many", 0, [b"k"] * 1000)) == 1000


@pytest.mark.parametrize("size", [65_000, 65_536, 200_000, 5_000_000, 60 * 2**20])
def test_large_values(engine: RemoteEngine, size: int) -> None:
    payload = os.urandom(1000) * (size // 1000)
    put(engine, b"large", payload)
    assert engine.execute("get", 0, b"large").endswith(payload)


# --- Bad clients


GARBAGE = [
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"\xff" * 100,
    bytes(100),
    b"\x00\x00\x00\x05hello",
    b"\x00\x00\x00\x03\x93\x01\x02",
    b"\x00\x01\x00\x00" + b"x" * 10,  # larger than a hello may be
    RawClient.__module__.encode() * 3,
]


@pytest.mark.parametrize("data", GARBAGE)
def test_garbage_before_the_hello_ends_that_connection_with_a_reason(raw: Any, data: bytes) -> None:
    neighbour, client = raw(), raw(hello=False)
    client.socket.sendall(data)
    request_id, code, sentence = client.receive()
    assert (request_id, code) == (0, "protocol")
    assert sentence
    assert client.receive() is None
    neighbour.send((1, "exists", 0, b"k"))
    assert neighbour.receive()[:2] == (1, "ok")


@pytest.mark.parametrize(
    "message",
    [None, 5, (), (1,), (0, "get", 0, b"k"), (-1, "get", 0, b"k"), ("1", "get", 0, b"k"), (2**63, "get", 0, b"k"), {}],
)
def test_a_message_that_is_no_request_ends_the_connection(raw: Any, message: Any) -> None:
    client = raw()
    client.send((7, "exists", 0, b"k"), message, (8, "exists", 0, b"k"))
    assert client.receive() == (7, "ok", False)
    assert client.receive()[:2] == (0, "protocol")
    assert client.receive() is None


def test_frame_above_the_limit_after_the_hello(raw: Any) -> None:
    client, neighbour = raw(), raw()
    client.socket.sendall((2**31).to_bytes(4, "big"))
    _, code, sentence = client.receive()
    assert code == "protocol"
    assert "2,147,483,648" in sentence
    assert client.receive() is None
    neighbour.send((1, "exists", 0, b"k"))
    assert neighbour.receive()[:2] == (1, "ok")


def test_wrong_cluster_and_role_are_refused(raw: Any) -> None:
    for fields in ({"role": "client", "cluster": "another", "release": ""}, {"role": "peer", "release": ""}):
        client = raw(hello=False)
        client.send(("keyspace", 1, fields))
        assert client.receive()[:2] == (0, "protocol")


def test_a_newer_client_is_answered_with_the_nodes_version(raw: Any) -> None:
    client = raw(hello=False)
    client.send(("keyspace", 99, {"role": "client", "release": "9"}))
    assert client.receive()[1] == 1


def test_requests_are_answered_by_id_and_writes_in_order(raw: Any, engine: RemoteEngine) -> None:
    client = raw()
    client.send(*[(number, "append", 0, b"log", value(b"%d," % number), None) for number in range(1, 301)])
    client.send((1000, "exists", 0, b"nothing"))
    answers = [client.receive() for _ in range(301)]
    # The read overtakes writes that wait for the disk, or comes last: both are legal, and its id tells.
    assert (1000, "ok", False) in answers
    answers.remove((1000, "ok", False))
    assert [request_id for request_id, _, _ in answers] == list(range(1, 301))
    assert engine.execute("get", 0, b"log").endswith(b"".join(b"%d," % number for number in range(1, 301)))


def test_client_that_ends_its_side_still_gets_its_answers(raw: Any) -> None:
    client = raw()
    client.send(*[(number, "set", 0, b"k", value(b"v"), None, "always") for number in range(1, 50)])
    client.socket.shutdown(socket.SHUT_WR)
    answers = []
    while (message := client.receive()) is not None:
        answers.append(message)
    assert answers == [(number, "ok", True) for number in range(1, 50)]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory of a process from /proc")
def test_client_that_never_reads_costs_no_memory_and_holds_up_nobody(
    shared_node: RunningNode, raw: Any, engine: RemoteEngine
) -> None:
    put(engine, b"large", b"x" * 2**20)
    for _ in range(20):
        engine.execute("get", 0, b"large")
    before_bytes = resident_bytes(shared_node.pid)
    client = raw()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    client.send(*[(number, "get", 0, b"large") for number in range(1, 2001)])
    for _ in range(200):
        assert engine.execute("exists", 0, b"large") is True
    assert resident_bytes(shared_node.pid) - before_bytes < 32 * 2**20
    # It gets all of it in the end.
    for number in range(1, 101):
        assert client.receive()[:2] == (number, "ok")


def test_more_writes_in_flight_than_one_connection_may_have(raw: Any) -> None:
    client = raw()
    total = 5000
    sender = threading.Thread(
        target=client.send, args=[(number, "incr", 0, b"many", 1, 0, None, 0) for number in range(1, total + 1)]
    )
    sender.start()
    answers = [client.receive() for _ in range(total)]
    sender.join()
    assert answers == [(number, "ok", number) for number in range(1, total + 1)]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
def test_clients_that_go_leave_nothing_behind(shared_node: RunningNode, raw: Any, engine: RemoteEngine) -> None:
    engine.execute("exists", 0, b"k")
    folder = f"/proc/{shared_node.pid}/fd"
    before = len(os.listdir(folder))
    clients = [RawClient(shared_node.address, hello=number % 2 == 0) for number in range(100)]
    assert until(lambda: len(os.listdir(folder)) >= before + 100)
    for number, client in enumerate(clients):
        if number % 3 == 0:
            client.socket.sendall(b"\x00\x00\x10\x00half a frame")
        client.close()
    assert until(lambda: len(os.listdir(folder)) <= before)


def test_management_command_runs_the_same_node(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "django", "keyspace_node", "--settings=tests.settings"]
    command += ["--id", "n7", "--listen", "127.0.0.1:0", "--data", str(tmp_path / "n7"), "--durability", "commit"]
    root = Path(__file__).resolve().parent.parent.parent
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            printed = []
            while not (line := process.stdout.readline().strip()).startswith("address"):
                assert line, process.stderr.read()
                printed.append(line)
            location = line.split()[1]
            engine = RemoteEngine(parse_location(location).endpoints)
            put(engine, b"k")
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
    assert printed[0] == "Node n7 is ready"
    assert f"process      {process.pid}" in printed
    assert "durability   commit" in printed
    assert "tls          none" in printed

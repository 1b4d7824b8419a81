"""The client against real nodes: outages, deadlines, threads, forks and event loops."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from django_keyspace.addresses import Endpoint, parse_location
from django_keyspace.backend.transport import RemoteEngine
from django_keyspace.exceptions import (
    ConfigurationError,
    DeadlineExceeded,
    InvalidKey,
    KeyspaceError,
    MissingKey,
    NoConnection,
    ProtocolError,
    UnknownOutcome,
)
from django_keyspace.testing import RunningNode, running_node
from tests.node.conftest import engine_for
from tests.node.test_node import put, until, value

pytestmark = pytest.mark.node

Call = Callable[..., Any]


def blocking(engine: RemoteEngine, *call: Any) -> Any:
    return engine.execute(*call)


def on_a_loop(engine: RemoteEngine, *call: Any) -> Any:
    return asyncio.run(engine.aexecute(*call))


both_ways = pytest.mark.parametrize("do", [blocking, on_a_loop])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def open_descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")


# --- Nodes that are not there, or are someone else


@both_ways
def test_node_that_is_not_there(do: Call) -> None:
    engine = RemoteEngine([Endpoint("127.0.0.1", free_port())])
    began_s = time.monotonic()
    for call in (("get", 0, b"k"), ("delete", 0, b"k")):
        with pytest.raises(
            NoConnection, match=r"No node answers at 127\.0\.0\.1:\d+ .*manage\.py keyspace_node --listen"
        ):
            do(engine, *call)
    assert time.monotonic() - began_s < 3


@both_ways
def test_unix_socket_and_name_that_are_not_there(do: Call, tmp_path: Path) -> None:
    for endpoint in (Endpoint(path=str(tmp_path / "node.sock")), Endpoint("no-such-host.invalid", 7080)):
        with pytest.raises(NoConnection, match="No node answers"):
            do(RemoteEngine([endpoint]), "get", 0, b"k")


class Impostor:
    """A server that is no node: answers every client with the same bytes, or not at all."""

    def __init__(self, answer: bytes | None) -> None:
        self._answer = answer
        self._kept: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = Endpoint("127.0.0.1", self._listener.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._answer is None:
                self._kept.append(client)
                continue
            with client:
                client.recv(1000)
                client.sendall(self._answer)

    def close(self) -> None:
        # Closing alone would leave the thread in accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for client in self._kept:
            client.close()


@both_ways
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", ProtocolError),
        (b"-ERR unknown command\r\n", ProtocolError),
        (b"\x00\x00\x00\x01\xc0", ProtocolError),
        (b"", NoConnection),
    ],
)
def test_server_that_is_no_node(do: Call, answer: bytes, error: type[Exception]) -> None:
    impostor = Impostor(answer)
    try:
        with pytest.raises(error, match=str(impostor.endpoint)):
            do(RemoteEngine([impostor.endpoint]), "delete", 0, b"k")
    finally:
        impostor.close()


@both_ways
def test_server_that_never_says_anything(do: Call) -> None:
    impostor = Impostor(None)
    try:
        began_s = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="did not answer within 300 ms"):
            do(RemoteEngine([impostor.endpoint], timeout_ms=300), "delete", 0, b"k")
        assert 0.25 < time.monotonic() - began_s < 3
    finally:
        impostor.close()


@both_ways
def test_single_node_among_several_addresses(do: Call, shared_node: RunningNode) -> None:
    endpoints = [*parse_location(shared_node.location).endpoints, Endpoint("127.0.0.1", free_port())]
    with pytest.raises(ConfigurationError, match="list one address only"):
        do(RemoteEngine(endpoints), "get", 0, b"k")


@both_ways
def test_errors_of_the_node_have_their_class_and_leave_the_connection_usable(do: Call, engine: RemoteEngine) -> None:
    for _ in range(3):
        with pytest.raises(MissingKey, match=r"Nothing was changed|no "):
            do(engine, "incr", 0, b"none", 1, None, None, 0)
        with pytest.raises(InvalidKey):
            do(engine, "get", 0, b"")
        with pytest.raises(KeyspaceError):
            do(engine, "get", 0, object())
    assert do(engine, "exists", 0, b"none") is False


# --- Nodes that stop


@both_ways
def test_node_that_is_stopped_in_mid_call(do: Call, node: RunningNode) -> None:
    engine = engine_for(node, timeout_ms=300)
    put(engine_for(node), b"k")

    async def on_one_loop() -> None:
        assert await engine.aexecute("exists", 0, b"k") is True
        node.send_signal(signal.SIGSTOP)
        with pytest.raises(DeadlineExceeded, match="300 ms"):
            await engine.aexecute("get", 0, b"k")
        with pytest.raises(UnknownOutcome, match="may have happened"):
            await engine.aexecute("delete", 0, b"k")
        node.send_signal(signal.SIGCONT)
        while await engine.aexecute("exists", 0, b"k"):  # the write had arrived, and is done now
            await asyncio.sleep(0.005)

    began_s = time.monotonic()
    if do is on_a_loop:
        asyncio.run(on_one_loop())
    else:
        assert engine.execute("exists", 0, b"k") is True
        node.send_signal(signal.SIGSTOP)
        with pytest.raises(UnknownOutcome, match="may have happened"):
            engine.execute("delete", 0, b"k")
        with pytest.raises(DeadlineExceeded):
            engine.execute("get", 0, b"k")
        node.send_signal(signal.SIGCONT)
        until(lambda: engine_for(node).execute("exists", 0, b"k") is False)
    assert time.monotonic() - began_s < 5


@both_ways
def test_write_to_a_node_that_dies_and_stays_away_has_an_unknown_outcome(do: Call, node: RunningNode) -> None:
    engine = engine_for(node, timeout_ms=1500)
    assert engine.execute("exists", 0, b"k") is False
    # The node is stopped with the request in its socket, then killed: nobody can know.
    node.send_signal(signal.SIGSTOP)

    async def write() -> None:
        await engine.aexecute("set", 0, b"k", value(b"v"), None, "always")

    async def with_a_connection() -> None:
        await engine.aexecute("exists", 0, b"k")
        node.send_signal(signal.SIGSTOP)
        asyncio.get_running_loop().call_later(0.2, node.kill)
        await write()

    if do is on_a_loop:
        node.send_signal(signal.SIGCONT)
        with pytest.raises(UnknownOutcome):
            asyncio.run(with_a_connection())
    else:
        killer = threading.Timer(0.2, node.kill)
        killer.start()
        with pytest.raises(UnknownOutcome):
            engine.execute("set", 0, b"k", value(b"v"), None, "always")
        killer.join()


def test_reads_and_new_writes_survive_a_restart_of_the_node(node: RunningNode) -> None:
    engine = engine_for(node)
    put(engine, b"k")
    for end in (node.kill, node.stop):
        end()
        node.start()
        put(engine, b"k2")  # the pooled connection is dead, which is seen before anything is sent
        end()
        node.start()
        assert engine.execute("exists", 0, b"k") is True  # seen by the read itself, which is done again


async def test_restart_under_one_event_loop(node: RunningNode) -> None:
    engine = engine_for(node)
    assert await engine.aexecute("set", 0, b"k", value(b"v"), None, "always") is True
    for _ in range(3):
        await asyncio.to_thread(node.kill)
        await asyncio.to_thread(node.start)
        found = await asyncio.gather(*(engine.aexecute("exists", 0, b"k") for _ in range(50)))
        assert found == [True] * 50


def test_orderly_restart_under_load_loses_and_doubles_nothing(node: RunningNode) -> None:
    """A goodbye tells which writes were not done: they are sent to the next process, so every call succeeds once."""
    engine = engine_for(node)
    done, failed, stop = [0] * 4, [], threading.Event()

    def count(worker: int) -> None:
        while not stop.is_set():
            try:
                engine.execute("incr", 0, b"n", 1, 0, None, 0)
                done[worker] += 1
            except NoConnection:  # there was no node for longer than a call tries
                time.sleep(0.01)
            except KeyspaceError as error:
                failed.append(error)

    threads = [threading.Thread(target=count, args=[worker]) for worker in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        before = sum(done)
        until(lambda before=before: sum(done) > before + 200)
        assert node.stop() == 0
        node.start()
    stop.set()
    for thread in threads:
        thread.join()
    assert failed == []
    # The breaker of the first engine may still be open.
    assert engine_for(node).execute("incr", 0, b"n", 0, 0, None, 0) == sum(done)


# --- Threads and forks


def test_threads_share_the_pool_and_never_see_each_others_answers(engine: RemoteEngine) -> None:
    def work(worker: int) -> None:
        for number in range(200):
            key, payload = b"%d-%d" % (worker, number), b"<%d-%d>" % (worker, number)
            put(engine, key, payload)
            assert engine.execute("get", 0, key).endswith(payload)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))
    assert len(engine._blocking._idle) <= 16


INTERRUPTS = """
import signal, sys
from django_keyspace.backend.transport import remote_engine

class TimeIsUp(Exception):
    pass

def interrupt(*_):
    raise TimeIsUp

engine = remote_engine(sys.argv[1])
for key, payload in ((b"a", b"first"), (b"b", b"second")):
    engine.execute("set", 0, key, (1, 0, payload), None, "always")
signal.signal(signal.SIGALRM, interrupt)
interrupted = 0
for _ in range(300):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0002)
        while True:
            if not engine.execute("get", 0, b"a").endswith(b"first"):
                sys.exit("another call's answer")
    except TimeIsUp:
        interrupted += 1
    if not engine.execute("get", 0, b"b").endswith(b"second"):
        sys.exit("another call's answer")
print(interrupted)
"""


def test_interrupted_call_spoils_nothing(shared_node: RunningNode) -> None:
    """What a task queue's time limit does: an exception out of a signal handler, between request and answer."""
    # Not measured: an exception within the measuring code would leave its lock taken for ever.
    environment = {name: word for name, word in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTS, shared_node.location],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )
    assert done.stdout.strip() == "300", done.stderr


FORKS = """
import os, sys, threading
from django_keyspace.backend.transport import remote_engine

engine = remote_engine(sys.argv[1])
stop = threading.Event()

def work():
    while not stop.is_set():
        engine.execute("get", 0, b"parent")

engine.execute("set", 0, b"parent", (1, 0, b"parent"), None, "always")
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
children = []
for number in range(8):
    child = os.fork()
    if child == 0:
        key = b"child-%d" % number
        for _ in range(100):
            engine.execute("incr", 0, b"children", 1, 0, None, 0)
            engine.execute("set", 0, key, (1, 0, key), None, "always")
            if not engine.execute("get", 0, key).endswith(key):
                os._exit(3)
        os._exit(0)
    children.append(child)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
stop.set()
for thread in threads:
    thread.join()
print(codes, engine.execute("incr", 0, b"children", 0, 0, None, 0))
"""


def test_forked_children_have_connections_of_their_own(shared_node: RunningNode, engine: RemoteEngine) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKS, shared_node.location], capture_output=True, text=True, timeout=100
    )
    assert done.stdout.strip() == f"{[0] * 8} 800", done.stderr


INHERITED = """
import asyncio, os, sys
from django_keyspace.backend.transport import remote_engine

engine = remote_engine(sys.argv[1])

def sockets():
    links = (os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if name.isdigit()
             and os.path.islink(f"/proc/self/fd/{name}"))
    return sum(link.startswith("socket:") for link in links)

async def main():
    before = sockets()
    await engine.aexecute("exists", 0, b"k")
    engine.execute("exists", 0, b"k")
    assert sockets() == before + 2, sockets()
    child = os.fork()
    if child == 0:
        os._exit(0 if sockets() == before else 3)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(code, await engine.aexecute("exists", 0, b"k"), engine.execute("exists", 0, b"k"))

asyncio.run(main())
"""


@needs_proc
def test_forked_children_close_their_copies_of_the_parents_sockets(shared_node: RunningNode) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INHERITED, shared_node.location], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "0 False False", done.stderr


# --- Event loops


async def test_a_thousand_tasks_share_one_connection(engine: RemoteEngine) -> None:
    async def work(number: int) -> None:
        key = b"%d" % number
        await engine.aexecute("set", 0, key, value(key), None, "always")
        assert (await engine.aexecute("get", 0, key)).endswith(key)

    await asyncio.gather(*(work(number) for number in range(1000)))
    assert len(engine._loops._connections) == 1


@needs_proc
def test_a_thousand_loops_leak_no_descriptor(engine: RemoteEngine) -> None:
    get = async_to_sync(engine.aexecute)
    get("exists", 0, b"k")
    before = open_descriptors()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        for _ in range(1000):
            assert get("exists", 0, b"k") is False
        assert open_descriptors() <= before + 2
    assert len(engine._loops._connections) <= 1


@needs_proc
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_loops_that_are_only_closed_leak_no_descriptor(engine: RemoteEngine) -> None:
    """Nobody told these loops to shut down their generators: the next loop cleans up after them."""
    before = open_descriptors()
    for _ in range(100):
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(engine.aexecute("exists", 0, b"k")) is False
        loop.close()
    assert open_descriptors() <= before + 3


def test_uvloop_on_the_clients_side(engine: RemoteEngine) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def work() -> list[Any]:
        return await asyncio.gather(*(engine.aexecute("incr", 0, b"u", 1, 0, None, 0) for _ in range(100)))

    for _ in range(3):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work())
    assert engine.execute("incr", 0, b"u", 0, 0, None, 0) == 300


async def test_cancelled_call_spoils_nothing(engine: RemoteEngine) -> None:
    await engine.aexecute("set", 0, b"a", value(b"first"), None, "always")
    for _ in range(50):
        tasks = [asyncio.ensure_future(engine.aexecute("get", 0, b"a")) for _ in range(10)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(record, asyncio.CancelledError) for record in found[::2])
        assert all(record.endswith(b"first") for record in found[1::2])
    assert not next(iter(engine._loops._connections.values()))._waiting


async def test_cancelled_first_call_does_not_cancel_the_connection_of_the_others(engine: RemoteEngine) -> None:
    tasks = [asyncio.ensure_future(engine.aexecute("exists", 0, b"k")) for _ in range(5)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == [False] * 4


async def test_large_requests_of_many_tasks(engine: RemoteEngine) -> None:
    payload = b"x" * 1_000_000

    async def work(number: int) -> None:
        await engine.aexecute("set", 0, b"large%d" % number, value(payload), None, "always")
        assert len(await engine.aexecute("get", 0, b"large%d" % number)) > len(payload)

    await asyncio.gather(*(work(number) for number in range(40)))


def test_close_and_go_on(engine: RemoteEngine) -> None:
    async def work() -> None:
        assert await engine.aexecute("exists", 0, b"k") is False
        engine.close()
        assert await engine.aexecute("exists", 0, b"k") is False

    asyncio.run(work())
    engine.execute("exists", 0, b"k")
    engine.close()
    assert not engine._blocking._idle
    assert engine.execute("exists", 0, b"k") is False


def test_running_node_leaves_no_process_behind() -> None:
    with pytest.raises(RuntimeError), running_node() as node:
        pid = node.pid
        raise RuntimeError
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not node.data.exists()

"""Exactly once: copies, broken connections, kills, forks, and the sessions of a client."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any

import pytest

from django_keyspace.addresses import Endpoint, parse_location
from django_keyspace.backend import sessions
from django_keyspace.backend.sessions import ClientSession, Request, Sessions
from django_keyspace.backend.transport import RemoteEngine
from django_keyspace.operations import SESSION_WINDOW
from django_keyspace.testing import RunningNode
from tests.node.conftest import engine_for
from tests.node.test_node import until, value

pytestmark = pytest.mark.node

COUNT = ("incr", 0, b"n", 1, 0, None, 0)
LOOK = ("incr", 0, b"n", 0, 0, None, 0)
LONG_MS = 60_000

Call = Callable[..., Any]


def blocking(engine: RemoteEngine, *call: Any) -> Any:
    return engine.execute(*call)


def on_a_loop(engine: RemoteEngine, *call: Any) -> Any:
    return asyncio.run(engine.aexecute(*call))


both_ways = pytest.mark.parametrize("do", [blocking, on_a_loop])


class Proxy:
    """Between clients and a node; does not take the bytes as they are.

    Arguments:
        node: where to connect to.
        copies: every byte of a client goes to the node so many times, each on a connection of its own. The answers of the
            first one go back.

    Attributes:
        silent: answers are read and thrown away while this is set, and a connection ends when one was.
        hold: answers are kept back for as long as this is set.
    """

    def __init__(self, node: RunningNode, copies: int = 1) -> None:
        (self._target,) = parse_location(node.location).endpoints
        self._copies = copies
        self.silent = 0
        self.hold = False
        self.cut = 0
        self.connections = 0
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = Endpoint("127.0.0.1", self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                ups = [
                    socket.create_connection((self._target.host, self._target.port), 20) for _ in range(self._copies)
                ]
            except OSError:
                client.close()
                continue
            self.connections += 1
            self._sockets += [client, *ups]
            for up in ups:
                up.settimeout(None)
            threading.Thread(target=self._pump, args=(client, ups), daemon=True).start()
            threading.Thread(target=self._back, args=(ups[0], client), daemon=True).start()
            for up in ups[1:]:
                threading.Thread(target=self._back, args=(up, None), daemon=True).start()

    def _pump(self, client: socket.socket, ups: list[socket.socket]) -> None:
        try:
            while data := client.recv(65_536):
                for up in ups:
                    up.sendall(data)
        except OSError:
            pass
        for up in ups:
            end(up)

    def _back(self, up: socket.socket, client: socket.socket | None) -> None:
        greeted = False
        try:
            while data := up.recv(65_536):
                if client is None or (greeted and self.hold):
                    continue
                if greeted and self.silent:
                    self.silent -= 1
                    self.cut += 1
                    break
                greeted = True
                client.sendall(data)
        except OSError:
            pass
        end(up)
        if client is not None:
            end(client)

    def close(self) -> None:
        end(self._listener)
        for each in self._sockets:
            end(each)


def end(each: socket.socket) -> None:
    try:
        each.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    each.close()


@pytest.fixture
def through(request: pytest.FixtureRequest) -> Iterator[Callable[..., tuple[Proxy, RemoteEngine]]]:
    """Makes a proxy of a node and an engine that uses it."""
    made: list[Any] = []

    def make(node: RunningNode, copies: int = 1) -> tuple[Proxy, RemoteEngine]:
        proxy = Proxy(node, copies)
        engine = RemoteEngine([proxy.endpoint], timeout_ms=LONG_MS)
        made.extend([proxy, engine])
        return proxy, engine

    yield make
    for each in made:
        each.close()


# --- Copies and broken connections


@both_ways
def test_every_write_comes_twice_and_is_done_once(
    do: Call, shared_node: RunningNode, engine: RemoteEngine, through: Any
) -> None:
    _, doubled = through(shared_node, copies=2)
    for number in range(1, 51):
        assert do(doubled, *COUNT) == number
    assert do(doubled, "append", 0, b"text", value(b"x"), None) == 1
    assert do(doubled, "append", 0, b"text", value(b"y"), None) == 2
    assert engine.execute(*LOOK) == 50


@both_ways
def test_the_answer_is_lost_again_and_again(
    do: Call, shared_node: RunningNode, engine: RemoteEngine, through: Any
) -> None:
    proxy, unlucky = through(shared_node)
    assert unlucky.execute("exists", 0, b"n") is False
    for number in range(1, 11):
        proxy.silent = number % 3
        assert do(unlucky, *COUNT) == number
    assert proxy.cut == 10
    assert engine.execute(*LOOK) == 10
    engine.execute("set", 0, b"k", value(b"v"), None, "always")
    proxy.silent = 1
    assert do(unlucky, "remove", 0, b"k").endswith(b"v")
    proxy.silent = 1
    assert do(unlucky, "delete", 0, b"k") is False
    proxy.silent = 1
    assert do(unlucky, "set", 0, b"k", value(b"v"), None, "absent") is True


@both_ways
def test_killed_between_commit_and_answer(do: Call, node: RunningNode, through: Any) -> None:
    proxy, cut = through(node)
    assert cut.execute("exists", 0, b"n") is False
    with ThreadPoolExecutor(4) as pool:
        for expected in (4, 8):
            proxy.hold = True
            calls = [pool.submit(do, cut, *COUNT) for _ in range(4)]
            direct = engine_for(node, timeout_ms=LONG_MS)
            until(lambda direct=direct, expected=expected: direct.execute(*LOOK) == expected)
            direct.close()
            proxy.hold = False
            node.kill()
            node.start()
            assert sorted(call.result(60) for call in calls) == list(range(expected - 3, expected + 1))
    direct = engine_for(node)
    assert direct.execute(*LOOK) == 8
    direct.close()


def test_many_sequences_at_a_time(shared_node: RunningNode, engine: RemoteEngine, through: Any) -> None:
    """More than one session may have under way, in threads and on a loop, while connections break."""
    proxy, unlucky = through(shared_node)
    amount = SESSION_WINDOW + 500

    async def on_one_loop() -> list[int]:
        await unlucky.aexecute("exists", 0, b"n")
        proxy.silent = 2
        return await asyncio.gather(*(unlucky.aexecute(*COUNT) for _ in range(amount)))

    with ThreadPoolExecutor(8) as pool:
        threads = [pool.submit(unlucky.execute, *COUNT) for _ in range(200)]
        numbers = asyncio.run(on_one_loop()) + [call.result(60) for call in threads]
    assert sorted(numbers) == list(range(1, amount + 201))
    assert engine.execute(*LOOK) == amount + 200
    assert proxy.cut == 2


# --- Forks


FORK = """
import os, sys
from django_keyspace.backend.transport import remote_engine

engine = remote_engine(sys.argv[1])
sessions = engine._blocking._sessions

def count(times):
    for _ in range(times):
        engine.execute("incr", 0, b"n", 1, 0, None, 0)
    return sessions._current.id

own = count(3)
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        os._exit(0 if count(5) != own else 3)
    children.append(child)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
print(codes, count(2) == own, engine.execute("incr", 0, b"n", 0, 0, None, 0))
"""


def test_forked_children_have_sessions_of_their_own(shared_node: RunningNode, engine: RemoteEngine) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK, shared_node.location], capture_output=True, text=True, timeout=100
    )
    assert done.stdout.strip() == "[0, 0, 0] True 20", done.stderr


def test_a_fork_that_nobody_announced_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Sessions()
    mine.met(1_000)
    taken = mine.take()
    assert taken is not None
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert mine.take() is None  # the child has met no node
    mine.met(1_000)
    other = mine.take()
    assert other is not None and other[0].id != taken[0].id


# --- Expiry


@both_ways
@pytest.mark.parametrize("age_s", [0.0, 2 * sessions.FRESH_S])
def test_a_session_that_has_ended_is_renewed_without_a_word(do: Call, age_s: float, engine: RemoteEngine) -> None:
    assert engine.execute(*COUNT) == 1
    mine = engine._blocking._sessions
    mine._current = old = ClientSession(1_000_000)  # as if the node had forgotten it long ago
    old.began_s = monotonic() - age_s
    assert do(engine, *COUNT) == 2
    assert mine._current is not None and mine._current is not old
    assert engine.execute(*LOOK) == 2


# --- A client's sessions, without a node


def test_sequences_and_the_lowest_that_is_out() -> None:
    mine = Sessions()
    assert mine.take() is None  # no node was met
    mine.met(1_700_000_000_000)
    places = [mine.take() for _ in range(4)]
    session = places[0][0]
    assert [place[1:] for place in places] == [(1, 1), (2, 1), (3, 1), (4, 1)]
    assert session.id[:8] >= (1_700_000_000_000).to_bytes(8, "big") and len(session.id) == 24
    mine.give_back(session, 1)
    mine.give_back(session, 3)
    assert mine.take() == (session, 5, 2)
    for sequence in (2, 4, 5):
        mine.give_back(session, sequence)
    assert mine.take() == (session, 6, 6)


def test_one_write_that_takes_long_does_not_stop_the_others() -> None:
    mine = Sessions()
    mine.met(1_000)
    slow = mine.take()
    for _ in range(SESSION_WINDOW - 1):
        session, sequence, lowest = mine.take()
        assert session is slow[0] and sequence - lowest < SESSION_WINDOW
        mine.give_back(session, sequence)
    session, sequence, lowest = mine.take()
    assert session is not slow[0] and (sequence, lowest) == (1, 1)


def test_an_idle_session_is_not_used_again() -> None:
    mine = Sessions()
    mine.met(1_000)
    session, sequence, _ = mine.take()
    session.used_s -= sessions.IDLE_S_MAX + 1
    assert mine.take()[0] is session  # something is out: the lowest must be told
    mine.give_back(session, sequence)
    mine.give_back(session, 2)
    session.used_s -= sessions.IDLE_S_MAX + 1
    assert mine.take()[0] is not session


def test_reads_and_nodes_without_sessions_are_asked_as_ever() -> None:
    mine = Sessions()
    mine.met(1_000)
    assert Request(mine, "get", (0, b"k")).parts() == ("get", (0, b"k"))
    mine.met(None)
    request = Request(mine, "delete", (0, b"k"))
    assert request.parts() == ("delete", (0, b"k"))
    assert not request.has_session


def test_a_requests_place_stays_until_it_ends() -> None:
    mine = Sessions()
    mine.met(1_000)
    request = Request(mine, "delete", (0, b"k"))
    first = request.parts()
    request.again = True
    name, arguments = request.parts()
    assert (name, arguments) == ("once", (*first[1][:3], True, ("delete", 0, b"k"), None))
    assert mine._current.out
    request.end()
    assert not mine._current.out

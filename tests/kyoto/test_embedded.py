"""Embedded servers: real node processes, their ends, and that none is left behind."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from django_keyspace.backend.kyoto.embedded import PORTS, free_port, node_flags
from django_keyspace.kyoto import (
    KT_JSON,
    EmbeddedServer,
    EmbeddedTokyoTyrantServer,
    ImproperlyConfigured,
    KyotoTycoon,
    KyotoTycoonError,
    ServerConnectionError,
    TokyoTyrant,
)

pytestmark = pytest.mark.node

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 30.0
Make = Callable[..., Any]


def await_(condition: Callable[[], Any], what: str) -> Any:
    """Wait until a condition holds. What it answered."""
    give_up_s = time.monotonic() + WAIT_S
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < give_up_s, f"{what} within {WAIT_S} s"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether there is such a process. One that has ended and that nobody has waited for counts as gone."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True


def monitors() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "keyspace-embedded-server"]


@pytest.fixture
def server() -> Iterator[Make]:
    """Makes servers that are stopped in the end."""
    made: list[Any] = []

    def make(cls: Any = EmbeddedServer, **arguments: Any) -> Any:
        made.append(cls(**arguments))
        return made[-1]

    yield make
    for one in made:
        if one.pid is not None or one._node is not None:
            one.stop()
    assert not monitors()


@pytest.mark.parametrize(
    ("cls", "client_class", "answer"),
    [(EmbeddedServer, KyotoTycoon, 1), (EmbeddedTokyoTyrantServer, TokyoTyrant, True)],
)
def test_the_documented_example(cls: Any, client_class: Any, answer: Any, server: Make) -> None:
    embedded = server(cls)
    assert embedded.pid is None
    assert embedded.run() is True
    pid = embedded.pid
    assert pid is not None and is_alive(pid)
    assert PORTS[0] <= embedded.port <= PORTS[1]
    client = embedded.client
    assert type(client) is client_class and embedded.client is client
    assert client.set("k1", "v1") == answer
    assert client.get("k1") == "v1"
    assert embedded.stop() is True
    assert embedded.pid is None and not is_alive(pid)


def test_a_server_that_is_not_running(server: Make, caplog: pytest.LogCaptureFixture) -> None:
    embedded = server()
    with pytest.raises(KyotoTycoonError, match="not running"):
        _ = embedded.client
    assert embedded.stop() is False
    assert "not running" in caplog.text


def test_running_twice_and_stopping_twice(server: Make, caplog: pytest.LogCaptureFixture) -> None:
    embedded = server()
    assert embedded.run() is True and embedded.run() is False
    assert "running already" in caplog.text
    assert embedded.stop() is True and embedded.stop() is False


def test_memory_is_gone_after_a_stop_and_the_port_is_kept(server: Make) -> None:
    embedded = server(database="%")
    embedded.run()
    folder, port = embedded.client.path, embedded.port
    embedded.client["k"] = "v"
    embedded.stop()
    assert not os.path.exists(folder)
    embedded.run()
    assert embedded.port == port and len(embedded.client) == 0


def test_a_folder_stays(server: Make, tmp_path: Path) -> None:
    embedded = server(database=tmp_path / "data.kct#bnum=1000", server_args=["--durability=commit"])
    embedded.run()
    embedded.client["k"] = "v"
    assert embedded.client.report()["conf_durability"] == b"commit"
    embedded.stop()
    assert (tmp_path / "data.kct").is_dir()
    with EmbeddedServer(database=str(tmp_path / "data.kct"), port=free_port("127.0.0.1")) as other:
        assert other.client["k"] == "v"
        taken = server(database=str(tmp_path / "data.kct"))
        with pytest.raises(KyotoTycoonError, match="in use by node"):
            taken.run()
        assert taken.pid is None and taken.stop() is False


def test_several_databases(server: Make) -> None:
    embedded = server(database=["*"] * 20, server_args=["*"], serializer=KT_JSON)
    embedded.run()
    assert embedded.client.set("k", {"a": 1}, db=20) == 1
    assert embedded.client["k", 20] == {"a": 1} and "k" not in embedded.client
    with pytest.raises(KyotoTycoonError):
        embedded.client.set("k", 1, db=21)


@pytest.mark.parametrize("cls", [EmbeddedServer, EmbeddedTokyoTyrantServer])
def test_a_server_that_dies_is_started_again(cls: Any, server: Make, caplog: pytest.LogCaptureFixture) -> None:
    embedded = server(cls)
    embedded.run()
    client = embedded.client
    client["k"] = "v"
    first = embedded.pid
    os.kill(first, signal.SIGKILL)
    second = await_(lambda: embedded.pid if embedded.pid not in (None, first) else None, "a new process")

    def answers() -> bool:
        try:
            return bool(client.get("k") == "v")
        except ServerConnectionError:
            return False

    await_(answers, "an answer")
    assert embedded.client is client and embedded.pid == second != first
    assert "started again" in caplog.text
    assert embedded.stop() is True and not is_alive(second)


def test_a_run_right_after_a_stop_has_one_process(server: Make, caplog: pytest.LogCaptureFixture) -> None:
    """The ancestor's old monitor woke up and started a second one, which nobody ever stopped."""
    embedded = server()
    embedded.run()
    pids = [embedded.pid]
    embedded.stop()
    embedded.run()
    pids.append(embedded.pid)
    assert len(monitors()) == 1
    embedded.stop()
    assert pids[0] != pids[1] and not any(map(is_alive, pids))
    assert not monitors() and "started again" not in caplog.text


def test_a_server_that_always_dies_stays_down(server: Make, caplog: pytest.LogCaptureFixture) -> None:
    embedded = server()
    embedded.run()
    monitor = embedded._monitor
    monitor._started_at_s = [time.monotonic()] * 5
    with caplog.at_level(logging.ERROR, "django_keyspace.kyoto"):
        os.kill(embedded.pid, signal.SIGKILL)
        monitor.join(WAIT_S)
    assert not monitor.is_alive() and embedded.pid is None and "stays down" in caplog.text
    assert embedded.stop() is True
    assert embedded.run() is True and embedded.client.set("k", "v") == 1


def test_a_server_that_cannot_be_started_again(server: Make, caplog: pytest.LogCaptureFixture) -> None:
    embedded = server()
    embedded.run()
    monitor = embedded._monitor
    embedded._node._flags.append("--no-such-flag")
    with caplog.at_level(logging.ERROR, "django_keyspace.kyoto"):
        os.kill(embedded.pid, signal.SIGKILL)
        monitor.join(WAIT_S)
    assert not monitor.is_alive() and embedded.pid is None and "could not be started again" in caplog.text
    assert embedded.stop() is True


def test_a_port_that_is_taken(server: Make) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        embedded = server(port=listener.getsockname()[1])
        with pytest.raises(KyotoTycoonError, match="did not start"):
            embedded.run()
        assert embedded.pid is None and not monitors()


def test_a_random_port_that_somebody_else_takes_first(server: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        ports = iter([listener.getsockname()[1], free_port("127.0.0.1")])
        monkeypatch.setattr("django_keyspace.backend.kyoto.embedded.free_port", lambda host: next(ports))
        assert server().run() is True


@pytest.mark.parametrize(
    "arguments",
    [
        {"database": ""},
        {"database": []},
        {"database": ["/data/one", "/data/two"]},
        {"database": ["*", "/data/one"]},
        {"database": __file__},
        {"server_args": ["-wat"]},
        {"serializer": "yaml"},
    ],
    ids=str,
)
def test_servers_that_make_no_sense(arguments: dict[str, Any]) -> None:
    with pytest.raises(ImproperlyConfigured):
        EmbeddedServer(**arguments)


def test_arguments_of_the_ancestors_servers() -> None:
    flags, databases = node_flags(
        ["-scr", "a.lua", "-log", "x.log", "-dmn", "--max-bytes=2M", "*", "-th", "4", "casket.kct", "-scr", "b.lua"]
    )
    assert flags == ["--max-bytes=2M", f"--scripts=a.lua{os.pathsep}b.lua"]
    assert databases == ["*", "casket.kct"]


def run_program(code: str) -> subprocess.CompletedProcess[str]:
    program = textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_it_stops_at_exit() -> None:
    done = run_program("""
        from django_keyspace.kyoto import EmbeddedServer
        server = EmbeddedServer()
        server.run()
        print(server.pid, server.client.path)
    """)
    pid, folder = done.stdout.split()
    assert done.returncode == 0, done.stderr
    assert not is_alive(int(pid)) and not os.path.exists(folder)


def test_it_does_not_outlive_a_process_that_is_killed() -> None:
    done = run_program("""
        import os, signal
        from django_keyspace.kyoto import EmbeddedServer
        server = EmbeddedServer()
        server.run()
        print(server.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert done.returncode == -signal.SIGKILL, done.stderr
    await_(lambda: not is_alive(int(done.stdout)), "the end of the server")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_leaves_it_alone() -> None:
    done = run_program("""
        import os
        from django_keyspace.kyoto import EmbeddedServer, KyotoTycoonError
        server = EmbeddedServer()
        server.run()
        server.client["k"] = "v"
        child = os.fork()
        if not child:
            try:
                server.client
            except KyotoTycoonError:
                raise SystemExit(0 if server.pid is None and server.stop() is False else 2)
            raise SystemExit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(code, server.client["k"])
        server.stop()
    """)
    assert done.stdout.split() == ["0", "v"], done.stderr

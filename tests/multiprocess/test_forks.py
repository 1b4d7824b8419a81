"""Forks after the store was used: announced or not, quiet or busy, one or sixty."""

from __future__ import annotations

import http.client
import importlib.util
import socket
import subprocess
import sys
from contextlib import closing
from time import monotonic, sleep

import pytest

from tests.multiprocess.fleet import ROOT


@pytest.mark.stress
def test_fork_storm_with_busy_threads_counts_exactly_and_leaves_the_reader_table_clean(fleet, folder):
    told = fleet.run("forking.storm", measured=False, folder=folder, children=60, threads=4)

    assert told["troubles"] == []
    assert told["codes"] == [0] * 60
    assert told["swapped"] == told["counted"] == told["expected"] == 1200
    assert told["threads"] == told["by_threads"] > 0
    assert (told["slots"], told["stale"]) == (0, 0)


@pytest.mark.parametrize("how", ["os", "c", "uwsgi"])
def test_child_of_a_quiet_fork_opens_the_store_for_itself(fleet, folder, how):
    told = fleet.run("forking.fork_quietly", folder=folder, how=how)

    counts = [f"{n} {n + 1} read" for n in range(1, 13, 2)]
    assert told == counts


@pytest.mark.parametrize("how", ["c", "uwsgi"])
def test_child_of_an_unannounced_fork_in_mid_transaction_refuses_and_keeps_refusing(fleet, folder, how):
    told = fleet.run("forking.fork_busily", folder=folder, how=how)

    assert told["told"] == ["1 2 read", "UnsafeFork UnsafeFork UnsafeFork", "3 4 read"]
    assert told["warned"] == []


def test_fork_waits_for_a_transaction_a_bounded_time_and_warns_with_its_name(fleet, folder):
    told = fleet.run("forking.fork_busily", folder=folder, how="os")

    assert told["told"] == ["1 2 read", "UnsafeFork UnsafeFork UnsafeFork", "3 4 read"]
    (warned,) = told["warned"]
    assert warned.startswith("RuntimeWarning: Forking while transactions run on ")
    assert "(long_read)" in warned


def test_threads_of_an_unannounced_child_open_the_store_once(fleet, folder):
    told = fleet.run("forking.fork_and_use_in_threads", folder=folder)

    assert told == {"told": ["done"] * 20, "counted": 20 * 80}


def test_child_does_not_wait_for_locks_of_threads_that_it_did_not_inherit(fleet, folder):
    assert fleet.run("forking.fork_while_locks_are_held", measured=False, folder=folder) == "1"


def test_refused_child_can_end_normally(fleet, folder):
    assert fleet.run("forking.leave_normally", folder=folder) == {"code": 0, "after": "1 2 read"}


@pytest.mark.stress
@pytest.mark.skipif(importlib.util.find_spec("gunicorn") is None, reason="gunicorn is not installed")
def test_gunicorn_preload_counts_every_request_once(fleet, folder, tmp_path):
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "gunicorn", "--preload", "--workers", "3", "--threads", "2", "--bind", f"127.0.0.1:{port}",
        "--worker-tmp-dir", str(tmp_path), "--no-control-socket", "--log-level", "warning",
        "tests.multiprocess.actors.site:make_application()",
    ]  # fmt: skip
    environment = {**fleet.environment, "SITE_FOLDER": folder}
    server = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        _wait_for_port(port, server)
        answers = [_fetch(port) for _ in range(150)]
    finally:
        server.terminate()
        output = server.communicate(timeout=30)[0]
    numbers = sorted(int(answer.split()[0]) for answer in answers)
    workers = {answer.split()[1] for answer in answers}
    assert numbers == list(range(2, 152)), output  # the first one was counted before the fork
    assert len(workers) > 1, output
    assert str(server.pid) not in workers
    assert "Traceback" not in output and "Warning" not in output, output
    assert server.returncode == 0


def _wait_for_port(port: int, server: subprocess.Popen) -> None:
    deadline = monotonic() + 30
    while monotonic() < deadline and server.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            sleep(0.02)
    raise AssertionError(f"The server does not listen; exit code: {server.poll()}")


def _fetch(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with closing(connection):
        connection.request("GET", "/")
        response = connection.getresponse()
        body = response.read().decode()
        assert response.status == 200, body
        return body

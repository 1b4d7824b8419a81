"""The demo command, as a user runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

MANAGE = Path(__file__).resolve().parents[2] / "example_project" / "manage.py"


def environment(tmp_path: Path, **extra: str) -> dict[str, str]:
    """Return this process's environment without its own Django settings, and with a store of this test."""
    kept = {key: value for key, value in os.environ.items() if key not in ("DJANGO_SETTINGS_MODULE", "DEMO_NODE")}
    # The package may be tested from its source, without being installed.
    import_path = os.pathsep.join(entry for entry in (os.environ.get("PYTHONPATH"), str(MANAGE.parents[1])) if entry)
    ours = {"DEMO_CACHE": str(tmp_path / "cache"), "DEMO_NODE_DATA": str(tmp_path / "node"), "PYTHONPATH": import_path}
    ours["DEMO_CLUSTER_DATA"] = str(tmp_path / "cluster")
    return {**kept, **ours, **extra}


def run_demo(tmp_path: Path, *arguments: str, timeout_s: float = 100, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(MANAGE), "demo", *arguments],
        env=environment(tmp_path, **extra),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


@contextmanager
def running_demo(tmp_path: Path, *arguments: str, **extra: str):
    """Run the demo and give (process, its lines up to the address, the address); ends it whatever happens."""
    process = subprocess.Popen(
        [sys.executable, str(MANAGE), "demo", *arguments],
        env=environment(tmp_path, **extra),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip())
            if "Serving at " in line:
                yield process, lines, line.partition("Serving at ")[2].split()[0]
                break
        else:
            pytest.fail(f"the demo ended without serving: {lines}")
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def status_of(address: str) -> int:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(address, timeout=30) as response:
        return response.status


@pytest.mark.slow
def test_check_passes_on_the_embedded_store(tmp_path):
    done = run_demo(tmp_path, "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All of the site works." in done.stdout
    assert "/module/json/" in done.stdout
    assert not (tmp_path / "cache").exists(), "the check must use a cache folder of its own"


@pytest.mark.slow
@pytest.mark.node
def test_check_passes_on_a_node(tmp_path):
    done = run_demo(tmp_path, "--node", "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "keyspace://127.0.0.1:" in done.stdout
    assert "All of the site works." in done.stdout


@pytest.mark.slow
@pytest.mark.node
@pytest.mark.timeout(300)
def test_check_passes_on_a_cluster_whose_leader_is_killed(tmp_path):
    done = run_demo(tmp_path, "--cluster", "--check", timeout_s=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"keyspace://127\.0\.0\.1:\d+,127\.0\.0\.1:\d+,127\.0\.0\.1:\d+/0", done.stdout)
    assert re.search(
        r"n\d led and was killed; n\d led after [\d.]+ s, and [\d,]+ visits meanwhile were answered", done.stdout
    )
    assert "All of the site works." in done.stdout
    assert not (tmp_path / "cluster").exists(), "the check must use a folder of its own"


def test_a_taken_port_is_said_and_the_next_one_used(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with running_demo(tmp_path, "--port", str(port)) as (_, lines, address):
            assert f"Port {port} is taken" in "\n".join(lines)
            assert address != f"http://127.0.0.1:{port}/"
            assert status_of(address) == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(tmp_path, number):
    with running_demo(tmp_path, "--port", "0") as (process, _, address):
        assert status_of(address) == 200
        process.send_signal(number)
        assert process.wait(20) == 0
        assert "Traceback" not in process.stdout.read()


@pytest.mark.node
def test_ending_the_demo_ends_its_node(tmp_path):
    with running_demo(tmp_path, "--node", "--port", "0") as (process, lines, address):
        assert status_of(address) == 200
        location = next(line for line in lines if "keyspace://" in line).partition("keyspace://")[2]
        host, port = location.split()[0].partition("/")[0].split(":")
        socket.create_connection((host, int(port)), timeout=5).close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        for gone in (address.split("/")[2].split(":")[1], port):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((host, int(gone)), timeout=5)


@pytest.mark.node
def test_a_node_that_dies_ends_the_demo_with_a_sentence(tmp_path):
    with running_demo(tmp_path, "--node", "--port", "0") as (process, _, _):
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        if not children.exists():
            pytest.skip("finding the node's process needs Linux's /proc")
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_text().split("\0") for pid in children.read_text().split()}
        (node_pid,) = (pid for pid, command in commands.items() if "keyspace_node" in command)
        os.kill(int(node_pid), signal.SIGKILL)
        assert process.wait(30) == 1
        assert "The node ended by itself, exit code -9." in process.stdout.read()


class Visitor:
    """Somebody with cookies who presses buttons of the status page."""

    def __init__(self, address: str, logs: Path) -> None:
        self.logs = logs
        sys.path.count(str(MANAGE.parent)) or sys.path.insert(0, str(MANAGE.parent))
        from reader.browser import Browser

        self.browser = Browser(address)

    def nodes(self) -> dict[str, dict[str, object]]:
        return {row["name"]: row for row in self.data()["rows"]}

    def data(self) -> dict:
        return json.loads(self.browser.get("/status/data/").body)

    def press(self, do: str, name: str) -> None:
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', self.browser.get("/status/").body)
        fields = {"csrfmiddlewaretoken": token[1], "do": do, "node": self.nodes()[name]["address"]}
        assert self.browser.post("/status/switch/", fields).status == 200

    def wait_for(self, state: str) -> dict:
        give_up_s = time.monotonic() + 60
        while (data := self.data())["state"] != state:
            if time.monotonic() > give_up_s:
                logs = "\n\n".join(f"{log.name}:\n{log.read_text()[-1500:]}" for log in sorted(self.logs.glob("*.log")))
                pytest.fail(f"not {state}: {data}\n{logs}")
            time.sleep(0.05)
        return data

    def wait_for_page(self, path: str) -> None:
        give_up_s = time.monotonic() + 60
        while (answer := self.browser.get(path)).status != 200:
            assert time.monotonic() < give_up_s, answer.text

    def session(self) -> str:
        (value,) = (cookie.value for cookie in self.browser.cookies if cookie.name == "sessionid")
        return value


@pytest.mark.slow
@pytest.mark.node
@pytest.mark.timeout(240)
def test_a_cluster_without_a_majority_says_so_and_comes_back_and_keeps_its_data(tmp_path):
    with running_demo(tmp_path, "--cluster", "--port", "0", DEMO_TIMEOUT_MS="3000") as (process, _, address):
        visitor = Visitor(address, tmp_path / "cluster")
        assert visitor.wait_for("good")["kind"] == "cluster"
        second = run_demo(tmp_path, "--cluster", "--port", "0")
        assert (second.returncode, "is in use by node n" in second.stderr) == (1, True), second.stdout + second.stderr
        visitor.wait_for_page("/module/colorsys/")
        session = visitor.session()
        for name in ("n1", "n2"):
            visitor.press("kill", name)
        lost = visitor.wait_for("lost")
        assert "1 of 3 voters answer, and a majority is 2." in lost["reasons"]
        refused = visitor.browser.get("/")
        assert refused.status == 500
        assert "Something went wrong" in refused.text
        assert "Traceback" not in refused.body
        visitor.press("start", "n1")
        visitor.wait_for("trouble")
        visitor.wait_for_page("/most-read/")
        visitor.press("start", "n2")
        rows = visitor.wait_for("good")["rows"]
        visitor.wait_for_page("/module/colorsys/")
        assert visitor.session() == session
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert "[n1] has ended, exit code -9" in process.stdout.read()
        for gone in (address.split("/")[2].split(":")[1], *(row["address"].split(":")[1] for row in rows)):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", int(gone)), timeout=5)
    with running_demo(tmp_path, "--cluster", "--port", "0", DEMO_TIMEOUT_MS="30000") as (_, _, address):
        visitor = Visitor(address, tmp_path / "cluster")
        assert int(visitor.browser.get("/module/colorsys/").element("views")) > 2
        assert [row["address"] for row in visitor.data()["rows"]] == [row["address"] for row in rows]


def test_the_cache_outlives_the_server(tmp_path):
    with running_demo(tmp_path, "--port", "0") as (_, _, address):
        assert status_of(f"{address}module/colorsys/") == 200
    with running_demo(tmp_path, "--port", "0") as (_, _, address):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{address}module/colorsys/", timeout=30) as response:
            assert response.headers["X-Page-Cache"] == "hit"
            assert b'<dd id="views">2</dd>' in response.read()


@pytest.mark.parametrize(
    ("arguments", "extra", "sentence"),
    [
        (["--port", "99999"], {}, "99999 is no port: give a number from 0 to 65535"),
        (["--node"], {"DEMO_NODE": "keyspace://127.0.0.1:9/0"}, "DEMO_NODE names a node already"),
        (["--cluster"], {"DEMO_NODE": "keyspace://127.0.0.1:9/0"}, "DEMO_NODE names a node already"),
        (["--cluster", "--node"], {}, "not allowed with argument"),
        (["--cluster"], {"DEMO_CLUSTER_DATA": str(MANAGE)}, "manage.py cannot be used"),
        (["--port", "0"], {"DEMO_NODE": "keyspace://127.0.0.1:9/0"}, "keyspace://127.0.0.1:9/0 can't be used"),
        (["--port", "0"], {"DEMO_CACHE": str(MANAGE)}, "is a file"),
    ],
)
def test_what_cannot_work_is_one_clear_sentence(tmp_path, arguments, extra, sentence):
    done = run_demo(tmp_path, *arguments, **extra)
    assert done.returncode not in (0, None)
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr

"""What operators see: the four pages, who may see which, and requests that are none."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from django_keyspace.addresses import parse_location
from django_keyspace.backend.transport import RemoteEngine
from django_keyspace.exceptions import AuthenticationFailed, StorageError
from django_keyspace.node.config import NodeConfig
from django_keyspace.node.http import REQUEST_BYTES_MAX, HttpServer, Pages
from django_keyspace.node.metrics import Histogram, Metrics
from django_keyspace.security import make_security
from django_keyspace.testing import RunningNode, running_node

SECRET = "correct horse battery staple"


@pytest.fixture(scope="module")
def node() -> Iterator[RunningNode]:
    with running_node(http="127.0.0.1:0", secret=SECRET) as node:
        yield node


def http_address(node: RunningNode) -> tuple[str, int]:
    """Where it serves its pages, as it has printed it."""
    host, _, port = node.facts["http"].removeprefix("http://").removesuffix("/status").rpartition(":")
    return host, int(port)


def fetch(node: RunningNode, path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection(*http_address(node), timeout=30)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.getheader("Content-Type", ""), answer.read().decode()
    connection.close()
    return found


def test_probes(node: RunningNode) -> None:
    assert fetch(node, "/healthz") == (200, "text/plain; charset=utf-8", "ok\n")
    assert fetch(node, "/readyz?verbose=1")[::2] == (200, "ready\n")
    assert fetch(node, "/readyz", "HEAD")[::2] == (200, "")


def samples(text: str) -> dict[str, float]:
    """Every sample by its name and labels; fails on a line that is none."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("# "):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    return found


def test_metrics_count_what_happened(node: RunningNode) -> None:
    before = samples(fetch(node, "/metrics")[2])
    engine = RemoteEngine(
        parse_location(node.location).endpoints,
        security=make_security(uses_tls=False, secret=SECRET, environment={}),
    )
    stranger = RemoteEngine(parse_location(node.location).endpoints)
    engine.execute("set", 0, b"k", (1, 0, b"v"), None, "always")
    for _ in range(3):
        engine.execute("get", 0, b"k")
    with pytest.raises(Exception, match="nothing to count"):
        engine.execute("incr", 0, b"missing", 1, None, None, 0)
    with pytest.raises(AuthenticationFailed):
        stranger.execute("get", 0, b"k")
    status, content_type, text = fetch(node, "/metrics")
    assert status == 200
    assert content_type.startswith("text/plain; version=0.0.4")
    now = samples(text)
    grown = {name: value - before.get(name, 0) for name, value in now.items()}
    assert grown['keyspace_requests_total{operation="get"}'] == 3
    assert grown['keyspace_requests_total{operation="set"}'] == 1
    assert grown['keyspace_errors_total{code="missing-key"}'] == 1
    assert grown['keyspace_connections_refused_total{code="authentication-failed"}'] == 1
    assert grown["keyspace_writes_total"] == 2
    assert grown["keyspace_write_group_seconds_count"] == 2
    assert now['keyspace_write_group_seconds_bucket{le="+Inf"}'] == now["keyspace_write_group_seconds_count"]
    assert now["keyspace_ready"] == 1
    assert now["keyspace_store_records"] == 1
    assert now["keyspace_resident_bytes"] > 2**20
    families = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    assert len(families) == len(set(families))
    engine.close()


def test_status_is_json(node: RunningNode) -> None:
    status, content_type, text = fetch(node, "/status")
    page = json.loads(text)
    assert (status, content_type) == (200, "application/json")
    assert (page["node"], page["process"], page["secret"], page["tls"]) == ("n1", node.pid, True, False)
    assert page["store"]["durability"] == "interval"
    assert SECRET not in text


@pytest.mark.parametrize(
    ("path", "method", "status"), [("/", "GET", 404), ("/status", "POST", 405), ("/../etc/passwd", "GET", 404)]
)
def test_anything_else_is_refused(node: RunningNode, path: str, method: str, status: int) -> None:
    assert fetch(node, path, method)[0] == status


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"rubbish\r\n\r\n", b" 400 "),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * (2 * REQUEST_BYTES_MAX) + b"\r\n\r\n", b" 431 "),
    ],
)
def test_what_is_not_http_is_refused(node: RunningNode, sent: bytes, status: bytes) -> None:
    with socket.create_connection(http_address(node), 30) as connection:
        connection.sendall(sent)
        assert status in connection.recv(200)


def test_a_port_in_use_is_named(node: RunningNode, tmp_path: Path) -> None:
    host, port = http_address(node)
    with pytest.raises(Exception, match="cannot listen for HTTP"), running_node(http=f"{host}:{port}"):
        pass


# --- Who may see the figures


def answer(path: str, *, token: str | None, host: str, pages: Pages | None = None, **headers: str) -> tuple[int, str]:
    config = NodeConfig("n1", "127.0.0.1", 0, "folder", http=(host, 80), http_token=token)
    server = HttpServer(config, pages or Pages(lambda: None, lambda: "figures", lambda: {"a": 1}))
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    head, _, body = server._answer_to("\r\n".join([*lines, "", ""]).encode()).partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


@pytest.mark.parametrize(
    ("host", "token", "sent", "status"),
    [
        ("127.0.0.1", None, None, 200),
        ("0.0.0.0", None, None, 401),
        ("0.0.0.0", "t0ken", None, 401),
        ("0.0.0.0", "t0ken", "Bearer other", 401),
        ("0.0.0.0", "t0ken", "Bearer t0ken", 200),
        ("127.0.0.1", "t0ken", None, 401),
        ("node.example.org", None, "Bearer None", 401),
    ],
)
def test_figures_want_a_token_off_loopback(host: str, token: str | None, sent: str | None, status: int) -> None:
    headers: dict[str, Any] = {"Authorization": sent} if sent else {}
    for path in ("/metrics", "/status"):
        assert answer(path, token=token, host=host, **headers)[0] == status
    assert answer("/healthz", token=token, host=host)[0] == 200
    assert answer("/readyz", token=token, host=host)[0] == 200


def test_a_node_that_is_not_ready_says_why() -> None:
    def broken() -> Any:
        raise StorageError("The disk is on fire.")

    pages = Pages(lambda: "The node is shutting down.", broken, broken)
    assert answer("/readyz", token=None, host="127.0.0.1", pages=pages) == (503, "The node is shutting down.\n")
    assert answer("/healthz", token=None, host="127.0.0.1", pages=pages)[0] == 200
    assert answer("/metrics", token=None, host="127.0.0.1", pages=pages) == (503, "The disk is on fire.\n")


def test_histogram_and_labels() -> None:
    histogram = Histogram()
    for seconds in (0.0, 0.0001, 0.0002, 99.0):
        histogram.observe(seconds)
    assert histogram.counts[0] == 2
    assert histogram.counts[1] == 1
    assert histogram.counts[-1] == histogram.observations - 3 == 1
    metrics = Metrics()
    metrics.errors['odd"\\\n'] += 1
    gauges = dict.fromkeys(
        (
            "connections",
            "pending_writes",
            "pending_write_bytes",
            "ready",
            "oldest_reader_seconds",
            "resident_bytes",
            "cpu_seconds",
        ),
        0,
    )
    figures = dict.fromkeys(("records", "used_bytes", "max_bytes", "file_bytes", "map_bytes", "readers", "revision"), 0)
    assert 'keyspace_errors_total{code="odd\\"\\\\\\n"} 1' in metrics.text(gauges, figures, {}).splitlines()

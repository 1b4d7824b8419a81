"""``manage.py demo``: serve the example site, on the embedded store, on a node or on a cluster; or check it and exit."""

from __future__ import annotations

import secrets
import tempfile
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.cache import cache
from django.core.management.base import BaseCommand, CommandError

from django_keyspace.exceptions import KeyspaceError
from django_keyspace.management.local import LocalCluster
from reader.children import Child, ChildFailed, Echo, child, stop_on_signals
from reader.cluster import cluster, switch
from reader.expectations import WalkFailed
from reader.node import node
from reader.place import node_count
from reader.serving import HOST, PORT_MAX, NoFreePort, open_server, serving
from reader.walk import Timing, Walk

PORT_DEFAULT = 8000
READY = "Serving at "
START_TIMEOUT_S = 30.0
WATCH_EVERY_S = 1.0


class Command(BaseCommand):
    """Serve the example site."""

    help = "Serves the example site on the loopback address, with django-keyspace as its cache."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--port", type=_port, default=PORT_DEFAULT, help=f"default {PORT_DEFAULT}; 0: any")
        where = parser.add_mutually_exclusive_group()
        where.add_argument("--node", action="store_true", help="start a node process and use it as the cache")
        where.add_argument(
            "--cluster", action="store_true", help="start three nodes and use their cluster as the cache"
        )
        parser.add_argument("--check", action="store_true", help="visit the whole site with a fresh cache, and exit")

    def handle(self, *, port: int, node: bool, cluster: bool, check: bool, **options: Any) -> None:
        """Serve until Ctrl-C or SIGTERM; with ``check`` drive the site once instead."""
        if (node or cluster) and _uses_node():
            flag = "--node" if node else "--cluster"
            raise CommandError(f"DEMO_NODE names a node already, and {flag} would start one. Leave out one of them.")
        stop_on_signals()
        try:
            if check:
                self.check_site(with_node=node, with_cluster=cluster)
            elif node:
                self.serve_with_node(port)
            elif cluster:
                self.serve_with_cluster(port)
            else:
                self.serve(port)
        except KeyboardInterrupt:
            self.stdout.write("")
            if check:
                raise CommandError("The check was interrupted.", returncode=130) from None
        except (ChildFailed, NoFreePort, WalkFailed, KeyspaceError) as error:
            raise CommandError(str(error)) from error

    def serve(self, port: int) -> None:
        """Serve in this process, one thread for each connection."""
        try:
            cache.get("is-the-cache-there")
        except (KeyspaceError, OSError) as error:
            raise CommandError(f"The cache at {_location()} can't be used: {error}") from error
        with serving(open_server(port)) as server:
            taken = server.server_port
            if port not in (0, taken):
                self.stdout.write(self.style.WARNING(f"Port {port} is taken, so this is port {taken}."))
            self.stdout.write(f"{_what_location()}: {_location()}")
            self.echo(f"{READY}http://{HOST}:{taken}/ (stop with Ctrl-C)")
            server.serve_forever()

    def serve_with_node(self, port: int) -> None:
        """Start a node, and the site in a process of its own that talks to it; end both in the end."""
        with node(settings.NODE_DATA_DIR, echo=lambda line: self.echo(f"[node] {line}")) as served_by:
            environment = {"DEMO_NODE": served_by.url}
            with _site_process(None, port, environment, self.echo) as site:
                while not site.ends_within(WATCH_EVERY_S):
                    if not served_by.process.is_running():
                        raise ChildFailed(f"The node ended by itself, exit code {served_by.process.wait()}.")
                raise ChildFailed(f"The site ended by itself, exit code {site.wait()}.")

    def serve_with_cluster(self, port: int) -> None:
        """Start three nodes, and the site in a process of its own that talks to them; end all of them in the end."""
        folder = settings.CLUSTER_DATA_DIR
        self.echo(f"Starting the nodes; their data and logs are in {folder}")
        with cluster(folder) as nodes:
            with _site_process(nodes, port, {}, self.echo) as site:
                codes = {node.name: node.exit_code for node in nodes.nodes}
                while not site.ends_within(WATCH_EVERY_S):
                    for node in nodes.nodes:
                        if codes[node.name] != node.exit_code:
                            codes[node.name] = node.exit_code
                            self.echo(_news(node.name, node.exit_code))
                raise ChildFailed(f"The site ended by itself, exit code {site.wait()}.")

    def echo(self, line: str) -> None:
        """Pass on a line of a child's output at once, also when our own output goes to a file."""
        self.stdout.write(line)
        self.stdout.flush()

    def check_site(self, with_node: bool, with_cluster: bool) -> None:
        """Visit every page with a fresh cache, and print how long they took."""
        with tempfile.TemporaryDirectory(prefix="keyspace-demo-") as folder, ExitStack() as stack:
            environment = _fresh_environment(Path(folder))
            nodes: LocalCluster | None = None
            if with_cluster:
                nodes = stack.enter_context(cluster(Path(folder) / "cluster"))
                # A busy machine elects slowly, and no visitor may see an error.
                environment |= {"DEMO_NODE": nodes.location, "DEMO_TIMEOUT_MS": "30000"}
            elif with_node:
                environment["DEMO_NODE"] = stack.enter_context(node(Path(folder) / "node")).url
            where = environment["DEMO_NODE"] or "an embedded store in a temporary folder"
            self.stdout.write(f"Checking the example site on {where}")
            first, second = (stack.enter_context(_site(nodes, environment)) for _ in range(2))
            walk = Walk(first, second, nodes=3 if with_cluster else int(with_node))
            timings = walk.run()
        self.stdout.write(_table(timings))
        for sentence in walk.remarks:
            self.stdout.write(sentence)
        self.stdout.write(self.style.SUCCESS("All of the site works."))


def _fresh_environment(folder: Path) -> dict[str, str]:
    """Give the environment of a site with an empty cache and a secret of its own."""
    return {
        "DEMO_SECRET_KEY": secrets.token_urlsafe(50),
        "DEMO_CACHE": str(folder / "cache"),
        "DEMO_RECORDS": str(folder / "records"),
        "DEMO_DEBUG": "",
        "DEMO_NODE": "",
    }


@contextmanager
def _site_process(
    nodes: LocalCluster | None, port: int, environment: dict[str, str], echo: Echo | None = None
) -> Iterator[Child]:
    """Run a server process, with a switch for the nodes if there are some."""
    arguments = ["demo", "--port", str(port)]
    if nodes is None:
        with child("The site", arguments, environment, echo) as process:
            yield process
        return
    with switch(nodes) as offered:
        environment = {**environment, "DEMO_NODE": nodes.location, **offered.environment}
        with child("The site", arguments, environment, echo, (offered.far_end,)) as process:
            yield process


@contextmanager
def _site(nodes: LocalCluster | None, environment: dict[str, str]) -> Iterator[str]:
    """Run a server process on a free port and give its address."""
    with _site_process(nodes, 0, environment) as process:
        line = process.wait_for_line(READY, START_TIMEOUT_S)
        try:
            yield line.partition(READY)[2].split()[0]
        except WalkFailed as error:
            raise WalkFailed(f"{error}\nThe last that a server said:{process.tail()}") from error


def _news(name: str, exit_code: int | None) -> str:
    """Say that a node has ended or runs again."""
    return f"[{name}] runs again" if exit_code is None else f"[{name}] has ended, exit code {exit_code}"


def _table(timings: list[Timing]) -> str:
    width = max(len(timing.path) for timing in timings)
    lines = [f"{'Page':<{width}}  {'cold ms':>9}  {'warm ms':>9}  {'gain':>6}"]
    for timing in timings:
        gain = timing.cold_ms / timing.warm_ms
        lines.append(f"{timing.path:<{width}}  {timing.cold_ms:>9.1f}  {timing.warm_ms:>9.1f}  {gain:>5.0f}x")
    return "\n".join(lines)


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) <= PORT_MAX:
        return int(text)
    raise ArgumentTypeError(f"{text} is no port: give a number from 0 to {PORT_MAX}")


def _location() -> str:
    return str(settings.CACHES["default"]["LOCATION"])


def _what_location() -> str:
    return {0: "Embedded store", 1: "Node"}.get(node_count(), "Cluster")


def _uses_node() -> bool:
    return node_count() > 0

"""``manage.py demo``: serve the example site, on the embedded store or on a node; or check it and exit."""

from __future__ import annotations

import secrets
import tempfile
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.cache import cache
from django.core.management.base import BaseCommand, CommandError

from django_keyspace.exceptions import KeyspaceError
from reader.children import ChildFailed, child, stop_on_signals
from reader.expectations import WalkFailed
from reader.node import node
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
        parser.add_argument("--node", action="store_true", help="start a node process and use it as the cache")
        parser.add_argument("--check", action="store_true", help="visit the whole site with a fresh cache, and exit")

    def handle(self, *, port: int, node: bool, check: bool, **options: Any) -> None:
        """Serve until Ctrl-C or SIGTERM; with ``check`` drive the site once instead."""
        if node and _uses_node():
            raise CommandError("DEMO_NODE names a node already, and --node would start one. Leave out one of them.")
        stop_on_signals()
        try:
            if check:
                self.check_site(with_node=node)
            elif node:
                self.serve_with_node(port)
            else:
                self.serve(port)
        except KeyboardInterrupt:
            self.stdout.write("")
            if check:
                raise CommandError("The check was interrupted.", returncode=130) from None
        except (ChildFailed, NoFreePort, WalkFailed) as error:
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
            self.stdout.write(f"{'Node' if _uses_node() else 'Embedded store'}: {_location()}")
            self.echo(f"{READY}http://{HOST}:{taken}/ (stop with Ctrl-C)")
            server.serve_forever()

    def serve_with_node(self, port: int) -> None:
        """Start a node, and the site in a process of its own that talks to it; end both in the end."""
        with node(settings.NODE_DATA_DIR, echo=lambda line: self.echo(f"[node] {line}")) as served_by:
            environment = {"DEMO_NODE": served_by.url}
            with child("The site", ["demo", "--port", str(port)], environment, echo=self.echo) as site:
                while not site.ends_within(WATCH_EVERY_S):
                    if not served_by.process.is_running():
                        raise ChildFailed(f"The node ended by itself, exit code {served_by.process.wait()}.")
                raise ChildFailed(f"The site ended by itself, exit code {site.wait()}.")

    def echo(self, line: str) -> None:
        """Pass on a line of a child's output at once, also when our own output goes to a file."""
        self.stdout.write(line)
        self.stdout.flush()

    def check_site(self, with_node: bool) -> None:
        """Visit every page with a fresh cache, and print how long they took."""
        with tempfile.TemporaryDirectory(prefix="keyspace-demo-") as folder:
            with _cache_environment(Path(folder), with_node) as environment:
                where = environment["DEMO_NODE"] or "an embedded store in a temporary folder"
                self.stdout.write(f"Checking the example site on {where}")
                with _site(environment) as first, _site(environment) as second:
                    timings = Walk(first, second).run()
        self.stdout.write(_table(timings))
        self.stdout.write(self.style.SUCCESS("All of the site works."))


@contextmanager
def _cache_environment(folder: Path, with_node: bool) -> Iterator[dict[str, str]]:
    """Give the environment of a site with an empty cache and a secret of its own."""
    environment = {"DEMO_SECRET_KEY": secrets.token_urlsafe(50), "DEMO_CACHE": str(folder / "cache"), "DEMO_DEBUG": ""}
    environment["DEMO_RECORDS"] = str(folder / "records")
    if not with_node:
        yield {**environment, "DEMO_NODE": ""}
        return
    with node(folder / "node") as served_by:
        yield {**environment, "DEMO_NODE": served_by.url}


@contextmanager
def _site(environment: dict[str, str]) -> Iterator[str]:
    """Run a server process on a free port and give its address."""
    with child("The site", ["demo", "--port", "0"], environment) as process:
        line = process.wait_for_line(READY, START_TIMEOUT_S)
        try:
            yield line.partition(READY)[2].split()[0]
        except WalkFailed as error:
            raise WalkFailed(f"{error}\nThe last that a server said:{process.tail()}") from error


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


def _uses_node() -> bool:
    return _location().startswith("keyspace://")

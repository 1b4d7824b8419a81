"""``manage.py keyspace_cluster``: a cluster on this machine for development, with a live table."""

from __future__ import annotations

import contextlib
import json
import signal
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from time import sleep
from types import FrameType
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError

from django_keyspace.exceptions import KeyspaceError
from django_keyspace.management.commands.keyspace_status import as_json, status_lines
from django_keyspace.management.live import Picture
from django_keyspace.management.local import ASK_TIMEOUT_MS, LocalCluster, make_plan
from django_keyspace.management.nodes import ask_all

DATA_DEFAULT: Final = "keyspace-cluster"
INTERVAL_S: Final = 1.0


class Command(BaseCommand):
    """Starts the nodes as processes of its own; they end with it."""

    help = (
        "Start the nodes of a cluster on this machine, for development, and show their roles, terms, lag and operations per "
        "second until Ctrl-C, which stops all of them in good order. The next start with the same folder finds the same data."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Its flags."""
        parser.add_argument(
            "--nodes", type=int, metavar="N", help="How many (default: 3, or as many as the folder has)."
        )
        parser.add_argument(
            "--data", metavar="DIR", default=DATA_DEFAULT, help=f"The folder of all nodes (default: {DATA_DEFAULT})."
        )
        parser.add_argument(
            "--port",
            type=int,
            metavar="N",
            help="Port of the first node; the others follow (default: 7080; 0: free ones).",
        )
        parser.add_argument(
            "--once", action="store_true", help="Start, wait for a leader, show the nodes, and stop them."
        )
        parser.add_argument(
            "--json",
            action="store_true",
            help="When there is a leader: one line of JSON, with location and nodes. No table.",
        )
        parser.add_argument("flags", nargs="*", metavar="-- FLAG", help="Behind --: more flags for every node.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Start, show, and stop."""
        try:
            plan = make_plan(Path(options["data"]).absolute(), options["nodes"], options["port"])
            cluster = LocalCluster(plan, options["flags"])
            with _ended_by_signals(), contextlib.suppress(KeyboardInterrupt):
                try:
                    cluster.start()
                    self._run(cluster, options)
                finally:
                    self._stop(cluster, options)
        except KeyspaceError as error:
            raise CommandError(str(error)) from error

    def _run(self, cluster: LocalCluster, options: dict[str, Any]) -> None:
        answers = cluster.await_leader()
        if options["json"]:
            nodes = {node.name: {"address": node.address, "process": node.pid} for node in cluster.nodes}
            facts: dict[str, Any] = {"location": cluster.location, "data": str(cluster.plan.folder), "nodes": nodes}
            if options["once"]:
                facts["state"] = as_json(answers)
            self.stdout.write(json.dumps(facts))
            self.stdout.flush()
        elif options["once"]:
            for line in status_lines(answers):
                self.stdout.write(line)
        else:
            self.stdout.write(f'"LOCATION": "{cluster.location}"')
            self.stdout.write(f"The data and the logs are in {cluster.plan.folder}. Ctrl-C stops all nodes.")
        if not options["once"]:
            self._watch(cluster, quiet=options["json"])

    def _watch(self, cluster: LocalCluster, *, quiet: bool) -> None:
        title = f"{cluster.location}   Ctrl-C stops all nodes"
        with Picture(self.stdout, title) as picture:
            while True:
                if not quiet:
                    processes = {
                        node.name: str(node.pid) if node.exit_code is None else f"exit {node.exit_code}"
                        for node in cluster.nodes
                    }
                    picture.show(ask_all(cluster.place, ASK_TIMEOUT_MS), processes)
                sleep(INTERVAL_S)

    def _stop(self, cluster: LocalCluster, options: dict[str, Any]) -> None:
        if options["verbosity"] >= 1 and not options["json"] and not options["once"]:
            self.stderr.write("Stopping the nodes ...")
        # A second Ctrl-C must not leave half of them running: they get their time, and no more.
        with _deaf():
            cluster.stop()


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, and SIGINT also where a shell has it ignored for what runs in the background."""

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handler(signal.SIGTERM, end), _handler(signal.SIGINT, end):
        yield


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    with _handler(signal.SIGINT, signal.SIG_IGN), _handler(signal.SIGTERM, signal.SIG_IGN):
        yield


@contextlib.contextmanager
def _handler(number: int, handler: Any) -> Iterator[None]:
    try:
        before = signal.signal(number, handler)
    except ValueError:  # not the main thread: signals are somebody else's
        yield
        return
    try:
        yield
    finally:
        signal.signal(number, before)

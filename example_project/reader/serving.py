"""The demo's own server: Django's threaded development server without its reloader, on a port that is free."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from django.core.handlers.wsgi import WSGIHandler
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler

HOST = "127.0.0.1"
PORTS_TRIED = 50
PORT_MAX = 65535
QUIET_PATH = "/status/data/"


class NoFreePort(Exception):
    """Every port that was tried is taken."""


class Handler(WSGIRequestHandler):
    """Django's, which logs each request; those that the status page makes every second would bury the others."""

    def log_message(self, format: str, *args: object) -> None:
        """Log a line."""
        if getattr(self, "path", "") != QUIET_PATH or "200" not in args:
            super().log_message(format, *args)


def open_server(port: int) -> ThreadedWSGIServer:
    """Return a server that listens on ``port``, or on the first free one after it; 0 means any free port.

    Raises NoFreePort after PORTS_TRIED ports, and OSError for anything but a taken port.
    """
    last = 0 if port == 0 else min(port + PORTS_TRIED - 1, PORT_MAX)
    for candidate in range(port, last + 1):
        try:
            server = ThreadedWSGIServer((HOST, candidate), Handler)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        server.daemon_threads = True
        return server
    raise NoFreePort(f"The ports {port} to {last} of {HOST} are all taken. Name another one with --port.")


@contextmanager
def serving(server: ThreadedWSGIServer) -> Iterator[ThreadedWSGIServer]:
    """Give the server the site, and close its socket in the end."""
    try:
        server.set_app(WSGIHandler())
        yield server
    finally:
        server.server_close()


def free_port() -> int:
    """Return a port of the loopback address that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port

"""The pages of operators: /healthz, /readyz, /metrics and /status, over plain HTTP on an address of their own.

Four fixed pages that are only read, and the smallest HTTP that probes, Prometheus and browsers understand: GET and HEAD, one
request per connection, bounded in size and time.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from django_keyspace.exceptions import ConfigurationError, KeyspaceError
from django_keyspace.node.config import NodeConfig, format_address
from django_keyspace.node.metrics import CONTENT_TYPE
from django_keyspace.security import is_loopback

logger = logging.getLogger("django_keyspace.node")

REQUEST_BYTES_MAX: Final = 8 * 1024
REQUEST_TIMEOUT_S: Final = 5.0
CONNECTIONS_MAX: Final = 64
_TEXT: Final = "text/plain; charset=utf-8"
_JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Pages:
    """What the pages show, read at each request.

    Attributes:
        not_ready: why the node takes no requests, or None if it does.
        metrics: the figures in Prometheus's text format.
        status: the same and more, as what JSON can hold.
    """

    not_ready: Callable[[], str | None]
    metrics: Callable[[], str]
    status: Callable[[], dict[str, Any]]


class HttpServer:
    """Serves the pages.

    Arguments:
        config: the address, and the token.
        pages: what they show.
    """

    def __init__(self, config: NodeConfig, pages: Pages) -> None:
        self._config = config
        self._pages = pages
        self._server: asyncio.Server | None = None
        self._open = 0

    async def listen(self) -> str:
        """Open the listener, and return its address.

        Raises:
            ConfigurationError: there is no address, or it cannot be listened on.
        """
        if self._config.http is None:
            raise ConfigurationError("There is no address for HTTP: give one with --http HOST:PORT.")
        host, port = self._config.http
        try:
            self._server = await asyncio.start_server(self._serve, host, port, limit=REQUEST_BYTES_MAX)
        except OSError as error:
            raise ConfigurationError(
                f"The node cannot listen for HTTP on {format_address(host, port)}: {error.strerror or error}. Choose another "
                "address with --http."
            ) from error
        name: Any = self._server.sockets[0].getsockname()
        return format_address(name[0], name[1])

    async def stop(self) -> None:
        """Close the listener."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                if self._open > CONNECTIONS_MAX:
                    answer = _answer(HTTPStatus.SERVICE_UNAVAILABLE, _TEXT, "Too many connections.\n")
                else:
                    answer = self._answer_to(await reader.readuntil(b"\r\n\r\n"))
                writer.write(answer)
                await writer.drain()
        except asyncio.LimitOverrunError:
            writer.write(_answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, _TEXT, "The request is too large.\n"))
        except (TimeoutError, OSError, EOFError):
            pass  # whoever asked has gone, or never finished
        except Exception:
            logger.exception("A page could not be made")
            writer.write(
                _answer(HTTPStatus.INTERNAL_SERVER_ERROR, _TEXT, "The node could not make this page. See its log.\n")
            )
        finally:
            self._open -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _answer_to(self, request: bytes) -> bytes:
        """The whole answer to a request's head."""
        lines = request.decode("latin-1").split("\r\n")
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/"):
            return _answer(HTTPStatus.BAD_REQUEST, _TEXT, "This is not HTTP.\n")
        method, path = words[0], words[1].partition("?")[0]
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        if method not in ("GET", "HEAD"):
            return _answer(HTTPStatus.METHOD_NOT_ALLOWED, _TEXT, "These pages are only read: use GET.\n")
        if path in ("/metrics", "/status") and not self._may_see_figures(headers.get("authorization", "")):
            return _answer(
                HTTPStatus.UNAUTHORIZED,
                _TEXT,
                "The figures want the token of KEYSPACE_HTTP_TOKEN: send Authorization: Bearer TOKEN.\n",
            )
        status, content_type, body = self._page(path)
        return _answer(status, content_type, body, with_body=method == "GET")

    def _may_see_figures(self, authorization: str) -> bool:
        token = self._config.http_token
        if token is None:
            return self._config.http is not None and is_loopback(self._config.http[0])
        return hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode())

    def _page(self, path: str) -> tuple[HTTPStatus, str, str]:
        if path == "/healthz":
            return HTTPStatus.OK, _TEXT, "ok\n"
        if path == "/readyz":
            reason = self._pages.not_ready()
            return (
                (HTTPStatus.OK, _TEXT, "ready\n")
                if reason is None
                else (HTTPStatus.SERVICE_UNAVAILABLE, _TEXT, f"{reason}\n")
            )
        try:
            if path == "/metrics":
                return HTTPStatus.OK, CONTENT_TYPE, self._pages.metrics()
            if path == "/status":
                return HTTPStatus.OK, _JSON, json.dumps(self._pages.status(), indent=2) + "\n"
        except KeyspaceError as error:
            return HTTPStatus.SERVICE_UNAVAILABLE, _TEXT, f"{error}\n"
        return HTTPStatus.NOT_FOUND, _TEXT, "There are /healthz, /readyz, /metrics and /status.\n"


def _answer(status: HTTPStatus, content_type: str, body: str, *, with_body: bool = True) -> bytes:
    data = body.encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {content_type}\r\nContent-Length: {len(data)}\r\n"
        "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n"
    )
    if status is HTTPStatus.UNAUTHORIZED:
        head += "WWW-Authenticate: Bearer\r\n"
    return f"{head}\r\n".encode() + (data if with_body else b"")

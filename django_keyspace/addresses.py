"""Where nodes are: the addresses in a ``LOCATION``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from django_keyspace.exceptions import ConfigurationError
from django_keyspace.operations import DATABASES_DEFAULT

SCHEMES: Final = ("keyspace", "keyspaces", "keyspace+unix")
PORT_DEFAULT: Final = 7080
SOCKET_FILE: Final = "node.sock"
"""The Unix socket in a node's data folder."""

_HOST: Final = re.compile(r"[A-Za-z0-9_.-]+")
_IPV6: Final = re.compile(r"[0-9A-Fa-f:.]+(%\w+)?")


class Endpoint(NamedTuple):
    """Where a node listens: host and port, or the path of a Unix socket.

    Attributes:
        host: name or address; empty for a Unix socket.
        port: TCP port; 0 for a Unix socket.
        path: the Unix socket; empty for TCP.
    """

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Location:
    """A parsed ``LOCATION``: the nodes, which database of theirs, and whether they use TLS."""

    endpoints: tuple[Endpoint, ...]
    database: int
    uses_tls: bool = False


def is_remote(location: str) -> bool:
    """Whether a ``LOCATION`` names nodes, and not a folder."""
    return location.partition(":")[0] in SCHEMES and "://" in location


def parse_location(location: str) -> Location:
    """The nodes and the database of ``keyspace://host:port,host:port/db``, the same with ``keyspaces://`` for TLS, or
    ``keyspace+unix:///path/node.sock?database=db``.

    Arguments:
        location: the URL. Port 7080 and database 0 may be left out.
    Returns:
        What it says.
    Raises:
        ConfigurationError: it is not such a URL.
    """
    try:
        parts = urlsplit(location)
    except ValueError as error:
        raise _bad_location(location, str(error)) from None
    if parts.scheme == "keyspace+unix":
        return _parse_unix(location, parts.netloc, parts.path, parts.query)
    if parts.scheme not in SCHEMES:
        raise _bad_location(location, f"the scheme is none of {', '.join(SCHEMES)}")
    if parts.query or parts.fragment:
        raise _bad_location(location, "nothing may follow the database; options belong in OPTIONS")
    endpoints = tuple(_parse_endpoint(location, text) for text in parts.netloc.split(","))
    if len(set(endpoints)) != len(endpoints):
        raise _bad_location(location, "an address stands there twice")
    database = _parse_database(location, parts.path.strip("/") or "0")
    return Location(endpoints, database, uses_tls=parts.scheme == "keyspaces")


def _parse_unix(location: str, netloc: str, path: str, query: str) -> Location:
    options = parse_qs(query, keep_blank_values=True)
    (database,) = options.pop("database", ["0"])[-1:]
    if netloc or not path.startswith("/") or options:
        raise _bad_location(location, "it has to be keyspace+unix:///path/of/node.sock?database=0")
    return Location((Endpoint(path=unquote(path)),), _parse_database(location, database))


def _parse_endpoint(location: str, text: str) -> Endpoint:
    if "@" in text:
        raise _bad_location(location, "names and passwords have no place in it")
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        legal = bool(bracket) and ":" in host and bool(_IPV6.fullmatch(host)) and rest[:1] in ("", ":")
        port_text = rest[1:]
    else:
        host, colon, port_text = text.partition(":")
        rest = colon
        legal = bool(_HOST.fullmatch(host))
    if not legal:
        raise _bad_location(location, f"{text!r:.80} is not host:port")
    if not rest:
        return Endpoint(host, PORT_DEFAULT)
    if not (port_text.isascii() and port_text.isdigit() and 0 < int(port_text) <= 65_535):
        raise _bad_location(location, f"{port_text!r:.40} is not a port")
    return Endpoint(host, int(port_text))


def _parse_database(location: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise _bad_location(location, f"the database {text!r:.40} is not a number such as 0 to {DATABASES_DEFAULT - 1}")
    return int(text)


def _bad_location(location: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"LOCATION {location!r:.200} cannot be used: {why}. It looks like keyspace://127.0.0.1:{PORT_DEFAULT}/0."
    )


def check_endpoints(endpoints: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    """The endpoints as a tuple; :class:`ConfigurationError` if there is none."""
    found = tuple(endpoints)
    if not found:
        raise ConfigurationError("A location needs the address of at least one node.")
    return found

"""What a node is told when it starts, checked before anything is opened."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from django_keyspace.exceptions import ConfigurationError
from django_keyspace.operations import DATABASES_DEFAULT, VALUE_BYTES_MAX_DEFAULT
from django_keyspace.store.options import MAX_BYTES_DEFAULT, StoreOptions

DURABILITY_DEFAULT: Final = "interval"
PORT_DEFAULT: Final = 7080
CONNECTIONS_MAX_DEFAULT: Final = 10_000

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SIZE: Final = re.compile(r"(\d+)\s*([KMGT]?)(?:I?B)?", re.IGNORECASE)
_SIZE_STEPS: Final = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Everything that a node is told. Making one checks it.

    Attributes:
        node_id: its name, 1 to 64 letters, digits, dots, dashes and underscores; stays with the data folder.
        host: address to listen on; this release takes loopback only.
        port: port to listen on; 0 takes a free one.
        data: the data folder; made if it does not exist.
        durability: ``commit``, ``interval`` or ``none``: see the store.
        max_bytes: the size at which the store evicts or refuses.
        databases: number of databases.
        value_bytes_max: largest payload of a value.
        connections_max: clients beyond this number are told that the node is overloaded.
    """

    node_id: str
    host: str
    port: int
    data: str
    durability: str = DURABILITY_DEFAULT
    max_bytes: int = MAX_BYTES_DEFAULT
    databases: int = DATABASES_DEFAULT
    value_bytes_max: int = VALUE_BYTES_MAX_DEFAULT
    connections_max: int = CONNECTIONS_MAX_DEFAULT

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.node_id):
            raise ConfigurationError(
                f"The node id {self.node_id!r:.80} is not 1 to 64 letters, digits, dots, dashes and underscores "
                "that begin with a letter or digit."
            )
        if not self.data:
            raise ConfigurationError("The node needs a data folder: give --data DIR.")
        _check_loopback(self.host)
        _check_number("The port", self.port, 0, 65_535)
        _check_number("The number of connections", self.connections_max, 1, 1_000_000)
        self.store_options()

    def store_options(self) -> StoreOptions:
        """How the node's store is to be opened. Raises :class:`ConfigurationError` for what the store does not take."""
        return StoreOptions(
            durability=self.durability,
            databases=self.databases,
            max_bytes=self.max_bytes,
            value_bytes_max=self.value_bytes_max,
        )


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port of ``host:port``, ``[ipv6]:port`` or ``host``.

    Raises:
        ConfigurationError: it is none of these.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ConfigurationError(f"{text!r:.80} is not HOST:PORT; an IPv6 address stands in brackets: [::1]:7080.")
        port_text = rest[1:] if rest else str(PORT_DEFAULT)
    else:
        host, colon, port_text = text.partition(":")
        port_text = port_text if colon else str(PORT_DEFAULT)
    if not host or not (port_text.isascii() and port_text.isdigit()):
        raise ConfigurationError(f"{text!r:.80} is not HOST:PORT, such as 127.0.0.1:{PORT_DEFAULT}.")
    return host, int(port_text)


def parse_size(text: str) -> int:
    """Bytes of ``1073741824``, ``512M``, ``1GB`` or ``2GiB`` (all powers of 1,024).

    Raises:
        ConfigurationError: it is none of these.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ConfigurationError(f"{text!r:.80} is not a size in bytes, such as 536870912, 512M or 2G.")
    factor: int = 1024 ** _SIZE_STEPS[match[2].upper()]
    return int(match[1]) * factor


def format_address(host: str, port: int) -> str:
    """``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _check_number(what: str, number: int, lowest: int, highest: int) -> None:
    if type(number) is not int or not lowest <= number <= highest:
        raise ConfigurationError(f"{what} must be an integer from {lowest:,} to {highest:,}, not {number!r:.80}.")


def _check_loopback(host: str) -> None:
    if host == "localhost":
        return
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        # A name: where it points can change after this check.
        loopback = False
    if not loopback:
        raise ConfigurationError(
            f"The node will not listen on {host!r:.80}: this release has neither a shared secret nor TLS, so it serves "
            "this machine only. Listen on 127.0.0.1, ::1 or localhost; for other machines, tunnel to it."
        )

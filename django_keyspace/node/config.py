"""What a node is told when it starts, checked before anything is opened."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from django_keyspace.exceptions import ConfigurationError
from django_keyspace.operations import DATABASES_DEFAULT, VALUE_BYTES_MAX_DEFAULT
from django_keyspace.security import is_loopback
from django_keyspace.store.options import MAX_BYTES_DEFAULT, StoreOptions

DURABILITY_DEFAULT: Final = "interval"
PORT_DEFAULT: Final = 7080
CONNECTIONS_MAX_DEFAULT: Final = 10_000
LOG_FORMATS: Final = ("text", "json")

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SIZE: Final = re.compile(r"(\d+)\s*([KMGT]?)(?:I?B)?", re.IGNORECASE)
_SIZE_STEPS: Final = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Everything that a node is told. Making one checks it.

    Attributes:
        node_id: its name, 1 to 64 letters, digits, dots, dashes and underscores; stays with the data folder.
        host: address to listen on; one that other machines reach needs a secret.
        port: port to listen on; 0 takes a free one.
        data: the data folder; made if it does not exist.
        durability: ``commit``, ``interval`` or ``none``: see the store.
        max_bytes: the size at which the store evicts or refuses.
        databases: number of databases.
        value_bytes_max: largest payload of a value.
        connections_max: clients beyond this number are told that the node is overloaded.
        secret: what clients must know, None for whoever reaches the node.
        tls_cert: file with its certificate, None for no TLS.
        tls_key: file with the certificate's key.
        tls_ca: file with the authorities of clients' certificates, None if clients need none.
        http: address for the pages of operators, None for none.
        http_token: what a request for figures must carry off loopback.
        log_format: ``text`` or ``json``.
        scripts: files of Lua functions that every client can call, or folders of them.
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
    secret: bytes | None = field(default=None, repr=False)
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_ca: str | None = None
    http: tuple[str, int] | None = None
    http_token: str | None = field(default=None, repr=False)
    log_format: str = "text"
    scripts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.node_id):
            raise ConfigurationError(
                f"The node id {self.node_id!r:.80} is not 1 to 64 letters, digits, dots, dashes and underscores "
                "that begin with a letter or digit."
            )
        if not self.data:
            raise ConfigurationError("The node needs a data folder: give --data DIR.")
        if self.secret is None and not is_loopback(self.host):
            raise ConfigurationError(
                f"The node will not listen on {self.host!r:.80} without a secret: whoever reaches it could read and write "
                "everything. Give it one with --secret-file or KEYSPACE_SECRET, and clients the same with the option secret; "
                "or listen on 127.0.0.1."
            )
        if bool(self.tls_cert) != bool(self.tls_key) or (self.tls_ca and not self.tls_cert):
            raise ConfigurationError("TLS needs both --tls-cert and --tls-key; --tls-ca is for clients' certificates.")
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

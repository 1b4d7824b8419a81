"""What a node is told when it starts, checked before anything is opened."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from django_keyspace.exceptions import ConfigurationError
from django_keyspace.node.raft import Config, InvalidConfig
from django_keyspace.node.settings import ELECTION_TIMEOUT_MS, TICKS_PER_ELECTION, RuntimeSettings
from django_keyspace.operations import DATABASES_DEFAULT, VALUE_BYTES_MAX_DEFAULT
from django_keyspace.security import is_loopback
from django_keyspace.store.options import MAX_BYTES_DEFAULT, StoreOptions

DURABILITY_DEFAULT: Final = "interval"
PORT_DEFAULT: Final = 7080
CONNECTIONS_MAX_DEFAULT: Final = 10_000
LOG_FORMATS: Final = ("text", "json")
SNAPSHOT_ENTRIES_DEFAULT: Final = RuntimeSettings().snapshot_entries
ELECTION_TIMEOUT_MS_MIN: Final = 50
ELECTION_TIMEOUT_MS_MAX: Final = 60_000

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
        peers: name and address of each other node that founds a cluster with this one; empty for a node that runs alone.
        join: addresses of members of a cluster that the node is to join as a learner.
        advertise: the address at which the other nodes and the clients of a cluster reach it; None: where it listens.
        election_timeout_ms: followers that hear nothing of a leader for so long elect another one.
        lease_drift_max: None switches reads by lease off. Otherwise by which fraction one node's clock may run faster than
            another's: if that is not true, such a read can be stale.
        snapshot_entries: a snapshot of the store is made when so many entries of the log were applied since the last one.
        tls_peer_ca: file with the authorities of the other nodes' certificates, None: those of clients', or those of the system.
        replica_group: a group of users of this host who may read the node's store; None: its user alone.
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
    peers: tuple[tuple[str, str], ...] = ()
    join: tuple[str, ...] = ()
    advertise: str | None = None
    election_timeout_ms: int = ELECTION_TIMEOUT_MS
    lease_drift_max: float | None = None
    snapshot_entries: int = SNAPSHOT_ENTRIES_DEFAULT
    tls_peer_ca: str | None = None
    replica_group: str | None = None

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
        if bool(self.tls_cert) != bool(self.tls_key) or ((self.tls_ca or self.tls_peer_ca) and not self.tls_cert):
            raise ConfigurationError(
                "TLS needs both --tls-cert and --tls-key; --tls-ca is for clients' certificates, --tls-peer-ca for those of "
                "nodes."
            )
        _check_number("The port", self.port, 0, 65_535)
        _check_number("The number of connections", self.connections_max, 1, 1_000_000)
        self.store_options()
        self.runtime_settings()
        self._check_cluster()

    @property
    def seeks_cluster(self) -> bool:
        """Whether it was told to be part of a cluster."""
        return bool(self.peers or self.join)

    @property
    def address(self) -> str:
        """Where others reach it."""
        return self.advertise or format_address(self.host, self.port)

    def require_reachable(self) -> None:
        """Raise :class:`ConfigurationError` unless :attr:`address` is one that others can connect to, also tomorrow."""
        host, port = parse_listen(self.address)
        if not port:
            raise ConfigurationError(
                "A node of a cluster needs a port that stays: the other nodes write it down. Give one with --listen HOST:PORT."
            )
        if host in ("0.0.0.0", "::"):
            raise ConfigurationError(
                f"Nobody can connect to {host}. Say with --advertise HOST:PORT at which address the other nodes reach this one."
            )

    def _check_cluster(self) -> None:
        if self.peers and self.join:
            raise ConfigurationError("--peer founds a cluster and --join joins one that is there: give one of both.")
        if self.seeks_cluster:
            self.require_reachable()
        names = [name for name, _ in self.peers]
        for name, address in self.peers:
            if not _ID.fullmatch(name):
                raise ConfigurationError(f"The name {name!r:.80} of --peer is none that a node can have.")
            if parse_listen(address)[1] == 0:
                raise ConfigurationError(f"The address of node {name} needs a port: {address!r:.80}.")
        if self.node_id in names:
            raise ConfigurationError(f"--peer names the other nodes, and {self.node_id!r} is this one: leave it out.")
        _require_distinct("names", names)
        _require_distinct(
            "addresses", [*(address for _, address in self.peers), *([self.address] if self.peers else [])]
        )

    def runtime_settings(self) -> RuntimeSettings:
        """How the runtime of a node of a cluster is to be set up. Raises :class:`ConfigurationError`."""
        _check_number(
            "The election timeout", self.election_timeout_ms, ELECTION_TIMEOUT_MS_MIN, ELECTION_TIMEOUT_MS_MAX
        )
        _check_number("The number of entries between snapshots", self.snapshot_entries, 100, 10**9)
        try:
            raft = Config(election_ticks=TICKS_PER_ELECTION, lease_drift_max=self.lease_drift_max)
        except InvalidConfig as error:
            raise ConfigurationError(str(error)) from error
        return RuntimeSettings(
            tick_ms=self.election_timeout_ms // TICKS_PER_ELECTION, raft=raft, snapshot_entries=self.snapshot_entries
        )

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


def parse_peer(text: str) -> tuple[str, str]:
    """Name and address of ``NAME=HOST:PORT``. Raises :class:`ConfigurationError`."""
    name, equals, address = text.partition("=")
    if not name or not equals:
        raise ConfigurationError(f"{text!r:.80} is not NAME=HOST:PORT, such as n2=127.0.0.1:{PORT_DEFAULT + 1}.")
    return name.strip(), format_address(*parse_listen(address.strip()))


def _require_distinct(what: str, texts: Iterable[str]) -> None:
    found = list(texts)
    twice = sorted({text for text in found if found.count(text) > 1})
    if twice:
        raise ConfigurationError(f"The {what} of the nodes must differ: {', '.join(twice)} stands there twice.")


def _check_number(what: str, number: int, lowest: int, highest: int) -> None:
    if type(number) is not int or not lowest <= number <= highest:
        raise ConfigurationError(f"{what} must be an integer from {lowest:,} to {highest:,}, not {number!r:.80}.")

"""A node's flags, and the other places that the same words may come from.

What is given later in this list wins: the defaults of this table, ``settings.KEYSPACE["NODE"]`` (``manage.py
keyspace_node`` only), the TOML file of ``--config``, the flags. The secret has no flag, since everybody on the host can read
the command line of a process: it comes from a file, or from the environment.
"""

from __future__ import annotations

import argparse
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from django_keyspace.exceptions import ConfigurationError
from django_keyspace.handshake import find_secret
from django_keyspace.node.config import (
    CONNECTIONS_MAX_DEFAULT,
    DURABILITY_DEFAULT,
    LOG_FORMATS,
    PORT_DEFAULT,
    SNAPSHOT_ENTRIES_DEFAULT,
    NodeConfig,
    format_address,
    parse_listen,
    parse_peer,
    parse_size,
)
from django_keyspace.node.settings import ELECTION_TIMEOUT_MS
from django_keyspace.operations import DATABASES_DEFAULT, VALUE_BYTES_MAX_DEFAULT
from django_keyspace.store.options import DURABILITIES, MAX_BYTES_DEFAULT

LISTEN_DEFAULT: Final = f"127.0.0.1:{PORT_DEFAULT}"


@dataclass(frozen=True, slots=True)
class Flag:
    """One row of the table.

    Attributes:
        word: its name in a TOML file and, in capitals, in the settings; ``--word`` with dashes on the command line.
        metavar: what stands for its value in the help.
        default: its value if it is given nowhere.
        help: what it is.
        choices: the only values, if there are some.
        is_number: whether its value is a plain number.
        short: another form of it on the command line.
        is_fraction: whether its value is a number with a point.
        is_repeated: whether it may be given several times; elsewhere its value is a list.
    """

    word: str
    metavar: str
    default: Any
    help: str
    choices: tuple[str, ...] | None = None
    is_number: bool = False
    short: str | None = None
    is_fraction: bool = False
    is_repeated: bool = False

    @property
    def kind(self) -> type:
        """What its value is."""
        return int if self.is_number else float if self.is_fraction else str

    @property
    def flag(self) -> str:
        """Its form on the command line."""
        return "--" + self.word.replace("_", "-")


FLAGS: Final = (
    Flag("id", "NAME", None, "The node's name. It stays with the data folder."),
    Flag(
        "listen",
        "HOST:PORT",
        LISTEN_DEFAULT,
        "Address for clients. Off loopback the node needs a secret. Port 0 takes a free port.",
    ),
    Flag("data", "DIR", None, "The data folder; made if it does not exist."),
    Flag(
        "durability",
        "WORD",
        DURABILITY_DEFAULT,
        "What an answered write has survived. commit: a power cut. interval and none: the end of this process; "
        "interval also syncs to the disk once a second.",
        choices=DURABILITIES,
    ),
    Flag(
        "max_bytes",
        "BYTES",
        MAX_BYTES_DEFAULT,
        "Size at which the store evicts cache entries, and refuses other writes. Takes K, M, G.",
    ),
    Flag("databases", "N", DATABASES_DEFAULT, "Number of databases.", is_number=True),
    Flag("value_bytes_max", "BYTES", VALUE_BYTES_MAX_DEFAULT, "Largest value. Takes K, M, G."),
    Flag(
        "connections_max",
        "N",
        CONNECTIONS_MAX_DEFAULT,
        "Clients beyond this number are told that the node is overloaded.",
        is_number=True,
    ),
    Flag(
        "secret_file",
        "FILE",
        None,
        "File with the secret that clients must know. Or the environment: KEYSPACE_SECRET, KEYSPACE_SECRET_FILE.",
    ),
    Flag("tls_cert", "FILE", None, "Certificate (PEM, with its chain): clients then connect with keyspaces://."),
    Flag("tls_key", "FILE", None, "The certificate's key (PEM)."),
    Flag("tls_ca", "FILE", None, "Clients must show a certificate that one of these authorities has signed (PEM)."),
    Flag(
        "http",
        "HOST:PORT",
        None,
        "Address for /healthz, /readyz, /metrics and /status. Off loopback the last two want the token of the environment's "
        "KEYSPACE_HTTP_TOKEN.",
    ),
    Flag(
        "scripts",
        "PATH",
        None,
        f"Lua files, or folders of them, with {os.pathsep} between them: their functions are there for every client.",
        short="-scr",
    ),
    Flag(
        "peer",
        "NAME=HOST:PORT",
        None,
        "Another node of the cluster that this node founds at its first start; once for each. Later starts ignore it: then "
        "the members are what the cluster knows.",
        is_repeated=True,
    ),
    Flag(
        "join",
        "HOST:PORT,...",
        None,
        "Members of a cluster that this node joins as a learner at its first start.",
    ),
    Flag(
        "advertise",
        "HOST:PORT",
        None,
        "Where the other nodes and the clients of a cluster reach this node, if that is not what it listens on.",
    ),
    Flag(
        "election_timeout_ms",
        "N",
        ELECTION_TIMEOUT_MS,
        "Of a cluster: nodes that hear no leader for so long, in milliseconds, elect another one. The same on all nodes.",
        is_number=True,
    ),
    Flag(
        "lease_drift_max",
        "FRACTION",
        None,
        "Allows reads by lease in a cluster, which are right as long as no node's clock runs faster than another's by more than "
        "this, such as 0.1.",
        is_fraction=True,
    ),
    Flag(
        "snapshot_entries",
        "N",
        SNAPSHOT_ENTRIES_DEFAULT,
        "Of a cluster: entries of the log between two snapshots of the store.",
        is_number=True,
    ),
    Flag(
        "tls_peer_ca",
        "FILE",
        None,
        "Nodes of a cluster show each other their certificates, signed by one of these authorities (PEM). Without it: by those "
        "of --tls-ca, or by those that the system trusts.",
    ),
    Flag(
        "replica_group",
        "GROUP",
        None,
        "A group of users of this host who may read the node's store (the option replica of a site).",
    ),
    Flag("log_format", "WORD", "text", "text: lines for people. json: one object per line.", choices=LOG_FORMATS),
)
"""The table."""

CONFIG_FLAG: Final = "--config"


def add_arguments(parser: argparse.ArgumentParser, defaults: Mapping[str, Any] | None = None) -> None:
    """Add a node's flags to a parser.

    Arguments:
        parser: where they go.
        defaults: the site's values, by the flags' names in capitals (``ID``, ``LISTEN``, ``MAX_BYTES``): for the help.
    Raises:
        ConfigurationError: a default has a name that is none of the flags.
    """
    given = lower_words(defaults)
    for row in FLAGS:
        default = given.get(row.word, row.default)
        parser.add_argument(
            *filter(None, (row.flag, row.short)),
            metavar=None if row.choices else row.metavar,
            choices=row.choices,
            type=row.kind,
            action="append" if row.is_repeated else "store",
            help=row.help + (f" Default: {default}." if default is not None else ""),
        )
    parser.add_argument(
        CONFIG_FLAG, metavar="FILE", help='TOML file with the same words: listen = "127.0.0.1:7080", max_bytes = "2G".'
    )


def lower_words(defaults: Mapping[str, Any] | None) -> dict[str, Any]:
    """The site's values by the table's words. Raises :class:`ConfigurationError` for a name that is none of them."""
    words = {row.word.upper(): row.word for row in FLAGS}
    unknown = [name for name in defaults or {} if name not in words]
    if unknown:
        raise ConfigurationError(
            f"A node has no setting {', '.join(sorted(map(repr, unknown)))}. Known are {', '.join(words)}."
        )
    return {words[name]: value for name, value in (defaults or {}).items()}


def config_from(
    options: Mapping[str, Any],
    defaults: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> NodeConfig:
    """The checked configuration.

    Arguments:
        options: what the parser of :func:`add_arguments` found, as a mapping.
        defaults: the site's values, by the flags' names in capitals.
        environment: where secrets may come from.
    Raises:
        ConfigurationError: a value is missing or not legal.
    """
    values: dict[str, Any] = {row.word: row.default for row in FLAGS} | lower_words(defaults)
    if options.get("config"):
        values |= _read_toml(str(options["config"]))
    values |= {row.word: options[row.word] for row in FLAGS if options.get(row.word) is not None}
    for row in FLAGS:
        _check_value(row, values[row.word])
    for name in ("id", "data"):
        if not values[name]:
            raise ConfigurationError(f"The node needs --{name}.")
    host, port = parse_listen(str(values["listen"]))
    return NodeConfig(
        node_id=str(values["id"]),
        host=host,
        port=port,
        data=os.fspath(values["data"]),
        durability=values["durability"],
        max_bytes=parse_size(str(values["max_bytes"])),
        databases=values["databases"],
        value_bytes_max=parse_size(str(values["value_bytes_max"])),
        connections_max=values["connections_max"],
        secret=find_secret(_path(values["secret_file"]), environment),
        tls_cert=_path(values["tls_cert"]),
        tls_key=_path(values["tls_key"]),
        tls_ca=_path(values["tls_ca"]),
        http=parse_listen(str(values["http"])) if values["http"] else None,
        http_token=environment.get("KEYSPACE_HTTP_TOKEN") or None,
        log_format=values["log_format"],
        scripts=_paths(values["scripts"]),
        peers=tuple(map(parse_peer, _peers(values["peer"]))),
        join=tuple(_address(text) for text in str(values["join"] or "").split(",") if text.strip()),
        advertise=_address(str(values["advertise"])) if values["advertise"] else None,
        election_timeout_ms=values["election_timeout_ms"],
        lease_drift_max=values["lease_drift_max"],
        snapshot_entries=values["snapshot_entries"],
        tls_peer_ca=_path(values["tls_peer_ca"]),
        replica_group=values["replica_group"] or None,
    )


def _address(text: str) -> str:
    return format_address(*parse_listen(text.strip()))


def _peers(value: Any) -> list[str]:
    """A list of ``NAME=HOST:PORT``, also from a table of names and addresses."""
    if isinstance(value, Mapping):
        return [f"{name}={address}" for name, address in value.items()]
    if not isinstance(value, list | tuple | None) or not all(isinstance(text, str) for text in value or ()):
        raise ConfigurationError(f"peer must be a list of NAME=HOST:PORT, not {value!r:.80}.")
    return list(value or ())


def _path(value: Any) -> str | None:
    return os.fspath(value) if value else None


def _paths(value: Any) -> tuple[str, ...]:
    paths = value if isinstance(value, list | tuple) else os.fspath(value).split(os.pathsep) if value else []
    return tuple(os.fspath(path) for path in paths if path)


def _check_value(row: Flag, value: Any) -> None:
    if row.choices and value not in row.choices:
        raise ConfigurationError(f"{row.word} must be one of {', '.join(row.choices)}, not {value!r:.80}.")
    if row.is_number and type(value) is not int:
        raise ConfigurationError(f"{row.word} must be a whole number, not {value!r:.80}.")
    if row.is_fraction and type(value) not in (int, float, type(None)):
        raise ConfigurationError(f"{row.word} must be a number, not {value!r:.80}.")


def _read_toml(path: str) -> dict[str, Any]:
    words = {row.word for row in FLAGS}
    try:
        with open(path, "rb") as file:
            found = tomllib.load(file)
    except OSError as error:
        raise ConfigurationError(f"The configuration file {path} cannot be read: {error.strerror or error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"The configuration file {path} is not TOML: {error}.") from error
    unknown = sorted(set(found) - words)
    if unknown:
        raise ConfigurationError(
            f"The configuration file {path} has the unknown {', '.join(unknown)}. Known are {', '.join(sorted(words))}."
        )
    return found

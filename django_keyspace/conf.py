"""From an entry of ``settings.CACHES`` to one frozen :class:`Config`: every option checked, none ignored.

An unknown option is an error that names the nearest known one. :data:`OPTIONS` is the table that the code, the error and
docs/settings.md share.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

from django.utils.module_loading import import_string

from django_keyspace.addresses import SCHEMES, parse_location
from django_keyspace.exceptions import ConfigurationError
from django_keyspace.operations import LEVELS
from django_keyspace.security import NO_SECURITY, Security, Tls, make_security
from django_keyspace.store.options import StoreOptions

EMBEDDED_SCHEME: Final = "embedded:"
SERIALIZERS: Final = ("pickle", "json", "msgpack", "raw")
COMPRESSORS: Final = ("zlib",)
ON_ERROR: Final = ("raise", "miss")

OPTIONS: Final[dict[str, str]] = {
    "durability": "'interval' (default), 'commit' or 'none': when writes reach the disk. Embedded only.",
    "max_bytes": "soft limit of the store in bytes, default 1 GiB; a cache evicts beyond it. Embedded only.",
    "map_bytes": "address space to reserve in bytes, default 64 GiB; grows if need be. Embedded only.",
    "databases": "how many numbered databases the store has, default 16. Embedded only.",
    "database": "number of the database that this alias uses, default 0 or the number at the end of the URL.",
    "value_bytes_max": "largest encoded value in bytes, default 64 MiB.",
    "timeout_ms": "how long a call may take, in milliseconds, default 5,000: also the wait for the writer lock.",
    "serializer": "'pickle' (default), 'json', 'msgpack' or 'raw': for values that are not str, bytes, int, float, bool.",
    "signed": "whether pickled values are signed with SECRET_KEY, default True. Unsigned pickles are read only if False.",
    "compressor": "'zlib' or None (default).",
    "compress_min_bytes": "payloads from this size on are compressed, default 1,024.",
    "compress_level": "zlib's level, 1 to 9, default 1.",
    "evictable": "whether records may be evicted and cleared as a cache's, default True.",
    "on_error": "'raise' (default), or 'miss': an unreachable store reads as empty.",
    "consistency": "'safe' (default), 'lease', 'session' or 'dirty': what a cluster's reads promise.",
    "max_staleness_ms": "how old the answer of a session or dirty read may be, in milliseconds; default: of any age.",
    "leader_timeout_ms": "how long of its time a call may look for a leader, in milliseconds; default: all of it.",
    "replica": "data folder of a node on this host, or 'auto': reads come from its store. Default: 'auto' with a Unix socket.",
    "secret": "what a node's clients must know; default: KEYSPACE_SECRET or KEYSPACE_SECRET_FILE of the environment. Nodes only.",
    "tls": "a mapping with ca, cert, key (files, PEM) and verify_hostname, for keyspaces:// locations.",
    "scan_warning_keys": "a models' query that scans more objects than this warns, default 10,000; 0 never warns.",
    "reverse_key_function": "callable or dotted path: the user's key from a full key; for listings with a KEY_FUNCTION.",
    "MAX_ENTRIES": "records in the database from which old ones are culled; without it only max_bytes counts.",
    "CULL_FREQUENCY": "one in so many records is culled, default 3; 0 culls all.",
}
"""Every key of ``OPTIONS``, with its help text."""


@dataclass(frozen=True, slots=True)
class Config:
    """What an alias is configured to be. See :data:`OPTIONS` for the fields that are options.

    Attributes:
        location: the folder's path, or the node's URL.
        is_remote: whether ``location`` is a URL.
        store: how the embedded store is opened.
        tls: how to use TLS, None for a location without.
        replica_by_default: whether ``replica`` is what nobody has asked for.
    """

    location: str
    is_remote: bool
    store: StoreOptions
    database: int = 0
    timeout_ms: int = 5000
    serializer: str = "pickle"
    signed: bool = True
    compressor: str | None = None
    compress_min_bytes: int = 1024
    compress_level: int = 1
    evictable: bool = True
    on_error: str = "raise"
    scan_warning_keys: int = 10_000
    consistency: str = "safe"
    max_staleness_ms: int | None = None
    leader_timeout_ms: int | None = None
    replica: str | None = None
    replica_by_default: bool = False
    secret: bytes | None = field(default=None, repr=False)
    tls: Tls | None = None
    reverse_key_function: Any = None
    max_entries: int | None = None
    cull_frequency: int = 3

    @property
    def security(self) -> Security:
        """What to show to nodes, and to want of them."""
        return Security(self.secret, self.tls)


_STORE_OPTIONS: Final = frozenset(field.name for field in fields(StoreOptions)) - {"lock_wait_ms"}
_CHOICES: Final[dict[str, tuple[Any, ...]]] = {
    "serializer": SERIALIZERS,
    "compressor": (None, *COMPRESSORS),
    "on_error": ON_ERROR,
    "consistency": LEVELS,
    "signed": (True, False),
    "evictable": (True, False),
}
_RANGES: Final[dict[str, tuple[int, int]]] = {
    "timeout_ms": (1, 24 * 3600 * 1000),
    "leader_timeout_ms": (1, 24 * 3600 * 1000),
    "max_staleness_ms": (0, 2**62),
    "compress_min_bytes": (0, 2**31),
    "compress_level": (1, 9),
    "database": (0, 1023),
    "scan_warning_keys": (0, 2**62),
    "MAX_ENTRIES": (1, 2**62),
    "CULL_FREQUENCY": (0, 2**62),
}


_MAY_BE_NONE: Final = ("max_staleness_ms", "leader_timeout_ms")


def make_config(location: Any, options: Mapping[str, Any]) -> Config:
    """Check one alias's settings.

    Arguments:
        location: ``LOCATION``: a folder (path or ``embedded:`` URL), ``keyspace://host:port/database``, the same with
            ``keyspaces://`` for TLS, ``keyspace+unix:///path/node.sock?database=n``, or a list of addresses of one cluster.
        options: ``OPTIONS``.
    Raises:
        ConfigurationError: something is missing, unknown, contradictory or out of range.
    """
    for name in options:
        if name not in OPTIONS:
            raise ConfigurationError(_unknown(name))
    for name, choices in _CHOICES.items():
        if name in options and (options[name] not in choices or isinstance(options[name], int) is not (name in _FLAGS)):
            raise ConfigurationError(f"Option {name} must be one of {choices}, not {options[name]!r}.")
    for name, (least, most) in _RANGES.items():
        number = options.get(name, least)
        if number is None and name in _MAY_BE_NONE:
            continue
        if type(number) is not int or not least <= number <= most:
            raise ConfigurationError(f"Option {name} must be an integer from {least:,} to {most:,}, not {number!r}.")
    address, is_remote, url_database = _parse_location(location)
    security = NO_SECURITY
    if is_remote:
        _refuse_embedded_options(options)
        uses_tls = address.startswith("keyspaces://")
        security = make_security(uses_tls=uses_tls, secret=options.get("secret"), tls=options.get("tls"))
    elif not options.keys().isdisjoint(("secret", "tls", "replica")):
        raise ConfigurationError(
            "Options secret, tls and replica are for nodes, and the store of this alias is a folder."
        )
    database = options.get("database", url_database or 0)
    if url_database and database != url_database:
        raise ConfigurationError(f"LOCATION names database {url_database} and the option database says {database}.")
    store = StoreOptions(
        **{name: options[name] for name in _STORE_OPTIONS if name in options},
        lock_wait_ms=options.get("timeout_ms", 5000),
    )
    if not is_remote and database >= store.databases:
        raise ConfigurationError(f"There is no database {database}: the store has {store.databases}, numbered from 0.")
    replica = _replica(options.get("replica"), address)
    plain = {name: options[name] for name in _PLAIN_OPTIONS if name in options}
    return Config(
        location=address,
        is_remote=is_remote,
        store=store,
        database=database,
        secret=security.secret,
        tls=security.tls,
        replica=replica,
        replica_by_default=replica is not None and options.get("replica") is None,
        reverse_key_function=_callable(options.get("reverse_key_function")),
        max_entries=options.get("MAX_ENTRIES"),
        cull_frequency=options.get("CULL_FREQUENCY", 3),
        **plain,
    )


_FLAGS: Final = ("signed", "evictable")
_PLAIN_OPTIONS: Final = (
    "timeout_ms",
    "serializer",
    "signed",
    "compressor",
    "compress_min_bytes",
    "compress_level",
    "evictable",
    "on_error",
    "scan_warning_keys",
    "consistency",
    "max_staleness_ms",
    "leader_timeout_ms",
)


def _unknown(name: str) -> str:
    by_lower_case = {option.lower(): option for option in OPTIONS}
    nearest = difflib.get_close_matches(str(name).lower(), by_lower_case, n=1)
    hint = f" Did you mean {by_lower_case[nearest[0]]!r}?" if nearest else ""
    return f"There is no option {name!r} in OPTIONS.{hint} Known are: {', '.join(OPTIONS)}."


def _refuse_embedded_options(options: Mapping[str, Any]) -> None:
    for name in ("durability", "max_bytes", "map_bytes", "databases"):
        if name in options:
            raise ConfigurationError(
                f"Option {name} belongs to the store, and the store of this alias is a node's: start the node with "
                f"--{name.replace('_', '-')} instead."
            )


def _parse_location(location: Any) -> tuple[str, bool, int | None]:
    """``(folder or URL, whether it is a URL, database in the URL)``."""
    if isinstance(location, os.PathLike):
        location = os.fspath(location)
    elif isinstance(location, list | tuple):
        location = _joined(location)
    if not isinstance(location, str) or not location:
        raise ConfigurationError(
            "LOCATION must be a folder for the store (a path or embedded:PATH) or a node (keyspace://HOST:PORT/DATABASE), "
            f"not {location!r}."
        )
    if location.partition("://")[0] in SCHEMES:
        return location, True, parse_location(location).database
    if location.startswith(EMBEDDED_SCHEME):
        path = location.removeprefix(EMBEDDED_SCHEME)
        path = path.removeprefix("//") if path.startswith("///") else path
    elif "://" in location:
        raise ConfigurationError(
            f"LOCATION {location!r}: only {', '.join(f'{scheme}://' for scheme in SCHEMES)} and embedded: URLs and paths "
            "are known."
        )
    else:
        path = location
    if not path:
        raise ConfigurationError(f"LOCATION {location!r} names no folder.")
    return os.path.abspath(path), False, None


def _joined(addresses: Sequence[Any]) -> str:
    """One URL of a list: the first may have a scheme and a database, and then they are those of all."""
    if not addresses or not all(isinstance(address, str) for address in addresses):
        raise ConfigurationError(f"LOCATION as a list has the addresses of a cluster's nodes, not {addresses!r:.200}.")
    parts = [address.rpartition("://") for address in addresses]
    schemes = {scheme for scheme, _, _ in parts if scheme}
    databases = {database for _, _, rest in parts if (database := rest.partition("/")[2])}
    if len(schemes) > 1 or len(databases) > 1:
        raise ConfigurationError(
            f"LOCATION {addresses!r:.200}: all nodes of a list have the same scheme and the same database."
        )
    hosts = ",".join(rest.partition("/")[0] for _, _, rest in parts)
    return f"{min(schemes, default='keyspace')}://{hosts}/{min(databases, default='')}"


def _replica(place: Any, address: str) -> str | None:
    """The data folder of the node whose store is read, or its socket, absolute; or the word ``auto``; None: no node's."""
    found = os.fspath(place) if isinstance(place, os.PathLike) else place
    if found is None:  # a Unix socket is of this host, and so is the store beside it
        return "auto" if address.startswith("keyspace+unix:") else None
    if found is False:
        return None
    if found is True:
        return "auto"
    if isinstance(found, str) and (found == "auto" or os.path.isabs(found)):
        return found
    raise ConfigurationError(
        "Option replica must be the absolute path of the data folder of a node on this host, 'auto' (or True), or False, not "
        f"{place!r:.80}."
    )


def _callable(function: Any) -> Any:
    if isinstance(function, str):
        function = import_string(function)
    if function is not None and not callable(function):
        raise ConfigurationError(f"Option reverse_key_function must be callable or a dotted path, not {function!r}.")
    return function

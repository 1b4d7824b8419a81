"""From a client's ``host`` and ``port`` to an engine: a node's address, a URL, or the folder of an embedded store."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any, Final

from django_keyspace.addresses import is_remote, parse_location
from django_keyspace.backend.embedded import EmbeddedEngine, Engine, open_for_records
from django_keyspace.backend.kyoto.errors import in_kt_words
from django_keyspace.backend.routing import TIMEOUT_MS_DEFAULT
from django_keyspace.backend.transport import remote_engine
from django_keyspace.conf import EMBEDDED_SCHEME
from django_keyspace.exceptions import ConfigurationError, KeyspaceError
from django_keyspace.operations import MODELS_BASE, VALUE_BYTES_MAX_DEFAULT
from django_keyspace.security import make_security

HOST_DEFAULT: Final = "127.0.0.1"
PORT_DEFAULT: Final = 1978
_NODE_OPTIONS: Final = frozenset({"secret", "tls"})


@dataclass(frozen=True, slots=True)
class Place:
    """Where a client's data is.

    Attributes:
        engine: carries operations out there.
        databases: how many databases there are, as far as known; the models' are not among them.
        value_bytes_max: largest payload, as far as known; a node checks its own limit.
        is_local: whether it is a store in this process.
        name: the address or the folder, for people.
    """

    engine: Engine
    databases: int
    value_bytes_max: int
    is_local: bool
    name: str


def timeout_ms_of(timeout: Any) -> int:
    """Milliseconds of a client's ``timeout``.

    Arguments:
        timeout: seconds, or None for the default of 5 s: no call waits without an end.
    Raises:
        ConfigurationError: it is no such time. (Also kt's ImproperlyConfigured.)
    """
    if timeout is None:
        return TIMEOUT_MS_DEFAULT
    is_number = isinstance(timeout, int | float) and not isinstance(timeout, bool) and math.isfinite(timeout)
    if not is_number or not 0.001 <= timeout <= 24 * 3600:
        raise in_kt_words(
            ConfigurationError(f"timeout must be seconds, from 0.001 to 86400, or None for 5 s; not {timeout!r:.40}.")
        )
    rounded: int = round(timeout * 1000)
    return rounded


def _is_folder(host: Any) -> bool:
    return isinstance(host, os.PathLike) or (
        isinstance(host, str) and not is_remote(host) and (os.sep in host or host.startswith((EMBEDDED_SCHEME, ".")))
    )


def find_place(host: Any, port: Any, timeout: Any, options: dict[str, Any]) -> Place:
    """The place that a client's arguments name. Nothing is opened or connected.

    Arguments:
        host: a node's host name or address; or ``keyspace://...``, ``keyspace+unix://...``; or a folder: a ``Path``, or
            text with a slash in it, or ``embedded:FOLDER``.
        port: the node's port, if host is a name or an address.
        timeout: seconds per call, or None for 5.
        options: for a folder: how the store is opened, if this process has not opened it yet. For a node: ``secret`` and
            ``tls``, as in OPTIONS of an alias.
    Raises:
        ConfigurationError: they make no sense. (Also kt's ImproperlyConfigured.)
    """
    timeout_ms = timeout_ms_of(timeout)
    try:
        if _is_folder(host):
            return _folder(os.fspath(host), timeout_ms, options)
        return _node(host, port, timeout_ms, options)
    except KeyspaceError as error:
        raise in_kt_words(error) from None


def _folder(host: str, timeout_ms: int, options: dict[str, Any]) -> Place:
    path = host.removeprefix(EMBEDDED_SCHEME)
    if not path:
        raise ConfigurationError(f"host {host!r} names no folder.")
    store = open_for_records(os.path.abspath(path), options)
    opened = store.options
    return Place(
        EmbeddedEngine(store, timeout_ms), opened.databases, opened.value_bytes_max, is_local=True, name=store.path
    )


def _node(host: Any, port: Any, timeout_ms: int, options: dict[str, Any]) -> Place:
    if options.keys() - _NODE_OPTIONS:
        raise ConfigurationError(
            f"{', '.join(sorted(options.keys() - _NODE_OPTIONS))}: options of a store are for a host that is a folder; a node "
            "is started with its own."
        )
    if not isinstance(host, str) or not host:
        raise ConfigurationError(f"host must be a host name, an address, a URL or a folder, not {host!r:.80}.")
    if is_remote(host):
        location = host
    else:
        if type(port) is not int or not 0 < port <= 65_535:
            raise ConfigurationError(f"port must be a number from 1 to 65535, not {port!r:.40}.")
        address = f"[{host}]" if ":" in host and not host.startswith("[") else host
        location = f"keyspace://{address}:{port}/0"
    security = make_security(uses_tls=parse_location(location).uses_tls, **options) if options else None
    engine = remote_engine(location, timeout_ms=timeout_ms, security=security)
    name = ", ".join(map(str, engine.endpoints))
    return Place(engine, MODELS_BASE, VALUE_BYTES_MAX_DEFAULT, is_local=False, name=name)

"""What a client shows to nodes and wants to see of them: the shared secret, and TLS."""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, Final

from django_keyspace.exceptions import AuthenticationFailed, ConfigurationError, KeyspaceError, ProtocolError
from django_keyspace.handshake import check_secret, find_secret


@dataclass(frozen=True, slots=True)
class Tls:
    """How a client uses TLS 1.3.

    Attributes:
        ca: file with the authorities that may have signed the node's certificate (PEM); None: those of the system.
        cert: file with this client's own certificate, for nodes that ask for one.
        key: file with its key.
        verify_hostname: whether the certificate must be for the host of the address.
    """

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    verify_hostname: bool = True


@dataclass(frozen=True, slots=True)
class Security:
    """What a client shows to nodes and wants to see of them.

    Attributes:
        secret: the secret that both sides must know, None for nodes without one.
        tls: how to use TLS, None for none.
    """

    secret: bytes | None = field(default=None, repr=False)
    tls: Tls | None = None

    def context(self) -> ssl.SSLContext | None:
        """The TLS side of connections, None without TLS. Raises :class:`ConfigurationError`."""
        return None if self.tls is None else _context(self.tls)


NO_SECURITY: Final = Security()


def make_security(
    *, uses_tls: bool, secret: Any = None, tls: Any = None, environment: Mapping[str, str] = os.environ
) -> Security:
    """Check what a site has configured.

    Arguments:
        uses_tls: whether the location is a ``keyspaces://`` one.
        secret: the option ``secret``; None: ``KEYSPACE_SECRET`` or ``KEYSPACE_SECRET_FILE`` of the environment, if given.
        tls: the option ``tls``: a mapping of the fields of :class:`Tls`.
        environment: see ``secret``.
    Raises:
        ConfigurationError: one of them is not legal.
    """
    if secret is not None and not isinstance(secret, str | bytes):
        raise ConfigurationError(f"Option secret must be str or bytes, not {type(secret).__name__}.")
    found = check_secret(secret) if secret else find_secret(None, environment)
    if tls is not None and not uses_tls:
        raise ConfigurationError("Option tls is for nodes with TLS: write keyspaces:// in LOCATION.")
    return Security(found, _make_tls(tls) if uses_tls else None)


def _make_tls(options: Any) -> Tls:
    known = {row.name for row in fields(Tls)}
    if not isinstance(options, Mapping | None) or (unknown := set(options or {}) - known):
        wrong = (
            f"it has the unknown {', '.join(sorted(unknown))}"
            if isinstance(options, Mapping)
            else f"not {options!r:.80}"
        )
        raise ConfigurationError(f"Option tls must be a mapping with {', '.join(sorted(known))}: {wrong}.")
    values = {
        name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in (options or {}).items()
    }
    verify_hostname = values.get("verify_hostname", True)
    files = [name for name in ("ca", "cert", "key") if not isinstance(values.get(name), str | None)]
    if files or not isinstance(verify_hostname, bool):
        raise ConfigurationError("Option tls: ca, cert and key are paths of files, verify_hostname is True or False.")
    tls = Tls(**values)
    if bool(tls.cert) != bool(tls.key):
        raise ConfigurationError("Option tls: cert and key belong together.")
    _context(tls)
    return tls


@lru_cache(maxsize=32)
def _context(tls: Tls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = tls.verify_hostname
        if tls.cert:
            context.load_cert_chain(tls.cert, tls.key)
    except (OSError, ValueError) as error:
        why = (error.reason if isinstance(error, ssl.SSLError) else getattr(error, "strerror", None)) or error
        raise ConfigurationError(f"Option tls: a file cannot be used: {why}.") from error
    return context


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address. A name counts as no: where it points can change."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def tls_failed(endpoint: object, error: ssl.SSLError) -> KeyspaceError:
    """The error for a TLS connection that did not come about."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return AuthenticationFailed(
            f"The certificate of the node at {endpoint} is not accepted: {error.verify_message}. Nothing was sent. See "
            "the option tls: ca names the authorities that this client trusts."
        )
    return ProtocolError(
        f"No TLS with the node at {endpoint}: {error.reason or error}. Does it use TLS 1.3 (--tls-cert), and does it want a "
        "certificate of this client?"
    )

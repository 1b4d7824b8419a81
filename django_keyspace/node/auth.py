"""Who may talk to a node: its certificates.

The handshake itself is in ``handshake.py``, which clients share. Here is the TLS side of a node.
"""

from __future__ import annotations

import logging
import ssl

from django_keyspace.exceptions import ConfigurationError

logger = logging.getLogger("django_keyspace.node")


class ServerTls:
    """The TLS side of a node: TLS 1.3 only.

    Arguments:
        cert: file with the certificate and its chain.
        key: file with its key.
        ca: file with the authorities whose certificates clients must show, or None: then clients need none.
    Raises:
        ConfigurationError: a file cannot be used.
    """

    def __init__(self, cert: str, key: str, ca: str | None) -> None:
        self._cert, self._key, self._ca = cert, key, ca
        self.wants_certificates = ca is not None
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        self.dialling: ssl.SSLContext | None = None
        """For connections that this node opens to others; None before :meth:`meet_peers`."""
        self._load()
        if ca is not None:
            _trust(self.context, ca)
            self.context.verify_mode = ssl.CERT_REQUIRED

    def meet_peers(self, ca: str | None) -> None:
        """Prepare for links between nodes: each shows the other one its certificate.

        Arguments:
            ca: file with the authorities of the nodes' certificates; None: those of clients', or those of the system.
        """
        if ca is not None:
            _trust(self.context, ca)
        elif not self.wants_certificates:
            self.context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
        if not self.wants_certificates:
            # Whoever is a client need not show one. Whoever is a node must: see ``peers.py``.
            self.context.verify_mode = ssl.CERT_OPTIONAL
        self.dialling = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.dialling.minimum_version = ssl.TLSVersion.TLSv1_3
        if ca is not None or self._ca is not None:
            _trust(self.dialling, ca or self._ca or "")
        else:
            self.dialling.load_default_certs(ssl.Purpose.SERVER_AUTH)
        self._load()

    def reload(self) -> bool:
        """Read certificate and key again: connections from now on get the new ones. False if that failed, and why is logged."""
        try:
            # Into a context of its own first: one that has failed half-way would serve nobody.
            ServerTls(self._cert, self._key, None)
            self._load()
        except ConfigurationError as error:
            logger.error("The certificate stays as it was: %s", error)
            return False
        logger.info("The certificate was read again from %s", self._cert)
        return True

    def _load(self) -> None:
        try:
            for context in filter(None, (self.context, self.dialling)):
                context.load_cert_chain(self._cert, self._key)
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"The certificate {self._cert} with the key {self._key} cannot be used: {_why(error)}."
            ) from error


def _trust(context: ssl.SSLContext, ca: str) -> None:
    try:
        context.load_verify_locations(ca)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"The authorities in {ca} cannot be used: {_why(error)}.") from error


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    return (error.strerror if isinstance(error, OSError) else None) or str(error)

"""How client and node show each other that they know the same secret, without saying it.

Both choose a nonce and put it into their hello. Each then proves that it knows the secret by an HMAC over both nonces and
what the node says of itself: the node in its hello, the client in the frame after that and before its first request. The
words "node" and "client" in what is signed keep one proof from being sent back as the other. Nonces are never used twice,
so an overheard proof is of no use. What follows the handshake is neither signed nor encrypted by this: that is what TLS is
for.

Nodes do the same among themselves, with words of their own (:func:`peer_proof`).
"""

from __future__ import annotations

import hmac
import os
import stat
from collections.abc import Mapping
from typing import Final

from django_keyspace.exceptions import AuthenticationFailed, ConfigurationError

NONCE_BYTES: Final = 32
SECRET_BYTES_MIN: Final = 16
SECRET_BYTES_MAX: Final = 1024
PROOF: Final = "proof"
"""The first word of the client's frame with its proof."""
SECRET_VARIABLE: Final = "KEYSPACE_SECRET"
SECRET_FILE_VARIABLE: Final = "KEYSPACE_SECRET_FILE"
_OTHERS_MAY_READ: Final = stat.S_IROTH | stat.S_IWOTH
_CONTEXT: Final = b"django-keyspace handshake 1"


def new_nonce() -> bytes:
    """A number that nobody has used before."""
    return os.urandom(NONCE_BYTES)


def check_secret(secret: str | bytes) -> bytes:
    """The secret as bytes, without the line break that a file ends with.

    Raises:
        ConfigurationError: it is too short to be one, or too long.
    """
    found = (secret.encode() if isinstance(secret, str) else bytes(secret)).strip()
    if not SECRET_BYTES_MIN <= len(found) <= SECRET_BYTES_MAX:
        raise ConfigurationError(
            f"The secret has {len(found)} bytes and must have {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX:,}. Make one: "
            'python -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    return found


def find_secret(path: str | None, environment: Mapping[str, str]) -> bytes | None:
    """The secret that this process was given, or None if it was given none.

    Arguments:
        path: the file of a node's ``--secret-file``.
        environment: with ``KEYSPACE_SECRET`` or ``KEYSPACE_SECRET_FILE``.
    Raises:
        ConfigurationError: it is given twice, cannot be read, or is no secret.
    """
    given = {
        "--secret-file": path,
        SECRET_FILE_VARIABLE: environment.get(SECRET_FILE_VARIABLE),
        SECRET_VARIABLE: environment.get(SECRET_VARIABLE),
    }
    named = [name for name, value in given.items() if value]
    if len(named) > 1:
        raise ConfigurationError(f"The secret is given by {' and by '.join(named)}. Give it once.")
    if not named:
        return None
    if named[0] == SECRET_VARIABLE:
        return check_secret(environment[SECRET_VARIABLE])
    return read_secret(given[named[0]] or "")


def read_secret(path: str) -> bytes:
    """The secret in a file. Raises :class:`ConfigurationError`."""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(4096)
    except OSError as error:
        raise ConfigurationError(f"The secret's file {path} cannot be read: {error.strerror or error}.") from error
    if os.name == "posix" and mode & _OTHERS_MAY_READ:
        raise ConfigurationError(f"Every user of this host may read {path} or write to it: chmod 600 {path}.")
    return check_secret(content)


def node_proof(secret: bytes, client_nonce: bytes, node_nonce: bytes, node: str, cluster: str | None) -> bytes:
    """What a node puts into its hello."""
    return _proof(secret, b"node", client_nonce, node_nonce, node, cluster)


def client_proof(secret: bytes, client_nonce: bytes, node_nonce: bytes, node: str, cluster: str | None) -> bytes:
    """What a client sends after the node's hello."""
    return _proof(secret, b"client", client_nonce, node_nonce, node, cluster)


def peer_proof(
    secret: bytes, role: str, nonces: tuple[bytes, bytes], nodes: tuple[str, str], cluster: str | None
) -> bytes:
    """What two nodes show each other when one connects to the other.

    Arguments:
        secret: what both know.
        role: whose proof it is: ``dialler`` or ``acceptor``. Neither is the word of a client or of a node to a client.
        nonces: that of the node that connects, then that of the node that it connects to.
        nodes: their ids, in the same order.
        cluster: the cluster of the node whose proof it is.
    """
    return _proof(secret, f"peer {role} {nodes[0]}".encode(), *nonces, nodes[1], cluster)


def require_same(expected: bytes, proof: object, sentence: str) -> None:
    """Raise :class:`AuthenticationFailed` with a sentence unless a proof is the expected one."""
    if type(proof) is not bytes or not hmac.compare_digest(expected, proof):
        raise AuthenticationFailed(sentence)


def _proof(secret: bytes, role: bytes, client_nonce: bytes, node_nonce: bytes, node: str, cluster: str | None) -> bytes:
    parts = (_CONTEXT, role, client_nonce, node_nonce, node.encode(), (cluster or "").encode())
    # Each part behind its length: no two different lists of parts are the same bytes.
    return hmac.digest(secret, b"".join(len(part).to_bytes(4, "big") + part for part in parts), "sha256")

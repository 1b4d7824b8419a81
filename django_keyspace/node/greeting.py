"""How two nodes greet each other on a connection between them, as messages. Sans-IO.

==========================================  ==========================================================================
dialler: ``("keyspace", version, fields)``  :class:`PeerHello`, with a nonce if it has the secret
acceptor: the same                          with its own nonce, and the proof that it knows the secret
dialler: ``("proof", bytes or None)``       that it knows the secret, too
acceptor: ``("welcome",)``                  from now on frames may be sent in both directions
either: ``(0, code, sentence)``             the other one is not taken, and why; then the connection is closed
==========================================  ==========================================================================

So neither says anything that depends on who the other one is before it has seen a proof. The version in a hello is that of the
links between nodes, which has nothing to do with that of clients: the dialler names the newest that it speaks, the acceptor the
one to use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from django_keyspace.exceptions import AuthenticationFailed, ProtocolError
from django_keyspace.handshake import NONCE_BYTES, PROOF, new_nonce, peer_proof, require_same
from django_keyspace.wire import PROTOCOL_NAME, connection_error, hello_field, hello_parts

PEER_VERSION: Final = 1
PEER_VERSION_OLDEST: Final = 1
ROLE: Final = "peer"
LINK: Final = "link"
"""The purpose of a connection that carries what the consensus of two nodes says."""
ASK: Final = "ask"
"""The purpose of a connection of a node that is in no cluster yet: see ``bootstrap.py``."""
WELCOME: Final = "welcome"
_DIALLER: Final = "dialler"
_ACCEPTOR: Final = "acceptor"


@dataclass(frozen=True, slots=True)
class PeerHello:
    """What a node says of itself to another one.

    Attributes:
        node: its member id: name and incarnation, with a dot between them.
        cluster: the cluster's id, None if it is in none yet.
        purpose: :data:`LINK` or :data:`ASK`.
        address: where it can be reached.
        entry_version: the newest version of the log's entries that it reads.
        store: what has to be equal on all nodes: the number of databases, the largest value in bytes, and ``max_bytes``.
        lease: what reads by lease rest on: the largest difference of two clocks in millionths, and the election timeout in ms;
            zeros without leases. Equal on all nodes: one that does not wait for a leader makes the leases of others untrue.
        is_member: whether it is a member of its cluster, as far as it knows itself.
        release: its release of this package: for logs only.
        version: of the links between nodes.
        nonce: its part of the handshake, None if it has no secret.
        proof: that it knows the secret.
    """

    node: str
    cluster: str | None
    purpose: str
    address: str
    entry_version: int
    store: tuple[int, ...]
    lease: tuple[int, ...] = (0, 0)
    is_member: bool = False
    release: str = ""
    version: int = PEER_VERSION
    nonce: bytes | None = None
    proof: bytes | None = None

    @property
    def name(self) -> str:
        """The node's name, without its incarnation."""
        return self.node.rpartition(".")[0]

    def message(self) -> tuple[Any, ...]:
        """What to encode."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name != "version"}
        return (PROTOCOL_NAME, self.version, {"role": ROLE, **fields})

    @classmethod
    def parse(cls, message: Any) -> PeerHello:
        """The hello in a decoded message.

        Raises:
            ProtocolError: it is none, or of a version that this release does not speak.
            KeyspaceError: the other side refused the connection.
        """
        refusal = connection_error(message)
        if refusal is not None:
            raise refusal
        version, fields = hello_parts(message)
        if fields.get("role") != ROLE:
            raise ProtocolError("What answers there does not greet as a node of a cluster. Is its release too old?")
        if version < PEER_VERSION_OLDEST:
            raise ProtocolError(
                f"The other node's links have version {version}, and this release speaks {PEER_VERSION_OLDEST} to "
                f"{PEER_VERSION}. Upgrade the older one first to a release between both."
            )
        node: str = hello_field(fields, "node", str)
        name, _, incarnation = node.rpartition(".")
        if not name or not incarnation or len(node) > 200:
            raise ProtocolError(f"{node!r:.80} is not the id of a member.")
        return cls(
            node,
            hello_field(fields, "cluster", str, None),
            hello_field(fields, "purpose", str),
            hello_field(fields, "address", str, ""),
            hello_field(fields, "entry_version", int),
            hello_field(fields, "store", tuple),
            hello_field(fields, "lease", tuple, (0, 0)),
            hello_field(fields, "is_member", bool, False),
            hello_field(fields, "release", str, ""),
            version,
            hello_field(fields, "nonce", bytes, None),
            hello_field(fields, "proof", bytes, None),
        )


def is_peer_hello(message: Any) -> bool:
    """Whether the first message of a connection is that of a node, and not of a client."""
    try:
        return hello_parts(message)[1].get("role") == ROLE
    except ProtocolError:
        return False


class Dialling:
    """The side that has opened the connection.

    Arguments:
        own: what this node says of itself.
        secret: what both have to know, None if this node has none.

    Attributes:
        peer: what the other side said of itself, from its hello on.
        done: whether it has said that this node is welcome.
    """

    def __init__(self, own: PeerHello, secret: bytes | None) -> None:
        self._secret = secret
        self._own = replace(own, nonce=new_nonce() if secret is not None else None)
        self.peer: PeerHello | None = None
        self.done = False

    def first(self) -> list[Any]:
        """What to say before anything has come."""
        return [self._own.message()]

    def take(self, message: Any) -> list[Any]:
        """Take a message, and return those to send.

        Raises:
            KeyspaceError: the connection is to be closed.
        """
        if self.peer is None:
            return [(PROOF, self._meet(PeerHello.parse(message)))]
        refusal = connection_error(message)
        if refusal is not None:
            raise refusal
        if type(message) is not tuple or message[:1] != (WELCOME,):
            raise ProtocolError("The other node neither takes this one nor says why not.")
        self.done = True
        return []

    def _meet(self, peer: PeerHello) -> bytes | None:
        if peer.version > PEER_VERSION:
            raise ProtocolError(f"The other node answers with version {peer.version} of links, which nobody asked for.")
        secret, own = self._secret, self._own
        if secret is None:
            if peer.nonce is not None:
                raise AuthenticationFailed(f"Node {peer.name} wants a secret, and this node has none.")
            self.peer = peer
            return None
        if own.nonce is None or peer.nonce is None or len(peer.nonce) != NONCE_BYTES:
            raise AuthenticationFailed(f"Node {peer.name} has no secret, and this node wants one.")
        nonces, nodes = (own.nonce, peer.nonce), (own.node, peer.node)
        sentence = f"The secret of node {peer.name} is another one than this node's."
        require_same(peer_proof(secret, _ACCEPTOR, nonces, nodes, peer.cluster), peer.proof, sentence)
        self.peer = peer
        return peer_proof(secret, _DIALLER, nonces, nodes, own.cluster)


class Accepting:
    """The side that was called.

    Arguments:
        own: what this node says of itself.
        secret: what both have to know, None if this node has none.
        admit: told of the other side once it has shown that it knows the secret; raises what is to be said to it if it is
            not to be taken.

    Attributes:
        peer: what the other side said of itself; not proven before `done`.
        done: whether it was told that it is welcome.
    """

    def __init__(self, own: PeerHello, secret: bytes | None, admit: Callable[[PeerHello], None]) -> None:
        self._secret = secret
        self._own = own
        self._admit = admit
        self._expected: bytes | None = None
        self.peer: PeerHello | None = None
        self.done = False

    def first(self) -> list[Any]:
        """What to say before anything has come: nothing."""
        return []

    def take(self, message: Any) -> list[Any]:
        """See :meth:`Dialling.take`."""
        if self.peer is None:
            return [self._meet(PeerHello.parse(message)).message()]
        if type(message) is not tuple or len(message) != 2 or message[0] != PROOF:
            raise AuthenticationFailed("The node sent something else before its proof.")
        if self._expected is not None:
            name = self._own.name
            require_same(self._expected, message[1], f"The node's secret is not that of node {name}.")
        self._admit(self.peer)
        self.done = True
        return [(WELCOME,)]

    def _meet(self, peer: PeerHello) -> PeerHello:
        secret = self._secret
        own = replace(self._own, version=min(peer.version, PEER_VERSION), purpose=peer.purpose)
        self.peer = peer
        if secret is None:
            if peer.nonce is not None:
                raise AuthenticationFailed(f"Node {own.name} has no secret, and the node that calls wants one.")
            return own
        if peer.nonce is None or len(peer.nonce) != NONCE_BYTES:
            raise AuthenticationFailed(f"Node {own.name} takes nodes with its secret only, and this one has none.")
        nonces, nodes = (peer.nonce, new_nonce()), (peer.node, own.node)
        self._expected = peer_proof(secret, _DIALLER, nonces, nodes, peer.cluster)
        proof = peer_proof(secret, _ACCEPTOR, nonces, nodes, own.cluster)
        return replace(own, nonce=nonces[1], proof=proof)

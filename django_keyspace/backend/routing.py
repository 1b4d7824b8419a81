"""The client without its sockets: addresses, what is said on a connection, and what is done when it fails.

Sans-IO: nothing here sends, receives, sleeps or reads a clock. ``transport.py`` has a blocking and an asyncio driver,
which ask these objects what to say, tell them what was answered, and do what they decide.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django_keyspace import __version__
from django_keyspace.addresses import Endpoint
from django_keyspace.exceptions import (
    AuthenticationFailed,
    DeadlineExceeded,
    KeyspaceError,
    NoConnection,
    NoLeader,
    Overloaded,
    ProtocolError,
    SessionExpired,
    TooStale,
    TransportError,
    UnknownOutcome,
)
from django_keyspace.handshake import PROOF, client_proof, new_nonce, node_proof, require_same
from django_keyspace.operations import CHANGES
from django_keyspace.wire import (
    CONNECTION_ID,
    HELLO_BYTES_MAX,
    OK,
    ClientHello,
    Decoder,
    Encoder,
    FrameReader,
    NodeHello,
    connection_error,
)

TIMEOUT_MS_DEFAULT: Final = 5_000
ATTEMPTS_MAX: Final = 4
"""How often a call is tried in all: enough for a dead pooled connection and a node that restarts quickly."""
RETRY_DELAY_MS: Final = 10
"""Pause before the second try of a node that is not there; doubles with each further one."""
_DOUBLINGS_MAX: Final = 5
_LAST_PAUSE_MS: Final = 20
"""A write that may be done is asked for until less than this is left of its time."""
_TLS_ALERT: Final = b"\x15\x03"
"""How the answer of a TLS server begins to somebody who speaks something else."""


Meet = Callable[[Endpoint, NodeHello], None]


class ClusterMet(KeyspaceError):
    """The node at the only address of a location is one of a cluster's: calls go by another way. No caller sees it."""


def require_single(endpoint: Endpoint, node: NodeHello) -> None:
    """Raise :class:`ClusterMet` if a node is one of a cluster's."""
    if node.cluster is not None:
        raise ClusterMet(f"Node {node.node} at {endpoint} belongs to cluster {node.cluster:.80}.")


class Link:
    """The client's side of one connection: makes the frames to send, and understands those that come.

    Arguments:
        endpoint: the node, for messages.
        meet: looks at the node's hello, and raises if it is not the right one; None: any node is.
        secret: what both sides must know, or None.
        wants_index: whether a cluster is to tell the index of writes.
    """

    __slots__ = (
        "_encode",
        "_meets",
        "_nonce",
        "_reader",
        "_secret",
        "_wants_index",
        "decode",
        "endpoint",
        "ended_by",
        "frame_bytes_max",
        "last_id",
        "node",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        meet: Meet | None = None,
        secret: bytes | None = None,
        wants_index: bool = False,
    ) -> None:
        self.endpoint = endpoint
        self._secret = secret
        self._nonce = new_nonce() if secret is not None else None
        self.node: NodeHello | None = None
        """What the node said of itself; None until it has."""
        self.ended_by: KeyspaceError | None = None
        """The node's reason for ending this connection, once it has given one."""
        self.last_id = 0
        self.frame_bytes_max = HELLO_BYTES_MAX
        self.decode = Decoder().decode
        self._encode = Encoder(HELLO_BYTES_MAX).encode
        self._reader = FrameReader(HELLO_BYTES_MAX)
        self._meets = meet
        self._wants_index = wants_index

    def hello(self) -> bytes:
        """The first frame to send."""
        return self._encode(
            ClientHello(release=__version__, nonce=self._nonce, wants_index=self._wants_index).message()
        )

    def proof(self) -> bytes | None:
        """The frame to send once :attr:`node` is known, before the first request; None if the node wants none."""
        node = self.node
        if self._secret is None or self._nonce is None or node is None or node.nonce is None:
            return None
        return self._encode([PROOF, client_proof(self._secret, self._nonce, node.nonce, node.node, node.cluster)])

    def request(self, name: str, arguments: Sequence[Any]) -> bytes:
        """The frame of the next request, whose id is :attr:`last_id` from now on.

        Raises:
            InvalidArgument: an argument cannot be sent. (ValueTooLarge: the frame would be above the node's limit.)
        """
        request_id = self.last_id + 1
        frame = self._encode([request_id, name, *arguments])
        self.last_id = request_id
        return frame

    def receive(self, data: bytes) -> list[tuple[int, str, Any]]:
        """Understand what came.

        Arguments:
            data: bytes as they came.
        Returns:
            Answers: id, status, and result or sentence. The node's hello, and its goodbye, are kept in :attr:`node` and
            :attr:`ended_by` and are not among them.
        Raises:
            ProtocolError: the other side does not keep to the protocol.
            KeyspaceError: the node refused the connection.
        """
        answers = []
        if self.node is None and data.startswith(_TLS_ALERT):
            raise ProtocolError(f"{self.endpoint} speaks TLS: write keyspaces:// in LOCATION.")
        try:
            messages = [self.decode(body) for body in self._reader.feed(data)]
        except ProtocolError as error:
            raise self.named(error) from None
        for message in messages:
            if self.node is None:
                self._meet(message)
            else:
                answer = self.understand(message)
                if answer is not None:
                    answers.append(answer)
        return answers

    def understand(self, message: Any) -> tuple[int, str, Any] | None:
        """The answer in a decoded message; None if it is the node's last word on this connection.

        Raises:
            ProtocolError: it is neither.
        """
        if type(message) is not tuple or not 3 <= len(message) <= 3 + self._wants_index:
            raise self._not_ours("an answer that is not [id, status, result]")
        request_id, status = message[:2]
        if request_id == CONNECTION_ID:
            self.ended_by = connection_error(message)
            if self.ended_by is None:
                raise self._not_ours("a goodbye without a reason")
            return None
        if type(request_id) is not int or type(status) is not str:
            raise self._not_ours("an answer without an id or a status")
        return message

    def _meet(self, message: Any) -> None:
        try:
            node = NodeHello.parse(message)
        except ProtocolError as error:
            raise self.named(error) from None
        self._check(node)
        if self._meets is not None:
            self._meets(self.endpoint, node)
        self.node = node
        self.frame_bytes_max = node.frame_bytes_max
        self._encode = Encoder(node.frame_bytes_max).encode
        self._reader.frame_bytes_max = node.frame_bytes_max

    def _check(self, node: NodeHello) -> None:
        """Whether the node knows the secret, if there is one."""
        if self._secret is None or self._nonce is None:
            return
        if node.nonce is None:
            raise AuthenticationFailed(
                f"Node {node.node} at {self.endpoint} has no secret and this client has one, so it may be anybody's. Nothing was "
                "sent. Start the node with --secret-file, or take the option secret (or KEYSPACE_SECRET) away."
            )
        expected = node_proof(self._secret, self._nonce, node.nonce, node.node, node.cluster)
        sentence = (
            f"The secret of node {node.node} at {self.endpoint} is another one than this client's. Nothing was sent."
        )
        require_same(expected, node.proof, sentence)

    def named(self, error: ProtocolError) -> ProtocolError:
        """A protocol error with the address of the node, which the codec does not know."""
        if str(self.endpoint) in str(error):
            return error
        return ProtocolError(f"{self.endpoint} does not speak this protocol: {error}")

    def _not_ours(self, what: str) -> ProtocolError:
        return ProtocolError(
            f"{self.endpoint} sent {what}. Is it a keyspace node, and of a release that fits this one?"
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that brought no answer.

    Attributes:
        error: what happened.
        sent: whether the node may have received the whole request.
        reached: whether there was a connection to a node that had said hello.
    """

    error: KeyspaceError
    sent: bool
    reached: bool = False


class Attempts:
    """One call's way through its deadline: what to do after each failed attempt.

    A call that had no effect is tried a few times, while there is time. A write that may have reached a node is sent again
    under its session and sequence until there is an answer or the time is over; without a session it is never sent again.

    Arguments:
        name: the operation.
        endpoint: the node.
        deadline_at_s: when the call's time is over, on the driver's monotonic clock.
        timeout_ms: how long that was in the beginning.
        leader_timeout_ms: how long to look for a node that takes the call, without one all the while. None: a few tries,
            however long they take.
        jitter: gives a random number from 0 to 1.

    Attributes:
        may_be_done: whether an attempt may have reached a node that did not answer, so that only an answer can tell what
            became of the write.
    """

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        deadline_at_s: float,
        timeout_ms: int,
        leader_timeout_ms: int | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self.deadline_at_s = deadline_at_s
        self.endpoint = endpoint
        self._timeout_ms = timeout_ms
        self._leader_timeout_ms = leader_timeout_ms
        self._jitter = jitter
        self.may_be_done = False
        self._failed = 0
        self._pauses = 0
        self._alone_since_s = deadline_at_s - timeout_ms / 1000

    @property
    def connect_by_s(self) -> float:
        """When a connection has to stand, on the driver's clock."""
        if self._leader_timeout_ms is None:
            return self.deadline_at_s
        return min(self.deadline_at_s, self._alone_since_s + self._leader_timeout_ms / 1000)

    def after(self, failure: Failure, now_s: float, *, has_session: bool = False) -> float:
        """Decide what follows a failed attempt.

        Arguments:
            failure: what happened.
            now_s: the driver's monotonic clock.
            has_session: whether the attempt had a session and a sequence.
        Returns:
            Seconds to wait before the next attempt.
        Raises:
            KeyspaceError: there is to be no other attempt; this is the call's error.
        """
        error = failure.error
        if isinstance(error, TransportError):
            error.reached = failure.reached
        if failure.sent and self.name in CHANGES:
            self.may_be_done = True
            if not has_session:
                raise self.unknown_outcome(error) from error
        if not self.may_be_done:
            return self._pause_s(failure, now_s)
        if isinstance(error, SessionExpired):
            raise self.unknown_outcome(error) from error
        try:
            return self._pause_s(failure, now_s)
        except KeyspaceError as last:
            raise self.unknown_outcome(last) from last

    def unknown_outcome(self, error: KeyspaceError) -> UnknownOutcome:
        """The error of a write that was sent, and of which no node says what became of it."""
        return unknown_outcome(self.name, self.endpoint, error)

    def _pause_s(self, failure: Failure, now_s: float) -> float:
        """Seconds until the next attempt; raises the error if there is to be none."""
        error = failure.error
        if not isinstance(error, TransportError) or isinstance(error, ProtocolError | TooStale):
            raise error
        if failure.reached:
            self._alone_since_s = now_s  # there was a node until now
        elif now_s >= self.connect_by_s < self.deadline_at_s:
            raise self._no_leader(error)
        if isinstance(error, DeadlineExceeded) or now_s >= self.deadline_at_s:
            raise self._over(error)
        self._failed += 1
        if self._gives_up(error):
            raise error
        if failure.sent and isinstance(error, NoConnection) and self._failed <= ATTEMPTS_MAX:
            return 0.0  # a connection broke: a new one may well work
        delay_s: float = RETRY_DELAY_MS / 1000 * 2 ** min(self._pauses, _DOUBLINGS_MAX) * (0.5 + self._jitter())
        self._pauses += 1
        if self._leader_timeout_ms is not None:
            return min(delay_s, self.connect_by_s - now_s)
        if self.may_be_done and self.deadline_at_s - now_s > _LAST_PAUSE_MS / 1000:
            return min(delay_s, (self.deadline_at_s - now_s) / 2)
        if now_s + delay_s >= self.deadline_at_s:
            raise error
        return delay_s

    def _gives_up(self, error: TransportError) -> bool:
        """Whether there were enough attempts. While a leader, or what became of a write, is looked for, only time
        counts."""
        patient = self.may_be_done or (self._leader_timeout_ms is not None and not isinstance(error, Overloaded))
        return not patient and self._failed >= ATTEMPTS_MAX

    def _over(self, error: TransportError) -> DeadlineExceeded:
        """The error of a call whose time is over, and that has changed nothing."""
        over = time_is_over(self.endpoint, self._timeout_ms, error)
        over.reached = error.reached
        return over

    def _no_leader(self, error: TransportError) -> NoLeader:
        return NoLeader(
            f"No node that takes the call was found within {self._leader_timeout_ms:,} ms. Nothing was changed. The last "
            f"thing that happened: {error}"
        )


def unknown_outcome(name: str, where: object, error: object) -> UnknownOutcome:
    """The error of a write that was sent, and of which no node says what became of it."""
    return UnknownOutcome(
        f"The write {name!r} was sent to {where}, and its answer was lost: {error} "
        "It may have happened or not. Read the key before you do it again."
    )


def time_is_over(endpoint: Endpoint, timeout_ms: int, error: KeyspaceError | None = None) -> DeadlineExceeded:
    """The error of a call that got no answer in time."""
    because = f" The last thing that happened: {error}" if error is not None else ""
    return DeadlineExceeded(
        f"The node at {endpoint} did not answer within {timeout_ms:,} ms.{because} "
        "Is it overloaded or stopped? The option timeout_ms sets the time of a call."
    )


def no_connection(endpoint: Endpoint, reason: object) -> NoConnection:
    """The error for a node that is not there."""
    listen = f"--listen {endpoint}" if endpoint.port else f"--data {endpoint.path.rpartition('/')[0] or '/'}"
    return NoConnection(
        f"No node answers at {endpoint} ({reason}). Start it with manage.py keyspace_node {listen}, "
        "or correct LOCATION."
    )


def connection_broke(endpoint: Endpoint, reason: object) -> NoConnection:
    """The error for a connection that ended before the answer came."""
    return NoConnection(f"The connection to the node at {endpoint} broke ({reason}).")


def shape_result(name: str, arguments: Sequence[Any], result: Any) -> Any:
    """Give a result the types that the store gives it: the wire makes every list a tuple.

    Arguments:
        name: the operation.
        arguments: its arguments.
        result: what came over the wire.
    Raises:
        ProtocolError: it is not a result of that operation.
    """
    shape = _SHAPES.get(name)
    if shape is None:
        return result
    try:
        return shape(arguments, result)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise ProtocolError(f"The node answered {name!r} with something else: {error}") from None


def _shape(call: Sequence[Any], result: Any) -> Any:
    """The same for a call within another one."""
    shape = _SHAPES.get(call[0])
    return result if shape is None else shape(call[1:], result)


def _shape_rows(_arguments: Sequence[Any], result: Any) -> Any:
    rows, more = result
    return list(rows), more


def _shape_status(_arguments: Sequence[Any], result: Any) -> Any:
    return {word: list(figure) if isinstance(figure, tuple) else figure for word, figure in result.items()}


def _shape_batch(arguments: Sequence[Any], result: Any) -> Any:
    return [
        (status, _shape(call, answer) if status == OK else answer)
        for call, (status, answer) in zip(arguments[0], result, strict=True)
    ]


def _shape_at(arguments: Sequence[Any], result: Any) -> Any:
    answer, index, age_ms, node = result
    return _shape(arguments[3], answer), index, age_ms, node


def _shape_members(_arguments: Sequence[Any], result: Any) -> Any:
    return {**result, "nodes": list(result["nodes"])}


def _shape_atomic(arguments: Sequence[Any], result: Any) -> Any:
    if not result[0]:
        return result
    return True, [_shape(call, answer) for call, answer in zip(arguments[1], result[1], strict=True)]


_SHAPES: Final[dict[str, Callable[[Sequence[Any], Any], Any]]] = {
    "get_many": lambda _arguments, result: list(result),
    "list": _shape_rows,
    "match_regex": _shape_rows,
    "match_similar": _shape_rows,
    "status": _shape_status,
    "batch": _shape_batch,
    "at": _shape_at,
    "members": _shape_members,
    "atomic": _shape_atomic,
}
"""Operations whose results hold a list. All others need no second look."""

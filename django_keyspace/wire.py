"""What client and node say to each other, as bytes. Sans-IO: no socket, no clock, no thread.

A frame is a length of four bytes (big-endian, of what follows) and a msgpack body. The length is checked against a
limit before anything is kept or decoded. The bodies:

=================================  =================================================================================
``("keyspace", version, fields)``  The first frame in either direction: :class:`ClientHello`, :class:`NodeHello`.
``("proof", bytes)``               The client's second frame, if the node's hello has a proof: see ``handshake.py``.
``(id, operation, *arguments)``    A request. The client chooses the id, 1 or more, unique among those in flight.
``(id, "ok", result)``             The answer to the request with that id. Answers may come in any order.
``(id, "ok", result, index)``      The same for a write to a cluster, if the client's hello asks for it.
``(id, code, sentence)``           The request failed; the code is a word of ``exceptions.ERRORS_BY_CODE``.
``(id, "not-leader", (sentence,    The same from a node that does not lead, with the address of the one that does, or None.
address))``
``(0, code, sentence)``            About the connection, and its last frame. After ``no-connection`` (the node is going
                                   away) requests that were not answered before it were not done and will not be.
=================================  =================================================================================

Versions: the client's hello names the newest version that it speaks, the node answers with the one to use: the lower of
both. Unknown fields of a hello are ignored, so a later version can add some; what changes the order of frames needs a
version of its own.

Only plain msgpack is legal: nil, booleans, integers, floats, bytes, UTF-8 text, arrays and maps with keys of text or
bytes. Arrays are decoded as tuples. Whatever is malformed raises :class:`ProtocolError`; nothing of msgpack's own gets
out.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import msgpack

from django_keyspace.exceptions import InvalidArgument, KeyspaceError, ProtocolError, ValueTooLarge, error_from_code

PROTOCOL_NAME: Final = "keyspace"
PROTOCOL_VERSION: Final = 1
PROTOCOL_VERSION_OLDEST: Final = 1
HEADER_BYTES: Final = 4
OK: Final = "ok"
CONNECTION_ID: Final = 0
"""The id of a frame that is about the connection as a whole."""
REQUEST_ID_MAX: Final = 2**63 - 1

HELLO_BYTES_MAX: Final = 16 * 1024
"""Limit of a frame from someone who has not said hello yet."""
FRAME_OVERHEAD_BYTES: Final = 16 * 1024 * 1024
"""A frame may be this much larger than the largest value: keys, and batches of small values."""
FRAME_BYTES_CEILING: Final = 2**32 - 1

_SMALL_BODY_BYTES: Final = 64 * 1024
_PACKER_KEPT_BYTES: Final = 1024 * 1024
_ARRAY_ITEMS_MAX: Final = 2**20
_MAP_ITEMS_MAX: Final = 4096
_TEXT_BYTES_MAX: Final = 2**20
PARTS_MAX: Final = 2**21
"""Numbers, texts, lists and so on in one frame. The largest legal call, a batch of 100,000 operations, has half as many. Each
takes up to 80 bytes of memory and as little as one byte of the frame."""
_PARTS_USUAL: Final = 10_000

_pack_length: Final = struct.Struct(">I").pack
_length_at: Final = struct.Struct(">I").unpack_from


def frame_bytes_max_for(value_bytes_max: int) -> int:
    """The limit of a frame for a store whose values may have ``value_bytes_max`` bytes."""
    return min(value_bytes_max + FRAME_OVERHEAD_BYTES, FRAME_BYTES_CEILING)


class Encoder:
    """Makes frames. Keeps its buffer between frames, so one encoder belongs to one thread at a time.

    Arguments:
        frame_bytes_max: limit of a frame's body in bytes.
    """

    __slots__ = ("_pack", "frame_bytes_max")

    def __init__(self, frame_bytes_max: int) -> None:
        self.frame_bytes_max = frame_bytes_max
        self._pack = msgpack.Packer(use_bin_type=True).pack

    def encode(self, message: Any) -> bytes:
        """The frame of a message.

        Arguments:
            message: a list or tuple of what the module's docstring allows.
        Returns:
            Length and body.
        Raises:
            InvalidArgument: the message holds something that cannot be sent.
            ValueTooLarge: the body is larger than the limit.
        """
        try:
            body: bytes = self._pack(message)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidArgument(f"This cannot be sent to or from a node: {error}. Nothing was changed.") from None
        size = len(body)
        if size > _PACKER_KEPT_BYTES:
            # A packer never gives back what its buffer has grown to.
            self._pack = msgpack.Packer(use_bin_type=True).pack
            if size > self.frame_bytes_max:
                raise _frame_too_large_to_send(size, self.frame_bytes_max)
        elif size > self.frame_bytes_max:
            raise _frame_too_large_to_send(size, self.frame_bytes_max)
        return _pack_length(size) + body


def _frame_too_large_to_send(size: int, limit: int) -> ValueTooLarge:
    return ValueTooLarge(
        f"The call or its answer takes {size:,} bytes in one frame and the limit is {limit:,}. Nothing was changed. "
        "Split it into several calls, or raise the node's limit for values."
    )


def _refuse_extension(code: int, data: bytes) -> NoReturn:
    # The limit on the length of extension types lets empty ones through: this does not.
    raise ValueError(f"extension type {code}")


_UNPACK_OPTIONS: Final[dict[str, Any]] = {
    "raw": False,
    "use_list": False,
    "strict_map_key": True,
    "ext_hook": _refuse_extension,
    "max_ext_len": 0,
    "max_array_len": _ARRAY_ITEMS_MAX,
    "max_map_len": _MAP_ITEMS_MAX,
    "max_str_len": _TEXT_BYTES_MAX,
}


_SMALL_NUMBERS: Final = bytes(range(0x80))
"""First bytes of parts that take no memory of their own."""
_FIXED_BYTES: Final = {0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9} | {
    0xDC: 3,
    0xDD: 5,
    0xDE: 3,
    0xDF: 5,
}
_PART_BYTES: Final = bytes(_FIXED_BYTES.get(head, head - 0x9F if 0xA0 <= head <= 0xBF else 1) for head in range(256))
"""By its first byte: bytes of a part without the parts in it, of those that say no length."""
_LENGTH_BYTES: Final = bytes({0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}.get(head, 0) for head in range(256))
"""By its first byte: bytes of the length that a part says, 0 if it says none."""


def _skip_parts(body: bytes, at: int, number: int) -> int:
    """Where the part begins that comes ``number`` parts after the one at ``at``; the body's end or more if there is none."""
    end = len(body)
    while at < end and number:
        number -= 1
        length_bytes = _LENGTH_BYTES[body[at]]
        if length_bytes:
            begin = at + 1 + length_bytes
            at = begin + int.from_bytes(body[at + 1 : begin], "big")
        else:
            at += _PART_BYTES[body[at]]
    return at


def _check_parts(body: bytes) -> None:
    """Raise :class:`ProtocolError` if a large body has more than ``PARTS_MAX`` parts. It need not be legal otherwise."""
    end = len(body)
    if end <= PARTS_MAX:
        return
    at = _skip_parts(body, 0, _PARTS_USUAL)
    if at >= end:
        return
    # Small parts: nearly always it is enough to see how many bytes there are that a costly one could begin with.
    if at <= 16 * _PARTS_USUAL and len(body.translate(None, _SMALL_NUMBERS)) <= PARTS_MAX:
        return
    if _skip_parts(body, at, PARTS_MAX - _PARTS_USUAL) < end:
        raise ProtocolError(f"A frame has more than {PARTS_MAX:,} parts. No call has so many.")


class Decoder:
    """Turns the bodies of frames into messages. After an error it is not to be used again."""

    __slots__ = ("_expected_bytes", "_feed", "_tell", "_unpack")

    def __init__(self) -> None:
        # Setting these options costs more than decoding a small body: hence one unpacker for all small ones. It gets
        # whole bodies only, and its hook does nothing but raise.
        unpacker = msgpack.Unpacker(
            max_buffer_size=2 * _SMALL_BODY_BYTES, read_size=4096, max_bin_len=_SMALL_BODY_BYTES, **_UNPACK_OPTIONS
        )
        self._feed = unpacker.feed
        self._unpack = unpacker.unpack
        self._tell = unpacker.tell
        self._expected_bytes = 0

    def decode(self, body: bytes) -> Any:
        """The message in a frame's body.

        Arguments:
            body: the bytes after the length.
        Returns:
            The message; a tuple if the other side keeps to the protocol.
        Raises:
            ProtocolError: the body is not exactly one legal message.
        """
        try:
            if len(body) > _SMALL_BODY_BYTES:
                _check_parts(body)
                return msgpack.unpackb(body, max_bin_len=len(body), **_UNPACK_OPTIONS)
            self._feed(body)
            message = self._unpack()
        except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
            raise ProtocolError(f"A frame is not a message of this protocol: {type(error).__name__} {error}") from None
        self._expected_bytes += len(body)
        if self._tell() != self._expected_bytes:
            raise ProtocolError("A frame has more bytes than its message.")
        return message


class FrameReader:
    """Cuts a stream into frames, in whatever pieces it comes.

    Keeps no more than one incomplete frame, and of that no more than has arrived.

    Arguments:
        frame_bytes_max: limit of a frame's body in bytes. May be changed between two feeds.

    Attributes:
        one_by_one: answer no more than one frame at a time, and do not look at what follows it: for a handshake, whose frames
            decide how large the next one may be. Feed nothing to get the next one.
    """

    __slots__ = ("_pending", "_wanted_bytes", "frame_bytes_max", "one_by_one")

    def __init__(self, frame_bytes_max: int) -> None:
        self.frame_bytes_max = frame_bytes_max
        self.one_by_one = False
        self._pending = bytearray()
        self._wanted_bytes = HEADER_BYTES
        """Pending bytes at which there is something to do: a length can be read, or a frame is whole."""

    @property
    def pending_bytes(self) -> int:
        """Bytes of the incomplete frame that wait here."""
        return len(self._pending)

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next piece of the stream.

        Arguments:
            data: bytes as they came.
        Returns:
            The bodies of all frames that are complete now, in order.
        Raises:
            ProtocolError: a frame announces more than the limit, or is empty. The stream cannot be read any further.
        """
        pending = self._pending
        end = len(data)
        if not pending and end > HEADER_BYTES:
            # One whole frame at a time is what nearly always comes.
            (size,) = _length_at(data)
            if size == end - HEADER_BYTES <= self.frame_bytes_max:
                return [data[HEADER_BYTES:]]
        elif pending:
            pending += data
            if len(pending) < self._wanted_bytes:
                return []
            data = bytes(pending)
            pending.clear()
            end = len(data)
        bodies: list[bytes] = []
        begin = 0
        while end - begin >= HEADER_BYTES:
            (size,) = _length_at(data, begin)
            if not 0 < size <= self.frame_bytes_max:
                raise self._bad_length(size)
            frame_end = begin + HEADER_BYTES + size
            if frame_end > end:
                self._wanted_bytes = HEADER_BYTES + size
                pending += memoryview(data)[begin:]
                return bodies
            bodies.append(data[begin + HEADER_BYTES : frame_end])
            begin = frame_end
            if self.one_by_one:
                break
        self._wanted_bytes = HEADER_BYTES
        if begin < end:
            pending += data[begin:]
        return bodies

    def _bad_length(self, size: int) -> ProtocolError:
        if size == 0:
            return ProtocolError("A frame is empty. Is the other side a keyspace node or client?")
        return ProtocolError(
            f"A frame announces {size:,} bytes and the limit is {self.frame_bytes_max:,}. "
            "Is the other side a keyspace node or client?"
        )


@dataclass(frozen=True, slots=True)
class ClientHello:
    """The first frame of a client.

    Attributes:
        version: newest version of the protocol that the client speaks.
        cluster: id of the cluster that it expects, None for whichever.
        release: the client's release of this package: for logs only.
        nonce: the client's part of the handshake, None if it has no secret.
        wants_index: whether a cluster's answers to writes have a fourth part: what the node has applied by then.
    """

    version: int = PROTOCOL_VERSION
    cluster: str | None = None
    release: str = ""
    nonce: bytes | None = None
    wants_index: bool = False

    def message(self) -> tuple[Any, ...]:
        """What to encode."""
        fields: dict[str, Any] = {
            "cluster": self.cluster,
            "release": self.release,
            "role": "client",
            "nonce": self.nonce,
        }
        if self.wants_index:
            fields["wants_index"] = True
        return (PROTOCOL_NAME, self.version, fields)

    @classmethod
    def parse(cls, message: Any) -> ClientHello:
        """The hello in a decoded message; :class:`ProtocolError` if it is none, or too old."""
        version, fields = hello_parts(message)
        if version < PROTOCOL_VERSION_OLDEST:
            raise ProtocolError(
                f"The client speaks protocol version {version}; this node speaks {PROTOCOL_VERSION_OLDEST} "
                f"to {PROTOCOL_VERSION}. Update the client."
            )
        role = hello_field(fields, "role", str)
        if role != "client":
            raise ProtocolError(f"This node does not know the role {role!r:.40}.")
        return cls(
            version,
            hello_field(fields, "cluster", str, None),
            hello_field(fields, "release", str, ""),
            hello_field(fields, "nonce", bytes, None),
            hello_field(fields, "wants_index", bool, False),
        )


@dataclass(frozen=True, slots=True)
class NodeHello:
    """The first frame of a node: who it is and what it takes.

    Attributes:
        version: version of the protocol that this connection uses.
        node: the node's id.
        cluster: id of its cluster, None for a single node.
        databases: number of databases.
        value_bytes_max: largest payload of a value.
        frame_bytes_max: largest body of a frame, in both directions.
        release: the node's release of this package: for logs only.
        nonce: the node's part of the handshake, None if it wants no secret.
        proof: that it knows the secret.
        log_ms: its log clock now, in milliseconds: the birth of sessions that begin on this connection. None: the node
            keeps no sessions.
    """

    version: int
    node: str
    cluster: str | None
    databases: int
    value_bytes_max: int
    frame_bytes_max: int
    release: str = ""
    nonce: bytes | None = None
    proof: bytes | None = None
    log_ms: int | None = None

    def message(self) -> tuple[Any, ...]:
        """What to encode."""
        fields = {
            "node": self.node,
            "cluster": self.cluster,
            "databases": self.databases,
            "value_bytes_max": self.value_bytes_max,
            "frame_bytes_max": self.frame_bytes_max,
            "release": self.release,
            "nonce": self.nonce,
            "proof": self.proof,
            "log_ms": self.log_ms,
        }
        return (PROTOCOL_NAME, self.version, fields)

    @classmethod
    def parse(cls, message: Any) -> NodeHello:
        """The hello in a decoded message.

        Raises:
            ProtocolError: it is no hello, or of a version that this client does not speak.
            KeyspaceError: the node refused the connection; the class is what the node's code says.
        """
        refusal = connection_error(message)
        if refusal is not None:
            raise refusal
        version, fields = hello_parts(message)
        if not PROTOCOL_VERSION_OLDEST <= version <= PROTOCOL_VERSION:
            raise ProtocolError(
                f"The node speaks protocol version {version}; this client speaks {PROTOCOL_VERSION_OLDEST} "
                f"to {PROTOCOL_VERSION}. Update the older of both."
            )
        return cls(
            version,
            node=hello_field(fields, "node", str),
            cluster=hello_field(fields, "cluster", str, None),
            databases=_positive(fields, "databases"),
            value_bytes_max=_positive(fields, "value_bytes_max"),
            frame_bytes_max=_positive(fields, "frame_bytes_max"),
            release=hello_field(fields, "release", str, ""),
            nonce=hello_field(fields, "nonce", bytes, None),
            proof=hello_field(fields, "proof", bytes, None),
            log_ms=_positive(fields, "log_ms") if fields.get("log_ms") is not None else None,
        )


def connection_error(message: Any) -> KeyspaceError | None:
    """The error in a frame about the connection as a whole; None if the message is something else."""
    if isinstance(message, tuple) and len(message) == 3 and type(message[0]) is int and message[0] == CONNECTION_ID:
        _, code, sentence = message
        if isinstance(code, str) and isinstance(sentence, str):
            return error_from_code(code, sentence)
    return None


def hello_parts(message: Any) -> tuple[int, Mapping[Any, Any]]:
    """Version and fields of a hello. Raises :class:`ProtocolError` if it is none."""
    if not isinstance(message, tuple) or len(message) != 3 or message[0] != PROTOCOL_NAME:
        raise ProtocolError("The first frame is not a hello. Is the other side a keyspace node or client?")
    _, version, fields = message
    if type(version) is not int or not isinstance(fields, dict):
        raise ProtocolError("The hello has no version, or no fields.")
    return version, fields


_REQUIRED: Final = object()


def hello_field(fields: Mapping[Any, Any], name: str, wanted: type, default: Any = _REQUIRED) -> Any:
    """A field of a hello. Raises :class:`ProtocolError` if it is missing without a default, or of another type."""
    value = fields.get(name, default)
    if type(value) is not wanted and not (default is None and value is None):
        raise ProtocolError(f"The hello's field {name!r} is missing or not of the type {wanted.__name__}.")
    return value


def _positive(fields: Mapping[Any, Any], name: str) -> int:
    value: int = hello_field(fields, name, int)
    if value < 1:
        raise ProtocolError(f"The hello's field {name!r} is {value}.")
    return value

"""One connection between two nodes: greeting, frames, and what waits while the other side takes nothing.

A frame's body is the msgpack of one tuple. One that is longer than :data:`PIECE_BYTES` travels in pieces, with a first byte that
no tuple begins with, so that a heartbeat never waits for the end of a large append or of a snapshot:

==============================  ======================================================================================
tuple (0x80 and above)          a whole frame
:data:`MORE` and bytes          a piece of a long frame; only one long frame is under way at a time
:data:`LAST` and bytes          its last piece
:data:`ALIVE`                   nothing: it says that the sender is there
==============================  ======================================================================================

What waits is bounded, by kind: see :data:`SHARES`. What finds no room is dropped as a whole; the consensus core takes care of
lost messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from time import monotonic
from typing import Any, Final, Protocol, cast

from django_keyspace.exceptions import KeyspaceError, NoConnection, ProtocolError
from django_keyspace.node.greeting import Accepting, Dialling, PeerHello
from django_keyspace.wire import CONNECTION_ID, HEADER_BYTES, HELLO_BYTES_MAX, Decoder, Encoder, FrameReader

PIECE_BYTES: Final = 128 * 1024
MORE: Final = 0
LAST: Final = 1
ALIVE: Final = 2
OUTPUT_BYTES_HIGH: Final = 256 * 1024
"""So many bytes are given to the system ahead; the rest waits here, where what is urgent can overtake it."""
GREETING_TIMEOUT_S: Final = 5.0
_NOT_SENT_BYTES: Final = 128 * 1024

URGENT: Final = 0
"""Heartbeats, votes and answers."""
APPENDS: Final = 1
SNAPSHOTS: Final = 2
SHARES: Final = (1 * 1024 * 1024, 32 * 1024 * 1024, 4 * 1024 * 1024)
"""Bytes that may wait, by kind. A single frame may be larger if nothing of its kind waits."""

_ALIVE_FRAME: Final = b"\0\0\0\1" + bytes((ALIVE,))


class LinkOwner(Protocol):
    """Who has links."""

    def link_up(self, link: PeerLink) -> None:
        """Both sides have greeted each other. Raises :class:`KeyspaceError` to close it."""

    def link_frames(self, link: PeerLink, frames: list[Any]) -> None:
        """Frames have come. Raises :class:`KeyspaceError` to close the link."""

    def link_down(self, link: PeerLink, error: Exception | None) -> None:
        """The connection is gone; called once for each."""


class PeerLink(asyncio.Protocol):
    """The protocol object of a connection between nodes.

    Arguments:
        owner: told what happens.
        greeting: which side this is, and what it says.
        frame_bytes_max: limit of a frame, in one or many pieces.
        expected: the member that this node has called; None if this node was called.

    Attributes:
        is_up: whether frames may be sent.
        begun_s: ``time.monotonic()`` when this object was made.
        heard_s: when something came last.
        sent_s: when something was sent last.
        dropped: frames that found no room.
        refusal: what the other side said when it closed the connection.
    """

    def __init__(
        self, owner: LinkOwner, greeting: Dialling | Accepting, frame_bytes_max: int, expected: str | None = None
    ) -> None:
        self.expected = expected
        self._owner = owner
        self._greeting = greeting
        self._frame_bytes_max = frame_bytes_max
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reader = FrameReader(HELLO_BYTES_MAX)
        self._reader.one_by_one = True
        self._decode = Decoder().decode
        self._encode = Encoder(frame_bytes_max).encode
        self._pieces = bytearray()
        self._queues: tuple[deque[bytes], ...] = (deque(), deque(), deque())
        self._queued_bytes = [0, 0, 0]
        self._long: tuple[bytes, int, int] | None = (
            None  # a long frame under way, how much of it was sent, and its kind
        )
        self._paused = False
        self._is_down = False
        self.is_up = False
        self.begun_s = self.heard_s = self.sent_s = monotonic()
        self.dropped = 0
        self.refusal: KeyspaceError | None = None

    @property
    def peer(self) -> PeerHello:
        """Who is at the other end. Only after the greeting."""
        if self._greeting.peer is None:
            raise NoConnection("The other node has not said who it is.")
        return self._greeting.peer

    @property
    def is_greeted(self) -> bool:
        """Whether the other node has said who it is."""
        return self._greeting.peer is not None

    @property
    def shows_certificate(self) -> bool:
        """Whether the other side has shown a certificate that was accepted."""
        return self._transport is not None and bool(self._transport.get_extra_info("peercert"))

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        self._begin_with(transport)

    def take_over(self, transport: asyncio.Transport, hello: Any, reader: FrameReader) -> None:
        """Go on with a connection whose first message another protocol object has read.

        Arguments:
            transport: the connection; its protocol is this object from now on.
            hello: the message.
            reader: what has read it; whatever came behind it is still in there.
        """
        transport.set_protocol(self)
        self._begin_with(transport)
        self._reader = reader
        try:
            self._greet(hello)
        except KeyspaceError as error:
            self.refuse(error)
        self.data_received(b"")

    def _begin_with(self, transport: asyncio.BaseTransport) -> None:
        self._transport = stream = cast("asyncio.Transport", transport)
        stream.set_write_buffer_limits(high=OUTPUT_BYTES_HIGH)
        _send_little_ahead(stream)
        self._timer = asyncio.get_running_loop().call_later(GREETING_TIMEOUT_S, self._nobody_greeted)
        self._say(self._greeting.first())

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        self.heard_s = monotonic()
        if self._transport is not None:
            try:
                self._take(data)
            except KeyspaceError as error:
                self.refuse(error)

    def _take(self, data: bytes) -> None:
        while not self.is_up:
            bodies = self._reader.feed(data)
            if not bodies or self._transport is None:
                return
            data = b""
            self._greet(self._decode(bodies[0]))
        frames: list[Any] = []
        try:
            for body in self._reader.feed(data):
                first = body[0]
                if first > ALIVE:
                    frames.append(self._decode(body))
                elif first != ALIVE and (whole := self._take_piece(body, is_last=first == LAST)):
                    frames.append(self._decode(whole))
        finally:
            if frames:
                self._owner.link_frames(self, frames)

    def _take_piece(self, body: bytes, *, is_last: bool) -> bytes | None:
        """Put a piece to those before it. Returns: the whole frame, if this was the last."""
        pieces = self._pieces
        if len(pieces) + len(body) - 1 > self._frame_bytes_max:
            raise ProtocolError(f"A frame in pieces is longer than the limit of {self._frame_bytes_max:,} bytes.")
        pieces += memoryview(body)[1:]
        if not is_last:
            return None
        self._pieces = bytearray()
        return bytes(pieces)

    def pause_writing(self) -> None:
        """The other side takes no more for now."""
        self._paused = True

    def resume_writing(self) -> None:
        """It takes more."""
        self._paused = False
        # Not at once: writing may pause again, within the transport's own call of this method.
        asyncio.get_running_loop().call_soon(self._send_waiting)

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        self.is_up = False
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        if not self._is_down:
            self._is_down = True
            self._owner.link_down(self, self.refusal or _explained(error))

    # Sending

    def send(self, frame: Any, kind: int = URGENT) -> bool:
        """Send a frame, or let it wait, or drop it.

        Arguments:
            frame: nested tuples of plain values.
            kind: :data:`URGENT`, :data:`APPENDS` or :data:`SNAPSHOTS`.
        Returns:
            False if it was dropped.
        """
        transport = self._transport
        if transport is None or not self.is_up:
            return False
        data = self._encode(frame)
        size = len(data)
        if size > PIECE_BYTES:
            kind = max(kind, APPENDS)
        elif not self._paused and self._long is None:
            transport.write(data)
            self.sent_s = monotonic()
            return True
        if self._queued_bytes[kind] and self._queued_bytes[kind] + size > SHARES[kind]:
            self.dropped += 1
            return False
        self._queued_bytes[kind] += size
        self._queues[kind].append(data)
        self._send_waiting()
        return True

    def keep_alive(self) -> None:
        """Say that this node is there, if nothing else says so."""
        if self._transport is not None and self.is_up and not self._paused:
            self._transport.write(_ALIVE_FRAME)
            self.sent_s = monotonic()

    def _send_waiting(self) -> None:
        """Send what waits: urgent frames first, then the rest of a long one, then appends, then snapshots."""
        while (transport := self._transport) is not None and not self._paused:
            kind = next((kind for kind, queue in enumerate(self._queues) if queue), None)
            if kind != URGENT and self._long is not None:
                transport.write(self._next_piece(*self._long))
            elif kind is None:
                break
            else:
                self._start(transport, kind)
        self.sent_s = monotonic()

    def _start(self, transport: asyncio.Transport, kind: int) -> None:
        data = self._queues[kind].popleft()
        if len(data) <= PIECE_BYTES:
            self._queued_bytes[kind] -= len(data)
            transport.write(data)
        else:
            self._long = data, HEADER_BYTES, kind

    def _next_piece(self, data: bytes, begin: int, kind: int) -> bytes:
        end = min(begin + PIECE_BYTES, len(data))
        is_last = end == len(data)
        self._long = None if is_last else (data, end, kind)
        if is_last:
            self._queued_bytes[kind] -= len(data)
        return (end - begin + 1).to_bytes(HEADER_BYTES, "big") + bytes((LAST if is_last else MORE,)) + data[begin:end]

    def _say(self, messages: list[Any]) -> None:
        if self._transport is not None and messages:
            self._transport.write(b"".join(map(self._encode, messages)))

    # Coming and going

    def _greet(self, message: Any) -> None:
        greeting = self._greeting
        answers = greeting.take(message)
        if greeting.done:
            if self._timer is not None:
                self._timer.cancel()
            self._reader.one_by_one = False
            # A piece, or a whole frame that is not longer than one.
            self._reader.frame_bytes_max = PIECE_BYTES + HEADER_BYTES
            self._say(answers)
            self.is_up = True
            self._owner.link_up(self)
        else:
            self._say(answers)

    def _nobody_greeted(self) -> None:
        self.refuse(ProtocolError(f"No greeting within {GREETING_TIMEOUT_S:.0f} seconds."))

    def refuse(self, error: KeyspaceError) -> None:
        """Say why, and close. What the other side said first is the reason that counts."""
        if self._transport is None:
            return
        self.refusal = self.refusal or error
        self._say([(CONNECTION_ID, error.code, str(error))])
        self.close()

    def close(self) -> None:
        """Close when what was given to the system has been sent."""
        self.is_up = False
        if self._transport is not None:
            self._transport.close()

    def abort(self, error: KeyspaceError | None = None) -> None:
        """Close at once."""
        self.is_up = False
        self.refusal = self.refusal or error
        if self._transport is not None:
            self._transport.abort()


def _send_little_ahead(transport: asyncio.Transport) -> None:
    """Have the system take no more than it is about to send: what waits there nothing can overtake."""
    connection: Any = transport.get_extra_info("socket")
    # By its number on Linux, where Python has no name for it.
    option = getattr(socket, "TCP_NOTSENT_LOWAT", 25 if hasattr(socket, "TCP_QUICKACK") else None)
    if connection is None or connection.family == getattr(socket, "AF_UNIX", None):
        return
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, _NOT_SENT_BYTES)


def _explained(error: Exception | None) -> KeyspaceError | None:
    """An error of the connection, in words of ours."""
    if error is None or isinstance(error, KeyspaceError):
        return error
    if isinstance(error, ssl.SSLError):
        return NoConnection(f"TLS failed: {error.reason or error}.")
    return NoConnection(f"The connection broke: {getattr(error, 'strerror', None) or error or type(error).__name__}.")

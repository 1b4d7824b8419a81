"""What reads bytes of others, each as a function that takes any bytes and raises only if something is wrong.

The first two bytes of an input say how the rest, a stream, is used: the first is a set of flags, the second the size of the
pieces in which it comes (0: in one piece).
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

from django_keyspace.addresses import Endpoint
from django_keyspace.backend.routing import Link, shape_result
from django_keyspace.exceptions import InvalidArgument, KeyspaceError, ProtocolError
from django_keyspace.handshake import client_proof, node_proof
from django_keyspace.node import connection as connection_module
from django_keyspace.node.connection import (
    BYTES_IN_FLIGHT_MAX,
    OUTPUT_BYTES_HIGH,
    WRITES_IN_FLIGHT_MAX,
    ClientConnection,
)
from django_keyspace.node.links import PeerLink
from django_keyspace.node.metrics import Metrics
from django_keyspace.operations import Limits
from django_keyspace.store import Store, StoreOptions, open_store
from django_keyspace.wire import (
    HEADER_BYTES,
    PROTOCOL_VERSION,
    ClientHello,
    Decoder,
    Encoder,
    FrameReader,
    NodeHello,
    connection_error,
)

from .mutate import FLAG_BYTES

FRAME_BYTES_MAX = 1 << 20
SECRET = b"a secret of the fuzzer"
NONCE = b"n" * 32
LIMITS = Limits(databases=2, value_bytes_max=1 << 16)
ANSWER_BYTES_MAX = FRAME_BYTES_MAX + HEADER_BYTES


class Finding(AssertionError):
    """Something that must not happen has happened."""


def expect(holds: object, sentence: str) -> None:
    if not holds:
        raise Finding(sentence)


def pieces(data: bytes) -> Iterator[bytes]:
    """The stream of an input, in the pieces that its second byte asks for."""
    size = data[1] if len(data) > 1 else 0
    stream = data[FLAG_BYTES:]
    for begin in range(0, len(stream), size or max(len(stream), 1)):
        yield stream[begin : begin + (size or len(stream))]


def _flags(data: bytes) -> int:
    return data[0] if data else 0


# --- Frames


def fuzz_frames(data: bytes) -> None:
    """A reader gives the same bodies however the stream is cut; what a decoder takes can be sent and read again."""
    outcomes = [_bodies(list(pieces(data))), _bodies([data[FLAG_BYTES:]])]
    expect(outcomes[0] == outcomes[1], "The same stream in pieces has other frames.")
    for body in outcomes[0][0]:
        try:
            message = Decoder().decode(body)
        except ProtocolError:
            continue
        try:
            frame = Encoder(16 * FRAME_BYTES_MAX).encode(message)
        except InvalidArgument:
            continue  # nested more deeply than can be sent
        again = Decoder().decode(frame[HEADER_BYTES:])
        expect(Encoder(16 * FRAME_BYTES_MAX).encode(again) == frame, "A message changes on its way.")


def _bodies(parts: list[bytes]) -> tuple[list[bytes], bool]:
    reader = FrameReader(FRAME_BYTES_MAX)
    found: list[bytes] = []
    fed = 0
    for part in parts:
        fed += len(part)
        try:
            found += reader.feed(part)
        except ProtocolError:
            # Bodies before the wrong length are lost with it if they come in the same piece: compare up to there only.
            return [], True
        expect(reader.pending_bytes <= min(fed, FRAME_BYTES_MAX + HEADER_BYTES), "More is kept than has come.")
    return found, False


# --- Hellos


def fuzz_hello(data: bytes) -> None:
    """Whatever is said first is a hello, which says the same again, or a KeyspaceError."""
    try:
        message = Decoder().decode(data[FLAG_BYTES:])
    except ProtocolError:
        return
    for kind in (ClientHello, NodeHello):
        try:
            hello = kind.parse(message)
        except KeyspaceError as error:
            expect(str(error), "An error without a sentence.")
            continue
        expect(kind.parse(hello.message()) == hello, "A hello changes on its way.")
    error = connection_error(message)
    expect(error is None or isinstance(error, KeyspaceError), "A refusal is no error.")


# --- The node's side of a connection


class Transport(asyncio.Transport):
    """Takes what a connection writes; a slow one asks it to pause as a real transport would."""

    def __init__(self, slow: bool) -> None:
        super().__init__()
        self.slow, self.closing, self.reading = slow, False, True
        self.written = bytearray()
        self.buffered = 0
        self.protocol: ClientConnection | None = None

    def write(self, data: Any) -> None:
        expect(not self.closing, "Something is written to a closed transport.")
        self.written += data
        if self.slow and self.protocol is not None:
            before, self.buffered = self.buffered, self.buffered + len(data)
            if before <= OUTPUT_BYTES_HIGH < self.buffered:
                self.protocol.pause_writing()
            expect(self.buffered <= OUTPUT_BYTES_HIGH + 2 * ANSWER_BYTES_MAX, "Output grows without bound.")

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        expect(high == OUTPUT_BYTES_HIGH, "The transport has another limit.")

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.closing = True

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Loop:
    """As much of an event loop as a connection uses. Nothing is called before it is asked to."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], Any]] = []

    def call_soon(self, callback: Callable[..., Any], *arguments: Any) -> None:
        self.soon.append(lambda: callback(*arguments))

    def call_later(self, delay_s: float, callback: Callable[..., Any], *arguments: Any) -> Any:
        return type("Timer", (), {"cancel": lambda self: None})()

    def turn(self) -> None:
        due, self.soon = self.soon, []
        for callback in due:
            callback()


class Log:
    """Commits what has been proposed when it is asked to."""

    reads = None

    def __init__(self, store: Store) -> None:
        self.store = store
        self.waiting: list[tuple[Sequence[Any], Any]] = []

    def propose(self, calls: Sequence[Any], size_bytes: int, done: Any) -> None:
        self.waiting.append((calls, done))

    def commit(self) -> None:
        due, self.waiting = self.waiting, []
        for calls, done in due:
            done(self.store.write_many(calls))


class Service:
    """A server with one connection, over a real store."""

    def __init__(self, store: Store, secret: bytes | None) -> None:
        self.store, self.log, self.scripts = store, Log(store), None
        self.limits, self.metrics, self.secret = LIMITS, Metrics(), secret
        self.hello = NodeHello(PROTOCOL_VERSION, "n1", None, LIMITS.databases, LIMITS.value_bytes_max, FRAME_BYTES_MAX)
        self.connections: set[ClientConnection] = set()
        self.connections_max, self.draining = 10, False
        self.unflushed: set[ClientConnection] = set()

    def peer_link(self) -> PeerLink:
        raise ProtocolError("This node runs alone.")

    def commit(self) -> None:
        self.log.commit()
        ready = list(self.unflushed)
        self.unflushed.clear()
        for connection in ready:
            connection.group_done()


class Faults(logging.Handler):
    """Remembers what was logged as a fault: an error that the connection caught, but that should not have been."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@cache
def _store() -> tuple[Store, Faults]:
    folder = tempfile.TemporaryDirectory(prefix="keyspace-fuzz-")
    options = StoreOptions(durability="none", databases=2, value_bytes_max=1 << 16, max_bytes=1 << 20)
    store = open_store(folder.name, options)
    _kept.append(folder)
    faults = Faults()
    connection_module.logger.addHandler(faults)
    return store, faults


_kept: list[Any] = []

WITH_SECRET, GREETED, SLOW, COMMITS_LATE, GOES_EARLY = 1, 2, 4, 8, 16


def fuzz_connection(data: bytes) -> None:
    """No bytes of a client make its connection raise, fail in an operation, or keep more than its limits."""
    store, faults = _store()
    flags = _flags(data)
    loop, service = Loop(), Service(store, SECRET if flags & WITH_SECRET else None)
    connection = ClientConnection(service, loop)  # type: ignore[arg-type]
    transport = Transport(bool(flags & SLOW))
    transport.protocol = connection
    connection.connection_made(transport)
    if flags & GREETED:
        _greet(connection, transport, flags)
    faults.records.clear()
    for piece in pieces(data):
        connection.data_received(piece)
        _check_limits(connection, len(data))
        if not flags & COMMITS_LATE:
            service.commit()
        loop.turn()
    if flags & GOES_EARLY:
        connection.eof_received()
    service.commit()
    if transport.buffered > OUTPUT_BYTES_HIGH and not transport.closing:
        transport.buffered, transport.slow = 0, False
        connection.resume_writing()
        loop.turn()
        service.commit()
    connection.connection_lost(None)
    expect(not service.connections, "A connection that is gone is still counted.")
    if faults.records:
        raise Finding(f"An operation failed: {faults.records[0].getMessage()}") from (
            faults.records[0].exc_info[1] if faults.records[0].exc_info else None
        )
    _check_answers(bytes(transport.written))


def _greet(connection: ClientConnection, transport: Transport, flags: int) -> None:
    encode = Encoder(FRAME_BYTES_MAX).encode
    connection.data_received(encode(ClientHello(nonce=NONCE).message()))
    if flags & WITH_SECRET:
        hello = Decoder().decode(bytes(transport.written)[HEADER_BYTES:])
        proof = client_proof(SECRET, NONCE, hello[2]["nonce"], "n1", None)
        connection.data_received(encode(("proof", proof)))


def _check_limits(connection: ClientConnection, fed: int) -> None:
    expect(connection._in_flight <= WRITES_IN_FLIGHT_MAX, "Too many writes are under way.")
    expect(connection._in_flight_bytes <= BYTES_IN_FLIGHT_MAX + FRAME_BYTES_MAX, "Writes under way are too large.")
    expect(connection._output_bytes <= OUTPUT_BYTES_HIGH + ANSWER_BYTES_MAX, "Answers pile up.")
    expect(sum(map(len, connection._backlog)) <= fed, "More requests wait than have come.")


def _check_answers(written: bytes) -> None:
    """Whatever came in, what goes out keeps to the protocol."""
    decode = Decoder().decode
    for body in FrameReader(FRAME_BYTES_MAX).feed(written):
        message = decode(body)
        expect(type(message) is tuple and len(message) == 3, "An answer has not three parts.")
        expect(message[0] == "keyspace" or isinstance(message[1], str), "An answer has no status.")


# --- The client's side of a connection

RESULTS_OF: list[tuple[str, tuple[Any, ...]]] = [
    ("get", (0, b"k")),
    ("get_many", (0, [b"k"])),
    ("list", (0,)),
    ("status", ()),
    ("batch", ([("get_many", 0, [b"k"]), ("list", 0)],)),
    ("atomic", ([], [("get_many", 0, [b"k"])])),
]
"""Calls whose results are given their types: each answer is taken for the answer of each of them."""


def fuzz_client(data: bytes) -> None:
    """No bytes of a node make the client's side raise anything but a KeyspaceError."""
    flags = _flags(data)
    link = Link(Endpoint("127.0.0.1", 7080), secret=SECRET if flags & WITH_SECRET else None)
    link.hello()
    try:
        if flags & GREETED:
            link.receive(_node_hello(link))
        for piece in pieces(data):
            for request_id, status, result in link.receive(piece):
                expect(type(request_id) is int and type(status) is str, "An answer has no id or status.")
                _shape(result)
        if link.node is not None:
            link.proof()
            link.request("get", (0, b"k"))
    except KeyspaceError as error:
        expect(str(error), "An error without a sentence.")


def _node_hello(link: Link) -> bytes:
    proof = node_proof(SECRET, link._nonce, NONCE, "n1", None) if link._nonce is not None else None
    hello = NodeHello(PROTOCOL_VERSION, "n1", None, 2, 1 << 16, FRAME_BYTES_MAX, "", NONCE, proof)
    return Encoder(FRAME_BYTES_MAX).encode(hello.message())


def _shape(result: Any) -> None:
    for name, arguments in RESULTS_OF:
        try:
            shape_result(name, arguments, result)
        except ProtocolError:
            continue


TARGETS: dict[str, Callable[[bytes], None]] = {
    "frames": fuzz_frames,
    "connection": fuzz_connection,
    "hello": fuzz_hello,
    "client": fuzz_client,
}

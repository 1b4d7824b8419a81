"""One client's connection to a node: hello, pipelined requests, answers in any order, and limits on all of it.

Reads are answered where they arrive; writes go to the log and are answered when it is done with them. Nobody can make
this object grow: while the client does not take its answers, or has too much under way, no more is read from it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final, cast

from django_keyspace.exceptions import (
    AuthenticationFailed,
    KeyspaceError,
    NoConnection,
    NotLeader,
    NotSupported,
    ProtocolError,
)
from django_keyspace.handshake import NONCE_BYTES, PROOF, client_proof, new_nonce, node_proof, require_same
from django_keyspace.node.greeting import is_peer_hello
from django_keyspace.node.log import View
from django_keyspace.node.service import SPARE_CONNECTIONS, Service, too_many
from django_keyspace.operations import CONTROLS, RUNS, WRITES, check_call
from django_keyspace.ordinary import is_ordinary
from django_keyspace.wire import (
    CONNECTION_ID,
    HELLO_BYTES_MAX,
    OK,
    PROTOCOL_VERSION,
    REQUEST_ID_MAX,
    ClientHello,
    Decoder,
    Encoder,
    FrameReader,
    NodeHello,
)

_SPECIAL: Final = RUNS | CONTROLS.keys() | {"at", "members"}
"""Operations that are neither writes nor plain reads."""

logger = logging.getLogger("django_keyspace.node")

WRITES_IN_FLIGHT_MAX: Final = 1_024
"""Of one connection. Reads are answered at once and are never in flight, unless a cluster's log makes them wait."""
BYTES_IN_FLIGHT_MAX: Final = 16 * 1024 * 1024
OUTPUT_BYTES_HIGH: Final = 1024 * 1024
"""Above this much output that the client has not taken, nothing more is read from it or answered to it."""
OUTPUT_FLUSH_BYTES: Final = 128 * 1024
HELLO_TIMEOUT_S: Final = 10.0
FAREWELL_TIMEOUT_S: Final = 0.3
"""How long a connection that was told to go may take to go."""


class ClientConnection(asyncio.Protocol):
    """The protocol object of one client.

    Arguments:
        service: the server that this connection is one of.
        loop: the event loop.
    """

    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        self._service = service
        self._loop = loop
        self._limits = service.limits
        self._read = service.store.read
        self._reads = service.log.reads
        self._requests = service.metrics.requests
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader(HELLO_BYTES_MAX)
        self._reader.one_by_one = True
        self._decode = Decoder().decode
        self._encode = Encoder(service.hello.frame_bytes_max).encode
        self._backlog: deque[bytes] = deque()
        self._output: list[bytes] = []
        self._output_bytes = 0
        self._in_flight = 0
        self._in_flight_bytes = 0
        self._greeted = False
        self._wants_index = False
        self._expected_proof: bytes | None = None
        self._writing_paused = False
        self._reading_paused = False
        self._leaving = False
        self._client_ended = False
        self._farewell: tuple[int, str, str] | None = None
        self._timer: asyncio.TimerHandle | None = None

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        # Not isinstance: the transports of uvloop have the methods, but not the base class.
        self._transport = stream = cast("asyncio.Transport", transport)
        stream.set_write_buffer_limits(high=OUTPUT_BYTES_HIGH)
        service = self._service
        service.connections.add(self)
        service.metrics.connections += 1
        if service.draining:
            self.leave(NoConnection(f"Node {service.hello.node} is shutting down."))
        elif len(service.connections) > service.connections_max + SPARE_CONNECTIONS:
            self.leave(too_many(service))
        else:
            self._timer = self._loop.call_later(HELLO_TIMEOUT_S, self._nobody_greeted)

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone. Its writes that are under way stay under way."""
        self._transport = None
        self._backlog.clear()
        self._output.clear()
        self._cancel_timer()
        self._service.connections.discard(self)
        self._service.unflushed.discard(self)

    def data_received(self, data: bytes) -> None:
        """Bytes have come: serve the requests that are complete."""
        if self._leaving:
            return
        try:
            while not self._greeted:
                if not self._shake_hands(data):
                    return
                data = b""
            bodies = self._reader.feed(data)
        except ProtocolError as error:
            self._serve_backlog()
            self.leave(error)
            return
        may_serve = self._may_serve() if self._in_flight else not self._writing_paused
        if may_serve and len(bodies) == 1 and not self._backlog:
            # What nearly always comes.
            try:
                frame = self._serve(bodies[0])
            except KeyspaceError as error:
                self.leave(error)
                return
            if frame is not None:
                if self._transport is not None:
                    self._transport.write(frame)
                return
            if self._output:  # a read that did not have to wait after all
                self.flush()
            if not self._may_serve():
                self._throttle()
        elif bodies:
            self._backlog.extend(bodies)
            self._serve_backlog()

    def eof_received(self) -> bool:
        """The client sends no more; it gets the answers that are under way all the same."""
        self._client_ended = True
        if self._in_flight:
            self._leaving = True
            return True
        return False

    def pause_writing(self) -> None:
        """The client does not take its answers."""
        self._writing_paused = True
        self._throttle()

    def resume_writing(self) -> None:
        """The client takes its answers again."""
        self._writing_paused = False
        if not self._leaving:
            # Not at once: serving may pause again, within the transport's own call of this method.
            self._loop.call_soon(self._serve_backlog)

    # Serving

    def _serve_backlog(self) -> None:
        """Serve what has come, as long as this client may have more under way."""
        backlog = self._backlog
        try:
            while backlog and self._may_serve():
                frame = self._serve(backlog.popleft())
                if frame is not None:
                    self._put(frame)
                    if self._output_bytes >= OUTPUT_FLUSH_BYTES:
                        self.flush()
        except KeyspaceError as error:
            self.leave(error)
            return
        if self._output:
            self.flush()
        self._throttle()

    def _may_serve(self) -> bool:
        return (
            not self._writing_paused
            and self._in_flight < WRITES_IN_FLIGHT_MAX
            and self._in_flight_bytes < BYTES_IN_FLIGHT_MAX
            and self._transport is not None
        )

    def _throttle(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        pause = bool(self._backlog) or not self._may_serve()
        if pause != self._reading_paused:
            self._reading_paused = pause
            if pause:
                transport.pause_reading()
            else:
                transport.resume_reading()

    def _serve(self, body: bytes) -> bytes | None:
        """Serve one frame. Returns the frame with the answer, None if that comes later.

        Raises:
            KeyspaceError: the connection cannot go on.
        """
        message = self._decode(body)
        if type(message) is not tuple or len(message) < 2:
            raise ProtocolError("A request is [id, operation, arguments...].")
        request_id = message[0]
        if type(request_id) is not int or not 0 < request_id <= REQUEST_ID_MAX:
            raise ProtocolError("A request's id is an integer from 1 up.")
        call = message[1:]
        try:
            if not is_ordinary(call, self._limits):
                check_call(call, self._limits)
            name = call[0]
            if name == "once":
                name = call[5][0]
            self._requests[name] += 1
            if name in WRITES:
                size_bytes = len(body)
                self._service.log.propose((call,), size_bytes, partial(self._written, request_id, size_bytes))
                self._in_flight += 1
                self._in_flight_bytes += size_bytes
                return None
            if name in _SPECIAL:
                return self._serve_special(request_id, call, len(body))
            if self._reads is None:
                return self._answer(request_id, OK, self._read(*call))
            self._in_flight += 1
            self._reads.read("safe", partial(self._readable, request_id, call))
            return None
        except KeyspaceError as error:
            return self._refuse(request_id, error)
        except Exception:
            return self._answer_fault(request_id, str(call[0]))

    def _serve_special(self, request_id: int, call: tuple[Any, ...], size_bytes: int) -> bytes | None:
        """Serve what is neither a write nor a plain read."""
        service = self._service
        if call[0] == "members":
            return self._answer(request_id, OK, service.members())
        if call[0] == "at":
            if self._reads is None:
                return self._answer(request_id, OK, (*self._read(*call)[:3], service.hello.node))
            view = self._reads.at_once(*call[1:4])
            if view is not None:
                return self._answer(request_id, OK, view.answer(call[4]))
            self._in_flight += 1
            self._reads.read(call[1], partial(self._readable, request_id, call), call[2], call[3])
            return None
        if call[0] in CONTROLS:
            service.control.answer(call, partial(self._ran, request_id, size_bytes))
        elif service.scripts is None:
            raise NotSupported("This node runs no scripts. Nothing was changed.")
        else:
            service.scripts.submit(call, partial(self._ran, request_id, size_bytes))
        self._in_flight += 1
        self._in_flight_bytes += size_bytes
        return None

    def _readable(self, request_id: int, call: tuple[Any, ...], view: View | KeyspaceError) -> None:
        """A read may be answered now, or not at all."""
        self._in_flight -= 1
        try:
            if isinstance(view, KeyspaceError):
                raise view
            frame = self._answer(request_id, OK, view.answer(call[4]) if call[0] == "at" else view.read(*call))
        except KeyspaceError as error:
            frame = self._refuse(request_id, error)
        except Exception:
            frame = self._answer_fault(request_id, str(call[0]))
        self._put(frame)
        # Not at once: many reads become ready in one turn of the loop, and this one perhaps while it is being served.
        self._service.unflushed.add(self)

    def _ran(self, request_id: int, size_bytes: int, results: list[Any]) -> None:
        """A script is done. Nobody else's answer comes with it."""
        self._written(request_id, size_bytes, results)
        self._service.unflushed.discard(self)
        self.group_done()

    def _written(self, request_id: int, size_bytes: int, results: list[Any]) -> None:
        """A write is done. If more of this client's are under way, the server flushes when the whole group is."""
        self._in_flight -= 1
        self._in_flight_bytes -= size_bytes
        result = results[0]
        if not isinstance(result, Exception):
            if self._wants_index and self._reads is not None:
                frame = self._answer(request_id, OK, result, self._reads.applied_index)
            else:
                frame = self._answer(request_id, OK, result)
        elif isinstance(result, KeyspaceError):
            frame = self._refuse(request_id, result)
        else:
            logger.error("A write failed in a way that it should not", exc_info=result)
            sentence = f"The node failed: {type(result).__name__}. See its log."
            frame = self._answer(request_id, KeyspaceError.code, sentence)
        if self._in_flight or self._output or self._backlog or self._reading_paused or self._leaving:
            self._put(frame)
            self._service.unflushed.add(self)
        elif self._transport is not None:  # no other answer to this client can come with it
            self._transport.write(frame)

    def _refuse(self, request_id: int, error: KeyspaceError) -> bytes:
        """The frame that says that something was not done, and why."""
        result = (str(error), error.address) if isinstance(error, NotLeader) else str(error)
        return self._answer(request_id, error.code, result)

    def _answer(self, request_id: int, status: str, result: Any, *index: int) -> bytes:
        """The frame of an answer."""
        try:
            frame = self._encode((request_id, status, result, *index))
        except KeyspaceError as error:
            status = error.code
            frame = self._encode((request_id, error.code, str(error)))
        if status != OK:
            self._service.metrics.errors[status] += 1
        return frame

    def _answer_fault(self, request_id: int, name: str) -> bytes:
        logger.exception("Operation %.40s failed in a way that it should not", name)
        return self._answer(request_id, KeyspaceError.code, f"The node failed to do {name:.40}. See its log.")

    def _put(self, frame: bytes) -> None:
        """Have a frame sent with the next :meth:`flush`."""
        if self._transport is not None:
            self._output.append(frame)
            self._output_bytes += len(frame)

    def group_done(self) -> None:
        """Requests of this connection that had to wait were answered: send that, and go on."""
        if self._leaving:
            self.flush()
            if not self._in_flight:
                self._close()
        elif self._backlog:
            self._serve_backlog()
        else:
            self.flush()
            if self._reading_paused:
                self._throttle()

    def flush(self) -> None:
        """Give the transport everything that is answered."""
        output = self._output
        if output:
            if self._transport is not None:
                self._transport.write(output[0] if len(output) == 1 else b"".join(output))
            output.clear()
            self._output_bytes = 0

    # Coming and going

    def _shake_hands(self, data: bytes) -> bool:
        """Take one frame of the handshake. False if there is none yet, or the connection is over."""
        bodies = self._reader.feed(data)
        if not bodies:
            return False
        try:
            message = self._decode(bodies[0])
            if is_peer_hello(message):
                link, transport = self._service.peer_link(), self._transport
                self.connection_lost(None)
                link.take_over(cast("asyncio.Transport", transport), message, self._reader)
                return False
            if self._expected_proof is None:
                self._greet(message)
            else:
                self._check_proof(message)
        except KeyspaceError as error:
            self.leave(error)
            return False
        self.flush()
        return True

    def _greet(self, message: Any) -> None:
        service = self._service
        hello = ClientHello.parse(message)
        if len(service.connections) > service.connections_max:
            raise too_many(service)
        if hello.cluster is not None and hello.cluster != service.hello.cluster:
            raise ProtocolError(
                f"The client looks for cluster {hello.cluster:.80}; node {service.hello.node} is not part of it."
            )
        self._wants_index = hello.wants_index
        if service.secret is None:
            own = service.hello
            self._welcome()
        else:
            own = self._challenge(service.secret, hello)
        own = replace(own, log_ms=service.store.log_time_ms())
        # The node answers with its own version or, to an older client that it still understands, with the client's.
        version = min(hello.version, PROTOCOL_VERSION)
        answer = own.message()
        self._output.append(self._encode((answer[0], version, answer[2])))

    def _challenge(self, secret: bytes, hello: ClientHello) -> NodeHello:
        """The hello to a client that has yet to show that it knows the secret, as it shows that this node does."""
        own = self._service.hello
        if hello.nonce is None or len(hello.nonce) != NONCE_BYTES:
            raise AuthenticationFailed(
                f"Node {own.node} takes clients with its secret only, and this one has none. Give it with the option secret."
            )
        nonce = new_nonce()
        self._expected_proof = client_proof(secret, hello.nonce, nonce, own.node, own.cluster)
        proof = node_proof(secret, hello.nonce, nonce, own.node, own.cluster)
        return replace(own, nonce=nonce, proof=proof)

    def _check_proof(self, message: Any) -> None:
        expected, sentence = (
            self._expected_proof,
            "The client's secret is not that of this node. See its option secret.",
        )
        is_proof = type(message) is tuple and len(message) == 2 and message[0] == PROOF
        if expected is None or not is_proof:
            raise AuthenticationFailed("The client sent a request before it had shown that it knows the secret.")
        require_same(expected, message[1], sentence)
        self._expected_proof = None
        self._welcome()

    def _welcome(self) -> None:
        """From now on the client may send requests, and frames of their size."""
        self._greeted = True
        self._cancel_timer()
        self._reader.one_by_one = False
        self._reader.frame_bytes_max = self._service.hello.frame_bytes_max

    def _nobody_greeted(self) -> None:
        self._timer = None
        self.leave(ProtocolError(f"No hello within {HELLO_TIMEOUT_S:.0f} seconds."))

    def leave(self, reason: KeyspaceError) -> None:
        """Say why, and close. What is under way is answered first; nothing more is served."""
        if self._leaving or self._transport is None:
            return
        self._leaving = True
        self._service.metrics.refused[reason.code] += 1
        self._backlog.clear()
        self._farewell = (CONNECTION_ID, reason.code, str(reason))
        self._cancel_timer()
        if self._in_flight:
            self._timer = self._loop.call_later(HELLO_TIMEOUT_S, self.abort)
        else:
            self._close()

    def _close(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._farewell is not None:
            self._output.append(self._encode(self._farewell))
            self._farewell = None
        self.flush()
        if self._reading_paused:
            # What the client still sends is thrown away: closing on unread bytes would reset the connection.
            self._reading_paused = False
            transport.resume_reading()
        if transport.can_write_eof() and not self._client_ended:
            try:
                transport.write_eof()
            except OSError:  # the client has gone already
                transport.abort()
                return
            self._cancel_timer()
            self._timer = self._loop.call_later(FAREWELL_TIMEOUT_S, self.abort)
        else:
            transport.close()

    def abort(self) -> None:
        """Close without another word."""
        self._timer = None
        if self._transport is not None:
            self._transport.abort()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def connection_factory(service: Service, loop: asyncio.AbstractEventLoop) -> Callable[[], ClientConnection]:
    """What an event loop's server calls for each client."""
    return partial(ClientConnection, service, loop)

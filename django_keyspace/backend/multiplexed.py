"""The asyncio driver of ``routing.py``: one connection per running event loop, shared by all of its tasks.

Requests that are made in one turn of the loop leave in one system call, answers are matched by id. The connection
belongs to its loop: it is closed when the loop shuts down its asynchronous generators (as ``asyncio.run`` and asgiref
do), and at the latest when another loop needs a connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import weakref
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from time import monotonic
from typing import Any, cast

from django_keyspace.addresses import Endpoint
from django_keyspace.backend.breaker import Breaker
from django_keyspace.backend.routing import (
    Attempts,
    Failure,
    Link,
    connection_broke,
    no_connection,
    require_single,
    shape_result,
    time_is_over,
)
from django_keyspace.backend.sessions import Request, Sessions
from django_keyspace.exceptions import KeyspaceError, NoConnection, Overloaded
from django_keyspace.operations import CHANGES
from django_keyspace.security import NO_SECURITY, Security, tls_failed
from django_keyspace.wire import OK

_Answer = tuple[int, str, Any] | Failure


class LoopConnection(asyncio.Protocol):
    """The connection of one event loop to a node.

    Arguments:
        link: what is said on it.
        loop: the loop; all methods are called on its thread, except :meth:`discard`.
        raw_socket: the socket, connected.
        timeout_ms: how long a call may wait for the node.
    """

    def __init__(self, link: Link, loop: asyncio.AbstractEventLoop, raw_socket: socket.socket, timeout_ms: int) -> None:
        self.link = link
        self.loop = loop
        self.usable = True
        self._raw_socket = raw_socket
        self._timeout_ms = timeout_ms
        self._transport: asyncio.Transport | None = None
        self._greeted: asyncio.Future[None] = loop.create_future()
        self._waiting: dict[int, tuple[asyncio.Future[_Answer], float]] = {}
        self._output: list[bytes] = []
        self._sent_id = 0
        self._flush_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._writable: asyncio.Event | None = None
        self._closer: AsyncGenerator[None] | None = None

    async def greet(self) -> None:
        """Say hello and wait for the node's. Raises KeyspaceError."""
        if self._transport is not None:
            self._transport.write(self.link.hello())
        await self._greeted
        self._closer = _close_at_the_end(weakref.ref(self))
        await anext(self._closer)

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answers have come: hand them to whom they belong."""
        waiting = self._waiting
        try:
            for answer in self.link.receive(data):
                entry = waiting.pop(answer[0], None)
                # None: that call's time was over before.
                if entry is not None and not entry[0].done():
                    entry[0].set_result(answer)
        except KeyspaceError as error:
            self._end(error)
            return
        if self.link.ended_by is not None:
            self._end(self.link.ended_by)
        elif not self._greeted.done() and self.link.node is not None:
            proof = self.link.proof()
            if proof is not None and self._transport is not None:
                self._transport.write(proof)
            self._greeted.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        reason = getattr(error, "strerror", None) or error or "the node closed it"
        self._end(connection_broke(self.link.endpoint, reason))

    def pause_writing(self) -> None:
        """The node takes no more for now: new calls wait."""
        if self._writable is None:
            self._writable = asyncio.Event()

    def resume_writing(self) -> None:
        """The node takes requests again."""
        if self._writable is not None:
            self._writable.set()
            self._writable = None

    # Calls

    def call(self, name: str, arguments: Sequence[Any], deadline_at_s: float) -> asyncio.Future[_Answer]:
        """Make a request.

        Arguments:
            name: the operation.
            arguments: its arguments.
            deadline_at_s: when its time is over, on the loop's clock.
        Returns:
            A future with the answer, or with the :class:`Failure` that came instead.
        Raises:
            LocalError: the arguments cannot be sent.
        """
        link = self.link
        frame = link.request(name, arguments)
        future: asyncio.Future[_Answer] = self.loop.create_future()
        self._waiting[link.last_id] = (future, deadline_at_s)
        self._output.append(frame)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self.loop.call_soon(self._flush)
        timer = self._timer
        if timer is None:
            self._timer = self.loop.call_at(deadline_at_s, self._end_overdue)
        elif deadline_at_s < timer.when():
            timer.cancel()
            self._timer = self.loop.call_at(deadline_at_s, self._end_overdue)
        return future

    async def until_writable(self, deadline_at_s: float) -> None:
        """Wait while the node takes no more requests. Raises DeadlineExceeded."""
        while self._writable is not None and self.usable:
            try:
                async with asyncio.timeout_at(deadline_at_s):
                    await self._writable.wait()
            except TimeoutError:
                raise time_is_over(self.link.endpoint, self._timeout_ms) from None

    @property
    def is_paused(self) -> bool:
        """Whether the node takes no more requests for now."""
        return self._writable is not None

    def _flush(self) -> None:
        self._flush_scheduled = False
        output, self._output = self._output, []
        if self._transport is not None and self.usable:
            self._sent_id = self.link.last_id
            self._transport.write(output[0] if len(output) == 1 else b"".join(output))

    def _end_overdue(self) -> None:
        """Give up the calls whose time is over. Their answers are ignored if they still come."""
        self._timer = None
        # A timer may run a clock tick early.
        now_s = self.loop.time() + 0.001
        overdue = [request_id for request_id, (_, deadline_at_s) in self._waiting.items() if deadline_at_s <= now_s]
        error = time_is_over(self.link.endpoint, self._timeout_ms)
        for request_id in overdue:
            future, _ = self._waiting.pop(request_id)
            if not future.done():
                future.set_result(Failure(error, request_id <= self._sent_id, reached=True))
        if self._waiting:
            next_at_s = min(deadline_at_s for _, deadline_at_s in self._waiting.values())
            self._timer = self.loop.call_at(next_at_s, self._end_overdue)

    def _end(self, error: KeyspaceError) -> None:
        """The connection is of no more use: say so to everyone who waits."""
        self.usable = False
        # A goodbye says that what was not answered before it was not done.
        undone = error is self.link.ended_by and isinstance(error, NoConnection | Overloaded)
        waiting, self._waiting = self._waiting, {}
        for request_id, (future, _) in waiting.items():
            if not future.done():
                future.set_result(Failure(error, request_id <= self._sent_id and not undone, reached=True))
        if not self._greeted.done():
            self._greeted.set_exception(error)
            # Nobody may be waiting for it any more, and that is nothing to complain about.
            self._greeted.exception()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.resume_writing()
        if self._transport is not None:
            self._transport.abort()

    # The end

    def close(self) -> None:
        """Close, on the loop's thread."""
        self._end(NoConnection(f"The connection to {self.link.endpoint} was closed by this program."))

    def discard(self) -> None:
        """Let go of the socket of a loop that runs no more, or that is another process's: nothing else can be done."""
        self.usable = False
        self._raw_socket.close()


async def _close_at_the_end(reference: weakref.ref[LoopConnection]) -> AsyncGenerator[None]:
    """A generator that the event loop closes when it shuts down, which is the only hook that a loop offers for that."""
    try:
        yield
    finally:
        connection = reference()
        if connection is not None:
            connection.close()
            # The transport closes its socket in the next turn.
            await asyncio.sleep(0)


class LoopConnections:
    """The connections of event loops to one node.

    Arguments:
        endpoint: the node.
        timeout_ms: how long a call may take in all.
        leader_timeout_ms: how long a call looks for a node; see :class:`Attempts`.
        security: what to show to nodes, and to want of them.
        sessions: those of the engine; None: some of its own.
        make_link: begins what is said on a connection; None: with a single node.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        timeout_ms: int,
        leader_timeout_ms: int | None = None,
        security: Security = NO_SECURITY,
        sessions: Sessions | None = None,
        make_link: Callable[[Endpoint], Link] | None = None,
    ) -> None:
        self._make_link = make_link or partial(Link, meet=require_single, secret=security.secret)
        self._endpoint = endpoint
        self._security = security
        self._timeout_ms = timeout_ms
        self._leader_timeout_ms = leader_timeout_ms
        self._timeout_s = timeout_ms / 1000
        self._breaker = Breaker()
        self._sessions = sessions or Sessions()
        self._forget()

    def _forget(self) -> None:
        self._connections: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopConnection]
        self._connections = weakref.WeakKeyDictionary()
        self._recent: LoopConnection | None = None  # of the loop that has asked last: no look-up for it
        self._connecting: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[LoopConnection]]
        self._connecting = weakref.WeakKeyDictionary()

    async def execute(self, name: str, arguments: Sequence[Any]) -> Any:
        """Do an operation.

        Arguments:
            name: the operation.
            arguments: its arguments.
        Returns:
            Its result.
        Raises:
            KeyspaceError: what the node said, or why it could not be asked in time.
        """
        loop = asyncio.get_running_loop()
        deadline_at_s = loop.time() + self._timeout_s
        connection = self._recent
        if connection is None or connection.loop is not loop:
            connection = self._recent = self._connections.get(loop)
        if connection is not None and (not connection.usable or connection.is_paused or self._breaker.failures):
            connection = None
        # A read that is answered at the first attempt needs no object of its own.
        request = Request(self._sessions, name, arguments) if name in CHANGES or connection is None else None
        answer: _Answer | None = None
        try:
            if connection is not None:
                parts = (name, arguments) if request is None else request.parts()
                answer = await connection.call(*parts, deadline_at_s)
                if type(answer) is tuple and answer[1] == OK:
                    return shape_result(name, arguments, answer[2])
            request = request or Request(self._sessions, name, arguments)
            failure = request.refused(answer[1], answer[2]) if type(answer) is tuple else cast("Failure | None", answer)
            return await self._persist(loop, request, deadline_at_s, failure)
        finally:
            if request is not None:
                request.end()

    async def _persist(
        self,
        loop: asyncio.AbstractEventLoop,
        request: Request,
        deadline_at_s: float,
        failure: Failure | None,
    ) -> Any:
        """Do an operation when there is no connection at hand, or the first attempt has failed."""
        if self._leader_timeout_ms is not None:
            return await self._try(loop, request, deadline_at_s, failure)
        if failure is None:  # or else the call has been sent, and must say what became of it
            self._breaker.check(monotonic())
        try:
            result = await self._try(loop, request, deadline_at_s, failure)
        except KeyspaceError as error:
            self._breaker.failed(error, monotonic())
            raise
        self._breaker.succeeded()
        return result

    async def _try(
        self,
        loop: asyncio.AbstractEventLoop,
        request: Request,
        deadline_at_s: float,
        failure: Failure | None,
    ) -> Any:
        """Attempt after attempt, as :class:`Attempts` says."""
        attempts = Attempts(request.name, self._endpoint, deadline_at_s, self._timeout_ms, self._leader_timeout_ms)
        while True:
            if failure is not None:
                await asyncio.sleep(attempts.after(failure, loop.time(), has_session=request.has_session))
                if request.prepare(failure):
                    self.close()
            try:
                connection = await self._connection(loop, attempts.connect_by_s)
                await connection.until_writable(deadline_at_s)
            except KeyspaceError as error:
                failure = Failure(error, sent=False)
                continue
            if not connection.usable:
                failure = Failure(connection_broke(connection.link.endpoint, "the node closed it"), sent=False)
                continue
            answer = await connection.call(*request.parts(), deadline_at_s)
            if isinstance(answer, Failure):
                failure = answer
                continue
            _, status, result = answer
            if status == OK:
                return shape_result(request.name, request.arguments, result)
            failure = request.refused(status, result)

    async def ask(
        self, name: str, arguments: Sequence[Any], time_s: float, connect_s: float, *, is_new: bool = False
    ) -> tuple[Any, ...] | Failure:
        """Make one attempt.

        Arguments:
            name: the operation.
            arguments: its arguments.
            time_s: how long it may take.
            connect_s: how long of it a connection may take.
            is_new: whether it has to be made for this.
        Returns:
            What the node answered, or why there is no answer.
        Raises:
            LocalError: the arguments cannot be sent.
        """
        loop = asyncio.get_running_loop()
        if is_new:
            self.close()
        until_s = loop.time() + time_s
        connection = self._connections.get(loop)
        if connection is None or not connection.usable or connection.is_paused:
            try:
                connection = await self._connection(loop, until_s - time_s + connect_s)
                await connection.until_writable(until_s)
            except KeyspaceError as error:
                return Failure(error, sent=False)
            if not connection.usable:
                return Failure(connection_broke(connection.link.endpoint, "the node closed it"), sent=False)
        return await connection.call(name, arguments, until_s)

    async def _connection(self, loop: asyncio.AbstractEventLoop, deadline_at_s: float) -> LoopConnection:
        """The loop's connection. If there is none, one task makes it and all others wait for that."""
        connection = self._connections.get(loop)
        if connection is not None and connection.usable:
            return connection
        task = self._connecting.get(loop)
        if task is None:
            self._discard_dead_loops()
            task = self._connecting[loop] = loop.create_task(self._connect(loop))
            task.add_done_callback(lambda done: self._connected(loop, done))
        # Not awaited directly: if this caller is cancelled, the others still want the connection.
        await asyncio.wait((task,), timeout=max(deadline_at_s - loop.time(), 0.001))
        if not task.done():
            raise time_is_over(self._endpoint, self._timeout_ms)
        if task.cancelled():
            raise connection_broke(self._endpoint, "the event loop is shutting down")
        return task.result()

    def _connected(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[LoopConnection]) -> None:
        if self._connecting.get(loop) is task:
            del self._connecting[loop]
        if not task.cancelled() and task.exception() is None:
            self._connections[loop] = task.result()

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> LoopConnection:
        endpoint = self._endpoint
        connection: LoopConnection | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                raw_socket = await _connected_socket(loop, endpoint)
                connection = made = LoopConnection(self._make_link(endpoint), loop, raw_socket, self._timeout_ms)
                tls = None if endpoint.path else self._security.context()
                await loop.create_connection(
                    lambda: made, sock=raw_socket, ssl=tls, server_hostname=endpoint.host if tls is not None else None
                )
                await connection.greet()
        except TimeoutError as error:
            raise time_is_over(endpoint, self._timeout_ms) from error
        except ssl.SSLError as error:
            raise tls_failed(endpoint, error) from error
        except OSError as error:
            if isinstance(error, KeyspaceError):
                raise
            raise no_connection(endpoint, error.strerror or error) from error
        except UnicodeError as error:
            raise no_connection(endpoint, error) from error
        finally:
            if connection is not None and connection.link.node is None:
                connection.close()
        if connection.link.node is not None:
            self._sessions.met(connection.link.node.log_ms)
        return connection

    def _discard_dead_loops(self) -> None:
        """Close what belonged to loops that were closed without shutting down their asynchronous generators."""
        for loop, connection in list(self._connections.items()):
            if loop.is_closed():
                connection.discard()
                self._connections.pop(loop, None)
                self._recent = None

    def close(self) -> None:
        """Close the running loop's connection, and those of loops that run no more."""
        self._discard_dead_loops()
        with contextlib.suppress(RuntimeError):
            self._recent = None
            connection = self._connections.pop(asyncio.get_running_loop(), None)
            if connection is not None:
                connection.close()

    def after_fork(self) -> None:
        """In a forked child: close this process's copies of the parent's sockets, without a word to the parent's
        loops."""
        self._sessions.forget()
        inherited = list(self._connections.values())
        self._forget()
        for connection in inherited:
            connection.discard()


async def _connected_socket(loop: asyncio.AbstractEventLoop, endpoint: Endpoint) -> socket.socket:
    """A connected socket that this module keeps hold of, so that it can be closed when the loop no longer can."""
    if endpoint.path:
        return await _connect_one(loop, socket.AF_UNIX, endpoint.path)
    addresses: list[tuple[socket.AddressFamily, Any]] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            # A number needs no look-up, and no thread for it.
            socket.inet_pton(family, endpoint.host)
            addresses.append((family, (endpoint.host, endpoint.port)))
    if not addresses:
        found = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
        addresses = [(family, address) for family, _, _, _, address in found]
    error: OSError | None = None
    for family, address in addresses:
        try:
            connected = await _connect_one(loop, family, address)
        except OSError as failed:
            error = failed
            continue
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connected
    raise error or OSError(f"{endpoint.host} has no address")


async def _connect_one(loop: asyncio.AbstractEventLoop, family: socket.AddressFamily, address: Any) -> socket.socket:
    connecting = socket.socket(family, socket.SOCK_STREAM)
    try:
        connecting.setblocking(False)
        await loop.sock_connect(connecting, address)
    except BaseException:
        connecting.close()
        raise
    return connecting

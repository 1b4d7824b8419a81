"""The blocking driver of ``routing.py``: a pool of connections per process, for any number of threads.

A call takes a connection out of the pool, sends, receives and puts it back: nobody else sees it meanwhile, so the pool
needs no lock. A connection whose call did not end as it should is closed, never put back, so that a late answer can't
be taken for another call's.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import struct
import sys
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic, sleep
from typing import Any, Final

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
from django_keyspace.exceptions import (
    KeyspaceError,
    LocalError,
    NoConnection,
    Overloaded,
    ProtocolError,
)
from django_keyspace.operations import CHANGES
from django_keyspace.security import NO_SECURITY, Security, tls_failed
from django_keyspace.wire import HEADER_BYTES, OK

IDLE_CONNECTIONS_MAX: Final = 64
"""More connections than this are closed after their call."""
TRUSTED_IDLE_S: Final = 1.0
"""A connection that has been idle for longer is looked at before a read uses it. Before a write, it always is."""
RECEIVE_BYTES: Final = 64 * 1024
SMALL_FRAME_BYTES: Final = 64 * 1024


class BlockingConnection:
    """One connection of this process to a node.

    Arguments:
        link: what is said on it.
        security: what to show and to want.
        deadline_at_s: when it has to stand, on the monotonic clock.
        timeout_ms: how long a call may wait for the node.
    Raises:
        KeyspaceError: it could not be made.
    """

    __slots__ = (
        "__weakref__",
        "_own_timeout_s",
        "_poller",
        "_receive",
        "_socket",
        "link",
        "pid",
        "sent",
        "timeout_ms",
        "usable",
        "used_at_s",
    )

    def __init__(self, link: Link, *, security: Security, deadline_at_s: float, timeout_ms: int) -> None:
        self.link = link
        endpoint = link.endpoint
        self.timeout_ms = timeout_ms
        self.pid = os.getpid()
        self.sent = False
        self.usable = True
        self.used_at_s = monotonic()
        self._socket = self._connect(deadline_at_s, security.context())
        self._receive = self._socket.recv
        self._poller: Any = None
        try:
            self._greet(deadline_at_s)
            self._own_timeout_s = _limit_waiting(self._socket, timeout_ms)
            self._socket.settimeout(self._own_timeout_s)
        except TimeoutError as error:
            self.close()
            raise time_is_over(endpoint, timeout_ms) from error
        except OSError as error:
            self.close()
            raise connection_broke(endpoint, error.strerror or error) from error
        except BaseException:
            self.close()
            raise

    def _connect(self, deadline_at_s: float, tls: ssl.SSLContext | None) -> socket.socket:
        endpoint = self.link.endpoint
        remaining_s = max(deadline_at_s - monotonic(), 0.001)
        try:
            if endpoint.path:
                found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                try:
                    found.settimeout(remaining_s)
                    found.connect(endpoint.path)
                except BaseException:
                    found.close()
                    raise
                return found
            found = socket.create_connection((endpoint.host, endpoint.port), timeout=remaining_s)
        except TimeoutError as error:
            raise time_is_over(endpoint, self.timeout_ms) from error
        except (OSError, UnicodeError) as error:
            raise no_connection(endpoint, getattr(error, "strerror", None) or error) from error
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return found if tls is None else self._secured(found, tls)

    def _secured(self, plain: socket.socket, tls: ssl.SSLContext) -> socket.socket:
        endpoint = self.link.endpoint
        try:
            return tls.wrap_socket(plain, server_hostname=endpoint.host)
        except TimeoutError as error:
            raise time_is_over(endpoint, self.timeout_ms) from error
        except ssl.SSLError as error:
            raise tls_failed(endpoint, error) from error
        except OSError as error:
            raise connection_broke(endpoint, error.strerror or error) from error
        finally:
            plain.close()  # it is the secured one's now, or of no use

    def _greet(self, deadline_at_s: float) -> None:
        self._socket.sendall(self.link.hello())
        while self.link.node is None:
            self._socket.settimeout(max(deadline_at_s - monotonic(), 0.001))
            data = self._receive(RECEIVE_BYTES)
            if not data:
                raise connection_broke(self.link.endpoint, "it was closed before the node said hello")
            self.link.receive(data)
        proof = self.link.proof()
        if proof is not None:
            self._socket.sendall(proof)

    def exchange(self, name: str, arguments: Sequence[Any], deadline_at_s: float) -> tuple[int, str, Any]:
        """Send a request and receive its answer.

        Arguments:
            name: the operation.
            arguments: its arguments.
            deadline_at_s: when the call's time is over.
        Returns:
            Id, status, and result or sentence.
        Raises:
            LocalError: the arguments cannot be sent; the connection is as good as before.
            KeyspaceError, OSError: see :meth:`failure`. The connection is not to be used again.
        """
        link = self.link
        self.sent = False
        frame = link.request(name, arguments)
        self.usable = False
        if len(frame) <= SMALL_FRAME_BYTES:
            self._socket.sendall(frame)
        else:
            # The system's limit is one per system call; this one is for all of them.
            self._socket.settimeout(max(deadline_at_s - monotonic(), 0.001))
            self._socket.sendall(frame)
            self._socket.settimeout(self._own_timeout_s)
        self.sent = True
        data = self._receive(RECEIVE_BYTES)
        if len(data) == HEADER_BYTES + int.from_bytes(data[:HEADER_BYTES], "big"):
            message = link.decode(data[HEADER_BYTES:])
            if type(message) is tuple and len(message) == 3 and message[0] == link.last_id and message[1] == OK:
                self.usable = True  # what nearly always comes
                return message
            answer = link.understand(message)
            if answer is not None and answer[0] == link.last_id:
                self.usable = True
                return answer
            data = b""
        return self._receive_rest(data, deadline_at_s)

    def exchange_within(self, name: str, arguments: Sequence[Any], deadline_at_s: float) -> tuple[int, str, Any]:
        """The same as :meth:`exchange` for a call that has used up a part of its time."""
        try:
            self._socket.settimeout(max(deadline_at_s - monotonic(), 0.001))
            return self.exchange(name, arguments, deadline_at_s)
        finally:
            with contextlib.suppress(OSError):
                self._socket.settimeout(self._own_timeout_s)

    def _receive_rest(self, data: bytes, deadline_at_s: float) -> tuple[int, str, Any]:
        """Receive an answer that comes in pieces."""
        link = self.link
        try:
            while data:
                for answer in link.receive(data):
                    if answer[0] == link.last_id:
                        self.usable = link.ended_by is None
                        return answer
                if link.ended_by is not None:
                    break
                self._socket.settimeout(max(deadline_at_s - monotonic(), 0.001))
                data = self._receive(4 * RECEIVE_BYTES)
        finally:
            with contextlib.suppress(OSError):
                self._socket.settimeout(self._own_timeout_s)
        if link.ended_by is not None:
            raise link.ended_by
        raise connection_broke(link.endpoint, "the node closed it")

    def failure(self, error: BaseException) -> Failure:
        """What an error of :meth:`exchange` means for the call. Anything but KeyspaceError and OSError is raised
        again."""
        endpoint = self.link.endpoint
        if isinstance(error, LocalError) and not self.sent:
            raise error
        if error is self.link.ended_by:
            # The node's goodbye: it has not done what it has not answered.
            sent = self.sent and not isinstance(error, NoConnection | Overloaded)
            return Failure(self.link.ended_by, sent, reached=True)
        if isinstance(error, ProtocolError):
            return Failure(self.link.named(error), self.sent, reached=True)
        if isinstance(error, KeyspaceError):
            return Failure(error, self.sent, reached=True)
        if isinstance(error, BlockingIOError | TimeoutError):
            return Failure(time_is_over(endpoint, self.timeout_ms), self.sent, reached=True)
        if isinstance(error, OSError):
            return Failure(connection_broke(endpoint, error.strerror or error), self.sent, reached=True)
        raise error

    def is_stale(self) -> bool:
        """Whether something has come, or the other side has closed, while nobody was waiting."""
        if self._poller is None:
            if not hasattr(select, "poll"):  # Windows
                return bool(select.select([self._socket], [], [], 0)[0])
            self._poller = select.poll()
            self._poller.register(self._socket, select.POLLIN)
        return bool(self._poller.poll(0))

    def close(self) -> None:
        """Close the connection; in a forked child, this process's copy of it."""
        self.usable = False
        self._socket.close()


class BlockingPool:
    """The connections of threads to one node.

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
        self._idle: deque[BlockingConnection] = deque()
        self._all: weakref.WeakSet[BlockingConnection] = weakref.WeakSet()
        self._breaker = Breaker()
        self._sessions = sessions or Sessions()

    def execute(self, name: str, arguments: Sequence[Any]) -> Any:
        """Do an operation.

        Arguments:
            name: the operation.
            arguments: its arguments.
        Returns:
            Its result.
        Raises:
            KeyspaceError: what the node said, or why it could not be asked in time.
        """
        now_s = monotonic()
        deadline_at_s = now_s + self._timeout_s
        if name in CHANGES:
            request = Request(self._sessions, name, arguments)
            try:
                return self._change(request, now_s, deadline_at_s)
            finally:
                request.end()
        # While not all is well, calls go the longer way, which asks the breaker.
        connection = self._take(False, now_s) if not self._breaker.failures else None
        if connection is None:
            return self._persist(Request(self._sessions, name, arguments), deadline_at_s, None)
        try:
            _, status, result = connection.exchange(name, arguments, deadline_at_s)
        except BaseException as error:
            failure = self._give_up(connection, error)
            return self._persist(Request(self._sessions, name, arguments), deadline_at_s, failure)
        connection.used_at_s = now_s
        self._idle.append(connection)
        if status == OK:
            return shape_result(name, arguments, result)
        request = Request(self._sessions, name, arguments)
        return self._persist(request, deadline_at_s, request.refused(status, result))

    def _change(self, request: Request, now_s: float, deadline_at_s: float) -> Any:
        """Do an operation that may change something."""
        connection = self._take(True, now_s) if not self._breaker.failures else None
        if connection is None:
            return self._persist(request, deadline_at_s, None)
        try:
            _, status, result = connection.exchange(*request.parts(), deadline_at_s)
        except BaseException as error:
            return self._persist(request, deadline_at_s, self._give_up(connection, error))
        connection.used_at_s = now_s
        self._idle.append(connection)
        if status == OK:
            return shape_result(request.name, request.arguments, result)
        return self._persist(request, deadline_at_s, request.refused(status, result))

    def _take(self, look: bool, now_s: float) -> BlockingConnection | None:
        """A connection that seems to be good, or None if there is none left.

        Arguments:
            look: whether to look at it even if it was used just now.
            now_s: the monotonic clock.
        """
        idle = self._idle
        while True:
            try:
                connection = idle.pop()
            except IndexError:
                return None
            is_doubtful = look or now_s - connection.used_at_s > TRUSTED_IDLE_S
            if connection.pid == os.getpid() and not (is_doubtful and connection.is_stale()):
                return connection
            connection.close()

    def _give_up(self, connection: BlockingConnection, error: BaseException) -> Failure:
        """Put away a connection whose call failed, and say what the failure means."""
        if connection.usable:
            self._idle.append(connection)
        else:
            connection.close()
        return connection.failure(error)

    def _persist(self, request: Request, deadline_at_s: float, failure: Failure | None) -> Any:
        """Do an operation when there is no connection at hand, or the first attempt has failed."""
        if self._leader_timeout_ms is not None:
            return self._try(request, deadline_at_s, failure)  # whoever gave this time wants it used
        if failure is None:  # or else the call has been sent, and must say what became of it
            self._breaker.check(monotonic())
        try:
            result = self._try(request, deadline_at_s, failure)
        except KeyspaceError as error:
            self._breaker.failed(error, monotonic())
            raise
        self._breaker.succeeded()
        return result

    def _try(self, request: Request, deadline_at_s: float, failure: Failure | None) -> Any:
        """Attempt after attempt, as :class:`Attempts` says."""
        attempts = Attempts(request.name, self._endpoint, deadline_at_s, self._timeout_ms, self._leader_timeout_ms)
        while True:
            if failure is not None:
                sleep(attempts.after(failure, monotonic(), has_session=request.has_session))
                if request.prepare(failure):
                    self.close()
            try:
                connection = self._take(True, monotonic()) or self._open(attempts.connect_by_s)
            except KeyspaceError as error:
                failure = Failure(error, sent=False)
                continue
            try:
                _, status, result = connection.exchange_within(*request.parts(), deadline_at_s)
            except BaseException as error:
                failure = self._give_up(connection, error)
                continue
            self._put_back(connection)
            if status == OK:
                return shape_result(request.name, request.arguments, result)
            failure = request.refused(status, result)

    def ask(
        self, name: str, arguments: Sequence[Any], until_s: float, connect_by_s: float, *, is_new: bool = False
    ) -> tuple[Any, ...] | Failure:
        """Make one attempt.

        Arguments:
            name: the operation.
            arguments: its arguments.
            until_s: when to give up, on the monotonic clock.
            connect_by_s: when a connection has to stand.
            is_new: whether it has to be made for this.
        Returns:
            What the node answered, or why there is no answer.
        Raises:
            LocalError: the arguments cannot be sent.
        """
        now_s = monotonic()
        if is_new:
            self.close()
        try:
            connection = self._take(name in CHANGES, now_s) or self._open(connect_by_s)
        except KeyspaceError as error:
            return Failure(error, sent=False)
        try:
            # The system's own limit of this pool's connections is the time of a first attempt.
            is_usual = abs(until_s - now_s - self._timeout_s) < self._timeout_s / 4
            exchange = connection.exchange if is_usual else connection.exchange_within
            answer: tuple[Any, ...] = exchange(name, arguments, until_s)
        except BaseException as error:
            return self._give_up(connection, error)
        self._put_back(connection)
        return answer

    def _open(self, connect_by_s: float) -> BlockingConnection:
        connection = BlockingConnection(
            self._make_link(self._endpoint),
            security=self._security,
            deadline_at_s=connect_by_s,
            timeout_ms=self._timeout_ms,
        )
        self._all.add(connection)
        if connection.link.node is not None:
            self._sessions.met(connection.link.node.log_ms)
        return connection

    def _put_back(self, connection: BlockingConnection) -> None:
        if not connection.usable or len(self._idle) >= IDLE_CONNECTIONS_MAX:
            connection.close()
        else:
            connection.used_at_s = monotonic()
            self._idle.append(connection)

    def close(self) -> None:
        """Close the idle connections. Those in use are closed or kept by their calls."""
        while self._idle:
            with contextlib.suppress(IndexError):
                self._idle.pop().close()

    def after_fork(self) -> None:
        """In a forked child: close this process's copies of the parent's connections, those in use as well."""
        self._sessions.forget()
        inherited = list(self._all)
        self._idle = deque()
        self._all = weakref.WeakSet()
        for connection in inherited:
            connection.close()


def _limit_waiting(connected: socket.socket, timeout_ms: int) -> float | None:
    """Let no system call on the socket wait for longer than this.

    The system's own limit saves the poll() before each call that Python's ``settimeout`` costs. Where the socket is not
    the standard library's (gevent has patched it), or the system refuses, ``settimeout`` it is.

    Returns:
        What ``settimeout`` has to be called with.
    """
    if type(connected) is not socket.socket or socket.socket.__module__ != "socket":
        return timeout_ms / 1000
    if sys.platform == "win32":
        limit = struct.pack("L", timeout_ms)
    else:
        limit = struct.pack("ll", timeout_ms // 1000, timeout_ms % 1000 * 1000)
    try:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    except OSError:
        return timeout_ms / 1000
    return None

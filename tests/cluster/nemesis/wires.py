"""The wires between nodes, in this process: each node is reached through a listener here, which can hold back what passes.

What is held back is not lost and no connection breaks: it is as on a network that drops packets, where both ends go on to send
them. Who has opened a connection is in its first frame, so that directions and pairs can be cut apart from others.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterable

from django_keyspace.exceptions import KeyspaceError
from django_keyspace.node.greeting import PeerHello, is_peer_hello
from django_keyspace.wire import HELLO_BYTES_MAX, Decoder, FrameReader

CLIENTS = "clients"
"""Who opens a connection and is no node."""
Direction = tuple[str, str]
"""From whom to whom."""
_CHUNK_BYTES = 65_536


class Wires:
    """Listeners in front of nodes, on a thread of their own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._held: set[Direction] = set()
        self._changed = asyncio.Event()
        self._targets: dict[str, tuple[str, int]] = {}
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wires", daemon=True)
        self._thread.start()

    def add(self, name: str, address: str, target: str) -> None:
        """Listen at one address for a node that listens at another. Raises OSError if somebody else does."""
        host, _, port = target.rpartition(":")
        is_new = name not in self._targets
        self._targets[name] = host, int(port)
        if is_new:
            asyncio.run_coroutine_threadsafe(self._listen(name, address), self._loop).result(30)

    def hold(self, directions: Iterable[Direction]) -> None:
        """Let nothing pass in these directions any more, besides those that are held already."""
        self._set(self._held | set(directions))

    def release(self) -> None:
        """Let everything pass."""
        self._set(set())

    def _set(self, held: set[Direction]) -> None:
        async def change() -> None:
            self._held = held
            self._changed.set()
            self._changed = asyncio.Event()

        asyncio.run_coroutine_threadsafe(change(), self._loop).result(30)

    def close(self) -> None:
        """End all connections, and the thread."""

        async def end() -> None:
            for server in self._servers:
                server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    # On the loop's thread

    async def _listen(self, name: str, address: str) -> None:
        host, _, port = address.rpartition(":")

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            if task is not None:
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            with contextlib.suppress(OSError, KeyspaceError, asyncio.CancelledError):
                await self._serve(name, reader, writer)
            writer.close()

        self._servers.append(await asyncio.start_server(serve, host, int(port)))

    async def _serve(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames, first = FrameReader(HELLO_BYTES_MAX), b""
        frames.one_by_one = True
        bodies: list[bytes] = []
        while not bodies:
            data = await reader.read(_CHUNK_BYTES)
            if not data:
                return
            first += data
            bodies = frames.feed(data)
        hello = Decoder().decode(bodies[0])
        source = PeerHello.parse(hello).name if is_peer_hello(hello) else CLIENTS
        await self._gate(source, name)
        there, back = await asyncio.open_connection(*self._targets[name])
        back.write(first)
        ways = [self._pass(reader, back, source, name), self._pass(there, writer, name, source)]
        tasks = [asyncio.ensure_future(way) for way in ways]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            back.transport.abort()
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: str, to: str) -> None:
        """Hand on what comes, and that the end has come."""
        while data := await reader.read(_CHUNK_BYTES):
            await self._gate(source, to)
            writer.write(data)
            await writer.drain()
        await self._gate(source, to)
        raise ConnectionResetError("one side has closed the connection")

    async def _gate(self, source: str, to: str) -> None:
        while (source, to) in self._held:
            await self._changed.wait()

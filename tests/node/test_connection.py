"""A server in the test's own process, over a log and a store that do what the test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from django_keyspace.addresses import parse_location
from django_keyspace.backend.transport import RemoteEngine
from django_keyspace.exceptions import (
    DeadlineExceeded,
    KeyspaceError,
    NoConnection,
    NoSpace,
    Overloaded,
    SessionExpired,
    StorageError,
    UnknownOutcome,
)
from django_keyspace.node import connection as connection_module
from django_keyspace.node.config import NodeConfig
from django_keyspace.node.server import Server
from django_keyspace.operations import Limits
from django_keyspace.wire import ClientHello, Decoder, Encoder, FrameReader


class FakeLog:
    """A log that answers when the test says so."""

    def __init__(self, store: Any) -> None:
        self.store, self.reads = store, self
        self.proposed: list[tuple[Sequence[Any], Any]] = []
        self.barriers: list[Any] = []
        self.reads_wait = False
        self.asked: list[Any] = []
        self.refusals: list[KeyspaceError] = []
        self.committed: list[Any] = []

    def propose(self, calls: Sequence[Any], size_bytes: int, done: Any) -> None:
        if self.refusals:
            raise self.refusals.pop()
        self.proposed.append((calls, done))

    def at_once(self, level: str, min_index: int, max_staleness_ms: int | None) -> Any:
        self.asked.append((level, min_index, max_staleness_ms))
        return None if self.reads_wait else self.store

    def read(self, level: str, ready: Any, min_index: int = 0, max_staleness_ms: int | None = None) -> None:
        if self.reads_wait:
            self.barriers.append(ready)
        else:
            ready(self.store)

    def let_read(self, number: int, view: Any) -> None:
        self.barriers[number](view)
        for callback in self.committed:
            callback(0)

    def on_commit(self, callback: Any) -> None:
        self.committed.append(callback)

    @property
    def pending_calls(self) -> int:
        return len(self.proposed)

    async def answer(self, result: Any) -> None:
        """Answer the oldest write that has come, waiting for it if need be."""
        while not self.proposed:
            await asyncio.sleep(0.001)
        _, done = self.proposed.pop(0)
        done([result])
        for callback in self.committed:
            callback(1)


class FakeStore:
    def __init__(self) -> None:
        self.result: Any = b"record"

    def read(self, name: str, *arguments: Any) -> Any:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def answer(self, call: Any) -> Any:
        return self.read(*call), 7, 30, "n1"

    def log_time_ms(self) -> int:
        return 1_700_000_000_000


class Setting:
    """A running server, its parts, and an engine."""

    def __init__(self) -> None:
        self.store = FakeStore()
        self.log = FakeLog(self.store)
        config = NodeConfig("n1", "127.0.0.1", 0, "nowhere", connections_max=3)
        self.server = Server(config, self.store, self.log, Limits())

    async def start(self) -> None:
        self.address = await self.server.listen()
        self.engine = self.new_engine()

    def new_engine(self, timeout_ms: int = 5000) -> RemoteEngine:
        return RemoteEngine(parse_location(f"keyspace://{self.address}/0").endpoints, timeout_ms=timeout_ms)


@pytest.fixture
async def setting() -> AsyncIterator[Setting]:
    setting = Setting()
    await setting.start()
    yield setting
    setting.engine.close()
    await setting.server.stop()


GET = ("get", 0, b"k")
DELETE = ("delete", 0, b"k")


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_reads_wait_for_the_barrier_and_fail_with_it(setting: Setting) -> None:
    setting.log.reads_wait = True
    reads = [asyncio.ensure_future(setting.engine.aexecute(*GET)) for _ in range(3)]
    await until(lambda: len(setting.log.barriers) == 3)
    assert not any(read.done() for read in reads)
    setting.log.let_read(2, setting.store)  # in any order
    assert await reads[2] == b"record"
    setting.log.let_read(0, NoSpace("no leader, say"))
    with pytest.raises(NoSpace):
        await reads[0]
    setting.store.result = RuntimeError("a bug")
    setting.log.let_read(1, setting.store)
    with pytest.raises(KeyspaceError, match="failed to do get"):
        await reads[1]


async def test_a_read_with_a_level_waits_only_if_it_has_to(setting: Setting) -> None:
    call = ("at", "session", 5, 900, GET)
    assert await setting.engine.aexecute(*call) == (b"record", 7, 30, "n1")
    assert setting.log.asked == [("session", 5, 900)] and not setting.log.barriers
    setting.store.result = NoSpace("whatever a read may raise")
    with pytest.raises(NoSpace, match="whatever"):
        await setting.engine.aexecute(*call)
    setting.store.result = b"record"
    setting.log.reads_wait = True
    waiting = asyncio.ensure_future(setting.engine.aexecute(*call))
    await until(lambda: setting.log.barriers)
    assert not waiting.done()
    setting.log.let_read(0, setting.store)
    assert await waiting == (b"record", 7, 30, "n1")


async def test_a_bug_in_an_operation_is_an_answer_and_a_log_entry(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    setting.store.result = RuntimeError("a bug")
    with pytest.raises(KeyspaceError, match="The node failed to do get"):
        await setting.engine.aexecute(*GET)
    assert "a bug" in caplog.text
    write = asyncio.ensure_future(setting.engine.aexecute(*DELETE))
    await setting.log.answer(RuntimeError("another bug"))
    with pytest.raises(KeyspaceError, match="The node failed: RuntimeError"):
        await write
    assert "another bug" in caplog.text
    setting.store.result = object()  # cannot be sent
    with pytest.raises(KeyspaceError, match="cannot be sent"):
        await setting.engine.aexecute(*GET)
    setting.store.result = b"fine"
    assert await setting.engine.aexecute(*GET) == b"fine"


async def test_errors_of_a_write_have_their_class(setting: Setting) -> None:
    write = asyncio.ensure_future(setting.engine.aexecute(*DELETE))
    await setting.log.answer(StorageError("the disk"))
    with pytest.raises(StorageError, match="the disk"):
        await write


async def test_an_overloaded_node_is_asked_again(setting: Setting) -> None:
    setting.log.refusals = [Overloaded("busy"), Overloaded("busy")]
    write = asyncio.ensure_future(setting.engine.aexecute(*DELETE))
    await setting.log.answer(True)
    assert await write is True
    setting.log.refusals = [Overloaded("busy")] * 2
    blocking = asyncio.ensure_future(asyncio.to_thread(setting.engine.execute, *DELETE))
    await setting.log.answer(False)
    assert await blocking is False
    setting.log.refusals = [Overloaded("busy")] * 100
    with pytest.raises(Overloaded):
        await setting.engine.aexecute(*DELETE)
    with pytest.raises(Overloaded):
        await asyncio.to_thread(setting.engine.execute, *DELETE)
    setting.log.refusals = []


async def test_a_late_answer_goes_to_nobody(setting: Setting) -> None:
    engine = setting.new_engine(timeout_ms=100)
    with pytest.raises(UnknownOutcome):
        await engine.aexecute(*DELETE)
    setting.log.reads_wait = True
    with pytest.raises(DeadlineExceeded):
        await engine.aexecute(*GET)
    setting.log.reads_wait = False
    await setting.log.answer(True)
    setting.log.let_read(0, setting.store)
    setting.store.result = b"another"
    assert await engine.aexecute(*GET) == b"another"
    assert len(setting.server.connections) == 1
    engine.close()


async def test_answers_for_a_client_that_has_gone_are_dropped(setting: Setting) -> None:
    engine = setting.new_engine()
    write = asyncio.ensure_future(engine.aexecute(*DELETE))
    await until(lambda: setting.log.proposed)
    setting.log.reads_wait = True
    read = asyncio.ensure_future(engine.aexecute(*GET))
    await until(lambda: setting.log.barriers)
    for served in list(setting.server.connections):
        served.abort()
    await until(lambda: len(setting.log.barriers) == 2)  # the read was asked again
    setting.log.let_read(0, setting.store)
    setting.log.let_read(1, setting.store)
    assert await read == b"record"
    await until(lambda: len(setting.log.proposed) == 2)  # and the write, under the same sequence
    ((first,), _), ((second,), _) = setting.log.proposed
    assert first == ("once", *first[1:4], False, DELETE, None)
    assert second == (*first[:4], True, DELETE, None)
    await setting.log.answer("to nobody")
    await setting.log.answer(True)
    assert await write is True
    engine.close()


async def test_a_write_whose_session_is_gone_after_it_was_sent_has_an_unknown_outcome(setting: Setting) -> None:
    write = asyncio.ensure_future(setting.engine.aexecute(*DELETE))
    await until(lambda: setting.log.proposed)
    for served in list(setting.server.connections):
        served.abort()
    await until(lambda: len(setting.log.proposed) == 2)
    await setting.log.answer(True)
    await setting.log.answer(SessionExpired("over"))
    with pytest.raises(UnknownOutcome, match="over"):
        await write


async def test_a_write_that_was_not_done_gets_another_session_without_a_word(setting: Setting) -> None:
    for do in (setting.engine.aexecute, lambda *call: asyncio.to_thread(setting.engine.execute, *call)):
        write = asyncio.ensure_future(do(*DELETE))
        await until(lambda: setting.log.proposed)
        ((first,), _) = setting.log.proposed[0]
        await setting.log.answer(SessionExpired("over"))
        await until(lambda: setting.log.proposed)
        ((second,), _) = setting.log.proposed[0]
        assert second[1] != first[1] and second[2:] == (1, 1, False, DELETE, None)
        await setting.log.answer(True)
        assert await write is True


async def test_a_copy_that_the_node_cannot_do_says_nothing_of_the_first_one(setting: Setting) -> None:
    write = asyncio.ensure_future(setting.engine.aexecute(*DELETE))
    await until(lambda: setting.log.proposed)
    for served in list(setting.server.connections):
        served.abort()
    await until(lambda: len(setting.log.proposed) == 2)
    await setting.log.answer(True)
    await setting.log.answer(StorageError("the disk"))
    with pytest.raises(UnknownOutcome, match="the disk"):
        await write


async def test_more_clients_than_the_node_takes(setting: Setting) -> None:
    engines = [setting.new_engine() for _ in range(3)]
    for engine in engines:
        assert await engine.aexecute(*GET) == b"record"
    with pytest.raises(Overloaded, match="has 3 connections"):
        await setting.engine.aexecute(*GET)
    for engine in engines:
        engine.close()
    await until(lambda: not setting.server.connections)
    assert await setting.engine.aexecute(*GET) == b"record"


async def test_nobody_who_says_nothing_stays(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "HELLO_TIMEOUT_S", 0.05)
    host, _, port = setting.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"\x00")  # the beginning of a hello that never comes
    (body,) = FrameReader(1000).feed(await asyncio.wait_for(reader.read(), 10))
    assert Decoder().decode(body)[:2] == (0, "protocol")
    writer.close()
    await until(lambda: not setting.server.connections)


async def test_stop_waits_for_writes_under_way_and_refuses_newcomers(setting: Setting) -> None:
    write = asyncio.ensure_future(setting.engine.aexecute(*DELETE))
    await until(lambda: setting.log.proposed)
    stopping = asyncio.ensure_future(setting.server.stop())
    await asyncio.sleep(0.05)
    assert not stopping.done()
    await setting.log.answer(True)
    assert await write is True
    await asyncio.wait_for(stopping, 10)
    with pytest.raises(NoConnection):
        await setting.engine.aexecute(*GET)


async def test_stop_cuts_what_does_not_end(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_keyspace.node.server.DRAIN_TIMEOUT_S", 0.05)
    engine = setting.new_engine(timeout_ms=1000)
    write = asyncio.ensure_future(engine.aexecute(*DELETE))
    await until(lambda: setting.log.proposed)
    await asyncio.wait_for(setting.server.stop(), 10)
    with pytest.raises(UnknownOutcome):
        await write
    engine.close()


async def test_one_connection_has_a_limited_number_of_writes_under_way(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "WRITES_IN_FLIGHT_MAX", 10)
    host, _, port = setting.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    encode, frames, decode = Encoder(10**6).encode, FrameReader(10**6), Decoder().decode
    writer.write(encode(ClientHello().message()))
    writer.write(b"".join(encode((number, *DELETE)) for number in range(1, 26)))
    await until(lambda: len(setting.log.proposed) == 10)
    await asyncio.sleep(0.02)
    assert len(setting.log.proposed) == 10
    answers: list[Any] = []
    for number in range(25):
        await setting.log.answer(number)
    while len(answers) < 26:
        answers += map(decode, frames.feed(await asyncio.wait_for(reader.read(10**6), 10)))
    assert answers[1:] == [(number, "ok", number - 1) for number in range(1, 26)]
    writer.close()

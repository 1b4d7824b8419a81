"""Clients of the replicated stores that `cluster.py` compares: the same few calls on each, on bytes.

Each can be made in any process from a :class:`Spec`. Ours is the engine below Django's cache, with its sessions; Redis's is
redis-py with hiredis; etcd's speaks gRPC with messages made here, which takes less time than any of its clients in Python.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

CALL_TIMEOUT_MS = 30_000
ETCD_ATTEMPT_S = 0.3
"""So long one member has a call of a client that goes on to another one; calls that wait for nothing take a millisecond."""

Pairs = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Spec:
    """Whose client, and where the members are: whoever leads first, where the client does not find that out."""

    kind: str
    addresses: tuple[str, ...]


class Client(Protocol):
    """What every client does. Writes return when a majority (of Redis's: two of three) has them."""

    def set(self, key: bytes, value: bytes) -> None:
        """Set a key, durably."""

    def set_many(self, pairs: Pairs) -> None:
        """Set many keys in as few calls as it takes."""

    def get(self, key: bytes) -> bytes | None:
        """Read what was written last, if the store can promise that."""

    def close(self) -> None:
        """Let go of the connections."""


class KeyspaceClient:
    """Ours."""

    def __init__(self, addresses: Sequence[str]) -> None:
        from django_keyspace.addresses import parse_location
        from django_keyspace.backend.transport import RemoteEngine

        endpoints = parse_location(f"keyspace://{','.join(addresses)}/0").endpoints
        self._engine = RemoteEngine(endpoints, timeout_ms=CALL_TIMEOUT_MS)
        self._execute = self._engine.execute

    def set(self, key: bytes, value: bytes) -> None:
        self._execute("set", 0, key, (1, 0, value), None, "always")

    def set_many(self, pairs: Pairs) -> None:
        self._execute("set_many", 0, [(key, (1, 0, value)) for key, value in pairs], None)

    def get(self, key: bytes) -> bytes | None:
        return _payload(self._execute("get", 0, key))

    def get_lease(self, key: bytes) -> bytes | None:
        return self._at("lease", key)

    def get_session(self, key: bytes) -> bytes | None:
        return self._at("session", key)

    def get_dirty(self, key: bytes) -> bytes | None:
        return self._at("dirty", key)

    def _at(self, level: str, key: bytes) -> bytes | None:
        return _payload(self._execute("at", level, 0, None, ("get", 0, key))[0])

    def close(self) -> None:
        self._engine.close()


def _payload(record: bytes | None) -> bytes | None:
    from django_keyspace.store.record import payload_of

    return None if record is None else payload_of(record)


class RedisClient:
    """One primary, whose appended file is synced before it answers; WAIT 1 adds one replica."""

    def __init__(self, addresses: Sequence[str]) -> None:
        import redis

        host, _, port = addresses[0].rpartition(":")
        self._redis = redis.Redis(host=host, port=int(port), socket_timeout=CALL_TIMEOUT_MS / 1000)
        self.get = self._redis.get

    def set(self, key: bytes, value: bytes) -> None:
        self.set_many([(key, value)])

    def set_many(self, pairs: Pairs) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for key, value in pairs:
            pipeline.set(key, value)
        pipeline.execute_command("WAIT", 1, CALL_TIMEOUT_MS)
        if pipeline.execute()[-1] < 1:
            raise RuntimeError("No replica of Redis has confirmed a write.")

    def close(self) -> None:
        self._redis.close()


class EtcdClient:
    """A call goes to the first address; when that does not answer in time, to the next one."""

    def __init__(self, addresses: Sequence[str]) -> None:
        import grpc

        self._error = grpc.RpcError
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self._channels = [grpc.insecure_channel(address, options) for address in addresses]
        self._members = itertools.cycle(range(len(self._channels)))
        names = ("KV/Put", "KV/Range", "KV/Txn", "Maintenance/Status")
        self._calls = [
            {name: channel.unary_unary(f"/etcdserverpb.{name}") for name in names} for channel in self._channels
        ]
        self._current = next(self._members)

    def set(self, key: bytes, value: bytes) -> None:
        self._do("KV/Put", field(1, key) + field(2, value))

    def set_many(self, pairs: Pairs) -> None:
        puts = (field(2, field(2, field(1, key) + field(2, value))) for key, value in pairs)
        self._do("KV/Txn", b"".join(puts), CALL_TIMEOUT_MS / 1000)

    def get(self, key: bytes) -> bytes | None:
        return self._range(field(1, key))

    def get_dirty(self, key: bytes) -> bytes | None:
        return self._range(field(1, key) + b"\x38\x01")  # serializable: what this member has

    def _range(self, request: bytes) -> bytes | None:
        found = dict(fields(self._do("KV/Range", request)))
        return dict(fields(found[2]))[5] if 2 in found else None

    def _do(self, name: str, request: bytes, timeout_s: float = ETCD_ATTEMPT_S) -> bytes:
        for _ in range(1_000):
            with contextlib.suppress(self._error):
                return self._calls[self._current][name](request, timeout=timeout_s)
            self._current = next(self._members)
        raise RuntimeError("No member of etcd answers.")

    def leader(self) -> int | None:
        """Which of the addresses leads; None if none says so."""
        for number, calls in enumerate(self._calls):
            with contextlib.suppress(self._error):
                status = dict(fields(calls["Maintenance/Status"](b"", timeout=ETCD_ATTEMPT_S)))
                if status.get(4) and dict(fields(status[1])).get(2) == status[4]:
                    return number
        return None

    def close(self) -> None:
        for channel in self._channels:
            channel.close()


CLIENTS: dict[str, Any] = {"keyspace": KeyspaceClient, "redis": RedisClient, "etcd": EtcdClient}


def make_client(spec: Spec) -> Any:
    """A client of its own."""
    return CLIENTS[spec.kind](spec.addresses)


# --- Messages of gRPC, as far as they are needed ----------------------------------------------------------------------


def varint(number: int) -> bytes:
    """An integer as protocol buffers have it."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)


def field(number: int, content: bytes) -> bytes:
    """A field of bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Number and content of each field: an integer, or bytes."""
    place = 0

    def read() -> int:
        nonlocal place
        number = shift = 0
        while True:
            byte = message[place]
            place += 1
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number

    while place < len(message):
        number, kind = divmod(read(), 8)
        if kind == 0:
            yield number, read()
        elif kind == 2:
            size = read()
            yield number, message[place : place + size]
            place += size
        else:
            raise ValueError(f"field {number} is of kind {kind}")

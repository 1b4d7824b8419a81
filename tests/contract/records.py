"""Short words for the tests of operations: values as they are sent, records as they come back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from django_keyspace.store.record import HEADER_BYTES, Flag, Tag, unpack_header

EVICTABLE = int(Flag.EVICTABLE)
DB = 3
OTHER = 4
ALWAYS, ABSENT, PRESENT = "always", "absent", "present"
ABSENT_KEY = b"nobody"

Do = Callable[..., Any]


def val(payload: bytes, tag: int = Tag.BYTES, flags: int = EVICTABLE) -> tuple[int, int, bytes]:
    """A value: ``(tag, flags, payload)``."""
    return (int(tag), flags, payload)


def integer(number: int, flags: int = EVICTABLE) -> tuple[int, int, bytes]:
    """A value that can be counted."""
    return val(b"%d" % number, Tag.INTEGER, flags)


def payload(record: bytes | None) -> bytes | None:
    """The payload of a record, None for none."""
    return None if record is None else bytes(record[HEADER_BYTES:])


def tag_of(record: bytes) -> int:
    return unpack_header(record)[0]


def flags_of(record: bytes) -> int:
    return unpack_header(record)[1]


def revision_of(record: bytes) -> int:
    return unpack_header(record)[3]


def deadline_of(record: bytes) -> int:
    return unpack_header(record)[4]


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def put(do: Do, key: bytes, payload: bytes = b"v", expire: Any = None, **kwargs: Any) -> None:
    """Store a value in the tests' database."""
    assert do("set", DB, key, val(payload, **kwargs), expire, ALWAYS) is True


def put_expired(do: Do, *keys: bytes, value: tuple[int, int, bytes] | None = None) -> None:
    """Leave records under keys whose deadline is over, and that still lie in the store."""
    for key in keys:
        assert do("set", DB, key, value or val(b"expired"), 1, ALWAYS) is True
    await_condition(lambda: not any(do("exists", DB, key) for key in keys))


def await_condition(holds: Callable[[], bool], wait_s: float = 10) -> None:
    """Wait until something holds."""
    give_up_s = time.monotonic() + wait_s
    while not holds():
        assert time.monotonic() < give_up_s, "it never came to hold"
        time.sleep(0.001)


def left_ms(do: Do, key: bytes) -> int | None:
    return do("ttl", DB, key)


def about(number: int | None, wanted_ms: int, slack_ms: int = 5000) -> bool:
    """Whether a remaining time is what was asked for, or a little less because time has gone by."""
    return number is not None and wanted_ms - slack_ms < number <= wanted_ms

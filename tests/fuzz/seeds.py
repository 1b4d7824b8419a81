"""Inputs that follow the protocol, for the fuzzer to begin with: made here, so that they follow it as it changes."""

from __future__ import annotations

from typing import Any

from django_keyspace.exceptions import NoConnection
from django_keyspace.operations import OPERATIONS
from django_keyspace.wire import CONNECTION_ID, OK, PROTOCOL_VERSION, ClientHello, Encoder, NodeHello

from .mutate import FLAG_BYTES
from .targets import COMMITS_LATE, FRAME_BYTES_MAX, GOES_EARLY, GREETED, LIMITS, NONCE, SLOW, WITH_SECRET

VALUE = (1, 0, b"v")
CALLS: list[tuple[Any, ...]] = [
    ("get", 0, b"k"),
    ("get_many", 0, [b"k", b"l"]),
    ("exists", 0, b"k"),
    ("set", 0, b"k", VALUE, 1000, "always"),
    ("set", 1, b"k", (2, 0, b"5"), None, "absent"),
    ("set_many", 0, [(b"k", VALUE), (b"l", VALUE)], None),
    ("touch", 0, b"k", 5),
    ("delete", 0, b"k"),
    ("delete_many", 0, [b"k", b"l"]),
    ("incr", 0, b"n", 1, 0, None, 0),
    ("append", 0, b"a", VALUE, None),
    ("cas", 0, ("value", b"k", None, b"v"), VALUE, "keep"),
    ("list", 0, b"", b"", False, True, 10, False),
    ("count", 0, b"", b"", False, True, 0),
    ("batch", [("get", 0, b"k"), ("incr", 0, b"n", 1, None, None, 0)]),
    ("atomic", [(0, ("absent", b"k"))], [("delete", 0, b"k")]),
    ("clear", 1, True),
    ("status",),
]
HELLO = ClientHello(nonce=NONCE).message()
NODE = NodeHello(PROTOCOL_VERSION, "n1", None, LIMITS.databases, LIMITS.value_bytes_max, FRAME_BYTES_MAX, "0", NONCE)


def _input(flags: int, piece_bytes: int, messages: list[Any]) -> bytes:
    encode = Encoder(FRAME_BYTES_MAX).encode
    return bytes([flags, piece_bytes]) + b"".join(map(encode, messages))


def seeds(target: str) -> list[bytes]:
    """The inputs for a target."""
    requests = [(number, *call) for number, call in enumerate(CALLS, 1)]
    # Wrong arguments for every operation: how many it takes, and of what kind, is found by changing them.
    every = [(number, name, 0, b"k", 1, None) for number, name in enumerate(OPERATIONS, 1)]
    answers = [(1, OK, b"v"), (2, OK, (b"k", None)), (3, OK, ((b"k",), False)), (4, "missing-key", "There is none.")]
    goodbye = (CONNECTION_ID, NoConnection.code, "The node is going.")
    if target == "hello":
        first = [HELLO, NODE.message(), goodbye, ("proof", NONCE)]
        return [bytes(FLAG_BYTES) + Encoder(FRAME_BYTES_MAX).encode(message)[4:] for message in first]
    if target == "client":
        return [
            _input(0, 0, [NODE.message(), *answers, goodbye]),
            _input(GREETED, 3, answers),
            _input(GREETED | WITH_SECRET, 0, [*answers, (5, OK, (("ok", 1),))]),
            _input(WITH_SECRET, 1, [NODE.message(), goodbye]),
        ]
    return [
        _input(0, 0, [HELLO, *requests]),
        _input(WITH_SECRET, 7, [HELLO, ("proof", NONCE), *requests]),
        _input(GREETED | COMMITS_LATE, 100, requests),
        _input(GREETED | SLOW | GOES_EARLY, 0, requests),
        _input(GREETED, 0, every),
        *(_input(GREETED, 0, [request]) for request in requests),
    ]

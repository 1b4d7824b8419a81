"""Changes of an input that keep some of its sense: the frames of a stream stay frames now and then."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from django_keyspace.wire import HEADER_BYTES

CORPUS = Path(__file__).with_name("corpus")
INPUT_BYTES_MAX = 64 * 1024
FLAG_BYTES = 2
"""An input begins with two bytes that say how the rest is used: see ``targets.py``."""
NOTABLE = [
    *(bytes([head]) for head in (0, 1, 0x7F, 0x80, 0x90, 0x91, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC7, 0xE0, 0xFF)),
    b"\xc4\x00", b"\xc6\xff\xff\xff\xff", b"\xcb\x7f\xf8" + bytes(6), b"\xcf" + b"\xff" * 8, b"\xd3\x80" + bytes(7),
    b"\xdb\x00\x10\x00\x00", b"\xdd\xff\xff\xff\xff", b"\xdd\x00\x10\x00\x00", b"\xdf\x00\x00\x10\x01",
]  # fmt: skip

Change = Callable[[bytes], bytes]


def corpus(target: str) -> list[bytes]:
    """The inputs that are kept for a target, in the order of their names."""
    return [path.read_bytes() for path in sorted((CORPUS / target).glob("*"))]


def split_stream(stream: bytes) -> list[bytes]:
    """The bodies of a stream of frames; what is no frame any more is the last one."""
    bodies, at = [], 0
    while at + HEADER_BYTES <= len(stream):
        end = at + HEADER_BYTES + int.from_bytes(stream[at : at + HEADER_BYTES], "big")
        bodies.append(stream[at + HEADER_BYTES : end])
        at = end
    return bodies


def join_stream(bodies: list[bytes]) -> bytes:
    """The stream of some bodies."""
    return b"".join(len(body).to_bytes(HEADER_BYTES, "big") + body for body in bodies)


def change_frames(data: bytes, rng: random.Random, change: Change) -> bytes:
    """Change one body of the stream, or their order, and have all lengths true again."""
    flags, bodies = data[:FLAG_BYTES], split_stream(data[FLAG_BYTES:])
    if not bodies:
        return change(data)
    at = rng.randrange(len(bodies))
    what = rng.randrange(8)
    if what == 0:
        bodies.insert(rng.randrange(len(bodies) + 1), bodies[at])
    elif what == 1:
        del bodies[at]
    else:
        bodies[at] = change(bodies[at])
    return flags + join_stream(bodies)


def change_bytes(data: bytes, rng: random.Random) -> bytes:
    """Change a few bytes anywhere."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(found) + 1)
        what = rng.randrange(5)
        if what == 0:
            found[at : at + 1] = bytes([rng.randrange(256)])
        elif what == 1:
            found[at : at + rng.choice((0, 1, 4))] = rng.choice(NOTABLE)
        elif what == 2:
            del found[at : at + rng.choice((1, 2, 8))]
        elif what == 3:
            found[at:at] = found[at : at + rng.choice((1, 4, 32))]
        else:
            found[at:at] = rng.choice(NOTABLE) * rng.choice((1, 8, 200))
    return bytes(found[:INPUT_BYTES_MAX])


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Another input that is a little like this one."""
    for _ in range(rng.choice((1, 1, 2, 5))):
        if rng.random() < 0.7:
            data = change_frames(data, rng, lambda body: change_bytes(body, rng))
        else:
            data = change_bytes(data, rng)
    return data[:INPUT_BYTES_MAX]

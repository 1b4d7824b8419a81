"""Frames and messages: whole, in pieces, too large, and garbage."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_keyspace import wire
from django_keyspace.exceptions import InvalidArgument, NoConnection, Overloaded, ProtocolError, ValueTooLarge
from django_keyspace.operations import INT64_MIN
from django_keyspace.wire import (
    HELLO_BYTES_MAX,
    PROTOCOL_VERSION,
    ClientHello,
    Decoder,
    Encoder,
    FrameReader,
    NodeHello,
    connection_error,
    frame_bytes_max_for,
)

LIMIT = 1 << 20
ROOT = Path(__file__).resolve().parents[2]

scalars = (
    st.none()
    | st.booleans()
    | st.integers(INT64_MIN, 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.binary(max_size=300)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
)
messages = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=8).map(tuple)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=10), inner, max_size=5)
    ),
    max_leaves=20,
)


def frames_of(items: list) -> bytes:
    encoder = Encoder(LIMIT)
    return b"".join(encoder.encode(item) for item in items)


def read_all(data: bytes, cuts: list[int], limit: int = LIMIT) -> list:
    reader, decoder = FrameReader(limit), Decoder()
    found, begin = [], 0
    for cut in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        found += [decoder.decode(body) for body in reader.feed(data[begin:cut])]
        begin = cut
    assert reader.pending_bytes == 0
    return found


@given(st.lists(messages, max_size=6), st.lists(st.integers(0, 2**20), max_size=12))
def test_round_trip_in_any_pieces(items: list, cuts: list[int]) -> None:
    assert read_all(frames_of(items), cuts) == items


def test_round_trip_byte_by_byte() -> None:
    items = [(1, "get", 0, b"key"), (2, "set", 0, b"k", (1, 0, b"v" * 70_000), None, "always"), (), None]
    data = frames_of(items)
    assert read_all(data, list(range(len(data)))[:200]) == items


@pytest.mark.parametrize("size", [65_533, 65_534, 65_535, 65_536, 65_537, 65_540, 1_000_000])
def test_bodies_around_the_size_where_the_decoder_changes(size: int) -> None:
    items = [(1, "ok", b"x" * size), (2, "ok", b"y")] * 2
    assert read_all(frames_of(items), [5, size]) == items


@given(st.binary(max_size=2000), st.lists(st.integers(0, 2**20), max_size=5))
def test_garbage_raises_protocol_error_or_nothing(data: bytes, cuts: list[int]) -> None:
    reader, decoder = FrameReader(LIMIT), Decoder()
    begin = 0
    try:
        for cut in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
            for body in reader.feed(data[begin:cut]):
                decoder.decode(body)
            begin = cut
    except ProtocolError:
        pass
    assert reader.pending_bytes <= len(data)


@given(st.binary(min_size=1, max_size=3000))
@settings(max_examples=500)
def test_garbage_bodies_raise_protocol_error_or_decode_to_plain_types(body: bytes) -> None:
    try:
        message = Decoder().decode(body)
    except ProtocolError:
        return
    assert_plain(message)


def assert_plain(message: object) -> None:
    assert type(message) in {type(None), bool, int, float, bytes, str, tuple, dict}
    if isinstance(message, tuple):
        for item in message:
            assert_plain(item)
    elif isinstance(message, dict):
        for key, item in message.items():
            assert type(key) in {str, bytes}
            assert_plain(item)


@given(messages, st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_raises_protocol_error_or_decodes_to_plain_types(item: object, at: int, change: int) -> None:
    body = bytearray(Encoder(LIMIT).encode(item)[4:])
    body[at % len(body)] ^= change
    try:
        assert_plain(Decoder().decode(bytes(body)))
    except ProtocolError:
        pass


@pytest.mark.parametrize(
    "body",
    [
        b"\xc1",  # no such type
        b"\x93\x01\x02",  # ends too early
        b"\x01\x02",  # more than one message
        b"\xa1\xff",  # text that is not UTF-8
        b"\x81\x01\x02",  # a map's key that is a number
        b"\xd4\x05a",  # an extension type
        b"\xc7\x00\x05",  # an empty one, which msgpack's own limit lets through
        b"\xd6\xff\x00\x00\x00\x00",  # a timestamp
        b"\x91" * 5_000,  # deeper than anything of ours
        b"\xdd\xff\xff\xff\xff",  # an array of four thousand million
        b"\xdf\x00\x10\x00\x00",  # a large map
        b"\xdb\x7f\xff\xff\xff",  # a long text
        b"\xc6\xff\xff\xff\xff",  # long bytes
        b"\x91" * 70_000,  # the decoder of large bodies has the same rules
        b"\xc7\x00\x05" + b"\x00" * 70_000,
    ],
)
def test_illegal_bodies(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        Decoder().decode(body)


def test_length_above_the_limit_is_refused_before_anything_is_kept() -> None:
    reader = FrameReader(1000)
    with pytest.raises(ProtocolError, match=r"announces 1,001 bytes and the limit is 1,000"):
        reader.feed((1001).to_bytes(4, "big"))
    assert reader.pending_bytes == 0
    assert FrameReader(1000).feed((1000).to_bytes(4, "big") + b"x" * 1000) == [b"x" * 1000]


def test_frames_of_a_handshake_come_one_by_one() -> None:
    reader = FrameReader(10)
    reader.one_by_one = True
    stream = b"\0\0\0\x01a\0\0\0\x01b\0\0\0\xff" + b"c" * 255
    assert reader.feed(stream) == [b"a"]
    assert reader.feed(b"") == [b"b"]
    reader.one_by_one, reader.frame_bytes_max = False, 255
    assert reader.feed(b"") == [b"c" * 255]
    assert reader.feed(b"") == []


def test_empty_frame_is_refused() -> None:
    with pytest.raises(ProtocolError, match="empty"):
        FrameReader(1000).feed(bytes(4))


def test_an_announced_length_costs_no_memory_until_the_bytes_come() -> None:
    tracemalloc.start()
    try:
        reader = FrameReader(2**31)
        assert reader.feed((2**31).to_bytes(4, "big") + b"x") == []
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 100_000
    assert reader.pending_bytes == 5


def test_what_cannot_be_sent_is_an_invalid_argument() -> None:
    encoder = Encoder(LIMIT)
    nested: list = []
    for _ in range(2000):
        nested = [nested]
    for item in (object(), 2**64, "\ud800", {1, 2}, nested):
        with pytest.raises(InvalidArgument, match="Nothing was changed"):
            encoder.encode([item])
    # The encoder is as good as before.
    assert Decoder().decode(encoder.encode([1])[4:]) == (1,)


@pytest.mark.parametrize("limit", [100, 3_000_000])
def test_a_frame_above_the_limit_is_not_made(limit: int) -> None:
    encoder = Encoder(limit)
    with pytest.raises(ValueTooLarge, match="Split it"):
        encoder.encode(b"x" * limit)
    assert len(encoder.encode(b"x" * (limit - 10))) > limit - 10


def test_frame_limit_has_room_for_the_largest_value() -> None:
    assert frame_bytes_max_for(64 * 2**20) == 80 * 2**20
    assert frame_bytes_max_for(2**40) == 2**32 - 1


node_hellos = st.builds(
    NodeHello,
    st.just(PROTOCOL_VERSION),
    node=st.text("abc", min_size=1),
    cluster=st.none() | st.text("abc"),
    databases=st.integers(1, 100),
    value_bytes_max=st.integers(1, 2**40),
    frame_bytes_max=st.integers(1, 2**32),
    release=st.text("012."),
)


def over_the_wire(message: object) -> object:
    return Decoder().decode(Encoder(HELLO_BYTES_MAX).encode(message)[4:])


@given(node_hellos)
def test_node_hello_round_trip(hello: NodeHello) -> None:
    assert NodeHello.parse(over_the_wire(hello.message())) == hello


@given(st.builds(ClientHello, st.integers(1, 99), st.none() | st.text("abc"), st.text("012.")))
def test_client_hello_round_trip(hello: ClientHello) -> None:
    assert ClientHello.parse(over_the_wire(hello.message())) == hello


@given(messages)
def test_anything_else_is_no_hello(message: object) -> None:
    for kind in (ClientHello, NodeHello):
        with pytest.raises(ProtocolError):
            kind.parse(message)


def test_hello_with_unknown_fields_is_understood() -> None:
    name, version, fields = ClientHello().message()
    assert ClientHello.parse((name, version, fields | {"later": [1]})) == ClientHello()


@pytest.mark.parametrize(
    "change", [{"node": 5}, {"databases": 0}, {"databases": True}, {"cluster": b"x"}, {"frame_bytes_max": None}]
)
def test_node_hello_with_a_wrong_field(change: dict) -> None:
    name, version, fields = NodeHello(1, "n1", None, 16, 100, 200).message()
    with pytest.raises(ProtocolError, match=next(iter(change))):
        NodeHello.parse((name, version, fields | change))


def test_versions() -> None:
    with pytest.raises(ProtocolError, match="Update the client"):
        ClientHello.parse(ClientHello(version=0).message())
    newer = NodeHello(PROTOCOL_VERSION + 1, "n1", None, 16, 100, 200)
    with pytest.raises(ProtocolError, match="Update the older"):
        NodeHello.parse(newer.message())


def test_refusal_instead_of_a_hello_keeps_its_class() -> None:
    with pytest.raises(Overloaded, match="full"):
        NodeHello.parse((0, "overloaded", "full"))


def test_connection_error() -> None:
    assert isinstance(connection_error((0, "no-connection", "bye")), NoConnection)
    for message in ((1, "no-connection", "bye"), (0, "no-connection"), (0, 1, "x"), (False, "protocol", "x"), None):
        assert connection_error(message) is None


def test_msgpack_of_others_is_understood() -> None:
    assert Decoder().decode(msgpack.packb([1, "get", 0, b"k"])) == (1, "get", 0, b"k")


@pytest.mark.parametrize("part", [b"\x90", b"\x80", b"\x91\x00", b"\xa2\xc4\x80", b"\xec", b"\xcd\x7f\xff"])
def test_a_frame_of_very_many_tiny_parts_is_refused_before_it_takes_memory(
    part: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "PARTS_MAX", 65_536)
    row = b"\xdc" + (10_000).to_bytes(2, "big") + part * 10_000
    body = b"\x98" + row * 8
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="more than 65,536 parts"):
            Decoder().decode(body)
        assert tracemalloc.get_traced_memory()[1] < len(body) + 2**20
    finally:
        tracemalloc.stop()


def test_as_many_parts_as_a_frame_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "PARTS_MAX", 40_002)
    row = b"\xdc" + (40_000).to_bytes(2, "big") + b"\xcd\x7f\xff" * 40_000
    assert Decoder().decode(b"\x91" + row) == ((0x7FFF,) * 40_000,)
    with pytest.raises(ProtocolError, match="parts"):
        Decoder().decode(b"\x92" + row + b"\x90")


def test_large_values_are_not_taken_for_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "PARTS_MAX", 65_536)
    values = (bytes(range(256)) * 2_000, "é" * 40_000, "é", "é" * 50, -7, 2.5, 2**40, {"k": b"\x90" * 70_000})
    many = tuple((number, b"\x93" * 20) for number in range(15_000))
    for message in ((1, "ok", values), (1, "ok", many)):
        (body,) = FrameReader(2**27).feed(Encoder(2**27).encode(message))
        assert sum(byte >= 0x80 for byte in body) > 65_536
        assert Decoder().decode(body) == message


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read where Linux has it")
def test_lengths_that_are_not_true_take_no_memory() -> None:
    """Each head announces a million parts, and there are none: neither room is made for them nor anything kept."""
    # The room would be the allocator's, so that only the process's own figure shows it: the peak of this program, and not
    # the one of getrusage, which a process takes over from whoever has started it.
    script = (
        "import re\n"
        "from pathlib import Path\n"
        "from django_keyspace.wire import Decoder, ProtocolError\n"
        "for _ in range(3):\n"
        "    try: Decoder().decode(b'\\xdd\\x00\\x10\\x00\\x00' * 300)\n"
        "    except ProtocolError: pass\n"
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(done.stdout) * 1024 < 300 * 2**20

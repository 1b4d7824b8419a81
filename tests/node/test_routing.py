"""The client without its sockets: locations, what is said, and what follows a failure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_keyspace.addresses import Endpoint, Location, parse_location
from django_keyspace.backend.routing import (
    ATTEMPTS_MAX,
    Attempts,
    Failure,
    Link,
    connection_broke,
    no_connection,
    shape_result,
)
from django_keyspace.backend.transport import RemoteEngine, remote_engine
from django_keyspace.exceptions import (
    AuthenticationFailed,
    ConfigurationError,
    DeadlineExceeded,
    InvalidArgument,
    KeyspaceError,
    NoConnection,
    NoLeader,
    Overloaded,
    ProtocolError,
    SessionExpired,
    UnknownOutcome,
    ValueTooLarge,
)
from django_keyspace.wire import Decoder, Encoder, FrameReader, NodeHello

HERE = Endpoint("127.0.0.1", 7080)
THERE = Endpoint("127.0.0.1", 7081)


# --- Locations


@pytest.mark.parametrize(
    ("location", "endpoints", "database"),
    [
        ("keyspace://127.0.0.1:7080/0", [HERE], 0),
        ("keyspace://127.0.0.1", [HERE], 0),
        ("keyspace://127.0.0.1/", [HERE], 0),
        ("keyspace://cache.example.org:99/15", [Endpoint("cache.example.org", 99)], 15),
        ("keyspace://127.0.0.1:7080,127.0.0.1:7081/3", [HERE, THERE], 3),
        ("keyspace://[::1]:7080/2", [Endpoint("::1", 7080)], 2),
        ("keyspace://[::1]/2", [Endpoint("::1", 7080)], 2),
        ("keyspace+unix:///run/n1/node.sock", [Endpoint(path="/run/n1/node.sock")], 0),
        ("keyspace+unix:///a%20b/node.sock?database=4", [Endpoint(path="/a b/node.sock")], 4),
    ],
)
def test_locations(location: str, endpoints: list[Endpoint], database: int) -> None:
    assert parse_location(location) == Location(tuple(endpoints), database)


@pytest.mark.parametrize(
    "location",
    [
        "",
        "keyspace:",
        "keyspace://",
        "redis://127.0.0.1:6379/0",
        "keyspace://:7080/0",
        "keyspace://host:port/0",
        "keyspace://host:0/0",
        "keyspace://host:65536/0",
        "keyspace://host:7080/x",
        "keyspace://host:7080/-1",
        "keyspace://host:7080/1/2",
        "keyspace://host:7080/0?timeout=1",
        "keyspace://host:7080/0#x",
        "keyspace://user:word@host:7080/0",
        "keyspace://host:1,,host:2/0",
        "keyspace://host:1,host:1/0",
        "keyspace://ho st:1/0",
        "keyspace://[::1/0",
        "keyspace://[::1]x:5/0",
        "keyspace://::1/0",
        "keyspace+unix://host/node.sock",
        "keyspace+unix:///node.sock?database=x",
        "keyspace+unix:///node.sock?db=1",
    ],
)
def test_wrong_locations_say_what_a_right_one_looks_like(location: str) -> None:
    with pytest.raises(ConfigurationError, match="It looks like keyspace://127"):
        parse_location(location)


@given(st.text(max_size=60))
def test_any_text_is_a_location_or_a_configuration_error(text: str) -> None:
    for location in (text, f"keyspace://{text}", f"keyspace+unix://{text}"):
        try:
            assert parse_location(location).endpoints
        except ConfigurationError:
            pass


def test_endpoints_as_text_can_be_parsed_again() -> None:
    for endpoint in (HERE, Endpoint("::1", 5), Endpoint("name.example", 80)):
        assert parse_location(f"keyspace://{endpoint}/0").endpoints == (endpoint,)


def test_one_engine_per_addresses_and_timeout() -> None:
    first = remote_engine("keyspace://127.0.0.1:1/0")
    assert remote_engine("keyspace://127.0.0.1:1/7") is first
    assert remote_engine("keyspace://127.0.0.1:1/0", timeout_ms=100) is not first


@pytest.mark.parametrize("timeout_ms", [0, -1, 1.5, True, None, 10**12])
def test_engine_refuses_a_timeout_that_is_none(timeout_ms: object) -> None:
    with pytest.raises(ConfigurationError, match="timeout"):
        RemoteEngine([HERE], timeout_ms=timeout_ms)


def test_engine_needs_an_endpoint() -> None:
    with pytest.raises(ConfigurationError, match="at least one"):
        RemoteEngine([])


# --- What is said on a connection

NODE = NodeHello(1, "n1", None, databases=16, value_bytes_max=1000, frame_bytes_max=2000)


def encode(message: object) -> bytes:
    return Encoder(10_000_000).encode(message)


def decode(frame: bytes) -> object:
    (body,) = FrameReader(10_000_000).feed(frame)
    return Decoder().decode(body)


def met_link(**options: bool) -> Link:
    link = Link(HERE, **options)
    assert link.receive(encode(NODE.message())) == []
    assert link.node == NODE
    return link


def test_link_says_hello_and_numbers_its_requests() -> None:
    link = Link(HERE)
    name, version, fields = decode(link.hello())
    assert (name, version, fields["role"]) == ("keyspace", 1, "client")
    link.receive(encode(NODE.message()))
    assert decode(link.request("get", (0, b"k"))) == (1, "get", 0, b"k")
    assert decode(link.request("delete", (0, b"k"))) == (2, "delete", 0, b"k")
    assert link.last_id == 2
    assert link.receive(encode((2, "ok", True)) + encode((1, "ok", None))) == [(2, "ok", True), (1, "ok", None)]


def test_link_refuses_to_send_more_than_the_node_takes() -> None:
    link = met_link()
    with pytest.raises(ValueTooLarge, match=r"limit is 2,000"):
        link.request("set", (0, b"k", (1, 0, b"x" * 2000), None, "always"))
    with pytest.raises(InvalidArgument):
        link.request("get", (0, object()))
    assert link.last_id == 0  # neither of them has used up an id


@pytest.mark.parametrize(
    "message",
    [None, (), (1,), (1, "ok"), (1, "ok", 1, 2), ("1", "ok", 1), (True, "ok", 1), (1, 5, 1), (0, "ok", 5), [1] * 4],
)
def test_link_refuses_answers_that_are_none(message: object) -> None:
    with pytest.raises(ProtocolError, match=r"127\.0\.0\.1:7080"):
        met_link().receive(encode(message))


def test_link_refuses_a_frame_above_the_nodes_own_limit() -> None:
    with pytest.raises(ProtocolError, match=r"2,000"):
        met_link().receive(encode((1, "ok", b"x" * 3000)))


def test_link_with_someone_else() -> None:
    with pytest.raises(ProtocolError, match=r"^127\.0\.0\.1:7080 does not speak"):
        Link(HERE).receive(encode({"hello": "world"}))
    with pytest.raises(ProtocolError):
        Link(HERE).receive(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(Overloaded):
        Link(HERE).receive(encode((0, "overloaded", "too many")))


def test_link_keeps_the_nodes_goodbye() -> None:
    link = met_link()
    assert link.receive(encode((1, "ok", 5)) + encode((0, "no-connection", "bye"))) == [(1, "ok", 5)]
    assert isinstance(link.ended_by, NoConnection)


def test_link_lets_somebody_look_at_the_node() -> None:
    def refuse(endpoint: Endpoint, node: NodeHello) -> None:
        raise ConfigurationError(f"{endpoint} {node.node}")

    with pytest.raises(ConfigurationError, match=r"127\.0\.0\.1:7080 n1"):
        Link(HERE, meet=refuse).receive(encode(NODE.message()))


def test_a_link_that_wants_the_index_of_writes_takes_answers_with_one() -> None:
    link = met_link(wants_index=True)
    assert link.receive(encode((1, "ok", True, 7)) + encode((2, "ok", None))) == [(1, "ok", True, 7), (2, "ok", None)]
    for other in (met_link(), link):
        with pytest.raises(ProtocolError):
            other.receive(encode((3, "ok", True, 7, 8) if other is link else (3, "ok", True, 7)))


# --- What follows a failure


def attempts(name: str = "get", deadline_at_s: float = 105.0) -> Attempts:
    return Attempts(name, HERE, deadline_at_s, 5000, jitter=lambda: 0.5)


UNREACHABLE = Failure(no_connection(HERE, "refused"), sent=False)
BROKEN = Failure(connection_broke(HERE, "reset"), sent=True)


def test_a_sent_write_is_sent_again_under_its_session_until_its_time_is_over() -> None:
    call, now_s, tries = attempts("set"), 100.0, 0
    with pytest.raises(UnknownOutcome, match="may have happened or not") as caught:
        while True:
            pause_s = call.after(BROKEN if tries % 2 == 0 else UNREACHABLE, now_s, has_session=True)
            assert now_s + pause_s < 105.0
            now_s, tries = now_s + pause_s, tries + 1
    assert call.may_be_done
    assert caught.value.__cause__ is not None
    assert now_s > 104.9
    assert ATTEMPTS_MAX < tries < 100


@pytest.mark.parametrize("error", [SessionExpired("over"), AuthenticationFailed("no"), ProtocolError("what")])
def test_whatever_ends_the_attempts_of_a_write_that_was_sent_leaves_its_outcome_unknown(error: KeyspaceError) -> None:
    call = attempts("set")
    assert call.after(BROKEN, 100.0, has_session=True) == 0.0
    with pytest.raises(UnknownOutcome) as caught:
        call.after(Failure(error, sent=False), 100.0, has_session=True)
    assert caught.value.__cause__ is error


def test_a_sent_write_without_a_session_is_never_sent_again() -> None:
    for name in ("set", "incr", "batch", "clear"):
        with pytest.raises(UnknownOutcome, match="may have happened or not") as caught:
            attempts(name).after(BROKEN, 100.0)
        assert caught.value.__cause__ is BROKEN.error


def test_a_sent_write_whose_time_is_over_has_an_unknown_outcome() -> None:
    with pytest.raises(UnknownOutcome):
        attempts("set").after(Failure(DeadlineExceeded("late"), sent=True), 105.0)


@pytest.mark.parametrize(("name", "failure"), [("get", BROKEN), ("get", UNREACHABLE), ("set", UNREACHABLE)])
def test_everything_else_is_tried_a_few_times(name: str, failure: Failure) -> None:
    call, delays_s = attempts(name), []
    with pytest.raises(NoConnection):
        while True:
            delays_s.append(call.after(failure, 100.0))
    assert len(delays_s) == ATTEMPTS_MAX - 1
    assert delays_s == ([0.0, 0.0, 0.0] if failure.sent else [0.01, 0.02, 0.04])


def test_pauses_have_jitter() -> None:
    for number, delay_s in ((0.0, 0.005), (1.0, 0.015)):
        call = Attempts("get", HERE, 105.0, 5000, jitter=lambda number=number: number)
        assert call.after(UNREACHABLE, 100.0) == pytest.approx(delay_s)


def test_no_attempt_after_the_deadline() -> None:
    with pytest.raises(NoConnection):
        attempts().after(UNREACHABLE, 104.995)  # the pause would end after it
    with pytest.raises(DeadlineExceeded, match=r"5,000 ms.*refused"):
        attempts().after(UNREACHABLE, 105.0)
    with pytest.raises(DeadlineExceeded):
        attempts().after(Failure(DeadlineExceeded("late"), sent=True), 104.0)


def test_overload_is_tried_again_later() -> None:
    assert attempts("set").after(Failure(Overloaded("full"), sent=False), 100.0) == pytest.approx(0.01)


@pytest.mark.parametrize("error", [ProtocolError("x"), ConfigurationError("x"), KeyspaceError("x")])
def test_what_will_not_get_better_is_not_tried_again(error: KeyspaceError) -> None:
    with pytest.raises(type(error)):
        attempts().after(Failure(error, sent=False), 100.0)


def test_no_connection_says_the_address_and_what_to_do() -> None:
    assert "127.0.0.1:7080" in str(UNREACHABLE.error)
    assert "manage.py keyspace_node --listen 127.0.0.1:7080" in str(UNREACHABLE.error)
    assert "--data /run/n1" in str(no_connection(Endpoint(path="/run/n1/node.sock"), "gone"))


# --- Results


def test_results_get_back_the_types_that_the_store_gives() -> None:
    assert shape_result("get_many", (0, [b"a"]), (b"x", None)) == [b"x", None]
    assert shape_result("list", (), (((b"k", b"v"),), True)) == ([(b"k", b"v")], True)
    calls = [("get_many", 0, [b"a"]), ("incr", 0, b"n"), ("get_many", 0, [b"a"])]
    answers = (("ok", (b"x",)), ("missing-key", "no"), ("ok", ()))
    assert shape_result("batch", (calls,), answers) == [("ok", [b"x"]), ("missing-key", "no"), ("ok", [])]
    assert shape_result("atomic", ([], calls[:1]), (True, ((b"x",),))) == (True, [[b"x"]])
    assert shape_result("atomic", ([], calls), (False, 3)) == (False, 3)


@pytest.mark.parametrize(("name", "result"), [("get_many", 5), ("list", (1,)), ("batch", ()), ("atomic", None)])
def test_results_of_another_shape_are_a_protocol_error(name: str, result: object) -> None:
    with pytest.raises(ProtocolError):
        shape_result(name, ([("get", 0, b"k")], [("get", 0, b"k")]), result)


def looking(leader_timeout_ms: int, deadline_at_s: float = 105.0) -> Attempts:
    """A call that began at 100 s and may look for a node for so long."""
    return Attempts("get", HERE, deadline_at_s, 5000, leader_timeout_ms, jitter=lambda: 0.5)


def test_a_call_with_a_leader_timeout_looks_for_a_node_until_it_is_over() -> None:
    call, now_s, tries = looking(2000), 100.0, 0
    assert call.connect_by_s == 102.0
    with pytest.raises(NoLeader, match="2,000 ms"):
        while True:
            pause_s = call.after(UNREACHABLE, now_s)
            assert now_s + pause_s <= 102.0
            now_s, tries = now_s + pause_s, tries + 1
    assert now_s == 102.0
    assert tries > ATTEMPTS_MAX


def test_the_shorter_of_both_times_ends_the_call() -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        looking(9000).after(UNREACHABLE, 105.0)
    assert caught.value.reached is False
    with pytest.raises(NoLeader):
        looking(1000).after(UNREACHABLE, 101.0)


def test_the_leader_timeout_begins_when_the_node_went_away() -> None:
    call = looking(2000)
    gone = Failure(connection_broke(HERE, "reset"), sent=True, reached=True)
    assert call.after(gone, 102.9) == 0.0
    assert call.connect_by_s == 104.9
    assert call.after(UNREACHABLE, 104.0) > 0
    with pytest.raises(NoLeader):
        call.after(UNREACHABLE, 104.9)


def test_an_overloaded_node_is_not_asked_for_ever_either() -> None:
    call, busy = looking(4000), Failure(Overloaded("full"), sent=False, reached=True)
    with pytest.raises(Overloaded) as caught:
        for _ in range(ATTEMPTS_MAX):
            call.after(busy, 100.0)
    assert caught.value.reached is True

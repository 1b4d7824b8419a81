"""The way of a call through a cluster, without sockets: whom it asks, in which order, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_keyspace.addresses import Endpoint
from django_keyspace.backend import levels
from django_keyspace.backend.cluster.knowledge import ASIDE_S_MOST, FORGET_S, LEARN_INTERVAL_S, Cluster
from django_keyspace.backend.cluster.route import HINTS_MAX, Ask, Pause, Route
from django_keyspace.backend.routing import Failure, connection_broke, no_connection, time_is_over
from django_keyspace.backend.sessions import Request, Sessions
from django_keyspace.exceptions import (
    AuthenticationFailed,
    ConfigurationError,
    DeadlineExceeded,
    KeyspaceError,
    MissingKey,
    NoConnection,
    NoLeader,
    NotLeader,
    Overloaded,
    ProtocolError,
    SessionExpired,
    TooStale,
    UnknownOutcome,
)
from django_keyspace.operations import CHANGES
from django_keyspace.wire import NodeHello

NAMES = "abc"
AT = {name: Endpoint(f"10.0.0.{number}", 7080) for number, name in enumerate(NAMES, 1)}
OF = {endpoint: name for name, endpoint in AT.items()}
HELLO = {name: NodeHello(1, name, "c1", 16, 1000, 2000, log_ms=1_700_000_000_000) for name in NAMES}
START_S = 1000.0
SET = ("set", 0, b"k", (1, 0, b"v"), None, "always")
GET = ("get", 0, b"k")
DIRTY = ("at", "dirty", 0, None, GET)
SESSION = ("at", "session", 0, None, GET)


@pytest.fixture(autouse=True)
def own_session() -> Iterator[levels.Seen]:
    with levels.session() as seen:
        yield seen


@pytest.fixture(autouse=True, params=["first attempt apart", "all steps"])
def way(request: pytest.FixtureRequest) -> None:
    """How the calls of a test are driven."""
    World.first_apart = request.param == "first attempt apart"


class World:
    """Three nodes that do what a script says, and a clock.

    Each node has a list of what it does with one call after the other; the last goes on for ever. The words: ``ok``; ``dead``
    (refuses connections), ``frozen`` (takes the call and says nothing), ``broken`` (takes the call and breaks the connection),
    ``->b`` (does not lead, names b), ``->`` (does not lead, knows nobody), and codes of errors.
    """

    first_apart = True
    """Whether the first attempt is driven as the package's drivers do it, or with all others."""

    def __init__(self, a: str = "ok", b: str = "->a", c: str = "->a", *, leader: str | None = "a") -> None:
        self.script = {"a": a.split(), "b": b.split(), "c": c.split()}
        self.leader = leader
        self.now_s = START_S
        self.asked: list[str] = []
        self.asks: list[Ask] = []
        self.pauses_s: list[float] = []
        self.sessions = Sessions()
        self.cluster = Cluster(tuple(AT.values()), jitter=lambda: 0.5)
        self.index = 100
        self.done = 0

    def facts(self) -> dict[str, Any]:
        nodes = [{"name": name, "address": str(AT[name]), "role": "voter"} for name in NAMES]
        return {"cluster": "c1", "leader": self.leader, "nodes": nodes}

    def know(self) -> World:
        """As if the client had met the cluster just before."""
        self.cluster.met(AT["b"], HELLO["b"], self.now_s)
        self.cluster.learned(self.facts(), self.now_s)
        self.sessions.met(HELLO["b"].log_ms)
        return self

    def run(self, *call: Any, timeout_ms: int = 5000, leader_timeout_ms: int | None = None, **how: bool) -> Any:
        """Do a call; its result, or its error is raised."""
        self.asked, self.asks, self.pauses_s, begin_s = [], [], [], self.now_s
        request = Request(self.sessions, call[0], call[1:])
        route = Route(self.cluster, request, self.now_s, timeout_ms, leader_timeout_ms, jitter=lambda: 0.5, **how)

        def attempt(ask: Ask) -> Any:
            assert self.now_s < ask.until_s <= route.deadline_at_s + 0.01
            return self.ask(ask)

        try:
            if self.first_apart and (first := route.first()) is not None:
                if done := route.took(first, attempt(first), self.now_s):
                    return done[0]
            steps = route.steps()
            intent = next(steps)
            while True:
                assert len(self.asks) < 2000, "a storm"
                outcome = None
                if isinstance(intent, Pause):
                    assert 0 < intent.seconds < 1
                    self.pauses_s.append(intent.seconds)
                    self.now_s += intent.seconds
                else:
                    outcome = attempt(intent)
                intent = steps.send((outcome, self.now_s))
        except StopIteration as stop:
            return stop.value
        finally:
            request.end()
            assert self.now_s - begin_s <= timeout_ms / 1000 + 0.1, "never much longer than its time"

    def ask(self, ask: Ask) -> Any:
        self.asks.append(ask)
        name = OF[ask.endpoint]
        self.now_s += 0.001
        script = self.script[name]
        if ask.name == "members":
            word = "ok" if script[0] not in ("dead", "frozen") else script[0]
        else:
            self.asked.append(name)
            word = script.pop(0) if len(script) > 1 else script[0]
        if word == "dead":
            return Failure(no_connection(ask.endpoint, "refused"), sent=False)
        if word == "frozen":
            self.now_s = ask.until_s
            return Failure(time_is_over(ask.endpoint, 1), sent=True, reached=True)
        try:
            self.cluster.met(ask.endpoint, HELLO[name], self.now_s)
            self.sessions.met(HELLO[name].log_ms)
        except KeyspaceError as error:
            return Failure(error, sent=False)
        if word == "broken":
            return Failure(connection_broke(ask.endpoint, "reset"), sent=True, reached=True)
        if word == "stranger":
            return Failure(AuthenticationFailed("another secret"), sent=False)
        if word.startswith("->"):
            return 1, "not-leader", ("not me", str(AT[word[2:]]) if word[2:] else None)
        if word != "ok":
            return 1, word, "so it says"
        return self.answer(ask)

    def answer(self, ask: Ask) -> Any:
        if ask.name == "members":
            return 1, "ok", self.facts()
        if ask.name == "at":
            return 1, "ok", (b"record", self.index, 0, OF[ask.endpoint])
        assert ask.name == "once", "every write has a session"
        self.done += 1
        self.index += 1
        return 1, "ok", True, self.index


def outcome_of(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except KeyspaceError as error:
        return type(error)


# --- Whom a call asks

SAFE_TABLE: list[tuple[str, dict[str, str], str, int]] = [
    # what happens, what the nodes do, who is asked, how many pauses
    ("the leader is known", {}, "a", 0),
    ("a hint is followed at once", {"a": "->b", "b": "ok"}, "ab", 0),
    ("hints in a chain", {"a": "->b", "b": "->c", "c": "ok"}, "abc", 0),
    ("two that name each other", {"a": "->b", "b": "->a", "c": "ok"}, "abc", 0),
    ("one that names itself", {"a": "->a", "b": "ok"}, "ab", 0),
    ("a dead leader that all others name", {"a": "dead", "b": "->a ok"}, "abcb", 1),
    ("a leader that died", {"a": "dead", "b": "->c", "c": "ok"}, "abc", 0),
    ("nobody leads for a while", {"a": "-> ok", "b": "->", "c": "->"}, "abca", 1),
    ("nobody leads for longer", {"a": "-> -> -> ok", "b": "->", "c": "->"}, "abcabcabca", 3),
    ("the leader lost its leadership", {"a": "leadership-lost", "b": "->c", "c": "ok"}, "abc", 0),
    ("a connection that was idle for too long", {"a": "broken ok"}, "aa", 0),
    ("all are gone but for a moment", {"a": "dead dead ok", "b": "dead", "c": "dead"}, "abcabca", 2),
    ("it is overloaded", {"a": "overloaded ok"}, "abca", 1),
]


@pytest.mark.parametrize("call", [GET, SET], ids=["read", "write"])
@pytest.mark.parametrize(
    ("script", "asked", "pauses"), [row[1:] for row in SAFE_TABLE], ids=[row[0] for row in SAFE_TABLE]
)
def test_whom_a_call_asks(call: tuple[Any, ...], script: dict[str, str], asked: str, pauses: int) -> None:
    world = World(**script).know()
    assert world.run(*call) == (b"record" if call is GET else True)
    assert "".join(world.asked) == asked
    assert len(world.pauses_s) == pauses
    assert world.pauses_s == sorted(world.pauses_s)
    assert world.done == (call is SET)


def test_a_leader_that_was_found_is_asked_first_from_then_on() -> None:
    world = World(a="->c", b="->c", c="ok", leader=None)
    world.run(*SET)
    for _ in range(3):
        world.run(*SET)
        assert world.asked == ["c"]
        assert [ask.name for ask in world.asks] == ["once"]


def test_a_frozen_leader_is_left_after_one_attempt() -> None:
    world = World(a="frozen", b="->c", c="ok").know()
    assert world.run(*SET) is True
    assert world.asked == ["a", "b", "c"]
    assert world.now_s - START_S == pytest.approx(1.25, abs=0.1)
    first, second = [ask for ask in world.asks if ask.name == "once"][0::2]
    assert first.arguments[:2] == second.arguments[:2], "sent again under its own session and sequence"
    assert (first.arguments[3], second.arguments[3]) == (False, True)
    world.run(*SET)
    assert world.asked == ["c"]


def test_a_slow_leader_gets_more_time_with_each_attempt() -> None:
    world = World(a="frozen frozen ok")
    assert world.run(*SET, timeout_ms=20_000) is True
    times_s = [ask.until_s for ask in world.asks if OF[ask.endpoint] == "a" and ask.name == "once"]
    assert len(times_s) == 3
    assert times_s[1] - times_s[0] > 3.9


# --- How a call ends


def test_no_leader_says_what_each_node_said() -> None:
    world = World(a="dead", b="->", c="no-leader")
    with pytest.raises(NoLeader, match=r"cluster c1 was found within 300 ms. Nothing was changed") as caught:
        world.run(*SET, leader_timeout_ms=300)
    for part in ("a at 10.0.0.1:7080: No node answers", "b at 10.0.0.2:7080: not me", "c at 10.0.0.3:7080: so it says"):
        assert part in str(caught.value)
    assert caught.value.reached and not caught.value.took_all
    assert world.now_s - START_S == pytest.approx(0.3, abs=0.05)


def test_without_a_leader_timeout_a_call_looks_for_all_of_its_time_and_not_all_the_time() -> None:
    world = World(a="->", b="->", c="->", leader=None)
    with pytest.raises(NoLeader, match="5,000 ms") as caught:
        world.run(*GET)
    assert caught.value.took_all
    assert world.now_s - START_S == pytest.approx(5, abs=0.05)
    assert 20 < len(world.pauses_s) < 60 and len(world.asked) <= 3 * (len(world.pauses_s) + 1)
    assert max(world.pauses_s) == pytest.approx(0.2)


def test_hints_are_followed_a_few_times_only() -> None:
    world = World(a="->b", b="->c", c="->a")
    with pytest.raises(NoLeader):
        world.run(*GET)
    in_order = 1 + HINTS_MAX
    assert "".join(world.asked[:3]) == "abc" and len(world.asked) > in_order


def test_nobody_is_there() -> None:
    world = World(a="dead", b="dead", c="dead")
    with pytest.raises(NoConnection) as caught:
        world.run(*SET)
    assert not caught.value.reached
    assert world.now_s - START_S < 1
    asked = len(world.asks)
    assert asked <= 12
    for _ in range(5):
        with pytest.raises(NoConnection):
            world.run(*GET)
    with pytest.raises(NoConnection, match="none has lately"):
        world.run(*GET)
    assert world.asks == [], "after some calls like that they fail at once"
    world.now_s += 2 * ASIDE_S_MOST
    world.script = {"a": ["ok"], "b": ["->a"], "c": ["->a"]}
    assert world.run(*GET) == b"record"


def test_nobody_is_there_for_a_patient_client() -> None:
    world = World(a="dead", b="dead", c="dead")
    with pytest.raises(NoLeader, match="within 700 ms") as caught:
        world.run(*SET, leader_timeout_ms=700)
    assert not caught.value.reached
    assert world.now_s - START_S == pytest.approx(0.7, abs=0.05)


@pytest.mark.parametrize("script", ["frozen", "broken", "leadership-lost"])
def test_a_write_that_may_be_done_is_sent_again_until_its_time_is_over(script: str) -> None:
    world = World(a=script, b="->a", c="->a")
    with pytest.raises(UnknownOutcome, match="may have happened or not") as caught:
        world.run(*SET)
    assert caught.value.__cause__ is not None
    assert world.now_s - START_S >= 4.9
    places = {ask.arguments[:2] for ask in world.asks if ask.name == "once"}
    assert len(places) == 1, "always the same session and sequence"
    with pytest.raises(NoLeader if script == "leadership-lost" else (NoLeader, DeadlineExceeded)):
        world.run(*GET)


def test_a_write_that_was_lost_with_the_leader_is_done_by_the_next_one() -> None:
    for script in ("broken dead", "leadership-lost", "frozen dead"):
        world = World(a=f"{script} dead", b="-> ok", c="->b")
        assert world.run(*SET) is True
        assert world.done == 1
        last = world.asks[-1]
        assert last.arguments[3] is True, "it says that it comes again"


def test_a_session_that_has_ended_begins_anew_unless_the_write_may_be_done() -> None:
    world = World(a="session-expired ok")
    assert world.run(*SET) is True
    assert world.asked == ["a", "a"]
    assert [(ask.name, ask.is_new) for ask in world.asks[-2:]] == [("members", True), ("once", False)], (
        "a new hello first"
    )
    first, second = (ask.arguments[0] for ask in world.asks if ask.name == "once")
    assert first != second
    world = World(a="broken session-expired")
    with pytest.raises(UnknownOutcome) as caught:
        world.run(*SET)
    assert isinstance(caught.value.__cause__, SessionExpired)


def test_overload_ends_a_call_after_a_few_attempts() -> None:
    world = World(a="overloaded")
    with pytest.raises(Overloaded):
        world.run(*SET)
    assert world.asked.count("a") == 4


def test_what_the_leader_says_no_to_is_the_answer() -> None:
    world = World(a="missing-key")
    with pytest.raises(MissingKey):
        world.run("incr", 0, b"k", 1, None, None, 0)
    assert world.asked == ["a"]


def test_a_node_that_is_not_ours_does_not_stop_a_call_that_others_can_do() -> None:
    world = World(a="stranger", b="ok")
    assert world.run(*GET) == b"record"
    world = World(a="stranger", b="dead", c="dead")
    with pytest.raises(AuthenticationFailed):
        world.run(*GET)


# --- Reads of other levels


def test_dirty_reads_go_to_all_nodes_in_turn() -> None:
    world = World(b="ok", c="ok")
    asked = []
    for _ in range(30):
        assert world.run(*DIRTY)[0] == b"record"
        asked += world.asked
    assert {name: asked.count(name) for name in NAMES} == {"a": 10, "b": 10, "c": 10}


def test_dirty_reads_that_prefer_the_leader_take_another_node_without_one() -> None:
    world = World(b="ok", c="ok").know()
    assert [world.run(*DIRTY, prefers_leader=True)[3] for _ in range(5)] == ["a"] * 5
    world.script["a"] = ["dead"]
    assert {world.run(*DIRTY, prefers_leader=True)[3] for _ in range(6)} == {"b", "c"}


def test_dirty_reads_do_without_a_leader_and_without_a_node() -> None:
    world = World(a="dead", b="ok", c="ok", leader=None)
    for _ in range(10):
        assert world.run(*DIRTY)[3] in ("b", "c")
    assert world.asked.count("a") == 0


def test_a_frozen_node_costs_one_dirty_read_its_time_and_the_others_nothing() -> None:
    world = World(a="frozen", b="ok", c="ok").know()
    slow = 0
    for _ in range(20):
        begin_s = world.now_s
        world.run(*DIRTY)
        slow += world.now_s - begin_s > 0.1
    assert slow == 1


def test_dirty_reads_prefer_a_near_node() -> None:
    near = Endpoint("127.0.0.1", 7080)
    cluster = Cluster((AT["a"], near, AT["c"]))
    assert {cluster.next_reader((), START_S) for _ in range(10)} == {near}
    cluster.failed(near, NoConnection("gone"), START_S)
    assert {cluster.next_reader({near}, START_S) for _ in range(10)} == {AT["a"], AT["c"]}
    unix = Endpoint(path="/run/n1/node.sock")
    assert {Cluster((AT["a"], unix)).next_reader((), START_S) for _ in range(4)} == {unix}
    all_near = (near, Endpoint("127.0.0.1", 7081))
    cluster = Cluster(all_near)
    assert {cluster.next_reader((), START_S) for _ in range(10)} == set(all_near)


def test_what_no_node_is_fresh_enough_for_the_leader_answers() -> None:
    world = World(a="too-stale ok", b="too-stale", c="too-stale")
    assert world.run("at", "dirty", 0, 100, GET)[0] == b"record"
    world = World(a="->", b="too-stale", c="too-stale")
    with pytest.raises(TooStale):
        world.run("at", "dirty", 0, 100, GET, leader_timeout_ms=300)


def test_a_session_reads_what_it_wrote_and_read(own_session: levels.Seen) -> None:
    world = World(b="ok", c="ok")
    world.run(*SESSION)
    assert world.asks[-1].arguments[1] == 0
    world.script["a"] = ["ok"]
    world.script["b"] = world.script["c"] = ["->a"]
    world.run(*SET)
    assert own_session.as_dict() == {"c1": 101}
    world.script = {name: ["ok"] for name in NAMES}
    world.run(*SESSION)
    assert world.asks[-1].arguments[1] == 101
    world.index = 250
    world.run(*DIRTY)
    world.run(*SESSION)
    assert world.asks[-1].arguments[1] == 250, "what was read counts, too"


def test_a_session_asks_the_leader_where_a_node_has_not_come_so_far() -> None:
    for word in ("too-stale", "->a", "no-leader"):
        world = World(b=word, c=word)
        for _ in range(4):
            assert world.run(*SESSION)[3] == "a"
            assert len(world.asked) <= 2


def test_a_session_that_has_seen_what_is_gone_ends_with_an_error() -> None:
    world = World(a="too-stale", b="too-stale", c="too-stale")
    with pytest.raises(TooStale):
        world.run("at", "session", 10**9, None, GET)
    assert world.now_s - START_S < 1


def test_a_new_process_with_a_token_asks_for_it_at_once() -> None:
    with levels.session({"c1": 77, "another": 99}):
        world = World(b="ok", c="ok")
        world.run(*SESSION)
    assert [ask.arguments[1] for ask in world.asks if ask.name == "at"] == [77]


# --- Members


def test_members_are_learned_first_and_again_from_time_to_time() -> None:
    world = World()
    world.run(*GET)
    assert [ask.name for ask in world.asks] == ["members", "at"]
    world.run(*GET)
    assert [ask.name for ask in world.asks] == ["at"]
    world.now_s += 1.5 * LEARN_INTERVAL_S
    world.run(*GET)
    assert [ask.name for ask in world.asks] == ["members", "at"]


def test_one_address_is_enough() -> None:
    world = World(a="->c", b="->c", c="ok", leader="c")
    world.cluster = Cluster([AT["b"]], jitter=lambda: 0.5)
    assert world.run(*SET) is True
    assert world.asked == ["c"]
    assert set(world.cluster.endpoints) == set(AT.values())


def test_a_hint_to_a_node_that_nobody_told_of_is_followed_and_the_members_are_asked_for() -> None:
    world = World(a="->c", c="ok", leader=None)
    world.cluster = Cluster([AT["a"], AT["b"]], jitter=lambda: 0.5)
    world.cluster.met(AT["a"], HELLO["a"])
    world.cluster.learn_at_s = world.now_s + 60
    assert world.run(*SET) is True
    assert world.asked == ["a", "c"]
    world.run(*GET)
    assert [ask.name for ask in world.asks] == ["members", "at"]


@pytest.mark.parametrize("address", ["", "nowhere", "host:port", "[", "a:1,b:2", "user@host:1", "x" * 1000])
def test_a_hint_that_is_no_address_is_none(address: str) -> None:
    assert Cluster(tuple(AT.values())).hinted(address) in (None, Endpoint("nowhere", 7080), Endpoint("x" * 1000, 7080))


@pytest.mark.parametrize(
    "facts",
    [{}, {"nodes": 5, "leader": None}, {"nodes": [{}], "leader": None}, {"nodes": []},
     {"nodes": [{"name": 5, "address": "a:1", "role": "voter"}], "leader": None}],
)  # fmt: skip
def test_members_that_are_none(facts: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError, match="members"):
        Cluster(tuple(AT.values())).learned(facts, START_S)


def test_a_node_is_known_by_its_name_under_any_address() -> None:
    inside = {"a": "192.168.7.1:7080", "b": "192.168.7.2:7080", "c": "192.168.7.3:7080"}
    nodes = [{"name": name, "address": inside[name], "role": "voter"} for name in NAMES]
    cluster = Cluster(tuple(AT.values()))
    for name in NAMES:
        cluster.met(AT[name], HELLO[name])
    cluster.learned({"cluster": "c1", "leader": "b", "nodes": nodes}, START_S)
    assert set(cluster.endpoints) == set(AT.values()), "the addresses of LOCATION are those that this client reaches"
    assert cluster.leader == AT["b"] and cluster.hinted(inside["c"]) == AT["c"]


def test_learners_are_asked_last_for_the_leader() -> None:
    cluster = Cluster(tuple(AT.values()))
    nodes = [{"name": n, "address": str(AT[n]), "role": "learner" if n == "a" else "voter"} for n in NAMES]
    cluster.learned({"cluster": "c1", "leader": None, "nodes": nodes}, START_S)
    assert cluster.endpoints == (AT["b"], AT["c"], AT["a"])


def test_a_single_node_and_another_cluster_are_not_taken() -> None:
    cluster = Cluster(tuple(AT.values()))
    with pytest.raises(ConfigurationError, match="list one address only"):
        cluster.met(AT["a"], NodeHello(1, "a", None, 16, 1000, 2000))
    cluster.met(AT["a"], HELLO["a"], START_S)
    cluster.answered(AT["a"], START_S)
    other = NodeHello(1, "z", "c2", 16, 1000, 2000)
    with pytest.raises(ProtocolError, match="belongs to cluster c2"):
        cluster.met(AT["b"], other, START_S + 1)
    cluster.met(AT["b"], other, START_S + FORGET_S + 1)
    assert cluster.id == "c2", "the first one has not answered for long: it is gone"


# --- Whatever the nodes do

WORDS = st.sampled_from(
    ["ok", "dead", "frozen", "broken", "->", "->a", "->b", "->c", "overloaded", "leadership-lost", "no-leader", "too-stale"]
)  # fmt: skip
SCRIPTS = st.lists(WORDS, min_size=1, max_size=4).map(" ".join)
CALLS = st.sampled_from([GET, SET, DIRTY, SESSION, ("at", "lease", 0, 50, GET), ("delete", 0, b"k")])


@settings(max_examples=150, deadline=None)
@given(SCRIPTS, SCRIPTS, SCRIPTS, st.lists(CALLS, min_size=1, max_size=4), st.sampled_from([None, 100, 2000]))
def test_every_call_ends_in_time_with_an_answer_or_an_error_that_fits(
    a: str, b: str, c: str, calls: list[Any], leader_timeout_ms: int | None
) -> None:
    world = World(a, b, c, leader=None)
    for call in calls:
        done = world.done
        outcome = outcome_of(partial(world.run, *call, timeout_ms=3000, leader_timeout_ms=leader_timeout_ms))
        sent = [ask for ask in world.asks if ask.name == "once"]
        assert len({ask.arguments[:2] for ask in sent}) <= 1
        if call[0] in CHANGES:
            assert outcome is True or world.done == done
        assert outcome is not NotLeader
        if outcome is UnknownOutcome:
            assert call[0] in CHANGES

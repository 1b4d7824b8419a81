"""Links between nodes, over real sockets in one process: who is taken, what gets through, and what happens when it does not."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from django_keyspace.exceptions import KeyspaceError, PeerRefused
from django_keyspace.node import links, peers
from django_keyspace.node.auth import ServerTls
from django_keyspace.node.bootstrap import Seeker, ask
from django_keyspace.node.clustered import Doorway
from django_keyspace.node.greeting import ASK, LINK, PEER_VERSION, PeerHello
from django_keyspace.node.identity import Identity, member_info
from django_keyspace.node.incoming import RAFT
from django_keyspace.node.peers import Credentials, Peers, kind_of
from django_keyspace.node.raft import AppendRequest, BadMessage, Entry, Heartbeat, Membership, make_membership, to_wire
from django_keyspace.wire import Encoder

from ..certificates import Certificates

CLUSTER = "c0ffee"
FRAME_BYTES_MAX = 8 * 1024 * 1024
IDS = {"a": "a.00000001", "b": "b.00000002", "c": "c.00000003"}


class FakeRuntime:
    """Remembers what came."""

    def __init__(self) -> None:
        self.received: list[tuple[str, Any]] = []
        self.lost: list[str] = []
        self.gone: list[str] = []
        self.refuses = False

    def receive(self, sender: str, frames: Any) -> None:
        if self.refuses:
            raise BadMessage("nonsense")
        self.received += [(sender, frame) for frame in frames]

    def peer_lost(self, node: str, *, is_gone: bool = False) -> None:
        (self.gone if is_gone else self.lost).append(node)


class Node:
    """A listener and the links of one node."""

    def __init__(self, name: str, cluster: str | None = CLUSTER, **options: Any) -> None:
        self.runtime = FakeRuntime()
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.tls: ServerTls | None = options.pop("tls", None)
        node = options.pop("node", IDS.get(name, f"{name}.00000009"))
        credentials = Credentials(options.pop("secret", None), self.tls.dialling if self.tls else None)
        answer = options.pop("answer", None)
        hello = replace(PeerHello(node, cluster, LINK, self.address, 1, (16, 1000)), **options)
        self.node, self.hello, self.credentials = node, hello, credentials
        self.peers = Peers(hello, credentials, FRAME_BYTES_MAX, Random(1), answer)

    async def listen(self) -> None:
        self.server = await asyncio.get_running_loop().create_server(
            lambda: Doorway(self.peers, self.node), sock=self.socket, ssl=self.tls.context if self.tls else None
        )

    async def begin(self, membership: Membership) -> None:
        await self.listen()
        self.peers.start(self.runtime, membership)

    async def end(self) -> None:
        self.server.close()
        await self.peers.stop()


def members_of(*nodes: Node, **more: Any) -> Membership:
    info = {node.node: member_info(node.node.partition(".")[0], node.address) for node in nodes}
    return make_membership(info, info=info, **more)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "REDIAL_REFUSED_S", 0.05)
    monkeypatch.setattr(peers, "REDIAL_MAX_S", 0.1)


@pytest.fixture
async def started() -> AsyncIterator[Callable[..., Any]]:
    """Starts nodes that are members of one cluster."""
    running: list[Node] = []

    async def start(*nodes: Node, membership: Membership | None = None) -> None:
        running.extend(nodes)
        for node in nodes:
            await node.begin(membership if membership is not None else members_of(*nodes))

    yield start
    for node in running:
        await node.end()


async def until(look: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not look():
            await asyncio.sleep(0.005)


async def until_linked(first: Node, second: Node) -> None:
    await until(lambda: second.node in first.peers._dialled and first.node in second.peers._dialled)


# --- What gets through


async def test_frames_arrive_in_order_and_say_who_sent_them(started: Any) -> None:
    a, b, c = Node("a"), Node("b"), Node("c")
    await started(a, b, c)
    await until_linked(a, b)
    await until_linked(a, c)
    frames = [("ack", number, b"x" * number, None, True, ("inner", -1)) for number in range(200)]
    for frame in frames:
        a.peers.send(b.node, frame)
    c.peers.send(a.node, ("ack", 7))
    a.peers.send("nobody.1", ("ack", 1))
    await until(lambda: len(b.runtime.received) == 200 and a.runtime.received)
    assert b.runtime.received == [(a.node, frame) for frame in frames]
    assert a.runtime.received == [(c.node, ("ack", 7))]
    assert a.peers.connected() == [b.node, c.node]
    assert a.peers.entry_versions == {b.node: 1, c.node: 1}


def append(size_bytes: int, number: int = 1) -> tuple[Any, ...]:
    entry = Entry(number, 1, 1, bytes(size_bytes))
    return (RAFT, *to_wire(AppendRequest("b", "a", 1, number - 1, 1 if number > 1 else 0, (entry,), 0)))


HEARTBEAT = (RAFT, *to_wire(Heartbeat("b", "a", 1, 0, 1, 0, 0)))


async def test_a_heartbeat_overtakes_large_appends_and_snapshots(started: Any) -> None:
    a, b = Node("a"), Node("b")
    await started(a, b)
    await until_linked(a, b)
    chunk = ("chunk", 1, 0, bytes(1_000_000), 0)
    appends = [append(3_000_000, number) for number in range(1, 6)]
    a.peers.send(b.node, chunk)
    for frame in appends:
        a.peers.send(b.node, frame)
    a.peers.send(b.node, HEARTBEAT)
    await until(lambda: len(b.runtime.received) == 7)
    got = [frame for _, frame in b.runtime.received]
    assert got.index(HEARTBEAT) < 3
    assert [frame for frame in got if frame[0] == RAFT and frame != HEARTBEAT] == appends
    assert chunk in got


def test_frames_are_told_apart_by_kind() -> None:
    assert kind_of(HEARTBEAT) == links.URGENT
    assert kind_of(append(1)) == links.APPENDS
    assert kind_of(("chunk", 1, 0, b"", 0)) == links.SNAPSHOTS
    assert kind_of(("ack", 1)) == links.URGENT


async def test_what_waits_is_bounded_and_heartbeats_still_find_room(
    started: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = Node("a"), Node("b")
    await started(a, b)
    await until_linked(a, b)
    monkeypatch.setattr(links, "SHARES", (10_000, 500_000, 300_000))
    link = a.peers._dialled[b.node]
    link.pause_writing()
    sent = [link.send(append(100_000, number), links.APPENDS) for number in range(1, 11)]
    assert sent == [True] * 4 + [False] * 6
    assert [link.send(("chunk", 1, 0, bytes(200_000), 0), links.SNAPSHOTS) for _ in range(3)] == [True, False, False]
    assert link.send(HEARTBEAT)
    assert link.dropped == 8
    link.resume_writing()
    await until(lambda: len(b.runtime.received) == 6)
    assert b.runtime.received[0] == (a.node, HEARTBEAT)
    assert link.send(append(100_000))


# --- Coming and going


async def test_a_link_that_broke_is_there_again(started: Any) -> None:
    a, b = Node("a"), Node("b")
    await started(a, b)
    await until_linked(a, b)
    first = a.peers._dialled[b.node]
    first.abort()
    await until(lambda: a.peers._dialled.get(b.node) not in (None, first))
    a.peers.send(b.node, ("ack", 1))
    await until(lambda: b.runtime.received)
    # As long as the other link is there, frames get through: only when both are gone is the node lost.
    assert not a.runtime.lost
    await b.end()
    await until(lambda: a.runtime.lost == [b.node])
    # Nobody listens there any more.
    await until(lambda: b.node in a.runtime.gone)


async def test_the_age_of_a_process_is_that_of_its_newest_link(started: Any) -> None:
    a, b = Node("a"), Node("b")
    assert a.peers.connected_ms(b.node) == 0
    await started(a, b)
    await until_linked(a, b)
    a.peers._met_s[b.node] -= 3600
    assert 3600_000 <= a.peers.connected_ms(b.node) < 7200_000
    dialled = a.peers._dialled[b.node]
    dialled.abort()
    await until(lambda: a.peers._dialled.get(b.node) not in (None, dialled))
    assert a.peers.connected_ms(b.node) < 3600_000


async def test_a_silent_link_is_closed(started: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "ALIVE_S", 0.05)
    a, b = Node("a"), Node("b")
    await started(a, b)
    await until_linked(a, b)
    silent = b.peers._accepted[a.node]
    # Half open: the other side neither says nor hears anything any more.
    monkeypatch.setattr(peers, "IDLE_S", 0.3)
    b.peers._watch.cancel()
    await until(lambda: silent.refusal is not None or b.node in a.runtime.lost)


async def test_links_without_traffic_stay(started: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "ALIVE_S", 0.02)
    a, b = Node("a"), Node("b")
    await started(a, b)
    await until_linked(a, b)
    before = a.peers._dialled[b.node]
    heard = before.heard_s
    await until(lambda: before.heard_s > heard)
    assert a.peers._dialled[b.node] is before


async def test_a_node_without_addresses_answers_on_the_link_that_was_opened_to_it(started: Any) -> None:
    a, learner = Node("a"), Node("n9")
    membership = members_of(a)
    membership = make_membership(
        membership.voters,
        [learner.node],
        info={**dict(membership.info), learner.node: member_info("n9", learner.address)},
    )
    await started(learner, membership=Membership())
    await started(a, membership=membership)
    await until(lambda: a.node in learner.peers._accepted)
    learner.peers.send(a.node, ("ack", 1))
    await until(lambda: a.runtime.received == [(learner.node, ("ack", 1))])


async def test_new_members_are_dialled_and_former_ones_are_not(started: Any) -> None:
    a, b = Node("a"), Node("b")
    await started(a, membership=members_of(a))
    await started(b, membership=members_of(a, b))
    assert not a.peers._tasks
    a.peers.set_membership(members_of(a, b))
    await until_linked(a, b)
    a.peers.set_membership(members_of(a, retired=[b.node]))
    await until(lambda: b.peers.removed is not None)
    assert "its id is never used again" in str(b.peers.removed)
    assert f"--join {a.address}" in str(b.peers.removed)
    assert not a.peers.connected()


# --- Who is not taken


@pytest.mark.parametrize(
    ("stranger", "words"),
    [
        ({"cluster": "another"}, "they have nothing to do with each other"),
        ({"cluster": None}, "is of cluster"),
        ({"node": "b.ffffffff", "is_member": False}, "as if it had forgotten nothing"),
        ({"node": "a.00000001"}, "called by itself"),
        ({"secret": b"another secret, also long enough"}, "is another one than this node's"),
        ({"secret": None}, "with its secret only, and this one has none"),
        ({"store": (32, 1000)}, "have to be equal on all nodes"),
        ({"lease": (100_000, 400)}, "leases with a drift of 0.1 and an election timeout of 400 ms"),
        ({"purpose": "party"}, "does not know the purpose"),
    ],
)
async def test_strangers_are_told_why_not(
    started: Any, stranger: dict[str, Any], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    secret = b"the secret that both of them know"
    stranger = {"secret": secret} | stranger
    a, other = Node("a", secret=secret), Node("b", **stranger)
    members = make_membership([a.node, IDS["b"]], info={a.node: member_info("a", a.address)})
    await started(a, membership=members)
    await other.listen()
    # As it would be if it were a member: it dials.
    other.peers.start(other.runtime, make_membership(["x.1"], info={"x.1": member_info("a", a.address)}))
    await until(lambda: words in caplog.text)
    assert not other.peers.connected()
    assert not a.peers.connected()
    await other.end()


async def test_who_answers_must_be_the_member_that_was_called(started: Any, caplog: pytest.LogCaptureFixture) -> None:
    a, foreign, wiped = Node("a"), Node("b", cluster="another"), Node("c", node="c.ffffffff")
    info = {"b.00000002": member_info("b", foreign.address), "c.00000003": member_info("c", wiped.address)}
    await started(foreign, wiped, membership=Membership())
    await started(a, membership=make_membership([a.node, *info], info=info))
    await until(lambda: "No link to node b" in caplog.text and "No link to node c" in caplog.text)
    assert "nothing to do with each other" in caplog.text
    assert "Who answers there is c.ffffffff, not c.00000003" in caplog.text
    assert not a.peers.connected()


async def test_a_node_that_the_cluster_knows_better_is_taken(started: Any) -> None:
    """This node was down while another one lost its data and joined again: the newer incarnation may be the leader."""
    a, again = Node("a"), Node("b", node="b.ffffffff")
    await started(a, membership=make_membership([a.node, IDS["b"]], info={a.node: member_info("a", a.address)}))
    await started(again, membership=members_of(a, again))
    await until(lambda: again.node in a.peers._accepted)


async def test_nonsense_closes_the_link(started: Any, caplog: pytest.LogCaptureFixture) -> None:
    a, b = Node("a"), Node("b")
    await started(a, b)
    await until_linked(a, b)
    b.runtime.refuses = True
    broken = a.peers._dialled[b.node]
    a.peers.send(b.node, ("ack", 1))
    await until(lambda: not broken.is_up)
    assert "sent what no sound node sends" in caplog.text
    b.runtime.refuses = False
    await until_linked(a, b)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 100,
        Encoder(10_000).encode(("keyspace", 0, {"role": "peer"})),
        Encoder(10_000).encode(("keyspace", PEER_VERSION, {"role": "peer", "node": "x"})),
        Encoder(10_000).encode(("keyspace", PEER_VERSION, {"role": "peer", "node": 5})),
    ],
)
async def test_garbage_is_no_greeting(started: Any, garbage: bytes) -> None:
    a, b = Node("a"), Node("b")
    await started(a, b)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(a.address.rpartition(":")[2]))
    writer.write(garbage)
    async with asyncio.timeout(30):
        await reader.read()
    writer.close()
    await until_linked(a, b)


async def test_a_newer_version_of_links_agrees_on_the_older(started: Any) -> None:
    a, newer = Node("a"), Node("b", version=PEER_VERSION + 5)
    await started(a, newer)
    await until(lambda: newer.node in a.peers._accepted)


async def test_a_frame_above_the_limit_closes_the_link(started: Any, caplog: pytest.LogCaptureFixture) -> None:
    a, b = Node("a"), Node("b")
    await started(a, b)
    await until_linked(a, b)
    b.peers._accepted[a.node]._frame_bytes_max = 1_000_000
    broken = a.peers._dialled[b.node]
    a.peers.send(b.node, append(2_000_000))
    await until(lambda: not broken.is_up)
    assert "longer than the limit" in caplog.text
    assert not b.runtime.received


# --- Questions of nodes without a cluster


async def test_questions_are_answered_and_refused(started: Any) -> None:
    def answer(peer: PeerHello, frame: tuple[Any, ...], take: Any) -> None:
        take({"node": peer.node, "frame": frame} if frame[0] == "good" else PeerRefused("No."))

    a = Node("a", answer=answer)
    await started(a)
    other = Node("z", cluster=None, purpose=ASK)
    seeker = Seeker(Identity("z", "00000009"), other.hello, other.credentials, lambda members: "")
    assert await ask(seeker, a.address, ("good", 1)) == {"node": "z.00000009", "frame": ("good", 1)}
    with pytest.raises(PeerRefused, match=r"^No\.$"):
        await ask(seeker, a.address, ("bad",))
    with pytest.raises(KeyspaceError):
        await ask(seeker, other.address, ("good",), timeout_s=0.2)
    other.socket.close()


# --- TLS


def tls_of(certificates: Certificates, name: str, *, ca: str | None = None, authority: Any = None) -> ServerTls:
    cert, key = certificates.issue(name, "127.0.0.1", authority)
    found = ServerTls(cert, key, None)
    found.meet_peers(ca or certificates.ca)
    return found


async def test_nodes_show_each_other_their_certificates(
    started: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificates = Certificates(tmp_path)
    a, b = Node("a", tls=tls_of(certificates, "a")), Node("b", tls=tls_of(certificates, "b"))
    await started(a, b)
    await until_linked(a, b)
    a.peers.send(b.node, append(500_000))
    await until(lambda: b.runtime.received)
    assert caplog.text == ""


async def test_a_certificate_of_strangers_or_none_is_not_enough(
    started: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    certificates = Certificates(tmp_path)
    a = Node("a", tls=tls_of(certificates, "a"))
    stranger = Node("b", tls=tls_of(certificates, "b", authority=certificates.strangers))
    bare = Node("c", tls=tls_of(certificates, "c"))
    await started(a, membership=members_of(a, stranger))
    await started(stranger, membership=members_of(a, stranger))
    await until(lambda: "certificate is not accepted" in caplog.text)
    # It trusts the right authority and shows nothing itself.
    import ssl

    context = ssl.create_default_context(cafile=certificates.ca)
    bare.peers._credentials = Credentials(None, context)
    await started(bare, membership=members_of(a, bare))
    await until(lambda: "shows no certificate" in caplog.text)
    assert not a.peers.connected()

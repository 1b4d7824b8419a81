"""How nodes come to a cluster: who draws its id, what a crash leaves, who is sent away, and how one joins later."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from django_keyspace.exceptions import (
    ChangeRefused,
    ConfigurationError,
    ForeignStore,
    KeyspaceError,
    NoConnection,
    NodeRemoved,
    NotLeader,
    PeerRefused,
)
from django_keyspace.node import bootstrap
from django_keyspace.node.bootstrap import Founding, NotYet, Seeker, State, decide, join
from django_keyspace.node.clustered import is_clustered, rejoin_command
from django_keyspace.node.config import NodeConfig
from django_keyspace.node.folder import DataFolder
from django_keyspace.node.greeting import ASK, LINK, PeerHello
from django_keyspace.node.identity import Identity, addresses_of, member_info, name_of
from django_keyspace.node.peers import Credentials
from django_keyspace.node.raft import ADD, REMOVE, Change, Membership, make_membership
from django_keyspace.node.reception import Reception

from .test_peers import Node, until

NAMES = ("n1", "n2", "n3")
ADDRESSES = {"n1": "10.0.0.1:7080", "n2": "10.0.0.2:7080", "n3": "10.0.0.3:7080"}
IDS = {"n1": "n1.aaaaaaaa", "n2": "n2.bbbbbbbb", "n3": "n3.cccccccc"}
FIRST = make_membership(IDS.values(), info={node: member_info(name, ADDRESSES[name]) for name, node in IDS.items()})


def seeker(name: str = "n1", node: str = "") -> Seeker:
    node = node or IDS[name]
    hello = PeerHello(node, None, ASK, ADDRESSES[name], 1, (16, 1000))
    identity = Identity(name, node.rpartition(".")[2])
    return Seeker(identity, hello, Credentials(), lambda members: f"start it with --join {','.join(members)}")


def empty(name: str, **options: Any) -> State:
    return State(**({"node": IDS[name], "address": ADDRESSES[name], "names": NAMES} | options))


def member(name: str, **options: Any) -> State:
    return empty(name, **({"cluster": "c1", "first": FIRST, "now": FIRST, "names": ()} | options))


AWAY = NoConnection("Connection refused.")


def decided(by: str, node: str = "", **answers: Any) -> Identity:
    return decide(seeker(by, node), NAMES, answers, lambda: "c0ffee")


# --- Founding, as a decision


def test_the_smallest_name_draws_the_id_when_all_are_there_and_empty() -> None:
    identity = decided("n1", n2=empty("n2"), n3=empty("n3"))
    assert (identity.cluster, identity.members, identity.initialised) == ("c0ffee", FIRST, False)
    assert addresses_of(identity.members) == {IDS[name]: ADDRESSES[name] for name in NAMES}


@pytest.mark.parametrize(
    ("by", "answers", "words"),
    [
        ("n1", {"n2": AWAY, "n3": empty("n3")}, "until it has reached n2"),
        ("n1", {"n2": AWAY, "n3": AWAY}, "n2 .*n3"),
        ("n2", {"n1": empty("n1"), "n3": empty("n3")}, "Node n1 makes the cluster"),
        ("n1", {"n2": empty("n2", names=("n1", "n2")), "n3": empty("n3")}, "was started with the members n1, n2,"),
        ("n1", {"n2": empty("n2", node="n5.bbbbbbbb"), "n3": empty("n3")}, "At the address of node n2 answers node n5"),
        # Those who know a cluster, but not how it began: one that joined later, also under the name of a first member.
        ("n3", {"n1": member("n1", first=Membership()), "n2": AWAY}, "knows the first members"),
        ("n3", {"n1": member("n1", first=Membership(), now=Membership()), "n2": AWAY}, "knows the first members"),
    ],
)
def test_until_then_it_waits_and_says_for_what(by: str, answers: dict[str, Any], words: str) -> None:
    with pytest.raises(NotYet, match=words):
        decided(by, **answers)


@pytest.mark.parametrize(
    "answers",
    [
        {"n1": member("n1"), "n2": empty("n2")},
        {"n1": member("n1"), "n2": AWAY},
        {"n1": empty("n1"), "n2": member("n2")},
        {"n1": member("n1", first=Membership()), "n2": member("n2")},
    ],
)
def test_who_is_listed_takes_over_what_the_others_have(answers: dict[str, Any]) -> None:
    identity = decided("n3", **answers)
    assert (identity.cluster, identity.members) == ("c1", FIRST)


def test_a_node_that_draws_would_rather_take_over() -> None:
    """It had drawn before, and its own file was not written: there is no such state. Another one's list counts."""
    assert decided("n1", n2=member("n2"), n3=AWAY).cluster == "c1"


@pytest.mark.parametrize("asked", [{"n1": member("n1"), "n2": AWAY}, {"n1": empty("n1"), "n2": member("n2")}])
def test_a_wiped_node_is_told_how_to_join(asked: dict[str, Any]) -> None:
    with pytest.raises(PeerRefused, match=r"as if it had forgotten nothing.*--join 10\.0\.0") as refusal:
        decided("n3", "n3.ffffffff", **asked)
    assert "Nothing was changed" in str(refusal.value)


def test_a_stranger_is_told_how_to_join() -> None:
    stranger = Seeker(Identity("n4", "dddddddd"), seeker().hello, Credentials(), seeker().rejoin)
    with pytest.raises(PeerRefused, match="there is no node n4 among its members"):
        decide(stranger, ("n1", "n4"), {"n1": member("n1")}, lambda: "x")


def test_peers_of_two_clusters_are_a_mistake() -> None:
    with pytest.raises(ConfigurationError, match="different clusters: c1, c2"):
        decided("n3", n1=member("n1"), n2=member("n2", cluster="c2"))


# --- Founding, over sockets


class Founder:
    """A node that founds, and may crash."""

    def __init__(self, name: str) -> None:
        self.written: list[Identity] = []
        self.store: Callable[[Identity], None] = self.written.append
        self.node = Node(name, None, node=f"{name}.{name * 4}", answer=self._answer, purpose=ASK)
        self.identity = Identity(name, name * 4)

    def _answer(self, peer: PeerHello, frame: tuple[Any, ...], take: Any) -> None:
        if self.written:  # it has its cluster, and tells others
            identity = self.written[-1]
            found = State(self.node.node, self.node.address, identity.cluster, identity.members, identity.members)
            take(found.fields())
        else:
            self.founding.answer(peer, frame, take)

    async def found(self, others: list[Founder]) -> Identity:
        addresses = {other.identity.node: other.node.address for other in others if other is not self}
        found = Seeker(self.identity, self.node.hello, self.node.credentials, lambda members: "rejoin")
        self.founding = Founding(found, addresses, self.store)
        if not hasattr(self.node, "server"):
            await self.node.listen()
        return await self.founding.run()


@pytest.fixture
async def founders(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(bootstrap, "ASK_AGAIN_S", 0.02)
    found = [Founder(name) for name in NAMES]
    yield found
    for founder in found:
        if hasattr(founder.node, "server"):
            founder.node.server.close()
        await founder.node.peers.stop()
        founder.node.socket.close()


async def all_of(*works: Any) -> list[Any]:
    async with asyncio.timeout(30):
        return await asyncio.gather(*works)


async def test_three_nodes_found_one_cluster(founders: list[Founder]) -> None:
    identities = await all_of(*(founder.found(founders) for founder in founders))
    assert len({identity.cluster for identity in identities}) == 1
    assert len({identity.members for identity in identities}) == 1
    assert [list(map(name_of, identity.members.voters)) for identity in identities] == [list(NAMES)] * 3
    assert [founder.written for founder in founders] == [[identity] for identity in identities]


async def test_two_of_three_never_found_one(founders: list[Founder]) -> None:
    first, second, third = founders
    works = [asyncio.ensure_future(founder.found(founders)) for founder in (first, second)]
    asked = 0

    def count(peer: PeerHello, frame: Any, take: Any) -> None:
        nonlocal asked
        asked += 1
        second.founding.answer(peer, frame, take)

    await until(lambda: hasattr(second, "founding"))
    second.node.peers._answer = count
    await until(lambda: asked > 10)
    assert not first.written
    assert not second.written
    # Now the third comes.
    await all_of(*works, third.found(founders))
    assert len({founder.written[0].cluster for founder in founders}) == 1


class Crash(Exception):
    pass


def crash(identity: Identity) -> None:
    raise Crash


async def test_a_crash_before_it_is_written_leaves_no_cluster(founders: list[Founder]) -> None:
    first, *others = founders
    first.store = crash
    works = [asyncio.ensure_future(founder.found(founders)) for founder in others]
    with pytest.raises(Crash):
        await first.found(founders)
    assert not any(founder.written for founder in founders)
    # It starts again with the same folder: another id is drawn, and nobody has seen the first one.
    first.store = first.written.append
    await all_of(*works, first.found(founders))
    assert len({founder.written[0].cluster for founder in founders}) == 1


async def test_a_crash_after_it_is_written_is_told_by_whoever_has_it(founders: list[Founder]) -> None:
    """The second has taken it over, the first is gone, the third asks: one list is enough."""
    first, second, third = founders
    works = [asyncio.ensure_future(founder.found(founders)) for founder in (first, second)]
    third.store = crash
    with pytest.raises(Crash):
        await third.found(founders)
    await all_of(*works)
    first.node.server.close()
    await first.node.peers.stop()
    third.store = third.written.append
    async with asyncio.timeout(30):
        identity = await third.found(founders)
    assert identity.cluster == second.written[0].cluster


async def test_an_even_number_is_warned_about(founders: list[Founder], caplog: pytest.LogCaptureFixture) -> None:
    await all_of(*(founder.found(founders[:2]) for founder in founders[:2]))
    assert "2 voters: it survives the loss of 0, as it would with 1" in caplog.text


# --- Joining


class FakeMembers:
    """A leader's members, or a follower's that knows the leader."""

    def __init__(self, membership: Membership, leader: str | None = None) -> None:
        self.now = membership
        self.leader = leader
        self.refusals: list[KeyspaceError] = []
        self.changes: list[Change] = []

    def membership(self) -> Membership:
        return self.now

    def require_leader(self) -> None:
        if self.leader is not None:
            raise NotLeader("Another node leads.", "n1.x", self.leader)

    def change(self, change: Change, done: Any) -> None:
        if self.refusals:
            done(self.refusals.pop())
            return
        self.changes.append(change)
        self.now = self.now.after(change)
        done(None)


async def receiving(members: FakeMembers, name: str = "a") -> Node:
    """A member of the cluster that takes others in."""
    node = Node(name)
    identity = Identity(name, node.node.rpartition(".")[2], "c0ffee", FIRST, True)
    reception = Reception(identity, node.address, members, node.peers)
    node.peers._answer = reception.answer
    await node.listen()
    return node


def joiner(name: str = "n9", incarnation: str = "99999999") -> tuple[Seeker, list[Identity]]:
    hello = PeerHello(f"{name}.{incarnation}", None, ASK, "10.0.0.9:7080", 1, (16, 1000))
    return Seeker(Identity(name, incarnation), hello, Credentials(), lambda members: "rejoin"), []


async def joined(members: FakeMembers, *nodes: Node, **options: Any) -> Identity:
    found, written = joiner(**options)
    try:
        async with asyncio.timeout(30):
            identity = await join(found, [node.address for node in nodes], written.append)
    finally:
        for node in nodes:
            node.server.close()
            await node.peers.stop()
    assert written == [identity]
    return identity


async def test_a_node_joins_as_a_learner_and_begins_without_members() -> None:
    members = FakeMembers(make_membership(["a.00000001"]))
    identity = await joined(members, await receiving(members))
    assert (identity.cluster, identity.members) == ("c0ffee", Membership())
    assert members.changes == [Change(ADD, "n9.99999999", member_info("n9", "10.0.0.9:7080"))]


async def test_it_follows_the_hint_to_the_leader_and_may_ask_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "JOIN_AGAIN_S", 0.02)
    members = FakeMembers(make_membership(["a.00000001"]))
    leader = await receiving(members)
    follower = await receiving(FakeMembers(members.now, leader=leader.address), "b")
    # One change at a time: the leader refuses at first.
    members.refusals.append(ChangeRefused("Another change is under way."))
    found, written = joiner()
    async with asyncio.timeout(30):
        await join(found, ["127.0.0.1:1", follower.address], written.append)
        # The answer was lost: it is a member, and asks once more.
        await join(found, [leader.address], written.append)
    assert len(members.changes) == 1
    assert written[0] == written[1]
    for node in (leader, follower):
        node.server.close()
        await node.peers.stop()


async def test_a_wiped_member_takes_its_own_place() -> None:
    members = FakeMembers(make_membership(["a.00000001", "n9.00000000"]))
    await joined(members, await receiving(members))
    assert [change[:2] for change in members.changes] == [(REMOVE, "n9.00000000"), (ADD, "n9.99999999")]


async def test_the_place_of_a_running_node_is_not_taken() -> None:
    members = FakeMembers(make_membership(["a.00000001"]))
    node = await receiving(members)
    with pytest.raises(PeerRefused, match="and it is running"):
        await joined(members, node, name="a")
    assert not members.changes


async def test_it_waits_until_the_one_whose_place_it_takes_is_gone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bootstrap, "JOIN_AGAIN_S", 0.01)
    members = FakeMembers(make_membership(["a.00000001", "n9.00000000"]))
    node = await receiving(members)
    monkeypatch.setattr(node.peers, "connected", lambda: [] if "and it is running" in caplog.text else ["n9.00000000"])
    await joined(members, node)
    assert [change.kind for change in members.changes] == [REMOVE, ADD]


async def test_a_removed_id_does_not_come_back() -> None:
    members = FakeMembers(make_membership(["a.00000001"], retired=["n9.99999999"]))
    with pytest.raises(NodeRemoved, match="never used again"):
        await joined(members, await receiving(members))


async def test_a_learner_has_to_have_the_same_store() -> None:
    members = FakeMembers(make_membership(["a.00000001"]))
    node = await receiving(members)
    node.peers._hello = PeerHello(node.node, "c0ffee", LINK, node.address, 1, (32, 1000))
    with pytest.raises(PeerRefused, match="have to be equal on all nodes"):
        await joined(members, node)


# --- What lies in the folder


def test_a_folder_remembers_who_its_node_is(tmp_path: Path) -> None:
    folder = DataFolder(str(tmp_path), "n1")
    assert folder.identity == Identity("n1")
    identity = folder.identity.with_incarnation()
    assert len(identity.incarnation) == 8
    assert identity.with_incarnation() is identity
    for step in (identity, identity.in_cluster("c1", FIRST), identity.in_cluster("c1", FIRST).begun()):
        folder.become(step)
        folder.release()
        folder = DataFolder(str(tmp_path), "n1")
        assert folder.identity == step
    assert folder.identity.bootstrap is None
    folder.release()
    assert identity.in_cluster("c1", FIRST).bootstrap.membership == FIRST  # type: ignore[union-attr]


def test_two_incarnations_are_never_the_same() -> None:
    assert len({Identity("n1").with_incarnation().member_id for _ in range(100)}) == 100


@pytest.mark.parametrize("left", ["journal", "snapshots"])
def test_promises_without_a_name_are_nobodys(tmp_path: Path, left: str) -> None:
    (tmp_path / left).mkdir()
    with pytest.raises(ForeignStore, match=f"has {left}, and no node.json.*--join"):
        DataFolder(str(tmp_path), "n1")
    assert not (tmp_path / "node.json").exists()


@pytest.mark.parametrize(
    "change",
    [{"incarnation": 5}, {"members": []}, {"members": 5}, {"initialised": "yes"}, {"cluster": None}],
)
def test_a_damaged_identity_is_not_used(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = DataFolder(str(tmp_path), "n1")
    folder.become(folder.identity.with_incarnation().in_cluster("c1", FIRST))
    folder.release()
    file = tmp_path / "node.json"
    text = json.dumps(json.loads(file.read_text()) | change)
    file.write_text(text)
    with pytest.raises(ForeignStore, match="damaged"):
        DataFolder(str(tmp_path), "n1")
    assert file.read_text() == text


def test_a_folder_of_a_lone_node_stays_one(tmp_path: Path) -> None:
    folder = DataFolder(str(tmp_path), "n1")
    alone = NodeConfig("n1", "127.0.0.1", 7080, str(tmp_path))
    founding = NodeConfig("n1", "127.0.0.1", 7080, str(tmp_path), peers=(("n2", "127.0.0.1:7081"),))
    assert not is_clustered(alone, folder)
    assert is_clustered(founding, folder)
    (tmp_path / "store").mkdir()
    with pytest.raises(ConfigurationError, match="ran alone"):
        is_clustered(founding, folder)
    assert not is_clustered(alone, folder)
    folder.become(folder.identity.with_incarnation().in_cluster("c1", FIRST))
    assert is_clustered(alone, folder)
    folder.release()


def test_the_command_to_join_again_can_be_copied() -> None:
    config = NodeConfig("n1", "127.0.0.1", 7080, "/a folder", advertise="10.0.0.1:7080")
    assert rejoin_command(config, ["10.0.0.2:7080", "10.0.0.3:7080"]) == (
        "python -m django_keyspace.node --id n1 --listen 127.0.0.1:7080 --data '/a folder' --advertise 10.0.0.1:7080 "
        "--join 10.0.0.2:7080,10.0.0.3:7080"
    )

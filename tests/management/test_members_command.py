"""``keyspace_members``: what it asks of the leader, what it waits for, and what it says when that is refused."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from django_keyspace.exceptions import ChangeRefused, DeadlineExceeded
from django_keyspace.management import nodes
from django_keyspace.management.commands import keyspace_members
from tests.management.fakes import LOCATION, FakeCluster, address_of, alone, member, status


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    monkeypatch.setattr(keyspace_members, "REFUSALS_S", 0.05)
    return FakeCluster().install(monkeypatch)


def join(cluster: FakeCluster, name: str = "n4", **facts: Any) -> None:
    """A learner joins."""
    for one in cluster.statuses.values():
        one["members"].append(member(name, "learner", **facts))
    cluster.statuses[name] = status(name, "learner", members=cluster.members())


def run(*arguments: str, location: str = LOCATION) -> tuple[str, str, str | None]:
    """``(output, error output, error or None)``."""
    out, err = io.StringIO(), io.StringIO()
    try:
        call_command("keyspace_members", *arguments, "--location", location, stdout=out, stderr=err, no_color=True)
    except CommandError as error:
        return out.getvalue(), err.getvalue(), str(error)
    return out.getvalue(), err.getvalue(), None


def test_list(cluster: FakeCluster) -> None:
    join(cluster, lag=12)
    del cluster.statuses["n3"]
    out, _, error = run("list")
    assert error is None
    assert [line.split() for line in out.splitlines()] == [
        ["name", "role", "lag", "answers", "id", "address"],
        ["n1", "leader", "0", "yes", "n1.00000001", "127.0.0.1:7001"],
        ["n2", "voter", "0", "yes", "n2.00000002", "127.0.0.1:7002"],
        ["n3", "voter", "0", "no", "n3.00000003", "127.0.0.1:7003"],
        ["n4", "learner", "12", "yes", "n4.00000004", "127.0.0.1:7004"],
    ]


def test_list_as_json(cluster: FakeCluster) -> None:
    out, _, _ = run("list", "--json")
    assert json.loads(out) == {"cluster": "c1", "leader": "n1", "members": cluster.members()}


def test_list_without_a_leader_shows_what_the_longest_log_has(cluster: FakeCluster) -> None:
    cluster.statuses = {
        "n2": status("n2", leader=None, leader_address=None, members=[member("n1", lag=None), member("n2")])
    }
    out, _, error = run("list")
    assert error is None and "n2.00000002" in out and "! Nobody leads." in out


def test_list_of_nobody(cluster: FakeCluster) -> None:
    cluster.statuses.clear()
    assert "No node answers" in (run("list")[2] or "")


def test_promote(cluster: FakeCluster) -> None:
    join(cluster)
    out, _, error = run("promote", "n4")
    assert error is None and out.startswith("n4 is a voter now.")
    assert cluster.asked == [("n1", "change_member", "promote", "n4")]
    assert "! There are 4 voters" in out


def test_promote_waits_until_the_learner_has_caught_up(cluster: FakeCluster) -> None:
    join(cluster, lag=50_000, flow="snapshot")
    lags = iter([50_000, 50_000, 30_000, 30_000, 1_500])

    def catch_up(cluster: FakeCluster) -> None:
        learner = cluster.members()[-1]
        learner["lag"] = lag = next(lags, 0)
        learner["flow"] = "snapshot" if lag > 40_000 else "replicate"

    cluster.before_asking = catch_up
    out, _, error = run("promote", "n4")
    assert error is None and "n4 is a voter now." in out
    assert next(lags, None) is None


def test_promote_gives_up_and_says_how_far_it_came(cluster: FakeCluster) -> None:
    join(cluster, lag=50_000, is_connected=False)
    _, _, error = run("promote", "n4", "--wait", "0")
    assert (
        error is not None
        and "n4 is 50,000 entries behind after 0 s, and was not promoted. It does not answer the leader." in error
    )
    assert cluster.asked == []


def test_promote_tries_again_when_another_change_is_under_way(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyspace_members, "REFUSALS_S", 60)
    join(cluster)
    cluster.refusals = [ChangeRefused("Another change of membership is not committed yet. Nothing was changed.")] * 3
    _, _, error = run("promote", "n4")
    assert error is None and len(cluster.asked) == 4


def test_promote_does_not_try_for_ever(cluster: FakeCluster) -> None:
    join(cluster)
    cluster.refusals = [ChangeRefused("Too few answer. Nothing was changed.")] * 10_000
    assert run("promote", "n4")[2] == "Too few answer. Nothing was changed."


def test_promote_of_nobody(cluster: FakeCluster) -> None:
    assert "There is no member n9" in (run("promote", "n9")[2] or "")


def test_add_tells_how_to_start_the_node_and_makes_a_voter_of_it(cluster: FakeCluster) -> None:
    looks = iter(range(8))

    def joins(cluster: FakeCluster) -> None:
        if next(looks, None) == 7:
            join(cluster)

    cluster.before_asking = joins
    out, err, error = run("add", "n4")
    assert error is None and "n4 is a voter now." in out
    assert "--id n4 --listen HOST:PORT --data DIR --join 127.0.0.1:7001,127.0.0.1:7002,127.0.0.1:7003" in err
    assert err.count("--join") == 1


def test_add_of_a_learner_only_waits(cluster: FakeCluster) -> None:
    join(cluster)
    assert run("add", "n4", "--learner")[0] == "n4 is a learner.\n"
    assert run("add", "n2")[0] == "n2 is a voter already.\n"
    assert cluster.asked == []


def test_add_of_a_node_that_does_not_come(cluster: FakeCluster) -> None:
    assert "n4 has not joined within 0 s" in (run("add", "n4", "--wait", "0")[2] or "")


def test_remove(cluster: FakeCluster) -> None:
    out, _, error = run("remove", "n3")
    assert error is None and out.startswith("n3 is no member any more. Stop it")
    assert cluster.asked == [("n1", "change_member", "remove", "n3")]
    assert [one["name"] for one in cluster.members()] == ["n1", "n2"]
    assert "! There are 2 voters" in out


def test_remove_that_would_lose_the_quorum_says_what_the_leader_said(cluster: FakeCluster) -> None:
    sentence = "Of the voters that would remain (n1, n3), too few answer to decide anything. Nothing was changed."
    cluster.refusals = [ChangeRefused(sentence)]
    assert run("remove", "n2")[2] == sentence


def test_a_leader_that_leads_no_more_is_looked_for_again(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    first = True

    def elect(cluster: FakeCluster) -> None:
        nonlocal first
        if first and cluster.asked:
            first = False
            cluster.transfer_leadership("n2")

    def ask(*arguments: Any, **options: Any) -> Any:
        if arguments[2] == "change_member" and first:
            cluster.statuses["n1"] |= {"role": "follower", "leader": "n2", "leader_address": address_of("n2")}
        return cluster.ask(*arguments, **options)

    cluster.before_asking = elect
    monkeypatch.setattr(nodes, "ask_node", ask)
    _, _, error = run("remove", "n3")
    assert error is None
    assert [asked[0] for asked in cluster.asked] == ["n1", "n2"]


def test_an_outcome_that_nobody_knows(cluster: FakeCluster) -> None:
    cluster.refusals = [DeadlineExceeded("The node did not answer in time.")]
    assert "Nobody knows whether it was done: see keyspace_members list." in (run("remove", "n3")[2] or "")


@pytest.mark.parametrize("target", ["n3", None])
def test_transfer(cluster: FakeCluster, target: str | None) -> None:
    out, _, error = run("transfer", *([target] if target else []))
    assert error is None and out == f"{target or 'n2'} leads now, in term 4.\n"
    assert cluster.asked == [("n1", "transfer_leadership", target)]


def test_transfer_to_one_that_lost_the_election(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    real = cluster.transfer_leadership
    monkeypatch.setattr(cluster, "transfer_leadership", lambda name: real("n3"))
    assert "n3 leads now, not n2" in (run("transfer", "n2")[2] or "")


def test_a_node_that_runs_alone(cluster: FakeCluster) -> None:
    cluster.statuses = {"n1": alone()}
    for arguments in (["list"], ["promote", "n1"], ["remove", "n1"], ["add", "n2"], ["transfer"]):
        _, _, error = run(*arguments, location="127.0.0.1:7001")
        assert error is not None and "runs alone" in error and "Nothing was changed." in error, arguments


def test_without_a_leader_nothing_is_changed(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(keyspace_members.ask_leader.__kwdefaults__, "patience_ms", 10)
    cluster.statuses = {"n2": status("n2", leader=None, leader_address=None)}
    for arguments in (["promote", "n3"], ["remove", "n3"], ["add", "n4"], ["transfer"]):
        _, _, error = run(*arguments)
        assert error is not None and "1 of 3 voters answer" in error, arguments
    assert cluster.asked == []

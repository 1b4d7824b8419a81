"""What is made of what nodes say: who leads, why nobody does, what else is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from django_keyspace.management.diagnosis import lag_of, warnings_of, why_no_leader
from tests.management.fakes import alone, answers_of, member, status


def leaderless(name: str, **facts: Any) -> dict[str, Any]:
    return status(name, **({"leader": None, "leader_address": None} | facts))


def apart(name: str, *reached: str) -> dict[str, Any]:
    """A node that has links to these only."""
    return leaderless(name, members=[member(one, is_connected=one in (name, *reached)) for one in ("n1", "n2", "n3")])


def test_a_cluster_with_a_leader_needs_no_reason() -> None:
    answers = answers_of(status("n1", "leader"), status("n2"), "n3")
    assert answers.leader is not None and answers.leader.name == "n1"
    assert why_no_leader(answers) == []


def test_of_two_that_think_they_lead_the_later_term_counts() -> None:
    answers = answers_of(status("n1", "leader"), status("n2", "leader", term=4), status("n3"))
    assert answers.leader is not None and answers.leader.name == "n2"


def test_a_node_alone_needs_no_leader() -> None:
    assert why_no_leader(answers_of(alone())) == []


def test_nobody_answers() -> None:
    reasons = why_no_leader(answers_of("n1", "n2"))
    assert reasons == ["No node answers.", "n1: Nobody is there.", "n2: Nobody is there."]


def test_a_minority_answers() -> None:
    reasons = why_no_leader(answers_of(leaderless("n1"), "n2", "n3"))
    assert reasons[0] == "1 of 3 voters answer, and a majority is 2."
    assert "n2: Nobody is there." in reasons and "n3: Nobody is there." in reasons
    assert reasons[-1].startswith("Start 1 more of n2 (127.0.0.1:7002), n3 (127.0.0.1:7003), with their data.")
    assert "keyspace_recover" in reasons[-1]


def test_a_majority_that_cannot_reach_each_other() -> None:
    text = " ".join(why_no_leader(answers_of(apart("n1"), apart("n2"), apart("n3"))))
    assert "n1 reaches no other voter; n2 reaches no other voter" in text and "network" in text


def test_an_election_is_under_way() -> None:
    reasons = why_no_leader(
        answers_of(leaderless("n1", term=7, vote="n1"), leaderless("n2", term=7, vote=None), leaderless("n3", term=6))
    )
    assert reasons[0] == "3 of 3 voters answer, and a majority is 2."
    votes = "n1 voted for n1 in term 7, n2 voted for nobody in term 7, n3 voted for n1 in term 6"
    assert reasons[-1].startswith(f"Votes: {votes}. An election takes about 400 ms")


def test_only_the_longest_log_can_be_elected() -> None:
    text = " ".join(
        why_no_leader(
            answers_of(leaderless("n1", last_index=90), leaderless("n2", last_term=2, last_index=500), leaderless("n3"))
        )
    )
    assert "n1 at 90 of term 3, n2 at 500 of term 2, n3 at 100 of term 3" in text
    assert "Only n1, n3 can be elected" in text


def test_the_only_one_that_could_lead_has_a_full_disk() -> None:
    text = " ".join(why_no_leader(answers_of(leaderless("n1", is_full=True), leaderless("n2", last_index=90), "n3")))
    assert "The disk of n1 is full" in text and "None of those with a log that is complete enough can lead." in text


def test_a_learner_is_no_voter() -> None:
    members = [member("n1"), member("n2"), member("n3"), member("n4", "learner")]
    reasons = why_no_leader(
        answers_of(leaderless("n1", members=members), leaderless("n4", members=members), "n2", "n3")
    )
    assert reasons[0] == "1 of 3 voters answer, and a majority is 2."


def test_a_node_that_has_joined_and_knows_nobody() -> None:
    assert "know none of its voters" in why_no_leader(answers_of(leaderless("n1", members=[])))[0]


WARNINGS: list[tuple[str, list[Any]]] = [
    ("different clusters: n1 of c1, n2 of c2", [status("n1", "leader"), status("n2", cluster="c2")]),
    ("There are 4 voters", [status("n1", "leader", members=[member(f"n{number}") for number in range(1, 5)])]),
    ("n3 does not answer.", [status("n1", "leader"), status("n2"), "n3"]),
    (
        "n3 does not answer. Nor does it to the leader.",
        [status("n1", "leader", members=[member("n1"), member("n3", is_connected=False)]), "n3"],
    ),
    (
        "n3 has no connection to the leader. Look at the network",
        [status("n1", "leader", members=[member("n1"), member("n3", is_connected=False)]), status("n3")],
    ),
    (
        "n2 is too far behind for the log",
        [status("n1", "leader", members=[member("n1"), member("n2", flow="snapshot"), member("n3")])],
    ),
    (
        "n2 is 20,000 entries behind.",
        [status("n1", "leader", members=[member("n1"), member("n2", lag=20_000), member("n3")])],
    ),
    ("n2 takes no entries: its disk is full", [status("n1", "leader"), status("n2", is_full=True)]),
    ("n2 has 100 MiB of its disk left", [status("n1", "leader"), status("n2", disk_free_bytes=100 * 2**20)]),
    ("n2 is shutting down.", [status("n1", "leader"), status("n2", is_draining=True)]),
    ("n2 was removed from the cluster and runs on", [status("n1", "leader"), status("n2", "removed")]),
    ("n2 is replacing its store", [status("n1", "leader"), status("n2", store=None)]),
    ("different releases: 0.1.0, 0.2.0", [status("n1", "leader"), status("n2", release="0.2.0")]),
]


@pytest.mark.parametrize(("sentence", "found"), WARNINGS, ids=[sentence for sentence, _ in WARNINGS])
def test_warnings(sentence: str, found: list[Any]) -> None:
    assert any(sentence in warning for warning in warnings_of(answers_of(*found)))


def test_a_sound_cluster_has_no_warnings() -> None:
    assert warnings_of(answers_of(status("n1", "leader"), status("n2"), status("n3"))) == []


def test_lag_is_what_is_committed_and_not_applied() -> None:
    answers = answers_of(status("n1", "leader", commit=120, applied=120), status("n2", applied=95), "n3", alone("n4"))
    assert [lag_of(answer, answers) for answer in answers.answers] == [0, 25, None, None]

"""What the nodes of a cluster answered, and what to make of it: who leads, why nobody does, what else is wrong.

Everything here is worked out from what ``node_status`` answered, without asking anybody.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from django_keyspace.addresses import Endpoint
from django_keyspace.exceptions import KeyspaceError

LAG_ENTRIES_MAX: Final = 10_000
"""A member that is further behind is worth a warning."""
DISK_FREE_BYTES_MIN: Final = 256 * 1024 * 1024


@dataclass(slots=True)
class Answer:
    """What a node answered, or why it did not.

    Attributes:
        endpoint: where it was asked.
        status: what ``node_status`` said; None if it did not answer.
        error: why it did not.
        name: its name, empty if nobody knows it.
        member_id: its id in the cluster, as far as anybody knows it.
    """

    endpoint: Endpoint
    status: dict[str, Any] | None = None
    error: KeyspaceError | None = None
    name: str = ""
    member_id: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        """What it said; empty if it did not answer."""
        return self.status or {}


@dataclass(slots=True)
class Answers:
    """What all nodes of a place answered.

    Attributes:
        answers: one for each node.
    """

    answers: list[Answer] = field(default_factory=list)

    @property
    def statuses(self) -> list[dict[str, Any]]:
        """What those said that answered."""
        return [answer.status for answer in self.answers if answer.status is not None]

    @property
    def leader(self) -> Answer | None:
        """The one that leads: of several that think so, the one with the highest term."""
        leading = [answer for answer in self.answers if answer.facts.get("role") == "leader"]
        return max(leading, key=lambda answer: int(answer.facts["term"]), default=None)

    @property
    def freshest(self) -> dict[str, Any] | None:
        """The status that knows the members best: the leader's, or that of the longest log."""
        if self.leader is not None:
            return self.leader.status
        return max(
            (status for status in self.statuses if status.get("members") is not None),
            key=lambda status: (status["last_term"], status["last_index"]),
            default=None,
        )


def lag_of(answer: Answer, answers: Answers) -> int | None:
    """How many entries a node is behind: what it has applied, beside the largest commit index that anybody knows."""
    if answer.facts.get("cluster") is None:
        return None
    commit = max(status["commit"] for status in answers.statuses if status["cluster"] == answer.facts["cluster"])
    return int(commit - answer.facts["applied"])


# --- Why there is no leader ---------------------------------------------------------------------------------------------


def why_no_leader(answers: Answers) -> list[str]:
    """Why nobody leads, in sentences, the most important one first; empty if somebody does, or if there is no cluster."""
    if answers.leader is not None or (answers.statuses and answers.freshest is None):
        return []
    if not answers.statuses:
        return ["No node answers.", *_silent(answers.answers)]
    known = answers.freshest or {}
    voters = [member for member in known["members"] if member["role"] == "voter"]
    if not voters:
        return ["The nodes that answer have joined a cluster and know none of its voters yet."]
    ids = {voter["id"] for voter in voters}
    present = [answer for answer in answers.answers if answer.status is not None and answer.member_id in ids]
    needed = len(voters) // 2 + 1
    sentences = [f"{len(present)} of {len(voters)} voters answer, and a majority is {needed}."]
    if len(present) < needed:
        met = {answer.member_id for answer in present}
        missing = [voter for voter in voters if voter["id"] not in met]
        names = ", ".join(f"{voter['name']} ({voter['address'] or 'no address known'})" for voter in missing)
        sentences += _silent(answers.answers)
        lost = needed - len(present)
        sentences.append(
            f"Start {lost} more of {names}, with their data. Only if too many of them are lost for ever: keyspace_recover makes "
            "a new cluster from what one node has."
        )
        return sentences
    statuses = [answer.facts for answer in present]
    return [*sentences, *_links(statuses, needed), *_electable(statuses, needed), _votes(statuses)]


def _silent(answers: list[Answer]) -> list[str]:
    return [f"{answer.name or answer.endpoint}: {answer.error}" for answer in answers if answer.error is not None]


def _links(statuses: list[dict[str, Any]], needed: int) -> list[str]:
    """Whether the voters reach each other."""
    apart = []
    for status in statuses:
        voters = [member for member in status["members"] if member["role"] == "voter"]
        reached = [member["name"] for member in voters if member["is_connected"]]
        if len(reached) < needed:
            others = [name for name in reached if name != status["node"]]
            apart.append(f"{status['node']} reaches {', '.join(others) or 'no other voter'}")
    if not apart:
        return []
    return [
        f"Between the nodes there is no connection: {'; '.join(apart)}. Look at the network between them, and at their logs."
    ]


def _electable(statuses: list[dict[str, Any]], needed: int) -> list[str]:
    """Whose log is complete enough to be elected by those who answer."""

    def end(status: dict[str, Any]) -> tuple[int, int]:
        return status["last_term"], status["last_index"]

    ends = ", ".join(
        f"{status['node']} at {status['last_index']:,} of term {status['last_term']}" for status in statuses
    )
    complete = [status for status in statuses if sum(end(other) <= end(status) for other in statuses) >= needed]
    full = [status["node"] for status in statuses if status["is_full"]]
    sentences = [f"The logs end: {ends}."]
    if full:
        sentences.append(f"The disk of {', '.join(full)} is full: such a node does not lead. Make room there.")
    if all(status["is_full"] for status in complete):
        sentences.append("None of those with a log that is complete enough can lead.")
    elif len(complete) < len(statuses):
        sentences.append(
            f"Only {', '.join(status['node'] for status in complete)} can be elected: the others' logs are shorter."
        )
    return sentences


def _votes(statuses: list[dict[str, Any]]) -> str:
    votes = ", ".join(f"{one['node']} voted for {one['vote'] or 'nobody'} in term {one['term']}" for one in statuses)
    timeout_ms = max(status["election_timeout_ms"] for status in statuses)
    return f"Votes: {votes}. An election takes about {timeout_ms:,} ms; look again after that."


# --- What else is wrong -------------------------------------------------------------------------------------------------


def warnings_of(answers: Answers) -> list[str]:
    """What an operator should know beside who leads."""
    statuses = answers.statuses
    return [*_about_clusters(statuses), *_about_members(answers), *_about_nodes(statuses), *_about_releases(statuses)]


def _about_clusters(statuses: list[dict[str, Any]]) -> list[str]:
    clusters = sorted({str(status["cluster"]) for status in statuses})
    if len(clusters) < 2:
        return []
    nodes = ", ".join(f"{status['node']} of {status['cluster'] or 'none'}" for status in statuses)
    return [f"The nodes are of different clusters: {nodes}. Look at the addresses."]


def _about_members(answers: Answers) -> list[str]:
    found = []
    leader = answers.leader
    known = answers.freshest or {"members": []}
    voters = [member for member in known["members"] if member["role"] == "voter"]
    if voters and len(voters) % 2 == 0:
        found.append(
            f"There are {len(voters)} voters: they survive the loss of {(len(voters) - 1) // 2}, as {len(voters) - 1} would. "
            "Take an odd number."
        )
    if leader is None:
        return found
    silent = {answer.member_id for answer in answers.answers if answer.status is None}
    for member in leader.facts["members"]:
        if member["id"] in silent:
            found.append(
                f"{member['name']} does not answer." + ("" if member["is_connected"] else " Nor does it to the leader.")
            )
        elif not member["is_connected"]:
            found.append(
                f"{member['name']} has no connection to the leader. Look at the network between them, and at its log."
            )
        elif member["flow"] == "snapshot":
            found.append(f"{member['name']} is too far behind for the log; it is being sent a snapshot.")
        elif (member["lag"] or 0) > LAG_ENTRIES_MAX:
            found.append(f"{member['name']} is {member['lag']:,} entries behind.")
    return found


def _about_nodes(statuses: list[dict[str, Any]]) -> list[str]:
    found = []
    for status in statuses:
        name = status["node"]
        if status.get("is_full"):
            found.append(f"{name} takes no entries: its disk is full. Make room; it goes on by itself.")
        elif status["disk_free_bytes"] < DISK_FREE_BYTES_MIN:
            found.append(f"{name} has {status['disk_free_bytes'] // 2**20:,} MiB of its disk left.")
        if status["is_draining"]:
            found.append(f"{name} is shutting down.")
        if status["role"] == "removed":
            found.append(f"{name} was removed from the cluster and runs on. Stop it.")
        if status["store"] is None:
            found.append(f"{name} is replacing its store by a snapshot.")
    return found


def _about_releases(statuses: list[dict[str, Any]]) -> list[str]:
    releases = sorted({status["release"] for status in statuses})
    if len(releases) < 2:
        return []
    return [f"The nodes have different releases: {', '.join(releases)}. That is well for the time of an upgrade."]

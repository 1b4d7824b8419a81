"""How the store of this site stands, for the page /status/: what its nodes say, or the figures of its folder.

No node has to lead for this, and the cache is not asked: the page is there when nothing else is.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import Any

from django.core.cache import cache

from django_keyspace.management.diagnosis import Answer, Answers, lag_of, warnings_of, why_no_leader
from django_keyspace.management.nodes import ask_all, place_from
from django_keyspace.management.tables import duration, size
from reader.cluster import KILL, START
from reader.place import node_count

ASK_TIMEOUT_MS = 1_000
NOTHING = "–"
GOOD, TROUBLE, LOST = "good", "trouble", "lost"
COLUMNS = {
    "role": "Role",
    "term": "Term",
    "leader": "Leader",
    "commit": "Commit",
    "applied": "Applied",
    "lag": "Lag",
    "records": "Records",
    "disk": "Disk free",
    "up": "Up for",
    "address": "Address",
}
TEXT_COLUMNS = ("role", "leader", "address")

_names: dict[str, str] = {}
"""By address: a node that does not answer is named by the others, and if nobody answers, by what was known before."""


@dataclass(frozen=True, slots=True)
class Row:
    """One node: its state, its cells by column, and what its button does."""

    address: str
    name: str
    state: str
    cells: dict[str, str]
    do: str


@dataclass(frozen=True, slots=True)
class Standing:
    """All that the page shows.

    ``state`` is "good", "trouble" (something is wrong, and the site goes on) or "lost" (it does not).
    """

    kind: str
    state: str
    headline: str
    tiles: dict[str, str]
    reasons: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)


def standing() -> Standing:
    """Ask the nodes, or look into the folder."""
    if node_count() == 0:
        return of_folder(cache.status())
    place = place_from({})
    answers = ask_all(place, ASK_TIMEOUT_MS)
    if len(place.endpoints) == 1 and answers.freshest is None:
        return of_node(answers.answers[0], warnings_of(answers))
    return of_cluster(answers)


def of_folder(figures: dict[str, Any]) -> Standing:
    """An embedded store."""
    tiles = {
        **_store_tiles(figures),
        "Disk free": size(shutil.disk_usage(figures["path"]).free),
        "Readers": f"{figures['readers']:,}",
        "Durability": figures["durability"],
    }
    return Standing("folder", GOOD, "The store is a folder, and no process has to run for it.", tiles)


def of_node(answer: Answer, warnings: list[str]) -> Standing:
    """A node that runs alone."""
    if answer.status is None:
        return Standing(
            "node", LOST, "The node does not answer.", {"Address": str(answer.endpoint)}, [str(answer.error)]
        )
    status = answer.status
    tiles = {
        **_store_tiles(status["store"] or {}),
        "Disk free": size(status["disk_free_bytes"]),
        "Connections": f"{status['connections']:,}",
        "Reads": f"{status['requests']['reads']:,}",
        "Writes": f"{status['requests']['writes']:,}",
        "Up for": duration(status["uptime_ms"]),
    }
    headline = f"Node {answer.name} runs alone: there is nobody to take its place."
    return Standing("node", TROUBLE if warnings else GOOD, headline, tiles, warnings=warnings)


def of_cluster(answers: Answers) -> Standing:
    """Several nodes."""
    reasons, warnings = why_no_leader(answers), warnings_of(answers)
    leader, known = answers.leader, answers.freshest or {}
    here, all_nodes = len(answers.statuses), len(answers.answers)
    answering = f"all {all_nodes} nodes answer" if here == all_nodes else f"{here} of {all_nodes} nodes answer"
    if leader is None:
        state, headline = LOST, f"No node leads: {answering}, and the site cannot go on."
    else:
        state = GOOD if here == all_nodes and not warnings else TROUBLE
        headline = f"{leader.name} leads, {answering}" + (", and the site goes on." if here < all_nodes else ".")
    tiles = {
        "Leader": leader.name if leader else "none",
        "Term": f"{known['term']:,}" if known else NOTHING,
        "Nodes": f"{here} of {all_nodes}",
        **_store_tiles(known.get("store") or {}),
    }
    return Standing(
        "cluster", state, headline, tiles, reasons, warnings, [_row(one, answers) for one in answers.answers]
    )


def _store_tiles(figures: dict[str, Any]) -> dict[str, str]:
    if not figures:
        return {"Records": NOTHING, "Size": NOTHING, "Size at most": NOTHING}
    return {
        "Records": f"{figures['records']:,}",
        "Size": size(figures["used_bytes"]),
        "Size at most": size(figures["max_bytes"]),
    }


def _row(answer: Answer, answers: Answers) -> Row:
    address = str(answer.endpoint)
    if answer.name:
        _names[address] = answer.name
    name = answer.name or _names.get(address, address)
    cells = {**dict.fromkeys(COLUMNS, NOTHING), "role": "no answer", "address": address}
    status = answer.status
    if status is None:
        return Row(address, name, "silent", cells, START)
    cells |= {
        "role": status["role"],
        "disk": size(status["disk_free_bytes"]),
        "up": duration(status["uptime_ms"]),
        "records": f"{status['store']['records']:,}" if status["store"] else NOTHING,
    }
    if status["cluster"] is not None:
        lag = lag_of(answer, answers)
        cells |= {key: f"{status[key]:,}" for key in ("term", "commit", "applied")}
        cells |= {"leader": status["leader"] or "nobody", "lag": NOTHING if lag is None else f"{lag:,}"}
    return Row(address, name, "leader" if answer is answers.leader else "here", cells, KILL)

"""``manage.py keyspace_status``: what each node of a cluster says of itself; who leads, or why nobody does."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError

from django_keyspace.management.diagnosis import Answer, Answers, lag_of, warnings_of, why_no_leader
from django_keyspace.management.nodes import add_place_arguments, ask_all, place_from
from django_keyspace.management.tables import duration, size, table

HEADS: Final = (
    "node",
    "role",
    "term",
    "leader",
    "commit",
    "applied",
    "lag",
    "log end",
    "records",
    "free",
    "up",
    "release",
    "address",
)
NOTHING: Final = "-"


class Command(BaseCommand):
    """Asks every node itself. The exit code is 1 if nobody leads."""

    help = (
        "Show the nodes of a cluster: role, term, commit and applied index, lag, the end of the log, disk, uptime, release; and "
        "if nobody leads, why. Every node is asked itself, also those that the location does not list and the others know. The "
        "exit code is 1 if nobody leads."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Its flags."""
        add_place_arguments(parser)
        parser.add_argument("--json", action="store_true", help="Everything that the nodes say, as JSON.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Ask, and show."""
        place = place_from(options)
        answers = ask_all(place, options["timeout"])
        reasons = why_no_leader(answers)
        if options["json"]:
            self.stdout.write(json.dumps(as_json(answers), indent=2))
        else:
            for line in status_lines(answers):
                self.stdout.write(line)
            for warning in warnings_of(answers):
                self.stdout.write(self.style.WARNING(f"! {warning}"))
        if reasons:
            raise CommandError("\n  ".join(["No node leads.", *reasons]))


def status_lines(answers: Answers) -> list[str]:
    """A line about the cluster, and the table of its nodes."""
    lines = table(HEADS, [_row(answer, answers) for answer in answers.answers])
    known = answers.freshest
    if known is None:
        return lines
    voters = sum(member["role"] == "voter" for member in known["members"])
    learners = len(known["members"]) - voters
    parts = [_number(voters, "voter")] + ([_number(learners, "learner")] if learners else [])
    leader = f"{answers.leader.name} leads in term {known['term']}" if answers.leader else "nobody leads"
    return [f"Cluster {known['cluster']}: {', '.join(parts)}; {leader}.", *lines]


def _number(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _row(answer: Answer, answers: Answers) -> list[str]:
    address = str(answer.endpoint)
    if answer.status is None:
        return [answer.name or "?", "no answer", *[NOTHING] * (len(HEADS) - 3), address]
    status, store = answer.status, answer.status["store"]
    common = [
        f"{store['records']:,}" if store else NOTHING,
        size(status["disk_free_bytes"]),
        duration(status["uptime_ms"]),
        status["release"],
        address,
    ]
    if status["cluster"] is None:
        return [answer.name, status["role"], *[NOTHING] * 6, *common]
    lag = lag_of(answer, answers)
    return [
        answer.name,
        status["role"],
        str(status["term"]),
        status["leader"] or NOTHING,
        f"{status['commit']:,}",
        f"{status['applied']:,}",
        NOTHING if lag is None else f"{lag:,}",
        f"{status['last_index']:,}@{status['last_term']}",
        *common,
    ]


def as_json(answers: Answers) -> dict[str, Any]:
    """For ``--json``."""
    known, leader = answers.freshest or {}, answers.leader
    return {
        "cluster": known.get("cluster"),
        "leader": leader.name if leader else None,
        "term": leader.facts["term"] if leader else None,
        "no_leader": why_no_leader(answers),
        "warnings": warnings_of(answers),
        "nodes": [
            {
                "name": answer.name or None,
                "address": str(answer.endpoint),
                "answers": answer.status is not None,
                "error": str(answer.error) if answer.error else None,
                "lag": lag_of(answer, answers),
                "status": answer.status,
            }
            for answer in answers.answers
        ],
    }

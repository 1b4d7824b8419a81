"""``manage.py keyspace_recover``: a new cluster from what one node of a lost one has."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from django_keyspace.backend.transport import ask_node
from django_keyspace.exceptions import DeadlineExceeded, KeyspaceError, NoConnection
from django_keyspace.handshake import find_secret
from django_keyspace.management.diagnosis import Answer
from django_keyspace.management.nodes import ASK_TIMEOUT_MS, endpoint_of
from django_keyspace.management.tables import duration
from django_keyspace.node.config import format_address, parse_listen
from django_keyspace.node.identity import Identity
from django_keyspace.node.recovery import Findings, Recovery
from django_keyspace.security import Security, make_security


class Command(BaseCommand):
    """Reads the old folder, and makes a new one. The node must not run."""

    help = (
        "For a cluster that has lost a majority of its voters for ever: make a new cluster, with another id, from the data "
        "folder of one node that is left. The old folder stays as it is. Writes that the lost nodes had acknowledged, and "
        "this node had not received, are lost: take the node with the longest log (--look shows it). The other nodes join "
        "with empty folders."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Its flags."""
        parser.add_argument("--data", metavar="DIR", required=True, help="The data folder of the node that is left.")
        parser.add_argument("--to", metavar="DIR", help="The data folder to make. It must not exist, or be empty.")
        parser.add_argument("--id", metavar="NAME", help="The node's name in the new cluster (default: as before).")
        parser.add_argument("--advertise", metavar="HOST:PORT", help="Where it will be reached (default: as before).")
        parser.add_argument("--look", action="store_true", help="Show what the folder has, and make nothing.")
        parser.add_argument("--json", action="store_true", help="As JSON.")
        parser.add_argument("--yes", action="store_true", help="Do not ask.")
        parser.add_argument("--force", action="store_true", help="Even if a majority of the old cluster could go on.")
        parser.add_argument(
            "--secret-file",
            metavar="FILE",
            help="The secret of the cluster, to ask the other nodes; or the environment has it.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Look, ask, and make it."""
        if not options["look"] and not options["to"]:
            raise CommandError("Say with --to DIR where the new folder is to be; or only --look.")
        try:
            with Recovery(options["data"]) as recovery:
                answers = _ask_others(recovery.findings, options)
                if options["look"]:
                    self._show(recovery.findings, answers, options)
                    return
                self._make(recovery, answers, options)
        except KeyspaceError as error:
            raise CommandError(str(error)) from error

    def _show(self, findings: Findings, answers: Sequence[Answer], options: dict[str, Any]) -> None:
        if options["json"]:
            self.stdout.write(json.dumps(as_json(findings, answers), indent=2))
            return
        for line in sentences(findings, answers):
            self.stdout.write(line)

    def _make(self, recovery: Recovery, answers: Sequence[Answer], options: dict[str, Any]) -> None:
        findings = recovery.findings
        if not options["force"]:
            _require_lost(findings, answers)
        address = options["advertise"] or findings.address
        if not address:
            raise CommandError(
                "Nobody knows where this node was reached. Say with --advertise HOST:PORT where it will be."
            )
        address = format_address(*parse_listen(address))
        if not options["json"]:
            for line in sentences(findings, answers):
                self.stdout.write(line)
        if not options["yes"]:
            self._confirm(findings)
        identity = recovery.make(options["to"], address, options["id"] or "")
        if options["json"]:
            made = {
                "cluster": identity.cluster,
                "member_id": identity.member_id,
                "address": address,
                "data": options["to"],
            }
            self.stdout.write(json.dumps(as_json(findings, answers) | {"made": made}, indent=2))
            return
        self._tell(identity, address, options)

    def _tell(self, identity: Identity, address: str, options: dict[str, Any]) -> None:
        made = f"Cluster {identity.cluster} with the voter {identity.member_id} is in {options['to']}."
        command = "python -m django_keyspace.node"
        self.stdout.write(self.style.SUCCESS(made))
        for line in (
            f"Start it:        {command} --id {identity.node} --listen {address} --data {options['to']}",
            f"The other nodes: {command} --id NAME --listen HOST:PORT --data EMPTY --join {address}",
            "               then: keyspace_members promote NAME, one after the other.",
            f"Never start {options['data']} again, nor the folders of the other old nodes. Restart the sites' processes.",
        ):
            self.stdout.write(line)

    def _confirm(self, findings: Findings) -> None:
        name = findings.identity.node
        try:
            answer = input(f"To go on with what node {name} has, type its name: ")
        except EOFError:
            raise CommandError(
                "Nobody is there to say yes. Nothing was changed. --yes goes on without asking."
            ) from None
        if answer.strip() != name:
            raise CommandError("Nothing was changed.")


def _require_lost(findings: Findings, answers: Sequence[Answer]) -> None:
    """Refuse if the voters that are there, with this node, can decide."""
    voters, own = findings.membership.voters, findings.identity
    there = [
        answer
        for answer in answers
        if answer.member_id in voters
        # Whoever answers in another way, such as that it wants a certificate, is there too.
        and (
            answer.facts["cluster"] == own.cluster
            if answer.status is not None
            else not isinstance(answer.error, NoConnection | DeadlineExceeded)
        )
    ]
    if 2 * (len(there) + (own.member_id in voters)) > len(voters):
        names = ", ".join(answer.name for answer in there)
        who = f"{names} and this node are" if there else "This node alone is"
        raise CommandError(
            f"{who} a majority of the {len(voters)} voters: the cluster lives, or "
            "will as soon as this node is started as it is. Nothing was changed. If you know better, there is --force."
        )


def _ask_others(findings: Findings, options: dict[str, Any]) -> list[Answer]:
    """Whether other members answer: then perhaps nothing needs to be recovered."""
    security = make_security(uses_tls=False)
    if options["secret_file"]:
        security = Security(find_secret(options["secret_file"], {}))
    answers = []
    for name, member, address in findings.others:
        if address is None:
            continue
        endpoint = endpoint_of(address)
        try:
            status = ask_node(endpoint, security, "node_status", timeout_ms=ASK_TIMEOUT_MS)
            answers.append(Answer(endpoint, status, None, status["node"], status.get("member_id", "")))
        except KeyspaceError as error:
            answers.append(Answer(endpoint, None, error, name, member))
    return answers


def sentences(findings: Findings, answers: Sequence[Answer]) -> list[str]:
    """What there is, and what may be lost."""
    identity, unsure = findings.identity, findings.last_index - findings.commit
    lines = [
        f"Node {identity.member_id} of cluster {identity.cluster}, whose voters were {', '.join(findings.membership.voters)}.",
        f"It has the log up to entry {findings.last_index:,} of term {findings.last_term}{_age(findings.log_ms)}.",
        f"Entries up to {findings.commit:,} are known to be committed."
        + (
            f" The {unsure:,} behind them are kept, though writes in them may never have been acknowledged."
            if unsure
            else ""
        ),
        "What may be lost: every write that was acknowledged after that entry and had not reached this node. How many these are "
        "cannot be told from here: compare with other folders by --look; the higher (term, entry) has more.",
    ]
    for answer in answers:
        if answer.status is not None:
            lines.append(f"! Node {answer.name} answers at {answer.endpoint}.")
        else:
            lines.append(f"Node {answer.name} does not answer: {answer.error}")
    return lines


def _age(log_ms: int) -> str:
    if not log_ms:
        return ", in which nobody has written"
    then = datetime.fromtimestamp(log_ms / 1000, UTC)
    age_ms = max((datetime.now(UTC) - then).total_seconds() * 1000, 0)
    return f", written {duration(age_ms)} ago ({then:%Y-%m-%d %H:%M:%S} UTC)"


def as_json(findings: Findings, answers: Sequence[Answer]) -> dict[str, Any]:
    """For ``--json``."""
    return {
        "node": findings.identity.node,
        "member_id": findings.identity.member_id,
        "cluster": findings.identity.cluster,
        "voters": list(findings.membership.voters),
        "learners": list(findings.membership.learners),
        "applied": findings.applied,
        "commit": findings.commit,
        "last_index": findings.last_index,
        "last_term": findings.last_term,
        "log_ms": findings.log_ms,
        "others": [
            {"name": answer.name, "address": str(answer.endpoint), "answers": answer.status is not None}
            for answer in answers
        ],
    }

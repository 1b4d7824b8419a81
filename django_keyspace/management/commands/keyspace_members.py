"""``manage.py keyspace_members``: who belongs to a cluster, and changes of that."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError

from django_keyspace.exceptions import ChangeRefused, DeadlineExceeded, KeyspaceError
from django_keyspace.management.diagnosis import Answers, warnings_of, why_no_leader
from django_keyspace.management.nodes import Place, add_place_arguments, ask_all, ask_leader, place_from
from django_keyspace.management.progress import Progress
from django_keyspace.management.tables import table

CHANGE_TIMEOUT_MS: Final = 15_000
WAIT_S: Final = 600
LOOK_AGAIN_S: Final = 0.2
REFUSALS_S: Final = 10.0
"""How long the leader may refuse what looks possible: it is new, or another change is under way."""


class Command(BaseCommand):
    """Changes are done by the leader, one at a time; this command finds it, and returns when the change is committed."""

    help = (
        "List, add, promote and remove the members of a cluster, and hand leadership over. A node joins by itself when it is "
        "started with an empty folder and --join; it is a learner then, which gets everything and does not vote. A change that "
        "would leave too few voters that answer is refused."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Its flags."""
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        for name, (help_text, _) in ACTIONS.items():
            action = actions.add_parser(name, help=help_text, description=help_text)
            if name != "list":
                nargs = "?" if name == "transfer" else None
                action.add_argument("member", metavar="NAME", nargs=nargs, help="The node's name, or its id.")
            if name == "list":
                action.add_argument("--json", action="store_true", help="As JSON.")
            if name in ("add", "promote"):
                action.add_argument(
                    "--wait",
                    type=int,
                    metavar="S",
                    default=WAIT_S,
                    help=f"Seconds to wait at most (default: {WAIT_S}).",
                )
            if name == "add":
                action.add_argument("--learner", action="store_true", help="Leave it a learner.")
            add_place_arguments(action)

    def handle(self, *args: Any, **options: Any) -> None:
        """Do what was asked."""
        place = place_from(options)
        try:
            ACTIONS[options["action"]][1](self, place, options)
        except KeyspaceError as error:
            raise CommandError(str(error)) from error

    # --- What it does -------------------------------------------------------------------------------------------------

    def list(self, place: Place, options: dict[str, Any]) -> None:
        """Show the members as the leader knows them, or as the longest log does."""
        answers = ask_all(place, options["timeout"])
        if answers.freshest is None:
            raise CommandError(" ".join(why_no_leader(answers)) or _alone(answers))
        if options["json"]:
            known = answers.freshest
            found = {"cluster": known["cluster"], "leader": known["leader"], "members": known["members"]}
            self.stdout.write(json.dumps(found, indent=2))
            return
        for line in member_lines(answers):
            self.stdout.write(line)
        if answers.leader is None:
            self.stdout.write(self.style.WARNING("! Nobody leads. keyspace_status says why."))

    def add(self, place: Place, options: dict[str, Any]) -> None:
        """Wait for a node that joins, and promote it."""
        name, give_up_s = options["member"], monotonic() + options["wait"]
        told = False
        while True:
            answers = ask_all(place, options["timeout"])
            known = _of_leader(answers)
            found = find(known, name)
            if found is not None:
                break
            if not told:
                told = True
                addresses = ",".join(member["address"] for member in known["members"] if member["address"])
                self.stderr.write(
                    f"There is no member {name} yet. On its host, with an empty folder:\n"
                    f"  python -m django_keyspace.node --id {name} --listen HOST:PORT --data DIR --join {addresses}"
                )
            if monotonic() >= give_up_s:
                raise CommandError(f"{name} has not joined within {options['wait']} s. Nothing was changed.")
            sleep(LOOK_AGAIN_S)
        if found["role"] == "voter":
            self._say(f"{name} is a voter already.")
        elif options["learner"]:
            self._say(f"{name} is a learner.")
        else:
            self.promote(place, options)

    def promote(self, place: Place, options: dict[str, Any]) -> None:
        """Wait until a learner has caught up, and make a voter of it."""
        name, give_up_s = options["member"], monotonic() + options["wait"]
        refused_since_s: float | None = None
        self._wait_until_caught_up(place, options, give_up_s)
        while True:
            try:
                self._ask(place, "change_member", "promote", name)
                break
            except ChangeRefused:
                # It is new, or another change is under way, or the learner fell behind again.
                refused_since_s = refused_since_s or monotonic()
                member = find(_of_leader(ask_all(place, options["timeout"])), name)
                if member is None or member["role"] == "voter" or monotonic() - refused_since_s >= REFUSALS_S:
                    raise
                sleep(LOOK_AGAIN_S)
        self._changed(place, options, f"{name} is a voter now.")

    def remove(self, place: Place, options: dict[str, Any]) -> None:
        """Remove a member."""
        name = options["member"]
        self._ask(place, "change_member", "remove", name)
        self._changed(place, options, f"{name} is no member any more. Stop it; its folder is of no further use.")

    def transfer(self, place: Place, options: dict[str, Any]) -> None:
        """Have another node lead."""
        self._ask(place, "transfer_leadership", options["member"])
        give_up_s = monotonic() + REFUSALS_S
        while (answers := ask_all(place, options["timeout"])).leader is None and monotonic() < give_up_s:
            sleep(LOOK_AGAIN_S)
        leader = answers.leader
        if leader is None:
            raise CommandError(
                "\n  ".join(["The old leader leads no more, and nobody has followed.", *why_no_leader(answers)])
            )
        if options["member"] not in (None, leader.name, leader.member_id):
            raise CommandError(f"{leader.name} leads now, not {options['member']}: it was elected first. Try again.")
        self._say(f"{leader.name} leads now, in term {leader.facts['term']}.")

    # --- Steps --------------------------------------------------------------------------------------------------------

    def _ask(self, place: Place, name: str, *arguments: Any) -> None:
        try:
            ask_leader(place, name, *arguments, timeout_ms=CHANGE_TIMEOUT_MS)
        except DeadlineExceeded as error:
            raise CommandError(f"{error} Nobody knows whether it was done: see keyspace_members list.") from error

    def _wait_until_caught_up(self, place: Place, options: dict[str, Any], give_up_s: float) -> None:
        name = options["member"]
        quiet = options["verbosity"] < 1
        first = find(_of_leader(ask_all(place, options["timeout"])), name)
        if first is None or first["role"] == "voter":
            return  # the leader says what is wrong
        lag = first["lag"] or 0
        with Progress(self.stderr, "Sent", f"entries to {name}", total=lag or None, quiet=quiet) as progress:
            while True:
                known = _of_leader(ask_all(place, options["timeout"]))
                member = find(known, name)
                if member is None or member["role"] == "voter":
                    return
                progress.advance(max(lag - member["lag"] - progress.done, 0))
                if member["flow"] == "replicate" and member["lag"] <= known["promote_lag_max"]:
                    return
                if monotonic() >= give_up_s:
                    raise CommandError(
                        f"{name} is {member['lag']:,} entries behind after {options['wait']} s, and was not promoted. "
                        + ("It does not answer the leader. " if not member["is_connected"] else "")
                        + "Nothing was changed. Look at its log; --wait gives it more time."
                    )
                sleep(LOOK_AGAIN_S)

    def _changed(self, place: Place, options: dict[str, Any], sentence: str) -> None:
        self._say(sentence)
        if options["verbosity"] >= 1:
            for warning in warnings_of(ask_all(place, options["timeout"])):
                self.stdout.write(self.style.WARNING(f"! {warning}"))

    def _say(self, sentence: str) -> None:
        self.stdout.write(self.style.SUCCESS(sentence))


ACTIONS: Final[dict[str, tuple[str, Callable[[Command, Place, dict[str, Any]], None]]]] = {
    "list": ("Show the members.", Command.list),
    "add": ("Wait until a node has joined and has caught up, and make a voter of it.", Command.add),
    "promote": ("Make a voter of a learner, as soon as it has caught up.", Command.promote),
    "remove": ("Remove a member. Its id is never used again.", Command.remove),
    "transfer": ("Have another voter lead: NAME, or whoever has most of the log.", Command.transfer),
}


def find(known: dict[str, Any], name: str) -> dict[str, Any] | None:
    """A member by its name or id: of several with that name, a learner, who is the newer one."""
    found = [member for member in known["members"] if name in (member["name"], member["id"])]
    return min(found, key=lambda member: str(member["role"]), default=None)


def _of_leader(answers: Answers) -> dict[str, Any]:
    """What the leader knows. Raises :class:`CommandError` if there is none."""
    if answers.leader is None:
        raise CommandError("\n  ".join(why_no_leader(answers)) or _alone(answers))
    return answers.leader.facts


def _alone(answers: Answers) -> str:
    names = ", ".join(status["node"] for status in answers.statuses)
    return (
        f"Node {names} runs alone: it is in no cluster. Nothing was changed. A cluster is made of nodes that are started "
        "with --peer, each with an empty folder."
    )


def member_lines(answers: Answers) -> list[str]:
    """The members as a table."""
    known = answers.freshest or {"members": []}
    silent = {answer.member_id for answer in answers.answers if answer.status is None}
    rows = []
    for member in known["members"]:
        role = "leader" if answers.leader is not None and answers.leader.member_id == member["id"] else member["role"]
        lag = "-" if member["lag"] is None else f"{member['lag']:,}"
        answer = "no" if member["id"] in silent else "yes"
        rows.append([member["name"], role, lag, answer, member["id"], member["address"] or "-"])
    return table(("name", "role", "lag", "answers", "id", "address"), rows)

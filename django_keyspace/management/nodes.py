"""What the commands about nodes share: where the nodes are, how they are asked, and what they answered."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any, Final

from django.conf import settings
from django.core.management.base import CommandError

from django_keyspace.addresses import Endpoint, parse_location
from django_keyspace.backend.transport import ask_node
from django_keyspace.conf import make_config
from django_keyspace.exceptions import (
    ConfigurationError,
    KeyspaceError,
    NoConnection,
    NoLeader,
    NotLeader,
    NotSupported,
)
from django_keyspace.handshake import find_secret
from django_keyspace.management.diagnosis import Answer, Answers, why_no_leader
from django_keyspace.security import Security, make_security

ASK_TIMEOUT_MS: Final = 2_000
ASKED_AT_ONCE: Final = 16
LOOK_AGAIN_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Place:
    """Nodes to ask, and what to show to them.

    Attributes:
        endpoints: their addresses.
        security: the secret and TLS.
        location: what the user calls them.
    """

    endpoints: tuple[Endpoint, ...]
    security: Security
    location: str


def add_place_arguments(parser: ArgumentParser) -> None:
    """The flags that say which nodes are meant."""
    parser.add_argument(
        "--using", "--alias", dest="using", metavar="ALIAS", help='Alias of CACHES with the nodes (default: "default").'
    )
    parser.add_argument(
        "--location",
        metavar="URL",
        help="The nodes, instead of an alias: keyspace://HOST:PORT,HOST:PORT. One of a cluster is enough, if it answers.",
    )
    parser.add_argument(
        "--secret-file", metavar="FILE", help="With --location: the file with the secret, if the environment has none."
    )
    for name, what in (("ca", "authorities"), ("cert", "own certificate"), ("key", "key of it")):
        parser.add_argument(
            f"--tls-{name}", metavar="FILE", help=f"With --location keyspaces://...: file with the {what}."
        )
    parser.add_argument(
        "--timeout",
        type=int,
        metavar="MS",
        default=ASK_TIMEOUT_MS,
        help=f"How long a node may take to answer, in milliseconds (default: {ASK_TIMEOUT_MS}).",
    )


def place_from(options: dict[str, Any]) -> Place:
    """The nodes that are meant.

    Raises:
        CommandError: there is no such alias, it is not of nodes, or a flag is not legal.
    """
    try:
        if options.get("location"):
            if options.get("using"):
                raise ConfigurationError("Give --location or an alias, not both.")
            return _place_of_location(options)
        return _place_of_alias(options.get("using") or "default")
    except KeyspaceError as error:
        raise CommandError(str(error)) from error


def _place_of_location(options: dict[str, Any]) -> Place:
    location = options["location"] if "://" in options["location"] else f"keyspace://{options['location']}"
    found = parse_location(location)
    tls = {name: options[f"tls_{name}"] for name in ("ca", "cert", "key") if options.get(f"tls_{name}")}
    security = make_security(uses_tls=found.uses_tls, tls=tls or None)
    if options.get("secret_file"):
        security = Security(find_secret(options["secret_file"], {}), security.tls)
    return Place(found.endpoints, security, location)


def _place_of_alias(alias: str) -> Place:
    entry: Any = settings.CACHES.get(alias)
    if entry is None:
        raise ConfigurationError(
            f"There is no alias {alias!r} in CACHES. Name one, or give --location keyspace://HOST:PORT."
        )
    if not entry["BACKEND"].startswith("django_keyspace."):
        raise ConfigurationError(f"The alias {alias!r} is a {entry['BACKEND']}, not a cache of django_keyspace.")
    config = make_config(entry.get("LOCATION"), entry.get("OPTIONS", {}))
    if not config.is_remote:
        raise NotSupported(
            f"The store of the alias {alias!r} is the folder {config.location}, in the processes of the site: there are no "
            "nodes. cache.status() has its figures. For a cluster, set LOCATION to keyspace://HOST:PORT,HOST:PORT,HOST:PORT/0."
        )
    return Place(parse_location(config.location).endpoints, config.security, config.location)


def ask_all(place: Place, timeout_ms: int = ASK_TIMEOUT_MS) -> Answers:
    """Ask every node of a place for its status, also those that the location does not list and the others know.

    Arguments:
        place: the nodes.
        timeout_ms: how long each may take.
    Returns:
        One answer for each node, by name.
    """
    found = Answers(_ask_each(place, place.endpoints, timeout_ms))
    asked = {str(endpoint) for endpoint in place.endpoints}
    members = (found.freshest or {}).get("members") or []
    met = {answer.member_id for answer in found.answers if answer.member_id}
    others = [
        member for member in members if member["id"] not in met and member["address"] and member["address"] not in asked
    ]
    found.answers += _ask_each(place, [endpoint_of(member["address"]) for member in others], timeout_ms)
    _name_the_silent(found, members)
    found.answers.sort(key=lambda answer: (not answer.name, answer.name, str(answer.endpoint)))
    return found


def endpoint_of(address: str) -> Endpoint:
    """The endpoint of a node's address."""
    return parse_location(f"keyspace://{address}").endpoints[0]


def _ask_each(place: Place, endpoints: Sequence[Endpoint], timeout_ms: int) -> list[Answer]:
    if not endpoints:
        return []
    with ThreadPoolExecutor(min(len(endpoints), ASKED_AT_ONCE)) as threads:
        return list(threads.map(lambda endpoint: _ask(place, endpoint, timeout_ms), endpoints))


def _ask(place: Place, endpoint: Endpoint, timeout_ms: int) -> Answer:
    try:
        status = ask_node(endpoint, place.security, "node_status", timeout_ms=timeout_ms)
    except KeyspaceError as error:
        return Answer(endpoint, error=error)
    return Answer(endpoint, status, name=status["node"], member_id=status.get("member_id") or status["node"])


def _name_the_silent(found: Answers, members: Iterable[dict[str, Any]]) -> None:
    """Who did not answer has a name all the same, if the others know who is at that address."""
    met = {answer.member_id for answer in found.answers if answer.member_id}
    by_address = {member["address"]: member for member in members if member["id"] not in met}
    for answer in found.answers:
        member = by_address.get(str(answer.endpoint))
        if answer.status is None and member is not None:
            answer.name, answer.member_id = member["name"], member["id"]


def ask_leader(place: Place, name: str, *arguments: Any, timeout_ms: int, patience_ms: int = 10_000) -> Any:
    """Have the leader do something: find it, and find it again if it leads no more.

    Arguments:
        place: the nodes.
        name: a request of ``operations.CONTROLS``.
        *arguments: its arguments.
        timeout_ms: how long the leader may take.
        patience_ms: how long there may be none.
    Raises:
        KeyspaceError: there is no leader, or it refused.
    """
    give_up_s = monotonic() + patience_ms / 1000
    while True:
        found = ask_all(place)
        # A node that runs alone says itself what it cannot do.
        chosen = found.leader or next((answer for answer in found.answers if answer.facts.get("role") == "alone"), None)
        error: KeyspaceError = NoLeader(" ".join(why_no_leader(found)))
        if chosen is not None:
            try:
                return ask_node(chosen.endpoint, place.security, name, *arguments, timeout_ms=timeout_ms)
            except (NotLeader, NoConnection) as gone:
                error = gone
        if monotonic() >= give_up_s:
            raise error
        sleep(LOOK_AGAIN_S)

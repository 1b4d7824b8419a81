"""Who a node is, durably: its name, its incarnation, and the cluster that it belongs to.

A name is what people call a node, and what stays when its machine is replaced. An incarnation is drawn when a data folder is
made: name and incarnation together, with a dot between them, are the member id that the consensus core knows, and that is never
used again. So a node that lost its folder comes back as somebody new, who cannot vote as if he had forgotten nothing.

``node.json`` holds it. It goes through these steps, each of them one durable replacement of the file:

=====================  ==============================================================================================
format 1: a name       a node that runs alone, or one that has not been told of a cluster yet
+ incarnation          it looks for its cluster; it has promised nothing to anybody
+ cluster, members     it belongs to that cluster. The log may be begun, and begun again: it has still promised nothing
+ initialised          the log was begun, and may hold promises. If it is missing now, the node must not start
=====================  ==============================================================================================
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field, replace
from typing import Any, Final

from django_keyspace.exceptions import ForeignStore
from django_keyspace.node.disk import Disk, read_file, replace_file
from django_keyspace.node.raft import BadMessage, Membership, SnapshotMeta, bootstrap_snapshot, membership_from_bytes

IDENTITY_FILE: Final = "node.json"
FORMAT_ALONE: Final = 1
FORMAT_CLUSTER: Final = 2
_INCARNATION_BYTES: Final = 4
_CLUSTER_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Identity:
    """What ``node.json`` says.

    Attributes:
        node: the node's name.
        incarnation: 8 hexadecimal digits, empty for a node that never looked for a cluster.
        cluster: the cluster's id, empty if it has none yet.
        members: the members with which its log begins; empty for a node that joined later.
        initialised: whether its log was begun.
    """

    node: str
    incarnation: str = ""
    cluster: str = ""
    members: Membership = field(default_factory=Membership)
    initialised: bool = False

    @property
    def member_id(self) -> str:
        """Its id in the cluster."""
        return f"{self.node}.{self.incarnation}"

    @property
    def bootstrap(self) -> SnapshotMeta | None:
        """What its log begins after; None if it was begun already."""
        return None if self.initialised else bootstrap_snapshot(self.members)

    def with_incarnation(self) -> Identity:
        """The same with an incarnation: its own, or a new one."""
        return self if self.incarnation else replace(self, incarnation=secrets.token_hex(_INCARNATION_BYTES))

    def in_cluster(self, cluster: str, members: Membership) -> Identity:
        """The same as part of a cluster."""
        return replace(self, cluster=cluster, members=members)

    def begun(self) -> Identity:
        """The same with its log begun."""
        return replace(self, initialised=True)


def new_cluster_id() -> str:
    """An id that no other cluster has."""
    return secrets.token_hex(_CLUSTER_BYTES)


def name_of(member_id: str) -> str:
    """The name in a member's id."""
    return member_id.rpartition(".")[0] or member_id


def member_info(name: str, address: str) -> str:
    """What a membership says of a member."""
    return json.dumps({"name": name, "address": address})


def address_of(membership: Membership, member_id: str) -> str | None:
    """Where a member listens, None if the membership does not say it."""
    return addresses_of(membership).get(member_id)


def addresses_of(membership: Membership) -> dict[str, str]:
    """Where the members listen, by their ids."""
    found: dict[str, str] = {}
    for member_id, text in membership.info:
        try:
            address = json.loads(text).get("address")
        except (ValueError, AttributeError):
            continue
        if isinstance(address, str) and address:
            found[member_id] = address
    return found


def read_identity(disk: Disk, name: str = IDENTITY_FILE) -> Identity | None:
    """What the file says; None if there is none.

    Raises:
        ForeignStore: it is not ours, or of a newer release.
        DiskFailed: it cannot be read.
    """
    if not disk.exists(name):
        return None
    try:
        found = json.loads(read_file(disk, name))
    except ValueError as error:
        raise ForeignStore(f"{name} cannot be read: {error}. Is this the data folder of a node?") from error
    if not isinstance(found, dict) or not isinstance(found.get("node"), str):
        raise ForeignStore(f"{name} is not the identity of a node. Use another data folder.")
    if found.get("format") == FORMAT_ALONE:
        return Identity(found["node"])
    if found.get("format") != FORMAT_CLUSTER:
        raise ForeignStore(
            f"{name} has format {found.get('format')!r:.40}, and this release knows {FORMAT_ALONE} and {FORMAT_CLUSTER}. "
            "Use the release that made it, or a newer one."
        )
    try:
        return _from_fields(found)
    except (KeyError, TypeError, ValueError, BadMessage) as error:
        raise ForeignStore(f"{name} is damaged: {error!r:.100}. It was not touched.") from error


def _from_fields(fields: dict[str, Any]) -> Identity:
    node, incarnation, cluster = texts = [fields[name] for name in ("node", "incarnation", "cluster")]
    if not all(isinstance(text, str) for text in texts) or not isinstance(fields["initialised"], bool):
        raise TypeError("a field is of a wrong type")
    members = membership_from_bytes(json.dumps(fields["members"]).encode())
    return Identity(node, incarnation, cluster, members, fields["initialised"])


def write_identity(disk: Disk, identity: Identity, name: str = IDENTITY_FILE) -> None:
    """Write it durably: a crash leaves the old one or the new one.

    Raises:
        NoSpace, DiskFailed: the old one stands.
    """
    fields: dict[str, Any] = {"format": FORMAT_ALONE, "node": identity.node}
    if identity.incarnation:
        fields = {
            "format": FORMAT_CLUSTER,
            "node": identity.node,
            "incarnation": identity.incarnation,
            "cluster": identity.cluster,
            "members": identity.members,
            "initialised": identity.initialised,
        }
    replace_file(disk, name, json.dumps(fields).encode() + b"\n")

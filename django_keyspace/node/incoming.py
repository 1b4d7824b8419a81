"""What other nodes send: messages of the core, and the frames about snapshots."""

from __future__ import annotations

from typing import Any, Final

from django_keyspace.node.raft import AppendRequest, BadMessage, Message, SnapshotRequest, from_wire

RAFT: Final = "raft"
"""First word of a frame with a message of the core."""


def core_message(sender: str, frame: tuple[Any, ...]) -> Message:
    """The message of the core in a frame.

    Arguments:
        sender: who sent it, as the link knows.
        frame: its first word is :data:`RAFT`.
    Raises:
        BadMessage: it makes no sense, or is not of that sender.
    """
    message = from_wire(frame[1:])
    if message.sender != sender:
        raise BadMessage(f"{sender} sent a message of {message.sender}.")
    if isinstance(message, SnapshotRequest):
        raise BadMessage(f"{sender} sent a request for a snapshot without the snapshot.")
    return message


def needs_room(message: Message) -> bool:
    """Whether the disk must have room for it."""
    return isinstance(message, AppendRequest) and bool(message.entries)

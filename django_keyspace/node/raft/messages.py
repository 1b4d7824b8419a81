"""Entries and the messages between nodes, and their wire form: plain tuples of numbers, text, bytes and tuples.

Every message begins with `to`, `sender` and `term`. The term is always the sender's own current term, also in a
pre-vote, which names the term it asks about separately.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from .errors import BadMessage
from .membership import NODE_CHARACTERS_MAX, Membership, membership_from_bytes, membership_from_wire

NOOP: Final = 0
"""An entry without data, with which a leader begins its term."""
COMMANDS: Final = 1
"""An entry of the driver's; the core does not look into it."""
CHANGE: Final = 2
"""An entry that holds a whole membership."""
KINDS: Final = frozenset({NOOP, COMMANDS, CHANGE})

ENTRY_OVERHEAD_BYTES: Final = 32
"""What an entry without data counts in every bound in bytes."""
NUMBER_MAX: Final = 2**63 - 1


class Entry(NamedTuple):
    """One place in the log.

    Attributes:
        index: its place, from 1.
        term: the term of the leader that made it.
        kind: :data:`NOOP`, :data:`COMMANDS` or :data:`CHANGE`.
        data: bytes.
    """

    index: int  # type: ignore[assignment]  # tuple.index is not needed here
    term: int
    kind: int
    data: bytes

    @property
    def size_bytes(self) -> int:
        """What it counts in bounds."""
        return len(self.data) + ENTRY_OVERHEAD_BYTES


class SnapshotMeta(NamedTuple):
    """What a snapshot stands for: the log up to `index`, whose term is `term`, and the membership there."""

    index: int  # type: ignore[assignment]  # tuple.index is not needed here
    term: int
    membership: Membership


class PreVoteRequest(NamedTuple):
    """Would you vote for me in `next_term`? Changes nothing at the receiver. `attempt` is drawn anew each time."""

    to: str
    sender: str
    term: int
    next_term: int
    last_index: int
    last_term: int
    attempt: int


class PreVoteResponse(NamedTuple):
    """The answer to the pre-vote with that `attempt`."""

    to: str
    sender: str
    term: int
    attempt: int
    granted: bool


class VoteRequest(NamedTuple):
    """Vote for me in `term`. `forced`: the leader itself asked for this election, by :class:`TimeoutNow`."""

    to: str
    sender: str
    term: int
    last_index: int
    last_term: int
    forced: bool


class VoteResponse(NamedTuple):
    """The answer, and the log time that the voter has seen: a new leader goes on from the latest."""

    to: str
    sender: str
    term: int
    granted: bool
    log_time_ms: int


class AppendRequest(NamedTuple):
    """Entries that follow (`prev_index`, `prev_term`), perhaps none, and how far the leader has committed."""

    to: str
    sender: str
    term: int
    prev_index: int
    prev_term: int
    entries: tuple[Entry, ...]
    commit: int


class AppendResponse(NamedTuple):
    """The answer to an append or a snapshot.

    Attributes:
        accepted: the receiver's log is durable and equal to the leader's up to `index`. Otherwise `index` is the
            `prev_index` that did not match, and the hint is the receiver's last place that might.
    """

    to: str
    sender: str
    term: int
    accepted: bool
    index: int  # type: ignore[assignment]  # tuple.index is not needed here
    hint_index: int
    hint_term: int


class Heartbeat(NamedTuple):
    """I lead. `round` 0 wants no answer: it only tells the commit index. `commit` is never above the receiver's match.

    Nothing behind `leader_commit` was ever acknowledged to anybody, as far as this leader and those before it are concerned. The
    core does not look at it: a receiver may compare it with what it has applied.
    """

    to: str
    sender: str
    term: int
    commit: int
    round: int
    log_time_ms: int
    leader_commit: int


class HeartbeatResponse(NamedTuple):
    """You still led, as far as I knew, when I got the heartbeat of that `round`."""

    to: str
    sender: str
    term: int
    round: int
    log_time_ms: int


class SnapshotRequest(NamedTuple):
    """You are behind the beginning of my log: take this snapshot. Its bytes travel outside of the core."""

    to: str
    sender: str
    term: int
    snapshot: SnapshotMeta


class TimeoutNow(NamedTuple):
    """Hold an election at once: I hand leadership over to you."""

    to: str
    sender: str
    term: int


Message = (
    PreVoteRequest
    | PreVoteResponse
    | VoteRequest
    | VoteResponse
    | AppendRequest
    | AppendResponse
    | Heartbeat
    | HeartbeatResponse
    | SnapshotRequest
    | TimeoutNow
)

# --- Wire form --------------------------------------------------------------------------------------------------------


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= NUMBER_MAX:
        raise BadMessage(f"{value!r:.40} is not a number between 0 and 2**63.")
    return value


def _node(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= NODE_CHARACTERS_MAX:
        raise BadMessage(f"{value!r:.40} is not a node's id.")
    return value


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise BadMessage(f"{value!r:.40} is not true or false.")
    return value


def _entries(value: Any) -> tuple[Entry, ...]:
    if not isinstance(value, tuple | list):
        raise BadMessage("Entries are a list.")
    return tuple(entry_from_wire(item) for item in value)


def _snapshot(value: Any) -> SnapshotMeta:
    if not isinstance(value, tuple | list) or len(value) != 3:
        raise BadMessage("A snapshot's description has three parts.")
    return SnapshotMeta(_number(value[0]), _number(value[1]), membership_from_wire(value[2]))


def entry_from_wire(value: Any) -> Entry:
    """Check and rebuild an entry from a tuple or list of its four fields.

    Raises:
        BadMessage: it is not one, or of a kind that this version does not know.
    """
    if not isinstance(value, tuple | list) or len(value) != 4:
        raise BadMessage("An entry has four parts.")
    index, term, kind, data = value
    if _number(kind) not in KINDS:
        raise BadMessage(
            f"This version does not know entries of kind {kind}: a newer one leads the cluster. Upgrade this node."
        )
    if type(data) is not bytes:
        raise BadMessage("The data of an entry is bytes.")
    if kind == CHANGE:
        membership_from_bytes(data)
    return Entry(_number(index), _number(term), kind, data)


_ADDRESS: Final = (_node, _node, _number)
_FIELDS: Final[dict[type[Any], tuple[Callable[[Any], Any], ...]]] = {
    PreVoteRequest: (*_ADDRESS, _number, _number, _number, _number),
    PreVoteResponse: (*_ADDRESS, _number, _flag),
    VoteRequest: (*_ADDRESS, _number, _number, _flag),
    VoteResponse: (*_ADDRESS, _flag, _number),
    AppendRequest: (*_ADDRESS, _number, _number, _entries, _number),
    AppendResponse: (*_ADDRESS, _flag, _number, _number, _number),
    Heartbeat: (*_ADDRESS, _number, _number, _number, _number),
    HeartbeatResponse: (*_ADDRESS, _number, _number),
    SnapshotRequest: (*_ADDRESS, _snapshot),
    TimeoutNow: _ADDRESS,
}
"""What each field of each message has to be. The place of a class in this table is its code on the wire: append only."""
_CLASSES: Final = tuple(_FIELDS)
_CODES: Final = {cls: code for code, cls in enumerate(_CLASSES)}
_TYPES: Final[dict[Any, type[Any]]] = {_node: str, _number: int, _flag: bool}
_SHAPES: Final = tuple(
    (int, *[_TYPES[check] for check in checks]) if set(checks) <= set(_TYPES) else None for checks in _FIELDS.values()
)
"""By code: the types of the whole wire form of a message that is nothing but two nodes, numbers and flags; None for others."""


def code_of(kind: type[Any]) -> int:
    """The first part of the wire form of all messages of a class."""
    return _CODES[kind]


def to_wire(message: Message) -> tuple[Any, ...]:
    """A message as nested plain tuples: a code and its fields."""
    code = _CODES[type(message)]
    if isinstance(message, AppendRequest):
        return (code, *message[:5], tuple(map(tuple, message.entries)), message.commit)
    if isinstance(message, SnapshotRequest):
        index, term, membership = message.snapshot
        return (code, *message[:3], (index, term, tuple(membership)))
    return (code, *message)


def from_wire(value: Any) -> Message:
    """Check and rebuild a message from what :func:`to_wire` made; lists may stand for tuples.

    Raises:
        BadMessage: it is not a message of this version.
    """
    if (
        not isinstance(value, tuple | list)
        or not value
        or type(value[0]) is not int
        or not 0 <= value[0] < len(_CLASSES)
    ):
        raise BadMessage("This is not a message between nodes of this version.")
    cls = _CLASSES[value[0]]
    if _is_plain(value):
        plain: Message = cls(*value[1:])
        return plain
    checks = _FIELDS[cls]
    if len(value) != len(checks) + 1:
        raise BadMessage(f"A {cls.__name__} has {len(checks)} fields, not {len(value) - 1}.")
    message: Message = cls(*[check(field) for check, field in zip(checks, value[1:], strict=True)])
    if isinstance(message, AppendRequest):
        _require_sequence(message)
    return message


def _is_plain(value: Any) -> bool:
    """Whether a message surely passes the checks of its fields: they are most of what a node gets, and are looked at as one."""
    return (
        tuple(map(type, value)) == _SHAPES[value[0]]
        and 0 < len(value[1]) <= NODE_CHARACTERS_MAX
        and 0 < len(value[2]) <= NODE_CHARACTERS_MAX
        and min(value[3:]) >= 0
        and max(value[3:]) <= NUMBER_MAX
    )


def _require_sequence(message: AppendRequest) -> None:
    """Entries follow each other, and none is of a term that has not begun."""
    index, term = message.prev_index, message.prev_term
    for entry in message.entries:
        if entry.index != index + 1 or not term <= entry.term <= message.term:
            raise BadMessage(f"Entry {entry.index} of term {entry.term} cannot follow ({index}, {term}).")
        index, term = entry.index, entry.term

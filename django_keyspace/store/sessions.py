"""The exactly-once table: what became of the writes that a client may have to send again.

A client names each write by its session, a sequence number, and the lowest sequence whose answer it still waits for. The
operation ``once`` applies the write and keeps its result, in the same transaction. A sequence that comes again gets the kept
result and is not applied again; one below the lowest is over. So a write happens once, whatever is sent twice, and whoever
is killed in between.

=============================  =========================================================================================
``session``                    when it was last used (log time), its lowest sequence, and its small results, one after the
                               other
``session`` + ``sequence``     a result of more than :data:`SMALL_BYTES_MAX` bytes, by itself
=============================  =========================================================================================

A transaction with many writes of a session puts its record once. Whatever the client has acknowledged goes with the next
one that is put.

A session's id begins with its *birth*: the log time that the node told the client in its hello. There is no call that
opens a session: its first write does. That is safe because a session ends :data:`EXPIRY_MS` after its last use, which is
not before its birth. So an unknown session that was born later than that was never here, and an older one is refused: it may
have been.

Writes that changed nothing are kept only when they were sent again (``again``): before that, doing them at a later
moment is as good. After that it is not, since the first copy may come later than the second.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from django_keyspace.exceptions import (
    InvalidArgument,
    LocalError,
    Overloaded,
    SessionExpired,
    StaleSequence,
    UnknownOutcome,
    error_from_code,
)
from django_keyspace.operations import SESSION_ID_BYTES, SESSION_WINDOW, Call

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django_keyspace.store.context import WriteContext

EXPIRY_MS: Final = 3_600_000
"""A session ends so long after its last use, by the log clock."""
SESSIONS_MAX: Final = 65_536
"""More records than this, and no new session begins."""
SMALL_BYTES_MAX: Final = 256
"""A larger result has a record of its own."""
SESSION_BYTES_MAX: Final = 4 * 2**20
"""What the results of one session may take. Of a result beyond, only the fact is kept that the write was done."""
STORE_SHARE: Final = 16
"""Large results of all sessions together may take one part in so many of ``max_bytes`` before no more of them are kept."""
_CACHED_MAX: Final = 4_096

_HEAD = struct.Struct("<QQ")
_SMALL = struct.Struct("<QH")
_BIRTH = struct.Struct(">Q")
_SEQUENCE = struct.Struct(">Q")
_APART: Final = 0xFFFF
"""In the place of a small result's length: it has a record of its own."""
_LOST: Final = b"L"
"""A result that was too large to be kept."""


class Session:
    """What is kept of one session.

    Attributes:
        used_ms: log time of the last write that was kept, or the birth if that is later.
        lowest: sequences below are over.
        small: by sequence, how the record says it: sequence, length, result.
        apart: bytes of each result that has a record of its own, by sequence.
    """

    __slots__ = ("apart", "lowest", "small", "used_ms")

    def __init__(self, used_ms: int, lowest: int) -> None:
        self.used_ms = used_ms
        self.lowest = lowest
        self.small: dict[int, bytes] = {}
        self.apart: dict[int, int] = {}

    def pack(self) -> bytes:
        """The session's record."""
        return b"".join((_HEAD.pack(self.used_ms, self.lowest), *self.small.values()))

    @classmethod
    def unpack(cls, record: bytes) -> Session:
        """The session in a record."""
        found = cls(*_HEAD.unpack_from(record))
        at = _HEAD.size
        while at < len(record):
            sequence, length = _SMALL.unpack_from(record, at)
            if length == _APART:
                (found.apart[sequence],) = _SEQUENCE.unpack_from(record, at + _SMALL.size)
                length = _SEQUENCE.size
            end = at + _SMALL.size + length
            found.small[sequence] = record[at:end]
            at = end
        return found


Sessions = dict[bytes, Session]
"""Sessions as a process remembers them from one transaction to the next."""


def once(
    context: WriteContext,
    apply: Callable[[WriteContext, Call], Any],
    session_id: bytes,
    sequence: int,
    lowest: int,
    again: bool,
    call: Call,
    answer: bytes | None,
) -> Any:
    """Do a write, or say what became of it: see the operation ``once``.

    Arguments:
        context: the write transaction.
        apply: does an operation.
        session_id, sequence, lowest, again, call, answer: the operation's.
    Raises:
        SessionExpired, StaleSequence, Overloaded: nothing was done.
        UnknownOutcome: it was done before, and its result was too large to be kept.
        LocalError: what the write raises, or raised when it was done.
    """
    if not 0 <= sequence - lowest < SESSION_WINDOW:
        raise InvalidArgument(
            f"The sequence {sequence} is not among the {SESSION_WINDOW:,} from the lowest one, {lowest}. Nothing was changed."
        )
    session = context.sessions.get(session_id)
    if session is None or session.used_ms + EXPIRY_MS <= context.log_time_ms:
        session = _find(context, session_id)
    if session is not None:
        if sequence < session.lowest:
            raise StaleSequence(
                f"Sequence {sequence} of this session is over: its client waits for {session.lowest} and later ones. Nothing "
                "was changed by this copy of it."
            )
        if sequence in session.small:
            return _kept_result(context, session_id, session, sequence)
    changed, context.changed = context.changed, False
    try:
        result = apply(context, call)
    except LocalError as error:
        if not again or answer is not None:
            context.changed |= changed
            raise
        result = error
    if answer is not None:
        if not result[0]:
            context.changed |= changed
            return None  # something came between what a script had read and this; it runs again
        result = answer
    if context.changed or again:
        _keep(context, session_id, session, sequence, lowest, result)
    context.changed |= changed
    if isinstance(result, LocalError):
        raise result
    return result


def is_kept(context: WriteContext, call: Call) -> bool:
    """Whether an operation is a ``once`` that was done before: it needs no space any more."""
    if call[0] != "once":
        return False
    record = context.txn.get(call[1], db=context.store.sessions)
    return record is not None and call[2] in Session.unpack(record).small


def kept_answer(txn: Any, environment: Any, session_id: bytes, sequence: int) -> Any:
    """What is kept of a script's call: its result, or None."""
    record = txn.get(session_id, db=environment.sessions)
    if record is None:
        return None
    session = Session.unpack(record)
    return _read_result(txn, environment, session_id, session, sequence) if sequence in session.small else None


def flush(context: WriteContext) -> None:
    """Put the sessions that a transaction has used, just before it is committed."""
    put, handle = context.txn.put, context.store.sessions
    for session_id in sorted(context.used_sessions):  # in an order that is the same everywhere
        put(session_id, context.sessions[session_id].pack(), True, True, False, handle)


def remembered(context: WriteContext) -> Sessions:
    """What to remember after a commit."""
    return context.sessions if len(context.sessions) <= _CACHED_MAX else {}


# ------------------------------------------------------------------------------------------------------- expiry


def due(txn: Any, environment: Any, now_ms: int, most: int) -> list[bytes]:
    """Ids of sessions that have ended, at most so many. Writes nothing."""
    found: list[bytes] = []
    if not txn.stat(environment.sessions)["entries"]:
        return found
    for key, record in txn.cursor(db=environment.sessions):
        if len(key) == SESSION_ID_BYTES and _HEAD.unpack_from(record)[0] + EXPIRY_MS <= now_ms:
            found.append(bytes(key))
            if len(found) >= most:
                break
    return found


def expire(context: WriteContext, session_ids: Sequence[bytes]) -> int:
    """Delete those of the sessions that have ended by the log clock. Their number."""
    expired = 0
    for session_id in session_ids:
        session = _load(context, session_id)
        if session is None or session.used_ms + EXPIRY_MS > context.log_time_ms:
            continue
        _delete_apart(context, session_id, session, list(session.apart))
        context.txn.delete(session_id, db=context.store.sessions)
        del context.sessions[session_id]
        context.used_sessions.discard(session_id)
        context.changed = True
        expired += 1
    return expired


# ------------------------------------------------------------------------------------------------------- the table


def _load(context: WriteContext, session_id: bytes) -> Session | None:
    session = context.sessions.get(session_id)
    if session is None:
        record = context.txn.get(session_id, db=context.store.sessions)
        if record is not None:
            session = context.sessions[session_id] = Session.unpack(record)
    return session


def _find(context: WriteContext, session_id: bytes) -> Session | None:
    """The session, None for a new one. Raises SessionExpired, and Overloaded where no new one may begin."""
    session, now_ms = _load(context, session_id), context.log_time_ms
    if session is not None:
        if session.used_ms + EXPIRY_MS > now_ms:
            return session
    else:
        (birth_ms,) = _BIRTH.unpack_from(session_id)
        if now_ms - EXPIRY_MS < birth_ms <= now_ms + EXPIRY_MS:
            if context.txn.stat(context.store.sessions)["entries"] + len(context.used_sessions) < SESSIONS_MAX:
                return None
            raise Overloaded(
                f"The store keeps the results of {SESSIONS_MAX:,} sessions already. Nothing was done. Try again later."
            )
    raise SessionExpired("The session of this write has ended, or was never here. Nothing was changed by it.")


def _keep(
    context: WriteContext, session_id: bytes, session: Session | None, sequence: int, lowest: int, result: Any
) -> None:
    if session is None:
        (birth_ms,) = _BIRTH.unpack_from(session_id)
        session = context.sessions[session_id] = Session(birth_ms, lowest)
    if context.log_time_ms > session.used_ms:
        session.used_ms = context.log_time_ms
    if lowest > session.lowest:
        _forget_below(context, session_id, session, lowest)
    content = b"T" if result is True else encode(result)
    if len(content) > SMALL_BYTES_MAX and not _has_room(context, session, len(content)):
        content = _LOST
    if len(content) <= SMALL_BYTES_MAX:
        session.small[sequence] = _SMALL.pack(sequence, len(content)) + content
    else:
        session.apart[sequence] = len(content)
        session.small[sequence] = _SMALL.pack(sequence, _APART) + _SEQUENCE.pack(len(content))
        context.txn.put(session_id + _SEQUENCE.pack(sequence), content, db=context.store.sessions)
        context.store.change_answers_bytes(context.txn, len(content))
        context.written_bytes += len(content)
    context.used_sessions.add(session_id)
    context.changed = True


def _has_room(context: WriteContext, session: Session, size_bytes: int) -> bool:
    if sum(session.apart.values()) + size_bytes > SESSION_BYTES_MAX:
        return False
    # Counted, not taken from pages: how they lie differs from node to node.
    used = context.store.answers_bytes(context.txn)
    return (used + size_bytes) * STORE_SHARE <= context.store.options.max_bytes


def _forget_below(context: WriteContext, session_id: bytes, session: Session, lowest: int) -> None:
    small = session.small
    if lowest - session.lowest == 1:  # what nearly always comes
        small.pop(session.lowest, None)
    elif lowest - session.lowest <= len(small):
        for sequence in range(session.lowest, lowest):
            small.pop(sequence, None)
    else:
        for sequence in [sequence for sequence in small if sequence < lowest]:
            del small[sequence]
    session.lowest = lowest
    if session.apart:
        _delete_apart(context, session_id, session, [sequence for sequence in session.apart if sequence < lowest])


def _delete_apart(context: WriteContext, session_id: bytes, session: Session, sequences: Iterable[int]) -> None:
    freed = 0
    for sequence in sequences:
        context.txn.delete(session_id + _SEQUENCE.pack(sequence), db=context.store.sessions)
        freed += session.apart.pop(sequence)
    if freed:
        context.store.change_answers_bytes(context.txn, -freed)


def _kept_result(context: WriteContext, session_id: bytes, session: Session, sequence: int) -> Any:
    result = _read_result(context.txn, context.store, session_id, session, sequence)
    if isinstance(result, LocalError):
        raise result
    return result


def _read_result(txn: Any, environment: Any, session_id: bytes, session: Session, sequence: int) -> Any:
    content = session.small[sequence][_SMALL.size :]
    if sequence in session.apart:
        content = txn.get(session_id + _SEQUENCE.pack(sequence), db=environment.sessions)
    if content == _LOST:
        raise UnknownOutcome(
            "The write was done, once. Its answer was lost, and was too large to be kept: read the keys to see what it did."
        )
    return decode(content)


# ------------------------------------------------------------------------------------------------------- results

_FLOAT = struct.Struct("<d")
_LENGTH = struct.Struct("<I")
_CONSTANTS: Final[dict[Any, bytes]] = {None: b"N", True: b"T", False: b"F"}


def encode(result: Any) -> bytes:
    """The bytes of a result: what operations answer, or a :class:`LocalError`."""
    kind = type(result)
    if result is None or kind is bool:
        return _CONSTANTS[result]
    if isinstance(result, int):
        return b"i%d" % result
    if isinstance(result, bytes):
        return b"b" + result
    if isinstance(result, str):
        return b"s" + result.encode("utf-8", "surrogatepass")
    if kind is float:
        return b"f" + _FLOAT.pack(result)
    if isinstance(result, LocalError):
        return b"e" + b"".join(_framed([encode(result.code), encode(str(result))]))
    if kind is dict:
        return b"d" + b"".join(_framed(encode(part) for item in result.items() for part in item))
    return (b"t" if kind is tuple else b"l") + b"".join(_framed(map(encode, result)))


def _framed(parts: Iterable[bytes]) -> Iterator[bytes]:
    for part in parts:
        yield _LENGTH.pack(len(part))
        yield part


def decode(content: bytes) -> Any:
    """The result in bytes that :func:`encode` has made."""
    letter, rest = content[:1], content[1:]
    if letter in _PLAIN:
        return _PLAIN[letter](rest)
    parts = []
    at = 0
    while at < len(rest):
        end = at + _LENGTH.size + _LENGTH.unpack_from(rest, at)[0]
        parts.append(decode(rest[at + _LENGTH.size : end]))
        at = end
    if letter == b"e":
        return error_from_code(*parts)
    if letter == b"d":
        return dict(zip(parts[::2], parts[1::2], strict=True))
    return tuple(parts) if letter == b"t" else parts


_PLAIN: Final[dict[bytes, Callable[[bytes], Any]]] = {
    b"N": lambda rest: None,
    b"T": lambda rest: True,
    b"F": lambda rest: False,
    b"i": int,
    b"b": bytes,
    b"s": lambda rest: rest.decode("utf-8", "surrogatepass"),
    b"f": lambda rest: _FLOAT.unpack(rest)[0],
}

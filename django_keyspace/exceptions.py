"""The one public tree of errors.

Every error that leaves this package is a :class:`KeyspaceError`: nothing from lmdb, msgpack, ssl or asyncio leaks out.
The four branches say whose turn it is:

- :class:`LocalError`: the caller's argument or the key's current state does not allow the call; nothing was changed.
- :class:`StorageError`: this machine's store cannot do it (full, locked, damaged, not ours).
- :class:`TransportError`: no node answered, or what it answered was not the protocol; nothing was changed, as far as known.
- :class:`UnknownOutcome`: a write was sent and its answer was lost: it may or may not have happened.

Classes also derive from the built-in error that Django users already catch (``ValueError``, ``TypeError``,
``TimeoutError``), so that ``cache.incr("missing")`` is a ``ValueError`` as Django documents.

Each class has a ``code``: the word that stands for it on the wire. :data:`ERRORS_BY_CODE` is that table.
"""

from __future__ import annotations

from typing import ClassVar


class KeyspaceError(Exception):
    """Base of all errors of this package."""

    code: ClassVar[str] = "error"


class LocalError(KeyspaceError):
    """The call cannot be done as asked; nothing was changed."""

    code = "refused"


class InvalidArgument(LocalError, ValueError):
    """An argument has a value that the operation does not accept."""

    code = "invalid-argument"


class InvalidKey(InvalidArgument):
    """A key is empty, or of a wrong type."""

    code = "invalid-key"


class KeyTooLong(InvalidKey):
    """A key is longer than the store's limit (1,024 bytes)."""

    code = "key-too-long"


class ValueTooLarge(InvalidArgument):
    """A value is larger than the configured limit (64 MiB by default)."""

    code = "value-too-large"


class UnknownOperation(LocalError, ValueError):
    """No operation has this name: the other side speaks a newer protocol, or the frame is garbage."""

    code = "unknown-operation"


class MissingKey(LocalError, ValueError):
    """The operation needs an existing key, and there is none. (``ValueError``, as Django's ``incr`` documents.)"""

    code = "missing-key"


class NotANumber(LocalError, ValueError, TypeError):
    """The value under the key is not a number of the kind that the operation counts."""

    code = "not-a-number"


class NumberOverflow(LocalError, ValueError, OverflowError):
    """The result would leave the signed 64-bit range, or would not be a finite float."""

    code = "number-overflow"


class WrongType(LocalError, TypeError):
    """The value under the key has another type than the operation needs."""

    code = "wrong-type"


class CannotSerialize(LocalError, TypeError):
    """The alias's serializer does not take this value."""

    code = "cannot-serialize"


class ConditionFailed(LocalError):
    """A condition of an ``atomic`` block did not hold; none of its operations was done."""

    code = "condition-failed"


class ChangeRefused(LocalError):
    """The members of the cluster cannot be changed like this, or not now, or nobody can take over. Nothing was changed."""

    code = "change-refused"


class LockNotAcquired(LocalError):
    """Somebody else holds the lock, and did not let go of it within the time that the caller would wait."""

    code = "lock-not-acquired"


class LockLost(LocalError):
    """The lease is not the caller's any more: it ran out, was taken away, or was never acquired. Others may hold the lock."""

    code = "lock-lost"


class NotSupported(LocalError):
    """This alias cannot do that as it is configured."""

    code = "not-supported"


class ScriptError(LocalError):
    """A script was not carried out to its end. Nothing that it did was kept."""

    code = "script"


class ScriptSyntaxError(ScriptError, ValueError):
    """A script's source does not compile."""

    code = "script-syntax"


class UnknownScript(ScriptError, LookupError):
    """No script that is loaded, and no library, has a function of this name."""

    code = "unknown-script"


class ScriptFailed(ScriptError):
    """The script raised an error; the message has it, with file and line."""

    code = "script-failed"


class ScriptTimeout(ScriptError, TimeoutError):
    """The script was stopped because its time was over."""

    code = "script-timeout"


class ScriptLimit(ScriptError):
    """The script wanted more memory, more database calls, or to hand over more than scripts may."""

    code = "script-limit"


class ScriptConflict(ScriptError):
    """Whatever the script had read was changed each time before what it wrote could be stored. Call it again."""

    code = "script-conflict"


class ConfigurationError(KeyspaceError, ValueError):
    """A setting is unknown, contradicts another one, or cannot be used on this machine."""

    code = "configuration"


class StorageError(KeyspaceError):
    """The store of this machine, or of the node, cannot carry out the operation."""

    code = "storage"


class NoSpace(StorageError):
    """The store is at its limit and holds nothing that may be evicted; deletes and reads still work."""

    code = "no-space"


class LockTimeout(StorageError, TimeoutError):
    """Another process or thread held the writer lock for longer than this call may wait; nothing was written."""

    code = "lock-timeout"


class DamagedStore(StorageError):
    """The store's files are damaged, and it holds records that must not be dropped silently."""

    code = "damaged-store"


class UncleanStore(StorageError):
    """The machine went down while the store held unsynced writes, and it holds records that must not be dropped."""

    code = "unclean-store"


class DiskFailed(StorageError):
    """The disk refused a read, a write or a sync. A node stops then: only a new process can find out what was kept."""

    code = "disk-failed"


class DamagedJournal(StorageError):
    """The journal of a node lacks something that the node had promised to keep, so it must not take part as if it had it."""

    code = "damaged-journal"


class DamagedSnapshot(StorageError):
    """A snapshot is incomplete, or its bytes are not those that were written; it is not used."""

    code = "damaged-snapshot"


class ForeignStore(StorageError):
    """The folder holds a database that this package did not make, or one of a newer format."""

    code = "foreign-store"


class UnsafeFork(StorageError):
    """This process was forked in mid-transaction by a program that does not announce its forks to Python."""

    code = "unsafe-fork"


class TransportError(KeyspaceError):
    """The node could not be reached, or the connection broke before the operation was sent.

    Attributes:
        reached: whether a node had been met when it happened: it was there, and then it did not answer.
    """

    code = "transport"
    reached: bool = False


class NoConnection(TransportError, ConnectionError):
    """No node answers at the address."""

    code = "no-connection"


class DeadlineExceeded(TransportError, TimeoutError):
    """The call's time was over before an answer came. Only for reads and for writes that were never sent."""

    code = "deadline-exceeded"


class ProtocolError(TransportError):
    """The other side sent something that is not this protocol, or a frame above the size limit."""

    code = "protocol"


class AuthenticationFailed(KeyspaceError):
    """The other side does not know the secret, or this side has none where one is wanted. Nothing was done."""

    code = "authentication-failed"


class PeerRefused(TransportError):
    """A node does not take another one for a member of its cluster: it is of another one, or it lost its data."""

    code = "peer-refused"


class NodeRemoved(PeerRefused):
    """The node was a member of the cluster and was removed from it; its id is never used again."""

    code = "node-removed"


class NoLeader(TransportError):
    """No node that takes the call was found within the leader timeout; nothing was done.

    Attributes:
        took_all: whether the whole time of the call went by, not only its leader timeout.
    """

    code = "no-leader"
    took_all: bool = False


class NotLeader(TransportError):
    """This node does not lead its cluster, and only the leader does what was asked; nothing was done.

    Arguments:
        message: the sentence.
        leader: the id of the node that is believed to lead; it may be wrong.
        address: that node's address, if it is known.
    """

    code = "not-leader"

    def __init__(self, message: str = "", leader: str | None = None, address: str | None = None) -> None:
        super().__init__(message)
        self.leader = leader
        self.address = address


class LeadershipLost(TransportError):
    """The node ceased to lead before it knew what became of the write. Sent again under the same session, it happens once."""

    code = "leadership-lost"


class TooStale(TransportError):
    """This node's copy is older than the read allows; nothing was read. The leader, or another node, can answer."""

    code = "too-stale"


class Overloaded(TransportError):
    """The node has more work queued than it accepts; nothing was done. Try again later."""

    code = "overloaded"


class SessionExpired(TransportError):
    """The session of a write has ended, or the node never knew it; nothing was changed. Clients begin a new one."""

    code = "session-expired"


class StaleSequence(TransportError):
    """A copy of a write came after its client had stopped to wait for it; nothing was changed by this copy."""

    code = "stale-sequence"


class UnknownOutcome(KeyspaceError):
    """A write was sent, and there was no answer before the time was over, or its session is gone: it may have happened."""

    code = "unknown-outcome"


def _subclasses(cls: type[KeyspaceError]) -> list[type[KeyspaceError]]:
    found = [cls]
    for child in cls.__subclasses__():
        found.extend(_subclasses(child))
    return found


ERRORS_BY_CODE: dict[str, type[KeyspaceError]] = {cls.code: cls for cls in _subclasses(KeyspaceError)}
"""Every error class by the word that stands for it on the wire."""


def error_from_code(code: str, message: str) -> KeyspaceError:
    """The exception for a status word of the wire.

    Arguments:
        code: the status word of a reply.
        message: the sentence that came with it.
    Returns:
        An instance of the class with that code, of :class:`KeyspaceError` itself for a word from a newer release.
    """
    return ERRORS_BY_CODE.get(code, KeyspaceError)(message)

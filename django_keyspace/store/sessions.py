"""Every write once: what the writes of each client session have answered, kept in the same transaction as the data.

A client numbers the writes of its session, and says with each the lowest number whose answer it still waits for. Before
a write is done, :meth:`Sessions.admit` says whether it was done before; after it, :meth:`Sessions.record` keeps its
answer. Answers below the lowest number are dropped, and a write that turns up below it is not done any more: nobody waits
for it, and it might undo something newer. Like ``apply``, this is a pure function of the stored state and its arguments:
sessions end by log time.

One sub-database holds, by the first byte of the key:

===========================  ========================================================================================
``s`` session                the session's head: last use, time to live, lowest and highest number, answers kept, index entry
``r`` session, number        the answer of one write
``e`` time, session          nothing: where the sweep finds the session. Early, never late: the sweep moves it on
``n``                        how many sessions there are
===========================  ========================================================================================
"""

from __future__ import annotations

import struct
from enum import Enum
from typing import Any, Final, NamedTuple

from django_keyspace.exceptions import InvalidArgument, Overloaded, SessionExpired

SESSION_BYTES: Final = 16
RESULTS_MAX: Final = 1024
"""Answers kept per session. A client with so many writes unanswered has to wait."""
RESULT_BYTES_MAX: Final = 16 * 1024 * 1024
"""The same in bytes, before the write that is one too many."""
SESSIONS_MAX: Final = 100_000
SEQUENCE_MAX: Final = 2**63 - 1

_HEAD = struct.Struct("<QQQQIQQ")
_NUMBER = struct.Struct(">Q")
_COUNT_KEY: Final = b"n"


class Verdict(Enum):
    """What becomes of a write whose answer is not kept."""

    NEW = "new"
    """It was never done: do it, and record its answer."""
    FORGOTTEN = "forgotten"
    """The client has said that it does not wait for it: it is not done, whether it was done before or not."""


class Head(NamedTuple):
    """What is known of a session.

    Attributes:
        used_ms: the log clock at its last write.
        ttl_ms: how long after that it ends.
        lowest: the lowest number whose answer is waited for.
        highest: the highest number that was done.
        results: answers kept.
        result_bytes: their bytes.
        entry_ms: the time under which the sweep finds it.
    """

    used_ms: int
    ttl_ms: int
    lowest: int
    highest: int
    results: int
    result_bytes: int
    entry_ms: int

    def has_ended(self, log_ms: int) -> bool:
        """Whether the session is over."""
        return log_ms >= self.used_ms + self.ttl_ms


class Sessions:
    """The table in one write transaction.

    Arguments:
        txn: the transaction.
        handle: the sub-database.
        log_ms: the log clock of the transaction.
    """

    __slots__ = ("_handle", "_log_ms", "_txn")

    def __init__(self, txn: Any, handle: Any, log_ms: int) -> None:
        self._txn = txn
        self._handle = handle
        self._log_ms = log_ms

    def open(self, session: bytes, ttl_ms: int) -> None:
        """Begin a session. Doing it again changes nothing but its last use: the request may have been resent.

        Arguments:
            session: 16 random bytes of the client's choice.
            ttl_ms: how long it lives after its last use.
        Raises:
            InvalidArgument: these are no such bytes, or that is no such time.
            Overloaded: there are too many sessions.
        """
        if len(session) != SESSION_BYTES or not 0 < ttl_ms <= SEQUENCE_MAX:
            raise InvalidArgument(
                f"A session has {SESSION_BYTES} bytes and a time to live in milliseconds. Nothing was changed."
            )
        head = self.head(session)
        if head is not None and not head.has_ended(self._log_ms):
            self._put_head(session, head._replace(used_ms=max(head.used_ms, self._log_ms)))
            return
        if head is not None:
            self._end(session, head)
        count = self.count()
        if count >= SESSIONS_MAX:
            raise Overloaded(f"There are {count:,} client sessions already. Nothing was changed. Try again later.")
        self._put_count(count + 1)
        entry_ms = self._log_ms + ttl_ms
        self._txn.put(_entry_key(entry_ms, session), b"", db=self._handle)
        self._put_head(session, Head(self._log_ms, ttl_ms, 0, 0, 0, 0, entry_ms))

    def admit(self, session: bytes, sequence: int, lowest: int) -> bytes | Verdict:
        """Whether a write is to be done. Changes nothing.

        Arguments:
            session: whose write it is.
            sequence: its number, from 1.
            lowest: the lowest number whose answer the client waits for; at most ``sequence``.
        Returns:
            The answer of the write if it was done before; otherwise what becomes of it.
        Raises:
            SessionExpired: there is no such session any more. Whether the write was done before is not known.
            Overloaded: the session has too many answers that it has not acknowledged; the write is not done.
            InvalidArgument: the numbers do not make sense.
        """
        head = self._living(session)
        if not 0 < lowest <= sequence <= SEQUENCE_MAX:
            raise InvalidArgument(
                f"Write {sequence} of a session cannot come with lowest {lowest}. Nothing was changed."
            )
        if sequence < head.lowest:
            return Verdict.FORGOTTEN
        if sequence <= head.highest:
            result: bytes | None = self._txn.get(_result_key(session, sequence), db=self._handle)
            if result is not None:
                return result
        kept, kept_bytes = head.results, head.result_bytes
        if kept >= RESULTS_MAX or kept_bytes >= RESULT_BYTES_MAX:
            freed, freed_bytes = self._acknowledged(session, lowest)
            if kept - freed >= RESULTS_MAX or kept_bytes - freed_bytes >= RESULT_BYTES_MAX:
                raise Overloaded(
                    f"The session has {kept - freed:,} answers of {kept_bytes - freed_bytes:,} bytes that its client has not "
                    "acknowledged. Nothing was done. Send less at a time."
                )
        return Verdict.NEW

    def record(self, session: bytes, sequence: int, lowest: int, result: bytes) -> None:
        """Keep the answer of a write that :meth:`admit` called new, and drop those below ``lowest``.

        Arguments:
            session, sequence, lowest: as for :meth:`admit`.
            result: the answer; an error is an answer, too.
        """
        head = self._living(session)
        freed, freed_bytes = self._acknowledged(session, lowest, drop=True)
        self._txn.put(_result_key(session, sequence), result, db=self._handle)
        self._put_head(
            session,
            head._replace(
                used_ms=max(head.used_ms, self._log_ms),
                lowest=max(head.lowest, lowest),
                highest=max(head.highest, sequence),
                results=head.results - freed + 1,
                result_bytes=head.result_bytes - freed_bytes + len(result),
            ),
        )

    def close(self, session: bytes) -> bool:
        """End a session whose client says that it is done. Returns: whether there was one."""
        head = self.head(session)
        if head is not None:
            self._end(session, head)
        return head is not None

    def sweep(self, sessions_max: int) -> tuple[int, bool]:
        """End sessions that are over.

        Arguments:
            sessions_max: look at so many at most.
        Returns:
            How many were ended, and whether there may be more.
        """
        ended = 0
        due = _entry_key(self._log_ms + 1, b"")
        for _ in range(sessions_max):
            key = self._first_from(b"e")
            if key is None or key[:1] != b"e" or key >= due:
                return ended, False
            session = key[1 + _NUMBER.size :]
            head = self.head(session)
            if head is None or head.has_ended(self._log_ms):
                ended += self._end(session, head) if head is not None else 0
                self._txn.delete(key, db=self._handle)
                continue
            entry_ms = head.used_ms + head.ttl_ms
            self._txn.delete(key, db=self._handle)
            self._txn.put(_entry_key(entry_ms, session), b"", db=self._handle)
            self._put_head(session, head._replace(entry_ms=entry_ms))
        return ended, True

    def head(self, session: bytes) -> Head | None:
        """What is known of a session; None if it is not there."""
        data = self._txn.get(b"s" + session, db=self._handle)
        return None if data is None else Head(*_HEAD.unpack(data))

    def count(self) -> int:
        """How many sessions there are."""
        data = self._txn.get(_COUNT_KEY, db=self._handle)
        return int(_NUMBER.unpack(data)[0]) if data is not None else 0

    # ------------------------------------------------------------------------------------------------ inside

    def _living(self, session: bytes) -> Head:
        head = self.head(session)
        if head is None or head.has_ended(self._log_ms):
            raise SessionExpired("The client session has ended. Whether this write was done before is not known.")
        return head

    def _acknowledged(self, session: bytes, lowest: int, *, drop: bool = False) -> tuple[int, int]:
        """How many answers below ``lowest`` are kept, and their bytes; drop them if asked to."""
        count = size = 0
        prefix, until = b"r" + session, _result_key(session, lowest)
        with self._txn.cursor(db=self._handle) as cursor:
            found = cursor.set_range(prefix)
            while found and prefix <= cursor.key() < until:
                count += 1
                size += len(cursor.value())
                found = cursor.delete() and bool(cursor.key()) if drop else cursor.next()
        return count, size

    def _end(self, session: bytes, head: Head) -> int:
        self._acknowledged(session, SEQUENCE_MAX + 1, drop=True)
        self._txn.delete(b"s" + session, db=self._handle)
        self._txn.delete(_entry_key(head.entry_ms, session), db=self._handle)
        self._put_count(self.count() - 1)
        return 1

    def _first_from(self, start: bytes) -> bytes | None:
        with self._txn.cursor(db=self._handle) as cursor:
            return bytes(cursor.key()) if cursor.set_range(start) else None

    def _put_head(self, session: bytes, head: Head) -> None:
        self._txn.put(b"s" + session, _HEAD.pack(*head), db=self._handle)

    def _put_count(self, count: int) -> None:
        self._txn.put(_COUNT_KEY, _NUMBER.pack(count), db=self._handle)


def _result_key(session: bytes, sequence: int) -> bytes:
    return b"r" + session + _NUMBER.pack(sequence)


def _entry_key(time_ms: int, session: bytes) -> bytes:
    return b"e" + _NUMBER.pack(time_ms) + session

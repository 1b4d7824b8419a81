"""What a journal's files say, read from the first to the last when a node starts.

A tail that a crash can have left is cut: nobody was told of it. Everything else that is not whole is damage, and the node
must not start with it: it would have forgotten a vote or an entry that it had acknowledged. See ``records.py`` for how the two
are told apart within a file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from django_keyspace.exceptions import DamagedJournal
from django_keyspace.node.disk import DiskFile
from django_keyspace.node.journal.index import LogIndex, Place
from django_keyspace.node.journal.records import (
    ENTRY_HEAD,
    INDEX,
    PAIR,
    Kind,
    Record,
    Scan,
    SegmentHead,
    scan,
    unpack_state,
    used_bytes,
)
from django_keyspace.node.journal.segments import Segments

REMEDY: Final = "python -m django_keyspace.node --join HOST:PORT"


@dataclass
class Recovered:
    """What was found.

    Attributes:
        index: the log.
        term, vote, commit: the hard state.
        snapshot: the newest snapshot, as it stands in the journal.
        tail: the last file's scan.
        begins: for each file, the index that the next entry would have had when it was made.
        closed: the journal was closed in good order.
    """

    index: LogIndex
    term: int = 0
    vote: str = ""
    commit: int = 0
    snapshot: bytes = b""
    tail: Scan = field(default_factory=lambda: Scan([]))
    begins: dict[int, int] = field(default_factory=dict)
    closed: bool = False


class Recovery:
    """Reads a journal.

    Arguments:
        segments: its files.
        remedy: the command that makes a node join again, for the message.
    """

    def __init__(self, segments: Segments, remedy: str) -> None:
        self._segments = segments
        self._remedy = remedy
        self._state = Recovered(LogIndex())
        self._at = ""  # what is being read, for the message

    def run(self) -> Recovered:
        """Read everything, cut a torn tail, and make durable what was found.

        Raises:
            DamagedJournal: something is missing or was changed that this node had promised to keep.
            DiskFailed: a file cannot be read.
        """
        numbers = self._current_files()
        previous = batch = None
        for number in numbers:
            self._at = f"In {self._segments.name(number)}"
            file = self._segments.open(number)
            data = file.read_at(0, file.size)
            found = scan(data, number, previous, batch)
            self._require_whole(found, len(data), is_last=number == numbers[-1])
            for records in found.batches:
                for offset, record in records:
                    self._replay(number, offset, record)
                self._state.closed = records[0][1].kind == Kind.CLOSED
            previous, batch = found.previous, found.batch
            self._state.tail = found
        self._at = "In the journal as a whole"
        self._require_complete()
        self._settle_tail(file, data)
        return self._state

    def _current_files(self) -> list[int]:
        """The files that follow each other up to the last. Others are left over from a removal that a crash undid."""
        numbers = self._segments.found()
        first = next((at for at in range(len(numbers) - 1, 0, -1) if numbers[at - 1] != numbers[at] - 1), 0)
        return numbers[first:]

    def damaged(self, reason: str) -> DamagedJournal:
        """The error for a reason."""
        return DamagedJournal(
            f"The journal of this node is damaged. {self._at}: {reason}. A vote or entries that this node has acknowledged may "
            "be missing, so it must not take part as if it had them, and does not start. Nothing was changed. To let it join "
            f"again as a fresh learner: {self._remedy}"
        )

    def _require_whole(self, found: Scan, size_bytes: int, *, is_last: bool) -> None:
        if found.damage is not None:
            raise self.damaged(found.damage)
        if not found.batches or found.batches[0][0][1].kind != Kind.SEGMENT:
            raise self.damaged("the file does not begin as a segment does")
        if found.torn and not is_last:
            raise self.damaged(f"what follows byte {found.end:,} is not whole, though a later file was begun")
        expected_bytes = SegmentHead.unpack(found.batches[0][0][1].body).size_bytes
        if size_bytes < expected_bytes:
            raise self.damaged(f"the file has {size_bytes:,} bytes of {expected_bytes:,}")

    def _replay(self, number: int, offset: int, record: Record) -> None:
        """Do again what a record says was done."""
        state, body, kind = self._state, record.body, record.kind
        if kind == Kind.ENTRY:
            self._replay_entry(Place(number, offset, len(body)), body)
        elif kind == Kind.COMMIT:
            (commit,) = INDEX.unpack(body)
            if commit < state.commit:
                raise self.damaged(f"the commit index falls from {state.commit} to {commit}")
            state.commit = commit
        elif kind == Kind.STATE:
            term, vote = unpack_state(body)
            if term < state.term:
                raise self.damaged(f"the term falls from {state.term} to {term}")
            state.term, state.vote = term, vote
        elif kind == Kind.SEGMENT:
            self._replay_head(number, SegmentHead.unpack(body))
        elif kind == Kind.BASE:
            self._forget(*PAIR.unpack(body))
        elif kind in (Kind.SNAPSHOT, Kind.RESET):
            state.snapshot = body
            if kind == Kind.RESET:
                index, term = PAIR.unpack_from(body)
                state.index.reset(index, term)
        elif kind != Kind.CLOSED:
            raise self.damaged(f"there is a record of kind {kind}, which this release does not know")

    def _replay_entry(self, place: Place, body: bytes) -> None:
        index, term, kind = ENTRY_HEAD.unpack_from(body)
        log = self._state.index
        if index > log.last + 1:
            raise self.damaged(f"entry {index} follows entry {log.last}")
        if index <= self._state.commit:
            raise self.damaged(f"entry {index} was written again after it was committed")
        log.put(index, term, kind, place)

    def _replay_head(self, number: int, head: SegmentHead) -> None:
        state = self._state
        if not state.begins:
            state.term, state.vote, state.commit, state.snapshot = head.term, head.vote, head.commit, head.snapshot
            state.index = LogIndex(head.base_index, head.base_term, head.next_index)
        elif (head.term, head.vote, head.next_index) != (state.term, state.vote, state.index.last + 1):
            raise self.damaged("the file does not continue the one before it")
        state.commit = max(state.commit, head.commit)  # it may have moved without a write of its own
        state.begins[number] = head.next_index

    def _forget(self, index: int, term: int) -> None:
        log = self._state.index
        if log.start <= index <= log.last and log.term(index) != term:
            raise self.damaged(f"entry {index} has term {log.term(index)}, and was forgotten with term {term}")
        log.forget(index, term)

    def _require_complete(self) -> None:
        """What was forgotten, what is there and what was committed fit together."""
        state, log = self._state, self._state.index
        if log.base_index < log.start - 1:
            raise self.damaged(
                f"entries {log.base_index + 1} to {log.start - 1} are missing: so are the files that held them"
            )
        if state.commit > log.last:
            raise self.damaged(f"entries up to {state.commit} were committed, and the last one here is {log.last}")

    def _settle_tail(self, file: DiskFile, data: bytes) -> None:
        """Overwrite a torn tail with zeros, and write the last batch once more.

        The last process may have been killed, or have met an error, between the write and the sync of that batch: then it is
        in the system's memory only, and no sync would write it. Its bytes are true, so it may count once it is durable.
        """
        tail = self._state.tail
        used = used_bytes(data)
        if used > tail.end:
            file.write_at(tail.end, bytes(used - tail.end))
        begin = tail.batches[-1][0][0]
        file.write_at(begin, data[begin : tail.end])
        file.sync()
        self._segments.sync()

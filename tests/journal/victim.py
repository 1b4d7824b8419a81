"""A process that writes to a journal until it is killed, and says what is durable: ``python -m tests.journal.victim FOLDER``."""

from __future__ import annotations

import sys
import threading

from django_keyspace.exceptions import KeyspaceError
from django_keyspace.node.disk import HostDisk
from django_keyspace.node.journal import Batch, Journal, JournalWriter
from django_keyspace.node.raft.messages import SnapshotMeta
from django_keyspace.node.raft.storage import HardState
from tests.journal.helpers import BOOTSTRAP, MEMBERS, entry


def data_of(index: int) -> bytes:
    """What entry ``index`` holds: of any size, and not to be confused with another."""
    return b"%d " % index * (1 + index * 7919 % 400)


def main(folder: str) -> None:
    journal = Journal.open(HostDisk(folder), bootstrap=BOOTSTRAP, segment_bytes=64 * 1024)
    state = journal.hard_state()
    term = state.term + 1
    writer = JournalWriter(journal)
    ahead = threading.Semaphore(20)

    def done(last: int, commit: int) -> object:
        def say(error: KeyspaceError | None) -> None:
            if error is not None:
                raise SystemExit(str(error))
            print(last, term, commit, flush=True)
            ahead.release()

        return say

    index, commit = journal.last_index(), state.commit
    while True:
        entries = [entry(index + i, term, data_of(index + i)) for i in (1, 2, 3)]
        index += 3
        ahead.acquire()
        writer.submit(Batch(HardState(term, "n1", commit), entries), done(index, commit))
        commit = max(commit, index - 90)
        if index % 150 == 0:
            writer.call(lambda commit=commit: note_snapshot(journal, commit), ended)
        elif journal.snapshot().index - 5 > journal.first_index():
            journal.forget(journal.snapshot().index - 5)
            writer.call(journal.compact, ended)
            assert journal.entries(journal.first_index(), journal.last_index(), 1)


def note_snapshot(journal: Journal, commit: int) -> None:
    place = min(commit, journal.hard_state().commit)
    if place > journal.snapshot().index:
        journal.note_snapshot(SnapshotMeta(place, journal.term(place), MEMBERS))


def ended(error: KeyspaceError | None) -> None:
    if error is not None:
        raise SystemExit(str(error))


if __name__ == "__main__":
    main(sys.argv[1])

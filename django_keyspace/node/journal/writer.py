"""The disk thread of a node: it writes to the journal, so that the event loop never waits for a disk.

What arrives while one write is being synced becomes the next one: the slower the disk, the larger the groups.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import Final, NamedTuple

from django_keyspace.exceptions import DiskFailed, KeyspaceError, NoSpace
from django_keyspace.node.journal.journal import Batch, Journal
from django_keyspace.node.raft.messages import ENTRY_OVERHEAD_BYTES

logger = logging.getLogger("django_keyspace.node")

GROUP_BATCHES_MAX: Final = 4_096
GROUP_BYTES_MAX: Final = 8 * 1024 * 1024

Done = Callable[[KeyspaceError | None], None]
"""Takes None when it is durable, or what went wrong."""


class _Job(NamedTuple):
    """Either a batch, or something else to do in turn."""

    batch: Batch | None
    work: Callable[[], None] | None
    done: Done


class JournalWriter:
    """A thread that writes batches to a journal, as many at a time as have come together.

    Arguments:
        journal: whose only writer this is from now on.
        give_up: called on the thread when the journal has failed for good, after the ``done`` of every batch; the process has
            to end.

    Attributes:
        busy_since_s: ``time.monotonic()`` when the write that is under way began; None if there is none. A leader whose
            disk hangs for an election timeout can see it here, and step down.
    """

    def __init__(self, journal: Journal, give_up: Callable[[KeyspaceError], None] | None = None) -> None:
        self._journal = journal
        self._give_up = give_up
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._failure: KeyspaceError | None = None
        self.busy_since_s: float | None = None
        self._thread = Thread(target=self._run, name="keyspace-disk", daemon=True)
        self._thread.start()

    def submit(self, batch: Batch, done: Done) -> None:
        """Have a batch written.

        Arguments:
            batch: as for :meth:`Journal.append`.
            done: called on the disk thread, in the order of the calls: with None when the batch is durable, with
                :class:`NoSpace` when nothing of it was written, with :class:`DiskFailed` when the process must end.
        """
        self._jobs.put(_Job(batch, None, done))

    def call(self, work: Callable[[], None], done: Done) -> None:
        """Have something else done on the disk thread after all batches so far, such as ``journal.compact``."""
        self._jobs.put(_Job(None, work, done))

    def stop(self) -> None:
        """Return when everything so far is done, and the thread has ended. The journal stays open."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        job: _Job | None = None
        while True:
            job = job or self._jobs.get()
            if job is None:
                return
            self.busy_since_s = monotonic()
            if job.batch is None:
                self._work(job)
                job = None
            else:
                group, job, ends = self._gather(job)
                self._write(group)
                if ends:
                    return
            self.busy_since_s = None

    def _gather(self, first: _Job) -> tuple[list[_Job], _Job | None, bool]:
        """What has come together. Returns: a group of batches, a job that has to wait for them, and whether to end."""
        group, size_bytes = [first], _bytes_of(first)
        while len(group) < GROUP_BATCHES_MAX and size_bytes < GROUP_BYTES_MAX:
            try:
                job = self._jobs.get_nowait()
            except Empty:
                break
            if job is None:
                return group, None, True
            if job.batch is None:
                return group, job, False
            group.append(job)
            size_bytes += _bytes_of(job)
        return group, None, False

    def _write(self, group: Sequence[_Job]) -> None:
        try:
            self._append([job.batch for job in group if job.batch is not None])
        except NoSpace as error:
            if len(group) == 1:
                group[0].done(error)
            else:
                self._write_singly(group)
        except KeyspaceError as error:
            self._fail(group, error)
        else:
            for job in group:
                job.done(None)

    def _write_singly(self, group: Sequence[_Job]) -> None:
        """The disk is full: a vote among the batches still finds room, and perhaps the first of the entries."""
        for at, job in enumerate(group):
            try:
                self._append([job.batch or Batch()])
            except NoSpace as error:
                job.done(error)
            except KeyspaceError as error:
                self._fail(group[at:], error)
                return
            else:
                job.done(None)

    def _append(self, batches: list[Batch]) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            self._journal.append(batches)
        except KeyspaceError:
            raise
        except Exception as error:
            logger.exception("The journal was given something that must not be written.")
            raise DiskFailed(f"The journal refused a batch: {error}") from error

    def _work(self, job: _Job) -> None:
        try:
            if self._failure is not None:
                raise self._failure
            if job.work is not None:
                job.work()
        except NoSpace as error:
            job.done(error)
        except KeyspaceError as error:
            self._fail([job], error)
        except Exception as error:
            logger.exception("The disk thread failed.")
            self._fail([job], DiskFailed(f"The disk thread failed: {error}"))
        else:
            job.done(None)

    def _fail(self, group: Sequence[_Job], error: KeyspaceError) -> None:
        first, self._failure = self._failure is None, error
        for job in group:
            job.done(error)
        if first and self._give_up is not None:
            self._give_up(error)


def _bytes_of(job: _Job) -> int:
    entries = job.batch.entries if job.batch is not None else ()
    return sum(len(entry.data) + ENTRY_OVERHEAD_BYTES for entry in entries)

"""A journal on the simulated disk beside a model of what it has promised.

:class:`Ordeal` does one thing after the other to a journal, among them crashes in the middle of anything, and checks after
each that it is what it promised to be. Hypothesis drives it in ``test_stateful.py``, seeds in ``test_mutations.py``.

After a power cut the journal may be in the state of its last acknowledged call, or in that of the call which the cut has
interrupted, or in one between those where a call writes more than one batch; never in an older one, and never in another.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from django_keyspace.exceptions import DamagedJournal, DiskFailed, NoSpace
from django_keyspace.node.disk import read_file
from django_keyspace.node.journal import Batch
from django_keyspace.node.raft.messages import Entry, SnapshotMeta
from django_keyspace.node.raft.storage import HardState
from tests.journal.helpers import BOOTSTRAP, MEMBERS, compact, entry, log_of, open_journal, segment_names
from tests.sim.disk import PowerCut, SimDisk

DATA = (b"", b"x", b"\0" * 40, b"y" * 150, b"\0" * 1100, b"\xa5" * 700, bytes(range(256)) * 6, b"z" * 9000)


@dataclass(frozen=True)
class Promise:
    """What a journal holds; entries from 1 on, also those that may be forgotten (from ``known`` on they are known)."""

    entries: tuple[Entry | None, ...] = ()
    term: int = 0
    vote: str = ""
    commit: int = 0
    durable_commit: int = 0
    snapshot: SnapshotMeta = BOOTSTRAP
    base: int = 0

    @property
    def last(self) -> int:
        return len(self.entries)

    def term_of(self, index: int) -> int:
        at = self.entries[index - 1] if index else None
        return at.term if at is not None else 0


class Broken(AssertionError):
    """The journal is not what it promised to be."""


def _check(holds: bool, sentence: str) -> None:
    if not holds:
        raise Broken(sentence)


class Ordeal:
    """A journal that has a hard time.

    Attributes:
        promise: what it acknowledged.
        attempt: what it would hold if the call under way had succeeded.
    """

    def __init__(self, seed: int = 0) -> None:
        self.random = Random(seed)
        self.disk = SimDisk(self.random)
        self.promise = Promise()
        self.attempt = self.promise
        self.refusals: list[Promise] = []
        self.journal = open_journal(self.disk)
        self.refused = 0

    # ------------------------------------------------------------------------------------------------ good times

    def append(self, count: int, back: int, data: int, raise_term: bool, commit: int) -> None:
        """Append entries, perhaps over the last ones, perhaps in a new term, and commit some."""
        p = self.promise
        first = max(p.last + 1 - (back if count else 0), p.commit + 1)
        term = max(p.term, 1) + (raise_term or (first <= p.last))
        new = tuple(entry(first + i, term, DATA[(data + i) % len(DATA)]) for i in range(count))
        entries = p.entries[: first - 1] + new
        commit = min(max(p.commit, p.commit + commit), len(entries))
        vote = p.vote if term == p.term else "n1"
        after = replace(p, entries=entries, term=term, vote=vote, commit=commit, durable_commit=commit)
        if not new and (term, vote) == (p.term, p.vote):
            after = replace(after, durable_commit=p.durable_commit)
        self._do(after, lambda: self.journal.append([Batch(HardState(term, vote, commit), new)]))

    def vote(self) -> None:
        """Vote in a new term."""
        p = self.promise
        after = replace(p, term=p.term + 1, vote="n3", durable_commit=p.commit)
        self._do(after, lambda: self.journal.append([Batch(HardState(after.term, "n3", p.commit))]))

    def compact(self, behind: int) -> None:
        """Take a snapshot of what is committed, and forget what is further back."""
        p = self.promise
        index = p.commit
        if index < p.base or (index > p.base and p.entries[index - 1] is None):
            return
        meta = SnapshotMeta(index, self.journal.term(index), MEMBERS)
        self._do(replace(p, snapshot=meta, durable_commit=p.commit), lambda: self.journal.note_snapshot(meta))
        p = self.promise
        base = max(index - behind, p.base)
        if self.promise.snapshot == meta and base > p.base:
            self.promise = replace(p, base=base)  # at once, for those who read
            self._do(replace(self.promise, durable_commit=p.commit), lambda: compact(self.journal, base))

    def restore(self, ahead: int) -> None:
        """Go on from a snapshot that came from elsewhere."""
        p = self.promise
        index = p.commit + ahead
        here = p.entries[index - 1] if 0 < index <= p.last else None
        if index == 0 or (here is None and index <= p.last):
            return
        term = p.term if here is None or self.random.random() < 0.5 else here.term
        keeps = p.base <= index <= p.last and self.journal.term(index) == term
        if keeps:
            after = replace(p, snapshot=SnapshotMeta(index, term, MEMBERS), commit=index, durable_commit=index)
        else:
            after = replace(
                p, snapshot=SnapshotMeta(index, term, MEMBERS), commit=index, durable_commit=index,
                entries=(None,) * (index - 1) + (entry(index, term),), base=index,
            )  # fmt: skip
        if p.term >= term:
            self._do(after, lambda: self.journal.restore(after.snapshot))

    # ------------------------------------------------------------------------------------------------ bad times

    def close(self) -> None:
        """A clean end and a new start."""
        life = self.disk.life
        self._do(self.promise, self.journal.close, leaves_open=False)  # on a full disk it cannot keep the commit index
        if life == self.disk.life:
            self._start()

    def kill(self) -> None:
        """The process is killed; the page cache stays."""
        self.disk.kill()
        self._start()

    def crash(self) -> None:
        """A power cut, and perhaps another one while the node starts again."""
        self.disk.crash()
        if self.random.random() < 0.5:
            self.disk.cut_power_after(self.random.randint(0, 12))
        self._start()

    def cut_power_in(self, operations: int) -> None:
        """Let the power go out in the course of what comes next."""
        self.disk.cut_power_after(operations)

    def order_fault(self, kind: str, after: int) -> None:
        """Let an operation of what comes next fail."""
        self.disk.fail(kind, after)

    def flip(self) -> None:
        """Let one bit change while the node is down. It refuses to start, or nothing was lost."""
        self.disk.kill()
        if self.random.random() < 0.3:
            self.disk.crash()
        before = copy.deepcopy(self.disk)
        with self.disk.untroubled():
            name = self.random.choice([name for name in segment_names(self.disk) if name.endswith(".segment")])
            used = len(read_file(self.disk, name).rstrip(b"\0"))
        self.disk.flip_bit(name, self.random.randrange(used))
        try:
            self.journal = open_journal(self.disk, bootstrap=None)
        except DamagedJournal as error:
            _check("--join" in str(error), "the remedy is missing")
            self.refused += 1
        else:
            self._compare()
        self.disk = before
        self.random = before.random
        self._start()

    # ------------------------------------------------------------------------------------------------ inside

    def _do(self, after: Promise, call: Callable[[], None], *, leaves_open: bool = True) -> None:
        self.attempt = after
        syncs = self.journal.syncs
        try:
            call()
        except PowerCut:
            self.crash()
        except DiskFailed:
            # The process ends, as it must, and is started again; some time later the power goes out.
            for refused in (
                self.journal.close,
                lambda: self.journal.append([Batch(HardState(10**6, "", self.journal.hard_state().commit))]),
            ):
                try:
                    refused()
                except DiskFailed:
                    pass
                else:
                    _check(refused == self.journal.close, "a journal that has failed takes further calls")
            self.kill()
            self.crash()
        except NoSpace:
            # Refused; but if the process ends before the next write, the next one may find all of it.
            self.refusals.append(after)
            self.attempt = self.promise
        else:
            if self.journal.syncs > syncs:
                self.refusals.clear()
            self.promise = after
        if leaves_open:
            self._compare()

    def _start(self) -> None:
        while True:
            try:
                self.journal = open_journal(self.disk, bootstrap=None)
                self.journal.require_reaches(self.promise.durable_commit)
                break
            except PowerCut:
                self.disk.crash()
            except (DiskFailed, NoSpace):  # ordered for the call that has ended
                self.disk.kill()
        self._compare()
        # Whatever it is, it is durable now.
        with self.disk.untroubled():
            found = next(p for p in (self.attempt, self.promise, *self.refusals) if self._fits(p))
        self.refusals.clear()
        state = self.journal.hard_state()
        base = self.journal.first_index() - 1
        self.promise = replace(found, commit=state.commit, durable_commit=state.commit, base=base)
        self.attempt = self.promise

    def _fits(self, p: Promise) -> bool:
        journal = self.journal
        log = log_of(journal)
        first = journal.first_index()
        return (
            (journal.hard_state().term, journal.hard_state().vote) == (p.term, p.vote)
            and p.durable_commit <= journal.hard_state().commit <= p.commit
            and journal.snapshot() == p.snapshot
            and first - 1 <= p.base
            and journal.last_index() == p.last
            and log == list(p.entries[first - 1 :])
        )

    def _compare(self) -> None:
        with self.disk.untroubled():
            fits = any(self._fits(promise) for promise in (self.promise, self.attempt, *self.refusals))
            _check(fits, "" if fits else self._describe())

    def _describe(self) -> str:
        return (
            f"found {self.journal.hard_state()}, {self.journal.snapshot()}, "
            f"{[(e.index, e.term) for e in log_of(self.journal)]}; promised {self.promise}; attempted {self.attempt}"
        )


def random_ordeal(seed: int, steps: int) -> Ordeal:
    """Put a journal through so many random steps."""
    ordeal = Ordeal(seed)
    draw = Random(seed)
    for _ in range(steps):
        choice = draw.random()
        if choice < 0.45:
            ordeal.append(
                draw.randint(0, 5), draw.randint(0, 4), draw.randrange(8), draw.random() < 0.2, draw.randint(0, 3)
            )
        elif choice < 0.52:
            ordeal.vote()
        elif choice < 0.60:
            ordeal.compact(draw.randint(0, 5))
        elif choice < 0.63:
            ordeal.restore(draw.randint(0, 6))
        elif choice < 0.67:
            ordeal.close()
        elif choice < 0.72:
            ordeal.kill()
        elif choice < 0.78:
            ordeal.crash()
        elif choice < 0.88:
            ordeal.cut_power_in(draw.randint(0, 12))
        elif choice < 0.94:
            kind = draw.choice(["enospc", "eio_sync", "eio_write"])
            ordeal.order_fault(kind, draw.randint(0, 3))
        else:
            ordeal.flip()
    return ordeal

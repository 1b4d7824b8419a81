"""What the core wants to be durable: batches to the disk thread, snapshots in place of the store, and what a full disk means.

A received snapshot is installed in steps: the store of it takes the place of the old one (on the applier's thread, behind what is
being applied), then the journal begins behind it, and only then are the batches written that came meanwhile. If there is no room
for the store, the installation is given up, as if the snapshot had never come. Once the store has taken its place there is no
way back: store and journal have to fit together again before anything else is done, also for a core that is gone meanwhile.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from django_keyspace.exceptions import KeyspaceError, NoSpace
from django_keyspace.node import raft as consensus
from django_keyspace.node.applier import THREAD
from django_keyspace.node.journal import Batch
from django_keyspace.node.parts import Parts
from django_keyspace.node.raft import BrokenInvariant


class Core(Protocol):
    """What persistence needs of the runtime."""

    raft: consensus.Raft

    def persisted(self, number: int) -> None:
        """What the core's `Ready` of that number wanted is durable."""

    def no_room(self, error: NoSpace) -> None:
        """Nothing of what was wanted could be written, for want of room."""

    def waits_for_room(self, error: NoSpace) -> None:
        """What has to be written now could not be. It is tried again until there is room."""

    def installing(self, *, begins: bool) -> None:
        """A snapshot begins to be installed, or is."""

    def fail(self, error: BaseException) -> None:
        """Stop the node."""


class Persistence:
    """The way to the disk of one core.

    Arguments:
        core: the runtime.
        parts: of the node.
    """

    def __init__(self, core: Core, parts: Parts) -> None:
        self._core = core
        self._journal = journal = parts.journal
        self._writer = parts.writer
        self._snapshots = parts.snapshots
        self._machine = parts.machine
        self._scheduler = parts.scheduler
        self._retry_ms = parts.settings.upkeep_ms
        self._hard_state = journal.hard_state()
        self._held_back: list[tuple[consensus.Ready, Batch]] = []
        self._is_over = False
        self._is_replacing = False
        self._done: deque[int] = deque()
        self._under_way = 0
        self._is_awaited = True
        self._is_telling = False

    @property
    def is_installing(self) -> bool:
        """Whether a snapshot is being put in place of the store: everything waits for that."""
        return bool(self._held_back)

    @property
    def is_replacing(self) -> bool:
        """Whether store and journal do not fit together just now, or may not in a moment. Also after :meth:`abandon`."""
        return self._is_replacing

    def take(self, ready: consensus.Ready) -> None:
        """Have written what a `Ready` asks for."""
        if ready.hard_state is not None:
            self._hard_state = ready.hard_state
        if not ready.must_sync:
            return  # a commit index alone is not worth a sync; it goes along with the next batch
        batch = Batch(self._hard_state, ready.entries)
        if self._held_back:
            self._held_back.append((ready, batch))
        elif ready.snapshot is not None:
            self._held_back = [(ready, batch)]
            self._install()
        else:
            self._write(ready.number, batch)

    def abandon(self) -> None:
        """What is under way means nothing any more: its core is gone."""
        self._is_over = True

    # --- Batches ------------------------------------------------------------------------------------------------------

    def _write(self, number: int, batch: Batch) -> None:
        def done(error: KeyspaceError | None) -> None:
            if error is not None:
                self._scheduler.call_threadsafe(self._not_written, error)
                return
            self._done.append(number)
            if self._is_awaited:
                self._scheduler.call_threadsafe(self.look)

        self._under_way += 1
        self._writer.submit(batch, done)

    def settle(self) -> None:
        """Look whether anything waits for what is being written. If not, its end wakes nobody, which costs as much as a short
        sync: :meth:`look` finds it when something else has come."""
        if self._under_way:
            self._is_awaited = self._core.raft.awaits_disk
            if self._is_awaited and self._done:  # it ended just before that
                self.look()

    def look(self) -> None:
        """Tell the core what has been written meanwhile. In order: what ends while it is being told comes after that."""
        if self._is_telling:
            return
        self._is_telling = True
        try:
            while self._done:
                number = self._newest_done()
                if not self._is_over:
                    self._core.persisted(number)
        finally:
            self._is_telling = False

    def note(self) -> None:
        """The same, for the runtime when something comes: it tells the core of that, too, and then carries out what it wants."""
        if self._done and not self._is_telling:
            number = self._newest_done()
            if not self._is_over:
                self._core.raft.persisted(number)

    def _newest_done(self) -> int:
        """The last of the batches that were written, which stands for those before it."""
        number = 0
        while self._done:
            number = self._done.popleft()
            self._under_way -= 1
        return number

    def _not_written(self, error: KeyspaceError) -> None:
        if not isinstance(error, NoSpace):
            self._core.fail(error)
            return
        self.look()
        if not self._is_over:
            self._core.no_room(error)

    # --- Snapshots ----------------------------------------------------------------------------------------------------

    def _install(self) -> None:
        """Let a received snapshot take the place of the store, and then of the log."""
        wanted = self._held_back[0][0].snapshot
        place = wanted.index if wanted is not None else 0
        snapshot = next((one for one in self._snapshots.kept if one.place == place), None)
        if snapshot is None:
            self._core.fail(BrokenInvariant(f"The snapshot of entry {place} is to be installed and is not here."))
            return
        self._core.installing(begins=True)
        self._is_replacing = True
        self._scheduler.in_thread(
            THREAD,
            lambda: self._machine.install(self._snapshots, snapshot),
            lambda result: self._installed(result, wanted),
        )

    def _installed(self, result: Exception | None, meta: consensus.SnapshotMeta | None) -> None:
        if isinstance(result, NoSpace):
            self._is_replacing = False
            if not self._is_over:
                self._core.no_room(result)
        elif isinstance(result, Exception) or meta is None:
            self._core.fail(result or BrokenInvariant("A snapshot was installed that nobody asked for."))
        else:
            self._restore(meta)

    def _restore(self, meta: consensus.SnapshotMeta) -> None:
        """Let the journal begin behind the snapshot whose store counts by now."""

        def restored(error: KeyspaceError | None) -> None:
            self._scheduler.call_threadsafe(self._restored, meta, error)

        self._writer.call(lambda: self._journal.restore(meta), restored)

    def _restored(self, meta: consensus.SnapshotMeta, error: KeyspaceError | None) -> None:
        if isinstance(error, NoSpace):
            self._core.waits_for_room(error)
            self._scheduler.call_later(self._retry_ms, self._restore, meta)
            return
        if error is not None:
            self._core.fail(error)
            return
        self._is_replacing = False
        if self._is_over:
            return
        held, self._held_back = self._held_back, []
        later = next((at for at, (ready, _) in enumerate(held) if at and ready.snapshot is not None), len(held))
        for ready, batch in held[:later]:
            self._write(ready.number, batch)
        if later < len(held):
            self._held_back = held[later:]
            self._install()
        else:
            self._core.installing(begins=False)

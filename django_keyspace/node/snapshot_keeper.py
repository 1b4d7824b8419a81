"""A node's snapshots while it runs: when one is made, what of the log may go, and how they get to peers that are far behind.

Everything that touches a snapshot's file happens on one thread beside the loop. A transfer carries the core's request along:
the receiver steps it when the whole file is durable here (step 13 of the driver's contract in ``raft/__init__.py``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, Protocol

from django_keyspace.exceptions import DiskFailed, KeyspaceError
from django_keyspace.node.interfaces import Handle
from django_keyspace.node.parts import Parts
from django_keyspace.node.raft import BadMessage, Membership, Refused, SnapshotRequest, from_wire, to_wire
from django_keyspace.node.snapshot import Snapshot
from django_keyspace.node.transfer import (
    DONE,
    MORE,
    REFUSED,
    SnapshotAck,
    SnapshotBegin,
    SnapshotChunk,
    SnapshotReceiver,
    SnapshotSender,
)

logger = logging.getLogger("django_keyspace.node")

THREAD: Final = "snapshot"
JITTER: Final = 0.25
"""By so much, as a share, nodes differ in when they make a snapshot."""
BEGIN: Final = "begin"
CHUNK: Final = "chunk"
ACK: Final = "ack"
KINDS: Final = frozenset({BEGIN, CHUNK, ACK})
"""First words of the frames between keepers."""


class Core(Protocol):
    """What a keeper needs of the runtime."""

    is_full: bool

    def step(self, message: SnapshotRequest) -> None:
        """Step a request whose snapshot is here."""

    def report_snapshot(self, peer: str, arrived: bool | None) -> None:
        """Tell the core how a transfer goes."""

    def membership_at(self, index: int) -> Membership:
        """The members as of an applied index."""

    def fail(self, error: BaseException) -> None:
        """Stop the node."""


class _Sending:
    """One transfer to a peer."""

    def __init__(self, request: SnapshotRequest, number: int) -> None:
        self.request = request
        self.number = number
        self.sender: SnapshotSender | None = None
        self.acknowledged = 0
        self.is_heard = False


class SnapshotKeeper:
    """Makes, compacts, sends and receives.

    Arguments:
        cluster: the cluster's id.
        core: the runtime.
        parts: of the node.

    Attributes:
        is_installing: the runtime is replacing the store: nothing is made or received meanwhile.
        applied_bytes: bytes applied since the last snapshot.
    """

    def __init__(
        self,
        cluster: str,
        core: Core,
        parts: Parts,
    ) -> None:
        settings = parts.settings
        # Not all nodes at the same entry: a snapshot takes time from everything else.
        share = 1 + JITTER * parts.random.random()
        self._entries_max = int(settings.snapshot_entries * share)
        self._bytes_max = int(settings.snapshot_bytes * share)
        self._cluster = cluster
        self._core = core
        self._machine = parts.machine
        self._snapshots = parts.snapshots
        self._journal = parts.journal
        self._writer = parts.writer
        self._scheduler = parts.scheduler
        self._links = parts.links
        self._settings = settings
        self._receiver = SnapshotReceiver(parts.snapshots, cluster)
        self._requests: dict[int, SnapshotRequest] = {}
        self._sendings: dict[str, _Sending] = {}
        self._counter = 0
        self._timer: Handle | None = None
        self._is_making = False
        self._was_short = False
        self.is_installing = False
        self.applied_bytes = 0

    @property
    def is_short_of_room(self) -> bool:
        """Whether this node waits for a snapshot for which its disk has no room."""
        return self._receiver.short_at is not None and self._receiver.short_at == self._machine.applied_index

    # --- Making -------------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Make a snapshot if enough has happened since the last one."""
        latest = self._snapshots.latest
        entries = self._machine.applied_index - (latest.place if latest is not None else 0)
        if entries >= self._entries_max or (entries and self.applied_bytes >= self._bytes_max):
            self.make()

    def make(self) -> None:
        """Make a snapshot of the store as it is now, unless one is being made."""
        if self._is_making or self.is_installing:
            return
        copy = self._machine.copy()
        try:
            copy.__enter__()
        except KeyspaceError as error:
            logger.warning("No snapshot was made: %s", error)
            return
        try:
            index = copy.index
            membership = self._core.membership_at(index)
            snapshot = Snapshot(index, self._journal.term(index), membership, copy.log_ms, self._cluster)
        except Refused as error:
            copy.__exit__(None, None, None)
            logger.info("No snapshot was made: %s", error)
            return
        self._is_making = True
        self.applied_bytes = 0

        def write() -> None:
            try:
                self._snapshots.build(snapshot, copy)
            finally:
                copy.__exit__(None, None, None)

        self._scheduler.in_thread(THREAD, write, lambda result: self._made(snapshot, result))

    def _made(self, snapshot: Snapshot, result: Exception | None) -> None:
        self._is_making = False
        if isinstance(result, Exception):
            self._not_possible("No snapshot was made", result)
            return
        journal, meta = self._journal, snapshot.meta

        def note() -> None:
            # Meanwhile a leader's snapshot may have taken the place of the whole log.
            if journal.first_index() - 1 <= meta.index and journal.snapshot().index < meta.index:
                journal.note_snapshot(meta)

        self._write(note, self._compact)

    def _compact(self) -> None:
        """Let the log begin later: behind the older of the two snapshots, and behind the tail for slow followers."""
        if self.is_installing:
            return
        journal = self._journal
        index = min(self._snapshots.compactable_index, self._machine.applied_index - self._settings.tail_entries)
        if index >= journal.first_index() and index <= min(journal.hard_state().commit, journal.snapshot().index):
            journal.forget(index)
            self._write(journal.compact, lambda: None)

    def _write(self, work: Callable[[], None], then: Callable[[], None]) -> None:
        """Do something on the disk thread, and go on on the loop's."""

        def done(error: KeyspaceError | None) -> None:
            self._scheduler.call_threadsafe(written, error)

        def written(error: KeyspaceError | None) -> None:
            if error is None:
                then()
            else:
                self._not_possible("The journal could not be compacted", error)

        self._writer.call(work, done)

    def _not_possible(self, what: str, error: Exception) -> None:
        """A full disk and a copy that was given up pass; a failed disk ends the node."""
        if isinstance(error, KeyspaceError) and not isinstance(error, DiskFailed):
            logger.warning("%s: %s It is tried again.", what, error)
        else:
            self._core.fail(error)

    # --- Sending ------------------------------------------------------------------------------------------------------

    def send(self, request: SnapshotRequest) -> None:
        """Send a snapshot, and the request with it, unless that is under way."""
        under_way = self._sendings.get(request.to)
        if under_way is not None and under_way.request.term == request.term:
            return
        if under_way is not None:
            self._end(request.to, arrived=None)
        snapshot = self._snapshots.latest
        if snapshot is None or snapshot.place < request.snapshot.index:
            self._core.report_snapshot(request.to, arrived=False)
            return
        self._counter += 1
        request = request._replace(snapshot=snapshot.meta)
        sending = _Sending(request, request.term << 32 | self._counter & 0xFFFFFFFF)
        self._sendings[request.to] = sending
        logger.info("Sending the snapshot of entry %d to %s", snapshot.place, request.to)

        def begin() -> list[SnapshotBegin | SnapshotChunk]:
            sending.sender = SnapshotSender(self._snapshots, snapshot, sending.number)
            return sending.sender.messages()

        self._scheduler.in_thread(THREAD, begin, lambda found: self._send_messages(sending, found))
        if self._timer is None:
            self._timer = self._scheduler.call_later(self._settings.transfer_retry_ms, self._look_at_sendings)

    def _send_messages(self, sending: _Sending, found: list[SnapshotBegin | SnapshotChunk] | Exception) -> None:
        peer = sending.request.to
        if isinstance(found, Exception):
            self._end(peer, arrived=False)
            self._core.fail(found)
            return
        if self._sendings.get(peer) is not sending or sending.sender is None:
            return
        for message in found:
            if isinstance(message, SnapshotBegin):
                self._links.send(peer, (BEGIN, to_wire(sending.request), *message))
            else:
                self._links.send(peer, (CHUNK, *message))
        sender = sending.sender
        if sender.state == DONE:
            self._end(peer, arrived=True)
        elif sender.state == MORE and sender.acknowledged > sending.acknowledged:
            sending.acknowledged = sender.acknowledged
            self._core.report_snapshot(peer, arrived=None)

    def _on_ack(self, peer: str, ack: SnapshotAck) -> None:
        sending = self._sendings.get(peer)
        if sending is None or sending.sender is None or ack.transfer != sending.number:
            return
        sending.is_heard = True
        self._next(sending, lambda sender: sender.step(ack))

    def _next(self, sending: _Sending, change: Callable[[SnapshotSender], None]) -> None:
        def work() -> list[SnapshotBegin | SnapshotChunk]:
            if sending.sender is None:
                return []
            change(sending.sender)
            return sending.sender.messages()

        self._scheduler.in_thread(THREAD, work, lambda found: self._send_messages(sending, found))

    def _look_at_sendings(self) -> None:
        for peer, sending in list(self._sendings.items()):
            sender = sending.sender
            if sender is not None and sender.state == REFUSED:
                # Not at once: whoever has no room would be sent the beginning of a snapshot again and again.
                logger.warning("The snapshot for %s did not arrive: %s", peer, sender.reason)
                self._end(peer, arrived=False)
            elif sender is not None and not sending.is_heard:
                self._next(sending, SnapshotSender.retry)
            sending.is_heard = False
        self._timer = None
        if self._sendings:
            self._timer = self._scheduler.call_later(self._settings.transfer_retry_ms, self._look_at_sendings)

    def stop_sending(self) -> None:
        """This node leads no more."""
        for peer in list(self._sendings):
            self._end(peer, arrived=None)

    def _end(self, peer: str, *, arrived: bool | None) -> None:
        """Forget a transfer; tell the core, unless it does not care any more."""
        sending = self._sendings.pop(peer, None)
        if sending is None:
            return
        sender = sending.sender
        if sender is not None:
            self._scheduler.in_thread(THREAD, sender.cancel, lambda result: None)
        if arrived is not None:
            self._core.report_snapshot(peer, arrived=arrived)

    # --- Receiving ----------------------------------------------------------------------------------------------------

    def receive(self, peer: str, frame: tuple[Any, ...]) -> None:
        """Take a frame of another node's keeper. Raises :class:`BadMessage` if it is none."""
        kind, fields = frame[0], frame[1:]
        if kind == ACK:
            self._on_ack(peer, SnapshotAck(*_checked(fields, (int, int, str, str))))
            return
        message: SnapshotBegin | SnapshotChunk
        if kind == BEGIN:
            request = from_wire(fields[0]) if fields else None
            if not isinstance(request, SnapshotRequest) or request.sender != peer:
                raise BadMessage(f"A snapshot of {peer} came without its request.")
            message = SnapshotBegin(*_checked(fields[1:], (int, int, int, str, int)))
            if (message.place, message.term) != (request.snapshot.index, request.snapshot.term):
                raise BadMessage(f"A snapshot of {peer} is not the one that its request names.")
            self._requests = {message.transfer: request}
        else:
            message = SnapshotChunk(*_checked(fields, (int, int, bytes, int)))
        if self.is_installing or self._core.is_full:
            return  # as if it were lost: it comes again
        receiver, applied = self._receiver, self._machine.applied_index

        def done(ack: SnapshotAck | Exception | None) -> None:
            if isinstance(ack, Exception):
                self._core.fail(ack)
            elif ack is not None:
                self._received(peer, ack)

        self._scheduler.in_thread(THREAD, lambda: receiver.step(message, applied), done)

    def _received(self, peer: str, ack: SnapshotAck) -> None:
        was_short, self._was_short = self._was_short, self.is_short_of_room
        if self._was_short and not was_short:
            logger.error("%s This node takes no entries until there is room.", ack.reason)
        request = self._requests.get(ack.transfer)
        if ack.state == DONE and request is not None and not self.is_installing:
            del self._requests[ack.transfer]
            latest = self._snapshots.latest
            if latest is not None and latest.place > request.snapshot.index:
                request = request._replace(snapshot=latest.meta)
            self._core.step(request)
        self._links.send(peer, (ACK, *ack))


def _checked(fields: tuple[Any, ...], types: tuple[type, ...]) -> tuple[Any, ...]:
    if len(fields) != len(types) or any(type(field) is not kind for field, kind in zip(fields, types, strict=True)):
        raise BadMessage("A frame about a snapshot has other fields than this version knows.")
    return fields

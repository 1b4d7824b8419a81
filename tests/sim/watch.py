"""What must hold, looked at all the time: in each core's output, at each apply, with each answer, at each start and at the end.

Election safety, log matching, leader completeness, one sequence of applied entries, equal results and equal stores at an equal
index, log time that never goes back, what was durable before a crash, answers that are in the log, counters that are exact, and
expired values that stay gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from zlib import crc32

from django_keyspace.exceptions import KeyspaceError
from django_keyspace.node.entries import LoggedCalls
from django_keyspace.node.raft import Entry, Role
from django_keyspace.store.record import payload_of
from tests.sim.workload import ACCOUNT, COUNTERS, TIMED
from tests.sim.world import Violated

if TYPE_CHECKING:
    from tests.sim.clients import Call
    from tests.sim.cluster import SimCluster
    from tests.sim.node import SimNode

Place = tuple[bytes, int]
"""A session's id and a sequence."""


class Watch:
    """Looks at a cluster.

    Arguments:
        cluster: whose.

    Attributes:
        committed: what was committed, by index: the entry, and the term in which somebody knew it first.
        last_committed: the highest of those indexes.
    """

    def __init__(self, cluster: SimCluster) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.committed: dict[int, tuple[Entry, int]] = {}
        self.last_committed = 0
        self.leaders: dict[int, str] = {}
        self.entries: dict[tuple[int, int], tuple[int, int, int]] = {}
        self.results: dict[int, Any] = {}
        self.digests: dict[int, tuple[bytes, str]] = {}
        self.durable: dict[str, tuple[int, str, int, int]] = {}
        self.last_log_ms: tuple[int, int] = (0, 0)
        self.answers: dict[Place, list[Any]] = {}
        self.counted: set[Place] = set()
        self.sums: dict[bytes, int] = {}
        self.acknowledged: list[tuple[Place, Any]] = []
        self.timed: dict[bytes, list[tuple[int, int, bytes | None]]] = {key: [] for key in TIMED}
        self.begun: dict[Any, int] = {}

    # --- Processes ----------------------------------------------------------------------------------------------------

    def started(self, node: SimNode) -> None:
        """A process has started: look at what it found, and at all that it does from now on."""
        journal = node.runtime.parts.journal
        found = journal.hard_state()
        last = journal.last_index()
        if node.id in self.durable:
            term, vote, last_index, last_term = self.durable[node.id]
            if found.term < term or (found.term == term and vote not in ("", found.vote)):
                raise Violated(f"{node.id} had term {term} and vote {vote!r}, and comes back with {found}")
            if last < last_index and journal.term(last) <= last_term:
                raise Violated(f"{node.id} had entry {last_index} of term {last_term}, and comes back with {last}")
        runtime, machine = node.runtime, node.machine
        carry_out, apply, install = runtime._carry_out, machine.apply, machine.install

        def watched_carry_out(ready: Any) -> None:
            self.saw_ready(node, ready)
            carry_out(ready)

        def watched_apply(entries: Sequence[LoggedCalls]) -> Any:
            results = apply(entries)
            self.saw_apply(node, entries, results)
            return results

        def watched_install(snapshots: Any, snapshot: Any) -> None:
            install(snapshots, snapshot)
            self.world.counts["install"] += 1
            self.compare_digest(node, snapshot.place)

        runtime._carry_out = watched_carry_out
        machine.apply = watched_apply
        machine.install = watched_install

    def ended(self, node: SimNode, journal: Any) -> None:
        """A process has ended: note what it had made durable."""
        state, last = journal.hard_state(), journal.last_index()
        self.durable[node.id] = (state.term, state.vote, last, journal.term(last))

    def gave_up(self, node: SimNode, reason: str) -> None:
        """A process ends because of itself. There must be a reason for that, outside of it."""
        if "simulated" not in reason and not (node.disk.counts["bit_flip"] and "changed" in reason):
            raise Violated(f"{node.id} gives up, and its disk is well: {reason}. {node.describe()}")
        if "no room" in reason:
            raise Violated(f"{node.id} gives up for want of room: {reason}. {node.describe()}")

    def unusable(self, node: SimNode) -> None:
        """A node cannot start any more. Only a changed bit may do that."""
        if not node.disk.counts["bit_flip"]:
            raise Violated(f"{node.id} cannot start, and nothing was wrong with its disk: {node.trouble}")

    # --- Logs ---------------------------------------------------------------------------------------------------------

    def saw_ready(self, node: SimNode, ready: Any) -> None:
        """A core has said what is to be done."""
        raft = node.raft
        if raft.role is Role.LEADER and self.leaders.get(raft.term) != node.id:
            self.saw_leader(node)
        if ready.entries:
            self.saw_entries(node, ready.entries)
        for entry in ready.committed:
            self.saw_committed(node, entry)
        if ready.snapshot is not None and self.world.is_traced:
            self.world.tell(node.host, f"installs snapshot {ready.snapshot.index}")

    def saw_leader(self, node: SimNode) -> None:
        term = node.raft.term
        if term in self.leaders:
            raise Violated(f"{self.leaders[term]} and {node.id} lead in term {term}")
        self.leaders[term] = node.id
        self.world.counts["leader"] += 1
        self.world.note(node.host, f"leads: {node.describe()}")
        for entry, committed_in in self.committed.values():
            self.must_have(node, entry, committed_in)

    def must_have(self, node: SimNode, entry: Entry, committed_in: int) -> None:
        log = node.raft._state.log
        if committed_in < node.raft.term and entry.index >= log.first_index:
            if entry.index > log.last_index or log.term(entry.index) != entry.term:
                raise Violated(f"{node.id} leads in term {node.raft.term} without committed entry {entry.index}")

    def saw_entries(self, node: SimNode, entries: Sequence[Entry]) -> None:
        """Entries come into a log: of one index and term there is one, after one."""
        before = node.raft._state.log.term(entries[0].index - 1)
        for entry in entries:
            seen = (crc32(entry.data), entry.kind, before)
            known = self.entries.setdefault((entry.index, entry.term), seen)
            if known != seen:
                raise Violated(f"{node.id} writes {entry!r:.120} after term {before}; elsewhere it is {known}")
            before = entry.term

    def saw_committed(self, node: SimNode, entry: Entry) -> None:
        known = self.committed.get(entry.index)
        if known is None:
            term = node.raft.term
            self.committed[entry.index] = (entry, term)
            self.last_committed = max(self.last_committed, entry.index)
            for other in self.cluster.nodes.values():
                if other.runtime is not None and other.leads:
                    self.must_have(other, entry, term)
        elif known[0] != entry:
            raise Violated(f"{node.id} commits {entry!r:.120}, and elsewhere {known[0]!r:.120} was")

    # --- Stores -------------------------------------------------------------------------------------------------------

    def saw_apply(self, node: SimNode, entries: Sequence[LoggedCalls], results: Sequence[Sequence[Any]]) -> None:
        """Entries were applied somewhere."""
        counts = self.world.counts
        for entry, answers in zip(entries, results, strict=True):
            counts["applied"] += 1
            given = [_plain(answer) for answer in answers]
            known = self.results.get(entry.index)
            if known is None:
                if entry.index not in self.committed:
                    raise Violated(f"{node.id} applies entry {entry.index}, and nobody knows it to be committed")
                self.results[entry.index] = given
                self.first_apply(node, entry, given)
            elif known != given:
                raise Violated(
                    f"{node.id} answers {given!r:.200} for entry {entry.index}, and elsewhere {known!r:.200}"
                )
        last = entries[-1].index
        if self.world.is_traced:
            self.world.tell(
                node.host, f"applies to {last}: {[call[0] for entry in entries for call in entry.calls]!r:.90}"
            )
        if last % self.cluster.plan.digest_every == 0 or last in self.digests:
            self.compare_digest(node, last)

    def compare_digest(self, node: SimNode, index: int) -> None:
        """The stores of all nodes are equal at this index."""
        digest = node.machine.digest()
        known = self.digests.setdefault(index, (digest, node.id))
        if known[0] != digest:
            raise Violated(f"The stores of {node.id} and {known[1]} differ at entry {index}")
        self.world.counts["digest"] += 1

    def first_apply(self, node: SimNode, entry: LoggedCalls, answers: Sequence[Any]) -> None:
        """An entry is applied for the first time anywhere: count what it does."""
        if entry.calls:
            index, log_ms = self.last_log_ms
            if entry.index > index and entry.log_ms < log_ms:
                raise Violated(f"Log time goes back from {log_ms} to {entry.log_ms} at entry {entry.index}")
            self.last_log_ms = max(self.last_log_ms, (entry.index, entry.log_ms))
        for call, answer in zip(entry.calls, answers, strict=True):
            if call[0] in ("sweep", "evict", "expire_sessions"):
                self.world.counts[call[0]] += 1
            if call[0] != "once":
                continue
            place = (call[1], call[2])
            given = self.answers.setdefault(place, [])
            self.world.counts["logged_twice"] += bool(given)
            given.append(answer)
            if place not in self.counted and not _is_error(answer) and answer is not None:
                self.count(place, call[5], answer, call[6] is not None)

    def count(self, place: Place, call: Any, answer: Any, is_script: bool) -> None:
        """Add what a write does to counters, the first time."""
        before = dict(self.sums)
        if is_script:
            _, _, key, (_, _, payload), *_ = call[2][0]
            self.sums[key] = int(payload)
        elif call[0] == "atomic":
            if answer[0]:
                for inner in call[2]:
                    self.add(inner)
        elif call[0] == "batch":
            for inner, (status, _) in zip(call[1], answer, strict=True):
                if status == "ok":
                    self.add(inner)
        else:
            self.add(call)
        if self.sums != before:
            self.counted.add(place)

    def add(self, call: Any) -> None:
        if call[0] == "incr" and call[2] in COUNTERS:
            self.sums[call[2]] = self.sums.get(call[2], 0) + call[3]

    # --- Clients ------------------------------------------------------------------------------------------------------

    def begins(self, call: Call) -> None:
        """A client begins a call."""
        self.begun[call] = self.world.now_us

    def answered(self, call: Call, result: Any) -> None:
        """A client has the state machine's answer."""
        begun_us = self.begun.pop(call)
        wish = call.wish
        if call.is_write:
            session, sequence = call.request._session.id, call.request._sequence
            place, given = (session, sequence), _plain(result)
            known = [_number(answer) for answer in self.answers.get(place, ())]
            if _number(given) not in known:
                raise Violated(
                    f"{call.thread} is told {given!r:.200} for {wish.call!r:.200}, and the log says {known!r:.200}"
                )
            self.acknowledged.append((place, wish.call))
        elif wish.call[0] == "get" and wish.call[2] in self.timed and wish.level == "safe":
            value = None if result is None else payload_of(result)
            self.timed[wish.call[2]].append((begun_us, self.world.now_us, value))

    # --- The end ------------------------------------------------------------------------------------------------------

    def finish(self, node: SimNode) -> None:
        """Everything is healed, and a node that has applied all of it is looked at."""
        machine, now_ms = node.machine, 2**61
        if machine.applied_index < self.last_committed:
            raise Violated(f"Entry {self.last_committed} was committed, and {node.id} ends at {machine.applied_index}")
        for key, total in self.sums.items():
            record = machine.read(now_ms, "get", 0, key)
            found = None if record is None else int(payload_of(record))
            if found != total:
                raise Violated(f"The counter {key!r} is {found}, and its writes add up to {total}")
        self.finish_account(machine.read(now_ms, "get", 0, ACCOUNT))
        for key, reads in self.timed.items():
            self.finish_timed(key, sorted(reads))

    def finish_account(self, record: bytes | None) -> None:
        found = [] if record is None else payload_of(record).split(b".")[:-1]
        if len(set(found)) != len(found):
            raise Violated(f"Something was appended twice: {found}")
        for _, call in self.acknowledged:
            if call[0] == "append" and call[3][2][:-1] not in found:
                raise Violated(f"{call[3][2]!r} was appended, acknowledged, and is not there")

    def finish_timed(self, key: bytes, reads: Sequence[tuple[int, int, bytes | None]]) -> None:
        """What a later read did not find any more, no still later one finds."""
        for begun_us, _, value in reads:
            if value is None:
                continue
            between = [(b, e) for b, e, other in reads if other != value and e < begun_us]
            for other_begun_us, _ in between:
                if any(e < other_begun_us and same == value for _, e, same in reads):
                    raise Violated(f"{value!r} under {key!r} was gone and came back: {reads}")


def _plain(answer: Any) -> Any:
    """An answer as something to compare."""
    if isinstance(answer, KeyspaceError):
        return (type(answer).__name__, str(answer))
    if isinstance(answer, list | tuple):
        return tuple(_plain(part) for part in answer)
    return answer


def _number(answer: Any) -> Any:
    """A script answers its number as text."""
    return int(answer) if isinstance(answer, bytes) and answer.lstrip(b"-").isdigit() else answer


def _is_error(answer: Any) -> bool:
    return isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[0], str) and answer[0][:1].isupper()

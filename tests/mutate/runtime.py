"""The table of the runtime: what is changed in the parts around the core, and which seed of the simulated cluster notices.

Each of these leaves the consensus core as it is. What is replaced gets the original first, as in `table.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from django_keyspace.node.entries import pack_calls
from django_keyspace.node.raft import BadMessage
from tests.mutate.changes import always
from tests.mutate.tool import applied
from tests.sim.run import run_seed


@dataclass(frozen=True)
class RuntimeMutation:
    """One promise of the runtime switched off.

    Attributes:
        name: short, for the command line.
        what: what the node does then, in words.
        target: dotted name of what is replaced, below `django_keyspace`.
        make: makes the replacement from the original.
        seed, profile: a seed of the simulator that notices, and the mix of faults in which it does.
    """

    name: str
    what: str
    target: str
    make: Callable[[Any], Any]
    seed: int
    profile: str


def answer_at_once(original: Any) -> Any:
    def under_way(proposals: Any, index: int, term: int, group: Any) -> None:
        proposals.answer(group, [True] * 1000)

    return under_way


def durable_at_once(original: Any) -> Any:
    def write(persistence: Any, number: int, batch: Any) -> None:
        persistence._writer.submit(batch, lambda error: None)
        persistence._scheduler.call_soon(persistence._core.persisted, number)

    return write


def own_time(original: Any) -> Any:
    def apply_entry(store: Any, context: Any, entry: Any) -> Any:
        return original(store, context, entry._replace(log_ms=store.now_ms()))

    return apply_entry


def without_sessions(original: Any) -> Any:
    def pack(log_ms: int, calls: Any, version: int) -> bytes:
        return pack_calls(log_ms, [call[5] if call[0] == "once" else call for call in calls], version)

    return pack


def one_tick_at_a_time(original: Any) -> Any:
    """Missed ticks are forgotten: as if the clock stood while the process did."""

    def pass_time(runtime: Any) -> None:
        now_ms = runtime._clock.monotonic_ms()
        if now_ms - runtime._last_tick_ms > 2 * runtime.settings.tick_ms:
            runtime._last_tick_ms = now_ms - runtime.settings.tick_ms
        original(runtime)

    return pass_time


def evict_by_itself(original: Any) -> Any:
    """Each node evicts something else."""

    def apply_entry(store: Any, context: Any, entry: Any) -> Any:
        calls = [
            ("evict", call[1][sum(store.path.encode()) % 2 :]) if call[0] == "evict" else call for call in entry.calls
        ]
        return original(store, context, entry._replace(calls=calls))

    return apply_entry


def read_at_once(original: Any) -> Any:
    def read(reads: Any, level: str, ready: Any, min_index: int = 0, max_staleness_ms: int | None = None) -> None:
        core = reads._core
        if level == "safe" and core.can_read and core.raft.role.value == "leader":
            ready(reads._view(reads._log_clock.now_ms(), 0))
        else:
            original(reads, level, ready, min_index, max_staleness_ms)

    return read


def read_when_confirmed(original: Any) -> Any:
    def wait_for(waiting: Any, index: int, batch: Any) -> None:
        waiting._answer(batch)

    return wait_for


def forget_the_session(original: Any) -> Any:
    def read(reads: Any, level: str, ready: Any, min_index: int = 0, max_staleness_ms: int | None = None) -> None:
        original(reads, level, ready, 0, max_staleness_ms)

    return read


def call_it_refused(original: Any) -> Any:
    """Writes under way when leadership ends are said not to have been done."""

    def leadership_ended(proposals: Any, refusal: Any) -> None:
        under_way, proposals._under_way = list(proposals._under_way.values()), {}
        for found in under_way:
            proposals.fail(found.group, refusal)
        original(proposals, refusal)

    return leadership_ended


def any_entry_there(original: Any) -> Any:
    """What is under way is waited for when leadership has ended, and whatever is applied at its index answers it."""

    class Careless(original):  # type: ignore[misc]
        def leadership_ended(self, refusal: Any) -> None:
            kept, self._under_way = self._under_way, {}
            super().leadership_ended(refusal)
            self._under_way = kept

        def applied(self, index: int, term: int, results: Any) -> Any:
            found = self._under_way.get(index)
            return super().applied(index, found.term if found is not None else term, [*results, *[True] * 1000])

    return Careless


def forget_the_log(original: Any) -> Any:
    return lambda raft: None


def let_errors_pass(original: Any) -> Any:
    def fail(runtime: Any, error: BaseException) -> None:
        if "eio_read" not in str(error):
            original(runtime, error)

    return fail


def drop_the_older(original: Any) -> Any:
    def take_beginning(receiver: Any, begin: Any, applied_index: int) -> Any:
        latest = type(receiver._snapshots).latest
        type(receiver._snapshots).latest = None
        try:
            return original(receiver, begin, applied_index)
        finally:
            type(receiver._snapshots).latest = latest

    return take_beginning


def journal_stays(original: Any) -> Any:
    def restore(journal: Any, meta: Any) -> None:
        if journal.first_index() <= meta.index <= journal.last_index():
            original(journal, meta)

    return restore


def full_is_written(original: Any) -> Any:
    def write(persistence: Any, number: int, batch: Any) -> None:
        writer = persistence._writer

        def submit(batch: Any, done: Any) -> None:
            writer.submit(batch, lambda error: done(None if type(error).__name__ == "NoSpace" else error))

        persistence._writer = SimpleNamespace(submit=submit)
        original(persistence, number, batch)
        persistence._writer = writer

    return write


def own_clock_for_reads(original: Any) -> Any:
    return lambda reads, came_ms, majority_ms: reads._view(reads._log_clock.now_ms(), 0)


def upkeep_is_an_answer(original: Any) -> Any:
    return lambda group, logged: original(group._replace(upkeep=0), logged)[
        : sum(len(p.calls) for p in group.proposals)
    ]


def no_bad_messages(original: Any) -> Any:
    def receive(runtime: Any, sender: str, frames: Any) -> None:
        try:
            original(runtime, sender, frames[1:])
        except BadMessage:
            pass

    return receive


def sessions_are_lost(original: Any) -> Any:
    """A store that is made from a snapshot begins without sessions."""

    def install(machine: Any, snapshots: Any, snapshot: Any) -> None:
        original(machine, snapshots, snapshot)
        environment = machine.store._opened()
        with environment.begin(write=True) as txn:
            txn.drop(environment.sessions, delete=False)

    return install


def same_boot(original: Any) -> Any:
    """The machine's boots are not told apart."""

    def open_machine(cls: Any, disk: Any, options: Any, boot_id: str, *arguments: Any, **named: Any) -> Any:
        return original.__func__(cls, disk, options, boot_id.partition("-boot-")[0], *arguments, **named)

    return classmethod(open_machine)


TABLE = [
    RuntimeMutation(
        "answer-before-applied",
        "answers a write when its entry is proposed",
        "node.proposals.Proposals.under_way",
        answer_at_once,
        0,
        "calm",
    ),
    RuntimeMutation(
        "do-not-wait-for-the-disk",
        "tells the core that a batch is durable when it was handed over",
        "node.persistence.Persistence._write",
        durable_at_once,
        0,
        "crash",
    ),
    RuntimeMutation(
        "apply-by-own-time",
        "applies an entry at the time of its own clock",
        "store.replica.ReplicaStore._apply_entry",
        own_time,
        0,
        "clocks",
    ),
    RuntimeMutation(
        "log-without-sessions",
        "logs a write without its session and sequence",
        "node.packing.pack_calls",
        without_sessions,
        0,
        "network",
    ),
    RuntimeMutation(
        "forget-missed-ticks",
        "does not notice that it was stopped",
        "node.runtime.Runtime.pass_time",
        one_tick_at_a_time,
        122,
        "clocks",
    ),
    RuntimeMutation(
        "evict-by-itself",
        "evicts what it chooses itself, not what the log says",
        "store.replica.ReplicaStore._apply_entry",
        evict_by_itself,
        38,
        "calm",
    ),
    RuntimeMutation(
        "read-without-a-majority",
        "answers safe reads without asking whether it still leads",
        "node.reading.NodeReads.read",
        read_at_once,
        43,
        "clocks",
    ),
    RuntimeMutation(
        "read-before-applied",
        "answers reads before the confirmed entry is applied",
        "node.waiting.WaitingReads.wait_for",
        read_when_confirmed,
        7,
        "everything",
    ),
    RuntimeMutation(
        "forget-what-a-session-saw",
        "answers session reads from any state",
        "node.reading.NodeReads.read",
        forget_the_session,
        3,
        "network",
    ),
    RuntimeMutation(
        "lost-is-refused",
        "says that writes were not done when nobody knows",
        "node.proposals.Proposals.leadership_ended",
        call_it_refused,
        78,
        "network",
    ),
    RuntimeMutation(
        "answer-from-another-term",
        "takes another leader's entry for its own",
        "node.runtime.Proposals",
        any_entry_there,
        2,
        "network",
    ),
    RuntimeMutation(
        "log-time-of-heartbeats-only",
        "begins to lead without a look at the times in its log",
        "node.raft.core.Raft.newest_commands",
        forget_the_log,
        1,
        "crash",
    ),
    RuntimeMutation(
        "survive-unreadable-disk",
        "goes on when the journal cannot be read",
        "node.runtime.Runtime.fail",
        let_errors_pass,
        0,
        "disk",
    ),
    RuntimeMutation(
        "drop-older-snapshot",
        "takes no note of a later snapshot that it keeps",
        "node.transfer.SnapshotReceiver._take_beginning",
        drop_the_older,
        117,
        "membership",
    ),
    RuntimeMutation(
        "journal-before-snapshot",
        "leaves the journal as it is when a snapshot takes the store's place",
        "node.journal.journal.Journal.restore",
        journal_stays,
        4,
        "membership",
    ),
    RuntimeMutation(
        "full-is-durable",
        "takes what a full disk refused for written",
        "node.persistence.Persistence._write",
        full_is_written,
        2,
        "disk",
    ),
    RuntimeMutation(
        "read-by-own-clock",
        "hides what has expired by a time that no majority knows",
        "node.reading.NodeReads._confirmed_view",
        own_clock_for_reads,
        0,
        "clocks",
    ),
    RuntimeMutation(
        "upkeep-is-an-answer",
        "gives the result of an eviction to the first caller",
        "node.proposals.Group.results",
        upkeep_is_an_answer,
        38,
        "calm",
    ),
    RuntimeMutation(
        "trust-after-power-cut",
        "uses a store that the power cut may have spoilt",
        "node.machine.Machine.open",
        same_boot,
        1,
        "crash",
    ),
    RuntimeMutation(
        "scripts-do-not-hold",
        "lets others write between what a script read and wrote",
        "node.barrier.ScriptBarrier.is_held",
        always(False),
        7,
        "calm",
    ),
    RuntimeMutation(
        "snapshot-without-sessions",
        "forgets the sessions when it installs a snapshot",
        "node.machine.Machine.install",
        sessions_are_lost,
        4,
        "membership",
    ),
    RuntimeMutation(
        "drop-first-frame",
        "loses the first frame of each delivery",
        "node.runtime.Runtime.receive",
        no_bad_messages,
        0,
        "calm",
    ),
]
"""Every one was noticed by its seed when it was written. A change of the package makes other runs of the same seeds."""


def first_seed_of_cluster(mutation: RuntimeMutation, seeds: Iterable[int]) -> tuple[int, str] | None:
    """The first of these seeds of the simulated cluster that notices a mutation, and what it says."""
    with applied(mutation, "django_keyspace"):
        for seed in seeds:
            failure = run_seed(seed, mutation.profile).failure
            if failure:
                complaint = re.search(r"^[\w.]*(?:Violated|BadHistory|Error): (.*)$", failure, re.MULTILINE)
                return seed, complaint[1][:90].replace("|", "/") if complaint is not None else "a failure"
    return None

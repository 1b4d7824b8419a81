"""The small language of the interaction files, and its interpreter.

A file is comments (``# ...``), commands (``> ...``) and behind each command, indented, what it answered. Nodes are named n1, n2,
...; election timeouts are not random here: 10 ticks for n1, 12 for n2, 14 for n3 and so on, also after a restart.

=================================  =====================================================================================
``cluster n1 n2 n3 name=value``    begin; settings are those of `Config`
``join n4``                        an empty node that waits to be added
``time 10 [n1 n2]``                let ticks pass, at all nodes or at these; after each, do all work and deliver everything
``tick n1 10``                     let ticks pass at one node; nothing else happens
``settle``                         do all work and deliver everything until nothing is under way
``work n1``                        take what one node has to do, show it, and do it
``deliver n1->n2``                 deliver the messages that are under way there; ``deliver`` alone: all of them
``lose n1->n2``                    lose them
``double n1->n2``, ``copies``      keep a copy of them; put all copies under way
``wire``                           show what is under way
``propose n1 TEXT``                as it says, and so on:
``change n1 add n4``
``read n1 [lease]``
``transfer n1 [n2]``
``cut n1->n2``, ``cut n1 n2``      cut one direction, or both
``partition n1 n2 | n3``           cut all links between groups
``heal``                           mend all links
``pause n1``, ``resume n1 30``     stop a process without telling it; wake it and deliver so many missed ticks
``slow n1``, ``write n1 [1]``      the disk takes work and does nothing until told; ``fast n1`` ends that
``crash n1``, ``restart n1``       what was not written is lost
``snapshot n1 [kept=2]``           make a snapshot of what is applied, and cut the log
``arrived n1 n2``, ``failed``      the transfer of a snapshot from n1 to n2 has ended
``status``, ``log n1``             how it stands
``store n1``, ``reads n1``
``peers n1``
=================================  =====================================================================================

Every command also tells which roles and terms it changed.
"""

from __future__ import annotations

import random
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from django_keyspace.node.raft import (
    CHANGE,
    COMMANDS,
    AppendRequest,
    AppendResponse,
    Change,
    Entry,
    Heartbeat,
    HeartbeatResponse,
    Message,
    RaftError,
    Ready,
    SnapshotRequest,
    membership_from_bytes,
)
from tests.raft.cluster import Cluster, Letter

INDENT = "    "
STAGGER_TICKS = 2


class Scripted(random.Random):
    """Not random: a fixed timeout per node, and ids of attempts in order."""

    def __init__(self, offset: int) -> None:
        super().__init__(0)
        self.offset = offset
        self.drawn = 0

    def randrange(self, *args: Any) -> int:
        return self.offset

    def getrandbits(self, bits: int) -> int:
        self.drawn += 1
        return self.drawn


def scripted(name: str, number: int) -> Scripted:
    """The source of a node, by the number in its name."""
    return Scripted((int(name[1:]) - 1) * STAGGER_TICKS)


# --- What it looks like -----------------------------------------------------------------------------------------------


def show_entry(entry: Entry) -> str:
    what = "no-op"
    if entry.kind == COMMANDS:
        what = entry.data.decode()
    elif entry.kind == CHANGE:
        membership = membership_from_bytes(entry.data)
        learners = f" learners {' '.join(membership.learners)}" if membership.learners else ""
        what = f"voters {' '.join(membership.voters)}{learners}"
    return f"{entry.index}/{entry.term} {what}"


def show_message(message: Message) -> str:
    """One line: who to whom, what, and the fields that are not zero."""
    head = f"{message.sender}->{message.to} {type(message).__name__} term={message.term}"
    if isinstance(message, AppendRequest):
        entries = ", ".join(show_entry(entry) for entry in message.entries)
        return f"{head} prev={message.prev_index}/{message.prev_term} commit={message.commit} [{entries}]"
    if isinstance(message, AppendResponse):
        if message.accepted:
            return f"{head} accepted up to {message.index}"
        return f"{head} rejected {message.index} hint={message.hint_index}/{message.hint_term}"
    if isinstance(message, SnapshotRequest):
        return f"{head} snapshot={message.snapshot.index}/{message.snapshot.term}"
    fields = [f"{name}={getattr(message, name)}" for name in message._fields[3:] if name != "log_time_ms"]
    return " ".join([head, *fields])


def condense(messages: Sequence[Message]) -> list[str]:
    """One line per message; of the heartbeats of one link, and of the answers to them, only the last."""
    last = {}
    for message in messages:
        if isinstance(message, Heartbeat | HeartbeatResponse):
            last[type(message), message.sender, message.to] = message
    return [
        show_message(message)
        for message in messages
        if last.get((type(message), message.sender, message.to), message) is message
    ]


def show_ready(ready: Ready) -> list[str]:
    lines = [f"sends {line}" for line in condense(ready.messages)]
    if ready.snapshot is not None:
        lines.append(f"installs snapshot {ready.snapshot.index}/{ready.snapshot.term}")
    lines.extend(f"writes {show_entry(entry)}" for entry in ready.entries)
    if ready.hard_state is not None and ready.must_sync:
        lines.append(f"writes term={ready.hard_state.term} vote={ready.hard_state.vote or '-'}")
    lines.extend(f"applies {show_entry(entry)}" for entry in ready.committed)
    lines.extend(f"read {read.read_id} may be answered at {read.index}" for read in ready.reads)
    lines.extend(f"read {read_id} is refused" for read_id in ready.refused_reads)
    return lines


# --- The interpreter --------------------------------------------------------------------------------------------------


class Story:
    """Runs commands one by one."""

    def __init__(self) -> None:
        self.cluster = Cluster(())
        self.seen: dict[str, tuple[str, int]] = {}
        self.copies: list[Letter] = []

    def run(self, line: str) -> list[str]:
        """Do one command; errors of the core are answers."""
        name, *words = shlex.split(line)
        command: Callable[..., list[str] | None] = getattr(self, f"do_{name}")
        try:
            lines = command(*words) or []
        except RaftError as error:
            lines = [f"{type(error).__name__}: {str(error).split(' At that moment')[0]}"]
        return lines + self.changes()

    def changes(self) -> list[str]:
        """Roles and terms that are not as they were."""
        lines = []
        for name, node in self.cluster.nodes.items():
            now = (node.raft.role.value, node.raft.term)
            if node.up and self.seen.get(name) != now:
                if name in self.seen:
                    lines.append(f"{name} is {now[0]} in term {now[1]}")
                self.seen[name] = now
        return lines

    # --- Time and work ------------------------------------------------------------------------------------------------

    def do_cluster(self, *words: str) -> None:
        settings = dict(word.split("=") for word in words if "=" in word)
        values = {name: eval(value, {}) for name, value in settings.items()}
        self.cluster = Cluster([word for word in words if "=" not in word], source=scripted, **values)
        self.seen = {}

    def do_join(self, name: str) -> None:
        self.cluster.add(name)

    def do_time(self, ticks: str, *names: str) -> list[str]:
        lines = []
        for number in range(int(ticks)):
            for name in names or self.cluster.nodes:
                self.cluster.tick(name)
            self.cluster.settle()
            lines.extend(f"after {number + 1}: {line}" for line in self.changes())
        return lines

    def do_tick(self, name: str, count: str) -> None:
        self.cluster.tick(name, int(count))

    def do_settle(self) -> None:
        self.cluster.settle()

    def do_work(self, name: str) -> list[str]:
        lines = []
        while (ready := self.cluster.work(name)) is not None:
            lines.extend(show_ready(ready))
        return lines

    # --- The network --------------------------------------------------------------------------------------------------

    def _take(self, link: str | None) -> list[Letter]:
        sender, _, to = (link or "").partition("->")
        taken, left = [], []
        for letter in self.cluster.wire:
            fits = link is None or (letter.message.sender, letter.message.to) == (sender, to)
            (taken if fits else left).append(letter)
        self.cluster.wire = left
        return taken

    def do_deliver(self, link: str | None = None) -> list[str]:
        arrived, lost = [], []
        for letter in self._take(link):
            (arrived if self.cluster.deliver(letter) else lost).append(letter.message)
        return condense(arrived) + [f"{line} (lost)" for line in condense(lost)]

    def do_lose(self, link: str | None = None) -> list[str]:
        return [f"{line} (lost)" for line in condense([letter.message for letter in self._take(link)])]

    def do_double(self, link: str) -> None:
        letters = self._take(link)
        self.cluster.wire += letters
        self.copies.extend(letters)

    def do_copies(self) -> list[str]:
        letters, self.copies = self.copies, []
        self.cluster.wire += letters
        return condense([letter.message for letter in letters])

    def do_wire(self) -> list[str]:
        return condense([letter.message for letter in self.cluster.wire])

    def do_cut(self, one: str, other: str | None = None) -> None:
        if other is None:
            sender, _, to = one.partition("->")
            self.cluster.cut.add((sender, to))
        else:
            self.cluster.partition([one], [other])

    def do_partition(self, *words: str) -> None:
        groups: list[list[str]] = [[]]
        for word in words:
            if word == "|":
                groups.append([])
            else:
                groups[-1].append(word)
        self.cluster.partition(*groups)

    def do_heal(self) -> None:
        self.cluster.heal()

    # --- Processes and disks ------------------------------------------------------------------------------------------

    def do_pause(self, name: str) -> None:
        self.cluster.nodes[name].paused = True

    def do_resume(self, name: str, ticks: str) -> None:
        self.cluster.nodes[name].paused = False
        self.cluster.tick(name, int(ticks))

    def do_slow(self, name: str) -> None:
        self.cluster.nodes[name].slow_disk = True

    def do_fast(self, name: str) -> None:
        self.cluster.nodes[name].slow_disk = False
        self.cluster.write(name)

    def do_write(self, name: str, count: str | None = None) -> None:
        self.cluster.write(name, None if count is None else int(count))

    def do_crash(self, name: str) -> None:
        self.cluster.crash(name)

    def do_restart(self, name: str) -> None:
        self.cluster.restart(name)

    def do_snapshot(self, name: str, kept: str = "kept=0") -> list[str]:
        meta = self.cluster.snapshot(name, kept=int(kept.removeprefix("kept=")))
        return [f"snapshot {meta.index}/{meta.term} voters {' '.join(meta.membership.voters)}"]

    def do_arrived(self, name: str, peer: str) -> None:
        self.cluster[name].report_snapshot(peer, arrived=True)

    def do_failed(self, name: str, peer: str) -> None:
        self.cluster[name].report_snapshot(peer, arrived=False)

    # --- Clients and operators ----------------------------------------------------------------------------------------

    def do_propose(self, name: str, text: str) -> list[str]:
        return [show_entry(self.cluster[name].propose(text.encode()))]

    def do_change(self, name: str, kind: str, target: str) -> list[str]:
        return [show_entry(self.cluster[name].propose_change(Change(kind, target)))]

    def do_read(self, name: str, lease: str = "") -> list[str]:
        return [f"read {self.cluster.read(name, lease=lease == 'lease')}"]

    def do_transfer(self, name: str, target: str | None = None) -> list[str]:
        return [f"to {self.cluster[name].transfer(target)}"]

    # --- Looking ------------------------------------------------------------------------------------------------------

    def do_status(self, *names: str) -> list[str]:
        nodes = self.cluster.nodes
        return [nodes[name].raft.describe() if nodes[name].up else f"{name} is down" for name in names or nodes]

    def do_log(self, *names: str) -> list[str]:
        lines = []
        for name in names or self.cluster.nodes:
            log = self.cluster.nodes[name].storage.log
            lines.append(f"{name}: {', '.join(show_entry(entry) for entry in log)}")
        return lines

    def do_store(self, *names: str) -> list[str]:
        nodes = self.cluster.nodes
        return [f"{name}: {' '.join(data.decode() for _, _, data in nodes[name].store)}" for name in names or nodes]

    def do_reads(self, name: str) -> list[str]:
        node = self.cluster.nodes[name]
        answered = [f"read {read_id} answered at {index}" for read_id, index in node.confirmed.items()]
        return answered + [f"read {read_id} refused" for read_id in node.refused]

    def do_peers(self, name: str) -> list[str]:
        return [
            f"{peer} {status.flow} match={status.match} next={status.next_index} inflight={status.inflight_messages}"
            for peer, status in self.cluster[name].status().peers.items()
        ]


def play(path: Path) -> str:
    """The text of a file with the answers that its commands give now."""
    story = Story()
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(">"):
            lines.append(line)
            lines.extend(f"{INDENT}{answer}" for answer in story.run(line[1:]))
        elif not line.startswith(INDENT):
            lines.append(line)
    return "\n".join(lines) + "\n"

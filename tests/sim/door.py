"""A node's door for clients: what the server does with a request, without its sockets.

Everything behind it is the runtime. Scripts are done in the way of ``node/scripts.py`` when they were overtaken: the log is held,
what they read is read, and what they write is proposed as one atomic block with the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django_keyspace.exceptions import KeyspaceError, Overloaded
from django_keyspace.operations import Limits, check_call
from django_keyspace.store.record import Tag, payload_of
from tests.sim.world import Violated

if TYPE_CHECKING:
    from tests.sim.node import SimNode

Reply = Callable[[Any], None]
LIMITS = Limits(databases=1, value_bytes_max=2**20)


def serve(node: SimNode, request: Any, reply: Reply) -> None:
    """Do what a client asks for.

    Arguments:
        node: which one was asked.
        request: (level, call, min_index, max_staleness_ms).
        reply: takes (result, index, age in ms), or an error.
    """
    level, call, min_index, max_staleness_ms = request
    try:
        check_call(call, LIMITS)
        if level == "write":
            node.runtime.propose([call], _size(call), lambda results: _answer(node, results[0], reply))
        elif level == "script":
            _Script(node, call, reply)
        else:
            node.runtime.read(level, lambda view: _read(view, call, reply), min_index, max_staleness_ms)
    except KeyspaceError as error:
        reply(error)


def _size(call: Any) -> int:
    return 100 + len(repr(call))


def _answer(node: SimNode, result: Any, reply: Reply) -> None:
    reply(result if isinstance(result, KeyspaceError) else (result, node.runtime.applied_index, 0))


def _read(view: Any, call: Any, reply: Reply) -> None:
    if isinstance(view, KeyspaceError):
        reply(view)
        return
    try:
        result = view.read(*call)
    except KeyspaceError as error:
        reply(error)
    else:
        reply((result, view.index, view.age_ms))


class _Script:
    """A script that adds to a counter; the call is ``once`` with the ``incr`` that it stands for."""

    def __init__(self, node: SimNode, call: Any, reply: Reply) -> None:
        self.node = node
        self.runtime = node.runtime
        self.call = call
        self.reply = reply
        self.turn: Any = None
        self.term = 0
        self.turn = self.runtime.hold(self.granted)

    def granted(self, error: KeyspaceError | None) -> None:
        if error is not None:
            self.reply(error)
        else:
            self.term = self.runtime.raft.term
            # In a real node, a script runs in a process of its own meanwhile.
            self.node.scheduler.in_thread("script", lambda: None, lambda _: self.run())

    def run(self) -> None:
        node = self.node
        node.world.counts["script_barrier"] += 1
        _, session, sequence, lowest, again, (_, database, key, delta, *_), _ = self.call
        record = node.read_now("get", database, key)
        number = delta + (int(payload_of(record)) if record is not None else 0)
        seen = ("value", key, None, payload_of(record)) if record is not None else ("absent", key)
        writes = (("set", database, key, (int(Tag.INTEGER), 0, b"%d" % number), None, "always"),)
        block = ("atomic", ((database, seen),), writes)
        call = ("once", session, sequence, lowest, again, block, b"%d" % number)
        try:
            self.runtime.propose_held([call], _size(call), self.done)
        except KeyspaceError as refused:
            self.runtime.let_go(self.turn)
            self.reply(refused)

    def done(self, results: list[Any]) -> None:
        self.runtime.let_go(self.turn)
        result = results[0]
        if result is None and self.term == self.runtime.raft.term:
            raise Violated(f"A script was overtaken, and {self.node.id} held the log for it: {self.call}")
        if result is None:
            self.reply(Overloaded("The script was overtaken while somebody else led. Try again."))
        elif isinstance(result, KeyspaceError):
            self.reply(result)
        else:
            self.reply((int(result), self.runtime.applied_index, 0))

"""The search for an order: can these calls have taken effect one after the other, each between its beginning and its answer?

After Wing and Gong, with Lowe's just-in-time order: the calls' beginnings and answers are gone through by time, with the set of
all situations that are possible so far. At an answer, the calls that are under way are put in order as far as that one
needs. A situation is a state of the keys with two sets of calls:

settled
    nothing more is asked of them: they took effect, or need not.
used
    they took effect and cannot do so again.

A call of unknown outcome is settled from its beginning. So is a call from the moment on when it may have taken effect without a
trace, because the state is as it would leave it, or because a write that asks for nothing has just written over all of it.
Of two situations with the same state, one with more settled and fewer used calls can do all that the other can: only
the best are kept. That is what keeps histories small in which hundreds of outcomes are unknown.

Checked against all orders of small histories in `test_checker.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final

from tests.sim import calls, model
from tests.sim.history import NEVER, Event

State = tuple[int, ...]
"""The number of each key's cell."""

Situations = dict[State, list[tuple[int, int]]]
"""The settled and used calls of each possible state, the best ones only."""

STEPS_MAX: Final = 1_000_000


class Undecided(Exception):
    """The search was given up: it took too many steps."""


@dataclass(eq=False)
class Op:
    """A call in the search.

    Attributes:
        event: what the history says.
        begins: the earliest moment at which it may take effect: microseconds, and the turn within them.
        ends: the latest one.
        after: calls that it must come after, besides those that have ended before it begins.
        places: the places of its keys in the state.
        bit: stands for it in the sets.
        steps: what is known of it: from the cells of its keys, ``(what they may become, whether they may stay)``.
        twin: the unknown call before it that does the same: whoever needs one of them takes that first.
        blind: keys that it writes whatever was there.
        leads: another call must come after it.
        needs: bits of writes that must be used before it, of those that are still under way.
        waits: bits of reads that must be settled before it.
        only_reads: it changes nothing, and is never used: once it is settled, nothing more comes of it.
        fixes: its answer says what its keys are afterwards.
        highest: of a call on a counter that only grows: the number that it must have found there.
    """

    event: Event
    begins: tuple[int, int]
    ends: tuple[int, int]
    after: list[Op] = field(default_factory=list)
    places: tuple[int, ...] = ()
    bit: int = 0
    steps: dict[Any, tuple[tuple[Any, ...], bool]] = field(default_factory=dict)
    twin: Op | None = None
    blind: frozenset[model.Address] = frozenset()
    leads: bool = False
    needs: int = 0
    waits: int = 0
    only_reads: bool = False
    fixes: bool = False
    highest: int = 0

    @property
    def is_unknown(self) -> bool:
        return self.event.outcome == "unknown"

    def __post_init__(self) -> None:
        self.only_reads = self.event.call[0] in model.READS

    def is_open(self, settled: int, used: int) -> bool:
        """Whether it may still take effect, as far as these sets say."""
        if self.needs & ~used or self.waits & ~settled or (settled if self.only_reads else used) & self.bit:
            return False
        return self.twin is None or bool(used & self.twin.bit)


@dataclass(frozen=True)
class Dead:
    """Where the search ended: no order is left at an answer.

    Attributes:
        op: the call that fits nowhere.
        states: the keys' cells in the situations before it, some of them.
        under_way: the calls that overlap it.
        before: the calls whose answers came before, in that order.
    """

    op: Op
    states: Sequence[Mapping[model.Address, model.Cell]]
    under_way: Sequence[Op]
    before: Sequence[Op]


_FIXING: Final = frozenset({"get", "get_many", "remove", "delete", "delete_many", "prune", "set_many"})


class Search:
    """One search, over keys that belong together.

    Arguments:
        ops: the calls, without those that were refused and reads of unknown outcome.
        keys: all keys that one of them may touch.
        evicting: evictable records may be gone at any time.
        steps_max: give up after so many steps.

    Attributes:
        steps: how many were taken.
    """

    def __init__(
        self, ops: Sequence[Op], keys: Iterable[model.Address], *, evicting: bool = False, steps_max: int = STEPS_MAX
    ) -> None:
        self.ops = ops
        self.steps = 0
        self._keys = sorted(keys)
        self._steps_max, self._evicting = steps_max, evicting
        self._cells: list[model.Cell] = [model.EMPTY]
        self._numbers: dict[model.Cell, int] = {model.EMPTY: 0}
        self._pending: list[Op] = []
        self._unknown: list[Op] = []
        self._free: list[int] = []
        self._bits = 0
        self._followers: dict[Op, list[Op]] = {}
        self._prepare()

    def _prepare(self) -> None:
        place = {address: number for number, address in enumerate(self._keys)}
        same: dict[Any, dict[Any, Any]] = {}
        last_twin: dict[Any, Op] = {}
        plain = not self._evicting
        for op in self.ops:
            event = op.event
            keys, prefixes = calls.footprint(event.call)
            for database, prefix in prefixes:
                keys.update(key for key in self._keys if key[0] == database and key[1].startswith(prefix))
            op.places = tuple(sorted(place[key] for key in keys))
            op.blind = calls.blind_keys(event.call, is_unknown=op.is_unknown)
            what = (event.call, event.outcome, event.result if event.outcome != "unknown" else None)
            op.steps = same.setdefault(what, {})
            if op.blind and not op.is_unknown and self._look_at(op, (0,) * len(op.places)) == ((), False):
                op.blind = frozenset()  # it cannot have answered that
            if op.is_unknown:
                op.twin = last_twin.get(what)
                last_twin[what] = op
            for leader in op.after:
                leader.leads = True
                self._followers.setdefault(leader, []).append(op)
            plain = plain and not _has_deadline(event.call)
        self._only_grows = plain and len(self._keys) == 1 and all(_note_highest(op) for op in self.ops)
        for op in self.ops:
            name = op.event.call[0]
            op.fixes = plain and op.event.outcome == "ok" and (name in _FIXING or bool(op.blind))

    # ------------------------------------------------------------------------------------------------------ steps

    def _number(self, cell: model.Cell) -> int:
        number = self._numbers.get(cell)
        if number is None:
            number = self._numbers[cell] = len(self._cells)
            self._cells.append(cell)
        return number

    def _step(self, op: Op, here: tuple[int, ...]) -> tuple[tuple[tuple[int, ...], ...], bool]:
        """From the cells of an operation's keys: what they may become, and whether they may stay as they are."""
        event = op.event
        keys = [self._keys[place] for place in op.places]
        cells = {key: self._cells[number] for key, number in zip(keys, here, strict=True)}
        wanted = model.seen(event.call, event.result) if event.outcome == "ok" else event.result
        found: dict[tuple[int, ...], None] = {}
        for outcome in model.outcomes(cells.__getitem__, keys, event.call, evicting=self._evicting):
            if event.outcome == "unknown" or (outcome.word == event.outcome and outcome.result == wanted):
                after = {**cells, **outcome.changes}
                found[tuple(self._number(after[key]) for key in keys)] = None
        stays = found.pop(here, False) is None
        return tuple(found), stays

    def _look(self, op: Op, state: State) -> tuple[tuple[tuple[int, ...], ...], bool]:
        places = op.places
        return self._look_at(op, state if len(places) == len(state) else tuple([state[place] for place in places]))

    def _look_at(self, op: Op, here: tuple[int, ...]) -> tuple[tuple[tuple[int, ...], ...], bool]:
        known = op.steps.get(here)
        if known is None:
            known = op.steps[here] = self._step(op, here)
        return known

    @staticmethod
    def _place(op: Op, state: State, cells: tuple[int, ...]) -> State:
        if len(cells) == len(state):
            return cells
        changed = list(state)
        for place, cell in zip(op.places, cells, strict=True):
            changed[place] = cell
        return tuple(changed)

    # ------------------------------------------------------------------------------------------------- situations

    @staticmethod
    def _add(situations: Situations, state: State, settled: int, used: int) -> bool:
        """Keep a situation, unless there is one that can do all that it can. Those that it makes superfluous go."""
        best = situations.get(state)
        if best is None:
            situations[state] = [(settled, used)]
            return True
        for other_settled, other_used in best:
            if not settled & ~other_settled and not other_used & ~used:
                return False
        best[:] = [(s, u) for s, u in best if s & ~settled or used & ~u]
        best.append((settled, used))
        return True

    def _settle(self, op: Op, state: State, settled: int, used: int) -> int:
        """The settled calls, with this one if it may have taken effect without a trace."""
        if settled & op.bit or (op.leads and not op.only_reads) or not op.is_open(settled, used):
            return settled
        return settled | op.bit if self._look(op, state)[1] else settled

    def _after(self, op: Op, state: State, cells: tuple[int, ...], settled: int, used: int) -> tuple[State, int, int]:
        """The situation after a call took effect."""
        settled, used = settled | op.bit, used if op.only_reads else used | op.bit
        state = self._place(op, state, cells)
        for other in self._pending:
            if not settled & other.bit:
                if op.blind and other.blind and other.blind <= op.blind and not other.leads:
                    settled |= other.bit
                else:
                    settled = self._settle(other, state, settled, used)
        return state, settled, used

    # -------------------------------------------------------------------------------------------------- the search

    def run(self) -> Dead | None:
        """Search.

        Returns:
            None if there is an order; otherwise where it ended.
        Raises:
            Undecided: it took too many steps.
        """
        situations: Situations = {(0,) * len(self._keys): [(0, 0)]}
        moments = [(op.begins, 0, number, op) for number, op in enumerate(self.ops)]
        moments += [(op.ends, 1, number, op) for number, op in enumerate(self.ops) if op.ends[0] < NEVER]
        for _, is_end, _, op in sorted(moments, key=itemgetter(0, 1, 2)):
            if not is_end:
                situations = self._begin(op, situations)
                continue
            before = situations
            situations = self._end(op, situations)
            if not situations:
                return self._dead(op, before)
            situations = self._retire(op, situations)
        return None

    def _begin(self, op: Op, situations: Situations) -> Situations:
        if self._free:
            op.bit = self._free.pop()
        else:
            op.bit = 1 << self._bits
            self._bits += 1
        if op.is_unknown:
            self._unknown.append(op)
            return situations
        leaders = [leader for leader in op.after if leader in self._pending]
        op.needs = sum({leader.bit for leader in leaders if not leader.only_reads})
        op.waits = sum({leader.bit for leader in leaders if leader.only_reads})
        self._pending.append(op)
        changed: Situations = {}
        for state, best in situations.items():
            for settled, used in best:
                self._add(changed, state, self._settle(op, state, settled, used), used)
        return changed

    def _retire(self, op: Op, situations: Situations) -> Situations:
        """A call has ended: no set needs it any more."""
        self._pending.remove(op)
        for follower in self._followers.get(op, ()):
            follower.needs &= ~op.bit
            follower.waits &= ~op.bit
        self._free.append(op.bit)
        kept: Situations = {}
        for state, best in situations.items():
            for settled, used in best:
                self._add(kept, state, settled & ~op.bit, used & ~op.bit)
        return kept

    def _end(self, op: Op, situations: Situations) -> Situations:
        """All situations after ``op``, and after as little else as possible."""
        reached: Situations = {}
        visited: Situations = {}
        work: list[tuple[State, int, int]] = []
        for state, best in situations.items():
            for settled, used in best:
                if settled & op.bit:
                    self._add(reached, state, settled, used)
                # A call that need not take effect any more still may, until its answer.
                if self._may_move(op, settled, used) and self._add(visited, state, settled, used):
                    work.append((state, settled, used))
        if not work:
            return reached
        others, superfluous = self._others(op, reached)
        heard = self._listeners(op, others)
        while work:
            next_work: list[tuple[State, int, int]] = []
            for state, settled, used in work:  # in order of the number of calls put before this one
                if (settled, used) not in visited[state]:
                    continue  # a better one came meanwhile
                self._take(op, state, settled, used, reached)
                if superfluous(state, settled, used):
                    continue
                for other in others:
                    if not other.is_open(settled, used):
                        continue
                    moves, stays = self._look(other, state)
                    if stays and other.leads and not settled & other.bit:
                        moves = (*moves, tuple(state[place] for place in other.places))
                    for cells in moves:
                        if not heard(other, cells, settled, used):
                            continue
                        self._count()
                        after = self._after(other, state, cells, settled, used)
                        if self._only_grows and self._is_beyond(after[0], after[1]):
                            continue
                        if after[1] & op.bit:
                            self._add(reached, *after)
                        if self._may_move(op, after[1], after[2]) and self._add(visited, *after):
                            next_work.append(after)
            work = next_work
        return reached

    def _is_beyond(self, state: State, settled: int) -> bool:
        """Whether a counter that only grows has left behind what a call under way must have found."""
        value = self._cells[state[0]].value
        number = 0 if value is None else int(value[2])
        return any(not settled & op.bit and number > op.highest for op in self._pending)

    @staticmethod
    def _may_move(op: Op, settled: int, used: int) -> bool:
        return not (settled if op.only_reads else used) & op.bit

    def _take(self, op: Op, state: State, settled: int, used: int, reached: Situations) -> None:
        """Let the call take effect whose answer has come."""
        if not op.is_open(settled, used):
            return
        moves, stays = self._look(op, state)
        self._count()
        if stays:
            self._add(reached, *self._after(op, state, tuple(state[place] for place in op.places), settled, used))
        for cells in moves:
            self._add(reached, *self._after(op, state, cells, settled, used))

    def _count(self) -> None:
        self.steps += 1
        if self.steps > self._steps_max:
            raise Undecided(f"no answer after {self._steps_max:,} steps")

    def _others(self, op: Op, reached: Situations) -> tuple[list[Op], Callable[[State, int, int], bool]]:
        """What may have to be put before a call, and when to stop.

        Calls on keys that have nothing to do with its own can as well come after it. If all that is left touches only its own
        keys, and its answer says what these are afterwards, more calls before it are in vain once nothing is asked of them.
        """
        near, keys = [], set(op.places)
        candidates = [other for other in (*self._pending, *self._unknown) if other is not op]
        # Who comes after another call waits for it, whatever keys that has.
        needed = op.needs | op.waits
        grown = True
        while grown:
            grown = False
            rest = []
            for other in candidates:
                if other.bit & needed or not keys.isdisjoint(other.places):
                    near.append(other)
                    keys.update(other.places)
                    needed |= other.needs | other.waits
                    grown = True
                else:
                    rest.append(other)
            candidates = rest
        if not op.fixes or len(keys) > len(op.places):
            return near, _never
        own = frozenset(op.places)
        rest = [place for place in range(len(self._keys)) if place not in own]
        asking = sum(other.bit for other in near if not other.is_unknown)

        def superfluous(state: State, settled: int, used: int) -> bool:
            return any(
                not (settled | asking) & ~other_settled and not other_used & ~op.bit & ~used
                for other_state, best in reached.items()
                for other_settled, other_used in best
                if not rest or all(state[place] == other_state[place] for place in rest)
            )

        return near, superfluous

    def _listeners(self, op: Op, others: Sequence[Op]) -> Callable[[Op, tuple[int, ...], int, int], bool]:
        """Whether a call on one key is worth putting before ``op``: only if a call that comes next on that key needs it there.

        If nothing on its key follows, it can as well come after ``op``; if a write follows that asks for nothing, it need not
        have taken effect at all, or that write settles it.
        """
        by_place: dict[int, list[Op]] = {}
        for other in (op, *others):
            for place in other.places:
                by_place.setdefault(place, []).append(other)
        known: dict[tuple[int, int], tuple[int, int]] = {}
        reads = sum(other.bit for other in (op, *others) if other.only_reads)

        def heard(first: Op, cells: tuple[int, ...], settled: int, used: int) -> bool:
            if len(cells) != 1 or first.leads:
                return True
            place = first.places[0]
            listeners = known.get((place, cells[0]))
            if listeners is None:
                accepting = [(other.bit, self._accepts(other, place, cells[0])) for other in by_place[place]]
                asking = sum({bit for bit, accepts in accepting if accepts})
                blind = sum({bit for bit, accepts in accepting if accepts is None})
                listeners = known[place, cells[0]] = (asking, blind)
            wanted = listeners[0] if settled & first.bit or first.blind else listeners[0] | listeners[1]
            return bool(wanted & ~used & ~first.bit & ~(settled & reads))

        return heard

    def _accepts(self, op: Op, place: int, cell: int) -> bool | None:
        """Whether a call can take effect on a cell of one of its keys; None if it asks for nothing there."""
        address = self._keys[place]
        if address in op.blind:
            return None
        if len(op.places) > 1:
            if op.event.outcome != "ok":
                return True
            says, value = calls.told(op.event.call, model.seen(op.event.call, op.event.result), address)
            found = self._cells[cell].value
            return not says or value == found or value is None
        moves, stays = self._look_at(op, (cell,))
        return bool(moves) or (stays and not op.is_unknown)

    def _dead(self, op: Op, situations: Situations) -> Dead:
        states = [
            {key: self._cells[number] for key, number in zip(self._keys, state, strict=True)}
            for state in list(situations)[:8]
        ]
        under_way = [other for other in (*self._pending, *self._unknown) if other is not op]
        before = sorted((other for other in self.ops if other.ends < op.ends), key=lambda other: other.ends)
        return Dead(op, states, under_way, before)


def _note_highest(op: Op) -> bool:
    """Note what a call must have found under a counter that only grows. False if it is for something else."""
    event, name = op.event, op.event.call[0]
    if name == "get" and event.outcome == "ok":
        op.highest = model.number(event.result) if model.number(event.result) is not None else -1
        return True
    is_increment = name == "incr" and event.call[3] >= 0 and event.call[4] == 0 and event.outcome != "error"
    if is_increment and not op.is_unknown:
        op.highest = event.result - event.call[3]
    return is_increment


def _never(state: State, settled: int, used: int) -> bool:
    return False


def _has_deadline(call: Sequence[Any]) -> bool:
    """Whether a call may give a record or a name a deadline."""
    name = call[0]
    if name in ("set_expiry", "remove_expiry", "clear_expiries"):
        return True
    if name in ("batch", "atomic"):
        return any(_has_deadline(part) for part in call[-1])
    if name == "once":
        return _has_deadline(call[5])
    expire = {"set": 4, "set_many": 3, "touch": 3, "incr": 5, "incr_float": 5, "append": 4, "cas": 4}.get(name)
    return expire is not None and call[expire] not in (None, "keep")

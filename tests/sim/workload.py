"""What clients ask for: operations of every kind over few keys, so that they meet.

Keys by their first letter: ``k`` and ``p`` anything, ``c`` counters (only ever added to), ``a`` an account of appended
numbers (only ever appended to), ``t`` values with timeouts, ``e`` what may be evicted, ``n`` large values that may not. Every
value is written once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from django_keyspace.operations import Call
from django_keyspace.store.record import Flag, Tag
from tests.sim.profiles import Plan

PLAIN = (b"k0", b"k1", b"k2", b"p0", b"p1")
COUNTERS = (b"c0", b"c1")
ACCOUNT = b"a0"
TIMED = (b"t0", b"t1", b"t2")
EVICTABLE = tuple(b"e%02d" % number for number in range(80))
BULKY = tuple(b"n%02d" % number for number in range(14))
PREFIX = b"p"
LEVELS = ("safe", "safe", "lease", "session", "dirty")


@dataclass(frozen=True)
class Wish:
    """What a client wants.

    Attributes:
        level: ``write``, ``script`` (a write that is done as a script does it), or that of a read.
        call: the operation.
    """

    level: str
    call: Call


class Workload:
    """Makes wishes.

    Arguments:
        random: decides.
        plan: whether the store is to be filled, or clients are after what expires.
    """

    def __init__(self, random: Random, plan: Plan) -> None:
        self._random = random
        self._number = 0
        makers: list[tuple[float, Callable[[], Wish]]] = [
            (6, self._set), (1, self._presence), (3, self._incr), (1, self._script), (2, self._append), (2, self._cas),
            (1, self._remove), (1, self._delete), (1, self._rename), (1, self._set_many), (0.4, self._prune), (0.7, self._batch),
            (0.7, self._atomic), (2, self._timed), (10, self._get), (2, self._get_many), (2, self._get_timed),
            (0.4, self._refused), (0.3, self._kept_large), (1, self._get_counter),
        ]  # fmt: skip
        if plan.timed:
            makers += [(15, self._timed), (40, self._get_timed)]
        if plan.tight:
            makers += [(10, self._large), (1, self._drop_large), (3, self._bulky), (0.3, self._drop_bulky)]
        self._weights = [weight for weight, _ in makers]
        self._makers = [maker for _, maker in makers]

    def next(self) -> Wish:
        """What comes next."""
        return self._random.choices(self._makers, self._weights)[0]()

    def value(self, size_bytes: int = 0) -> tuple[int, int, bytes]:
        """A value that nobody has written before."""
        self._number += 1
        return (int(Tag.BYTES), 0, (b"v%d." % self._number).ljust(size_bytes, b"."))

    def _key(self) -> bytes:
        return self._random.choice(PLAIN)

    def _set(self) -> Wish:
        return Wish("write", ("set", 0, self._key(), self.value(), None, "always"))

    def _presence(self) -> Wish:
        presence = self._random.choice(("absent", "present"))
        return Wish("write", ("set", 0, self._key(), self.value(), None, presence))

    def _incr(self) -> Wish:
        key = self._random.choice(COUNTERS)
        return Wish("write", ("incr", 0, key, self._random.choice((1, 10, 100, -1)), 0, None, 0))

    def _script(self) -> Wish:
        return Wish("script", self._incr().call)

    def _append(self) -> Wish:
        tag, flags, payload = self.value()
        return Wish("write", ("append", 0, ACCOUNT, (tag, flags, payload), None))

    def _cas(self) -> Wish:
        key, chance = self._key(), self._random.random()
        # Sometimes a value that may well be there: one of the last.
        payload = b"v%d." % max(1, self._number - self._random.randrange(6))
        condition = (
            ("absent", key) if chance < 0.2 else ("present", key) if chance < 0.3 else ("value", key, None, payload)
        )
        value = None if chance > 0.9 else self.value()
        return Wish("write", ("cas", 0, condition, value, None))

    def _remove(self) -> Wish:
        return Wish("write", ("remove", 0, self._key()))

    def _delete(self) -> Wish:
        return Wish("write", ("delete", 0, self._key()))

    def _rename(self) -> Wish:
        return Wish("write", ("rename", 0, self._key(), self._key()))

    def _set_many(self) -> Wish:
        keys = self._random.sample(PLAIN, 2)
        return Wish("write", ("set_many", 0, tuple((key, self.value()) for key in keys), None))

    def _prune(self) -> Wish:
        return Wish("write", ("prune", 0, PREFIX))

    def _batch(self) -> Wish:
        return Wish("write", ("batch", tuple(wish.call for wish in (self._set(), self._rename(), self._incr()))))

    def _atomic(self) -> Wish:
        condition = (0, ("absent" if self._random.random() < 0.5 else "present", self._key()))
        return Wish("write", ("atomic", (condition,), (self._set().call, self._set().call, self._incr().call)))

    def _refused(self) -> Wish:
        """Fails by what is stored: the same everywhere, and each time."""
        return Wish("write", ("incr", 0, self._key(), 1, None, None, 0))

    def _timed(self) -> Wish:
        timeout_ms = self._random.choice((100, 700, 3_000))
        return Wish("write", ("set", 0, self._random.choice(TIMED), self.value(), timeout_ms, "always"))

    def _large(self) -> Wish:
        tag, _, payload = self.value(self._random.choice((10_000, 30_000, 60_000)))
        return Wish(
            "write", ("set", 0, self._random.choice(EVICTABLE), (tag, int(Flag.EVICTABLE), payload), None, "always")
        )

    def _drop_large(self) -> Wish:
        return Wish("write", ("delete_many", 0, tuple(self._random.sample(EVICTABLE, 5))))

    def _bulky(self) -> Wish:
        """What may not be evicted."""
        tag, flags, payload = self.value(90_000)
        return Wish("write", ("set", 0, self._random.choice(BULKY), (tag, flags, payload), None, "always"))

    def _drop_bulky(self) -> Wish:
        return Wish("write", ("delete_many", 0, tuple(self._random.sample(BULKY, 10))))

    def _kept_large(self) -> Wish:
        """A result that the session's table has to keep by itself."""
        return Wish("write", ("cas", 0, ("present", b"p1"), self.value(600), None))

    def _get(self) -> Wish:
        return Wish(self._random.choice(LEVELS), ("get", 0, self._key()))

    def _get_counter(self) -> Wish:
        return Wish(self._random.choice(LEVELS), ("get", 0, self._random.choice((*COUNTERS, ACCOUNT))))

    def _get_many(self) -> Wish:
        return Wish(self._random.choice(LEVELS), ("get_many", 0, tuple(self._random.sample(PLAIN, 2))))

    def _get_timed(self) -> Wish:
        return Wish("safe", ("get", 0, self._random.choice(TIMED)))

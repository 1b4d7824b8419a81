"""Single flight: when a value is missing, one caller makes it and the others wait for it, or take the stale one meanwhile.

Beside the value's key there is a lease while somebody makes the value. Whoever gets the lease makes the value and stores it;
storing it and giving the lease back are one operation, done only while the lease is still the maker's. The others look
every now and then: they find the value, or a lease that is free because its holder failed or died, and then it is their
turn. Nobody ever gets None for "somebody else is at it". The lease is no promise: a maker that takes longer than the lease
gets company.

A value with a ``stale_timeout`` is stored with the deadline ``timeout + stale_timeout``. It is stale when no more than
``stale_timeout`` of that is left, so nothing but the record's own deadline has to be stored.
"""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Callable
from functools import cached_property
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, cast

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from django_keyspace.backend.codec import Unreadable
from django_keyspace.backend.degrade import OUTAGES
from django_keyspace.backend.expire import Timeout, make_expire
from django_keyspace.backend.locks import WAIT_S_DEFAULT, Lease, Lock, owned_by
from django_keyspace.backend.memoize import Memoize, legible_key
from django_keyspace.backend.twins import Steps
from django_keyspace.backend.waiting import ENCODE, LEASE_S_DEFAULT, MAKE, PAUSE, pauses_s, seconds
from django_keyspace.exceptions import InvalidArgument, KeyspaceError
from django_keyspace.operations import Expire, Value
from django_keyspace.store.record import revision_of

if TYPE_CHECKING:
    from django_keyspace.backend.cache import KeyspaceCache

FLIGHT_STEM: Final = "flight:"
"""The lease of a key is under the key after this, or under its digest if it is long or hard to read."""
_LEASES_WAITED_MAX: Final = 2
"""A caller waits for so many leases. After that it makes the value itself rather than wait for ever."""
_MISSING: Final = object()


class Flight(Lease):
    """One call of ``get_or_set`` with a lease.

    Arguments:
        cache: where the value lies.
        key, version: the value's.
        default: what to store: a value, or what to call for it.
        expire: the value's timeout, made.
        lease_s: how long making the value may take.
        stale_ms: how long a value is kept beyond its timeout, for those who do not make the new one.
    """

    def __init__(
        self,
        cache: KeyspaceCache,
        key: Any,
        version: Any,
        default: Any,
        expire: Expire,
        lease_s: float,
        stale_ms: int,
    ) -> None:
        super().__init__(cache, lease_s)
        self._value_key = cache._key(key, version)
        self._key = key
        self._version = version
        self._default = default
        self._patience_s = lease_s * _LEASES_WAITED_MAX
        self._stale_ms = stale_ms
        # A value that is expired at once is not stored, as in Django. One without a deadline is never stale.
        self._expire = expire + stale_ms if isinstance(expire, int) and expire else expire

    @cached_property
    def _full(self) -> bytes:  # most calls find a value and never need this
        return self._cache._key(legible_key(FLIGHT_STEM, str(self._key)), self._version)

    def steps(self, is_looked_up: bool = False) -> Steps[Any]:
        """The value: the one that is there, or a new one.

        Arguments:
            is_looked_up: the caller has looked, and there was none.
        """
        value: Any = _MISSING
        if not is_looked_up:
            value, is_fresh, _ = yield from self._look()
            counters = self._cache._counters
            if value is _MISSING:
                counters.misses += 1
            else:
                counters.hits += 1
            if is_fresh:
                return value
        owner = secrets.token_hex(16).encode()
        try:
            is_ours, value = yield from self._board(owner, value)
        except OUTAGES as error:
            self._swallow(error)
            is_ours = False
        if is_ours:
            return (yield from self._make(owner))
        # Either there is a value, if only a stale one, or it is time to do without the others.
        return (yield MAKE, self._default) if value is _MISSING else value

    def _look(self) -> Steps[tuple[Any, bool, int]]:
        """``(value, whether it is fresh, its revision)`` as things are now."""
        cache = self._cache
        try:
            record = yield "get", cache._database, self._value_key
            if record is None:
                return _MISSING, False, 0
            try:
                value = cache._decode(record)
            except Unreadable:
                return _MISSING, False, int(revision_of(record)[0])
            left_ms = -1
            if self._stale_ms:
                left_ms = yield "ttl", cache._database, self._value_key
        except OUTAGES as error:
            self._swallow(error)
            return _MISSING, False, 0
        is_fresh = left_ms is not None and (left_ms < 0 or left_ms > self._stale_ms)
        return value, is_fresh, int(revision_of(record)[0])

    def _board(self, owner: bytes, value: Any) -> Steps[tuple[bool, Any]]:
        """Get the lease: ``(True, anything)`` if it is ours.

        ``(False, value)`` if somebody has it and there is a value, ``(False, missing)`` if there is none and patience is
        over.
        """
        lengths_s, until_s = pauses_s(), monotonic() + self._patience_s
        while not (yield from self._claim(owner)):
            is_taken = True
            while is_taken:
                if value is not _MISSING or monotonic() >= until_s:
                    return False, value
                yield PAUSE, next(lengths_s)
                value, _, _ = yield from self._look()
                is_taken = yield "exists", self._cache._database, self._full
        return True, value

    def _make(self, owner: bytes) -> Steps[Any]:
        """With the lease: make the value and store it. Gives the lease back, whatever happens."""
        try:
            # Somebody may have finished between our look and our lease.
            value, is_fresh, revision = yield from self._look()
            if not is_fresh:
                value = yield MAKE, self._default
                encoded = yield ENCODE, value
                yield from self._land(owner, encoded, revision)
                return value
        except BaseException:
            yield from self._drop_quietly(owner)
            raise
        yield from self._drop_quietly(owner)
        return value

    def _land(self, owner: bytes, encoded: Value, revision: int) -> Steps[None]:
        """Store the value and give the lease back, in one operation."""
        cache, key = self._cache, self._value_key
        database = cache._database
        condition = (database, owned_by(self._full, owner))
        store = cache._growing(("set", database, key, encoded, self._expire, "always"), [key])
        try:
            done, results = yield "atomic", [condition], [store, ("delete", database, self._full)]
            if done:
                cache._grown(results[0])
                return
            # It took longer than the lease. The value is good if nobody has stored another one since.
            unchanged: tuple[Any, ...] = ("revision", key, revision) if revision else ("absent", key)
            cache._grown((yield cache._growing(("cas", database, unchanged, encoded, self._expire), [key])))
        except OUTAGES as error:
            self._swallow(error)
            yield from self._drop_quietly(owner)

    def _swallow(self, error: KeyspaceError) -> None:
        """With ``on_error="miss"``, values are made and not stored while the store is out of reach; otherwise raise."""
        config = self._cache._runtime.config
        if config.on_error == "raise":
            raise error
        self._cache._runtime.outages.note(config.location, error)


class FlightMethods:
    """Mixed into :class:`~django_keyspace.backend.cache.KeyspaceCache`: what makes callers wait for each other."""

    if TYPE_CHECKING:
        default_timeout: Any
        get: Callable[..., Any]
        add: Callable[..., Any]
        aget: Callable[..., Any]
        aadd: Callable[..., Any]

    def lock(self, name: str, timeout: Any = LEASE_S_DEFAULT, wait: Any = WAIT_S_DEFAULT, version: Any = None) -> Lock:
        """A lease lock: ``with cache.lock("job", timeout=30) as lease: ... lease.token``, or ``async with``.

        Arguments:
            name: what it is for.
            timeout: seconds until it ends by itself.
            wait: seconds to wait for it.
            version: as for keys.
        Returns:
            A :class:`~django_keyspace.backend.locks.Lock`, not acquired yet. Read there what a lease lock is not.
        """
        return Lock(self._as_cache(), name, timeout, wait, version)

    def get_or_set(
        self,
        key: Any,
        default: Any,
        timeout: Timeout = DEFAULT_TIMEOUT,
        version: Any = None,
        lock: Any = None,
        stale_timeout: Any = None,
    ) -> Any:
        """The value under a key; if there is none, ``default`` (called if it is callable), which is stored first.

        Arguments:
            lock: let one caller make the value, over all threads and processes, while the others wait for it. True, or
                the seconds that making it takes at most (30 for True). Whoever waited twice as long makes it too.
            stale_timeout: seconds to keep a value beyond ``timeout``. Meanwhile one caller makes the new value and the
                others get the old one at once. All callers of a key must give the same. Implies ``lock``.
        Raises:
            Whatever ``default`` raises; the next caller tries again.
        """
        if stale_timeout is None:
            value = self.get(key, _MISSING, version)
            if value is not _MISSING:
                return value
        flight = self._flight(key, default, timeout, version, lock, stale_timeout)
        if flight is not None:
            return flight._run(flight.steps(is_looked_up=stale_timeout is None))
        if callable(default):
            default = default()
        self.add(key, default, timeout, version)
        return self.get(key, default, version)

    async def aget_or_set(
        self,
        key: Any,
        default: Any,
        timeout: Timeout = DEFAULT_TIMEOUT,
        version: Any = None,
        lock: Any = None,
        stale_timeout: Any = None,
    ) -> Any:
        """As :meth:`get_or_set`; ``default`` may also be a coroutine function."""
        if stale_timeout is None:
            value = await self.aget(key, _MISSING, version)
            if value is not _MISSING:
                return value
        flight = self._flight(key, default, timeout, version, lock, stale_timeout)
        if flight is not None:
            return await flight._arun(flight.steps(is_looked_up=stale_timeout is None))
        if callable(default):
            default = default()
            if inspect.isawaitable(default):
                default = await default
        await self.aadd(key, default, timeout, version)
        return await self.aget(key, default, version)

    def memoize(
        self,
        timeout: Timeout = DEFAULT_TIMEOUT,
        *,
        prefix: str | None = None,
        version: Any = None,
        lock: Any = None,
        stale_timeout: Any = None,
        key: Callable[..., Any] | None = None,
    ) -> Memoize:
        """Decorate a function or a coroutine function so that its results are cached: ``@cache.memoize(timeout=60)``.

        Arguments:
            timeout, version, lock, stale_timeout: as for :meth:`get_or_set`.
            prefix: what the keys begin with; without it, the function's module and qualified name.
            key: called with the function's arguments; what it returns takes their place in the key. Needed for arguments
                that are no plain values, such as ``self`` or a model instance.
        Returns:
            A decorator; :mod:`django_keyspace.backend.memoize` says what it adds to the function.
        """
        if inspect.isroutine(timeout):
            raise InvalidArgument("Write @cache.memoize() with brackets.")
        # A wrong argument shows when it is written, not when the function is called.
        make_expire(0 if timeout is DEFAULT_TIMEOUT else timeout)
        self._flight("key", None, timeout, version, lock, stale_timeout)
        return Memoize(self._as_cache(), timeout, prefix, version, lock, stale_timeout, key)

    def _as_cache(self) -> KeyspaceCache:
        return cast("KeyspaceCache", self)

    def _flight(
        self, key: Any, default: Any, timeout: Timeout, version: Any, lock: Any, stale_timeout: Any
    ) -> Flight | None:
        """What a ``get_or_set`` with these arguments needs, or None if it is Django's plain one."""
        if stale_timeout is None and (lock is None or lock is False):
            return None
        if lock is False:
            raise InvalidArgument(
                "stale_timeout needs a lock: without one, every caller would make the new value. Leave lock=False out."
            )
        lease_s = LEASE_S_DEFAULT if lock is None or lock is True else seconds("lock", lock, 0.001)
        stale = 0 if stale_timeout is None else make_expire(seconds("stale_timeout", stale_timeout, 0))
        expire = make_expire(self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout)
        return Flight(self._as_cache(), key, version, default, expire, lease_s, stale if isinstance(stale, int) else 0)

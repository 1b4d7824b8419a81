"""Locks that are leases: held until they are released or their time is over, with a fencing token for the resource.

``with cache.lock("job", timeout=30) as lease:`` enters the block in one thread, task or process at a time, as long as every
block ends before its lease does. A block that is paused for longer (a garbage collector, a suspended machine, a slow disk)
does not know that its lease is over and that somebody else has the lock. So ``lease.token`` is a number that grows with
every acquisition: pass it on with each write to whatever the lock protects, and let that refuse tokens below the highest it
has seen. Without this a lease lock saves work, but does not protect data; Jepsen's analysis of etcd 3.4.3 shows writes that
were lost under exactly such locks, in a store that is otherwise strictly serializable.

A lock is a record with a random owner as its value. It is set only if there is none, and touched or deleted only by a
comparison with the owner, each in one operation of the store. Its token is the record's revision, read in the transaction
that made it.
"""

from __future__ import annotations

import math
import secrets
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Self

from django_keyspace.backend.twins import Steps, twins
from django_keyspace.backend.waiting import LEASE_S_DEFAULT, PAUSE, Waiting, pauses_s, seconds
from django_keyspace.exceptions import KeyspaceError, LockLost, LockNotAcquired
from django_keyspace.operations import DEADLINE_MS_MAX, Value
from django_keyspace.status import Status
from django_keyspace.store.record import Tag, payload_of, revision_of

if TYPE_CHECKING:
    from django_keyspace.backend.cache import KeyspaceCache

LOCK_STEM: Final = "lock:"
"""A lock's key is its name after this, with the alias's prefix and the version."""
WAIT_S_DEFAULT: Final = 10.0
_LEAST_S: Final = 0.001
_LONGEST_MS: Final = DEADLINE_MS_MAX // 2


class Lease(Waiting):
    """One key that is held with a random owner until a deadline. What a lock and a single flight have in common.

    Arguments:
        cache: where the key lies.
        timeout_s: how long one acquisition lasts.
    """

    def __init__(self, cache: KeyspaceCache, timeout_s: float) -> None:
        super().__init__(cache)
        self._timeout_ms = lease_ms(timeout_s)

    @property
    def _full(self) -> bytes:
        """The store's key of the lease."""
        raise NotImplementedError

    def _claim(self, owner: bytes) -> Steps[int]:
        """Take the key if nobody has it. The revision of the record that this made, or 0."""
        database, full = self._cache._database, self._full
        value: Value = (int(Tag.TEXT), self._cache._runtime.codec.flags, owner)
        take = ("set", database, full, value, self._timeout_ms, "always")
        try:
            done, results = yield "atomic", [(database, ("absent", full))], [take, ("get", database, full)]
        except KeyspaceError:
            raise
        except BaseException:  # cancelled or interrupted while the operation was under way: it may have been done
            yield from self._drop_quietly(owner)
            raise
        return int(revision_of(results[1])[0]) if done else 0

    def _drop(self, owner: bytes) -> Steps[bool]:
        """Delete the key if the owner still has it."""
        dropped: bool = (yield "cas", self._cache._database, owned_by(self._full, owner), None, None)[0]
        return dropped

    def _drop_quietly(self, owner: bytes) -> Steps[None]:
        """The same on the way out with another error. If the store is out of reach, the lease runs out by itself."""
        try:
            yield from self._drop(owner)
        except KeyspaceError as error:
            self._cache._runtime.outages.note(self._cache._runtime.config.location, error)


class Lock(Lease):
    """A lease lock: ``cache.lock(name)`` makes it. For one user at a time: each thread or task makes its own.

    Arguments:
        cache: where it lies.
        name: what it is for; everybody who uses the same name, alias, prefix and version shares the lock.
        timeout: seconds (or a timedelta) until an acquisition ends by itself.
        wait: seconds (or a timedelta) that an acquisition waits at most while somebody else holds the lock.
        version: as for keys.
    Raises:
        InvalidArgument: a time is not a number, endless or too short.

    It is both kinds of context manager. Leaving the block raises :class:`LockLost` if the lease was over before the block
    was, unless the block raises something itself. It is not reentrant.
    """

    def __init__(
        self,
        cache: KeyspaceCache,
        name: str,
        timeout: Any = LEASE_S_DEFAULT,
        wait: Any = WAIT_S_DEFAULT,
        version: Any = None,
    ) -> None:
        super().__init__(cache, seconds("timeout", timeout, _LEAST_S))
        cache._key(name, version)  # refuses what is no key, before it becomes part of one
        self.name = name
        self._lock_key = cache._key(f"{LOCK_STEM}{name}", version)
        self._wait_s = seconds("wait", wait, 0)
        self._owner: bytes | None = None
        self._token = 0

    @property
    def _full(self) -> bytes:
        return self._lock_key

    @property
    def token(self) -> int:
        """The fencing token: greater than that of every earlier acquisition of this lock.

        It stays the same when the lease is extended. That there is one does not mean that the lease still lasts.

        Raises:
            LockLost: this object holds no lease.
        """
        if self._owner is None:
            raise self._lost("It has not been acquired, or was released.")
        return self._token

    def _acquire(self, wait: Any = None) -> Steps[bool]:
        """Acquire the lock.

        A lease does not tell when it ends, so waiting is looking again: first after a millisecond, in the end about ten
        times a second. Nobody is served in any order.

        Arguments:
            wait: seconds to wait at most while somebody else holds it; 0: one try; None: as the lock was made.
        Returns:
            True if this object holds it now, False if somebody else did until the time was over.
        Raises:
            KeyspaceError: the store cannot be reached, also with ``on_error="miss"``. After :class:`UnknownOutcome` the
                lock may be held by nobody until its timeout is over.
        """
        wait_s = self._wait_s if wait is None else seconds("wait", wait, 0)
        until_s = monotonic() + wait_s
        owner, lengths_s = secrets.token_hex(16).encode(), pauses_s()
        is_free = True
        while True:
            if is_free:
                token = yield from self._claim(owner)
                if token:
                    self._owner, self._token = owner, token
                    self._cache._note(Status.SUCCESS)
                    return True
            left_s = until_s - monotonic()
            if left_s <= 0:
                self._cache._note(Status.FAILED)
                return False
            yield PAUSE, min(next(lengths_s), left_s)
            # Looking takes no writer lock and writes no log, so those who wait do not hold up the one who works.
            is_free = not (yield "exists", self._cache._database, self._full)

    acquire, aacquire = twins(_acquire)

    def _release(self) -> Steps[None]:
        """Give the lock back.

        Raises:
            LockLost: this object does not hold it: its time was over, and others may have worked since. Or it was never
                acquired. Whoever holds it now keeps it.
        """
        if self._owner is None:
            raise self._lost("It has not been acquired, or was released already.")
        dropped = yield from self._drop(self._owner)
        self._owner, self._token = None, 0
        if not dropped:
            raise self._lost("It was over before the release: somebody else may have worked at the same time.")

    release, arelease = twins(_release)

    def _extend(self, timeout: Any = None) -> Steps[None]:
        """Let the lease last for ``timeout`` from now on.

        Arguments:
            timeout: seconds or a timedelta; None: as the lock was made.
        Raises:
            LockLost: the lease is over, so there is nothing to extend.
        """
        timeout_ms = self._timeout_ms if timeout is None else lease_ms(seconds("timeout", timeout, _LEAST_S))
        if self._owner is None:
            raise self._lost("It has not been acquired, or was released.")
        database, full = self._cache._database, self._full
        condition = (database, owned_by(full, self._owner))
        if not (yield "atomic", [condition], [("touch", database, full, timeout_ms)])[0]:
            raise self._lost("It is over, so it was not extended.")

    extend, aextend = twins(_extend)

    def _owned(self) -> Steps[bool]:
        """Whether this object held the lock when the store was asked. By the time of the answer it may be over."""
        if self._owner is None:
            return False
        record = (yield "at", "safe", 0, None, ("get", self._cache._database, self._full))[0]
        return record is not None and payload_of(record) == self._owner

    owned, aowned = twins(_owned)

    def _locked(self) -> Steps[bool]:
        """Whether anybody held the lock when the store was asked."""
        return bool((yield "at", "safe", 0, None, ("exists", self._cache._database, self._full))[0])

    locked, alocked = twins(_locked)

    def __enter__(self) -> Self:
        if not self.acquire():
            raise self._not_acquired()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, traceback: Any) -> None:
        self._run(self._leave(failed=kind is not None))

    async def __aenter__(self) -> Self:
        if not await self.aacquire():
            raise self._not_acquired()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: Any, traceback: Any) -> None:
        await self._arun(self._leave(failed=kind is not None))

    def _leave(self, failed: bool) -> Steps[None]:
        """Release at the end of a block. What the block raised matters more than what became of the lease."""
        owner = self._owner
        if owner is None:  # released within the block
            return
        if not failed:
            yield from self._release()
        else:
            self._owner, self._token = None, 0
            yield from self._drop_quietly(owner)

    def _not_acquired(self) -> LockNotAcquired:
        return LockNotAcquired(
            f"The lock {self.name!r} is held by somebody else and did not become free within {self._wait_s:g} s. Try again "
            "later, or wait longer."
        )

    def _lost(self, reason: str) -> LockLost:
        return LockLost(f"This lease of the lock {self.name!r} is not held. {reason}")


def owned_by(full: bytes, owner: bytes) -> tuple[str, bytes, int, bytes]:
    """The condition that a lease's key has this owner."""
    return ("value", full, int(Tag.TEXT), owner)


def lease_ms(timeout_s: float) -> int:
    """The ``expire`` argument for a lease, which is never endless and never nothing."""
    return min(max(math.ceil(timeout_s * 1000), 1), _LONGEST_MS)

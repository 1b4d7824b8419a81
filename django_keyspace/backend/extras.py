"""The cache's methods beyond Django's BaseCache for one key, and for several operations in one go.

Keys are the user's throughout: prefix and version are added and taken off. Listings are in ``backend/listing.py``, searches in
``backend/search.py``, Kyoto Tycoon's calls in ``backend/bulk.py``, other names in the table at the end of ``backend/cache.py``.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any, Final

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from django_keyspace.backend.batch import Atomic, Batch
from django_keyspace.backend.codec import Unreadable
from django_keyspace.backend.expire import Timeout, make_deadline
from django_keyspace.backend.methods import Methods
from django_keyspace.backend.twins import Steps, twins
from django_keyspace.exceptions import InvalidArgument, WrongType
from django_keyspace.operations import Expire, Value
from django_keyspace.store.record import NATIVE_TAGS, revision_of

_CAS_ATTEMPTS_MAX: Final = 100


class ExtraMethods(Methods):
    """Mixed into :class:`~django_keyspace.backend.cache.KeyspaceCache`, which has the fields and the engine."""

    # ------------------------------------------------------------------------------------------- deadlines

    def _ttl(self, key: Any, version: Any = None) -> Steps[float | None]:
        """Seconds until a key expires; None if it never does; 0 if it is not there."""
        left_ms = yield "ttl", self._database, self._key(key, version)
        return 0 if left_ms is None else None if left_ms < 0 else left_ms / 1000

    ttl, attl = twins(_ttl)

    def _pttl(self, key: Any, version: Any = None) -> Steps[int | None]:
        """Milliseconds until a key expires; None if it never does; 0 if it is not there."""
        left_ms = yield "ttl", self._database, self._key(key, version)
        return 0 if left_ms is None else None if left_ms < 0 else left_ms

    pttl, apttl = twins(_pttl)

    def _expire_key(self, key: Any, timeout: Timeout, version: Any = None) -> Steps[bool]:
        """Let a key expire after a timeout. True if it was there. (``touch`` without a default timeout.)"""
        return (yield "touch", self._database, self._key(key, version), self._expire(timeout))

    expire, aexpire = twins(_expire_key)

    def _expire_at(self, key: Any, when: datetime | float, version: Any = None) -> Steps[bool]:
        """Let a key expire at a moment: a datetime, or seconds since the epoch. True if it was there."""
        return (yield "touch", self._database, self._key(key, version), make_deadline(when))

    expire_at, aexpire_at = twins(_expire_at)

    def _persist(self, key: Any, version: Any = None) -> Steps[bool]:
        """Take a key's timeout away. True if it was there."""
        return (yield "touch", self._database, self._key(key, version), None)

    persist, apersist = twins(_persist)

    def _set_expiry(self, key: Any, timeout: Timeout, version: Any = None) -> Steps[bool]:
        """Hang a deadline on a key's name, whether or not there is a value. True.

        It stays when the value is overwritten, deleted or moved away, until :meth:`remove_expiry`; a value dies at it or at
        the end of its own timeout, whichever is earlier. Source: Keyspace's set_expiry.
        """
        expiry = self._expire(timeout)
        if expiry is None:
            raise InvalidArgument("A deadline of a name needs a timeout. Nothing was changed. Use remove_expiry.")
        return (yield "set_expiry", self._database, self._key(key, version), expiry)

    set_expiry, aset_expiry = twins(_set_expiry)

    def _remove_expiry(self, key: Any, version: Any = None) -> Steps[int]:
        """Take the deadline off a key's name; the value keeps the timeout of its own. 1 if there was one, else 0."""
        return (yield "remove_expiry", self._database, self._key(key, version))

    remove_expiry, aremove_expiry = twins(_remove_expiry)

    def _clear_expiries(self) -> Steps[int]:
        """Take the deadlines off all names of the database, of all prefixes and versions. Their number."""
        return (yield "clear_expiries", self._database)

    clear_expiries, aclear_expiries = twins(_clear_expiries)

    # ------------------------------------------------------------------------------------------- one key

    def _incr_float(
        self,
        key: Any,
        delta: float = 1.0,
        version: Any = None,
        *,
        default: float | None = None,
        timeout: Timeout = DEFAULT_TIMEOUT,
    ) -> Steps[float]:
        """Add to a float or an integer, atomically; its timeout stays as it is. See ``incr`` for the arguments."""
        flags = self._runtime.codec.flags
        delta, default = _float("delta", delta), None if default is None else _float("default", default)
        return (
            yield "incr_float", self._database, self._key(key, version), delta, default, self._expire(timeout), flags
        )

    incr_float, aincr_float = twins(_incr_float)

    def _append(
        self, key: Any, value: str | bytes, timeout: Timeout = DEFAULT_TIMEOUT, version: Any = None
    ) -> Steps[int]:
        """Append text to text or bytes to bytes, atomically; the timeout stays as it is.

        A missing key is made, with ``timeout``.
        Returns:
            The new length in bytes.
        Raises:
            WrongType: the value under the key is something else.
        """
        if type(value) not in (str, bytes):
            raise WrongType(f"Only str and bytes can be appended, not {type(value).__name__}. Nothing was changed.")
        encoded = self._runtime.codec.encode_uncompressed(value)
        return (yield "append", self._database, self._key(key, version), encoded, self._expire(timeout))

    append, aappend = twins(_append)

    def _get_with_revision(self, key: Any, default: Any = None, version: Any = None) -> Steps[tuple[Any, int]]:
        """``(value, revision)``: the revision changes with each write of the key, and is 0 if it is not there."""
        record = yield "get", self._database, self._key(key, version)
        return self._value(record, default), revision_of(record)[0] if record is not None else 0

    get_with_revision, aget_with_revision = twins(_get_with_revision)

    def _cas(
        self,
        key: Any,
        old: Any,
        new: Any,
        timeout: Timeout = DEFAULT_TIMEOUT,
        version: Any = None,
        *,
        revision: int | None = None,
    ) -> Steps[bool]:
        """Compare and swap, atomically.

        Arguments:
            old: the value that must be there; None: there must be none.
            new: the value to store; None: delete the key.
            revision: the revision that must be there, as ``get_with_revision`` tells; then ``old`` is not looked at.
        Returns:
            True if it was swapped.
        """
        full, expire = self._key(key, version), self._expire(timeout)
        value = None if new is None else self._encode(new)
        if revision is not None:
            condition: tuple[Any, ...] = ("revision", full, revision) if revision else ("absent", full)
        elif old is None:
            condition = ("absent", full)
        else:
            expected = self._encode(old)
            if expected[0] not in NATIVE_TAGS:
                return (yield from self._cas_by_equality(full, old, value, expire))
            condition = ("value", full, expected[0], expected[2])
        swapped: bool = (yield "cas", self._database, condition, value, expire)[0]
        return swapped

    cas, acas = twins(_cas)

    def _cas_by_equality(self, full: bytes, old: Any, value: Value | None, expire: Expire) -> Steps[bool]:
        """Equal objects may have different pickles: compare the objects, and swap by the revision that was read."""
        # The latest record, whatever level this alias's reads have: it decides about a write.
        record = (yield "at", "safe", 0, None, ("get", self._database, full))[0]
        for _ in range(_CAS_ATTEMPTS_MAX):
            try:
                if record is None or self._decode(record) != old:
                    return False
            except Unreadable:
                return False
            condition = ("revision", full, revision_of(record)[0])
            swapped, record = yield "cas", self._database, condition, value, expire
            if swapped:
                return True
        return False

    def _test_and_set(
        self, key: Any, test: Any, value: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: Any = None
    ) -> Steps[Any]:
        """Store a value if the present one equals ``test``. The value if so, otherwise None. (Keyspace's name for cas.)"""
        return value if (yield from self._cas(key, test, value, timeout, version)) else None

    test_and_set, atest_and_set = twins(_test_and_set)

    def _rename(self, key: Any, new_key: Any, version: Any = None) -> Steps[bool]:
        """Move a value with its timeout to another key, over whatever is there. False if the key is missing."""
        return (yield "rename", self._database, self._key(key, version), self._key(new_key, version))

    rename, arename = twins(_rename)

    def _remove(self, key: Any, default: Any = None, version: Any = None) -> Steps[Any]:
        """Delete a key and answer the value that it had, atomically; ``default`` if it is missing."""
        return self._value((yield "remove", self._database, self._key(key, version)), default)

    remove, aremove = twins(_remove)

    def _length(self, key: Any, version: Any = None) -> Steps[int | None]:
        """Bytes of the stored form of a value, or None."""
        return (yield "length", self._database, self._key(key, version))

    length, alength = twins(_length)

    # ------------------------------------------------------------------------------------------- several operations

    def batch(self) -> Batch:
        """Several operations in one go, each with its own status: see :class:`~django_keyspace.backend.batch.Batch`."""
        return Batch(self)

    def atomic(self) -> Atomic:
        """Several operations, all or nothing: see :class:`~django_keyspace.backend.batch.Atomic`."""
        return Atomic(self)

    # ------------------------------------------------------------------------------------------- figures

    def _status(self) -> Steps[dict[str, Any]]:
        """Figures of the store: records, bytes, limits, revision; and of this process: ``counters``, ``outages``, ``replica``."""
        figures = yield ("status",)
        replica = self._runtime.replica
        return {
            **figures,
            "database": self._database,
            "counters": self._runtime.counters.as_dict(),
            "outages": dict(self._runtime.outages.counts),
            **({} if replica is None else {"replica": replica.figures()}),
        }

    status, astatus = twins(_status)

    def _members(self) -> Steps[dict[str, Any]]:
        """The nodes of the cluster: ``cluster`` (its id), ``leader`` (a name) and ``nodes``, each with name, address and role.

        Of a single node, the cluster is None; of a folder, there are no nodes either.
        """
        return (yield ("members",))

    members, amembers = twins(_members)

    def _size(self) -> Steps[int]:
        """Bytes that the store's data takes on the disk now, of all databases."""
        return int((yield ("status",))["used_bytes"])

    size, asize = twins(_size)


def _float(name: str, number: Any) -> float:
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise InvalidArgument(f"{name} must be a number, not {number!r}. Nothing was changed.")
    try:
        result = float(number)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise InvalidArgument(f"{name} must be finite, not {number!r}. Nothing was changed.")
    return result

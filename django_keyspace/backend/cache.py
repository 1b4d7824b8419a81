"""``KeyspaceCache``: Django's cache API, sync and async, over an embedded store or a node.

Methods are written once, as steps (``backend/twins.py``). ``get`` and ``set`` are also written out by hand, because a page
calls them often enough that the generator would show.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache

from django_keyspace.backend.bulk import BulkMethods
from django_keyspace.backend.codec import Unreadable
from django_keyspace.backend.degrade import MISS_ANSWERS, OUTAGES
from django_keyspace.backend.dirty import DirtyMethods
from django_keyspace.backend.expire import Timeout, make_expire
from django_keyspace.backend.extras import ExtraMethods
from django_keyspace.backend.flight import FlightMethods
from django_keyspace.backend.keys import KeyMethods
from django_keyspace.backend.runtime import get_runtime
from django_keyspace.backend.scripts import ScriptMethods
from django_keyspace.backend.search import SearchMethods
from django_keyspace.backend.twins import Steps, twins
from django_keyspace.exceptions import InvalidArgument, KeyspaceError, MissingKey, error_from_code
from django_keyspace.operations import INT64_MAX, INT64_MIN, Call, Expire
from django_keyspace.status import Status, status_of_answer, status_of_error

_SUCCESS, _FAILED = Status.SUCCESS, Status.FAILED


class KeyspaceCache(
    ExtraMethods, SearchMethods, ScriptMethods, DirtyMethods, BulkMethods, FlightMethods, KeyMethods, BaseCache
):
    """A Django cache backend.

    Arguments:
        location: ``LOCATION``: a folder (path or ``embedded:`` URL) or ``keyspace://host:port/database``.
        params: the alias's other settings; ``OPTIONS`` are listed in ``django_keyspace.conf.OPTIONS``.
    Raises:
        ConfigurationError: the settings are not right.

    Objects are thin and hold no per-call state; any number of them may be made.
    """

    def __init__(self, location: Any, params: dict[str, Any]) -> None:
        super().__init__(params)
        runtime = get_runtime(location, params.get("OPTIONS") or _NO_OPTIONS)
        config = runtime.config
        self._runtime = runtime
        self._database = config.database
        self._do = runtime.engine.execute
        self._ado = runtime.engine.aexecute
        self._read = runtime.engine.read
        self._write = runtime.engine.write
        self._reads_inline = runtime.engine.reads_inline
        self._encode = runtime.codec.encode
        self._decode = runtime.codec.decode
        self._counters = runtime.counters
        self._note = runtime.last_status.set
        self._reverse = config.reverse_key_function
        # BaseCache's default of 300 entries is not ours: only what the settings say counts.
        self._culls = config.max_entries is not None or "MAX_ENTRIES" in params or "max_entries" in params

    # ------------------------------------------------------------------------------------------- operations

    def _execute(self, call: Call) -> Any:
        try:
            answer = self._do(*call)
        except KeyspaceError as error:
            answer = self._failed(call, error)
        else:
            self._note(status_of_answer(answer))
        return answer

    async def _aexecute(self, call: Call) -> Any:
        try:
            answer = await self._ado(*call)
        except KeyspaceError as error:
            answer = self._failed(call, error)
        else:
            self._note(status_of_answer(answer))
        return answer

    def _failed(self, call: Call, error: KeyspaceError) -> Any:
        """Raise an operation's error; or, with ``on_error="miss"``, make an outage a miss."""
        self._note(status_of_error(error))
        if self._runtime.config.on_error == "raise" or not isinstance(error, OUTAGES) or call[0] not in MISS_ANSWERS:
            raise error
        self._runtime.outages.note(self._runtime.config.location, error)
        return MISS_ANSWERS[call[0]](call[1:], error)

    def _value(self, record: bytes | None, default: Any) -> Any:
        """The value of a record that was read, or the default."""
        if record is not None:
            try:
                value = self._decode(record)
            except Unreadable:
                self._counters.misses += 1
                return default
            self._counters.hits += 1
            return value
        self._counters.misses += 1
        return default

    def _expire(self, timeout: Timeout) -> Expire:
        return make_expire(self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout)

    def _growing(self, call: Call, keys: list[bytes]) -> Call:
        """A call that may add records: with ``MAX_ENTRIES``, the culling comes first, in the same transaction."""
        if not self._culls:
            return call
        cull = ("cull", self._database, keys, max(self._max_entries, 0), self._cull_frequency)
        return ("batch", [cull, call])

    def _grown(self, answer: Any) -> Any:
        """The answer of a call that :meth:`_growing` has made."""
        if not self._culls:
            return answer
        word, result = answer[-1]
        if word != "ok":
            error = error_from_code(word, result)
            if self._runtime.config.on_error == "miss" and isinstance(error, OUTAGES):
                return False  # a whole batch was turned into misses: counted, logged and noted there
            raise error
        self._note(status_of_answer(result))
        return result

    # ------------------------------------------------------------------------------------------- get and set

    def get(self, key: Any, default: Any = None, version: Any = None) -> Any:
        """The value under a key, or ``default``."""
        full = self._key(key, version)
        try:
            record = self._read("get", self._database, full)
        except KeyspaceError as error:
            return self._value(self._failed(("get", self._database, full), error), default)
        if record is None:
            self._note(_FAILED)
            self._counters.misses += 1
            return default
        self._note(_SUCCESS)
        try:
            value = self._decode(record)
        except Unreadable:
            self._counters.misses += 1
            return default
        self._counters.hits += 1
        return value

    def _get(self, key: Any, default: Any = None, version: Any = None) -> Steps[Any]:
        """The value under a key, or ``default``: for batches."""
        return self._value((yield "get", self._database, self._key(key, version)), default)

    async def aget(self, key: Any, default: Any = None, version: Any = None) -> Any:
        """The value under a key, or ``default``."""
        if self._reads_inline:
            return self.get(key, default, version)
        return self._value(await self._aexecute(("get", self._database, self._key(key, version))), default)

    def _set(
        self,
        key: Any,
        value: Any,
        timeout: Timeout = DEFAULT_TIMEOUT,
        version: Any = None,
        nx: bool = False,
        xx: bool = False,
    ) -> Steps[bool]:
        """The steps of :meth:`set`, for batches and where something must happen first."""
        if nx and xx:
            raise InvalidArgument("nx and xx together can never store anything: give one of them.")
        presence = "absent" if nx else "present" if xx else "always"
        full = self._key(key, version)
        call = ("set", self._database, full, self._encode(value), self._expire(timeout), presence)
        stored: bool = self._grown((yield self._growing(call, [full])))
        return stored

    _set_slowly, _aset_slowly = twins(_set)

    def set(
        self,
        key: Any,
        value: Any,
        timeout: Timeout = DEFAULT_TIMEOUT,
        version: Any = None,
        nx: bool = False,
        xx: bool = False,
    ) -> bool:
        """Store a value.

        Arguments:
            timeout: seconds, a timedelta, or None for no expiry.
            nx: only if there is none under the key.
            xx: only if there is one.
        Returns:
            True if it was stored.
        """
        if nx or xx or self._culls:
            return self._set_slowly(key, value, timeout, version, nx, xx)
        expire = make_expire(self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout)
        full, encoded = self._key(key, version), self._encode(value)
        try:
            stored: bool = self._write("set", self._database, full, encoded, expire, "always")
        except KeyspaceError as error:
            return bool(self._failed(("set",), error))
        self._note(_SUCCESS)
        return stored

    async def aset(
        self,
        key: Any,
        value: Any,
        timeout: Timeout = DEFAULT_TIMEOUT,
        version: Any = None,
        nx: bool = False,
        xx: bool = False,
    ) -> bool:
        """Store a value. See :meth:`set`."""
        if nx or xx or self._culls or type(value) is not str:
            return await self._aset_slowly(key, value, timeout, version, nx, xx)
        expire = make_expire(self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout)
        full, encoded = self._key(key, version), self._encode(value)
        stored: bool = await self._aexecute(("set", self._database, full, encoded, expire, "always"))
        return stored

    def _add(self, key: Any, value: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: Any = None) -> Steps[bool]:
        """Store a value if there is none under the key. True if it was stored."""
        return (yield from self._set(key, value, timeout, version, nx=True))

    add, aadd = twins(_add)

    def _get_many(self, keys: Iterable[Any], version: Any = None) -> Steps[dict[Any, Any]]:
        """The values under many keys, as a dict of those that are there."""
        full = self._keys(keys, version)
        if not full:
            return {}
        records = yield "get_many", self._database, list(full)
        values = self._runtime.codec.decode_many(full.values(), records)
        self._counters.hits += len(values)
        self._counters.misses += len(full) - len(values)
        return values

    get_many, aget_many = twins(_get_many)

    def _set_many(
        self, data: Mapping[Any, Any], timeout: Timeout = DEFAULT_TIMEOUT, version: Any = None
    ) -> Steps[list[Any]]:
        """Store many values, all or none of them. Returns the keys that were not stored: an empty list."""
        if not data:
            return []
        full = self._key_list(list(data), version)
        pairs = list(zip(full, self._runtime.codec.encode_many(data.values()), strict=True))
        call = ("set_many", self._database, pairs, self._expire(timeout))
        stored = self._grown((yield self._growing(call, full)))
        return [] if stored else list(data)

    set_many, aset_many = twins(_set_many)

    # ------------------------------------------------------------------------------------------- the rest of BaseCache

    def _touch(self, key: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: Any = None) -> Steps[bool]:
        """Give a key another timeout. True if it was there."""
        return (yield "touch", self._database, self._key(key, version), self._expire(timeout))

    touch, atouch = twins(_touch)

    def _delete(self, key: Any, version: Any = None) -> Steps[bool]:
        """Delete a key. True if it was there."""
        return (yield "delete", self._database, self._key(key, version))

    delete, adelete = twins(_delete)

    def _delete_many(self, keys: Iterable[Any], version: Any = None) -> Steps[None]:
        """Delete many keys."""
        full = list(self._keys(keys, version))
        if full:
            yield "delete_many", self._database, full

    delete_many, adelete_many = twins(_delete_many)

    def _has_key(self, key: Any, version: Any = None) -> Steps[bool]:
        """Whether a key is there."""
        return (yield "exists", self._database, self._key(key, version))

    has_key, ahas_key = twins(_has_key)

    def _incr(
        self,
        key: Any,
        delta: int = 1,
        version: Any = None,
        *,
        default: int | None = None,
        timeout: Timeout = DEFAULT_TIMEOUT,
    ) -> Steps[int]:
        """Add to an integer, atomically; its timeout stays as it is.

        Arguments:
            default: where a missing key counts from.
            timeout: that of a key which is made thereby.
        Returns:
            The new number.
        Raises:
            MissingKey: (a ValueError) the key is missing, and there is no default.
            NotANumber, NumberOverflow: nothing was changed.
        """
        delta, default = _int64("delta", delta), None if default is None else _int64("default", default)
        full, flags = self._key(key, version), self._runtime.codec.flags
        try:
            return (yield "incr", self._database, full, delta, default, self._expire(timeout), flags)
        except MissingKey as error:
            raise MissingKey(f"Key {key!r} not found, so there is nothing to count. Nothing was changed.") from error

    incr, aincr = twins(_incr)

    def _decr(
        self,
        key: Any,
        delta: int = 1,
        version: Any = None,
        *,
        default: int | None = None,
        timeout: Timeout = DEFAULT_TIMEOUT,
    ) -> Steps[int]:
        """Subtract from an integer. See :meth:`incr`."""
        return (yield from self._incr(key, -_int64("delta", delta), version, default=default, timeout=timeout))

    decr, adecr = twins(_decr)

    def _clear(self, everything: bool = False) -> Steps[int]:
        """Delete the database's evictable records: those that caches have written, of all prefixes and versions.

        Arguments:
            everything: also those that are not evictable.
        Returns:
            The number of records deleted.
        """
        return (yield "clear", self._database, everything)

    clear, aclear = twins(_clear)

    def _incr_version(self, key: Any, delta: int = 1, version: Any = None) -> Steps[int]:
        """Move a key to another version, atomically, with its timeout. The new version."""
        old = self.version if version is None else version
        new: int = old + delta
        if not (yield "rename", self._database, self._key(key, old), self._key(key, new)):
            raise MissingKey(f"Key {key!r} not found in version {old}. Nothing was changed.")
        return new

    incr_version, aincr_version = twins(_incr_version)

    def _decr_version(self, key: Any, delta: int = 1, version: Any = None) -> Steps[int]:
        """Move a key to an earlier version. See :meth:`incr_version`."""
        return (yield from self._incr_version(key, -delta, version))

    decr_version, adecr_version = twins(_decr_version)

    def close(self, **kwargs: Any) -> None:
        """Nothing: the store stays open for the process, and Django calls this after each request."""

    async def aclose(self, **kwargs: Any) -> None:
        """Nothing. See :meth:`close`."""

    def shutdown(self) -> None:
        """Sync and close the store in this process; the next call opens it again."""
        self._runtime.engine.close()

    @property
    def last_status(self) -> Status | None:
        """Status of this alias's last call in this thread or task (Keyspace's codes); None before the first."""
        return self._runtime.last_status.get()

    # THE table of other names: where Django, Keyspace and Kyoto Tycoon have several for one thing, the right side is the one
    # that is documented first.
    exists, aexists = has_key, ahas_key
    get_bulk, aget_bulk = get_many, aget_many
    incr_double, aincr_double = ExtraMethods.incr_float, ExtraMethods.aincr_float
    list_keyvalues, alist_keyvalues = DirtyMethods.list_key_values, DirtyMethods.alist_key_values
    dirty_list_keyvalues, adirty_list_keyvalues = (
        DirtyMethods.dirty_list_key_values,
        DirtyMethods.adirty_list_key_values,
    )
    pop, apop = ExtraMethods.remove, ExtraMethods.aremove
    seize, aseize = ExtraMethods.remove, ExtraMethods.aremove


_NO_OPTIONS: Final[dict[str, Any]] = {}


def _int64(name: str, number: Any) -> int:
    if type(number) is bool or not isinstance(number, int) or not INT64_MIN <= number <= INT64_MAX:
        raise InvalidArgument(f"{name} must be an integer within 64 bits, not {number!r}. Nothing was changed.")
    return int(number)

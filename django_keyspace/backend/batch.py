"""Several operations in one go: ``with cache.batch() as b`` and ``with cache.atomic() as a``, or ``async with``.

A batch offers the cache's own methods. Calling one does not carry it out: it runs the method's steps up to their operation
and answers a :class:`Reply`, which gets its result when the block ends and everything is sent together. Methods that need
several operations one after the other (listings, for example) are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Self

from django_keyspace.exceptions import ConditionFailed, InvalidArgument, KeyspaceError, NotSupported, error_from_code
from django_keyspace.operations import BATCH_OPERATIONS_MAX, Call
from django_keyspace.status import Status, status_of_error
from django_keyspace.store.record import NATIVE_TAGS

if TYPE_CHECKING:
    from django_keyspace.backend.methods import Methods
    from django_keyspace.backend.twins import Steps

METHODS: Final = frozenset(
    {"get", "set", "add", "get_many", "set_many", "touch", "delete", "delete_many", "has_key", "length", "clear"}
    | {"incr", "decr", "incr_version", "decr_version", "incr_float", "incr_double", "append", "remove", "pop"}
    | {"get_with_revision", "cas", "test_and_set", "rename", "prune", "count"}
    | {"ttl", "pttl", "expire", "expire_at", "persist"}
    | {"set_expiry", "remove_expiry", "clear_expiries"}
    | {"dirty_get", "dirty_count", "exists", "replace", "seize", "get_bulk", "set_bulk", "remove_bulk"}
)
"""The cache's methods that a batch offers: those that are one operation each."""

_CAS: Final = ("cas", "test_and_set")


class Reply:
    """What a method of a batch will answer, once the batch is done.

    Attributes:
        status: None until then.
    """

    def __init__(self, steps: Steps[Any]) -> None:
        self.status: Status | None = None
        self._steps = steps
        self._has_level = False
        self._result: Any = None
        self._error: KeyspaceError | None = None

    @property
    def result(self) -> Any:
        """The method's result. Raises its error, or InvalidArgument while the block has not ended."""
        if self.status is None:
            raise InvalidArgument("A batch's replies are there when its block has ended, not before.")
        if self._error is not None:
            raise self._error
        return self._result

    def _settle(self, word: str, answer: Any) -> None:
        try:
            if word == "ok":
                self._steps.send((answer, 0, None, "") if self._has_level else answer)
            else:
                self._steps.throw(error_from_code(word, answer))
        except StopIteration as stop:
            self._result = stop.value
            failed = stop.value is None or stop.value is False
            self.status = Status.FAILED if failed else Status.SUCCESS
        except KeyspaceError as error:
            self._error, self.status = error, status_of_error(error)
        else:
            self._steps.close()
            self._error = NotSupported("This call needs more than one operation and cannot be part of a batch.")
            self.status = Status.API_ERROR


class Batch:
    """Operations that are sent together when the block ends, each on its own: one that fails does not stop the others.

    Arguments:
        cache: whose methods it offers.

    Attributes:
        replies: one :class:`Reply` per call, in order.

    An exception in the block means that nothing is sent.
    """

    def __init__(self, cache: Methods) -> None:
        self.replies: list[Reply] = []
        self._cache = cache
        self._calls: list[Call] = []
        self._sent: list[Reply] = []
        self._is_open = True

    def __getattr__(self, name: str) -> Callable[..., Reply]:
        if name not in METHODS:
            raise AttributeError(f"A batch has no method {name!r}. It has: {', '.join(sorted(METHODS))}.")
        # A method that is there under another name has the name of its steps: ``pop`` is ``_remove``.
        steps = getattr(self._cache, f"_{getattr(type(self._cache), name).__name__}")

        def call(*args: Any, **kwargs: Any) -> Reply:
            return self._add(name, steps(*args, **kwargs))

        return call

    def _add(self, name: str, steps: Steps[Any]) -> Reply:
        if not self._is_open:
            raise InvalidArgument("This batch has ended. Make a new one.")
        if len(self._calls) >= BATCH_OPERATIONS_MAX:
            raise InvalidArgument(f"A batch has at most {BATCH_OPERATIONS_MAX:,} operations. Send several.")
        reply = Reply(steps)
        try:
            call = next(steps)
        except StopIteration as stop:  # nothing to do: an empty get_many
            reply._result, reply.status = stop.value, Status.SUCCESS
        else:
            if name in _CAS and call[0] != "cas":
                raise NotSupported(
                    "Serialized values have no canonical form to compare, so that this call needs several operations and "
                    "cannot be part of a batch: give cas a revision. Nothing was sent."
                )
            if call[0] == "at":  # a batch as a whole is as fresh as its strictest part
                call, reply._has_level = call[4], True
            self._calls.append(call)
            self._sent.append(reply)
        self.replies.append(reply)
        return reply

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, traceback: Any) -> None:
        self._is_open = False
        if kind is None and self._is_needed():
            self._finish(self._cache._execute(self._call()))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: Any, traceback: Any) -> None:
        self._is_open = False
        if kind is None and self._is_needed():
            self._finish(await self._cache._aexecute(self._call()))

    def _is_needed(self) -> bool:
        """Whether there is anything to send."""
        return bool(self._calls)

    def _call(self) -> Call:
        return ("batch", self._calls)

    def _finish(self, answer: Any) -> None:
        for reply, (word, result) in zip(self._sent, answer, strict=True):
            reply._settle(word, result)


class Atomic(Batch):
    """Operations that are done all or not at all, and only if every condition holds.

    An operation that raises undoes the others, and so does a condition that does not hold: ``ConditionFailed``.
    """

    def __init__(self, cache: Methods) -> None:
        super().__init__(cache)
        self._conditions: list[tuple[int, tuple[Any, ...]]] = []
        self._described: list[str] = []

    def require_absent(self, key: Any, version: Any = None) -> None:
        """Nothing may be under the key."""
        self._require(f"{key!r} is absent", "absent", key, version)

    def require_present(self, key: Any, version: Any = None) -> None:
        """Something must be under the key."""
        self._require(f"{key!r} is present", "present", key, version)

    def require_revision(self, key: Any, revision: int, version: Any = None) -> None:
        """The key must not have been written since ``get_with_revision`` told this revision; 0: it must be absent."""
        if revision:
            self._require(f"{key!r} has revision {revision}", "revision", key, version, revision)
        else:
            self.require_absent(key, version)

    def require_value(self, key: Any, value: Any, version: Any = None) -> None:
        """The key must hold exactly this str, bytes, int, float or bool."""
        tag, _, payload = self._cache._encode(value)
        if tag not in NATIVE_TAGS:
            raise NotSupported("Serialized values have no canonical form to compare: use require_revision.")
        self._require(f"{key!r} has the given value", "value", key, version, tag, payload)

    def _require(self, description: str, kind: str, key: Any, version: Any, *rest: Any) -> None:
        self._conditions.append((self._cache._database, (kind, self._cache._key(key, version), *rest)))
        self._described.append(description)

    def _is_needed(self) -> bool:
        return bool(self._calls or self._conditions)

    def _call(self) -> Call:
        return ("atomic", self._conditions, self._calls)

    def _finish(self, answer: Any) -> None:
        done, results = answer
        if not done:
            raise ConditionFailed(f"It does not hold that {self._described[results]}. Nothing was changed.")
        for reply, result in zip(self._sent, results, strict=True):
            reply._settle("ok", result)

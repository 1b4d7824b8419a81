"""``@cache.memoize()``: a function's results in the cache, under keys that can be told from its arguments.

A key is ``module.qualname(a=1,b='x')``: every parameter in the order of the signature, defaults filled in, so that however
an argument is passed makes no difference. Extra positional and keyword arguments (``*args``, ``**kwargs``) are a tuple and a
dict. The form is stable: it depends on the names and values alone, not on the process or the machine. Plain values are
written as ``repr`` does: None, bool, int, float, str, bytes, Decimal, UUID, dates and times, and tuples, lists, sets and
dicts of them; sets and dicts are sorted. So ``1``, ``1.0`` and ``True`` are different arguments. Everything else is refused,
since there is no telling what its ``repr`` says: such functions need ``key=``.

Texts longer than 150 characters, or with spaces or unprintable characters, are replaced by a digest:
``module.qualname#0f3c...``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol, TypeVar, cast
from uuid import UUID
from zoneinfo import ZoneInfo

from django_keyspace.exceptions import InvalidArgument

if TYPE_CHECKING:
    from django_keyspace.backend.cache import KeyspaceCache

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)

_LEGIBLE_CHARACTERS_MAX: Final = 150
_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes, Decimal, UUID, date, timedelta})
_ZONED: Final = frozenset({datetime, time})
_ZONES: Final = frozenset({type(None), timezone, ZoneInfo})


class Memoized(Protocol[P, R_co]):
    """What :meth:`KeyspaceCache.memoize` makes of a function: a function with these attributes.

    They take the arguments of the function itself. For a method that includes the instance, because they are found on the
    function and not on the bound method: ``Report.total.invalidate(report, 2024)``.
    """

    __name__: str
    __wrapped__: Callable[..., Any]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """The result, from the cache if it is there. A cached None is one."""

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """Methods are bound as usual."""

    def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The key of the result for these arguments, for the cache's other methods."""

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the result for these arguments. True if there was one."""

    async def ainvalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """The same, for a coroutine."""

    def uncached(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """The function itself: neither looks at the cache nor changes it."""


class Memoize:
    """The decorator. For the arguments see :meth:`KeyspaceCache.memoize`."""

    def __init__(
        self,
        cache: KeyspaceCache,
        timeout: Any,
        prefix: str | None,
        version: Any,
        lock: Any,
        stale_timeout: Any,
        key: Callable[..., Any] | None,
    ) -> None:
        self._cache = cache
        self._prefix = prefix
        self._version = version
        self._key = key
        self._options = {"timeout": timeout, "version": version, "lock": lock, "stale_timeout": stale_timeout}

    def __call__(self, function: Callable[P, R_co]) -> Memoized[P, R_co]:
        """Decorate.

        Raises:
            InvalidArgument: results of this cannot be cached, or its name does not tell it from others.
        """
        cache, options = self._cache, self._options
        make_key = self._key_maker(function)

        # What has no common type is said once, in Memoized.
        wrapper: Any
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awrapper(*args: Any, **kwargs: Any) -> Any:
                made = functools.partial(function, *args, **kwargs)
                return await cache.aget_or_set(make_key(*args, **kwargs), made, **options)

            wrapper = awrapper
        else:

            @functools.wraps(function)
            def plain_wrapper(*args: Any, **kwargs: Any) -> Any:
                made = functools.partial(function, *args, **kwargs)
                return cache.get_or_set(make_key(*args, **kwargs), made, **options)

            wrapper = plain_wrapper

        def invalidate(*args: Any, **kwargs: Any) -> bool:
            return cache.delete(make_key(*args, **kwargs), self._version)

        async def ainvalidate(*args: Any, **kwargs: Any) -> bool:
            return await cache.adelete(make_key(*args, **kwargs), self._version)

        wrapper.cache_key = make_key
        wrapper.invalidate = invalidate
        wrapper.ainvalidate = ainvalidate
        wrapper.uncached = function
        return cast("Memoized[P, R_co]", wrapper)

    def _key_maker(self, function: Callable[..., Any]) -> Callable[..., str]:
        """What makes the key of a call of the function."""
        if not inspect.isroutine(function) or isinstance(function, classmethod | staticmethod):
            raise InvalidArgument(f"memoize decorates functions, and goes beneath @classmethod, not {function!r:.80}.")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidArgument(
                f"{function.__qualname__} is a generator, which cannot be stored. Let it return a list."
            )
        stem, text_of = self._prefix, self._key
        if stem is None:
            stem = f"{function.__module__}.{function.__qualname__}"
            if "<" in stem:
                raise InvalidArgument(
                    f"{stem} is a name that several functions have, so their results would be mixed up. Give prefix=."
                )
        signature = inspect.signature(function)
        name = stem

        def cache_key(*args: Any, **kwargs: Any) -> str:
            if text_of is not None:
                return legible_key(name, f"({argument_text(text_of(*args, **kwargs), name)})")
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            texts = [f"{word}={argument_text(value, name)}" for word, value in bound.arguments.items()]
            return legible_key(name, f"({','.join(texts)})")

        return cache_key


def argument_text(value: Any, name: str) -> str:
    """The stable text of an argument.

    Arguments:
        value: the argument.
        name: of the function, for the error.
    Raises:
        InvalidArgument: it is no plain value.
    """
    kind = type(value)
    if kind in _PLAIN or (kind in _ZONED and type(value.tzinfo) in _ZONES):
        return repr(value)
    if kind is tuple or kind is list:
        texts = ",".join(argument_text(item, name) for item in value)
        return f"({texts}{',' if value else ''})" if kind is tuple else f"[{texts}]"
    if kind is set or kind is frozenset:
        return f"{kind.__name__}({','.join(sorted(argument_text(item, name) for item in value))})"
    if kind is dict:
        pairs = [f"{argument_text(word, name)}:{argument_text(item, name)}" for word, item in value.items()]
        return f"{{{','.join(sorted(pairs))}}}"
    raise InvalidArgument(
        f"{name} was called with a {kind.__module__}.{kind.__qualname__}, which has no stable text to make a key of. Give "
        "memoize a key=: a function of the same arguments that returns a plain value or a tuple of plain values, such as "
        "key=lambda self, year: (self.pk, year)."
    )


def legible_key(stem: str, text: str) -> str:
    """A key of a stem and a text: the text itself if it is short and printable, otherwise ``#`` and its digest."""
    if len(text) <= _LEGIBLE_CHARACTERS_MAX and text.isprintable() and " " not in text:
        return f"{stem}{text}"
    return f"{stem}#{blake2b(text.encode(errors='surrogatepass'), digest_size=16).hexdigest()}"

"""Variants of the backend under test, for what Django's tests ask of a backend class.

Django's suite brings small backends of its own (one whose keys are unchecked, one that notes its closing, one whose
writes fail), all on top of `LocMemCache`. Here are the same variants on top of the backend under test, and a face
that answers every synchronous call through its asynchronous twin, so that Django's tests exercise both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from asgiref.sync import async_to_sync

# The calls of Django's BaseCache that have an asynchronous twin named with an "a" in front.
TWINS = (
    "add", "clear", "close", "decr", "decr_version", "delete", "delete_many", "get", "get_many", "get_or_set",
    "has_key", "incr", "incr_version", "set", "set_many", "touch",
)  # fmt: skip

_built: dict[str, type] = {}


def build(backend: type, helpers: Mapping[str, type]) -> None:
    """Make the variants of ``backend``; afterwards ``path`` names them for a ``BACKEND`` setting.

    Args:
        backend: the cache class under test.
        helpers: Django's mixins by variant: "liberal" (no key validation) and "closing" (remembers its closing).
    """
    _built["liberal"] = type("LiberalCache", (helpers["liberal"], backend), {})
    _built["closing"] = type("ClosingCache", (helpers["closing"], backend), {})
    _built["failing"] = type("FailingCache", (_FailingWrites, backend), {})
    _built["async"] = _async_face(backend)
    # Django's tests look for deadlines in a dict that LocMemCache keeps; others are asked through `ttl`.
    _built["deadlines"] = type("DeadlinesCache", (_ShownDeadlines, backend), {}) if hasattr(backend, "ttl") else backend


def path(variant: str) -> str:
    """Return the dotted path of a variant, for a ``BACKEND`` setting."""
    return f"{__name__}.{variant}_variant"


def __getattr__(name: str) -> type:
    variant, found, _rest = name.partition("_variant")
    if not found or variant not in _built:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _built[variant]


class _FailingWrites:
    """Mixin: every set fails, with the words that Django's session tests expect in the log."""

    def set(self, *args: Any, **kwargs: Any) -> None:
        raise Exception("Faked exception saving to cache")

    async def aset(self, *args: Any, **kwargs: Any) -> None:
        raise Exception("Faked exception saving to cache")


class _Deadlines(Mapping[str, float | None]):
    """The remaining lifetime of each record, by its full key, as far as it is asked for."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def __getitem__(self, full_key: str) -> float | None:
        prefix = self._cache.make_key("")
        if not full_key.startswith(prefix):
            raise KeyError(full_key)
        key = full_key.removeprefix(prefix)
        if not self._cache.has_key(key):
            raise KeyError(full_key)
        remaining_s: float | None = self._cache.ttl(key)
        return remaining_s

    def __iter__(self) -> Iterator[str]:
        raise TypeError("only single keys can be asked for")

    def __len__(self) -> int:
        raise TypeError("only single keys can be asked for")


class _ShownDeadlines:
    """Mixin: the place where Django's tests of TIMEOUT=None look for deadlines, filled from `ttl`."""

    @property
    def _expire_info(self) -> Mapping[str, float | None]:
        return _Deadlines(self)


def _async_face(backend: type) -> type:
    """Make a class that holds a ``backend`` and answers the calls in TWINS by running their asynchronous twins.

    It delegates instead of inheriting: an asynchronous method may well call its own synchronous one.
    """

    def __init__(self: Any, location: str, params: dict[str, Any]) -> None:
        object.__setattr__(self, "_inner", backend(location, params))

    def __getattr__(self: Any, name: str) -> Any:
        return getattr(self._inner, name)

    def __setattr__(self: Any, name: str, value: Any) -> None:
        setattr(self._inner, name, value)

    def __contains__(self: Any, key: str) -> bool:
        return bool(self.has_key(key))

    members: dict[str, Any] = {name: _through_twin(name) for name in TWINS}
    members |= {
        "__init__": __init__,
        "__getattr__": __getattr__,
        "__setattr__": __setattr__,
        "__contains__": __contains__,
    }
    return type("AsyncFace", (), members)


def _through_twin(name: str) -> Any:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return async_to_sync(getattr(self._inner, f"a{name}"))(*args, **kwargs)

    call.__name__ = call.__qualname__ = name
    return call

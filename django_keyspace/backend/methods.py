"""What the mixins with the cache's methods find on the class that they are mixed into."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from django_keyspace.backend.twins import Steppable, Steps

if TYPE_CHECKING:
    from django_keyspace.backend.expire import Timeout
    from django_keyspace.backend.runtime import Runtime
    from django_keyspace.operations import Call, Expire, Value


class Methods(Steppable):
    """Base of the mixins of :class:`~django_keyspace.backend.cache.KeyspaceCache`: its fields and helpers, declared."""

    if TYPE_CHECKING:
        version: Any
        _runtime: Runtime
        _database: int
        _encode: Callable[[Any], Value]
        _decode: Callable[[bytes], Any]

        def _key(self, key: Any, version: Any) -> bytes: ...

        def _keys(self, keys: Iterable[Any], version: Any) -> dict[bytes, Any]: ...

        def _prefix_key(self, prefix: str, version: Any) -> bytes: ...

        def _user_key(self, key: bytes, version: Any) -> str: ...

        def _expire(self, timeout: Timeout) -> Expire: ...

        def _value(self, record: bytes | None, default: Any) -> Any: ...

        def _growing(self, call: Call, keys: list[bytes]) -> Call: ...

        def _grown(self, answer: Any) -> Any: ...

        def _get(self, key: Any, default: Any = None, version: Any = None) -> Steps[Any]: ...

        def _set(
            self, key: Any, value: Any, timeout: Timeout = ..., version: Any = None, nx: bool = False, xx: bool = False
        ) -> Steps[bool]: ...

        def _set_many(
            self, data: Mapping[Any, Any], timeout: Timeout = ..., version: Any = None
        ) -> Steps[list[Any]]: ...

        def _status(self) -> Steps[dict[str, Any]]: ...

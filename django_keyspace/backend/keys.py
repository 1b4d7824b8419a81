"""The user's keys to the store's keys and back: prefix, version, ``KEY_FUNCTION``, warnings and limits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from django.core.cache.backends.base import default_key_func

from django_keyspace.exceptions import InvalidKey, NotSupported
from django_keyspace.operations import KEY_BYTES_MAX, key_too_long

_REFUSED_KEYS: Final = (bytes, bytearray, list, tuple, dict, set, frozenset, type(None))
_WARN_CHARACTERS_MAX: Final = 250


class KeyMethods:
    """Mixed into the backend class: makes its keys, from its ``key_func``, ``key_prefix`` and ``version`` of the moment."""

    if TYPE_CHECKING:
        key_func: Callable[[Any, str, Any], str]
        key_prefix: str
        version: Any

        def validate_key(self, key: str) -> None: ...

    _reverse: Callable[[str], str] | None

    def _key(self, key: Any, version: Any) -> bytes:
        """The store's key.

        Raises:
            InvalidKey: it is empty, or of a type that has no sensible text.
            KeyTooLong: it is beyond the store's limit.
        """
        if type(key) is not str and isinstance(key, _REFUSED_KEYS):
            raise InvalidKey(
                f"A key is a str (or has a text form, as a number or UUID), not {key!r:.60}. Nothing was changed."
            )
        if version is None:
            version = self.version
        if self.key_func is default_key_func:
            full = f"{self.key_prefix}:{version}:{key}"
        else:
            full = self.key_func(key, self.key_prefix, version)
        # Django warns about keys that memcached would refuse. Ordinary keys are told apart at C speed.
        if len(full) > _WARN_CHARACTERS_MAX or " " in full or not full.isprintable():
            self.validate_key(full)
        if key == "":
            raise InvalidKey("The key is empty. Nothing was changed. Give it at least one character.")
        try:
            encoded = full.encode()
        except (UnicodeEncodeError, AttributeError) as error:
            raise InvalidKey(f"The key {full!r:.80} has no UTF-8 form: {error}. Nothing was changed.") from error
        if not encoded or len(encoded) > KEY_BYTES_MAX:
            raise key_too_long(len(encoded)) if encoded else InvalidKey("KEY_FUNCTION returned an empty key.")
        return encoded

    def _keys(self, keys: Iterable[Any], version: Any) -> dict[bytes, Any]:
        """The store's keys of many, each with the user's key; a key that comes twice comes once."""
        keys = list(keys)
        return dict(zip(self._key_list(keys, version), keys, strict=True))

    def _key_list(self, keys: list[Any], version: Any) -> list[bytes]:
        """The store's keys of many, in their order."""
        if self.key_func is default_key_func:
            full = self._ordinary_keys(keys, version)
            if full is not None:
                return full
        make = self._key
        return [make(key, version) for key in keys]

    def _ordinary_keys(self, keys: list[Any], version: Any) -> list[bytes] | None:
        """What :meth:`_key` makes of each key, all at once at C speed; None if one of them needs a closer look."""
        head = f"{self.key_prefix}:{self.version if version is None else version}:"
        try:
            text = f"\n{head}".join(keys)
        except TypeError:  # not all of them are str
            return None
        separators = len(keys) - 1
        if not keys or " " in text or " " in head or not head.isprintable():
            return None
        lengths = set(map(len, keys))
        if 0 in lengths or max(lengths) + len(head) > _WARN_CHARACTERS_MAX or not text.isascii():
            return None
        if text.count("\n") != separators or not text.replace("\n", "").isprintable():
            return None
        return f"{head}{text}".encode("ascii").split(b"\n")

    def _prefix_key(self, prefix: str, version: Any) -> bytes:
        """What all keys begin with whose user's key begins with ``prefix``.

        Raises:
            NotSupported: the alias has a ``KEY_FUNCTION`` and no ``reverse_key_function``.
        """
        if not isinstance(prefix, str):
            raise InvalidKey(f"A prefix is a str, not {type(prefix).__name__}.")
        if self.key_func is not default_key_func and self._reverse is None:
            raise NotSupported(
                "This alias has a KEY_FUNCTION, so keys cannot be listed or matched: give it the option "
                "reverse_key_function, which makes the user's key from a full key. Nothing was changed."
            )
        full = self.key_func(prefix, self.key_prefix, self.version if version is None else version)
        try:
            encoded = full.encode()
        except UnicodeEncodeError as error:
            raise InvalidKey(f"The prefix {full!r:.80} has no UTF-8 form: {error}.") from error
        if len(encoded) > KEY_BYTES_MAX:
            raise key_too_long(len(encoded))
        return encoded

    def _user_key(self, key: bytes, version: Any) -> str:
        """The user's key of a store's key that was found by :meth:`_prefix_key` of the same version."""
        full = key.decode(errors="surrogateescape")
        if self._reverse is not None:
            return self._reverse(full)
        return full[len(f"{self.key_prefix}:{self.version if version is None else version}:") :]

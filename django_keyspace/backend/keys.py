"""The user's keys to the store's keys and back: prefix, version, ``KEY_FUNCTION``, warnings and limits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from django.core.cache.backends.base import default_key_func

from django_keyspace.exceptions import InvalidKey, NotSupported
from django_keyspace.operations import KEY_BYTES_MAX, key_too_long

_REFUSED_KEYS: Final = (bytes, bytearray, list, tuple, dict, set, frozenset, type(None))
_WARN_CHARACTERS_MAX: Final = 250


class KeyMaker:
    """Makes keys for one alias.

    Arguments:
        key_function: ``KEY_FUNCTION``: ``(key, key_prefix, version) -> str``.
        key_prefix: ``KEY_PREFIX``.
        version: ``VERSION``.
        validate: the backend's ``validate_key``, called for keys that Django may want to warn about.
        reverse: the user's key from a full key, if ``key_function`` is not Django's.
    """

    def __init__(
        self,
        key_function: Callable[[Any, str, Any], str],
        key_prefix: str,
        version: Any,
        validate: Callable[[str], None],
        reverse: Callable[[str], str] | None,
    ) -> None:
        self._function = key_function
        self._prefix = key_prefix
        self._version = version
        self._validate = validate
        self._reverse = reverse
        self._is_default = key_function is default_key_func
        self._head = f"{key_prefix}:{version}:"

    def key(self, key: Any, version: Any) -> bytes:
        """The store's key.

        Raises:
            InvalidKey: it is empty, or of a type that has no sensible text.
            KeyTooLong: it is beyond the store's limit.
        """
        if type(key) is not str:
            self._check_type(key)
        if not key and key != 0:
            raise InvalidKey("The key is empty. Nothing was changed. Give it at least one character.")
        if not self._is_default:
            full = self._function(key, self._prefix, self._version if version is None else version)
        elif version is None:
            full = f"{self._head}{key}"
        else:
            full = f"{self._prefix}:{version}:{key}"
        # Django warns about keys that memcached would refuse. Ordinary keys are told apart at C speed.
        if len(full) > _WARN_CHARACTERS_MAX or " " in full or not full.isprintable():
            self._validate(full)
        try:
            encoded = full.encode()
        except (UnicodeEncodeError, AttributeError) as error:
            raise InvalidKey(f"The key {full!r:.80} has no UTF-8 form: {error}. Nothing was changed.") from error
        if not encoded or len(encoded) > KEY_BYTES_MAX:
            raise key_too_long(len(encoded)) if encoded else InvalidKey("KEY_FUNCTION returned an empty key.")
        return encoded

    def keys(self, keys: Iterable[Any], version: Any) -> dict[bytes, Any]:
        """The store's keys of many, each with the user's key; a key that comes twice comes once."""
        make = self.key
        return {make(key, version): key for key in keys}

    def prefix(self, prefix: str, version: Any) -> bytes:
        """What all keys begin with whose user's key begins with ``prefix``.

        Raises:
            NotSupported: the alias has a ``KEY_FUNCTION`` and no ``reverse_key_function``.
        """
        if not isinstance(prefix, str):
            raise InvalidKey(f"A prefix is a str, not {type(prefix).__name__}.")
        self._need_reverse()
        full = self._function(prefix, self._prefix, self._version if version is None else version)
        encoded = full.encode()
        if len(encoded) > KEY_BYTES_MAX:
            raise key_too_long(len(encoded))
        return encoded

    def user_key(self, key: bytes, version: Any) -> str:
        """The user's key of a store's key, which :meth:`prefix` of the same version has found."""
        full = key.decode(errors="surrogateescape")
        if self._reverse is not None:
            return self._reverse(full)
        return full[len(self._head if version is None else f"{self._prefix}:{version}:") :]

    def _need_reverse(self) -> None:
        if not self._is_default and self._reverse is None:
            raise NotSupported(
                "This alias has a KEY_FUNCTION, so keys cannot be listed or matched: give it the option "
                "reverse_key_function, which makes the user's key from a full key. Nothing was changed."
            )

    def _check_type(self, key: Any) -> None:
        if isinstance(key, _REFUSED_KEYS):
            raise InvalidKey(
                f"A key is a str (or has a text form, as a number or UUID), not {key!r:.60}. Nothing was changed."
            )

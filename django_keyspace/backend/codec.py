"""Python values to the bytes of a record, and back.

Exactly ``str`` that encodes to UTF-8, ``bytes``, ``int`` within 64 bits, ``float`` and ``bool`` are stored natively: plain
text or bytes, countable and readable from every API, never pickled. Everything else, subclasses included, goes through the
alias's serializer.

A pickled payload begins with a keyed BLAKE2b tag. The key comes from ``SECRET_KEY`` (``SECRET_KEY_FALLBACKS`` are accepted
for reading), so whoever can write to the store's folder but does not know the key cannot make this site unpickle anything.
The tag covers the payload and its type, not the cache key, since a record can be renamed: somebody with write access can
still swap two values of the same site.

A record that this alias must not or cannot read (another serializer, a bad signature, a class that no longer exists) is a
miss, counted and logged, never an exception in a view.
"""

from __future__ import annotations

import json
import logging
import pickle
import zlib
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from hmac import compare_digest
from typing import Any, Final
from zlib import crc32

import msgpack
from django.conf import settings
from django.core.signals import setting_changed

from django_keyspace.conf import Config
from django_keyspace.exceptions import CannotSerialize, DamagedStore
from django_keyspace.operations import INT64_MAX, INT64_MIN, Value, value_too_large
from django_keyspace.store.record import HEADER_BYTES, NATIVE_TAGS, Flag, Tag, content_of, inflate, payload_of

logger = logging.getLogger("django_keyspace.codec")
security_logger = logging.getLogger("django.security.django_keyspace")

SIGNATURE_BYTES: Final = 16
_SIGNED_FROM: Final = HEADER_BYTES + SIGNATURE_BYTES
_COMPRESSED, _SIGNED, _EVICTABLE = int(Flag.COMPRESSED), int(Flag.SIGNED), int(Flag.EVICTABLE)
_ENCLOSED = _COMPRESSED | _SIGNED
_BYTES, _TEXT, _INTEGER, _FLOAT, _BOOLEAN = (
    int(tag) for tag in (Tag.BYTES, Tag.TEXT, Tag.INTEGER, Tag.FLOAT, Tag.BOOLEAN)
)
_PICKLE = int(Tag.PICKLE)


class CannotPickle(CannotSerialize, pickle.PickleError):
    """Pickle does not take this value. (``PickleError``, as Django's other backends raise.)"""


class Unreadable(Exception):
    """A record that this alias cannot read. It stays inside the backend: callers see a miss."""


def _dump_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _dump_pickle(value: Any) -> bytes:
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def _dump_msgpack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def _load_msgpack(payload: bytes) -> Any:
    return msgpack.unpackb(payload, raw=False, strict_map_key=False)


def _dump_raw(value: Any) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise TypeError(f"it takes bytes only, not {type(value).__name__}")


_SERIALIZERS: Final[dict[str, tuple[int, Callable[[Any], bytes], Callable[[bytes], Any]]]] = {
    "pickle": (Tag.PICKLE, _dump_pickle, pickle.loads),
    "json": (Tag.JSON, _dump_json, json.loads),
    "msgpack": (Tag.MSGPACK, _dump_msgpack, _load_msgpack),
    "raw": (Tag.RAW, _dump_raw, bytes),
}
"""By the option's word: the record's tag, and how to dump and load."""

_NATIVE_LOADERS: Final[dict[int, Callable[[bytes], Any]]] = {
    Tag.BYTES: bytes,
    Tag.TEXT: bytes.decode,
    Tag.INTEGER: int,
    Tag.FLOAT: float,
    Tag.BOOLEAN: b"1".__eq__,
}


@lru_cache(maxsize=1)
def signing_keys() -> tuple[bytes, ...]:
    """The keys for signatures: that of ``SECRET_KEY`` first, then those of ``SECRET_KEY_FALLBACKS``."""
    return keys_of_secrets([str(secret) for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)])


def keys_of_secrets(secrets: Sequence[str | bytes]) -> tuple[bytes, ...]:
    """The keys for signatures that come from some secrets: the first signs, all are accepted."""
    encoded = (secret.encode() if isinstance(secret, str) else secret for secret in secrets)
    return tuple(blake2b(secret, person=b"keyspace.pickle", digest_size=32).digest() for secret in encoded)


def _forget_keys(*, setting: str, **kwargs: Any) -> None:
    if setting in ("SECRET_KEY", "SECRET_KEY_FALLBACKS"):
        signing_keys.cache_clear()


setting_changed.connect(_forget_keys)


@lru_cache(maxsize=64)
def _hasher(key: bytes, tag: int, compressed: int) -> Any:
    """A hash that has taken in the key already; it is copied for each payload."""
    return blake2b(key=key, digest_size=SIGNATURE_BYTES, salt=b"%d.%d" % (tag, compressed))


def _sign(key: bytes, payload: bytes, tag: int, compressed: int) -> bytes:
    hasher = _hasher(key, tag, compressed).copy()
    hasher.update(payload)
    signature: bytes = hasher.digest()
    return signature


class Codec:
    """The codec of one alias.

    Arguments:
        config: serializer, compression, signing and limits.
        keys: gives the keys for signatures.

    Attributes:
        flags: the flags that every record of this alias carries.
    """

    def __init__(self, config: Config, keys: Callable[[], tuple[bytes, ...]] = signing_keys) -> None:
        self._keys = keys
        self.flags = _EVICTABLE if config.evictable else 0
        self._config = config
        self._tag, self._dump, self._load = _SERIALIZERS[config.serializer]
        self._signed = config.signed and config.serializer == "pickle"
        self._limit_bytes = config.store.value_bytes_max
        # No payload may be larger than the limit, so this turns compression off.
        self._compress_from = config.compress_min_bytes if config.compressor else self._limit_bytes + 1

    def encode(self, value: Any) -> Value:
        """``(tag, flags, payload)`` of a value.

        Raises:
            CannotSerialize: the serializer does not take it.
            ValueTooLarge: it is larger than a value may be.
        """
        kind = type(value)
        if kind is str:
            try:
                tag, payload = _TEXT, value.encode()
            except UnicodeEncodeError:  # a lone surrogate
                return self._serialize(value)
        elif kind is int:
            if not INT64_MIN <= value <= INT64_MAX:
                return self._serialize(value)
            tag, payload = _INTEGER, b"%d" % value
        elif kind is bytes:
            tag, payload = _BYTES, value
        elif kind is float:
            tag, payload = _FLOAT, repr(value).encode()
        elif kind is bool:
            tag, payload = _BOOLEAN, b"1" if value else b"0"
        else:
            return self._serialize(value)
        if len(payload) >= self._compress_from or len(payload) > self._limit_bytes:
            if tag in (_TEXT, _BYTES):  # the store counts numbers as they are
                return self._finish(tag, payload, 0)
        return tag, self.flags, payload

    def encode_many(self, values: Collection[Any]) -> list[Value]:
        """What :meth:`encode` makes of each value; of many short texts without a call for each."""
        if set(map(type, values)) == {str}:
            short = min(self._compress_from - 1, self._limit_bytes)
            if len(max(values, key=len)) <= short and "".join(values).isascii():
                flags = self.flags
                return [(_TEXT, flags, value.encode()) for value in values]
        return [self.encode(value) for value in values]

    def encode_uncompressed(self, value: str | bytes) -> Value:
        """``(tag, flags, payload)`` of text or bytes that is to be appended to other text or bytes.

        Raises:
            CannotSerialize: the text has no UTF-8 form.
            ValueTooLarge: it is larger than a value may be.
        """
        try:
            tag, payload = (_TEXT, value.encode()) if isinstance(value, str) else (_BYTES, value)
        except UnicodeEncodeError as error:
            raise CannotSerialize(f"The text has no UTF-8 form: {error}. Nothing was changed.") from error
        if len(payload) > self._limit_bytes:
            raise value_too_large(len(payload), self._limit_bytes)
        return tag, self.flags, payload

    def _serialize(self, value: Any) -> Value:
        try:
            payload = self._dump(value)
        except RecursionError as error:
            raise CannotSerialize(
                f"A {type(value).__name__} is nested too deeply to be stored. Nothing was changed."
            ) from error
        except Exception as error:
            raise (CannotPickle if self._tag == _PICKLE else CannotSerialize)(
                f"The serializer {self._config.serializer!r} cannot store a {type(value).__name__}: {error}. Nothing was "
                "changed."
            ) from error
        return self._finish(self._tag, payload, _SIGNED if self._signed else 0)

    def _finish(self, tag: int, payload: bytes, flags: int) -> Value:
        """Compress and sign, in this order."""
        if len(payload) > self._limit_bytes:
            raise value_too_large(len(payload), self._limit_bytes)
        if len(payload) >= self._compress_from:
            compressed = zlib.compress(payload, self._config.compress_level)
            if len(compressed) < len(payload):
                payload, flags = compressed, flags | _COMPRESSED
        if flags & _SIGNED:
            payload = _sign(self._keys()[0], payload, tag, flags & _COMPRESSED) + payload
        return tag, flags | self.flags, payload

    def decode(self, record: bytes) -> Any:
        """The value of a record.

        Raises:
            Unreadable: this alias cannot or must not read it.
        """
        tag, flags, checksum = content_of(record)
        try:
            if flags & _SIGNED or tag == _PICKLE:
                payload = self._verified(tag, flags, record)
            else:
                payload = record[HEADER_BYTES:]
                if crc32(payload) != checksum:
                    raise DamagedStore("a record's checksum does not match its payload. Check the disk.")
            if tag == _TEXT and not flags & _COMPRESSED:
                return payload.decode()
            if flags & _COMPRESSED:
                payload = inflate(payload, self._limit_bytes)
            if tag in NATIVE_TAGS:
                return _NATIVE_LOADERS[tag](payload)
            if tag != self._tag:
                raise Unreadable(f"it was written by another serializer (tag {tag})")
            return self._load(payload)
        except Unreadable:
            raise
        except DamagedStore as error:
            logger.error("A damaged record reads as a miss: %s", error)
            raise Unreadable(str(error)) from error
        except Exception as error:
            raise Unreadable(f"it cannot be loaded: {error!r}") from error

    def decode_many(self, keys: Iterable[Any], records: Iterable[bytes | None]) -> dict[Any, Any]:
        """What :meth:`decode` makes of each record, by its key; without those that are missing or unreadable."""
        values: dict[Any, Any] = {}
        unpack, checksum_of, decode = content_of, crc32, self.decode
        for key, record in zip(keys, records, strict=True):
            if record is None:
                continue
            tag, flags, checksum = unpack(record)
            try:
                # Plain text, the most usual, without a call for each.
                if tag == _TEXT and not flags & _ENCLOSED and checksum_of(payload := record[HEADER_BYTES:]) == checksum:
                    values[key] = payload.decode()
                else:
                    values[key] = decode(record)
            except (Unreadable, UnicodeDecodeError):
                continue
        return values

    def _verified(self, tag: int, flags: int, record: bytes) -> bytes:
        """The payload without its signature, which also stands for the checksum."""
        if tag == _PICKLE and self._tag != _PICKLE:
            raise Unreadable("it is a pickle, and this alias does not read pickles")
        if not flags & _SIGNED:
            if self._signed:
                security_logger.warning(
                    "An unsigned pickle was not loaded: somebody else wrote it, or signing was off then."
                )
                raise Unreadable("it is an unsigned pickle")
            return payload_of(record)
        signature, signed = record[HEADER_BYTES:_SIGNED_FROM], record[_SIGNED_FROM:]
        for key in self._keys():
            if compare_digest(signature, _sign(key, signed, tag, flags & _COMPRESSED)):
                return signed
        security_logger.warning(
            "A pickle with a wrong signature was not loaded: it was written under another SECRET_KEY, or tampered with."
        )
        raise Unreadable("its signature is wrong")

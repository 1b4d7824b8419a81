"""kt's serializers: Python values to records, and back.

The payload of a record is what the serializer makes of the value, as ``get_bytes`` shows it. Two things are the same in all
of them, so that all APIs of this package see one thing:

- An ``int`` within 64 bits and a finite ``float`` are stored as decimal text with the tag of a number. Every API counts them.
- A record that says itself what it is (text, bytes, a number, a boolean: whoever wrote it) is read as that by
  :data:`KT_JSON`, :data:`KT_MSGPACK` and :data:`KT_PICKLE`. :data:`KT_BINARY` always makes text of it and :data:`KT_NONE`
  bytes.

Pickles are made and loaded by ``backend/codec.py`` only, and only with a signature.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from itertools import repeat
from typing import Any, Final
from zlib import crc32

import msgpack
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured as DjangoImproperlyConfigured

from django_keyspace.backend.codec import Codec, Unreadable, keys_of_secrets, signing_keys
from django_keyspace.backend.kyoto.errors import ImproperlyConfigured, in_kt_words
from django_keyspace.conf import Config
from django_keyspace.exceptions import CannotSerialize, DamagedStore, WrongType
from django_keyspace.operations import INT64_MAX, INT64_MIN, Value, value_too_large
from django_keyspace.store.options import StoreOptions
from django_keyspace.store.record import HEADER_BYTES, Flag, Tag, inflate, payload_of, unpack_header

KT_BINARY: Final = "binary"
"""Text as UTF-8; whatever is stored is read as text."""
KT_JSON: Final = "json"
"""JSON, compact and in ASCII."""
KT_MSGPACK: Final = "msgpack"
"""MessagePack; text and bytes are kept apart."""
KT_NONE: Final = "none"
"""Bytes in, bytes out."""
KT_PICKLE: Final = "pickle"
"""Pickles, signed with the client's secret."""

Secret = str | bytes | Sequence[str | bytes] | None

_COMPRESSED, _SIGNED = int(Flag.COMPRESSED), int(Flag.SIGNED)
_BYTES, _TEXT, _INTEGER, _FLOAT, _BOOLEAN = (
    int(tag) for tag in (Tag.BYTES, Tag.TEXT, Tag.INTEGER, Tag.FLOAT, Tag.BOOLEAN)
)
TEXTUAL_TAGS: Final = frozenset({_BYTES, _TEXT, _INTEGER, _FLOAT, int(Tag.RAW)})
"""Tags of records to which KT_BINARY and KT_NONE append."""


def stored_form(record: bytes, limit_bytes: int) -> tuple[int, bytes]:
    """``(tag, payload)`` of a record, after its checksum was compared and what a cache has compressed was inflated.

    Raises:
        DamagedStore: it is not what was written. (Also kt's ServerError.)
    """
    tag, flags, checksum, _, _, _ = unpack_header(record)
    payload = record[HEADER_BYTES:]
    try:
        if crc32(payload) != checksum:
            payload_of(record)
        if flags & (_COMPRESSED | _SIGNED) == _COMPRESSED:
            payload = inflate(payload, limit_bytes)
    except DamagedStore as error:
        raise in_kt_words(error) from None
    return tag, payload


def not_text(what: str, error: UnicodeDecodeError) -> WrongType:
    """The error for bytes that have to be text and are not."""
    made = in_kt_words(
        WrongType(
            f"The {what} is not UTF-8: {error.reason} at byte {error.start}. It was left as it is. "
            "A client with KT_NONE and decode_keys=False reads all bytes."
        )
    )
    return made  # type: ignore[return-value]


class Serializer:
    """Values to records and back. A subclass per constant.

    Arguments:
        limit_bytes: largest payload of a value.
    """

    name = ""
    tag = _BYTES
    """Tag of what is neither a number nor, for some, text."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes

    def dump(self, value: Any) -> bytes:
        """The serialized form, whatever the value is. May raise anything."""
        raise NotImplementedError

    def load(self, payload: bytes) -> Any:
        """The value of a serialized form. May raise anything."""
        raise NotImplementedError

    def encode(self, value: Any) -> Value:
        """``(tag, flags, payload)`` of a value.

        Raises:
            CannotSerialize: the serializer does not take it.
            ValueTooLarge: it is larger than a value may be.
        """
        kind = type(value)
        if kind is int and INT64_MIN <= value <= INT64_MAX:
            return _INTEGER, 0, b"%d" % value
        if kind is float and value - value == 0:
            return _FLOAT, 0, repr(value).encode()
        return self.tag, 0, self.checked(self.dumped(value))

    def encode_many(self, values: Collection[Any]) -> list[Value]:
        """What :meth:`encode` makes of each value."""
        return [self.encode(value) for value in values]

    def dumped(self, value: Any) -> bytes:
        """What :meth:`dump` makes, or :class:`CannotSerialize`."""
        try:
            return self.dump(value)
        except RecursionError:
            reason = "it is nested too deeply"
        except Exception as error:
            reason = str(error)
        raise CannotSerialize(
            f"The serializer {self.name!r} cannot store a {type(value).__name__}: {reason}. Nothing was changed."
        )

    def checked(self, payload: bytes) -> bytes:
        """The payload; :class:`ValueTooLarge` if it is too large."""
        if len(payload) > self.limit_bytes:
            raise value_too_large(len(payload), self.limit_bytes)
        return payload

    def encode_stored(self, payload: bytes) -> Value:
        """``(tag, flags, payload)`` of bytes that are the serialized form already."""
        if type(payload) is not bytes:
            raise CannotSerialize(f"This takes bytes, not a {type(payload).__name__}. Nothing was changed.")
        return self.tag, 0, self.checked(payload)

    def loaded(self, payload: bytes) -> Any:
        """What :meth:`load` makes, or :class:`WrongType`."""
        try:
            return self.load(payload)
        except UnicodeDecodeError as error:
            raise not_text("value", error) from None
        except Exception as error:
            raise in_kt_words(
                WrongType(
                    f"The value is not one of the serializer {self.name!r}: {error or type(error).__name__}. It was left as "
                    "it is. get_bytes reads its bytes."
                )
            ) from None

    def decode(self, record: bytes) -> Any:
        """The value of a record.

        Raises:
            WrongType: this serializer cannot read it. (Also kt's ProtocolError.)
            DamagedStore: its checksum is wrong.
        """
        tag, payload = stored_form(record, self.limit_bytes)
        native = _NATIVE.get(tag)
        if native is not None:
            try:
                return native(payload)
            except UnicodeDecodeError as error:
                raise not_text("value", error) from None
        if tag in (self.tag, _BYTES, Tag.RAW):
            return self.loaded(payload)
        raise in_kt_words(_foreign(tag, self.name))


_NATIVE: Final[dict[int, Callable[[bytes], Any]]] = {
    _TEXT: bytes.decode,
    _INTEGER: int,
    _FLOAT: float,
    _BOOLEAN: b"1".__eq__,
}


def _foreign(tag: int, name: str) -> WrongType:
    try:
        writer = Tag(tag).name.lower()
    except ValueError:
        writer = f"tag {tag}"
    return WrongType(
        f"The value was written as {writer}, and this client's serializer is {name!r}. It was left as it is. "
        "get_bytes reads its bytes."
    )


class BinarySerializer(Serializer):
    """:data:`KT_BINARY`."""

    name = KT_BINARY
    tag = _TEXT

    def dump(self, value: Any) -> bytes:
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value)
        if value is None:
            raise TypeError("None has no text; delete the key instead")
        return str(value).encode()

    def load(self, payload: bytes) -> Any:
        return payload.decode()

    def encode(self, value: Any) -> Value:
        kind = type(value)
        if kind is str:
            try:
                payload = value.encode()
            except UnicodeEncodeError:
                payload = self.dumped(value)  # says what is wrong
            if len(payload) > self.limit_bytes:
                raise value_too_large(len(payload), self.limit_bytes)
            return _TEXT, 0, payload
        if isinstance(value, bytes | bytearray | memoryview):
            return _BYTES, 0, self.checked(bytes(value))
        return super().encode(value)

    def encode_many(self, values: Collection[Any]) -> list[Value]:
        try:
            encoded = list(map(str.encode, values))
        except (TypeError, UnicodeEncodeError):  # something else than text, or text that encode() will name
            if set(map(type, values)) != {bytes} or max(map(len, values)) > self.limit_bytes:
                return [self.encode(value) for value in values]
            return list(zip(repeat(_BYTES), repeat(0), values))
        if encoded and max(map(len, encoded)) > self.limit_bytes:
            return [self.encode(value) for value in values]
        return list(zip(repeat(_TEXT), repeat(0), encoded))

    def encode_stored(self, payload: bytes) -> Value:
        return _BYTES, 0, super().encode_stored(payload)[2]

    def decode(self, record: bytes) -> Any:
        _, flags, checksum, _, _, _ = unpack_header(record)
        payload = record[HEADER_BYTES:]
        if flags & (_COMPRESSED | _SIGNED) or crc32(payload) != checksum:
            payload = stored_form(record, self.limit_bytes)[1]
        try:
            return payload.decode()
        except UnicodeDecodeError as error:
            raise not_text("value", error) from None


class NoneSerializer(BinarySerializer):
    """:data:`KT_NONE`."""

    name = KT_NONE

    def load(self, payload: bytes) -> Any:
        return payload

    def decode(self, record: bytes) -> Any:
        return stored_form(record, self.limit_bytes)[1]


class JSONSerializer(Serializer):
    """:data:`KT_JSON`."""

    name = KT_JSON
    tag = int(Tag.JSON)

    def dump(self, value: Any) -> bytes:
        return json.dumps(value, separators=(",", ":")).encode()

    def load(self, payload: bytes) -> Any:
        return json.loads(payload.decode())


class MsgpackSerializer(Serializer):
    """:data:`KT_MSGPACK`."""

    name = KT_MSGPACK
    tag = int(Tag.MSGPACK)

    def dump(self, value: Any) -> bytes:
        packed: bytes = msgpack.packb(value, use_bin_type=True)
        return packed

    def load(self, payload: bytes) -> Any:
        return msgpack.unpackb(payload, raw=False, strict_map_key=False)


class PickleSerializer(Serializer):
    """:data:`KT_PICKLE`: what a Django alias stores by default, signed in the same way.

    Arguments:
        limit_bytes: largest payload of a value.
        keys: gives the keys for signatures, the first of them for new ones.
    """

    name = KT_PICKLE
    tag = int(Tag.PICKLE)

    def __init__(self, limit_bytes: int, keys: Callable[[], tuple[bytes, ...]]) -> None:
        super().__init__(limit_bytes)
        store = StoreOptions(value_bytes_max=limit_bytes)
        self._codec = Codec(Config("", is_remote=False, store=store, serializer="pickle", evictable=False), keys)

    def dump(self, value: Any) -> bytes:
        payload = self._codec.encode(value)[2]
        return payload

    def load(self, payload: bytes) -> Any:
        raise TypeError("a pickle is loaded from a record that says that it is signed, and from nothing else")

    def encode(self, value: Any) -> Value:
        return self._codec.encode(value)

    def encode_stored(self, payload: bytes) -> Value:
        # Bytes that a caller brings are never a pickle that this site made.
        return _BYTES, 0, super().encode_stored(payload)[2]

    def decode(self, record: bytes) -> Any:
        try:
            return self._codec.decode(record)
        except Unreadable as error:
            raise in_kt_words(
                WrongType(f"The value cannot be read: {error}. It was left as it is. get_bytes reads its bytes.")
            ) from None


def _keys_of(secret: Secret) -> Callable[[], tuple[bytes, ...]]:
    """Where the keys of a client come from: its own secret, or Django's."""
    if secret is not None:
        secrets = [secret] if isinstance(secret, str | bytes) else list(secret)
        if not secrets or not all(isinstance(one, str | bytes) and one for one in secrets):
            raise ImproperlyConfigured(
                "pickle_secret must be text or bytes, not empty, or a list of them: the first one signs."
            )
        keys = keys_of_secrets(secrets)
        return lambda: keys
    try:
        settings.SECRET_KEY  # noqa: B018 - Django raises if there are no settings, or no key
    except DjangoImproperlyConfigured as error:
        raise ImproperlyConfigured(
            "KT_PICKLE signs what it stores and loads nothing that is not signed, and there is no key: Django has no "
            "settings with a SECRET_KEY here. Give pickle_secret='...' (long, random, the same for all clients of this data), "
            "or use KT_JSON or KT_MSGPACK, which need none."
        ) from error
    return signing_keys


_PLAIN: Final[dict[str, type[Serializer]]] = {
    cls.name: cls for cls in (BinarySerializer, JSONSerializer, MsgpackSerializer, NoneSerializer)
}


def make_serializer(name: Any, limit_bytes: int, secret: Secret = None) -> Serializer:
    """The serializer of a client.

    Arguments:
        name: one of the constants.
        limit_bytes: largest payload of a value.
        secret: for KT_PICKLE: what to sign with; None for Django's SECRET_KEY and SECRET_KEY_FALLBACKS.
    Raises:
        ImproperlyConfigured: it is not known, or there is nothing to sign with.
    """
    if name == KT_PICKLE:
        return PickleSerializer(limit_bytes, _keys_of(secret))
    if not isinstance(name, str) or name not in _PLAIN:
        raise ImproperlyConfigured(
            f"There is no serializer {name!r:.40}. Use KT_BINARY, KT_JSON, KT_MSGPACK, KT_NONE or KT_PICKLE."
        )
    return _PLAIN[name](limit_bytes)

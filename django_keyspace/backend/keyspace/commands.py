"""Keyspace's commands beside the store's operations: text to bytes, answers to values, refusals to errors.

The ancestor knows byte strings only. A ``str`` is kept as text and ``bytes`` as bytes, so that caches and Kyoto's clients
read the same values; what these have written is read as its text. Source: the ancestor's Python API documentation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from django_keyspace.exceptions import ConditionFailed, InvalidArgument, InvalidKey, MissingKey, WrongType
from django_keyspace.operations import Call, Value, check_key, value_too_large
from django_keyspace.store.record import NATIVE_TAGS, Flag, Tag, inflate, payload_of, unpack_header

Text = str | bytes

_TEXT, _BYTES = int(Tag.TEXT), int(Tag.BYTES)
_PLAIN_TAGS: Final = frozenset({*(int(tag) for tag in NATIVE_TAGS), int(Tag.RAW), int(Tag.JSON)})
_COMPRESSED, _SIGNED = int(Flag.COMPRESSED), int(Flag.SIGNED)
FLAGS: Final = int(Flag.DECIMAL)
"""Of every record that Keyspace's commands write: its text may be counted, and it is not evictable."""


def to_bytes(name: str, text: Any) -> bytes:
    """The bytes of a ``str`` or ``bytes``. Surrogate escapes, as :func:`to_text` makes them, become their bytes again.

    Raises:
        InvalidArgument: it is neither, or has no UTF-8 form.
    """
    if isinstance(text, str):
        try:
            return str.encode(text)
        except UnicodeEncodeError:
            try:
                return str.encode(text, "utf-8", "surrogateescape")
            except UnicodeEncodeError as error:
                raise InvalidArgument(
                    f"Argument {name!r} has no UTF-8 form: {error}. Nothing was changed. Give bytes."
                ) from None
    if isinstance(text, bytes):
        return bytes(text)
    raise InvalidArgument(f"Argument {name!r} must be str or bytes, not {type(text).__name__}. Nothing was changed.")


def to_key(name: str, key: Any) -> bytes:
    """The bytes of a key, checked. Raises :class:`InvalidKey`."""
    try:
        data = to_bytes(name, key)
    except InvalidArgument as error:
        raise InvalidKey(str(error)) from None
    check_key(name, data)
    return data


def to_value(name: str, value: Any, limit_bytes: int) -> Value:
    """The store's form of a value, checked. Raises :class:`InvalidArgument`."""
    payload = to_bytes(name, value)
    if len(payload) > limit_bytes:
        raise value_too_large(len(payload), limit_bytes)
    if isinstance(value, str) and (payload.isascii() or _is_utf8(payload)):
        return _TEXT, FLAGS, payload
    return _BYTES, FLAGS, payload


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def to_text(data: bytes) -> str:
    """Bytes as ``str``. What is not UTF-8 becomes surrogate escapes, as in :func:`os.fsdecode`, so that nothing is lost."""
    return data.decode("utf-8", "surrogateescape")


def plain_payload(record: bytes, limit_bytes: int) -> bytes:
    """The bytes that a record stands for.

    Raises:
        WrongType: it holds a Python object that was serialized, not text, bytes or a number.
        DamagedStore: the record is not what was written.
    """
    header = unpack_header(record)
    tag, flags = header[0], header[1]
    if tag not in _PLAIN_TAGS or flags & _SIGNED:
        raise WrongType(
            "The value under the key is a serialized Python object that a cache has stored, not text, bytes or a number. "
            "Read it through that cache."
        )
    payload = payload_of(record)
    return inflate(payload, limit_bytes) if flags & _COMPRESSED else payload


def missing(key: bytes) -> MissingKey:
    """The error of a command whose key is not there."""
    return MissingKey(f"There is nothing under the key {to_text(key)!r:.80}. Nothing was changed.")


def _present(call: Call, answer: Any, limit_bytes: int) -> bytes:
    """A command that answers whether the key was there."""
    if answer is False:
        raise missing(call[2])
    return b""


def _old_value(call: Call, answer: Any, limit_bytes: int) -> bytes:
    """A command that answers the record, or None."""
    if answer is None:
        raise missing(call[2])
    return plain_payload(answer, limit_bytes)


def _swapped(call: Call, answer: Any, limit_bytes: int) -> bytes:
    swapped, record = answer
    if swapped:
        payload: bytes = call[3][2]
        return payload
    if record is None:
        raise missing(call[2][1])
    raise ConditionFailed("The value under the key is not the one to test for. Nothing was changed.")


def _number(call: Call, answer: Any, limit_bytes: int) -> bytes:
    return b"%d" % answer


def _done(call: Call, answer: Any, limit_bytes: int) -> bytes:
    return b""


OUTCOMES: Final[dict[str, Callable[[Call, Any, int], bytes]]] = {
    "get": _old_value,
    "set": _done,
    "cas": _swapped,
    "incr": _number,
    "rename": _present,
    "delete": _present,
    "remove": _old_value,
    "prune": _done,
    "set_expiry": _done,
    "remove_expiry": _done,
    "clear_expiries": _done,
}
"""By the operation: the bytes of a command's value from the operation's answer, or the error of a command that said no."""


def key_of(call: Call) -> bytes:
    """The key that a command is about: a rename's old one, a prune's prefix, nothing for clear_expiries."""
    if call[0] == "cas":
        key: bytes = call[2][1]
        return key
    return call[2] if len(call) > 2 else b""

"""Values on their way between Python and Lua, as bytes.

A script's arguments and its result travel in this form, and so does everything between a worker and the store. The other
half of it is in ``lua/values.lua``. One letter, then the value:

======  ====================================================================
letter  what follows
======  ====================================================================
N T F   nothing: nil, true, false
I       an integer, 8 bytes
D       a float, 8 bytes
S       a string: its length, 4 bytes, and the bytes
A       a list: its length, 4 bytes, and the items
M       a table with other keys: the number of pairs, 4 bytes, and key, value ...
======  ====================================================================

All numbers are little-endian. A reader refuses what is nested too deeply or has too many items, before it makes them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from django_keyspace.exceptions import InvalidArgument, ScriptLimit

DEPTH_MAX: Final = 32
ITEMS_MAX: Final = 1_000_000
_INT64: Final = struct.Struct("<q")
_DOUBLE: Final = struct.Struct("<d")
_LENGTH: Final = struct.Struct("<I")


def encode(value: Any) -> bytes:
    """The bytes of a value.

    Arguments:
        value: None, bool, int of 64 bits, float, str, bytes, or a list, tuple or dict of such; keys are str, bytes or int.
    Raises:
        InvalidArgument: it is something else, or nested too deeply.
    """
    parts: list[bytes] = []
    _put(value, parts.append, 0)
    return b"".join(parts)


def _put(value: Any, add: Callable[[bytes], None], depth: int) -> None:
    if value is None:
        add(b"N")
    elif value is True or value is False:
        add(b"T" if value else b"F")
    elif isinstance(value, str | bytes):
        _put_string(value, add)
    elif isinstance(value, int):
        try:
            add(b"I" + _INT64.pack(value))
        except struct.error:
            raise InvalidArgument(f"Lua's integers have 64 bits, {value} has more. Nothing was changed.") from None
    elif isinstance(value, float):
        add(b"D" + _DOUBLE.pack(value))
    elif not isinstance(value, list | tuple | dict):
        raise InvalidArgument(
            f"Lua has no value for a {type(value).__name__}: scripts take None, bool, int, float, str, bytes, and lists and "
            "dicts of them. Nothing was changed."
        )
    elif depth >= DEPTH_MAX:
        raise InvalidArgument(f"Values for scripts may be nested {DEPTH_MAX} deep, not deeper. Nothing was changed.")
    elif isinstance(value, dict):
        add(b"M" + _LENGTH.pack(len(value)))
        for key, item in value.items():
            if isinstance(key, bool) or not isinstance(key, str | bytes | int):
                raise InvalidArgument(
                    f"A key of a table for scripts is a str, bytes or int, not {key!r:.40}. Nothing was changed."
                )
            _put(key, add, depth + 1)
            _put(item, add, depth + 1)
    else:
        add(b"A" + _LENGTH.pack(len(value)))
        for item in value:
            _put(item, add, depth + 1)


def _put_string(value: str | bytes, add: Callable[[bytes], None]) -> None:
    try:
        data = value.encode() if isinstance(value, str) else value
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"The text has no UTF-8 form: {error}. Nothing was changed.") from error
    add(b"S" + _LENGTH.pack(len(data)))
    add(data)


def decode(data: bytes, *, text: bool = False) -> Any:
    """The value of some bytes.

    Arguments:
        data: what :func:`encode` or a worker has made.
        text: whether strings that are UTF-8 become str; all of them are bytes otherwise.
    Raises:
        InvalidArgument: the bytes are no value.
        ScriptLimit: they are nested too deeply, or have too many items.
    """
    reader = _Reader(data, text)
    try:
        value = reader.take(0)
    except (struct.error, IndexError, TypeError) as error:
        raise InvalidArgument("The bytes are not a value for or of a script. Nothing was changed.") from error
    if reader.at != len(data):
        raise InvalidArgument("There is something behind the value for a script. Nothing was changed.")
    return value


class _Reader:
    """Reads one value."""

    def __init__(self, data: bytes, text: bool) -> None:
        self.at = 0
        self._data = data
        self._text = text
        self._items = 0

    def take(self, depth: int) -> Any:
        """The value that begins here."""
        letter = self._data[self.at]
        self.at += 1
        if letter == 0x53:  # S
            return self._string()
        if letter == 0x49:  # I
            (integer,) = _INT64.unpack_from(self._data, self.at)
            self.at += 8
            return integer
        if letter == 0x44:  # D
            (number,) = _DOUBLE.unpack_from(self._data, self.at)
            self.at += 8
            return number
        if letter in _CONSTANTS:
            return _CONSTANTS[letter]
        return self._table(letter, depth)

    def _string(self) -> str | bytes:
        length = self._length()
        end = self.at + length
        if end > len(self._data):
            raise IndexError
        data = self._data[self.at : end]
        self.at = end
        if self._text:
            try:
                return data.decode()
            except UnicodeDecodeError:
                return data
        return data

    def _table(self, letter: int, depth: int) -> Any:
        if letter not in (0x41, 0x4D):  # A, M
            raise IndexError
        length = self._length()
        self._items += length
        if depth >= DEPTH_MAX:
            raise ScriptLimit(f"A script's values may be nested {DEPTH_MAX} deep, not deeper. Nothing was changed.")
        if self._items > ITEMS_MAX:
            raise ScriptLimit(f"A script's values may have {ITEMS_MAX:,} items, not more. Nothing was changed.")
        if letter == 0x41:
            return [self.take(depth + 1) for _ in range(length)]
        return {self.take(depth + 1): self.take(depth + 1) for _ in range(length)}

    def _length(self) -> int:
        (length,) = _LENGTH.unpack_from(self._data, self.at)
        self.at += 4
        return int(length)


_CONSTANTS: Final[dict[int, bool | None]] = {0x4E: None, 0x54: True, 0x46: False}

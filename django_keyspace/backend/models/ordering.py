"""Values to bytes and back, so that the order of the bytes is the order of the values.

Keys of records and of index entries are made of these bytes, and a store lists keys in byte order. What holds:

- ``ordered(a) < ordered(b)`` exactly if ``a < b`` in Python, for two values of one type, and ``None`` is before everything.
- Equal values have equal bytes: ``-0.0`` is ``0.0``, ``Decimal("1.0")`` is ``Decimal("1.00")``, and a moment is the same
  in every time zone.
- No value's bytes are the beginning of another value's bytes. So the bytes of several values one after the other sort as a
  tuple does, and can be taken apart again.

A value is one byte that names its type and a body. The types of one column are one type, or ``None``; that different types
are not mixed up in their order is not needed and not promised.

==========  ==========================================================================================================
type        body
==========  ==========================================================================================================
``int``     the type byte also has the sign and the number of bytes; then the number, big-endian, inverted if negative
``float``   IEEE 754, big-endian, with the sign bit flipped, or all bits if negative
Decimal     sign; exponent as ``int``; two digits to a byte, each pair plus one, ended by 0; inverted if negative
text        UTF-8 with 0 as 0 255, ended by 0 1: the order of code points
bytes       as text
date        days since the year 1, three bytes
datetime    microseconds since the year 1, in UTC if it knows its time zone, eight bytes
time        microseconds since midnight, five bytes
timedelta   microseconds, as ``int``
UUID        its sixteen bytes
==========  ==========================================================================================================
"""

from __future__ import annotations

import datetime
import struct
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from django_keyspace.exceptions import InvalidArgument

_NONE: Final = b"\x02"
_FALSE: Final = b"\x04"
_TRUE: Final = b"\x05"
_INTEGER: Final = 0x20
"""The middle of the bytes for integers: minus and plus the number of bytes of what follows, at most 8."""
_INLINE_BYTES_MAX: Final = 8
_LENGTH_BYTES: Final = 2
"""An integer of more bytes than 8 is marked by 9 and has its length in so many bytes."""
_FLOAT: Final = b"\x30"
_DECIMAL: Final = b"\x32"
_TEXT: Final = b"\x40"
_BYTES: Final = b"\x42"
_DATE: Final = b"\x50"
_NAIVE: Final = b"\x52"
_AWARE: Final = b"\x54"
_TIME: Final = b"\x56"
_DURATION: Final = b"\x58"
_UUID: Final = b"\x60"

_END: Final = b"\x00\x01"
_ESCAPED: Final = b"\x00\xff"

_DAY_US: Final = 86_400 * 1_000_000
_MOMENT_BIAS: Final = _DAY_US
"""Makes the first moments of the year 1 in zones east of Greenwich positive."""
_INVERT: Final = bytes(255 - number for number in range(256))

_pack_double = struct.Struct(">d").pack
_pack_unsigned = struct.Struct(">Q").pack


def _refuse(value: Any, reason: str) -> InvalidArgument:
    return InvalidArgument(f"{value!r:.80} cannot be part of a key or an index: {reason}. Nothing was changed.")


# ------------------------------------------------------------------------------------------------- values to bytes


def _of_none(value: None) -> bytes:
    return _NONE


def _of_bool(value: bool) -> bytes:
    return _TRUE if value else _FALSE


def _of_int(value: int) -> bytes:
    if value >= 0:
        size = (value.bit_length() + 7) // 8
        if size <= _INLINE_BYTES_MAX:
            return bytes([_INTEGER + size]) + value.to_bytes(size, "big")
        return bytes([_INTEGER + _INLINE_BYTES_MAX + 1]) + _length_of(value, size) + value.to_bytes(size, "big")
    positive = -value
    size = (positive.bit_length() + 7) // 8
    body = positive.to_bytes(size, "big").translate(_INVERT)
    if size <= _INLINE_BYTES_MAX:
        return bytes([_INTEGER - size]) + body
    return bytes([_INTEGER - _INLINE_BYTES_MAX - 1]) + _length_of(value, size).translate(_INVERT) + body


def _length_of(value: int, size: int) -> bytes:
    if size >= 256**_LENGTH_BYTES:
        raise InvalidArgument(f"An integer of {size:,} bytes cannot be part of a key or an index. Nothing was changed.")
    return size.to_bytes(_LENGTH_BYTES, "big")


def _of_float(value: float) -> bytes:
    if value != value:
        raise _refuse(value, "it has no place in any order")
    body = _pack_double(value + 0.0)  # -0.0 + 0.0 is 0.0
    if body[0] & 0x80:
        return _FLOAT + body.translate(_INVERT)
    return _FLOAT + bytes([body[0] | 0x80]) + body[1:]


_DECIMAL_SIGNS: Final = {"-Infinity": b"\x00", "Infinity": b"\x04"}
_NEGATIVE, _ZERO, _POSITIVE = b"\x01", b"\x02", b"\x03"


def _of_decimal(value: Decimal) -> bytes:
    if value.is_nan():
        raise _refuse(value, "it has no place in any order")
    if value.is_infinite():
        return _DECIMAL + _DECIMAL_SIGNS[str(value)]
    if not value:
        return _DECIMAL + _ZERO
    sign, digits, _ = value.as_tuple()
    text = "".join(map(str, digits)).lstrip("0").rstrip("0")
    if len(text) % 2:
        text += "0"
    pairs = bytes(int(text[start : start + 2]) + 1 for start in range(0, len(text), 2))
    body = _of_int(value.adjusted()) + pairs + b"\x00"
    return _DECIMAL + (_NEGATIVE + body.translate(_INVERT) if sign else _POSITIVE + body)


def _of_text(value: str) -> bytes:
    # A lone surrogate cannot be stored, but asking for one must not fail: its place is that of its code point.
    body = value.encode("utf-8", "surrogatepass")
    if 0 in body:
        body = body.replace(b"\x00", _ESCAPED)
    return _TEXT + body + _END


def _of_bytes(value: bytes | bytearray | memoryview) -> bytes:
    return _BYTES + bytes(value).replace(b"\x00", _ESCAPED) + _END


def _of_date(value: datetime.date) -> bytes:
    return _DATE + value.toordinal().to_bytes(3, "big")


def _of_datetime(value: datetime.datetime) -> bytes:
    number = (
        value.toordinal() * _DAY_US
        + (value.hour * 3600 + value.minute * 60 + value.second) * 1_000_000
        + value.microsecond
        + _MOMENT_BIAS
    )
    offset = value.utcoffset()
    if offset is None:
        return _NAIVE + _pack_unsigned(number)
    return _AWARE + _pack_unsigned(number - _microseconds(offset))


def _of_time(value: datetime.time) -> bytes:
    if value.tzinfo is not None:
        raise _refuse(value, "a time of day with a time zone has no order without its date")
    seconds = value.hour * 3600 + value.minute * 60 + value.second
    return _TIME + (seconds * 1_000_000 + value.microsecond).to_bytes(5, "big")


def _of_timedelta(value: datetime.timedelta) -> bytes:
    return _DURATION + _of_int(_microseconds(value))


def _microseconds(value: datetime.timedelta) -> int:
    return (value.days * 86_400 + value.seconds) * 1_000_000 + value.microseconds


def _of_uuid(value: UUID) -> bytes:
    return _UUID + value.bytes


_ENCODERS: Final[dict[type, Callable[[Any], bytes]]] = {
    type(None): _of_none,
    bool: _of_bool,
    int: _of_int,
    float: _of_float,
    Decimal: _of_decimal,
    str: _of_text,
    bytes: _of_bytes,
    bytearray: _of_bytes,
    memoryview: _of_bytes,
    datetime.datetime: _of_datetime,
    datetime.date: _of_date,
    datetime.time: _of_time,
    datetime.timedelta: _of_timedelta,
    UUID: _of_uuid,
}
"""By exact type; a subclass (a member of ``TextChoices``, a ``SafeString``) goes by the first base that is here."""


def ordered(value: Any) -> bytes:
    """The bytes of a value.

    Arguments:
        value: None, bool, int, float, Decimal, text, bytes, date, datetime, time, timedelta or UUID.
    Returns:
        At least one byte.
    Raises:
        InvalidArgument: there is no order for it (a list, NaN, a time of day with a time zone).
    """
    encode = _ENCODERS.get(type(value))
    if encode is None:
        for base in type(value).__mro__:
            if base in _ENCODERS:
                return _ENCODERS[base](value)
        raise _refuse(value, f"there is no order for a {type(value).__name__}")
    return encode(value)


def ordered_all(values: Iterable[Any]) -> bytes:
    """The bytes of several values: they sort as the tuple of the values does."""
    return b"".join([ordered(value) for value in values])


def ordered_beginning(value: str | bytes) -> bytes:
    """What the bytes of every text (or bytes) that starts with ``value`` start with."""
    return ordered(value)[: -len(_END)]


# ------------------------------------------------------------------------------------------------- bytes to values


def _to_int(data: bytes, position: int) -> tuple[int, int]:
    size = data[position] - _INTEGER
    position += 1
    is_negative, size = size < 0, abs(size)
    if size > _INLINE_BYTES_MAX:
        length = data[position : position + _LENGTH_BYTES]
        size = int.from_bytes(length.translate(_INVERT) if is_negative else length, "big")
        position += _LENGTH_BYTES
    body = data[position : position + size]
    if is_negative:
        return -int.from_bytes(body.translate(_INVERT), "big"), position + size
    return int.from_bytes(body, "big"), position + size


def _to_float(data: bytes, position: int) -> tuple[float, int]:
    body = data[position + 1 : position + 9]
    body = bytes([body[0] & 0x7F]) + body[1:] if body[0] & 0x80 else body.translate(_INVERT)
    (number,) = struct.unpack(">d", body)
    return number, position + 9


def _to_decimal(data: bytes, position: int) -> tuple[Decimal, int]:
    sign = data[position + 1 : position + 2]
    position += 2
    for text, mark in _DECIMAL_SIGNS.items():
        if sign == mark:
            return Decimal(text), position
    if sign == _ZERO:
        return Decimal(0), position
    is_negative = sign == _NEGATIVE
    # The exponent's bytes say how long they are, so they are read from the inverted rest.
    rest = data[position:].translate(_INVERT) if is_negative else data[position:]
    adjusted, start = _to_int(rest, 0)
    end = rest.index(0, start)
    digits = "".join(f"{pair - 1:02}" for pair in rest[start:end]).rstrip("0")
    return Decimal((int(is_negative), tuple(map(int, digits)), adjusted - len(digits) + 1)), position + end + 1


def _to_body(data: bytes, position: int) -> tuple[bytes, int]:
    end = position + 1
    while True:
        end = data.index(0, end)
        if data[end + 1] == _END[1]:
            return data[position + 1 : end].replace(_ESCAPED, b"\x00"), end + len(_END)
        end += len(_ESCAPED)


def _to_text(data: bytes, position: int) -> tuple[str, int]:
    body, end = _to_body(data, position)
    return body.decode("utf-8", "surrogatepass"), end


def _to_date(data: bytes, position: int) -> tuple[datetime.date, int]:
    return datetime.date.fromordinal(int.from_bytes(data[position + 1 : position + 4], "big")), position + 4


def _moment(number: int) -> datetime.datetime:
    """The naive datetime of so many microseconds."""
    days, rest = divmod(number, _DAY_US)
    return datetime.datetime.fromordinal(days) + datetime.timedelta(microseconds=rest)


_FIRST_US: Final = _DAY_US
_LAST_US: Final = (datetime.date.max.toordinal() + 1) * _DAY_US - 1
_EDGE: Final = datetime.timedelta(hours=23, minutes=59)


def _to_naive(data: bytes, position: int) -> tuple[datetime.datetime, int]:
    return _moment(int.from_bytes(data[position + 1 : position + 9], "big") - _MOMENT_BIAS), position + 9


def _to_aware(data: bytes, position: int) -> tuple[datetime.datetime, int]:
    number = int.from_bytes(data[position + 1 : position + 9], "big") - _MOMENT_BIAS
    zone, shift = datetime.UTC, 0
    if not _FIRST_US <= number <= _LAST_US:  # before the year 1 or after 9999 in UTC: some other zone has a date for it
        offset = _EDGE if number < _FIRST_US else -_EDGE
        zone, shift = datetime.timezone(offset), _microseconds(offset)
    return _moment(number + shift).replace(tzinfo=zone), position + 9


def _to_time(data: bytes, position: int) -> tuple[datetime.time, int]:
    seconds, microsecond = divmod(int.from_bytes(data[position + 1 : position + 6], "big"), 1_000_000)
    minutes, second = divmod(seconds, 60)
    return datetime.time(minutes // 60, minutes % 60, second, microsecond), position + 6


def _to_timedelta(data: bytes, position: int) -> tuple[datetime.timedelta, int]:
    number, end = _to_int(data, position + 1)
    return datetime.timedelta(microseconds=number), end


_INTEGER_MARKS: Final = range(_INTEGER - _INLINE_BYTES_MAX - 1, _INTEGER + _INLINE_BYTES_MAX + 2)
_DECODERS: Final[dict[int, Callable[[bytes, int], tuple[Any, int]]]] = {
    _NONE[0]: lambda data, position: (None, position + 1),
    _FALSE[0]: lambda data, position: (False, position + 1),
    _TRUE[0]: lambda data, position: (True, position + 1),
    **dict.fromkeys(_INTEGER_MARKS, _to_int),
    _FLOAT[0]: _to_float,
    _DECIMAL[0]: _to_decimal,
    _TEXT[0]: _to_text,
    _BYTES[0]: _to_body,
    _DATE[0]: _to_date,
    _NAIVE[0]: _to_naive,
    _AWARE[0]: _to_aware,
    _TIME[0]: _to_time,
    _DURATION[0]: _to_timedelta,
    _UUID[0]: lambda data, position: (UUID(bytes=data[position + 1 : position + 17]), position + 17),
}


def read_ordered(data: bytes, position: int = 0) -> tuple[Any, int]:
    """One value out of bytes.

    Arguments:
        data: what :func:`ordered_all` made, perhaps with something behind it.
        position: where the value begins.
    Returns:
        ``(value, position behind it)``. The value equals the one that was encoded; a datetime with a time zone is in UTC.
    Raises:
        InvalidArgument: there is no such value.
    """
    try:
        value, end = _DECODERS[data[position]](data, position)
    except (LookupError, ValueError, struct.error, OverflowError) as error:
        raise InvalidArgument(f"There is no ordered value at byte {position} of {data!r:.80}.") from error
    if end > len(data):
        raise InvalidArgument(f"There is no ordered value at byte {position} of {data!r:.80}: it is cut short.")
    return value, end


def read_ordered_all(data: bytes, count: int, position: int = 0) -> tuple[tuple[Any, ...], int]:
    """So many values out of bytes: ``(values, position behind them)``. See :func:`read_ordered`."""
    values = []
    for _ in range(count):
        value, position = read_ordered(data, position)
        values.append(value)
    return tuple(values), position

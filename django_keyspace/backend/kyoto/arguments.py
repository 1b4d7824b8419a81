"""What callers of kt's clients pass, checked and turned into arguments of operations.

Whatever is wrong is refused here, before anything is sent: "Nothing was changed" is true of every error of this file.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final

from django_keyspace.backend.kyoto.errors import in_kt_words
from django_keyspace.exceptions import InvalidArgument, InvalidKey, NumberOverflow
from django_keyspace.operations import (
    BATCH_OPERATIONS_MAX,
    DEADLINE_MS_MAX,
    INT64_MAX,
    INT64_MIN,
    KEY_BYTES_MAX,
    Expire,
    key_too_long,
)

NEVER_S: Final = 2**40 - 1
"""The deadline of a record that has none, as ``get_bulk_details`` reports it."""
TRY: Final = "try"
SET: Final = "set"


def encode_key(key: Any) -> bytes:
    """The bytes of a key: text as UTF-8, bytes as they are, anything else by its ``str()``.

    Raises:
        InvalidKey: it is None, empty, or text without a UTF-8 form. (KeyTooLong: it has more than 1,024 bytes.)
    """
    if type(key) is str:
        try:
            data = key.encode()
        except UnicodeEncodeError as error:
            raise InvalidKey(f"The key {key!r:.80} has no UTF-8 form: {error.reason}. Nothing was changed.") from None
    else:
        data = key if type(key) is bytes else _other_key(key)
    if not 0 < len(data) <= KEY_BYTES_MAX:
        raise key_too_long(len(data)) if data else InvalidKey("A key has at least one byte. Nothing was changed.")
    return data


def _other_key(key: Any) -> bytes:
    if key is None:
        raise MissingKeyArgument("A key cannot be None. Nothing was changed.")
    return bytes(key) if isinstance(key, bytearray | memoryview | bytes) else encode_key(str(key))


class MissingKeyArgument(InvalidKey, TypeError):
    """A key is None. (``TypeError``, as kt raises.)"""

    code = "invalid-key"


def encode_keys(keys: Iterable[Any]) -> list[bytes]:
    """What :func:`encode_key` makes of each key; without a call for each if all of them are text."""
    if not isinstance(keys, list):
        keys = list(keys)
    try:
        encoded: list[bytes] = list(map(str.encode, keys))
    except (TypeError, UnicodeEncodeError):
        return list(map(encode_key, keys))  # says which
    sizes = set(map(len, encoded))
    if sizes and not 0 < min(sizes) <= max(sizes) <= KEY_BYTES_MAX:
        return list(map(encode_key, keys))
    return encoded


def encode_prefix(name: str, prefix: Any) -> bytes:
    """The bytes of a prefix or of a start of a range: as a key, but it may be empty."""
    return b"" if prefix in ("", b"") else encode_key(prefix)


def chunks(items: list[Any], size: int = BATCH_OPERATIONS_MAX) -> Iterable[list[Any]]:
    """The items in lists that one operation takes."""
    return (items,) if len(items) <= size else (items[i : i + size] for i in range(0, len(items), size))


def check_database(database: Any, databases: int) -> int:
    """A database's number.

    Arguments:
        database: what the caller gave.
        databases: how many there are, as far as known.
    Raises:
        InvalidArgument: there is no such database. (Also kt's ProtocolError.)
    """
    if type(database) is not int or not 0 <= database < databases:
        raise in_kt_words(
            InvalidArgument(
                f"There is no database {database!r:.40}: they are numbered from 0 to {databases - 1}. Nothing was changed."
            )
        )
    return database


def _deadline(seconds: int) -> Expire:
    if abs(seconds) * 1000 > DEADLINE_MS_MAX:
        raise InvalidArgument(
            f"expire_time {seconds!r:.40} is beyond all calendars. Nothing was changed. None is never."
        )
    return seconds * 1000 if seconds > 0 else ("at", -seconds * 1000)


def expire_of_set(expire_time: Any) -> Expire:
    """The ``expire`` of an operation for ``set``, ``set_bulk`` and ``db[k] = (v, t)``.

    Arguments:
        expire_time: whole seconds from now; negative: that many seconds since the epoch; None or 0: never.
    Raises:
        InvalidArgument: it is not a whole number.
    """
    if not expire_time and type(expire_time) in (int, type(None)):
        return None
    if type(expire_time) is not int:
        raise InvalidArgument(
            f"expire_time must be a whole number of seconds or None, not {expire_time!r:.40}. Nothing was changed."
        )
    return _deadline(expire_time)


def expire_of_call(expire_time: Any) -> Expire:
    """The same for all other writes, where 0 means the end of this second, and fractions are cut off."""
    if expire_time is None:
        return None
    if isinstance(expire_time, float) and expire_time - expire_time == 0:
        expire_time = int(expire_time)
    if type(expire_time) is int and not expire_time:
        return 1000 - time.time_ns() // 1_000_000 % 1000
    return expire_of_set(expire_time)


def check_limit(name: str, number: Any) -> int | None:
    """How many results a caller wants at most: None, or a negative number as kt's own default, for all of them.

    Raises:
        InvalidArgument: it is not a whole number.
    """
    if number is None:
        return None
    if type(number) is not int:
        raise InvalidArgument(f"{name} must be a whole number or None, not {number!r:.40}. Nothing was changed.")
    return None if number < 0 else number


def check_positive(name: str, number: Any, least: int = 1) -> int:
    """A whole number that is not below ``least``.

    Raises:
        InvalidArgument: it is something else.
    """
    if type(number) is not int or number < least:
        raise InvalidArgument(
            f"{name} must be a whole number, {least} or more, not {number!r:.40}. Nothing was changed."
        )
    return number


def integer(name: str, number: Any) -> int:
    """A 64-bit integer from an int, a float (cut off, as kt does) or decimal text.

    Raises:
        InvalidArgument: it is none of these, or NaN.
        NumberOverflow: it is beyond 64 bits.
    """
    try:
        if isinstance(number, str | int | float):
            found = int(number)
            if not INT64_MIN <= found <= INT64_MAX:
                raise OverflowError
            return found
    except OverflowError:
        raise in_kt_words(
            NumberOverflow(f"{name} is beyond the signed 64-bit range: {number!r:.40}. Nothing was changed.")
        ) from None
    except ValueError:
        pass  # text that is no number, NaN
    raise InvalidArgument(f"{name} must be an integer, not {number!r:.40}. Nothing was changed.")


def real(name: str, number: Any) -> float:
    """A finite float from an int, a float or text.

    Raises:
        InvalidArgument: it is none of these, or NaN.
        NumberOverflow: it is infinite.
    """
    try:
        found = float(number) if isinstance(number, str | int | float) else None
    except OverflowError:
        found = float("inf")
    except ValueError:
        found = None
    if found is None or found != found:
        raise InvalidArgument(f"{name} must be a number, not {number!r:.40}. Nothing was changed.")
    if found - found != 0:
        raise in_kt_words(NumberOverflow(f"{name} is not finite: {number!r:.40}. Nothing was changed."))
    return found

"""The commands of ``TokyoTyrant.misc``: lists of bytes in, lists of bytes out, None for what failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from django_keyspace.backend.kyoto.arguments import encode_key
from django_keyspace.backend.kyoto.serializers import Serializer, stored_form
from django_keyspace.exceptions import InvalidArgument, WrongType
from django_keyspace.operations import Value
from django_keyspace.store.record import Tag

if TYPE_CHECKING:
    from django_keyspace.backend.kyoto.tyrant import TokyoTyrant

Answer = list[bytes] | None
Command = Callable[["TokyoTyrant", Sequence[bytes]], Answer]


def _value(payload: bytes) -> Value:
    """The record of bytes that come without a type: text if they are UTF-8."""
    try:
        payload.decode()
    except UnicodeDecodeError:
        return int(Tag.BYTES), 0, payload
    return int(Tag.TEXT), 0, payload


def _stored(client: TokyoTyrant, value: bytes) -> Value:
    serializer = client._serializer
    if serializer.tag in (Tag.JSON, Tag.MSGPACK):
        return serializer.encode_stored(value)
    return _value(serializer.checked(value))


def _pairs(arguments: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    if len(arguments) % 2:
        raise InvalidArgument("There is a key without a value. Nothing was changed.")
    return list(zip(map(encode_key, arguments[::2]), arguments[1::2], strict=True))


def _number(arguments: Sequence[bytes], position: int, default: int) -> int:
    if len(arguments) <= position or not arguments[position]:
        return default
    try:
        return int(arguments[position])
    except ValueError:
        raise InvalidArgument(f"{arguments[position]!r:.40} is not a whole number. Nothing was changed.") from None


def _rows(client: TokyoTyrant, records: list[tuple[bytes, bytes]]) -> list[bytes]:
    limit_bytes = client._serializer.limit_bytes
    return [part for key, record in records for part in (key, stored_form(record, limit_bytes)[1])]


def _get(client: TokyoTyrant, arguments: Sequence[bytes]) -> Answer:
    stored = client._get_bytes(client._default_db, arguments[0])
    return None if stored is None else [stored]


def _put(presence: str) -> Command:
    def put(client: TokyoTyrant, arguments: Sequence[bytes]) -> Answer:
        ((key, value),) = _pairs(arguments[:2])
        return [] if client._set(client._default_db, key, _stored(client, value), None, presence) else None

    return put


def _put_cat(client: TokyoTyrant, arguments: Sequence[bytes]) -> Answer:
    for key, value in _pairs(arguments):
        try:
            client._append(client._default_db, key, _stored(client, value), None)
        except WrongType:
            return None
    return []


def _put_list(client: TokyoTyrant, arguments: Sequence[bytes]) -> Answer:
    pairs = [(key, _stored(client, value)) for key, value in _pairs(arguments)]
    if pairs:
        client._tell("set_many", client._default_db, pairs, None)
    return []


def _out(client: TokyoTyrant, arguments: Sequence[bytes]) -> Answer:
    return [] if client.remove(arguments[0]) else None


def _out_list(client: TokyoTyrant, arguments: Sequence[bytes]) -> Answer:
    client._remove_bulk(client._default_db, list(arguments))
    return []


def _get_list(client: TokyoTyrant, arguments: Sequence[bytes]) -> Answer:
    keys = list(map(encode_key, arguments))
    records = client._get_records(client._default_db, keys)
    return _rows(client, [(key, record) for key, record in zip(keys, records, strict=True) if record is not None])


def _get_part(client: TokyoTyrant, arguments: Sequence[bytes]) -> Answer:
    stored = client._get_bytes(client._default_db, arguments[0])
    start, length = max(_number(arguments, 1, 0), 0), _number(arguments, 2, -1)
    if stored is None or start >= len(stored):
        return None
    return [stored[start:] if length < 0 else stored[start : start + length]]


def _range(client: TokyoTyrant, arguments: Sequence[bytes]) -> Answer:
    start = arguments[0] if arguments else b""
    limit = _number(arguments, 1, -1)
    stop = arguments[2] if len(arguments) > 2 else None
    rows: list[tuple[bytes, bytes]] = []
    pages = client._pages(client._default_db, start=start, limit=limit if limit > 0 else None, with_values=True)
    for page in pages:
        inside = [(key, record) for key, record in page if stop is None or key < stop]
        rows += inside
        if len(inside) < len(page):
            break
    return _rows(client, rows)


def _regex(client: TokyoTyrant, arguments: Sequence[bytes]) -> Answer:
    from django_keyspace.backend.search import regex_steps

    limit = _number(arguments, 1, -1)
    keys = client._steps(regex_steps(client._default_db, b"", arguments[0], None if limit < 0 else limit))
    return _get_list(client, keys)


def _vanish(client: TokyoTyrant, arguments: Sequence[bytes]) -> Answer:
    client.clear()
    return []


def _nothing(client: TokyoTyrant, arguments: Sequence[bytes]) -> Answer:
    return []


_COMMANDS: Final[dict[str, tuple[Command, int]]] = {
    "get": (_get, 1),
    "put": (_put("always"), 2),
    "putkeep": (_put("absent"), 2),
    "putcat": (_put_cat, 2),
    "putlist": (_put_list, 0),
    "out": (_out, 1),
    "outlist": (_out_list, 0),
    "getlist": (_get_list, 0),
    "getpart": (_get_part, 1),
    "range": (_range, 0),
    "regex": (_regex, 1),
    "vanish": (_vanish, 0),
    "optimize": (_nothing, 0),
    "sync": (_nothing, 0),
}
"""Each command with its function and the number of arguments that it needs."""

COMMANDS: Final = frozenset(_COMMANDS)
"""The names of the commands."""
_WITH_KEYS: Final = frozenset({"getlist", "range", "regex"})


def run(client: TokyoTyrant, name: str, arguments: Sequence[bytes]) -> Answer:
    """Run a command.

    Arguments:
        client: whose database it works on.
        name: the command.
        arguments: what it gets.
    Returns:
        Its answer, None if it failed or is not known.
    Raises:
        InvalidArgument: there are not enough arguments, or they make no sense.
    """
    if name not in _COMMANDS:
        return None
    command, least = _COMMANDS[name]
    if len(arguments) < least:
        raise InvalidArgument(f"misc({name!r}) needs {least} arguments, and got {len(arguments)}. Nothing was changed.")
    return command(client, arguments)


def decoded(serializer: Serializer, name: str, answer: Sequence[bytes]) -> list[Any]:
    """An answer with its values deserialized; keys are left as bytes."""
    values = range(1, len(answer), 2) if name in _WITH_KEYS else range(len(answer))
    return [serializer.loaded(part) if index in values else part for index, part in enumerate(answer)]

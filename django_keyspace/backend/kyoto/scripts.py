"""Lua functions as kt's clients call them. What runs them is ``store/scripting``; here is what goes in and comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from django_keyspace.backend.kyoto.errors import ScriptError, in_kt_words
from django_keyspace.backend.kyoto.serializers import KT_JSON, KT_MSGPACK, KT_PICKLE, Serializer
from django_keyspace.exceptions import CannotSerialize, InvalidArgument, KeyspaceError, WrongType

if TYPE_CHECKING:
    from django_keyspace.backend.kyoto.client import Client
    from django_keyspace.backend.kyoto.tycoon import KyotoTycoon


class Lua:
    """``client.lua.name(a=1)`` is ``client.script("name", a=1)``.

    Arguments:
        client: what calls the functions.
    """

    def __init__(self, client: KyotoTycoon) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., dict[str, Any]]:
        if name.startswith("__"):
            raise AttributeError(name)

        def function(data: Mapping[str, Any] | None = None, /, **kwargs: Any) -> dict[str, Any]:
            return self._client.script(name, data, **kwargs)

        function.__name__ = name
        return function


def _tag_of(serializer: Serializer) -> int:
    """The tag of what a script writes. Never that of pickles: nobody has signed it."""
    return serializer.tag if serializer.name in (KT_JSON, KT_MSGPACK) else 0


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise InvalidArgument(f"The name of a function must be text, not {name!r:.80}. Nothing was changed.")
    return name


def _dumped(serializer: Serializer, value: Any) -> bytes:
    if serializer.name == KT_PICKLE and type(value) not in (str, bytes, int, float):
        raise CannotSerialize(
            f"A script cannot be given a pickled {type(value).__name__}. Nothing was changed. Give it text, bytes or a "
            "number, or use a client with KT_JSON."
        )
    return serializer.checked(serializer.dumped(value))


def _raw(value: Any) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if value is None:
        raise CannotSerialize("An argument of a script cannot be None. Nothing was changed.")
    return str(value).encode(errors="surrogatepass")


def plain_argument(serializer: Serializer, value: Any, encode_value: bool) -> bytes:
    """The bytes of a value that a function of Tokyo Tyrant's kind gets; none for None."""
    if value is None:
        return b""
    return _dumped(serializer, value) if encode_value else _raw(value)


def plain(answer: Any) -> bytes:
    """What Lua's ``tostring`` makes of a value that came out of a script."""
    if isinstance(answer, bytes):
        return answer
    if isinstance(answer, bool):
        return b"true" if answer else b"false"
    if isinstance(answer, float):
        return b"%.14g" % answer
    if isinstance(answer, int):
        return b"%d" % answer
    raise _not_an_answer(f"has a {type(answer).__name__} where there has to be text or a number")


def _not_an_answer(what: str) -> WrongType:
    return WrongType(f"What the function returned {what}. What it has written stays written.")


def _called(client: Client, database: int, name: str, arguments: Any, library: str) -> Any:
    from django_keyspace.store.scripting import script_call, script_result

    tag = _tag_of(client._serializer)
    call = script_call(database, _name(name), arguments, prefix=b"", sources=(), library=library, tag=tag, flags=0)
    return script_result(client._engine.execute(*call), text=False)


def run_kyoto(client: KyotoTycoon, name: str, data: dict[str, Any], encode_values: bool) -> dict[str, Any]:
    """``KyotoTycoon.script``: see there."""
    db = data.pop("db", None)
    database = client._database(int(db) if isinstance(db, str) and db.isdecimal() else db)
    serializer = client._serializer
    encode: Callable[[Any], bytes] = (lambda value: _dumped(serializer, value)) if encode_values else _raw
    arguments = {str(key): encode(value) for key, value in data.items()}
    try:
        answer = _called(client, database, name, arguments, "kyoto")
        if isinstance(answer, list):  # a table with the keys 1 to n
            answer = {b"%d" % number: item for number, item in enumerate(answer, 1)}
        if not isinstance(answer, dict | None):
            raise _not_an_answer(f"is a {type(answer).__name__}, and not a table")
        results = {key.decode(errors="surrogateescape"): plain(value) for key, value in _named(answer).items()}
    except KeyspaceError as error:
        raise in_kt_words(error) from error.__cause__
    if not encode_values:
        return dict(results)
    load = bytes.decode if serializer.name == KT_PICKLE else serializer.loaded
    return {key: load(value) for key, value in results.items()}


def _named(answer: dict[Any, Any] | None) -> dict[bytes, Any]:
    return {plain(key.encode() if isinstance(key, str) else key): value for key, value in (answer or {}).items()}


def run_tokyo(client: Client, database: int, name: str, key: Any, value: bytes) -> bytes:
    """A function of Tokyo Tyrant's kind: a key and a value in, bytes out. Raises :class:`ScriptError`."""
    try:
        answer = _called(client, database, name, [key, value], "tokyo")
        if answer is None:
            raise _not_an_answer("is nothing")
        return plain(answer)
    except KeyspaceError as error:
        raise in_kt_words(error, ScriptError) from error.__cause__


def as_integer(answer: bytes) -> int | None:
    """The integer in a script's answer; None if it is empty. Raises :class:`ScriptError`."""
    try:
        return int(answer) if answer else None
    except ValueError:
        raise in_kt_words(_not_an_answer(f"is {answer!r:.40}, and not an integer"), ScriptError) from None

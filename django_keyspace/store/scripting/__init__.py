"""Lua scripts beside a store: they run in a process of their own, on a snapshot, and what they write is one ``atomic``.

``runner.py`` is the way of a call; ``worker.py`` and ``lua/`` are what runs in the other process, ``pool.py`` keeps such
processes; ``database.py`` and ``view.py`` are what a script sees; ``library/`` are the functions that come with the package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django_keyspace.exceptions import InvalidArgument
from django_keyspace.operations import Call
from django_keyspace.store.scripting.runner import TIME_MS_DEFAULT, ScriptRunner
from django_keyspace.store.scripting.sources import Source, read_sources
from django_keyspace.store.scripting.values import decode, encode

__all__ = ["TIME_MS_DEFAULT", "ScriptRunner", "Source", "read_sources", "script_call", "script_result"]


def script_call(
    database: int,
    function: str,
    arguments: Mapping[Any, Any] | Sequence[Any] | None = None,
    *,
    prefix: bytes = b"",
    sources: Sequence[Source] = (),
    library: str = "kyoto",
    tag: int = 0,
    flags: int = 0,
    time_ms: int = 0,
) -> Call:
    """The operation ``script``.

    Arguments:
        database: number of the database that ``db`` stands for.
        function: name of the Lua function; empty: only load the sources, and answer the names of the last one's functions.
        arguments: a mapping, which the function gets as one table; or a sequence, which it gets one by one.
        prefix: what stands before each key that the script names.
        sources: Lua to load before the function is looked for.
        library: where the function is looked for at last: ``kyoto`` or ``tokyo``.
        tag: of the records of strings that the script writes; 0: text if it is UTF-8, otherwise bytes.
        flags: of the records that it makes.
        time_ms: how long it may take; 0: :data:`TIME_MS_DEFAULT`.
    Raises:
        InvalidArgument: Lua has no value for an argument.
    """
    if isinstance(arguments, str | bytes):
        raise InvalidArgument("A script's arguments are a mapping or a list, not a text. Nothing was changed.")
    given: Any = {} if arguments is None else dict(arguments) if isinstance(arguments, Mapping) else list(arguments)
    encoded = encode(given)
    return ("script", database, prefix, list(sources), library, function, encoded, tag, flags, time_ms)


def script_result(answer: bytes, *, text: bool = True) -> Any:
    """The result of the operation ``script``.

    Arguments:
        answer: what the operation has answered.
        text: whether strings that are UTF-8 become str; all of them are bytes otherwise.
    """
    return decode(answer, text=text)

"""The documented names, arguments and defaults are those of kt's documentation."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from django_keyspace.kyoto import KT_BINARY, EmbeddedServer, EmbeddedTokyoTyrantServer, KyotoTycoon, TokyoTyrant

_WRITE = {"key": ..., "value": ..., "db": None, "expire_time": None}

KYOTO: dict[str, dict[str, Any] | None] = {
    "checkin": {},
    "close": {},
    "get": {"key": ..., "db": None},
    "set": _WRITE,
    "remove": {"key": ..., "db": None},
    "get_bulk": {"keys": ..., "db": None},
    "set_bulk": {"data": None, "db": None, "expire_time": None, "kwargs": ...},
    "remove_bulk": {"keys": ..., "db": None},
    "script": {"name": ..., "data": None, "encode_values": True, "kwargs": ...},
    "clear": {"db": None},
    "status": {"db": None},
    "report": {},
    "add": _WRITE,
    "replace": _WRITE,
    "append": _WRITE,
    "exists": {"key": ..., "db": None},
    "seize": {"key": ..., "db": None},
    "cas": {"key": ..., "old_val": ..., "new_val": ..., "db": None, "expire_time": None},
    "incr": {"key": ..., "n": 1, "orig": None, "db": None, "expire_time": None},
    "incr_double": {"key": ..., "n": 1.0, "orig": None, "db": None, "expire_time": None},
    "__getitem__": {"key_or_keydb": ...},
    "__setitem__": {"key_or_keydb": ..., "value_or_valueexpire": ...},
    "__delitem__": {"key_or_keydb": ...},
    "__contains__": {"key_or_keydb": ...},
    "__len__": {},
    "update": {"data": None, "db": None, "expire_time": None, "kwargs": ...},
    "pop": {"key": ..., "db": None},
    "match_prefix": {"prefix": ..., "max_keys": None, "db": None},
    "match_regex": {"regex": ..., "max_keys": None, "db": None},
    "match_similar": {"origin": ..., "distance": None, "max_keys": None, "db": None},
    "keys": {"db": None},
    "size": None,
    "path": None,
    "set_database": {"db": ...},
}
"""Arguments with their defaults; ``...`` for one without, None for a property."""

TOKYO: dict[str, dict[str, Any] | None] = {
    "checkin": {},
    "close": {},
    "get": {"key": ...},
    "set": {"key": ..., "value": ...},
    "remove": {"key": ...},
    "get_bulk": {"keys": ...},
    "set_bulk": {"data": None, "kwargs": ...},
    "remove_bulk": {"keys": ...},
    "script": {"name": ..., "key": None, "value": None},
    "clear": {},
    "status": {},
    "add": {"key": ..., "value": ...},
    "append": {"key": ..., "value": ...},
    "get_part": {"key": ..., "start": None, "end": None},
    "exists": {"key": ...},
    "incr": {"key": ..., "n": 1},
    "incr_double": {"key": ..., "n": 1.0},
    "misc": {"cmd": ..., "keys": None, "data": None},
    "__getitem__": {"key": ...},
    "__setitem__": {"key": ..., "value": ...},
    "__delitem__": {"key": ...},
    "__contains__": {"key": ...},
    "__len__": {},
    "update": {"data": None, "db": None, "expire_time": None, "kwargs": ...},
    "size": None,
    "error": None,
    "get_range": {"start": ..., "stop": None, "max_keys": 0},
    "match_prefix": {"prefix": ..., "max_keys": 1024},
    "match_regex": {"regex": ..., "max_keys": 1024},
    "iter_from": {"start_key": ...},
    "keys": {},
}

DOCUMENTED = {"db": KYOTO, "tt": TOKYO}

_CLIENT = {"host": "127.0.0.1", "port": 1978, "serializer": KT_BINARY, "decode_keys": True, "timeout": None}
_SERVER = {"host": "127.0.0.1", "port": None, "database": "*", "server_args": None}

CONSTRUCTORS: dict[type, dict[str, Any]] = {
    KyotoTycoon: {**_CLIENT, "default_db": 0},
    TokyoTyrant: {**_CLIENT, "default_db": 0},
    EmbeddedServer: {"server": "ktserver", **_SERVER},
    EmbeddedTokyoTyrantServer: {"server": "ttserver", **_SERVER},
}


def arguments_of(function: Any) -> dict[str, Any]:
    parameters = list(inspect.signature(function).parameters.values())[1:]
    return {p.name: ... if p.default is p.empty else p.default for p in parameters}


def check(function: Any, documented: dict[str, Any]) -> None:
    """The documented arguments come first, in their order; what we have beyond has a default."""
    named = {name: default for name, default in documented.items() if name != "kwargs"}
    found = arguments_of(function)
    assert dict(list(found.items())[: len(named)]) == named
    assert list(found)[: len(named)] == list(named)
    beyond = {name: found[name] for name in list(found)[len(named) :]}
    starred = {p.name for p in inspect.signature(function).parameters.values() if p.kind is p.VAR_KEYWORD}
    assert ("kwargs" in documented) <= bool(starred)
    assert all(default is not ... for name, default in beyond.items() if name not in starred)


@pytest.mark.parametrize(
    ("cls", "name"),
    [(cls, name) for cls, names in ((KyotoTycoon, KYOTO), (TokyoTyrant, TOKYO)) for name in names],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_method(cls: type, name: str) -> None:
    documented = (KYOTO if cls is KyotoTycoon else TOKYO)[name]
    found = inspect.getattr_static(cls, name)
    assert inspect.getdoc(getattr(cls, name))
    if documented is None:
        assert isinstance(found, property)
    else:
        check(found, documented)


@pytest.mark.parametrize("cls", CONSTRUCTORS, ids=lambda cls: cls.__name__)
def test_constructor(cls: type) -> None:
    check(cls.__init__, CONSTRUCTORS[cls])  # type: ignore[misc]


@pytest.mark.parametrize("cls", [EmbeddedServer, EmbeddedTokyoTyrantServer])
def test_server(cls: type) -> None:
    assert arguments_of(cls.run) == {} and arguments_of(cls.stop) == {}  # type: ignore[attr-defined]
    assert isinstance(inspect.getattr_static(cls, "client"), property)
    assert isinstance(inspect.getattr_static(cls, "pid"), property)

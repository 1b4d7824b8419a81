"""Every row of the table of expectations, over every engine."""

from __future__ import annotations

import ast
import time
from collections.abc import Callable
from typing import Any

import pytest

from django_keyspace.exceptions import KeyspaceError
from tests.contract.engines import Place
from tests.contract.records import await_condition
from tests.kyoto.expectations import DEAD, EXPECTATIONS, Row

pytestmark = pytest.mark.contract


@pytest.fixture
def place(emptied_place: Place) -> Place:
    """One place per engine for the whole table."""
    return emptied_place


def name_of(row: Row) -> str:
    return row.name[:90]


class Names(dict[str, Any]):
    """The names of a row's expressions: a client is made when it is first used."""

    def __init__(self, options: dict[str, Any], makers: dict[str, Callable[..., Any]]) -> None:
        super().__init__(time=time)
        self._options = options
        self._makers = makers

    def __missing__(self, name: str) -> Any:
        if name not in self._makers:
            raise KeyError(name)
        self[name] = self._makers[name](**self._options)
        return self[name]


def check(row: Row, names: Names) -> None:
    exec(row.before, {}, names)
    if isinstance(row.answer, type) and issubclass(row.answer, Exception):
        with pytest.raises(row.answer) as raised:
            eval(row.call, {}, names)
        assert isinstance(raised.value, KeyspaceError)
    else:
        answer = eval(row.call, {}, names)
        assert answer == row.answer and type(answer) is type(row.answer)
        if isinstance(answer, dict):
            assert list(answer) == list(row.answer)
    for expression in row.after:
        assert eval(expression, {}, names), expression


@pytest.mark.parametrize("row", EXPECTATIONS, ids=name_of)
def test_row(row: Row, tycoon: Callable[..., Any], tyrant: Callable[..., Any]) -> None:
    check(row, Names(row.options, {"db": tycoon, "tt": tyrant}))


@pytest.mark.parametrize("row", DEAD, ids=name_of)
def test_expired_key(row: Row, tycoon: Callable[..., Any], tyrant: Callable[..., Any]) -> None:
    """The record lies in the store still, and nobody may see it."""
    names = Names(row.options, {"db": tycoon, "tt": tyrant})
    client = names["db"]
    expire = (1, 0, b"v")
    client._tell("set", 0, b"k", expire, 1, "always")
    await_condition(lambda: client.get("k") is None)
    check(row, names)


def methods_called(row: Row) -> set[str]:
    """Names of the clients' methods in a row's call, with the special ones that operators stand for."""
    found = set()
    for node in ast.walk(ast.parse(row.call)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.add(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
            found.add(f"{node.value.id}.__getitem__")
        elif (
            isinstance(node, ast.Compare)
            and isinstance(node.ops[0], ast.In)
            and isinstance(node.comparators[0], ast.Name)
        ):
            found.add(f"{node.comparators[0].id}.__contains__")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "len":
            found |= {f"{argument.id}.__len__" for argument in node.args if isinstance(argument, ast.Name)}
    return found


ELSEWHERE = {"script"}
"""Documented methods whose rows are in another table."""


@pytest.mark.parametrize("client", ["db", "tt"])
def test_every_documented_method_has_rows(client: str) -> None:
    from tests.kyoto.test_signatures import DOCUMENTED

    called = {name.partition(".")[2] for row in EXPECTATIONS for name in methods_called(row) if name.startswith(client)}
    special = {"__setitem__", "__delitem__"}
    written = {name for row in EXPECTATIONS for name in special if f"{client}.{name}" in row.call}
    assert set(DOCUMENTED[client]) - ELSEWHERE - called - written == set()

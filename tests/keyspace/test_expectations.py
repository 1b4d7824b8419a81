"""Every row of the table of expectations, on every engine."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any

import pytest

from django_keyspace import keyspace
from django_keyspace.backend.keyspace.results import Result
from django_keyspace.keyspace import Client, str_status
from django_keyspace.status import Status
from tests.contract.engines import Place
from tests.keyspace.expectations import EXPECTATIONS, UNCHANGED, Row

pytestmark = pytest.mark.contract


def contents(client: Client) -> dict[Any, Any]:
    found = client.list_key_values()
    assert found is not None
    return found


def fill(client: Client, given: Any) -> None:
    client.begin()
    for key, value in given.items():
        client.set(key, value)
    assert client.submit() == 0


@pytest.mark.parametrize("row", EXPECTATIONS, ids=lambda row: row.name.replace(" ", "-"))
def test_row(row: Row, client: Client) -> None:
    fill(client, row.given)
    result = client.result
    returned = row.call(client)
    assert returned == row.returns
    assert type(returned) is type(row.returns)
    if client.result is not result:  # calls about the client itself make no result
        assert str_status(client.result.command_status()) == str_status(row.status)  # type: ignore[union-attr]
    assert contents(client) == (row.given if row.after is UNCHANGED else row.after)


@pytest.mark.parametrize(
    "row",
    [row for row in EXPECTATIONS if row.returns is None and row.status == Status.FAILED],
    ids=lambda row: row.name,
)
def test_a_plain_no_is_no_outage(row: Row, client: Client) -> None:
    fill(client, row.given)
    row.call(client)
    result = client.result
    assert result is not None
    assert (result.transport_status(), result.connectivity_status(), result.timeout_status()) == (0, 0, 0)
    assert "Nothing was changed." in str(result.error)


@pytest.mark.parametrize(
    "row",
    [row for row in EXPECTATIONS if row.returns is None and row.status == Status.FAILED],
    ids=lambda row: row.name,
)
def test_errors_are_raised_where_that_was_asked_for(row: Row, make_client: Callable[..., Client]) -> None:
    client = make_client(raise_errors=True)
    fill(client, row.given)
    with pytest.raises(keyspace.KeyspaceError, match="Nothing was changed"):
        row.call(client)
    assert client.result is not None
    assert client.result.command_status() == row.status
    assert contents(client) == row.given


def _names(code: types.CodeType) -> set[str]:
    """All names that a function uses, those of functions within it included."""
    return set(code.co_names).union(*(_names(const) for const in code.co_consts if isinstance(const, types.CodeType)))


def _used() -> set[str]:
    from tests.keyspace import expectations

    code = compile(inspect.getsource(expectations), "expectations", "exec")
    return _names(code)


@pytest.mark.parametrize("cls", [Client, Result])
def test_every_method_has_a_row(cls: type) -> None:
    methods = {name for name, member in vars(cls).items() if callable(member) and not name.startswith("_")}
    inherited = {name for base in cls.__mro__ for name, member in vars(base).items() if inspect.isfunction(member)}
    assert {name for name in methods | inherited if not name.startswith("_")} - _used() - {
        "connectivity_status",
        "timeout_status",
    } == set()


_LISTING = ["prefix", "start_key", "count", "skip", "forward"]
_NAMES = ("list_keys", "list_key_values", "list_keyvalues", "count")
_LISTINGS = [f"{dirty}{name}" for dirty in ("", "dirty_") for name in _NAMES]
DOCUMENTED = {
    "set_global_timeout": ["timeout"],
    "set_master_timeout": ["timeout"],
    "set": ["key", "value"],
    "test_and_set": ["key", "test", "value"],
    "delete": ["key"],
    "remove": ["key"],
    "prune": ["prefix"],
    "get": ["key"],
    "dirty_get": ["key"],
    "begin": [],
    "submit": [],
    "cancel": [],
    **dict.fromkeys(_LISTINGS, _LISTING),
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_documented_arguments(name: str) -> None:
    signature = inspect.signature(getattr(Client, name))
    assert [*signature.parameters][1:] == DOCUMENTED[name]
    if "start_key" in signature.parameters:
        assert [parameter.default for parameter in signature.parameters.values()][1:] == ["", "", 0, False, True]


def test_constants_and_their_names() -> None:
    codes = {name: code for name, code in vars(keyspace).items() if name.startswith("KEYSPACE_")}
    assert codes == {
        "KEYSPACE_SUCCESS": 0,
        "KEYSPACE_API_ERROR": -1,
        "KEYSPACE_PARTIAL": -101,
        "KEYSPACE_FAILURE": -102,
        "KEYSPACE_NOMASTER": -201,
        "KEYSPACE_NOCONNECTION": -202,
        "KEYSPACE_MASTER_TIMEOUT": -301,
        "KEYSPACE_GLOBAL_TIMEOUT": -302,
        "KEYSPACE_NOSERVICE": -401,
        "KEYSPACE_FAILED": -402,
    }
    assert all(type(code) is int and str_status(code) == name for name, code in codes.items())
    assert [str_status(code) for code in (1, -2, 7)] == [None, None, None]


def test_before_the_first_call_there_is_no_result(client: Client) -> None:
    assert client.result is None
    assert (client.get_global_timeout(), client.get_master_timeout()) == (120_000, 21_000)


def test_keys_and_values_as_bytes(make_client: Callable[..., Client]) -> None:
    text, binary = make_client(), make_client(decode=False)
    assert [binary.set("k", "ä"), binary.get(b"k"), text.get("k")] == [0, "ä".encode(), "ä"]
    assert [binary.list_keys(), binary.list_key_values()] == [[b"k"], {b"k": "ä".encode()}]
    assert [binary.set("n", b"1"), binary.add("n", 1), binary.remove("n")] == [0, 2, b"2"]
    binary.begin()
    binary.get("k")
    assert binary.submit() == 0
    assert binary.result is not None
    assert binary.result.key_values() == {b"k": "ä".encode()}


def test_bytes_that_are_no_text_come_back_as_they_were(make_client: Callable[..., Client]) -> None:
    raw = bytes(range(256))
    text, binary = make_client(), make_client(decode=False)
    assert binary.set(b"\xff", raw) == 0
    escaped = text.get("\udcff")
    assert isinstance(escaped, str)
    assert [*(text.list_key_values() or {})] == ["\udcff"]
    assert text.set("copy", escaped) == 0
    assert binary.get("copy") == raw
    assert text.remove("\udcff") == escaped


def test_databases_are_apart(make_client: Callable[..., Client]) -> None:
    first, second = make_client(), make_client(database=3)
    first.set("k", "0")
    assert [second.get("k"), second.set("k", "3"), first.get("k"), second.get("k")] == [None, 0, "0", "3"]
    assert [second.set_expiry("k", 60), first.clear_expiries(), second.prune(""), first.get("k")] == [0, 0, 0, "0"]


def test_caches_see_the_same_values_and_numbers(client: Client, place: Place) -> None:
    cache = place.cache(params={"KEY_PREFIX": ""}, evictable=False)
    full = cache.make_key("k")
    client.set(full, "10")
    assert cache.get("k") == "10"
    assert cache.incr("k", 5) == 15
    assert (client.get(full), client.add(full, 1), cache.get("k")) == ("15", 16, 16)
    cache.set("k", 1.5)
    assert client.get(full) == "1.5"
    cache.set("k", "text")
    assert client.test_and_set(full, "text", "other") == "other"
    assert cache.get("k") == "other"
    cache.set("k", ["an", "object"])
    assert client.get(full) is None
    assert client.result is not None
    assert client.result.command_status() == Status.FAILED
    assert "serialized" in str(client.result.error)
    cache.set("k", "10")
    assert client.add(full, 1) is None  # text of a cache is text: see docs/keyspace-api.md


def test_a_cache_does_not_evict_or_clear_what_a_client_wrote(client: Client, place: Place) -> None:
    client.set("k", "v")
    place.cache().clear()
    assert client.get("k") == "v"

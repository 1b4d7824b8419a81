"""Bad input: None, API_ERROR and a clear sentence, and nothing is changed; or an error of the tree for a client that raises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from django_keyspace.exceptions import ConfigurationError, InvalidArgument
from django_keyspace.keyspace import Client
from django_keyspace.store import open_store
from tests.contract.engines import DATABASES, VALUE_BYTES_MAX

Call = Callable[[Client], Any]

LONG_KEY = "k" * 1_025
LONG_VALUE = "v" * (VALUE_BYTES_MAX + 1)
LONE_SURROGATE = "\ud800"
NOT_KEYS: list[Any] = [
    5,
    1.5,
    None,
    ["k"],
    object(),
    bytearray(b"k"),
    memoryview(b"k"),
    "",
    b"",
    LONG_KEY,
    LONE_SURROGATE,
]
NOT_VALUES: list[Any] = [5, 1.5, None, True, {"a": 1}, LONG_VALUE, LONG_VALUE.encode(), LONE_SURROGATE]
NOT_NUMBERS: list[Any] = [1.0, "1", None, True, 2**63, -(2**63) - 1, float("nan")]
NOT_SECONDS: list[Any] = ["60", None, True, float("nan"), float("inf"), 2**60, -(2**60)]
NOT_COUNTS: list[Any] = [-1, 1.0, "1", None, True, 2**63]
NOT_PREFIXES: list[Any] = [5, None, ["k"], LONG_KEY, LONE_SURROGATE]

BAD_CALLS: dict[str, tuple[list[Any], Callable[[Client, Any], Any]]] = {
    "set's key": (NOT_KEYS, lambda c, bad: c.set(bad, "v")),
    "set's value": (NOT_VALUES, lambda c, bad: c.set("n", bad)),
    "get's key": (NOT_KEYS, lambda c, bad: c.get(bad)),
    "dirty_get's key": (NOT_KEYS, lambda c, bad: c.dirty_get(bad)),
    "test_and_set's key": (NOT_KEYS, lambda c, bad: c.test_and_set(bad, "1", "v")),
    "test_and_set's test": ([5, None, LONE_SURROGATE], lambda c, bad: c.test_and_set("n", bad, "v")),
    "test_and_set's value": (NOT_VALUES, lambda c, bad: c.test_and_set("n", "1", bad)),
    "rename's old key": (NOT_KEYS, lambda c, bad: c.rename(bad, "n")),
    "rename's new key": (NOT_KEYS, lambda c, bad: c.rename("n", bad)),
    "add's key": (NOT_KEYS, lambda c, bad: c.add(bad, 1)),
    "add's number": (NOT_NUMBERS, lambda c, bad: c.add("n", bad)),
    "delete's key": (NOT_KEYS, lambda c, bad: c.delete(bad)),
    "remove's key": (NOT_KEYS, lambda c, bad: c.remove(bad)),
    "prune's prefix": (NOT_PREFIXES, lambda c, bad: c.prune(bad)),
    "set_expiry's key": (NOT_KEYS, lambda c, bad: c.set_expiry(bad, 60)),
    "set_expiry's seconds": (NOT_SECONDS, lambda c, bad: c.set_expiry("n", bad)),
    "remove_expiry's key": (NOT_KEYS, lambda c, bad: c.remove_expiry(bad)),
    "list_keys' prefix": (NOT_PREFIXES, lambda c, bad: c.list_keys(bad)),
    "list_keys' start_key": (NOT_PREFIXES, lambda c, bad: c.list_keys("n", bad)),
    "list_keys' count": (NOT_COUNTS, lambda c, bad: c.list_keys(count=bad)),
    "list_key_values' count": (NOT_COUNTS, lambda c, bad: c.list_key_values(count=bad)),
    "count's prefix": (NOT_PREFIXES, lambda c, bad: c.count(bad)),
    "count's count": (NOT_COUNTS, lambda c, bad: c.count(count=bad)),
    "set_global_timeout": ([0, -1, 1.5, "1", None, True, 10**12], lambda c, bad: c.set_global_timeout(bad)),
    "set_master_timeout": ([0, -1, 1.5, "1", None, True, 10**12], lambda c, bad: c.set_master_timeout(bad)),
}

GIVEN = {"n": "1"}


@pytest.mark.contract
@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_argument(name: str, make_client: Callable[..., Client]) -> None:
    client, raising = make_client(), make_client(raise_errors=True)
    client.set("n", "1")
    client.set_expiry("n", 1_000)
    timeouts = (client.get_global_timeout(), client.get_master_timeout())
    bad_ones, call = BAD_CALLS[name]
    for bad in bad_ones:
        assert call(client, bad) is None, bad
        result = client.result
        assert result is not None
        assert (result.command_status(), result.transport_status()) == (-1, -102), bad
        assert len(str(result.error)) > 30, bad
        with pytest.raises((InvalidArgument, ConfigurationError)):
            call(raising, bad)
        assert client.list_key_values() == GIVEN, bad
    assert timeouts == (client.get_global_timeout(), client.get_master_timeout())


@pytest.mark.contract
@pytest.mark.parametrize("name", [name for name in BAD_CALLS if "timeout" not in name])
def test_bad_argument_in_a_batch_leaves_the_batch_as_it_was(name: str, client: Client) -> None:
    bad_ones, call = BAD_CALLS[name]
    client.set("n", "1")
    client.begin()
    client.set("a", "1")
    for bad in bad_ones:
        assert call(client, bad) is None
        assert client.result is not None
        assert client.result.command_status() == -1
    client.set("b", "2")
    assert client.submit() == 0
    assert client.list_key_values() == {"a": "1", "b": "2", **GIVEN}


@pytest.mark.contract
def test_the_largest_key_and_value_that_are_taken(client: Client) -> None:
    key, value = "k" * 1_024, "v" * VALUE_BYTES_MAX
    assert [client.set(key, value), client.get(key), client.rename(key, "n"), client.remove("n")] == [
        0,
        value,
        0,
        value,
    ]
    assert client.set("ä" * 512, "") == 0
    assert client.set("ä" * 512 + "x", "") is None


@pytest.mark.contract
def test_arguments_are_counted_as_python_does(client: Client) -> None:
    for call in (
        lambda: client.set("k"),
        client.get,
        lambda: client.get("k", "l"),
        lambda: client.set(nokey=1),
    ):  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            call()
    assert client.set(key="k", value="v") == 0


BAD_NODES: list[Any] = [
    [],
    (),
    None,
    5,
    [5],
    [""],
    "",
    ["host:port"],
    ["host:0"],
    ["host:70000"],
    ["a:7080,b:7080"],
    ["keyspace://a:7080"],
    ["a:7080", "a:7080"],
    "127.0.0.1:7080",
    "redis://127.0.0.1/0",
    {"a:7080"},
]


@pytest.mark.parametrize("nodes", BAD_NODES, ids=repr)
def test_bad_nodes(nodes: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Client(nodes)
    assert len(str(caught.value)) > 40


@pytest.mark.contract
@pytest.mark.parametrize("database", [-1, DATABASES, 1.0, "0", None, True, 2**70])
def test_bad_database(database: Any, make_client: Callable[..., Client]) -> None:
    with pytest.raises(ConfigurationError, match="database"):
        make_client(database=database)


@pytest.mark.parametrize("options", [{"durability": "perhaps"}, {"databases": 0}, {"nonsense": 1}, {"max_bytes": "1"}])
def test_bad_options(options: dict[str, Any], store_folder: Path) -> None:
    with pytest.raises(ConfigurationError):
        Client(store_folder, **options)
    with pytest.raises(ConfigurationError):
        Client(["127.0.0.1:7080"], **options)


def test_a_folder_that_is_open_with_other_options(store_folder: Path) -> None:
    Client(store_folder, durability="interval").set("k", "v")
    with pytest.raises(ConfigurationError, match="different options"):
        Client(store_folder, durability="commit")
    assert Client(store_folder).get("k") == "v"  # as it is open


def test_a_folder_is_safe_in_a_power_cut_unless_said_otherwise(store_folder: Path) -> None:
    Client(store_folder).set("k", "v")
    assert open_store(store_folder).options.durability == "commit"


def test_a_folder_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    client = Client(tmp_path / "file" / "store")
    assert [client.set("k", "v"), client.get("k")] == [None, None]
    assert client.result is not None
    assert (client.result.command_status(), client.result.transport_status()) == (-401, -102)


def test_a_database_that_the_node_does_not_have(make_client: Callable[..., Client]) -> None:
    client = make_client(databases=DATABASES, database=DATABASES - 1)
    assert client.set("k", "v") == 0

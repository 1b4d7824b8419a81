"""Keyspace's expiry: it hangs on the name of a key. Each row: what is done, and which keys have how much time left then."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from django_keyspace.keyspace import Client
from tests.contract.engines import Place

pytestmark = pytest.mark.contract
MINUTE = 60_000
FOREVER = -1
GONE = None


@dataclass(frozen=True)
class Row:
    """One expectation about deadlines.

    Attributes:
        name: what it says.
        steps: what is done, in order; the key ``k`` is there before, without a deadline.
        left_ms: by key, the time left afterwards: FOREVER, GONE, or about so much.
    """

    name: str
    steps: tuple[Callable[[Client], Any], ...]
    left_ms: dict[str, int | None]


def expires(key: str = "k", seconds: float = 60) -> Callable[[Client], Any]:
    return lambda c: c.set_expiry(key, seconds)  # type: ignore[arg-type]


ROWS = [
    Row("set_expiry", (expires(),), {"k": MINUTE}),
    Row("set_expiry on a missing key waits for it", (expires("new"), lambda c: c.set("new", "v")), {"new": MINUTE}),
    Row("set does not clear it", (expires(), lambda c: c.set("k", "w")), {"k": MINUTE}),
    Row("add does not clear it", (lambda c: c.set("k", "1"), expires(), lambda c: c.add("k", 1)), {"k": MINUTE}),
    Row("test_and_set does not clear it", (expires(), lambda c: c.test_and_set("k", "v", "w")), {"k": MINUTE}),
    Row("a key that was deleted and made again", (expires(), lambda c: c.delete("k"), lambda c: c.set("k", "w")), {"k": MINUTE}),
    Row("a key that was removed and made again", (expires(), lambda c: c.remove("k"), lambda c: c.set("k", "w")), {"k": MINUTE}),
    Row("a key that was pruned and made again", (expires(), lambda c: c.prune(""), lambda c: c.set("k", "w")), {"k": MINUTE}),
    Row("rename leaves it with the old name", (expires(), lambda c: c.rename("k", "b")), {"k": GONE, "b": FOREVER}),
    Row("a new key under the old name has it", (expires(), lambda c: c.rename("k", "b"), lambda c: c.set("k", "n")),
        {"k": MINUTE, "b": FOREVER}),
    Row("rename to a name that has one", (expires("b"), lambda c: c.rename("k", "b")), {"k": GONE, "b": MINUTE}),
    Row("rename to itself", (expires(), lambda c: c.rename("k", "k")), {"k": MINUTE}),
    Row("set_expiry again replaces it by a later one", (expires(), expires(seconds=600)), {"k": 10 * MINUTE}),
    Row("set_expiry again replaces it by an earlier one", (expires(seconds=600), expires()), {"k": MINUTE}),
    Row("remove_expiry", (expires(), lambda c: c.remove_expiry("k")), {"k": FOREVER}),
    Row("remove_expiry before the key is there", (expires("n"), lambda c: c.remove_expiry("n"), lambda c: c.set("n", "v")),
        {"n": FOREVER}),
    Row("clear_expiries", (expires(), expires("n"), lambda c: c.set("n", "v"), lambda c: c.clear_expiries()),
        {"k": FOREVER, "n": FOREVER}),
    Row("0 seconds: at once", (expires(seconds=0),), {"k": GONE}),
    Row("less than 0 seconds: at once", (expires(seconds=-5),), {"k": GONE}),
    Row("what has fired is over", (expires(seconds=0), lambda c: c.set("k", "again")), {"k": FOREVER}),
    Row("in a batch", (lambda c: [c.begin(), c.set_expiry("k", 60), c.set("k", "w"), c.set_expiry("n", 60), c.set("n", ""),
        c.remove_expiry("n"), c.submit()],), {"k": MINUTE, "n": FOREVER}),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name.replace(" ", "-"))
def test_row(row: Row, client: Client, place: Place) -> None:
    client.set("k", "v")
    for step in row.steps:
        assert step(client) is not None
    for key, wanted_ms in row.left_ms.items():
        left_ms = place.engine.execute("ttl", 0, key.encode())
        if wanted_ms in (FOREVER, GONE):
            assert left_ms == wanted_ms, key
        else:
            assert wanted_ms is not None
            assert wanted_ms - 30_000 < left_ms <= wanted_ms, key
        assert (client.get(key) is None) == (wanted_ms is GONE)


def test_a_key_is_gone_when_its_time_is_over(client: Client) -> None:
    client.begin()
    for key in ("a", "b"):
        client.set(key, "v")
    client.set_expiry("a", 1)
    client.submit()
    give_up_s = time.monotonic() + 30
    while client.get("a") is not None:
        assert time.monotonic() < give_up_s
        time.sleep(0.01)
    assert [client.dirty_get("a"), client.list_keys(), client.count(), client.delete("a")] == [None, ["b"], 1, None]
    assert client.set("a", "new") == 0
    assert client.get("a") == "new"


def test_expiries_are_those_of_a_database(make_client: Callable[..., Client], place: Place) -> None:
    first, second = make_client(), make_client(database=1)
    for client in (first, second):
        client.set("k", "v")
        client.set_expiry("k", 60)
    first.clear_expiries()
    assert place.engine.execute("ttl", 0, b"k") == FOREVER
    assert place.engine.execute("ttl", 1, b"k") > 0

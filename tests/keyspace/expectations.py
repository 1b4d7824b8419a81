"""THE table of expectations: what Keyspace's documented calls do, row by row.

Each row is run on every engine by ``test_expectations.py``. The numbers say what a row is about: 1 returns and statuses,
2 ``add``, 3 listings, 4 expiry, 5 batches. Where the ancestor was broken, a row says what was meant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django_keyspace.keyspace import (
    KEYSPACE_API_ERROR,
    KEYSPACE_FAILED,
    KEYSPACE_FAILURE,
    KEYSPACE_SUCCESS,
    Client,
)

UNCHANGED = "unchanged"


@dataclass(frozen=True)
class Row:
    """One expectation.

    Attributes:
        name: what it says.
        given: keys and values that are there.
        call: what is done.
        returns: what that returns.
        status: the command status then.
        after: keys and values that are there then.
    """

    name: str
    given: Mapping[str, str]
    call: Callable[[Client], Any]
    returns: Any
    status: int = KEYSPACE_SUCCESS
    after: Any = field(default=UNCHANGED)


KV = {"k": "v"}
FAILED = KEYSPACE_FAILED
API = KEYSPACE_API_ERROR

RETURNS = [
    Row("1 set makes a key", {}, lambda c: c.set("k", "v"), 0, after=KV),
    Row("1 set overwrites", KV, lambda c: c.set("k", "w"), 0, after={"k": "w"}),
    Row("1 set takes an empty value", {}, lambda c: c.set("k", ""), 0, after={"k": ""}),
    Row("1 set takes bytes", {}, lambda c: c.set(b"k", b"v"), 0, after=KV),
    Row("1 get", KV, lambda c: c.get("k"), "v"),
    Row("1 get of an empty value", {"k": ""}, lambda c: c.get("k"), ""),
    Row("1 get of a missing key", {}, lambda c: c.get("k"), None, FAILED),
    Row("1 dirty_get", KV, lambda c: c.dirty_get("k"), "v"),
    Row("1 dirty_get of a missing key", {}, lambda c: c.dirty_get("k"), None, FAILED),
    Row("1 test_and_set that matches", KV, lambda c: c.test_and_set("k", "v", "w"), "w", after={"k": "w"}),
    Row("1 test_and_set that differs", KV, lambda c: c.test_and_set("k", "x", "w"), None, FAILED),
    Row("1 test_and_set of a missing key", {}, lambda c: c.test_and_set("k", "v", "w"), None, FAILED),
    Row("1 test_and_set of a missing key with ''", {}, lambda c: c.test_and_set("k", "", "w"), None, FAILED),
    Row("1 test_and_set of a number", {"k": "10"}, lambda c: c.test_and_set("k", "10", "11"), "11", after={"k": "11"}),
    Row(
        "1 test_and_set of what add made",
        {"k": "10"},
        lambda c: (c.add("k", 1), c.test_and_set("k", "11", "x"))[1],
        "x",
        after={"k": "x"},
    ),
    Row("1 rename", KV, lambda c: c.rename("k", "new"), 0, after={"new": "v"}),
    Row("1 rename over another key", {"a": "1", "b": "2"}, lambda c: c.rename("a", "b"), 0, after={"b": "1"}),
    Row("1 rename of a missing key", {"b": "2"}, lambda c: c.rename("a", "b"), None, FAILED),
    Row("1 rename to itself keeps the key", KV, lambda c: c.rename("k", "k"), 0),
    Row("1 delete", KV, lambda c: c.delete("k"), 0, after={}),
    Row("1 delete of a missing key", {}, lambda c: c.delete("k"), None, FAILED),
    Row("1 remove returns the old value", KV, lambda c: c.remove("k"), "v", after={}),
    Row("1 remove of an empty value", {"k": ""}, lambda c: c.remove("k"), "", after={}),
    Row("1 remove of a missing key", {}, lambda c: c.remove("k"), None, FAILED),
    Row("1 prune", {"ja": "1", "jb": "2", "m": "3"}, lambda c: c.prune("j"), 0, after={"m": "3"}),
    Row("1 prune that matches nothing", KV, lambda c: c.prune("x"), 0),
    Row("1 prune of everything", {"a": "1", "b": "2"}, lambda c: c.prune(""), 0, after={}),
    Row("1 reserved prefixes of the ancestor are ordinary", {}, lambda c: c.set("@@x", "1"), 0, after={"@@x": "1"}),
    Row("1 set_expiry", KV, lambda c: c.set_expiry("k", 60), 0),
    Row("1 set_expiry of a missing key", {}, lambda c: c.set_expiry("k", 60), 0),
    Row("1 remove_expiry", KV, lambda c: c.remove_expiry("k"), 0),
    Row("1 remove_expiry of a missing key", {}, lambda c: c.remove_expiry("k"), 0),
    Row("1 clear_expiries", KV, lambda c: c.clear_expiries(), 0),
    Row("1 list_keys that finds nothing", KV, lambda c: c.list_keys("x"), []),
    Row("1 list_key_values that finds nothing", KV, lambda c: c.list_key_values("x"), {}),
    Row("1 count that finds nothing", KV, lambda c: c.count("x"), 0),
    Row("1 get_master", {}, lambda c: c.get_state(c.get_master()), 0),
    Row("1 get_state", {}, lambda c: [c.get_state(0), c.get_state(99), c.get_state(-1)], [0, API, API]),
    Row(
        "1 distribute_dirty",
        KV,
        lambda c: [c.distribute_dirty(True), c.distribute_dirty(False), c.dirty_get("k")],
        [0, 0, "v"],
    ),
    Row("1 set_global_timeout", {}, lambda c: [c.set_global_timeout(90_000), c.get_global_timeout()], [0, 90_000]),
    Row("1 set_master_timeout", {}, lambda c: [c.set_master_timeout(19_000), c.get_master_timeout()], [0, 19_000]),
    Row("1 calls after a change of timeouts", KV, lambda c: [c.set_global_timeout(30_000), c.get("k")], [0, "v"]),
]


def _add(text: str, number: int, returns: int | None, left: str | None = None) -> Row:
    status = FAILED if returns is None else KEYSPACE_SUCCESS
    after = text if returns is None else str(returns) if left is None else left
    return Row(f"2 add {number} to {text!r}", {"k": text}, lambda c: c.add("k", number), returns, status, {"k": after})


INT64_MAX = 2**63 - 1
ADDS = [
    _add("10", 3, 13),
    _add("10", -13, -3),
    _add("10", 0, 10),
    _add("-5", 1, -4),
    _add("007", 1, 8),
    _add("007", 0, 7),
    _add("-0", 1, 1),
    _add("", 1, 1),
    _add(str(INT64_MAX - 1), 1, INT64_MAX),
    _add(str(-INT64_MAX), -1, -INT64_MAX - 1),
    _add("1", INT64_MAX, None),
    _add(str(INT64_MAX), 1, None),
    _add(str(-INT64_MAX - 1), -1, None),
    _add("9" * 30, -1, None),
    _add("9" * 5000, -1, None),
    *(_add(text, 1, None) for text in ("abc", "12abc", " 5", "5 ", "+5", "1.5", "-", "1_0", "٣", "0x1", "\n5")),
    Row("2 add to a missing key makes none", {}, lambda c: c.add("k", 1), None, FAILED),
    Row("2 add again", {"k": "1"}, lambda c: [c.add("k", 1), c.add("k", 1), c.get("k")], [2, 3, "3"], after={"k": "3"}),
    Row("2 add after bytes", {}, lambda c: [c.set("k", b"41"), c.add("k", 1)], [0, 42], after={"k": "42"}),
    Row(
        "2 add after test_and_set",
        {"k": "a"},
        lambda c: [c.test_and_set("k", "a", "41"), c.add("k", 1)],
        ["41", 42],
        after={"k": "42"},
    ),
    Row("2 add after rename", {"a": "1"}, lambda c: [c.rename("a", "k"), c.add("k", 1)], [0, 2], after={"k": "2"}),
]

TREE = {key: key.upper() for key in ("a", "j1", "j2", "j25", "j3", "j31", "k1")}
J = ["j1", "j2", "j25", "j3", "j31"]
MANY = {f"m{number:04d}": "" for number in range(2_500)}


def _lists(name: str, wanted: list[str], given: Mapping[str, str] = TREE, **arguments: Any) -> list[Row]:
    """The same arguments for every call that lists."""
    pairs = {key: given[key] for key in wanted}
    return [
        Row(f"3 list_keys {name}", given, lambda c: c.list_keys(**arguments), wanted),
        Row(
            f"3 list_key_values {name}", given, lambda c: list(c.list_key_values(**arguments).items()), [*pairs.items()]
        ),
        Row(f"3 count {name}", given, lambda c: c.count(**arguments), len(wanted)),
    ]


LISTS = [
    *_lists("everything in the order of bytes", sorted(TREE)),
    *_lists("of a prefix", J, prefix="j"),
    *_lists("count=0 is no limit", J, prefix="j", count=0),
    *_lists("count=2", J[:2], prefix="j", count=2),
    *_lists("count above what there is", J, prefix="j", count=99),
    *_lists("start_key is absolute and inclusive", J[1:], prefix="j", start_key="j2"),
    *_lists("start_key that is missing", J[3:], prefix="j", start_key="j26"),
    *_lists("start_key below the prefix is clamped", J, prefix="j", start_key="a"),
    *_lists("start_key above the prefix is clamped", [], prefix="j", start_key="k"),
    *_lists("start_key that is shorter than the prefix", ["j31"], prefix="j31", start_key="j"),
    *_lists("start_key without a prefix", ["j3", "j31", "k1"], start_key="j3"),
    *_lists("skip with start_key", J[2:], prefix="j", start_key="j2", skip=True),
    *_lists("skip drops the first row, whichever it is", ["j31"], prefix="j", start_key="j26", skip=True),
    *_lists("skip without start_key", J[1:], prefix="j", skip=True),
    *_lists("count applies after skip", J[1:3], prefix="j", skip=True, count=2),
    *_lists("backwards from a start_key", ["j25", "j2", "j1"], prefix="j", start_key="j25", forward=False),
    *_lists("backwards from a missing start_key", ["j2", "j1"], prefix="j", start_key="j24", forward=False),
    *_lists("backwards without a prefix", sorted(TREE, reverse=True), forward=False),
    *_lists("backwards begins at the end of the prefix", J[::-1], prefix="j", forward=False),
    *_lists(
        "backwards, a missing start_key that other keys begin with",
        ["j2", "j1"],
        {"j1": "", "j2": "", "j31": ""},
        prefix="j",
        start_key="j3",
        forward=False,
    ),
    *_lists("backwards, clamped", J[::-1], prefix="j", start_key="z", forward=False),
    *_lists("backwards, start_key below the prefix", [], prefix="j", start_key="a", forward=False),
    *_lists("backwards with skip and count", ["j3", "j25"], prefix="j", skip=True, count=2, forward=False),
    *_lists("of 2,500 rows with a prefix", [*MANY], MANY, prefix="m"),
    *_lists("of 2,500 rows, count above a page", [*MANY][:1_500], MANY, prefix="m", count=1_500),
    *_lists("of 2,500 rows backwards", [*MANY][::-1], MANY, prefix="m", forward=False),
    Row("3 positional arguments", TREE, lambda c: c.list_keys("j", "j2", 2, True, True), ["j25", "j3"]),
    Row("3 dirty_list_keys", TREE, lambda c: c.dirty_list_keys("j3"), ["j3", "j31"]),
    Row("3 dirty_list_key_values", TREE, lambda c: c.dirty_list_key_values("j3"), {"j3": "J3", "j31": "J31"}),
    Row("3 dirty_count", TREE, lambda c: c.dirty_count("j3"), 2),
    Row("3 list_keyvalues", TREE, lambda c: c.list_keyvalues("k"), {"k1": "K1"}),
    Row("3 dirty_list_keyvalues", TREE, lambda c: c.dirty_list_keyvalues("k"), {"k1": "K1"}),
    Row("3 a result of list_keys", TREE, lambda c: [c.list_keys("k"), rows(c)], [["k1"], [("k1", "", 0)]]),
    Row("3 a result of list_key_values", TREE, lambda c: [c.list_key_values("k"), rows(c)], [{"k1": "K1"}, [("k1", "K1", 0)]]),
]  # fmt: skip


def rows(client: Client) -> list[tuple[Any, Any, int]]:
    """Key, value and status of each row of the result, by the documented loop."""
    result = client.result
    if result is None:
        raise AssertionError("There is no result.")
    found = []
    result.begin()
    while not result.is_end():
        found.append((result.key(), result.value(), result.command_status()))
        result.next()
    return found


def batch(*commands: Callable[[Client], Any]) -> Callable[[Client], Any]:
    """begin(), some commands, submit(): what all of them return, and the rows of the result."""

    def call(client: Client) -> Any:
        returned = [client.begin(), *(command(client) for command in commands), client.submit()]
        return returned, rows(client)

    return call


OK = KEYSPACE_SUCCESS
NOTHING = ([0, 0], [])
BATCHES = [
    Row("5 empty batch", KV, batch(), NOTHING, API),
    Row(
        "5 sets",
        {},
        batch(lambda c: c.set("a", "1"), lambda c: c.set("b", "2"), lambda c: c.set("a", "3")),
        ([0, None, None, None, 0], [("a", "", OK), ("b", "", OK), ("a", "", OK)]),
        API,
        {"a": "3", "b": "2"},
    ),
    Row(
        "5 gets",
        {"a": "1", "b": "2"},
        batch(lambda c: c.get("a"), lambda c: c.get("none"), lambda c: c.get("b"), lambda c: c.get("a")),
        ([0, None, None, None, None, 0], [("a", "1", OK), ("none", None, FAILED), ("b", "2", OK), ("a", "1", OK)]),
        API,
    ),
    Row(
        "5 dirty gets",
        KV,
        batch(lambda c: c.dirty_get("k"), lambda c: c.dirty_get("none")),
        ([0, None, None, 0], [("k", "v", OK), ("none", None, FAILED)]),
        API,
    ),
    Row(
        "5 every write, in order, and failures change nothing but their row",
        {"n": "1", "old": "v", "gone": "x", "t": "1", "pa": "", "pb": ""},
        batch(
            lambda c: c.add("n", 41),
            lambda c: c.rename("old", "new"),
            lambda c: c.delete("missing"),
            lambda c: c.delete("gone"),
            lambda c: c.set("s", "1"),
            lambda c: c.set("s", "2"),
            lambda c: c.remove("s"),
            lambda c: c.remove("s"),
            lambda c: c.test_and_set("t", "0", "x"),
            lambda c: c.test_and_set("t", "1", "2"),
            lambda c: c.add("new", 1),
            lambda c: c.prune("p"),
            lambda c: c.set_expiry("n", 60),
            lambda c: c.remove_expiry("n"),
            lambda c: c.clear_expiries(),
        ),
        (
            [0, *[None] * 15, 0],
            [
                ("n", "42", OK),
                ("old", "", OK),
                ("missing", None, FAILED),
                ("gone", "", OK),
                ("s", "", OK),
                ("s", "", OK),
                ("s", "2", OK),
                ("s", None, FAILED),
                ("t", None, FAILED),
                ("t", "2", OK),
                ("new", None, FAILED),
                ("p", "", OK),
                ("n", "", OK),
                ("n", "", OK),
                ("", "", OK),
            ],
        ),
        API,
        {"n": "42", "new": "v", "t": "2"},
    ),
    Row(
        "5 key_values of gets leaves out what failed",
        {"a": "1", "b": "2"},
        lambda c: [c.begin(), c.get("a"), c.get("no"), c.get("b"), c.submit(), c.result.key_values()],
        [0, None, None, None, 0, {"a": "1", "b": "2"}],
        API,
    ),
    Row(
        "5 after key_values the result is at its end, and begin() goes back",
        KV,
        lambda c: [c.begin(), c.get("k"), c.submit(), c.result.key_values(), c.result.is_end(), c.result.key(),
                   c.result.command_status(), c.result.begin(), c.result.command_status(), c.result.value()],
        [0, None, 0, {"k": "v"}, True, None, API, None, OK, "v"],
    ),
    Row("5 begin inside a batch, which goes on", {}, batch(lambda c: c.set("a", "1"), lambda c: c.begin()),
        ([0, None, API, 0], [("a", "", OK)]), API, {"a": "1"}),
    Row("5 submit without begin", KV, lambda c: c.submit(), API, API),
    Row("5 cancel without begin", KV, lambda c: c.cancel(), API, API),
    Row("5 cancel sends nothing", KV, lambda c: [c.begin(), c.set("k", "w"), c.cancel(), c.get("k")], [0, None, 0, "v"]),
    Row("5 submit after cancel", KV, lambda c: [c.begin(), c.cancel(), c.submit()], [0, 0, API], API),
    Row(
        "5 a read among writes is refused and leaves the batch as it was",
        KV,
        batch(lambda c: c.set("a", "1"), lambda c: [c.get("k"), c.result.command_status()], lambda c: c.set("b", "2")),
        ([0, None, [None, API], None, 0], [("a", "", OK), ("b", "", OK)]),
        API,
        {**KV, "a": "1", "b": "2"},
    ),
    Row(
        "5 a write among reads is refused",
        KV,
        batch(lambda c: c.get("k"), lambda c: [c.set("k", "w"), c.result.command_status()]),
        ([0, None, [None, API], 0], [("k", "v", OK)]),
        API,
    ),
    Row(
        "5 a dirty read among safe ones is refused",
        KV,
        batch(lambda c: c.get("k"), lambda c: [c.dirty_get("k"), c.result.command_status()]),
        ([0, None, [None, API], 0], [("k", "v", OK)]),
        API,
    ),
    Row(
        "5 lists and counts are refused",
        KV,
        batch(
            lambda c: [c.list_keys(), c.result.command_status()],
            lambda c: [c.list_key_values(), c.result.command_status()],
            lambda c: [c.count(), c.result.command_status()],
            lambda c: [c.set("a", "1"), c.result.command_status()],
        ),
        ([0, [None, API], [None, API], [None, API], [None, OK], 0], [("a", "", OK)]),
        API,
        {**KV, "a": "1"},
    ),
    Row(
        "5 a bad argument is refused and leaves the batch as it was",
        {},
        batch(
            lambda c: c.set("a", "1"),
            lambda c: [c.set("k" * 2000, "x"), c.result.command_status(), c.result.transport_status()],
            lambda c: c.set("b", "2"),
        ),
        ([0, None, [None, API, KEYSPACE_FAILURE], None, 0], [("a", "", OK), ("b", "", OK)]),
        API,
        {"a": "1", "b": "2"},
    ),
    Row(
        "5 a batch larger than one piece",
        {"n": "0"},
        lambda c: [c.begin(), {c.add("n", 1) for _ in range(5_000)}, c.submit(), c.get("n")],
        [0, {None}, 0, "5000"],
        after={"n": "5000"},
    ),
    Row("5 close lets go of the rows", KV, lambda c: [c.begin(), c.get("k"), c.submit(), c.result.close(), rows(c)],
        [0, None, 0, None, []], API),
]  # fmt: skip

EXPECTATIONS = [*RETURNS, *ADDS, *LISTS, *BATCHES]

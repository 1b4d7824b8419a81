"""Cursors and queues."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from django_keyspace.exceptions import KeyspaceError, WrongType
from django_keyspace.kyoto import KT_JSON, KT_NONE, KT_PICKLE, KyotoTycoon, Queue

Make = Callable[..., Any]


@pytest.fixture
def filled(db: KyotoTycoon) -> KyotoTycoon:
    db.set_bulk({key: key.upper() for key in ("a", "b", "c", "e")})
    return db


def test_a_cursor_walks_both_ways(filled: KyotoTycoon) -> None:
    cursor = filled.cursor()
    assert (cursor.key(), cursor.value(), cursor.get()) == (None, None, None)
    assert not cursor.is_valid() and not cursor.step() and not cursor.step_back()
    assert cursor.jump() and cursor.get() == ("a", "A")
    assert cursor.step() and cursor.key() == "b"
    assert cursor.jump("d") and cursor.key() == "e"
    assert not cursor.step() and cursor.get() is None
    assert not cursor.jump("f")
    assert cursor.jump_back() and cursor.key() == "e"
    assert cursor.jump_back("d") and cursor.key() == "c"
    assert cursor.step_back() and cursor.key() == "b"
    assert cursor.step_back() and cursor.key() == "a"
    assert not cursor.step_back()
    assert not cursor.jump_back("A")


def test_reading_can_step(filled: KyotoTycoon) -> None:
    cursor = filled.cursor()
    cursor.jump()
    assert [cursor.key(step=True), cursor.value(step=True), cursor.get(step=True)] == ["a", "B", ("c", "C")]
    assert cursor.key() == "e"


def test_iterating_a_cursor(filled: KyotoTycoon) -> None:
    assert list(filled.cursor()) == [("a", "A"), ("b", "B"), ("c", "C"), ("e", "E")]
    with filled.cursor() as cursor:
        cursor.jump("c")
        assert [key for key, _ in cursor] == ["c", "e"]
    assert list(filled.cursor(db=1)) == []


def test_writing_through_a_cursor(filled: KyotoTycoon) -> None:
    cursor = filled.cursor()
    assert not cursor.set_value("x") and not cursor.remove() and cursor.seize() is None
    cursor.jump("b")
    assert cursor.set_value("new", expire_time=100) and filled["b"] == "new"
    ttl = filled.ttl("b")
    assert ttl is not None and 90 < ttl <= 100
    assert cursor.set_value("newer", step=True) and cursor.key() == "c" and filled.ttl("b") == -1
    assert cursor.remove() and cursor.key() == "e" and "c" not in filled
    assert cursor.seize() == ("e", "E") and not cursor.is_valid()
    assert filled.keys() == ["a", "b"]


def test_a_row_that_others_have_deleted(filled: KyotoTycoon) -> None:
    cursor = filled.cursor()
    cursor.jump("b")
    filled.remove("b")
    assert cursor.get() is None and not cursor.set_value("x") and cursor.seize() is None
    assert not cursor.remove() and cursor.key() == "c"
    assert "b" not in filled


# --- Queue ------------------------------------------------------------------------------------------------------------


def test_first_in_first_out(db: KyotoTycoon) -> None:
    queue = Queue(db, "jobs")
    assert [queue.add("a"), queue.add("b")] == [1, 2]
    assert queue.extend(["c", "d", "e"]) == 3 and queue.extend([]) == 0
    assert len(queue) == queue.count() == 5 and queue
    assert (queue.peek(), queue.peek(2), queue.rpeek(), queue.rpeek(2)) == ("a", ["a", "b"], "e", ["e", "d"])
    assert (queue.pop(), queue.rpop(), queue.pop(2), queue.pop(9)) == ("a", "e", ["b", "c"], ["d"])
    assert (queue.pop(), queue.rpop(), queue.peek(), queue.pop(2), len(queue), bool(queue)) == (
        None,
        None,
        None,
        [],
        0,
        False,
    )
    assert queue.add("f") == 6  # numbers go on


def test_clearing_a_queue(db: KyotoTycoon) -> None:
    queue = Queue(db, "jobs")
    queue.extend("abc")
    db["jobs2"] = "other"
    assert queue.clear() == 3 and queue.clear() == 0
    assert db.keys() == ["jobs2"]
    assert queue.add("x") == 1


def test_removing_items(db: KyotoTycoon) -> None:
    queue = Queue(db, "jobs")
    queue.extend("abcabcab")
    assert queue.remove("a", 1) == 1 and queue.peek(9) == list("bcabcab")
    assert queue.rremove("b", 2) == 2 and queue.peek(9) == list("bcaca")
    assert queue.remove("c") == 2 and queue.remove("x") == 0 and queue.remove("a", 0) == 0
    assert queue.rremove("a", -1) == 2 and queue.pop(9) == ["b"]


def test_queues_are_apart(db: KyotoTycoon) -> None:
    first, second, other = Queue(db, "q"), Queue(db, "q2"), Queue(db, "q", db=1)
    first.add("1"), second.add("2"), other.add("3")
    assert (first.peek(9), second.peek(9), other.peek(9)) == (["1"], ["2"], ["3"])


@pytest.mark.parametrize(
    ("serializer", "items"), [(KT_JSON, [{"a": 1}, None]), (KT_PICKLE, [{1}, (2,)]), (KT_NONE, [b"\xff"])]
)
def test_items_of_any_serializer(serializer: str, items: list[Any], tycoon: Make) -> None:
    queue = Queue(tycoon(serializer=serializer), "jobs")
    queue.extend(items)
    assert queue.remove(items[-1]) == 1
    assert queue.pop(9) == items[:-1]


def test_an_item_that_cannot_be_read_stays(db: KyotoTycoon) -> None:
    queue = Queue(db, "jobs")
    queue.add(b"\xff")
    with pytest.raises(WrongType):
        queue.pop()
    assert len(queue) == 1


def test_a_long_queue(db: KyotoTycoon) -> None:
    queue = Queue(db, "jobs")
    assert queue.extend(map(str, range(2300))) == 2300
    assert queue.count() == 2300
    assert queue.pop(2100) == list(map(str, range(2100)))
    assert queue.rpop(300) == list(map(str, range(2299, 2099, -1)))


def test_many_producers_and_consumers(db: KyotoTycoon) -> None:
    """Nothing is lost, and nothing comes twice."""
    queue = Queue(db, "jobs")
    taken: list[str] = []
    failures: list[KeyspaceError] = []
    left = threading.Semaphore(0)

    def produce(name: str) -> None:
        for number in range(25):
            queue.add(f"{name}{number}")

    def consume() -> None:
        try:
            while len(taken) < 75:
                item = queue.pop()
                if item is not None:
                    taken.append(item)
        except KeyspaceError as error:
            failures.append(error)
        finally:
            left.release()

    threads = [threading.Thread(target=produce, args=(name,)) for name in "abc"]
    threads += [threading.Thread(target=consume) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert sorted(taken) == sorted(f"{name}{number}" for name in "abc" for number in range(25))
    assert queue.count() == 0

"""What goes wrong in a bad store, one kind at a time, in the midst of a history that is right otherwise.

``INCIDENTS[name](toy, at_us)`` makes the store go wrong and lets somebody see it. Each is certainly against a promise,
whatever the calls around it do: they have other keys, or come before and after.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tests.sim import model
from tests.sim.history import Event
from tests.sim.toy import Toy, packed

X, Y = b"px", b"py"


def _set(key: bytes, value: model.Value) -> tuple[Any, ...]:
    return ("set", 0, key, value, None, "always")


def _old(toy: Toy, call: tuple[Any, ...], back: int) -> Any:
    """What a call would have answered some places of the log ago."""
    return packed(call, toy.answer(call, toy.past[len(toy.past) - 1 - back][1]).result)


def _tell(toy: Toy, client: str, call: tuple[Any, ...], at_us: int, result: Any, **more: Any) -> Event:
    """An answer that is made up; nothing happens in the store."""
    return toy.note(client, call, at_us - 1, at_us + 1, "ok", result, **more)


def _force(toy: Toy, key: bytes, value: model.Value | None) -> None:
    """Change a record behind everybody's back."""
    toy.cells = {**toy.cells, (0, key): model.Cell(value)}
    toy.past.append((0, toy.cells))


def stale_read(toy: Toy, at_us: int) -> None:
    toy.call("i1", _set(X, toy.value()), at_us)
    toy.call("i1", _set(X, toy.value()), at_us + 10)
    _tell(toy, "i2", ("get", 0, X), at_us + 20, _old(toy, ("get", 0, X), 1))


def stale_lease_read(toy: Toy, at_us: int) -> None:
    toy.call("i1", _set(X, toy.value()), at_us)
    toy.call("i1", ("delete", 0, X), at_us + 10)
    _tell(toy, "i2", ("get", 0, X), at_us + 20, _old(toy, ("get", 0, X), 1), level="lease")


def lost_write(toy: Toy, at_us: int) -> None:
    toy.call("i1", _set(X, toy.value()), at_us)
    _tell(toy, "i2", _set(X, toy.value()), at_us + 10, True)
    toy.call("i3", ("get", 0, X), at_us + 20)


def lost_delete(toy: Toy, at_us: int) -> None:
    toy.call("i1", _set(X, toy.value()), at_us)
    _tell(toy, "i2", ("delete", 0, X), at_us + 10, True)
    toy.call("i3", ("exists", 0, X), at_us + 20)


def double_increment(toy: Toy, at_us: int) -> None:
    call = ("incr", 0, b"ix", 1, 0, None, 0)
    toy.call("i1", call, at_us)
    toy.do(call, at_us)
    toy.call("i2", ("get", 0, b"ix"), at_us + 10)


def lost_increment(toy: Toy, at_us: int) -> None:
    call = ("incr", 0, b"ix", 1, 0, None, 0)
    toy.call("i1", call, at_us)
    _tell(toy, "i2", call, at_us + 10, 2)
    toy.call("i3", ("get", 0, b"ix"), at_us + 20)


def reordered_cas(toy: Toy, at_us: int) -> None:
    first, second, third = toy.value(), toy.value(), toy.value()
    toy.call("i1", _set(X, first), at_us)
    swap = ("cas", 0, ("value", X, None, first[2]), second, None)
    _tell(
        toy, "i2", swap, at_us + 10, (True, model.pack_record(first))
    )  # acknowledged, and carried out behind the next one
    toy.call("i3", ("cas", 0, ("value", X, None, first[2]), third, None), at_us + 20)


def both_swapped(toy: Toy, at_us: int) -> None:
    first = toy.value()
    toy.call("i1", _set(X, first), at_us)
    for client in ("i2", "i3"):  # at the same time
        call = ("cas", 0, ("value", X, None, first[2]), toy.value(), None)
        _tell(toy, client, call, at_us + 10, (True, model.pack_record(first)))


def both_added(toy: Toy, at_us: int) -> None:
    toy.call("i1", ("delete", 0, X), at_us)
    for client in ("i2", "i3"):
        _tell(toy, client, ("set", 0, X, toy.value(), None, "absent"), at_us + 10, True)


def half_a_rename(toy: Toy, at_us: int) -> None:
    toy.call("i1", _set(X, toy.value()), at_us)
    toy.call("i1", _set(Y, toy.value()), at_us + 10)
    toy.call("i2", ("rename", 0, X, Y), at_us + 20)
    _force(toy, Y, None)
    toy.call("i3", ("get_many", 0, (X, Y)), at_us + 30)


def rename_that_copies(toy: Toy, at_us: int) -> None:
    value = toy.value()
    toy.call("i1", _set(X, value), at_us)
    toy.call("i2", ("rename", 0, X, Y), at_us + 10)
    _force(toy, X, value)
    toy.call("i3", ("get", 0, X), at_us + 20)


def phantom_value(toy: Toy, at_us: int) -> None:
    toy.call("i1", _set(X, toy.value()), at_us)
    _tell(toy, "i2", ("get", 0, X), at_us + 10, model.pack_record((1, 0, b"nobody wrote this")))


def phantom_key(toy: Toy, at_us: int) -> None:
    toy.call("i1", _set(X, toy.value()), at_us)
    call = ("list", 0, b"px", b"", False, True, 10, False)
    _tell(toy, "i2", call, at_us + 10, ((X, b"px-nobody"), False))


def refused_write_happened(toy: Toy, at_us: int) -> None:
    call = _set(X, toy.value())
    toy.call("i1", ("delete", 0, X), at_us)
    toy.do(call, at_us + 10)
    toy.note("i2", call, at_us + 9, at_us + 11, "refused", "not-leader")
    toy.call("i3", ("get", 0, X), at_us + 20)


def resent_set(toy: Toy, at_us: int) -> None:
    first = _set(X, toy.value())
    toy.call("i1", first, at_us)
    toy.call("i2", _set(X, toy.value()), at_us + 10)
    toy.do(first, at_us + 20)  # sent again, and not known as such
    toy.call("i3", ("get", 0, X), at_us + 30)


def resent_delete(toy: Toy, at_us: int) -> None:
    toy.call("i1", _set(X, toy.value()), at_us)
    toy.call("i1", ("delete", 0, X), at_us + 10)
    toy.call("i2", _set(X, toy.value()), at_us + 20)
    toy.do(("delete", 0, X), at_us + 30)
    toy.call("i3", ("get", 0, X), at_us + 40)


def unknown_twice(toy: Toy, at_us: int) -> None:
    call = _set(X, toy.value())
    toy.note("i1", call, at_us, 0, "unknown", None)
    toy.do(call, at_us)
    toy.call("i2", ("get", 0, X), at_us + 10)
    toy.call("i3", _set(X, toy.value()), at_us + 20)
    toy.do(call, at_us + 30)
    toy.call("i2", ("get", 0, X), at_us + 40)


def torn_set_many(toy: Toy, at_us: int) -> None:
    toy.call("i1", ("set_many", 0, ((X, toy.value()), (Y, toy.value())), None), at_us)
    call = ("set_many", 0, ((X, toy.value()), (Y, toy.value())), None)
    toy.do(_set(*call[2][0]), at_us + 10)
    toy.note("i2", call, at_us + 10, 0, "unknown", None)
    toy.call("i3", ("get_many", 0, (X, Y)), at_us + 20)


def torn_atomic(toy: Toy, at_us: int) -> None:
    toy.call("i1", ("delete_many", 0, (X, Y)), at_us)
    one, two = _set(X, toy.value()), _set(Y, toy.value())
    toy.note("i2", ("atomic", (), (one, two)), at_us + 9, 0, "unknown", None)
    toy.do(two, at_us + 10)
    toy.call("i3", ("get_many", 0, (X, Y)), at_us + 20)


def prune_that_misses(toy: Toy, at_us: int) -> None:
    value = toy.value()
    toy.call("i1", _set(X, value), at_us)
    toy.call("i2", ("prune", 0, b"p"), at_us + 10)
    _force(toy, X, value)
    toy.call("i3", ("list", 0, b"p", b"", False, True, 10, False), at_us + 20)


def torn_listing(toy: Toy, at_us: int) -> None:
    toy.call("i1", ("prune", 0, b"p"), at_us)
    toy.call("i1", _set(X, toy.value()), at_us + 10)
    toy.call("i1", ("rename", 0, X, Y), at_us + 20)
    _tell(toy, "i2", ("list", 0, b"p", b"", False, True, 10, False), at_us + 20, ((X, Y), False))


def session_goes_back(toy: Toy, at_us: int) -> None:
    read = ("get", 0, X)
    toy.call("i1", _set(X, toy.value()), at_us)
    toy.call("i1", _set(X, toy.value()), at_us + 10)
    _tell(toy, "i2", read, at_us + 20, _old(toy, read, 0), level="session")
    _tell(toy, "i2", read, at_us + 30, _old(toy, read, 1), level="session")


def session_misses_own_write(toy: Toy, at_us: int) -> None:
    toy.call("i1", _set(X, toy.value()), at_us)
    toy.call("i2", _set(X, toy.value()), at_us + 10)
    _tell(toy, "i2", ("get", 0, X), at_us + 20, _old(toy, ("get", 0, X), 1), level="session")


def session_misses_across_keys(toy: Toy, at_us: int) -> None:
    read = ("get", 0, Y)
    toy.call("i1", _set(Y, toy.value()), at_us)
    toy.call("i1", _set(Y, toy.value()), at_us + 10)
    toy.call("i2", ("get", 0, b"ix"), at_us + 20)
    _tell(toy, "i2", read, at_us + 30, _old(toy, read, 1), level="session")


def session_index_goes_back(toy: Toy, at_us: int) -> None:
    toy.call("i1", _set(X, toy.value()), at_us)
    for later, index in ((10, 10**6), (20, 10**6 - 1)):
        _tell(toy, "i2", ("get", 0, b"never"), at_us + later, None, level="session", index=index)


def dirty_read_too_old(toy: Toy, at_us: int) -> None:
    read = ("get", 0, X)
    toy.call("i1", _set(X, toy.value()), at_us)
    toy.call("i1", _set(X, toy.value()), at_us + 10)
    _tell(toy, "i2", read, at_us + 5000, _old(toy, read, 1), level="dirty", max_staleness_us=1000)


def dirty_read_lies_about_its_age(toy: Toy, at_us: int) -> None:
    read = ("get", 0, X)
    toy.call("i1", _set(X, toy.value()), at_us)
    toy.call("i1", ("delete", 0, X), at_us + 10)
    _tell(toy, "i2", read, at_us + 5000, _old(toy, read, 1), level="dirty", age_us=200)


def dirty_read_of_nothing(toy: Toy, at_us: int) -> None:
    toy.call("i1", _set(X, toy.value()), at_us)
    value = toy.value()
    toy.note("i1", _set(X, value), at_us + 9, at_us + 11, "refused", "overloaded")  # in the log, and cut again
    _tell(toy, "i2", ("get", 0, X), at_us + 20, model.pack_record(value), level="dirty")


def dirty_read_of_the_future(toy: Toy, at_us: int) -> None:
    value = toy.value()
    _tell(toy, "i2", ("get", 0, X), at_us, model.pack_record(value), level="dirty")
    toy.call("i1", _set(X, value), at_us + 10)


def stores_differ_at_an_index(toy: Toy, at_us: int) -> None:
    for value in (toy.value(), toy.value()):
        toy.call("i1", _set(X, value), at_us)
        read = ("get", 0, X)
        _tell(toy, "i2", read, at_us + 20, model.pack_record(value), level="dirty", index=10**6)
        at_us += 10


def wrong_error(toy: Toy, at_us: int) -> None:
    toy.call("i1", ("incr", 0, b"ix", 1, 0, None, 0), at_us)
    call = ("incr", 0, b"ix", 1, None, None, 0)
    toy.note("i2", call, at_us + 9, at_us + 11, "error", "missing-key")


def expired_value_comes_back(toy: Toy, at_us: int) -> None:
    toy.call("i1", ("set", 0, X, toy.value(), 60_000, "always"), at_us)
    read = ("get", 0, X)
    value = _old(toy, read, 0)
    _tell(toy, "i2", read, at_us + 10, None)  # its deadline is over
    _tell(toy, "i2", read, at_us + 20, value)  # and there it is again


INCIDENTS: Final[dict[str, Callable[[Toy, int], None]]] = {
    function.__name__.replace("_", " "): function
    for function in (
        stale_read, stale_lease_read, lost_write, lost_delete, double_increment, lost_increment, reordered_cas,
        both_swapped, both_added, half_a_rename, rename_that_copies, phantom_value, phantom_key,
        refused_write_happened, resent_set, resent_delete, unknown_twice, torn_set_many, torn_atomic,
        prune_that_misses, torn_listing, session_goes_back, session_misses_own_write, session_misses_across_keys,
        session_index_goes_back, dirty_read_too_old, dirty_read_lies_about_its_age, dirty_read_of_nothing,
        dirty_read_of_the_future, stores_differ_at_an_index, wrong_error, expired_value_comes_back,
    )
}  # fmt: skip

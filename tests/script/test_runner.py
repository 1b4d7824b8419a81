"""From the call to the commit: what comes between, who waits for whom, and that nothing is counted twice."""

from __future__ import annotations

import contextlib
import errno
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lmdb
import pytest

from django_keyspace.exceptions import (
    ConfigurationError,
    InvalidArgument,
    LockTimeout,
    NoSpace,
    NotSupported,
    ScriptConflict,
    ScriptError,
    ScriptLimit,
    ValueTooLarge,
)
from django_keyspace.store import Store, StoreOptions, open_store
from django_keyspace.store.scripting import ScriptRunner, read_sources, script_call, script_result, values
from django_keyspace.store.scripting import runner as runner_module
from tests.script.conftest import LONG_MS

ROOT = Path(__file__).resolve().parents[2]
INCREMENT = [("count.lua", "function f() local n = (db:get('n') or 0) + 1 db:set('n', n) return n end")]
READ_RANGE = [("count.lua", "function f() db:set('n' .. db:count('n'), 1) return db:count('n') end")]


class Disturber:
    """An orderer of writes that lets somebody else write first.

    Arguments:
        store: the real one.
        calls: what somebody else writes.
        times: before how many commits.
        also_exclusive: whether that happens even while nobody may.
    """

    def __init__(self, store: Store, calls: Sequence[Any], times: int, also_exclusive: bool = False) -> None:
        self.store = store
        self.calls = list(calls)
        self.times = times
        self.also_exclusive = also_exclusive
        self.commits = self.held = 0

    def write_many(self, calls: Sequence[Any]) -> list[Any]:
        self.commits += 1
        if self.times:
            self.times -= 1
            self.store.write_many(self.calls)
        return self.store.write_many(calls)

    @contextlib.contextmanager
    def exclusive(self, wait_s: float) -> Iterator[Callable[[Sequence[Any]], list[Any]]]:
        with self.store.exclusive(wait_s) as write_many:

            def write(calls: Sequence[Any]) -> list[Any]:
                self.held += 1
                if self.also_exclusive:
                    write_many(self.calls)
                return write_many(calls)

            yield write


def increment(runner: ScriptRunner, sources: Any = INCREMENT, **options: Any) -> Any:
    return script_result(runner.run(script_call(0, "f", sources=sources, time_ms=LONG_MS, **options)))


OTHER = ("incr", 0, b"n", 10, 0, None, 0)
NEW_IN_RANGE = ("incr", 0, b"n-other", 1, 0, None, 0)


@pytest.mark.parametrize(("sources", "between", "wanted"), [(INCREMENT, OTHER, 31), (READ_RANGE, NEW_IN_RANGE, 2)])
def test_a_script_that_was_overtaken_runs_again(store: Store, sources: Any, between: Any, wanted: int) -> None:
    disturber = Disturber(store, [between], times=3)
    assert increment(ScriptRunner(store, disturber), sources) == wanted
    assert (disturber.commits, disturber.held) == (4, 0)


def test_what_it_did_not_read_does_not_stop_it(store: Store) -> None:
    disturber = Disturber(store, [("set", 0, b"other", (2, 0, b"x"), None, "always")], times=1)
    assert increment(ScriptRunner(store, disturber)) == 1
    assert disturber.commits == 1


def test_after_some_times_nobody_else_may_write(store: Store) -> None:
    disturber = Disturber(store, [OTHER], times=100)
    assert increment(ScriptRunner(store, disturber)) == 10 * runner_module.FREE_ATTEMPTS + 1
    assert (disturber.commits, disturber.held) == (runner_module.FREE_ATTEMPTS, 1)


def test_a_script_that_is_overtaken_even_then_gives_up(store: Store) -> None:
    disturber = Disturber(store, [OTHER], times=100, also_exclusive=True)
    with pytest.raises(ScriptConflict, match="Nothing was changed"):
        increment(ScriptRunner(store, disturber))
    attempts = runner_module.FREE_ATTEMPTS + runner_module.HELD_ATTEMPTS
    assert store.write("incr", 0, b"n", 0, None, None, 0) == 10 * attempts


def test_a_script_that_only_reads_commits_nothing(store: Store) -> None:
    disturber = Disturber(store, [OTHER], times=100)
    revision = store.read("status")["revision"]
    assert increment(ScriptRunner(store, disturber), [("read.lua", "function f() return db:count() end")]) == 0
    assert disturber.commits == 0
    assert store.read("status")["revision"] == revision


def test_one_snapshot_and_the_scripts_own_writes(store: Store) -> None:
    """Others write while the script runs: it sees none of it, and its own writes at once."""
    asked = threading.Event()
    source = "function f() db:set('mine', 1) local seen = {db:get('other') == nil, db:get('mine'), db:count()} db:time() seen[4] = db:get('other') == nil return seen end"  # noqa: E501
    call = script_call(0, "f", sources=[("s.lua", source)], time_ms=LONG_MS)

    class Meddler(Disturber):
        def write_many(self, calls: Sequence[Any]) -> list[Any]:
            asked.set()
            return super().write_many(calls)

    runner = ScriptRunner(store, Meddler(store, [("set", 0, b"other", (2, 0, b"x"), None, "always")], times=1))
    assert script_result(runner.run(call)) == [False, 1, 2, False]  # the second run: it had read what was written
    assert asked.is_set()


def test_what_cannot_be_stored_is_an_error(store_folder: Path) -> None:
    store = open_store(store_folder, StoreOptions(max_bytes=2**20, value_bytes_max=2**18))
    runner = ScriptRunner(store)
    with pytest.raises(NoSpace):
        increment(runner, [("big.lua", "function f() for i = 1, 20 do db:set('k' .. i, ('x'):rep(100000)) end end")])
    assert store.read("count", 0, b"", b"", False, True, 0) == (0, None)
    with pytest.raises(ScriptError, match="262,144"):
        increment(runner, [("big.lua", "function f() db:set('k', ('x'):rep(300000)) end")])


def test_nobody_else_writes_meanwhile_and_the_map_may_grow(store_folder: Path) -> None:
    store = open_store(store_folder, StoreOptions(map_bytes=2**20, max_bytes=2**26))
    with store.exclusive(10) as write_many:
        with pytest.raises(LockTimeout):
            _in_a_thread(lambda: store.write("set", 0, b"k", (2, 0, b"x"), None, "always", wait_s=0.01))
        for number in range(8):
            write_many([("set", 0, b"k%d" % number, (2, 0, b"x" * 300_000), None, "always")])
    assert store.read("status")["map_bytes"] > 2**20
    assert _in_a_thread(lambda: store.write("delete", 0, b"k1"))


def _in_a_thread(work: Callable[[], Any]) -> Any:
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def test_a_script_lets_go_of_its_snapshot_when_others_need_quiet(store: Store) -> None:
    """A fork or a growing map must not wait for a script: the script begins anew."""
    source = "function f() local n = 0 while db:get('go') == nil do n = n + 1 if n > 100 then break end end while db:get('go') == nil do end return 'done' end"  # noqa: E501
    thread_outcome: list[Any] = []
    runner = ScriptRunner(store)
    increment(runner)
    thread = threading.Thread(
        target=lambda: thread_outcome.append(increment(runner, [("wait.lua", source)])),
    )
    thread.start()
    for _ in range(10):
        running = store.before_fork()  # shuts the gate, and waits for transactions to end
        store.after_fork_in_parent()
        assert not running
    store.write("set", 0, b"go", (2, 0, b"x"), None, "always")
    store.before_fork()
    store.after_fork_in_parent()  # the script takes another snapshot, in which it may go on
    thread.join(60)
    assert thread_outcome == ["done"]


def test_errors_of_lmdb_do_not_get_out(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = ScriptRunner(store)
    calls: list[int] = []

    def broken(self: Any, key: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise lmdb.BadTxnError("held up between choosing and copying")
        if len(calls) == 2:
            return 7
        torn = lmdb.DiskError("torn")
        torn.code = errno.EIO  # as LMDB sets it
        raise torn

    monkeypatch.setitem(runner_module.ScriptDatabase.answer.__globals__["_METHODS"], "get", broken)
    source = [("s.lua", "function f() return db:get('k') end")]
    assert increment(runner, source) == 7  # the next transaction is another one
    with pytest.raises(Exception, match="torn") as caught:
        increment(runner, source)
    assert not isinstance(caught.value, lmdb.Error)


def test_without_lupa_the_error_names_the_extra(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from django_keyspace.store.scripting import pool

    monkeypatch.setattr(pool.importlib.util, "find_spec", lambda name: None)
    runner = ScriptRunner(store, workers=pool.WorkerPool())
    with pytest.raises(NotSupported, match=r"django-keyspace\[lua\]"):
        increment(runner)


def test_values_travel() -> None:
    for value in (
        None,
        True,
        False,
        0,
        -(2**63),
        2**63 - 1,
        1.5,
        float("inf"),
        "",
        "ü",
        b"\xff",
        [],
        [[1]],
        {"a": {1: None}},
    ):
        assert values.decode(values.encode(value), text=True) == value
    assert values.decode(values.encode((1, 2))) == [1, 2]
    for bad in (object(), 2**63, {None: 1}, {1.5: 1}, {True: 1}, "\ud800", {1, 2}):
        with pytest.raises(InvalidArgument):
            values.encode(bad)
    deep: Any = 1
    for _ in range(values.DEPTH_MAX + 1):
        deep = [deep]
    with pytest.raises(InvalidArgument):
        values.encode(deep)
    for rubbish in (
        b"",
        b"X",
        b"I",
        b"S\xff\xff\xff\xff",
        b"A\xff\xff\xff\xff",
        b"NN",
        b"A\1\0\0\0",
        b"M\1\0\0\0A\0\0\0\0N",
    ):
        with pytest.raises((InvalidArgument, ScriptLimit)):
            values.decode(rubbish)
    with pytest.raises(ScriptLimit):
        values.decode(b"A\1\0\0\0" * 40 + b"N")
    with pytest.raises(ValueTooLarge):
        from django_keyspace.operations import Limits, check_call

        check_call(script_call(0, "f", {"a": "x" * (9 * 2**20)}), Limits())


def test_files_of_scripts(tmp_path: Path) -> None:
    (tmp_path / "b.lua").write_text("function b() end")
    (tmp_path / "a.lua").write_text("function a() end")
    (tmp_path / "notes.txt").write_text("nothing")
    assert read_sources([tmp_path]) == [("a.lua", "function a() end"), ("b.lua", "function b() end")]
    assert read_sources([str(tmp_path / "b.lua")]) == [("b.lua", "function b() end")]
    (tmp_path / "c.lua").write_bytes(b"\x1bLua\xff")
    (tmp_path / "d.lua").write_bytes(b" " * 1_000_001)
    for bad in ("none.lua", "c.lua", "d.lua"):
        with pytest.raises(ConfigurationError, match=bad):
            read_sources([tmp_path / bad])


COUNTER = """
import sys
from django_keyspace.store import open_store
from django_keyspace.store.scripting import ScriptRunner, script_call, script_result

runner = ScriptRunner(open_store(sys.argv[1]))
source = "function f() local n = (db:get('n') or 0) + 1 db:set('n', n) db:set('seen-' .. n, true) return n end"
call = script_call(0, "f", sources=[("count.lua", source)], time_ms=60_000)
print(*[script_result(runner.run(call)) for _ in range(int(sys.argv[2]))])
"""


@pytest.mark.stress
def test_eight_processes_count_exactly(store: Store) -> None:
    times, processes = 20, 8
    command = [sys.executable, "-c", COUNTER, store.path, str(times)]
    running = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    try:
        numbers = [int(word) for process in running for word in process.communicate(timeout=100)[0].split()]
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert sorted(numbers) == list(range(1, times * processes + 1))
    assert store.write("incr", 0, b"n", 0, None, None, 0) == times * processes
    assert store.read("count", 0, b"seen-", b"", False, True, 0)[0] == times * processes

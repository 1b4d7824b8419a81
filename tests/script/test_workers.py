"""The processes that run Lua: kept, replaced, never inherited, never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from django_keyspace.exceptions import Overloaded, ScriptError, ScriptLimit, ScriptTimeout
from django_keyspace.store import Store
from django_keyspace.store.scripting import ScriptRunner, pool, script_call, script_result
from django_keyspace.store.scripting.threads import ScriptThreads
from tests.script.conftest import LONG_MS

ROOT = Path(__file__).resolve().parents[2]


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for counts as ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return sys.platform == "linux"
    return state in "ZX"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def workers() -> Any:
    """A pool of its own."""
    own = pool.WorkerPool(2)
    yield own
    own.shutdown()
    assert own.pids() == []


def call(source: str, time_ms: int = LONG_MS) -> Any:
    return script_call(0, "f", sources=[("test.lua", source)], time_ms=time_ms)


def test_a_worker_is_kept_and_replaced_when_it_had_to_be_stopped(store: Store, workers: pool.WorkerPool) -> None:
    runner = ScriptRunner(store, workers=workers)
    runner.run(call("function f() end"))
    (first,) = workers.pids()
    for source in ("function f() error() end", "function f(", "function f() return 1 end"):
        try:
            runner.run(call(source))
        except ScriptError:
            pass
        assert workers.pids() == [first]
    with pytest.raises(ScriptTimeout):
        runner.run(call("function f() while true do end end", 50))
    assert workers.pids() == [] and is_gone(first)
    assert script_result(runner.run(call("function f() return 2 end"))) == 2
    assert workers.pids() not in ([], [first])


def test_a_worker_that_died_meanwhile_is_replaced(store: Store, workers: pool.WorkerPool) -> None:
    runner = ScriptRunner(store, workers=workers)
    runner.run(call("function f() end"))
    (first,) = workers.pids()
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: is_gone(first))
    assert script_result(runner.run(call("function f() return 2 end"))) == 2
    assert first not in workers.pids()


def test_a_worker_that_dies_at_work_costs_its_script(store: Store, workers: pool.WorkerPool) -> None:
    runner = ScriptRunner(store, workers=workers)
    runner.run(call("function f() end"))
    (pid,) = workers.pids()
    outcome: list[Any] = []

    def run() -> None:
        try:
            runner.run(call("function f() db:set('k', 1) db:set('begun', 1) while true do db:time() end end"))
        except ScriptError as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: not workers._idle)  # the script has it
    os.kill(pid, signal.SIGKILL)
    thread.join(60)
    assert len(outcome) == 1 and isinstance(outcome[0], ScriptLimit)
    assert store.read("get", 0, b"k") is None


def test_a_frozen_worker_is_stopped_in_time(store: Store, workers: pool.WorkerPool) -> None:
    runner = ScriptRunner(store, workers=workers)
    runner.run(call("function f() end"))
    (pid,) = workers.pids()
    os.kill(pid, signal.SIGSTOP)
    large = script_call(0, "f", {"a": "x" * 2**20}, sources=[("t.lua", "function f() end")], time_ms=200)
    with pytest.raises(ScriptTimeout):
        runner.run(large)  # more than a pipe holds: writing must not hang either
    assert is_gone(pid)


def test_a_worker_is_replaced_after_so_many_scripts(
    store: Store, workers: pool.WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "RUNS_MAX", 2)
    runner = ScriptRunner(store, workers=workers)
    runner.run(call("function f() end"))
    (first,) = workers.pids()
    runner.run(call("function f() end"))
    assert is_gone(first)


def test_who_finds_no_worker_waits_and_then_gives_up(workers: pool.WorkerPool, store: Store) -> None:
    taken = [workers.take(time.monotonic() + 60) for _ in range(2)]
    with pytest.raises(ScriptTimeout, match="2 workers were busy"):
        ScriptRunner(store, workers=workers).run(call("function f() end", 50))
    results: list[Any] = []
    runner = ScriptRunner(store, workers=workers)
    thread = threading.Thread(
        target=lambda: results.append(script_result(runner.run(call("function f() return 1 end"))))
    )
    thread.start()
    for worker in taken:
        workers.give_back(worker)
    thread.join(60)
    assert results == [1]


def test_a_worker_that_does_not_start_is_an_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = ScriptRunner(store, workers=pool.WorkerPool())
    for command in ("/bin/false", "/no/such/python"):
        monkeypatch.setattr(pool, "_python", lambda command=command: command)
        with pytest.raises(ScriptError, match="does not start"):
            runner.run(call("function f() end"))


def test_threads_take_a_bounded_number_of_scripts() -> None:
    threads = ScriptThreads(threads_max=1, waiting_max=2)
    begun, go_on = threading.Event(), threading.Event()

    def work() -> str:
        begun.set()
        go_on.wait(60)
        return "done"

    futures = [threads.submit(work), threads.submit(work)]
    assert begun.wait(60)
    with pytest.raises(Overloaded):
        threads.submit(work)
    go_on.set()
    assert [future.result(60) for future in futures] == ["done", "done"]
    assert threads.submit(work).result(60) == "done"


PRELUDE = """
import os, signal, sys, time
from django_keyspace.store import open_store
from django_keyspace.store.scripting import ScriptRunner, pool, script_call, script_result
runner = ScriptRunner(open_store(sys.argv[1]))
def run(source, time_ms=60_000):
    return script_result(runner.run(script_call(0, "f", sources=[("t.lua", source)], time_ms=time_ms)))
run("function f() db:set('n', 0) end")
(worker,) = pool.pool.pids()
print(worker, flush=True)
"""


def other_process(folder: Path, code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + code, str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


FORK = """
child = os.fork()
if not child:
    inherited = pool.pool.pids()
    run("function f() db:increment('n') end")
    os._exit(0 if inherited == [] and worker not in pool.pool.pids() and len(pool.pool.pids()) == 1 else 1)
run("function f() db:increment('n') end")
status = os.waitpid(child, 0)[1]
run("function f() db:increment('n') end")
print(status, pool.pool.pids() == [worker], run("function f() return db:get('n') end"))
"""


def test_a_forked_child_has_workers_of_its_own(store_folder: Path) -> None:
    process = other_process(store_folder, FORK)
    output, _ = process.communicate(timeout=100)
    assert output.splitlines()[1] == "0 True 3"


def test_workers_end_with_their_process(store_folder: Path) -> None:
    process = other_process(store_folder, "")
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0
    wait_until(lambda: is_gone(int(output)))


@pytest.mark.parametrize("source", ["", "run(\"function f() ('a'):rep(40):find(('a-'):rep(40) .. 'b') end\", 1000)"])
def test_workers_end_when_their_process_is_killed(store_folder: Path, source: str) -> None:
    """An idle one sees the end of its input; one that never looks there has a limit of processor time."""
    process = other_process(store_folder, f"print('go', flush=True)\n{source or 'sys.stdin.read()'}")
    try:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        assert process.stdout.readline() == "go\n"
    finally:
        process.kill()
        process.communicate(timeout=60)
    wait_until(lambda: is_gone(worker))


@pytest.mark.skipif(sys.platform != "linux", reason="the limits of a process are read from /proc")
def test_a_worker_can_open_nothing(store: Store, workers: pool.WorkerPool) -> None:
    ScriptRunner(store, workers=workers).run(call("function f() end"))
    (pid,) = workers.pids()
    limits = Path(f"/proc/{pid}/limits").read_text()
    soft = {line[:26].strip(): line[26:47].strip() for line in limits.splitlines()}
    assert {soft[name] for name in ("Max open files", "Max processes", "Max file size", "Max core file size")} == {"0"}
    assert soft["Max address space"] != "unlimited"
    descriptors = {
        os.readlink(f"/proc/{pid}/fd/{number}").partition(":")[0] for number in os.listdir(f"/proc/{pid}/fd")
    }
    assert descriptors == {"pipe", "/dev/null"}
    assert set(Path(f"/proc/{pid}/environ").read_text().split("\0")) <= {"", *(
        f"{name}={os.environ.get(name)}" for name in ("LD_LIBRARY_PATH", "LC_CTYPE")
    ), "LC_CTYPE=C.UTF-8"}  # fmt: skip
    assert os.readlink(f"/proc/{pid}/cwd") == "/"

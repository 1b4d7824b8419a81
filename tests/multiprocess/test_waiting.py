"""A writer that is stopped in mid-write holds nobody up for longer than they may wait."""

from __future__ import annotations

import os
import signal
import threading
from time import monotonic, sleep

import pytest

from django_keyspace.exceptions import LockTimeout
from django_keyspace.store.lock import LockClosed, WriterLock


def _wait_until_stopped(actor) -> None:
    deadline = monotonic() + 20
    while os.waitid(os.P_PID, actor.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        assert monotonic() < deadline
        sleep(0.01)
    assert actor.process.poll() is None, f"It has not stopped, but ended: {actor.errors}"


def test_stopped_writer_costs_others_their_deadline_and_no_more(fleet, folder):
    stopped = fleet.start("storing.hold_lock", folder=folder)
    assert stopped.hear() == "ready"
    waiting = [fleet.start("storing.wait_for_lock", folder=folder, timeout_ms=400) for _ in range(3)]
    for actor in waiting:
        assert actor.hear() == "ready"
        actor.tell("read")  # opens the store
        assert actor.hear()[0] == "0"
    stopped.tell("go")
    _wait_until_stopped(stopped)

    for _ in range(2):  # the second time, the wait of the first is still under way
        for actor in waiting:
            actor.tell("write")
        for actor in waiting:
            outcome, seconds = actor.hear()
            assert outcome == "LockTimeout"
            assert 0.35 < seconds < 5
    for actor in waiting:
        actor.tell("read")
        outcome, seconds = actor.hear()
        assert outcome == "0" and seconds < 5
    newcomer = fleet.start("storing.wait_for_lock", folder=folder, timeout_ms=400)
    assert newcomer.hear() == "ready"
    newcomer.tell("write")
    outcome, seconds = newcomer.hear()
    assert outcome == "LockTimeout" and seconds < 5

    stopped.signal(signal.SIGCONT)
    assert stopped.result() == 1
    for number, actor in enumerate((*waiting, newcomer), start=2):
        actor.tell("write")
        outcome, _ = actor.hear()
        assert outcome == str(number)
        actor.tell("end")
        actor.end()


@pytest.fixture
def locks(tmp_path):
    """Two locks of one file, as two processes have them."""
    mine, theirs = WriterLock(str(tmp_path / "lock")), WriterLock(str(tmp_path / "lock"))
    yield mine, theirs
    mine.close()
    theirs.close()


def test_helper_of_a_caller_that_gave_up_does_not_give_up_the_next_callers_lock(locks):
    mine, theirs = locks
    for _ in range(200):
        theirs.acquire(5)
        with pytest.raises(LockTimeout):
            mine.acquire(0)
        releaser = threading.Thread(target=theirs.release)
        releaser.start()
        mine.acquire(5)
        releaser.join()
        with pytest.raises(LockTimeout):  # it is held
            theirs.acquire(0)
        mine.release()


def test_closing_the_lock_wakes_those_who_wait_and_breaks_no_other_file(tmp_path, locks):
    mine, theirs = locks
    theirs.acquire(5)
    with pytest.raises(LockTimeout):
        mine.acquire(0)  # its helper waits
    mine.close()
    another = WriterLock(str(tmp_path / "another"))  # gets the descriptor, if that was closed under the helper
    beside = WriterLock(str(tmp_path / "another"))
    another.acquire(5)
    theirs.release()
    theirs.acquire(5)
    theirs.release()
    with pytest.raises(LockTimeout):
        beside.acquire(0.1)
    with pytest.raises(LockClosed):
        mine.acquire(5)
    another.release()
    another.close()
    beside.close()


def test_signal_while_waiting_leaves_no_lock_behind(locks):
    mine, theirs = locks
    theirs.acquire(5)

    def interrupt(number: int, frame: object) -> None:
        raise RuntimeError("a time limit")

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(RuntimeError, match="a time limit"):
            mine.acquire(20)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    theirs.release()
    deadline = monotonic() + 10
    while mine._helper.is_waiting:  # it still gets the lock, and gives it up
        assert monotonic() < deadline
        sleep(0.001)
    theirs.acquire(5)
    theirs.release()
    mine.acquire(5)
    mine.release()

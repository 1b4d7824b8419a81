"""A real process on a real disk, killed in the middle: what it had acknowledged is there."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from django_keyspace.node.disk import HostDisk
from django_keyspace.node.journal import Journal
from tests.journal.helpers import log_of
from tests.journal.victim import data_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.stress
def test_rule_1_and_16_a_killed_process_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    acknowledged = (0, 0, 0)
    for lines in (3, 40, 150, 1, 80):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.journal.victim", str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            for _ in range(lines):
                acknowledged = tuple(map(int, process.stdout.readline().split()))
        finally:
            process.send_signal(signal.SIGKILL)
            rest = process.communicate(timeout=60)[0].splitlines(keepends=True)
        for line in rest:
            if line.endswith("\n"):
                acknowledged = tuple(map(int, line.split()))
        last, term, commit = acknowledged
        journal = Journal.open(HostDisk(str(tmp_path)))
        journal.require_reaches(commit)
        state = journal.hard_state()
        assert journal.last_index() >= last
        assert (state.term, state.vote) >= (term, "n1")
        assert state.commit >= commit
        log = log_of(journal)
        assert [e.data for e in log] == [data_of(e.index) for e in log]
        assert not journal.closed_well
        journal.abandon()
    assert journal.first_index() > 100, "it was compacted on the way"

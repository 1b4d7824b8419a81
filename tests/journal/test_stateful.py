"""The journal against a model, with crashes in the middle of anything."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.journal.model import Ordeal, random_ordeal

few = st.integers(0, 5)


class JournalMachine(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.ordeal = Ordeal(seed)

    @rule(count=few, back=few, data=st.integers(0, 7), raise_term=st.booleans(), commit=few)
    def append(self, count: int, back: int, data: int, raise_term: bool, commit: int) -> None:
        self.ordeal.append(count, back, data, raise_term, commit)

    @rule()
    def vote(self) -> None:
        self.ordeal.vote()

    @rule(behind=few)
    def compact(self, behind: int) -> None:
        self.ordeal.compact(behind)

    @rule(ahead=few)
    def restore(self, ahead: int) -> None:
        self.ordeal.restore(ahead)

    @rule()
    def close(self) -> None:
        self.ordeal.close()

    @rule()
    def kill(self) -> None:
        self.ordeal.kill()

    @rule()
    def crash(self) -> None:
        self.ordeal.crash()

    @rule(operations=st.integers(0, 15))
    def cut_power_in(self, operations: int) -> None:
        self.ordeal.cut_power_in(operations)

    @rule(kind=st.sampled_from(["enospc", "eio_sync", "eio_write"]), after=few)
    def order_a_fault(self, kind: str, after: int) -> None:
        self.ordeal.order_fault(kind, after)

    @rule()
    def flip(self) -> None:
        self.ordeal.flip()


TestJournal = JournalMachine.TestCase
TestJournal.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_rule_16_and_45_over_many_seeds() -> None:
    """And every kind of fault came up that the ordeal orders."""
    counts: Counter[str] = Counter()
    refused = 0
    for seed in range(1000, 1050):
        ordeal = random_ordeal(seed, 40)
        counts += ordeal.disk.counts
        refused += ordeal.refused
    kinds = {"lost_write", "torn_write", "lost_name", "enospc", "eio_write", "eio_sync"}
    assert kinds <= counts.keys(), counts
    assert refused > 20, "a changed bit has to be noticed"


@pytest.mark.parametrize("operation", range(40))
def test_rule_1_power_may_go_out_anywhere(operation: int) -> None:
    """The same story with a cut in each of its operations on the disk."""
    for seed in range(5):
        ordeal = Ordeal(seed)
        ordeal.append(3, 0, 3, False, 0)
        ordeal.cut_power_in(operation)
        ordeal.vote()
        ordeal.append(5, 2, 4, True, 1)
        ordeal.append(5, 0, 5, False, 4)
        ordeal.compact(1)
        ordeal.restore(6)
        ordeal.append(2, 0, 7, True, 1)
        ordeal.crash()

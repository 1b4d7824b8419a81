"""Every mutation is noticed by the test that is named beside it; some also by random schedules."""

from __future__ import annotations

import pytest

from tests.raft.schedules import Schedule

from .table import TABLE, Mutation
from .tool import applied, complaint, complaint_of_test, find_test

SEEN_BY_SCHEDULES = {"always-truncate": 0, "no-2015-correction": 20, "lone-voter-at-once": 524}
"""By which seed. The last was found so, before anybody had thought of it: whoever changes the schedules looks for a new one,
with `python -m tests.mutate --seeds 6000 lone-voter-at-once`."""


@pytest.mark.parametrize("mutation", TABLE, ids=lambda mutation: mutation.name)
def test_is_noticed(mutation: Mutation) -> None:
    test = find_test(mutation)
    assert complaint(test) == "", "the test fails without the mutation"
    assert complaint_of_test(mutation)
    assert complaint(test) == "", "the mutation is not undone"


@pytest.mark.parametrize("name", SEEN_BY_SCHEDULES)
def test_is_noticed_by_a_schedule(name: str) -> None:
    mutation = next(mutation for mutation in TABLE if mutation.name == name)
    seed = SEEN_BY_SCHEDULES[name]
    assert complaint(Schedule(seed).run) == ""
    with applied(mutation):
        assert complaint(Schedule(seed).run)


def test_names_are_unique() -> None:
    assert len({mutation.name for mutation in TABLE}) == len(TABLE)

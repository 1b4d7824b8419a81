"""Every mutation is noticed by the test that is named beside it; some also by random schedules."""

from __future__ import annotations

import pytest

from tests.raft.schedules import Schedule

from .table import TABLE, Mutation
from .tool import complaint, complaint_of_test, find_test, first_seed

SEEN_BY_SCHEDULES = ["always-truncate", "vote-for-anybody", "no-2015-correction", "read-without-quorum"]
SEEDS = 60


@pytest.mark.parametrize("mutation", TABLE, ids=lambda mutation: mutation.name)
def test_is_noticed(mutation: Mutation) -> None:
    test = find_test(mutation)
    assert complaint(test) == "", "the test fails without the mutation"
    assert complaint_of_test(mutation)
    assert complaint(test) == "", "the mutation is not undone"


@pytest.mark.parametrize("name", SEEN_BY_SCHEDULES)
def test_is_noticed_by_a_schedule(name: str) -> None:
    mutation = next(mutation for mutation in TABLE if mutation.name == name)
    found = first_seed(mutation, SEEDS)
    assert found is not None
    Schedule(found[0]).run()


def test_names_are_unique() -> None:
    assert len({mutation.name for mutation in TABLE}) == len(TABLE)

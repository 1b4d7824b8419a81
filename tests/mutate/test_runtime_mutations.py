"""Mutations of the runtime that almost any seed of the simulated cluster notices. All: `python -m tests.mutate --runtime`."""

from __future__ import annotations

from pathlib import Path

import pytest

from .runtime import TABLE, first_seed_of_cluster

QUICK = [
    "answer-before-applied",
    "do-not-wait-for-the-disk",
    "apply-by-own-time",
    "log-without-sessions",
    "forget-what-a-session-saw",
    "full-is-durable",
    "trust-after-power-cut",
]
SEEDS = 20
"""A change of the package makes other runs of the same seeds: so many are tried."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", QUICK)
def test_is_noticed_by_a_seed(name: str) -> None:
    mutation = next(mutation for mutation in TABLE if mutation.name == name)
    assert first_seed_of_cluster(mutation, [mutation.seed, *range(SEEDS)]) is not None


def test_names_are_unique() -> None:
    assert len({mutation.name for mutation in TABLE}) == len(TABLE)


def test_the_page_has_the_same_table() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "simulator.md").read_text(encoding="utf-8")
    rows = [line for line in page.split("## Mutations", 1)[1].splitlines() if line.startswith("| `")]
    assert rows == [f"| `{one.name}` | {one.what} | {one.profile} {one.seed} |" for one in TABLE]

"""Interleaved rounds: every backend for a moment, one after the other, and again from the start.

The speed of the machine changes under a run; in this order it changes under all backends alike.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from benchmarks.measures import NotMeasured, Subject

Result = TypeVar("Result")


class Work(Protocol):
    """One measure, as the rounds drive it."""

    def prepare(self, subject: Subject) -> None:
        """Store what this backend needs and check that it answers rightly."""

    def batch(self, subject: Subject) -> list[float]:
        """Measure this backend for a moment; returns its samples."""

    def close(self) -> None:
        """Let go of threads and processes."""


@dataclass
class Row:
    """The rounds of one backend in one measure; None where one failed or was left out, and then why."""

    rounds: list[list[float] | None] = field(default_factory=list)
    error: str | None = None
    skipped: str | None = None

    @property
    def measured(self) -> bool:
        """Whether any round has a sample."""
        return any(self.rounds)


def run(work: Work, subjects: Sequence[Subject], round_count: int, progress: Callable[[str], None]) -> dict[str, Row]:
    """Measure all subjects in interleaved rounds.

    Arguments: the work; the backends; how many rounds; where lines about progress go.
    Returns: a row for each subject by its name. One that raises gets its error in its row, sits out the rest, and does
    not stop the others.
    """
    rows = {subject.name: Row() for subject in subjects}
    try:
        for subject in subjects:
            _guarded(rows[subject.name], subject, work.prepare, progress)
        gc.collect()
        for number in range(round_count):
            turn = number % len(subjects) if subjects else 0
            # Whoever comes after a slow backend finds other caches and another clock: so the first place goes round.
            for subject in [*subjects[turn:], *subjects[:turn]]:
                row = rows[subject.name]
                row.rounds.append(None if row.error or row.skipped else _guarded(row, subject, work.batch, progress))
    finally:
        work.close()
    return rows


def _guarded(
    row: Row, subject: Subject, step: Callable[[Subject], Result], progress: Callable[[str], None]
) -> Result | None:
    try:
        return step(subject)
    except NotMeasured as reason:
        row.skipped = str(reason)
        progress(f"    {subject.name}: left out: {reason}")
        return None
    except Exception as error:
        row.error = f"{type(error).__name__}: {error}"[:300]
        progress(f"    {subject.name}: {row.error}")
        return None

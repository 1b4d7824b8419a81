"""The arithmetic of the benchmarks: medians, percentiles, ratios between backends, and what counts as a tie.

Nothing here knows Django or a clock, so all of it is tested with plain lists.

The speed of a machine drifts within a run. A *round* therefore measures every backend for a moment, one after the
other, and a ratio is taken within each round, between neighbours in time. What is reported is the median of those
ratios, which stays put when the clock does not; the quotient of two medians over the whole run would not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: Two figures closer than this factor are not told apart: so much do repeated runs differ on a shared machine.
TIE_FACTOR = 1.3

#: One round of one backend: its samples, or None where the round failed.
Round = Sequence[float] | None


def percentile(values: Iterable[float], fraction: float) -> float:
    """The value below which ``fraction`` of the values lie, interpolated between neighbours.

    Arguments: values, at least one and in any order; fraction between 0 and 1.
    Errors: ValueError without values or with a fraction outside its range.
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("a percentile needs at least one value")
    if not 0 <= fraction <= 1:
        raise ValueError(f"a percentile's fraction lies between 0 and 1, not at {fraction}")
    position = fraction * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    weight = position - below
    return ordered[below] * (1 - weight) + ordered[above] * weight


def median(values: Iterable[float]) -> float:
    """The middle value; the mean of the middle two where their number is even."""
    return percentile(values, 0.5)


@dataclass(frozen=True)
class Summary:
    """What one backend did in one measure. ``round_medians`` has None where a round failed."""

    median: float
    p99: float | None
    round_medians: tuple[float | None, ...]
    sample_count: int


def summarize(rounds: Sequence[Round], *, with_p99: bool = True) -> Summary:
    """Sum up the rounds of one backend.

    Arguments: rounds as lists of samples, None or empty where one failed; with_p99 False where a sample is already an
    aggregate, whose tail means nothing.
    Returns: a Summary. Its median is that of the rounds' medians, so a round with many samples counts no more than
    another; its p99 is taken over all samples.
    Errors: ValueError when no round has a sample.
    """
    medians = tuple(median(samples) if samples else None for samples in rounds)
    kept = [value for value in medians if value is not None]
    if not kept:
        raise ValueError("no round has a sample")
    pooled = [sample for samples in rounds if samples for sample in samples]
    return Summary(
        median=median(kept),
        p99=percentile(pooled, 0.99) if with_p99 else None,
        round_medians=medians,
        sample_count=len(pooled),
    )


@dataclass(frozen=True)
class Ratio:
    """A quotient of two backends, round by round: its median and the middle half of its values."""

    median: float
    low: float
    high: float
    round_count: int


def ratio(of: Sequence[float | None], to: Sequence[float | None]) -> Ratio | None:
    """The same-round ratio of two rows of round medians.

    Arguments: the two rows; a round counts only where both have a value and the divisor is not zero.
    Returns: the Ratio, or None where no round has both.
    """
    quotients = [one / other for one, other in zip(of, to, strict=False) if one is not None and other]
    if not quotients:
        return None
    return Ratio(
        median=median(quotients),
        low=percentile(quotients, 0.25),
        high=percentile(quotients, 0.75),
        round_count=len(quotients),
    )


def is_tie(value: float, factor: float = TIE_FACTOR) -> bool:
    """Whether a ratio is too close to 1 to name a winner."""
    return 1 / factor < value < factor


def net_of_overhead(samples_ns: Iterable[int], overhead_ns: float) -> list[float]:
    """Samples in microseconds without the time that reading the clock took; never below zero."""
    return [max(sample - overhead_ns, 0.0) / 1000 for sample in samples_ns]

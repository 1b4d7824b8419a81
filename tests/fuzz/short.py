"""The form of the fuzzer that needs nothing: changes of known inputs, by chance or by a seed."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from .mutate import corpus, mutate
from .seeds import seeds
from .targets import TARGETS


def inputs(target: str, rng: random.Random) -> Iterator[bytes]:
    """All known inputs of a target, then changes of them without end."""
    known = [*corpus(target), *seeds(target)]
    yield from known
    while True:
        found = mutate(rng.choice(known), rng)
        yield found
        if rng.random() < 0.05:
            known.append(found)  # changes of changes, too
            if len(known) > 2_000:
                del known[: len(known) // 2]


def run(target: str, seed: int, *, count: int | None = None, seconds: float | None = None) -> int:
    """Hold inputs against a target until their number or the time is over.

    Returns:
        How many there were.
    Raises:
        Exception: what the target raised, with the input in a note.
    """
    ends_at_s = time.monotonic() + seconds if seconds is not None else float("inf")
    done = 0
    for data in inputs(target, random.Random(seed)):
        if done == count or time.monotonic() > ends_at_s:
            break
        try:
            TARGETS[target](data)
        except Exception as error:
            error.add_note(f"Target {target}, seed {seed}, input {done}: {data.hex()}")
            raise
        done += 1
    return done

"""The keys and values that all backends are given: the same in every process and every run."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SEED = 20_240_229


def text(size_bytes: int) -> str:
    """An ASCII string of this size that doesn't compress to nothing, as a run of one letter would."""
    return base64.b64encode(random.Random(SEED).randbytes(size_bytes)).decode()[:size_bytes]


def nested_dict() -> dict[str, Any]:
    """A nested dict such as a view caches it; its pickle takes about 1 KB."""
    return {
        "id": 48_213,
        "title": "Benchmarks that mean something",
        "slug": "benchmarks-that-mean-something",
        "published": True,
        "score": 0.8731,
        "author": {"id": 17, "name": "Ada Lovelace", "groups": ["staff", "editors"]},
        "tags": [{"id": number, "label": f"label {number}"} for number in range(12)],
        "counts": {"views": 120_394, "comments": 88, "bookmarks": 1_207},
        "excerpt": text(360),
        "related": [4_711, 4_712, 4_713, 9_001],
    }


@dataclass(frozen=True)
class Plan:
    """How much a run does. The quick plan is for trying things out: its figures are rough."""

    rounds: int = 15
    batch_ms: float = 25.0
    sample_count_max: int = 2_000
    key_count: int = 1_000
    mix_seconds: float = 0.4
    process_count: int = 4
    thread_count: int = 4
    concurrent_count: int = 100
    small_store_keys: int = 5_000
    large_store_keys: int = 500_000
    load_limit_seconds: float = 60.0
    uvloop: bool = False

    @property
    def batch_ns(self) -> int:
        """How long one backend is measured for in one round."""
        return int(self.batch_ms * 1_000_000)


QUICK = Plan(
    rounds=3,
    batch_ms=4.0,
    sample_count_max=500,
    key_count=100,
    mix_seconds=0.1,
    small_store_keys=500,
    large_store_keys=5_000,
    load_limit_seconds=5.0,
)


def keys(count: int, name: str = "article") -> list[str]:
    """Keys like a site's own, in an order that has nothing to do with the store's."""
    found = [f"bench:{name}:{number}" for number in range(count)]
    random.Random(SEED).shuffle(found)
    return found


def chunks(items: list[str], size: int) -> Iterator[list[str]]:
    """The items in lists of this size; the last may be shorter."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def mix(seed: int, key_count: int) -> list[tuple[bool, str]]:
    """A pattern of 90 % reads and 10 % writes over shared keys: pairs of whether to write, and the key."""
    dice = random.Random(seed)
    population = keys(key_count, "mixed")
    return [(dice.random() < 0.1, dice.choice(population)) for _ in range(2_000)]

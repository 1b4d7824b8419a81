"""Processes that take locks and make values."""

from __future__ import annotations

import time
from typing import Any

from tests.multiprocess.actors import hear, make_cache, say


def make(location: str) -> Any:
    """A cache on a store's folder or a node."""
    return make_cache(location)


def acquire(location: str, times: int) -> None:
    """Take one lock so many times, when told to; say the tokens, and which numbers of a counter were found inside."""
    cache = make(location)
    say("ready")
    hear()
    tokens, found = [], []
    for _ in range(times):
        with cache.lock("job", timeout=60, wait=60) as lease:
            tokens.append(lease.token)
            number = cache.get("counter", 0)  # not atomic: the lock alone keeps others from the same number
            cache.set("counter", number + 1, None)
            found.append(number)
    say({"tokens": tokens, "found": found})


def get_or_set(location: str, name: str, options: dict[str, Any], slow_s: float) -> None:
    """Ask for one value that takes time to make, when told to; say what came, and what was made here."""
    cache = make(location)
    made = []

    def slow() -> str:
        time.sleep(slow_s)
        made.append(name)
        return f"made by {name}"

    say("ready")
    hear()
    started_s = time.monotonic()
    value = cache.get_or_set("value", slow, 60, **options)
    say({"value": value, "made": made, "took_s": time.monotonic() - started_s})


def die(location: str, how: str) -> None:
    """Hold a lock, or a lease to make a value, until somebody kills this process."""
    cache = make(location)

    def hold() -> None:
        say("holding")
        hear()

    if how == "lock":
        with cache.lock("job", timeout=0.5):
            hold()
    else:
        cache.get_or_set("value", hold, lock=0.5)

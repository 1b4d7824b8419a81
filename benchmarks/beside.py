"""What a get waits for while something long runs on the same connection.

``python benchmarks/beside.py`` starts a node, fills it, and sends one get after the other on one connection: first alone, then
while a listing of all keys, a search through them and a script are under way there, and beside large batches. Requests are
frames, as in ``node.py``; a page of a listing is asked for as soon as the one before it has come.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.node import Connection, LoadFailed, Plan
from django_keyspace.store.scripting.values import encode as encode_arguments
from django_keyspace.testing import running_node
from django_keyspace.wire import OK

FILL_KEYS = 10_000
BATCH_KEYS = 1_000
PAGE_ROWS = 1_000
SCRIPT = "function spin() local n = 0; for i = 1, 30000000 do n = n + i end; return n end"

Next = Callable[[Any], "tuple[Any, ...] | None"]
"""Makes the next long request from the result of the one before (None for the first); None when all is done."""


def key(number: int) -> bytes:
    return b"key%08d" % number


def nothing(rounds: int) -> Next:
    """No request at all, for so many gets."""
    left = iter(range(rounds))
    return lambda result: None if next(left, None) is None else ()


def listing(with_values: bool) -> Next:
    """All keys, page by page."""

    def make(result: Any) -> tuple[Any, ...] | None:
        if result is None:
            return ("list", 0, b"key", b"", False, True, PAGE_ROWS, with_values)
        rows, more = result
        if not more:
            return None
        last = rows[-1][0] if with_values else rows[-1]
        return ("list", 0, b"key", last, "after", True, PAGE_ROWS, with_values)

    return make


def search() -> Next:
    """An expression that no key matches, slice by slice."""

    def make(result: Any) -> tuple[Any, ...] | None:
        if result is not None and result[1] is None:
            return None
        return ("match_regex", 0, b"key", b"nothing$", b"" if result is None else result[1], PAGE_ROWS)

    return make


def calls(*requests: tuple[Any, ...]) -> Next:
    """These requests, one after the other."""
    left: Iterator[tuple[Any, ...]] = iter(requests)
    return lambda result: next(left, None)


def kinds(keys: int) -> dict[str, Next]:
    """What runs beside the gets, by its title."""
    dice = random.Random(1)
    batches = [tuple(key(dice.randrange(keys)) for _ in range(BATCH_KEYS)) for _ in range(50)]
    found = {
        "nothing": nothing(3_000),
        f"a list of {keys:,} keys": listing(False),
        "the same with values": listing(True),
        "gets of 1,000 keys at once": calls(*[("get_many", 0, batch) for batch in batches]),
        "sets of 1,000 keys at once": calls(
            *[("set_many", 0, tuple((name, (1, 0, b"x" * 100)) for name in batch), None) for batch in batches]
        ),
    }
    if importlib.util.find_spec("re2") is not None:
        found[f"an expression over {keys:,} keys"] = search()
    if importlib.util.find_spec("lupa") is not None:
        script = (((SCRIPT.partition("(")[0].split()[1], SCRIPT),), "kyoto", "spin", encode_arguments([]), 0, 0, 30_000)
        found["a script that only counts"] = calls(("script", 0, b"", *script))
    return found


def gets_beside(connection: Connection, make: Next, keys: int) -> tuple[list[float], int, float]:
    """Get one key after the other while the long requests are under way.

    Returns:
        Milliseconds of each get, the number of long requests, and the seconds that they took together.
    """
    dice = random.Random(2)
    times_ms: list[float] = []
    began_s = time.perf_counter()
    long_count, long_id, request = 0, 0, make(None)
    while request is not None:
        if request and not long_id:
            long_id = connection.last_id = connection.last_id + 1
            long_count += 1
            connection.socket.sendall(connection.encode((long_id, *request)))
        get_id = connection.last_id = connection.last_id + 1
        sent_s = time.perf_counter()
        connection.socket.sendall(connection.encode((get_id, "get", 0, key(dice.randrange(keys)))))
        while get_id:
            for body in connection.receive():
                came_s = time.perf_counter()
                request_id, status, result = connection.decode(body)
                if status != OK:
                    raise LoadFailed(f"The node refused a request: {status}: {result}")
                if request_id == get_id:
                    times_ms.append((came_s - sent_s) * 1000)
                    get_id = 0
                else:
                    long_id, request = 0, make(result)
        if request == ():
            request = make(None)
    return times_ms, long_count, time.perf_counter() - began_s


def ask(connection: Connection, *request: Any) -> Any:
    """One request by itself."""
    connection.last_id += 1
    connection.socket.sendall(connection.encode((connection.last_id, *request)))
    bodies: list[bytes] = []
    while not bodies:
        bodies = connection.receive()
    _, status, result = connection.decode(bodies[0])
    if status != OK:
        raise LoadFailed(f"The node refused a request: {status}: {result}")
    return result


def measure(keys: int, kind: str) -> list[dict[str, Any]]:
    """Start a node, fill it, and measure each kind. Figures by name, one row for each."""
    rows = []
    with (
        tempfile.TemporaryDirectory(prefix="keyspace-beside-") as scratch,
        running_node(data=Path(scratch) / "n1") as node,
    ):
        address = str(node.data / "node.sock") if kind == "unix" else node.address
        connection = Connection(Plan(kind, address, None, 1, 1, 1.0, 100, 0.0, 0), random.Random(0))
        for first in range(0, keys, FILL_KEYS):
            numbers = range(first, min(first + FILL_KEYS, keys))
            ask(connection, "set_many", 0, [(key(number), connection.value) for number in numbers], None)
        for title, make in kinds(keys).items():
            times_ms, requests, seconds = gets_beside(connection, make, keys)
            times_ms.sort()
            places = {name: times_ms[min(int(len(times_ms) * part), len(times_ms) - 1)] for name, part in PARTS.items()}
            rows.append({"beside": title, "gets": len(times_ms), "requests": requests, "seconds": seconds, **places})
        connection.socket.close()
    return rows


PARTS = {"p50_ms": 0.5, "p99_ms": 0.99, "max_ms": 1.0}


def main(given: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure gets beside something long on the same connection.")
    parser.add_argument("--keys", type=int, default=1_000_000, help="in the store (default: 1,000,000)")
    parser.add_argument("--kind", choices=("tcp", "unix"), default="tcp", help="the way to the node")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args(given)
    if options.keys < 1:
        parser.error("There must be 1 key or more.")
    try:
        rows = measure(options.keys, options.kind)
    except LoadFailed as error:
        print(error, file=sys.stderr)
        return 1
    print(
        "| beside the gets | long requests | in s | gets | p50 ms | p99 ms | longest ms |\n|---|---|---|---|---|---|---|"
    )
    for row in rows:
        figures = " | ".join(f"{row[name]:.2f}" for name in PARTS)
        print(f"| {row['beside']} | {row['requests']} | {row['seconds']:.1f} | {row['gets']} | {figures} |")
    if options.json:
        options.json.write_text(json.dumps(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())

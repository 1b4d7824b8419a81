"""``python -m tests.soak --minutes 60``: the long form."""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

from .run import soak
from .workers import Broken


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description="Check every acknowledged write of a node for long."
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=60.0, help="How long (default: 60).")
    length.add_argument("--seconds", type=float, help="The same in seconds.")
    parser.add_argument("--seed", type=int, default=None, help="Of all choices; a fresh one if it is not given.")
    options = parser.parse_args()
    seed = secrets.randbits(32) if options.seed is None else options.seed
    seconds = options.seconds if options.seconds is not None else options.minutes * 60
    print(f"Seed {seed}, {seconds:.0f} seconds")
    try:
        with tempfile.TemporaryDirectory(prefix="keyspace-soak-") as folder:
            report = soak(seconds, seed, Path(folder) / "n1", say=lambda line: print(line, flush=True))
    except Broken as error:
        print(f"BROKEN: {error}", file=sys.stderr)
        return 1
    print("\n".join(report.lines()))
    return 0


if __name__ == "__main__":
    sys.exit(main())

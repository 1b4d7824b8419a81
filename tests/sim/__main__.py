"""`python -m tests.sim`: one seed step by step, many seeds with their totals, or a search with fresh ones."""

from __future__ import annotations

import argparse
import os
import sys
from itertools import count
from random import SystemRandom
from time import monotonic

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

from tests.sim.profiles import PROFILES
from tests.sim.run import Outcome, commit, run_many, run_seed

SEEDS_FOR_KINDS = 300
"""A range of so many seeds, or more, has to show every kind of fault."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--seed", type=int, metavar="N", help="replay one seed and tell what happens")
    what.add_argument("--seeds", metavar="A-B", help="run all seeds from A to B and print totals")
    what.add_argument("--minutes", type=float, metavar="M", help="search with fresh seeds for so long")
    parser.add_argument("--profile", choices=[profile.name for _, profile in PROFILES], help="one mix of faults only")
    parser.add_argument("--jobs", type=int, default=1, metavar="J", help="processes (1)")
    parser.add_argument(
        "--from", dest="begin", type=float, default=0.0, metavar="S", help="tell nothing before second S"
    )
    parser.add_argument("--to", dest="end", type=float, default=1e9, metavar="S", help="and nothing after second S")
    parser.add_argument("--quiet", action="store_true", help="tell nothing but the end")
    options = parser.parse_args()
    if options.seed is not None:
        return replay(options)
    if options.seeds is not None:
        first, _, last = options.seeds.partition("-")
        seeds = range(int(first), int(last or first) + 1)
        until_s = None
    else:
        first_seed = SystemRandom().randrange(10**6, 10**9)
        print(f"Fresh seeds from {first_seed}, at commit {commit()}", flush=True)
        seeds = count(first_seed)
        until_s = monotonic() + 60 * options.minutes
    totals = run_many(seeds, profile=options.profile, jobs=options.jobs, until_s=until_s, tell=tell_failure)
    print("\n".join(totals.lines()))
    if totals.failures:
        failed = ", ".join(str(outcome.seed) for outcome in totals.failures[:50])
        print(f"Failed at commit {commit()}: seeds {failed}", file=sys.stderr)
    lacks = bool(totals.missing) and options.profile is None and totals.seeds >= SEEDS_FOR_KINDS
    return 1 if totals.failures or lacks else 0


def replay(options: argparse.Namespace) -> int:
    """Tell what happens in one seed."""

    def say(line: str) -> None:
        if options.begin <= float(line[:11]) <= options.end:
            print(line)

    outcome = run_seed(options.seed, options.profile, None if options.quiet else say)
    print(
        f"Seed {outcome.seed}, {outcome.profile}, at commit {commit()}: {outcome.virtual_us / 1e6:.1f} virtual seconds, "
        f"{outcome.operations} operations of clients, digest {outcome.digest:08x}"
    )
    if outcome.failure:
        print(outcome.failure)
    return 1 if outcome.failure else 0


def tell_failure(outcome: Outcome) -> None:
    if outcome.failure:
        profile = f"{outcome.profile}; replay: python -m tests.sim --seed {outcome.seed}"
        print(f"FAILED: seed {outcome.seed} ({profile}), commit {commit()}\n{outcome.failure[-3000:]}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

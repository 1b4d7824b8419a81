"""`python -m tests.mutate [--seeds N] [--runtime] [name ...]`: try mutations and print which test and which seed notices."""

from __future__ import annotations

import argparse
import os
import sys

from .table import TABLE
from .tool import complaint_of_test, first_seed

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
RUNTIME_SEEDS = 250


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutate", description=__doc__)
    parser.add_argument("names", nargs="*", help="mutations to try; by default all")
    parser.add_argument("--seeds", type=int, default=0, metavar="N", help="also try up to N random schedules for each")
    parser.add_argument("--verbose", action="store_true", help="say what the test complained of")
    parser.add_argument(
        "--runtime", action="store_true", help="those of the runtime, by seeds of the simulated cluster"
    )
    options = parser.parse_args()
    if options.runtime:
        return try_runtime(options.names, options.seeds or RUNTIME_SEEDS)
    unknown = set(options.names) - {mutation.name for mutation in TABLE}
    if unknown:
        parser.error(f"no such mutation: {', '.join(sorted(unknown))}")
    missed = 0
    print("| rule | mutation | caught by | seed |\n|---|---|---|---|")
    for mutation in TABLE:
        if options.names and mutation.name not in options.names:
            continue
        said = complaint_of_test(mutation)
        missed += not said
        found = first_seed(mutation, options.seeds) if options.seeds else None
        seed = f"{found[0]}: {found[1]}" if found else "-"
        print(
            f"| {mutation.rule} | {mutation.name} | {mutation.caught_by if said else '**nobody**'} | {seed} |",
            flush=True,
        )
        if options.verbose:
            print(f"    {said}")
    if missed:
        print(f"\n{missed} mutations were not noticed by their test.", file=sys.stderr)
    return 1 if missed else 0


def try_runtime(names: list[str], seeds: int) -> int:
    """Try the mutations of the runtime: with the seed that is named beside each, and if that says nothing, with others."""
    from .runtime import TABLE as RUNTIME_TABLE
    from .runtime import first_seed_of_cluster

    missed = 0
    print("| mutation | what the node does | seed | says |\n|---|---|---|---|")
    for mutation in RUNTIME_TABLE:
        if names and mutation.name not in names:
            continue
        found = first_seed_of_cluster(mutation, [mutation.seed, *range(seeds)])
        missed += found is None
        seed, said = found or ("-", "**nobody**")
        print(f"| {mutation.name} | {mutation.what} | {mutation.profile} {seed} | {said} |", flush=True)
    if missed:
        print(f"\n{missed} mutations were not noticed.", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

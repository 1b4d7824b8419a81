"""`python -m tests.mutate [--seeds N] [name ...]`: try mutations and print which test and which seed notices."""

from __future__ import annotations

import argparse
import sys

from .table import TABLE
from .tool import complaint_of_test, first_seed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutate", description=__doc__)
    parser.add_argument("names", nargs="*", help="mutations to try; by default all")
    parser.add_argument("--seeds", type=int, default=0, metavar="N", help="also try up to N random schedules for each")
    parser.add_argument("--verbose", action="store_true", help="say what the test complained of")
    options = parser.parse_args()
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


if __name__ == "__main__":
    sys.exit(main())

"""The command line of the benchmarks that compare some subjects in one run: what they choose from, and what they print."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks import budgets, report
from benchmarks.budgets import Budget
from benchmarks.data import QUICK, Plan


def parse(
    arguments: Sequence[str] | None,
    description: str | None,
    *,
    subjects: Iterable[str],
    measures: Iterable[str],
    batch_ms: float,
    budgets_help: str,
) -> argparse.Namespace:
    """The options; their ``plan`` is the Plan that they make, ``only`` and ``measures`` are lists of what was chosen.

    Arguments:
        arguments: the flags, ``sys.argv`` if None.
        description: what the program is.
        subjects: what may be measured.
        measures: how it may be measured.
        batch_ms: how long a batch of the full plan takes.
        budgets_help: what ``--budgets`` compares with.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes, with rough figures")
    parser.add_argument("--only", metavar="A,B", help=f"of {', '.join(subjects)}")
    parser.add_argument("--measures", metavar="A,B", help=f"of {', '.join(measures)}")
    parser.add_argument("--rounds", type=int, help="interleaved rounds per measure")
    parser.add_argument("--folder", type=Path, help="where the files lie; the system's temporary folder otherwise")
    parser.add_argument("--json", type=Path, help="write the whole result to this file")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    parser.add_argument("--budgets", action="store_true", help=budgets_help)
    options = parser.parse_args(arguments)
    for name, known in (("only", subjects), ("measures", measures)):
        chosen = (getattr(options, name) or ",".join(known)).split(",")
        if unknown := [each for each in chosen if each not in known]:
            parser.error(f"--{name}: {', '.join(unknown)} is not one of {', '.join(known)}")
        setattr(options, name, chosen)
    plan = QUICK if options.quick else Plan(batch_ms=batch_ms)
    options.plan = dataclasses.replace(plan, rounds=options.rounds or plan.rounds)
    return options


def publish(found: report.Report, options: argparse.Namespace, judged: Sequence[Budget]) -> int:
    """Print what was found, and write it where the options say.

    Returns:
        The exit code: 1 where a must is not kept or not shown.
    """
    verdicts = budgets.judge_all(judged, found) if options.budgets else []
    found["budgets"] = [verdict.as_json() for verdict in verdicts]
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    print(report.tables(found, options.markdown))
    if verdicts:
        print("\n" + report.budget_table(verdicts, None, options.markdown))
    return int(any(verdict.failed for verdict in verdicts))

"""Run Django's own cache tests: ``python -m tests.django_suite --engine embedded [labels] [-v]``."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from .engines import ENGINES, EngineFailed
from .runner import Report, UnknownLabel, run
from .sdist import SdistUnavailable, django_tests_folder
from .suites import NOT_APPLICABLE, SUITES, SuiteMismatch


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for; 0 means that everything passed, 1 that not, 2 that nothing could run."""
    parser = argparse.ArgumentParser(prog="python -m tests.django_suite", description="Run Django's own cache tests.")
    parser.add_argument("labels", nargs="*", metavar="label", help=f"{', '.join(SUITES)}, a class, or Class.test_name")
    parser.add_argument("--engine", choices=sorted(ENGINES), default="embedded", help="where the caches live")
    parser.add_argument("-v", "--verbose", action="store_true", help="print the name of each test")
    parser.add_argument("--report", type=Path, help="also write the outcome to this file, as JSON")
    options = parser.parse_args(arguments)
    # A run that is told to end must still stop its engine.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        report = _run_on_engine(options.engine, options.labels, 2 if options.verbose else 1)
    except (SdistUnavailable, EngineFailed, SuiteMismatch, UnknownLabel) as error:
        print(error, file=sys.stderr)
        return 2
    if options.report:
        options.report.write_text(json.dumps(asdict(report)))
    return _summarize(options.engine, report)


def _run_on_engine(name: str, labels: list[str], verbosity: int) -> Report:
    tests_folder = django_tests_folder()
    engine = ENGINES[name]()
    engine.start()
    report = None
    try:
        report = run(engine, tests_folder, labels, verbosity)
    finally:
        try:
            engine.stop()
        except EngineFailed as error:
            # With a report the engine's end is one more problem; without one, the first error is the one to show.
            if report is not None:
                report.problems.append(str(error))
    return report


def _summarize(engine: str, report: Report) -> int:
    for problem in report.problems:
        print(f"PROBLEM: {problem}")
    for name, reason in NOT_APPLICABLE.items():
        print(f"left out: {name}: {reason}")
    verdict = "all passed" if not report.problems else f"{len(report.problems)} problem(s)"
    print(f"Django's tests on engine {engine}: {report.ran} ran, {len(report.skipped)} skipped, {verdict}")
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())

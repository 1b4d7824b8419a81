"""Django's own cache, session, middleware and template fragment tests, on every engine.

Nothing here is ever skipped: without Django's source distribution these tests fail and say how to get it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from . import sdist, suites
from .engines import ENGINES

RUN_TIMEOUT_S = 240
STOP_TIMEOUT_S = 30
# The engine that is not ours checks the runner; running Django's cache through its async twins would check Django. With TLS
# the contract's tests run all; of Django's, a small one (the others: python -m tests.django_suite --engine node-tls). Of three
# nodes, the cache's are what matters.
NOT_NEEDED = {
    ("locmem", "async"),
    *(("node-tls", suite) for suite in suites.SUITES if suite != "fragments"),
    *(("cluster", suite) for suite in suites.SUITES if suite not in ("cache", "async")),
}

# A backend that stores nothing, run in place of ours: the runner must notice.
BROKEN_ENGINE = """
import sys
from tests.django_suite import __main__, engines
engines.ENGINES["broken"] = type("Broken", (engines.LocMemEngine,), {
    "backend": "django.core.cache.backends.dummy.DummyCache"})
sys.exit(__main__.main(["--engine", "broken", "KeyspaceMultipleCachesTests", "test_load_overlong_key"]))
"""


def run_python(*arguments: str) -> tuple[int, str]:
    """Run Python in the project's folder; return its exit code and the tail of what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=sdist.PROJECT_DIR,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A group of its own, so that nothing of an overdue run is left behind.
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=RUN_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            output, _ = process.communicate(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            if sys.platform == "win32":
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
        output += f"\nThe run took longer than {RUN_TIMEOUT_S} seconds and was ended."
    return process.returncode, output[-12_000:]


def combinations() -> list[object]:
    """Return every engine with every suite, marked for what it takes."""
    found = []
    for engine in ENGINES:
        for suite in suites.SUITES:
            if (engine, suite) in NOT_NEEDED:
                continue
            marks = [pytest.mark.slow] if suite in suites.MIXIN_SUITES else []
            marks += [] if engine in ("locmem", "embedded") else [pytest.mark.node]
            found.append(pytest.param(engine, suite, marks=marks, id=f"{engine}-{suite}"))
    return found


@pytest.mark.timeout(sdist.DOWNLOAD_TIMEOUT_S + RUN_TIMEOUT_S + 2 * STOP_TIMEOUT_S)
@pytest.mark.parametrize(("engine", "suite"), combinations())
def test_django_suite(engine: str, suite: str, tmp_path: Path) -> None:
    try:
        sdist.django_tests_folder()
    except sdist.SdistUnavailable as error:
        pytest.fail(str(error), pytrace=False)
    report_file = tmp_path / "report.json"
    code, output = run_python("-m", "tests.django_suite", "--engine", engine, "--report", str(report_file), suite)
    if code != 0 or not report_file.exists():
        pytest.fail(f"Django's {suite} tests on {engine} ended with code {code}:\n{output}", pytrace=False)
    report = json.loads(report_file.read_text())
    assert report["ran"] >= suites.MIN_TESTS[suite], output
    assert set(report["skipped"]) <= set(suites.KNOWN_SKIPS), output


@pytest.mark.timeout(sdist.DOWNLOAD_TIMEOUT_S + RUN_TIMEOUT_S + 2 * STOP_TIMEOUT_S)
def test_runner_notices_a_backend_that_stores_nothing() -> None:
    code, output = run_python("-c", BROKEN_ENGINE)
    assert code == 1, output
    assert "KeyspaceMultipleCachesTests.test_multiple_caches failed" in output
    # The same run also holds tests that pass, so it was not the set-up that failed.
    assert "PROBLEM: CacheSessionTests.test_load_overlong_key" not in output


def test_runner_names_an_unknown_label() -> None:
    code, output = run_python("-m", "tests.django_suite", "--engine", "locmem", "NoSuchTests")
    assert code == 2, output
    assert "NoSuchTests" in output.splitlines()[-1]


def test_every_suite_has_a_lower_bound() -> None:
    assert set(suites.MIN_TESTS) == set(suites.SUITES) == set(suites.CLASSES) | set(suites.MIXIN_SUITES)
    assert min(suites.MIN_TESTS.values()) > 0

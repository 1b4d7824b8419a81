"""Django's test runner with stores and nodes of its own, one set per parallel worker.

``TEST_RUNNER = "django_keyspace.testing.runner.KeyspaceTestRunner"``, or :class:`IsolatedCachesMixin` before another runner of
yours.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, Final

from django.test import runner

from django_keyspace.testing.isolation import isolated_caches

_FOLDER_VARIABLE: Final = "KEYSPACE_TEST_FOLDER"
"""How a worker learns of the folder that the runner removes in the end: a worker ends without cleaning up."""


def init_worker(*arguments: Any, **options: Any) -> None:
    """What a worker does first: what Django wants, and then places of its own for its caches."""
    runner._init_worker(*arguments, **options)  # type: ignore[attr-defined]
    stack = contextlib.ExitStack()
    stack.enter_context(isolated_caches(Path(os.environ[_FOLDER_VARIABLE]) / f"worker-{os.getpid()}"))
    # A worker of multiprocessing runs no atexit handlers, but these.
    Finalize(None, stack.close, exitpriority=100)


class IsolatedParallelTestSuite(runner.ParallelTestSuite):
    """Workers with places of their own."""

    init_worker = init_worker


class IsolatedCachesMixin:
    """For a test runner: no test touches the stores and nodes that the settings name, nor another process's."""

    parallel_test_suite: type[runner.ParallelTestSuite] = IsolatedParallelTestSuite

    def setup_test_environment(self, **options: Any) -> None:
        """Set up, with other places."""
        super().setup_test_environment(**options)  # type: ignore[misc]
        self._places = contextlib.ExitStack()
        folder = self._places.enter_context(
            tempfile.TemporaryDirectory(prefix="keyspace-tests-", ignore_cleanup_errors=True)
        )
        os.environ[_FOLDER_VARIABLE] = folder
        self._places.callback(os.environ.pop, _FOLDER_VARIABLE, None)
        self._places.enter_context(isolated_caches(Path(folder) / "main"))

    def teardown_test_environment(self, **options: Any) -> None:
        """Tear down, and remove them."""
        self._places.close()
        super().teardown_test_environment(**options)  # type: ignore[misc]


class KeyspaceTestRunner(IsolatedCachesMixin, runner.DiscoverRunner):
    """Django's runner, isolated."""
